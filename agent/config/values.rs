//! Values that cannot hold a bad one: checked once, when they are made, and never again.
//!
//! Each is a string on the outside (YAML, JSON, the ledger), says in its error what it wanted, and names itself to the
//! schema by a `format`, so that the configuration check can report every bad value at once (see [`super::check`]).

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

pub use super::names::{CertName, CommonName, ImageName, LabelKey, LabelValue};
pub use super::proxy::ProxyUrl;
pub use super::quantities::{Every, Keep, Parallel, Port, Rate, Span};

/// A value was refused: what was wanted, and why this is not it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not {wanted}: {why}")]
pub struct BadValue {
    value: String,
    wanted: &'static str,
    why: String,
}

impl BadValue {
    /// Why it was refused, without the value.
    pub fn why(&self) -> &str {
        &self.why
    }
}

pub(super) fn refuse(value: &str, wanted: &'static str, why: impl Into<String>) -> BadValue {
    BadValue { value: value.to_owned(), wanted, why: why.into() }
}

/// Declares a checked string: its parse function decides, everything else follows.
macro_rules! checked_string {
    ($(#[$doc:meta])* $name:ident, $format:literal, $parse:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The checked text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = BadValue;
            fn from_str(text: &str) -> Result<Self, BadValue> {
                $parse(text).map(Self)
            }
        }
        impl TryFrom<String> for $name {
            type Error = BadValue;
            fn try_from(text: String) -> Result<Self, BadValue> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": $format })
            }
        }
    };
}

pub(super) use checked_string;

checked_string! {
    /// A path inside the root: absolute, without `.` or `..`, without a trailing slash (but for `/` itself).
    RootPath, "path", root_path
}
checked_string! {
    /// A systemd unit name with its type suffix, such as `kubelet.service` (systemd.unit(5)).
    UnitName, "unit", unit_name
}
checked_string! {
    /// A node's name: a lower-case RFC 1123 subdomain other than `localhost`, as Kubernetes requires of a Node object.
    NodeName, "node-name", node_name
}
checked_string! {
    /// A network interface's name as the kernel accepts it: 1 to 15 bytes, no `/`, no white space (`dev_valid_name`).
    InterfaceName, "interface", interface_name
}
checked_string! {
    /// A sysctl in its dotted form, such as `net.ipv4.ip_forward` (sysctl.d(5)).
    SysctlKey, "sysctl", sysctl_key
}
checked_string! {
    /// A kernel module's name, underscores and dashes alike (modules-load.d(5)).
    ModuleName, "module", module_name
}
checked_string! {
    /// A SHA-256 in 64 lower-case hexadecimal digits.
    Sha256, "sha256", sha256
}
checked_string! {
    /// The SHA-256 of a public key, as kubeadm writes it: `sha256:` and 64 hexadecimal digits.
    KeyHash, "key-hash", key_hash
}
checked_string! {
    /// A SHA-512 in 128 lower-case hexadecimal digits.
    Sha512, "sha512", sha512
}
checked_string! {
    /// A Kubernetes release: `v` and a semantic version, such as `v1.34.2`.
    Version, "version", version
}
checked_string! {
    /// The name of an artifact, and of the program that it installs: a file name of lower-case letters, digits, `-`, `.`, `_`.
    ArtifactName, "artifact", artifact_name
}
checked_string! {
    /// An artifact's version: part of the path where it is kept, so a file name.
    ArtifactVersion, "artifact-version", artifact_version
}
checked_string! {
    /// A DNS domain in lower case, such as `cluster.local`.
    DnsDomain, "dns-domain", dns_domain
}
checked_string! {
    /// An absolute `http://` or `https://` URL without user information, query or fragment.
    HttpUrl, "http-url", http_url
}

impl RootPath {
    /// A path that the program itself wrote down.
    ///
    /// # Panics
    /// When the literal is not a root path, which a test would show at once.
    pub fn literal(path: &str) -> Self {
        match path.parse() {
            Ok(path) => path,
            Err(error) => panic!("{error}"),
        }
    }

    /// The path of `name` in this directory. `name` may be several components.
    ///
    /// # Panics
    /// When `name` would not stay below this directory: names come from checked values only.
    pub fn join(&self, name: &str) -> Self {
        let base = self.0.trim_end_matches('/');
        let below = Self::literal(&format!("/{name}"));
        Self(format!("{base}{below}"))
    }

    /// The directory that holds it; `/` for itself.
    pub fn parent(&self) -> Self {
        match self.0.rfind('/') {
            Some(0) | None => Self("/".to_owned()),
            Some(at) => Self(self.0[..at].to_owned()),
        }
    }

    /// Whether it lies below that directory, however deep.
    pub fn is_below(&self, dir: &Self) -> bool {
        self.0.strip_prefix(dir.0.trim_end_matches('/')).is_some_and(|rest| rest.len() > 1 && rest.starts_with('/'))
    }

    /// The last component; empty for `/`.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or("")
    }

    /// The path relative to the root, as a system call relative to the root's handle wants it.
    pub fn relative(&self) -> &str {
        match self.0.trim_start_matches('/') {
            "" => ".",
            rest => rest,
        }
    }
}

impl UnitName {
    /// A unit that the program itself knows by name.
    ///
    /// # Panics
    /// When the literal is not a unit name, which a test would show at once.
    pub fn literal(name: &str) -> Self {
        match name.parse() {
            Ok(name) => name,
            Err(error) => panic!("{error}"),
        }
    }

    /// The name without its type: `kubelet` of `kubelet.service`.
    pub fn stem(&self) -> &str {
        self.0.rsplit_once('.').map_or(self.0.as_str(), |(stem, _)| stem)
    }
}

impl SysctlKey {
    /// The file below `/proc/sys` (dots separate, and a slash stands for a dot within a component, as in sysctl.d(5)).
    pub fn file(&self) -> String {
        let swapped: String = self
            .0
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect();
        format!("/proc/sys/{swapped}")
    }
}

impl Sha256 {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_raw(&openssl::sha::sha256(bytes))
    }

    /// The digest whose 32 bytes are `raw`.
    pub fn from_raw(raw: &[u8; 32]) -> Self {
        Self(hex(raw))
    }

    /// Enough of it to tell two apart on a screen.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl Sha512 {
    /// The digest whose 64 bytes are `raw`.
    pub fn from_raw(raw: &[u8; 64]) -> Self {
        Self(hex(raw))
    }

    /// Enough of it to tell two apart on a screen.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

fn hex(raw: &[u8]) -> String {
    use fmt::Write as _;
    let mut text = String::with_capacity(2 * raw.len());
    for byte in raw {
        let _ = write!(text, "{byte:02x}");
    }
    text
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

fn root_path(text: &str) -> Result<String, BadValue> {
    const WANTED: &str = "an absolute path";
    if !text.starts_with('/') {
        return Err(refuse(text, WANTED, "it does not start with /"));
    }
    if text.contains(char::is_control) || text.len() > 4000 {
        return Err(refuse(text, WANTED, "it is too long or holds a control character"));
    }
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return Err(refuse(text, WANTED, "it climbs with .."));
    }
    Ok(format!("/{}", parts.join("/")))
}

/// Most bytes of a path that the configuration may name: far more than anyone needs, and far enough below the most that
/// a [`RootPath`] takes that files can be named below it.
const LONGEST_GIVEN_PATH: usize = 1024;

fn short_enough(path: &str) -> Result<(), BadValue> {
    if path.len() > LONGEST_GIVEN_PATH {
        return Err(refuse(path, "a path", format!("it is longer than {LONGEST_GIVEN_PATH} bytes")));
    }
    Ok(())
}

fn unit_name(text: &str) -> Result<String, BadValue> {
    const WANTED: &str = "a unit name such as kubelet.service";
    const TYPES: [&str; 11] =
        ["service", "socket", "target", "timer", "mount", "automount", "swap", "path", "slice", "scope", "device"];
    let Some((stem, kind)) = text.rsplit_once('.') else {
        return Err(refuse(text, WANTED, "it has no type such as .service"));
    };
    if stem.is_empty() || text.len() > 255 {
        return Err(refuse(text, WANTED, "it is empty or longer than 255 bytes"));
    }
    if !TYPES.contains(&kind) {
        return Err(refuse(text, WANTED, format!("systemd has no unit type {kind:?}")));
    }
    match stem.chars().find(|c| !c.is_ascii_alphanumeric() && !":-_.\\@".contains(*c)) {
        Some(bad) => Err(refuse(text, WANTED, format!("{bad:?} cannot be in a unit name"))),
        None => Ok(text.to_owned()),
    }
}

fn node_name(text: &str) -> Result<String, BadValue> {
    const WANTED: &str = "a node name";
    let label_ok = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.is_empty() {
        return Err(refuse(text, WANTED, "it is empty"));
    }
    if text == "localhost" || text.starts_with("localhost.") {
        return Err(refuse(text, WANTED, "every machine is localhost; set node.name or the hostname"));
    }
    if text.len() > 253 || !text.split('.').all(label_ok) {
        return Err(refuse(text, WANTED, "RFC 1123 wants lower-case letters, digits, '-' and '.', at most 253"));
    }
    Ok(text.to_owned())
}

fn interface_name(text: &str) -> Result<String, BadValue> {
    const WANTED: &str = "an interface name";
    if text.is_empty() || text.len() > 15 || text == "." || text == ".." {
        return Err(refuse(text, WANTED, "it must have 1 to 15 bytes"));
    }
    match text.chars().find(|c| c.is_whitespace() || *c == '/' || *c == ':' || c.is_control()) {
        Some(bad) => Err(refuse(text, WANTED, format!("{bad:?} cannot be in it"))),
        None => Ok(text.to_owned()),
    }
}

fn sysctl_key(text: &str) -> Result<String, BadValue> {
    const WANTED: &str = "a sysctl such as net.ipv4.ip_forward";
    let parts: Vec<&str> = text.split('.').collect();
    let good = |part: &&str| {
        !part.is_empty()
            && !part.starts_with('/')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_/:@".contains(c))
    };
    if parts.len() < 2 || !parts.iter().all(good) || text.contains("//") {
        return Err(refuse(text, WANTED, "it must be dotted words of letters, digits, - and _"));
    }
    Ok(text.to_owned())
}

fn module_name(text: &str) -> Result<String, BadValue> {
    const WANTED: &str = "a kernel module's name";
    if text.is_empty() || text.len() > 55 || !text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
        return Err(refuse(text, WANTED, "it must be letters, digits, - and _"));
    }
    Ok(text.replace('-', "_"))
}

fn sha256(text: &str) -> Result<String, BadValue> {
    hex_digits(text, "a SHA-256", 64)
}

fn key_hash(text: &str) -> Result<String, BadValue> {
    const WANTED: &str = "a public key's hash such as sha256: and 64 hexadecimal digits";
    let Some(digits) = text.strip_prefix("sha256:") else {
        return Err(refuse(text, WANTED, "it does not start with sha256:"));
    };
    match sha256(digits) {
        Ok(digits) => Ok(format!("sha256:{digits}")),
        Err(error) => Err(refuse(text, WANTED, error.why())),
    }
}

fn sha512(text: &str) -> Result<String, BadValue> {
    hex_digits(text, "a SHA-512", 128)
}

fn hex_digits(text: &str, wanted: &'static str, count: usize) -> Result<String, BadValue> {
    if text.len() != count {
        return Err(refuse(text, wanted, format!("it has {} characters, not {count}", text.len())));
    }
    if !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(refuse(text, wanted, "it holds something other than hexadecimal digits"));
    }
    Ok(text.to_ascii_lowercase())
}

impl Version {
    /// The 34 of v1.34.2.
    pub fn minor(&self) -> u32 {
        // Checked when it was made: three numbers of less than ten digits.
        self.0.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or(0)
    }

    /// Its minor release: the 1 and 34 of v1.34.2.
    pub fn release(&self) -> (u32, u32) {
        // Checked when it was made: three numbers of less than ten digits.
        let major = self.0[1..].split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
        (major, self.minor())
    }

    /// Whether it is this minor release, or a later one.
    pub fn is_at_least(&self, major: u32, minor: u32) -> bool {
        self.release() >= (major, minor)
    }
}

fn version(text: &str) -> Result<String, BadValue> {
    const WANTED: &str = "a Kubernetes version such as v1.34.2";
    let Some(rest) = text.strip_prefix('v') else {
        return Err(refuse(text, WANTED, "it does not start with v"));
    };
    let (core, suffix) = rest.split_at(rest.find(['-', '+']).unwrap_or(rest.len()));
    let numbers: Vec<&str> = core.split('.').collect();
    let number_ok = |n: &&str| {
        !n.is_empty() && n.len() < 10 && n.bytes().all(|b| b.is_ascii_digit()) && (*n == "0" || !n.starts_with('0'))
    };
    if numbers.len() != 3 || !numbers.iter().all(number_ok) {
        return Err(refuse(text, WANTED, "it needs three numbers"));
    }
    if !suffix.chars().all(|c| c.is_ascii_alphanumeric() || "-+.".contains(c)) || suffix.len() == 1 {
        return Err(refuse(text, WANTED, "what follows the numbers is not a semantic version's"));
    }
    Ok(text.to_owned())
}

fn artifact_name(text: &str) -> Result<String, BadValue> {
    const WANTED: &str = "an artifact's name";
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
    if text.is_empty() || text.len() > 64 || !text.chars().all(good) || text.starts_with(['.', '-']) {
        return Err(refuse(text, WANTED, "it must be a file name of lower-case letters, digits, '-', '.' and '_'"));
    }
    Ok(text.to_owned())
}

fn artifact_version(text: &str) -> Result<String, BadValue> {
    const WANTED: &str = "an artifact's version";
    let good = |c: char| c.is_ascii_alphanumeric() || "-._+".contains(c);
    if text.is_empty() || text.len() > 64 || !text.chars().all(good) || !text.starts_with(char::is_alphanumeric) {
        return Err(refuse(text, WANTED, "it must be a file name of letters, digits, '-', '.', '_' and '+'"));
    }
    Ok(text.to_owned())
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

/// Whether `text` is a good value of the schema's `format`; unknown formats accept everything.
///
/// This is how the configuration check reports every bad value at once: serde alone stops at the first.
pub fn check_format(format: &str, text: &str) -> Result<(), BadValue> {
    fn check<T: FromStr<Err = BadValue>>(text: &str) -> Result<(), BadValue> {
        text.parse::<T>().map(drop)
    }
    match format {
        "path" => check::<RootPath>(text).and_then(|()| short_enough(text)),
        "unit" => check::<UnitName>(text),
        "node-name" => check::<NodeName>(text),
        "interface" => check::<InterfaceName>(text),
        "sysctl" => check::<SysctlKey>(text),
        "module" => check::<ModuleName>(text),
        "sha256" => check::<Sha256>(text),
        "sha512" => check::<Sha512>(text),
        "key-hash" => check::<KeyHash>(text),
        "version" => check::<Version>(text),
        "artifact" => check::<ArtifactName>(text),
        "http-url" => check::<HttpUrl>(text),
        "cidr" => check::<Cidr>(text),
        "artifact-version" => check::<ArtifactVersion>(text),
        "dns-domain" => check::<DnsDomain>(text),
        "image-name" => check::<ImageName>(text),
        "label-key" => check::<LabelKey>(text),
        "label-value" => check::<LabelValue>(text),
        "common-name" => check::<CommonName>(text),
        "cert-name" => check::<CertName>(text),
        "limit" => check::<Limit>(text),
        "span" => check::<Span>(text),
        "rate" => check::<Rate>(text),
        "every" => check::<Every>(text),
        "keep" => check::<Keep>(text),
        "parallel" => check::<Parallel>(text),
        "port" => check::<Port>(text),
        "proxy-url" => check::<ProxyUrl>(text),
        // The name that schemars gives to an IP address.
        "ip" => text.parse::<IpAddr>().map(drop).map_err(|_| refuse(text, "an IP address", "it does not parse as one")),
        _ => Ok(()),
    }
}

/// A resource limit as systemd writes it: a number, `soft:hard`, or `infinity` (systemd.exec(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Limit {
    /// What a process gets.
    pub soft: u64,
    /// How far it may raise that itself. [`Limit::INFINITY`] is "no limit".
    pub hard: u64,
}

impl Limit {
    /// "No limit", as systemd shows it over D-Bus and `RLIM_INFINITY` in the kernel.
    pub const INFINITY: u64 = u64::MAX;
}

impl FromStr for Limit {
    type Err = BadValue;
    fn from_str(text: &str) -> Result<Self, BadValue> {
        const WANTED: &str = "a limit: a number, soft:hard, or infinity";
        let one = |part: &str| match part {
            "infinity" => Ok(Limit::INFINITY),
            number => number.parse::<u64>().map_err(|_| refuse(text, WANTED, format!("{number:?} is no number"))),
        };
        let (soft, hard) = match text.split_once(':') {
            Some((soft, hard)) => (one(soft)?, one(hard)?),
            None => (one(text)?, one(text)?),
        };
        if soft > hard {
            return Err(refuse(text, WANTED, "the soft limit is above the hard one"));
        }
        Ok(Self { soft, hard })
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = |value: u64| if value == Self::INFINITY { "infinity".to_owned() } else { value.to_string() };
        if self.soft == self.hard {
            f.write_str(&one(self.soft))
        } else {
            write!(f, "{}:{}", one(self.soft), one(self.hard))
        }
    }
}

impl TryFrom<String> for Limit {
    type Error = BadValue;
    fn try_from(text: String) -> Result<Self, BadValue> {
        text.parse()
    }
}

impl From<Limit> for String {
    fn from(limit: Limit) -> String {
        limit.to_string()
    }
}

impl JsonSchema for Limit {
    fn schema_name() -> Cow<'static, str> {
        "Limit".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // YAML writers put plain numbers here; the check hands both on as text.
        json_schema!({ "type": ["string", "integer"], "format": "limit" })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn formats_accept_and_refuse() {
        let table: &[(&str, &[&str], &[&str])] = &[
            ("path", &["/", "/etc/x", "/etc//x/"], &["", "etc", "/../x", "/a/../b"]),
            (
                "unit",
                &["kubelet.service", "a@b.service", "dev-sda1.swap"],
                &["kubelet", ".service", "a b.service", "a.x"],
            ),
            ("node-name", &["core-01", "a.b.c"], &["", "localhost", "Core", "a_b", "-a", "localhost.localdomain"]),
            ("interface", &["eth0", "flannel.1"], &["", "a b", "a/b", "sixteen-bytes-xx"]),
            ("sysctl", &["net.ipv4.ip_forward"], &["x", "a..b", "../etc"]),
            ("module", &["br_netfilter", "ip-vs"], &["", "a/b", "a.ko"]),
            ("sha256", &[&"aB".repeat(32)], &["", "ab", &"zz".repeat(32)]),
            (
                "key-hash",
                &[&format!("sha256:{}", "aB".repeat(32))],
                &["", "sha256:", &"ab".repeat(32), &format!("sha512:{}", "ab".repeat(32))],
            ),
            ("sha512", &[&"aB".repeat(64)], &["", &"aB".repeat(32), &"zz".repeat(64)]),
            ("version", &["v1.34.2", "v1.35.0-rc.1"], &["1.34.2", "v1.34", "v01.2.3", "v1.2.3-"]),
            ("artifact", &["kube-proxy"], &["", "../x", "A", ".x"]),
            (
                "http-url",
                &["https://10.10.30.11:6443", "http://[::1]:8080/x", "https://api"],
                &[
                    "",
                    "ftp://x",
                    "http://:8080",
                    "https://x:0",
                    "https://u@x",
                    "https://x/?q",
                    "http://[::1",
                    "http://a:+80",
                    "http://a%b",
                    "https://${API}:6443",
                ],
            ),
            ("artifact-version", &["v1.34.2", "2.1.4"], &["", "../x", ".x", "a/b"]),
            ("span", &["45s", "10m", "24h"], &["", "s", "0s", "10", "25h", "-1s", "1d", "99999999999999999999h"]),
            ("rate", &["500", "64k", "2M"], &["", "0", "k", "1G", "+5", "99999999999999999999M"]),
            ("parallel", &["1", "16"], &["", "0", "17", "x"]),
            ("proxy-url", &["http://p:3128", "https://u:p@p"], &["", "p", "http://u@p", "socks5://p"]),
            ("dns-domain", &["cluster.local", "k8s"], &["", "a..b", "Cluster.local", "-a"]),
            ("ip", &["10.96.0.10", "fd00::a"], &["", "10.96.0", "10.96.0.10/12"]),
            ("cidr", &["10.0.0.0/8", "fd00::/64", "0.0.0.0/0"], &["10.0.0.0", "10.0.0.0/33", "x/8"]),
            ("limit", &["1024", "1024:524288", "infinity"], &["", "-1", "5:4", "many"]),
        ];
        for (format, good, bad) in table {
            for text in *good {
                assert!(check_format(format, text).is_ok(), "{format} refused {text:?}");
            }
            for text in *bad {
                assert!(check_format(format, text).is_err(), "{format} accepted {text:?}");
            }
        }
    }

    #[test]
    fn errors_are_one_line_whatever_was_refused() {
        for format in
            ["path", "unit", "node-name", "interface", "sysctl", "module", "version", "http-url", "cidr", "limit"]
        {
            for text in ["/a\nb", "kubelet.se\0rvice", "a\u{1b}.b", "1\r/2", "http://a\n:1"] {
                let error = check_format(format, text).expect_err(text).to_string();
                assert!(!error.contains(char::is_control), "{format}: {error:?}");
            }
        }
    }

    #[test]
    fn a_path_that_is_given_leaves_room_for_names_below_it() {
        let long = format!("/{}", "x".repeat(LONGEST_GIVEN_PATH));
        assert!(check_format("path", &long).is_err_and(|error| error.to_string().contains("longer than 1024 bytes")));
        assert!(check_format("path", &long[..LONGEST_GIVEN_PATH]).is_ok());
        // Joining names to the longest one that a type alone accepts would panic.
        assert!(long.parse::<RootPath>().is_ok());
    }

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

    /// The text of a value is the value, also by way of JSON.
    fn reads_back<T>(text: &str) -> Result<Option<T>, TestCaseError>
    where
        T: FromStr<Err = BadValue> + fmt::Display + fmt::Debug + PartialEq + Serialize + serde::de::DeserializeOwned,
    {
        let Ok(value) = text.parse::<T>() else { return Ok(None) };
        prop_assert!(value.to_string().parse::<T>().is_ok_and(|again| again == value), "{:?}", value);
        let json = serde_json::to_string(&value).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert!(serde_json::from_str::<T>(&json).is_ok_and(|again| again == value), "{:?}", value);
        Ok(Some(value))
    }

    /// A good value of every kind, and text that is none of any.
    fn some_text() -> impl Strategy<Value = String> {
        prop_oneof![
            "\\PC{0,40}",
            "(/[a-z.]{0,5}){1,5}",
            "[a-zA-Z0-9:_.@-]{1,20}\\.(service|slice|timer)",
            "[a-z0-9-]{1,10}(\\.[a-z0-9-]{1,10}){0,3}",
            "[a-z0-9_/]{1,8}(\\.[a-z0-9_/]{1,8}){1,3}",
            "[0-9a-fA-F]{64}",
            "v[0-9]{1,3}(\\.[0-9]{1,3}){2}([-+][a-z0-9.]{0,5})?",
            "https?://([a-z0-9._-]{1,9}|\\[[0-9a-f:]{2,9}\\])(:[0-9+]{1,6})?(/[a-z/]{0,9})?",
            "([0-9]{1,20}|infinity)(:([0-9]{1,20}|infinity))?",
            "[0-9]{1,3}(\\.[0-9]{1,3}){3}/[0-9]{1,2}",
            "[0-9a-f:]{2,20}/[0-9]{1,3}",
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn every_value_reads_back(text in some_text()) {
            reads_back::<UnitName>(&text)?;
            reads_back::<NodeName>(&text)?;
            reads_back::<InterfaceName>(&text)?;
            reads_back::<ModuleName>(&text)?;
            reads_back::<Sha256>(&text)?;
            reads_back::<KeyHash>(&text)?;
            reads_back::<Version>(&text)?;
            reads_back::<ArtifactName>(&text)?;
            reads_back::<ArtifactVersion>(&text)?;
            reads_back::<DnsDomain>(&text)?;
            reads_back::<RootPath>(&text)?;
            reads_back::<Limit>(&text)?;
            reads_back::<Cidr>(&text)?;
            if let Some(key) = reads_back::<SysctlKey>(&text)? {
                let file = key.file();
                prop_assert_eq!(file.parse::<RootPath>().map(String::from), Ok(file));
            }
            if let Some(url) = reads_back::<HttpUrl>(&text)? {
                let joined = url.join("/a/b");
                prop_assert_eq!(joined.as_str().parse(), Ok(joined));
            }
        }

        #[test]
        fn limits_read_back(a in any::<u64>(), b in any::<u64>()) {
            let limit = Limit { soft: a.min(b), hard: a.max(b) };
            prop_assert_eq!(limit.to_string().parse(), Ok(limit));
        }

        #[test]
        fn networks_hold_the_address_that_they_were_named_by(ip in any::<IpAddr>(), prefix in 0_u8..=128) {
            let prefix = if ip.is_ipv4() { prefix.min(32) } else { prefix };
            let cidr: Cidr = format!("{ip}/{prefix}").parse().expect("a network");
            prop_assert!(cidr.contains(ip) && cidr.contains(cidr.nth(0)), "{}", cidr);
            prop_assert_eq!(cidr.to_string().parse(), Ok(cidr));
        }

        #[test]
        fn no_path_leaves_the_root(text in "/?(([a-z .]{0,4}|\\.\\.|\\PC)/){0,5}[a-z.]{0,4}", name in "[a-z0-9][a-z0-9.]{0,9}") {
            let Ok(path) = text.parse::<RootPath>() else { return Ok(()) };
            for path in [path.clone(), path.parent(), path.join(&name)] {
                prop_assert!(path.as_str().starts_with('/') && !path.as_str().split('/').any(|part| part == ".."), "{}", path);
                prop_assert!(!path.relative().is_empty() && !path.relative().starts_with('/'), "{}", path);
            }
            let below = path.join(&name);
            prop_assert_eq!(below.name(), name.as_str());
            prop_assert_eq!(below.parent(), path);
        }
    }
}
