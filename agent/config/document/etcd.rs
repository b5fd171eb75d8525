//! The cluster's store, as the document has it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::values::{DnsDomain, Every, HttpUrl, Keep, NodeName, RootPath};

/// The cluster's store.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::config) struct Etcd {
    /// Whether a member runs on this node. Default: on etcd nodes, and on controllers where the inventory has none of those.
    pub member: Option<bool>,
    /// The members by name, each with its address. Default: the inventory's etcd nodes, else its controllers, else this
    /// node alone.
    #[serde(default)]
    #[schemars(extend("propertyNames" = { "format": "node-name" }))]
    pub members: BTreeMap<NodeName, IpAddr>,
    /// The DNS domain whose SRV records (`_etcd-server-ssl._tcp.DOMAIN`) list the members. Not together with `members`.
    pub discovery: Option<DnsDomain>,
    /// Where the API server reaches the store. Default: port 2379 of each member; with `discovery`, of each that the
    /// inventory has.
    pub endpoints: Option<Vec<HttpUrl>>,
    /// Whether the member joins a cluster that is there already. Default: false.
    #[serde(default)]
    pub join: bool,
    /// Where the member keeps its data. Default: /var/lib/etcd.
    pub data_dir: Option<RootPath>,
    /// Snapshots of what the store holds, taken on each member.
    #[serde(default)]
    pub snapshots: Snapshots,
}

/// Snapshots of what the store holds. Each has every Secret of the cluster.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::config) struct Snapshots {
    /// Whether they are taken by a timer. Default: true.
    pub enabled: Option<bool>,
    /// How often, at the same times of every day. Default: 6h.
    pub every: Option<Every>,
    /// How many are kept; the oldest are removed. Default: 8.
    pub keep: Option<Keep>,
    /// Where they are kept, mode 0700. Default: /var/lib/etcd-snapshots.
    pub dir: Option<RootPath>,
}
