//! One program of a release: fetched, verified, placed.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::values::{ArtifactName, RootPath, Sha256};
use crate::engine::change::{Body, Change, Meta, SCRATCH};
use crate::engine::fault::{Class, Explain, Fault};
use crate::engine::receipt::Receipt;
use crate::engine::resource::{CannotTell, Delta, Diff, Obtained, Resource, Seen, Thing};
use crate::host::http::{DownloadError, Downloaded};
use crate::host::peers::Peers;
use crate::host::retry::{News, Policy, Tried, retry};
use crate::host::seen::{Entry, Stamp};
use crate::journal::Event;

/// A program that is fetched, verified against a pinned digest, and kept by version.
pub struct Artifact {
    /// Its name, and the program's.
    pub name: ArtifactName,
    /// Its version.
    pub version: String,
    /// Where it may be fetched, in the order of preference.
    pub urls: Vec<String>,
    /// The digest that it must have.
    pub sha256: Sha256,
}

/// How long a program may be tried for, over all mirrors.
const DEADLINE: Duration = Duration::from_mins(10);

/// No mirror gave the artifact.
#[derive(Debug, thiserror::Error)]
#[error("{}", reasons.join("; "))]
struct NoMirror {
    reasons: Vec<String>,
    class: Class,
    advice: String,
    transient: bool,
}

impl Explain for NoMirror {
    fn class(&self) -> Class {
        self.class
    }

    fn advice(&self) -> Option<String> {
        Some(self.advice.clone())
    }
}

impl NoMirror {
    fn new(errors: &[&DownloadError]) -> Self {
        let wrong_digest = errors.iter().any(|error| matches!(error, DownloadError::WrongDigest { .. }));
        let advice = match errors.iter().find_map(|error| error.advice()) {
            Some(advice) => advice,
            None if wrong_digest => {
                "nothing was installed; if the mirror is right, correct the digest in kubernetes.artifacts".to_owned()
            }
            None => "check the mirror, or add another one to kubernetes.mirrors".to_owned(),
        };
        Self {
            reasons: errors.iter().map(ToString::to_string).collect(),
            class: errors.iter().map(|error| error.class()).max().unwrap_or(Class::Failed),
            advice,
            transient: errors.iter().any(|error| error.is_transient()),
        }
    }
}

impl Artifact {
    fn dir(&self) -> RootPath {
        RootPath::literal("/opt/nodeagent/releases").join(self.name.as_str()).join(&self.version)
    }

    /// Where the program is kept.
    pub fn program(&self) -> RootPath {
        self.dir().join("bin").join(self.name.as_str())
    }

    fn receipt(&self) -> RootPath {
        self.dir().join("receipt.json")
    }

    /// The scratch file: its name holds the digest, so that what a killed run left is never taken for another version.
    fn scratch(&self) -> RootPath {
        RootPath::literal(SCRATCH).join(&format!("{}-{}", self.name, self.sha256.short()))
    }

    fn receipt_change(&self) -> Change {
        let files = vec![(self.program(), self.sha256.clone())];
        Change::Put { path: self.receipt(), body: Body::Receipt { trust: "pinned".into(), files }, meta: Meta::FILE }
    }

    /// Fetches it, trying all mirrors again while one of them may yet give it.
    async fn fetch(&self, peers: &Peers) -> Result<RootPath, Fault> {
        let what = format!("{} {}", self.name, self.version);
        let mut retries = 0;
        let mut news = News::default();
        let on_retry = |why: &NoMirror, _| {
            retries += 1;
            let why = why.to_string();
            if news.is_new(&why) {
                peers.tell.tell(&Event::Retrying { what: &what, why: &why });
            }
        };
        let deadline = tokio::time::Instant::now() + DEADLINE;
        let policy = Policy::default();
        let mut dead = BTreeMap::new();
        let fetched = retry(deadline, &policy, on_retry, async || {
            self.fetch_once(peers, &mut dead)
                .await
                .map_err(|why| if why.transient { Tried::Transient(why) } else { Tried::Permanent(why) })
        });
        match fetched.await {
            Ok((url, got)) => {
                peers.tell.tell(&Event::Fetched { url, bytes: got.bytes, took: got.took, retries });
                Ok(self.scratch())
            }
            Err(gave_up) => Err(Fault::from(gave_up).context(format!("fetch {what}"))),
        }
    }

    /// Tries each mirror once, in their order, but for those that failed for good before.
    async fn fetch_once<'a>(
        &'a self,
        peers: &Peers,
        dead: &mut BTreeMap<&'a str, DownloadError>,
    ) -> Result<(&'a str, Downloaded), NoMirror> {
        let mut errors = Vec::new();
        for url in self.urls.iter().map(String::as_str) {
            if dead.contains_key(url) {
                continue;
            }
            match peers.http.download(url, &peers.root, &self.scratch(), &self.sha256).await {
                Ok(got) => return Ok((url, got)),
                Err(error) if error.is_transient() => errors.push(error),
                Err(error) => drop(dead.insert(url, error)),
            }
        }
        Err(NoMirror::new(&dead.values().chain(&errors).collect::<Vec<_>>()))
    }
}

impl Resource for Artifact {
    fn summary(&self) -> String {
        format!("{} {} (sha256 {} pinned)", self.name, self.version, self.sha256.short())
    }

    fn reads(&self) -> Vec<Thing> {
        vec![Thing::Stat(self.program()), Thing::File(self.receipt())]
    }

    fn makes(&self) -> Vec<Thing> {
        self.reads()
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        let receipt = seen.bytes(&self.receipt())?.and_then(|bytes| serde_json::from_slice::<Receipt>(bytes).ok());
        let verified = receipt.and_then(|receipt| receipt.files.get(self.name.as_str()).cloned());
        let delta = match (seen.entry(&self.program())?, verified) {
            (Entry::Absent, _) => Delta::new("program", "", format!("sha256 {}", self.sha256.short())),
            (Entry::File { .. }, None) => Delta::new("receipt", "", "verified"),
            (Entry::File { meta, stamp, .. }, Some(verified)) => {
                if verified.sha256 != self.sha256 {
                    Delta::new("sha256", verified.sha256.short(), self.sha256.short())
                } else if verified.stamp != *stamp {
                    Delta::new("program", touched(&verified.stamp, stamp), "as verified")
                } else if *meta != Meta::PROGRAM {
                    Delta::new("mode", format!("{:04o}", meta.mode), format!("{:04o}", Meta::PROGRAM.mode))
                } else {
                    return Ok(Diff::Same);
                }
            }
            (other, _) => return Err(CannotTell::new(self.program(), format!("no file can be put there: {other:?}"))),
        };
        let dir = Change::Dir { path: self.program().parent(), meta: Meta::PROGRAM };
        Ok(Diff::Differs { shown: vec![delta], known: vec![dir] })
    }

    fn obtain<'a>(&'a self, known: Vec<Change>, seen: &'a Seen, peers: &'a Peers) -> Obtained<'a> {
        Box::pin(async move {
            let mut changes = known;
            // A program that is right but has no receipt (a run was killed in between) is not fetched again.
            let in_place = matches!(seen.entry(&self.program()), Ok(Entry::File { meta, .. }) if *meta == Meta::PROGRAM)
                && crate::host::digest(&peers.root, &self.program())?.as_ref() == Some(&self.sha256);
            if !in_place {
                let from = self.fetch(peers).await?;
                let body = Body::Scratch { from, sha256: self.sha256.clone() };
                changes.push(Change::Put { path: self.program(), body, meta: Meta::PROGRAM });
            }
            changes.push(self.receipt_change());
            Ok(changes)
        })
    }
}

/// In a few words how a file differs from the one that was verified.
fn touched(then: &Stamp, now: &Stamp) -> String {
    let parts: BTreeMap<&str, bool> = BTreeMap::from([
        ("size", then.size != now.size),
        ("inode", then.inode != now.inode),
        ("mtime", then.mtime_ns != now.mtime_ns),
        ("ctime", then.ctime_ns != now.ctime_ns),
    ]);
    let names: Vec<&str> = parts.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect();
    format!("touched since ({})", names.join(", "))
}
