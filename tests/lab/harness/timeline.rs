//! Where the time of a cluster's start went: one column per machine, in seconds since it was powered on.
//!
//! All times are of the kernel's monotonic clock, which machines and harness share.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_gettime};
use serde_json::Value;

use super::{cluster::Cluster, node::Node};

/// When things happened, by machine.
pub type Times = BTreeMap<&'static str, Duration>;

/// What is looked for on each machine.
const MARKS: [&str; 9] = [
    "systemd",
    "cloud-init is done",
    "the agent's first line",
    "programs and images placed",
    "certificates, kubeconfigs",
    "etcd serves",
    "the API server serves",
    "the kubelet is started",
    "the agent's last line",
];

/// Now.
pub fn now() -> Result<Duration> {
    Ok(Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?))
}

/// A table of when each machine was how far. `ready` is when it was first seen ready.
pub fn table(cluster: &Cluster<'_>, ready: &Times) -> Result<String> {
    let mut text = format!("{:28}", "seconds since power-on");
    let mut columns = Vec::new();
    for (name, ready) in ready {
        let start = *cluster.powered_on.get(name).with_context(|| format!("{name} was never powered on"))?;
        let marks = marks(cluster.node(name)?)?;
        let all = marks.into_iter().chain([Some(*ready)]);
        columns.push(all.map(|at| at.and_then(|at| at.checked_sub(start))).collect::<Vec<_>>());
        write!(text, "{name:>14}")?;
    }
    for (row, mark) in MARKS.iter().chain(&["Ready"]).enumerate() {
        write!(text, "\n{mark:28}")?;
        for column in &columns {
            let shown = column[row].map_or_else(|| "-".to_owned(), |time| format!("{:.1}", time.as_secs_f64()));
            write!(text, "{shown:>14}")?;
        }
    }
    Ok(text + "\n")
}

/// When a machine passed each of [`MARKS`] in this boot, as systemd and its journal say.
fn marks(node: &Node<'_>) -> Result<[Option<Duration>; MARKS.len()]> {
    let manager = node.ok(&["systemctl", "show", "--value", "--property=UserspaceTimestampMonotonic"])?;
    let active = |unit: &str| node.property(unit, "ActiveEnterTimestampMonotonic").map(|text| microseconds(&text));
    let agent = node.journal(&["--boot", "SYSLOG_IDENTIFIER=nodeagent", "_SYSTEMD_UNIT=nodeagent.service"])?;
    let at = |entry: &Value| microseconds(entry["__MONOTONIC_TIMESTAMP"].as_str()?);
    let of_step = |step: &str| agent.iter().filter(|entry| entry["NODEAGENT_STEP"] == step).filter_map(at).max();
    Ok([
        microseconds(&manager),
        active("cloud-final.service")?,
        agent.first().and_then(at),
        of_step("install"),
        of_step("certs"),
        active("etcd.service")?,
        active("kube-apiserver.service")?,
        active("kubelet.service")?,
        agent.last().and_then(at),
    ])
}

/// Zero is what systemd has of what never happened.
fn microseconds(text: &str) -> Option<Duration> {
    text.trim().parse().ok().filter(|number| *number > 0).map(Duration::from_micros)
}
