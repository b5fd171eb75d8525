//! The cluster's store, as planners see it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::config::values::{DnsDomain, Every, HttpUrl, Keep, NodeName, RootPath};

/// The cluster's store, as this node needs to know it.
#[derive(Debug, Clone)]
pub struct EtcdSettings {
    /// Whether a member runs here.
    pub member: bool,
    /// All members by name; none where this node is the only one, or where DNS has them.
    pub members: BTreeMap<NodeName, IpAddr>,
    /// The DNS domain whose SRV records list the members.
    pub discovery: Option<DnsDomain>,
    /// Where the API server reaches it.
    pub endpoints: Vec<HttpUrl>,
    /// Whether the member joins a cluster that is there already.
    pub join: bool,
    /// Where the member keeps its data.
    pub data_dir: RootPath,
    /// How its snapshots are taken.
    pub snapshots: SnapshotSettings,
}

/// How a member's snapshots are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotSettings {
    /// Whether a timer takes them.
    pub enabled: bool,
    /// How often.
    pub every: Every,
    /// How many are kept.
    pub keep: Keep,
    /// Where.
    pub dir: RootPath,
}
