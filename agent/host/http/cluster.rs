//! Asking the cluster's own servers (a signer, the API server): JSON both ways, no proxy, one trusted CA, and a clock that
//! agrees with theirs.

mod watch;

use std::time::{Duration, SystemTime};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderValue};
use reqwest::{Certificate, Client, Identity, Method, Response, redirect};
use serde_json::Value;
use tokio::time::Instant;

pub use self::watch::Watch;
use super::{Http, HttpError, builder, status_error};
use crate::config::values::HttpUrl;
use crate::host::clock;
use crate::journal;

/// How long such a server may take to answer.
const ANSWER: Duration = Duration::from_secs(30);

/// How long a request that asks for a few kilobytes may be tried again.
pub(super) const REQUEST_DEADLINE: Duration = Duration::from_mins(1);

/// How far a server's clock and this machine's may be apart: what Kubernetes' own signers backdate certificates by.
const CLOCKS_APART: Duration = Duration::from_mins(5);

/// The longest answer that is read into memory, in bytes.
const MAX_ANSWER: usize = 4 << 20;

/// As whom a server is asked.
#[derive(Clone, Copy)]
pub enum Login<'a> {
    /// As nobody.
    Anonymous,
    /// As whoever has this token (RFC 6750).
    Bearer(&'a str),
    /// As the subject of this certificate, in PEM; its key in PKCS#8 and PEM.
    Pair {
        /// The certificate.
        certificate: &'a [u8],
        /// Its key.
        key: &'a [u8],
    },
}

/// One of the cluster's servers, and the connections to it.
pub struct Server<'a> {
    http: &'a Http,
    base: &'a HttpUrl,
    client: Client,
}

impl Http {
    /// The server at `base`, which a CA certificate in `ca` (PEM) must vouch for.
    pub fn server<'a>(&'a self, base: &'a HttpUrl, ca: &[u8], login: Login<'_>) -> Result<Server<'a>, HttpError> {
        let make = || {
            // A request that is meant for this server is not for another one to which it sends on.
            let builder = builder().no_proxy().redirect(redirect::Policy::none());
            let builder = builder.tls_certs_only(Certificate::from_pem_bundle(ca)?);
            match login {
                Login::Anonymous => builder,
                Login::Bearer(token) => builder.default_headers(authorization(token)),
                Login::Pair { certificate, key } => builder.identity(Identity::from_pkcs8_pem(certificate, key)?),
            }
            .build()
        };
        let client = make().map_err(|source| HttpError::BadTrust { url: base.to_string(), source })?;
        Ok(Server { http: self, base, client })
    }

    /// A server that anybody may be: what it says must be vouched for by itself, and nothing secret is sent.
    pub fn unknown_server<'a>(&'a self, base: &'a HttpUrl) -> Result<Server<'a>, HttpError> {
        let builder = builder().no_proxy().redirect(redirect::Policy::none());
        let client = builder.tls_danger_accept_invalid_certs(true).build();
        let client = client.map_err(|source| HttpError::BadTrust { url: base.to_string(), source })?;
        Ok(Server { http: self, base, client })
    }
}

/// A token that holds what no header can is none that a server knows: it is not sent.
fn authorization(token: &str) -> HeaderMap {
    let value = HeaderValue::from_str(&format!("Bearer {token}")).map(|mut value| {
        value.set_sensitive(true);
        (AUTHORIZATION, value)
    });
    value.into_iter().collect()
}

impl Server<'_> {
    /// The JSON at a path. Transient failures are retried for a minute.
    pub async fn get(&self, path: &str) -> Result<Value, HttpError> {
        self.ask(Method::GET, path, None).await
    }

    /// Posts JSON and returns the JSON of a 2xx answer; other answers are errors that carry status and body. Transient
    /// failures are retried for a minute.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, HttpError> {
        self.ask(Method::POST, path, Some(("application/json", body))).await
    }

    /// Puts JSON in the place of what is there; else as [`Self::post`].
    pub async fn put(&self, path: &str, body: &Value) -> Result<Value, HttpError> {
        self.ask(Method::PUT, path, Some(("application/json", body))).await
    }

    /// Changes what is there by a patch of this media type (RFC 5789); else as [`Self::post`], but it is tried once: what an
    /// API server cannot apply it answers with the same status as its own troubles (500).
    pub async fn patch(&self, path: &str, media_type: &'static str, change: &Value) -> Result<Value, HttpError> {
        self.ask_once(&Method::PATCH, self.base.join(path).as_str(), Some((media_type, change))).await
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Body<'_>>) -> Result<Value, HttpError> {
        let url = self.base.join(path);
        let deadline = Instant::now() + REQUEST_DEADLINE;
        self.http.persist(url.as_str(), deadline, async || self.ask_once(&method, url.as_str(), body).await).await
    }

    async fn ask_once(&self, method: &Method, url: &str, body: Option<Body<'_>>) -> Result<Value, HttpError> {
        let mut request = self.client.request(method.clone(), url).timeout(ANSWER);
        if let Some((media_type, body)) = body {
            request = request.header(CONTENT_TYPE, media_type).json(body);
        }
        let response = request.send().await.map_err(|source| HttpError::no_answer(url, source))?;
        let answer = whole(url, response).await?;
        serde_json::from_slice(&answer).map_err(|error| bad(url, format!("the answer is not JSON: {error}")))
    }
}

/// A request's media type and content.
type Body<'a> = (&'static str, &'a Value);

/// The whole of a good answer.
async fn whole(url: &str, response: Response) -> Result<Vec<u8>, HttpError> {
    let (status, headers) = (response.status(), response.headers().clone());
    let date = headers.get(DATE).and_then(|date| date.to_str().ok());
    same_time(url, date, clock::now())?;
    let answer = body(url, response).await?;
    if !status.is_success() {
        return Err(status_error(url, status, &headers, &answer));
    }
    Ok(answer)
}

/// What the answer holds. It is given up where it gets too long: who answers may be anybody.
async fn body(url: &str, mut response: Response) -> Result<Vec<u8>, HttpError> {
    let mut all = Vec::new();
    while let Some(part) = response.chunk().await.map_err(|source| HttpError::no_answer(url, source))? {
        all.extend_from_slice(&part);
        if all.len() > MAX_ANSWER {
            return Err(bad(url, format!("the answer is longer than {}", journal::size(MAX_ANSWER as u64))));
        }
    }
    Ok(all)
}

fn bad(url: &str, why: String) -> HttpError {
    HttpError::BadAnswer { url: url.to_owned(), why }
}

/// Refuses what a server says whose clock is far from this machine's: one of the two would take the certificates of the
/// other for not yet valid, or for expired. A server need not say what time it has.
fn same_time(url: &str, date: Option<&str>, now: SystemTime) -> Result<(), HttpError> {
    let Some(theirs) = date.and_then(|date| httpdate::parse_http_date(date).ok()) else { return Ok(()) };
    let off = theirs.duration_since(now).unwrap_or_else(|earlier| earlier.duration());
    if off <= CLOCKS_APART {
        return Ok(());
    }
    Err(HttpError::ClockOff { url: url.to_owned(), theirs: clock::text(theirs), ours: clock::text(now) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fault::Explain as _;

    #[test]
    fn clocks_may_be_five_minutes_apart_and_no_more() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let table = [
            (Some("Sun, 06 Nov 1994 08:49:37 GMT"), None),
            (Some("Sun, 06 Nov 1994 08:54:37 GMT"), None),
            (Some("Sun, 06 Nov 1994 08:54:38 GMT"), Some("1994-11-06T08:54:38Z there, and 1994-11-06T08:49:37Z here")),
            (Some("Sun, 06 Nov 1994 08:44:36 GMT"), Some("1994-11-06T08:44:36Z there, and 1994-11-06T08:49:37Z here")),
            (Some("Thu, 01 Jan 1970 00:00:00 GMT"), Some("1970-01-01T00:00:00Z there")),
            (Some("tomorrow"), None),
            (None, None),
        ];
        for (date, want) in table {
            let got = same_time("https://signer", date, now);
            match want {
                None => assert!(got.is_ok(), "{date:?}: {got:?}"),
                Some(part) => {
                    let error = got.expect_err("too far apart");
                    assert!(error.to_string().contains(part), "{date:?}: {error}");
                    assert!(!error.is_transient() && error.advice().is_some(), "{date:?}");
                }
            }
        }
    }
}
