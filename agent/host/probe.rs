//! One try at a target, and the reason when it is not ready.
//!
//! Every function here returns by the instant that it is given. None leaves a connection open behind it.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage};
use openssl::pkey::PKey;
use openssl::x509::X509;
use reqwest::redirect::Policy as Redirect;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};
use zbus::proxy::SignalStream;
use zeroize::Zeroizing;

use super::http;
use super::resolve::{Unresolved, resolve};
use super::systemd::{Systemd, SystemdError};
use crate::config::values::UnitName;
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
    /// The status is accepted, and the body is without the text that is wanted.
    Body(u16),
    /// systemd knows no such unit.
    NoUnit,
    /// The unit is not active: its state.
    UnitInactive(String),
    /// The unit has failed: how.
    UnitFailed(String),
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
    /// The server wants a client certificate.
    NoClientCertificate,
    /// The server does not accept the client certificate.
    ClientCertificate,
    /// What the server speaks is not TLS.
    NotTls,
    /// Anything else: in OpenSSL's words.
    Other(String),
}

impl Reason {
    /// The constant by which a program tells it: see `docs/wait.md`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unresolved(_) => "unresolved",
            Self::NoRoute(_) => "no-route",
            Self::Refused => "refused",
            Self::Filtered => "filtered",
            Self::Reset => "reset",
            Self::NoAnswer => "no-answer",
            Self::NotHttp(_) => "not-http",
            Self::Tls(TlsFault::UntrustedAuthority) => "tls-authority",
            Self::Tls(TlsFault::Expired) => "tls-expired",
            Self::Tls(TlsFault::NotYetValid) => "tls-not-yet-valid",
            Self::Tls(TlsFault::WrongName) => "tls-name",
            Self::Tls(TlsFault::NoClientCertificate | TlsFault::ClientCertificate) => "tls-client-certificate",
            Self::Tls(TlsFault::NotTls) => "not-tls",
            Self::Tls(TlsFault::Other(_)) => "tls",
            Self::Status(_) => "http-status",
            Self::Body(_) => "http-body",
            Self::NoUnit => "no-unit",
            Self::UnitInactive(_) => "unit-inactive",
            Self::UnitFailed(_) => "unit-failed",
            Self::Absent => "absent",
            Self::NotSocket => "not-a-socket",
            Self::Other(_) => "other",
        }
    }

    /// Whether a try ended without any answer, which a longer one might have had.
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::Filtered | Self::NoAnswer)
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
            Self::Body(status) => write!(f, "HTTP status {status}, but the body is without the wanted text"),
            Self::NoUnit => f.write_str("there is no such unit"),
            Self::UnitInactive(state) => write!(f, "the unit is not active: {state}"),
            Self::UnitFailed(how) => write!(f, "the unit has failed {how}"),
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
            Self::NoClientCertificate => f.write_str("the server wants a client certificate"),
            Self::ClientCertificate => f.write_str("the server does not accept the client certificate"),
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
    let addresses = addresses(host, until).await?;
    let mut tries: FuturesUnordered<_> = addresses
        .into_iter()
        .enumerate()
        .map(async |(place, address)| (place, connect_to((address, port).into(), until).await))
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

/// The addresses of `host`, of which there is at least one.
pub async fn addresses(host: &str, until: Instant) -> Result<Vec<IpAddr>, Reason> {
    match timeout_at(until, resolve(host)).await {
        Ok(found) => found.map_err(|why| Reason::Unresolved(why.0)),
        Err(_) => Err(Reason::Unresolved("no answer from the resolver".to_owned())),
    }
}

async fn connect_to(address: SocketAddr, until: Instant) -> Result<(), Reason> {
    let stream = begin(address).map_err(|error| socket_reason(&error))?;
    match timeout_at(until, finish(stream)).await {
        Ok(Ok(stream)) if is_to_itself(&stream) => {
            // Reset, or the kernel would keep the port busy for a minute, and its server could not bind to it.
            let _ = stream.set_zero_linger();
            Err(Reason::Refused)
        }
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(socket_reason(&error)),
        Err(_) => Err(Reason::Filtered),
    }
}

/// Begins to connect. On this machine the kernel has refused it, where nothing listens, by the time that this returns:
/// such a try costs four system calls, and none of the runtime's.
fn begin(address: SocketAddr) -> io::Result<std::net::TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket::socket(family, SockType::Stream, flags, None)?;
    match socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) | Err(Errno::EINPROGRESS) => (),
        Err(error) => return Err(error.into()),
    }
    let stream = std::net::TcpStream::from(socket);
    stream.take_error()?.map_or(Ok(stream), Err)
}

async fn finish(stream: std::net::TcpStream) -> io::Result<TcpStream> {
    let stream = TcpStream::from_std(stream)?;
    stream.writable().await?;
    stream.take_error()?.map_or(Ok(stream), Err)
}

/// Whether the kernel chose as the source port the very port that nobody listens on: such a connection opens, to
/// itself. It happens to whoever asks often enough for a port of the ephemeral range on this machine.
fn is_to_itself(stream: &TcpStream) -> bool {
    matches!((stream.local_addr(), stream.peer_addr()), (Ok(here), Ok(there)) if here == there)
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

/// A client for tries at web servers on this machine or in this cluster: no proxy unless asked, no redirect followed,
/// no connection kept.
#[derive(Debug, Clone)]
pub struct Asker(reqwest::Client);

/// The files that an `https` connection is made with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM certificates of the authorities that are trusted, and no others; `None` for the machine's own store.
    pub ca: Option<PathBuf>,
    /// A PEM client certificate, with its chain, and its key unless that has a file of its own.
    pub cert: Option<PathBuf>,
    /// The PEM key of that certificate.
    pub key: Option<PathBuf>,
}

/// The client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BadAsker {
    /// A file cannot be read.
    #[error("read the {what} in {path}: {source}")]
    Unreadable {
        /// What should be in it.
        what: &'static str,
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It holds something else.
    #[error("{path} holds no {what} that can be used")]
    Useless {
        /// What should be in it.
        what: &'static str,
        /// The file.
        path: String,
    },
    /// The TLS library refused.
    #[error("prepare the HTTP client: {0}")]
    Client(#[source] reqwest::Error),
}

impl Explain for BadAsker {
    fn advice(&self) -> Option<String> {
        match self {
            Self::Unreadable { .. } | Self::Client(_) => None,
            Self::Useless { .. } => Some("write it in PEM; a key must not have a passphrase".to_owned()),
        }
    }
}

/// What came.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Its body, up to [`LONGEST_BODY`] bytes; empty when it was not asked for.
    pub body: String,
}

/// How much of an answer's body is looked at, in bytes.
const LONGEST_BODY: usize = 64 << 10;

impl Asker {
    /// A client without any authority, for `http` alone: to read the system's costs tens of milliseconds.
    pub fn plain(use_proxy: bool) -> Result<Self, BadAsker> {
        Self::build(http::builder().tls_certs_only([]), use_proxy)
    }

    /// A client for `https` with these files.
    pub fn with_tls(files: &TlsFiles, use_proxy: bool) -> Result<Self, BadAsker> {
        let mut builder = http::builder();
        if let Some(path) = &files.ca {
            let what = "CA certificate";
            let roots = reqwest::Certificate::from_pem_bundle(&read(what, path)?).unwrap_or_default();
            if roots.is_empty() {
                return Err(useless(what, path));
            }
            builder = builder.tls_certs_only(roots);
        }
        if let Some(path) = &files.cert {
            builder = builder.identity(identity(path, files.key.as_ref().unwrap_or(path))?);
        }
        Self::build(builder, use_proxy)
    }

    fn build(builder: reqwest::ClientBuilder, use_proxy: bool) -> Result<Self, BadAsker> {
        let builder = builder.redirect(Redirect::none()).pool_max_idle_per_host(0);
        let builder = if use_proxy { builder } else { builder.no_proxy() };
        builder.build().map(Self).map_err(BadAsker::Client)
    }

    /// What `METHOD url` is answered with. `host` and `port` are the server's.
    pub async fn ask(
        &self,
        method: &str,
        url: &str,
        (host, port): (&str, u16),
        want_body: bool,
        until: Instant,
    ) -> Result<Answer, Reason> {
        // The last quarter is for finding out, when no answer comes, whether even a connection does.
        let now = Instant::now();
        let patience = now + (until.saturating_duration_since(now) * 3 / 4);
        let method = reqwest::Method::from_bytes(method.as_bytes()).map_err(|e| Reason::Other(e.to_string()))?;
        let asked = async {
            let mut answer = self.0.request(method, url).send().await?;
            let mut body = Vec::new();
            while want_body && body.len() < LONGEST_BODY {
                let Some(chunk) = answer.chunk().await? else { break };
                body.extend_from_slice(&chunk);
            }
            body.truncate(LONGEST_BODY);
            let body = String::from_utf8_lossy(&body).into_owned();
            Ok(Answer { status: answer.status().as_u16(), body })
        };
        match timeout_at(patience, asked).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(http_reason(&error)),
            Err(_) => Err(connect(host, port, until).await.err().unwrap_or(Reason::NoAnswer)),
        }
    }
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, BadAsker> {
    std::fs::read(path).map_err(|source| BadAsker::Unreadable { what, path: path.display().to_string(), source })
}

fn useless(what: &'static str, path: &Path) -> BadAsker {
    BadAsker::Useless { what, path: path.display().to_string() }
}

/// A client certificate and its key, of any kind that OpenSSL reads: the TLS layer itself wants PKCS#8.
fn identity(cert: &Path, key: &Path) -> Result<reqwest::Identity, BadAsker> {
    let (chain, pem) = (read("client certificate", cert)?, Zeroizing::new(read("client key", key)?));
    if X509::stack_from_pem(&chain).unwrap_or_default().is_empty() {
        return Err(useless("client certificate", cert));
    }
    // Without the callback OpenSSL would ask for a passphrase on the terminal.
    let parsed = PKey::private_key_from_pem_callback(&pem, |_| Ok(0));
    let pkcs8 = parsed.and_then(|key| key.private_key_to_pem_pkcs8()).map_err(|_| useless("client key", key))?;
    reqwest::Identity::from_pkcs8_pem(&chain, &Zeroizing::new(pkcs8))
        .map_err(|_| useless("client certificate for that key", cert))
}

/// One unit, seen through systemd.
pub struct UnitProbe {
    systemd: Systemd,
    unit: UnitName,
    changes: SignalStream<'static>,
}

impl UnitProbe {
    /// Begins to listen for the unit's changes.
    pub async fn new(unit: &UnitName, until: Instant) -> Result<Self, Reason> {
        let start = async {
            let systemd = Systemd::default();
            let changes = systemd.changes(unit).await?;
            Ok(Self { systemd, unit: unit.clone(), changes })
        };
        match timeout_at(until, start).await {
            Ok(probe) => probe.map_err(|error: SystemdError| Reason::Other(error.to_string())),
            Err(_) => Err(Reason::Other("no answer from systemd".to_owned())),
        }
    }

    /// Whether it is active now.
    pub async fn look(&self, until: Instant) -> Result<(), Reason> {
        match timeout_at(until, self.systemd.unit(&self.unit)).await {
            Err(_) => Err(Reason::Other("no answer from systemd".to_owned())),
            Ok(Err(error)) => Err(Reason::Other(error.to_string())),
            Ok(Ok(None)) => Err(Reason::NoUnit),
            Ok(Ok(Some(sight))) => match (sight.active.as_str(), sight.sub.as_str()) {
                ("active" | "reloading", _) => Ok(()),
                ("failed", _) | (_, "auto-restart" | "auto-restart-queued") => {
                    Err(Reason::UnitFailed(self.systemd.report(&self.unit, false).await.to_string().trim().to_owned()))
                }
                (active, sub) => Err(Reason::UnitInactive(format!("{active} ({sub})"))),
            },
        }
    }

    /// Returns when something about the unit changed.
    pub async fn changed(&mut self) {
        if self.changes.next().await.is_none() {
            // The bus is gone; the next look says so.
            std::future::pending::<()>().await;
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

/// Why TLS failed, if that is what failed.
pub fn tls_verdict(error: &reqwest::Error) -> Option<TlsFault> {
    match http_reason(error) {
        Reason::Tls(fault) => Some(fault),
        _ => None,
    }
}

/// native-tls gives OpenSSL's verdict on a certificate as text only: the words of `X509_verify_cert_error_string(3)`.
fn tls_fault(text: &str) -> Option<TlsFault> {
    const VERDICTS: [(&str, TlsFault); 12] = [
        // Alerts that the server sent, which are about us.
        ("alert certificate required", TlsFault::NoClientCertificate),
        ("alert bad certificate", TlsFault::ClientCertificate),
        ("alert unknown ca", TlsFault::ClientCertificate),
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
