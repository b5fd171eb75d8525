//! Whole clusters, from an operator's `cluster.yaml`: real Kubernetes, etcd and containerd on real nodes.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use crate::bootstrap::{bootstrapped, nothing_to_do};
use crate::harness::{Cluster, Lab, Node, THREE, cluster, timeline};

/// All of [`THREE`].
const ALL: [&str; 3] = ["controller-1", "worker-1", "worker-2"];

/// The workers of them.
const WORKERS: [&str; 2] = ["worker-1", "worker-2"];

/// What the agent wrote on a machine: each file's digest, each link's end.
pub fn written(node: &Node<'_>) -> Result<BTreeMap<String, String>> {
    let places = ["/etc/kubernetes", "/etc/systemd/system", "/etc/cni", "/opt/bin"];
    let files = node.ok(&[&["find"], &places[..], &["-type", "f", "-exec", "sha256sum", "{}", "+"]].concat())?;
    let links = node.ok(&[&["find"], &places[..], &["-type", "l", "-printf", "%l  %p\n"]].concat())?;
    let all = files.lines().chain(links.lines()).map(|line| line.split_once("  ").context("two columns"));
    all.map(|row| row.map(|(what, path)| (path.to_owned(), what.to_owned()))).collect()
}

#[test]
fn three_machines_become_a_cluster_and_come_back_unchanged() -> Result<()> {
    Lab::run("cluster", |lab| {
        let mut cluster = Cluster::new(lab, &cluster::yaml(lab, &THREE)?, &THREE)?;
        cluster.power_on(&ALL)?;
        let ready = cluster.wait_until_ready(&ALL)?;
        cluster.pods_reach_each_other(&WORKERS)?;
        eprintln!("{}", timeline::table(&cluster, &ready)?);

        let mut before = Vec::new();
        for name in ALL {
            let node = cluster.node(name)?;
            bootstrapped(node)?;
            nothing_to_do(node)?;
            before.push(written(node)?);
        }
        cluster.power_off(&ALL)?;
        cluster.power_on(&ALL)?;
        let ready = cluster.wait_until_ready(&ALL)?;
        eprintln!("{}", timeline::table(&cluster, &ready)?);
        for (name, before) in ALL.iter().zip(before) {
            let node = cluster.node(name)?;
            bootstrapped(node)?;
            nothing_to_do(node)?;
            let after = written(node)?;
            ensure!(before.len() > 10 && before == after, "{name}: {before:#?}\n{after:#?}");
        }
        cluster.pods_reach_each_other(&WORKERS).map(drop)
    })
}
