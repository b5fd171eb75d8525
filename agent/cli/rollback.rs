//! `nodeagent rollback`: the last bootstrap undone, from the ledger.

use std::fmt::Write as _;

use clap::Args;

use super::output::{self, Format};
use super::{Exit, Global, node};
use crate::engine::commit::Hand;
use crate::engine::fault::Fault;
use crate::engine::ledger;
use crate::engine::rollback::{self, Undone};
use crate::journal::Teller;

/// Arguments of `rollback`.
#[derive(Args)]
pub struct RollbackArgs {
    /// Show what would be undone, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Also remove the keys and certificates that the bootstrap made
    #[arg(long)]
    purge: bool,
}

/// Undoes the last bootstrap.
pub async fn run(args: RollbackArgs, global: &Global, tell: &Teller) -> Result<Exit, Fault> {
    let host = node::host(global)?;
    let all = if args.dry_run {
        rollback::preview(&host, args.purge).await?
    } else {
        // A configuration that is broken must not keep anyone from rolling back; the hold then waits for --resume.
        let config = node::settings(global, &host).ok().map(|settings| settings.digest);
        let mut hand = Hand::take(&host, tell, ledger::ROLLBACK, config.clone()).await?;
        rollback::rollback(&mut hand, config, args.purge).await?
    };
    match global.output {
        Format::Json => output::json(&all),
        Format::Text => output::print(&text(&all, args.dry_run)),
    }
    Ok(Exit::Done)
}

fn text(all: &[Undone], dry_run: bool) -> String {
    if all.is_empty() {
        return "Nothing to undo: the ledger records no Change that was not undone already.\n".to_owned();
    }
    let mut out = String::new();
    let (mut undone_count, mut kept_count) = (0, 0);
    for undone in all {
        // Writing to a String cannot fail.
        let _ = match undone {
            Undone::Undone { what } => {
                undone_count += 1;
                writeln!(out, "- {what}")
            }
            Undone::Already { what } => writeln!(out, "= {what}: already as before"),
            Undone::Kept { what, why } => {
                kept_count += 1;
                writeln!(out, "! {what}: kept: {why}")
            }
        };
    }
    let verb = if dry_run { "would be undone" } else { "undone" };
    let _ = writeln!(out, "{undone_count} {verb}, {kept_count} kept.");
    if !dry_run {
        let _ = writeln!(
            out,
            "Later bootstraps do nothing until the configuration changes or `nodeagent bootstrap --resume`."
        );
    }
    out
}
