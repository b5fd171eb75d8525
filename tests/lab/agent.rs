//! What the agent promises, on a node of its own: limits, waits, the journal, undo, and what bad input gets.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::bootstrap::bootstrapped;
use crate::harness::{Lab, Node, Suite, WORKER};

/// For the agent to do, or to give up, what a test asks of it.
pub const AGENT: Duration = Duration::from_mins(5);

/// A worker that cloud-init has set up and the agent has brought up.
fn worker(lab: &Lab) -> Result<Node<'_>> {
    let node = lab.worker("worker1", WORKER)?.boot()?;
    bootstrapped(&node)?;
    Ok(node)
}

/// Runs `test` on a bootstrapped worker with either systemd.
pub fn on_each(name: &str, test: impl Fn(&Lab, &Node<'_>) -> Result<()>) -> Result<()> {
    for suite in Suite::ALL {
        Lab::run(name, |lab| {
            let _api_server = lab.start_stand_in_api_server()?;
            let node = lab.worker("worker1", WORKER)?.suite(suite).boot()?;
            bootstrapped(&node)?;
            test(lab, &node)
        })
        .with_context(|| format!("{suite:?}"))?;
    }
    Ok(())
}

/// Runs the agent on the node and returns its exit code, stdout and stderr.
pub fn agent(node: &Node<'_>, args: &[&str]) -> Result<(i32, String, String)> {
    let args: Vec<&str> = std::iter::once("nodeagent").chain(args.iter().copied()).collect();
    let output = node.run_within(AGENT, &args)?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok((output.status.code().context("it was killed")?, text(output.stdout), text(output.stderr)))
}

/// The row of `/proc/PID/limits` for open files: soft and hard.
fn open_files(node: &Node<'_>, pid: &str) -> Result<(u64, u64)> {
    let limits = node.ok(&["cat", &format!("/proc/{pid}/limits")])?;
    let row = limits.lines().find(|line| line.starts_with("Max open files")).context("a row for open files")?;
    let mut numbers = row.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
    Ok((numbers.next().context("a soft limit")?, numbers.next().context("a hard limit")?))
}

#[test]
fn limits_are_in_force_on_a_service_that_ran_before() -> Result<()> {
    on_each("limits", |_, node| {
        let unit = "containerd.service";
        // Read back over D-Bus, as systemd has it.
        assert_eq!(node.property(unit, "LimitNOFILESoft")?, "1024");
        assert_eq!(node.property(unit, "LimitNOFILE")?, "524288");
        assert_eq!(node.property(unit, "TasksMax")?, "infinity");
        assert_eq!(node.property(unit, "NeedDaemonReload")?, "no");
        assert!(
            !node.exists(&format!("/run/systemd/system.control/{unit}.d/50-TasksMax.conf")),
            "nothing shadows the drop-in"
        );
        // In force: what the node's own systemd can give at most is the outer machine's hard limit.
        let (_, most) = open_files(node, "1")?;
        let pid = node.property(unit, "MainPID")?;
        assert_eq!(open_files(node, &pid)?.1, most.min(524_288));

        // A smaller number: at once for tasks, by a restart for files.
        let before = node.property(unit, "InvocationID")?;
        node.write(
            "/etc/nodeagent/node.d/10-limits.yaml",
            b"limits: { containerd.service: { TasksMax: 4321, LimitNOFILE: '1024:4096' } }\n",
        )?;
        let (code, plan, _) = agent(node, &["plan", "--exit-code"])?;
        assert_eq!(code, 6, "{plan}");
        assert!(
            plan.contains("TasksMax: infinity -> 4321") && plan.contains("then restart containerd.service"),
            "{plan}"
        );
        let (code, _, told) = agent(node, &["limits"])?;
        assert_eq!(code, 0, "{told}");
        assert_eq!(node.property(unit, "TasksMax")?, "4321");
        assert_ne!(node.property(unit, "InvocationID")?, before, "it was restarted");
        let pid = node.property(unit, "MainPID")?;
        assert_eq!(open_files(node, &pid)?.1, 4096);

        // Undone: the old number, and nothing left behind.
        let (code, undone, told) = agent(node, &["rollback"])?;
        assert_eq!(code, 0, "{undone}{told}");
        assert_eq!(node.property(unit, "TasksMax")?, "infinity");
        let pid = node.property(unit, "MainPID")?;
        assert_eq!(open_files(node, &pid)?.1, most.min(524_288));
        Ok(())
    })
}

#[test]
fn a_unit_is_held_by_its_own_wait_until_the_port_is_open() -> Result<()> {
    for suite in Suite::ALL {
        Lab::run("wait", |lab| held_until_open(lab, suite)).with_context(|| format!("{suite:?}"))?;
    }
    Ok(())
}

fn held_until_open(lab: &Lab, suite: Suite) -> Result<()> {
    let node = lab.worker("worker1", WORKER)?.suite(suite).boot()?;
    node.wait_until("kubelet.service to wait", AGENT, |node| {
        let (state, sub) =
            (node.property("kubelet.service", "ActiveState")?, node.property("kubelet.service", "SubState")?);
        ensure!((state.as_str(), sub.as_str()) == ("activating", "start-pre"), "it is {state} ({sub})");
        let says = node.property("kubelet.service", "StatusText")?;
        ensure!(says.contains("tcp://10.10.30.11:6443"), "its status is {says:?}");
        Ok(())
    })?;
    assert_eq!(node.property("nodeagent.service", "ActiveState")?, "activating", "the agent waits for the job");
    let opened = Instant::now();
    let _api_server = lab.start_stand_in_api_server()?;
    bootstrapped(&node)?;
    for unit in ["kubelet.service", "kube-proxy.service"] {
        assert_eq!(node.property(unit, "ActiveState")?, "active", "{unit}");
    }
    eprintln!("ready {:?} after the port was opened", opened.elapsed());
    Ok(())
}

#[test]
fn events_are_in_the_journal_with_their_fields() -> Result<()> {
    Lab::run("journal", |lab| {
        let _api_server = lab.start_stand_in_api_server()?;
        let node = worker(lab)?;
        let entries = node.journal(&["SYSLOG_IDENTIFIER=nodeagent", "NODEAGENT_RESOURCE=install/kubelet"])?;
        let entry = entries.first().context("an event of install/kubelet")?;
        let field = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
        assert_eq!((field("NODEAGENT_STEP"), field("NODEAGENT_RESULT")), ("install", "changed"), "{entry}");
        assert!(field("NODEAGENT_DURATION_USEC").parse::<u64>().is_ok_and(|usec| usec > 0), "{entry}");
        assert_eq!(field("PRIORITY"), "6", "{entry}");
        // The same event is found by its constant, which the catalogue documents.
        let same = node.journal(&[&format!("MESSAGE_ID={}", field("MESSAGE_ID"))])?;
        assert!(same.len() > 10, "{} resources were changed", same.len());
        let fetched = node.journal(&["SYSLOG_IDENTIFIER=nodeagent", "NODEAGENT_RETRIES=0"])?;
        let sizes = fetched.iter().filter_map(|entry| entry.get("NODEAGENT_BYTES").and_then(Value::as_str));
        assert_eq!(sizes.filter(|size| size.parse::<u64>().is_ok_and(|n| n > 100_000)).count(), 3, "{fetched:?}");
        // No secret is in any message of the agent's.
        let all = node.ok(&["journalctl", "--no-pager", "--all", "--output=export", "SYSLOG_IDENTIFIER=nodeagent"])?;
        assert!(!all.contains(&lab.signer.auth_key), "the signer's key is in the journal");
        assert!(!all.contains("PRIVATE KEY"), "a private key is in the journal");
        Ok(())
    })
}

#[test]
fn rollback_undoes_holds_and_resumes() -> Result<()> {
    Lab::run("rollback", |lab| {
        let _api_server = lab.start_stand_in_api_server()?;
        let node = worker(lab)?;
        let (code, dry, _) = agent(&node, &["rollback", "--dry-run"])?;
        assert_eq!(code, 0, "{dry}");
        let (code, ..) = agent(&node, &["plan", "--exit-code"])?;
        assert_eq!(code, 0, "a dry run changes nothing");

        // What somebody changed since is theirs.
        node.write("/etc/kubernetes/kube-proxy.env", b"ARGS=mine\n")?;
        let (code, undone, told) = agent(&node, &["rollback"])?;
        assert_eq!(code, 0, "{undone}{told}");
        assert!(undone.contains("put /etc/kubernetes/kube-proxy.env: kept"), "{undone}");
        for unit in ["kubelet.service", "kube-proxy.service"] {
            assert_eq!(node.property(unit, "LoadState")?, "not-found", "{unit} is gone");
        }
        for path in [
            "/opt/bin/kubelet",
            "/opt/nodeagent/releases/kubelet",
            "/etc/network-environment",
            "/etc/kubernetes/kubelet.conf",
            "/etc/systemd/system/containerd.service.d/90-nodeagent.conf",
        ] {
            assert!(!node.exists(path), "{path} is still there");
        }
        assert_eq!(node.read("/etc/kubernetes/kube-proxy.env")?, b"ARGS=mine\n");
        assert!(node.exists("/etc/kubernetes/pki/kubelet-client.pem"), "a key goes only with --purge");
        assert!(node.exists("/opt/bin/nodeagent"), "cloud-config put it there, not the agent");
        let hosts = String::from_utf8(node.read("/etc/hosts")?)?;
        assert!(!hosts.contains("nodeagent") && hosts.contains("localhost"), "{hosts}");

        // The next boot's bootstrap leaves it alone; --resume builds it up again.
        let (code, _, told) = agent(&node, &["bootstrap"])?;
        assert_eq!(code, 0, "{told}");
        assert!(told.contains("holds this node") && !node.exists("/opt/bin/kubelet"), "{told}");
        let (code, _, told) = agent(&node, &["bootstrap", "--resume"])?;
        assert_eq!(code, 0, "{told}");
        let (code, plan, _) = agent(&node, &["plan", "--exit-code"])?;
        assert_eq!(code, 0, "{plan}");
        Ok(())
    })
}

#[test]
fn a_program_with_another_digest_is_never_placed() -> Result<()> {
    Lab::run("wrong-digest", |lab| {
        let _api_server = lab.start_stand_in_api_server()?;
        let node = worker(lab)?;
        let wrong = "0".repeat(63) + "1";
        node.write(
            "/etc/nodeagent/node.d/10-digest.yaml",
            format!("kubernetes: {{ version: v1.34.3, artifacts: {{ kubectl: {{ sha256: \"{wrong}\", version: v1.34.2-next, url: \"http://10.10.30.1/release/v1.34.2/bin/linux/{{arch}}/kubectl\" }} }} }}\n").as_bytes(),
        )?;
        let (code, _, told) = agent(&node, &["install"])?;
        assert_eq!(code, 4, "{told}");
        assert!(told.contains("install/kubectl") && told.contains(&wrong) && told.contains("10.10.30.1"), "{told}");
        assert!(!node.exists("/opt/nodeagent/releases/kubectl/v1.34.2-next/bin/kubectl"));
        assert_eq!(node.ok(&["ls", "-A", "/opt/nodeagent/partial"])?, "", "the partial file is gone");
        assert!(
            node.ok(&["/opt/bin/kubectl", "version", "--client"])?.contains("Client Version"),
            "the old one still runs"
        );
        Ok(())
    })
}

#[test]
fn without_a_system_bus_the_error_says_so() -> Result<()> {
    Lab::run("no-bus", |lab| {
        let _api_server = lab.start_stand_in_api_server()?;
        let node = worker(lab)?;
        node.ok(&["rm", "/etc/kubernetes/kubelet.env"])?;
        node.ok(&["mv", "/run/dbus/system_bus_socket", "/run/dbus/away"])?;
        let (code, _, told) = agent(&node, &["bootstrap"])?;
        node.ok(&["mv", "/run/dbus/away", "/run/dbus/system_bus_socket"])?;
        assert_eq!(code, 1, "{told}");
        assert!(told.contains("connect to the system bus") && told.contains("dbus.service"), "{told}");
        let (code, _, told) = agent(&node, &["bootstrap"])?;
        assert_eq!(code, 0, "{told}");
        Ok(())
    })
}

#[test]
fn a_restart_that_a_killed_run_owed_is_paid_by_the_next() -> Result<()> {
    Lab::run("owed", |lab| {
        let _api_server = lab.start_stand_in_api_server()?;
        let node = worker(lab)?;
        let unit = "containerd.service";
        let before = node.property(unit, "InvocationID")?;
        node.write(
            "/etc/nodeagent/node.d/10-limits.yaml",
            b"limits: { containerd.service: { LimitNOFILE: '1024:4096' } }\n",
        )?;
        // Killed when it syncs the drop-in's directory: the drop-in is in place, and nothing else was done.
        let directory = "/etc/systemd/system/containerd.service.d";
        let kill = ["-e", "trace=fsync", "-e", "inject=fsync:signal=KILL:when=1", "-P", directory];
        let strace = ["strace", "-f", "-qq", "-o", "/dev/null"];
        let args: Vec<&str> = strace.iter().chain(&kill).copied().chain(["/opt/bin/nodeagent", "limits"]).collect();
        let killed = node.run_within(AGENT, &args)?;
        ensure!(!killed.status.success(), "it was not killed: {killed:?}");
        let drop_in = String::from_utf8(node.read(&format!("{directory}/90-nodeagent.conf"))?)?;
        assert!(drop_in.contains("1024:4096"), "{drop_in}");
        let (_, plan, _) = agent(&node, &["plan"])?;
        assert!(plan.contains("Owed by an earlier run: restart containerd.service"), "{plan}");
        assert_eq!(node.property(unit, "InvocationID")?, before, "nothing was restarted yet");
        let (code, _, told) = agent(&node, &["bootstrap"])?;
        assert_eq!(code, 0, "{told}");
        let restarted = node.property(unit, "InvocationID")?;
        assert_ne!(restarted, before, "the restart was paid");
        assert_eq!(node.property(unit, "LimitNOFILE")?, "4096");
        let (code, plan, _) = agent(&node, &["plan", "--exit-code"])?;
        assert_eq!(code, 0, "{plan}");
        let (code, ..) = agent(&node, &["bootstrap"])?;
        assert_eq!(code, 0);
        assert_eq!(node.property(unit, "InvocationID")?, restarted, "and only once");
        Ok(())
    })
}

#[test]
fn a_broken_configuration_touches_nothing() -> Result<()> {
    Lab::run("broken", |lab| {
        let node = lab.node("worker1", WORKER).boot()?;
        node.ok(&["mkdir", "-p", "/opt/bin"])?;
        node.write("/opt/bin/nodeagent", &std::fs::read(Lab::binary()?)?)?;
        node.ok(&["chmod", "0755", "/opt/bin/nodeagent"])?;
        node.write("/etc/nodeagent/node.yaml", b"apiVersion: nodeagent.io/v1alpha1\nkind: NodeConfig\nrole: wroker\nclustr: {}\nkubernetes:\n  version: 1.34\n")?;
        let (code, out, told) = agent(&node, &["bootstrap"])?;
        assert_eq!((code, out.as_str()), (2, ""), "{told}");
        for line in ["node.yaml:3:", "node.yaml:4:", "node.yaml:6:"] {
            assert!(told.contains(line), "no problem of {line} in:\n{told}");
        }
        assert!(!node.exists("/var/lib/nodeagent") && !node.exists("/run/nodeagent"), "nothing was touched");
        Ok(())
    })
}
