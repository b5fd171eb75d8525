//! What is waited for, as a person writes it.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use crate::config::values::{RootPath, UnitName};
use crate::engine::fault::{Class, Explain};

/// Something that becomes ready.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// A TCP port that accepts connections: `tcp://HOST:PORT`, or `HOST:PORT` alone.
    Tcp(HostPort),
    /// A web server that answers: `http://HOST[:PORT][/PATH]`, or `https`.
    Http(HttpTarget),
    /// A Unix socket that accepts connections: `unix:///PATH`.
    Unix(RootPath),
    /// A file or directory that exists: `file:/PATH`.
    File(RootPath),
    /// A systemd unit that is active: `unit:NAME`.
    Unit(UnitName),
    /// A name that has an address: `dns:NAME`.
    Dns(String),
    /// A health check of the cluster's: `etcd` or `apiserver`, where it usually is; `etcd://HOST[:PORT]`, elsewhere.
    Health(Service, Option<HostPort>),
}

/// A part of the cluster that tells its own health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// etcd's `/health`: 200 while it has a leader.
    Etcd,
    /// The API server's `/readyz`: 200 while it can serve.
    ApiServer,
}

impl Service {
    /// All of them.
    const ALL: [Self; 2] = [Self::Etcd, Self::ApiServer];

    /// As a target names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "apiserver",
        }
    }

    /// Its port for clients.
    pub fn port(self) -> u16 {
        match self {
            Self::Etcd => 2379,
            Self::ApiServer => 6443,
        }
    }

    /// What is asked for.
    pub fn path(self) -> &'static str {
        match self {
            Self::Etcd => "/health",
            Self::ApiServer => "/readyz",
        }
    }
}

/// A host by name or address, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// A name, or an address without brackets.
    pub host: String,
    /// From 1 to 65535.
    pub port: u16,
}

/// What to GET, and from whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpTarget {
    /// Whether it is `https`.
    pub tls: bool,
    /// The server.
    pub server: HostPort,
    /// Path and query, beginning with `/`.
    pub path: String,
}

/// A target was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a target to wait for: {why}")]
pub struct BadTarget {
    text: String,
    why: String,
}

impl Explain for BadTarget {
    fn class(&self) -> Class {
        Class::Usage
    }

    fn advice(&self) -> Option<String> {
        Some("`nodeagent wait --help` lists what can be waited for".to_owned())
    }
}

impl FromStr for Target {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Self, BadTarget> {
        parse(text).map_err(|why| BadTarget { text: text.to_owned(), why })
    }
}

fn parse(text: &str) -> Result<Target, String> {
    if let Some(bad) = text.chars().find(|c| c.is_whitespace() || c.is_control()) {
        return Err(format!("{bad:?} cannot be in it"));
    }
    if let Some(rest) = text.strip_prefix("tcp://") {
        host_port(rest, None).map(Target::Tcp)
    } else if let Some(rest) = text.strip_prefix("http://") {
        http(false, rest).map(Target::Http)
    } else if let Some(rest) = text.strip_prefix("https://") {
        http(true, rest).map(Target::Http)
    } else if let Some(rest) = text.strip_prefix("unix:") {
        socket_path(rest).map(Target::Unix)
    } else if let Some(rest) = text.strip_prefix("file:") {
        path(rest).map(Target::File)
    } else if let Some(rest) = text.strip_prefix("unit:") {
        rest.parse().map(Target::Unit).map_err(|error| format!("{error}"))
    } else if let Some(rest) = text.strip_prefix("dns:") {
        name(rest).map(Target::Dns)
    } else if let Some(health) = Service::ALL.into_iter().find_map(|service| health(service, text)) {
        health
    } else if let Some((scheme, _)) = text.split_once("://") {
        Err(format!("{scheme:?} is not tcp, http, https, unix, etcd or apiserver"))
    } else if text.starts_with('/') {
        Err(format!("write file:{text} or unix://{text}"))
    } else if text.contains('/') {
        Err(format!("write http://{text} to ask a web server"))
    } else {
        host_port(text, None).map(Target::Tcp)
    }
}

/// The service's health, if the text is about it.
fn health(service: Service, text: &str) -> Option<Result<Target, String>> {
    let at = match text.strip_prefix(service.name())? {
        "" => Ok(None),
        rest => host_port(rest.strip_prefix("://")?, Some(service.port())).map(Some),
    };
    Some(at.map(|at| Target::Health(service, at)))
}

/// A name to look up, as the host of other targets.
fn name(text: &str) -> Result<String, String> {
    if text.contains(':') {
        return Err("it must be a name without a port".to_owned());
    }
    let host = host_port(text, Some(1))?.host;
    if host.parse::<IpAddr>().is_ok() {
        return Err(format!("{host} is an address already"));
    }
    Ok(host)
}

/// `HOST:PORT`, where the port may be left out if there is a default. An IPv6 address stands in brackets.
fn host_port(text: &str, default: Option<u16>) -> Result<HostPort, String> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or("its [ has no ]")?;
        host.parse::<Ipv6Addr>().map_err(|_| format!("{host:?} in [ ] is not an IPv6 address"))?;
        match after.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if after.is_empty() => (host, None),
            None => return Err(format!("{after:?} stands after the ]")),
        }
    } else {
        match text.split_once(':') {
            Some((_, rest)) if rest.contains(':') => return Err("an IPv6 address must stand in [ ]".to_owned()),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    if host.is_empty() {
        return Err("it names no host (an empty variable?)".to_owned());
    }
    if host.contains('$') {
        return Err(format!("{host:?} is a variable that was not expanded"));
    }
    let in_a_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if host.len() > 253 || !(host.contains(':') || host.chars().all(in_a_name)) {
        return Err(format!("{host:?} is neither a name nor an address"));
    }
    let port = match (port, default) {
        (None, Some(default)) => default,
        (None, None) => return Err("it names no port".to_owned()),
        (Some(""), _) => return Err("its port is empty (an empty variable?)".to_owned()),
        (Some(port), _) => match port.parse::<u16>() {
            Ok(number) if number > 0 && port.bytes().all(|b| b.is_ascii_digit()) => number,
            _ => return Err(format!("its port {port:?} is not a number from 1 to 65535")),
        },
    };
    Ok(HostPort { host: host.to_owned(), port })
}

fn http(tls: bool, rest: &str) -> Result<HttpTarget, String> {
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err("it must not hold a user name or password".to_owned());
    }
    if path.contains('#') {
        return Err("a fragment (#) is never sent to a server".to_owned());
    }
    let server = host_port(authority, Some(if tls { 443 } else { 80 }))?;
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Ok(HttpTarget { tls, server, path })
}

/// An absolute path, also as a URL writes it: with an empty host before it.
fn path(text: &str) -> Result<RootPath, String> {
    let text = match text.strip_prefix("//") {
        Some(rest) if !rest.starts_with('/') => {
            return Err("two slashes name a host: write one or three".to_owned());
        }
        Some(rest) => rest,
        None => text,
    };
    text.parse().map_err(|error| format!("{error}"))
}

/// The longest path that `struct sockaddr_un` holds besides its ending zero (unix(7)).
const LONGEST_SOCKET_PATH: usize = 107;

fn socket_path(text: &str) -> Result<RootPath, String> {
    let path = path(text)?;
    if path.as_str().len() > LONGEST_SOCKET_PATH {
        return Err(format!("a socket's path has at most {LONGEST_SOCKET_PATH} bytes"));
    }
    Ok(path)
}

impl HostPort {
    /// The address, when the host is one and not a name.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The URL, with its port even where the scheme implies it.
impl fmt::Display for HttpTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.server, self.path)
    }
}

/// Text that parses to the same target.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(server) => write!(f, "tcp://{server}"),
            Self::Http(http) => http.fmt(f),
            Self::Unix(path) => write!(f, "unix://{path}"),
            Self::File(path) => write!(f, "file:{path}"),
            Self::Unit(unit) => write!(f, "unit:{unit}"),
            Self::Dns(name) => write!(f, "dns:{name}"),
            Self::Health(service, None) => f.write_str(service.name()),
            Self::Health(service, Some(server)) => write!(f, "{}://{server}", service.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn accepted() {
        for (text, shown) in [
            ("127.0.0.1:8080", "tcp://127.0.0.1:8080"),
            ("tcp://api.example:6443", "tcp://api.example:6443"),
            ("[::1]:22", "tcp://[::1]:22"),
            ("http://api", "http://api:80/"),
            ("https://[fd00::1]?verbose", "https://[fd00::1]:443/?verbose"),
            ("http://127.0.0.1:2379/v2/machines", "http://127.0.0.1:2379/v2/machines"),
            ("unix:///run/containerd/containerd.sock", "unix:///run/containerd/containerd.sock"),
            ("unix:/run/x", "unix:///run/x"),
            ("file:/etc/kubernetes/x", "file:/etc/kubernetes/x"),
            ("file:///etc//x/", "file:/etc/x"),
            ("unit:kubelet.service", "unit:kubelet.service"),
            ("dns:api.example", "dns:api.example"),
            ("etcd", "etcd"),
            ("etcd://10.0.0.1", "etcd://10.0.0.1:2379"),
            ("apiserver", "apiserver"),
            ("apiserver://[fd00::1]", "apiserver://[fd00::1]:6443"),
            // A host of that name is a host.
            ("etcd:2379", "tcp://etcd:2379"),
            ("etcd-1:2379", "tcp://etcd-1:2379"),
        ] {
            match text.parse::<Target>() {
                Ok(target) => assert_eq!(target.to_string(), shown, "{text:?}"),
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn refused_with_the_reason() {
        let long = format!("unix:///{}", "x".repeat(120));
        for (text, why) in [
            (":8080", "names no host (an empty variable?)"),
            ("tcp://:8080", "names no host (an empty variable?)"),
            ("http://:8080/x", "names no host (an empty variable?)"),
            ("http:///x", "names no host (an empty variable?)"),
            ("", "names no host"),
            ("10.0.0.1:", "its port is empty (an empty variable?)"),
            ("10.0.0.1", "names no port"),
            ("10.0.0.1:0", "not a number from 1 to 65535"),
            ("10.0.0.1:+1", "not a number from 1 to 65535"),
            ("10.0.0.1:65536", "not a number from 1 to 65535"),
            ("${DEFAULT_IPV4}:8080", "not expanded"),
            ("127.0.0.1:2379/v2/machines", "write http://127.0.0.1:2379/v2/machines"),
            ("::1:80", "must stand in [ ]"),
            ("[::1:80", "its [ has no ]"),
            ("[::1]x", "stands after the ]"),
            ("[api]:80", "not an IPv6 address"),
            ("ftp://x:1", "\"ftp\" is not tcp"),
            ("/run/x", "write file:/run/x"),
            ("unix:x", "does not start with /"),
            ("unit:kubelet", "no type such as .service"),
            ("unit:", "no type such as .service"),
            ("dns:", "names no host"),
            ("dns:10.0.0.1", "an address already"),
            ("dns:api:53", "without a port"),
            ("etcd://", "names no host"),
            ("apiserver://${HOST}", "not expanded"),
            ("file://host/x", "write one or three"),
            ("https://u:p@x/", "user name or password"),
            ("http://x/#a", "fragment"),
            ("a b:1", "' ' cannot be in it"),
            (long.as_str(), "at most 107 bytes"),
        ] {
            match text.parse::<Target>() {
                Ok(target) => panic!("{text:?} was read as {target}"),
                Err(error) => assert!(error.to_string().contains(why), "{text:?}: {error}"),
            }
        }
    }

    proptest! {
        #[test]
        fn shown_text_parses_to_the_same(
            text in prop_oneof![
                "(tcp://)?[a-z0-9._-]{1,20}:[1-9][0-9]{0,3}",
                "(tcp://)?\\[fd00:[0-9a-f]{1,4}::[0-9a-f]{1,4}\\]:[1-9][0-9]{0,3}",
                "https?://[a-z0-9.-]{1,20}(:[1-9][0-9]{0,3})?(/[a-z0-9/._-]{0,20})?(\\?[a-z=&]{0,9})?",
                "unit:[a-z@-]{1,12}\\.(service|socket|target)",
                "dns:[a-z][a-z0-9._-]{0,20}",
                "(etcd|apiserver)(://[a-z][a-z0-9._-]{0,20}(:[1-9][0-9]{0,3})?)?",
                "(unix|file):(//)?/([a-zA-Z0-9_-][a-zA-Z0-9/_-]{0,40})?",
            ],
        ) {
            let target: Target = text.parse().map_err(|e: BadTarget| TestCaseError::fail(e.to_string()))?;
            prop_assert_eq!(target.to_string().parse::<Target>(), Ok(target));
        }

        #[test]
        fn no_text_panics_and_what_parses_round_trips(text in "\\PC{0,40}") {
            if let Ok(target) = text.parse::<Target>() {
                prop_assert_eq!(target.to_string().parse::<Target>(), Ok(target));
            }
        }
    }
}
