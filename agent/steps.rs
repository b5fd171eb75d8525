//! The six steps in their order: the one place that names them all.

use std::collections::BTreeSet;

use crate::config::settings::Settings;
use crate::config::values::UnitName;
use crate::engine::id::Step;
use crate::engine::plan::Plan;
use crate::engine::resource::Planned;
use crate::host::facts::Facts;
use crate::identity::Identity;
use crate::{certs, install, kernel, limits, network, units};

type Planner = fn(&Settings, &Facts, &Identity) -> Vec<Planned>;

/// The plan for this node. Pure: no clock, no randomness, no I/O.
pub fn plan(settings: &Settings, facts: &Facts, identity: &Identity) -> Plan {
    let steps = Step::ALL.map(|step| (step, planner(step)(settings, facts, identity)));
    Plan { steps: steps.into(), no_restart: forbidden_restarts(settings) }
}

/// The units that the configuration forbids to restart (`limits.UNIT.restart: false`).
pub fn forbidden_restarts(settings: &Settings) -> BTreeSet<UnitName> {
    settings.limits.iter().filter(|(_, limits)| !limits.restart).map(|(unit, _)| unit.clone()).collect()
}

fn planner(step: Step) -> Planner {
    match step {
        Step::Network => network::plan,
        Step::Kernel => kernel::plan,
        Step::Install => install::plan,
        Step::Certs => certs::plan,
        Step::Limits => limits::plan,
        Step::Units => units::plan,
    }
}
