//! `make bench`: figures of this program beside those of what people use instead, taken in one run.
//!
//! Takes the agent's binary and the topics to show (all, when none is named). Nothing here passes or fails: it prints
//! each figure beside what it is compared with and the aim, and people judge. A new topic is a file beside this one and
//! a row in [`TOPICS`].

#![allow(clippy::disallowed_methods, reason = "the bench runs programs on the machine that it measures")]

mod certs;
mod download;
mod figures;
#[path = "../harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "each program takes what it needs of the lab")]
mod harness;
mod network;
mod systemd;
mod wait;

use std::{env, path::Path, path::PathBuf};

use anyhow::{Context, Result, bail};

/// Measures one topic with this agent, and prints its tables.
type Topic = fn(&Path) -> Result<()>;

const TOPICS: [(&str, Topic); 5] = [
    ("network", network::bench),
    ("wait", wait::bench),
    ("download", download::bench),
    ("certs", certs::bench),
    ("systemd", systemd::bench),
];

fn main() -> Result<()> {
    let mut args = env::args_os().skip(1);
    let agent = args.next().map(PathBuf::from).context("usage: bench PATH-OF-NODEAGENT [TOPIC...]")?;
    let agent = agent.canonicalize().with_context(|| format!("find {}", agent.display()))?;
    let wanted: Vec<String> = args.map(|topic| topic.to_string_lossy().into_owned()).collect();
    let known = TOPICS.map(|(name, _)| name);
    if let Some(unknown) = wanted.iter().find(|name| !known.contains(&name.as_str())) {
        bail!("there is no topic {unknown:?}; there are: {}", known.join(", "));
    }
    for (name, bench) in TOPICS {
        if wanted.is_empty() || wanted.iter().any(|topic| topic == name) {
            bench(&agent).with_context(|| format!("measure {name}"))?;
        }
    }
    Ok(())
}
