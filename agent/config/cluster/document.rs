//! `cluster.yaml` as its operator writes it: the single definition of the format.

use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use crate::config::document::{CoreDns, Flannel, Kubernetes};
use crate::config::settings::{KeyKind, PodNetwork, Role};
use crate::config::values::{Cidr, DnsDomain, HttpUrl, Life, NodeName, Sha256};

/// What all machines of a cluster have in common, and the machines.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(title = "Cluster")]
pub struct Document {
    /// The version of this format.
    #[expect(dead_code, reason = "the check reads it")]
    pub api_version: ApiVersion,
    /// The kind of document.
    #[expect(dead_code, reason = "the check reads it")]
    pub kind: Kind,
    /// The cluster's name. Default: kubernetes.
    pub name: Option<DnsDomain>,
    /// The API server's https URL.
    pub api_server: HttpUrl,
    /// Addresses of pods: each machine that runs some gets a /24 of it (a /64 of IPv6). Default: 10.244.0.0/16.
    #[serde(rename = "podCIDR")]
    pub pod_cidr: Option<Cidr>,
    /// Addresses of services. Default: 10.96.0.0/12.
    #[serde(rename = "serviceCIDR")]
    #[expect(dead_code, reason = "the machines' own documents have it")]
    pub service_cidr: Option<Cidr>,
    /// What connects pods: `bridge`; or `flannel`, or `none` for what you bring yourself: the machines get no `podCIDR`
    /// then. Default: bridge.
    pub network: Option<PodNetwork>,
    /// How flannel connects pods, where `network` is `flannel`.
    #[expect(dead_code, reason = "the machines' own documents have it")]
    pub flannel: Option<Flannel>,
    /// Have `CoreDNS` run in the cluster as its DNS service. Default: you bring one yourself.
    #[serde(rename = "coreDNS")]
    #[expect(dead_code, reason = "the controllers' own documents have it")]
    pub core_dns: Option<CoreDns>,
    /// The agent that the machines run.
    pub agent: Agent,
    /// The Kubernetes release and the programs to install, as in a `NodeConfig`.
    #[expect(dead_code, reason = "the machines' own documents have it")]
    pub kubernetes: Kubernetes,
    /// The CAs and keys that are made here.
    #[serde(default)]
    pub pki: Pki,
    /// The bootstrap tokens.
    #[serde(default)]
    pub tokens: Tokens,
    /// The machines, by name.
    #[schemars(extend("propertyNames" = { "format": "node-name" }))]
    pub nodes: BTreeMap<NodeName, Machine>,
    /// A part of a `NodeConfig` for every machine.
    #[expect(dead_code, reason = "the machines' own documents have it")]
    pub defaults: Option<Fragment>,
    /// A part of a `NodeConfig` for every machine of a role, over `defaults`.
    #[serde(default)]
    #[expect(dead_code, reason = "the machines' own documents have it")]
    pub roles: Roles,
}

/// A part of a `NodeConfig` for each role.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "the machines' own documents have it")]
pub struct Roles {
    /// For members of etcd alone.
    pub etcd: Option<Fragment>,
    /// For controllers.
    pub controller: Option<Fragment>,
    /// For workers.
    pub worker: Option<Fragment>,
    /// For workers on a public address.
    pub edge: Option<Fragment>,
}

/// The version of this format.
#[derive(Debug, Deserialize, JsonSchema)]
pub enum ApiVersion {
    #[serde(rename = "nodeagent.io/v1alpha1")]
    V1Alpha1,
}

/// The kind of document.
#[derive(Debug, Deserialize, JsonSchema)]
pub enum Kind {
    Cluster,
}

/// The agent that the machines run.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Agent {
    /// Where the machines fetch it.
    pub url: HttpUrl,
    /// Its SHA-256, 64 hexadecimal digits: nothing else is run.
    pub sha256: Sha256,
}

/// The CAs and keys that are made for a cluster.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pki {
    /// What kind of keys the CAs and the machines have. Default: ecdsa-p256.
    pub key: Option<KeyKind>,
    /// Whether the API server has no aggregation layer, and so no CA for one. Default: false.
    #[serde(default)]
    pub no_aggregation: bool,
    /// Whether Secrets are encrypted at rest, with a key that is made here. Default: false.
    #[serde(default)]
    pub encrypt_secrets: bool,
}

/// The bootstrap tokens.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tokens {
    /// How long a token can be used to join, 10m to 30d: until the last machine of the list boots. Default: 24h.
    pub ttl: Option<Life>,
}

/// A machine of the cluster.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Machine {
    /// What it is for. Default: worker.
    pub role: Option<Role>,
    /// Its address, as all others of the cluster reach it.
    pub address: IpAddr,
    /// The addresses of its pods. Default: the next of the cluster's `podCIDR` that no other has.
    #[serde(rename = "podCIDR")]
    pub pod_cidr: Option<Cidr>,
    /// Further names that its certificates are for.
    #[serde(default)]
    pub names: Vec<DnsDomain>,
    /// A part of a `NodeConfig` for this machine, over `defaults` and its role's.
    pub config: Option<Fragment>,
}

impl Machine {
    /// What it is for.
    pub fn role(&self) -> Role {
        self.role.unwrap_or(Role::Worker)
    }
}

/// A part of a `NodeConfig`. It is taken out before this document is checked, and checked within each machine's own.
#[derive(Debug, Clone, Deserialize)]
pub struct Fragment {}

impl JsonSchema for Fragment {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Fragment".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object" })
    }
}
