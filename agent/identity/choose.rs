//! The choice: a pin, else the kernel's own answer, else the default route.

use std::net::IpAddr;

use super::candidates::{Candidate, Reason, candidates};
use super::{Identity, NoIdentity, Rejected, peers};
use crate::config::settings::{AddressChoice, ClusterSettings, NameChoice, NodeSettings};
use crate::config::values::{Cidr, InterfaceName, NodeName};
use crate::host::facts::{DefaultRoute, Facts, PeerRoute};

/// Chooses the node's name and address.
pub fn choose(node: &NodeSettings, cluster: &ClusterSettings, facts: &Facts) -> Result<Identity, NoIdentity> {
    let name = choose_name(&node.name, &facts.hostname)?;
    let all = candidates(cluster, facts);
    let mut notes = Vec::new();
    let picked = match &node.address {
        AddressChoice::Interface(interface) => on_interface(&all, interface),
        AddressChoice::Network(cidr) => in_network(&all, *cidr),
        AddressChoice::Automatic => match towards_peers(&all, cluster, facts, &mut notes) {
            Towards::Picked(picked) => Some(picked),
            Towards::Wait => None,
            Towards::Unsaid => by_default_route(&all, facts, &mut notes),
        },
    };
    let Some(picked) = picked else {
        notes.extend(survey(&all, facts));
        return Err(NoIdentity::Address { wanted: wanted(&node.address), seen: notes });
    };
    let chosen = &all[picked.at];
    let rejected = all
        .iter()
        .enumerate()
        .filter(|(at, _)| *at != picked.at)
        .map(|(_, other)| Rejected {
            link: other.link.name.clone(),
            address: other.ip(),
            why: match other.why_not() {
                Some(why) => why,
                None if other.ip().is_ipv6() && chosen.ip().is_ipv4() => "usable, but IPv4 comes first".to_owned(),
                None => format!("usable, but not the {}", picked.why),
            },
        })
        .collect();
    Ok(Identity { name, address: chosen.ip(), link: chosen.link.name.clone(), why: picked.why, rejected })
}

fn choose_name(choice: &NameChoice, hostname: &str) -> Result<NodeName, NoIdentity> {
    match choice {
        NameChoice::Pinned(name) => Ok(name.clone()),
        NameChoice::Hostname => {
            hostname.to_lowercase().parse().map_err(|why| NoIdentity::Name { hostname: hostname.to_owned(), why })
        }
    }
}

/// A candidate's place and why it is the one, as a noun phrase.
struct Picked {
    at: usize,
    why: String,
}

/// The best of those that a pin admits: IPv4 first, then what nothing speaks against.
fn best_pinned(all: &[Candidate<'_>], admits: impl Fn(&Candidate<'_>) -> bool) -> Option<usize> {
    (0..all.len()).filter(|at| admits(&all[*at])).min_by_key(|at| (all[*at].ip().is_ipv6(), !all[*at].is_good()))
}

fn on_interface(all: &[Candidate<'_>], interface: &InterfaceName) -> Option<Picked> {
    let admits = |c: &Candidate<'_>| c.link.name == interface.as_str() && c.may_be_pinned(false);
    let at = best_pinned(all, admits)?;
    Some(Picked { at, why: format!("address of the pinned interface {interface} (node.interface)") })
}

fn in_network(all: &[Candidate<'_>], cidr: Cidr) -> Option<Picked> {
    let exactly = |ip: IpAddr| cidr.to_string() == format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 });
    let admits = |c: &Candidate<'_>| cidr.contains(c.ip()) && c.may_be_pinned(exactly(c.ip()));
    let at = best_pinned(all, admits)?;
    Some(Picked { at, why: format!("address inside the pinned network {cidr} (node.cidr)") })
}

/// What the kernel's routes towards the peers say.
enum Towards {
    /// This one.
    Picked(Picked),
    /// Nothing for now, and the default route must not be asked instead: it may well be the wrong one.
    Wait,
    /// Nothing.
    Unsaid,
}

/// The source address that the kernel would use towards the first peer that tells.
fn towards_peers(all: &[Candidate<'_>], cluster: &ClusterSettings, facts: &Facts, notes: &mut Vec<String>) -> Towards {
    let mut wait = false;
    for (host, port) in peers(cluster) {
        let key = Facts::peer_key(&host, port);
        let (peer, source) = match facts.routes.get(&key) {
            Some(PeerRoute::Via { peer, source }) => (*peer, *source),
            Some(PeerRoute::Unresolved { why }) => {
                notes.push(format!("{key}: the name does not resolve: {why}"));
                wait = true;
                continue;
            }
            Some(PeerRoute::Unroutable { peer, why }) => {
                notes.push(format!("{key}: no route to {peer}: {why}"));
                continue;
            }
            None => {
                notes.push(format!("{key}: the facts do not say how the kernel would reach it"));
                continue;
            }
        };
        if peer.is_loopback() {
            notes.push(format!("{key}: {peer} is this machine itself, so it does not tell which address others reach"));
            continue;
        }
        let Some(at) = all.iter().position(|c| c.ip() == source) else {
            notes.push(format!("{key}: the kernel would use {source}, which no link carries any more"));
            continue;
        };
        let Some(why) = all[at].why_not() else {
            return Towards::Picked(Picked { at, why: format!("source address towards {key}") });
        };
        notes.push(format!("{key}: the kernel would use {source} of {}: {why}", all[at].link.name));
        let against = &all[at].reasons;
        if against.iter().any(|reason| matches!(reason, Reason::Inside { .. })) {
            // The node's network and the cluster's overlap: whichever other address there is would hide it.
            wait = true;
        } else if against.iter().any(|reason| matches!(reason, Reason::ApiEndpoint | Reason::Shared)) {
            // A shared address says nothing of who the node is, but it does say which network the cluster is on.
            if let Some(at) = first_good(all, &all[at].link.name, source.is_ipv6(), None) {
                let why = format!("own address beside the shared {source} of the link that leads to {key}");
                return Towards::Picked(Picked { at, why });
            }
        }
    }
    if wait { Towards::Wait } else { Towards::Unsaid }
}

/// The default route of the lowest metric that has a good address; IPv4 first.
fn by_default_route(all: &[Candidate<'_>], facts: &Facts, notes: &mut Vec<String>) -> Option<Picked> {
    let mut routes: Vec<&DefaultRoute> = facts.default_routes.iter().collect();
    routes.sort_by_key(|route| (route.ipv6, route.metric));
    for route in routes {
        let preferred = route.source.and_then(|source| all.iter().position(|c| c.ip() == source));
        if let Some(at) = preferred {
            match all[at].why_not() {
                None => return Some(Picked { at, why: format!("preferred source of the {}", shown(route)) }),
                Some(why) => notes.push(format!("{}: source {}: {why}", shown(route), all[at].ip())),
            }
        }
        match first_good(all, &route.link, route.ipv6, route.gateway) {
            Some(at) => {
                return Some(Picked { at, why: format!("address of {} with the {}", route.link, shown(route)) });
            }
            None => notes.push(format!("{}: its link has no usable address", shown(route))),
        }
    }
    if facts.default_routes.is_empty() {
        notes.push("no default route".to_owned());
    }
    None
}

/// The link's first good address of a family, one in the gateway's network before others: the kernel prefers it too
/// (`inet_select_addr`).
fn first_good(all: &[Candidate<'_>], link: &str, ipv6: bool, gateway: Option<IpAddr>) -> Option<usize> {
    let near = |c: &Candidate<'_>| {
        let network = format!("{}/{}", c.ip(), c.address.prefix).parse::<Cidr>();
        gateway.is_some_and(|gateway| network.is_ok_and(|network| network.contains(gateway)))
    };
    (0..all.len())
        .filter(|at| all[*at].link.name == link && all[*at].ip().is_ipv6() == ipv6 && all[*at].is_good())
        .min_by_key(|at| !near(&all[*at]))
}

fn shown(route: &DefaultRoute) -> String {
    let via = route.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
    format!("default route{via} by {}, metric {}", route.link, route.metric)
}

/// What was wanted, for the error.
fn wanted(choice: &AddressChoice) -> String {
    match choice {
        AddressChoice::Interface(interface) => format!("interface {interface} (node.interface)"),
        AddressChoice::Network(cidr) => format!("network {cidr} (node.cidr)"),
        AddressChoice::Automatic => "any link".to_owned(),
    }
}

/// Each link and address with what speaks against it, one per line.
fn survey(all: &[Candidate<'_>], facts: &Facts) -> Vec<String> {
    let mut lines = Vec::new();
    for link in &facts.links {
        if link.addresses.is_empty() {
            let state = if link.up { "up" } else { "down or without carrier" };
            lines.push(format!("{}: no address ({state})", link.name));
        }
        for candidate in all.iter().filter(|c| c.link.index == link.index) {
            let why = candidate.why_not().unwrap_or_else(|| "usable, but not what was wanted".to_owned());
            lines.push(format!("{}: {}/{}: {why}", link.name, candidate.ip(), candidate.address.prefix));
        }
    }
    if facts.links.is_empty() {
        lines.push("no links at all".to_owned());
    }
    lines
}
