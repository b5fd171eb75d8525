//! The one HTTP client: built lazily, with deadlines, and with errors that name the URL.

use crate::engine::fault::Explain;

/// The one HTTP client. Cheap to clone.
#[derive(Clone)]
pub struct Http;

/// Which roots vouch for an `https` server.
pub enum Trust<'a> {
    /// The machine's own certificate store.
    System,
    /// These CA certificates only, in PEM.
    Only(&'a [u8]),
}

/// A request failed.
#[derive(Debug, thiserror::Error)]
#[error("placeholder")]
pub struct HttpError;
impl Explain for HttpError {}

impl Http {
    /// Posts JSON and returns the JSON of a 2xx answer. Other answers are errors that carry status and body.
    /// Node-local or cluster traffic: no proxy. Transient failures are retried inside the deadline.
    pub async fn post_json(
        &self,
        url: &str,
        trust: Trust<'_>,
        body: &serde_json::Value,
    ) -> Result<serde_json::Value, HttpError> {
        let _ = (url, trust, body);
        Err(HttpError)
    }
}
