//! `nodeagent install`: the install step alone, and what only it can do.

use clap::Args;

use super::bootstrap::{DrainArgs, execute, upgrade_allowed};
use super::node::{self, Node};
use super::{Exit, Global, plan};
use crate::engine::commit::Hand;
use crate::engine::fault::Fault;
use crate::engine::id::Step;
use crate::engine::ledger;
use crate::engine::plan::Plan;
use crate::engine::record::Record;
use crate::install::prune;
use crate::journal::Teller;

/// Arguments of `install`.
#[derive(Args)]
pub struct InstallArgs {
    /// Show this step's plan and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Remove all versions of the programs but the one in use and the one before it
    #[arg(long)]
    prune: bool,
    /// Read every installed program whole and compare its digest, instead of its size, inode and times
    #[arg(long)]
    rehash: bool,
    #[command(flatten)]
    drain: DrainArgs,
}

/// Runs the step.
pub async fn run(args: InstallArgs, global: &Global, tell: &Teller) -> Result<Exit, Fault> {
    let host = node::host(global)?;
    if args.dry_run {
        let mut node = node::now(global, &host)?;
        node.settings.install.rehash = args.rehash;
        let records = if args.prune { ledger::read(&host.root)? } else { Vec::new() };
        return plan::show_plan(&this_step(&node, &records), &node, global, &host).await.map(|_| Exit::Done);
    }
    let mut node = node::awaited(global, &host, tell).await?;
    node.settings.install.rehash = args.rehash;
    upgrade_allowed(&node, &host, &args.drain, tell).await?;
    let hand = Hand::take(&host, tell, Step::Install.name(), Some(node.settings.digest.clone())).await?;
    let plan = this_step(&node, if args.prune { hand.records() } else { &[] });
    execute(Step::Install.name(), &plan, &node, &host, hand, global, tell).await
}

/// The step's resources, and the old versions among what the records say was placed.
fn this_step(node: &Node, records: &[Record]) -> Plan {
    let mut plan = node.plan().only(Step::Install);
    let old = prune::plan(&node.settings, records);
    if let Some((_, resources)) = plan.steps.first_mut() {
        resources.extend(old);
    }
    plan
}
