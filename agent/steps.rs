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

/// The certs step. What kubeadm is told about joining is of two: its form is the release's, and a secret is in it.
fn certificates(settings: &Settings, facts: &Facts, identity: &Identity) -> Vec<Planned> {
    let join = units::kubeadm::join_configuration(settings, facts, identity);
    let join = join.and_then(|config| certs::join::plan(settings, config));
    certs::plan(settings, facts, identity).into_iter().chain(join).collect()
}

fn planner(step: Step) -> Planner {
    match step {
        Step::Network => network::plan,
        Step::Kernel => kernel::plan,
        Step::Install => install::plan,
        Step::Certs => certificates,
        Step::Limits => limits::plan,
        Step::Units => units::plan,
    }
}
