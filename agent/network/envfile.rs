//! Renders `/etc/network-environment`. Pure: the same facts give the same bytes.
//!
//! The format is what `EnvironmentFile=` reads (systemd.exec(5)) and what `sh` can source. A value is quoted only if it
//! has to be, so that the lines which `setup-network-environment` wrote come out as it wrote them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use crate::config::settings::ClusterSettings;
use crate::config::values::NodeName;
use crate::engine::seal;
use crate::host::facts::{DefaultRoute, Facts, Link};
use crate::identity::{Candidate, Place, Reason, candidates, container_link};

/// A file that is to be written, and what could not stand in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The content, with its seal.
    pub text: String,
    /// What was left out, each with the reason.
    pub left_out: Vec<String>,
}

/// The file's content. Without a configuration there is no cluster, and perhaps no name; without a `place` only the links'
/// own lines are written, as the old tool did where it found no default route.
pub fn render(
    cluster: Option<&ClusterSettings>,
    facts: &Facts,
    name: Option<&NodeName>,
    place: Option<&Place>,
) -> Rendered {
    let mut file = EnvFile::default();
    file.comment("Written by nodeagent network. Local changes are replaced.");
    if let Some(name) = name {
        file.set("NODE_NAME", name.as_str());
    }
    if !facts.hostname.is_empty() {
        file.set("DEFAULT_HOSTNAME", &facts.hostname);
    }
    match place {
        Some(place) => defaults(&mut file, cluster, facts, place),
        None => file.leave_out("DEFAULT_IPV4 is left out: no address is fit to be this machine's"),
    }
    for link in facts.links.iter().filter(|link| container_link(link).is_none()) {
        if let Some(v4) = first_ipv4(link) {
            file.set_for_link(link, &v4.to_string());
        }
    }
    file.finish()
}

/// The address that the sealed file of an earlier boot has for the node.
pub fn last_address(file: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(file).ok().filter(|_| seal::holds(file))?;
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.parse().ok());
    value("DEFAULT_IPV4=").or_else(|| value("DEFAULT_IPV6="))
}

/// The lines that say where the machine is.
fn defaults(file: &mut EnvFile, cluster: Option<&ClusterSettings>, facts: &Facts, place: &Place) {
    file.comment(&format!("{} of {}: {}", place.address, place.link, place.why));
    let all = candidates(cluster, facts);
    for (candidate, why) in all.iter().filter_map(|candidate| Some((candidate, worth_telling(candidate, place)?))) {
        file.comment(&format!("not {} of {}: {why}", candidate.ip(), candidate.link.name));
    }
    file.set("DEFAULT_INTERFACE", &place.link);
    if place.address.is_ipv4() {
        file.set("DEFAULT_IPV4", &place.address.to_string());
    }
    if let Some(v6) = place.ipv6 {
        file.set("DEFAULT_IPV6", &v6.to_string());
    }
    if let Some(link) = facts.links.iter().find(|link| link.name == place.link) {
        if let Some(own) = link.addresses.iter().find(|address| address.ip == place.address) {
            file.set("DEFAULT_PREFIX", &own.prefix.to_string());
        }
        file.set("DEFAULT_MTU", &link.mtu.to_string());
        if !link.mac.is_empty() {
            file.set("DEFAULT_MAC", &link.mac);
        }
    }
    if let Some(gateway) = gateway(facts, place) {
        file.set("DEFAULT_GATEWAY", &gateway.to_string());
    }
}

/// Why an IPv4 address was not chosen, if that stays true while pods, containers and shared addresses come and go: what
/// does not is in the plan and in the journal, and would here be a change on every second run. Loopback goes unsaid.
fn worth_telling(candidate: &Candidate<'_>, place: &Place) -> Option<String> {
    let chosen = candidate.ip() == place.address && candidate.link.name == place.link;
    if chosen || candidate.ip().is_ipv6() {
        return None;
    }
    if candidate.reasons.contains(&Reason::Loopback) || !candidate.reasons.iter().all(Reason::is_lasting) {
        return None;
    }
    candidate.why_not().or_else(|| Some("usable, but not the one above".to_owned()))
}

/// The next hop of the chosen link's default route of lowest metric, in the chosen address's family.
fn gateway(facts: &Facts, place: &Place) -> Option<IpAddr> {
    let ours = |route: &&DefaultRoute| route.link == place.link && route.ipv6 == place.address.is_ipv6();
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
    left_out: Vec<String>,
}

impl EnvFile {
    /// systemd lets a comment go on behind a backslash at its end, so none stays in it, nor any control character.
    fn comment(&mut self, text: &str) {
        let clean = text.replace(|c: char| c.is_control() || c == '\\', "?");
        let _ = writeln!(self.comments, "# {clean}");
    }

    /// Says in the file, and to the caller, what is not in it.
    fn leave_out(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.comment(&what);
        self.left_out.push(what);
    }

    fn set(&mut self, key: &str, value: &str) {
        if value.chars().any(unreadable) {
            self.leave_out(format!("{key} is left out: a control character is in {value:?}"));
        } else {
            self.variables.insert(key.to_owned(), quoted(value));
        }
    }

    /// `<LINK>_IPV4`. The first link in the kernel's order keeps a key that two would have.
    fn set_for_link(&mut self, link: &Link, value: &str) {
        let key = link_key(&link.name);
        // Also where there is no default address: a link named `default` must not pass for it.
        if key == "DEFAULT_IPV4" || self.variables.contains_key(&key) {
            self.leave_out(format!(
                "{key} of link {} ({value}) is left out: the name of another link makes the same key",
                link.name
            ));
        } else {
            self.set(&key, value);
        }
    }

    fn finish(self) -> Rendered {
        let mut text = self.comments;
        for (key, value) in self.variables {
            let _ = writeln!(text, "{key}={value}");
        }
        Rendered { text: seal::seal(&text), left_out: self.left_out }
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
    use crate::config::Settings;
    use crate::host::facts::Address;
    use crate::identity::Identity;
    use proptest::prelude::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn place() -> Place {
        Identity::sample().place
    }

    /// The file of a configured machine.
    fn text(facts: &Facts, place: &Place) -> String {
        let (settings, name) = (Settings::sample(), Identity::sample().name);
        render(Some(&settings.cluster), facts, Some(&name), Some(place)).text
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
DEFAULT_HOSTNAME=worker-01
DEFAULT_INTERFACE=eth0
DEFAULT_IPV4=10.10.30.21
DEFAULT_MAC=52:54:00:00:00:15
DEFAULT_MTU=1500
DEFAULT_PREFIX=24
ETH0_IPV4=10.10.30.21
LO_IPV4=127.0.0.1
NODE_NAME=worker-01
";
        assert_eq!(text(&Facts::sample(), &place()), seal::seal(want));
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
        let (one, two) = (text(&before, &place()), text(&after, &place()));
        assert_eq!(one, two, "with {:?}", after.links);
    }

    #[test]
    fn other_links_are_listed_with_the_reason() {
        let facts = with(&Facts::sample(), "ens3.100", "vlan", "10.244.9.9", 24);
        let text = text(&with(&facts, "br-lan", "bridge", "192.168.1.1", 24), &place());
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
        let text = text(&facts, &place());
        for part in
            ["\nETH0_1_IPV4=10.1.0.1\n", "\nDEFAULT_IPV4=10.10.30.21\n", "of link eth0_1 (10.2.0.1) is left out"]
        {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        assert!(text.contains("DEFAULT_IPV4 of link default (10.3.0.1) is left out"), "{text}");
    }

    #[test]
    fn without_an_address_the_links_are_listed_and_nothing_passes_for_the_default() {
        let facts = with(&Facts::sample(), "default", "", "10.3.0.1", 24);
        let rendered = render(None, &facts, None, None);
        assert_eq!(rendered.left_out.len(), 2, "{rendered:?}");
        assert!(!rendered.text.lines().any(|line| line.starts_with("DEFAULT_IPV4=")), "{}", rendered.text);
        assert!(rendered.text.contains("\nETH0_IPV4=10.10.30.21\n"), "{}", rendered.text);
        assert_eq!(last_address(rendered.text.as_bytes()), None);
    }

    #[test]
    fn the_last_address_is_read_from_what_nobody_changed() {
        let written = text(&Facts::sample(), &place());
        assert_eq!(last_address(written.as_bytes()), Some(ip("10.10.30.21")));
        assert_eq!(last_address(written.replace("30.21", "30.22").as_bytes()), None, "a person's change");
        assert_eq!(last_address(b"ETH0_IPV4=10.10.30.21\nDEFAULT_IPV4=10.10.30.21\n"), None, "the old tool's");
        let v6 = Place { address: ip("fd00::21"), ipv6: Some(ip("fd00::21")), ..place() };
        assert_eq!(last_address(text(&Facts::sample(), &v6).as_bytes()), Some(ip("fd00::21")));
    }

    #[test]
    fn ipv6_alone_has_no_default_ipv4() {
        let mut facts = Facts::sample();
        facts.links[1].addresses = vec![Address::new(ip("fd00::21"), 64)];
        facts.default_routes[0] =
            DefaultRoute { ipv6: true, gateway: Some(ip("fe80::1")), source: None, ..facts.default_routes[0].clone() };
        let text = text(&facts, &Place { address: ip("fd00::21"), ipv6: Some(ip("fd00::21")), ..place() });
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
            let place = Place { link: name.to_owned(), address: ip("192.168.0.7"), ..place() };
            let text = text(&facts, &place);
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
            let place = Place { link: names[0].clone(), address: ip("192.168.0.7"), ..place() };
            let written = text(&facts, &place);
            let text_again = text(&facts, &place);
            prop_assert!(written.ends_with('\n'));
            let found = systemd_env::read(&written).map_err(|why| TestCaseError::fail(format!("{why}: {written:?}")))?;
            prop_assert_eq!(found.get("DEFAULT_IPV4").map(String::as_str), Some("192.168.0.7"));
            if !names[0].contains(unreadable) {
                prop_assert_eq!(found.get("DEFAULT_INTERFACE"), Some(&names[0]));
            }
            prop_assert_eq!(&written, &text_again);
            prop_assert_eq!(last_address(written.as_bytes()), Some(ip("192.168.0.7")));
        }
    }
}
