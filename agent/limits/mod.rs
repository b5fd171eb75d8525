//! The limits step: what people put into drop-ins by hand, set at once and proven.
//!
//! In: `limits` and `systemd` of Settings. Out: `/etc/systemd/system/UNIT.d/90-nodeagent.conf` for every start from now
//! on, `TasksMax` of a unit that runs, at once, and `/etc/systemd/system.conf.d/90-nodeagent.conf`. A running unit's
//! resource limits need a restart, which is owed by the drop-in and paid at the end, or stays owed where
//! `limits.UNIT.restart` is false; or, where `limits.UNIT.inPlace` is true, those of its processes are raised at once.
//! Idempotent because the drop-ins are compared whole and the properties and limits are read back.

mod in_place;
mod manager;
mod proof;

use crate::config::settings::{Settings, UnitLimits};
use crate::config::values::{Limit, RootPath, UnitName};
use crate::engine::change::{Change, Debt, PropertyName};
use crate::engine::file::ManagedFile;
use crate::engine::id::{Id, Step};
use crate::engine::resource::{CannotTell, Delta, Diff, Planned, Resource, Seen, Thing};
use crate::engine::undo::control_file;
use crate::engine::unitfile::UnitFile;
use crate::host::facts::Facts;
use crate::identity::Identity;

const HEADER: &str = "Written by nodeagent; put your own settings into a drop-in that sorts after this one.";

/// The resources of this step.
pub fn plan(wanted: &Settings, _facts: &Facts, _identity: &Identity) -> Vec<Planned> {
    // systemd's own defaults come first: they hold for what it loads after them.
    let mut all: Vec<Planned> = manager::plan(wanted).into_iter().collect();
    for (unit, limits) in &wanted.limits {
        let why = wanted.origins.of(&format!("limits.{unit}"));
        let mut owes = vec![Debt::DaemonReload];
        if !limits.rlimits.is_empty() && !limits.in_place {
            owes.push(Debt::Restart(unit.clone()));
        }
        let path = RootPath::literal("/etc/systemd/system").join(&format!("{unit}.d/90-nodeagent.conf"));
        let content = UnitFile::new(HEADER, "Service", settings(limits));
        if limits.in_place && !limits.rlimits.is_empty() {
            let what = in_place::RunningRlimits { unit: unit.clone(), rlimits: limits.rlimits.clone() };
            let id = Id::new(Step::Limits, format!("{unit}-in-place"));
            all.push(Planned { id, why: why.clone(), owes: Vec::new(), what: Box::new(what) });
        }
        let drop_in = DropIn { file: ManagedFile::unit(path, &content), unit: unit.clone(), limits: limits.clone() };
        all.push(Planned { id: Id::new(Step::Limits, unit), why: why.clone(), owes, what: Box::new(drop_in) });
        if let Some(tasks_max) = limits.tasks_max {
            all.push(Planned {
                id: Id::new(Step::Limits, format!("{unit}-tasks-max")),
                why,
                owes: vec![Debt::DaemonReload],
                what: Box::new(RunningTasksMax { unit: unit.clone(), tasks_max }),
            });
        }
    }
    all
}

/// The drop-in's settings.
fn settings(limits: &UnitLimits) -> Vec<(String, String)> {
    let rlimits = limits.rlimits.iter().map(|(rlimit, limit)| (rlimit.directive().to_owned(), limit.to_string()));
    let tasks_max = limits.tasks_max.map(|value| (PropertyName::TasksMax.as_str().to_owned(), number(value)));
    rlimits.chain(tasks_max).collect()
}

fn number(value: u64) -> String {
    Limit { soft: value, hard: value }.to_string()
}

/// The persistent half: a drop-in, and the proof that what it says is in force.
struct DropIn {
    file: ManagedFile,
    unit: UnitName,
    limits: UnitLimits,
}

impl Resource for DropIn {
    fn summary(&self) -> String {
        let settings = settings(&self.limits).into_iter().map(|(key, value)| format!("{key}={value}"));
        settings.collect::<Vec<_>>().join(" ")
    }

    fn reads(&self) -> Vec<Thing> {
        self.file.reads()
    }

    fn makes(&self) -> Vec<Thing> {
        self.file.makes()
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        self.file.diff(seen)
    }

    fn proof_reads(&self) -> Vec<Thing> {
        let unit = || self.unit.clone();
        vec![Thing::Unit(unit()), Thing::Limits(unit()), Thing::UnitFiles(unit()), Thing::Manager]
    }

    fn prove(&self, seen: &Seen) -> Result<(), CannotTell> {
        proof::prove(&self.unit, &self.limits, &self.file.path, seen)
    }
}

/// The running half: `TasksMax` of a unit that is loaded.
///
/// `SetUnitProperties` leaves a control file that sorts before nothing and behind everything: it would shadow the
/// drop-in from the next reload on. It is removed with the same Change, and the reload that the drop-in owes anyway
/// then loads the same value from where it is meant to be.
struct RunningTasksMax {
    unit: UnitName,
    tasks_max: u64,
}

impl RunningTasksMax {
    fn control_file(&self) -> RootPath {
        control_file(&self.unit, PropertyName::TasksMax.as_str())
    }
}

impl Resource for RunningTasksMax {
    fn summary(&self) -> String {
        format!("{} running with TasksMax={}", self.unit, number(self.tasks_max))
    }

    fn reads(&self) -> Vec<Thing> {
        vec![Thing::Unit(self.unit.clone()), Thing::File(self.control_file())]
    }

    fn makes(&self) -> Vec<Thing> {
        vec![Thing::Unit(self.unit.clone())]
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        let Some(now) = seen.unit(&self.unit)?.and_then(|sight| sight.tasks_max) else { return Ok(Diff::Same) };
        let remove = Change::Remove { path: self.control_file() };
        if now != self.tasks_max {
            let set = Change::Property { unit: self.unit.clone(), name: PropertyName::TasksMax, value: self.tasks_max };
            let shown = vec![Delta::new("TasksMax", number(now), number(self.tasks_max))];
            return Ok(Diff::Differs { shown, known: vec![set, remove] });
        }
        // A run that was killed between the two left the file: it is ours if it says what we set.
        let left = String::from_utf8_lossy(seen.bytes(&self.control_file())?.unwrap_or_default()).into_owned();
        if left.lines().any(|line| line == format!("TasksMax={}", number(self.tasks_max))) {
            let shown = vec![Delta::new("control file", self.control_file(), "")];
            return Ok(Diff::Differs { shown, known: vec![remove] });
        }
        Ok(Diff::Same)
    }
}
