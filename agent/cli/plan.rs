//! `nodeagent plan`: what bootstrap would change, and why. It changes nothing.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use clap::Args;
use serde::Serialize;

use super::bootstrap::{DrainArgs, upgrade_allowed};
use super::node::{self, Node};
use super::output::{self, Format};
use super::{Exit, Global, join};
use crate::config::settings::{DefaultUsed, Origin};
use crate::config::values::{UnitName, Version};
use crate::engine::change::Debt;
use crate::engine::fault::Fault;
use crate::engine::id::Step;
use crate::engine::plan::{self, Plan, Shown, Status};
use crate::engine::settle;
use crate::host::Host;
use crate::host::facts::Facts;
use crate::identity::Identity;
use crate::journal::Teller;
use crate::units::versions::Support;

/// Arguments of `plan`.
#[derive(Args)]
pub struct PlanArgs {
    /// Exit with 6 when changes are pending
    #[arg(long)]
    exit_code: bool,
    #[command(flatten)]
    drain: DrainArgs,
}

/// Shows the plan.
pub async fn run(args: PlanArgs, global: &Global, tell: &Teller) -> Result<Exit, Fault> {
    let host = node::host(global)?;
    let node = node::now(global, &host)?;
    let pending = show(&node, None, global, &host).await?;
    upgrade_allowed(&node, &host, &args.drain, tell).await?;
    join::tell_if_awaited(&node, &host, tell)?;
    Ok(if args.exit_code && pending { Exit::Pending } else { Exit::Done })
}

/// Shows the plan of all steps or of one. Returns whether anything is pending.
pub async fn show(node: &Node, step: Option<Step>, global: &Global, host: &Host) -> Result<bool, Fault> {
    let plan = node.plan();
    let plan = if let Some(step) = step { plan.only(step) } else { plan };
    show_plan(&plan, node, global, host).await
}

/// Shows this plan. Returns whether anything is pending.
pub async fn show_plan(plan: &Plan, node: &Node, global: &Global, host: &Host) -> Result<bool, Fault> {
    let resources = plan::preview(plan, host).await;
    // An ordinary user may look at a plan, but not at the ledger.
    let owed: Vec<String> = match settle::owed(host) {
        Ok(debts) => debts.iter().map(ToString::to_string).collect(),
        Err(fault) => vec![format!("cannot tell ({fault})")],
    };
    let pending = resources.iter().filter(|shown| shown.status.is_pending()).count();
    let document = Document {
        api_version: "nodeagent.io/v1alpha1",
        kind: "Plan",
        role: node.settings.role.to_string(),
        identity: &node.identity,
        kubernetes: Release { version: &node.settings.install.version, known: Support::of_node(&node.settings) },
        pending,
        resources,
        owed,
        no_restart: &plan.no_restart,
        defaults: &node.settings.defaults,
        facts: &node.facts,
    };
    match global.output {
        Format::Json => output::json(&document),
        Format::Text => output::print(&text(&document, global.verbose)),
    }
    Ok(pending > 0 || !document.owed.is_empty())
}

/// The plan as `-o json` prints it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    api_version: &'static str,
    kind: &'static str,
    role: String,
    identity: &'a Identity,
    kubernetes: Release<'a>,
    /// How many resources would be changed.
    pending: usize,
    resources: Vec<Shown>,
    /// Debts of earlier runs that are still to be paid.
    owed: Vec<String>,
    /// Units that the configuration forbids to restart.
    no_restart: &'a BTreeSet<UnitName>,
    defaults: &'a [DefaultUsed],
    facts: &'a Facts,
}

/// The release of Kubernetes, and how well it is known here what its programs want.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Release<'a> {
    version: &'a Version,
    /// Nothing where no program of Kubernetes runs.
    known: Option<Support>,
}

/// The plan for people. What is as wanted is counted, and listed only if asked for.
fn text(plan: &Document<'_>, verbose: bool) -> String {
    let who = plan.identity;
    let mut out = format!("{} {} at {} on {}: {}\n", plan.role, who.name, who.address, who.link, who.why);
    // Writing to a String cannot fail, here and below.
    for rejected in &who.rejected {
        let _ = writeln!(out, "  not {} on {}: {}", rejected.address, rejected.link, rejected.why);
    }
    if let Release { version, known: Some(known) } = &plan.kubernetes {
        let _ = writeln!(out, "  Kubernetes {version}: flags and fields {known}");
    }
    let listed: Vec<&Shown> =
        plan.resources.iter().filter(|shown| verbose || !matches!(shown.status, Status::Same)).collect();
    for step in Step::ALL {
        let mut of_step = listed.iter().filter(|shown| shown.step == step).peekable();
        if of_step.peek().is_some() {
            let _ = writeln!(out, "\n{step}");
        }
        of_step.for_each(|shown| resource(&mut out, shown, plan.no_restart));
    }
    if verbose || plan.pending > 0 {
        let _ = writeln!(out, "\ndefaults used (node.yaml can set each)");
        for default in plan.defaults {
            let _ = writeln!(out, "  {}: {}", default.key, default.value);
        }
    }
    let _ = writeln!(out);
    for debt in &plan.owed {
        let _ = writeln!(out, "Owed by an earlier run: {debt}.");
    }
    let count = |pick: fn(&Status) -> bool| plan.resources.iter().filter(|s| pick(&s.status)).count();
    let same = count(|s| matches!(s, Status::Same));
    let skipped = count(|s| matches!(s, Status::Skipped { .. }));
    let skipped = if skipped > 0 { format!(", {skipped} skipped") } else { String::new() };
    if plan.pending == 0 && plan.owed.is_empty() {
        let _ = writeln!(out, "Nothing to do: {same} resources as wanted{skipped}.");
    } else {
        let _ = writeln!(out, "To do: {} of {} resources{skipped}.", plan.pending, plan.resources.len());
    }
    out
}

/// One resource: a mark, its name, what it is, who asked for it, and below it what differs.
fn resource(out: &mut String, shown: &Shown, no_restart: &BTreeSet<UnitName>) {
    let mark = match &shown.status {
        Status::Same => '=',
        Status::Differs { .. } => '~',
        Status::After { .. } => '>',
        Status::Skipped { .. } => '-',
        Status::CannotTell { .. } => '?',
    };
    let id = shown.id.as_str();
    let name = id.split_once('/').map_or(id, |(_, name)| name);
    let origin = match &shown.origin {
        Origin::Default => String::new(),
        file @ Origin::File { .. } => format!("  [{file}]"),
    };
    let _ = writeln!(out, "  {mark} {name}: {}{origin}", shown.summary);
    match &shown.status {
        Status::Same => {}
        Status::Differs { differences } => {
            for delta in differences {
                let _ = writeln!(out, "      {}", line(&delta.what, &delta.now, &delta.want));
            }
            for debt in &shown.owes {
                let _ = match debt {
                    Debt::Restart(unit) if no_restart.contains(unit) => {
                        writeln!(out, "      then {debt}: owed until you do it (limits.{unit}.restart: false)")
                    }
                    _ => writeln!(out, "      then {debt}"),
                };
            }
        }
        Status::After { after } => drop(writeln!(out, "      after {after}")),
        Status::Skipped { reason } => drop(writeln!(out, "      skipped: {reason}")),
        Status::CannotTell { reason, advice } => {
            let _ = writeln!(out, "      cannot tell: {reason}");
            if let Some(advice) = advice {
                let _ = writeln!(out, "      -> {advice}");
            }
        }
    }
}

fn line(what: &str, now: &str, want: &str) -> String {
    match (now, want) {
        ("", want) => format!("{what}: + {want}"),
        (now, "") => format!("{what}: - {now}"),
        (now, want) => format!("{what}: {now} -> {want}"),
    }
}
