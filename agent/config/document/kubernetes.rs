//! The parts `kubernetes` and `download`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::values::{
    ArtifactName, ArtifactVersion, HttpUrl, Parallel, ProxyUrl, Rate, RootPath, Sha256, Span, Version,
};

/// The Kubernetes release and the programs to install.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kubernetes {
    /// The release, such as v1.34.2.
    pub version: Version,
    /// Where releases are fetched, in the order of preference. Where digests are pinned, http is as good as https.
    pub mirrors: Option<Vec<HttpUrl>>,
    /// The lock file with the digests of the release, as `nodeagent lock` writes it.
    pub lock: Option<Lock>,
    /// The programs to install, by name: those of the role, and any others.
    #[serde(default)]
    #[schemars(extend("propertyNames" = { "format": "artifact" }))]
    pub artifacts: BTreeMap<ArtifactName, Artifact>,
    /// Archives of container images to import into containerd, by a name of your choice.
    #[serde(default)]
    #[schemars(extend("propertyNames" = { "format": "artifact" }))]
    pub images: BTreeMap<ArtifactName, Image>,
}

/// An archive of container images, as `docker save` and `ctr images export` write it; it may be compressed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Image {
    /// Where it is fetched. `{arch}` stands for the machine's architecture.
    pub url: HttpUrl,
    /// The SHA-256 of the file, 64 hexadecimal digits.
    pub sha256: Sha256,
}

/// The lock file: `file`, or `url` with either `sha256` or `key`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lock {
    /// The lock file, if it is on the node already.
    pub file: Option<RootPath>,
    /// Where the lock file is fetched.
    pub url: Option<HttpUrl>,
    /// The SHA-256 of the lock file at `url`.
    pub sha256: Option<Sha256>,
    /// The file of the public key (PEM, P-256) that must have signed the lock file at `url`.
    pub key: Option<RootPath>,
    /// Where the signature is, as `cosign sign-blob` makes it. Default: `url` with .sig behind it.
    pub signature: Option<HttpUrl>,
}

/// A program to install, or an archive with programs.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Artifact {
    /// The SHA-256 of the file, 64 hexadecimal digits. Default: what the lock file or else its server says.
    pub sha256: Option<Sha256>,
    /// Where it is fetched, if not from the mirrors. `{arch}` and `{version}` stand for what they say.
    pub url: Option<HttpUrl>,
    /// Its version, if not that of Kubernetes.
    pub version: Option<ArtifactVersion>,
    /// If the file is an archive: the programs to take out of it, each with its path in there.
    #[serde(default)]
    #[schemars(extend("propertyNames" = { "format": "artifact" }))]
    pub members: BTreeMap<ArtifactName, String>,
}

/// How files are downloaded.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Download {
    /// How many files are downloaded at the same time, 1 to 16. Default: 3.
    pub parallel: Option<Parallel>,
    /// The proxy, `http://[USER:PASSWORD@]HOST[:PORT]`. Default: what the environment names.
    pub proxy: Option<ProxyUrl>,
    /// What is asked without the proxy: names (and all below them), addresses, networks.
    pub no_proxy: Option<Vec<String>>,
    /// A file of CA certificates (PEM) that mirrors may have too, besides those that the system trusts.
    pub ca: Option<RootPath>,
    /// A mirror that sends fewer bytes per second than this, over `stallAfter`, is given up. Default: 1k.
    pub minimum_rate: Option<Rate>,
    /// The time over which `minimumRate` is measured, and for which an answer is waited. Default: 30s.
    pub stall_after: Option<Span>,
    /// How long all downloads of one run may take together. Default: 20m.
    pub deadline: Option<Span>,
}
