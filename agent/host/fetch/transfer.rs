//! One answer of one mirror: what it is of, and all of its bytes.

use std::time::Instant;

use reqwest::header::{CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, LAST_MODIFIED};
use reqwest::{Response, StatusCode};

use super::partial::Note;
use super::{Fetch, Pace, Reason, answer};
use crate::host::http::{HttpError, Part, chain};
use crate::journal::size;

/// The largest file that is fetched from a server that does not say how large it is.
const LARGEST: u64 = 4 << 30;

/// What a mirror sent.
pub(super) struct Sent {
    /// Whether it was the whole file, rather than the rest of what was there.
    pub whole: bool,
    /// What it said that it was: `text/html` tells a person much.
    pub media: String,
}

impl Fetch<'_> {
    /// Asks a mirror for what is missing, and appends it.
    pub(super) async fn transfer(&mut self, url: &str) -> Result<Sent, Reason> {
        let response = self.ask(url).await?;
        let from = self.partial.bytes();
        let total = self.total(url, from, &response)?;
        let media = header(&response, &CONTENT_TYPE).unwrap_or("an unknown type").chars().take(40).collect();
        let validator = answer::validator(header(&response, &ETAG), header(&response, &LAST_MODIFIED));
        let note = validator.map(|validator| Note { url: url.to_owned(), validator: validator.to_owned() });
        let left = total.map_or(0, |total| total.saturating_sub(from));
        let mut room = match &self.wanted.to {
            Some(to) => Some(self.http.fetching.space.reserve(self.root, to, left)?),
            None => None,
        };
        self.partial.set_note(note)?;
        self.progress.resume(from, total);
        let broke_off = |bytes, why| Reason::BrokeOff { url: url.to_owned(), bytes, total, why };

        let mut pace = Pace::new(self.http.download.minimum_rate, self.http.download.stall_after);
        let mut body = response.bytes_stream();
        while let Some(piece) = pace.next(url, &mut body).await? {
            let piece = piece.map_err(|error| broke_off(self.partial.bytes(), chain(&error)))?;
            let length = piece.len() as u64;
            if self.partial.bytes() + length > total.unwrap_or(LARGEST) {
                let why = format!("it does not end after {}", size(total.unwrap_or(LARGEST)));
                return Err(HttpError::BadAnswer { url: url.to_owned(), why }.into());
            }
            self.partial.write(piece).await?;
            self.progress.add(length, Instant::now());
            if let Some(room) = &mut room {
                room.written(length);
            }
        }
        match total {
            Some(total) if self.partial.bytes() < total => {
                Err(broke_off(self.partial.bytes(), "the server ended it".to_owned()))
            }
            _ => Ok(Sent { whole: from == 0, media }),
        }
    }

    /// An answer that begins where the file on its way ends. A mirror that knows no ranges, has another file by now, or
    /// answers with another part makes that the beginning.
    async fn ask(&mut self, url: &str) -> Result<Response, Reason> {
        let from = self.partial.bytes();
        if from > 0 {
            let part = Part { from, validator: self.partial.validator_of(url) };
            let response = self.http.get(url, Some(part)).await?;
            let range = header(&response, &CONTENT_RANGE).and_then(answer::content_range);
            let follows = response.status() == StatusCode::PARTIAL_CONTENT && range.is_some_and(|r| r.from == from);
            if follows {
                return Ok(response);
            }
            self.partial.restart().await?;
            if is_whole(&response) {
                return Ok(response);
            }
        }
        let response = self.http.get(url, None).await?;
        if is_whole(&response) {
            return Ok(response);
        }
        let why = format!("it answers {} where the whole file was asked for", response.status());
        Err(HttpError::BadAnswer { url: url.to_owned(), why }.into())
    }

    /// The size of the whole file, as far as the answer tells. What cannot be right is refused before a byte of it comes.
    fn total(&self, url: &str, from: u64, response: &Response) -> Result<Option<u64>, Reason> {
        if let Some(encoding) = header(response, &CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
            let why = format!("it is encoded ({}), which was not asked for", crate::engine::fault::quote(encoding));
            return Err(HttpError::BadAnswer { url: url.to_owned(), why }.into());
        }
        let range = header(response, &CONTENT_RANGE).and_then(answer::content_range);
        let length = response.content_length().and_then(|length| from.checked_add(length));
        let total = range.and_then(|range| range.total).filter(|_| from > 0).or(length);
        match (total, self.wanted.size) {
            (Some(total), Some(size)) if total != size => {
                Err(Reason::Wrong { url: url.to_owned(), what: format!("it has {total} bytes, not the {size} wanted") })
            }
            (None, size) => Ok(size),
            (total, _) => Ok(total),
        }
    }
}

fn is_whole(response: &Response) -> bool {
    response.status() == StatusCode::OK
}

fn header<'r>(response: &'r Response, name: &HeaderName) -> Option<&'r str> {
    response.headers().get(name).and_then(|value| value.to_str().ok())
}
