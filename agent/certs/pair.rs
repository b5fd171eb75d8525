//! A certificate and its key, kept in one file: one rename replaces both, so that no crash leaves one without the other.
//!
//! The certificate stands first, then the key in PKCS#8. Go's `tls.LoadX509KeyPair`, and with it every Kubernetes
//! component and etcd, reads such a file for both; kubelet's own `kubelet-client-current.pem` has this form.

use std::time::SystemTime;

use openssl::error::ErrorStack;
use openssl::x509::X509;
use zeroize::Zeroizing;

use super::authority::Authority;
use super::check::{check, exposed, judge};
use super::flaw::Flaw;
use super::key::{Key, KeyError};
use super::request::{Wanted, request};
use super::signer::{KeyFrom, Order, Signer};
use crate::config::values::RootPath;
use crate::engine::change::{Body, Change, Meta, SCRATCH};
use crate::engine::fault::{Class, Explain, Fault};
use crate::engine::resource::{CannotTell, Delta, Diff, Obtained, Resource, Seen, Thing};
use crate::host::peers::Peers;
use crate::host::seen::Entry;

/// A pair that this node needs.
pub struct Pair {
    /// What it is, in a few words.
    pub purpose: String,
    /// The file of both.
    pub path: RootPath,
    /// The certificate of its CA.
    pub ca: RootPath,
    /// What the certificate must say.
    pub wanted: Wanted,
    /// Who signs it.
    pub signer: Box<dyn Signer>,
}

/// A pair could not be made. The one that was there stays.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// Something on this machine could not be read.
    #[error(transparent)]
    CannotTell(#[from] CannotTell),
    /// What the signer sent is not what was asked for.
    #[error("use the certificate that {signer} sent for {path}: {}", sentence(.flaws))]
    Answer {
        /// The file that it was for.
        path: RootPath,
        /// Who sent it.
        signer: String,
        /// All that is wrong with it.
        flaws: Vec<Flaw>,
        /// What to do.
        advice: String,
    },
    /// Nobody has made a request yet.
    #[error("use the key {path}: there is none, and so no request for its certificate")]
    Unrequested {
        /// Where it should be.
        path: RootPath,
    },
    /// The key of the request cannot be used.
    #[error("use the key {path}")]
    Key {
        /// The file.
        path: RootPath,
        /// What is wrong with it.
        source: KeyError,
    },
    /// The key of the request is no secret any more.
    #[error("use the key {path}: others can read it ({})", open.now)]
    Exposed {
        /// The file.
        path: RootPath,
        /// Its mode and owner.
        open: Delta,
    },
    /// OpenSSL could not.
    #[error("encode the certificate for {path}")]
    Encode {
        /// The file that it was for.
        path: RootPath,
        /// OpenSSL's reason.
        source: ErrorStack,
    },
}

impl Explain for PairError {
    fn class(&self) -> Class {
        match self {
            Self::Answer { .. } => Class::Verification,
            Self::CannotTell(cannot) => cannot.class(),
            Self::Unrequested { .. } | Self::Key { .. } | Self::Exposed { .. } | Self::Encode { .. } => Class::Failed,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Answer { advice, .. } => Some(advice.clone()),
            Self::Unrequested { .. } => Some("make both: nodeagent certs csr".to_owned()),
            Self::Key { .. } => {
                Some("remove it, make another: nodeagent certs csr, and have that one signed".to_owned())
            }
            Self::Exposed { .. } => Some("make another: nodeagent certs csr, and have that one signed".to_owned()),
            Self::CannotTell(cannot) => cannot.advice(),
            Self::Encode { .. } => None,
        }
    }
}

fn sentence(flaws: &[Flaw]) -> String {
    let flaws: Vec<String> = flaws.iter().map(ToString::to_string).collect();
    flaws.join("; ")
}

impl Resource for Pair {
    fn summary(&self) -> String {
        format!("{} ({}, signed by {})", self.purpose, self.wanted.subject(), self.signer.describe())
    }

    fn reads(&self) -> Vec<Thing> {
        let mut things = vec![Thing::File(self.path.clone()), Thing::File(self.ca.clone()), Thing::Clock];
        things.extend(self.signer.reads());
        things
    }

    fn makes(&self) -> Vec<Thing> {
        vec![Thing::File(self.path.clone())]
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        let flaws = judge(&self.path, &self.wanted, &self.ca, seen)?;
        let shown: Vec<Delta> = flaws.iter().map(Flaw::delta).collect();
        if !shown.is_empty() {
            let dir = Change::Dir { path: self.path.parent(), meta: Meta::PROGRAM };
            return Ok(Diff::Differs { shown, known: vec![dir] });
        }
        // A run that was killed once the pair stood.
        let is_left = |path: &RootPath| matches!(seen.entry(path), Ok(Entry::File { .. }));
        let left: Vec<RootPath> = self.signer.leaves().into_iter().filter(is_left).collect();
        if left.is_empty() {
            return Ok(Diff::Same);
        }
        let shown = left.iter().map(|path| Delta::new("file of its request", path, "")).collect();
        Ok(Diff::Differs { shown, known: left.into_iter().map(|path| Change::Destroy { path }).collect() })
    }

    fn obtain<'a>(&'a self, mut known: Vec<Change>, seen: &'a Seen, peers: &'a Peers) -> Obtained<'a> {
        Box::pin(async move {
            if judge(&self.path, &self.wanted, &self.ca, seen).map_err(PairError::from)?.is_empty() {
                return Ok(known);
            }
            let now = seen.now().map_err(PairError::from)?;
            let ca = Authority::seen(&self.ca, seen).map_err(PairError::from)?;
            let key = match self.signer.key() {
                KeyFrom::New => Key::generate(self.wanted.key)?,
                KeyFrom::Scratch => self.pending_key(seen, peers)?,
                KeyFrom::File(path) => brought_key(path, seen)?,
            };
            let request = request(&self.wanted, &key)?;
            let order = Order { request: &request, wanted: &self.wanted, ca: &ca };
            let answer = self.signer.sign(order, seen, peers).await?;
            let pair = self.complete(&answer, &key, &ca, now)?;
            known.push(Change::Put { path: self.path.clone(), body: Body::Credential(pair), meta: Meta::SECRET });
            known.extend(self.signer.leaves().into_iter().map(|path| Change::Destroy { path }));
            Ok::<_, Fault>(known)
        })
    }

    fn scratch(&self) -> Vec<RootPath> {
        if self.signer.key() == KeyFrom::Scratch { vec![self.pending()] } else { Vec::new() }
    }
}

impl Pair {
    /// Where the key is for which a certificate has been asked, and has not come yet.
    fn pending(&self) -> RootPath {
        RootPath::literal(SCRATCH).join(&format!("{}.key", self.path.name().trim_end_matches(".pem")))
    }

    /// The key of an earlier run's request, or a new one, which the next run will find.
    fn pending_key(&self, seen: &Seen, peers: &Peers) -> Result<Key, Fault> {
        let path = self.pending();
        let in_use = seen.bytes(&self.path).map_err(PairError::from)?;
        let kept = peers.root.read(&path)?.map(Zeroizing::new).and_then(|pem| Key::from_pem(&pem).ok());
        // A run that was killed after its last write leaves the key that is in use: a renewal is for a new one.
        let fits = |key: &Key| key.describe() == self.wanted.key.to_string() && !is_key_of(key, in_use);
        if let Some(key) = kept.filter(fits) {
            return Ok(key);
        }
        let key = Key::generate(self.wanted.key)?;
        peers.root.make_own_dirs(&path.parent(), Meta::root(0o700))?;
        peers.root.put(&path, &key.to_pem()?, Meta::SECRET)?;
        Ok(key)
    }

    /// The file's content from a signer's answer, if the next run's diff would find nothing wrong with it.
    fn complete(&self, answer: &[u8], key: &Key, ca: &Authority, now: SystemTime) -> Result<Zeroizing<Vec<u8>>, Fault> {
        // Only the certificate itself is taken from the answer, whatever else it holds.
        let Ok(certificate) = X509::from_pem(answer) else {
            return Err(self.refuse(vec![Flaw::Garbage("certificate")]).into());
        };
        let certificate = certificate.to_pem().map_err(|source| self.encode(source))?;
        let key = key.to_pem()?;
        // All of its room at once: growing would leave copies of the key behind.
        let mut pair = Zeroizing::new(Vec::with_capacity(certificate.len() + key.len()));
        pair.extend_from_slice(&certificate);
        pair.extend_from_slice(&key);
        let flaws = check(Some(&pair), &self.wanted, ca, now);
        if flaws.is_empty() { Ok(pair) } else { Err(self.refuse(flaws).into()) }
    }

    fn refuse(&self, flaws: Vec<Flaw>) -> PairError {
        let late = |flaw: &Flaw| matches!(flaw, Flaw::Expired { .. } | Flaw::NotYetValid { .. });
        let advice = if flaws.iter().any(late) {
            "compare this machine's clock with the signer's".to_owned()
        } else {
            self.signer.advice()
        };
        PairError::Answer { path: self.path.clone(), signer: self.signer.describe(), flaws, advice }
    }

    fn encode(&self, source: ErrorStack) -> PairError {
        PairError::Encode { path: self.path.clone(), source }
    }
}

/// The key that was made with the request that a person carried away.
fn brought_key(path: RootPath, seen: &Seen) -> Result<Key, PairError> {
    if let Some(open) = exposed(seen.entry(&path)?) {
        return Err(PairError::Exposed { path, open });
    }
    match seen.bytes(&path)? {
        None => Err(PairError::Unrequested { path }),
        Some(pem) => Key::from_pem(pem).map_err(|source| PairError::Key { path, source }),
    }
}

/// Whether this is the key of the certificate in a pair's file.
pub(super) fn is_key_of(key: &Key, pair: Option<&[u8]>) -> bool {
    pair.and_then(|pem| X509::from_pem(pem).ok()).is_some_and(|certificate| key.is_of(&certificate))
}

#[cfg(test)]
mod tests;
