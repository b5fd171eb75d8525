//! What each minor release of Kubernetes wants: one table of all that is not the same in every one of them.
//!
//! A row says of one flag, field or taint in which releases it is written, with the place where upstream says so. What
//! every known release takes alike is in [`super::components`]. A release that is newer than [`NEWEST`] gets what the
//! newest known one gets, and `plan` says that it is not known; one older than [`OLDEST`] is refused.
//! `docs/versions.md` is made from this module, and `tests/data/versions` holds what each release gets, file by file.

use std::fmt;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::components::{Node, RUNTIME, etc};
use crate::config::settings::{Role, Settings};
use crate::config::values::Version;
use crate::engine::fault::{Class, Explain};
use crate::host::facts::Cgroups;

/// The oldest minor release of Kubernetes 1 that is known here.
pub const OLDEST: u32 = 20;

/// The newest one (<https://kubernetes.io/releases/>, November 2026: upstream supports 1.35, 1.36 and 1.37).
pub const NEWEST: u32 = 37;

/// The releases that the lab runs: a cluster of them becomes Ready, and its pods reach each other.
const RUN: [u32; 1] = [20];

/// A program of Kubernetes that runs as a unit, or makes one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `kubelet`.
    Kubelet,
    /// `kube-proxy`.
    KubeProxy,
    /// `kube-apiserver`.
    ApiServer,
    /// `kube-controller-manager`.
    ControllerManager,
    /// `kube-scheduler`.
    Scheduler,
    /// `kubeadm`.
    Kubeadm,
}

impl Program {
    /// Those of a role.
    pub fn of(role: Role) -> &'static [Self] {
        match role {
            Role::Etcd => &[],
            Role::Worker | Role::Edge => &[Self::Kubelet, Self::KubeProxy],
            Role::Kubeadm => &[Self::Kubelet, Self::Kubeadm],
            Role::Controller => {
                &[Self::ApiServer, Self::ControllerManager, Self::Scheduler, Self::Kubelet, Self::KubeProxy]
            }
        }
    }

    /// The name of its file, its unit and its artifact.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kubelet => "kubelet",
            Self::KubeProxy => "kube-proxy",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Kubeadm => "kubeadm",
        }
    }

    /// Its version on this node: its artifact's own, else the release's.
    pub fn version(self, settings: &Settings) -> Version {
        let own = settings.install.artifacts.iter().find(|(name, _)| name.as_str() == self.name());
        own.and_then(|(_, artifact)| artifact.version.parse().ok()).unwrap_or_else(|| settings.install.version.clone())
    }
}

/// What a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// A flag, without its dashes.
    Flag(&'static str),
    /// A field of the configuration file, or of the object in it.
    Field(&'static str),
    /// A taint of controllers.
    Taint(&'static str),
}

/// One thing that not every release wants, or not alike.
struct Row {
    of: Program,
    what: What,
    /// The first minor release of Kubernetes 1 that gets it.
    from: u32,
    /// The first one that no longer does; [`ALWAYS`] where none is known.
    until: u32,
    /// Its value on a node; nothing where that node needs none.
    value: fn(&Node<'_>) -> Option<Value>,
    /// Why, in a few words.
    why: &'static str,
    /// Where upstream says so.
    source: &'static str,
}

/// No release is known that does without.
const ALWAYS: u32 = u32::MAX;

const TABLE: [Row; 14] = [
    Row {
        of: Program::Kubelet,
        what: What::Flag("container-runtime"),
        from: 20,
        until: 24,
        value: |_| Some(json!("remote")),
        why: "the default was docker until the kubelet lost its own code for it",
        source: "https://github.com/kubernetes/website/pull/34799",
    },
    Row {
        of: Program::Kubelet,
        what: What::Flag("container-runtime-endpoint"),
        from: 20,
        until: 27,
        value: |_| Some(json!(RUNTIME)),
        why: "there was no field for it",
        source: "https://github.com/kubernetes/kubernetes/pull/112136",
    },
    Row {
        of: Program::Kubelet,
        what: What::Field("containerRuntimeEndpoint"),
        from: 27,
        until: ALWAYS,
        value: |_| Some(json!(RUNTIME)),
        why: "the flag is deprecated",
        source: "https://github.com/kubernetes/kubernetes/pull/112136",
    },
    Row {
        of: Program::Kubelet,
        what: What::Flag("register-with-taints"),
        from: 20,
        until: 23,
        value: |node| {
            let taints: Vec<String> = taints(node).iter().map(|key| format!("{key}=:NoSchedule")).collect();
            (!taints.is_empty()).then(|| json!(taints.join(",")))
        },
        why: "there was no field for it",
        source: "https://github.com/kubernetes/kubernetes/pull/105437",
    },
    Row {
        of: Program::Kubelet,
        what: What::Field("registerWithTaints"),
        from: 23,
        until: ALWAYS,
        value: |node| {
            let taint = |key: &&str| json!({ "key": key, "effect": "NoSchedule" });
            let taints: Vec<Value> = taints(node).iter().map(taint).collect();
            (!taints.is_empty()).then(|| json!(taints))
        },
        why: "the flag is deprecated",
        source: "https://github.com/kubernetes/kubernetes/pull/105437",
    },
    Row {
        of: Program::Kubelet,
        what: What::Field("failCgroupV1"),
        from: 35,
        until: ALWAYS,
        value: |node| (node.facts.cgroups != Cgroups::Unified).then(|| json!(false)),
        why: "on a machine with control groups v1 the kubelet no longer starts by itself",
        source: "https://github.com/kubernetes/enhancements/tree/master/keps/sig-node/5573-cgroup-v1-unsupported",
    },
    Row {
        of: Program::Kubelet,
        what: What::Taint("node-role.kubernetes.io/master"),
        from: 20,
        until: 25,
        value: |_| None,
        why: "as kubeadm has it: what came with these releases tolerates this one",
        source: "https://github.com/kubernetes/enhancements/tree/master/keps/sig-cluster-lifecycle/kubeadm/2067-rename-master-label-taint",
    },
    Row {
        of: Program::Kubelet,
        what: What::Taint("node-role.kubernetes.io/control-plane"),
        from: 24,
        until: ALWAYS,
        value: |_| None,
        why: "as kubeadm has it",
        source: "https://github.com/kubernetes/enhancements/tree/master/keps/sig-cluster-lifecycle/kubeadm/2067-rename-master-label-taint",
    },
    Row {
        of: Program::ControllerManager,
        what: What::Flag("port"),
        from: 20,
        until: 24,
        value: |_| Some(json!(0)),
        why: "it served without authentication on all addresses; the flag is gone since 1.24",
        source: "https://github.com/kubernetes/kubernetes/pull/96216",
    },
    Row {
        of: Program::Scheduler,
        what: What::Flag("port"),
        from: 20,
        until: 23,
        value: |_| Some(json!(0)),
        why: "it served without authentication on all addresses, and with a configuration file this flag is ignored: \
              tried with 1.20.2",
        source: "https://github.com/kubernetes/kubernetes/pull/96345",
    },
    Row {
        of: Program::Scheduler,
        what: What::Flag("kubeconfig"),
        from: 20,
        until: 23,
        value: |_| Some(json!(etc("scheduler.conf"))),
        why: "no configuration file, see port",
        source: "https://github.com/kubernetes/kubernetes/pull/96345",
    },
    Row {
        of: Program::Scheduler,
        what: What::Flag("profiling"),
        from: 20,
        until: 23,
        value: |_| Some(json!(false)),
        why: "no configuration file, see port",
        source: "https://github.com/kubernetes/kubernetes/pull/96345",
    },
    Row {
        of: Program::Scheduler,
        what: What::Field("apiVersion"),
        from: 23,
        until: ALWAYS,
        value: |node| {
            let version = if node.minor(Program::Scheduler) < 25 { "v1beta3" } else { "v1" };
            Some(json!(format!("kubescheduler.config.k8s.io/{version}")))
        },
        why: "v1beta3, since 1.25 v1: the first configuration file that opens no port",
        source: "https://www.kubernetes.dev/resources/keps/785/",
    },
    Row {
        of: Program::Kubeadm,
        what: What::Field("apiVersion"),
        from: 20,
        until: ALWAYS,
        value: |node| {
            let version = match node.minor(Program::Kubeadm) {
                ..22 => "v1beta2",
                22..31 => "v1beta3",
                31.. => "v1beta4",
            };
            Some(json!(format!("kubeadm.k8s.io/{version}")))
        },
        why: "of `JoinConfiguration`: v1beta2, since 1.22 v1beta3, since 1.31 v1beta4, each while it is not deprecated",
        source: "https://kubernetes.io/blog/2024/08/23/kubernetes-1-31-kubeadm-v1beta4/",
    },
];

/// The flags of a program that depend on its release, as they stand on its command line.
pub fn flags(program: Program, node: &Node<'_>) -> Vec<String> {
    let flag = |row: &Row| {
        let What::Flag(name) = row.what else { return None };
        let value = match (row.value)(node)? {
            Value::String(text) => text,
            other => other.to_string(),
        };
        Some(format!("--{name}={value}"))
    };
    rows(program, node).filter_map(flag).collect()
}

/// The fields of a program's configuration file that depend on its release.
pub fn fields(program: Program, node: &Node<'_>) -> Map<String, Value> {
    let field = |row: &Row| {
        let What::Field(name) = row.what else { return None };
        Some((name.to_owned(), (row.value)(node)?))
    };
    rows(program, node).filter_map(field).collect()
}

/// The taints with which a node registers: what runs there must tolerate them.
fn taints(node: &Node<'_>) -> Vec<&'static str> {
    let of_controllers = |row: &Row| match row.what {
        What::Taint(key) => Some(key),
        What::Flag(_) | What::Field(_) => None,
    };
    match node.settings.role {
        Role::Controller => rows(Program::Kubelet, node).filter_map(of_controllers).collect(),
        Role::Edge => vec!["node-role.kubernetes.io/edge"],
        // What a node is marked by is kubeadm's to say.
        Role::Worker | Role::Etcd | Role::Kubeadm => Vec::new(),
    }
}

fn rows(program: Program, node: &Node<'_>) -> impl Iterator<Item = &'static Row> + use<> {
    let minor = node.minor(program);
    TABLE.iter().filter(move |row| row.of == program && row.from <= minor && minor < row.until)
}

/// How well a release is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Support {
    /// The lab runs it.
    Run,
    /// From upstream's documentation alone.
    Documented,
    /// It came after this program: what the newest known release wants.
    Newer,
}

impl Support {
    /// That of a minor release.
    fn of(minor: u32) -> Self {
        match minor {
            minor if RUN.contains(&minor) => Self::Run,
            minor if minor <= NEWEST => Self::Documented,
            _ => Self::Newer,
        }
    }

    /// That of the node: its least known program's. Nothing where no program of Kubernetes runs.
    pub fn of_node(settings: &Settings) -> Option<Self> {
        let programs = Program::of(settings.role).iter();
        programs.map(|program| Self::of(program.version(settings).minor())).max()
    }
}

impl fmt::Display for Support {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run => f.write_str("run"),
            Self::Documented => f.write_str("from documentation"),
            Self::Newer => write!(f, "newer than this nodeagent knows: as 1.{NEWEST}"),
        }
    }
}

/// The release is older than any that is known here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("kubernetes.version: {program} {version} is older than v1.{OLDEST}: what it wants is not known here")]
pub struct TooOld {
    program: &'static str,
    version: Version,
}

impl Explain for TooOld {
    fn class(&self) -> Class {
        Class::Usage
    }

    fn advice(&self) -> Option<String> {
        Some(format!("nothing was touched; use v1.{OLDEST} or later: docs/versions.md"))
    }
}

/// Refuses, before anything is touched, a release that is too old.
pub fn check(settings: &Settings) -> Result<(), TooOld> {
    let versions = Program::of(settings.role).iter().map(|program| (program.name(), program.version(settings)));
    match versions.into_iter().find(|(_, version)| !version.is_at_least(1, OLDEST)) {
        Some((program, version)) => Err(TooOld { program, version }),
        None => Ok(()),
    }
}

/// The tables of `docs/versions.md`.
pub fn document() -> String {
    let mut out = String::from("| release | how it is known |\n| --- | --- |\n");
    // Writing to a String cannot fail, here and below.
    for minor in OLDEST..=NEWEST {
        let _ = writeln!(out, "| 1.{minor} | {} |", Support::of(minor));
    }
    out.push_str("\n| program | what | releases | why |\n| --- | --- | --- | --- |\n");
    for row in &TABLE {
        let what = match row.what {
            What::Flag(name) => format!("`--{name}`"),
            What::Field(name) => format!("field `{name}`"),
            What::Taint(key) => format!("taint `{key}` of controllers"),
        };
        let until = if row.until == ALWAYS { "on".to_owned() } else { format!("to 1.{}", row.until - 1) };
        let (program, from, why, source) = (row.of.name(), row.from, row.why, row.source);
        let _ = writeln!(out, "| {program} | {what} | 1.{from} {until} | {why} ([source]({source})) |");
    }
    out
}
