//! Settings of flannel.

use std::fmt;

use serde::Serialize;

use crate::config::values::{HttpUrl, RootPath};

/// Flannel, where it connects pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlannelSettings {
    /// How packets go from node to node.
    pub backend: FlannelBackend,
    /// Where nodes agree on their subnets.
    pub store: FlannelStore,
}

/// How packets go from node to node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FlannelBackend {
    /// Inside UDP packets, over any network between the nodes.
    Vxlan,
    /// By routes, where all nodes share one link.
    HostGw,
}

impl fmt::Display for FlannelBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vxlan => "vxlan",
            Self::HostGw => "host-gw",
        })
    }
}

/// Where nodes agree on their subnets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlannelStore {
    /// In the cluster's Node objects: the controller manager gives each its `podCIDR`.
    Kubernetes,
    /// In an etcd of flannel's own.
    Etcd(FlannelEtcd),
}

/// An etcd of flannel's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlannelEtcd {
    /// Its members; one at least.
    pub endpoints: Vec<HttpUrl>,
    /// Where flannel's keys begin.
    pub prefix: RootPath,
    /// Its CA certificate.
    pub ca: RootPath,
    /// The client's certificate and its key, in one file.
    pub pair: RootPath,
}

impl FlannelSettings {
    /// Whether nodes agree on their subnets by the cluster's own API.
    pub fn asks_kubernetes(&self) -> bool {
        self.store == FlannelStore::Kubernetes
    }
}
