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
    /// What vouched for the files: `pinned`, `lock`, `published`.
    pub trust: String,
    /// The digest of the archive that the files were taken out of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<Sha256>,
    /// The names of the container images that are in it, as containerd calls them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn verified() -> impl Strategy<Value = Verified> {
        (any::<[u8; 32]>(), any::<(u64, u64, i128, i128)>()).prop_map(|(raw, (size, inode, mtime_ns, ctime_ns))| {
            Verified { sha256: Sha256::from_raw(&raw), stamp: Stamp { size, inode, mtime_ns, ctime_ns } }
        })
    }

    proptest! {
        #[test]
        fn receipts_read_back(trust in any::<String>(), archive in prop::option::of(any::<[u8; 32]>()), images in prop::collection::vec(any::<String>(), 0..3), files in prop::collection::btree_map(any::<String>(), verified(), 0..4)) {
            let archive = archive.map(|raw| Sha256::from_raw(&raw));
            let receipt = Receipt { trust, archive, images, files };
            let json = serde_json::to_string(&receipt).expect("JSON");
            prop_assert_eq!(serde_json::from_str::<Receipt>(&json).map_err(|e| TestCaseError::fail(e.to_string()))?, receipt);
        }
    }
}
