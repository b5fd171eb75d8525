//! The cluster's store: its members, where they are reached, and its snapshots.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Resolver;
use crate::config::defaults;
use crate::config::document::{Etcd, Snapshots};
use crate::config::settings::{ClusterSettings, EtcdSettings, NameChoice, Role, SnapshotSettings};
use crate::config::values::{HttpUrl, NodeName, RootPath};

impl Resolver<'_> {
    pub(super) fn etcd(&mut self, etcd: Etcd, cluster: &ClusterSettings, own: &NameChoice) -> EtcdSettings {
        let of_role = |role| -> BTreeMap<NodeName, IpAddr> {
            let nodes = cluster.nodes.iter().filter(|(_, entry)| entry.role == role);
            nodes.map(|(name, entry)| (name.clone(), entry.address)).collect()
        };
        let etcd_nodes = of_role(Role::Etcd);
        let apart = !etcd_nodes.is_empty();
        if let Some(domain) = etcd.discovery.as_ref().filter(|_| !etcd.members.is_empty()) {
            let message =
                format!("{domain} and etcd.members exclude each other: the members are in DNS, or they are listed");
            self.refuse("etcd.discovery", message);
        }
        let members = match (etcd.members.is_empty(), apart) {
            (false, _) => etcd.members,
            (true, true) => etcd_nodes,
            (true, false) => of_role(Role::Controller),
        };
        let default = match self.role {
            Role::Etcd => true,
            Role::Controller => !apart,
            Role::Worker | Role::Edge | Role::Kubeadm => false,
        };
        let member = match (self.role, etcd.member) {
            (Role::Etcd, Some(false)) => {
                self.refuse("etcd.member", "a member is all that a node of role etcd runs");
                true
            }
            (role @ (Role::Worker | Role::Edge | Role::Kubeadm), Some(true)) => {
                self.refuse("etcd.member", format!("no member runs on a node of role {role}"));
                false
            }
            (_, given) => given.unwrap_or(default),
        };
        if let NameChoice::Pinned(own) = own
            && etcd.discovery.is_none()
            && member
            && !members.is_empty()
            && !members.contains_key(own)
        {
            let names: BTreeSet<&str> = members.keys().map(NodeName::as_str).collect();
            let names = names.into_iter().collect::<Vec<_>>().join(", ");
            self.refuse("etcd.members", format!("a member runs on this node, {own}, which is not among them: {names}"));
        }
        if etcd.join && members.len() < 2 && etcd.discovery.is_none() {
            self.refuse("etcd.join", "there is no other member to join: list all of them in etcd.members");
        }
        // What a list says by default, of controllers that have members, holds of members in DNS only where one runs here.
        let known = if etcd.discovery.is_none() || apart || member { members.clone() } else { BTreeMap::new() };
        let endpoints = self.endpoints(etcd.endpoints, &known, member);
        // Where the API server reaches them is one thing; as whom they know each other only DNS says.
        let members = if etcd.discovery.is_some() { BTreeMap::new() } else { members };
        let data_dir = if member {
            self.or_default("etcd.dataDir", etcd.data_dir, RootPath::literal(defaults::ETCD_DATA))
        } else {
            etcd.data_dir.unwrap_or_else(|| RootPath::literal(defaults::ETCD_DATA))
        };
        let snapshots = self.snapshots(etcd.snapshots, member, &data_dir);
        EtcdSettings { member, members, discovery: etcd.discovery, endpoints, join: etcd.join, data_dir, snapshots }
    }

    /// Where the API server reaches the store.
    fn endpoints(
        &mut self,
        given: Option<Vec<HttpUrl>>,
        members: &BTreeMap<NodeName, IpAddr>,
        member: bool,
    ) -> Vec<HttpUrl> {
        const KEY: &str = "etcd.endpoints";
        let url = |address: IpAddr| HttpUrl::https(address, defaults::ETCD_CLIENT_PORT);
        if let Some(given) = given {
            if given.is_empty() && self.role == Role::Controller {
                self.refuse(KEY, "is empty: the API server has to know a member; leave it out for the members' own");
            }
            for url in &given {
                self.https(KEY, url, "the whole cluster's Secrets go there");
            }
            return given;
        }
        let default: Vec<HttpUrl> = if members.is_empty() {
            vec![url(std::net::Ipv4Addr::LOCALHOST.into())]
        } else {
            members.values().copied().map(url).collect()
        };
        if self.role == Role::Controller {
            if members.is_empty() && !member {
                self.refuse(KEY, "is missing: no member of etcd runs here, and none is listed");
            }
            let shown: Vec<&str> = default.iter().map(HttpUrl::as_str).collect();
            self.used(KEY, shown.join(", "));
        }
        default
    }

    /// How snapshots are taken, where a member runs.
    fn snapshots(&mut self, given: Snapshots, member: bool, data_dir: &RootPath) -> SnapshotSettings {
        const DIR: &str = "etcd.snapshots.dir";
        let Snapshots { enabled, every, keep, dir } = given;
        let defaults = SnapshotSettings {
            enabled: enabled.unwrap_or(true),
            every: every.unwrap_or(defaults::SNAPSHOT_EVERY),
            keep: keep.unwrap_or(defaults::SNAPSHOTS_KEPT),
            dir: dir.clone().unwrap_or_else(|| RootPath::literal(defaults::SNAPSHOTS)),
        };
        if !member {
            return defaults;
        }
        let dir = self.or_default(DIR, dir, RootPath::literal(defaults::SNAPSHOTS));
        if dir == *data_dir || dir.is_below(data_dir) {
            self.refuse(DIR, format!("{dir} lies in etcd.dataDir {data_dir}: what loses the one would lose the other"));
        }
        for hidden in ["/home", "/root", "/run/user", "/tmp", "/var/tmp"].map(RootPath::literal) {
            if dir == hidden || dir.is_below(&hidden) {
                self.refuse(DIR, format!("{dir} is hidden from the unit that writes there, as all of {hidden} is"));
            }
        }
        SnapshotSettings {
            enabled: self.or_default("etcd.snapshots.enabled", enabled, true),
            every: self.or_default("etcd.snapshots.every", every, defaults::SNAPSHOT_EVERY),
            keep: self.or_default("etcd.snapshots.keep", keep, defaults::SNAPSHOTS_KEPT),
            dir,
        }
    }
}
