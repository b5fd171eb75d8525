//! Ports for servers that cannot be handed a socket. The library's own tests use this file, too.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below what Linux hands out itself (`net.ipv4.ip_local_port_range`, 32768 on), so that no test that runs beside this one
/// gets the port between this look and the server's start: neither as a listener nor as a client.
const FIRST: u16 = 12_000;
const COUNT: u16 = 16_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port of the loopback address that nothing listens on, and that no other call in this process gets soon.
pub fn free_port() -> u16 {
    // Processes that run at the same time begin at different places.
    let begin = u16::try_from(std::process::id() * 97 % u32::from(COUNT)).expect("less than COUNT");
    for _ in 0..COUNT {
        let at = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, FIRST + at)).is_ok() {
            return FIRST + at;
        }
    }
    panic!("no port from {FIRST} to {} is free", FIRST + COUNT);
}
