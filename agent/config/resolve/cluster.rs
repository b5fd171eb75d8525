//! The cluster: its networks and its machines.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use super::{Resolver, literal};
use crate::config::defaults;
use crate::config::document::{Cluster, Machine};
use crate::config::settings::{ClusterSettings, NameChoice, NodeEntry, PodNetwork, Role};
use crate::config::values::{Cidr, NodeName};

impl Resolver<'_> {
    pub(super) fn cluster(&mut self, cluster: Cluster, own: &NameChoice) -> ClusterSettings {
        self.https("cluster.apiServer", &cluster.api_server, "the kubelet sends its credentials there");
        let pod_cidr = self.or_default("cluster.podCIDR", cluster.pod_cidr, literal(defaults::POD_CIDR));
        let service_cidr =
            self.or_default("cluster.serviceCIDR", cluster.service_cidr, literal(defaults::SERVICE_CIDR));
        if overlap(&pod_cidr, &service_cidr) {
            let message = format!("{pod_cidr} overlaps serviceCIDR {service_cidr}: no address may be both");
            let key = if cluster.pod_cidr.is_some() { "cluster.podCIDR" } else { "cluster.serviceCIDR" };
            self.refuse(key, message);
        }
        let dns = self.or_default("cluster.dns", cluster.dns, service_cidr.nth(defaults::DNS_OFFSET));
        if !service_cidr.contains(dns) && cluster.dns.is_some() {
            self.refuse("cluster.dns", format!("{dns} does not lie in serviceCIDR {service_cidr}"));
        } else if !service_cidr.contains(dns) {
            let message = format!("{service_cidr} is too small for {dns}, the default of cluster.dns: set cluster.dns");
            self.refuse("cluster.serviceCIDR", message);
        } else if dns == service_cidr.nth(1) {
            self.refuse("cluster.dns", format!("{dns} is the first of serviceCIDR: it belongs to the API server"));
        }
        let domain = self.or_default("cluster.domain", cluster.domain, literal(defaults::DOMAIN));
        let name = self.or_default("cluster.name", cluster.name, literal(defaults::CLUSTER_NAME));
        let nodes = self.inventory(cluster.nodes, &pod_cidr, &service_cidr, own);
        let network = self.pod_network(cluster.network, &nodes, own);
        let flannel = self.flannel(cluster.flannel, network, &pod_cidr, &nodes);
        let api_port = self.or_default("cluster.apiPort", cluster.api_port, defaults::API_PORT).get();
        if cluster.core_dns.is_some() && self.role != Role::Controller {
            self.refuse("cluster.coreDNS", format!("is for controllers alone: take it away from this {}", self.role));
        }
        let Cluster { api_server, peers, core_dns, .. } = cluster;
        let (name, domain) = (name.into(), domain.into());
        let core_dns = core_dns.map(|core_dns| core_dns.image);
        ClusterSettings {
            name,
            api_server,
            api_port,
            peers,
            nodes,
            network,
            flannel,
            pod_cidr,
            service_cidr,
            dns,
            domain,
            core_dns,
        }
    }

    /// The machines of the cluster, each with what no other has.
    fn inventory(
        &mut self,
        given: BTreeMap<NodeName, Machine>,
        pods: &Cidr,
        services: &Cidr,
        own: &NameChoice,
    ) -> BTreeMap<NodeName, NodeEntry> {
        let mut nodes: BTreeMap<NodeName, NodeEntry> = BTreeMap::new();
        for (name, machine) in given {
            let key = format!("cluster.nodes.{name}");
            let Machine { role, address, pod_cidr, names } = machine;
            let role = self.or_default(&format!("{key}.role"), role, Role::Worker);
            if let Some(what) = unfit(address) {
                self.refuse(
                    &format!("{key}.address"),
                    format!("{address} is {what}: no other machine reaches it there"),
                );
            }
            for (what, network) in [("podCIDR", pods), ("serviceCIDR", services)] {
                if network.contains(address) {
                    let message = format!("{address} lies in {what} {network}: no machine can have it");
                    self.refuse(&format!("{key}.address"), message);
                }
            }
            if let Some((other, _)) = nodes.iter().find(|(_, entry)| entry.address == address) {
                self.refuse(&format!("{key}.address"), format!("{address} is that of {other}, too"));
            }
            if let Some(cidr) = &pod_cidr {
                let key = format!("{key}.podCIDR");
                let shared = nodes.iter().find(|(_, entry)| entry.pod_cidr.is_some_and(|other| overlap(&other, cidr)));
                if !pods.contains(cidr.nth(0)) || cidr.prefix() < pods.prefix() {
                    self.refuse(&key, format!("{cidr} is no part of cluster.podCIDR {pods}"));
                } else if cidr.nth(0).is_ipv4() != address.is_ipv4() {
                    let message = format!("{cidr} is not of the family of its address {address}: no route leads there");
                    self.refuse(&key, message);
                } else if !cidr.contains(cidr.nth(3)) {
                    self.refuse(&key, format!("{cidr} has no room for a bridge and pods: give a /30 or a larger one"));
                } else if let Some((other, _)) = shared {
                    self.refuse(&key, format!("{cidr} overlaps that of {other}: no address may be of two nodes' pods"));
                } else if !role.runs_pods() {
                    self.refuse(&key, format!("a node of role {role} runs no pods"));
                }
            }
            nodes.insert(name, NodeEntry { role, address, pod_cidr, names });
        }
        if let NameChoice::Pinned(own) = own
            && let Some(entry) = nodes.get(own)
            && entry.role != self.role
        {
            let message = format!("{} is not what role says: {}", entry.role, self.role);
            self.refuse(&format!("cluster.nodes.{own}.role"), message);
        }
        nodes
    }

    /// What connects pods: by default what the inventory is enough for.
    fn pod_network(
        &mut self,
        given: Option<PodNetwork>,
        nodes: &BTreeMap<NodeName, NodeEntry>,
        own: &NameChoice,
    ) -> PodNetwork {
        const KEY: &str = "cluster.network";
        let without: Vec<&str> = nodes
            .iter()
            .filter(|(_, entry)| entry.role.runs_pods() && entry.pod_cidr.is_none())
            .map(|(name, _)| name.as_str())
            .collect();
        let enough = if without.is_empty() && !nodes.is_empty() { PodNetwork::Bridge } else { PodNetwork::Foreign };
        let network = self.or_default(KEY, given, enough);
        if network == PodNetwork::Bridge && nodes.is_empty() {
            self.refuse(KEY, "a bridge on each node wants cluster.nodes, with a podCIDR for each");
        } else if network == PodNetwork::Bridge && !without.is_empty() {
            self.refuse(
                KEY,
                format!("a bridge wants a podCIDR for each node: there is none for {}", without.join(", ")),
            );
        }
        if let NameChoice::Pinned(own) = own
            && network == PodNetwork::Bridge
            && self.role.runs_pods()
            && !nodes.is_empty()
            && !nodes.contains_key(own)
        {
            self.refuse("cluster.nodes", format!("this node, {own}, is not among them, and so has no podCIDR"));
        }
        network
    }
}

/// What an address is, if no machine is reached by it from another.
fn unfit(address: IpAddr) -> Option<&'static str> {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    match address {
        address if address.is_loopback() => Some("the loopback address of each machine"),
        address if address.is_unspecified() => Some("no address"),
        address if address.is_multicast() => Some("an address of many (multicast)"),
        IpAddr::V4(Ipv4Addr::BROADCAST) => Some("an address of all (broadcast)"),
        _ if link_local => Some("link-local"),
        _ => None,
    }
}

/// Whether two networks share an address: then the first of one lies in the other.
fn overlap(a: &Cidr, b: &Cidr) -> bool {
    a.contains(b.nth(0)) || b.contains(a.nth(0))
}
