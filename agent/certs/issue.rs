//! Certificates that are signed here, by a CA whose key is on this machine, and such a CA itself.
//!
//! They are put together by OpenSSL: the issuer's name must be the CA's byte for byte, as Go compares them, whatever that
//! name is made of.

use std::time::SystemTime;

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::error::ErrorStack;
use openssl::pkey::{Id, PKey, Public};
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName, SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Builder, X509Name, X509NameRef, X509Req};

use super::authority::{Authority, unix};
use super::key::Key;
use super::request::{self, Usage, Wanted};
use crate::engine::fault::{Class, Explain};

/// How many days a certificate lives: kubeadm's `certificateValidityPeriod`, a year (kubeadm config v1beta4).
pub const LIFETIME: u32 = 365;

/// Seconds in a day.
const DAY: i64 = 86_400;

/// How far the clocks of those who check it may be behind ours, in seconds.
const SKEW: i64 = 300;

/// Bits of a serial number: random as RFC 5280 and the CA/Browser Forum want it, and positive in 20 bytes.
const SERIAL_BITS: i32 = 127;

/// The most characters in a common name (RFC 5280, `ub-common-name`), which OpenSSL enforces.
const MAX_COMMON_NAME: usize = 64;

/// A certificate could not be signed here.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The key is not that of the CA's certificate.
    #[error("the key is not that of {ca}")]
    OtherKey {
        /// The CA's subject.
        ca: String,
    },
    /// A subject can say no more.
    #[error("CN={common_name} has {} characters, and X.509 takes {MAX_COMMON_NAME}", common_name.chars().count())]
    LongName {
        /// What it was to say.
        common_name: String,
    },
    /// The request is not what it says it is.
    #[error("the certificate request is not signed by its own key")]
    BadRequest,
    /// OpenSSL could not.
    #[error("sign a certificate")]
    Crypto(#[from] ErrorStack),
}

impl Explain for IssueError {
    fn class(&self) -> Class {
        match self {
            Self::OtherKey { .. } | Self::BadRequest => Class::Verification,
            Self::LongName { .. } | Self::Crypto(_) => Class::Failed,
        }
    }

    fn advice(&self) -> Option<String> {
        matches!(self, Self::LongName { .. }).then(|| {
            let most = MAX_COMMON_NAME - request::NODE_USER.len();
            format!("give the machine a shorter name: a kubelet's may have {most} characters")
        })
    }
}

/// A CA that can sign: its certificate and its key.
pub struct Issuer {
    certificate: X509,
    key: Key,
}

impl Issuer {
    /// The certificate among those of `ca` that is for `key`.
    pub fn new(ca: &Authority, key: Key) -> Result<Self, IssueError> {
        match ca.certificate_of(&key) {
            Some(certificate) => Ok(Self { certificate: certificate.to_owned(), key }),
            None => Err(IssueError::OtherKey { ca: ca.subjects() }),
        }
    }

    /// A certificate in PEM for the key of `request` (PKCS#10, PEM) that says what is `wanted`, from now on for so many
    /// days, or as long as the CA itself lives.
    ///
    /// Name and alternative names are those of `wanted`, whatever the request says.
    pub fn sign(&self, request: &[u8], wanted: &Wanted, now: SystemTime, days: u32) -> Result<Vec<u8>, IssueError> {
        let request = X509Req::from_pem(request)?;
        let public = request.public_key()?;
        if !request.verify(&public)? {
            return Err(IssueError::BadRequest);
        }
        let subject = name(wanted.organization.as_deref(), &wanted.common_name)?;
        let mut builder = builder(&subject)?;
        builder.set_issuer_name(self.certificate.subject_name())?;
        builder.set_pubkey(&public)?;
        self.set_validity(&mut builder, unix(now), days)?;
        self.add_extensions(&mut builder, wanted, &public)?;
        self.key.sign_certificate(&mut builder)?;
        Ok(builder.build().to_pem()?)
    }

    /// Not before the CA's own start and not beyond its end: Go refuses nothing of the kind, but whoever reads a
    /// certificate takes its end for the day until which it works.
    fn set_validity(&self, builder: &mut X509Builder, now: i64, days: u32) -> Result<(), ErrorStack> {
        let (from, until) = (Asn1Time::from_unix(now - SKEW)?, Asn1Time::from_unix(now + i64::from(days) * DAY)?);
        let (first, last) = (self.certificate.not_before(), self.certificate.not_after());
        builder.set_not_before(if first > from { first } else { &from })?;
        builder.set_not_after(if last < until { last } else { &until })
    }

    fn add_extensions(
        &self,
        builder: &mut X509Builder,
        wanted: &Wanted,
        public: &PKey<Public>,
    ) -> Result<(), ErrorStack> {
        let mut usage = KeyUsage::new();
        usage.critical().digital_signature();
        // Only TLS 1.2 with RSA key exchange encrypts with the certificate's key.
        if public.id() == Id::RSA {
            usage.key_encipherment();
        }
        let mut extended = ExtendedKeyUsage::new();
        for usage in &wanted.usages {
            match usage {
                Usage::Client => extended.client_auth(),
                Usage::Server => extended.server_auth(),
            };
        }
        let mut names = SubjectAlternativeName::new();
        for dns in &wanted.dns {
            names.dns(dns);
        }
        for ip in &wanted.ips {
            names.ip(&ip.to_string());
        }
        let context = builder.x509v3_context(Some(&self.certificate), None);
        let mut extensions = vec![
            BasicConstraints::new().critical().build()?,
            usage.build()?,
            extended.build()?,
            SubjectKeyIdentifier::new().build(&context)?,
        ];
        if self.certificate.subject_key_id().is_some() {
            extensions.push(AuthorityKeyIdentifier::new().keyid(true).build(&context)?);
        }
        if !wanted.names().is_empty() {
            extensions.push(names.build(&context)?);
        }
        extensions.into_iter().try_for_each(|extension| builder.append_extension(extension))
    }
}

/// A CA's own certificate in PEM, signed by its `key`: it may sign certificates but no other CA, from now on for so many
/// days.
pub fn self_signed(common_name: &str, key: &Key, now: SystemTime, days: u32) -> Result<Vec<u8>, IssueError> {
    let subject = name(None, common_name)?;
    let mut builder = builder(&subject)?;
    builder.set_issuer_name(&subject)?;
    let public = key.public()?;
    builder.set_pubkey(&public)?;
    let now = unix(now);
    builder.set_not_before(Asn1Time::from_unix(now - SKEW)?.as_ref())?;
    builder.set_not_after(Asn1Time::from_unix(now + i64::from(days) * DAY)?.as_ref())?;
    let context = builder.x509v3_context(None, None);
    let extensions = [
        BasicConstraints::new().critical().ca().pathlen(0).build()?,
        KeyUsage::new().critical().key_cert_sign().crl_sign().digital_signature().build()?,
        SubjectKeyIdentifier::new().build(&context)?,
    ];
    extensions.into_iter().try_for_each(|extension| builder.append_extension(extension))?;
    key.sign_certificate(&mut builder)?;
    Ok(builder.build().to_pem()?)
}

/// What every certificate begins with: version 3, a random serial, and whose it is.
fn builder(subject: &X509NameRef) -> Result<X509Builder, ErrorStack> {
    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    let mut serial = BigNum::new()?;
    serial.rand(SERIAL_BITS, MsbOption::ONE, false)?;
    let serial = serial.to_asn1_integer()?;
    builder.set_serial_number(&serial)?;
    builder.set_subject_name(subject)?;
    Ok(builder)
}

fn name(organization: Option<&str>, common_name: &str) -> Result<X509Name, IssueError> {
    let mut name = X509Name::builder()?;
    if let Some(organization) = organization {
        name.append_entry_by_text("O", organization)?;
    }
    if common_name.chars().count() > MAX_COMMON_NAME {
        return Err(IssueError::LongName { common_name: common_name.to_owned() });
    }
    name.append_entry_by_text("CN", common_name)?;
    Ok(name.build())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::check::check;
    use crate::certs::request::request;
    use crate::certs::testing::{Ca, CaKind, DAY, client, new_key, now, server};

    #[test]
    fn what_is_signed_here_passes_the_same_judgement_as_a_signers_answer() {
        for kind in [CaKind::Rsa, CaKind::Ec] {
            let ca = Ca::valid(kind);
            let authority = ca.authority();
            let issuer = Issuer::new(&authority, Key::from_pem(&ca.key_pem()).expect("a key")).expect("its own key");
            for wanted in [client(), server()] {
                let key = new_key();
                let request = request(&wanted, &key).expect("a request");
                let certificate = issuer.sign(request.as_bytes(), &wanted, now(), LIFETIME).expect("signed");
                let pair = [certificate, key.to_pem().expect("PEM").to_vec()].concat();
                assert_eq!(check(Some(&pair), &wanted, &authority, now()), [], "{kind:?} {wanted:?}");
            }
        }
    }

    #[test]
    fn a_name_is_as_long_as_a_subject_takes() {
        let ca = Ca::valid(CaKind::Ec);
        let issuer = Issuer::new(&ca.authority(), Key::from_pem(&ca.key_pem()).expect("a key")).expect("its own key");
        let sign = |length: usize| {
            let common_name = format!("{}{}", request::NODE_USER, "n".repeat(length));
            let wanted = Wanted { common_name, ..client() };
            let asked = request::request(&wanted, &new_key()).expect("a request");
            issuer.sign(asked.as_bytes(), &wanted, now(), LIFETIME)
        };
        assert!(sign(52).is_ok());
        let error = sign(53).expect_err("too long");
        assert!(error.to_string().contains("has 65 characters, and X.509 takes 64"), "{error}");
        assert!(error.advice().is_some_and(|advice| advice.contains("may have 52 characters")));
    }

    #[test]
    fn nothing_outlives_its_ca() {
        let ca = Ca::new(CaKind::Ec, true, -DAY, 30 * DAY);
        let issuer = Issuer::new(&ca.authority(), Key::from_pem(&ca.key_pem()).expect("a key")).expect("its own key");
        let request = request(&client(), &new_key()).expect("a request");
        let certificate = issuer.sign(request.as_bytes(), &client(), now(), LIFETIME).expect("signed");
        let certificate = X509::from_pem(&certificate).expect("a certificate");
        assert_eq!(certificate.not_after(), ca.certificate.not_after());
    }

    #[test]
    fn another_key_and_a_forged_request_are_refused() {
        let (ca, other) = (Ca::valid(CaKind::Ec), Ca::valid(CaKind::Ec));
        let error = Issuer::new(&ca.authority(), Key::from_pem(&other.key_pem()).expect("a key")).map(drop);
        assert_eq!(error.expect_err("another key").to_string(), "the key is not that of CN=test-ca");

        let issuer = Issuer::new(&ca.authority(), Key::from_pem(&ca.key_pem()).expect("a key")).expect("its own key");
        let request = request(&server(), &new_key()).expect("a request");
        let der = X509Req::from_pem(request.as_bytes()).and_then(|request| request.to_der()).expect("DER");
        // The signature stands last.
        let mut forged = der.clone();
        *forged.last_mut().expect("bytes") ^= 1;
        let forged = X509Req::from_der(&forged).and_then(|request| request.to_pem()).expect("PEM");
        let error = issuer.sign(&forged, &server(), now(), LIFETIME).expect_err("forged");
        assert!(matches!(error, IssueError::BadRequest), "{error:?}");
    }
}
