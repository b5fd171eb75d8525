//! The resource that most steps need: a file with known content, or a link with a known target.

use super::change::{Body, Change, Meta};
use super::resource::{CannotTell, Delta, Diff, Resource, Seen, Thing};
use super::unitfile::{self, UnitFile};
use crate::config::values::{RootPath, Sha256};
use crate::host::seen::Entry;

/// A file that is wholly ours.
pub struct ManagedFile {
    /// Where.
    pub path: RootPath,
    /// Its content.
    pub content: String,
    /// Its mode and owner.
    pub meta: Meta,
    /// What kind of file it is.
    pub kind: Kind,
}

/// What kind of file a [`ManagedFile`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only nodeagent writes it.
    Plain,
    /// A unit file or drop-in. Its differences are shown by section and key, and since people are used to edit such
    /// files, bytes that are not our own are kept beside it before they are replaced.
    Unit,
}

impl ManagedFile {
    /// A file that everyone may read.
    pub fn new(path: RootPath, content: String) -> Box<Self> {
        Box::new(Self { path, content, meta: Meta::FILE, kind: Kind::Plain })
    }

    /// A unit file or drop-in.
    pub fn unit(path: RootPath, content: &UnitFile) -> Self {
        Self { path, content: content.to_string(), meta: Meta::FILE, kind: Kind::Unit }
    }

    /// What differs between what is there and what is wanted.
    fn differences(&self, now: &[u8]) -> Vec<Delta> {
        let now = String::from_utf8_lossy(now);
        match self.kind {
            Kind::Plain => line_deltas(&now, &self.content),
            Kind::Unit => unitfile::differences(&UnitFile::parse(&now), &UnitFile::parse(&self.content)),
        }
    }

    /// Whether bytes that are there are somebody else's work. Where the ledger cannot say who wrote them, they are.
    fn is_foreign(&self, bytes: &[u8], seen: &Seen) -> bool {
        let digest = Sha256::of(bytes);
        self.kind == Kind::Unit
            && !seen.written(&self.path).is_ok_and(|written| written.contains(&digest))
            && bytes != self.content.as_bytes()
    }
}

/// Somebody masked the unit: a decision of theirs, which is not to be undone by replacing the link.
fn masked(path: &RootPath) -> CannotTell {
    let advice = format!("somebody wants it never to start: systemctl unmask {}, if that is over", path.name());
    CannotTell { advice: Some(advice), ..CannotTell::new(path, "the unit is masked") }
}

/// Where the bytes of a file are kept that somebody else wrote. systemd reads neither a unit nor a drop-in of such a name
/// (systemd.unit(5): a unit's name ends in its type, a drop-in's in `.conf`).
pub fn aside(path: &RootPath, sha256: &Sha256) -> RootPath {
    path.parent().join(&format!("{}.kept-{}", path.name(), sha256.short()))
}

impl Resource for ManagedFile {
    fn summary(&self) -> String {
        self.path.to_string()
    }

    fn reads(&self) -> Vec<Thing> {
        let file = Thing::File(self.path.clone());
        match self.kind {
            Kind::Plain => vec![file],
            Kind::Unit => vec![file, Thing::Written(self.path.clone())],
        }
    }

    fn makes(&self) -> Vec<Thing> {
        vec![Thing::File(self.path.clone())]
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        let entry = seen.entry(&self.path)?;
        let want = format!("{} bytes", self.content.len());
        let mut shown = Vec::new();
        let mut known = vec![Change::Dir { path: self.path.parent(), meta: Meta::PROGRAM }];
        match entry {
            Entry::File { meta, bytes, .. } => {
                let bytes = bytes.as_deref().unwrap_or_default();
                if bytes != self.content.as_bytes() && (self.meta.is_secret() || meta.is_secret()) {
                    let digest = |bytes: &[u8]| format!("sha256 {}", Sha256::of(bytes).short());
                    shown.push(Delta::new("content", digest(bytes), digest(self.content.as_bytes())));
                } else if bytes != self.content.as_bytes() {
                    shown.extend(self.differences(bytes));
                }
                if self.is_foreign(bytes, seen) {
                    let to = aside(&self.path, &Sha256::of(bytes));
                    shown.push(Delta::new(
                        "not written by nodeagent",
                        self.path.name(),
                        format!("kept as {}", to.name()),
                    ));
                    known.push(Change::KeepAside { path: self.path.clone() });
                }
                if *meta != self.meta {
                    let text = |m: &Meta| format!("{:04o} {}:{}", m.mode, m.uid, m.gid);
                    shown.push(Delta::new("mode and owner", text(meta), text(&self.meta)));
                }
            }
            Entry::Absent => shown.push(Delta::new("file", "", want)),
            Entry::Link(to) if to == "/dev/null" && self.kind == Kind::Unit => return Err(masked(&self.path)),
            Entry::Link(to) => shown.push(Delta::new("file", format!("link to {to}"), want)),
            Entry::Dir(_) => return Err(CannotTell::new(&self.path, "a directory is where the file should be")),
            Entry::Other(what) => {
                return Err(CannotTell::new(&self.path, format!("a {what} is where the file should be")));
            }
        }
        if shown.is_empty() {
            return Ok(Diff::Same);
        }
        let body = Body::Bytes(self.content.clone().into_bytes());
        known.push(Change::Put { path: self.path.clone(), body, meta: self.meta });
        Ok(Diff::Differs { shown, known })
    }
}

/// Which lines go and which come, in the order of the files: enough for a person to judge a plan by.
fn line_deltas(now: &str, want: &str) -> Vec<Delta> {
    let (old, new): (Vec<&str>, Vec<&str>) = (now.lines().collect(), want.lines().collect());
    let gone = old.iter().filter(|line| !new.contains(line)).map(|line| Delta::new("line", line, ""));
    let come = new.iter().filter(|line| !old.contains(line)).map(|line| Delta::new("line", "", line));
    let deltas: Vec<Delta> = gone.chain(come).collect();
    if deltas.is_empty() {
        let digest = |text: &str| format!("sha256 {}", Sha256::of(text.as_bytes()).short());
        return vec![Delta::new("order or line ends", digest(now), digest(want))];
    }
    deltas
}

/// A symbolic link that is ours.
pub struct ManagedLink {
    /// Where.
    pub path: RootPath,
    /// Its target, as it is written into the link.
    pub to: String,
    /// What the link is for, in a few words.
    pub purpose: String,
    /// What must be in place before the link is.
    pub after: Vec<Thing>,
}

impl Resource for ManagedLink {
    fn summary(&self) -> String {
        format!("{} ({} -> {})", self.purpose, self.path, self.to)
    }

    fn reads(&self) -> Vec<Thing> {
        let mut things = vec![Thing::Stat(self.path.clone())];
        things.extend(self.after.iter().cloned());
        things
    }

    fn makes(&self) -> Vec<Thing> {
        vec![Thing::Stat(self.path.clone())]
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        let now = match seen.entry(&self.path)? {
            Entry::Link(to) if *to == self.to => return Ok(Diff::Same),
            Entry::Link(to) => format!("link to {to}"),
            Entry::Absent => String::new(),
            Entry::File { .. } => "a file".to_owned(),
            Entry::Dir(_) => return Err(CannotTell::new(&self.path, "a directory is where the link should be")),
            Entry::Other(what) => {
                return Err(CannotTell::new(&self.path, format!("a {what} is where the link should be")));
            }
        };
        let link = Change::Link { path: self.path.clone(), to: self.to.clone() };
        Ok(Diff::Differs {
            shown: vec![Delta::new("link", now, format!("link to {}", self.to))],
            known: vec![Change::Dir { path: self.path.parent(), meta: Meta::PROGRAM }, link],
        })
    }
}

/// A directory that must be there. What is in it is not ours.
pub struct ManagedDir {
    /// Where.
    pub path: RootPath,
    /// Its mode and owner where it is made, and of those above it that are missing. One that is there keeps its own.
    pub meta: Meta,
}

impl Resource for ManagedDir {
    fn summary(&self) -> String {
        format!("directory {}", self.path)
    }

    fn reads(&self) -> Vec<Thing> {
        vec![Thing::Stat(self.path.clone())]
    }

    fn makes(&self) -> Vec<Thing> {
        vec![Thing::Stat(self.path.clone())]
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        let why = match seen.entry(&self.path)? {
            // A link to one will do: people move data to another disk that way.
            Entry::Dir(_) | Entry::Link(_) => return Ok(Diff::Same),
            Entry::Absent => {
                let make = Change::Dir { path: self.path.clone(), meta: self.meta };
                let shown = vec![Delta::new("directory", "", format!("{:04o}", self.meta.mode))];
                return Ok(Diff::Differs { shown, known: vec![make] });
            }
            Entry::File { .. } => "a file".to_owned(),
            Entry::Other(what) => format!("a {what}"),
        };
        Err(CannotTell::new(&self.path, format!("{why} is where the directory should be")))
    }
}
