//! What an earlier configuration had made, and this one has no use for: two networks of pods on one node would take each
//! other's addresses. Only what the ledger knows as ours, and nobody has changed since, is taken away.

use crate::config::values::{RootPath, UnitName};
use crate::engine::change::{Change, Verb};
use crate::engine::resource::{CannotTell, Delta, Diff, Resource, Seen, Thing};
use crate::host::seen::Entry;

/// A unit of ours that is not to run any more.
pub struct Stopped {
    pub unit: UnitName,
    /// The unit's file.
    pub file: RootPath,
}

/// Files of ours that are not to be there any more, with the links that lead to them.
pub struct Gone {
    pub what: String,
    /// In the order in which they go.
    pub files: Vec<RootPath>,
    /// Links, each with its target.
    pub links: Vec<(RootPath, RootPath)>,
    /// The unit that must have been stopped before.
    pub after: Option<UnitName>,
}

/// Whether the file is what we wrote.
fn is_ours(path: &RootPath, seen: &Seen) -> Result<bool, CannotTell> {
    let Entry::File { bytes: Some(bytes), .. } = seen.entry(path)? else { return Ok(false) };
    Ok(seen.written(path)?.contains(&crate::config::values::Sha256::of(bytes)))
}

fn reads_of(path: &RootPath) -> [Thing; 2] {
    [Thing::File(path.clone()), Thing::Written(path.clone())]
}

impl Resource for Stopped {
    fn summary(&self) -> String {
        format!("{} not running any more", self.unit)
    }

    fn reads(&self) -> Vec<Thing> {
        std::iter::once(Thing::Unit(self.unit.clone())).chain(reads_of(&self.file)).collect()
    }

    fn makes(&self) -> Vec<Thing> {
        vec![Thing::Unit(self.unit.clone())]
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        let now = seen.unit(&self.unit)?.map_or("inactive", |sight| sight.active.as_str());
        if !is_ours(&self.file, seen)? || matches!(now, "inactive" | "failed" | "deactivating") {
            return Ok(Diff::Same);
        }
        Ok(Diff::Differs {
            shown: vec![Delta::new("state", now, "inactive")],
            known: vec![Change::Job { unit: self.unit.clone(), verb: Verb::Stop }],
        })
    }
}

impl Resource for Gone {
    fn summary(&self) -> String {
        format!("{} gone", self.what)
    }

    fn reads(&self) -> Vec<Thing> {
        let links = self.links.iter().map(|(path, _)| Thing::Stat(path.clone()));
        let unit = self.after.clone().map(Thing::Unit);
        self.files.iter().flat_map(reads_of).chain(links).chain(unit).collect()
    }

    fn makes(&self) -> Vec<Thing> {
        let links = self.links.iter().map(|(path, _)| Thing::Stat(path.clone()));
        self.files.iter().map(|path| Thing::File(path.clone())).chain(links).collect()
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        let mut going = Vec::new();
        for (path, to) in &self.links {
            if is_ours(to, seen)? && matches!(seen.entry(path)?, Entry::Link(found) if *found == to.to_string()) {
                going.push(path);
            }
        }
        for path in &self.files {
            if is_ours(path, seen)? {
                going.push(path);
            }
        }
        if going.is_empty() {
            return Ok(Diff::Same);
        }
        Ok(Diff::Differs {
            shown: going.iter().map(|path| Delta::new(path, "ours", "absent")).collect(),
            known: going.into_iter().map(|path| Change::Remove { path: path.clone() }).collect(),
        })
    }
}
