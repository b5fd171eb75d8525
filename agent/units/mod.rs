//! The units step: what people write by hand, with a wait in each.
//!
//! In: Settings, Identity, and the unit files of `units/`, which are embedded. Out, per unit: its configuration file, its
//! `.env` (flags in `ARGS`, what it waits for in `WAIT`), the unit file, its enablement, and the unit running. systemd is
//! the graph: the agent queues the starts together, and each unit's own `ExecStartPre=nodeagent wait` holds it back.
//! Idempotent because files are compared whole and a unit that runs is not started.

mod components;

use crate::config::settings::Settings;
use crate::config::values::{RootPath, UnitName};
use crate::engine::change::{Change, Debt, Verb};
use crate::engine::file::{ManagedFile, ManagedLink};
use crate::engine::id::{Id, Step};
use crate::engine::resource::{CannotTell, Delta, Diff, Planned, Resource, Seen, Thing};
use crate::host::facts::Facts;
use crate::identity::Identity;

/// Where unit files go.
const UNIT_DIR: &str = "/etc/systemd/system";

/// A program that runs as a unit on this node.
struct Component {
    unit: UnitName,
    /// The unit file, from `units/`.
    unit_file: &'static str,
    /// Its configuration file and the content.
    config: (RootPath, String),
    /// Its flags.
    args: Vec<String>,
    /// What each start waits for.
    wait: Vec<String>,
}

/// The resources of this step.
pub fn plan(settings: &Settings, _facts: &Facts, identity: &Identity) -> Vec<Planned> {
    let components = [components::kubelet(settings, identity), components::kube_proxy(settings, identity)];
    let mut all: Vec<Planned> = Vec::new();
    let mut running = Vec::new();
    for component in components {
        let unit = &component.unit;
        let restart = Debt::Restart(unit.clone());
        let planned = |name: String, owes: Vec<Debt>, what: Box<dyn Resource>| Planned {
            id: Id::new(Step::Units, name),
            why: settings.origins.of("role"),
            owes,
            what,
        };
        let (config, content) = component.config.clone();
        let env = RootPath::literal("/etc/kubernetes").join(&format!("{}.env", unit.stem()));
        let file = RootPath::literal(UNIT_DIR).join(unit.as_str());
        let enabled = RootPath::literal(UNIT_DIR).join(&format!("multi-user.target.wants/{unit}"));
        let after = [&config, &env, &file, &enabled].map(|path| Thing::Stat(path.clone())).to_vec();
        all.push(planned(format!("{}-config", unit.stem()), vec![restart.clone()], ManagedFile::new(config, content)));
        all.push(planned(
            format!("{}.env", unit.stem()),
            vec![restart.clone()],
            ManagedFile::new(env, env_file(&component)),
        ));
        let unit_file = ManagedFile::new(file.clone(), component.unit_file.to_owned());
        all.push(planned(unit.to_string(), vec![Debt::DaemonReload, restart], unit_file));
        let link = ManagedLink {
            path: enabled,
            to: file.to_string(),
            purpose: format!("{unit} enabled"),
            after: vec![Thing::Stat(file)],
        };
        all.push(planned(format!("{}-enabled", unit.stem()), vec![Debt::DaemonReload], Box::new(link)));
        let run = Running { unit: unit.clone(), after };
        running.push(planned(format!("{}-running", unit.stem()), Vec::new(), Box::new(run)));
    }
    // All starts come last and in one round, so that they are queued together.
    all.extend(running);
    all
}

/// The unit's `.env`: one line of flags, quoted for `EnvironmentFile=` (systemd.exec(5)).
fn env_file(component: &Component) -> String {
    let line = |name: &str, words: &[String]| {
        let escaped = words.join(" ").replace('\\', "\\\\").replace('"', "\\\"");
        format!("{name}=\"{escaped}\"\n")
    };
    format!(
        "# Written by nodeagent for {}; put changes into node.yaml.\n{}{}",
        component.unit,
        line("ARGS", &component.args),
        line("WAIT", &component.wait)
    )
}

/// A unit that runs.
struct Running {
    unit: UnitName,
    /// What must be in place before it is started.
    after: Vec<Thing>,
}

impl Resource for Running {
    fn summary(&self) -> String {
        format!("{} running", self.unit)
    }

    fn reads(&self) -> Vec<Thing> {
        std::iter::once(Thing::Unit(self.unit.clone())).chain(self.after.iter().cloned()).collect()
    }

    fn makes(&self) -> Vec<Thing> {
        vec![Thing::Unit(self.unit.clone())]
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        let now = seen.unit(&self.unit)?.map_or("not loaded", |sight| sight.active.as_str());
        if matches!(now, "active" | "reloading") {
            return Ok(Diff::Same);
        }
        Ok(Diff::Differs {
            shown: vec![Delta::new("state", now, "active")],
            known: vec![Change::Job { unit: self.unit.clone(), verb: Verb::Start }],
        })
    }
}
