//! What a failure of one resource stops, and what it does not.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::world::World;

#[test]
fn a_program_that_is_not_fetched_stops_what_needs_it_and_loses_no_certificate() -> Result<()> {
    let world = World::new()?;
    let tree = world.copy(&world.start())?;
    let yaml = tree.root().join("etc/nodeagent/node.yaml");
    let good = fs::read_to_string(&yaml)?;
    let digest = good.split("kube-proxy: { sha256: \"").nth(1).context("the sample locks kube-proxy")?;
    let digest = digest.split('"').next().context("a digest")?;
    fs::write(&yaml, good.replace(digest, &"0".repeat(64)))?;

    for run in ["first", "second"] {
        let ran = tree.run(&["bootstrap", "--output=json"])?;
        ensure!(ran.ended == Ok(4), "{run}: {ran:?}");
        ensure!(!ran.told.contains("mistake"), "{run}: {}", ran.told);
        let shown: Value = serde_json::from_str(&ran.out).with_context(|| ran.out.clone())?;
        let ids = |what: &str| -> Vec<String> {
            let all = shown[what].as_array().into_iter().flatten();
            all.map(|one| one["id"].as_str().unwrap_or_default().to_owned()).collect()
        };
        ensure!(ids("failed") == ["install/kube-proxy"], "{run}: {shown}");
        let link =
            shown["notTried"].as_array().into_iter().flatten().find(|one| one["id"] == "install/kube-proxy-link");
        let link = link.with_context(|| format!("{run}: the link is not among those not tried: {shown}"))?;
        ensure!(link["why"] == "it needs install/kube-proxy", "{run}: {link}");
        for there in ["opt/bin/kubelet", "etc/kubernetes/pki/kubelet-client.pem"] {
            ensure!(fs::symlink_metadata(tree.root().join(there)).is_ok(), "{run}: {there} is not there");
        }
        let theirs = fs::read_link(tree.root().join("etc/kubernetes/kubelet-config.yaml"))?;
        ensure!(theirs == Path::new("mine.yaml"), "{run}: a step was begun");
    }

    // Whoever granted it need not do so again: by now nobody would.
    fs::write(&yaml, good)?;
    fs::write(tree.root().join("etc/nodeagent/cfssl.key"), "ffffffffffffffffffffffffffffffff")?;
    tree.ok(&["bootstrap"])?;
    Ok(())
}
