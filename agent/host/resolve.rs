//! Names to addresses, by the system's resolver (`/etc/hosts`, then DNS).
//!
//! Each family is asked by itself. musl's `getaddrinfo` fails a lookup of both when only the AAAA half errs (SERVFAIL,
//! or no reply), as it does behind many a small DNS server; here a missing or late IPv6 answer costs only itself.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use dns_lookup::{AddrFamily, AddrInfoHints, SockType, getaddrinfo};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// How long IPv6 addresses are waited for when the IPv4 ones are there (RFC 8305 waits as long, the other way round).
const GRACE: Duration = Duration::from_millis(50);

/// The resolver's reason. It goes through the HTTP client unharmed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unresolved(pub String);

/// The addresses of `host`, IPv4 first. `localhost` is this machine's loopback without asking (RFC 6761).
///
/// Its end is the caller's to set: what is dropped goes on, on a thread of its own, until the resolver gives up.
pub async fn resolve(host: &str) -> Result<Vec<IpAddr>, Unresolved> {
    if let Some(known) = known(host) {
        return Ok(known);
    }
    let ask = |family: AddrFamily| {
        let host = host.to_owned();
        let asked = spawn_blocking(move || lookup(&host, family));
        async move { asked.await.unwrap_or_else(|ended| Err(Unresolved(ended.to_string()))) }
    };
    let (v4, v6) = (ask(AddrFamily::Inet), ask(AddrFamily::Inet6));
    match v4.await {
        Ok(mut found) => {
            if let Ok(Ok(more)) = timeout(GRACE, v6).await {
                found.extend(more);
            }
            Ok(found)
        }
        Err(why) => v6.await.map_err(|_| why),
    }
}

/// As [`resolve`], for callers that may block: IPv6 addresses only where there are no IPv4 ones.
pub fn resolve_blocking(host: &str) -> Result<Vec<IpAddr>, Unresolved> {
    if let Some(known) = known(host) {
        return Ok(known);
    }
    lookup(host, AddrFamily::Inet).or_else(|why| lookup(host, AddrFamily::Inet6).map_err(|_| why))
}

fn known(host: &str) -> Option<Vec<IpAddr>> {
    if host == "localhost" {
        return Some(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    host.parse().ok().map(|ip| vec![ip])
}

/// At least one address.
fn lookup(host: &str, family: AddrFamily) -> Result<Vec<IpAddr>, Unresolved> {
    let hints = AddrInfoHints { address: family.into(), socktype: SockType::Stream.into(), ..AddrInfoHints::default() };
    let found: io::Result<Vec<IpAddr>> = getaddrinfo(Some(host), None, Some(hints))
        .map_err(io::Error::from)
        .and_then(|found| found.map(|one| Ok(one?.sockaddr.ip())).collect());
    match found {
        Ok(found) if found.is_empty() => Err(Unresolved("it has no address".to_owned())),
        Ok(found) => Ok(found),
        Err(error) => {
            let why = error.to_string();
            Err(Unresolved(why.strip_prefix("failed to lookup address information: ").unwrap_or(&why).to_owned()))
        }
    }
}

/// The same for the HTTP client.
pub struct Resolver;

impl reqwest::dns::Resolve for Resolver {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        Box::pin(async move {
            let found = resolve(name.as_str()).await?;
            Ok(Box::new(found.into_iter().map(|ip| SocketAddr::new(ip, 0))) as reqwest::dns::Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_asking_anybody() {
        let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        for (host, want) in [("localhost", &loopback[..]), ("127.0.0.1", &loopback[..1]), ("::1", &loopback[1..])] {
            assert_eq!(resolve(host).await.as_deref(), Ok(want), "{host}");
            assert_eq!(resolve_blocking(host).as_deref(), Ok(want), "{host}");
        }
    }

    #[tokio::test]
    async fn a_name_that_nobody_may_have() {
        let found = resolve("no-such-name.invalid").await;
        assert!(found.is_err(), "{found:?}");
        assert!(resolve_blocking("no-such-name.invalid").is_err());
    }
}
