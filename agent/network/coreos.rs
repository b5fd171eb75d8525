//! `COREOS_PUBLIC_IPV4` and `COREOS_PRIVATE_IPV4` in `/etc/environment`, for units that were written for
//! coreos-cloudinit.
//!
//! They stand in a block of our own at the end, and the last line wins wherever that file is read, so that what others
//! wrote stays as it is.

use std::net::{IpAddr, Ipv4Addr};

use crate::config::settings::ClusterSettings;
use crate::config::values::RootPath;
use crate::engine::block;
use crate::engine::change::Change;
use crate::engine::resource::{CannotTell, Delta, Diff, Resource, Seen, Thing};
use crate::host::facts::Facts;
use crate::identity::{Candidate, Identity, candidates};

/// Our block in `/etc/environment`.
pub struct CoreosEnvironment {
    lines: Vec<String>,
}

impl CoreosEnvironment {
    /// Private is the node's address. Public is the first usable address that the world can reach, as a provider's
    /// meta-data would have it; on a machine without one it is the same as the private one.
    pub fn new(cluster: &ClusterSettings, facts: &Facts, identity: &Identity) -> Self {
        let IpAddr::V4(private) = identity.address else { return Self { lines: Vec::new() } };
        let all = candidates(Some(cluster), facts);
        let mut usable = all.iter().filter(|candidate| candidate.is_good()).filter_map(v4);
        let public = usable.find(|ip| !is_private(*ip)).unwrap_or(private);
        Self { lines: vec![format!("COREOS_PRIVATE_IPV4={private}"), format!("COREOS_PUBLIC_IPV4={public}")] }
    }

    fn path() -> RootPath {
        RootPath::literal("/etc/environment")
    }
}

fn v4(candidate: &Candidate<'_>) -> Option<Ipv4Addr> {
    if let IpAddr::V4(ip) = candidate.ip() { Some(ip) } else { None }
}

/// RFC 1918, and what providers use behind their own translation (RFC 6598).
fn is_private(ip: Ipv4Addr) -> bool {
    let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
    ip.is_private() || shared
}

impl Resource for CoreosEnvironment {
    fn summary(&self) -> String {
        format!("/etc/environment: {}", self.lines.join(", "))
    }

    fn reads(&self) -> Vec<Thing> {
        vec![Thing::File(Self::path())]
    }

    fn makes(&self) -> Vec<Thing> {
        self.reads()
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        let now = block::lines(seen.bytes(&Self::path())?.unwrap_or_default()).unwrap_or_default();
        if now == self.lines {
            return Ok(Diff::Same);
        }
        Ok(Diff::Differs {
            shown: vec![Delta::new("our block", now.join("; "), self.lines.join("; "))],
            known: vec![Change::Block { path: Self::path(), lines: self.lines.clone() }],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::host::facts::Address;

    #[test]
    fn public_is_an_address_that_the_world_can_reach_if_there_is_one() {
        let cluster = Settings::sample().cluster;
        for (other, public) in [
            ("192.168.7.7", "10.10.30.21"),
            ("100.64.0.7", "10.10.30.21"),
            ("203.0.113.7", "203.0.113.7"),
            ("169.254.7.7", "10.10.30.21"),
        ] {
            let mut facts = Facts::sample();
            facts.links[1].addresses.push(Address::new(other.parse().expect("an address"), 24));
            let block = CoreosEnvironment::new(&cluster, &facts, &Identity::sample());
            let want = ["COREOS_PRIVATE_IPV4=10.10.30.21".to_owned(), format!("COREOS_PUBLIC_IPV4={public}")];
            assert_eq!(block.lines, want, "beside {other}");
        }
    }
}
