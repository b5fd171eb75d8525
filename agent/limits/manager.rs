//! What systemd gives to units that say nothing themselves: a drop-in of its own configuration.
//!
//! systemd reads it again at a daemon-reload (tried with 252 and 257), so no re-execution is needed. Units that were loaded
//! before take the new defaults with the same reload; processes that already run keep their resource limits until they
//! start again.

use super::proof::{self, Asked};
use super::{HEADER, number};
use crate::config::settings::{ManagerLimits, Settings};
use crate::config::values::RootPath;
use crate::engine::change::Debt;
use crate::engine::file::ManagedFile;
use crate::engine::id::{Id, Step};
use crate::engine::resource::{CannotTell, Diff, Planned, Resource, Seen, Thing};
use crate::engine::unitfile::UnitFile;

const TASKS_MAX: &str = "DefaultTasksMax";
const NO_FILE: &str = "DefaultLimitNOFILE";
const PATH: &str = "/etc/systemd/system.conf.d/90-nodeagent.conf";

/// The drop-in, if the configuration asks for any of it.
pub fn plan(wanted: &Settings) -> Option<Planned> {
    let limits = wanted.manager.clone();
    let settings = settings(&limits);
    if settings.is_empty() {
        return None;
    }
    let file = ManagedFile::unit(RootPath::literal(PATH), &UnitFile::new(HEADER, "Manager", settings));
    Some(Planned {
        id: Id::new(Step::Limits, "systemd"),
        why: wanted.origins.of("systemd"),
        owes: vec![Debt::DaemonReload],
        what: Box::new(Defaults { file, limits }),
    })
}

fn settings(limits: &ManagerLimits) -> Vec<(String, String)> {
    let tasks_max = limits.tasks_max.map(|value| (TASKS_MAX.to_owned(), number(value)));
    let no_file = limits.no_file.map(|limit| (NO_FILE.to_owned(), limit.to_string()));
    tasks_max.into_iter().chain(no_file).collect()
}

struct Defaults {
    file: ManagedFile,
    limits: ManagerLimits,
}

impl Resource for Defaults {
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
        vec![Thing::Manager]
    }

    fn prove(&self, seen: &Seen) -> Result<(), CannotTell> {
        let sight = seen.manager()?;
        let asked = |key, want: Option<String>, now: Option<String>| {
            let asked = Asked { section: "Manager", key, want: want?, ours: &self.file.path };
            proof::property(&asked, now.as_deref(), &sight.files, &sight.version)
        };
        let tasks = asked(TASKS_MAX, self.limits.tasks_max.map(number), sight.tasks_max.map(number));
        let files = asked(NO_FILE, self.limits.no_file.map(|l| l.to_string()), sight.no_file.map(|l| l.to_string()));
        let wrong: Vec<String> = tasks.into_iter().chain(files).collect();
        if wrong.is_empty() { Ok(()) } else { Err(CannotTell::new("systemd", wrong.join("; "))) }
    }
}
