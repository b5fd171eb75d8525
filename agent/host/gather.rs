//! Gathers [`Facts`]: asks the running kernel once, and changes nothing. No packet leaves the machine but those of
//! name resolution.

pub mod netlink;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt::BindToDevice};
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, FsType, TMPFS_MAGIC, statfs};
use nix::sys::utsname::uname;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use super::facts::{Cgroups, Facts, PeerRoute};
use super::resolve::resolve_blocking;
use crate::engine::fault::Explain;

pub use netlink::NetlinkError;

/// A fact could not be had.
#[derive(Debug, thiserror::Error)]
pub enum GatherError {
    /// Kubernetes is not released for this machine.
    #[error("tell the architecture in Kubernetes' words: {machine} is none of amd64, arm64, arm")]
    Architecture {
        /// What the compiler calls it.
        machine: &'static str,
    },
    /// The kernel did not say who it is.
    #[error("read the kernel's release and hostname (uname)")]
    Uname(#[source] Errno),
    /// The layout of control groups could not be told.
    #[error("read the file system type of {path}")]
    Cgroups {
        /// Of which path.
        path: String,
        /// The kernel's reason.
        #[source]
        why: Errno,
    },
    /// The size of the memory could not be read.
    #[error("read the size of the memory: {0}")]
    Memory(String),
    /// Links, addresses or routes could not be read.
    #[error("read the machine's network")]
    Network(#[from] NetlinkError),
}

impl Explain for GatherError {
    fn advice(&self) -> Option<String> {
        match self {
            Self::Architecture { .. } => None,
            _ => Some("facts can be given instead: --facts FILE".to_owned()),
        }
    }
}

/// Everything that planners branch on. `peers` are the machines that this one must reach, by host and port.
///
/// Blocks for as long as the resolver takes when a peer is given by name.
pub fn gather(peers: &[(String, u16)]) -> Result<Facts, GatherError> {
    let uname = uname().map_err(GatherError::Uname)?;
    let memory = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let memory = System::new_with_specifics(memory).map_err(|why| GatherError::Memory(why.to_string()))?;
    let network = netlink::ask()?;
    let routes: BTreeMap<String, PeerRoute> =
        peers.iter().map(|(host, port)| (Facts::peer_key(host, *port), route_to(host, *port))).collect();
    Ok(Facts {
        architecture: architecture(std::env::consts::ARCH)?.to_owned(),
        kernel: uname.release().to_string_lossy().into_owned(),
        memory_bytes: memory.total_memory(),
        hostname: uname.nodename().to_string_lossy().into_owned(),
        cgroups: cgroups(Path::new("/sys/fs/cgroup"))?,
        links: network.links,
        default_routes: network.default_routes,
        routes,
    })
}

/// The architecture that this program was compiled for, not the kernel's: a 32-bit system on a 64-bit kernel
/// (Raspberry Pi OS) says `aarch64` in `uname`, but has the libraries and the container images of `arm`.
fn architecture(machine: &'static str) -> Result<&'static str, GatherError> {
    match machine {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        "arm" => Ok("arm"),
        machine => Err(GatherError::Architecture { machine }),
    }
}

/// By file system types, as systemd itself decides it (`cg_unified_cached`).
fn cgroups(at: &Path) -> Result<Cgroups, GatherError> {
    match file_system(at)? {
        Some(CGROUP2_SUPER_MAGIC) => Ok(Cgroups::Unified),
        Some(TMPFS_MAGIC) if file_system(&at.join("unified"))? == Some(CGROUP2_SUPER_MAGIC) => Ok(Cgroups::Hybrid),
        Some(TMPFS_MAGIC) => {
            // systemd's own hierarchy, or without systemd that of the memory controller.
            for hierarchy in ["systemd", "memory"] {
                if file_system(&at.join(hierarchy))? == Some(CGROUP_SUPER_MAGIC) {
                    return Ok(Cgroups::Legacy);
                }
            }
            Ok(Cgroups::None)
        }
        _ => Ok(Cgroups::None),
    }
}

/// The type of the file system at a path; nothing if there is no such path.
fn file_system(path: &Path) -> Result<Option<FsType>, GatherError> {
    match statfs(path) {
        Ok(found) => Ok(Some(found.filesystem_type())),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(why) => Err(GatherError::Cgroups { path: path.display().to_string(), why }),
    }
}

/// How the kernel would reach a peer: IPv4 first, and of several addresses the first that has a route.
fn route_to(host: &str, port: u16) -> PeerRoute {
    let addresses = match resolve_blocking(host) {
        Ok(found) => found,
        Err(error) => return PeerRoute::Unresolved { why: error.to_string() },
    };
    let mut unroutable = None;
    for address in addresses.into_iter().map(|ip| SocketAddr::new(ip, port)) {
        match stable_source_towards(address) {
            Ok(source) => return PeerRoute::Via { peer: address.ip(), source },
            Err(error) => {
                unroutable.get_or_insert(PeerRoute::Unroutable { peer: address.ip(), why: reason(&error) });
            }
        }
    }
    unroutable.unwrap_or_else(|| PeerRoute::Unresolved { why: "the name has no address".to_owned() })
}

/// The source address that the kernel would use; of a multipath route that of the first hop that has one, since the
/// kernel would take another one at each boot.
fn stable_source_towards(peer: SocketAddr) -> io::Result<IpAddr> {
    // What cannot be asked about is a plain route.
    let hops = netlink::hops_towards(peer.ip()).unwrap_or_default();
    let by_hop = hops.into_iter().find_map(|link| source_towards(peer, Some(link)).ok());
    by_hop.map_or_else(|| source_towards(peer, None), Ok)
}

/// The source address that the kernel would use, with policy routing, `src` hints and all. Connecting a datagram socket
/// only looks the route up: nothing is sent (udp(7)).
fn source_towards(peer: SocketAddr, link: Option<u32>) -> io::Result<IpAddr> {
    let any: IpAddr = if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    if let Some(link) = link {
        let name = nix::net::if_::if_indextoname(link)?;
        setsockopt(&socket, BindToDevice, &name.to_string_lossy().into_owned().into())?;
    }
    socket.connect(peer)?;
    Ok(socket.local_addr()?.ip())
}

/// The kernel's reason without std's "(os error 101)".
fn reason(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |code| Errno::from_raw(code).desc().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> String {
        std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}")).trim().to_owned()
    }

    #[test]
    fn facts_agree_with_what_the_kernel_shows_elsewhere() {
        let facts = gather(&[("127.0.0.1".into(), 6443), ("no-such-host.invalid".into(), 1)]).expect("facts");
        assert_eq!(facts.hostname, file("/proc/sys/kernel/hostname"));
        assert_eq!(facts.kernel, file("/proc/sys/kernel/osrelease"));
        let memory = file("/proc/meminfo");
        let total: u64 = memory
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok())
            .expect("MemTotal");
        assert!(facts.memory_bytes > 0 && facts.memory_bytes <= total * 1024, "{} of {total} kB", facts.memory_bytes);

        let names: Vec<&str> = facts.links.iter().map(|link| link.name.as_str()).collect();
        let mut in_sys: Vec<String> = std::fs::read_dir("/sys/class/net")
            .expect("/sys/class/net")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .filter(|name| name != "bonding_masters")
            .collect();
        in_sys.sort();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, in_sys, "links");
        for link in &facts.links {
            let sys = |key: &str| file(&format!("/sys/class/net/{}/{key}", link.name));
            assert_eq!(link.index.to_string(), sys("ifindex"), "index of {}", link.name);
            assert_eq!(link.mtu.to_string(), sys("mtu"), "MTU of {}", link.name);
            if !link.mac.is_empty() {
                assert_eq!(link.mac, sys("address"), "hardware address of {}", link.name);
            }
        }

        let lo = facts.links.iter().find(|link| link.loopback).expect("a loopback link");
        assert!(lo.addresses.iter().any(|a| a.ip == Ipv4Addr::LOCALHOST), "{lo:?}");
        let mut ours: Vec<(String, IpAddr)> =
            facts.links.iter().flat_map(|link| link.addresses.iter().map(|a| (link.name.clone(), a.ip))).collect();
        let mut theirs: Vec<(String, IpAddr)> = nix::ifaddrs::getifaddrs()
            .expect("getifaddrs")
            .filter_map(|entry| {
                let address = entry.address?;
                let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
                let ip = v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))?;
                Some((entry.interface_name, ip))
            })
            .collect();
        ours.sort();
        theirs.sort();
        assert_eq!(ours, theirs, "addresses");

        // /proc/net/route: interface, destination, gateway, flags, …, metric, mask.
        let table = file("/proc/net/route");
        let in_proc: Vec<(&str, u32)> = table
            .lines()
            .skip(1)
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|f| f[1] == "00000000" && f[7] == "00000000" && f[0] != "*")
            .map(|f| (f[0], f[6].parse().expect("a metric")))
            .collect();
        let v4 = facts.default_routes.iter().filter(|route| !route.ipv6);
        let found: Vec<(&str, u32)> = v4.map(|route| (route.link.as_str(), route.metric)).collect();
        for route in &in_proc {
            assert!(found.contains(route), "{route:?} of /proc/net/route is not in {found:?}");
        }

        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert_eq!(facts.routes.get("127.0.0.1:6443"), Some(&PeerRoute::Via { peer: here, source: here }));
        let unresolved = facts.routes.get("no-such-host.invalid:1");
        assert!(matches!(unresolved, Some(PeerRoute::Unresolved { .. })), "{unresolved:?}");
    }

    #[test]
    fn architectures_in_kubernetes_words() {
        for (machine, want) in
            [("x86_64", Some("amd64")), ("aarch64", Some("arm64")), ("arm", Some("arm")), ("mips", None)]
        {
            assert_eq!(architecture(machine).ok(), want, "{machine}");
        }
    }

    #[test]
    fn no_control_groups_at_a_plain_directory() {
        assert_eq!(cgroups(Path::new("/proc")).expect("a layout"), Cgroups::None);
        assert_eq!(cgroups(Path::new("/no/such/path")).expect("a layout"), Cgroups::None);
    }
}
