//! The resource that most steps need: a file with known content, or a link with a known target.

use super::change::{Body, Change, Meta};
use super::resource::{CannotTell, Delta, Diff, Resource, Seen, Thing};
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
}

impl ManagedFile {
    /// A file that everyone may read.
    pub fn new(path: RootPath, content: String) -> Box<Self> {
        Box::new(Self { path, content, meta: Meta::FILE })
    }
}

impl Resource for ManagedFile {
    fn summary(&self) -> String {
        self.path.to_string()
    }

    fn reads(&self) -> Vec<Thing> {
        vec![Thing::File(self.path.clone())]
    }

    fn makes(&self) -> Vec<Thing> {
        self.reads()
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        let entry = seen.entry(&self.path)?;
        let want = format!("{} bytes", self.content.len());
        let mut shown = Vec::new();
        match entry {
            Entry::File { meta, bytes, .. } => {
                let bytes = bytes.as_deref().unwrap_or_default();
                if bytes != self.content.as_bytes() && (self.meta.is_secret() || meta.is_secret()) {
                    let digest = |bytes: &[u8]| format!("sha256 {}", Sha256::of(bytes).short());
                    shown.push(Delta::new("content", digest(bytes), digest(self.content.as_bytes())));
                } else if bytes != self.content.as_bytes() {
                    shown.extend(line_deltas(&String::from_utf8_lossy(bytes), &self.content));
                }
                if *meta != self.meta {
                    let text = |m: &Meta| format!("{:04o} {}:{}", m.mode, m.uid, m.gid);
                    shown.push(Delta::new("mode and owner", text(meta), text(&self.meta)));
                }
            }
            Entry::Absent => shown.push(Delta::new("file", "", want)),
            Entry::Link(to) => shown.push(Delta::new("file", format!("link to {to}"), want)),
            Entry::Dir(_) => return Err(CannotTell::new(&self.path, "a directory is where the file should be")),
            Entry::Other(what) => {
                return Err(CannotTell::new(&self.path, format!("a {what} is where the file should be")));
            }
        }
        if shown.is_empty() {
            return Ok(Diff::Same);
        }
        let put = Change::Put {
            path: self.path.clone(),
            body: Body::Bytes(self.content.clone().into_bytes()),
            meta: self.meta,
        };
        Ok(Diff::Differs { shown, known: vec![Change::Dir { path: self.path.parent(), meta: Meta::PROGRAM }, put] })
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
