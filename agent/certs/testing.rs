//! A CA and certificates for tests, made by OpenSSL alone: what is tested must not vouch for itself.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openssl::asn1::{Asn1Integer, Asn1Object, Asn1OctetString, Asn1Time};
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509Extension, X509Name, X509NameRef, X509Req};

use super::authority::{Authority, unix};
use super::key::Key;
use super::request::{Usage, Wanted, request};
use crate::config::settings::KeyKind;
use crate::config::values::RootPath;
use crate::engine::change::Meta;
use crate::engine::resource::{Seen, Thing};
use crate::host::seen::{Entry, Sight, Stamp};

/// Seconds in a day.
pub const DAY: i64 = 86_400;

/// The tests' time: the same in every run (9 September 2026).
pub fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_hours(496_920)
}

/// The worker's client certificate.
pub fn client() -> Wanted {
    Wanted {
        common_name: "system:node:worker-01".into(),
        organization: Some("system:nodes".into()),
        dns: Vec::new(),
        ips: Vec::new(),
        usages: vec![Usage::Client],
        key: KeyKind::default(),
    }
}

/// The worker's serving certificate.
pub fn server() -> Wanted {
    Wanted {
        dns: vec!["worker-01".into()],
        ips: vec![IpAddr::from([10, 10, 30, 21])],
        usages: vec![Usage::Server],
        ..client()
    }
}

/// A new key of the default kind.
pub fn new_key() -> Key {
    Key::generate(KeyKind::default()).expect("a key")
}

/// What the CA's key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaKind {
    /// RSA 2048.
    Rsa,
    /// ECDSA P-256.
    Ec,
}

/// A CA with its key.
pub struct Ca {
    /// Its certificate.
    pub certificate: X509,
    /// Its key.
    pub key: PKey<Private>,
}

/// How a test's certificate differs from a good one.
pub struct Issue {
    /// Start and end, in seconds from [`now`].
    pub valid: (i64, i64),
    /// Whether the extended usages are written.
    pub extended: bool,
    /// Whether the key usage names digital signatures.
    pub signs: bool,
    /// Whether it has a critical extension that nobody knows.
    pub strange: bool,
}

impl Default for Issue {
    fn default() -> Self {
        Self { valid: (-DAY, 300 * DAY), extended: true, signs: true, strange: false }
    }
}

impl Ca {
    /// A CA named `test-ca`; `ca` decides whether it says that it is one.
    pub fn new(kind: CaKind, ca: bool, from: i64, until: i64) -> Self {
        let key = match kind {
            CaKind::Rsa => PKey::from_rsa(Rsa::generate(2048).expect("an RSA key")),
            CaKind::Ec => EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)
                .and_then(|group| EcKey::generate(&group))
                .and_then(PKey::from_ec_key),
        }
        .expect("a key");
        let name = name(&[("CN", "test-ca")]);
        let mut builder = builder(&name, &name, (from, until));
        builder.set_pubkey(&key).expect("a public key");
        let mut constraints = BasicConstraints::new();
        constraints.critical();
        if ca {
            constraints.ca().pathlen(0);
        }
        builder.append_extension(constraints.build().expect("constraints")).expect("added");
        builder.sign(&key, MessageDigest::sha256()).expect("signed");
        Self { certificate: builder.build(), key }
    }

    /// A CA that this one signed.
    pub fn intermediate(&self) -> Self {
        let Self { key, .. } = Self::valid(CaKind::Ec);
        let name = name(&[("CN", "test-intermediate")]);
        let mut builder = builder(&name, self.certificate.subject_name(), (-DAY, 3000 * DAY));
        builder.set_pubkey(&key).expect("a public key");
        let constraints = BasicConstraints::new().critical().ca().pathlen(0).build().expect("constraints");
        builder.append_extension(constraints).expect("added");
        builder.sign(&self.key, MessageDigest::sha256()).expect("signed");
        Self { certificate: builder.build(), key }
    }

    /// A self-signed certificate without extensions, as a CA of X.509 version 1 is.
    pub fn first_version() -> Self {
        let Self { key, .. } = Self::valid(CaKind::Ec);
        let name = name(&[("CN", "test-ca")]);
        let mut builder = builder(&name, &name, (-DAY, DAY));
        builder.set_version(0).expect("v1");
        builder.set_pubkey(&key).expect("a public key");
        builder.sign(&key, MessageDigest::sha256()).expect("signed");
        Self { certificate: builder.build(), key }
    }

    /// A CA that is valid around [`now`].
    pub fn valid(kind: CaKind) -> Self {
        Self::new(kind, true, -DAY, 3000 * DAY)
    }

    /// Its certificate in PEM.
    pub fn pem(&self) -> Vec<u8> {
        self.certificate.to_pem().expect("PEM")
    }

    /// Its key in PEM.
    pub fn key_pem(&self) -> Vec<u8> {
        self.key.private_key_to_pem_pkcs8().expect("PEM")
    }

    /// It as the cluster's CA.
    pub fn authority(&self) -> Authority {
        Authority::read(&RootPath::literal("/etc/kubernetes/pki/ca.pem"), Some(&self.pem()), now()).expect("a good CA")
    }

    /// A certificate for `key` as `wanted`, by way of the request that this program makes.
    pub fn issue(&self, wanted: &Wanted, key: &Key, how: &Issue) -> Vec<u8> {
        let csr = request(wanted, key).expect("a request");
        let csr = X509Req::from_pem(csr.as_bytes()).expect("OpenSSL reads it");
        let mut builder = builder(csr.subject_name(), self.certificate.subject_name(), how.valid);
        builder.set_pubkey(&csr.public_key().expect("a public key")).expect("set");
        let mut names = SubjectAlternativeName::new();
        for dns in &wanted.dns {
            names.dns(dns);
        }
        for ip in &wanted.ips {
            names.ip(&ip.to_string());
        }
        if !wanted.names().is_empty() {
            let context = builder.x509v3_context(Some(&self.certificate), None);
            let names = names.build(&context).expect("names");
            builder.append_extension(names).expect("added");
        }
        let mut usage = KeyUsage::new();
        usage.critical().key_encipherment();
        if how.signs {
            usage.digital_signature();
        }
        builder.append_extension(usage.build().expect("usage")).expect("added");
        if how.extended {
            let mut extended = ExtendedKeyUsage::new();
            for usage in &wanted.usages {
                match usage {
                    Usage::Client => extended.client_auth(),
                    Usage::Server => extended.server_auth(),
                };
            }
            builder.append_extension(extended.build().expect("usages")).expect("added");
        }
        if how.strange {
            let oid = Asn1Object::from_str("1.3.6.1.4.1.99999.1").expect("an OID");
            let value = Asn1OctetString::new_from_bytes(&[5, 0]).expect("octets");
            let strange = X509Extension::new_from_der(&oid, true, &value).expect("an extension");
            builder.append_extension(strange).expect("added");
        }
        builder.sign(&self.key, MessageDigest::sha256()).expect("signed");
        builder.build().to_pem().expect("PEM")
    }
}

fn name(parts: &[(&str, &str)]) -> X509Name {
    let mut name = X509Name::builder().expect("a name");
    for (key, value) in parts {
        name.append_entry_by_text(key, value).expect("an entry");
    }
    name.build()
}

fn builder(subject: &X509NameRef, issuer: &X509NameRef, valid: (i64, i64)) -> X509Builder {
    let at = |offset| Asn1Time::from_unix(unix(now()) + offset).expect("a time");
    let mut serial = BigNum::new().expect("a number");
    serial.rand(120, openssl::bn::MsbOption::MAYBE_ZERO, false).expect("random");
    let mut builder = X509Builder::new().expect("a builder");
    builder.set_version(2).expect("v3");
    builder.set_serial_number(&Asn1Integer::from_bn(&serial).expect("a serial")).expect("set");
    builder.set_subject_name(subject).expect("set");
    builder.set_issuer_name(issuer).expect("set");
    builder.set_not_before(&at(valid.0)).expect("set");
    builder.set_not_after(&at(valid.1)).expect("set");
    builder
}

/// A machine on which only this file was seen, and the time.
pub fn seen_file(path: &RootPath, bytes: Option<&[u8]>) -> Seen {
    seen_files(&[(path, bytes.map(|bytes| (bytes, Meta::SECRET)))])
}

/// What a file holds, and whose it is.
pub type Content<'a> = (&'a [u8], Meta);

/// A machine on which only these files were seen, and the time.
pub fn seen_files(files: &[(&RootPath, Option<Content<'_>>)]) -> Seen {
    let entry = |file: &Option<Content<'_>>| match file {
        None => Entry::Absent,
        Some((bytes, meta)) => Entry::File {
            meta: *meta,
            stamp: Stamp { size: bytes.len() as u64, inode: 1, mtime_ns: 0, ctime_ns: 0 },
            bytes: Some((*bytes).into()),
        },
    };
    let sights = files.iter().map(|(path, file)| (Thing::File((*path).clone()), Ok(Sight::Entry(entry(file)))));
    Seen(sights.chain([(Thing::Clock, Ok(Sight::Clock(now())))]).collect())
}
