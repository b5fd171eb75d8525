//! Settings: the configuration as planners see it. Nothing in here is optional in the sense of "unset".

mod certs;
mod etcd;
mod flannel;
mod install;
mod kubeadm;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

pub use self::certs::{CaSettings, CertsSettings, ExtraCertificate, KeyKind, STRAY_KEY, Signer, Usage};
pub use self::etcd::{EtcdSettings, SnapshotSettings};
pub use self::flannel::{FlannelBackend, FlannelEtcd, FlannelSettings, FlannelStore};
pub use self::install::{
    ArtifactSettings, DownloadSettings, Form, ImageSettings, InstallSettings, LockSettings, Proxy, Vouch,
};
pub use self::kubeadm::{Join, KubeadmSettings};
use super::values::{
    Cidr, DnsDomain, HttpUrl, ImageName, InterfaceName, LabelKey, LabelValue, Limit, ModuleName, NodeName, Sha256,
    SysctlKey, UnitName,
};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "from", rename_all = "kebab-case")]
pub enum Origin {
    /// A line of a configuration file.
    File {
        /// The file, as the user named it.
        file: String,
        /// Its line, from 1.
        line: usize,
    },
    /// A default that holds for the role, or for every role.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line } => write!(f, "{file}:{line}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// The origin of each value that a file gave, by its dotted key.
#[derive(Debug, Clone, Default)]
pub struct Origins(pub BTreeMap<String, Origin>);

impl Origins {
    /// Where the value of `key` came from: its own line, else the first that a file gives below it, else that of the
    /// nearest key above it, else a default.
    pub fn of(&self, key: &str) -> Origin {
        let below = format!("{key}.");
        let inside = self.0.range(below.clone()..).take_while(|(key, _)| key.starts_with(&below));
        let first = inside.map(|(_, origin)| origin).min_by_key(|origin| match origin {
            Origin::File { line, .. } => *line,
            Origin::Default => usize::MAX,
        });
        if let (Some(origin), false) = (first, self.0.contains_key(key)) {
            return origin.clone();
        }
        let mut key = key;
        loop {
            if let Some(origin) = self.0.get(key) {
                return origin.clone();
            }
            match key.rfind('.') {
                Some(dot) => key = &key[..dot],
                None => return Origin::Default,
            }
        }
    }
}

/// A default that was used, for people to see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DefaultUsed {
    /// The dotted key that could have been set.
    pub key: String,
    /// The value that holds instead.
    pub value: String,
}

/// Everything that planners may know about what the user wants.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What this node is.
    pub role: Role,
    /// Who it is.
    pub node: NodeSettings,
    /// The cluster that it joins.
    pub cluster: ClusterSettings,
    /// The cluster's store.
    pub etcd: EtcdSettings,
    /// Modules, sysctls and swap.
    pub kernel: KernelSettings,
    /// What to fetch.
    pub install: InstallSettings,
    /// How to fetch it.
    pub download: DownloadSettings,
    /// Keys and certificates.
    pub certs: CertsSettings,
    /// How kubeadm joins the node to its cluster, where that is its role.
    pub kubeadm: KubeadmSettings,
    /// Limits, by unit.
    pub limits: BTreeMap<UnitName, UnitLimits>,
    /// What the clock must be like.
    pub clock: ClockSettings,
    /// Limits that systemd gives to units that say nothing.
    pub manager: ManagerLimits,
    /// Where each value came from.
    pub origins: Origins,
    /// The defaults that were used, in key order.
    pub defaults: Vec<DefaultUsed>,
    /// Digest of the merged document: tells whether the configuration changed since a rollback put a hold on it.
    pub digest: Sha256,
}

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Keeps the cluster's store, and nothing else.
    Etcd,
    /// Runs the API server, the controllers and the scheduler, with or without a member of the store; and pods that
    /// tolerate it.
    Controller,
    /// Runs pods: kubelet, kube-proxy and a container runtime.
    Worker,
    /// A worker on a public address, for ingress.
    Edge,
    /// Has all that kubeadm needs, and joins by it a cluster that kubeadm made.
    Kubeadm,
}

impl Role {
    /// Whether a kubelet and a container runtime run there.
    pub fn runs_pods(self) -> bool {
        self != Self::Etcd
    }

    /// Whether nodeagent has the certificates made with which pods are run, and runs kube-proxy: kubeadm does both itself.
    pub fn has_pairs_of_pods(self) -> bool {
        self.runs_pods() && self != Self::Kubeadm
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Etcd => "etcd",
            Self::Controller => "controller",
            Self::Worker => "worker",
            Self::Edge => "edge",
            Self::Kubeadm => "kubeadm",
        })
    }
}

/// Who the node is, as far as the user decided it.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    /// Its name.
    pub name: NameChoice,
    /// Its address.
    pub address: AddressChoice,
    /// Whether the address also goes to `/etc/environment`, under the names that coreos-cloudinit used.
    pub coreos_environment: bool,
    /// Labels that the kubelet gives the node when it joins.
    pub labels: BTreeMap<LabelKey, LabelValue>,
}

/// How the node's name is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameChoice {
    /// `node.name`.
    Pinned(NodeName),
    /// The machine's hostname in lower case.
    Hostname,
}

/// How the node's address is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressChoice {
    /// The address of `node.interface`.
    Interface(InterfaceName),
    /// The address inside `node.cidr`.
    Network(Cidr),
    /// The address that the inventory has for this node (`cluster.nodes`).
    Listed(IpAddr),
    /// What the kernel would use towards the cluster.
    Automatic,
}

/// The cluster as this node needs to know it.
#[derive(Debug, Clone)]
pub struct ClusterSettings {
    /// Its name.
    pub name: String,
    /// Where the API server answers.
    pub api_server: HttpUrl,
    /// The port at which each controller serves the API itself.
    pub api_port: u16,
    /// Other machines of the cluster, by name: asked for a route where the API server is this machine itself.
    pub peers: BTreeMap<NodeName, HttpUrl>,
    /// Every machine of the cluster that is listed, by name.
    pub nodes: BTreeMap<NodeName, NodeEntry>,
    /// What connects pods.
    pub network: PodNetwork,
    /// Flannel, where that is what does.
    pub flannel: Option<FlannelSettings>,
    /// Addresses of pods.
    pub pod_cidr: Cidr,
    /// Addresses of services.
    pub service_cidr: Cidr,
    /// The cluster DNS's address.
    pub dns: IpAddr,
    /// The cluster's DNS domain.
    pub domain: String,
    /// The image of the `CoreDNS` that controllers have run as the cluster's DNS service, if they do.
    pub core_dns: Option<ImageName>,
}

/// A machine of the inventory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeEntry {
    /// What it is for.
    pub role: Role,
    /// Its address.
    pub address: IpAddr,
    /// The addresses of its pods.
    pub pod_cidr: Option<Cidr>,
    /// Further names that its certificates are for.
    pub names: Vec<DnsDomain>,
}

/// What connects pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PodNetwork {
    /// A bridge on each node, and routes between those of the inventory.
    Bridge,
    /// Flannel on each node.
    Flannel,
    /// What somebody else brings.
    #[serde(rename = "none")]
    Foreign,
}

impl fmt::Display for PodNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bridge => "bridge",
            Self::Flannel => "flannel",
            Self::Foreign => "none",
        })
    }
}

/// What the kernel step asks for.
#[derive(Debug, Clone)]
pub struct KernelSettings {
    /// Modules to load, now and at each boot.
    pub modules: Vec<ModuleName>,
    /// Sysctls to set, now and at each boot.
    pub sysctls: BTreeMap<SysctlKey, String>,
    /// Whether swap stays in use.
    pub swap: bool,
}

/// What the clock must be like before anything is judged by it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClockSettings {
    /// Whether a clock that nothing has synchronised is an error, not a warning.
    pub require_sync: bool,
}

/// Limits of one unit. A limit that is not here is left as the unit has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnitLimits {
    /// Resource limits by directive (`LimitNOFILE` …).
    pub rlimits: BTreeMap<Rlimit, Limit>,
    /// Most tasks of the unit's control group; [`Limit::INFINITY`] for no limit.
    pub tasks_max: Option<u64>,
    /// Whether a running unit may be restarted so that new resource limits take effect.
    pub restart: bool,
    /// Whether its running processes' resource limits are raised at once instead.
    pub in_place: bool,
}

/// Limits that systemd gives to units that say nothing themselves. One that is not here is left as systemd has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ManagerLimits {
    /// `DefaultTasksMax`; [`Limit::INFINITY`] for no limit.
    pub tasks_max: Option<u64>,
    /// `DefaultLimitNOFILE`.
    pub no_file: Option<Limit>,
}

/// A resource limit's directive in a unit (systemd.exec(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, serde::Deserialize)]
pub enum Rlimit {
    /// Open files.
    NoFile,
    /// Processes and threads of the user.
    NProc,
    /// Locked memory, in bytes.
    MemLock,
    /// Size of a core file, in bytes.
    Core,
}

impl Rlimit {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::NoFile, Self::NProc, Self::MemLock, Self::Core];

    /// The directive in a unit file, and the D-Bus property's name.
    pub fn directive(self) -> &'static str {
        match self {
            Self::NoFile => "LimitNOFILE",
            Self::NProc => "LimitNPROC",
            Self::MemLock => "LimitMEMLOCK",
            Self::Core => "LimitCORE",
        }
    }

    /// The row's name in `/proc/PID/limits` (proc(5)).
    pub fn proc_row(self) -> &'static str {
        match self {
            Self::NoFile => "Max open files",
            Self::NProc => "Max processes",
            Self::MemLock => "Max locked memory",
            Self::Core => "Max core file size",
        }
    }
}
