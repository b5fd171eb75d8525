//! The six steps in their order: the one place that names them all.

use std::collections::BTreeSet;

use crate::config::settings::Settings;
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
    let forbids = |unit: &_| settings.limits.get(unit).is_some_and(|limits| !limits.restart);
    let no_restart: BTreeSet<_> = settings.limits.keys().filter(|unit| forbids(unit)).cloned().collect();
    Plan { steps: steps.into(), no_restart }
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
