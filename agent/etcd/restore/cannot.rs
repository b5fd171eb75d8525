//! Why a snapshot is not restored, and what to do about it.

use super::record::ASIDE;
use crate::engine::fault::{Class, Explain};
use crate::journal::size;

/// It cannot be done here.
#[derive(Debug, thiserror::Error)]
pub enum CannotRestore {
    /// It is no member.
    #[error("restore a snapshot: no member of etcd runs on this node")]
    NoMember,
    /// It is not the running machine.
    #[error("restore a snapshot below {0}: units are stopped and started, which is for the running machine alone")]
    NotLive(String),
    /// The new data does not fit beside the old.
    #[error("{path}: No space left on device: {} are to be written, {} are free", size(*needs), size(*free))]
    NoRoom {
        /// Where.
        path: String,
        /// How much it is, in bytes.
        needs: u64,
        /// How much is free.
        free: u64,
    },
    /// What is where a record would be is none.
    #[error("{path}: it is no record of a restore: {why}")]
    BadRecord {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// Nobody has said who the members are.
    #[error("restore a snapshot: the members are in DNS (etcd.discovery: {0}), which a restore does not ask")]
    InDns(String),
    /// Who said so left this one out.
    #[error("--initial-cluster: this member, {0}, is not among those that are named")]
    NotAmong(String),
    /// It was done, and something else is wrong.
    #[error("the snapshot is in place, and the member is not ready: {0}")]
    NotReady(String),
}

impl Explain for CannotRestore {
    fn class(&self) -> Class {
        match self {
            Self::NoMember | Self::NotLive(_) | Self::InDns(_) | Self::NotAmong(_) => Class::Usage,
            _ => Class::Failed,
        }
    }

    fn advice(&self) -> Option<String> {
        Some(match self {
            Self::NoMember => "run it on each member (nodes of role etcd, or controllers with etcd.member)".to_owned(),
            Self::NotLive(_) => "run it on the member itself".to_owned(),
            Self::InDns(_) | Self::NotAmong(_) => "name every member, the same on each: --initial-cluster \
                                                   etcd-1=https://etcd-1.DOMAIN:2380,…"
                .to_owned(),
            Self::NoRoom { .. } => format!("free some space there; data of earlier restores is in {ASIDE}…"),
            Self::BadRecord { path, .. } => format!("look into the data directory, then remove {path}"),
            Self::NotReady(_) => {
                "see `systemctl status etcd kube-apiserver`; run the same again when the cause is mended".to_owned()
            }
        })
    }
}
