//! Settings: the configuration as planners see it. Nothing in here is optional in the sense of "unset".

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::defaults;
use super::values::{
    ArtifactName, Cidr, HttpUrl, InterfaceName, KeyHash, Limit, ModuleName, NodeName, ProxyUrl, Rate, RootPath, Sha256,
    SysctlKey, UnitName, Version,
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
    /// Modules, sysctls and swap.
    pub kernel: KernelSettings,
    /// What to fetch.
    pub install: InstallSettings,
    /// How to fetch it.
    pub download: DownloadSettings,
    /// Keys and certificates.
    pub certs: CertsSettings,
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
    /// Whether the address also goes to `/etc/environment`, under the names that coreos-cloudinit used.
    pub coreos_environment: bool,
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
    /// Other machines of the cluster, by name: asked for a route where the API server is this machine itself.
    pub peers: BTreeMap<NodeName, HttpUrl>,
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
    /// Whether swap stays in use.
    pub swap: bool,
}

/// What the install step fetches.
#[derive(Debug, Clone)]
pub struct InstallSettings {
    /// The Kubernetes release.
    pub version: Version,
    /// Release mirrors, in the order of preference.
    pub mirrors: Vec<HttpUrl>,
    /// The lock file, where there is one.
    pub lock: Option<LockSettings>,
    /// The programs, by name.
    pub artifacts: BTreeMap<ArtifactName, ArtifactSettings>,
    /// The archives of container images, by name.
    pub images: BTreeMap<ArtifactName, ImageSettings>,
    /// Whether what is in place is read whole and hashed (`install --rehash`), rather than recognised by its receipt.
    pub rehash: bool,
}

/// One program to fetch.
#[derive(Debug, Clone)]
pub struct ArtifactSettings {
    /// Its version: part of the path where it is kept.
    pub version: String,
    /// Where it may be fetched, in the order of preference. `{arch}` stands for the machine's architecture.
    pub urls: Vec<HttpUrl>,
    /// Whether it is one of Kubernetes' own release, which not every architecture has.
    pub of_kubernetes: bool,
    /// What vouches for it.
    pub vouch: Vouch,
    /// What it is.
    pub form: Form,
    /// The directory where its programs are linked.
    pub into: RootPath,
    /// The units that run it, and must be restarted when another version takes its place.
    pub run_by: Vec<UnitName>,
}

/// One archive of container images to fetch.
#[derive(Debug, Clone)]
pub struct ImageSettings {
    /// Where it is fetched. `{arch}` stands for the machine's architecture.
    pub url: HttpUrl,
    /// Its digest.
    pub sha256: Sha256,
}

/// What vouches for an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vouch {
    /// This digest.
    Pinned(Sha256),
    /// The lock file.
    Lock,
    /// The checksum that stands beside it on its server, over https only.
    Published,
}

/// What an artifact is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// One program.
    Program,
    /// An archive: the programs to take out of it, each with its path in there. `{arch}` is still to be filled in.
    Archive(BTreeMap<ArtifactName, String>),
    /// An archive of container images, which stays one.
    Images,
}

/// The lock file, and what vouches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockSettings {
    /// A file on the node: whoever wrote the configuration wrote this.
    File(RootPath),
    /// A file to fetch, with the digest that it must have.
    Pinned {
        /// Where it is fetched.
        url: HttpUrl,
        /// Its digest.
        sha256: Sha256,
    },
    /// A file to fetch, with the key that must have signed it.
    Signed {
        /// Where it is fetched.
        url: HttpUrl,
        /// Where its signature is.
        signature: HttpUrl,
        /// The public key's file.
        key: RootPath,
    },
}

/// How files are downloaded.
#[derive(Debug, Clone)]
pub struct DownloadSettings {
    /// How many at the same time.
    pub parallel: usize,
    /// Through which proxy.
    pub proxy: Proxy,
    /// Files of CA certificates that mirrors may have, besides those that the system trusts.
    pub roots: Vec<RootPath>,
    /// What a mirror must send, over [`Self::stall_after`].
    pub minimum_rate: Rate,
    /// The time over which the rate is measured, and for which an answer is waited.
    pub stall_after: Duration,
    /// How long all downloads of one run may take together.
    pub deadline: Duration,
}

impl Default for DownloadSettings {
    fn default() -> Self {
        Self {
            parallel: defaults::PARALLEL.get(),
            proxy: Proxy::OfEnvironment,
            roots: Vec::new(),
            minimum_rate: defaults::MINIMUM_RATE,
            stall_after: defaults::STALL_AFTER.duration(),
            deadline: defaults::DOWNLOAD_DEADLINE.duration(),
        }
    }
}

/// The proxy of downloads.
#[derive(Debug, Clone)]
pub enum Proxy {
    /// The one that the environment names (`HTTPS_PROXY` and the like), if it names one.
    OfEnvironment,
    /// This one.
    Named {
        /// The proxy.
        url: ProxyUrl,
        /// What is asked without it.
        bypass: Vec<String>,
    },
}

/// Keys, certificates and who signs them.
#[derive(Debug, Clone)]
pub struct CertsSettings {
    /// The directory of keys and certificates.
    pub dir: RootPath,
    /// The cluster's CA certificate.
    pub ca: RootPath,
    /// What keys are made.
    pub key: KeyKind,
    /// Who signs.
    pub signer: Signer,
}

impl CertsSettings {
    /// The directory in which requests wait for a person, if nothing else is said.
    pub fn offline_dir(&self) -> RootPath {
        match &self.signer {
            Signer::Offline { dir } => dir.clone(),
            _ => self.dir.join(defaults::OFFLINE_DIR),
        }
    }
}

/// What kind of key a certificate is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
pub enum KeyKind {
    /// ECDSA on the curve P-256: made at once, small, and accepted by everything in a cluster.
    #[default]
    #[serde(rename = "ecdsa-p256")]
    EcdsaP256,
    /// RSA, 2048 bits.
    #[serde(rename = "rsa-2048")]
    Rsa2048,
    /// RSA, 4096 bits.
    #[serde(rename = "rsa-4096")]
    Rsa4096,
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EcdsaP256 => "ecdsa-p256",
            Self::Rsa2048 => "rsa-2048",
            Self::Rsa4096 => "rsa-4096",
        })
    }
}

/// Who signs this node's certificates.
#[derive(Debug, Clone)]
pub enum Signer {
    /// The cluster's own signers, at its API server.
    Kubernetes {
        /// The file that holds the bootstrap token.
        token_file: RootPath,
        /// The hash of the CA's key, if its certificate is to be taken from the cluster.
        ca_hash: Option<KeyHash>,
        /// How long an approval is waited for.
        deadline: Duration,
    },
    /// The CA's own key, on this machine.
    Local {
        /// The file that holds it.
        key: RootPath,
        /// Whether it goes once the certificates stand.
        remove_after_use: bool,
    },
    /// A cfssl server's authenticated `authsign`.
    Cfssl {
        /// Its base URL.
        url: HttpUrl,
        /// The file that holds the authentication key in hexadecimal digits.
        auth_key_file: RootPath,
        /// The signing profile.
        profile: String,
    },
    /// A person.
    Offline {
        /// The directory of keys, requests and brought certificates.
        dir: RootPath,
    },
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
