//! Its unit on a real machine.

use std::fs;

use anyhow::{Context, Result, ensure};

use super::{SOON, node_yaml};
use crate::{bootstrap::confined_as_documented, harness::Lab};

#[test]
fn its_unit_is_confined_as_documented_and_can_work_so() -> Result<()> {
    const UNIT: &str = "nodeagent-cluster.service";
    const OWN: &str = "10.10.30.12";
    Lab::run("cluster-unit", |lab| {
        // Its API server is on its own machine, and here is none: what it cannot reach is all that is wrong.
        let node = lab.node("controller-01", OWN).boot()?;
        let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/units/nodeagent-cluster.service");
        node.write(&format!("/etc/systemd/system/{UNIT}"), &fs::read(unit)?)?;
        node.write("/opt/bin/nodeagent", &fs::read(Lab::binary()?)?)?;
        node.ok(&["chmod", "755", "/opt/bin/nodeagent"])?;
        node.write("/etc/nodeagent/node.yaml", node_yaml("host0", OWN).as_bytes())?;
        lab.ca.issue_administrator(lab.directory(), "admin")?;
        let pair = ["admin.pem", "admin-key.pem"].map(|file| fs::read(lab.directory().join(file)));
        let [certificate, key] = pair;
        node.write("/etc/kubernetes/pki/admin-client.pem", &[certificate?, key?].concat())?;
        node.ok(&["chmod", "600", "/etc/kubernetes/pki/admin-client.pem"])?;
        node.write("/etc/kubernetes/pki/ca.pem", lab.ca.pem()?.as_bytes())?;
        confined_as_documented(&node, UNIT)?;

        node.ok(&["systemctl", "daemon-reload"])?;
        node.ok(&["systemctl", "start", "--no-block", UNIT])?;
        let tries_again = "MESSAGE_ID=bdec490dae1c4201a097b8354c24d2a3";
        let said = node.wait_until("it to look for its API server", SOON, |node| {
            let entry = node.journal(&[tries_again])?.pop().context("it says nothing")?;
            Ok(entry["MESSAGE"].as_str().unwrap_or_default().to_owned())
        })?;
        ensure!(said.contains(&format!("https://{OWN}:6443")) && said.contains("refused"), "{said}");
        ensure!(node.property(UNIT, "ActiveState")? == "activating", "it says that it is ready");
        node.ok(&["systemctl", "stop", UNIT])?;
        ensure!(node.property(UNIT, "Result")? == "success", "it did not end well");
        Ok(())
    })
}
