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
//! The address is, in this order: one on the pinned interface or in the pinned network; the source address that the
//! kernel itself would use towards the API server; an address of the link with the default route of lowest metric.
//! IPv4 comes first. What an address must not be is in `candidates`; which links are not the machine's own, in `links`.
//!
//! Where a rule of the design met the world:
//! - **/32**: Google's and Hetzner's machines have nothing else. It counts as shared only beside a wider address of the
//!   same link, or on a dummy link.
//! - **A pin** may overrule what is a guess (a container's link by its name, the loopback link, the API server's own
//!   address; a shared address only when the pin is that address itself), never what cannot work.
//! - **A shared source address** (this machine holds the API server's address now) still tells the right link, so that
//!   link's own address is taken before the default route is asked: it may well lead elsewhere.
//! - **No choice is better than a wrong one** where the API server's name does not resolve yet, or where the address
//!   towards it lies in the pod or service network. The caller waits, or a person decides.

mod candidates;
mod choose;
mod links;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use serde::Serialize;

pub use candidates::{Candidate, Reason, candidates};
pub use choose::choose;
pub use links::container_link;

use crate::config::settings::ClusterSettings;
use crate::config::values::{BadValue, NodeName};
use crate::engine::fault::Explain;
use crate::host::facts::Facts;

/// The node's name and address, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// The node's name.
    pub name: NodeName,
    /// The address that the rest of the cluster can reach.
    pub address: IpAddr,
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
                "set node.interface or node.cidr to the network that the rest of the cluster reaches; \
                 if DHCP or DNS is late, wait and run again"
            }
        };
        Some(advice.to_owned())
    }
}

/// The machines whose routes tell which address the cluster can reach, by host and port: Facts are gathered for these.
pub fn peers(cluster: &ClusterSettings) -> Vec<(String, u16)> {
    vec![cluster.api_server.host_port()]
}

/// The IPv6 address to name beside an IPv4 one: the first good one of the chosen link.
pub fn ipv6_beside(cluster: &ClusterSettings, facts: &Facts, identity: &Identity) -> Option<IpAddr> {
    if identity.address.is_ipv6() {
        return Some(identity.address);
    }
    candidates(cluster, facts)
        .iter()
        .find(|candidate| candidate.link.name == identity.link && candidate.ip().is_ipv6() && candidate.is_good())
        .map(Candidate::ip)
}
