//! The part `cluster.flannel`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::settings::FlannelBackend;
use crate::config::values::{HttpUrl, RootPath};

/// How flannel connects pods, where `network` is `flannel`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Flannel {
    /// How packets go from node to node: `vxlan` over any network, `host-gw` by routes where all nodes share one link.
    /// Default: vxlan.
    pub backend: Option<FlannelBackend>,
    /// The etcd in which nodes agree on their subnets. Default: none, they ask the cluster's API server.
    pub etcd: Option<FlannelEtcd>,
}

/// An etcd of flannel's own.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FlannelEtcd {
    /// The https URLs of its members. Never those of the API server's own store.
    pub endpoints: Vec<HttpUrl>,
    /// Where flannel's keys begin; its configuration is `config` below it. Default: /coreos.com/network.
    pub prefix: Option<RootPath>,
    /// The CA certificate of this etcd.
    pub ca: RootPath,
    /// The client's certificate and its key, in one file.
    pub pair: RootPath,
}
