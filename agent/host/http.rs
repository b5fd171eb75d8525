//! The one HTTP client: built lazily, with deadlines, and with errors that name the URL.

pub mod cluster;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, HeaderMap, IF_RANGE, RANGE, RETRY_AFTER};
use reqwest::redirect::{self, Attempt};
use reqwest::{Certificate, Client, ClientBuilder, NoProxy, StatusCode};

use self::cluster::REQUEST_DEADLINE;
use super::fetch::{self, answer};
use super::probe::{TlsFault, tls_verdict};
use super::resolve::Resolver;
use super::retry::{self, GaveUp, News, Policy, Tried};
use super::root::{FileError, Root};
use crate::config::settings::{DownloadSettings, Proxy};
use crate::config::values::RootPath;
use crate::engine::fault::{Class, Explain, quote};
use crate::journal::{self, Event, Teller};

/// How long a server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// How often a mirror may send on: as often as browsers and curl's `--max-redirs` in most scripts.
const MOST_REDIRECTS: usize = 10;

/// The one HTTP client. Cheap to clone.
#[derive(Clone)]
pub struct Http {
    pub(super) tell: Teller,
    pub(super) download: Arc<DownloadSettings>,
    pub(super) fetching: Arc<fetch::Shared>,
    root: Root,
    mirrors: Arc<OnceLock<Client>>,
}

/// A request failed.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No answer came.
    #[error("{url}: {}", chain(source))]
    NoAnswer {
        /// The URL.
        url: String,
        /// The cause.
        source: reqwest::Error,
    },
    /// The server's certificate does not show that it is the one that was asked.
    #[error("{url}: TLS failed: {fault}")]
    Untrusted {
        /// The URL.
        url: String,
        /// Why not.
        fault: TlsFault,
    },
    /// The answer was not a success.
    #[error("{url}: HTTP {status}{}{}", excerpt(body), pause(*retry_after))]
    Status {
        /// The URL.
        url: String,
        /// The status code.
        status: u16,
        /// The answer's text.
        body: String,
        /// For how long the server asked to be left alone.
        retry_after: Option<Duration>,
    },
    /// Too little came in too long a time.
    #[error("{url}: the server sent {} in {} s", amount(*bytes), within.as_secs())]
    Stalled {
        /// The URL.
        url: String,
        /// What came.
        bytes: u64,
        /// In which time.
        within: Duration,
    },
    /// The answer is not what was asked for.
    #[error("{url}: {why}")]
    BadAnswer {
        /// The URL.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The server's clock and this machine's differ.
    #[error("{url}: it is {theirs} there, and {ours} here")]
    ClockOff {
        /// The URL.
        url: String,
        /// The server's time.
        theirs: String,
        /// This machine's.
        ours: String,
    },
    /// No attempt succeeded in time.
    #[error("{last} (attempt {attempts}, and the last one before the deadline)")]
    Deadline {
        /// How often it was tried.
        attempts: u32,
        /// How it failed last.
        last: String,
    },
    /// The file of CA certificates cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file of CA certificates holds something else.
    #[error("use the CA certificates in {path}: {why}")]
    BadCa {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The CA certificates cannot be used.
    #[error("{url}: use the CA certificates: {}", chain(source))]
    BadTrust {
        /// The URL.
        url: String,
        /// The cause.
        source: reqwest::Error,
    },
}

fn amount(bytes: u64) -> String {
    if bytes == 0 { "nothing".to_owned() } else { format!("only {}", journal::size(bytes)) }
}

fn pause(retry_after: Option<Duration>) -> String {
    retry_after.map_or_else(String::new, |time| format!(" (Retry-After: {} s)", time.as_secs()))
}

/// The beginning of an answer, on one line, to stand behind its status.
fn excerpt(body: &str) -> String {
    let line: String = body.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(200).collect();
    let line = quote(&line);
    if line.is_empty() { line } else { format!(": {line}") }
}

/// reqwest's chain of causes in one line, without the URL, which stands in front already.
pub(super) fn chain(error: &reqwest::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(cause) = next {
        let text = cause.to_string();
        // Some layers repeat the one below them.
        if !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        next = cause.source();
    }
    if parts.is_empty() { error.to_string() } else { parts.join(": ") }
}

impl Explain for HttpError {
    fn class(&self) -> Class {
        match self {
            Self::Stalled { .. } | Self::Deadline { .. } => Class::Deadline,
            Self::NoAnswer { source, .. } if source.is_timeout() => Class::Deadline,
            Self::Untrusted { .. } => Class::Verification,
            _ => Class::Failed,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Untrusted { fault, .. } => Some(
                match fault {
                    TlsFault::UntrustedAuthority => {
                        "if it is the right server, name its CA (download.ca for mirrors, pki.ca for the cluster)"
                    }
                    TlsFault::WrongName => {
                        "ask for it by a name that its certificate has, or have it certified for this one"
                    }
                    _ => "have its certificate renewed, or set this machine's clock (see timedatectl)",
                }
                .to_owned(),
            ),
            Self::ClockOff { .. } => Some("set the clock that is wrong (timedatectl shows this machine's)".to_owned()),
            Self::File(error) => error.advice(),
            Self::BadCa { .. } => Some("download.ca wants certificates in PEM".to_owned()),
            _ => None,
        }
    }
}

impl HttpError {
    /// What the HTTP client's error means. A certificate that was refused will be refused again.
    fn no_answer(url: &str, source: reqwest::Error) -> Self {
        let url = url.to_owned();
        match tls_verdict(&source) {
            Some(
                fault
                @ (TlsFault::UntrustedAuthority | TlsFault::WrongName | TlsFault::Expired | TlsFault::NotYetValid),
            ) => Self::Untrusted { url, fault },
            _ => Self::NoAnswer { url, source },
        }
    }

    /// The JSON that came with a status that is no success, if it was JSON.
    pub fn json(&self) -> Option<serde_json::Value> {
        match self {
            Self::Status { body, .. } => serde_json::from_str(body).ok(),
            _ => None,
        }
    }

    /// Whether another attempt may succeed: no answer, or one of the statuses that curl retries too.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::NoAnswer { source, .. } => !source.is_redirect() && !source.is_builder(),
            Self::Stalled { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
            Self::BadAnswer { .. }
            | Self::BadTrust { .. }
            | Self::Untrusted { .. }
            | Self::Deadline { .. }
            | Self::ClockOff { .. }
            | Self::File(_)
            | Self::BadCa { .. } => false,
        }
    }

    /// For how long the server asked to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    fn tried(self) -> Tried<Self> {
        match self.retry_after() {
            _ if !self.is_transient() => Tried::Permanent(self),
            Some(least) => Tried::NotBefore(self, least),
            None => Tried::Transient(self),
        }
    }
}

impl Http {
    /// A client that tells of its progress and of what it tries again. `root` is where it finds CA certificates.
    pub fn new(tell: Teller, root: Root, download: DownloadSettings) -> Self {
        let fetching = Arc::new(fetch::Shared::new(download.parallel));
        Self { tell, download: Arc::new(download), fetching, root, mirrors: Arc::default() }
    }

    /// Makes a request again while its failures are transient and the deadline is not there.
    async fn persist<T>(
        &self,
        url: &str,
        deadline: tokio::time::Instant,
        mut once: impl AsyncFnMut() -> Result<T, HttpError>,
    ) -> Result<T, HttpError> {
        let mut news = News::default();
        let on_retry = |why: &HttpError, _| {
            let said = why.to_string();
            if news.is_new(&said) {
                let why = said.strip_prefix(url).and_then(|why| why.strip_prefix(": ")).unwrap_or(&said);
                self.tell.tell(&Event::Retrying { what: url, why });
            }
        };
        let policy = Policy::default();
        let answer = retry::retry(deadline, &policy, on_retry, async || once().await.map_err(HttpError::tried));
        answer.await.map_err(|gave_up| match gave_up {
            GaveUp::Permanent { error, .. } => error,
            GaveUp::Deadline { attempts, last } => HttpError::Deadline {
                attempts,
                last: last.map_or_else(|| format!("{url}: no answer"), |error| error.to_string()),
            },
        })
    }

    /// Reads a short file (a checksum, a signature, a lock file) of at most `most` bytes from a mirror.
    pub async fn read(&self, url: &str, most: usize) -> Result<Vec<u8>, HttpError> {
        let deadline = tokio::time::Instant::now() + REQUEST_DEADLINE;
        self.persist(url, deadline, async || self.read_once(url, most).await).await
    }

    async fn read_once(&self, url: &str, most: usize) -> Result<Vec<u8>, HttpError> {
        let mut body = self.get(url, None).await?.bytes_stream();
        let mut pace = fetch::Pace::new(self.download.minimum_rate, self.download.stall_after);
        let mut answer = Vec::new();
        while let Some(chunk) = pace.next(url, &mut body).await? {
            answer.extend_from_slice(&chunk.map_err(|source| HttpError::no_answer(url, source))?);
            if answer.len() > most {
                return Err(HttpError::BadAnswer {
                    url: url.to_owned(),
                    why: format!("it is longer than {most} bytes: not what was asked for"),
                });
            }
        }
        Ok(answer)
    }

    /// Asks a mirror for a file, or for what follows its first bytes (if it is still the file that the validator names),
    /// and waits for the beginning of a good answer. `416` counts as one where a part was asked for.
    pub(super) async fn get(&self, url: &str, part: Option<Part<'_>>) -> Result<reqwest::Response, HttpError> {
        // What is hashed is the file, not what a server makes of it on the way.
        let mut request = self.mirror_client(url)?.get(url).header(ACCEPT_ENCODING, "identity");
        if let Some(part) = &part {
            request = request.header(RANGE, format!("bytes={}-", part.from));
            if let Some(validator) = part.validator {
                request = request.header(IF_RANGE, validator);
            }
        }
        let within = self.download.stall_after;
        let response = tokio::time::timeout(within, request.send()).await;
        let response = response.map_err(|_| HttpError::Stalled { url: url.to_owned(), bytes: 0, within })?;
        let response = response.map_err(|source| HttpError::no_answer(url, source))?;
        let status = response.status();
        let good = status.is_success() || (part.is_some() && status == StatusCode::RANGE_NOT_SATISFIABLE);
        if good { Ok(response) } else { Err(status_error(url, status, response.headers(), b"")) }
    }

    /// The client for mirrors: the system's roots and the configuration's, and its proxy.
    fn mirror_client(&self, url: &str) -> Result<Client, HttpError> {
        if let Some(client) = self.mirrors.get() {
            return Ok(client.clone());
        }
        let unusable = |source| HttpError::BadTrust { url: url.to_owned(), source };
        let mut builder = builder().redirect(redirect::Policy::custom(follow)).referer(false);
        for path in &self.download.roots {
            builder = builder.tls_certs_merge(self.certificates(path)?);
        }
        if let Proxy::Named { url: proxy, bypass } = &self.download.proxy {
            let mut named = reqwest::Proxy::all(proxy.server().as_str()).map_err(unusable)?;
            if let Some((user, password)) = proxy.login() {
                named = named.basic_auth(user, password);
            }
            // Given one of its own, the client does not ask the environment.
            builder = builder.proxy(named.no_proxy(NoProxy::from_string(&bypass.join(","))));
        }
        let client = builder.build().map_err(unusable)?;
        Ok(self.mirrors.get_or_init(|| client).clone())
    }

    fn certificates(&self, path: &RootPath) -> Result<Vec<Certificate>, HttpError> {
        let bad = |why: String| HttpError::BadCa { path: self.root.display(path), why };
        let pem = self.root.read(path)?.ok_or_else(|| bad("there is no such file".to_owned()))?;
        match Certificate::from_pem_bundle(&pem) {
            Ok(certificates) if certificates.is_empty() => Err(bad("it holds no certificate".to_owned())),
            other => other.map_err(|error| bad(chain(&error))),
        }
    }
}

/// What follows the first bytes of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'a> {
    /// How many bytes are there already.
    pub from: u64,
    /// What the server said of the file that they are from.
    pub validator: Option<&'a str>,
}

/// Where mirrors may send on to. A message names the hosts only: the rest of such a URL is often a key.
fn follow(attempt: Attempt<'_>) -> redirect::Action {
    let (to, seen) = (attempt.url(), attempt.previous());
    let host = |url: &reqwest::Url| url.host_str().unwrap_or("nowhere").to_owned();
    if seen.len() > MOST_REDIRECTS {
        let why = format!("more than {MOST_REDIRECTS} redirects, the last one to {}", host(to));
        return attempt.error(why);
    }
    if seen.contains(to) {
        let why = format!("the redirects go round in a circle at {}", host(to));
        return attempt.error(why);
    }
    if to.scheme() != "https" && seen.iter().any(|url| url.scheme() == "https") {
        let why = format!("it redirects from https to {}://{}: refused", to.scheme(), host(to));
        return attempt.error(why);
    }
    attempt.follow()
}

/// What every client of this program has in common.
pub(super) fn builder() -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("nodeagent/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
        .dns_resolver(Resolver)
}

fn status_error(url: &str, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> HttpError {
    let body = String::from_utf8_lossy(body).trim().to_owned();
    let retry_after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = retry_after.and_then(|text| answer::retry_after(text, super::clock::now()));
    HttpError::Status { url: url.to_owned(), status: status.as_u16(), body, retry_after }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_quoted_in_one_line_without_what_a_terminal_would_obey() {
        assert_eq!(excerpt(" \n"), "");
        assert_eq!(excerpt("not\nfound"), ": not found");
        assert_eq!(excerpt("x\u{1b}]0;y\u{7}"), ": x\u{fffd}]0;y\u{fffd}");
        assert_eq!(excerpt(&"z".repeat(500)).len(), 202);
    }
}
