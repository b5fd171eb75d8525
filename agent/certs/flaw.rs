//! What can be wrong with a pair: as a difference for `plan`, and in words for people.

use std::fmt;

use super::request::Usage;
use crate::engine::resource::Delta;

/// Why a pair must be replaced, or why a signer's answer must not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flaw {
    /// There is no file.
    Absent,
    /// No certificate, or no key, can be read.
    Garbage(&'static str),
    /// The key wants a passphrase, and the programs that read the pair have none.
    EncryptedKey,
    /// The key is another certificate's.
    KeyMismatch,
    /// The key is of another kind than the configuration asks for.
    OtherKind {
        /// What it is.
        now: String,
        /// What it should be.
        want: String,
    },
    /// None of our CA certificates signed it.
    ForeignIssuer {
        /// Who did, by its own word.
        issuer: String,
        /// Who should have.
        ca: String,
    },
    /// Its time is over.
    Expired {
        /// The end.
        until: String,
    },
    /// Its time has not come.
    NotYetValid {
        /// The start.
        from: String,
    },
    /// Less than a third of its life is left.
    RenewalDue {
        /// The end.
        until: String,
    },
    /// It vouches for other names than those of this node.
    Names {
        /// Those that it has.
        now: Vec<String>,
        /// Those that it should have.
        want: Vec<String>,
    },
    /// It is somebody else's.
    Subject {
        /// Whose.
        now: String,
        /// Whose it should be.
        want: String,
    },
    /// It may not be used for what it is needed for.
    UsageMissing(Usage),
    /// OpenSSL does not accept the chain for another reason.
    Rejected(String),
    /// Others can read its key, or could: it is no secret any more.
    Exposed(Delta),
}

impl Flaw {
    /// The flaw as a difference between what is there and what should be.
    pub fn delta(&self) -> Delta {
        let good = "certificate and key";
        match self {
            Self::Absent => Delta::new("pair", "", good),
            Self::Garbage(what) => Delta::new("pair", format!("no readable {what}"), good),
            Self::EncryptedKey => Delta::new("key", "encrypted with a passphrase", "not encrypted"),
            Self::KeyMismatch => Delta::new("key", "of another certificate", "of this certificate"),
            Self::OtherKind { now, want } => Delta::new("key", now, want),
            Self::ForeignIssuer { issuer, ca } => Delta::new("issuer", issuer, ca),
            Self::Expired { until } => Delta::new("validity", format!("expired on {until}"), "valid now"),
            Self::NotYetValid { from } => Delta::new("validity", format!("starts on {from}"), "valid now"),
            Self::RenewalDue { until } => {
                Delta::new("validity", format!("ends on {until}"), "more than a third of its life left")
            }
            Self::Names { now, want } => Delta::new("names", now.join(", "), want.join(", ")),
            Self::Subject { now, want } => Delta::new("subject", now, want),
            Self::UsageMissing(usage) => Delta::new("usage", "", usage),
            Self::Rejected(why) => Delta::new("chain", why, "accepted"),
            Self::Exposed(open) => open.clone(),
        }
    }

    /// Whether the pair works all the same: it is to be replaced, and still proves whose it is.
    pub(super) fn leaves_it_working(&self) -> bool {
        matches!(self, Self::RenewalDue { .. } | Self::OtherKind { .. })
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("there is no pair"),
            Self::Garbage(what) => write!(f, "it holds no readable {what}"),
            Self::EncryptedKey => f.write_str("its key is encrypted with a passphrase"),
            Self::KeyMismatch => f.write_str("it is for another key"),
            Self::OtherKind { now, want } => write!(f, "its key is {now}, not {want}"),
            Self::ForeignIssuer { issuer, ca } => write!(f, "it is signed by {issuer}, not by the key of {ca}"),
            Self::Expired { until } => write!(f, "it expired on {until}"),
            Self::NotYetValid { from } => write!(f, "it starts on {from}"),
            Self::RenewalDue { until } => write!(f, "it ends on {until}: less than a third of its life is left"),
            Self::Names { now, want } => {
                write!(f, "it is for the names [{}], not [{}]", now.join(", "), want.join(", "))
            }
            Self::Subject { now, want } => write!(f, "its subject is {now}, not {want}"),
            Self::UsageMissing(usage) => write!(f, "it lacks the usage {usage:?}", usage = usage.to_string()),
            Self::Rejected(why) => write!(f, "its chain is not accepted: {why}"),
            Self::Exposed(open) => {
                write!(f, "others can read its key: {} {}, not {}", open.what, open.now, open.want)
            }
        }
    }
}
