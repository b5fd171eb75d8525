//! Routes to other nodes' pods: seen, put in place and removed over rtnetlink(7), each marked with a number of our own
//! ([`PROTOCOL`]), so that nobody else's is ever removed.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::str::FromStr;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, setsockopt, socket,
    sockopt,
};
use tokio::io::unix::AsyncFd;
use tokio::time::{sleep, timeout};

use super::gather::netlink::{
    HEADER, INET, INET6, NLM_F_REQUEST, NLMSG_ERROR, NetlinkError, PATIENCE, aligned, attributes, ip, routes, u32_at,
};
use crate::config::values::{BadValue, Cidr};
use crate::engine::fault::{Class, Explain};

/// Who made a route (`rtm_protocol`): a number that neither the kernel's list (linux/rtnetlink.h) nor iproute2's
/// `rt_protos` gives to anybody. `ip route show proto 110` lists ours.
pub const PROTOCOL: u8 = 110;

// linux/rtnetlink.h.
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RT_TABLE_MAIN: u8 = 254;
const RTN_UNICAST: u8 = 1;
const RTA_DST: u16 = 1;
const RTA_GATEWAY: u16 = 5;
const RTA_TABLE: u16 = 15;
const NLM_F_ACK: u16 = 0x4;
/// `NLM_F_CREATE` and `NLM_F_REPLACE`: whoever has a route to the same pods means the same.
const PUT: u16 = 0x400 | 0x100;
/// Links, addresses and routes of both families: `RTMGRP_LINK`, `_IPV4_IFADDR`, `_IPV4_ROUTE`, `_IPV6_IFADDR`, `_IPV6_ROUTE`.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// Changes come in bursts: one look is enough for what comes within this time.
const BURST: Duration = Duration::from_millis(200);

/// The pods of another node, and that node's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodRoute {
    /// The pods.
    pub to: Cidr,
    /// The node.
    pub via: IpAddr,
}

/// As `ip route` shows it.
impl fmt::Display for PodRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} via {}", self.to, self.via)
    }
}

/// Text that is no route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRoute {
    /// It has no `=`.
    #[error("{0:?} is no route: wants CIDR=ADDRESS, such as 10.244.1.0/24=10.10.30.21")]
    Form(String),
    /// The pods are no network.
    #[error(transparent)]
    Network(#[from] BadValue),
    /// The node is no address, or one of the other family.
    #[error("{0:?} is no address of the same family as the network")]
    Address(String),
}

impl FromStr for PodRoute {
    type Err = BadRoute;

    fn from_str(text: &str) -> Result<Self, BadRoute> {
        let (to, via) = text.split_once('=').ok_or_else(|| BadRoute::Form(text.to_owned()))?;
        let to: Cidr = to.parse()?;
        let via = via.parse().ok().filter(|via: &IpAddr| via.is_ipv4() == to.nth(0).is_ipv4());
        Ok(Self { to, via: via.ok_or_else(|| BadRoute::Address(text.to_owned()))? })
    }
}

/// The kernel would not have it.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// It did not say what routes there are.
    #[error(transparent)]
    Unseen(#[from] NetlinkError),
    /// It refused a route.
    #[error("{what} route {route}: {why}")]
    Refused {
        /// `add` or `remove`.
        what: &'static str,
        /// Which.
        route: PodRoute,
        /// The kernel's reason.
        why: Errno,
    },
    /// It does not tell of changes.
    #[error("hear of changes to the kernel's routes over netlink: {0}")]
    Deaf(std::io::Error),
}

impl Explain for RouteError {
    fn class(&self) -> Class {
        Class::Failed
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Refused { why: Errno::EPERM, .. } => Some("run as root, or with CAP_NET_ADMIN".to_owned()),
            Self::Refused { why: Errno::ENETUNREACH | Errno::EHOSTUNREACH, .. } => {
                Some("the nodes of a bridge network share one network: docs/network.md".to_owned())
            }
            _ => None,
        }
    }
}

/// What was done about the routes.
#[derive(Debug, Default)]
pub struct Kept {
    /// Put in place.
    pub added: Vec<PodRoute>,
    /// Removed: nobody wants them any more.
    pub removed: Vec<PodRoute>,
    /// What could not be done.
    pub refused: Vec<RouteError>,
}

/// Makes our routes in the main table these, and no others.
pub fn keep(wanted: &BTreeSet<PodRoute>) -> Result<Kept, RouteError> {
    let ours: BTreeSet<PodRoute> = routes()?.iter().filter_map(|body| read(body)).collect();
    let mut kept = Kept::default();
    // First what goes: a node's pods may have moved to another address.
    for route in ours.difference(wanted) {
        match request(RTM_DELROUTE, 0, route) {
            // Gone meanwhile, with its link.
            Ok(()) | Err(Errno::ESRCH) => kept.removed.push(*route),
            Err(why) => kept.refused.push(RouteError::Refused { what: "remove", route: *route, why }),
        }
    }
    for route in wanted.difference(&ours) {
        match request(RTM_NEWROUTE, PUT, route) {
            Ok(()) => kept.added.push(*route),
            Err(why) => kept.refused.push(RouteError::Refused { what: "add", route: *route, why }),
        }
    }
    Ok(kept)
}

/// One of ours, out of an `rtmsg` and its attributes.
fn read(body: &[u8]) -> Option<PodRoute> {
    let (family, prefix) = (*body.first()?, *body.get(1)?);
    let mut table = u32::from(*body.get(4)?);
    if *body.get(5)? != PROTOCOL || *body.get(7)? != RTN_UNICAST {
        return None;
    }
    let (mut to, mut via) = (None, None);
    for (kind, value) in attributes(body.get(12..)?) {
        match kind {
            RTA_DST => to = ip(family, value),
            RTA_GATEWAY => via = ip(family, value),
            RTA_TABLE => table = u32_at(value, 0)?,
            _ => {}
        }
    }
    let to = format!("{}/{prefix}", to?).parse().ok()?;
    (table == u32::from(RT_TABLE_MAIN)).then_some(PodRoute { to, via: via? })
}

/// An `rtmsg` with both addresses.
fn body(route: &PodRoute) -> Vec<u8> {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let family = if route.via.is_ipv4() { INET } else { INET6 };
    // Its scope is the universe, 0: what has a next hop is farther than the link.
    let mut body = vec![family, route.to.prefix(), 0, 0, RT_TABLE_MAIN, PROTOCOL, 0, RTN_UNICAST, 0, 0, 0, 0];
    for (kind, value) in [(RTA_DST, octets(route.to.nth(0))), (RTA_GATEWAY, octets(route.via))] {
        body.extend(u16::try_from(4 + value.len()).unwrap_or(u16::MAX).to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(&value);
        body.resize(aligned(body.len()), 0);
    }
    body
}

/// Asks the kernel for one change, and waits for its answer.
fn request(kind: u16, flags: u16, route: &PodRoute) -> Result<(), Errno> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &PATIENCE)?;
    let body = body(route);
    let mut message = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX).to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    sendto(socket.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0; 4096];
    let got = loop {
        match recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    verdict(&answer[..got])
}

/// What an `nlmsgerr` says: 0 is a yes.
fn verdict(answer: &[u8]) -> Result<(), Errno> {
    let kind = answer.get(4..6).map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
    match (kind, u32_at(answer, HEADER).map(u32::cast_signed)) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(code)) => Err(Errno::from_raw(code.wrapping_neg())),
        _ => Err(Errno::EBADMSG),
    }
}

/// Hears that a link, an address or a route of this machine changed.
#[derive(Debug)]
pub struct Watch(AsyncFd<OwnedFd>);

impl Watch {
    /// Begins to listen.
    ///
    /// # Errors
    /// When the kernel has no such socket to give.
    pub fn new() -> Result<Self, RouteError> {
        let deaf = |errno: Errno| RouteError::Deaf(errno.into());
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute).map_err(deaf)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS)).map_err(deaf)?;
        #[expect(
            deprecated,
            reason = "what replaces it is unsafe; this socket owns its descriptor for as long as it lives"
        )]
        let socket = AsyncFd::new(socket).map_err(RouteError::Deaf)?;
        Ok(Self(socket))
    }

    /// Returns when something changed, or after `patience`.
    pub async fn changed(&mut self, patience: Duration) {
        // What is heard does not matter, nor that something was missed: whoever waits looks at everything.
        if timeout(patience, self.0.readable()).await.is_ok() {
            sleep(BURST).await;
        }
        let mut heard = vec![0; 16 * 1024];
        while !matches!(recv(self.0.get_ref().as_raw_fd(), &mut heard, MsgFlags::empty()), Err(Errno::EAGAIN)) {}
        if let Ok(Ok(mut ready)) = timeout(Duration::ZERO, self.0.readable()).await {
            ready.clear_ready();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(text: &str) -> PodRoute {
        text.parse().expect(text)
    }

    #[test]
    fn a_route_is_read_as_it_was_written_and_nobody_elses_is_ours() {
        for text in ["10.244.1.0/24=10.10.30.22", "fd00:1::/64=fd00::22", "10.244.0.0/32=10.0.0.1"] {
            let written = body(&route(text));
            assert_eq!(read(&written), Some(route(text)), "{text}");
            for (at, value, what) in [(5, 3, "somebody else's"), (4, 255, "of another table"), (7, 7, "unreachable")] {
                let mut other = written.clone();
                other[at] = value;
                assert_eq!(read(&other), None, "{text}: {what}");
            }
            for length in 0..written.len() {
                // Cut short it has no second address, and nothing panics.
                assert_eq!(read(&written[..length]), None, "{text}: {length} bytes");
            }
        }
    }

    #[test]
    fn text_that_is_no_route_is_refused() {
        for text in ["", "10.244.1.0/24", "10.244.1.0=10.0.0.1", "10.244.1.0/24=node", "10.244.1.0/24=fd00::1"] {
            assert!(text.parse::<PodRoute>().is_err(), "{text:?}");
        }
        assert_eq!(route("10.244.1.7/24=10.0.0.1").to_string(), "10.244.1.0/24 via 10.0.0.1");
    }

    #[test]
    fn the_kernels_answer_is_yes_or_a_reason() {
        let answer = |code: i32| [&[0, 0, 0, 0, 2, 0][..], &[0; 10], &code.to_ne_bytes()].concat();
        assert_eq!(verdict(&answer(0)), Ok(()));
        assert_eq!(verdict(&answer(-101)), Err(Errno::ENETUNREACH));
        assert_eq!(verdict(&[]), Err(Errno::EBADMSG));
    }
}
