//! A certificate and its key, kept in one file: one rename replaces both, so that no crash leaves one without the other.
//!
//! The certificate stands first, then the key in PKCS#8. Go's `tls.LoadX509KeyPair`, and with it every Kubernetes
//! component and etcd, reads such a file for both; kubelet's own `kubelet-client-current.pem` has this form.

use std::time::SystemTime;

use openssl::error::ErrorStack;
use openssl::x509::X509;
use zeroize::Zeroizing;

use super::authority::Authority;
use super::check::{Flaw, check};
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
    /// The cluster's CA certificate.
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
            Self::Unrequested { .. } | Self::Key { .. } | Self::Encode { .. } => Class::Failed,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Answer { advice, .. } => Some(advice.clone()),
            Self::Unrequested { .. } => Some("make both: nodeagent certs csr".to_owned()),
            Self::Key { .. } => {
                Some("remove it, make another: nodeagent certs csr, and have that one signed".to_owned())
            }
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
        let now = seen.now()?;
        // No new pair mends a bad CA: that is for people, and the pair stays as it is.
        let ca = Authority::read(&self.ca, seen.bytes(&self.ca)?, now)?;
        let flaws = check(seen.bytes(&self.path)?, &self.wanted, &ca, now);
        let mut shown: Vec<Delta> = flaws.iter().map(Flaw::delta).collect();
        shown.extend(exposed(seen.entry(&self.path)?));
        if shown.is_empty() {
            return Ok(Diff::Same);
        }
        Ok(Diff::Differs { shown, known: vec![Change::Dir { path: self.path.parent(), meta: Meta::PROGRAM }] })
    }

    fn obtain<'a>(&'a self, mut known: Vec<Change>, seen: &'a Seen, peers: &'a Peers) -> Obtained<'a> {
        Box::pin(async move {
            let now = seen.now().map_err(PairError::from)?;
            let ca = Authority::read(&self.ca, seen.bytes(&self.ca).map_err(PairError::from)?, now)?;
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
    match seen.bytes(&path)? {
        None => Err(PairError::Unrequested { path }),
        Some(pem) => Key::from_pem(pem).map_err(|source| PairError::Key { path, source }),
    }
}

/// Whether this is the key of the certificate in a pair's file.
pub(super) fn is_key_of(key: &Key, pair: Option<&[u8]>) -> bool {
    let public = pair.and_then(|pem| X509::from_pem(pem).ok()).and_then(|certificate| certificate.public_key().ok());
    public.is_some_and(|public| key.fits(&public))
}

/// A key that others could read is no secret any more: it is replaced, not only its mode.
pub(super) fn exposed(entry: &Entry) -> Option<Delta> {
    const OTHERS: u32 = 0o077;
    let Entry::File { meta, .. } = entry else { return None };
    let text = |meta: &Meta| format!("{:04o} {}:{}", meta.mode, meta.uid, meta.gid);
    let exposed = meta.mode & OTHERS != 0 || (meta.uid, meta.gid) != (Meta::SECRET.uid, Meta::SECRET.gid);
    exposed.then(|| Delta::new("mode and owner", text(meta), text(&Meta::SECRET)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::signer::Signing;
    use crate::certs::testing::{Ca, CaKind, DAY, Issue, new_key, now, seen_files, server};
    use crate::config::settings::{DownloadSettings, KeyKind};
    use crate::host::http::Http;
    use crate::host::root::Root;
    use crate::journal::Teller;

    /// A signer that is never asked.
    struct Nobody;

    impl Signer for Nobody {
        fn describe(&self) -> String {
            "nobody".into()
        }
        fn reads(&self) -> Vec<Thing> {
            Vec::new()
        }
        fn advice(&self) -> String {
            "ask somebody".into()
        }
        fn sign<'a>(&'a self, _: Order<'a>, _: &'a Seen, _: &'a Peers) -> Signing<'a> {
            unreachable!("no test asks")
        }
    }

    fn pair() -> Pair {
        Pair {
            purpose: "kubelet's serving certificate".into(),
            path: RootPath::literal("/etc/kubernetes/pki/kubelet-server.pem"),
            ca: RootPath::literal("/etc/kubernetes/pki/ca.pem"),
            wanted: server(),
            signer: Box::new(Nobody),
        }
    }

    /// The machine with this CA file and this pair file.
    fn seen(ca: &[u8], file: Option<(&[u8], Meta)>) -> Seen {
        let Pair { path, ca: ca_path, .. } = pair();
        seen_files(&[(&ca_path, Some((ca, Meta::FILE))), (&path, file)])
    }

    fn shown(seen: &Seen) -> Vec<String> {
        match pair().diff(seen).expect("a difference") {
            Diff::Same => Vec::new(),
            Diff::Differs { shown, .. } => shown.into_iter().map(|delta| delta.what).collect(),
        }
    }

    #[test]
    fn what_was_obtained_is_the_same_at_the_next_run() {
        for kind in [CaKind::Rsa, CaKind::Ec] {
            let ca = Ca::valid(kind);
            let key = new_key();
            let answer = ca.issue(&server(), &key, &Issue::default());
            let file = pair().complete(&answer, &key, &ca.authority(), now()).expect("a pair");
            assert!(file.starts_with(b"-----BEGIN CERTIFICATE-----"), "{kind:?}: certificate first");
            assert_eq!(shown(&seen(&ca.pem(), Some((&file, Meta::SECRET)))), [""; 0], "{kind:?}");
            assert_eq!(shown(&seen(&ca.pem(), Some((&file, Meta::FILE)))), ["mode and owner"], "{kind:?}: exposed");
            assert_eq!(shown(&seen(&ca.pem(), Some((&file, Meta::root(0o400))))), [""; 0], "{kind:?}: stricter");
            assert_eq!(shown(&seen(&ca.pem(), None)), ["pair"], "{kind:?}: absent");
        }
    }

    #[test]
    fn the_key_of_an_open_request_is_kept_until_it_is_used() {
        let (pair, ca) = (pair(), Ca::valid(CaKind::Ec));
        let tree = tempfile::tempdir().expect("a directory");
        let root = Root::open(tree.path()).expect("a root");
        let http = Http::new(Teller::silent(), root.clone(), DownloadSettings::default());
        let peers = Peers { http, root: root.clone(), tell: Teller::silent() };
        let file = pair.pending();
        let pending = |pair: &Pair, seen: &Seen| {
            let key = pair.pending_key(seen, &peers).expect("a key");
            let Entry::File { meta, bytes: Some(bytes), .. } = root.entry(&file, true).expect("looked at") else {
                panic!("no key was kept")
            };
            assert_eq!(meta.mode, 0o600);
            assert_eq!(*bytes, **key.to_pem().expect("PEM"), "another key was kept than is used");
            bytes
        };
        let none = seen(&ca.pem(), None);
        let first = pending(&pair, &none);
        assert_eq!(pending(&pair, &none), first, "the next run goes on with it");

        let key = Key::from_pem(&first).expect("a key");
        let in_use = [ca.issue(&server(), &key, &Issue::default()), first.to_vec()].concat();
        let second = pending(&pair, &seen(&ca.pem(), Some((&in_use, Meta::SECRET))));
        assert_ne!(second, first, "a renewal is for a new key");

        root.put(&file, b"garbage", Meta::SECRET).expect("written");
        assert_ne!(pending(&pair, &none), second, "garbage is replaced");
        let rsa = Pair { wanted: Wanted { key: KeyKind::Rsa2048, ..server() }, ..pair };
        assert!(pending(&rsa, &none).len() > first.len() * 2, "another kind is asked for");
    }

    #[test]
    fn an_answer_with_more_in_it_gives_its_certificate_only() {
        let ca = Ca::valid(CaKind::Ec);
        let key = new_key();
        let certificate = ca.issue(&server(), &key, &Issue::default());
        let answer = [b"hello\n".as_slice(), &certificate, &ca.pem(), &ca.key_pem()].concat();
        let file = pair().complete(&answer, &key, &ca.authority(), now()).expect("a pair");
        assert_eq!(*file, [certificate, key.to_pem().expect("PEM").to_vec()].concat());
    }

    #[test]
    fn an_intermediate_ca_signs_where_the_ca_file_has_it_in_any_order() {
        let (root, key) = (Ca::valid(CaKind::Rsa), new_key());
        let between = root.intermediate();
        let certificate = between.issue(&server(), &key, &Issue::default());
        let chain = [certificate.as_slice(), &between.pem(), &root.pem()].concat();
        let authority = |file: &[u8]| Authority::read(&pair().ca, Some(file), now()).expect("a CA");
        for file in [[root.pem(), between.pem()].concat(), [between.pem(), root.pem()].concat()] {
            let pair_file = pair().complete(&chain, &key, &authority(&file), now()).expect("a pair");
            assert_eq!(*pair_file, [certificate.clone(), key.to_pem().expect("PEM").to_vec()].concat());
            assert_eq!(shown(&seen(&file, Some((&pair_file, Meta::SECRET)))), [""; 0]);
            assert_eq!(authority(&file).pem(), file, "kubeconfigs embed both");
        }
        let refused = pair().complete(&chain, &key, &authority(&root.pem()), now()).expect_err("the root alone");
        let why = "it is signed by CN=test-intermediate, not by the key of CN=test-ca";
        assert!(refused.to_string().ends_with(why), "{refused}");
    }

    #[test]
    fn a_bad_answer_is_a_failed_verification_that_says_why() {
        let (ca, other) = (Ca::valid(CaKind::Ec), Ca::valid(CaKind::Ec));
        let key = new_key();
        let good = Issue::default;
        let elsewhere = Wanted { dns: vec!["elsewhere".into()], ..server() };
        let table = [
            ("garbage", b"<html>".to_vec(), "it holds no readable certificate", "ask somebody"),
            ("another key", ca.issue(&server(), &new_key(), &good()), "it is for another key", "ask somebody"),
            (
                "another CA",
                other.issue(&server(), &key, &good()),
                "it is signed by CN=test-ca, not by the key of CN=test-ca",
                "ask somebody",
            ),
            (
                "other names",
                ca.issue(&elsewhere, &key, &good()),
                "it is for the names [10.10.30.21, elsewhere], not [10.10.30.21, worker-01]",
                "ask somebody",
            ),
            (
                "no usage",
                ca.issue(&server(), &key, &Issue { extended: false, ..good() }),
                r#"it lacks the usage "server auth""#,
                "ask somebody",
            ),
            (
                "expired",
                ca.issue(&server(), &key, &Issue { valid: (-2 * DAY, -DAY), ..good() }),
                "it expired on Sep  8 00:00:00 2026 GMT",
                "compare this machine's clock with the signer's",
            ),
        ];
        for (name, answer, why, advice) in table {
            let fault = pair().complete(&answer, &key, &ca.authority(), now()).expect_err(name);
            assert_eq!(fault.class, Class::Verification, "{name}");
            assert_eq!(fault.advice.as_deref(), Some(advice), "{name}");
            let text =
                format!("use the certificate that nobody sent for /etc/kubernetes/pki/kubelet-server.pem: {why}");
            assert_eq!(fault.to_string(), text, "{name}");
        }
    }

    #[test]
    fn a_bad_ca_is_no_difference_but_a_thing_that_cannot_be_told() {
        let leaf = Ca::new(CaKind::Ec, false, -DAY, DAY).pem();
        let table: [(&str, &[u8], &str); 2] = [
            ("garbage", b"garbage", "/etc/kubernetes/pki/ca.pem: it holds no readable certificate"),
            ("leaf", &leaf, "/etc/kubernetes/pki/ca.pem: CN=test-ca is not a CA (no basic constraint CA:TRUE)"),
        ];
        for (name, ca, text) in table {
            assert_eq!(pair().diff(&seen(ca, None)).expect_err(name).to_string(), text, "{name}");
        }
    }
}
