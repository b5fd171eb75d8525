//! Who this node is: its name and its address, chosen once by pure code, with the reasons.
//!
//! Replaces the choosing half of `setup-network-environment`, which took the link of the first default route in a
//! netlink dump, whatever its metric, and that link's first address, whatever it was.
//!
//! - **Inputs**: what the user pinned (`node.name`, `node.interface`, `node.cidr`), where the API server is, which
//!   networks are the cluster's own, and Facts.
//! - **Output**: an [`Identity`], or a [`NoIdentity`] that says of each link, address and route why it was not taken.
//! - **Idempotence**: a pure function: the same facts give the same choice and the same words.
//!
//! The address is, in this order: one on the pinned interface or in the pinned network; the one that the inventory has for
//! this node (`cluster.nodes`), which a worker may have left, but no controller and no member of the store; the source address that the
//! kernel itself would use towards the API server, or where that is this machine itself, towards the other machines of
//! `cluster.peers`; an address of the link with the default route of lowest metric. IPv4 comes first, and the IPv6 address
//! of the same link is recorded beside it. What an address must not be is in `candidates`; which links are not the
//! machine's own, in `links`. `docs/network.md` has a table of networks and what is chosen there.
//!
//! Where a rule of the design met the world:
//! - **/32**: Google's and Hetzner's machines have nothing else. It counts as shared only beside a wider address of the
//!   same link, or on a dummy link.
//! - **A pin** may overrule what is a guess (a container's link by its name, the loopback link, the API server's own
//!   address; a shared address only when the pin is that address itself), never what cannot work.
//! - **A shared source address** (this machine holds the API server's address now) still tells the right link, so that
//!   link's own address is taken before the default route is asked: it may well lead elsewhere.
//! - **No choice is better than a wrong one** where the API server's name does not resolve yet, or where the address
//!   towards it lies in the pod or service network. The caller waits, or a person decides. Only when a name does not
//!   resolve to the end, the address of the last boot holds, if it is still there.
//! - **Without a configuration** there is no API server to ask about, and no network is known to be the cluster's: the
//!   default route decides, or the machine has but one address that is fit.

mod candidates;
mod choose;
mod links;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::ops::Deref;

use serde::Serialize;

pub use candidates::{Candidate, Reason, candidates};
pub use choose::{choose, place};
pub use links::container_link;

use crate::config::settings::{ClusterSettings, Role, Settings};
use crate::config::values::{BadValue, HttpUrl, NodeName};
use crate::engine::fault::Explain;

/// The node's name, and its place in the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// The node's name.
    pub name: NodeName,
    /// Its address, and why.
    #[serde(flatten)]
    pub place: Place,
}

/// An identity is a place with a name: planners ask it for the address.
impl Deref for Identity {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

impl Identity {
    /// The API server that this node's programs speak to: a controller's own, so that its kubelet is never newer than that
    /// one (kubernetes.io/releases/version-skew-policy) and no other machine has to be up; elsewhere the cluster's.
    pub fn api_server(&self, settings: &Settings) -> HttpUrl {
        match settings.role {
            Role::Controller => HttpUrl::https(self.address, settings.cluster.api_port),
            Role::Etcd | Role::Worker | Role::Edge | Role::Kubeadm => settings.cluster.api_server.clone(),
        }
    }

    /// The plain machine of [`crate::host::facts::Facts::sample`], for tests.
    ///
    /// # Panics
    /// Never: its texts are constants, and tests use it.
    #[expect(clippy::expect_used, reason = "constants")]
    pub fn sample() -> Self {
        let place = Place {
            address: IpAddr::from([10, 10, 30, 21]),
            ipv6: None,
            link: "eth0".into(),
            why: "source address towards 10.10.30.11:6443".into(),
            rejected: Vec::new(),
        };
        Self { name: "worker-01".parse().expect("a name"), place }
    }
}

/// Where a machine is in its network, and why there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// The address that the rest of the cluster can reach.
    pub address: IpAddr,
    /// The IPv6 address of the same link: the address itself where that is IPv6; nothing if the link has none that is fit.
    pub ipv6: Option<IpAddr>,
    /// The link that carries it.
    pub link: String,
    /// Why this address.
    pub why: String,
    /// What else there was, and why not.
    pub rejected: Vec<Rejected>,
}

/// An address that was not chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rejected {
    /// The link.
    pub link: String,
    /// The address.
    pub address: IpAddr,
    /// Why not.
    pub why: String,
}

/// The node's name or address could not be chosen. Waiting may help with either: DHCP gives both.
#[derive(Debug, thiserror::Error)]
pub enum NoIdentity {
    /// The hostname cannot be a node's name.
    #[error("take the node's name from the hostname {hostname:?}")]
    Name {
        /// The hostname as the kernel has it.
        hostname: String,
        /// What is wrong with it.
        #[source]
        why: BadValue,
    },
    /// No address is fit.
    #[error("find the node's address on {wanted}: none of those seen is fit\n  {}", seen.join("\n  "))]
    Address {
        /// Where it should have been.
        wanted: String,
        /// The address that would have been taken, did it not lie in a network of the cluster's own.
        inside: Option<(IpAddr, Reason)>,
        /// Each route, link and address seen, and why it was not taken.
        seen: Vec<String>,
    },
}

impl Explain for NoIdentity {
    fn advice(&self) -> Option<String> {
        let advice = match self {
            Self::Name { .. } => {
                "set node.name, or give the machine a hostname (hostnamectl hostname NAME) and run again"
            }
            Self::Address { .. } => {
                "set node.interface or node.cidr to the network that the rest of the cluster reaches, or give the machine \
                 the address that cluster.nodes has for it; if DHCP or DNS is late, wait and run again"
            }
        };
        Some(advice.to_owned())
    }
}

/// The machines whose routes tell which address the cluster can reach, by host and port: Facts are
/// gathered for these.
/// The API server comes first.
pub fn peers(cluster: &ClusterSettings) -> Vec<(String, u16)> {
    std::iter::once(&cluster.api_server).chain(cluster.peers.values()).map(HttpUrl::host_port).collect()
}
