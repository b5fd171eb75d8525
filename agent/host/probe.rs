//! One try at a target, and the reason when it is not ready.
//!
//! Every function here returns by the instant that it is given. None leaves a connection open behind it.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use reqwest::redirect::Policy as Redirect;
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::{Instant, timeout_at};

use crate::engine::fault::Explain;

/// Why a target is not ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The name has no address: why, in the resolver's words.
    Unresolved(String),
    /// The kernel, or a router, knows no way there: in the kernel's words.
    NoRoute(String),
    /// The machine is there, and nothing listens.
    Refused,
    /// Nobody answers the connection request: a firewall drops it, or the machine is down.
    Filtered,
    /// The connection was made and then broken off.
    Reset,
    /// The connection was made, and no HTTP answer came.
    NoAnswer,
    /// An answer came that is not HTTP: in the parser's words.
    NotHttp(String),
    /// The TLS handshake failed.
    Tls(TlsFault),
    /// The server answered with a status that is not accepted.
    Status(u16),
    /// The file does not exist.
    Absent,
    /// The file exists and is not a socket.
    NotSocket,
    /// Anything else: in the kernel's words.
    Other(String),
}

/// Why a TLS handshake failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsFault {
    /// The certificate is not from an authority that is trusted here.
    UntrustedAuthority,
    /// The certificate has expired.
    Expired,
    /// The certificate is not valid yet, or this machine's clock is behind.
    NotYetValid,
    /// The certificate is for another name or address.
    WrongName,
    /// What the server speaks is not TLS.
    NotTls,
    /// Anything else: in OpenSSL's words.
    Other(String),
}

impl Reason {
    /// Whether a try ended without any answer, which a longer one might have had.
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::Filtered | Self::NoAnswer)
    }

    /// Whether this machine knew at once that there is nothing yet, so that asking again costs next to nothing.
    pub fn is_nothing_there(&self) -> bool {
        matches!(self, Self::Refused | Self::Absent)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unresolved(why) => write!(f, "the name does not resolve ({why})"),
            Self::NoRoute(why) => write!(f, "no route to it ({why})"),
            Self::Refused => f.write_str("connection refused, nothing listens there"),
            Self::Filtered => f.write_str("no answer to the connection request (filtered, or the machine is down)"),
            Self::Reset => f.write_str("the connection was reset"),
            Self::NoAnswer => f.write_str("connected, but no HTTP answer came"),
            Self::NotHttp(why) => write!(f, "connected, but the answer is not HTTP ({why})"),
            Self::Tls(fault) => write!(f, "TLS failed: {fault}"),
            Self::Status(status @ (401 | 403)) => {
                write!(f, "HTTP status {status} (the port is open, the server wants credentials)")
            }
            Self::Status(status) => write!(f, "HTTP status {status}"),
            Self::Absent => f.write_str("it does not exist"),
            Self::NotSocket => f.write_str("it is not a socket"),
            Self::Other(why) => f.write_str(why),
        }
    }
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UntrustedAuthority => f.write_str("the certificate is not from a trusted authority"),
            Self::Expired => f.write_str("the certificate has expired"),
            Self::NotYetValid => f.write_str("the certificate is not valid yet (is this machine's clock right?)"),
            Self::WrongName => f.write_str("the certificate is for another name or address"),
            Self::NotTls => f.write_str("the server does not speak TLS"),
            Self::Other(why) => f.write_str(why),
        }
    }
}

/// A TCP connection to any address of `host`, opened and closed.
///
/// All addresses are tried at once, so that one that is filtered does not hold up the others. When none accepts, the
/// reason is that of the first address in the resolver's order.
pub async fn connect(host: &str, port: u16, until: Instant) -> Result<(), Reason> {
    let addresses = match timeout_at(until, resolve(host, port)).await {
        Ok(found) => found.map_err(|why| Reason::Unresolved(why.0))?,
        Err(_) => return Err(Reason::Unresolved("no answer from the resolver".to_owned())),
    };
    let mut tries: FuturesUnordered<_> = addresses
        .into_iter()
        .enumerate()
        .map(async |(place, address)| (place, connect_to(address, until).await))
        .collect();
    let mut first: Option<(usize, Reason)> = None;
    while let Some((place, outcome)) = tries.next().await {
        match outcome {
            Ok(()) => return Ok(()),
            Err(reason) if first.as_ref().is_none_or(|(before, _)| place < *before) => first = Some((place, reason)),
            Err(_) => (),
        }
    }
    Err(first.map_or_else(|| Reason::Unresolved("it has no address".to_owned()), |(_, reason)| reason))
}

async fn connect_to(address: SocketAddr, until: Instant) -> Result<(), Reason> {
    match timeout_at(until, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(socket_reason(&error)),
        Err(_) => Err(Reason::Filtered),
    }
}

/// The addresses of `host`, by the system's resolver.
async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, Unresolved> {
    match lookup_host((host, port)).await {
        Ok(found) => Ok(found.collect()),
        Err(error) => {
            let why = error.to_string();
            Err(Unresolved(why.strip_prefix("failed to lookup address information: ").unwrap_or(&why).to_owned()))
        }
    }
}

/// The resolver's reason, which goes through the HTTP client unharmed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unresolved(String);

struct Resolver;

impl reqwest::dns::Resolve for Resolver {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        Box::pin(async move {
            let found = resolve(name.as_str(), 0).await?;
            Ok(Box::new(found.into_iter()) as reqwest::dns::Addrs)
        })
    }
}

/// Whether the address is one of this machine's own: then the kernel would send to it from itself.
///
/// Connecting a datagram socket asks the routing table and sends nothing.
pub fn is_local(address: IpAddr) -> bool {
    let any: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let source = || -> io::Result<IpAddr> {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((address, 9))?;
        Ok(socket.local_addr()?.ip())
    };
    address.is_loopback() || source().is_ok_and(|source| source == address)
}

/// A connection to the Unix socket, opened and closed.
pub async fn connect_unix(path: &Path, until: Instant) -> Result<(), Reason> {
    match std::fs::metadata(path) {
        Err(error) => return Err(file_reason(&error)),
        Ok(found) if !found.file_type().is_socket() => return Err(Reason::NotSocket),
        Ok(_) => (),
    }
    match timeout_at(until, UnixStream::connect(path)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) if error.kind() == ErrorKind::NotFound => Err(Reason::Absent),
        Ok(Err(error)) => Err(socket_reason(&error)),
        Err(_) => Err(Reason::Filtered),
    }
}

/// Whether something is at the path, links followed.
pub fn exists(path: &Path) -> Result<(), Reason> {
    std::fs::metadata(path).map(drop).map_err(|error| file_reason(&error))
}

fn file_reason(error: &io::Error) -> Reason {
    match error.kind() {
        ErrorKind::NotFound => Reason::Absent,
        _ => Reason::Other(error.to_string()),
    }
}

fn socket_reason(error: &io::Error) -> Reason {
    match error.kind() {
        ErrorKind::ConnectionRefused => Reason::Refused,
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => Reason::Reset,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown => {
            Reason::NoRoute(error.to_string())
        }
        ErrorKind::TimedOut => Reason::Filtered,
        _ => Reason::Other(error.to_string()),
    }
}

/// A client for tries at web servers on this machine or in this cluster: no proxy, no redirect followed, no connection
/// kept.
#[derive(Debug, Clone)]
pub struct Asker(reqwest::Client);

/// The client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BadAsker {
    /// The file with the authorities' certificates cannot be read.
    #[error("read the CA certificates in {path}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It holds no certificate.
    #[error("{path} holds no PEM certificate that can be used")]
    NoCertificate {
        /// The file.
        path: String,
        /// Why, when the TLS library said so.
        #[source]
        source: Option<reqwest::Error>,
    },
    /// The TLS library refused.
    #[error("prepare the HTTP client")]
    Client(#[source] reqwest::Error),
}

impl Explain for BadAsker {}

impl Asker {
    /// A client without any authority, for `http` alone: to read the system's costs tens of milliseconds.
    pub fn plain() -> Result<Self, BadAsker> {
        Self::build(Self::builder().tls_certs_only([]))
    }

    /// A client that trusts the machine's own certificate store.
    pub fn system() -> Result<Self, BadAsker> {
        Self::build(Self::builder())
    }

    /// A client that trusts the PEM certificates in this file, and no others.
    pub fn trusting(ca: &Path) -> Result<Self, BadAsker> {
        let path = || ca.display().to_string();
        let pem = std::fs::read(ca).map_err(|source| BadAsker::Unreadable { path: path(), source })?;
        let roots = reqwest::Certificate::from_pem_bundle(&pem)
            .map_err(|source| BadAsker::NoCertificate { path: path(), source: Some(source) })?;
        if roots.is_empty() {
            return Err(BadAsker::NoCertificate { path: path(), source: None });
        }
        Self::build(Self::builder().tls_certs_only(roots))
    }

    fn builder() -> reqwest::ClientBuilder {
        reqwest::Client::builder()
            .no_proxy()
            .redirect(Redirect::none())
            .pool_max_idle_per_host(0)
            .dns_resolver(Resolver)
            .user_agent(concat!("nodeagent/", env!("CARGO_PKG_VERSION")))
    }

    fn build(builder: reqwest::ClientBuilder) -> Result<Self, BadAsker> {
        builder.build().map(Self).map_err(BadAsker::Client)
    }

    /// The status that `GET url` is answered with. `host` and `port` are the server's.
    pub async fn get(&self, url: &str, host: &str, port: u16, until: Instant) -> Result<u16, Reason> {
        // The last quarter is for finding out, when no answer comes, whether even a connection does.
        let now = Instant::now();
        let patience = now + (until.saturating_duration_since(now) * 3 / 4);
        match timeout_at(patience, self.0.get(url).send()).await {
            Ok(Ok(answer)) => Ok(answer.status().as_u16()),
            Ok(Err(error)) => Err(http_reason(&error)),
            Err(_) => Err(connect(host, port, until).await.err().unwrap_or(Reason::NoAnswer)),
        }
    }
}

/// The reason within the chain of causes that the HTTP client puts around it.
fn http_reason(error: &reqwest::Error) -> Reason {
    let mut text = String::new();
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(Unresolved(why)) = error.downcast_ref() {
            return Reason::Unresolved(why.clone());
        }
        if let Some(error) = error.downcast_ref::<io::Error>()
            && error.raw_os_error().is_some()
        {
            return socket_reason(error);
        }
        text = error.to_string();
        if let Some(fault) = tls_fault(&text) {
            return Reason::Tls(fault);
        }
        cause = error.source();
    }
    // What is left is hyper's: a connection that was closed early, or bytes that are not HTTP.
    match text.as_str() {
        "connection closed before message completed" => Reason::NoAnswer,
        _ if error.is_request() && !error.is_connect() => Reason::NotHttp(text),
        _ => Reason::Other(text),
    }
}

/// native-tls gives OpenSSL's verdict on a certificate as text only: the words of `X509_verify_cert_error_string(3)`.
fn tls_fault(text: &str) -> Option<TlsFault> {
    const VERDICTS: [(&str, TlsFault); 9] = [
        ("certificate has expired", TlsFault::Expired),
        ("certificate is not yet valid", TlsFault::NotYetValid),
        ("hostname mismatch", TlsFault::WrongName),
        ("IP address mismatch", TlsFault::WrongName),
        ("self-signed certificate", TlsFault::UntrustedAuthority),
        ("unable to get local issuer certificate", TlsFault::UntrustedAuthority),
        ("unable to verify the first certificate", TlsFault::UntrustedAuthority),
        ("wrong version number", TlsFault::NotTls),
        ("packet length too long", TlsFault::NotTls),
    ];
    let is_tls = text.contains("SSL routines") || text.contains("certificate verify failed");
    is_tls.then(|| {
        let verdict = VERDICTS.into_iter().find(|(words, _)| text.contains(words));
        verdict.map_or_else(|| TlsFault::Other(text.to_owned()), |(_, fault)| fault)
    })
}
