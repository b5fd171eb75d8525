//! Container images: out of an archive on the mirror into the node's own containerd, and back when it lost them.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::bootstrap::{BOOTSTRAP, bootstrapped, confined_as_documented, nothing_to_do};
use crate::harness::{
    Lab, Node, SERVICES, WORKER, digest,
    image::{self, Image},
};

/// The unit that imports.
const UNIT: &str = "nodeagent-images.service";

/// An image of one program, which differs by version.
fn archive(name: &str, version: &str) -> Result<Vec<u8>> {
    let program = fs::read(Lab::stand_in()?)?;
    let files: [(&str, u32, &[u8]); 2] = [("program", 0o755, &program), ("version", 0o644, version.as_bytes())];
    image::archive(&[Image { name, entrypoint: &["/program", "--version"], files: &files }])
}

/// The names of the images that pods can use, without those by digest that containerd adds.
fn images(node: &Node<'_>) -> Result<Vec<String>> {
    let list = node.ok(&["ctr", "--namespace", "k8s.io", "images", "list", "--quiet"])?;
    Ok(list.lines().filter(|name| !name.starts_with("sha256:")).map(str::to_owned).collect())
}

/// The digest of the archive as it was placed: without its compression.
fn placed_digest(node: &Node<'_>, sha256: &str) -> Result<String> {
    let sum = node.ok(&["sha256sum", &format!("/opt/nodeagent/images/stand-in/{}/images.tar", &sha256[..12])])?;
    sum.split_whitespace().next().map(str::to_owned).context("a digest")
}

/// When the unit was last done, on the monotonic clock of this boot.
fn done(node: &Node<'_>, unit: &str, property: &str) -> Result<u64> {
    node.property(unit, property)?.parse().with_context(|| format!("{property} of {unit}"))
}

#[test]
fn images_are_in_containerd_before_the_kubelet_starts() -> Result<()> {
    const NAME: &str = "registry.example/stand-in:1";
    Lab::run("images", |lab| {
        let _api_server = lab.start_stand_in_api_server()?;
        let ask = |node: &Node<'_>, version: &str| -> Result<String> {
            let bytes = archive(NAME, version)?;
            let (file, sha256) = (format!("stand-in-{version}.tar.gz"), digest(&bytes));
            fs::write(lab.docroot().join(&file), &bytes)?;
            let image = format!("stand-in: {{ url: \"http://{SERVICES}/{file}\", sha256: {sha256} }}");
            let yaml = format!("kubernetes: {{ images: {{ {image} }} }}\n");
            node.write("/etc/nodeagent/node.d/10-images.yaml", yaml.as_bytes())?;
            Ok(sha256)
        };
        let mut node = lab.worker("worker1", WORKER)?.create()?;
        let sha256 = ask(&node, "1")?;
        node.boot()?;
        bootstrapped(&node)?;
        assert_eq!(images(&node)?, [NAME]);
        assert_eq!(node.property(UNIT, "ActiveState")?, "active");
        confined_as_documented(&node, UNIT)?;
        let imported = done(&node, UNIT, "ActiveEnterTimestampMonotonic")?;
        let kubelet = done(&node, "kubelet.service", "InactiveExitTimestampMonotonic")?;
        ensure!(imported <= kubelet, "the kubelet was started at {kubelet}, the image was there at {imported}");
        // The image is whole: containerd runs it.
        let ran = node.ok(&["ctr", "-n", "k8s.io", "images", "check", &format!("name=={NAME}")])?;
        ensure!(ran.contains("complete") && ran.contains("true"), "{ran}");

        let listed = node.ok(&["ctr", "-n", "k8s.io", "images", "list", &format!("name=={NAME}")])?;
        let labels = [
            format!("nodeagent.io/archive={}", &placed_digest(&node, &sha256)?),
            "io.cri-containerd.pinned=pinned".to_owned(),
            "io.cri-containerd.image=managed".to_owned(),
        ];
        ensure!(labels.iter().all(|label| listed.contains(label)), "{listed}");

        nothing_to_do(&node)?;
        let invocation = node.property(UNIT, "InvocationID")?;
        node.ok(&["nodeagent", "bootstrap"])?;
        assert_eq!(node.property(UNIT, "InvocationID")?, invocation, "nothing changed, nothing was started");

        // containerd loses it: the next start of the unit, hence the next boot, brings it back.
        node.ok(&["ctr", "-n", "k8s.io", "images", "rm", "--sync", NAME])?;
        assert_eq!(images(&node)?, [""; 0]);
        node.ok(&["systemctl", "restart", UNIT])?;
        assert_eq!(images(&node)?, [NAME]);
        node.ok(&["ctr", "-n", "k8s.io", "images", "rm", "--sync", NAME])?;
        node.reboot()?;
        bootstrapped(&node)?;
        node.wait_until("the image to be back", BOOTSTRAP, |node| {
            ensure!(images(node)? == [NAME], "it has {:?}", images(node)?);
            Ok(())
        })?;

        // Touched since it was verified: refused, and put right by the next bootstrap.
        let placed = format!("/opt/nodeagent/images/stand-in/{}/images.tar", &sha256[..12]);
        node.ok(&["touch", &placed])?;
        let refused = node.run(&["nodeagent", "images"])?;
        let told = String::from_utf8_lossy(&refused.stderr);
        ensure!(refused.status.code() == Some(4) && told.contains(&format!("{placed}: touched since")), "{told}");
        node.ok(&["nodeagent", "bootstrap"])?;
        node.ok(&["nodeagent", "images"])?;
        nothing_to_do(&node)?;

        // Another archive gives the same name to another image: it takes the old one's place, and the unit was restarted.
        let target = |node: &Node<'_>| node.ok(&["ctr", "-n", "k8s.io", "images", "list", &format!("name=={NAME}")]);
        let before = target(&node)?;
        ask(&node, "2")?;
        node.ok(&["nodeagent", "bootstrap"])?;
        let sha = |listed: &str| listed.split_whitespace().find(|word| word.starts_with("sha256:")).map(str::to_owned);
        let after = target(&node)?;
        ensure!(sha(&before).is_some() && sha(&after) != sha(&before), "{before}{after}");
        nothing_to_do(&node)?;

        // Without ctr, and without containerd, it says so, and names the archive.
        let failed = node.run(&["env", "PATH=/nowhere", "/opt/bin/nodeagent", "images"])?;
        let told = String::from_utf8_lossy(&failed.stderr);
        ensure!(failed.status.code() == Some(1) && told.contains("images-stand-in: start ctr: "), "{told}");
        node.ok(&["systemctl", "stop", "kubelet.service", "containerd.service"])?;
        let failed = node.run(&["nodeagent", "images"])?;
        let told = String::from_utf8_lossy(&failed.stderr);
        ensure!(
            failed.status.code() == Some(1) && told.contains("images-stand-in") && told.contains("containerd.sock"),
            "{told}"
        );
        Ok(())
    })
}
