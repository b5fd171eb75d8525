//! One run at a time: a lock that says who holds it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::root::{FileError, Root};
use crate::config::values::RootPath;
use crate::engine::change::Meta;
use crate::engine::fault::{Class, Explain};

/// The lock cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The lock file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// Locking failed.
    #[error("lock {path}: {source}")]
    Lock {
        /// The file.
        path: String,
        /// The cause.
        source: std::io::Error,
    },
    /// Another run holds it.
    #[error("lock {path}: still held after {} s by {holder}", after.as_secs())]
    Held {
        /// The file.
        path: String,
        /// What the holder wrote of itself.
        holder: String,
        /// The deadline that passed.
        after: Duration,
    },
}

impl Explain for LockError {
    fn class(&self) -> Class {
        match self {
            Self::Held { .. } => Class::Deadline,
            _ => Class::Failed,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::File(error) => error.advice(),
            Self::Lock { source, .. } => super::root::advice(source),
            Self::Held { .. } => Some("wait for it to end, or stop it: a run may be killed at any instant".to_owned()),
        }
    }
}

/// The held lock. The kernel drops it with the process, so a stale lock cannot exist.
pub struct Lock(#[expect(dead_code, reason = "held for its drop")] Flock<File>);

/// Takes the lock for `command`, waiting for another run's end until the deadline. `told` hears once who holds it.
pub async fn take(root: &Root, command: &str, deadline: Duration, told: impl FnMut(&str)) -> Result<Lock, LockError> {
    take_at(RootPath::literal("/run/nodeagent/lock"), root, command, deadline, told).await
}

/// The same of another lock file, below a directory of the agent's own.
pub async fn take_at(
    path: RootPath,
    root: &Root,
    command: &str,
    deadline: Duration,
    told: impl FnMut(&str),
) -> Result<Lock, LockError> {
    root.make_own_dirs(&path.parent(), Meta::PROGRAM)?;
    take_in(path, root, command, deadline, told).await
}

/// The same in a directory that is there, and whose owner and mode are somebody else's choice.
pub async fn take_in(
    path: RootPath,
    root: &Root,
    command: &str,
    deadline: Duration,
    mut told: impl FnMut(&str),
) -> Result<Lock, LockError> {
    let fail = |source: std::io::Error| LockError::Lock { path: root.display(&path), source };
    let end = tokio::time::Instant::now() + deadline;
    let mut waited = false;
    loop {
        let mut file = root.open_append(&path)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut lock) => {
                let since = super::clock::text(super::clock::now());
                lock.set_len(0).map_err(fail)?;
                writeln!(lock, "pid {} ({command}) since {since}", std::process::id()).map_err(fail)?;
                return Ok(Lock(lock));
            }
            Err((back, Errno::EWOULDBLOCK)) => file = back,
            Err((_, errno)) => return Err(fail(errno.into())),
        }
        let mut holder = String::new();
        file.read_to_string(&mut holder).map_err(fail)?;
        let holder = holder.trim();
        if tokio::time::Instant::now() >= end {
            return Err(LockError::Held { path: root.display(&path), holder: holder.to_owned(), after: deadline });
        }
        if !waited {
            told(holder);
            waited = true;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
