//! Why a file could not be fetched: each mirror's reason, or this machine's.

use std::time::Duration;

use crate::engine::fault::{Class, Explain};
use crate::host::http::HttpError;
use crate::host::root::FileError;
use crate::journal::size;

/// No mirror gave the file.
#[derive(Debug, thiserror::Error)]
#[error("fetch {name}: {}", because(*late, reasons))]
pub struct FetchError {
    pub(super) name: String,
    /// The deadline, if it passed.
    pub(super) late: Option<Duration>,
    /// Why each mirror that was asked did not give it, in the order of preference; or why it could not be kept.
    pub reasons: Vec<Reason>,
}

fn because(late: Option<Duration>, reasons: &[Reason]) -> String {
    let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
    match late {
        None => reasons.join("; "),
        Some(deadline) if reasons.is_empty() => {
            format!("the {} s for the downloads of a run were over", deadline.as_secs())
        }
        Some(deadline) => format!("not within {} s: {}", deadline.as_secs(), reasons.join("; ")),
    }
}

/// Why one mirror did not give the file, or why it could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// The server did not give it.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The server did not give all of it.
    #[error("{url}: it broke off after {}{}: {why}", size(*bytes), total.map_or_else(String::new, |t| format!(" of {}", size(t))))]
    BrokeOff {
        /// The URL.
        url: String,
        /// What had come by then, what was there before included.
        bytes: u64,
        /// The size of the whole, if the server said it.
        total: Option<u64>,
        /// The cause.
        why: String,
    },
    /// What came is not what was wanted.
    #[error("{url}: {what}")]
    Wrong {
        /// The URL.
        url: String,
        /// How it differs.
        what: String,
    },
    /// Nothing but the connection would vouch for the file.
    #[error("{url}: plain http, and no digest of the file is pinned: only https will do")]
    NotHttps {
        /// The URL.
        url: String,
    },
    /// It could not be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no room for it.
    #[error("write {path}: No space left on device: {} are to be written, and {} are free", size(*needs), size(*free))]
    NoSpace {
        /// Where.
        path: String,
        /// What is still to be written there, by all that is being fetched, in bytes.
        needs: u64,
        /// What is free there, in bytes.
        free: u64,
    },
}

impl Reason {
    /// Whether another attempt at the same mirror may succeed.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Http(error) => error.is_transient(),
            Self::BrokeOff { .. } => true,
            Self::Wrong { .. } | Self::NotHttps { .. } | Self::File(_) | Self::NoSpace { .. } => false,
        }
    }

    /// Whether no mirror could help.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self, Self::File(_) | Self::NoSpace { .. })
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Http(error) => error.retry_after(),
            _ => None,
        }
    }
}

impl Explain for Reason {
    fn class(&self) -> Class {
        match self {
            Self::Http(error) => error.class(),
            Self::File(error) => error.class(),
            Self::Wrong { .. } => Class::Verification,
            Self::BrokeOff { .. } | Self::NotHttps { .. } | Self::NoSpace { .. } => Class::Failed,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::File(error) => error.advice(),
            Self::NoSpace { .. } => {
                Some("free some space or inodes on that file system (`nodeagent install --prune` removes old versions), then run again".to_owned())
            }
            Self::Wrong { .. } => {
                Some("nothing of it was installed; if the mirror is right, correct what was pinned".to_owned())
            }
            Self::Http(error) => {
                error.advice().or_else(|| Some("check the mirror, or add another one to kubernetes.mirrors".to_owned()))
            }
            Self::BrokeOff { .. } | Self::NotHttps { .. } => {
                Some("check the mirror, or add another one to kubernetes.mirrors".to_owned())
            }
        }
    }
}

impl Explain for FetchError {
    fn class(&self) -> Class {
        let late = self.late.map(|_| Class::Deadline);
        self.reasons.iter().map(Explain::class).chain(late).max().unwrap_or(Class::Failed)
    }

    fn advice(&self) -> Option<String> {
        let worst = self.reasons.iter().max_by_key(|reason| (reason.is_ours(), reason.class()));
        worst.and_then(Explain::advice)
    }
}
