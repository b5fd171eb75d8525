//! `nodeagent rollback` and `nodeagent uninstall`: the ledger read backwards.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use clap::Args;

use super::output::{self, Format};
use super::{Exit, Global, node};
use crate::engine::commit::Hand;
use crate::engine::fault::Fault;
use crate::engine::history::{self, Run};
use crate::engine::ledger;
use crate::engine::rollback::{self, Back, Undoing, Undone};
use crate::host::clock;
use crate::journal::Teller;
use crate::{steps, upgrade};

/// Arguments of `rollback`.
#[derive(Args)]
pub struct RollbackArgs {
    /// Go back to how the machine was when RUN had ended; 0 is before the first
    #[arg(long, value_name = "RUN", conflicts_with = "list")]
    to: Option<u64>,
    /// List the runs that can be gone back to
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    how: HowArgs,
}

/// Arguments of `uninstall`.
#[derive(Args)]
pub struct UninstallArgs {
    #[command(flatten)]
    how: HowArgs,
}

#[derive(Args)]
struct HowArgs {
    /// Show what would be undone, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Also remove the keys and certificates that were made here
    #[arg(long)]
    purge: bool,
}

/// Undoes the last run, or everything since a point.
pub async fn run(args: RollbackArgs, global: &Global, tell: &Teller) -> Result<Exit, Fault> {
    if args.list {
        return list(global);
    }
    let back = args.to.map_or(Back::LastRun, Back::To);
    undo(history::ROLLBACK, back, &args.how, global, tell).await
}

/// Undoes everything that was ever done here.
pub async fn uninstall(args: UninstallArgs, global: &Global, tell: &Teller) -> Result<Exit, Fault> {
    undo(history::UNINSTALL, Back::To(0), &args.how, global, tell).await
}

async fn undo(command: &'static str, back: Back, how: &HowArgs, global: &Global, tell: &Teller) -> Result<Exit, Fault> {
    let host = node::host(global)?;
    let undoing = if how.dry_run {
        let relinked = rollback::relinked(&ledger::read(&host.root)?, back, how.purge)?;
        upgrade::check_undoing(&host.root, &relinked)?;
        Undoing { changes: rollback::preview(&host, back, how.purge).await?, ..Undoing::default() }
    } else {
        // A configuration that is broken must not keep anyone from undoing; the hold then waits for --resume.
        let settings = node::settings(global, &host).ok();
        let forbidden = settings.as_ref().map(steps::forbidden_restarts).unwrap_or_default();
        let config = settings.map(|settings| settings.digest);
        let mut hand = Hand::take(&host, tell, command, config.clone()).await?;
        upgrade::check_undoing(&host.root, &rollback::relinked(hand.records(), back, how.purge)?)?;
        rollback::undo(&mut hand, back, config, how.purge, &forbidden).await?
    };
    match global.output {
        Format::Json => output::json(&undoing.changes),
        Format::Text => output::print(&text(&undoing, how.dry_run)),
    }
    Ok(undoing.failed.map_or(Exit::Done, Exit::from))
}

fn list(global: &Global) -> Result<Exit, Fault> {
    let host = node::host(global)?;
    let runs = history::runs(&ledger::read(&host.root)?);
    match global.output {
        Format::Json => output::json(&runs),
        Format::Text => output::print(&runs.iter().map(line).collect::<String>()),
    }
    Ok(Exit::Done)
}

fn line(run: &Run) -> String {
    let when = clock::text(UNIX_EPOCH + Duration::from_secs(run.at));
    let end = if run.done { "" } else { ", did not come to a good end" };
    format!("{:>4}  {when}  {:<10} {} Changes stand{end}\n", run.number, run.command, run.standing)
}

fn text(undoing: &Undoing, dry_run: bool) -> String {
    if undoing.changes.is_empty() {
        return "Nothing to undo: the ledger records no Change that was not undone already.\n".to_owned();
    }
    let mut out = String::new();
    let (mut undone, mut kept, mut failed) = (0, 0, 0);
    for change in &undoing.changes {
        // Writing to a String cannot fail, here and below.
        let _ = match change {
            Undone::Undone { what } => {
                undone += 1;
                writeln!(out, "- {what}")
            }
            Undone::Already { what } => writeln!(out, "= {what}: already as before"),
            Undone::Kept { what, because } => {
                kept += 1;
                writeln!(out, "! {what}: kept: {because}")
            }
            Undone::Failed { what, why } => {
                failed += 1;
                writeln!(out, "x {what}: {why}")
            }
        };
    }
    for debt in &undoing.owed {
        let _ = writeln!(out, "Still owed, since the configuration forbids it: {debt}.");
    }
    let verb = if dry_run { "would be undone" } else { "undone" };
    let failures =
        if failed > 0 { format!(", {failed} failed: run again when the cause is mended") } else { String::new() };
    let _ = writeln!(out, "{undone} {verb}, {kept} kept{failures}.");
    if !dry_run {
        let _ = writeln!(
            out,
            "Later bootstraps do nothing until the configuration changes or `nodeagent bootstrap --resume`: the ledger in\n\
             {} says so, and stays for that.",
            ledger::DIR
        );
    }
    out
}
