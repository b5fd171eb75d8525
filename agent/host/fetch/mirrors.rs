//! The mirrors of one file: which are still worth asking, in which order, and why the others are not.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::Reason;

/// How often each server failed since it last gave something, over all files of a run.
#[derive(Debug, Default)]
pub struct Health(Mutex<BTreeMap<String, u32>>);

impl Health {
    fn failures(&self, url: &str) -> u32 {
        self.with(|all| all.get(server(url)).copied().unwrap_or(0))
    }

    fn failed(&self, url: &str) {
        self.with(|all| *all.entry(server(url).to_owned()).or_default() += 1);
    }

    fn gave(&self, url: &str) {
        self.with(|all| all.remove(server(url)));
    }

    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<String, u32>) -> T) -> T {
        // Counters are right after any panic.
        act(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

/// Scheme, host and port: `https://host:port` of `https://host:port/path`.
fn server(url: &str) -> &str {
    url.match_indices('/').nth(2).map_or(url, |(at, _)| &url[..at])
}

/// The mirrors of one file.
pub struct Mirrors<'a> {
    health: &'a Health,
    all: Vec<Mirror<'a>>,
    /// What is wrong with this machine, so that no mirror could help.
    ours: Option<Reason>,
}

struct Mirror<'a> {
    url: &'a str,
    failed: Option<Reason>,
    /// When it may be asked again; nothing if never.
    from: Option<Instant>,
}

impl<'a> Mirrors<'a> {
    /// Those of the URLs, each as good as its server has proved to be. One that is named twice is one.
    pub fn new(urls: &'a [String], health: &'a Health, now: Instant) -> Self {
        let first = urls.iter().enumerate().filter(|(at, url)| !urls[..*at].contains(url));
        let all = first.map(|(_, url)| Mirror { url, failed: None, from: Some(now) }).collect();
        Self { health, all, ours: None }
    }

    /// Those that may be asked now: the one that failed least first, else in the order of preference.
    pub fn to_ask(&self, now: Instant) -> Vec<&'a str> {
        let open = self.all.iter().filter(|mirror| mirror.from.is_some_and(|from| from <= now));
        let mut urls: Vec<&str> = open.map(|mirror| mirror.url).collect();
        urls.sort_by_key(|url| self.health.failures(url));
        urls
    }

    /// It gave all that it was asked for.
    pub fn gave(&self, url: &str) {
        self.health.gave(url);
    }

    /// It did not.
    pub fn failed(&mut self, url: &str, reason: Reason, now: Instant) {
        // That a server lacks one file says nothing about its others.
        if reason.is_transient() || matches!(reason, Reason::Wrong { .. }) {
            self.health.failed(url);
        }
        if let Some(mirror) = self.all.iter_mut().find(|mirror| mirror.url == url) {
            let pause = reason.retry_after().unwrap_or_default();
            mirror.from = if reason.is_transient() { now.checked_add(pause) } else { None };
            mirror.failed = Some(reason);
        }
    }

    /// It was still sending when the time was over. Why it failed before, if it did, says more.
    pub fn cut_off(&mut self, url: &str, reason: Reason) {
        if let Some(mirror) = self.all.iter_mut().find(|mirror| mirror.url == url) {
            mirror.failed.get_or_insert(reason);
        }
    }

    /// No mirror could help.
    pub fn ours(&mut self, reason: Reason) {
        self.ours = Some(reason);
    }

    /// How long until the first may be asked again; nothing if none ever may.
    pub fn pause(&self, now: Instant) -> Option<Duration> {
        self.all.iter().filter_map(|mirror| mirror.from).map(|from| from.saturating_duration_since(now)).min()
    }

    /// Why each did not give the file, in one line.
    pub fn summary(&self) -> String {
        self.all
            .iter()
            .filter_map(|mirror| mirror.failed.as_ref())
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; ")
    }

    /// Why there is no file: what is wrong here, else why each mirror did not give it.
    pub fn into_reasons(self) -> Vec<Reason> {
        match self.ours {
            Some(reason) => vec![reason],
            None => self.all.into_iter().filter_map(|mirror| mirror.failed).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::http::HttpError;

    fn status(url: &str, status: u16, pause: Option<u64>) -> Reason {
        let retry_after = pause.map(Duration::from_secs);
        HttpError::Status { url: url.to_owned(), status, body: String::new(), retry_after }.into()
    }

    #[test]
    fn one_that_is_named_twice_is_one() {
        let urls = ["http://a/x", "http://b/x", "http://a/x"].map(str::to_owned);
        let (health, now) = (Health::default(), Instant::now());
        let mut mirrors = Mirrors::new(&urls, &health, now);
        assert_eq!(mirrors.to_ask(now), ["http://a/x", "http://b/x"]);
        mirrors.failed("http://a/x", status("http://a/x", 404, None), now);
        assert_eq!(mirrors.to_ask(now), ["http://b/x"]);
    }

    #[test]
    fn the_healthiest_is_asked_first_and_the_dead_never_again() {
        let urls = ["http://a/x", "http://b/x", "http://c/x"].map(str::to_owned);
        let (health, now) = (Health::default(), Instant::now());
        let mut mirrors = Mirrors::new(&urls, &health, now);
        assert_eq!(mirrors.to_ask(now), ["http://a/x", "http://b/x", "http://c/x"]);
        mirrors.failed("http://a/x", status("http://a/x", 500, None), now);
        assert_eq!(mirrors.to_ask(now), ["http://b/x", "http://c/x", "http://a/x"]);
        mirrors.failed("http://b/x", status("http://b/x", 404, None), now);
        assert_eq!(mirrors.to_ask(now), ["http://c/x", "http://a/x"]);
        mirrors.failed("http://c/x", status("http://c/x", 503, Some(60)), now);
        assert_eq!(mirrors.to_ask(now), ["http://a/x"]);
        assert_eq!(mirrors.to_ask(now + Duration::from_mins(1)), ["http://a/x", "http://c/x"]);
        assert_eq!(mirrors.pause(now), Some(Duration::ZERO));
        mirrors.failed("http://a/x", status("http://a/x", 403, None), now);
        assert_eq!(mirrors.pause(now), Some(Duration::from_mins(1)));
        mirrors.failed("http://c/x", status("http://c/x", 410, None), now);
        assert_eq!(mirrors.pause(now), None);

        // Another file of the same servers: what one lacked, another may have.
        let others = ["http://a/y", "http://b/y", "http://c/y"].map(str::to_owned);
        let mirrors = Mirrors::new(&others, &health, now);
        assert_eq!(mirrors.to_ask(now), ["http://b/y", "http://a/y", "http://c/y"]);
        mirrors.gave("http://c/y");
        assert_eq!(mirrors.to_ask(now), ["http://b/y", "http://c/y", "http://a/y"]);
    }
}
