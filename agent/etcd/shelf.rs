//! The directory of snapshots: each named by the time at which it was taken, so that their order is that of their names.

use std::time::SystemTime;

use openssl::asn1::Asn1Time;
use serde::Serialize;

use super::seal;
use crate::config::values::RootPath;
use crate::engine::change::Meta;
use crate::engine::fault::{Explain, Fault};
use crate::host::clock;
use crate::host::root::Root;
use crate::host::seen::Entry;

/// A name is this, the time in UTC, and [`END`].
const BEGIN: &str = "etcd-";
const END: &str = ".db";

/// The directory of snapshots.
pub struct Shelf<'a> {
    /// The tree in which it is.
    pub root: &'a Root,
    /// Where.
    pub dir: &'a RootPath,
}

/// A snapshot that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// The file.
    pub file: RootPath,
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was taken.
    pub taken: String,
    /// How long ago that was, in seconds.
    pub age: u64,
    /// Whether it is whole: by its length, or where it was asked for by its digest.
    pub intact: bool,
}

/// What is written there could be replaced by others than root.
#[derive(Debug, thiserror::Error)]
#[error("{path}: others may write there (mode {mode:04o}), and a snapshot holds every Secret of the cluster")]
struct OpenToOthers {
    path: String,
    mode: u32,
}

impl Explain for OpenToOthers {
    fn advice(&self) -> Option<String> {
        Some(format!("chmod 0700 {}, or name another directory in etcd.snapshots.dir", self.path))
    }
}

impl Shelf<'_> {
    /// Makes the directory, or looks whether the one that is there will do; what killed runs left in it is removed. For
    /// the holder of the lock.
    pub fn prepare(&self) -> Result<(), Fault> {
        if self.root.missing_dirs(self.dir)?.is_empty() {
            if let Entry::Dir(meta) = self.root.entry(self.dir, false)?
                && meta.mode & 0o022 != 0
            {
                return Err(OpenToOthers { path: self.root.display(self.dir), mode: meta.mode }.into());
            }
        } else {
            self.root.make_own_dirs(self.dir, Meta::root(0o700))?;
        }
        Ok(self.root.remove_temporaries(self.dir)?)
    }

    /// The file of a snapshot that is taken now.
    pub fn place(&self, at: SystemTime) -> RootPath {
        let stamp: String = clock::text(at).chars().filter(char::is_ascii_alphanumeric).collect();
        self.dir.join(&format!("{BEGIN}{stamp}{END}"))
    }

    /// All snapshots, oldest first. `verify` reads each whole.
    pub fn all(&self, now: SystemTime, verify: bool) -> Result<Vec<Kept>, Fault> {
        let mut all = Vec::new();
        for (name, stamp) in self.names()? {
            let file = self.dir.join(&name);
            let Entry::File { stamp: on_disk, .. } = self.root.entry(&file, false)? else { continue };
            let intact = if verify { seal::verify(self.root, &file).is_ok() } else { seal::may_be_whole(on_disk.size) };
            let (bytes, age) = (on_disk.size, clock::seconds(now).saturating_sub(stamp));
            all.push(Kept { file, bytes, taken: clock::text_of(stamp), age, intact });
        }
        Ok(all)
    }

    /// Removes all but the newest. Only what is named as its own, and never `taken`: a clock that was ahead once has left
    /// names that are newer.
    pub fn prune(&self, keep: usize, taken: &RootPath) -> Result<(), Fault> {
        let names = self.names()?;
        let (surplus, others) =
            (names.len().saturating_sub(keep), names.iter().filter(|(name, _)| name != taken.name()));
        for (name, _) in others.take(surplus) {
            self.root.remove(&self.dir.join(name))?;
        }
        Ok(())
    }

    /// The names of snapshots, oldest first, and when each was taken, in seconds since the epoch.
    fn names(&self) -> Result<Vec<(String, u64)>, Fault> {
        let names = self.root.list(self.dir)?;
        Ok(names.into_iter().filter_map(|name| taken(&name).map(|at| (name, at))).collect())
    }
}

/// When the snapshot of this name was taken; nothing if it is none of ours.
fn taken(name: &str) -> Option<u64> {
    let stamp = name.strip_prefix(BEGIN)?.strip_suffix(END)?;
    let (date, time) = stamp.strip_suffix('Z')?.split_once('T')?;
    let digits = |text: &str, length| text.len() == length && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(date, 8) || !digits(time, 6) {
        return None;
    }
    let at = Asn1Time::from_str(&format!("{date}{time}Z")).ok()?;
    let since = Asn1Time::from_unix(0).ok()?.diff(&at).ok()?;
    u64::try_from(i64::from(since.days) * 86_400 + i64::from(since.secs)).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "tests prepare their own files")]

    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn only_what_it_named_is_listed_and_pruned() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = Root::open(dir.path()).expect("open it");
        let shelf = Shelf { root: &root, dir: &RootPath::literal("/snapshots") };
        shelf.prepare().expect("made");
        let at = |second: u64| UNIX_EPOCH + Duration::from_secs(1_795_219_200 + second);
        assert_eq!(shelf.place(at(61)).as_str(), "/snapshots/etcd-20261121T000101Z.db");
        for second in [3, 1, 2] {
            root.put(&shelf.place(at(second)), b"x", Meta::SECRET).expect("a snapshot");
        }
        let others = [
            "etcd-20261121T000000Z.db.old",
            "etcd-20261121T000000.db",
            "etcd-20261399T000000Z.db",
            "etcd-2026112T1000000Z.db",
            "etcd-before-upgrade.db",
            "notes",
        ];
        for name in others {
            root.put(&shelf.dir.join(name), b"a person's", Meta::FILE).expect("a file");
        }
        let all = shelf.all(at(10), false).expect("a list");
        let ages: Vec<(u64, bool)> = all.iter().map(|kept| (kept.age, kept.intact)).collect();
        assert_eq!(ages, [(9, false), (8, false), (7, false)]);
        assert_eq!(all[0].taken, "2026-11-21T00:00:01Z");
        for (keep, left) in [(5, 3), (2, 2), (1, 1)] {
            shelf.prune(keep, &RootPath::literal("/s/none")).expect("pruned");
            assert_eq!(shelf.all(at(10), false).expect("a list").len(), left, "keep {keep}");
        }
        assert_eq!(shelf.all(at(10), false).expect("a list")[0].age, 7, "the newest is kept");
        assert_eq!(root.list(shelf.dir).expect("a list").len(), others.len() + 1);
    }

    #[test]
    fn what_was_just_taken_stays_whatever_a_clock_has_left() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = Root::open(dir.path()).expect("open it");
        let at = |seconds| SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        let shelf = Shelf { root: &root, dir: &RootPath::literal("/s") };
        shelf.prepare().expect("made");
        let (taken, ahead) = (shelf.place(at(1_000_000_000)), shelf.place(at(2_000_000_000)));
        for file in [&taken, &ahead] {
            root.put(file, b"a store", Meta::SECRET).expect("a file");
        }
        shelf.prune(1, &taken).expect("pruned");
        assert_eq!(root.list(shelf.dir).expect("a list"), [taken.name()]);
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused_and_a_killed_runs_rest_removed() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a directory");
        let root = Root::open(dir.path()).expect("open it");
        let shelf = Shelf { root: &root, dir: &RootPath::literal("/backup") };
        shelf.prepare().expect("made");
        let made = dir.path().join("backup");
        assert_eq!(std::fs::metadata(&made).expect("it").permissions().mode() & 0o7777, 0o700);
        std::fs::write(made.join(".etcd-20261121T000000Z.db.nodeagent-new"), "half").expect("a rest");
        std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o750)).expect("a mode");
        shelf.prepare().expect("a person's mode is kept where it is no danger");
        assert_eq!(root.list(shelf.dir).expect("a list"), Vec::<String>::new());
        std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o770)).expect("a mode");
        let error = shelf.prepare().expect_err("refused").to_string();
        assert!(error.contains("/backup: others may write there (mode 0770)"), "{error}");
    }
}
