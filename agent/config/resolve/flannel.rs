//! Flannel: what it takes, and what does not go together with it.

use std::collections::BTreeMap;

use super::{Resolver, literal};
use crate::config::defaults;
use crate::config::document;
use crate::config::settings::{
    ClusterSettings, EtcdSettings, FlannelBackend, FlannelEtcd, FlannelSettings, FlannelStore, NodeEntry, PodNetwork,
    Role,
};
use crate::config::values::{Cidr, HttpUrl, NodeName};

impl Resolver<'_> {
    /// What flannel is to do, where it connects pods.
    pub(super) fn flannel(
        &mut self,
        given: Option<document::Flannel>,
        network: PodNetwork,
        pods: &Cidr,
        nodes: &BTreeMap<NodeName, NodeEntry>,
    ) -> Option<FlannelSettings> {
        if network != PodNetwork::Flannel {
            if given.is_some() {
                let message = format!("cluster.network is {network}: set it to flannel, or take this away");
                self.refuse("cluster.flannel", message);
            }
            return None;
        }
        for name in nodes.iter().filter(|(_, entry)| entry.pod_cidr.is_some()).map(|(name, _)| name) {
            let message = "flannel gives each node its part of cluster.podCIDR: take this one away";
            self.refuse(&format!("cluster.nodes.{name}.podCIDR"), message);
        }
        if !pods.nth(0).is_ipv4() {
            let message = format!("{pods} is of IPv6: flannel is set up for IPv4 alone here");
            self.refuse("cluster.podCIDR", message);
        } else if pods.prefix() > defaults::FLANNEL_SUBNET {
            let message = format!("{pods} has no room for a /{} for each node", defaults::FLANNEL_SUBNET);
            self.refuse("cluster.podCIDR", message);
        }
        let document::Flannel { backend, etcd } = given.unwrap_or_default();
        let backend = self.or_default("cluster.flannel.backend", backend, FlannelBackend::Vxlan);
        let store = match etcd {
            None => {
                self.used("cluster.flannel.etcd", "none: nodes ask the cluster's API server for their subnets");
                FlannelStore::Kubernetes
            }
            Some(etcd) => FlannelStore::Etcd(self.flannel_etcd(etcd)),
        };
        Some(FlannelSettings { backend, store })
    }

    fn flannel_etcd(&mut self, given: document::FlannelEtcd) -> FlannelEtcd {
        const ENDPOINTS: &str = "cluster.flannel.etcd.endpoints";
        let document::FlannelEtcd { endpoints, prefix, ca, pair } = given;
        if endpoints.is_empty() {
            self.refuse(ENDPOINTS, "names no member: give the https URL of one at least");
        }
        for url in &endpoints {
            self.https(ENDPOINTS, url, "whoever speaks for it says where pods' packets go");
        }
        let key = "cluster.flannel.etcd.prefix";
        let prefix = self.or_default(key, prefix, literal(defaults::FLANNEL_PREFIX));
        FlannelEtcd { endpoints, prefix, ca, pair }
    }

    /// Whoever may speak to the API server's store may read every Secret, and flannel's pair is on every worker.
    pub(super) fn flannel_apart(&mut self, cluster: &ClusterSettings, etcd: &EtcdSettings) {
        let Some(FlannelSettings { store: FlannelStore::Etcd(own), .. }) = &cluster.flannel else { return };
        let members = etcd.members.values().map(|address| (address.to_string(), defaults::ETCD_CLIENT_PORT));
        // A worker knows of members in DNS by the inventory alone.
        let listed = cluster.nodes.values().filter(|entry| matches!(entry.role, Role::Etcd | Role::Controller));
        let listed = listed.map(|entry| (entry.address.to_string(), defaults::ETCD_CLIENT_PORT));
        let given = etcd.endpoints.iter().map(HttpUrl::host_port);
        let store: Vec<(String, u16)> = members.chain(listed).chain(given).collect();
        for url in own.endpoints.iter().filter(|url| store.contains(&url.host_port())) {
            let message = format!(
                "{url} is the API server's own store: flannel's pair would let every worker read all Secrets in it. Give \
                 flannel an etcd of its own, or take etcd away here: nodes then ask the API server"
            );
            self.refuse("cluster.flannel.etcd.endpoints", message);
        }
    }
}
