//! The lock file: what every file of a release must be, per architecture, and who said so.
//!
//! `nodeagent lock` writes it on the operator's machine, a node reads it. It is JSON with sorted keys and one value per
//! line: the same release gives the same bytes, two releases a readable diff. JSON rather than YAML because a program
//! writes it, and because nothing in it can mean two things.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::elf;
use crate::config::values::{ArtifactName, ArtifactVersion, BadValue, Sha256, Version};
use crate::engine::fault::{Class, Explain, quote};

/// The longest lock file that is read, in bytes: some thousand files.
pub const LONGEST: usize = 1 << 20;

/// The digests of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lock {
    /// The version of this format.
    pub api_version: ApiVersion,
    /// The kind of document.
    pub kind: Kind,
    /// The Kubernetes release.
    pub version: Version,
    /// By architecture (`amd64`, `arm64`, `arm`) and name.
    pub artifacts: BTreeMap<String, BTreeMap<ArtifactName, Locked>>,
}

/// The version of this format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ApiVersion {
    /// The only one.
    #[serde(rename = "nodeagent.io/v1alpha1")]
    V1Alpha1,
}

/// The kind of document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// The only one.
    ReleaseLock,
}

/// One file of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locked {
    /// Its version.
    pub version: ArtifactVersion,
    /// Where it stands below any mirror.
    pub path: MirrorPath,
    /// Its size in bytes.
    pub size: u64,
    /// What it must be.
    pub sha256: Sha256,
    /// What this lock trusted when it was made: the URL of the checksum that was published beside the file.
    pub trusted: String,
}

/// A path below a mirror's URL: relative, and it stays there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MirrorPath(String);

impl MirrorPath {
    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for MirrorPath {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let good = |part: &str| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._+".contains(&b);
            !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain)
        };
        if text.len() <= 255 && text.split('/').all(good) {
            Ok(Self(text))
        } else {
            Err(format!("{:?} is not a path below a mirror", quote(&text)))
        }
    }
}

impl From<MirrorPath> for String {
    fn from(path: MirrorPath) -> Self {
        path.0
    }
}

/// A lock file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// There is none.
    #[error("there is no such file")]
    Absent,
    /// It is none.
    #[error("it is no lock file: {0}")]
    NotOne(String),
    /// It is for another release.
    #[error("it is for {has}, not for {wants}")]
    OtherRelease {
        /// What it is for.
        has: Version,
        /// What is wanted.
        wants: Version,
    },
    /// It lacks a file.
    #[error("it has no {name} {version} for {architecture}{}", has.as_ref().map_or_else(String::new, |v| format!(", but {v}")))]
    Lacks {
        /// Which.
        name: ArtifactName,
        /// Of which version.
        version: String,
        /// For which machine.
        architecture: String,
        /// The version that it has instead.
        has: Option<ArtifactVersion>,
    },
}

impl Explain for LockError {
    fn class(&self) -> Class {
        Class::Failed
    }

    fn advice(&self) -> Option<String> {
        Some("make one for what the node wants: nodeagent lock VERSION (see docs/lock.md)".to_owned())
    }
}

impl Lock {
    /// An empty one.
    pub fn new(version: Version) -> Self {
        Self { api_version: ApiVersion::V1Alpha1, kind: Kind::ReleaseLock, version, artifacts: BTreeMap::new() }
    }

    /// Reads one.
    pub fn parse(bytes: &[u8]) -> Result<Self, LockError> {
        if bytes.len() > LONGEST {
            return Err(LockError::NotOne(format!("it is longer than {LONGEST} bytes")));
        }
        let lock: Self = serde_json::from_slice(bytes).map_err(|e| LockError::NotOne(quote(&e.to_string())))?;
        let known = elf::architectures();
        match lock.artifacts.keys().find(|architecture| !known.contains(&architecture.as_str())) {
            Some(other) => {
                Err(LockError::NotOne(format!("{:?} is none of the architectures {}", quote(other), known.join(", "))))
            }
            None => Ok(lock),
        }
    }

    /// Reads one that must be for a release.
    pub fn parse_for(bytes: &[u8], wants: &Version) -> Result<Self, LockError> {
        let lock = Self::parse(bytes)?;
        if lock.version == *wants {
            Ok(lock)
        } else {
            Err(LockError::OtherRelease { has: lock.version, wants: wants.clone() })
        }
    }

    /// The bytes of the file.
    pub fn print(&self) -> Vec<u8> {
        // Plain data cannot fail to serialise: all keys are text.
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// What it says of a file.
    pub fn find(&self, name: &ArtifactName, version: &str, architecture: &str) -> Result<&Locked, LockError> {
        let of_name = self.artifacts.get(architecture).and_then(|all| all.get(name));
        of_name.filter(|locked| locked.version.as_str() == version).ok_or_else(|| LockError::Lacks {
            name: name.clone(),
            version: version.to_owned(),
            architecture: architecture.to_owned(),
            has: of_name.map(|locked| locked.version.clone()),
        })
    }

    /// Adds a file.
    pub fn add(&mut self, architecture: &str, name: ArtifactName, locked: Locked) {
        self.artifacts.entry(architecture.to_owned()).or_default().insert(name, locked);
    }

    /// Every file, with its architecture and name.
    pub fn files(&self) -> impl Iterator<Item = (&str, &ArtifactName, &Locked)> {
        self.artifacts.iter().flat_map(|(arch, all)| all.iter().map(move |(name, file)| (arch.as_str(), name, file)))
    }
}

impl From<BadValue> for LockError {
    fn from(error: BadValue) -> Self {
        Self::NotOne(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Lock {
        let mut lock = Lock::new("v1.34.2".parse().expect("a version"));
        let locked = Locked {
            version: "v1.34.2".parse().expect("a version"),
            path: "v1.34.2/bin/linux/amd64/kubelet".to_owned().try_into().expect("a path"),
            size: 57,
            sha256: Sha256::of(b"kubelet"),
            trusted: "https://dl.k8s.io/release/v1.34.2/bin/linux/amd64/kubelet.sha512".to_owned(),
        };
        lock.add("amd64", "kubelet".parse().expect("a name"), locked);
        lock
    }

    #[test]
    fn a_lock_is_printed_one_value_per_line_and_reads_back() {
        let lock = sample();
        let text = String::from_utf8(lock.print()).expect("text");
        assert!(
            text.starts_with("{\n  \"apiVersion\": \"nodeagent.io/v1alpha1\",\n  \"kind\": \"ReleaseLock\",\n"),
            "{text}"
        );
        assert_eq!(Lock::parse(text.as_bytes()), Ok(lock));
    }

    #[test]
    fn what_is_no_lock_is_refused_with_the_place() {
        let good = String::from_utf8(sample().print()).expect("text");
        for (from, to, wanted) in [
            ("\"size\": 57", "\"size\": -1", "line 10 column"),
            ("amd64\": {", "mips\": {", "\"mips\" is none of the architectures amd64, arm64, arm"),
            ("\"size\"", "\"sise\"", "unknown field `sise`"),
            ("v1.34.2/bin", "/v1.34.2/bin", "is not a path below a mirror"),
            ("v1.34.2/bin", "../v1.34.2/bin", "is not a path below a mirror"),
            ("v1alpha1", "v2", "unknown variant"),
            ("}", "", "line"),
        ] {
            let error = Lock::parse(good.replacen(from, to, 1).as_bytes()).expect_err(to).to_string();
            assert!(error.starts_with("it is no lock file: ") && error.contains(wanted), "{to:?}: {error}");
        }
        let error = Lock::parse(b"<html>not found</html>").expect_err("a page").to_string();
        assert!(error.contains("expected value at line 1 column 1"), "{error}");
    }

    #[test]
    fn what_it_lacks_is_named() {
        let lock = sample();
        let find = |name: &str, version: &str, arch: &str| {
            lock.find(&name.parse().expect("a name"), version, arch).map(|_| ()).map_err(|e| e.to_string())
        };
        assert_eq!(find("kubelet", "v1.34.2", "amd64"), Ok(()));
        for (name, version, arch, wanted) in [
            ("kubectl", "v1.34.2", "amd64", "it has no kubectl v1.34.2 for amd64"),
            ("kubelet", "v1.34.2", "arm64", "it has no kubelet v1.34.2 for arm64"),
            ("kubelet", "v1.34.3", "amd64", "it has no kubelet v1.34.3 for amd64, but v1.34.2"),
        ] {
            assert_eq!(find(name, version, arch), Err(wanted.to_owned()));
        }
        let other = Lock::parse_for(&lock.print(), &"v1.34.3".parse().expect("a version"));
        assert_eq!(other.expect_err("another").to_string(), "it is for v1.34.2, not for v1.34.3");
    }

    fn locked() -> impl Strategy<Value = Locked> {
        ("[a-z0-9][a-z0-9.+-]{0,9}", "[a-z0-9]{1,9}(/[a-z0-9_+-]{1,9}){0,4}", any::<(u64, [u8; 32], String)>())
            .prop_map(|(version, path, (size, raw, trusted))| Locked {
                version: version.parse().unwrap_or_else(|_| "v1".parse().expect("a version")),
                path: path.try_into().expect("a path"),
                size,
                sha256: Sha256::from_raw(&raw),
                trusted,
            })
    }

    proptest! {
        #[test]
        fn locks_read_back(all in prop::collection::vec((0..3_usize, "[a-z][a-z0-9-]{0,8}", locked()), 0..8)) {
            let mut lock = Lock::new("v1.2.3".parse().expect("a version"));
            for (arch, name, locked) in all {
                lock.add(elf::architectures()[arch], name.parse().expect("a name"), locked);
            }
            prop_assert_eq!(Lock::parse(&lock.print()), Ok(lock));
        }
    }
}
