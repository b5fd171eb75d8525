//! The digest that a snapshot ends with: etcd appends the SHA-256 of the store's file to it, and its own tools judge a
//! snapshot by that (etcd's `etcdutl/snapshot`, `v3_snapshot.go`).

use std::io::Read as _;

use openssl::sha;

use crate::config::values::{RootPath, Sha256};
use crate::engine::fault::{Class, Explain, Fault};
use crate::host::root::Root;
use crate::host::seen::Entry;

/// The length of the digest at the end.
const DIGEST: usize = 32;

/// The store's file consists of pages, whose size is a multiple of this: what is left over is the digest.
const PAGE: u64 = 512;

/// A snapshot whose digest is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Its size in bytes, with the digest.
    pub bytes: u64,
    /// The digest at its end, which is that of all before it.
    pub sha256: Sha256,
}

/// A file is no whole snapshot.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {flaw}")]
pub struct BadSnapshot {
    path: String,
    flaw: Flaw,
}

/// What is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// It cannot have been taken from a member whole.
    #[error(
        "it has {0} bytes, and no snapshot ends there: it was cut off, or it is none (a copy of a member's file has no digest)"
    )]
    Length(u64),
    /// Not what the member sent.
    #[error("its SHA-256 is {got}, and at its end stands {want}: it is damaged, or no snapshot")]
    Digest {
        /// What it has.
        got: Sha256,
        /// What it should have.
        want: Sha256,
    },
}

impl BadSnapshot {
    /// What is wrong with the file.
    pub fn new(path: String, flaw: Flaw) -> Self {
        Self { path, flaw }
    }
}

impl Explain for BadSnapshot {
    fn class(&self) -> Class {
        Class::Verification
    }

    fn advice(&self) -> Option<String> {
        Some("take another copy of it, or another snapshot (`nodeagent etcd snapshots --verify`)".to_owned())
    }
}

/// Reads a snapshot piece by piece, and knows at its end whether it is whole.
pub struct Judge {
    hasher: sha::Sha256,
    /// The last bytes, which may be the digest.
    tail: Vec<u8>,
    bytes: u64,
}

impl Judge {
    /// Before the first byte.
    pub fn new() -> Self {
        Self { hasher: sha::Sha256::new(), tail: Vec::new(), bytes: 0 }
    }

    /// So many bytes were read.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next piece.
    pub fn read(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        self.tail.extend_from_slice(piece);
        let certain = self.tail.len().saturating_sub(DIGEST);
        self.hasher.update(&self.tail[..certain]);
        self.tail.drain(..certain);
    }

    /// After the last byte.
    pub fn verdict(self) -> Result<Sealed, Flaw> {
        let Ok(want) = <[u8; DIGEST]>::try_from(self.tail.as_slice()) else { return Err(Flaw::Length(self.bytes)) };
        if self.bytes % PAGE != DIGEST as u64 || self.bytes <= PAGE {
            return Err(Flaw::Length(self.bytes));
        }
        let (got, want) = (Sha256::from_raw(&self.hasher.finish()), Sha256::from_raw(&want));
        if got == want { Ok(Sealed { bytes: self.bytes, sha256: got }) } else { Err(Flaw::Digest { got, want }) }
    }
}

/// Whether the length is that of a snapshot.
pub fn may_be_whole(bytes: u64) -> bool {
    bytes > PAGE && bytes % PAGE == DIGEST as u64
}

/// Reads a snapshot, whatever its size, and tells whether it is whole.
pub fn verify(root: &Root, path: &RootPath) -> Result<Sealed, Fault> {
    if let Entry::Dir(_) | Entry::Other(_) = root.entry(path, false)? {
        return Err(BadSnapshot::new(root.display(path), Flaw::Length(0)).into());
    }
    let mut file = root.open_file(path)?;
    let (mut judge, mut buffer) = (Judge::new(), vec![0; 1 << 18]);
    loop {
        match file.read(&mut buffer).map_err(|e| root.error("read", path, e))? {
            0 => break,
            n => judge.read(&buffer[..n]),
        }
    }
    Ok(judge.verdict().map_err(|flaw| BadSnapshot::new(root.display(path), flaw))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(bytes: &[u8], piece: usize) -> Result<Sealed, Flaw> {
        let mut judge = Judge::new();
        bytes.chunks(piece).for_each(|piece| judge.read(piece));
        judge.verdict()
    }

    fn sealed(pages: &[u8]) -> Vec<u8> {
        [pages, &openssl::sha::sha256(pages)].concat()
    }

    #[test]
    fn a_whole_snapshot_is_told_from_all_else() {
        let good = sealed(&[7; 4096]);
        for piece in [1, 31, 32, 33, 4096, 5000] {
            let seal = judged(&good, piece).unwrap_or_else(|flaw| panic!("pieces of {piece}: {flaw}"));
            assert_eq!(seal, Sealed { bytes: 4128, sha256: Sha256::of(&[7; 4096]) });
        }
        let mut flipped = good.clone();
        flipped[100] ^= 1;
        let mut other_end = good.clone();
        other_end[4100] ^= 1;
        for (what, bytes, length) in [
            ("nothing", &b""[..], true),
            ("a digest of nothing", &sealed(b""), true),
            ("cut off by one byte", &good[..good.len() - 1], true),
            ("cut off by the digest", &good[..4096], true),
            ("one byte more", &[&good[..], b"x"].concat(), true),
            ("a page less", &good[512..], false),
            ("a bit of it", &flipped, false),
            ("a bit of its digest", &other_end, false),
            ("something else", &[0; 4128], false),
        ] {
            let flaw = judged(bytes, 1000).expect_err(what);
            assert_eq!(matches!(flaw, Flaw::Length(_)), length, "{what}: {flaw}");
        }
    }
}
