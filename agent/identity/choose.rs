//! The choice: a pin, else the kernel's own answer, else the default route.

use std::net::IpAddr;

use super::candidates::{Candidate, candidates};
use super::{Identity, NoIdentity, Place, Rejected, peers};
use crate::config::settings::{AddressChoice, ClusterSettings, NameChoice, NodeEntry, NodeSettings, Role};
use crate::config::values::{Cidr, InterfaceName, NodeName};
use crate::host::facts::{DefaultRoute, Facts, PeerRoute};

/// Chooses the node's name and address. `last` is the address of the last boot, for when nothing else tells.
pub fn choose(
    node: &NodeSettings,
    cluster: &ClusterSettings,
    facts: &Facts,
    last: Option<IpAddr>,
) -> Result<Identity, NoIdentity> {
    let name = choose_name(&node.name, &facts.hostname)?;
    let place = match (&node.address, cluster.nodes.get(&name)) {
        (AddressChoice::Automatic, Some(entry)) => listed(entry, cluster, facts, last)?,
        (choice, _) => place(choice, Some(cluster), facts, last)?,
    };
    Ok(Identity { name, place })
}

/// The address that the inventory has for this node. A worker that has moved is found at its new place, which its
/// certificates follow; all others know a controller and a member of the store by that address, and so it must be there.
fn listed(
    entry: &NodeEntry,
    cluster: &ClusterSettings,
    facts: &Facts,
    last: Option<IpAddr>,
) -> Result<Place, NoIdentity> {
    let there = place(&AddressChoice::Listed(entry.address), Some(cluster), facts, last);
    match entry.role {
        Role::Worker | Role::Edge | Role::Kubeadm => {
            there.or_else(|_| place(&AddressChoice::Automatic, Some(cluster), facts, last))
        }
        Role::Controller | Role::Etcd => there,
    }
}

/// Chooses the address alone; without a configuration there is no cluster to reach.
pub fn place(
    choice: &AddressChoice,
    cluster: Option<&ClusterSettings>,
    facts: &Facts,
    last: Option<IpAddr>,
) -> Result<Place, NoIdentity> {
    let all = candidates(cluster, facts);
    let mut notes = Vec::new();
    let mut inside = None;
    let picked = match (choice, cluster) {
        (AddressChoice::Interface(interface), _) => on_interface(&all, interface),
        (AddressChoice::Network(cidr), _) => in_network(&all, *cidr),
        (AddressChoice::Listed(address), _) => as_listed(&all, *address),
        (AddressChoice::Automatic, None) => by_default_route(&all, facts, &mut notes).or_else(|| the_only_one(&all)),
        (AddressChoice::Automatic, Some(cluster)) => match towards_peers(&all, cluster, facts, &mut notes) {
            Towards::Picked(picked) => Some(picked),
            Towards::Unresolved => as_last_time(&all, last),
            Towards::Wait(at) => {
                inside = all[at].inside().map(|reason| (all[at].ip(), reason.clone()));
                None
            }
            Towards::Unsaid => by_default_route(&all, facts, &mut notes),
        },
    };
    let Some(picked) = picked else {
        notes.extend(survey(&all, facts));
        return Err(NoIdentity::Address { wanted: wanted(choice), inside, seen: notes });
    };
    let chosen = &all[picked.at];
    let rejected = all.iter().enumerate().filter(|(at, _)| *at != picked.at);
    Ok(Place {
        address: chosen.ip(),
        ipv6: ipv6_of(&all, chosen),
        link: chosen.link.name.clone(),
        rejected: rejected.map(|(_, other)| rejection(other, chosen, &picked.why)).collect(),
        why: picked.why,
    })
}

fn rejection(other: &Candidate<'_>, chosen: &Candidate<'_>, why_chosen: &str) -> Rejected {
    let why = match other.why_not() {
        Some(why) => why,
        None if other.ip().is_ipv6() && chosen.ip().is_ipv4() => "usable, but IPv4 comes first".to_owned(),
        None => format!("usable, but not the {why_chosen}"),
    };
    Rejected { link: other.link.name.clone(), address: other.ip(), why }
}

/// The chosen address if it is IPv6, else the first good IPv6 address of its link.
fn ipv6_of(all: &[Candidate<'_>], chosen: &Candidate<'_>) -> Option<IpAddr> {
    let beside = |c: &&Candidate<'_>| c.link.index == chosen.link.index && c.ip().is_ipv6() && c.is_good();
    if chosen.ip().is_ipv6() { Some(chosen.ip()) } else { all.iter().find(beside).map(Candidate::ip) }
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

fn as_listed(all: &[Candidate<'_>], address: IpAddr) -> Option<Picked> {
    let at = all.iter().position(|c| c.ip() == address && c.may_be_pinned(true))?;
    Some(Picked { at, why: "address that the inventory has for this node (cluster.nodes)".to_owned() })
}

/// What the kernel's routes towards the peers say.
enum Towards {
    /// This one.
    Picked(Picked),
    /// A name does not resolve yet, and the default route must not be asked instead: it may well be the wrong one.
    Unresolved,
    /// This candidate, which cannot be the node's, and another one would only hide that.
    Wait(usize),
    /// Nothing.
    Unsaid,
}

/// The source address that the kernel would use towards the first peer that tells. The API server is asked first; where
/// it is this machine itself, it tells nothing, and the others are asked.
fn towards_peers(all: &[Candidate<'_>], cluster: &ClusterSettings, facts: &Facts, notes: &mut Vec<String>) -> Towards {
    let mut unsaid = Towards::Unsaid;
    let mut beside = None;
    for (host, port) in peers(cluster) {
        let key = Facts::peer_key(&host, port);
        let (peer, source) = match facts.routes.get(&key) {
            Some(PeerRoute::Via { peer, source }) => (*peer, *source),
            Some(PeerRoute::Unresolved { why }) => {
                notes.push(format!("{key}: the name does not resolve: {why}"));
                if matches!(unsaid, Towards::Unsaid) {
                    unsaid = Towards::Unresolved;
                }
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
        if all[at].inside().is_some() {
            // The node's network and the cluster's overlap: whichever other address there is would hide it.
            unsaid = Towards::Wait(at);
        } else if all[at].is_shared() && beside.is_none() {
            // A shared address says nothing of who the node is, but it does say which network the cluster is on.
            beside = first_good(all, &all[at].link.name, source.is_ipv6(), None).map(|at| Picked {
                at,
                why: format!("own address beside the shared {source} of the link that leads to {key}"),
            });
            if beside.is_none() && all[at].looks_own() {
                notes.push(format!("{source}: if it is this machine's for good, say so with node.cidr: {source}/32"));
                unsaid = Towards::Wait(at);
            }
        }
    }
    beside.map_or(unsaid, Towards::Picked)
}

/// The address of the last boot, if it is still there and fit.
fn as_last_time(all: &[Candidate<'_>], last: Option<IpAddr>) -> Option<Picked> {
    let at = all.iter().position(|c| Some(c.ip()) == last && c.is_good())?;
    Some(Picked { at, why: "address of the last boot, since the API server's name does not resolve".to_owned() })
}

/// The one address that is fit, if no other is.
fn the_only_one(all: &[Candidate<'_>]) -> Option<Picked> {
    let fit = |ipv6: bool| -> Vec<usize> {
        (0..all.len()).filter(|at| all[*at].ip().is_ipv6() == ipv6 && all[*at].is_good()).collect()
    };
    let (v4, v6) = (fit(false), fit(true));
    match if v4.is_empty() { v6 } else { v4 }[..] {
        [at] => Some(Picked { at, why: "only address that is fit".to_owned() }),
        _ => None,
    }
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
        AddressChoice::Listed(address) => format!("any link that has {address} (cluster.nodes)"),
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
