//! The network of pods where `cluster.network` is `bridge`: a bridge on each node, and routes to the pods of all others.
//!
//! Pods reach each other by their own addresses, and all else by their node's. The bridge plugin hides pods' addresses from
//! whatever lies outside of the network that their addresses are of: so each node's pods are given addresses of the
//! whole pod network, out of the part that is this node's, and are told that only the bridge leads to any of it.

use std::net::IpAddr;

use serde_json::json;

use super::components::{Component, Node, etc};
use crate::config::settings::PodNetwork;
use crate::config::values::{Cidr, NodeName, RootPath, UnitName};
use crate::engine::file::ManagedFile;
use crate::engine::resource::{CannotTell, Diff, Resource, Seen, Thing};

/// Where container runtimes look for it.
const CONFLIST: &str = "/etc/cni/net.d/10-nodeagent.conflist";

/// What keeps the routes.
pub const UNIT: &str = "nodeagent-routes.service";

/// The bridge: the name that the plugin itself has for it.
const BRIDGE: &str = "cni0";

/// What the plugins of 2020 understand, and those of 2026 still do (containernetworking/cni, releases of the specification).
pub const CNI_VERSION: &str = "0.4.0";

/// What is there for it, besides the unit itself.
pub fn files() -> [RootPath; 2] {
    [RootPath::literal(CONFLIST), etc("nodeagent-routes.env")]
}

/// What the container runtime makes pods' networks by, and what keeps the routes; nothing where others bring the network.
pub fn plan(node: &Node<'_>) -> Option<(Bridge, Component)> {
    let cluster = &node.settings.cluster;
    if cluster.network != PodNetwork::Bridge || !node.settings.role.runs_pods() {
        return None;
    }
    let own = &node.identity.name;
    let pods = cluster.nodes.get(own).and_then(|entry| entry.pod_cidr);
    let bridge = Bridge { path: RootPath::literal(CONFLIST), name: own.clone(), pods, network: cluster.pod_cidr };
    let others = cluster.nodes.iter().filter(|(name, _)| *name != own);
    let routes = others.filter_map(|(_, entry)| Some(format!("{}={}", entry.pod_cidr?, entry.address))).collect();
    let keeper = Component {
        unit: UnitName::literal(UNIT),
        unit_file: include_str!("../../units/nodeagent-routes.service"),
        files: Vec::new(),
        args: routes,
        wait: Vec::new(),
        vars: Vec::new(),
    };
    Some((bridge, keeper))
}

/// The configuration of CNI plugins.
pub struct Bridge {
    pub path: RootPath,
    /// This node.
    name: NodeName,
    /// The addresses of its pods, where the inventory has it.
    pods: Option<Cidr>,
    /// Those of all pods.
    network: Cidr,
}

impl Bridge {
    fn file(&self, pods: &Cidr) -> ManagedFile {
        let routes: Vec<_> = everything(&self.network).iter().map(|dst| json!({ "dst": dst })).collect();
        let config = json!({
            "cniVersion": CNI_VERSION,
            "name": "nodeagent",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": BRIDGE,
                    "isGateway": true,
                    "ipMasq": true,
                    // A pod reaches itself by its service.
                    "hairpinMode": true,
                    "ipam": {
                        "type": "host-local",
                        "ranges": [[{
                            "subnet": self.network,
                            "rangeStart": pods.nth(2),
                            "rangeEnd": before(pods.last()),
                            "gateway": pods.nth(1)
                        }]],
                        "routes": routes
                    }
                },
                { "type": "portmap", "capabilities": { "portMappings": true } }
            ]
        });
        *ManagedFile::new(self.path.clone(), format!("{config:#}\n"))
    }
}

/// Where the bridge leads: everywhere, and to both halves of the pod network, which go before a pod's own opinion that all
/// of it is on its link.
fn everything(network: &Cidr) -> Vec<String> {
    let any = if network.nth(0).is_ipv4() { "0.0.0.0/0" } else { "::/0" };
    let halves = network.halves().map(|halves| halves.map(|half| half.to_string()));
    std::iter::once(any.to_owned()).chain(halves.into_iter().flatten()).collect()
}

/// The address before: an IPv4 network's last is its broadcast address.
fn before(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4(u32::from(v4).wrapping_sub(1).into()),
        IpAddr::V6(v6) => IpAddr::V6(u128::from(v6).wrapping_sub(1).into()),
    }
}

impl Resource for Bridge {
    fn summary(&self) -> String {
        match &self.pods {
            Some(pods) => format!("{} (pods of this node: {pods})", self.path),
            None => self.path.to_string(),
        }
    }

    fn reads(&self) -> Vec<Thing> {
        vec![Thing::File(self.path.clone())]
    }

    fn makes(&self) -> Vec<Thing> {
        vec![Thing::File(self.path.clone())]
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        let Some(pods) = &self.pods else {
            let advice = "add it, with address and podCIDR, on every node; or set cluster.network: none";
            let why = format!("this node, {}, is not among them with a podCIDR: its pods have no addresses", self.name);
            return Err(CannotTell { advice: Some(advice.to_owned()), ..CannotTell::new("cluster.nodes", why) });
        };
        self.file(pods).diff(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_way_out_covers_the_whole_pod_network() {
        for (network, want) in [
            ("10.244.0.0/16", &["0.0.0.0/0", "10.244.0.0/17", "10.244.128.0/17"][..]),
            ("fd00:10::/56", &["::/0", "fd00:10::/57", "fd00:10:0:80::/57"]),
        ] {
            assert_eq!(everything(&network.parse().expect(network)), want, "{network}");
        }
    }

    #[test]
    fn addresses_of_pods_are_the_nodes_own() {
        let cidr = |text: &str| text.parse::<Cidr>().expect(text);
        let bridge = Bridge {
            path: RootPath::literal(CONFLIST),
            name: "worker-1".parse().expect("a name"),
            pods: None,
            network: cidr("10.244.0.0/16"),
        };
        let file = bridge.file(&cidr("10.244.7.0/24")).content;
        for line in [
            r#""subnet": "10.244.0.0/16""#,
            r#""rangeStart": "10.244.7.2""#,
            r#""rangeEnd": "10.244.7.254""#,
            r#""gateway": "10.244.7.1""#,
        ] {
            assert!(file.contains(line), "no {line} in {file}");
        }
        assert!(bridge.diff(&Seen::default()).is_err_and(|why| why.to_string().contains("worker-1")));
    }
}
