//! The node's own name: it resolves to the node's address without DNS, and it is the same after a reboot.

use std::net::IpAddr;

use crate::config::values::{NodeName, RootPath};
use crate::engine::block;
use crate::engine::change::Change;
use crate::engine::resource::{CannotTell, Delta, Diff, Resource, Seen, Thing};
use crate::host::seen::Entry;

/// The node's name in our block of `/etc/hosts`.
pub(super) struct HostsEntry {
    pub(super) address: IpAddr,
    pub(super) name: NodeName,
}

impl HostsEntry {
    fn path() -> RootPath {
        RootPath::literal("/etc/hosts")
    }

    fn line(&self) -> String {
        format!("{} {}", self.address, self.name)
    }

    /// The first line outside our block that gives the name another address of the same family, and its number.
    fn rival<'t>(&self, text: &'t str) -> Option<(usize, &'t str)> {
        let ours = self.line();
        let gives_another = |line: &str| {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
            address.is_some_and(|a| a != self.address && a.is_ipv4() == self.address.is_ipv4())
                && words.any(|word| word.eq_ignore_ascii_case(self.name.as_str()))
        };
        (1..).zip(text.lines()).find(|(_, line)| *line != ours && gives_another(line))
    }
}

impl Resource for HostsEntry {
    fn summary(&self) -> String {
        format!("/etc/hosts: {}", self.line())
    }

    fn reads(&self) -> Vec<Thing> {
        vec![Thing::File(Self::path())]
    }

    fn makes(&self) -> Vec<Thing> {
        self.reads()
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        let now = block::lines(seen.bytes(&Self::path())?.unwrap_or_default()).unwrap_or_default();
        let want = vec![self.line()];
        if now == want {
            return Ok(Diff::Same);
        }
        Ok(Diff::Differs {
            shown: vec![Delta::new("our block", now.join("; "), self.line())],
            known: vec![Change::Block { path: Self::path(), lines: want }],
        })
    }

    fn proof_reads(&self) -> Vec<Thing> {
        self.reads()
    }

    /// Debian gives each machine's name 127.0.1.1, and whoever asks for the name then gets that first.
    fn prove(&self, seen: &Seen) -> Result<(), CannotTell> {
        let text = String::from_utf8_lossy(seen.bytes(&Self::path())?.unwrap_or_default()).into_owned();
        let Some((number, line)) = self.rival(&text) else { return Ok(()) };
        let why = format!("{:?} gives {} another address than {}: remove it", line.trim(), self.name, self.address);
        Err(CannotTell::new(format!("{}:{number}", Self::path()), why))
    }
}

/// The hostname, where it is the node's name, is the one that the next boot sets.
pub(super) struct LastingHostname {
    pub(super) now: String,
}

impl LastingHostname {
    fn path() -> RootPath {
        RootPath::literal("/etc/hostname")
    }
}

/// A check alone: what the machine is called is not the agent's to decide.
impl Resource for LastingHostname {
    fn summary(&self) -> String {
        format!("hostname {} at later boots", self.now)
    }

    fn reads(&self) -> Vec<Thing> {
        Vec::new()
    }

    fn makes(&self) -> Vec<Thing> {
        Vec::new()
    }

    fn diff(&self, _seen: &Seen) -> Result<Diff, CannotTell> {
        Ok(Diff::Same)
    }

    fn proof_reads(&self) -> Vec<Thing> {
        vec![Thing::File(Self::path())]
    }

    /// Lines that begin with `#` are comments (hostname(5)).
    fn prove(&self, seen: &Seen) -> Result<(), CannotTell> {
        let lasting = match seen.entry(&Self::path())? {
            Entry::File { bytes, .. } => {
                let text = String::from_utf8_lossy(bytes.as_deref().unwrap_or_default()).into_owned();
                let name = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
                name.unwrap_or_default().to_owned()
            }
            // A link may lead anywhere; systemd follows it, and this does not.
            Entry::Link(_) => return Ok(()),
            _ => String::new(),
        };
        if lasting.eq_ignore_ascii_case(&self.now) {
            return Ok(());
        }
        let found = if lasting.is_empty() { "has no name".to_owned() } else { format!("says {lasting}") };
        let why = format!(
            "{found}, and the hostname, which is the node's name, is {}: after a reboot it may be another node; \
             run hostnamectl set-hostname, or set node.name",
            self.now
        );
        Err(CannotTell::new(Self::path(), why))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::engine::change::Meta;
    use crate::host::seen::{Sight, Stamp};

    fn file(path: RootPath, text: Option<&str>) -> Seen {
        let stamp = Stamp { size: 0, inode: 0, mtime_ns: 0, ctime_ns: 0 };
        let file = |text: &str| Entry::File { meta: Meta::FILE, stamp, bytes: Some(text.as_bytes().into()) };
        Seen(BTreeMap::from([(Thing::File(path), Ok(Sight::Entry(text.map_or(Entry::Absent, file))))]))
    }

    #[test]
    fn a_second_address_for_the_name_is_told_with_its_line() {
        let entry = HostsEntry { address: [10, 0, 0, 7].into(), name: "worker1".parse().expect("a name") };
        for (text, told) in [
            ("127.0.0.1 localhost\n127.0.1.1 worker1.lab worker1\n", Some("/etc/hosts:2")),
            ("127.0.1.1 Worker1\n10.0.0.7 worker1\n", Some("/etc/hosts:1")),
            ("10.0.0.7 worker1\n", None),
            ("10.0.0.7 worker1.lab worker1\n", None),
            ("127.0.1.1 worker10 # worker1\n# 127.0.1.1 worker1\n::1 worker1\n", None),
        ] {
            let proof = entry.prove(&file(HostsEntry::path(), Some(text)));
            assert_eq!(proof.err().map(|cannot| cannot.object).as_deref(), told, "{text:?}");
        }
    }

    #[test]
    fn a_hostname_that_the_next_boot_may_not_have_is_told() {
        let hostname = LastingHostname { now: "worker1".into() };
        for (text, fine) in [
            (Some("worker1\n"), true),
            (Some("# ours\nWorker1"), true),
            (Some("debian\n"), false),
            (Some(""), false),
            (None, false),
        ] {
            let proof = hostname.prove(&file(LastingHostname::path(), text));
            assert_eq!(proof.is_ok(), fine, "{text:?}: {proof:?}");
        }
    }
}
