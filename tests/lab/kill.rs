//! Killed while it talks to systemd, and run again: on a node, with live units.
//!
//! `tests/cli/kill.rs` kills at every call in a file tree. Here is what only a node has: jobs, properties, reloads and
//! restarts that are owed.

use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::bootstrap::bootstrapped;
use crate::harness::{Lab, Node, WORKER};

/// For the agent to do what a point asks of it.
const AGENT: Duration = Duration::from_mins(1);

/// What systemd logs when a unit has started (sd-messages(3), `SD_MESSAGE_UNIT_STARTED`).
const STARTED: &str = "39f53479d3a045ac8e11786248231fbf";

/// Units that the change restarts, and one that it starts.
const UNITS: [&str; 3] = ["containerd.service", "kubelet.service", "kube-proxy.service"];

/// The calls that talk (D-Bus, the journal, systemd's notifications) and the one that records.
const CALLS: [&str; 3] = ["sendmsg", "sendto", "fdatasync"];

/// Gives the agent something of each kind to do: a drop-in with a property and a restart, a file with a restart, a
/// sysctl, a link, our block in a shared file, a unit to start. `turn` makes it different from the last time.
fn disturb(node: &Node<'_>, turn: usize) -> Result<()> {
    let (files, tasks) = (4096 + turn % 2, 2000 + turn % 2);
    let config = format!(
        "limits: {{ containerd.service: {{ LimitNOFILE: {files}, TasksMax: {tasks} }} }}\n\
         cluster: {{ domain: lab{}.example }}\nkernel: {{ sysctls: {{ net.ipv4.tcp_fin_timeout: {} }} }}\n",
        turn % 2,
        30 + turn % 2,
    );
    node.write("/etc/nodeagent/node.d/10-turn.yaml", config.as_bytes())?;
    node.write("/etc/hosts", b"127.0.0.1 localhost\n")?;
    node.ok(&["rm", "/opt/bin/kubectl"])?;
    node.ok(&["systemctl", "stop", "kube-proxy.service"]).map(drop)
}

/// How often each unit has started so far.
fn starts(node: &Node<'_>) -> Result<[usize; UNITS.len()]> {
    node.ok(&["journalctl", "--sync"])?;
    let started = node.journal(&[&format!("MESSAGE_ID={STARTED}")])?;
    Ok(UNITS.map(|unit| started.iter().filter(|entry| entry["UNIT"] == unit).count()))
}

/// Runs the agent under strace, with its log where the node can show it.
fn strace(node: &Node<'_>, options: &[&str]) -> Result<std::process::Output> {
    let strace = ["strace", "-f", "-qq", "-o", "/root/strace.log"];
    let agent = ["/opt/bin/nodeagent", "bootstrap"];
    let args: Vec<&str> = strace.iter().chain(options).chain(&agent).copied().collect();
    node.run_within(AGENT, &args)
}

/// How often an undisturbed run makes a call.
fn count(node: &Node<'_>, call: &str) -> Result<usize> {
    let ran = strace(node, &["-e", &format!("trace={call}")])?;
    ensure!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let log = String::from_utf8(node.read("/root/strace.log")?)?;
    Ok(log.lines().filter(|line| line.contains(&format!("{call}("))).count())
}

/// Kills the agent at one call, runs it again, and looks whether all is as if nothing had happened.
fn kill_at(node: &Node<'_>, call: &str, n: usize, turn: usize) -> Result<bool> {
    disturb(node, turn)?;
    let before = starts(node)?;
    let kill = format!("inject={call}:signal=KILL:when={n}");
    let ran = strace(node, &["-e", &format!("trace={call}"), "-e", &kill])?;
    let killed = !ran.status.success();
    ensure!(
        !killed || ran.status.signal() == Some(9) || ran.status.code() == Some(137),
        "it failed by itself: {}",
        String::from_utf8_lossy(&ran.stderr)
    );
    let again = node.run_within(AGENT, &["nodeagent", "bootstrap"])?;
    ensure!(again.status.success(), "run again: {}", String::from_utf8_lossy(&again.stderr));
    let plan = node.run_within(AGENT, &["nodeagent", "plan", "--exit-code"])?;
    ensure!(plan.status.code() == Some(0), "something is pending: {}", String::from_utf8_lossy(&plan.stdout));
    for ((unit, before), after) in UNITS.into_iter().zip(before).zip(starts(node)?) {
        ensure!(after - before == 1, "{unit} started {} times", after - before);
        ensure!(node.property(unit, "NeedDaemonReload")? == "no", "{unit} was not read again");
    }
    ensure!(node.property("containerd.service", "LimitNOFILE")? == (4096 + turn % 2).to_string(), "the limit");
    ensure!(node.property("containerd.service", "TasksMax")? == (2000 + turn % 2).to_string(), "the property");
    let control = node.run(&["find", "/run/systemd/system.control", "-name", "50-TasksMax.conf"])?;
    ensure!(control.stdout.is_empty(), "a control file shadows the drop-in");
    Ok(killed)
}

#[test]
fn killed_while_it_talks_to_systemd() -> Result<()> {
    Lab::run("kill", |lab| {
        let _api_server = lab.start_stand_in_api_server()?;
        let node = lab.worker("worker1", WORKER)?.boot()?;
        bootstrapped(&node)?;
        let begun = Instant::now();
        let (mut turn, mut parts) = (0, Vec::new());
        for call in CALLS {
            disturb(&node, turn)?;
            let calls = count(&node, call)?;
            let mut killed = 0;
            for n in 1..=calls {
                turn += 1;
                let point =
                    kill_at(&node, call, n, turn).with_context(|| format!("killed at {call} {n} of {calls}"))?;
                killed += usize::from(point);
            }
            turn += 1;
            parts.push(format!("{call} {killed} of {calls}"));
            // How often it talks varies by a few answers of systemd's; that it was hardly ever killed proves nothing.
            ensure!(killed > calls / 2, "{call}: killed {killed} times, at {calls} calls");
        }
        eprintln!("killed on a node in {:.0?}: {}", begun.elapsed(), parts.join(", "));
        Ok(())
    })
}
