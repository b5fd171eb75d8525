//! `/etc/network-environment` for any links: systemd reads back the values that were written, and all of the file.
#![no_main]

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use nodeagent::config::Settings;
use nodeagent::engine::seal;
use nodeagent::host::facts::{Address, Facts, Link};
use nodeagent::identity::{Identity, Place};

#[path = "../../tests/reader/systemd_env.rs"]
mod systemd_env;

#[derive(Debug, Arbitrary)]
struct Machine {
    why: String,
    links: Vec<(String, String, String, std::net::IpAddr, u8)>,
}

static SETTINGS: LazyLock<Settings> = LazyLock::new(Settings::sample);

fuzz_target!(|machine: Machine| {
    let mut facts = Facts::sample();
    for (index, (name, kind, mac, ip, prefix)) in machine.links.iter().enumerate() {
        facts.links.push(Link {
            index: u32::try_from(index).expect("few links"),
            name: name.clone(),
            kind: kind.clone(),
            mac: mac.clone(),
            addresses: vec![Address::new(*ip, *prefix)],
            ..facts.links[1].clone()
        });
    }
    let chosen = facts.links.last().expect("links").clone();
    let place = Place {
        address: chosen.addresses[0].ip,
        ipv6: Some(chosen.addresses[0].ip).filter(std::net::IpAddr::is_ipv6),
        link: chosen.name.clone(),
        why: machine.why,
        ..Identity::sample().place
    };
    let name = Identity::sample().name;
    let text = nodeagent::network::render(Some(&SETTINGS.cluster), &facts, Some(&name), Some(&place)).text;
    assert!(seal::holds(text.as_bytes()), "{text:?}");
    assert_eq!(nodeagent::network::last_address(text.as_bytes()), Some(place.address), "{text:?}");
    let found = systemd_env::read(&text).unwrap_or_else(|why| panic!("{why}\n{text:?}"));
    assert_eq!(found.get("NODE_NAME").map(String::as_str), Some("worker-01"), "{text:?}");
    if let Some(link) = found.get("DEFAULT_INTERFACE") {
        assert_eq!(*link, chosen.name, "{text:?}");
    }
    if place.address.is_ipv4() {
        assert_eq!(found.get("DEFAULT_IPV4"), Some(&place.address.to_string()), "{text:?}");
    }
});
