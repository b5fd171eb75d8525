//! The limits step on a real node: when a limit is new, and when nothing is to be done.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::figures::{Table, Unit, interleaved};
use super::harness::{Lab, Node, WORKER};

/// Enough for a median; each round reloads systemd twice.
const ROUNDS: usize = 30;

/// For a bootstrap, or for one run.
const DEADLINE: Duration = Duration::from_mins(2);

/// What people write by hand instead: the drop-in, a reload, and the property of the running unit.
const BY_HAND: &str = "\
    printf '[Service]\\nTasksMax=%s\\n' $1 >/etc/systemd/system/containerd.service.d/10-hand.conf && \
    systemctl daemon-reload && systemctl set-property --runtime containerd.service TasksMax=$1";

/// Prints the tables of this topic.
pub fn bench(agent: &Path) -> Result<()> {
    let mut lab = Lab::with_binary("bench-systemd", agent)?;
    {
        let _api_server = lab.start_stand_in_api_server()?;
        let node = lab.worker("worker1", WORKER)?.boot()?;
        node.wait_until("the bootstrap's end", DEADLINE, |node| {
            let show = "--property=Result,ActiveState,ExecMainExitTimestampMonotonic";
            let shown = node.ok(&["systemctl", "show", show, "nodeagent.service"])?;
            let has = |line: &str| shown.lines().any(|shown| shown == line);
            let over = has("ActiveState=inactive") && !has("ExecMainExitTimestampMonotonic=0");
            ensure!(over && has("Result=success"), "nodeagent.service: {shown}");
            Ok(())
        })?;
        measure(&node)?;
    }
    lab.passed();
    Ok(())
}

fn measure(node: &Node<'_>) -> Result<()> {
    let (mut wish, mut hand) = (4000, 4000);
    let mut ours = || {
        wish += 1;
        let yaml = format!("limits: {{ containerd.service: {{ TasksMax: {wish} }} }}\n");
        node.write("/etc/nodeagent/node.d/20-bench.yaml", yaml.as_bytes())?;
        took(node, &["/opt/bin/nodeagent", "limits"])
    };
    let mut by_hand = || {
        hand += 1;
        took(node, &["sh", "-c", BY_HAND, "sh", &hand.to_string()])
    };
    let samples = interleaved(ROUNDS, &mut [&mut ours, &mut by_hand])?;
    let [ours, by_hand] = <[_; 2]>::try_from(samples).ok().context("two programs")?;
    Table::new("systemd: a new TasksMax for a running containerd, entering the node included", Unit::Time)
        .row("nodeagent limits (recorded, applied, proven)", ours, "")
        .row("drop-in, daemon-reload and set-property by hand", by_hand, "")
        .print();

    node.ok(&["rm", "-f", "/etc/systemd/system/containerd.service.d/10-hand.conf"])?;
    node.ok(&["systemctl", "daemon-reload"])?;
    took(node, &["/opt/bin/nodeagent", "limits"])?;
    let mut limits = || took(node, &["/opt/bin/nodeagent", "limits"]);
    let mut bootstrap = || took(node, &["/opt/bin/nodeagent", "bootstrap"]);
    let mut nothing = || took(node, &["true"]);
    let samples = interleaved(ROUNDS, &mut [&mut limits, &mut bootstrap, &mut nothing])?;
    let [limits, bootstrap, nothing] = <[_; 3]>::try_from(samples).ok().context("three programs")?;
    Table::new("systemd: a run that changes nothing, entering the node included", Unit::Time)
        .row("nodeagent limits", limits, "")
        .row("nodeagent bootstrap", bootstrap, "")
        .row("entering the node alone", nothing, "")
        .print();
    Ok(())
}

/// Seconds that a command on the node takes, which must succeed.
fn took(node: &Node<'_>, args: &[&str]) -> Result<f64> {
    let started = Instant::now();
    let output = node.run_within(DEADLINE, args)?;
    let took = started.elapsed();
    ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(took.as_secs_f64())
}
