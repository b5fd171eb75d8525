//! A node that kubeadm joins to a cluster: the kubelet's unit with the drop-in that kubeadm counts on, and the join.
//!
//! kubeadm configures the kubelet (`/var/lib/kubelet`), and has its certificates made. What only this machine knows, and
//! what kubeadm would have to be told at each join, is in `kubelet.env`, which every start reads: so a join by hand gets it
//! too, and a new address at the next boot.

use serde_json::{Value, json};

use super::components::kubelet::{CONTAINERD, VOLUME_PLUGINS, cgroup_driver_of, labels, manifests_dir};
use super::components::{Component, Node, RUNTIME, etc};
use super::versions::Program;
use super::{Running, UNIT_DIR, enabled, env_file, planned};
use crate::config::kubeadm::{JOIN_CONFIG, JOINED, JOINING};
use crate::config::settings::{Join, Origin, Role, Settings};
use crate::config::values::{RootPath, UnitName};
use crate::engine::change::{Change, Debt, Verb};
use crate::engine::file::ManagedFile;
use crate::engine::resource::{CannotTell, Delta, Diff, Planned, Resource, Seen, Thing};
use crate::engine::unitfile::UnitFile;
use crate::host::facts::Facts;
use crate::host::seen::Entry;
use crate::identity::Identity;

/// The kubelet as kubeadm starts it.
const KUBELET: (&str, &str) = ("kubelet.service", include_str!("../../units/kubelet-of-kubeadm.service"));

/// What people who know kubeadm look for, under the name that its packages give it.
const DROP_IN: (&str, &str) =
    ("10-kubeadm.conf", include_str!("../../units/kubelet-of-kubeadm.service.d/10-kubeadm.conf"));

/// Runs `kubeadm join`, once.
const JOIN: (&str, &str) =
    ("nodeagent-kubeadm-join.service", include_str!("../../units/nodeagent-kubeadm-join.service"));

/// Adds the files, and returns what is done with them: the join, what it leaves to clear away, and the kubelet's start.
pub(super) fn plan(node: &Node<'_>, why: &Origin, all: &mut Vec<Planned>) -> Vec<Planned> {
    let kubelet = UnitName::literal(KUBELET.0);
    let read = || vec![Debt::DaemonReload, Debt::Restart(kubelet.clone())];
    let env = KubeletEnv { path: etc("kubelet.env"), component: kubelet_component(node) };
    let drop_in = RootPath::literal(UNIT_DIR).join(&format!("{}.d/{}", KUBELET.0, DROP_IN.0));
    let mut after = vec![Thing::Stat(env.path.clone()), Thing::Stat(drop_in.clone())];
    let restart = vec![Debt::Restart(kubelet.clone())];
    all.push(planned("kubelet.env".to_owned(), why, restart, Box::new(env)));
    let manifests = manifests_dir(etc("manifests"));
    all.push(planned("manifests".to_owned(), why, Vec::new(), Box::new(manifests)));
    let drop_in = ManagedFile::unit(drop_in, &UnitFile::parse(DROP_IN.1));
    all.push(planned(DROP_IN.0.to_owned(), why, read(), Box::new(drop_in)));
    after.extend(enabled(&kubelet, KUBELET.1, read(), why, all));

    let mut steps = Vec::new();
    let by_token = matches!(node.settings.kubeadm.join, Join::ByToken { .. });
    if by_token {
        steps.push(join(node, &after, why, all));
    }
    let leftover = JoinConfigGone { until_joined: by_token };
    steps.push(planned("kubeadm-join-config".to_owned(), why, Vec::new(), Box::new(leftover)));
    let running = IfJoined(Running { unit: kubelet, after });
    steps.push(planned("kubelet-running".to_owned(), why, Vec::new(), Box::new(running)));
    steps
}

/// Adds the join's unit, and returns the join. It is not enabled: an agent that has not done its work is started at each
/// boot, and once the node has joined there is nothing to start.
fn join(node: &Node<'_>, after: &[Thing], why: &Origin, all: &mut Vec<Planned>) -> Planned {
    let unit = UnitName::literal(JOIN.0);
    let component = Component {
        unit: unit.clone(),
        unit_file: JOIN.1,
        files: Vec::new(),
        args: vec![format!("--config={JOIN_CONFIG}")],
        wait: vec![node.api_server(), RUNTIME.to_owned()],
        vars: Vec::new(),
    };
    let env = etc("nodeagent-kubeadm-join.env");
    let file = RootPath::literal(UNIT_DIR).join(JOIN.0);
    let own = [&env, &file].map(|path| Thing::Stat(path.clone()));
    let content = ManagedFile::new(env, env_file(&component));
    all.push(planned("nodeagent-kubeadm-join.env".to_owned(), why, Vec::new(), content));
    let unit_file = ManagedFile::unit(file, &UnitFile::parse(JOIN.1));
    all.push(planned(JOIN.0.to_owned(), why, vec![Debt::DaemonReload], Box::new(unit_file)));
    let cluster = node.settings.cluster.api_server.to_string();
    let after = after.iter().cloned().chain(own).collect();
    planned("kubeadm-join".to_owned(), why, Vec::new(), Box::new(Joined { unit, cluster, after }))
}

/// What the kubelet is told besides kubeadm's flags and configuration, over which these win.
fn kubelet_component(node: &Node<'_>) -> Component {
    let Node { settings, identity, .. } = node;
    let mut args = vec![
        format!("--hostname-override={}", identity.name),
        format!("--node-ip={}", identity.address),
        format!("--volume-plugin-dir={VOLUME_PLUGINS}"),
    ];
    args.extend(labels(node));
    if settings.kernel.swap {
        args.push("--fail-swap-on=false".to_owned());
    }
    Component {
        unit: UnitName::literal(KUBELET.0),
        unit_file: KUBELET.1,
        files: Vec::new(),
        args,
        // Not the API server: where a person makes this machine a controller by kubeadm, the kubelet is what runs it.
        wait: vec![RUNTIME.to_owned()],
        vars: Vec::new(),
    }
}

/// All of kubeadm's `JoinConfiguration` that is no secret; nothing where the agent does not have it join.
pub fn join_configuration(settings: &Settings, facts: &Facts, identity: &Identity) -> Option<Value> {
    if settings.role != Role::Kubeadm || settings.kubeadm.join == Join::ByHand {
        return None;
    }
    let node = Node { settings, facts, identity };
    let mut registration = json!({ "name": identity.name, "criSocket": RUNTIME });
    let mut ignored = settings.kubeadm.ignored_errors.clone();
    if settings.kernel.swap {
        ignored.push("Swap".to_owned());
    }
    if !ignored.is_empty() {
        registration["ignorePreflightErrors"] = json!(ignored);
    }
    let (host, port) = settings.cluster.api_server.host_port();
    let endpoint = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let config = json!({
        "kind": "JoinConfiguration",
        "discovery": { "bootstrapToken": { "apiServerEndpoint": endpoint } },
        "nodeRegistration": registration,
    });
    Some(node.config(Program::Kubeadm, config))
}

/// The `.env` of the kubelet's unit, with what follows from a file of this machine.
struct KubeletEnv {
    path: RootPath,
    /// What follows from Settings and Identity.
    component: Component,
}

impl Resource for KubeletEnv {
    fn summary(&self) -> String {
        self.path.to_string()
    }

    fn reads(&self) -> Vec<Thing> {
        let containerd = CONTAINERD.map(|path| Thing::File(RootPath::literal(path)));
        containerd.into_iter().chain([Thing::File(self.path.clone())]).collect()
    }

    fn makes(&self) -> Vec<Thing> {
        vec![Thing::File(self.path.clone())]
    }

    /// A cluster has one kubelet configuration for all of its nodes, and kubeadm writes `systemd` into it since 1.22: what
    /// this machine's container runtime does is the machine's own.
    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        let driver = format!("--cgroup-driver={}", cgroup_driver_of(seen)?);
        let args = self.component.args.iter().cloned().chain([driver]).collect();
        let Component { unit, unit_file, wait, .. } = &self.component;
        let (unit, wait) = (unit.clone(), wait.clone());
        let component = Component { unit, unit_file, files: Vec::new(), args, wait, vars: Vec::new() };
        ManagedFile::new(self.path.clone(), env_file(&component)).diff(seen)
    }
}

/// Whether the cluster has taken the node in. A kubeconfig that is empty is what a power cut left of one.
fn has_joined(seen: &Seen) -> Result<bool, CannotTell> {
    Ok(seen.entry(&RootPath::literal(JOINED))?.has_content())
}

/// A node that is one of its cluster's.
struct Joined {
    unit: UnitName,
    /// Which cluster.
    cluster: String,
    /// What must be in place before.
    after: Vec<Thing>,
}

impl Resource for Joined {
    fn summary(&self) -> String {
        format!("a node of {}, by kubeadm join ({})", self.cluster, self.unit)
    }

    fn reads(&self) -> Vec<Thing> {
        let own = [Thing::Stat(RootPath::literal(JOINED)), Thing::Stat(RootPath::literal(JOIN_CONFIG))];
        own.into_iter().chain([Thing::Unit(self.unit.clone())]).chain(self.after.iter().cloned()).collect()
    }

    fn makes(&self) -> Vec<Thing> {
        vec![Thing::Unit(self.unit.clone()), Thing::Stat(RootPath::literal(JOINED))]
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        if has_joined(seen)? {
            return Ok(Diff::Same);
        }
        let path = RootPath::literal(JOINED);
        let empty = !matches!(seen.entry(&path)?, Entry::Absent);
        let start = Change::Job { unit: self.unit.clone(), verb: Verb::Start };
        Ok(Diff::Differs {
            shown: vec![Delta::new("state", "not joined", "joined")],
            known: empty.then_some(Change::Destroy { path }).into_iter().chain([start]).collect(),
        })
    }
}

/// kubeadm's configuration is away when nothing is left to be done with it: it holds a token. So does what a join that was
/// cut off leaves of the kubelet's first kubeconfig, which kubeadm removes at its own end.
struct JoinConfigGone {
    /// Whether it is wanted as long as the node has not joined.
    until_joined: bool,
}

impl Resource for JoinConfigGone {
    fn summary(&self) -> String {
        format!("{JOIN_CONFIG} destroyed once the node has joined")
    }

    fn reads(&self) -> Vec<Thing> {
        [JOINED, JOIN_CONFIG, JOINING].map(|path| Thing::Stat(RootPath::literal(path))).into()
    }

    /// Nothing that others wait for: the join reads the file, and this waits for the join.
    fn makes(&self) -> Vec<Thing> {
        Vec::new()
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        if self.until_joined && !has_joined(seen)? {
            return Ok(Diff::Same);
        }
        // Where a person does it, that kubeconfig is theirs.
        let left = [Some(JOIN_CONFIG), self.until_joined.then_some(JOINING)];
        let (mut shown, mut known) = (Vec::new(), Vec::new());
        for path in left.into_iter().flatten().map(RootPath::literal) {
            if !matches!(seen.entry(&path)?, Entry::Absent) {
                shown.push(Delta::new("file with a bootstrap token", &path, ""));
                known.push(Change::Destroy { path });
            }
        }
        Ok(if known.is_empty() { Diff::Same } else { Diff::Differs { shown, known } })
    }
}

/// The kubelet of a node that has joined runs. Before, it has nothing to run with, and kubeadm starts it.
struct IfJoined(Running);

impl Resource for IfJoined {
    fn summary(&self) -> String {
        format!("{}, once the node has joined", self.0.summary())
    }

    fn reads(&self) -> Vec<Thing> {
        self.0.reads().into_iter().chain([Thing::Stat(RootPath::literal(JOINED))]).collect()
    }

    fn makes(&self) -> Vec<Thing> {
        self.0.makes()
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        if has_joined(seen)? { self.0.diff(seen) } else { Ok(Diff::Same) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::Source;
    use crate::engine::change::Meta;
    use crate::host::seen::{Sight, Stamp};

    const NODE: &str = "\
apiVersion: nodeagent.io/v1alpha1
kind: NodeConfig
role: kubeadm
cluster: { apiServer: 'https://[fd00::11]' }
pki: { ca: /etc/nodeagent/ca.pem, signer: { kubernetes: { tokenFile: /etc/nodeagent/token } } }
";

    fn settings(more: &str) -> Settings {
        let source = |text: &str| Source { name: "node.yaml".into(), text: text.into() };
        crate::config::load(vec![source(NODE), source(more)]).unwrap_or_else(|errors| panic!("{errors}"))
    }

    fn configuration(more: &str) -> Option<Value> {
        join_configuration(&settings(more), &Facts::sample(), &Identity::sample())
    }

    #[test]
    fn kubeadm_is_told_in_the_form_of_its_own_release() {
        for (version, api) in
            [("v1.21.9", "v1beta2"), ("v1.22.0", "v1beta3"), ("v1.30.4", "v1beta3"), ("v1.31.0", "v1beta4")]
        {
            // An upgrade begins with kubeadm.
            let more =
                format!("kubernetes: {{ version: v1.20.0, artifacts: {{ kubeadm: {{ version: {version} }} }} }}\n");
            let config = configuration(&more).expect("by token");
            assert_eq!(config["apiVersion"], format!("kubeadm.k8s.io/{api}"), "{version}");
        }
        let more =
            "kubernetes: { version: v1.34.2 }\nkernel: { swap: true }\nkubeadm: { ignorePreflightErrors: [Mem] }\n";
        let config = configuration(more).expect("by token");
        assert_eq!(config["discovery"]["bootstrapToken"]["apiServerEndpoint"], "[fd00::11]:443");
        assert_eq!(config["nodeRegistration"]["ignorePreflightErrors"], json!(["Mem", "Swap"]));
        assert_eq!(configuration("kubernetes: { version: v1.34.2 }\npki: null\n"), None, "a person does it");
    }

    /// A machine on which these of the two files are.
    fn seen(there: &[&str]) -> Seen {
        let entry = |path: &str| {
            let size = u64::from(!there.contains(&"empty"));
            let stamp = Stamp { size, inode: 1, mtime_ns: 0, ctime_ns: 0 };
            let file = Entry::File { meta: Meta::SECRET, stamp, bytes: None };
            if there.contains(&path) { file } else { Entry::Absent }
        };
        let sights = [JOINED, JOIN_CONFIG, JOINING].map(|path| {
            let sight = Sight::Entry(entry(path));
            (Thing::Stat(RootPath::literal(path)), Ok(sight))
        });
        Seen(BTreeMap::from(sights))
    }

    fn changes(what: &dyn Resource, there: &[&str]) -> Vec<Change> {
        match what.diff(&seen(there)).unwrap_or_else(|error| panic!("{error}")) {
            Diff::Same => Vec::new(),
            Diff::Differs { known, .. } => known,
        }
    }

    #[test]
    fn it_is_joined_once_and_what_holds_the_token_goes_then() {
        let unit = UnitName::literal(JOIN.0);
        let joined = Joined { unit: unit.clone(), cluster: String::new(), after: Vec::new() };
        assert!(matches!(&changes(&joined, &[JOIN_CONFIG])[..], [Change::Job { verb: Verb::Start, .. }]));
        assert!(changes(&joined, &[JOINED]).is_empty());
        // A power cut left an empty kubeconfig, in which a join would see the end of another.
        let again = changes(&joined, &[JOINED, "empty"]);
        assert!(matches!(&again[..], [Change::Destroy { .. }, Change::Job { .. }]), "{again:?}");
        let by_token = JoinConfigGone { until_joined: true };
        assert!(changes(&by_token, &[JOIN_CONFIG]).is_empty(), "it is still to be read");
        assert!(matches!(&changes(&by_token, &[JOIN_CONFIG, JOINED])[..], [Change::Destroy { .. }]));
        assert!(changes(&by_token, &[JOINED]).is_empty());
        assert!(changes(&by_token, &[JOINING]).is_empty(), "the kubelet needs it");
        assert!(matches!(&changes(&by_token, &[JOINING, JOINED])[..], [Change::Destroy { .. }]), "it holds the token");
        let by_hand = JoinConfigGone { until_joined: false };
        assert!(matches!(&changes(&by_hand, &[JOIN_CONFIG])[..], [Change::Destroy { .. }]), "nobody reads it");
        // Not even looked at before: it is not started without its configuration.
        let running = IfJoined(Running { unit: UnitName::literal(KUBELET.0), after: Vec::new() });
        assert!(changes(&running, &[]).is_empty());
    }
}
