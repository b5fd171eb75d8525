//! `nodeagent bootstrap`, and each step alone: the same engine over one plan.

use std::time::Instant;

use clap::Args;
use serde::Serialize;

use super::node::{self, Node};
use super::output::{self, Format};
use super::{Exit, Global, clock, join, plan};
use crate::config::settings::Settings;
use crate::config::values::RootPath;
use crate::engine::apply::{self, Outcome};
use crate::engine::commit::Hand;
use crate::engine::fault::Fault;
use crate::engine::history;
use crate::engine::id::Step;
use crate::engine::ledger;
use crate::engine::plan::Plan;
use crate::engine::record::Record;
use crate::engine::settle;
use crate::host::http::Http;
use crate::host::peers::Peers;
use crate::host::{self, Host};
use crate::journal::{Event, Teller};
use crate::upgrade;

/// Arguments of `bootstrap`.
#[derive(Args)]
pub struct BootstrapArgs {
    /// Show the plan and change nothing, like `nodeagent plan`
    #[arg(long)]
    dry_run: bool,
    /// Lift the hold that a rollback left
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    drain: DrainArgs,
}

/// What an upgrade of the kubelet wants.
#[derive(Args)]
pub struct DrainArgs {
    /// Replace the kubelet by another minor release although the node is not
    /// drained
    #[arg(long)]
    no_drain: bool,
}

/// Arguments of a single step.
#[derive(Args)]
pub struct StepArgs {
    /// Show this step's plan and change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// Runs all steps.
pub async fn run(args: BootstrapArgs, global: &Global, tell: &Teller) -> Result<Exit, Fault> {
    let host = node::host(global)?;
    if args.dry_run {
        let node = node::now(global, &host)?;
        plan::show(&node, None, global, &host).await?;
        upgrade_allowed(&node, &host, &args.drain, tell).await?;
        return join::tell_if_awaited(&node, &host, tell).map(|()| Exit::Done);
    }
    let settings = node::settings(global, &host)?;
    if !args.resume && is_held(&settings, &ledger::read(&host.root)?, tell) {
        return Ok(Exit::Done);
    }
    let node = node::awaited(global, &host, tell).await?;
    clock::ready(&node.settings, &host, tell).await?;
    upgrade_allowed(&node, &host, &args.drain, tell).await?;
    let plan = node.plan();
    let mut hand = Hand::take(&host, tell, history::BOOTSTRAP, Some(node.settings.digest.clone())).await?;
    // Asked again: somebody may have rolled back while this run waited for an address or the lock.
    if !args.resume && is_held(&node.settings, hand.records(), tell) {
        return Ok(Exit::Done);
    }
    if args.resume && history::hold(hand.records()).is_some() {
        hand.resume()?;
    }
    let exit = execute(history::BOOTSTRAP, &plan, &node, &host, hand, global, tell).await?;
    if exit == Exit::Done {
        join::tell_if_awaited(&node, &host, tell)?;
    }
    Ok(exit)
}

/// Runs one step alone.
pub async fn run_step(step: Step, args: StepArgs, global: &Global, tell: &Teller) -> Result<Exit, Fault> {
    let host = node::host(global)?;
    if args.dry_run {
        return plan::show(&node::now(global, &host)?, Some(step), global, &host).await.map(|_| Exit::Done);
    }
    let node = node::awaited(global, &host, tell).await?;
    if matches!(step, Step::Install | Step::Certs) {
        clock::ready(&node.settings, &host, tell).await?;
    }
    let plan = node.plan().only(step);
    let hand = Hand::take(&host, tell, step.name(), Some(node.settings.digest.clone())).await?;
    execute(step.name(), &plan, &node, &host, hand, global, tell).await
}

/// Refuses an upgrade that the cluster, or this node's pods, are not ready for. A tree has no pods.
pub(super) async fn upgrade_allowed(node: &Node, host: &Host, drain: &DrainArgs, tell: &Teller) -> Result<(), Fault> {
    if !host.is_live() {
        return Ok(());
    }
    let http = Http::new(tell.clone(), host.root.clone(), node.settings.download.clone());
    upgrade::check(&node.settings, &node.identity, &host.root, &http, drain.no_drain, tell).await
}

/// Whether a rollback asks to leave this machine alone while its configuration is this one.
pub(super) fn is_held(settings: &Settings, records: &[Record], tell: &Teller) -> bool {
    match history::hold(records) {
        Some((config, at)) if config.as_ref().is_none_or(|held| *held == settings.digest) => {
            let since = host::clock::text_of(at);
            tell.tell(&Event::Held { since: &since });
            true
        }
        _ => false,
    }
}

/// Applies the plan, settles, and says what became of it.
pub(super) async fn execute(
    command: &str,
    plan: &Plan,
    node: &Node,
    host: &Host,
    mut hand: Hand<'_>,
    global: &Global,
    tell: &Teller,
) -> Result<Exit, Fault> {
    let started = Instant::now();
    tell.tell(&Event::RunStarted { command });
    let etc = RootPath::literal("/etc");
    if host.is_live() && host.root.is_volatile(&etc) {
        tell.tell(&Event::Volatile { path: etc.as_str() });
    }
    let http = Http::new(tell.clone(), host.root.clone(), node.settings.download.clone());
    let peers = Peers { http, root: host.root.clone(), tell: tell.clone() };
    // Downloads that were interrupted go on; those that nobody wants any more give their space back first.
    let mut interrupted = node.plan().scratch();
    hand.clear_scratch(&interrupted);
    let mut outcome = apply::apply(plan, host, &mut hand, &peers).await;
    // Debts are paid even when a step failed: what was changed must be seen by its units.
    match settle::pay(&mut hand, &plan.no_restart).await {
        Ok(left) => outcome.owed = left.iter().map(ToString::to_string).collect(),
        Err(fault) => outcome.settle_failed(fault, tell),
    }
    if outcome.is_done() {
        settle::prove(plan, host, &hand, &mut outcome).await;
    }
    hand.end(outcome.is_done())?;
    if outcome.is_done() {
        interrupted.retain(|path| !plan.scratch().contains(path));
        hand.clear_scratch(&interrupted);
    }
    let exit = outcome.class().map_or(Exit::Done, Exit::from);
    let failed =
        format!("{} of {} failed or not tried", outcome.failed.len() + outcome.not_tried.len(), outcome.total());
    tell.tell(&Event::RunEnded {
        command,
        result: if exit == Exit::Done { "done" } else { &failed },
        changed: outcome.changed.len(),
        total: outcome.total(),
        took: started.elapsed(),
    });
    if global.output == Format::Json {
        output::json(&Report::new(command, node, &outcome));
    }
    Ok(exit)
}

/// `-o json`: what became of a run.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    api_version: &'static str,
    kind: &'static str,
    command: &'a str,
    identity: &'a crate::identity::Identity,
    changed: &'a [crate::engine::id::Id],
    unchanged: usize,
    skipped: usize,
    failed: Vec<Failure>,
    not_tried: Vec<Failure>,
    not_proven: Vec<Failure>,
    owed: &'a [String],
}

#[derive(Serialize)]
struct Failure {
    id: String,
    why: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl<'a> Report<'a> {
    fn new(command: &'a str, node: &'a Node, outcome: &'a Outcome) -> Self {
        let plain = |(id, why): (String, String)| Failure { id, why, advice: None };
        Self {
            api_version: "nodeagent.io/v1alpha1",
            kind: "Run",
            command,
            identity: &node.identity,
            changed: &outcome.changed,
            unchanged: outcome.unchanged,
            skipped: outcome.skipped,
            failed: outcome
                .failed
                .iter()
                .map(|(id, fault)| Failure { id: id.to_string(), why: fault.to_string(), advice: fault.advice.clone() })
                .collect(),
            not_tried: outcome.not_tried.iter().map(|(id, why)| plain((id.to_string(), why.clone()))).collect(),
            not_proven: outcome.unproven.iter().map(|(id, why)| plain((id.to_string(), why.to_string()))).collect(),
            owed: &outcome.owed,
        }
    }
}
