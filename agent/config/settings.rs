//! Settings: the configuration as planners see it. Nothing in here is optional in the sense of "unset".

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::values::{
    ArtifactName, Cidr, HttpUrl, InterfaceName, Limit, ModuleName, NodeName, RootPath, Sha256, SysctlKey, UnitName,
    Version,
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
    /// Where the value of `key` came from: its own line, else that of the nearest key above it, else a default.
    pub fn of(&self, key: &str) -> Origin {
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
    /// Modules and sysctls.
    pub kernel: KernelSettings,
    /// What to fetch.
    pub install: InstallSettings,
    /// Keys and certificates.
    pub certs: CertsSettings,
    /// Limits, by unit.
    pub limits: BTreeMap<UnitName, UnitLimits>,
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
#[schemars(extend("x-not-in-this-version" = ["etcd", "controller", "edge", "kubeadm"]))]
pub enum Role {
    /// Runs pods: kubelet, kube-proxy and a container runtime.
    Worker,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Worker => f.write_str("worker"),
        }
    }
}

/// Who the node is, as far as the user decided it.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    /// Its name.
    pub name: NameChoice,
    /// Its address.
    pub address: AddressChoice,
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
    /// What the kernel would use towards the cluster.
    Automatic,
}

/// The cluster as this node needs to know it.
#[derive(Debug, Clone)]
pub struct ClusterSettings {
    /// Where the API server answers.
    pub api_server: HttpUrl,
    /// Addresses of pods.
    pub pod_cidr: Cidr,
    /// Addresses of services.
    pub service_cidr: Cidr,
    /// The cluster DNS's address.
    pub dns: std::net::IpAddr,
    /// The cluster's DNS domain.
    pub domain: String,
}

/// What the kernel step asks for.
#[derive(Debug, Clone)]
pub struct KernelSettings {
    /// Modules to load, now and at each boot.
    pub modules: Vec<ModuleName>,
    /// Sysctls to set, now and at each boot.
    pub sysctls: BTreeMap<SysctlKey, String>,
}

/// What the install step fetches.
#[derive(Debug, Clone)]
pub struct InstallSettings {
    /// The Kubernetes release.
    pub version: Version,
    /// Release mirrors, in the order of preference.
    pub mirrors: Vec<HttpUrl>,
    /// The programs, by name.
    pub artifacts: BTreeMap<ArtifactName, ArtifactSettings>,
}

/// One program to fetch.
#[derive(Debug, Clone)]
pub struct ArtifactSettings {
    /// Its version: part of the path where it is kept.
    pub version: String,
    /// Where it may be fetched, in the order of preference. `{arch}` stands for the machine's architecture.
    pub urls: Vec<HttpUrl>,
    /// The digest that it must have.
    pub sha256: Sha256,
    /// The units that run it, and must be restarted when another version takes its place.
    pub run_by: Vec<UnitName>,
}

/// Keys, certificates and who signs them.
#[derive(Debug, Clone)]
pub struct CertsSettings {
    /// The directory of keys and certificates.
    pub dir: RootPath,
    /// The cluster's CA certificate.
    pub ca: RootPath,
    /// Who signs.
    pub signer: Signer,
}

/// Who signs this node's certificates.
#[derive(Debug, Clone)]
pub enum Signer {
    /// A cfssl server's authenticated `authsign`.
    Cfssl {
        /// Its base URL.
        url: HttpUrl,
        /// The file that holds the authentication key in hexadecimal digits.
        auth_key_file: RootPath,
        /// The signing profile.
        profile: String,
    },
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
}

/// A resource limit's directive in a unit (systemd.exec(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
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
