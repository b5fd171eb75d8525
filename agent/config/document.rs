//! The document: the single definition of `NodeConfig` v1alpha1.
//!
//! The JSON Schema that users get, the check that reports every bad key at once and the deserialisation all come from
//! these types. A doc comment here is the description in the schema, and the text behind "missing" in an error.

use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Deserialize;

pub(super) use self::etcd::{Etcd, Snapshots};
pub(super) use self::flannel::{Flannel, FlannelEtcd};
pub(super) use self::kubeadm::Kubeadm;
pub(super) use self::kubernetes::{Artifact, Download, Image, Kubernetes, Lock};
pub(super) use self::pki::{Authority, Cfssl, ExtraCertificate, KubernetesSigner, Local, Pki, Signer};
use super::settings::{PodNetwork, Role};
use super::values::{
    Cidr, DnsDomain, HttpUrl, ImageName, InterfaceName, LabelKey, LabelValue, Limit, NodeName, Port, SysctlKey,
    UnitName,
};

mod etcd;
mod flannel;
mod kubeadm;
mod kubernetes;
mod pki;

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
    /// The cluster's store: for its members, and for controllers.
    #[serde(default)]
    pub etcd: Etcd,
    /// The Kubernetes release and the programs to install.
    pub kubernetes: Kubernetes,
    /// How files are downloaded.
    #[serde(default)]
    pub download: Download,
    /// Keys, certificates and who signs them. Only on kubeadm nodes it may be missing: a person then joins the node.
    pub pki: Option<Pki>,
    /// How kubeadm joins the node: for kubeadm nodes.
    #[serde(default)]
    pub kubeadm: Kubeadm,
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
    /// Labels that the kubelet gives the node when it joins.
    #[serde(default)]
    #[schemars(extend("propertyNames" = { "format": "label-key" }))]
    pub labels: BTreeMap<LabelKey, LabelValue>,
}

/// The cluster that the node joins.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Cluster {
    /// The cluster's name, in kubeconfigs and as etcd's token. Default: kubernetes.
    pub name: Option<DnsDomain>,
    /// The API server's https URL.
    pub api_server: HttpUrl,
    /// The port at which each controller serves the API itself. Default: 6443.
    pub api_port: Option<Port>,
    /// Other machines of the cluster, by name, each with the URL of something that runs there. Where the API server is
    /// this machine itself, the route towards these tells which address is the node's.
    #[serde(default)]
    #[schemars(extend("propertyNames" = { "format": "node-name" }))]
    pub peers: BTreeMap<NodeName, HttpUrl>,
    /// The inventory: every machine of the cluster, by name.
    #[serde(default)]
    #[schemars(extend("propertyNames" = { "format": "node-name" }))]
    pub nodes: BTreeMap<NodeName, Machine>,
    /// What connects pods: `bridge` for a bridge on each node and routes between those of the inventory, `flannel` for
    /// flannel on each node, `none` for what you bring yourself. Default: bridge where every node of the inventory that
    /// runs pods has a `podCIDR`, else none.
    pub network: Option<PodNetwork>,
    /// How flannel connects pods, where `network` is `flannel`.
    pub flannel: Option<Flannel>,
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
    /// On controllers: have `CoreDNS` run in the cluster as its DNS service. Default: you bring one yourself.
    #[serde(rename = "coreDNS")]
    pub core_dns: Option<CoreDns>,
}

/// `CoreDNS` in the cluster.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CoreDns {
    /// Its image, such as registry.k8s.io/coredns/coredns:v1.12.1.
    pub image: ImageName,
}

/// A machine of the cluster.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Machine {
    /// What it is for. Default: worker.
    pub role: Option<Role>,
    /// Its address, as all others of the cluster reach it.
    pub address: IpAddr,
    /// The addresses of its pods, a part of the cluster's `podCIDR`.
    #[serde(rename = "podCIDR")]
    pub pod_cidr: Option<Cidr>,
    /// Further names that its certificates are for, besides its own.
    #[serde(default)]
    pub names: Vec<DnsDomain>,
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
    /// Whether swap stays in use: the kubelet is then told to accept it. Default: false, but on etcd nodes true.
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
