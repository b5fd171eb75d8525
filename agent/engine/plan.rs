//! The plan: the ordered steps for this node, and how each resource stands to the machine now.

use std::collections::BTreeSet;

use serde::Serialize;

use super::change::Debt;
use super::id::{Id, Step};
use super::resource::{Delta, Diff, Planned, Resource, Thing};
use crate::config::settings::Origin;
use crate::config::values::{RootPath, UnitName};
use crate::host::Host;

/// The ordered steps for this node.
pub struct Plan {
    /// Each step and its resources, in the order in which they are committed.
    pub steps: Vec<(Step, Vec<Planned>)>,
    /// Units that must not be restarted although a Change owes it: the debt stays, and is shown.
    pub no_restart: BTreeSet<UnitName>,
}

impl Plan {
    /// All resources with their steps, in order.
    pub fn resources(&self) -> impl Iterator<Item = (Step, &Planned)> {
        self.steps.iter().flat_map(|(step, planned)| planned.iter().map(move |p| (*step, p)))
    }

    /// What in the scratch directory belongs to it.
    pub fn scratch(&self) -> BTreeSet<RootPath> {
        self.resources().flat_map(|(_, planned)| planned.what.scratch()).collect()
    }

    /// Only one step of it.
    pub fn only(mut self, step: Step) -> Self {
        self.steps.retain(|(other, _)| *other == step);
        self
    }
}

/// How a resource stands to the machine now.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "status", rename_all = "kebab-case")]
pub enum Status {
    /// As wanted.
    Same,
    /// It would be changed.
    Differs {
        /// What differs.
        differences: Vec<Delta>,
    },
    /// It reads what another resource has yet to make.
    After {
        /// The other.
        after: Id,
    },
    /// Not for this machine.
    Skipped {
        /// Why.
        reason: String,
    },
    /// What it reads cannot be read.
    CannotTell {
        /// Why.
        reason: String,
        /// What to do, if the cause knows.
        #[serde(skip_serializing_if = "Option::is_none")]
        advice: Option<String>,
    },
}

impl Status {
    /// Whether bootstrap would have something to do.
    pub fn is_pending(&self) -> bool {
        matches!(self, Self::Differs { .. } | Self::After { .. } | Self::CannotTell { .. })
    }
}

/// One line of the plan.
#[derive(Debug, Clone, Serialize)]
pub struct Shown {
    /// The step.
    pub step: Step,
    /// The resource.
    pub id: Id,
    /// What it is.
    pub summary: String,
    /// Which setting asked for it.
    pub origin: Origin,
    /// How it stands.
    #[serde(flatten)]
    pub status: Status,
    /// What units will be made to see.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub owes: Vec<Debt>,
}

/// Compares the plan with the machine and changes nothing.
pub async fn preview(plan: &Plan, host: &Host) -> Vec<Shown> {
    let mut shown: Vec<Shown> = Vec::new();
    let mut unfinished: Vec<(Id, Vec<Thing>)> = Vec::new();
    for (step, planned) in plan.resources() {
        let status = status(planned, &unfinished, host).await;
        if status.is_pending() {
            unfinished.push((planned.id.clone(), planned.what.makes()));
        }
        let owes = if matches!(status, Status::Differs { .. }) { planned.owes.clone() } else { Vec::new() };
        shown.push(Shown {
            step,
            id: planned.id.clone(),
            summary: planned.what.summary(),
            origin: planned.why.clone(),
            status,
            owes,
        });
    }
    shown
}

async fn status(planned: &Planned, unfinished: &[(Id, Vec<Thing>)], host: &Host) -> Status {
    if let Some(reason) = skipped(planned.what.as_ref(), host) {
        return Status::Skipped { reason };
    }
    let reads = planned.what.reads();
    let waits =
        unfinished.iter().find(|(_, makes)| makes.iter().any(|made| reads.iter().any(|read| made.touches(read))));
    if let Some((after, _)) = waits {
        return Status::After { after: after.clone() };
    }
    match planned.what.diff(&host.see(&reads).await) {
        Ok(Diff::Same) => Status::Same,
        Ok(Diff::Differs { shown, .. }) => Status::Differs { differences: shown },
        Err(cannot) => Status::CannotTell { reason: cannot.to_string(), advice: cannot.advice },
    }
}

/// Why a resource is not for this machine; nothing if it is.
pub fn skipped(resource: &dyn Resource, host: &Host) -> Option<String> {
    let live = resource.makes().iter().any(Thing::is_live);
    (live && !host.is_live()).then(|| "not the running machine".to_owned())
}
