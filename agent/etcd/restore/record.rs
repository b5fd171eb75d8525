//! The change of a member's data for new data, and the record by which one that was killed goes on.

use serde::{Deserialize, Serialize};

use super::CannotRestore;
use crate::config::values::{RootPath, Sha256};
use crate::engine::change::Meta;
use crate::engine::fault::Fault;
use crate::host::clock;
use crate::host::root::Root;
use crate::host::seen::Entry;

/// Says that a restore is under way.
const RECORD: &str = "/var/lib/nodeagent/etcd-restore";

/// In the data directory: where new data is made, and what etcd's own is called.
pub const WORK: &str = ".nodeagent-restore";
const DATA: &str = "member";

/// What stands before the time in the name of the data that was there.
pub const ASIDE: &str = "member-before-";

/// On the disk while a restore is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What is in the snapshot.
    sha256: Sha256,
    /// Where the member's data is.
    data_dir: RootPath,
    /// The name, in the data directory, of the data that was there.
    pub kept: Option<String>,
}

impl Record {
    /// The record of a restore that did not come to its end.
    pub fn read(root: &Root) -> Result<Option<Self>, Fault> {
        let path = RootPath::literal(RECORD);
        let Some(text) = root.read(&path)? else { return Ok(None) };
        let bad = |why: serde_json::Error| CannotRestore::BadRecord { path: root.display(&path), why: why.to_string() };
        Ok(Some(serde_json::from_slice(&text).map_err(bad)?))
    }

    /// Whether the new data is where the old was. Where there was none, nothing can have begun any since: the guard's mark
    /// was there before the record.
    pub fn is_placed(&self, root: &Root) -> Result<bool, Fault> {
        let is_there = |name: &str| Ok::<_, Fault>(root.entry(&self.data_dir.join(name), false)? != Entry::Absent);
        let old_is_aside = match &self.kept {
            Some(kept) => is_there(kept)?,
            None => true,
        };
        Ok(old_is_aside && is_there(DATA)?)
    }

    /// Puts the new data in the place of the old. What was done already is not done again.
    pub fn change(&self, root: &Root) -> Result<(), Fault> {
        let (data, work) = (self.data_dir.join(DATA), self.data_dir.join(WORK));
        if let Some(kept) = self.kept.as_ref().map(|name| self.data_dir.join(name))
            && root.entry(&kept, false)? == Entry::Absent
        {
            root.rename(&data, &kept)?;
        }
        root.rename(&work.join(DATA), &data)?;
        root.remove_tree(&work)?;
        Ok(())
    }

    /// Writes down what is about to happen.
    pub fn begin(root: &Root, sha256: &Sha256, data_dir: &RootPath) -> Result<Self, Fault> {
        let there = root.entry(&data_dir.join(DATA), false)? != Entry::Absent;
        let stamp = clock::text(clock::now()).chars().filter(char::is_ascii_alphanumeric).collect::<String>();
        let kept = there.then(|| format!("{ASIDE}{stamp}"));
        let record = Self { sha256: sha256.clone(), data_dir: data_dir.clone(), kept };
        root.put(&RootPath::literal(RECORD), &record.text(), Meta::SECRET)?;
        Ok(record)
    }

    /// Nothing is under way any more.
    pub fn end(root: &Root) -> Result<(), Fault> {
        root.remove(&RootPath::literal(RECORD))?;
        Ok(())
    }

    /// Whether it is of this snapshot and of this place.
    pub fn is_of(&self, sha256: &Sha256, data_dir: &RootPath) -> bool {
        self.sha256 == *sha256 && self.data_dir == *data_dir
    }

    /// Plain data cannot fail to serialise.
    fn text(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "tests prepare their own files")]

    use super::*;

    /// A data directory in some state between the old data and the new.
    struct Tree {
        dir: tempfile::TempDir,
        root: Root,
        record: Record,
    }

    impl Tree {
        fn new(there: &[(&str, &str)], kept: Option<&str>) -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            for (name, says) in there {
                std::fs::create_dir_all(dir.path().join("data").join(name)).expect("directories");
                std::fs::write(dir.path().join("data").join(name).join("db"), says).expect("data");
            }
            let root = Root::open(dir.path()).expect("open it");
            let (sha256, data_dir) = (Sha256::of(b"x"), RootPath::literal("/data"));
            Self { dir, root, record: Record { sha256, data_dir, kept: kept.map(str::to_owned) } }
        }

        fn says(&self, name: &str) -> Option<String> {
            std::fs::read_to_string(self.dir.path().join("data").join(name).join("db")).ok()
        }
    }

    #[test]
    fn wherever_it_was_killed_the_end_is_the_same() {
        let (old, new, aside) = (("member", "old"), (".nodeagent-restore/member", "new"), "member-before-X");
        for (state, there, kept) in [
            ("before the first rename", &[old, new][..], Some(aside)),
            ("between the two", &[(aside, "old"), new], Some(aside)),
            ("nothing was there", &[new], None),
        ] {
            let tree = Tree::new(there, kept);
            assert!(!tree.record.is_placed(&tree.root).expect("a look"), "{state}");
            tree.record.change(&tree.root).unwrap_or_else(|fault| panic!("{state}: {fault}"));
            assert!(tree.record.is_placed(&tree.root).expect("a look"), "{state}");
            assert_eq!(tree.says("member").as_deref(), Some("new"), "{state}");
            assert_eq!(tree.says(aside), kept.map(|_| "old".to_owned()), "{state}");
            let left = tree.root.list(&RootPath::literal("/data")).expect("a list");
            assert_eq!(left.len(), 1 + usize::from(kept.is_some()), "{state}: {left:?}");
        }
        // After the second: etcd may have written since, and nothing is changed again.
        let tree = Tree::new(&[("member", "new"), (aside, "old")], Some(aside));
        assert!(tree.record.is_placed(&tree.root).expect("a look"));
    }

    #[test]
    fn a_record_is_read_back_and_what_is_none_is_not_taken_for_one() {
        let tree = Tree::new(&[], Some("member-before-X"));
        assert_eq!(Record::read(&tree.root).expect("none"), None);
        let path = RootPath::literal(RECORD);
        tree.root.make_own_dirs(&path.parent(), Meta::root(0o700)).expect("a directory");
        tree.root.put(&path, &tree.record.text(), Meta::SECRET).expect("written");
        assert_eq!(Record::read(&tree.root).expect("one").as_ref(), Some(&tree.record));
        tree.root.put(&path, b"{\"sha256\":", Meta::SECRET).expect("written");
        let error = Record::read(&tree.root).expect_err("cut off").to_string();
        assert!(error.contains("it is no record of a restore"), "{error}");
    }
}
