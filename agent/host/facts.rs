//! Facts: what planners branch on, gathered once and read-only.
//!
//! Plain data that can be written to a file and read back (`--facts FILE`), so that a plan for another machine, or a
//! golden test, needs nothing of the machine that it runs on. Gathering lives in [`super::gather`].

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What is true of the machine and cannot be changed by a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Facts {
    /// The machine's architecture in Kubernetes' words: `amd64`, `arm64`, `arm`.
    pub architecture: String,
    /// The kernel's release, as `uname -r` prints it.
    pub kernel: String,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// The hostname as the kernel has it.
    pub hostname: String,
    /// How control groups are mounted.
    pub cgroups: Cgroups,
    /// Network links in the order of the kernel's index.
    pub links: Vec<Link>,
    /// IPv4 and IPv6 default routes.
    pub default_routes: Vec<DefaultRoute>,
    /// By [`Facts::peer_key`] of each peer that Settings name: how the kernel would reach it.
    pub routes: BTreeMap<String, PeerRoute>,
}

/// The layout of control groups (cgroups(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cgroups {
    /// One hierarchy at `/sys/fs/cgroup`.
    Unified,
    /// Version 1 controllers beside an empty version 2 hierarchy.
    Hybrid,
    /// Version 1 only.
    Legacy,
    /// Nothing is mounted there.
    None,
}

/// One network link and its addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Link {
    /// The kernel's index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether it is administratively up and has a carrier.
    pub up: bool,
    /// Whether it is the loopback link.
    pub loopback: bool,
    /// What kind of software link the kernel says it is (`bridge`, `veth`, `vxlan` …); empty for hardware.
    pub kind: String,
    /// Largest packet, in bytes.
    pub mtu: u32,
    /// Hardware address as `aa:bb:cc:dd:ee:ff`; empty when it has none.
    pub mac: String,
    /// Its addresses in the kernel's order.
    pub addresses: Vec<Address>,
}

/// One address of a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// The length of its network prefix.
    pub prefix: u8,
    /// What makes it unfit for now, if anything does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flaw: Option<Flaw>,
}

impl Address {
    /// An address that the kernel has no reserve about.
    pub fn new(ip: IpAddr, prefix: u8) -> Self {
        Self { ip, prefix, flaw: None }
    }
}

/// The kernel's reserve about an address (`IFA_F_*`, rtnetlink(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flaw {
    /// Duplicate address detection has not finished.
    Tentative,
    /// Another machine has it.
    Duplicate,
    /// It may not be used for new connections: its lease runs out, or it is a virtual address of keepalived's.
    Deprecated,
    /// An IPv6 privacy address, which is replaced every day.
    Temporary,
}

/// A default route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DefaultRoute {
    /// Whether it is for IPv6. The gateway does not tell: it may be missing, or of the other family (RFC 5549).
    #[serde(default)]
    pub ipv6: bool,
    /// The link that it leaves by.
    pub link: String,
    /// Its next hop, when it has one.
    pub gateway: Option<IpAddr>,
    /// Its metric: the lowest wins.
    pub metric: u32,
    /// The source address that the route itself prefers (`src`, `RTA_PREFSRC`); most routes name none.
    pub source: Option<IpAddr>,
}

/// How the kernel would reach a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "result")]
pub enum PeerRoute {
    /// From this source address of ours.
    #[serde(rename_all = "camelCase")]
    Via {
        /// The peer's address that was asked about.
        peer: IpAddr,
        /// The source address that the kernel would use.
        source: IpAddr,
    },
    /// The name did not resolve.
    Unresolved {
        /// The resolver's reason.
        why: String,
    },
    /// There is no route to it.
    Unroutable {
        /// The peer's address that was asked about.
        peer: IpAddr,
        /// The kernel's reason.
        why: String,
    },
}

impl Facts {
    /// The key of a peer in [`Facts::routes`]: `host:port`, an IPv6 address in brackets.
    pub fn peer_key(host: &str, port: u16) -> String {
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// A plain machine with one wired link, for tests.
    pub fn sample() -> Self {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
        Self {
            architecture: "amd64".into(),
            kernel: "6.1.0-40-amd64".into(),
            memory_bytes: 4 << 30,
            hostname: "worker-01".into(),
            cgroups: Cgroups::Unified,
            links: vec![
                Link {
                    index: 1,
                    name: "lo".into(),
                    up: true,
                    loopback: true,
                    kind: String::new(),
                    mtu: 65536,
                    mac: String::new(),
                    addresses: vec![Address::new(ip("127.0.0.1"), 8)],
                },
                Link {
                    index: 2,
                    name: "eth0".into(),
                    up: true,
                    loopback: false,
                    kind: String::new(),
                    mtu: 1500,
                    mac: "52:54:00:00:00:15".into(),
                    addresses: vec![Address::new(ip("10.10.30.21"), 24)],
                },
            ],
            default_routes: vec![DefaultRoute {
                ipv6: false,
                link: "eth0".into(),
                gateway: Some(ip("10.10.30.1")),
                metric: 0,
                source: Some(ip("10.10.30.21")),
            }],
            routes: BTreeMap::from([(
                "10.10.30.11:6443".into(),
                PeerRoute::Via { peer: ip("10.10.30.11"), source: ip("10.10.30.21") },
            )]),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address() -> impl Strategy<Value = Address> {
        let flaw = prop::sample::select(vec![Flaw::Tentative, Flaw::Duplicate, Flaw::Deprecated, Flaw::Temporary]);
        (any::<(IpAddr, u8)>(), prop::option::of(flaw)).prop_map(|((ip, prefix), flaw)| Address { ip, prefix, flaw })
    }

    fn link() -> impl Strategy<Value = Link> {
        let texts = any::<(String, String, String)>();
        let numbers = any::<(u32, u32, bool, bool)>();
        (texts, numbers, prop::collection::vec(address(), 0..3)).prop_map(
            |((name, kind, mac), (index, mtu, up, loopback), addresses)| Link {
                index,
                name,
                up,
                loopback,
                kind,
                mtu,
                mac,
                addresses,
            },
        )
    }

    fn peer_route() -> impl Strategy<Value = PeerRoute> {
        prop_oneof![
            any::<(IpAddr, IpAddr)>().prop_map(|(peer, source)| PeerRoute::Via { peer, source }),
            any::<String>().prop_map(|why| PeerRoute::Unresolved { why }),
            any::<(IpAddr, String)>().prop_map(|(peer, why)| PeerRoute::Unroutable { peer, why }),
        ]
    }

    fn default_route() -> impl Strategy<Value = DefaultRoute> {
        any::<(bool, String, Option<IpAddr>, u32, Option<IpAddr>)>()
            .prop_map(|(ipv6, link, gateway, metric, source)| DefaultRoute { ipv6, link, gateway, metric, source })
    }

    proptest! {
        #[test]
        fn facts_read_back(
            (architecture, kernel, hostname, memory_bytes) in any::<(String, String, String, u64)>(),
            cgroups in prop::sample::select(vec![Cgroups::Unified, Cgroups::Hybrid, Cgroups::Legacy, Cgroups::None]),
            links in prop::collection::vec(link(), 0..3),
            default_routes in prop::collection::vec(default_route(), 0..3),
            routes in prop::collection::btree_map(any::<String>(), peer_route(), 0..3),
        ) {
            let facts = Facts { architecture, kernel, memory_bytes, hostname, cgroups, links, default_routes, routes };
            let json = serde_json::to_string(&facts).expect("JSON");
            prop_assert_eq!(serde_json::from_str::<Facts>(&json).map_err(|e| TestCaseError::fail(e.to_string()))?, facts);
        }
    }
}
