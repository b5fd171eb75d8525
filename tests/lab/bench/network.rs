//! What it costs to find this machine's address, beside asking `ip` for one route.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::figures::{Table, Unit, Used, interleaved, run};

/// Enough for a p99.
const ROUNDS: usize = 100;

/// An address of the documentation's: nothing is sent to it, the kernel only says how it would be.
const SOMEWHERE: &str = "192.0.2.1";

/// Prints the tables of this topic. Both programs read this machine's own network, and change nothing.
pub fn bench(agent: &Path) -> Result<()> {
    let root = tempfile::tempdir()?;
    let ours = || {
        let mut command = Command::new(agent);
        command.args(["network", "--dry-run", "--output", "json", "--root"]).arg(root.path());
        used(command)
    };
    let theirs = || {
        let mut command = Command::new("ip");
        command.args(["-j", "route", "get", SOMEWHERE]);
        used(command)
    };
    let (mut our_peaks, mut their_peaks) = (Vec::new(), Vec::new());
    let mut our_times = || sample(&ours, &mut our_peaks);
    let mut their_times = || sample(&theirs, &mut their_peaks);
    let samples = interleaved(ROUNDS, &mut [&mut our_times, &mut their_times])?;
    let [our_times, their_times] = <[_; 2]>::try_from(samples).ok().context("two programs")?;
    Table::new("network: from start to end, every link, address and route read and judged", Unit::Time)
        .row("nodeagent network", our_times, "")
        .row("ip -j route get", their_times, "")
        .print();
    Table::new("network: the most memory at a time", Unit::Size)
        .row("nodeagent network", our_peaks, "")
        .row("ip -j route get", their_peaks, "")
        .print();
    Ok(())
}

fn used(mut command: Command) -> Result<Used> {
    let used = run(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))?;
    ensure!(used.status.success(), "{command:?} ended with {}: is there a default route?", used.status);
    Ok(used)
}

/// Seconds of one run; its peak goes to `peaks`.
#[expect(clippy::cast_precision_loss, reason = "some millions of bytes")]
fn sample(program: &dyn Fn() -> Result<Used>, peaks: &mut Vec<f64>) -> Result<f64> {
    let used = program()?;
    peaks.push(used.peak as f64);
    Ok(used.took.as_secs_f64())
}
