//! The API server as this service asks it: objects that may not be there, lists in parts, and watches that go on.

use std::convert::Infallible;
use std::time::Duration;

use serde_json::Value;

use crate::engine::fault::quote;
use crate::host::http::HttpError;
use crate::host::http::cluster::Server;

/// How many objects one part of a list has: a Node has up to ten kilobytes.
const PART: usize = 100;

/// How long the API server keeps a watch open. It ends the answer then, and the next one goes on where it ended.
const WATCH: Duration = Duration::from_mins(1);

/// How long after that a silent connection counts as dead.
const SLACK: Duration = Duration::from_secs(20);

/// Before the next watch: a server that ends each at once is not asked without a pause.
const BETWEEN_WATCHES: Duration = Duration::from_millis(200);

/// How an object was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Met {
    /// It is there: new, changed, or listed again.
    There,
    /// It is gone, and this is how it was.
    Gone,
}

/// The API server.
pub struct Api<'a>(pub Server<'a>);

impl Api<'_> {
    /// The object at a path, if there is one.
    pub async fn find(&self, path: &str) -> Result<Option<Value>, HttpError> {
        match self.0.get(path).await {
            Ok(object) => Ok(Some(object)),
            Err(HttpError::Status { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Hands every object of a collection to `each`, as it is and whenever it changes. Ends only with an error.
    pub async fn follow(
        &self,
        path: &str,
        mut each: impl AsyncFnMut(Met, &Value) -> Result<(), HttpError>,
    ) -> Result<Infallible, HttpError> {
        loop {
            let mut version = self.list(path, &mut each).await?;
            while self.watch(path, &mut version, &mut each).await? {
                tokio::time::sleep(BETWEEN_WATCHES).await;
            }
        }
    }

    /// Lists a collection, and returns the version that a watch goes on from.
    async fn list(
        &self,
        path: &str,
        each: &mut impl AsyncFnMut(Met, &Value) -> Result<(), HttpError>,
    ) -> Result<String, HttpError> {
        let mut part = String::new();
        loop {
            let list = self.0.get(&format!("{path}?limit={PART}{part}")).await?;
            for item in list["items"].as_array().into_iter().flatten() {
                each(Met::There, item).await?;
            }
            let of_list = |name: &str| list["metadata"][name].as_str().unwrap_or_default().to_owned();
            part = match of_list("continue") {
                next if next.is_empty() => return Ok(of_list("resourceVersion")),
                // URL-safe base64 (k8s.io/apiserver, `EncodeContinue`).
                next => format!("&continue={next}"),
            };
        }
    }

    /// Watches a collection from a version on until the server ends the answer. False when the server no longer knows what
    /// has happened since that version, and the collection must be listed again.
    async fn watch(
        &self,
        path: &str,
        version: &mut String,
        each: &mut impl AsyncFnMut(Met, &Value) -> Result<(), HttpError>,
    ) -> Result<bool, HttpError> {
        const GONE: u16 = 410;
        let seconds = WATCH.as_secs();
        let query = format!("watch=1&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={version}");
        let mut watch = match self.0.watch(&format!("{path}?{query}")).await {
            Err(HttpError::Status { status: GONE, .. }) => return Ok(false),
            other => other?,
        };
        while let Some(event) = watch.next(WATCH + SLACK).await? {
            let object = &event["object"];
            match event["type"].as_str().unwrap_or_default() {
                "ADDED" | "MODIFIED" => each(Met::There, object).await?,
                "DELETED" => each(Met::Gone, object).await?,
                "BOOKMARK" => {}
                // Whatever it is: the list tells what is so now.
                _ => return Ok(false),
            }
            if let Some(seen) = object["metadata"]["resourceVersion"].as_str() {
                seen.clone_into(version);
            }
        }
        Ok(true)
    }
}

/// What the API server says of a request that it refused, in one line.
pub fn said(error: &HttpError) -> String {
    let message = error.json().and_then(|status| status["message"].as_str().map(quote));
    message.unwrap_or_else(|| error.to_string())
}

/// Whether the API server has judged this request by itself, so that others may fare better; else it or the way to it
/// fails. A patch that it cannot make sense of is an error of its own to it (500), which it explains.
pub fn is_answer(error: &HttpError) -> bool {
    match error {
        HttpError::Status { status: 500, .. } => error.json().is_some(),
        HttpError::Status { status: 401 | 408 | 429, .. } => false,
        // In its first seconds it forbids what it cannot judge yet (k8s.io/apiserver, `admission.NewForbidden` with
        // "not yet ready to handle request").
        HttpError::Status { status: 403, .. } => !said(error).contains("not yet ready"),
        HttpError::Status { status, .. } => (400..500).contains(status),
        _ => false,
    }
}
