//! A private key made and used by OpenSSL, in the form that rcgen signs with.

use std::fmt;

use openssl::ec::{EcGroup, EcKey, PointConversionForm};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{HasPublic, Id, PKey, PKeyRef, Private, Public};
use openssl::rsa::Rsa;
use openssl::sign::Signer;
use openssl::x509::{X509Builder, X509Ref};
use rcgen::{PublicKeyData, SignatureAlgorithm, SigningKey};
use zeroize::Zeroizing;

use crate::config::settings::KeyKind;
use crate::engine::fault::Explain;

/// A key could not be made or read. Never holds a byte of it.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is no key in the text.
    #[error("it holds no readable private key")]
    Absent,
    /// It wants a passphrase, and nobody is there to type one.
    #[error("read a private key that is encrypted with a passphrase")]
    Encrypted,
    /// A kind of key that is not used here.
    #[error("use a private key of the kind {0}")]
    Kind(String),
    /// OpenSSL could not.
    #[error("make or encode a private key")]
    Crypto(#[from] ErrorStack),
}

impl Explain for KeyError {
    fn advice(&self) -> Option<String> {
        match self {
            Self::Encrypted => Some("remove the passphrase: openssl pkey -in KEY -out KEY.plain".into()),
            Self::Kind(_) => Some("use ECDSA P-256 or P-384, RSA or Ed25519".into()),
            Self::Absent => Some("put a private key in PEM there: PKCS#8, PKCS#1 or SEC1, without a passphrase".into()),
            Self::Crypto(_) => None,
        }
    }
}

/// A private key. OpenSSL clears its memory when it goes.
pub struct Key {
    secret: PKey<Private>,
    /// The content of the subjectPublicKey bit string, which rcgen borrows.
    public: Vec<u8>,
    algorithm: &'static SignatureAlgorithm,
}

impl Key {
    /// A new key. ECDSA takes a fraction of a millisecond, RSA with 4096 bits up to a second.
    pub fn generate(kind: KeyKind) -> Result<Self, KeyError> {
        let rsa = |bits| Rsa::generate(bits).and_then(PKey::from_rsa);
        Self::new(match kind {
            KeyKind::EcdsaP256 => {
                let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
                PKey::from_ec_key(EcKey::generate(&group)?)?
            }
            KeyKind::Rsa2048 => rsa(2048)?,
            KeyKind::Rsa4096 => rsa(4096)?,
        })
    }

    /// What it is, in the words of `pki.key` where it is one of those.
    pub fn describe(&self) -> String {
        Self::describe_public(&self.secret)
    }

    /// The same of a public half.
    pub fn describe_public<T: HasPublic>(key: &PKeyRef<T>) -> String {
        match (key.id(), curve(key).ok().flatten()) {
            (Id::EC, Some(Nid::X9_62_PRIME256V1)) => KeyKind::EcdsaP256.to_string(),
            (Id::RSA, _) => format!("rsa-{}", key.bits()),
            (kind, curve) => kind_name(kind, curve),
        }
    }

    /// The first key in `pem`: PKCS#8, SEC1 or PKCS#1. Blocks of other kinds may surround it.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        // Without a callback OpenSSL asks for a passphrase on the terminal.
        let mut asked = false;
        let read = PKey::private_key_from_pem_callback(pem, |_| {
            asked = true;
            Ok(0)
        });
        if asked {
            return Err(KeyError::Encrypted);
        }
        // OpenSSL's reason names its decoders, and nothing that a person could look for.
        Self::new(read.map_err(|_: ErrorStack| KeyError::Absent)?)
    }

    /// The same in DER.
    pub(super) fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        Self::new(PKey::private_key_from_der(der)?)
    }

    fn new(secret: PKey<Private>) -> Result<Self, KeyError> {
        let algorithm = match (secret.id(), curve(&secret)?) {
            (Id::EC, Some(Nid::X9_62_PRIME256V1)) => &rcgen::PKCS_ECDSA_P256_SHA256,
            (Id::EC, Some(Nid::SECP384R1)) => &rcgen::PKCS_ECDSA_P384_SHA384,
            (Id::RSA, _) => &rcgen::PKCS_RSA_SHA256,
            (Id::ED25519, _) => &rcgen::PKCS_ED25519,
            (kind, curve) => return Err(KeyError::Kind(kind_name(kind, curve))),
        };
        let public = public_bits(&secret)?;
        Ok(Self { secret, public, algorithm })
    }

    /// The key as PKCS#8 in PEM.
    pub fn to_pem(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        Ok(Zeroizing::new(self.secret.private_key_to_pem_pkcs8()?))
    }

    /// Whether `public` is this key's public half.
    pub fn fits<T: HasPublic>(&self, public: &PKeyRef<T>) -> bool {
        self.secret.public_eq(public)
    }

    /// Whether this certificate is for it.
    pub fn is_of(&self, certificate: &X509Ref) -> bool {
        certificate.public_key().is_ok_and(|public| self.fits(&public))
    }

    /// The public half.
    pub fn public(&self) -> Result<PKey<Public>, ErrorStack> {
        PKey::public_key_from_der(&self.secret.public_key_to_der()?)
    }

    /// Signs a certificate that is otherwise complete.
    pub fn sign_certificate(&self, builder: &mut X509Builder) -> Result<(), ErrorStack> {
        builder.sign(&self.secret, self.digest().unwrap_or_else(MessageDigest::null))
    }

    fn digest(&self) -> Option<MessageDigest> {
        match (self.secret.id(), self.secret.bits()) {
            (Id::ED25519, _) => None,
            (Id::EC, 384) => Some(MessageDigest::sha384()),
            _ => Some(MessageDigest::sha256()),
        }
    }
}

/// The secret is never part of a message.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?}, {} bits)", self.secret.id(), self.secret.bits())
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

impl SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let sign = || {
            let mut signer = match self.digest() {
                Some(digest) => Signer::new(digest, &self.secret)?,
                None => Signer::new_without_digest(&self.secret)?,
            };
            signer.sign_oneshot_to_vec(message)
        };
        // rcgen's error has no room for the cause.
        sign().map_err(|_: ErrorStack| rcgen::Error::RemoteKeyError)
    }
}

fn curve<T: HasPublic>(key: &PKeyRef<T>) -> Result<Option<Nid>, ErrorStack> {
    match key.id() {
        Id::EC => Ok(key.ec_key()?.group().curve_name()),
        _ => Ok(None),
    }
}

/// What stands inside the subjectPublicKey bit string (RFC 3279, RFC 5480, RFC 8410).
fn public_bits(key: &PKeyRef<Private>) -> Result<Vec<u8>, ErrorStack> {
    match key.id() {
        Id::EC => {
            let ec = key.ec_key()?;
            let mut numbers = openssl::bn::BigNumContext::new()?;
            ec.public_key().to_bytes(ec.group(), PointConversionForm::UNCOMPRESSED, &mut numbers)
        }
        Id::RSA => key.rsa()?.public_key_to_der_pkcs1(),
        _ => key.raw_public_key(),
    }
}

fn kind_name(kind: Id, curve: Option<Nid>) -> String {
    let curve = curve.and_then(|nid| nid.short_name().ok());
    match (kind, curve) {
        (Id::EC, Some(curve)) => format!("EC {curve}"),
        (Id::EC, None) => "EC with explicit parameters".into(),
        (Id::DSA, _) => "DSA".into(),
        (other, _) => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use openssl::symm::Cipher;

    use super::*;
    use crate::certs::testing::new_key;

    #[test]
    fn reads_every_form_and_writes_pkcs8() {
        let rsa = PKey::from_rsa(Rsa::generate(2048).expect("an RSA key")).expect("a key");
        let ec = new_key().secret;
        let ed = PKey::generate_ed25519().expect("an Ed25519 key");
        let table = [
            ("RSA PKCS#8", rsa.private_key_to_pem_pkcs8()),
            ("RSA PKCS#1", rsa.rsa().and_then(|key| key.private_key_to_pem())),
            ("EC PKCS#8", ec.private_key_to_pem_pkcs8()),
            ("EC SEC1", ec.ec_key().and_then(|key| key.private_key_to_pem())),
            ("Ed25519 PKCS#8", ed.private_key_to_pem_pkcs8()),
        ];
        for (name, pem) in table {
            let pem = pem.expect(name);
            let key = Key::from_pem(&pem).expect(name);
            let written = key.to_pem().expect(name);
            assert!(written.starts_with(b"-----BEGIN PRIVATE KEY-----"), "{name}");
            assert!(Key::from_pem(&written).expect(name).fits(&key.secret), "{name}");
            let signature = key.sign(b"message").expect(name);
            let mut verifier = match key.digest() {
                Some(digest) => openssl::sign::Verifier::new(digest, &key.secret),
                None => openssl::sign::Verifier::new_without_digest(&key.secret),
            }
            .expect(name);
            assert!(verifier.verify_oneshot(&signature, b"message").expect(name), "{name}");
        }
    }

    #[test]
    fn an_encrypted_key_is_an_error_and_never_a_prompt() {
        let key = new_key().secret;
        let pkcs8 = key.private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), b"secret");
        let sec1 = key.ec_key().and_then(|ec| ec.private_key_to_pem_passphrase(Cipher::aes_256_cbc(), b"secret"));
        for (form, pem) in [("PKCS#8", pkcs8), ("SEC1", sec1)] {
            let error = Key::from_pem(&pem.expect(form)).expect_err(form);
            assert!(matches!(error, KeyError::Encrypted), "{form}: {error:?}");
        }
    }

    #[test]
    fn refuses_what_is_no_usable_key() {
        let p521 = EcGroup::from_curve_name(Nid::SECP521R1).and_then(|group| EcKey::generate(&group));
        let p521 = p521.and_then(|key| key.private_key_to_pem()).expect("a P-521 key");
        assert!(matches!(Key::from_pem(b""), Err(KeyError::Absent)));
        assert!(matches!(Key::from_pem(b"-----BEGIN PRIVATE KEY-----\nAAAA\n"), Err(KeyError::Absent)));
        let error = Key::from_pem(&p521).expect_err("P-521 is not used");
        assert_eq!(error.to_string(), "use a private key of the kind EC secp521r1");
    }
}
