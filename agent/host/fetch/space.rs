//! Is there room for all that is on its way? Several files share what is free, so that each must count the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Reason;
use crate::config::values::RootPath;
use crate::host::root::Root;

/// What the files on their way still have to write, in bytes.
#[derive(Debug, Default)]
pub struct Space(Arc<AtomicU64>);

impl Space {
    /// Room for `bytes` more at `path`, until they are written or the fetch ends.
    pub fn reserve(&self, root: &Root, path: &RootPath, bytes: u64) -> Result<Reserved, Reason> {
        let free = root.free_space(&path.parent())?;
        let needs = self.0.load(Ordering::Relaxed).saturating_add(bytes);
        if needs > free {
            return Err(Reason::NoSpace { path: root.display(path), needs, free });
        }
        self.0.store(needs, Ordering::Relaxed);
        Ok(Reserved { all: Arc::clone(&self.0), left: bytes })
    }
}

/// Room for what one file still has to write.
#[derive(Debug)]
pub struct Reserved {
    all: Arc<AtomicU64>,
    left: u64,
}

impl Reserved {
    /// So much of it is written.
    pub fn written(&mut self, bytes: u64) {
        let bytes = bytes.min(self.left);
        self.left -= bytes;
        self.all.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.written(self.left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_on_their_way_count_each_other() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = Root::open(dir.path()).expect("open it");
        let path = RootPath::literal("/x");
        let free = root.free_space(&RootPath::literal("/")).expect("free space");
        let space = Space::default();
        // Others use this file system too: one half fits, and never both and a half.
        let mut half = space.reserve(&root, &path, free / 2).expect("one half");
        let error = space.reserve(&root, &path, free).expect_err("too much").to_string();
        assert!(error.contains("/x: No space left on device") && error.contains("are free"), "{error}");
        half.written(free / 4);
        assert_eq!(space.0.load(Ordering::Relaxed), free / 2 - free / 4);
        drop(half);
        assert_eq!(space.0.load(Ordering::Relaxed), 0);
    }
}
