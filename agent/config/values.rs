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

pub use super::addresses::{Cidr, DnsDomain, HttpUrl};
pub use super::digests::{KeyHash, Sha256, Sha512};
pub use super::names::{CertName, CommonName, ImageName, LabelKey, LabelValue};
pub use super::proxy::ProxyUrl;
pub use super::quantities::{Every, Keep, Life, Limit, Parallel, Port, Rate, Span};
pub use super::releases::{ArtifactName, ArtifactVersion, Version};

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
    /// When `name` would not stay below this directory: names come from checked values only. For what was found there is
    /// [`Self::child`].
    pub fn join(&self, name: &str) -> Self {
        let base = self.0.trim_end_matches('/');
        let below = Self::literal(&format!("/{name}"));
        Self(format!("{base}{below}"))
    }

    /// The path of a file that was found in this directory by that name; none where no path can have it.
    pub fn child(&self, found: &str) -> Option<Self> {
        format!("{}/{found}", self.0.trim_end_matches('/')).parse().ok()
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
    if let Some(long) = text.split('.').find(|label| label.len() > 63) {
        let why = format!("RFC 1123 wants at most 63 characters between dots, and {long:?} has {}", long.len());
        return Err(refuse(text, WANTED, why));
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
        "life" => check::<Life>(text),
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_found_in_a_directory_has_a_path_or_none() {
        let dir = RootPath::literal("/etc/x");
        assert_eq!(dir.child("y").as_ref().map(RootPath::as_str), Some("/etc/x/y"));
        assert_eq!(RootPath::literal("/").child("y").as_ref().map(RootPath::as_str), Some("/y"));
        for none in ["a\nb", "\u{1b}[2J", ".."] {
            assert_eq!(dir.child(none), None, "{none:?}");
        }
    }

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
            (
                "life",
                &["10m", "24h", "30d"],
                &["", "d", "0d", "10", "9m", "31d", "45s", "-1d", "99999999999999999999d"],
            ),
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
            reads_back::<ImageName>(&text)?;
            reads_back::<LabelKey>(&text)?;
            reads_back::<LabelValue>(&text)?;
            reads_back::<CommonName>(&text)?;
            reads_back::<CertName>(&text)?;
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
