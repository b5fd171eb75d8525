//! Taking a snapshot: the member streams its store, and the file has its name only when all of it is there and right.

use std::fs::File;
use std::io::Write as _;
use std::time::{Duration, Instant};

use openssl::base64::decode_block;
use serde_json::{Value, json};

use super::member::{self, Member};
use super::seal::{BadSnapshot, Judge, Sealed};
use super::shelf::Shelf;
use crate::config::settings::SnapshotSettings;
use crate::config::values::RootPath;
use crate::engine::change::Meta;
use crate::engine::fault::{Class, Explain, Fault, quote};
use crate::host::clock;
use crate::host::http::cluster::{Server, Watch};
use crate::host::http::{Http, HttpError};
use crate::host::lock::{self, Lock};
use crate::host::retry::{GaveUp, News, Policy, Tried, retry};
use crate::host::root::{FileError, Root};
use crate::journal::{Event, Teller, size};

/// All attempts together: 8 GB, the most that etcd advises to keep, at 5 MB/s.
const DEADLINE: Duration = Duration::from_mins(30);

/// How long the member may send nothing.
const STALL: Duration = Duration::from_secs(30);

/// How long another snapshot's end is waited for.
const OTHER: Duration = Duration::from_mins(1);

/// One at a time, since each removes what killed ones left.
const LOCK: &str = "/run/nodeagent/etcd-snapshot";

/// A snapshot that was taken.
pub struct Taken {
    /// The file.
    pub file: RootPath,
    /// What is in it.
    pub sealed: Sealed,
    /// The revision that the store had reached just before, if the member said so.
    pub revision: Option<u64>,
    /// How long it took.
    pub took: Duration,
}

/// There is no snapshot, and no part of one.
#[derive(Debug, thiserror::Error)]
enum SnapshotError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Bad(#[from] BadSnapshot),
    #[error(
        "{path}: No space left on device: {} are to be written and as much is to stay free, {} are free",
        size(*needs), size(*free)
    )]
    NoRoom { path: String, needs: u64, free: u64 },
    #[error("{url}: the member ended its answer: {why}")]
    Ended { url: String, why: String },
    #[error("{url}: the member sent {came} of {all}, and no more", came = size(*came), all = size(*all))]
    Short { url: String, came: u64, all: u64 },
    #[error("{url}: no snapshot came within {} min (attempt {attempts})", DEADLINE.as_secs() / 60)]
    Late { url: String, attempts: u32 },
}

impl Explain for SnapshotError {
    fn class(&self) -> Class {
        match self {
            Self::Http(error) => error.class(),
            Self::Bad(error) => error.class(),
            Self::Late { .. } => Class::Deadline,
            _ => Class::Failed,
        }
    }

    fn advice(&self) -> Option<String> {
        const ROOM: &str = "free some space there, keep fewer (etcd.snapshots.keep), or name another directory \
                            (etcd.snapshots.dir)";
        match self {
            Self::Http(HttpError::Untrusted { .. }) => {
                Some("is it a member of this cluster that answers there? pki.etcd.ca must vouch for it".to_owned())
            }
            Self::Http(_) | Self::Ended { .. } | Self::Short { .. } | Self::Late { .. } => {
                Some("it is this node's own member that is asked: systemctl status etcd".to_owned())
            }
            Self::NoRoom { .. } => Some(ROOM.to_owned()),
            Self::File(error) => error.advice(),
            Self::Bad(_) => Some("what came is damaged, and was removed: take another".to_owned()),
        }
    }
}

/// Takes a snapshot, to a file, or to the shelf, of which the oldest are then removed.
pub async fn take(
    root: &Root,
    http: &Http,
    tell: &Teller,
    member: &Member,
    to: Option<RootPath>,
    settings: &SnapshotSettings,
) -> Result<Taken, Fault> {
    let shelf = Shelf { root, dir: &settings.dir };
    let _lock = alone(root, tell).await?;
    let begun = Instant::now();
    let file = if let Some(file) = &to {
        file.clone()
    } else {
        shelf.prepare()?;
        shelf.place(clock::now())
    };
    let part = Root::temporary(&file);
    let taken = match stream(root, http, tell, member, &file, &part).await {
        Ok(taken) => root.place(&part, &file, Meta::SECRET).map(|()| taken).map_err(SnapshotError::from),
        Err(error) => Err(error),
    };
    let (sealed, revision) = taken.inspect_err(|_| {
        // Best effort: the next run removes what stays.
        let _ = root.remove(&part);
    })?;
    let taken = Taken { file, sealed, revision, took: begun.elapsed() };
    let Taken { file, sealed, revision, took } = &taken;
    tell.tell(&Event::SnapshotTaken { path: file, bytes: sealed.bytes, revision: *revision, took: *took });
    if to.is_none() {
        shelf.prune(settings.keep.get().into(), file).map_err(|fault| fault.context("remove the oldest snapshots"))?;
    }
    Ok(taken)
}

async fn alone(root: &Root, tell: &Teller) -> Result<Lock, Fault> {
    let told = |holder: &str| {
        let why = format!("held by {holder}");
        tell.tell(&Event::TargetAwaited { target: "another snapshot", why: &why });
    };
    Ok(lock::take_at(RootPath::literal(LOCK), root, "etcd snapshot", OTHER, told).await?)
}

/// Fetches the whole of it, anew where the member broke off.
async fn stream(
    root: &Root,
    http: &Http,
    tell: &Teller,
    member: &Member,
    file: &RootPath,
    part: &RootPath,
) -> Result<(Sealed, Option<u64>), SnapshotError> {
    let server = member.connect(http)?;
    let url = member.url().as_str();
    let mut news = News::default();
    let on_retry = |why: &SnapshotError, _| {
        let why = why.to_string();
        if news.is_new(&why) {
            tell.tell(&Event::Retrying { what: "the snapshot", why: &why });
        }
    };
    let deadline = tokio::time::Instant::now() + DEADLINE;
    let attempt = async || once(root, &server, url, file, part).await.map_err(tried);
    retry(deadline, &Policy::default(), on_retry, attempt).await.map_err(|gave_up| match gave_up {
        GaveUp::Permanent { error, .. } | GaveUp::Deadline { last: Some(error), .. } => error,
        GaveUp::Deadline { attempts, last: None } => SnapshotError::Late { url: url.to_owned(), attempts },
    })
}

/// A member that goes away while it sends may be back: whether it is there at all is asked first, for a minute.
fn tried(error: SnapshotError) -> Tried<SnapshotError> {
    match &error {
        SnapshotError::Http(cause) if cause.is_transient() => Tried::Transient(error),
        SnapshotError::Ended { .. } | SnapshotError::Short { .. } => Tried::Transient(error),
        _ => Tried::Permanent(error),
    }
}

async fn once(
    root: &Root,
    server: &Server<'_>,
    url: &str,
    file: &RootPath,
    part: &RootPath,
) -> Result<(Sealed, Option<u64>), SnapshotError> {
    let revision = member::revision(server).await?;
    let answer = server.post_for_many("/v3/maintenance/snapshot", &json!({})).await?;
    let out = root.create_scratch(part)?;
    let write = Write { root, url, file, out, judge: Judge::new(), all: None };
    Ok((write.all(answer).await?, revision))
}

/// The file, while it is written.
struct Write<'a> {
    root: &'a Root,
    url: &'a str,
    file: &'a RootPath,
    out: File,
    judge: Judge,
    /// How much there is without the digest, from the first piece on.
    all: Option<u64>,
}

impl Write<'_> {
    async fn all(mut self, mut answer: Watch) -> Result<Sealed, SnapshotError> {
        while let Some(document) = answer.next(STALL).await? {
            self.piece(&document)?;
        }
        let (came, all) = (self.judge.bytes(), self.all.unwrap_or_default());
        if came <= all {
            return Err(SnapshotError::Short { url: self.url.to_owned(), came, all });
        }
        Ok(self.judge.verdict().map_err(|flaw| BadSnapshot::new(self.url.to_owned(), flaw))?)
    }

    /// One of the documents: `{"result": {"remaining_bytes": "…", "blob": "…"}}`, or the gateway's error.
    fn piece(&mut self, document: &Value) -> Result<(), SnapshotError> {
        let ended = |why: &str| SnapshotError::Ended { url: self.url.to_owned(), why: quote(why) };
        let Some(result) = document.get("result") else {
            let says = document["error"]["message"].as_str().unwrap_or("it sent something else than a snapshot");
            return Err(ended(says));
        };
        let blob = result["blob"].as_str().unwrap_or_default();
        let bytes = decode_block(blob).map_err(|_| ended("what it sent is not base64"))?;
        if self.all.is_none() {
            let left = member::number(&result["remaining_bytes"]).unwrap_or_default();
            let needs = left.saturating_add(bytes.len() as u64);
            self.all = Some(needs);
            let free = self.root.free_space(&self.file.parent())?;
            // As much again stays free: the member's own data is mostly on the same file system, and grows.
            if needs.saturating_mul(2) > free {
                return Err(SnapshotError::NoRoom { path: self.root.display(self.file), needs, free });
            }
        }
        self.judge.read(&bytes);
        Ok(self.out.write_all(&bytes).map_err(|e| self.root.error("write", self.file, e))?)
    }
}
