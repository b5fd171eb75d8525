//! An answer without an end: one JSON document per line, as they come (Kubernetes' watch, and
//! the streams of etcd's gateway).

use std::time::Duration;

use reqwest::{RequestBuilder, Response};
use serde_json::Value;
use tokio::time::timeout;

use super::{ANSWER, MAX_ANSWER, Server, bad, whole};
use crate::host::http::HttpError;

/// Documents that a server sends whenever there is one.
pub struct Watch {
    url: String,
    response: Response,
    /// What came and has not been returned.
    rest: Vec<u8>,
    bytes: u64,
}

impl Server<'_> {
    /// Asks for such an answer, once, and returns when it begins. What is wrong with it comes back as from
    /// [`Server::get`].
    pub async fn watch(&self, path: &str) -> Result<Watch, HttpError> {
        let url = self.base.join(path).to_string();
        let request = self.client.get(&url);
        begun(url, request).await
    }

    /// The same of an answer to JSON that is posted.
    pub async fn post_for_many(&self, path: &str, body: &Value) -> Result<Watch, HttpError> {
        let url = self.base.join(path).to_string();
        let request = self.client.post(&url).json(body);
        begun(url, request).await
    }
}

async fn begun(url: String, request: RequestBuilder) -> Result<Watch, HttpError> {
    let stalled = |_| HttpError::Stalled { url: url.clone(), bytes: 0, within: ANSWER };
    let response = timeout(ANSWER, request.send()).await.map_err(stalled)?;
    let response = response.map_err(|source| HttpError::no_answer(&url, source))?;
    if response.status().is_success() {
        return Ok(Watch { url, response, rest: Vec::new(), bytes: 0 });
    }
    match whole(&url, response).await {
        Err(error) => Err(error),
        Ok(_) => Err(bad(&url, "the answer is none that can be watched".to_owned())),
    }
}

impl Watch {
    /// The next document; nothing when the server has ended the answer. A server that sends nothing for so long counts as
    /// gone: not every connection that is dead says so.
    pub async fn next(&mut self, within: Duration) -> Result<Option<Value>, HttpError> {
        loop {
            if let Some(line) = take_line(&mut self.rest) {
                let document = serde_json::from_slice(&line);
                return document.map(Some).map_err(|error| bad(&self.url, format!("a line is not JSON: {error}")));
            }
            if self.rest.len() > MAX_ANSWER {
                return Err(bad(&self.url, "a line is too long".to_owned()));
            }
            let stalled = |_| HttpError::Stalled { url: self.url.clone(), bytes: self.bytes, within };
            let chunk = timeout(within, self.response.chunk()).await.map_err(stalled)?;
            let Some(chunk) = chunk.map_err(|source| HttpError::no_answer(&self.url, source))? else {
                return Ok(None);
            };
            self.bytes += chunk.len() as u64;
            self.rest.extend_from_slice(&chunk);
        }
    }
}

/// The first whole line that says something.
fn take_line(rest: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = rest.drain(..=end).collect();
        if !line.trim_ascii().is_empty() {
            return Some(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::take_line;

    #[test]
    fn lines_are_taken_whole_and_in_order() {
        let mut rest = b"\n{\"a\":1}\n\r\n{\"b\"".to_vec();
        assert_eq!(take_line(&mut rest).as_deref(), Some(b"{\"a\":1}\n".as_slice()));
        assert_eq!(take_line(&mut rest), None);
        assert_eq!(rest, b"{\"b\"");
        rest.extend_from_slice(b":2}\n");
        assert_eq!(take_line(&mut rest).as_deref(), Some(b"{\"b\":2}\n".as_slice()));
        assert!(rest.is_empty());
    }
}
