//! Who this node is: its name and its address, chosen once by pure code, with the reasons.

use std::net::IpAddr;

use serde::Serialize;

use crate::config::values::NodeName;

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
