//! The units step: what people write by hand, with a wait in each.
//!
//! In: Settings, Identity, and the unit files of `units/`, which are embedded. Out, per unit: its configuration file, its
//! `.env` (flags in `ARGS`, what it waits for in `WAIT`), the unit file, its enablement, and the unit running. systemd is
//! the graph: the agent queues the starts together, and each unit's own `ExecStartPre=nodeagent wait` holds it back.
//! Idempotent because files are compared whole and a unit that runs is not started.

mod components;
mod flannel;
pub mod kubeadm;
mod networks;
mod pod_network;
mod retired;
mod snapshots;
pub mod versions;

use std::collections::BTreeSet;

pub use self::components::etcd::{CLIENTS as ETCD_CLIENTS, peers as etcd_peers};
use self::components::{Component, ConfigFile, Node};
use crate::config::catalogue::IMAGES_UNIT;
use crate::config::settings::{Origin, Role, Settings, Signer};
use crate::config::values::{RootPath, UnitName};
use crate::engine::change::{Change, Debt, Meta, SCRATCH, Verb};
use crate::engine::file::{ManagedDir, ManagedFile, ManagedLink};
use crate::engine::id::{Id, Step};
use crate::engine::resource::{CannotTell, Delta, Diff, Planned, Resource, Seen, Thing};
use crate::engine::unitfile::UnitFile;
use crate::host::facts::Facts;
use crate::identity::Identity;

/// Where unit files go.
const UNIT_DIR: &str = "/etc/systemd/system";

/// Refreshes the env file at each boot. It is enabled, and not started: at this boot the network step has done its work.
const NETWORK: (&str, &str) = ("nodeagent-network.service", include_str!("../../units/nodeagent-network.service"));

/// Renews certificates, every hour that its timer has it look.
const RENEWAL: (&str, &str) = ("nodeagent-renew.service", include_str!("../../units/nodeagent-renew.service"));
const RENEWAL_TIMER: (&str, &str) = ("nodeagent-renew.timer", include_str!("../../units/nodeagent-renew.timer"));

/// Applies what a cluster lacks, on controllers.
const CLUSTER: (&str, &str) = ("nodeagent-cluster.service", include_str!("../../units/nodeagent-cluster.service"));

/// The data directory that etcd's unit file itself makes and may write to (`StateDirectory=`).
const ETCD_DATA: &str = "/var/lib/etcd";

/// What the renewal's unit may write to.
const RENEWED: &str = "/etc/kubernetes";

/// The resources of this step.
pub fn plan(settings: &Settings, facts: &Facts, identity: &Identity) -> Vec<Planned> {
    let mut all: Vec<Planned> = Vec::new();
    let mut running = Vec::new();
    let why = settings.origins.of("role");
    enabled(&UnitName::literal(NETWORK.0), NETWORK.1, vec![Debt::DaemonReload], &why, &mut all);
    if !settings.install.images.is_empty() {
        let unit = UnitName::literal(IMAGES_UNIT);
        let file = include_str!("../../units/nodeagent-images.service");
        running.push(service(&unit, file, Vec::new(), &settings.origins.of("kubernetes.images"), &mut all));
    }
    // Where kubeadm joins the node, the kubelet renews what it has.
    if settings.role != Role::Kubeadm {
        running.push(renewal(settings, &why, &mut all));
    }
    let node = Node { settings, facts, identity };
    running.extend(networks::plan(&node, &mut all));
    if settings.etcd.member {
        all.extend(etcd_data(settings));
        running.extend(snapshots::plan(settings, &mut all));
    }
    for component in node.components() {
        running.push(program(component, &why, &mut all));
    }
    if settings.role == Role::Kubeadm {
        running.extend(kubeadm::plan(&node, &why, &mut all));
    }
    if settings.role == Role::Controller {
        let unit = UnitName::literal(CLUSTER.0);
        running.push(service(&unit, CLUSTER.1, Vec::new(), &why, &mut all));
    }
    // All starts come last and in one round, so that they are queued together.
    all.extend(running);
    all
}

/// The data directory of etcd where it is not the usual one, and the unit's right to write there.
fn etcd_data(settings: &Settings) -> Vec<Planned> {
    let dir = &settings.etcd.data_dir;
    if dir.as_str() == ETCD_DATA {
        return Vec::new();
    }
    let why = settings.origins.of("etcd.dataDir");
    let made = ManagedDir { path: dir.clone(), meta: Meta::root(0o700) };
    let text = format!("# Written by nodeagent: where etcd.dataDir is.\n[Service]\n{}", writable(dir));
    let path = RootPath::literal(UNIT_DIR).join("etcd.service.d/80-nodeagent-data.conf");
    let drop_in = ManagedFile::unit(path, &UnitFile::parse(&text));
    let owes = vec![Debt::DaemonReload, Debt::Restart(UnitName::literal("etcd.service"))];
    vec![
        planned("etcd-data".to_owned(), &why, Vec::new(), Box::new(made)),
        planned("etcd-data-path".to_owned(), &why, owes, Box::new(drop_in)),
    ]
}

/// The line that lets a confined unit write to a directory: quoted, and free of specifiers (systemd.syntax(7),
/// systemd.unit(5)).
fn writable(dir: &RootPath) -> String {
    let escaped = dir.as_str().replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%");
    format!("ReadWritePaths=\"{escaped}\"\n")
}

/// Adds a program's files and its unit, and returns its start.
fn program(component: Component, why: &Origin, all: &mut Vec<Planned>) -> Planned {
    let unit = component.unit.clone();
    let restart = vec![Debt::Restart(unit.clone())];
    let env = RootPath::literal("/etc/kubernetes").join(&format!("{}.env", unit.stem()));
    let content = env_file(&component);
    let mut after = vec![Thing::Stat(env.clone())];
    for ConfigFile { name, path, what } in component.files {
        after.push(Thing::Stat(path));
        all.push(planned(name, why, restart.clone(), what));
    }
    all.push(planned(format!("{}.env", unit.stem()), why, restart, ManagedFile::new(env, content)));
    service(&unit, component.unit_file, after, why, all)
}

/// Adds the renewal's unit, and returns the start of its timer.
fn renewal(settings: &Settings, why: &Origin, all: &mut Vec<Planned>) -> Planned {
    let file = RootPath::literal(UNIT_DIR).join(RENEWAL.0);
    let mut after = vec![Thing::Stat(file.clone())];
    let unit = ManagedFile::unit(file, &UnitFile::parse(RENEWAL.1));
    all.push(planned(RENEWAL.0.to_owned(), why, vec![Debt::DaemonReload], Box::new(unit)));
    let elsewhere = renewed_elsewhere(settings);
    if !elsewhere.is_empty() {
        // One that is not there, or not any more, keeps nothing else from being renewed: hence the dash.
        let lines: Vec<String> = elsewhere.iter().map(|dir| writable(dir).replacen("=\"", "=\"-", 1)).collect();
        let text = format!("# Written by nodeagent: where pki says that keys are.\n[Service]\n{}", lines.concat());
        let path = RootPath::literal(UNIT_DIR).join(&format!("{}.d/90-nodeagent.conf", RENEWAL.0));
        after.push(Thing::Stat(path.clone()));
        let drop_in = ManagedFile::unit(path, &UnitFile::parse(&text));
        all.push(planned("nodeagent-renew-paths".to_owned(), why, vec![Debt::DaemonReload], Box::new(drop_in)));
    }
    service(&UnitName::literal(RENEWAL_TIMER.0), RENEWAL_TIMER.1, after, why, all)
}

/// The directories outside of [`RENEWED`] in which a renewal has something to write: pairs, a CA's key to destroy, keys
/// whose requests are open, or the service accounts' public key.
fn renewed_elsewhere(settings: &Settings) -> Vec<RootPath> {
    let certs = &settings.certs;
    let signers =
        [&certs.signer, &certs.etcd.signer].into_iter().chain(certs.front_proxy.as_ref().map(|ca| &ca.signer));
    let of_signers = signers.filter_map(|signer| match signer {
        Signer::Local { key, remove_after_use: true } => Some(key.parent()),
        // Not the directory itself, which comes and goes.
        Signer::Kubernetes { .. } => Some(RootPath::literal(SCRATCH).parent()),
        Signer::Offline { dir } => Some(dir.clone()),
        _ => None,
    });
    let inside = |dir: &RootPath| dir.as_str() == RENEWED || dir.as_str().starts_with(&format!("{RENEWED}/"));
    let service_accounts = (settings.role == Role::Controller).then(|| certs.service_account_key.parent());
    let all: BTreeSet<RootPath> =
        of_signers.chain([certs.dir.clone()]).chain(service_accounts).filter(|dir| !inside(dir)).collect();
    all.into_iter().collect()
}

fn planned(name: String, why: &Origin, owes: Vec<Debt>, what: Box<dyn Resource>) -> Planned {
    Planned { id: Id::new(Step::Units, name), why: why.clone(), owes, what }
}

/// The link that has a unit started with a target.
fn enabled_by(unit: &UnitName, target: &str) -> RootPath {
    RootPath::literal(UNIT_DIR).join(&format!("{target}.wants/{unit}"))
}

/// Adds a unit's file and the link that has it started at each boot (what `systemctl enable` makes), and returns both.
fn enabled(unit: &UnitName, text: &str, owes: Vec<Debt>, why: &Origin, all: &mut Vec<Planned>) -> [Thing; 2] {
    let content = UnitFile::parse(text);
    let wanted_by = content.values("Install", "WantedBy").first().copied().unwrap_or("multi-user.target").to_owned();
    let file = RootPath::literal(UNIT_DIR).join(unit.as_str());
    let link = enabled_by(unit, &wanted_by);
    let things = [&file, &link].map(|path| Thing::Stat(path.clone()));
    let unit_file = ManagedFile::unit(file.clone(), &content);
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
    // systemd splits `$ARGS` at white space, and respects quotes while it does (systemd.service(5), "Command lines").
    let word = |word: &String| {
        if word.contains(|c: char| c.is_whitespace() || "\"'\\".contains(c)) {
            format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
        } else {
            word.clone()
        }
    };
    let line = |name: &str, words: &[String]| {
        let escaped = words.iter().map(word).collect::<Vec<_>>().join(" ").replace('\\', "\\\\").replace('"', "\\\"");
        format!("{name}=\"{escaped}\"\n")
    };
    // `${NAME}` is one word, whatever is in it.
    let var =
        |(name, value): &(&str, String)| format!("{name}=\"{}\"\n", value.replace('\\', "\\\\").replace('"', "\\\""));
    let vars: String = component.vars.iter().map(var).collect();
    format!(
        "# Written by nodeagent for {}; put changes into node.yaml.\n{}{}{vars}",
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
