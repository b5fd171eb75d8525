//! Fetching a file: from several mirrors, verified, and resumed where an earlier run was interrupted.
//!
//! | file | owns |
//! | --- | --- |
//! | `mod.rs` | the order of things: turns, rounds over the mirrors, the verdict |
//! | `mirrors.rs` | which mirrors are worth asking, and why the others are not |
//! | `transfer.rs` | one answer of one mirror, from its headers to its end |
//! | `answer.rs` | what its headers mean |
//! | `pace.rs` | whether it is fast enough |
//! | `partial.rs` | the file on its way: written and hashed by a thread of its own |
//! | `reason.rs` | why there is no file, for people |
//! | `space.rs` | whether the disk has room for all that is on its way |
//! | `progress.rs` | what people see of it |

pub mod answer;
mod mirrors;
mod pace;
mod partial;
mod progress;
mod reason;
mod space;
mod transfer;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::time::timeout_at;

use super::http::Http;
use super::retry::{GaveUp, News, Policy, Tried, retry};
use super::root::Root;
use crate::config::values::{RootPath, Sha256, Sha512};
use crate::engine::change::SCRATCH;
use crate::journal::{Event, size};

use mirrors::{Health, Mirrors};
pub(super) use pace::Pace;
use partial::Partial;
use progress::Progress;
pub use reason::{FetchError, Reason};
use space::Space;

/// When the mirrors break off again and again, but the file grows by this much each time, they are asked again at once.
const WORTH_ASKING_AGAIN: u64 = 1 << 20;

/// What the fetches of a run share.
pub struct Shared {
    /// As many as may download at the same time.
    turns: Semaphore,
    health: Health,
    space: Space,
    /// When the first began: the deadline is for all of them together.
    begun: OnceLock<tokio::time::Instant>,
}

impl Shared {
    /// For so many downloads at the same time.
    pub fn new(parallel: usize) -> Self {
        let turns = Semaphore::new(parallel);
        Self { turns, health: Health::default(), space: Space::default(), begun: OnceLock::new() }
    }
}

/// A file that is wanted.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// What people call it: `kubelet v1.34.2`.
    pub name: String,
    /// Where it may be fetched, in the order of preference.
    pub urls: Vec<String>,
    /// Its size in bytes, where that is known beforehand.
    pub size: Option<u64>,
    /// What it must be. There is no fetching without.
    pub expect: Expect,
    /// The scratch file that it is fetched to, see [`scratch`]; nothing if it is only to be hashed.
    pub to: Option<RootPath>,
}

/// What a file must be, and who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// A digest that was known before any server was asked: the way that the bytes take does not matter.
    Pinned(Digest),
    /// A digest that a server published: worth as much as the connection, so that only https will do.
    Published(Digest),
}

/// The digest of a whole file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Digest {
    /// Its SHA-256.
    Sha256(Sha256),
    /// Its SHA-512.
    Sha512(Sha512),
}

/// A file that was fetched and verified.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Where its last bytes came from; nothing if an earlier run had fetched it whole.
    pub url: Option<String>,
    /// Its size in bytes.
    pub bytes: u64,
    /// How many bytes of it this run fetched, those included that were thrown away again.
    pub from_network: u64,
    /// How long that took, from when its turn had come.
    pub took: Duration,
    /// Attempts that failed before.
    pub retries: u32,
    /// Its SHA-256, whatever it was verified by.
    pub sha256: Sha256,
    /// Its SHA-512, if it was verified by that.
    pub sha512: Option<Sha512>,
}

/// Where a file is fetched to. The name holds the digest, so that what a killed run left is never taken for another
/// version.
pub fn scratch(name: &str, expect: &Expect) -> RootPath {
    let (Expect::Pinned(digest) | Expect::Published(digest)) = expect;
    let short = match digest {
        Digest::Sha256(digest) => digest.short(),
        Digest::Sha512(digest) => digest.short(),
    };
    RootPath::literal(SCRATCH).join(&format!("{name}-{short}"))
}

/// The scratch files of what is fetched to `to`: an interrupted fetch goes on from them.
pub fn scratch_files(to: &RootPath) -> [RootPath; 2] {
    partial::files(to)
}

impl Http {
    /// Fetches a file and verifies it; what an earlier run left of it is not fetched again.
    ///
    /// As many as the configuration allows download at the same time, the others wait for their turn. What was fetched
    /// in vain stays in scratch for the next run, but for bytes that turned out to be wrong.
    pub async fn fetch(&self, root: &Root, wanted: &Wanted) -> Result<Fetched, FetchError> {
        let begun = *self.fetching.begun.get_or_init(tokio::time::Instant::now);
        let deadline = begun + self.download.deadline;
        let failed = |late: bool, reasons| {
            let late = late.then_some(self.download.deadline);
            FetchError { name: wanted.name.clone(), late, reasons }
        };
        let Ok(turn) = timeout_at(deadline, self.fetching.turns.acquire()).await else {
            return Err(failed(true, Vec::new()));
        };
        let started = Instant::now();
        let (Expect::Pinned(want) | Expect::Published(want)) = &wanted.expect;
        let partial = Partial::open(root, wanted.to.as_ref(), want).map_err(|e| failed(false, vec![e.into()]))?;
        let mut fetch = Fetch {
            http: self,
            root,
            wanted,
            want,
            mirrors: Mirrors::new(&wanted.urls, &self.fetching.health, started),
            progress: Progress::new(&wanted.name, &self.tell, partial.bytes(), started),
            partial,
            asking: None,
        };
        let mut retries = 0;
        let mut news = News::default();
        let on_retry = |why: &String, _| {
            retries += 1;
            if news.is_new(why) {
                self.tell.tell(&Event::Retrying { what: &wanted.name, why });
            }
        };
        let result = retry(deadline, &Policy::default(), on_retry, async || fetch.round().await).await;
        let Fetch { mut mirrors, partial, progress, asking, .. } = fetch;
        drop(turn);
        let (bytes, from_network) = (partial.bytes(), progress.fetched());
        drop(progress);
        match result {
            Ok((url, digests)) => {
                partial.keep().await.map_err(|e| failed(false, vec![e.into()]))?;
                let (what, took) = (&wanted.name, started.elapsed());
                self.tell.tell(&Event::Fetched { what, url: url.as_deref(), bytes, from_network, took, retries });
                let (sha256, sha512) = (digests.sha256, digests.sha512);
                Ok(Fetched { url, bytes, from_network, took, retries, sha256, sha512 })
            }
            Err(gave_up) => {
                let late = matches!(gave_up, GaveUp::Deadline { .. });
                if let Some(url) = asking {
                    let why = "the time was over".to_owned();
                    mirrors.cut_off(url, Reason::BrokeOff { url: url.to_owned(), bytes, total: wanted.size, why });
                }
                let mut reasons = mirrors.into_reasons();
                if let Err(error) = partial.leave()
                    && !reasons.iter().any(Reason::is_ours)
                {
                    reasons.push(error.into());
                }
                Err(failed(late, reasons))
            }
        }
    }
}

/// One file, while it is fetched.
struct Fetch<'a> {
    http: &'a Http,
    root: &'a Root,
    wanted: &'a Wanted,
    want: &'a Digest,
    mirrors: Mirrors<'a>,
    partial: Partial,
    progress: Progress<'a>,
    /// The mirror that is being asked just now.
    asking: Option<&'a str>,
}

/// Where the last bytes came from, if any came, and the digests of them all.
type Complete = (Option<String>, partial::Digests);

impl Fetch<'_> {
    /// Asks each mirror that may be asked, until one gives the rest of the file and the whole of it is right.
    async fn round(&mut self) -> Result<Complete, Tried<String>> {
        match self.is_there_already().await {
            Ok(None) => {}
            Ok(Some(digests)) => return Ok((None, digests)),
            Err(error) => return Err(self.give_up(error)),
        }
        loop {
            let before = self.partial.bytes();
            for url in self.mirrors.to_ask(Instant::now()) {
                self.asking = Some(url);
                let result = self.complete_from(url).await;
                self.asking = None;
                match result {
                    Ok(digests) => {
                        self.mirrors.gave(url);
                        return Ok((Some(url.to_owned()), digests));
                    }
                    Err(reason) if reason.is_ours() => return Err(self.give_up(reason)),
                    Err(reason) => self.mirrors.failed(url, reason, Instant::now()),
                }
            }
            let summary = self.mirrors.summary();
            match self.mirrors.pause(Instant::now()) {
                None => return Err(Tried::Permanent(summary)),
                Some(pause) if pause > Duration::ZERO => return Err(Tried::NotBefore(summary, pause)),
                Some(_) if self.partial.bytes() >= before + WORTH_ASKING_AGAIN => {}
                Some(_) => return Err(Tried::Transient(summary)),
            }
        }
    }

    /// Whether an earlier run fetched it whole, and was ended before it could place it.
    async fn is_there_already(&mut self) -> Result<Option<partial::Digests>, Reason> {
        if self.partial.bytes() == 0 {
            return Ok(None);
        }
        let digests = self.partial.digests().await?;
        Ok(digests.other_than(self.want).is_none().then_some(digests))
    }

    /// No mirror can help: what is wrong is this machine's.
    fn give_up(&mut self, reason: Reason) -> Tried<String> {
        let summary = reason.to_string();
        self.mirrors.ours(reason);
        Tried::Permanent(summary)
    }

    /// The rest from this mirror, and the verdict. What was put together from several answers and is wrong is fetched once
    /// whole before anybody is blamed: a power cut can leave zeros, and another mirror may have sent the wrong bytes.
    async fn complete_from(&mut self, url: &str) -> Result<partial::Digests, Reason> {
        if matches!(self.wanted.expect, Expect::Published(_)) && !url.starts_with("https://") {
            return Err(Reason::NotHttps { url: url.to_owned() });
        }
        loop {
            let sent = match self.transfer(url).await {
                Err(reason) if !matches!(reason, Reason::BrokeOff { .. }) => return Err(reason),
                sent => sent,
            };
            let digests = self.partial.digests().await?;
            let Some(got) = digests.other_than(self.want) else { return Ok(digests) };
            // Right is right, whatever the mirror promised to send besides.
            let sent = sent?;
            let bytes = self.partial.bytes();
            self.partial.restart().await?;
            if sent.whole {
                let (kind, want) = match self.want {
                    Digest::Sha256(want) => ("sha256", want.as_str()),
                    Digest::Sha512(want) => ("sha512", want.as_str()),
                };
                let who = if matches!(self.wanted.expect, Expect::Pinned(_)) { "pinned" } else { "published" };
                let what = format!("its {kind} is {got}, not the {who} {want} ({} of {})", size(bytes), sent.media);
                return Err(Reason::Wrong { url: url.to_owned(), what });
            }
        }
    }
}
