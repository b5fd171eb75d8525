//! The network shapes that matter, each with the address that must come out.

use std::collections::BTreeMap;

use super::*;
use crate::config::settings::{AddressChoice, NameChoice, NodeEntry, NodeSettings, PodNetwork, Role};
use crate::engine::fault::{Class, Fault};
use crate::host::facts::{Address, DefaultRoute, Facts, Flaw, Link, PeerRoute};

const API: &str = "https://10.10.30.11:6443";

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// `eth0 up 10.0.2.15/24 …`; a kind after a colon: `docker0:bridge`.
fn link(index: u32, text: &str) -> Link {
    let mut words = text.split(' ');
    let (name, kind) = words.next().map(|w| w.split_once(':').unwrap_or((w, ""))).expect("a name");
    let up = words.next() == Some("up");
    let addresses = words
        .map(|word| {
            let (ip_text, prefix) = word.split_once('/').expect("a prefix");
            let (prefix, flaw) = match prefix.split_once('!') {
                Some((prefix, "tentative")) => (prefix, Some(Flaw::Tentative)),
                Some((prefix, _)) => (prefix, Some(Flaw::Deprecated)),
                None => (prefix, None),
            };
            Address { flaw, ..Address::new(ip(ip_text), prefix.parse().expect("a length")) }
        })
        .collect();
    let sample = Facts::sample().links[1].clone();
    Link { index, name: name.into(), kind: kind.into(), up, loopback: name == "lo", addresses, ..sample }
}

/// `eth0 via 10.0.2.2 metric 100 src 10.0.2.15`, the latter parts optional.
fn route(text: &str) -> DefaultRoute {
    let words: Vec<&str> = text.split(' ').collect();
    let after = |key: &str| words.iter().position(|w| *w == key).map(|at| words[at + 1]);
    DefaultRoute {
        ipv6: after("via").is_some_and(|gateway| gateway.contains(':')),
        link: words[0].into(),
        gateway: after("via").map(ip),
        metric: after("metric").map_or(0, |m| m.parse().expect("a metric")),
        source: after("src").map(ip),
    }
}

fn cluster(api: &str) -> ClusterSettings {
    ClusterSettings {
        name: "kubernetes".into(),
        api_server: api.parse().expect("a URL"),
        api_port: 6443,
        peers: BTreeMap::new(),
        nodes: BTreeMap::new(),
        network: PodNetwork::Foreign,
        pod_cidr: "10.244.0.0/16".parse().expect("a network"),
        service_cidr: "10.96.0.0/12".parse().expect("a network"),
        dns: ip("10.96.0.10"),
        domain: "cluster.local".into(),
        core_dns: None,
    }
}

fn node(address: AddressChoice) -> NodeSettings {
    NodeSettings { name: NameChoice::Hostname, address, coreos_environment: false, labels: BTreeMap::new() }
}

fn interface(name: &str) -> AddressChoice {
    AddressChoice::Interface(name.parse().expect("a name"))
}

fn network(cidr: &str) -> AddressChoice {
    AddressChoice::Network(cidr.parse().expect("a network"))
}

fn via(peer: &str, source: &str) -> PeerRoute {
    PeerRoute::Via { peer: ip(peer), source: ip(source) }
}

struct Case {
    name: &'static str,
    pin: AddressChoice,
    api: &'static str,
    links: &'static [&'static str],
    routes: &'static [&'static str],
    peer: Option<PeerRoute>,
    /// The link and address chosen, and a part of the reason; or a part of the error.
    want: Result<(&'static str, &'static str, &'static str), &'static str>,
}

/// Two cards, the default route on the first: what Vagrant gives.
const VAGRANT: &[&str] = &["eth0 up 10.0.2.15/24", "eth1 up 10.10.30.21/24"];
const NAT: &[&str] = &["eth0 via 10.0.2.2 metric 100"];

fn cases() -> Vec<Case> {
    let plain = || Case {
        name: "one link",
        pin: AddressChoice::Automatic,
        api: API,
        links: &["eth0 up 10.10.30.21/24"],
        routes: &["eth0 via 10.10.30.1"],
        peer: Some(via("10.10.30.11", "10.10.30.21")),
        want: Ok(("eth0", "10.10.30.21", "source address towards 10.10.30.11:6443")),
    };
    let unroutable = || PeerRoute::Unroutable { peer: ip("10.10.30.11"), why: "Network is unreachable".into() };
    vec![
        Case {
            name: "pinned interface, though the kernel says another",
            pin: interface("eth0"),
            links: VAGRANT,
            want: Ok(("eth0", "10.0.2.15", "pinned interface eth0")),
            ..plain()
        },
        Case {
            name: "pinned interface that is not there",
            pin: interface("eth7"),
            want: Err("interface eth7 (node.interface)"),
            ..plain()
        },
        Case {
            name: "pinned interface that is down",
            pin: interface("eth1"),
            links: &["eth0 up 10.0.2.15/24", "eth1 down 10.10.30.21/24"],
            want: Err("eth1: 10.10.30.21/24: the link is down"),
            ..plain()
        },
        Case {
            name: "pinned interface with a shared address first",
            pin: interface("eth1"),
            links: &["eth1 up 10.10.30.11/32 10.10.30.21/24"],
            want: Ok(("eth1", "10.10.30.21", "pinned interface")),
            ..plain()
        },
        Case {
            name: "a pin overrules a link's name",
            pin: interface("docker0"),
            links: &["eth0 up 10.0.2.15/24", "docker0:bridge up 172.17.0.1/16"],
            want: Ok(("docker0", "172.17.0.1", "pinned interface")),
            ..plain()
        },
        Case {
            name: "a pin does not overrule the pod network",
            pin: interface("cni0"),
            links: &["eth0 up 10.0.2.15/24", "cni0:bridge up 10.244.1.1/24"],
            want: Err("the link belongs to a CNI bridge; inside the pod network"),
            ..plain()
        },
        Case {
            name: "a pin does not overrule loopback",
            pin: interface("lo"),
            links: &["lo up 127.0.0.1/8 ::1/128"],
            want: Err("lo: 127.0.0.1/8: loopback"),
            ..plain()
        },
        Case {
            name: "pinned network",
            pin: network("10.10.0.0/16"),
            links: VAGRANT,
            routes: NAT,
            peer: Some(via("10.10.30.11", "10.0.2.15")),
            want: Ok(("eth1", "10.10.30.21", "pinned network 10.10.0.0/16")),
            ..plain()
        },
        Case {
            name: "pinned network with nothing in it",
            pin: network("192.168.0.0/16"),
            want: Err("eth0: 10.10.30.21/24: usable, but not what was wanted"),
            ..plain()
        },
        Case {
            name: "pinned to the API server's own address: the inventory gives it to this node",
            pin: network("10.10.30.11/32"),
            links: &["eth0 up 10.10.30.11/24"],
            peer: Some(via("10.10.30.11", "10.10.30.11")),
            want: Ok(("eth0", "10.10.30.11", "pinned network")),
            ..plain()
        },
        Case {
            name: "two links, the default route on the wrong one (Vagrant's NAT)",
            links: VAGRANT,
            routes: NAT,
            want: Ok(("eth1", "10.10.30.21", "source address towards 10.10.30.11:6443")),
            ..plain()
        },
        Case {
            name: "no default route, but the API server is on the link",
            routes: &[],
            want: Ok(("eth0", "10.10.30.21", "source address towards")),
            ..plain()
        },
        Case {
            name: "nothing but docker0",
            links: &["lo up 127.0.0.1/8", "docker0:bridge down 172.17.0.1/16"],
            routes: &[],
            peer: Some(unroutable()),
            want: Err("docker0: 172.17.0.1/16: the link belongs to Docker"),
            ..plain()
        },
        Case {
            name: "the address towards the API server lies in the pod network, and another link must not hide it",
            links: &["eth0 up 10.0.2.15/24", "eth1 up 10.244.3.7/24"],
            routes: NAT,
            peer: Some(via("10.10.30.11", "10.244.3.7")),
            want: Err("eth1: 10.244.3.7/24: inside the pod network 10.244.0.0/16"),
            ..plain()
        },
        Case {
            name: "an address in the service network",
            links: &["eth0 up 10.100.0.7/24"],
            peer: Some(unroutable()),
            want: Err("inside the service network 10.96.0.0/12"),
            ..plain()
        },
        Case {
            name: "the API server on 127.0.0.1: the default route decides",
            api: "https://127.0.0.1:6443",
            links: &["lo up 127.0.0.1/8", "eth0 up 10.0.2.15/24", "eth1 up 10.10.30.21/24"],
            routes: &["eth0 via 10.0.2.2 metric 200", "eth1 via 10.10.30.1 metric 100"],
            peer: Some(via("127.0.0.1", "127.0.0.1")),
            want: Ok(("eth1", "10.10.30.21", "default route via 10.10.30.1 by eth1, metric 100")),
            ..plain()
        },
        Case {
            name: "the API server's name does not resolve: wait rather than guess",
            api: "https://api.example.com:6443",
            links: VAGRANT,
            routes: NAT,
            peer: Some(PeerRoute::Unresolved { why: "Try again".into() }),
            want: Err("api.example.com:6443: the name does not resolve: Try again"),
            ..plain()
        },
        Case {
            name: "this machine holds the API server's address: its link's own address, not the default route's",
            links: &["eth0 up 10.0.2.15/24", "eth1 up 10.10.30.11/32 10.10.30.21/24"],
            routes: NAT,
            peer: Some(via("10.10.30.11", "10.10.30.11")),
            want: Ok(("eth1", "10.10.30.21", "own address beside the shared 10.10.30.11")),
            ..plain()
        },
        Case {
            name: "a shared /32 is the source, the link has an address of its own",
            links: &["eth0 up 10.10.30.100/32 10.10.30.21/24"],
            peer: Some(via("10.10.30.11", "10.10.30.100")),
            want: Ok(("eth0", "10.10.30.21", "own address beside the shared 10.10.30.100")),
            ..plain()
        },
        Case {
            name: "a cloud that gives nothing but a /32",
            links: &["eth0 up 10.128.0.2/32"],
            peer: Some(via("10.10.30.11", "10.128.0.2")),
            want: Ok(("eth0", "10.128.0.2", "source address towards")),
            ..plain()
        },
        Case {
            name: "a preferred source on the default route",
            links: &["eth0 up 10.0.2.15/24 10.0.2.77/24"],
            routes: &["eth0 via 10.0.2.2 src 10.0.2.77"],
            peer: None,
            want: Ok(("eth0", "10.0.2.77", "preferred source of the default route")),
            ..plain()
        },
        Case {
            name: "the gateway's network before the link's first address",
            links: &["eth0 up 192.168.7.7/24 10.0.2.15/24"],
            routes: &["eth0 via 10.0.2.2"],
            peer: None,
            want: Ok(("eth0", "10.0.2.15", "address of eth0 with the default route")),
            ..plain()
        },
        Case {
            name: "the lowest metric leads by a link without address: the next",
            links: &["wlan0 up 169.254.7.7/16", "eth0 up 10.0.2.15/24"],
            routes: &["wlan0 metric 10", "eth0 via 10.0.2.2 metric 600"],
            peer: Some(unroutable()),
            want: Ok(("eth0", "10.0.2.15", "metric 600")),
            ..plain()
        },
        Case {
            name: "IPv4 before IPv6, though its metric is higher",
            links: &["eth0 up 10.0.2.15/24 fd00::15/64"],
            routes: &["eth0 via fe80::1 metric 10", "eth0 via 10.0.2.2 metric 600"],
            peer: None,
            want: Ok(("eth0", "10.0.2.15", "metric 600")),
            ..plain()
        },
        Case {
            name: "IPv6 alone; tentative and deprecated ones are passed over",
            api: "https://[fd00::11]:6443",
            links: &["eth0 up fe80::1/64 fd00::13/64!tentative fd00::14/64!deprecated fd00::15/64"],
            routes: &["eth0 via fe80::1"],
            peer: Some(via("fd00::11", "fd00::14")),
            want: Ok(("eth0", "fd00::15", "address of eth0 with the default route via fe80::1")),
            ..plain()
        },
        Case {
            name: "no link has an address yet",
            links: &["lo up 127.0.0.1/8", "eth0 up", "eth1 down"],
            routes: &[],
            peer: Some(unroutable()),
            want: Err("eth0: no address (up)"),
            ..plain()
        },
        Case {
            name: "no link has an address yet: the route is named too",
            links: &["eth0 up"],
            routes: &[],
            peer: Some(unroutable()),
            want: Err("10.10.30.11:6443: no route to 10.10.30.11: Network is unreachable"),
            ..plain()
        },
    ]
}

fn facts_of(case: &Case) -> (ClusterSettings, Facts) {
    let cluster = cluster(case.api);
    let (host, port) = cluster.api_server.host_port();
    let mut facts = Facts::sample();
    facts.links = (1..).zip(case.links).map(|(index, text)| link(index, text)).collect();
    facts.default_routes = case.routes.iter().map(|text| route(text)).collect();
    facts.routes =
        case.peer.iter().map(|found| (Facts::peer_key(&host, port), found.clone())).collect::<BTreeMap<_, _>>();
    (cluster, facts)
}

#[test]
fn network_shapes() {
    for case in cases() {
        let (cluster, facts) = facts_of(&case);
        let name = case.name;
        let got = choose(&node(case.pin.clone()), &cluster, &facts, None);
        match (case.want, got) {
            (Ok((link, address, why)), Ok(identity)) => {
                assert_eq!((identity.link.as_str(), identity.address), (link, ip(address)), "{name}: {}", identity.why);
                assert!(identity.why.contains(why), "{name}: {:?} should say {why:?}", identity.why);
                let all: usize = facts.links.iter().map(|link| link.addresses.len()).sum();
                assert_eq!(identity.rejected.len() + 1, all, "{name}: every other address is recorded");
            }
            (Err(part), Err(error)) => {
                let fault = Fault::from(error);
                let text = fault.to_string();
                assert!(text.contains(part), "{name}: {text:?} should say {part:?}");
                assert_eq!(fault.class, Class::Failed, "{name}");
                for link in &facts.links {
                    assert!(text.contains(&format!("\n  {}: ", link.name)), "{name}: {} is not in {text}", link.name);
                }
                let advice = fault.advice.unwrap_or_default();
                assert!(advice.contains("node.interface") && advice.contains("node.cidr"), "{name}: {advice}");
            }
            (want, got) => panic!("{name}: wanted {want:?}, got {got:?}"),
        }
    }
}

#[test]
fn names() {
    let table = [
        ("worker-01", Ok("worker-01")),
        ("Upper.Case", Ok("upper.case")),
        ("localhost", Err("set node.name or the hostname")),
        ("LOCALHOST.localdomain", Err("set node.name or the hostname")),
        ("", Err("it is empty")),
        ("(none)", Err("RFC 1123")),
        ("a_b", Err("RFC 1123")),
    ];
    for (hostname, want) in table {
        let facts = Facts { hostname: hostname.into(), ..Facts::sample() };
        let got = choose(&node(AddressChoice::Automatic), &cluster(API), &facts, None);
        match (want, got) {
            (Ok(name), Ok(identity)) => assert_eq!(identity.name.as_str(), name, "{hostname:?}"),
            (Err(part), Err(error)) => {
                let fault = Fault::from(error);
                assert!(fault.to_string().contains(part), "{hostname:?}: {fault}");
                assert!(fault.advice.is_some_and(|advice| advice.contains("node.name")), "{hostname:?}");
            }
            (want, got) => panic!("{hostname:?}: wanted {want:?}, got {got:?}"),
        }
    }
    let pinned =
        NodeSettings { name: NameChoice::Pinned("core-01".parse().expect("a name")), ..node(AddressChoice::Automatic) };
    let facts = Facts { hostname: "localhost".into(), ..Facts::sample() };
    let identity = choose(&pinned, &cluster(API), &facts, None).expect("a pinned name needs no hostname");
    assert_eq!(identity.name.as_str(), "core-01");
}

#[test]
fn the_api_server_is_the_first_peer() {
    let mut several = cluster("https://[fd00::1]:6443");
    several.peers.insert("core-02".parse().expect("a name"), "https://10.10.30.12:2379".parse().expect("a URL"));
    assert_eq!(peers(&several), [("fd00::1".to_owned(), 6443), ("10.10.30.12".to_owned(), 2379)]);
    assert_eq!(peers(&cluster("https://api")), [("api".to_owned(), 443)]);
}

#[test]
fn ipv6_of_the_same_link_is_named_beside() {
    let mut facts = Facts::sample();
    facts.links[1] = link(2, "eth0 up 10.10.30.21/24 fe80::1/64 fd00::20/64!tentative fd00::21/64");
    let identity = choose(&node(AddressChoice::Automatic), &cluster(API), &facts, None).expect("an identity");
    assert_eq!(identity.ipv6, Some(ip("fd00::21")));
}

/// The API server is this machine itself, and core-02 is the other controller.
fn controller(api: &str, links: &[&str], routes: &[(&str, PeerRoute)]) -> Result<Identity, NoIdentity> {
    let mut cluster = cluster(api);
    cluster.peers.insert("core-02".parse().expect("a name"), "https://10.10.30.12:2379".parse().expect("a URL"));
    let mut facts = Facts::sample();
    facts.links = (1..).zip(links).map(|(index, text)| link(index, text)).collect();
    facts.default_routes = NAT.iter().map(|text| route(text)).collect();
    facts.routes = routes.iter().map(|(key, found)| ((*key).to_owned(), found.clone())).collect();
    choose(&node(AddressChoice::Automatic), &cluster, &facts, None)
}

#[test]
fn where_the_api_server_is_this_machine_the_other_peers_tell() {
    let other = ("10.10.30.12:2379", via("10.10.30.12", "10.10.30.21"));
    let table: [(&str, &str, &[&str], PeerRoute); 3] = [
        ("on 127.0.0.1", "https://127.0.0.1:6443", VAGRANT, via("127.0.0.1", "127.0.0.1")),
        (
            "a virtual address that it holds now",
            API,
            &["eth0 up 10.0.2.15/24", "eth1 up 10.10.30.11/32 10.10.30.21/24"],
            via("10.10.30.11", "10.10.30.11"),
        ),
        (
            "a virtual address on a link of its own",
            API,
            &["eth0 up 10.0.2.15/24", "eth1 up 10.10.30.21/24", "eth2 up 10.10.30.11/32"],
            via("10.10.30.11", "10.10.30.11"),
        ),
    ];
    for (name, api, links, api_route) in table {
        let key = if api == API { "10.10.30.11:6443" } else { "127.0.0.1:6443" };
        let found =
            controller(api, links, &[(key, api_route), other.clone()]).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!((found.address, found.link.as_str()), (ip("10.10.30.21"), "eth1"), "{name}: {}", found.why);
        assert_eq!(found.why, "source address towards 10.10.30.12:2379", "{name}");
    }
}

#[test]
fn the_api_servers_own_address_is_not_passed_over_for_a_worse_one() {
    // The only controller: its one address in the cluster's network is the API server's.
    let links = ["eth0 up 10.0.2.15/24", "eth1 up 10.10.30.11/24"];
    let silent = PeerRoute::Unroutable { peer: ip("10.10.30.12"), why: "Network is unreachable".into() };
    let routes = [("10.10.30.11:6443", via("10.10.30.11", "10.10.30.11")), ("10.10.30.12:2379", silent)];
    let error = controller(API, &links, &routes).expect_err("eth0 leads nowhere near").to_string();
    assert!(error.contains("say so with node.cidr: 10.10.30.11/32"), "{error}");
}

#[test]
fn a_name_that_never_resolves_leaves_the_last_boots_address() {
    let unresolved = PeerRoute::Unresolved { why: "Try again".into() };
    let case = Case { api: "https://api.example.com:6443", peer: Some(unresolved), ..cases().remove(0) };
    let (cluster, facts) = facts_of(&Case { links: VAGRANT, routes: NAT, ..case });
    let node = node(AddressChoice::Automatic);
    let with = |last: Option<&str>| choose(&node, &cluster, &facts, last.map(ip));
    let kept = with(Some("10.10.30.21")).expect("it is still there");
    assert_eq!((kept.address, kept.link.as_str()), (ip("10.10.30.21"), "eth1"));
    assert!(kept.why.contains("last boot"), "{}", kept.why);
    for gone in [None, Some("10.10.30.22")] {
        let error = with(gone).expect_err("nothing tells").to_string();
        assert!(error.contains("does not resolve"), "{gone:?}: {error}");
    }
}

#[test]
fn an_address_in_the_clusters_own_network_is_named_with_that_network() {
    let case = cases().into_iter().find(|case| case.name.contains("must not hide it")).expect("the case");
    let (cluster, facts) = facts_of(&case);
    // Not even the address of the last boot hides it.
    let last = Some(ip("10.0.2.15"));
    let Err(NoIdentity::Address { inside: Some((address, reason)), .. }) =
        choose(&node(AddressChoice::Automatic), &cluster, &facts, last)
    else {
        panic!("the overlap is not said")
    };
    assert_eq!((address, reason.to_string().as_str()), (ip("10.244.3.7"), "inside the pod network 10.244.0.0/16"));
}

#[test]
fn the_inventory_says_which_address_is_a_nodes_own() {
    let case = cases().remove(0);
    let (mut cluster, facts) = facts_of(&Case { links: VAGRANT, routes: NAT, ..case });
    let mut choose_as = |role, address: &str| {
        let entry = NodeEntry { role, address: ip(address), pod_cidr: None, names: Vec::new() };
        cluster.nodes.insert(facts.hostname.parse().expect("a name"), entry);
        choose(&node(AddressChoice::Automatic), &cluster, &facts, None)
    };
    for role in [Role::Worker, Role::Controller, Role::Etcd, Role::Edge] {
        let here = choose_as(role, "10.0.2.15").expect("it is there");
        assert_eq!(here.address, ip("10.0.2.15"), "{role}: before any route");
        assert!(here.why.contains("inventory"), "{role}: {}", here.why);
    }
    for role in [Role::Worker, Role::Edge] {
        assert_eq!(choose_as(role, "10.10.30.99").expect("it moved").address, ip("10.10.30.21"), "{role}");
    }
    for role in [Role::Controller, Role::Etcd] {
        let error = choose_as(role, "10.10.30.99").expect_err("all others look for it there").to_string();
        assert!(error.contains("any link that has 10.10.30.99 (cluster.nodes)"), "{role}: {error}");
    }
}

#[test]
fn without_a_configuration_the_default_route_decides_or_there_is_but_one() {
    type Row<'a> = (&'a str, &'a [&'a str], &'a [&'a str], Option<&'a str>);
    let table: [Row<'_>; 5] = [
        ("the default route", VAGRANT, NAT, Some("10.0.2.15")),
        (
            "one address and no default route",
            &["lo up 127.0.0.1/8", "eth1 up 10.10.30.21/24"],
            &[],
            Some("10.10.30.21"),
        ),
        ("several and no default route", VAGRANT, &[], None),
        ("one IPv6 address", &["eth0 up fe80::1/64 fd00::15/64"], &[], Some("fd00::15")),
        ("no network is known to be the pods'", &["eth0 up 10.244.3.7/24"], &[], Some("10.244.3.7")),
    ];
    for (name, links, routes, want) in table {
        let mut facts = Facts::sample();
        facts.links = (1..).zip(links).map(|(index, text)| link(index, text)).collect();
        facts.default_routes = routes.iter().map(|text| route(text)).collect();
        let got = place(&AddressChoice::Automatic, None, &facts, None).map(|place| place.address);
        assert_eq!(got.ok(), want.map(ip), "{name}");
    }
}
