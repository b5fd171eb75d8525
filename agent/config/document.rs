//! The document: the single definition of `NodeConfig` v1alpha1.
//!
//! The JSON Schema that users get, the check that reports every bad key at once and the deserialisation all come from
//! these types. A doc comment here is the description in the schema, and the text behind "missing" in an error.

use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Deserialize;

use super::settings::{KeyKind, Role};
use super::values::{
    ArtifactName, ArtifactVersion, Cidr, DnsDomain, HttpUrl, InterfaceName, KeyHash, Limit, NodeName, Parallel,
    ProxyUrl, Rate, RootPath, Sha256, Span, SysctlKey, UnitName, Version,
};

/// What this node should be.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(title = "NodeConfig")]
pub(super) struct Document {
    /// The version of this format.
    #[expect(dead_code, reason = "the check reads it")]
    pub api_version: ApiVersion,
    /// The kind of document.
    #[expect(dead_code, reason = "the check reads it")]
    pub kind: DocumentKind,
    /// What the node is for.
    pub role: Role,
    /// Who the node is; by default its hostname and the address that the kernel uses towards the cluster.
    #[serde(default)]
    pub node: Node,
    /// The cluster that the node joins.
    pub cluster: Cluster,
    /// The Kubernetes release and the programs to install.
    pub kubernetes: Kubernetes,
    /// How files are downloaded.
    #[serde(default)]
    pub download: Download,
    /// Keys, certificates and who signs them.
    pub pki: Pki,
    /// Kernel modules, sysctls and swap, on top of the role's.
    #[serde(default)]
    pub kernel: Kernel,
    /// Limits by unit, on top of the role's.
    #[serde(default)]
    #[schemars(extend("propertyNames" = { "format": "unit" }))]
    pub limits: BTreeMap<UnitName, Limits>,
    /// What the clock must be like.
    #[serde(default)]
    pub clock: Clock,
    /// Limits that systemd gives to units that say nothing themselves. Default: systemd's own.
    #[serde(default)]
    pub systemd: Manager,
}

/// The version of this format.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) enum ApiVersion {
    #[serde(rename = "nodeagent.io/v1alpha1")]
    V1Alpha1,
}

/// The kind of document.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) enum DocumentKind {
    NodeConfig,
}

/// Who the node is.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Node {
    /// The node's name in the cluster. Default: the hostname in lower case.
    pub name: Option<NodeName>,
    /// The interface whose address is the node's. Not together with `cidr`.
    pub interface: Option<InterfaceName>,
    /// The network in which the node's address lies. Not together with `interface`.
    pub cidr: Option<Cidr>,
    /// Whether /etc/environment gets `COREOS_PUBLIC_IPV4` and `COREOS_PRIVATE_IPV4`, as coreos-cloudinit wrote them.
    /// Default: false.
    #[serde(default)]
    pub coreos_environment: bool,
}

/// The cluster that the node joins.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Cluster {
    /// The API server's https URL.
    pub api_server: HttpUrl,
    /// Other machines of the cluster, by name, each with the URL of something that runs there. Where the API server is
    /// this machine itself, the route towards these tells which address is the node's.
    #[serde(default)]
    #[schemars(extend("propertyNames" = { "format": "node-name" }))]
    pub peers: BTreeMap<NodeName, HttpUrl>,
    /// Addresses of pods. Default: 10.244.0.0/16.
    #[serde(rename = "podCIDR")]
    pub pod_cidr: Option<Cidr>,
    /// Addresses of services. Default: 10.96.0.0/12.
    #[serde(rename = "serviceCIDR")]
    pub service_cidr: Option<Cidr>,
    /// The address of the cluster's DNS service. Default: the tenth of `serviceCIDR`.
    pub dns: Option<IpAddr>,
    /// The cluster's DNS domain. Default: cluster.local.
    pub domain: Option<DnsDomain>,
}

/// The Kubernetes release and the programs to install.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Kubernetes {
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
pub(super) struct Image {
    /// Where it is fetched. `{arch}` stands for the machine's architecture.
    pub url: HttpUrl,
    /// The SHA-256 of the file, 64 hexadecimal digits.
    pub sha256: Sha256,
}

/// The lock file: `file`, or `url` with either `sha256` or `key`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Lock {
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
pub(super) struct Artifact {
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
pub(super) struct Download {
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

/// Keys, certificates and who signs them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Pki {
    /// The file of the cluster's CA certificate.
    pub ca: RootPath,
    /// The directory of keys and certificates. Default: /etc/kubernetes/pki.
    pub dir: Option<RootPath>,
    /// What kind of keys are made. Default: ecdsa-p256.
    pub key: Option<KeyKind>,
    /// Who signs the node's certificates: exactly one signer.
    pub signer: Signer,
}

/// Who signs the node's certificates: exactly one signer.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub(super) struct Signer {
    /// The cluster's own signers, asked by way of its API server: what a worker should use.
    pub kubernetes: Option<KubernetesSigner>,
    /// The CA's own key, on this machine.
    pub local: Option<Local>,
    /// A cfssl server's authenticated API.
    pub cfssl: Option<Cfssl>,
    /// A person, who carries requests to the CA and certificates back.
    pub offline: Option<Offline>,
}

/// The cluster's own signers, asked by way of its API server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct KubernetesSigner {
    /// The file that holds the bootstrap token, such as abcdef.0123456789abcdef; root alone may read it.
    pub token_file: RootPath,
    /// The hash of the CA's key (sha256:…, as `kubeadm token create --print-join-command` shows it), if the CA's certificate
    /// is not on the machine: it is then taken from the cluster's cluster-info and written to `pki.ca`.
    pub ca_hash: Option<KeyHash>,
    /// How long an approval is waited for; the next run goes on with the same request. Default: 5m.
    pub deadline: Option<Span>,
}

/// The CA's own key, on this machine.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Local {
    /// The file that holds the CA's private key (PEM).
    pub key: RootPath,
    /// Whether the key is destroyed here once the certificates stand. Default: false.
    pub remove_after_use: Option<bool>,
}

/// A cfssl server's authenticated API.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Cfssl {
    /// The server's https URL.
    pub url: HttpUrl,
    /// The file that holds the authentication key in hexadecimal digits.
    pub auth_key_file: RootPath,
    /// The signing profile. Default: client.
    pub profile: Option<String>,
    /// Must be true on a worker, where such a key is worth as much as a cluster administrator's.
    #[serde(default)]
    pub accept_admin_equivalent_key: bool,
}

/// A person, who carries requests to the CA and certificates back (`nodeagent certs csr`, `nodeagent certs sign`).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Offline {
    /// The directory of keys and requests, and of the certificates that are brought.
    pub dir: RootPath,
}

/// Kernel modules, sysctls and swap.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Kernel {
    /// Modules by name: true loads it now and at each boot, false leaves out one of the role's.
    // The names stay text here: two spellings of one module must not silently become one entry.
    #[serde(default)]
    #[schemars(extend("propertyNames" = { "format": "module" }))]
    pub modules: BTreeMap<String, bool>,
    /// Whether swap stays in use: the kubelet is then told to accept it. Default: false.
    pub swap: Option<bool>,
    /// Sysctls by name.
    #[serde(default)]
    #[schemars(extend(
        "propertyNames" = { "format": "sysctl" },
        "additionalProperties" = { "type": ["string", "integer"] }
    ))]
    pub sysctls: BTreeMap<SysctlKey, String>,
}

/// Limits of one unit (systemd.exec(5), systemd.resource-control(5)).
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    /// Open files.
    #[serde(rename = "LimitNOFILE")]
    pub no_file: Option<Limit>,
    /// Processes and threads of the user.
    #[serde(rename = "LimitNPROC")]
    pub n_proc: Option<Limit>,
    /// Locked memory, in bytes.
    #[serde(rename = "LimitMEMLOCK")]
    pub mem_lock: Option<Limit>,
    /// Size of a core file, in bytes.
    #[serde(rename = "LimitCORE")]
    pub core: Option<Limit>,
    /// Most tasks of the unit's control group: one number or infinity.
    #[serde(rename = "TasksMax")]
    pub tasks_max: Option<Limit>,
    /// Whether the unit, when it runs, may be restarted so that new limits take effect. Default: true.
    pub restart: Option<bool>,
    /// Whether the limits of its processes that already run are raised at once, so that it need not be restarted.
    /// Default: false.
    #[serde(rename = "inPlace")]
    pub in_place: Option<bool>,
}

/// Limits that systemd gives to units that say nothing themselves (systemd-system.conf(5)).
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Manager {
    /// Most tasks of a unit: one number or infinity.
    #[serde(rename = "DefaultTasksMax")]
    pub tasks_max: Option<Limit>,
    /// Open files of a unit's processes.
    #[serde(rename = "DefaultLimitNOFILE")]
    pub no_file: Option<Limit>,
}

/// What the clock must be like.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Clock {
    /// Whether bootstrap fails when nothing has synchronised the clock, instead of warning. Default: false.
    #[serde(default)]
    pub require_sync: bool,
}

/// The JSON Schema of the document.
pub(super) fn schema() -> serde_json::Value {
    schemars::schema_for!(Document).to_value()
}
