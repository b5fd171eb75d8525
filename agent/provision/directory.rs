//! A directory of the operator's, as the command line names it.

use std::error::Error as _;
use std::io;
use std::path::Path;

use crate::engine::fault::{Class, Explain};
use crate::host::root::{FileError, Root};

/// A directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// There is none.
    #[error("use the directory {path}: there is no such directory")]
    Absent {
        /// As it was named.
        path: String,
    },
    /// It is a file, or something else.
    #[error("use the directory {path}: it is no directory")]
    NoDirectory {
        /// As it was named.
        path: String,
    },
    /// It cannot be looked at.
    #[error(transparent)]
    File(FileError),
}

impl Explain for DirectoryError {
    fn class(&self) -> Class {
        match self {
            Self::Absent { .. } | Self::NoDirectory { .. } => Class::Usage,
            Self::File(error) => error.class(),
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Absent { .. } => Some("make it first, or name one that is there".to_owned()),
            Self::NoDirectory { .. } => Some("name a directory".to_owned()),
            Self::File(error) => error.advice(),
        }
    }
}

/// Opens the directory, which must be there.
pub(super) fn open(dir: &Path) -> Result<Root, DirectoryError> {
    let path = || dir.display().to_string();
    Root::open(dir).map_err(|error| match error.source().and_then(|cause| cause.downcast_ref()).map(io::Error::kind) {
        Some(io::ErrorKind::NotFound) => DirectoryError::Absent { path: path() },
        Some(io::ErrorKind::NotADirectory) => DirectoryError::NoDirectory { path: path() },
        _ => DirectoryError::File(error),
    })
}
