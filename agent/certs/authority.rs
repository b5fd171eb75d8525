//! The cluster's CA certificate, as a file that may hold several: while a CA is being replaced, old and new stand in it.

use std::time::{SystemTime, UNIX_EPOCH};

use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::error::ErrorStack;
use openssl::pkey::{PKeyRef, Public};
use openssl::x509::{X509, X509NameEntryRef, X509NameRef, X509Ref};

use super::key::Key;
use crate::config::values::{RootPath, Sha256};
use crate::engine::fault::{Class, Explain, quote};
use crate::engine::resource::{CannotTell, Seen};

/// Why nothing can be trusted in the name of a CA file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("trust the CA certificate {path}: {flaw}")]
pub struct AuthorityError {
    /// The file.
    pub path: RootPath,
    /// What is wrong with it.
    pub flaw: AuthorityFlaw,
}

/// What is wrong with a CA file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityFlaw {
    /// There is no such file.
    #[error("there is no such file")]
    Absent,
    /// It is not PEM, or not whole.
    #[error("it holds no readable certificate")]
    Garbage,
    /// There is a private key in it: whoever is shown the CA's certificate, which is everybody, would have it.
    #[error("it holds a private key, and everybody is shown what is in there")]
    HoldsKey,
    /// The certificate does not say that its subject may sign others.
    #[error("{subject} is not a CA (no basic constraint CA:TRUE)")]
    NotAnAuthority {
        /// Whose certificate it is.
        subject: String,
    },
    /// Its time is over.
    #[error("{subject} expired on {until}, and it is now {now}")]
    Expired {
        /// Whose certificate it is.
        subject: String,
        /// The end.
        until: String,
        /// This machine's time.
        now: String,
    },
    /// Its time has not come, which mostly means that this machine's clock is wrong.
    #[error("{subject} starts on {from}, and it is now {now}")]
    NotYetValid {
        /// Whose certificate it is.
        subject: String,
        /// The start.
        from: String,
        /// This machine's time.
        now: String,
    },
}

impl Explain for AuthorityError {
    fn class(&self) -> Class {
        match self.flaw {
            AuthorityFlaw::Absent => Class::Failed,
            _ => Class::Verification,
        }
    }

    fn advice(&self) -> Option<String> {
        Some(match self.flaw {
            AuthorityFlaw::Absent | AuthorityFlaw::Garbage => {
                format!("put the cluster's CA certificate in PEM into {}, or set pki.ca", self.path)
            }
            AuthorityFlaw::HoldsKey => {
                "move the key into a file of its own with mode 0600, and leave the certificate alone there".to_owned()
            }
            AuthorityFlaw::NotAnAuthority { .. } => {
                "put the CA's own certificate there, not one that it signed".to_owned()
            }
            AuthorityFlaw::Expired { .. } => "make a new CA certificate, or set this machine's clock".to_owned(),
            AuthorityFlaw::NotYetValid { .. } => "set this machine's clock".to_owned(),
        })
    }
}

/// What is wrong with a CA leaves nothing to be said about whatever it signed.
impl From<AuthorityError> for CannotTell {
    fn from(error: AuthorityError) -> Self {
        Self { advice: error.advice(), class: error.class(), ..Self::new(&error.path, &error.flaw) }
    }
}

/// How the label of each kind of private key ends (RFC 7468).
const OF_KEYS: &[u8] = b"PRIVATE KEY-----";

/// The certificates of a CA file that may sign at a given time: at least one.
pub struct Authority {
    usable: Vec<X509>,
    pem: Vec<u8>,
}

impl Authority {
    /// Reads the bytes of the CA file at `path` (nothing if there is no file) as of `now`.
    pub fn read(path: &RootPath, pem: Option<&[u8]>, now: SystemTime) -> Result<Self, AuthorityError> {
        Self::judge(pem, now).map_err(|flaw| AuthorityError { path: path.clone(), flaw })
    }

    /// The CA file at `path` as it was seen on the node, where everybody may read it: the API server's clients, and every
    /// pod, whom the controller manager shows all of it.
    pub(super) fn seen(path: &RootPath, seen: &Seen) -> Result<Self, CannotTell> {
        let pem = seen.bytes(path)?;
        if pem.is_some_and(|pem| pem.windows(OF_KEYS.len()).any(|part| part == OF_KEYS)) {
            return Err(AuthorityError { path: path.clone(), flaw: AuthorityFlaw::HoldsKey }.into());
        }
        Ok(Self::read(path, pem, seen.now()?)?)
    }

    /// Expired certificates are passed over as long as another one holds.
    fn judge(pem: Option<&[u8]>, now: SystemTime) -> Result<Self, AuthorityFlaw> {
        let pem = pem.ok_or(AuthorityFlaw::Absent)?;
        let all = X509::stack_from_pem(pem).map_err(|_| AuthorityFlaw::Garbage)?;
        let mut usable = Vec::new();
        let mut first_flaw = AuthorityFlaw::Garbage;
        for (position, certificate) in all.into_iter().enumerate() {
            match flaw_of(&certificate, now) {
                None => usable.push(certificate),
                Some(flaw) if position == 0 => first_flaw = flaw,
                Some(_) => {}
            }
        }
        let blocks: Result<Vec<Vec<u8>>, _> = usable.iter().map(|certificate| certificate.to_pem()).collect();
        let pem = blocks.map_err(|_| AuthorityFlaw::Garbage)?.concat();
        if usable.is_empty() { Err(first_flaw) } else { Ok(Self { usable, pem }) }
    }

    /// The certificates alone, in PEM, without what else the file may hold.
    pub fn pem(&self) -> &[u8] {
        &self.pem
    }

    /// The one that signed `certificate`: its name is the issuer, byte for byte as Go compares it, and its key verifies
    /// the signature. The name alone does not tell: a CA and its successor may share it.
    pub fn issuer_of(&self, certificate: &X509Ref) -> Option<&X509Ref> {
        let issuer = certificate.issuer_name().to_der().ok()?;
        let signed = |ca: &&X509| {
            let verifies = || certificate.verify(&*ca.public_key()?);
            ca.subject_name().to_der().is_ok_and(|name| name == issuer) && verifies().unwrap_or(false)
        };
        self.usable.iter().find(signed).map(AsRef::as_ref)
    }

    /// Whether it is one of them.
    pub fn has(&self, certificate: &X509Ref) -> bool {
        let der = certificate.to_der().ok();
        self.usable.iter().any(|ca| der.is_some() && ca.to_der().ok() == der)
    }

    /// The one whose key this is.
    pub fn certificate_of(&self, key: &Key) -> Option<&X509Ref> {
        self.usable.iter().find(|ca| key.is_of(ca)).map(AsRef::as_ref)
    }

    /// Whose they are, for people.
    pub fn subjects(&self) -> String {
        let subjects: Vec<String> = self.usable.iter().map(|ca| name_text(ca.subject_name())).collect();
        subjects.join(" or ")
    }
}

/// The hash of a certificate's key, in the form of kubeadm's `--discovery-token-ca-cert-hash`.
pub(super) fn key_hash(certificate: &X509Ref) -> Result<String, ErrorStack> {
    hash_of(&*certificate.public_key()?)
}

/// The same of the key itself: SHA-256 of its subjectPublicKeyInfo in DER.
pub(super) fn hash_of(key: &PKeyRef<Public>) -> Result<String, ErrorStack> {
    Ok(format!("sha256:{}", Sha256::of(&key.public_key_to_der()?)))
}

/// Why a certificate cannot stand for a CA at that time; nothing if it can.
pub(super) fn flaw_of(certificate: &X509Ref, now: SystemTime) -> Option<AuthorityFlaw> {
    let subject = name_text(certificate.subject_name());
    if !says_ca(certificate) {
        return Some(AuthorityFlaw::NotAnAuthority { subject });
    }
    let Ok(at) = Asn1Time::from_unix(unix(now)) else { return Some(AuthorityFlaw::Garbage) };
    if certificate.not_before() > at {
        let from = certificate.not_before().to_string();
        return Some(AuthorityFlaw::NotYetValid { subject, from, now: at.to_string() });
    }
    if certificate.not_after() < at {
        let until = certificate.not_after().to_string();
        return Some(AuthorityFlaw::Expired { subject, until, now: at.to_string() });
    }
    None
}

/// Seconds since the epoch; the epoch itself for a clock before it.
pub(super) fn unix(time: SystemTime) -> i64 {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

/// Seconds from `a` to `b`.
pub(super) fn seconds_between(a: &Asn1TimeRef, b: &Asn1TimeRef) -> Result<i64, ErrorStack> {
    const DAY: i64 = 86_400;
    a.diff(b).map(|span| i64::from(span.days) * DAY + i64::from(span.secs))
}

/// A name as people write it: `O=system:nodes, CN=system:node:worker-01`.
pub(super) fn name_text(name: &X509NameRef) -> String {
    let part = |entry: &X509NameEntryRef| {
        let kind = entry.object().nid().short_name().unwrap_or("?");
        let value = quote(&entry_text(entry));
        format!("{kind}={value}")
    };
    let parts: Vec<String> = name.entries().map(part).collect();
    if parts.is_empty() { "an empty name".to_owned() } else { parts.join(", ") }
}

/// The value of one part of a name; a mark that no name of ours contains for one that is no text.
pub(super) fn entry_text(entry: &X509NameEntryRef) -> String {
    entry.data().to_string().unwrap_or_else(|_| "\u{fffd}".to_owned())
}

/// Whether the basic constraints say CA:TRUE (RFC 5280, 4.2.1.9).
///
/// The openssl crate shows no extension but those that it knows, and OpenSSL itself lets a certificate without basic
/// constraints pass as a CA where Go, and so all of Kubernetes, does not. Hence a walk over the DER that OpenSSL has
/// already accepted: certificate, its signed part, `[3]`, extensions, one extension, its value's octets, constraints.
fn says_ca(certificate: &X509Ref) -> bool {
    const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
    let Ok(der) = certificate.to_der() else { return false };
    let extensions = inside(&der, SEQUENCE)
        .and_then(|certificate| inside(certificate, SEQUENCE))
        .and_then(|tbs| elements(tbs).find(|(tag, _)| *tag == EXPLICIT_3))
        .and_then(|(_, tagged)| inside(tagged, SEQUENCE));
    let constraints = elements(extensions.unwrap_or_default())
        .filter(|(_, extension)| inside(extension, OBJECT_IDENTIFIER) == Some(BASIC_CONSTRAINTS))
        .find_map(|(_, extension)| elements(extension).find(|(tag, _)| *tag == OCTET_STRING))
        .and_then(|(_, value)| inside(value, SEQUENCE));
    // DER has one form of TRUE, and CA comes before the path length.
    inside(constraints.unwrap_or_default(), BOOLEAN) == Some(&[0xff])
}

const BOOLEAN: u8 = 0x01;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const EXPLICIT_3: u8 = 0xa3;

/// The content of the first DER element, if it has this tag.
fn inside(der: &[u8], tag: u8) -> Option<&[u8]> {
    elements(der).next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
}

/// Tag and content of each DER element in a row.
pub(super) fn elements(mut der: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&tag, rest) = der.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = if first < 0x80 {
            (usize::from(first), rest)
        } else {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().try_fold(0_usize, |sum, byte| Some(sum.checked_mul(256)? + usize::from(*byte)))?, rest)
        };
        let (content, rest) = rest.split_at_checked(length)?;
        der = rest;
        Some((tag, content))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::testing::{Ca, CaKind, DAY, now};

    fn judge(pem: &[u8]) -> Result<(), AuthorityFlaw> {
        Authority::judge(Some(pem), now()).map(drop)
    }

    #[test]
    fn a_ca_must_say_so_and_be_valid_now() {
        for kind in [CaKind::Rsa, CaKind::Ec] {
            let subject = "CN=test-ca".to_owned();
            let at = |offset| Asn1Time::from_unix(unix(now()) + offset).expect("a time").to_string();
            let good = Ca::new(kind, true, -DAY, 10 * DAY).pem();
            let leaf = Ca::new(kind, false, -DAY, 10 * DAY).pem();
            let expired = Ca::new(kind, true, -2 * DAY, -DAY).pem();
            let future = Ca::new(kind, true, DAY, 2 * DAY).pem();
            assert_eq!(judge(&good), Ok(()), "{kind:?}");
            assert_eq!(judge(&leaf), Err(AuthorityFlaw::NotAnAuthority { subject: subject.clone() }), "{kind:?}");
            let flaw = AuthorityFlaw::Expired { subject: subject.clone(), until: at(-DAY), now: at(0) };
            assert_eq!(judge(&expired), Err(flaw), "{kind:?}");
            let flaw = AuthorityFlaw::NotYetValid { subject, from: at(DAY), now: at(0) };
            assert_eq!(judge(&future), Err(flaw), "{kind:?}");
            assert_eq!(judge(&[expired, good].concat()), Ok(()), "{kind:?}: the second one holds");
        }
    }

    #[test]
    fn what_is_no_certificate_is_named() {
        assert_eq!(Authority::judge(None, now()).map(drop), Err(AuthorityFlaw::Absent));
        let torn = Ca::new(CaKind::Ec, true, -DAY, DAY).pem();
        let table: [(&str, &[u8]); 3] =
            [("empty", b""), ("text", b"not a certificate"), ("torn", &torn[..torn.len() / 2])];
        for (name, pem) in table {
            assert_eq!(judge(pem), Err(AuthorityFlaw::Garbage), "{name}");
        }
    }

    #[test]
    fn only_certificates_leave_the_file() {
        let ca = Ca::new(CaKind::Ec, true, -DAY, DAY);
        let with_key = [ca.key_pem(), ca.pem()].concat();
        let authority = Authority::judge(Some(&with_key), now()).expect("a CA");
        assert_eq!(authority.pem(), ca.pem());
    }

    #[test]
    fn a_certificate_of_the_first_version_is_no_ca() {
        // OpenSSL would take it: `openssl req -x509` made such CAs for years.
        let flaw = AuthorityFlaw::NotAnAuthority { subject: "CN=test-ca".into() };
        assert_eq!(judge(&Ca::first_version().pem()), Err(flaw));
    }

    #[test]
    fn der_that_ends_early_is_no_element() {
        for der in [
            &[][..],
            &[0x30],
            &[0x30, 2, 1],
            &[0x30, 0x82, 1],
            &[0x30, 0x89, 255, 255, 255, 255, 255, 255, 255, 255, 255],
        ] {
            assert_eq!(elements(der).count(), 0, "{der:?}");
        }
    }
}
