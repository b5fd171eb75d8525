//! What an earlier configuration had made, and this one has no use for: two networks of pods on one node would take each
//! other's addresses, and snapshots that are switched off are not to be taken. Only what the ledger knows as ours, and nobody
//! has changed since, is taken away.

use super::{UNIT_DIR, enabled_by, planned};
use crate::config::settings::Origin;
use crate::config::values::{RootPath, Sha256, UnitName};
use crate::engine::change::{Change, Debt, Verb};
use crate::engine::resource::{CannotTell, Delta, Diff, Planned, Resource, Seen, Thing};
use crate::host::seen::Entry;

/// Adds the end of a unit that an earlier configuration had, and that a target started, with all that was there for it.
pub fn retire(unit: &str, target: &str, beside: &[RootPath], why: &Origin, all: &mut Vec<Planned>) {
    let unit = UnitName::literal(unit);
    let file = RootPath::literal(UNIT_DIR).join(unit.as_str());
    let stopped = Stopped { unit: unit.clone(), file: file.clone() };
    // Its file last: by it the next run finds out what is left to do.
    let files = beside.iter().cloned().chain([file.clone()]).collect();
    let links = vec![(enabled_by(&unit, target), file)];
    let gone = Gone { what: unit.to_string(), files, links, after: Some(unit.clone()) };
    all.push(planned(format!("{}-stopped", unit.stem()), why, Vec::new(), Box::new(stopped)));
    all.push(planned(format!("{}-gone", unit.stem()), why, vec![Debt::DaemonReload], Box::new(gone)));
}

/// A unit of ours that is not to run any more.
struct Stopped {
    unit: UnitName,
    /// The unit's file.
    file: RootPath,
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
    Ok(seen.written(path)?.contains(&Sha256::of(bytes)))
}

fn reads_of(path: &RootPath) -> [Thing; 2] {
    [Thing::File(path.clone()), Thing::Written(path.clone())]
}

impl Resource for Stopped {
    fn summary(&self) -> String {
        format!("{} not running any more", self.unit)
    }

    fn reads(&self) -> Vec<Thing> {
        // Not the file, which goes after this: what systemd has read of it says the same.
        let unit = &self.unit;
        vec![Thing::Unit(unit.clone()), Thing::UnitFiles(unit.clone()), Thing::Written(self.file.clone())]
    }

    fn makes(&self) -> Vec<Thing> {
        vec![Thing::Unit(self.unit.clone())]
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        let now = seen.unit(&self.unit)?.map_or("inactive", |sight| sight.active.as_str());
        let read = seen.unit_files(&self.unit)?.iter().find(|read| read.path == self.file.as_str());
        let written = seen.written(&self.file)?;
        let ours = read.is_some_and(|read| written.contains(&Sha256::of(read.content.to_string().as_bytes())));
        if !ours || matches!(now, "inactive" | "failed" | "deactivating") {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::change::Meta;
    use crate::engine::unitfile::UnitFile;
    use crate::host::seen::{ReadFile, Sight, Stamp, UnitSight};

    const OURS: &str = "[Service]\nExecStart=/bin/true\n";

    fn path(text: &str) -> RootPath {
        RootPath::literal(text)
    }

    /// A unit that runs, with its file, its link and one file more.
    fn seen(written: &[u8]) -> Seen {
        let mut seen = Seen::default();
        for file in ["/u/x.service", "/e/x.env"] {
            let entry = Entry::File {
                meta: Meta::FILE,
                stamp: Stamp { size: 0, inode: 1, mtime_ns: 0, ctime_ns: 0 },
                bytes: Some(OURS.as_bytes().into()),
            };
            seen.0.insert(Thing::File(path(file)), Ok(Sight::Entry(entry)));
            seen.0.insert(Thing::Written(path(file)), Ok(Sight::Written(vec![Sha256::of(written)])));
        }
        seen.0.insert(Thing::Stat(path("/w/x.service")), Ok(Sight::Entry(Entry::Link("/u/x.service".to_owned()))));
        let unit = UnitSight {
            active: "active".into(),
            sub: String::new(),
            invocation: String::new(),
            tasks_max: None,
            rlimits: Vec::new(),
        };
        let (name, content) = (UnitName::literal("x.service"), UnitFile::parse(OURS));
        let read = ReadFile { path: "/u/x.service".to_owned(), content };
        seen.0.insert(Thing::UnitFiles(name.clone()), Ok(Sight::Files(vec![read])));
        seen.0.insert(Thing::Unit(name), Ok(Sight::Unit(Some(unit))));
        seen
    }

    fn both() -> (Stopped, Gone) {
        let unit = UnitName::literal("x.service");
        let gone = Gone {
            what: "x".to_owned(),
            files: vec![path("/e/x.env"), path("/u/x.service")],
            links: vec![(path("/w/x.service"), path("/u/x.service"))],
            after: Some(unit.clone()),
        };
        (Stopped { unit, file: path("/u/x.service") }, gone)
    }

    fn changes(diff: Result<Diff, CannotTell>) -> Vec<String> {
        match diff.expect("a difference") {
            Diff::Same => Vec::new(),
            Diff::Differs { known, .. } => known.iter().map(|change| format!("{change:?}")).collect(),
        }
    }

    #[test]
    fn what_is_ours_goes_and_its_unit_file_last() {
        let (stopped, gone) = both();
        let seen = seen(OURS.as_bytes());
        assert!(changes(stopped.diff(&seen))[0].contains("Stop"));
        let removed = changes(gone.diff(&seen));
        assert_eq!(removed.len(), 3, "{removed:?}");
        assert!(removed[0].contains("/w/x.service") && removed[2].contains("/u/x.service"), "{removed:?}");
        let waits = |a: &dyn Resource, b: &dyn Resource| {
            a.reads().iter().any(|read| b.makes().iter().any(|made| made.touches(read)))
        };
        assert!(waits(&gone, &stopped) && !waits(&stopped, &gone), "it is stopped before its file goes");
    }

    #[test]
    fn what_is_a_persons_stays() {
        let (stopped, gone) = both();
        let seen = seen(b"what we had written");
        assert!(changes(stopped.diff(&seen)).is_empty());
        assert!(changes(gone.diff(&seen)).is_empty());
    }
}
