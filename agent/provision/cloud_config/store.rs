//! The inventory's files: written whole, and only where they differ.

use std::path::Path;
use std::time::Duration;

use crate::config::values::RootPath;
use crate::engine::change::Meta;
use crate::host::lock::{self, Lock, LockError};
use crate::host::root::{FileError, Root};
use crate::host::seen::Entry;

/// How long another run is waited for, which itself waits for nothing but this.
const TURN: Duration = Duration::from_secs(10);

/// A directory of the operator's, and what was done there.
pub(super) struct Store {
    root: Root,
    done: Done,
}

/// What was done to the files of a directory, each in the order in which it was.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// Those that were written.
    pub written: Vec<String>,
    /// Those that were removed.
    pub removed: Vec<String>,
}

impl Store {
    /// Opens the directory, which is made if it is not there.
    pub fn open(dir: &Path) -> Result<Self, FileError> {
        Ok(Self { root: Root::create(dir)?, done: Done::default() })
    }

    /// Opens the directory, if it is there.
    pub fn there(dir: &Path) -> Result<Option<Self>, FileError> {
        match Root::open(dir) {
            Err(error) if error.is_absent() => Ok(None),
            opened => Ok(Some(Self { root: opened?, done: Done::default() })),
        }
    }

    /// Opens a directory of secrets: one that is made is closed to others.
    pub fn open_closed(dir: &Path) -> Result<Self, FileError> {
        if let Some(store) = Self::there(dir)? {
            return Ok(store);
        }
        let store = Self::open(dir)?;
        store.dir(&RootPath::literal("/"), Meta::root(0o700))?;
        Ok(store)
    }

    /// Keeps others of these runs out of the directory, unless nothing can be written there anyway. `told` hears once who
    /// is in it.
    pub async fn lock(&self, told: impl FnMut(&str)) -> Result<Option<Lock>, LockError> {
        match lock::take_in(RootPath::literal("/.lock"), &self.root, "cloud-config", TURN, told).await {
            Err(LockError::File(error)) if error.is_read_only() => Ok(None),
            taken => taken.map(Some),
        }
    }

    /// Whether this is the directory.
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.root.is_same_as(&other.root)
    }

    /// The names of what is in the directory.
    pub fn names(&self) -> Result<Vec<String>, FileError> {
        self.root.list(&RootPath::literal("/"))
    }

    /// Whether there is a directory.
    pub fn has_dir(&self, path: &RootPath) -> Result<bool, FileError> {
        Ok(matches!(self.root.entry(path, false)?, Entry::Dir { .. }))
    }

    /// Whether there is a file, in a directory that is one or not there.
    pub fn has(&self, path: &RootPath) -> Result<bool, FileError> {
        Ok(matches!(self.root.entry(path, false)?, Entry::File { .. }))
    }

    /// The bytes of a file, if it is there.
    pub fn read(&self, path: &RootPath) -> Result<Option<Vec<u8>>, FileError> {
        self.root.read(path)
    }

    /// The path as its operator would name it.
    pub fn display(&self, path: &RootPath) -> String {
        self.root.display(path)
    }

    /// Writes a file unless it is there as it shall be, in a directory that is there.
    pub fn put(&mut self, path: &RootPath, bytes: &[u8], meta: Meta) -> Result<(), FileError> {
        if let Entry::File { bytes: Some(there), meta: now, .. } = self.root.entry(path, true)?
            && *there == *bytes
            && now.mode == meta.mode
        {
            return Ok(());
        }
        self.root.put(path, bytes, meta)?;
        self.done.written.push(self.root.display(path));
        Ok(())
    }

    /// Says that a file was written by somebody else.
    pub fn note(&mut self, path: &RootPath) {
        self.done.written.push(self.root.display(path));
    }

    /// Removes a file, if it is there.
    pub fn remove(&mut self, path: &RootPath) -> Result<(), FileError> {
        if self.root.remove(path)? {
            self.done.removed.push(self.root.display(path));
        }
        Ok(())
    }

    /// Makes a directory, or gives one that is there the mode that it has to have.
    pub fn dir(&self, dir: &RootPath, meta: Meta) -> Result<(), FileError> {
        self.root.make_own_dirs(dir, meta)
    }

    /// What was done.
    pub fn done(self) -> Done {
        self.done
    }
}
