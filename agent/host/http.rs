//! The one HTTP client: built lazily, with deadlines, and with errors that name the URL.

use std::io::Write as _;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use reqwest::{Client, ClientBuilder, StatusCode};

use super::retry::{self, GaveUp, News, Policy, Tried};
use super::root::{FileError, Root};
use crate::config::values::{RootPath, Sha256};
use crate::engine::change::Meta;
use crate::engine::fault::{Class, Explain};
use crate::journal::{Event, Teller};

/// How long a server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// How long a body may stand still.
const STALL: Duration = Duration::from_secs(30);

/// How long a request that asks for a few kilobytes may be tried again.
const REQUEST_DEADLINE: Duration = Duration::from_mins(1);

/// The longest answer that is read into memory, in bytes.
const MAX_ANSWER: usize = 4 << 20;

/// The one HTTP client. Cheap to clone.
#[derive(Clone)]
pub struct Http {
    system: Arc<OnceLock<Client>>,
    tell: Teller,
}

/// Which roots vouch for an `https` server.
#[derive(Debug, Clone, Copy)]
pub enum Trust<'a> {
    /// The machine's own certificate store.
    System,
    /// These CA certificates only, in PEM.
    Only(&'a [u8]),
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
    /// The answer was not a success.
    #[error("{url}: HTTP {status}{}", excerpt(body))]
    Status {
        /// The URL.
        url: String,
        /// The status code.
        status: u16,
        /// The answer's text.
        body: String,
    },
    /// The body stood still.
    #[error("{url}: the server sent nothing for {} s", STALL.as_secs())]
    Stalled {
        /// The URL.
        url: String,
    },
    /// The answer is not what was asked for.
    #[error("{url}: {why}")]
    BadAnswer {
        /// The URL.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// No attempt succeeded in time.
    #[error("{last} (attempt {attempts}, and the last one before the deadline)")]
    Deadline {
        /// How often it was tried.
        attempts: u32,
        /// How it failed last.
        last: String,
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

/// The beginning of an answer, on one line, to stand behind its status.
fn excerpt(body: &str) -> String {
    let line: String = body.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(200).collect();
    if line.is_empty() { line } else { format!(": {line}") }
}

/// reqwest's chain of causes in one line, without the URL, which stands in front already.
fn chain(error: &reqwest::Error) -> String {
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
            _ => Class::Failed,
        }
    }
}

impl HttpError {
    /// The JSON that came with a status that is no success, if it was JSON.
    pub fn json(&self) -> Option<serde_json::Value> {
        match self {
            Self::Status { body, .. } => serde_json::from_str(body).ok(),
            _ => None,
        }
    }

    /// Whether another attempt may succeed: no answer, or one of the statuses that curl retries too.
    fn is_transient(&self) -> bool {
        match self {
            Self::NoAnswer { .. } | Self::Stalled { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
            Self::BadAnswer { .. } | Self::BadTrust { .. } | Self::Deadline { .. } => false,
        }
    }

    fn tried(self) -> Tried<Self> {
        if self.is_transient() { Tried::Transient(self) } else { Tried::Permanent(self) }
    }
}

/// A download failed. The scratch file is gone.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The server did not give it.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// It could not be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// What came is not what was pinned.
    #[error("{url}: its sha256 is {got}, not the pinned {want}")]
    WrongDigest {
        /// The URL.
        url: String,
        /// The digest of what came.
        got: Sha256,
        /// The pinned one.
        want: Sha256,
    },
}

impl Explain for DownloadError {
    fn class(&self) -> Class {
        match self {
            Self::Http(error) => error.class(),
            Self::File(error) => error.class(),
            Self::WrongDigest { .. } => Class::Verification,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::File(error) => error.advice(),
            _ => None,
        }
    }
}

impl DownloadError {
    /// Whether another attempt at the same URL may succeed.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Http(error) if error.is_transient())
    }
}

/// What came.
#[derive(Debug, Clone, Copy)]
pub struct Downloaded {
    /// Its size.
    pub bytes: u64,
    /// How long it took.
    pub took: Duration,
}

impl Http {
    /// A client that tells of its progress and of what it tries again.
    pub fn new(tell: Teller) -> Self {
        Self { system: Arc::default(), tell }
    }

    /// Posts JSON and returns the JSON of a 2xx answer. Other answers are errors that carry status and body.
    /// Cluster traffic: no proxy. Transient failures are retried inside the deadline.
    pub async fn post_json(
        &self,
        url: &str,
        trust: Trust<'_>,
        body: &serde_json::Value,
    ) -> Result<serde_json::Value, HttpError> {
        let deadline = tokio::time::Instant::now() + REQUEST_DEADLINE;
        let mut news = News::default();
        let on_retry = |why: &HttpError, _| {
            let why = why.to_string();
            if news.is_new(&why) {
                self.tell.tell(&Event::Retrying { what: url, why: &why });
            }
        };
        let policy = Policy::default();
        let posted = retry::retry(deadline, &policy, on_retry, async || {
            self.post_once(url, trust, body).await.map_err(HttpError::tried)
        });
        posted.await.map_err(|gave_up| match gave_up {
            GaveUp::Permanent { error, .. } => error,
            GaveUp::Deadline { attempts, last } => HttpError::Deadline {
                attempts,
                last: last.map_or_else(|| format!("{url}: no answer"), |error| error.to_string()),
            },
        })
    }

    async fn post_once(
        &self,
        url: &str,
        trust: Trust<'_>,
        body: &serde_json::Value,
    ) -> Result<serde_json::Value, HttpError> {
        let client = cluster_client(url, trust)?;
        let no_answer = |source| HttpError::NoAnswer { url: url.to_owned(), source };
        let response = client.post(url).json(body).timeout(STALL).send().await.map_err(no_answer)?;
        let status = response.status();
        let answer = response.bytes().await.map_err(no_answer)?;
        if answer.len() > MAX_ANSWER {
            return Err(HttpError::BadAnswer { url: url.to_owned(), why: "the answer is too long".to_owned() });
        }
        if !status.is_success() {
            return Err(status_error(url, status, &answer));
        }
        serde_json::from_slice(&answer).map_err(|error| HttpError::BadAnswer {
            url: url.to_owned(),
            why: format!("the answer is not JSON: {error}"),
        })
    }

    /// Fetches a URL once into a scratch file, hashing as it comes, and verifies it. On any failure the file is removed.
    pub async fn download(
        &self,
        url: &str,
        root: &Root,
        scratch: &RootPath,
        sha256: &Sha256,
    ) -> Result<Downloaded, DownloadError> {
        root.make_own_dirs(&scratch.parent(), Meta::root(0o700))?;
        let result = self.download_to(url, root, scratch, sha256).await;
        if result.is_err() {
            // The error that is reported is the download's; what could not be removed is removed by the next run.
            let _ = root.remove(scratch);
        }
        result
    }

    async fn download_to(
        &self,
        url: &str,
        root: &Root,
        scratch: &RootPath,
        want: &Sha256,
    ) -> Result<Downloaded, DownloadError> {
        let started = Instant::now();
        let no_answer = |source| HttpError::NoAnswer { url: url.to_owned(), source };
        let stalled = |_| HttpError::Stalled { url: url.to_owned() };
        let request = self.mirror_client(url)?.get(url).send();
        let response = tokio::time::timeout(STALL, request).await.map_err(stalled)?.map_err(no_answer)?;
        let status = response.status();
        if !status.is_success() {
            return Err(status_error(url, status, b"").into());
        }
        let name = url.rsplit('/').next().unwrap_or(url);
        let bar = self.tell.progress(name, response.content_length());
        let mut file = root.create_scratch(scratch)?;
        let mut hasher = openssl::sha::Sha256::new();
        let mut bytes = 0;
        let mut body = response.bytes_stream();
        while let Some(chunk) = tokio::time::timeout(STALL, body.next()).await.map_err(stalled)? {
            let chunk = chunk.map_err(no_answer)?;
            hasher.update(&chunk);
            file.write_all(&chunk).map_err(|e| root.error("write", scratch, e))?;
            bytes += chunk.len() as u64;
            bar.inc(chunk.len() as u64);
        }
        bar.finish_and_clear();
        let got = Sha256::from_raw(&hasher.finish());
        if got != *want {
            return Err(DownloadError::WrongDigest { url: url.to_owned(), got, want: want.clone() });
        }
        Ok(Downloaded { bytes, took: started.elapsed() })
    }

    /// The client for mirrors: the system's roots, and the environment's proxy if it names one.
    fn mirror_client(&self, url: &str) -> Result<Client, HttpError> {
        if let Some(client) = self.system.get() {
            return Ok(client.clone());
        }
        let client = builder().build().map_err(|source| HttpError::BadTrust { url: url.to_owned(), source })?;
        Ok(self.system.get_or_init(|| client).clone())
    }
}

/// A client for the cluster's own servers: no proxy, and the given roots.
fn cluster_client(url: &str, trust: Trust<'_>) -> Result<Client, HttpError> {
    let bad_trust = |source| HttpError::BadTrust { url: url.to_owned(), source };
    let builder = builder().no_proxy();
    let builder = match trust {
        Trust::System => builder,
        Trust::Only(pem) => builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(pem).map_err(bad_trust)?),
    };
    builder.build().map_err(bad_trust)
}

fn builder() -> ClientBuilder {
    Client::builder().user_agent(concat!("nodeagent/", env!("CARGO_PKG_VERSION"))).connect_timeout(CONNECT)
}

fn status_error(url: &str, status: StatusCode, body: &[u8]) -> HttpError {
    let body = String::from_utf8_lossy(body).trim().to_owned();
    HttpError::Status { url: url.to_owned(), status: status.as_u16(), body }
}
