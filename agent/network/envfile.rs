//! Renders `/etc/network-environment`. Pure: the same facts give the same bytes.
//!
//! The format is what `EnvironmentFile=` reads (systemd.exec(5)) and what `sh` can source. A value is quoted only if it
//! has to be, so that the lines which `setup-network-environment` wrote come out as it wrote them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use crate::config::settings::ClusterSettings;
use crate::host::facts::{DefaultRoute, Facts, Link};
use crate::identity::{Candidate, Identity, Reason, candidates, container_link, ipv6_beside};

/// The file's content.
pub fn render(cluster: &ClusterSettings, facts: &Facts, identity: &Identity) -> String {
    let all = candidates(cluster, facts);
    let mut file = EnvFile::default();
    file.comment("Written by nodeagent network. Local changes are replaced.");
    file.comment(&format!("{} of {}: {}", identity.address, identity.link, identity.why));
    for (candidate, why) in all.iter().filter_map(|candidate| Some((candidate, worth_telling(candidate, identity)?))) {
        file.comment(&format!("not {} of {}: {why}", candidate.ip(), candidate.link.name));
    }

    file.set("NODE_NAME", identity.name.as_str());
    file.set("DEFAULT_INTERFACE", &identity.link);
    match identity.address {
        IpAddr::V4(v4) => file.set("DEFAULT_IPV4", &v4.to_string()),
        IpAddr::V6(_) => {}
    }
    if let Some(v6) = ipv6_beside(cluster, facts, identity) {
        file.set("DEFAULT_IPV6", &v6.to_string());
    }
    if let Some(link) = facts.links.iter().find(|link| link.name == identity.link) {
        if let Some(own) = link.addresses.iter().find(|address| address.ip == identity.address) {
            file.set("DEFAULT_PREFIX", &own.prefix.to_string());
        }
        file.set("DEFAULT_MTU", &link.mtu.to_string());
        if !link.mac.is_empty() {
            file.set("DEFAULT_MAC", &link.mac);
        }
    }
    if let Some(gateway) = gateway(facts, identity) {
        file.set("DEFAULT_GATEWAY", &gateway.to_string());
    }
    for link in facts.links.iter().filter(|link| container_link(link).is_none()) {
        if let Some(v4) = first_ipv4(link) {
            file.set_for_link(link, &v4.to_string());
        }
    }
    file.finish()
}

/// Why an IPv4 address was not chosen, if that stays true while pods, containers and shared addresses come and go: what
/// does not is in the plan and in the journal, and would here be a change on every second run. Loopback goes unsaid.
fn worth_telling(candidate: &Candidate<'_>, identity: &Identity) -> Option<String> {
    let chosen = candidate.ip() == identity.address && candidate.link.name == identity.link;
    if chosen || candidate.ip().is_ipv6() {
        return None;
    }
    if candidate.reasons.contains(&Reason::Loopback) || !candidate.reasons.iter().all(Reason::is_lasting) {
        return None;
    }
    candidate.why_not().or_else(|| Some("usable, but not the one above".to_owned()))
}

/// The next hop of the chosen link's default route of lowest metric, in the chosen address's family.
fn gateway(facts: &Facts, identity: &Identity) -> Option<IpAddr> {
    let ours = |route: &&DefaultRoute| route.link == identity.link && route.ipv6 == identity.address.is_ipv6();
    facts.default_routes.iter().filter(ours).min_by_key(|route| route.metric)?.gateway
}

/// The link's first IPv4 address, whatever it is: as the old tool chose it.
fn first_ipv4(link: &Link) -> Option<IpAddr> {
    link.addresses.iter().map(|address| address.ip).find(IpAddr::is_ipv4)
}

/// Comments in the order in which they were made, then variables in the order of their names.
#[derive(Default)]
struct EnvFile {
    comments: String,
    variables: BTreeMap<String, String>,
}

impl EnvFile {
    /// systemd lets a comment go on behind a backslash at its end, so none stays in it, nor any control character.
    fn comment(&mut self, text: &str) {
        let clean = text.replace(|c: char| c.is_control() || c == '\\', "?");
        let _ = writeln!(self.comments, "# {clean}");
    }

    fn set(&mut self, key: &str, value: &str) {
        if value.chars().any(unreadable) {
            self.comment(&format!("{key} is left out: a control character is in {value:?}"));
        } else {
            self.variables.insert(key.to_owned(), quoted(value));
        }
    }

    /// `<LINK>_IPV4`. The first link in the kernel's order keeps a key that two would have.
    fn set_for_link(&mut self, link: &Link, value: &str) {
        let key = link_key(&link.name);
        if key == "DEFAULT_IPV4" || self.variables.contains_key(&key) {
            let taken = "that key is taken, see the names of the other links";
            self.comment(&format!("{key} of link {} ({value}) is left out: {taken}", link.name));
        } else {
            self.set(&key, value);
        }
    }

    fn finish(self) -> String {
        let mut text = self.comments;
        for (key, value) in self.variables {
            let _ = writeln!(text, "{key}={value}");
        }
        text
    }
}

/// The key of a link: upper case as the old tool had it, and everything that systemd refuses in a name made `_`. The old
/// tool changed only `.`, so `br-lan` became a line that systemd ignored.
fn link_key(name: &str) -> String {
    let upper = name.chars().map(|c| match c.to_ascii_uppercase() {
        c if c.is_ascii_uppercase() || c.is_ascii_digit() => c,
        _ => '_',
    });
    let digit = name.starts_with(|c: char| c.is_ascii_digit());
    let start = if digit { "_" } else { "" };
    format!("{start}{}_IPV4", upper.collect::<String>())
}

/// Control characters, and the code points that Unicode keeps for no character: systemd refuses a whole file with one of
/// these in a value (`unichar_is_valid` in its `src/basic/utf8.c`).
fn unreadable(c: char) -> bool {
    c.is_control() || matches!(u32::from(c), 0xfdd0..=0xfdef) || u32::from(c) & 0xfffe == 0xfffe
}

/// The value as it is, or in double quotes if a character could mean something to systemd or a shell.
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._:/-".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    let mut text = String::from("\"");
    for c in value.chars() {
        if matches!(c, '"' | '\\' | '$' | '`') {
            text.push('\\');
        }
        text.push(c);
    }
    text.push('"');
    text
}

#[cfg(test)]
#[path = "../../tests/reader/systemd_env.rs"]
mod systemd_env;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::facts::Address;
    use proptest::prelude::*;

    fn cluster() -> ClusterSettings {
        ClusterSettings {
            api_server: "https://10.10.30.11:6443".parse().expect("a URL"),
            pod_cidr: "10.244.0.0/16".parse().expect("a network"),
            service_cidr: "10.96.0.0/12".parse().expect("a network"),
            dns: ip("10.96.0.10"),
            domain: "cluster.local".into(),
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn identity() -> Identity {
        Identity {
            name: "worker-01".parse().expect("a name"),
            address: ip("10.10.30.21"),
            link: "eth0".into(),
            why: "source address towards 10.10.30.11:6443".into(),
            rejected: Vec::new(),
        }
    }

    fn with(facts: &Facts, name: &str, kind: &str, address: &str, prefix: u8) -> Facts {
        let mut facts = facts.clone();
        let index = u32::try_from(facts.links.len() + 1).expect("few links");
        facts.links.push(Link {
            index,
            name: name.into(),
            kind: kind.into(),
            addresses: vec![Address::new(ip(address), prefix)],
            ..Facts::sample().links[1].clone()
        });
        facts
    }

    #[test]
    fn a_plain_machine() {
        let want = "\
# Written by nodeagent network. Local changes are replaced.
# 10.10.30.21 of eth0: source address towards 10.10.30.11:6443
DEFAULT_GATEWAY=10.10.30.1
DEFAULT_INTERFACE=eth0
DEFAULT_IPV4=10.10.30.21
DEFAULT_MAC=52:54:00:00:00:15
DEFAULT_MTU=1500
DEFAULT_PREFIX=24
ETH0_IPV4=10.10.30.21
LO_IPV4=127.0.0.1
NODE_NAME=worker-01
";
        assert_eq!(render(&cluster(), &Facts::sample(), &identity()), want);
    }

    #[test]
    fn pods_containers_and_shared_addresses_leave_no_trace() {
        let before = Facts::sample();
        let mut after = with(&before, "cni0", "bridge", "10.244.1.1", 24);
        after = with(&after, "flannel.1", "vxlan", "10.244.1.0", 32);
        after = with(&after, "docker0", "bridge", "172.17.0.1", 16);
        after = with(&after, "veth12345678", "veth", "169.254.1.1", 32);
        after = with(&after, "kube-ipvs0", "dummy", "10.96.0.1", 32);
        after.links[1].addresses.push(Address::new(ip("10.10.30.100"), 32));
        after.links[1].addresses.push(Address::new(ip("fe80::1"), 64));
        let (one, two) = (render(&cluster(), &before, &identity()), render(&cluster(), &after, &identity()));
        assert_eq!(one, two, "with {:?}", after.links);
    }

    #[test]
    fn other_links_are_listed_with_the_reason() {
        let facts = with(&Facts::sample(), "ens3.100", "vlan", "10.244.9.9", 24);
        let text = render(&cluster(), &with(&facts, "br-lan", "bridge", "192.168.1.1", 24), &identity());
        for line in [
            "# not 10.244.9.9 of ens3.100: inside the pod network 10.244.0.0/16",
            "# not 192.168.1.1 of br-lan: usable, but not the one above",
            "ENS3_100_IPV4=10.244.9.9",
            "BR_LAN_IPV4=192.168.1.1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} is not in\n{text}");
        }
    }

    #[test]
    fn keys_that_collide_are_reported_and_not_overwritten() {
        let mut facts = Facts::sample();
        for (name, address) in [("eth0.1", "10.1.0.1"), ("eth0_1", "10.2.0.1"), ("default", "10.3.0.1")] {
            facts = with(&facts, name, "", address, 24);
        }
        let text = render(&cluster(), &facts, &identity());
        for part in
            ["\nETH0_1_IPV4=10.1.0.1\n", "\nDEFAULT_IPV4=10.10.30.21\n", "of link eth0_1 (10.2.0.1) is left out"]
        {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        assert!(text.contains("DEFAULT_IPV4 of link default (10.3.0.1) is left out"), "{text}");
    }

    #[test]
    fn ipv6_alone_has_no_default_ipv4() {
        let mut facts = Facts::sample();
        facts.links[1].addresses = vec![Address::new(ip("fd00::21"), 64)];
        facts.default_routes[0] =
            DefaultRoute { ipv6: true, gateway: Some(ip("fe80::1")), source: None, ..facts.default_routes[0].clone() };
        let text = render(&cluster(), &facts, &Identity { address: ip("fd00::21"), ..identity() });
        assert!(!text.contains("DEFAULT_IPV4"), "{text}");
        for line in ["DEFAULT_IPV6=fd00::21", "DEFAULT_PREFIX=64", "DEFAULT_GATEWAY=fe80::1"] {
            assert!(text.lines().any(|found| found == line), "{line:?} is not in\n{text}");
        }
    }

    #[test]
    fn keys_by_link_name() {
        for (name, want) in [
            ("eno16777736", "ENO16777736_IPV4"),
            ("flannel.1", "FLANNEL_1_IPV4"),
            ("br-lan", "BR_LAN_IPV4"),
            ("0net", "_0NET_IPV4"),
            ("eth0@if3", "ETH0_IF3_IPV4"),
            ("\u{e9}t\u{e9}", "_T__IPV4"),
        ] {
            assert_eq!(link_key(name), want, "{name:?}");
        }
    }

    #[test]
    fn no_value_makes_systemd_refuse_the_file() {
        // Each of these once did, or was lost: what is no character, what ends a line, what is expanded or unescaped.
        for name in ["\u{fffe}", "a\u{fdd0}", "\u{1ffff}", "a\rb", "$x `y` \"z\" \\", " a ", "#a", "'"] {
            let facts = with(&Facts::sample(), name, "", "192.168.0.7", 24);
            let identity = Identity { link: name.to_owned(), address: ip("192.168.0.7"), ..identity() };
            let text = render(&cluster(), &facts, &identity);
            let found = systemd_env::read(&text).unwrap_or_else(|why| panic!("{name:?}: {why}"));
            let want = (!name.contains(unreadable)).then(|| name.to_owned());
            assert_eq!(found.get("DEFAULT_INTERFACE"), want.as_ref(), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn every_line_is_a_comment_or_parses_back(
            names in proptest::collection::vec("\\PC{1,15}|[ -~]{1,15}|(?s).{1,15}", 1..6),
            mac in "(?s).{0,20}",
        ) {
            let mut facts = Facts::sample();
            for (at, name) in names.iter().enumerate() {
                facts = with(&facts, name, "", &format!("192.168.{at}.7"), 24);
            }
            let mut chosen = facts.links[2].clone();
            chosen.mac.clone_from(&mac);
            facts.links[2] = chosen;
            let identity = Identity { link: names[0].clone(), address: ip("192.168.0.7"), ..identity() };
            let text = render(&cluster(), &facts, &identity);
            prop_assert!(text.ends_with('\n'));
            let found = systemd_env::read(&text).map_err(|why| TestCaseError::fail(format!("{why}: {text:?}")))?;
            prop_assert_eq!(found.get("DEFAULT_IPV4").map(String::as_str), Some("192.168.0.7"));
            if !names[0].contains(unreadable) {
                prop_assert_eq!(found.get("DEFAULT_INTERFACE"), Some(&names[0]));
            }
            prop_assert_eq!(text, render(&cluster(), &facts, &identity));
        }
    }
}
