//! The limits step: what people put into drop-ins by hand, set at once and proven.
//!
//! In: `limits` of Settings. Out: `/etc/systemd/system/UNIT.d/90-nodeagent.conf` for every start from now on, and
//! `TasksMax` of a unit that runs, at once. A running unit's resource limits need a restart, which is owed by the drop-in
//! and paid at the end, or stays owed where `limits.UNIT.restart` is false. Idempotent because the drop-in is compared
//! whole and the property is read back.

mod proof;

use crate::config::settings::{Settings, UnitLimits};
use crate::config::values::{Limit, RootPath, UnitName};
use crate::engine::change::{Change, Debt, PropertyName};
use crate::engine::file::ManagedFile;
use crate::engine::id::{Id, Step};
use crate::engine::resource::{CannotTell, Delta, Diff, Planned, Resource, Seen, Thing};
use crate::engine::undo::control_file;
use crate::host::facts::Facts;
use crate::identity::Identity;

const HEADER: &str = "# Written by nodeagent; put your own settings into a drop-in that sorts after this one.";

/// The resources of this step.
pub fn plan(wanted: &Settings, _facts: &Facts, _identity: &Identity) -> Vec<Planned> {
    let mut all = Vec::new();
    for (unit, limits) in &wanted.limits {
        let why = wanted.origins.of(&format!("limits.{unit}"));
        let mut owes = vec![Debt::DaemonReload];
        if !limits.rlimits.is_empty() {
            owes.push(Debt::Restart(unit.clone()));
        }
        let path = RootPath::literal("/etc/systemd/system").join(&format!("{unit}.d/90-nodeagent.conf"));
        let content = format!("{HEADER}\n[Service]\n{}\n", settings(limits).join("\n"));
        let drop_in = DropIn { file: *ManagedFile::new(path, content), unit: unit.clone(), limits: limits.clone() };
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

/// The drop-in's settings, one a line.
fn settings(limits: &UnitLimits) -> Vec<String> {
    let rlimits = limits.rlimits.iter().map(|(rlimit, limit)| format!("{}={limit}", rlimit.directive()));
    let tasks_max = limits.tasks_max.map(|value| format!("TasksMax={}", number(value)));
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
        format!("{}: {}", self.unit, settings(&self.limits).join(" "))
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
        vec![Thing::Unit(self.unit.clone()), Thing::Limits(self.unit.clone())]
    }

    fn prove(&self, seen: &Seen) -> Result<(), CannotTell> {
        proof::prove(&self.unit, &self.limits, seen)
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
