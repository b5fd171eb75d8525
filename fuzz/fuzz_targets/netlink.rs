//! The kernel's answers for links, addresses and routes, each behind its length: nothing is made up.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nodeagent::host::gather::netlink::replay;

fuzz_target!(|data: &[u8]| {
    let (links, rest) = part(data);
    let (addresses, routes) = part(rest);
    let Ok(network) = replay(links, addresses, routes) else { return };
    // 16 bytes of header and at least as many of body.
    assert!(network.links.len() <= links.len() / 32);
    assert!(network.links.iter().map(|link| link.addresses.len()).sum::<usize>() <= addresses.len() / 24);
    assert!(network.default_routes.len() <= routes.len() / 8);
    assert!(network.links.is_sorted_by(|a, b| a.index < b.index), "an index is there twice");
    for route in &network.default_routes {
        assert!(network.links.iter().any(|link| link.name == route.link), "{route:?} leaves by a link that is not");
    }
});

/// What a length of two bytes announces, and what follows.
fn part(data: &[u8]) -> (&[u8], &[u8]) {
    let Some((length, rest)) = data.split_first_chunk::<2>() else { return (&[], &[]) };
    rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()))
}
