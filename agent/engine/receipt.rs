//! Receipts: what was verified about an artifact, and the numbers by which its files are recognised afterwards.
//!
//! Hashing 460 MB at each boot would cost seconds; comparing size, inode, mtime and ctime costs microseconds, and a
//! file that was written, replaced or restored since differs in at least one of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::values::Sha256;
use crate::host::seen::Stamp;

/// The content of `receipt.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// What vouched for the files: `pinned`.
    pub trust: String,
    /// By file name.
    pub files: BTreeMap<String, Verified>,
}

/// One verified file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Its digest.
    pub sha256: Sha256,
    /// The file that was verified.
    pub stamp: Stamp,
}
