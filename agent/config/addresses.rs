//! Where something is on the network: a domain, a URL, a network.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::values::{BadValue, checked_string, refuse};

checked_string! {
    /// A DNS domain in lower case, such as `cluster.local`.
    DnsDomain, "dns-domain", dns_domain
}
checked_string! {
    /// An absolute `http://` or `https://` URL without user information, query or fragment.
    HttpUrl, "http-url", http_url
}

impl HttpUrl {
    /// The root of what is served over TLS at this address and port.
    pub fn https(address: IpAddr, port: u16) -> Self {
        Self(format!("https://{}", std::net::SocketAddr::new(address, port)))
    }

    /// Whether the connection is authenticated and encrypted.
    pub fn is_https(&self) -> bool {
        self.0.starts_with("https://")
    }

    /// Host and port of the URL, the port by the scheme when it names none.
    pub fn host_port(&self) -> (String, u16) {
        split_authority(&self.0).unwrap_or_default()
    }

    /// This URL with more path behind it.
    pub fn join(&self, path: &str) -> Self {
        Self(format!("{}/{}", self.0.trim_end_matches('/'), path.trim_start_matches('/')))
    }

    /// This URL with more behind its path's last name: never in its host, its port or its query.
    pub fn with_suffix(&self, suffix: &str) -> Self {
        let (place, query) = self.0.split_at(self.0.find('?').unwrap_or(self.0.len()));
        let has_path = place.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
        let slash = if has_path { "" } else { "/" };
        Self(format!("{place}{slash}{suffix}{query}"))
    }
}

fn dns_domain(text: &str) -> Result<String, BadValue> {
    const WANTED: &str = "a DNS domain";
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len()) && label.chars().all(good) && !label.starts_with('-') && !label.ends_with('-')
    };
    if text.len() > 253 || !text.split('.').all(label_ok) {
        return Err(refuse(text, WANTED, "it must be labels of lower-case letters, digits and '-', between dots"));
    }
    Ok(text.to_owned())
}

fn http_url(text: &str) -> Result<String, BadValue> {
    const WANTED: &str = "an http(s) URL";
    if text.contains(['?', '#', '@']) || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(refuse(text, WANTED, "it must have no user, query, fragment or white space"));
    }
    match split_authority(text) {
        Ok(_) => Ok(text.trim_end_matches('/').to_owned()),
        Err(why) => Err(refuse(text, WANTED, why)),
    }
}

/// Host and port of an http(s) URL.
fn split_authority(url: &str) -> Result<(String, u16), &'static str> {
    let (rest, default) = if let Some(rest) = url.strip_prefix("https://") {
        (rest, 443)
    } else if let Some(rest) = url.strip_prefix("http://") {
        (rest, 80)
    } else {
        return Err("it does not start with https:// or http://");
    };
    let authority = rest.split('/').next().unwrap_or("");
    let (host, port) = if let Some(bracketed) = authority.strip_prefix('[') {
        let (host, after) = bracketed.split_once(']').ok_or("its [ has no ]")?;
        host.parse::<std::net::Ipv6Addr>().map_err(|_| "what stands in [ ] is not an IPv6 address")?;
        (host, after.strip_prefix(':').or(if after.is_empty() { None } else { Some("") }))
    } else {
        match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    if host.is_empty() {
        return Err("it names no host (an empty variable?)");
    }
    // As `nodeagent wait` has it: units wait for the host that stands here.
    let in_a_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if host.len() > 253 || !(authority.starts_with('[') || host.chars().all(in_a_name)) {
        return Err("its host is neither a name nor an address");
    }
    let port = match port {
        None => default,
        Some(port) => match port.parse::<u16>() {
            Ok(number) if number > 0 && port.bytes().all(|b| b.is_ascii_digit()) => number,
            _ => return Err("its port is not a number from 1 to 65535"),
        },
    };
    Ok((host.to_owned(), port))
}

/// An IP network in CIDR notation, its host bits cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// How many bits all of its addresses share.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether the address lies in this network. An address of the other family never does.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                mask_v4(u32::from(address), self.prefix) == u32::from(network)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                mask_v6(u128::from(address), self.prefix) == u128::from(network)
            }
            _ => false,
        }
    }

    /// Its two halves; none of a single address.
    pub fn halves(&self) -> Option<[Self; 2]> {
        let longest = if self.network.is_ipv4() { 32 } else { 128 };
        let prefix = self.prefix.checked_add(1).filter(|prefix| *prefix <= longest)?;
        let lower = Self { network: self.network, prefix };
        let upper = match self.network {
            IpAddr::V4(network) => IpAddr::V4((u32::from(network) | 1 << (longest - prefix)).into()),
            IpAddr::V6(network) => IpAddr::V6((u128::from(network) | 1 << (longest - prefix)).into()),
        };
        Some([lower, Self { network: upper, prefix }])
    }

    /// Its last address: an IPv4 network's broadcast address.
    pub fn last(&self) -> IpAddr {
        match self.network {
            IpAddr::V4(network) => IpAddr::V4((u32::from(network) | !mask_v4(u32::MAX, self.prefix)).into()),
            IpAddr::V6(network) => IpAddr::V6((u128::from(network) | !mask_v6(u128::MAX, self.prefix)).into()),
        }
    }

    /// The address at `offset` from the network's first, such as the service network's `.1` and `.10`.
    pub fn nth(&self, offset: u8) -> IpAddr {
        match self.network {
            IpAddr::V4(network) => IpAddr::V4((u32::from(network).wrapping_add(u32::from(offset))).into()),
            IpAddr::V6(network) => IpAddr::V6((u128::from(network).wrapping_add(u128::from(offset))).into()),
        }
    }
}

fn mask_v4(bits: u32, prefix: u8) -> u32 {
    if prefix == 0 { 0 } else { bits & (u32::MAX << (32 - u32::from(prefix))) }
}

fn mask_v6(bits: u128, prefix: u8) -> u128 {
    if prefix == 0 { 0 } else { bits & (u128::MAX << (128 - u32::from(prefix))) }
}

impl FromStr for Cidr {
    type Err = BadValue;
    fn from_str(text: &str) -> Result<Self, BadValue> {
        const WANTED: &str = "a network in CIDR notation such as 10.10.30.0/24";
        let (address, prefix) = text.split_once('/').ok_or_else(|| refuse(text, WANTED, "it has no /prefix"))?;
        let address: IpAddr =
            address.parse().map_err(|_| refuse(text, WANTED, format!("{address:?} is not an IP address")))?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix
            .parse::<u8>()
            .ok()
            .filter(|p| *p <= longest)
            .ok_or_else(|| refuse(text, WANTED, format!("the prefix must be 0 to {longest}")))?;
        let network = match address {
            IpAddr::V4(v4) => IpAddr::V4(mask_v4(u32::from(v4), prefix).into()),
            IpAddr::V6(v6) => IpAddr::V6(mask_v6(u128::from(v6), prefix).into()),
        };
        Ok(Self { network, prefix })
    }
}

impl TryFrom<String> for Cidr {
    type Error = BadValue;
    fn try_from(text: String) -> Result<Self, BadValue> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> String {
        cidr.to_string()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl JsonSchema for Cidr {
    fn schema_name() -> Cow<'static, str> {
        "Cidr".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "cidr" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cidr_clears_host_bits_and_counts() {
        let cidr: Cidr = "10.10.30.77/24".parse().expect("a network");
        assert_eq!(cidr.to_string(), "10.10.30.0/24");
        assert_eq!(cidr.nth(10).to_string(), "10.10.30.10");
        assert_eq!(cidr.last().to_string(), "10.10.30.255");
        let halves = cidr.halves().map(|halves| halves.map(|half| half.to_string()));
        assert_eq!(halves, Some(["10.10.30.0/25", "10.10.30.128/25"].map(str::to_owned)));
        for single in ["10.0.0.1/32", "fd00::1/128"] {
            let single: Cidr = single.parse().expect(single);
            assert_eq!((single.halves(), single.last()), (None, single.nth(0)));
        }
        assert!(cidr.contains("10.10.30.255".parse().expect("an address")));
        assert!(!cidr.contains("10.10.31.0".parse().expect("an address")));
        assert!(!cidr.contains("::1".parse().expect("an address")));
    }

    #[test]
    fn url_parts() {
        let url: HttpUrl = "https://[fd00::1]:6443/".parse().expect("a URL");
        assert_eq!(url.host_port(), ("fd00::1".to_owned(), 6443));
        for (url, signature) in [
            ("https://h/lock.json", "https://h/lock.json.sig"),
            ("https://h:8443", "https://h:8443/.sig"),
            ("https://[fd00::1]", "https://[fd00::1]/.sig"),
            ("https://h", "https://h/.sig"),
        ] {
            let url: HttpUrl = url.parse().expect(url);
            let behind = url.with_suffix(".sig");
            assert_eq!(behind.to_string(), signature);
            assert_eq!(behind.host_port(), url.host_port());
        }
        assert_eq!(url.join("/a").as_str(), "https://[fd00::1]:6443/a");
    }
}
