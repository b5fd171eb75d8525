//! Upgrades that a cluster, or a node's pods, are not ready for: refused before anything is touched.

use anyhow::{Context as _, Result, ensure};

use crate::agent::agent;
use crate::cluster::{unchanged, written};
use crate::harness::Cluster;

/// What the agent tells when it refuses a plan.
fn refused(cluster: &Cluster<'_>, machine: &str) -> Result<String> {
    let node = cluster.node(machine)?;
    let before = written(node)?;
    for command in [&["plan"][..], &["bootstrap"], &["install"]] {
        let (code, shown, told) = agent(node, command)?;
        ensure!(code == 1, "{command:?} ended with {code}:\n{shown}\n{told}");
        unchanged(machine, &before, &written(node)?, None).with_context(|| format!("{command:?}"))?;
        if command == ["install"] {
            return Ok(told);
        }
    }
    unreachable!("install comes last")
}

/// No kubelet newer than the API server; and none of another minor release under the node's pods, unless that is accepted.
pub fn refuses_what_the_cluster_is_not_ready_for(cluster: &Cluster<'_>, machine: &str) -> Result<()> {
    const DROP_IN: &str = "/etc/nodeagent/node.d/20-skew.yaml";
    let node = cluster.node(machine)?;
    node.write(DROP_IN, b"kubernetes: { version: v1.21.0 }\n")?;
    let told = refused(cluster, machine)?;
    ensure!(
        told.contains("install kubelet v1.21.0") && told.contains("is v1.20.2, and no kubelet may be newer"),
        "{told}"
    );
    node.ok(&["rm", DROP_IN])?;

    // As if an older minor release were in place, and its successor asked for.
    let link = node.ok(&["readlink", "/opt/bin/kubelet"])?;
    node.ok(&["ln", "-sfn", "/opt/nodeagent/releases/kubelet/v1.19.9/bin/kubelet", "/opt/bin/kubelet"])?;
    let told = refused(cluster, machine)?;
    ensure!(told.contains("is not drained (new pods may still come)") && told.contains("kubectl drain"), "{told}");
    cluster.kubectl(&["cordon", machine])?;
    let told = refused(cluster, machine)?;
    ensure!(told.contains(&format!("it runs default/greeter-{machine}")), "{told}");
    let (code, shown, told) = agent(node, &["plan", "--no-drain"])?;
    ensure!(code == 0, "{shown}\n{told}");
    cluster.kubectl(&["uncordon", machine])?;
    node.ok(&["ln", "-sfn", link.trim(), "/opt/bin/kubelet"])?;
    let (code, shown, told) = agent(node, &["plan", "--exit-code"])?;
    ensure!(code == 0, "{shown}\n{told}");
    Ok(())
}
