//! The lab cluster's certificate authority. Its key lives on the signer's side only, never on a node.

use std::{fs, net::IpAddr, path::Path};

use anyhow::{Context, Result};
use openssl::{
    asn1::Asn1Time,
    bn::{BigNum, MsbOption},
    ec::{EcGroup, EcKey},
    hash::MessageDigest,
    nid::Nid,
    pkey::{PKey, Private},
    x509::{
        X509, X509Builder, X509Name,
        extension::{
            AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName,
            SubjectKeyIdentifier,
        },
    },
};

/// Long enough for any test, short enough that no left-over matters.
const DAYS: u32 = 7;

/// A certificate and its key.
pub struct Ca {
    certificate: X509,
    key: PKey<Private>,
}

impl Ca {
    /// Makes a new authority.
    pub fn new() -> Result<Self> {
        let key = new_key()?;
        let mut builder = builder("nodeagent lab CA", &key)?;
        let name = name("nodeagent lab CA")?;
        builder.set_issuer_name(&name)?;
        builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
        builder.append_extension(KeyUsage::new().critical().key_cert_sign().crl_sign().digital_signature().build()?)?;
        let own = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None))?;
        builder.append_extension(own)?;
        builder.sign(&key, MessageDigest::sha256()).context("sign the CA's certificate")?;
        Ok(Self { certificate: builder.build(), key })
    }

    /// The certificate, which everyone may have.
    pub fn pem(&self) -> Result<String> {
        Ok(String::from_utf8(self.certificate.to_pem()?)?)
    }

    /// Every form in which the private key could turn up where it does not belong.
    pub fn key_forms(&self) -> Result<Vec<Vec<u8>>> {
        let ec = self.key.ec_key()?;
        let secret = ec.private_key().to_vec_padded(32)?;
        // A PEM file's lines, because indentation (as in YAML) breaks up the whole; the first line of an EC key's
        // PKCS#8 form is the same for every key.
        let pem = String::from_utf8(self.key.private_key_to_pem_pkcs8()?)?;
        let sec1 = String::from_utf8(ec.private_key_to_pem()?)?;
        let telling = |text: &str| text.lines().skip(2).filter(|line| !line.starts_with('-')).map(Into::into).collect();
        let lines: [Vec<Vec<u8>>; 2] = [telling(&pem), telling(&sec1)];
        Ok(lines.into_iter().flatten().chain([secret]).collect())
    }

    /// Writes `NAME.pem` and `NAME-key.pem` of a server certificate for `address`.
    pub fn issue_server(&self, directory: &Path, file: &str, address: IpAddr) -> Result<()> {
        let key = new_key()?;
        let mut builder = builder(file, &key)?;
        builder.set_issuer_name(self.certificate.subject_name())?;
        builder.append_extension(BasicConstraints::new().critical().build()?)?;
        builder.append_extension(KeyUsage::new().critical().digital_signature().build()?)?;
        builder.append_extension(ExtendedKeyUsage::new().server_auth().build()?)?;
        let context = builder.x509v3_context(Some(&self.certificate), None);
        let extensions = [
            SubjectKeyIdentifier::new().build(&context)?,
            AuthorityKeyIdentifier::new().keyid(true).build(&context)?,
            SubjectAlternativeName::new().ip(&address.to_string()).build(&context)?,
        ];
        for extension in extensions {
            builder.append_extension(extension)?;
        }
        builder.sign(&self.key, MessageDigest::sha256()).context("sign a server certificate")?;
        write(directory, file, &builder.build(), &key)
    }

    /// Writes `NAME.pem` and `NAME-key.pem` of a certificate with which a client is an administrator of the cluster.
    pub fn issue_administrator(&self, directory: &Path, file: &str) -> Result<()> {
        let key = new_key()?;
        let mut builder = builder(file, &key)?;
        let mut subject = X509Name::builder()?;
        subject.append_entry_by_nid(Nid::ORGANIZATIONNAME, "system:masters")?;
        subject.append_entry_by_nid(Nid::COMMONNAME, file)?;
        builder.set_subject_name(&subject.build())?;
        builder.set_issuer_name(self.certificate.subject_name())?;
        builder.append_extension(BasicConstraints::new().critical().build()?)?;
        builder.append_extension(KeyUsage::new().critical().digital_signature().build()?)?;
        builder.append_extension(ExtendedKeyUsage::new().client_auth().build()?)?;
        builder.sign(&self.key, MessageDigest::sha256()).context("sign an administrator's certificate")?;
        write(directory, file, &builder.build(), &key)
    }

    /// Writes the authority itself as `ca.pem` and `ca-key.pem`, for the signer.
    pub fn write(&self, directory: &Path) -> Result<()> {
        write(directory, "ca", &self.certificate, &self.key)
    }
}

fn write(directory: &Path, file: &str, certificate: &X509, key: &PKey<Private>) -> Result<()> {
    let parts =
        [(format!("{file}.pem"), certificate.to_pem()?), (format!("{file}-key.pem"), key.private_key_to_pem_pkcs8()?)];
    for (name, pem) in parts {
        let path = directory.join(name);
        fs::write(&path, pem).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// A new key of the kind that all have here.
pub fn new_key() -> Result<PKey<Private>> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    Ok(PKey::from_ec_key(EcKey::generate(&group)?)?)
}

fn name(common_name: &str) -> Result<X509Name> {
    let mut name = X509Name::builder()?;
    name.append_entry_by_nid(Nid::COMMONNAME, common_name)?;
    Ok(name.build())
}

/// What all certificates of the lab have in common.
fn builder(subject: &str, key: &PKey<Private>) -> Result<X509Builder> {
    let mut serial = BigNum::new()?;
    serial.rand(127, MsbOption::MAYBE_ZERO, false)?;
    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    let serial = serial.to_asn1_integer()?;
    builder.set_serial_number(&serial)?;
    let subject = name(subject)?;
    builder.set_subject_name(&subject)?;
    builder.set_pubkey(key)?;
    let (from, until) = (Asn1Time::days_from_now(0)?, Asn1Time::days_from_now(DAYS)?);
    builder.set_not_before(&from)?;
    builder.set_not_after(&until)?;
    Ok(builder)
}
