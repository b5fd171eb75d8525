//! The document: the single definition of `NodeConfig` v1alpha1.
//!
//! The JSON Schema that users get, the check that reports every bad key at once and the deserialisation all come from
//! these types. A doc comment here is the description in the schema, and the text behind "missing" in an error.

use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Deserialize;

use super::settings::Role;
use super::values::{
    ArtifactName, ArtifactVersion, Cidr, DnsDomain, HttpUrl, InterfaceName, Limit, NodeName, RootPath, Sha256,
    SysctlKey, UnitName, Version,
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
    /// Keys, certificates and who signs them.
    pub pki: Pki,
    /// Kernel modules and sysctls, on top of the role's.
    #[serde(default)]
    pub kernel: Kernel,
    /// Limits by unit, on top of the role's.
    #[serde(default)]
    #[schemars(extend("propertyNames" = { "format": "unit" }))]
    pub limits: BTreeMap<UnitName, Limits>,
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
}

/// The cluster that the node joins.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Cluster {
    /// The API server's https URL.
    pub api_server: HttpUrl,
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
    /// Where releases are fetched, in the order of preference. Digests are pinned, so that http is as good as https.
    pub mirrors: Option<Vec<HttpUrl>>,
    /// The programs to install, by name: those of the role, and any others.
    #[serde(default)]
    #[schemars(extend("propertyNames" = { "format": "artifact" }))]
    pub artifacts: BTreeMap<ArtifactName, Artifact>,
}

/// A program to install.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Artifact {
    /// The SHA-256 of the file, 64 hexadecimal digits.
    pub sha256: Sha256,
    /// Where it is fetched, if not from the mirrors. `{arch}` and `{version}` stand for what they say.
    pub url: Option<HttpUrl>,
    /// Its version, if not that of Kubernetes.
    pub version: Option<ArtifactVersion>,
}

/// Keys, certificates and who signs them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Pki {
    /// The file of the cluster's CA certificate.
    pub ca: RootPath,
    /// The directory of keys and certificates. Default: /etc/kubernetes/pki.
    pub dir: Option<RootPath>,
    /// Who signs the node's certificates: exactly one signer.
    pub signer: Signer,
}

/// Who signs the node's certificates: exactly one signer.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend(
    "minProperties" = 1,
    "maxProperties" = 1,
    "x-not-in-this-version" = ["kubernetes", "local"]
))]
pub(super) struct Signer {
    /// A cfssl server's authenticated API.
    pub cfssl: Option<Cfssl>,
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

/// Kernel modules and sysctls.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Kernel {
    /// Modules by name: true loads it now and at each boot, false leaves out one of the role's.
    // The names stay text here: two spellings of one module must not silently become one entry.
    #[serde(default)]
    #[schemars(extend("propertyNames" = { "format": "module" }))]
    pub modules: BTreeMap<String, bool>,
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
}

/// The JSON Schema of the document.
pub(super) fn schema() -> serde_json::Value {
    schemars::schema_for!(Document).to_value()
}
