//! Links, addresses and routes as the kernel itself tells them (rtnetlink(7)): what `ip` shows, without running it.
//!
//! Three dumps and some twenty attributes are all that is needed, so they are read here over `nix`'s netlink socket.
//! The crates for it were weighed: `netlink-packet-route` decodes every message there is (31 000 lines, a breaking
//! release most months) and refuses messages whose shape a newer kernel changed; `rtnetlink` adds an async stack. Here
//! an unknown attribute is skipped, which is what the protocol asks of readers.
//!
//! Parsing is apart from the socket and works on bytes, so that recorded answers can be replayed in tests.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::host::facts::{Address, DefaultRoute, Flaw, Link};

/// The kernel could not be asked, or its answer not be read.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// A system call or the kernel refused.
    #[error("ask the kernel for its {what} over netlink")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// The kernel's reason.
        #[source]
        why: Errno,
    },
    /// The answer is cut short.
    #[error("read the kernel's {what} over netlink: a message of {length} bytes is cut short")]
    Short {
        /// What was asked for.
        what: &'static str,
        /// The size of what there is.
        length: usize,
    },
    /// The tables changed during each attempt to read them.
    #[error("read the kernel's {what} over netlink: they changed during each of {tries} attempts")]
    Restless {
        /// What was asked for.
        what: &'static str,
        /// How often it was tried.
        tries: u32,
    },
}

/// What the kernel says of the network.
pub struct Network {
    /// All links, by index, each with its addresses.
    pub links: Vec<Link>,
    /// The main table's default routes.
    pub default_routes: Vec<DefaultRoute>,
}

/// Asks the running kernel.
pub fn ask() -> Result<Network, NetlinkError> {
    let links = dump(&LINKS)?;
    let addresses = dump(&ADDRESSES)?;
    let routes = dump(&ROUTES)?;
    Ok(read(&links, &addresses, &routes))
}

/// The links of the next hops towards a machine, in the order of the route, where it has several and prefers no source:
/// then the kernel's own choice among them is by a hash that differs from boot to boot.
pub fn hops_towards(peer: IpAddr) -> Result<Vec<u32>, NetlinkError> {
    /// The route itself, not what was made of it for one packet (`RTM_F_FIB_MATCH`).
    const FIB_MATCH: u32 = 0x2000;
    const RTA_DST: u16 = 1;
    let (family, octets) = match peer {
        IpAddr::V4(v4) => (INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (INET6, v6.octets().to_vec()),
    };
    let length = u8::try_from(octets.len() * 8).unwrap_or(u8::MAX);
    let mut body = vec![family, length, 0, 0, 0, 0, 0, 0];
    body.extend(FIB_MATCH.to_ne_bytes());
    body.extend(u16::try_from(4 + octets.len()).unwrap_or(u16::MAX).to_ne_bytes());
    body.extend(RTA_DST.to_ne_bytes());
    body.extend(octets);
    let one = Dump { what: "route", request: ROUTES.request, answer: ROUTES.answer, body: &body };
    let answers = exchange(&one, NLM_F_REQUEST)?.unwrap_or_default();
    Ok(answers.first().map(|route| several_hops(route)).unwrap_or_default())
}

/// All routes of the kernel, each as an `rtmsg` with its attributes.
pub(in crate::host) fn routes() -> Result<Vec<Vec<u8>>, NetlinkError> {
    dump(&ROUTES)
}

/// What three recorded answers say: those to the requests for links, for addresses and for routes, each as the bytes
/// that the kernel sent.
pub fn replay(links: &[u8], addresses: &[u8], routes: &[u8]) -> Result<Network, NetlinkError> {
    let bodies = |dump: &Dump<'_>, answer: &[u8]| {
        let mut bodies = Vec::new();
        collect(dump, answer, &mut bodies).map(|_| bodies)
    };
    Ok(read(&bodies(&LINKS, links)?, &bodies(&ADDRESSES, addresses)?, &bodies(&ROUTES, routes)?))
}

/// Puts three answers together. An address or route whose link is gone by then is left out.
fn read(links: &[Vec<u8>], addresses: &[Vec<u8>], routes: &[Vec<u8>]) -> Network {
    let mut by_index: BTreeMap<u32, Link> =
        links.iter().filter_map(|body| link(body)).map(|link| (link.index, link)).collect();
    for (index, address) in addresses.iter().filter_map(|body| address(body)) {
        if let Some(link) = by_index.get_mut(&index) {
            link.addresses.push(address);
        }
    }
    let default_routes = routes
        .iter()
        .flat_map(|body| default_routes(body))
        .filter_map(|hop| {
            let link = by_index.get(&hop.link)?.name.clone();
            Some(DefaultRoute { ipv6: hop.ipv6, link, gateway: hop.gateway, metric: hop.metric, source: hop.source })
        })
        .collect();
    Network { links: by_index.into_values().collect(), default_routes }
}

// Message framing (netlink(7), linux/netlink.h).
pub(in crate::host) const HEADER: usize = 16;
pub(in crate::host) const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
pub(in crate::host) const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// The kernel fills at most 32 KiB per read of a dump (`netlink_dump`).
const BUFFER: usize = 64 * 1024;
/// A dump that was interrupted by a change is asked for again this often.
const TRIES: u32 = 5;
/// How long the kernel may take for one read.
pub(in crate::host) const PATIENCE: TimeVal = TimeVal::new(5, 0);

/// A dump: what it is called in errors, its request, the type of its answers, and the request's fixed part.
struct Dump<'a> {
    what: &'static str,
    request: u16,
    answer: u16,
    body: &'a [u8],
}

/// `RTM_GETLINK` with an `ifinfomsg`, and `IFLA_EXT_MASK` = `RTEXT_FILTER_SKIP_STATS` (8 bytes, type 29, in this
/// machine's byte order: every target of ours is little-endian).
const LINKS: Dump<'_> = Dump {
    what: "links",
    request: 18,
    answer: 16,
    body: &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 29, 0, 8, 0, 0, 0],
};
/// `RTM_GETADDR` with an `ifaddrmsg`.
const ADDRESSES: Dump<'_> = Dump { what: "addresses", request: 22, answer: 20, body: &[0; 8] };
/// `RTM_GETROUTE` with an `rtmsg`.
const ROUTES: Dump<'_> = Dump { what: "routes", request: 26, answer: 24, body: &[0; 12] };

fn dump(dump: &Dump<'_>) -> Result<Vec<Vec<u8>>, NetlinkError> {
    for _ in 0..TRIES {
        if let Some(bodies) = exchange(dump, NLM_F_REQUEST | NLM_F_DUMP)? {
            return Ok(bodies);
        }
    }
    Err(NetlinkError::Restless { what: dump.what, tries: TRIES })
}

/// The bodies of the answers; nothing if the table changed meanwhile.
fn exchange(dump: &Dump<'_>, flags: u16) -> Result<Option<Vec<Vec<u8>>>, NetlinkError> {
    let refused = |why| NetlinkError::Refused { what: dump.what, why };
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)
        .map_err(refused)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &PATIENCE).map_err(refused)?;

    let length = u32::try_from(HEADER + dump.body.len()).unwrap_or(u32::MAX);
    let mut request = Vec::with_capacity(HEADER + dump.body.len());
    request.extend(length.to_ne_bytes());
    request.extend(dump.request.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    request.extend([0; 8]);
    request.extend(dump.body);
    sendto(socket.as_raw_fd(), &request, &NetlinkAddr::new(0, 0), MsgFlags::empty()).map_err(refused)?;

    let mut bodies = Vec::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        // MSG_TRUNC: the datagram's whole length, even if the buffer were too small for it.
        let got = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC) {
            Err(Errno::EINTR) => continue,
            other => other.map_err(refused)?,
        };
        let datagram = buffer.get(..got).ok_or(NetlinkError::Short { what: dump.what, length: got })?;
        match collect(dump, datagram, &mut bodies)? {
            // What is no dump has one answer, and nothing at its end.
            Progress::More if flags & NLM_F_DUMP == 0 => return Ok(Some(bodies)),
            Progress::More => {}
            Progress::Done => return Ok(Some(bodies)),
            Progress::Interrupted => return Ok(None),
        }
    }
}

/// How far a dump is behind a datagram.
enum Progress {
    More,
    Done,
    /// The table changed meanwhile.
    Interrupted,
}

/// Adds the bodies of the answers in a datagram.
fn collect(dump: &Dump<'_>, datagram: &[u8], bodies: &mut Vec<Vec<u8>>) -> Result<Progress, NetlinkError> {
    let mut rest = datagram;
    while !rest.is_empty() {
        let short = NetlinkError::Short { what: dump.what, length: rest.len() };
        let (message, after) = split_message(rest).ok_or(short)?;
        rest = after;
        if message.flags & NLM_F_DUMP_INTR != 0 {
            return Ok(Progress::Interrupted);
        }
        match message.kind {
            NLMSG_DONE => return Ok(Progress::Done),
            NLMSG_ERROR => {
                let code = u32_at(message.body, 0).map_or(0, u32::cast_signed);
                return Err(NetlinkError::Refused { what: dump.what, why: Errno::from_raw(code.wrapping_neg()) });
            }
            kind if kind == dump.answer => bodies.push(message.body.to_vec()),
            _ => {}
        }
    }
    Ok(Progress::More)
}

struct Message<'a> {
    kind: u16,
    flags: u16,
    body: &'a [u8],
}

fn split_message(bytes: &[u8]) -> Option<(Message<'_>, &[u8])> {
    let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
    let body = bytes.get(HEADER..length)?;
    let message = Message { kind: u16_at(bytes, 4)?, flags: u16_at(bytes, 6)?, body };
    Some((message, bytes.get(aligned(length)..).unwrap_or_default()))
}

/// The attributes in `bytes`: type and value. Stops at the first that is cut short.
pub(in crate::host) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    /// `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER` are not part of the type.
    const TYPE: u16 = 0x3fff;
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & TYPE;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

pub(in crate::host) fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// An `RTM_NEWLINK` message: `ifinfomsg` and `IFLA_*` (`linux/if_link.h`).
fn link(body: &[u8]) -> Option<Link> {
    const IFF_UP: u32 = 0x1;
    const IFF_LOOPBACK: u32 = 0x8;
    // Operational as RFC 2863 has it: with a carrier, or of a kind that knows none (tun, dummy).
    const IFF_RUNNING: u32 = 0x40;
    let flags = u32_at(body, 8)?;
    let mut link = Link {
        index: u32_at(body, 4)?,
        name: String::new(),
        up: flags & (IFF_UP | IFF_RUNNING) == IFF_UP | IFF_RUNNING,
        loopback: flags & IFF_LOOPBACK != 0,
        kind: String::new(),
        mtu: 0,
        mac: String::new(),
        addresses: Vec::new(),
    };
    for (kind, value) in attributes(body.get(16..)?) {
        match kind {
            1 => link.mac = hardware_address(value),
            3 => link.name = text(value),
            4 => link.mtu = u32_at(value, 0).unwrap_or_default(),
            // IFLA_LINKINFO holds IFLA_INFO_KIND.
            18 => link.kind = attributes(value).find(|(kind, _)| *kind == 1).map(|(_, v)| text(v)).unwrap_or_default(),
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

/// Ethernet's six bytes or `InfiniBand`'s twenty. What tunnels have there is an IP address, and loopback has zeros.
fn hardware_address(bytes: &[u8]) -> String {
    if !matches!(bytes.len(), 6 | 20) || bytes.iter().all(|byte| *byte == 0) {
        return String::new();
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// An `RTM_NEWADDR` message: `ifaddrmsg` and `IFA_*` (`linux/if_addr.h`).
fn address(body: &[u8]) -> Option<(u32, Address)> {
    let family = *body.first()?;
    let prefix = *body.get(1)?;
    let index = u32_at(body, 4)?;
    let mut flags = u32::from(*body.get(2)?);
    let (mut ours, mut peers) = (None, None);
    for (kind, value) in attributes(body.get(8..)?) {
        match kind {
            // On a point-to-point link IFA_ADDRESS is the other end's.
            1 => peers = ip(family, value),
            2 => ours = ip(family, value),
            8 => flags = u32_at(value, 0).unwrap_or(flags),
            _ => {}
        }
    }
    let ip = ours.or(peers)?;
    Some((index, Address { ip, prefix, flaw: flaw(ip, flags) }))
}

fn flaw(ip: IpAddr, flags: u32) -> Option<Flaw> {
    // The same bit means "secondary" for IPv4, which is no flaw.
    const IFA_F_TEMPORARY: u32 = 0x01;
    const IFA_F_OPTIMISTIC: u32 = 0x04;
    const IFA_F_DADFAILED: u32 = 0x08;
    const IFA_F_DEPRECATED: u32 = 0x20;
    const IFA_F_TENTATIVE: u32 = 0x40;
    let has = |bit| flags & bit != 0;
    if has(IFA_F_DADFAILED) {
        Some(Flaw::Duplicate)
    } else if has(IFA_F_TENTATIVE) && !has(IFA_F_OPTIMISTIC) {
        Some(Flaw::Tentative)
    } else if has(IFA_F_DEPRECATED) {
        Some(Flaw::Deprecated)
    } else if has(IFA_F_TEMPORARY) && ip.is_ipv6() {
        Some(Flaw::Temporary)
    } else {
        None
    }
}

/// One way out: a route's only next hop, or one of several.
struct Hop {
    ipv6: bool,
    link: u32,
    gateway: Option<IpAddr>,
    metric: u32,
    source: Option<IpAddr>,
}

/// An `RTM_NEWROUTE` message, `rtmsg` and `RTA_*` (`linux/rtnetlink.h`): the hops of a unicast default route of the main
/// table, none of anything else.
fn default_routes(body: &[u8]) -> Vec<Hop> {
    read_default_route(body).unwrap_or_default()
}

fn read_default_route(body: &[u8]) -> Option<Vec<Hop>> {
    const RT_TABLE_MAIN: u32 = 254;
    const RTN_UNICAST: u8 = 1;
    const RTM_F_CLONED: u32 = 0x200;
    let family = *body.first()?;
    let (to_length, from_length) = (*body.get(1)?, *body.get(2)?);
    let mut table = u32::from(*body.get(4)?);
    if to_length != 0 || from_length != 0 || *body.get(7)? != RTN_UNICAST || u32_at(body, 8)? & RTM_F_CLONED != 0 {
        return None;
    }
    let (mut link, mut gateway, mut metric, mut source, mut several) = (None, None, 0, None, None);
    for (kind, value) in attributes(body.get(12..)?) {
        match kind {
            4 => link = u32_at(value, 0),
            5 => gateway = ip(family, value),
            6 => metric = u32_at(value, 0)?,
            7 => source = ip(family, value),
            9 => several = Some(value),
            15 => table = u32_at(value, 0)?,
            18 => gateway = via(value),
            _ => {}
        }
    }
    if table != RT_TABLE_MAIN || !matches!(family, INET | INET6) {
        return None;
    }
    let ipv6 = family == INET6;
    let Some(several) = several else {
        return Some(vec![Hop { ipv6, link: link?, gateway, metric, source }]);
    };
    let hop = |(link, attributes_of_hop)| {
        let gateway = attributes(attributes_of_hop).find_map(|(kind, value)| match kind {
            5 => ip(family, value),
            18 => via(value),
            _ => None,
        });
        Hop { ipv6, link, gateway, metric, source }
    };
    Some(next_hops(several).map(hop).collect())
}

/// The link's index and the attributes of each `rtnexthop`: 8 bytes, its length first and the index last, then attributes.
fn next_hops(mut rest: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let hop = rest.get(..length).filter(|hop| hop.len() >= 8)?;
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some((u32_at(hop, 4)?, &hop[8..]))
    })
}

/// The links of a route's hops, if it has several and prefers no source address (`RTA_PREFSRC`).
fn several_hops(route: &[u8]) -> Vec<u32> {
    let all = || attributes(route.get(12..).unwrap_or_default());
    if all().any(|(kind, _)| kind == 7) {
        return Vec::new();
    }
    let hops = all().find(|(kind, _)| *kind == 9).map(|(_, hops)| next_hops(hops).map(|(link, _)| link).collect());
    hops.unwrap_or_default()
}

/// `RTA_VIA`: a gateway of the other family, its family first.
fn via(value: &[u8]) -> Option<IpAddr> {
    ip(u8::try_from(u16_at(value, 0)?).ok()?, value.get(2..)?)
}

pub(in crate::host) const INET: u8 = 2;
pub(in crate::host) const INET6: u8 = 10;

pub(in crate::host) fn ip(family: u8, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        INET => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        INET6 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(in crate::host) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = u16::try_from(4 + value.len()).expect("short").to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(aligned(bytes.len()), 0);
        bytes
    }

    fn new_link(index: u32, flags: u32, name: &str, kind: &str) -> Vec<u8> {
        let mut body = vec![0; 4];
        body.extend(index.to_ne_bytes());
        body.extend(flags.to_ne_bytes());
        body.extend([0; 4]);
        body.extend(attribute(3, format!("{name}\0").as_bytes()));
        body.extend(attribute(0x7fff, b"from a newer kernel"));
        body.extend(attribute(1, &[0x52, 0x54, 0, 0, 0, 0x15]));
        body.extend(attribute(4, &1450_u32.to_ne_bytes()));
        if !kind.is_empty() {
            body.extend(attribute(0x8012, &attribute(1, format!("{kind}\0").as_bytes())));
        }
        body
    }

    fn new_address(index: u32, prefix: u8, flags: u32, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let family = if attributes[0].1.len() == 4 { INET } else { INET6 };
        let mut body = vec![family, prefix, 0, 0];
        body.extend(index.to_ne_bytes());
        for (kind, value) in attributes {
            body.extend(attribute(*kind, value));
        }
        body.extend(attribute(8, &flags.to_ne_bytes()));
        body
    }

    fn new_route(to_length: u8, table: u8, kind: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = vec![INET, to_length, 0, 0, table, 0, 0, kind, 0, 0, 0, 0];
        for (kind, value) in attributes {
            body.extend(attribute(*kind, value));
        }
        body
    }

    #[test]
    fn a_link_has_its_kind_and_carrier() {
        let up = link(&new_link(7, 0x1 | 0x40, "flannel.1", "vxlan")).expect("a link");
        assert_eq!(
            (up.index, up.name.as_str(), up.kind.as_str(), up.mtu, up.mac.as_str(), up.up, up.loopback),
            (7, "flannel.1", "vxlan", 1450, "52:54:00:00:00:15", true, false)
        );
        let no_carrier = link(&new_link(8, 0x1, "eth1", "")).expect("a link");
        assert!(!no_carrier.up, "up without a carrier counts as down");
    }

    #[test]
    fn the_local_end_of_a_point_to_point_link_is_ours() {
        let (index, found) = address(&new_address(3, 32, 0, &[(1, &[10, 8, 0, 1]), (2, &[10, 8, 0, 6])])).expect("one");
        assert_eq!((index, found), (3, Address::new("10.8.0.6".parse().expect("an address"), 32)));
    }

    #[test]
    fn flaws_by_flag() {
        let v6 = [0xfd; 16];
        let table: &[(u32, &[u8], Option<Flaw>)] = &[
            (0x80, &v6, None),
            (0x01, &[10, 0, 0, 1], None),
            (0x01, &v6, Some(Flaw::Temporary)),
            (0x40, &v6, Some(Flaw::Tentative)),
            (0x44, &v6, None),
            (0x48, &v6, Some(Flaw::Duplicate)),
            (0x20, &[10, 0, 0, 1], Some(Flaw::Deprecated)),
        ];
        for (flags, ip, want) in table {
            let (_, found) = address(&new_address(2, 24, *flags, &[(1, ip)])).expect("an address");
            assert_eq!(found.flaw, *want, "flags {flags:#x} of {ip:?}");
        }
    }

    #[test]
    fn only_unicast_default_routes_of_the_main_table_count() {
        let (out, metric): (&[u8], &[u8]) = (&2_u32.to_ne_bytes(), &100_u32.to_ne_bytes());
        let by = |to, table, kind| default_routes(&new_route(to, table, kind, &[(4, out), (6, metric)])).len();
        assert_eq!(by(0, 254, 1), 1, "default of main");
        assert_eq!(by(24, 254, 1), 0, "a network's route");
        assert_eq!(by(0, 255, 1), 0, "another table");
        assert_eq!(by(0, 254, 7), 0, "unreachable default");
        let far = new_route(0, 0, 1, &[(4, out), (15, &5000_u32.to_ne_bytes())]);
        assert_eq!(default_routes(&far).len(), 0, "a table above 255");
    }

    #[test]
    fn each_next_hop_of_a_multipath_route_is_a_way_out() {
        let mut hops = Vec::new();
        for (index, gateway) in [(2_u32, [10, 0, 0, 1]), (3, [10, 1, 0, 1])] {
            let attribute = attribute(5, &gateway);
            hops.extend(u16::try_from(8 + attribute.len()).expect("short").to_ne_bytes());
            hops.extend([0, 0]);
            hops.extend(index.to_ne_bytes());
            hops.extend(attribute);
        }
        let route = new_route(0, 254, 1, &[(6, &50_u32.to_ne_bytes()), (7, &[10, 0, 0, 9]), (9, &hops)]);
        let links = [new_link(2, 0x41, "eth0", ""), new_link(3, 0x41, "eth1", "")];
        let found = read(&links, &[], &[route]).default_routes;
        let shown: Vec<_> = found.iter().map(|r| (r.link.as_str(), r.gateway, r.metric)).collect();
        let gateway = |text: &str| Some(text.parse().expect("an address"));
        assert_eq!(shown, [("eth0", gateway("10.0.0.1"), 50), ("eth1", gateway("10.1.0.1"), 50)]);
        assert_eq!(found[0].source, gateway("10.0.0.9"));

        let bare = new_route(0, 254, 1, &[(9, &hops)]);
        assert_eq!(several_hops(&bare), [2, 3]);
        let preferred = new_route(0, 254, 1, &[(7, &[10, 0, 0, 9]), (9, &hops)]);
        assert_eq!(several_hops(&preferred), [0_u32; 0], "a preferred source decides");
        assert_eq!(several_hops(&new_route(0, 254, 1, &[(4, &[2, 0, 0, 0])])), [0_u32; 0], "one hop");
    }

    #[test]
    fn what_is_cut_short_is_left_out_and_nothing_panics() {
        let whole = [new_link(2, 0x41, "eth0", "veth"), new_address(2, 24, 0, &[(1, &[10, 0, 0, 1])])].concat();
        for length in 0..whole.len() {
            let part = &whole[..length];
            let _ = (link(part), address(part), default_routes(part), split_message(part).is_some());
            let _ = (several_hops(part), next_hops(part).count());
        }
    }
}
