//! The agent, end to end, on a node that `cloud-config/worker.yaml` set up.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::harness::{Lab, Node, SERVICES, WORKER};

/// From the end of cloud-init until the node is what its configuration says.
pub const BOOTSTRAP: Duration = Duration::from_mins(5);

/// For units that systemd starts anew to run.
const SETTLED: Duration = Duration::from_mins(3);

#[test]
fn bootstrap_from_cloud_config() -> Result<()> {
    Lab::run("bootstrap", |lab| {
        let _api_server = lab.start_stand_in_api_server()?;
        let mut node = lab.worker("worker1", WORKER)?.boot()?;
        bootstrapped(&node)?;

        for (program, digest) in lab.digests.iter().filter(|(program, _)| *program != "etcd") {
            let at = format!("/opt/bin/{program}");
            assert!(node.ok(&["sha256sum", &at])?.starts_with(digest), "{at} is what the node was pinned to");
        }
        let address = String::from_utf8(node.read("/etc/network-environment")?)?;
        assert!(address.contains(&format!("DEFAULT_IPV4={WORKER}")), "{address}");
        for unit in ["kubelet.service", "kube-proxy.service"] {
            assert_eq!(node.property(unit, "ActiveState")?, "active", "{unit}");
        }

        // The agent was fetched once, and each program once.
        let fetched =
            |what: &str| lab.mirror.requests().map(|all| all.iter().filter(|line| line.contains(what)).count());
        assert_eq!(fetched("GET /nodeagent ")?, 1, "{:?}", lab.mirror.requests()?);
        assert_eq!(fetched("/kubelet ")?, 1, "{:?}", lab.mirror.requests()?);

        nothing_to_do(&node)?;
        node.ok(&["nodeagent", "bootstrap"])?;
        nothing_to_do(&node)?;

        // The next boot starts the agent again, by itself, and there is nothing for it to fetch.
        node.reboot()?;
        bootstrapped(&node)?;
        nothing_to_do(&node)?;
        assert_eq!(fetched("GET /nodeagent ")?, 1, "{:?}", lab.mirror.requests()?);
        Ok(())
    })
}

#[test]
fn the_agents_units_are_as_confined_as_documented() -> Result<()> {
    Lab::run("confined", |lab| {
        let _api_server = lab.start_stand_in_api_server()?;
        let node = lab.worker("worker1", WORKER)?.boot()?;
        bootstrapped(&node)?;
        confined_as_documented(&node, "nodeagent.service")?;
        confined_as_documented(&node, "nodeagent-fetch.service")?;
        confined_as_documented(&node, "nodeagent-network.service")?;
        confined_as_documented(&node, "nodeagent-renew.service")
    })
}

/// docs/privileges.md says of the unit what systemd says.
pub fn confined_as_documented(node: &Node<'_>, unit: &str) -> Result<()> {
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/privileges.md"))?;
    let analysis = node.ok(&["systemd-analyze", "security", "--no-pager", unit])?;
    let overall = analysis.lines().find(|line| line.contains("Overall exposure level")).unwrap_or_default();
    let score = overall.split_whitespace().find(|word| word.parse::<f64>().is_ok()).unwrap_or_default();
    let row = format!("| `{unit}` | {score} |");
    ensure!(document.contains(&row), "docs/privileges.md does not say what systemd says: {row}");
    Ok(())
}

#[test]
fn no_key_of_the_authority_reaches_a_worker() -> Result<()> {
    Lab::run("no-ca-key", |lab| {
        let _api_server = lab.start_stand_in_api_server()?;
        let node = lab.worker("worker1", WORKER)?.boot()?;
        bootstrapped(&node)?;
        // The user-data and the meta-data are among the node's files. First: would this search find anything at all?
        let certificate: Vec<_> = lab.ca.pem()?.lines().skip(1).take(1).map(|line| line.as_bytes().to_vec()).collect();
        let seen = node.files_containing(&certificate)?;
        assert!(seen.iter().any(|path| path.ends_with("etc/kubernetes/pki/ca.pem")), "{seen:?}");
        let planted = lab.ca.key_forms()?;
        for form in &planted {
            node.write("/root/planted", form)?;
            let found = node.files_containing(std::slice::from_ref(form))?;
            assert_eq!(found, [node.changed_files().join("root/planted")], "only what this test has planted");
        }
        node.ok(&["rm", "/root/planted"])?;
        let leaked = node.files_containing(&planted)?;
        assert!(leaked.is_empty(), "the authority's private key is in {leaked:?}");
        Ok(())
    })
}

#[test]
fn an_agent_with_another_digest_is_never_run() -> Result<()> {
    Lab::run("wrong-agent", |lab| {
        let agent = lab.docroot().join("nodeagent");
        let mut other = std::fs::read(&agent)?;
        other.push(b'\n');
        std::fs::write(&agent, other)?;
        let node = lab.worker("worker1", WORKER)?.boot()?;
        node.wait_until("the fetch to fail", BOOTSTRAP, |node| {
            let result = node.property("nodeagent-fetch.service", "Result")?;
            ensure!(result == "exit-code", "its result is {result}");
            Ok(())
        })?;
        assert!(!node.exists("/opt/bin/nodeagent"));
        node.ok(&["journalctl", "--sync"])?;
        let journal = node.ok(&["journalctl", "--no-pager", "--unit", "nodeagent-fetch.service"])?;
        assert!(journal.contains("FAILED"), "{journal}");

        // Put right on the mirror, it comes up without anyone's help.
        let right = std::fs::read(Lab::binary()?)?;
        std::fs::write(&agent, right)?;
        let _api_server = lab.start_stand_in_api_server()?;
        bootstrapped(&node)?;
        ensure!(lab.mirror.requests()?.len() > 1, "it was fetched again from {SERVICES}");
        Ok(())
    })
}

/// Waits until the agent's unit has done its work.
pub fn bootstrapped(node: &Node<'_>) -> Result<()> {
    node.wait_until("nodeagent.service to succeed", BOOTSTRAP, |node| {
        // In one look: between two, a run may begin and fail.
        let show = "--property=ActiveState,Result,ExecMainExitTimestampMonotonic";
        let shown = node.ok(&["systemctl", "show", show, "nodeagent.service"])?;
        let has = |line: &str| shown.lines().any(|shown| shown == line);
        if has("ActiveState=inactive") && has("Result=success") && !has("ExecMainExitTimestampMonotonic=0") {
            return Ok(());
        }
        let last = node.ok(&["journalctl", "--no-pager", "--lines=15", "--output=cat", "--unit=nodeagent.service"])?;
        anyhow::bail!("it is {}; its last words:\n{last}", shown.trim_end().replace('\n', ", "))
    })
}

/// A plan without changes exits with 0, one with changes with 6. A unit that is just being started anew is one.
pub fn nothing_to_do(node: &Node<'_>) -> Result<()> {
    node.wait_until("nothing to be left to do", SETTLED, |node| {
        node.ok(&["nodeagent", "plan", "--exit-code"]).map(drop)
    })
}
