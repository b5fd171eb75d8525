//! What the install step fetches, how, and what vouches for it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::defaults;
use crate::config::values::{ArtifactName, HttpUrl, ProxyUrl, Rate, RootPath, Sha256, UnitName, Version};

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
            parallel: defaults::PARALLEL.get().into(),
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
