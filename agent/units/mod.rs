//! The units step: what people write by hand, with a wait in each.
//!
//! In: Settings, Identity, and the unit files of `units/`, which are embedded. Out, per unit: its configuration file, its
//! `.env` (flags in `ARGS`, what it waits for in `WAIT`), the unit file, its enablement, and the unit running. systemd is
//! the graph: the agent queues the starts together, and each unit's own `ExecStartPre=nodeagent wait` holds it back.
//! Idempotent because files are compared whole and a unit that runs is not started.

mod components;

use crate::config::catalogue::IMAGES_UNIT;
use crate::config::settings::{Origin, Settings};
use crate::config::values::{RootPath, UnitName};
use crate::engine::change::{Change, Debt, Verb};
use crate::engine::file::{ManagedFile, ManagedLink};
use crate::engine::id::{Id, Step};
use crate::engine::resource::{CannotTell, Delta, Diff, Planned, Resource, Seen, Thing};
use crate::engine::unitfile::UnitFile;
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

/// Refreshes the env file at each boot. It is enabled, and not started: at this boot the network step has done its work.
const NETWORK: (&str, &str) = ("nodeagent-network.service", include_str!("../../units/nodeagent-network.service"));

/// The resources of this step.
pub fn plan(settings: &Settings, _facts: &Facts, identity: &Identity) -> Vec<Planned> {
    let mut all: Vec<Planned> = Vec::new();
    let mut running = Vec::new();
    let why = settings.origins.of("role");
    enabled(&UnitName::literal(NETWORK.0), NETWORK.1, vec![Debt::DaemonReload], &why, &mut all);
    if !settings.install.images.is_empty() {
        let unit = UnitName::literal(IMAGES_UNIT);
        let file = include_str!("../../units/nodeagent-images.service");
        running.push(service(&unit, file, Vec::new(), &settings.origins.of("kubernetes.images"), &mut all));
    }
    for component in [components::kubelet(settings, identity), components::kube_proxy(settings, identity)] {
        let unit = &component.unit;
        let restart = Debt::Restart(unit.clone());
        let (config, content) = component.config.clone();
        let env = RootPath::literal("/etc/kubernetes").join(&format!("{}.env", unit.stem()));
        let after = [&config, &env].map(|path| Thing::Stat(path.clone())).to_vec();
        let config = ManagedFile::new(config, content);
        all.push(planned(format!("{}-config", unit.stem()), &why, vec![restart.clone()], config));
        let env = ManagedFile::new(env, env_file(&component));
        all.push(planned(format!("{}.env", unit.stem()), &why, vec![restart], env));
        running.push(service(unit, component.unit_file, after, &why, &mut all));
    }
    // All starts come last and in one round, so that they are queued together.
    all.extend(running);
    all
}

fn planned(name: String, why: &Origin, owes: Vec<Debt>, what: Box<dyn Resource>) -> Planned {
    Planned { id: Id::new(Step::Units, name), why: why.clone(), owes, what }
}

/// Adds a unit's file and the link that has it started at each boot (what `systemctl enable` makes), and returns both.
fn enabled(unit: &UnitName, text: &str, owes: Vec<Debt>, why: &Origin, all: &mut Vec<Planned>) -> [Thing; 2] {
    let file = RootPath::literal(UNIT_DIR).join(unit.as_str());
    let link = RootPath::literal(UNIT_DIR).join(&format!("multi-user.target.wants/{unit}"));
    let things = [&file, &link].map(|path| Thing::Stat(path.clone()));
    let unit_file = ManagedFile::unit(file.clone(), &UnitFile::parse(text));
    all.push(planned(unit.to_string(), why, owes, Box::new(unit_file)));
    let enablement = ManagedLink {
        path: link,
        to: file.to_string(),
        purpose: format!("{unit} enabled"),
        after: vec![Thing::Stat(file)],
    };
    all.push(planned(format!("{}-enabled", unit.stem()), why, vec![Debt::DaemonReload], Box::new(enablement)));
    things
}

/// Adds a unit's file and its enablement, and returns its start, which comes after them and `after`.
fn service(unit: &UnitName, text: &str, mut after: Vec<Thing>, why: &Origin, all: &mut Vec<Planned>) -> Planned {
    let owes = vec![Debt::DaemonReload, Debt::Restart(unit.clone())];
    after.extend(enabled(unit, text, owes, why, all));
    planned(format!("{}-running", unit.stem()), why, Vec::new(), Box::new(Running { unit: unit.clone(), after }))
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
