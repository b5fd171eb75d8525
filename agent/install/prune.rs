//! `install --prune`: the versions that nobody goes back to any more give their space back.
//!
//! Of each program, and each archive of images, the version in use and the one before it stay: `rollback` needs both. What else the ledger says was
//! placed below their directories is removed for good, its bytes not kept, because it can be fetched again.

use std::collections::{BTreeMap, BTreeSet};

use super::{BIN, IMAGES, RELEASES};
use crate::config::settings::{Origin, Settings};
use crate::config::values::RootPath;
use crate::engine::change::Change;
use crate::engine::history;
use crate::engine::id::{Id, Step};
use crate::engine::record::{Logged, Record};
use crate::engine::resource::{CannotTell, Delta, Diff, Planned, Resource, Seen, Thing};
use crate::host::seen::Entry;

/// How many versions of a program stay.
const KEPT: usize = 2;

/// A version of a program, or of an archive of images, that goes.
struct OldVersion {
    /// [`RELEASES`] or [`IMAGES`].
    kept: &'static str,
    name: String,
    version: String,
    files: BTreeSet<RootPath>,
}

/// The versions that go, by what the ledger says was placed.
pub fn plan(settings: &Settings, records: &[Record]) -> Vec<Planned> {
    let mut all: BTreeMap<(&str, String), Vec<(u64, OldVersion)>> = BTreeMap::new();
    for (path, seq) in placed(records) {
        let Some((kept, name, version)) = name_and_version(&path) else { continue };
        let (name, version) = (name.to_owned(), version.to_owned());
        let versions = all.entry((kept, name.clone())).or_default();
        match versions.iter_mut().find(|(_, known)| known.version == version) {
            Some((last, known)) => {
                *last = seq.max(*last);
                known.files.insert(path);
            }
            None => versions.push((seq, OldVersion { kept, name, version, files: BTreeSet::from([path]) })),
        }
    }
    let mut planned = Vec::new();
    for ((kept, name), mut versions) in all {
        let install = &settings.install;
        let wanted = if kept == IMAGES {
            install.images.iter().find(|(known, _)| known.as_str() == name).map(|(_, image)| image.sha256.short())
        } else {
            install.artifacts.iter().find(|(known, _)| known.as_str() == name).map(|(_, a)| a.version.as_str())
        };
        versions.sort_by_key(|(seq, old)| (Some(old.version.as_str()) == wanted, *seq));
        versions.truncate(versions.len().saturating_sub(KEPT));
        planned.extend(versions.into_iter().map(|(_, old)| Planned {
            id: old.id(),
            why: Origin::Default,
            owes: Vec::new(),
            what: Box::new(old),
        }));
    }
    planned
}

/// What stands of what was put in place, each with the number of the Change that put it there last.
fn placed(records: &[Record]) -> BTreeMap<RootPath, u64> {
    let mut placed = BTreeMap::new();
    // Last first: the first that is met of a path says how it is now.
    let mut met = BTreeSet::new();
    for made in history::standing(records) {
        match &made.change {
            Logged::Put { path, .. } if met.insert(path.clone()) => drop(placed.insert(path.clone(), made.seq)),
            Logged::Remove { path } | Logged::Destroy { path } => drop(met.insert(path.clone())),
            _ => {}
        }
    }
    placed
}

/// `NAME` and `VERSION` of a path below the releases or the images, and which of them it is.
fn name_and_version(path: &RootPath) -> Option<(&'static str, &str, &str)> {
    let below = |kept| Some((kept, path.as_str().strip_prefix(kept)?.strip_prefix('/')?));
    let (kept, rest) = [RELEASES, IMAGES].into_iter().find_map(below)?;
    let (name, rest) = rest.split_once('/')?;
    Some((kept, name, rest.split_once('/')?.0))
}

impl OldVersion {
    fn id(&self) -> Id {
        let of = if self.kept == IMAGES { "images-" } else { "" };
        Id::new(Step::Install, format!("{of}{}-{}-old", self.name, self.version))
    }

    fn dir(&self) -> RootPath {
        RootPath::literal(self.kept).join(&self.name).join(&self.version)
    }

    fn link(&self) -> RootPath {
        RootPath::literal(BIN).join(&self.name)
    }

    /// Its directories, innermost first.
    fn dirs(&self) -> Vec<RootPath> {
        let top = self.dir();
        let mut dirs = BTreeSet::from([top.clone()]);
        for file in &self.files {
            let mut dir = file.parent();
            while dir != top && dirs.insert(dir.clone()) {
                dir = dir.parent();
            }
        }
        dirs.into_iter().rev().collect()
    }
}

impl Resource for OldVersion {
    fn summary(&self) -> String {
        format!("{} {} goes: neither in use nor the one before", self.name, self.version)
    }

    fn reads(&self) -> Vec<Thing> {
        let paths = self.files.iter().cloned().chain(self.dirs());
        // First the version that takes its place is in use.
        paths.chain([self.link()]).map(Thing::Stat).collect()
    }

    fn makes(&self) -> Vec<Thing> {
        self.files.iter().cloned().chain(self.dirs()).map(Thing::Stat).collect()
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        if let Entry::Link(to) = seen.entry(&self.link())?
            && to.starts_with(&format!("{}/", self.dir()))
        {
            return Ok(Diff::Same);
        }
        let (mut known, mut bytes) = (Vec::new(), 0);
        for path in self.files.iter().cloned().chain(self.dirs()) {
            match seen.entry(&path)? {
                Entry::Absent => continue,
                Entry::File { stamp, .. } => bytes += stamp.size,
                _ => {}
            }
            known.push(Change::Destroy { path });
        }
        if known.is_empty() {
            return Ok(Diff::Same);
        }
        Ok(Diff::Differs { shown: vec![Delta::new("version", format!("{bytes} bytes"), "")], known })
    }
}
