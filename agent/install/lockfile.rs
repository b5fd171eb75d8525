//! A lock file that is fetched: from anywhere, because its digest or its signature is checked before it is used.

use super::lock::{LONGEST, Lock};
use super::trust::{LONGEST_SIGNATURE, TrustError, verify_signature};
use crate::config::settings::LockSettings;
use crate::config::values::{HttpUrl, RootPath, Sha256, Version};
use crate::engine::apply::Unreadable;
use crate::engine::change::{Body, Change, Meta};
use crate::engine::fault::Fault;
use crate::engine::resource::{CannotTell, Delta, Diff, Obtained, Resource, Seen, Thing};
use crate::host::peers::Peers;

/// Where a fetched lock file is kept.
const PLACE: &str = "/opt/nodeagent/lock.json";

/// Where artifacts find the lock file.
pub fn place(lock: &LockSettings) -> RootPath {
    match lock {
        LockSettings::File(path) => path.clone(),
        LockSettings::Pinned { .. } | LockSettings::Signed { .. } => RootPath::literal(PLACE),
    }
}

/// The lock file in its place, and its signature beside it, so that later boots need no mirror.
pub struct LockFile {
    /// Where it is fetched.
    pub url: HttpUrl,
    /// What vouches for it.
    pub proof: Proof,
    /// The release that it must be for.
    pub release: Version,
}

/// What vouches for a lock file.
pub enum Proof {
    /// Its digest.
    Digest(Sha256),
    /// The owner of a key.
    Signature {
        /// Where the signature is.
        url: HttpUrl,
        /// The public key's file.
        key: RootPath,
    },
}

impl LockFile {
    /// The resource that a configuration asks for; none if the file is on the node already.
    pub fn of(lock: &LockSettings, release: &Version) -> Option<Self> {
        let (url, proof) = match lock {
            LockSettings::File(_) => return None,
            LockSettings::Pinned { url, sha256 } => (url.clone(), Proof::Digest(sha256.clone())),
            LockSettings::Signed { url, signature, key } => {
                (url.clone(), Proof::Signature { url: signature.clone(), key: key.clone() })
            }
        };
        Some(Self { url, proof, release: release.clone() })
    }

    fn lock() -> RootPath {
        RootPath::literal(PLACE)
    }

    fn signature() -> RootPath {
        RootPath::literal(PLACE).parent().join("lock.json.sig")
    }

    /// The public key, if one is asked for.
    fn key<'s>(&self, seen: &'s Seen) -> Result<&'s [u8], CannotTell> {
        match &self.proof {
            Proof::Digest(_) => Ok(&[]),
            Proof::Signature { key, .. } => seen
                .bytes(key)?
                .ok_or_else(|| CannotTell::new(key, "there is no such file: kubernetes.lock.key names it")),
        }
    }

    /// Whether these bytes are what was vouched for.
    fn verify(&self, what: &str, key: &[u8], signature: &[u8], bytes: &[u8]) -> Result<(), TrustError> {
        match &self.proof {
            Proof::Signature { .. } => verify_signature(what, key, signature, bytes),
            Proof::Digest(want) => {
                let got = Sha256::of(bytes);
                let why = format!("its sha256 is {got}, not the pinned {want}");
                if got == *want { Ok(()) } else { Err(TrustError::BadSignature { what: what.to_owned(), why }) }
            }
        }
    }
}

impl Resource for LockFile {
    fn summary(&self) -> String {
        match &self.proof {
            Proof::Digest(sha256) => format!("lock file {} (sha256 {} pinned)", self.url, sha256.short()),
            Proof::Signature { key, .. } => format!("lock file {} (signed by the key {key})", self.url),
        }
    }

    fn reads(&self) -> Vec<Thing> {
        let key = match &self.proof {
            Proof::Digest(_) => None,
            Proof::Signature { key, .. } => Some(Thing::File(key.clone())),
        };
        self.makes().into_iter().chain(key).collect()
    }

    fn makes(&self) -> Vec<Thing> {
        let mut made = vec![Thing::File(Self::lock())];
        if matches!(self.proof, Proof::Signature { .. }) {
            made.push(Thing::File(Self::signature()));
        }
        made
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        let key = self.key(seen)?;
        let signature = match self.proof {
            Proof::Digest(_) => None,
            Proof::Signature { .. } => seen.bytes(&Self::signature())?,
        };
        let why = match seen.bytes(&Self::lock())? {
            None => String::new(),
            Some(bytes) => match self.verify("what is there", key, signature.unwrap_or_default(), bytes) {
                Err(error) => error.to_string(),
                Ok(()) => match Lock::parse_for(bytes, &self.release) {
                    Ok(_) => return Ok(Diff::Same),
                    Err(error) => error.to_string(),
                },
            },
        };
        let shown = vec![Delta::new("lock file", why, format!("for {}", self.release))];
        let dir = Change::Dir { path: Self::lock().parent(), meta: Meta::PROGRAM };
        Ok(Diff::Differs { shown, known: vec![dir] })
    }

    fn obtain<'a>(&'a self, known: Vec<Change>, seen: &'a Seen, peers: &'a Peers) -> Obtained<'a> {
        Box::pin(async move {
            let key = self.key(seen).map_err(Unreadable)?;
            let bytes = peers.http.read(self.url.as_str(), LONGEST).await?;
            let signature = match &self.proof {
                Proof::Digest(_) => None,
                Proof::Signature { url, .. } => Some(peers.http.read(url.as_str(), LONGEST_SIGNATURE).await?),
            };
            self.verify(self.url.as_str(), key, signature.as_deref().unwrap_or_default(), &bytes)?;
            let refused = |error| Fault::from(error).context(format!("use the lock file {}", self.url));
            Lock::parse_for(&bytes, &self.release).map_err(refused)?;
            let put = |path, bytes| Change::Put { path, body: Body::Bytes(bytes), meta: Meta::FILE };
            let mut changes = known;
            changes.extend(signature.map(|signature| put(Self::signature(), signature)));
            changes.push(put(Self::lock(), bytes));
            Ok(changes)
        })
    }
}

/// A lock file's words about one artifact, as a resource may say that it cannot tell.
pub fn cannot_tell(path: &RootPath, error: &super::lock::LockError) -> CannotTell {
    CannotTell::because(format!("lock file {path}"), error)
}
