//! Directories with all that is in them: moved, given away, flushed, removed. For what other programs made in a place of
//! the agent's; nothing here is a Change, and nothing here can be undone but by moving it back.

use std::io;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow};
use nix::unistd::{Gid, Uid};

use super::{FileError, RESOLVE, Root, last, sync_dir, temporary_name};
use crate::config::values::RootPath;
use crate::engine::change::Meta;
use crate::host::seen::Entry;

impl Root {
    /// The scratch file beside a path, of whom an earlier run may have left a part ([`Root::create_scratch`]).
    pub fn temporary(path: &RootPath) -> RootPath {
        path.parent().join(&temporary_name(path))
    }

    /// Moves a file or a directory within its file system, durably. Nothing is replaced.
    pub fn rename(&self, from: &RootPath, to: &RootPath) -> Result<(), FileError> {
        if self.entry(to, false)? != Entry::Absent {
            return Err(self.fail("move to", to, Errno::EEXIST));
        }
        let (old, new) = (self.parent(from), self.parent(to));
        let (old, new) = (old.map_err(|e| self.fail("move", from, e))?, new.map_err(|e| self.fail("move to", to, e))?);
        nix::fcntl::renameat(&old, last(from), &new, last(to)).map_err(|e| self.fail("move", from, e))?;
        sync_dir(&new).and_then(|()| sync_dir(&old)).map_err(|e| self.fail("sync the directory of", to, e))
    }

    /// Removes a directory and all that is in it; links are removed, and not followed. Returns whether it was there.
    pub fn remove_tree(&self, path: &RootPath) -> Result<bool, FileError> {
        if matches!(self.entry(path, false)?, Entry::Dir(_)) {
            for name in self.list(path)? {
                self.remove_tree(&self.inside(path, &name)?)?;
            }
        }
        self.remove(path)
    }

    /// Gives a directory and all that is in it to an owner.
    pub fn give_tree(&self, path: &RootPath, owner: Meta) -> Result<(), FileError> {
        if self.user_stands_for_root() {
            return Ok(());
        }
        let parent = self.parent(path).map_err(|e| self.fail("set owner of", path, e))?;
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        nix::unistd::fchownat(&parent, last(path), Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(|e| self.fail("set owner of", path, e))?;
        if matches!(self.entry(path, false)?, Entry::Dir(_)) {
            for name in self.list(path)? {
                self.give_tree(&self.inside(path, &name)?, owner)?;
            }
        }
        Ok(())
    }

    /// Flushes the whole file system on which a directory lies: whatever another program wrote there is on the disk.
    pub fn flush(&self, dir: &RootPath) -> Result<(), FileError> {
        let how = OpenHow::new().flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC).resolve(RESOLVE);
        let flushed = nix::fcntl::openat2(&self.dir, dir.relative(), how).and_then(nix::unistd::syncfs);
        flushed.map_err(|e| self.fail("sync the file system of", dir, e))
    }

    fn inside(&self, dir: &RootPath, name: &str) -> Result<RootPath, FileError> {
        let odd = |_| self.fail("look into", dir, io::Error::other(format!("{name:?} is no plain name")));
        format!("{}/{name}", dir.as_str().trim_end_matches('/')).parse().map_err(odd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_moved_and_removed_whole_and_nothing_else_is() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = Root::open(dir.path()).expect("open it as a root");
        let at = RootPath::literal;
        std::fs::create_dir_all(dir.path().join("data/member/snap")).expect("directories");
        std::fs::write(dir.path().join("data/member/snap/db"), "data").expect("a file");
        std::fs::write(dir.path().join("victim"), "safe").expect("a victim");
        std::os::unix::fs::symlink("../../victim", dir.path().join("data/member/link")).expect("a link");
        std::os::unix::fs::symlink("/data", dir.path().join("data/member/round")).expect("a link");

        std::fs::create_dir(dir.path().join("data/taken")).expect("a directory");
        let error = root.rename(&at("/data/member"), &at("/data/taken")).expect_err("in the way").to_string();
        assert!(error.contains("/data/taken: File exists"), "{error}");
        root.rename(&at("/data/member"), &at("/data/aside")).expect("moved");
        assert_eq!(root.read(&at("/data/aside/snap/db")).expect("read").as_deref(), Some(b"data".as_slice()));
        root.flush(&at("/data")).expect("flushed");

        assert!(root.remove_tree(&at("/data/aside")).expect("removed"));
        assert!(!root.remove_tree(&at("/data/aside")).expect("nothing there"));
        assert_eq!(root.list(&at("/data")).expect("list"), ["taken"]);
        assert_eq!(std::fs::read(dir.path().join("victim")).expect("victim"), b"safe");
    }
}
