//! Every address of the machine, and whether it may be the node's.

use std::fmt;
use std::net::IpAddr;

use super::links::container_link;
use crate::config::settings::ClusterSettings;
use crate::config::values::Cidr;
use crate::host::facts::{Address, Facts, Flaw, Link, PeerRoute};

/// One address of one link.
pub struct Candidate<'a> {
    /// The link that carries it.
    pub link: &'a Link,
    /// The address.
    pub address: &'a Address,
    /// All that speaks against it, what explains most first; nothing when it may be the node's.
    pub reasons: Vec<Reason>,
}

impl Candidate<'_> {
    /// The address itself.
    pub fn ip(&self) -> IpAddr {
        self.address.ip
    }

    /// Whether it may be the node's.
    pub fn is_good(&self) -> bool {
        self.reasons.is_empty()
    }

    /// The reasons in one line; nothing when there are none.
    pub fn why_not(&self) -> Option<String> {
        let shown: Vec<String> = self.reasons.iter().map(Reason::to_string).collect();
        (!shown.is_empty()).then(|| shown.join("; "))
    }

    /// Which network of the cluster's own it lies in.
    pub fn inside(&self) -> Option<&Reason> {
        self.reasons.iter().find(|reason| matches!(reason, Reason::Inside { .. }))
    }

    /// Whether it may move to another machine.
    pub fn is_shared(&self) -> bool {
        self.reasons.iter().any(|reason| matches!(reason, Reason::ApiEndpoint | Reason::Shared))
    }

    /// Whether it is the API server's, and yet looks like any machine's own: with a network, on a link that leads out.
    pub fn looks_own(&self) -> bool {
        let host_only = if self.ip().is_ipv4() { 32 } else { 128 };
        self.reasons == [Reason::ApiEndpoint] && self.address.prefix < host_only
    }

    /// Whether a person who pins it knows better than the rules that speak against it.
    ///
    /// `exactly` says that the pin names this very address. What cannot work is refused even then.
    pub fn may_be_pinned(&self, exactly: bool) -> bool {
        self.reasons.iter().all(|reason| match reason {
            Reason::ContainerLink { .. } | Reason::LoopbackLink | Reason::ApiEndpoint => true,
            Reason::Shared => exactly,
            _ => false,
        })
    }
}

/// Why an address may not be the node's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It reaches no further than this machine.
    Loopback,
    /// A global address on the loopback link: service addresses are kept there.
    LoopbackLink,
    /// It reaches no further than the link.
    LinkLocal,
    /// The link has no carrier or is switched off.
    LinkDown,
    /// The link is not the machine's own.
    ContainerLink {
        /// Whose it is.
        whose: &'static str,
    },
    /// It lies where the cluster's own addresses are.
    Inside {
        /// `pod` or `service`.
        network: &'static str,
        /// The network.
        cidr: Cidr,
    },
    /// It is where the API server answers: a load balancer's address that may move to another machine.
    ApiEndpoint,
    /// A host address beside the link's own address: it may move to another machine.
    Shared,
    /// The kernel's reserve.
    Flawed(Flaw),
}

impl Reason {
    /// Whether it speaks of something that stays while pods, containers and shared addresses come and go.
    pub fn is_lasting(&self) -> bool {
        !matches!(self, Self::ContainerLink { .. } | Self::Shared | Self::ApiEndpoint | Self::Flawed(_))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback => f.write_str("loopback"),
            Self::LoopbackLink => f.write_str("on the loopback link"),
            Self::LinkLocal => f.write_str("link-local"),
            Self::LinkDown => f.write_str("the link is down or has no carrier"),
            Self::ContainerLink { whose } => write!(f, "the link belongs to {whose}"),
            Self::Inside { network, cidr } => write!(f, "inside the {network} network {cidr}"),
            Self::ApiEndpoint => f.write_str("the API server's own address, which may move to another machine"),
            Self::Shared => f.write_str("a host address beside the link's own, which may move to another machine"),
            Self::Flawed(Flaw::Tentative) => f.write_str("tentative: not yet known to be free"),
            Self::Flawed(Flaw::Duplicate) => f.write_str("another machine has it too"),
            Self::Flawed(Flaw::Deprecated) => f.write_str("deprecated"),
            Self::Flawed(Flaw::Temporary) => f.write_str("a temporary privacy address"),
        }
    }
}

/// All addresses in the kernel's order, each judged; without a configuration there is no cluster to judge by.
pub fn candidates<'a>(cluster: Option<&ClusterSettings>, facts: &'a Facts) -> Vec<Candidate<'a>> {
    let endpoint = cluster.and_then(|cluster| api_endpoint(cluster, facts));
    let mut found: Vec<Candidate<'a>> = facts
        .links
        .iter()
        .flat_map(|link| link.addresses.iter().map(move |address| (link, address)))
        .map(|(link, address)| Candidate { link, address, reasons: judge(cluster, endpoint, link, address) })
        .collect();
    let shared: Vec<bool> = found.iter().map(|candidate| is_shared(candidate, &found)).collect();
    for (candidate, shared) in found.iter_mut().zip(shared) {
        if shared {
            candidate.reasons.push(Reason::Shared);
        }
    }
    found
}

/// What speaks against an address by itself.
fn judge(cluster: Option<&ClusterSettings>, endpoint: Option<IpAddr>, link: &Link, address: &Address) -> Vec<Reason> {
    let ip = address.ip;
    if ip.is_loopback() {
        return vec![Reason::Loopback];
    }
    let mut reasons = Vec::new();
    reasons.extend(container_link(link).map(|whose| Reason::ContainerLink { whose }));
    let networks = cluster.map(|cluster| [("pod", cluster.pod_cidr), ("service", cluster.service_cidr)]);
    for (network, cidr) in networks.into_iter().flatten() {
        if cidr.contains(ip) {
            reasons.push(Reason::Inside { network, cidr });
        }
    }
    let facts = [
        (is_link_local(ip), Reason::LinkLocal),
        (link.loopback, Reason::LoopbackLink),
        (endpoint == Some(ip), Reason::ApiEndpoint),
        (!link.up, Reason::LinkDown),
    ];
    reasons.extend(facts.into_iter().filter(|(holds, _)| *holds).map(|(_, reason)| reason));
    reasons.extend(address.flaw.map(Reason::Flawed));
    reasons
}

/// Whether a /32 is an extra one.
///
/// Clouds give machines nothing but a /32 (Google, Hetzner), so it counts as shared only beside a wider address of the
/// same link, or on a dummy link, where load balancers keep them. For IPv6 the length says nothing: a DHCP server always gives
/// a /128, and keepalived marks its own as deprecated.
fn is_shared(candidate: &Candidate<'_>, all: &[Candidate<'_>]) -> bool {
    let wider = |other: &Candidate<'_>| {
        other.link.index == candidate.link.index
            && other.ip().is_ipv4()
            && other.address.prefix < 32
            && other.may_be_pinned(false)
    };
    candidate.ip().is_ipv4()
        && candidate.address.prefix == 32
        && (candidate.link.kind == "dummy" || all.iter().any(wider))
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// The API server's address, as written or as its name resolved.
fn api_endpoint(cluster: &ClusterSettings, facts: &Facts) -> Option<IpAddr> {
    let (host, port) = cluster.api_server.host_port();
    if let Ok(ip) = host.parse() {
        return Some(ip);
    }
    match facts.routes.get(&Facts::peer_key(&host, port))? {
        PeerRoute::Via { peer, .. } | PeerRoute::Unroutable { peer, .. } => Some(*peer),
        PeerRoute::Unresolved { .. } => None,
    }
}
