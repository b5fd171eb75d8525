//! What vouches for a file, and how it is checked: published checksums, and signatures in cosign's format.

use openssl::ec::EcKey;
use openssl::ecdsa::EcdsaSig;
use openssl::nid::Nid;

use crate::config::values::Sha256;
use crate::engine::fault::{Class, Explain, quote};
use crate::host::fetch::Digest;
use crate::host::http::{Http, HttpError};

/// The longest checksum file that is read, in bytes: one that lists all files of a release.
const LONGEST_CHECKSUMS: usize = 1 << 16;

/// The longest signature, in bytes: base64 of some 72.
pub const LONGEST_SIGNATURE: usize = 1 << 10;

/// Nothing vouches for a file.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The checksum cannot be had.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// A checksum that came over plain http is worth nothing.
    #[error("{url}: plain http: a published checksum is worth as much as the connection, so that only https will do")]
    NotHttps {
        /// Its URL.
        url: String,
    },
    /// There is no such checksum in the file.
    #[error("{url}: {why}")]
    BadChecksum {
        /// Its URL.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The signature is not the key's over these bytes.
    #[error("{what}: {why}")]
    BadSignature {
        /// What was to be verified.
        what: String,
        /// What is wrong.
        why: String,
    },
}

impl Explain for TrustError {
    fn class(&self) -> Class {
        match self {
            Self::Http(error) => error.class(),
            Self::NotHttps { .. } => Class::Failed,
            Self::BadChecksum { .. } | Self::BadSignature { .. } => Class::Verification,
        }
    }

    fn advice(&self) -> Option<String> {
        Some(match self {
            Self::Http(error) => return error.advice(),
            Self::NotHttps { .. } => "use https, or pin the digest (sha256, or a lock file)".to_owned(),
            Self::BadChecksum { .. } => "check the mirror, or pin the digest (sha256, or a lock file)".to_owned(),
            Self::BadSignature { .. } => {
                "nothing of it was used; sign it with `cosign sign-blob --key`, or correct kubernetes.lock.key"
                    .to_owned()
            }
        })
    }
}

/// The checksum that a server publishes beside a file, and where: `.sha512` where there is one, else `.sha256`.
pub async fn published(http: &Http, url: &str) -> Result<(Digest, String), TrustError> {
    let name = url.rsplit('/').next().unwrap_or(url);
    let mut last = None;
    let beside = ["sha512", "sha256", "sha256sum"].map(|suffix| format!("{url}.{suffix}"));
    // One for all files of a release, as etcd has it.
    let of_all = format!("{}SHA256SUMS", url.strip_suffix(name).unwrap_or(url));
    for beside in beside.into_iter().chain([of_all]) {
        if !beside.starts_with("https://") {
            return Err(TrustError::NotHttps { url: beside });
        }
        match http.read(&beside, LONGEST_CHECKSUMS).await {
            Ok(text) => {
                let digest =
                    checksum(&text, name).map_err(|why| TrustError::BadChecksum { url: beside.clone(), why })?;
                return Ok((digest, beside));
            }
            // Only what is not there lets a weaker one stand in: whoever can break a connection must not choose.
            Err(error @ HttpError::Status { status: 404, .. }) => last = last.or(Some(error)),
            Err(error) => return Err(error.into()),
        }
    }
    Err(last.map_or_else(|| TrustError::NotHttps { url: url.to_owned() }, TrustError::Http))
}

/// The checksum of the file `name` in a checksum file: a digest alone, or lines of `DIGEST  NAME` as sha256sum(1) writes
/// them.
pub fn checksum(text: &[u8], name: &str) -> Result<Digest, String> {
    let text = std::str::from_utf8(text).map_err(|_| "it is no text, hence no checksum".to_owned())?;
    let mut others = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (digest, of) = match line.split_once(char::is_whitespace) {
            None => (line, None),
            Some((digest, of)) => (digest, Some(of.trim_start().trim_start_matches('*'))),
        };
        let digest = digest_of(digest).ok_or_else(|| format!("{:?} is no checksum", quote(line)))?;
        match of {
            None if text.trim().lines().count() > 1 => return Err("it lists checksums without names".to_owned()),
            None => return Ok(digest),
            Some(of) if of.rsplit('/').next() == Some(name) => return Ok(digest),
            Some(of) => others.push(quote(of)),
        }
    }
    if others.is_empty() {
        return Err("it is empty".to_owned());
    }
    Err(format!("it is the checksum of {}, not of {name}", others[..others.len().min(3)].join(", ")))
}

fn digest_of(text: &str) -> Option<Digest> {
    match text.len() {
        64 => text.parse().ok().map(Digest::Sha256),
        128 => text.parse().ok().map(Digest::Sha512),
        _ => None,
    }
}

/// Whether `signature` (base64 of an ECDSA signature in DER, as `cosign sign-blob` prints it) is by the owner of `key` (a
/// P-256 public key in PEM, as `cosign generate-key-pair` writes it) over the SHA-256 of `blob`.
pub fn verify_signature(what: &str, key: &[u8], signature: &[u8], blob: &[u8]) -> Result<(), TrustError> {
    let bad = |why: &str| TrustError::BadSignature { what: what.to_owned(), why: why.to_owned() };
    let key = EcKey::public_key_from_pem(key).map_err(|_| bad("the key is no public key in PEM"))?;
    if key.group().curve_name() != Some(Nid::X9_62_PRIME256V1) {
        return Err(bad("the key is not of the curve P-256"));
    }
    let text = std::str::from_utf8(signature).map_err(|_| bad("the signature is not base64"))?;
    let der = openssl::base64::decode_block(text.trim()).map_err(|_| bad("the signature is not base64"))?;
    let signature = EcdsaSig::from_der(&der).map_err(|_| bad("the signature is not ECDSA's"))?;
    match signature.verify(&openssl::sha::sha256(blob), &key) {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(bad("the signature is not the key's over these bytes")),
    }
}

/// What vouches for an artifact, the strongest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Its digest, pinned in the configuration.
    Pinned(Sha256),
    /// The lock file.
    Lock(crate::config::settings::LockSettings),
    /// The checksum that its server publishes, and hence only the server's certificate.
    Published,
}

impl Trust {
    /// In a word, for the receipt.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pinned(_) => "pinned",
            Self::Lock(_) => "lock",
            Self::Published => "published",
        }
    }
}

impl std::fmt::Display for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use crate::config::settings::LockSettings;
        match self {
            Self::Pinned(sha256) => write!(f, "sha256 {} pinned", sha256.short()),
            Self::Lock(LockSettings::File(path)) => write!(f, "sha256 pinned by the lock file {path}"),
            Self::Lock(LockSettings::Pinned { url, sha256 }) => {
                write!(f, "sha256 pinned by {url}, itself pinned to {}", sha256.short())
            }
            Self::Lock(LockSettings::Signed { url, key, .. }) => {
                write!(f, "sha256 pinned by {url}, which {key} must have signed")
            }
            Self::Published => f.write_str("checksum published by its server: trusted as far as its certificate"),
        }
    }
}

#[cfg(test)]
mod tests {
    use openssl::ec::EcGroup;
    use openssl::pkey::PKey;

    use super::*;

    #[test]
    fn checksum_files() {
        let (a, b, long) = ("a".repeat(64), "b".repeat(64), "c".repeat(128));
        let good = Digest::Sha256(a.parse().expect("a digest"));
        for text in [
            a.clone(),
            format!("{a}\n"),
            format!("{}  kubelet\n", a.to_uppercase()),
            format!("{a} *kubelet"),
            format!("{b}  kubectl\n\n{a}  ./bin/kubelet\r\n"),
        ] {
            assert_eq!(checksum(text.as_bytes(), "kubelet"), Ok(good.clone()), "{text:?}");
        }
        assert!(matches!(checksum(long.as_bytes(), "kubelet"), Ok(Digest::Sha512(_))));
        for (text, wanted) in [
            (format!("{b}  kubectl\n"), "it is the checksum of kubectl, not of kubelet"),
            (format!("{a}\n{b}\n"), "it lists checksums without names"),
            ("<html>".to_owned(), "\"<html>\" is no checksum"),
            (a[1..].to_owned(), "is no checksum"),
            (" \n".to_owned(), "it is empty"),
        ] {
            let why = checksum(text.as_bytes(), "kubelet").expect_err(&text);
            assert!(why.contains(wanted), "{text:?}: {why}");
        }
        assert!(checksum(b"\xff", "kubelet").is_err());
    }

    #[test]
    fn signatures() {
        let pair = |curve| {
            let group = EcGroup::from_curve_name(curve).expect("a curve");
            let key = EcKey::generate(&group).expect("a key");
            let public = key.public_key_to_pem().expect("PEM");
            (key, public)
        };
        let sign = |key: &EcKey<openssl::pkey::Private>, blob: &[u8]| {
            let signature = EcdsaSig::sign(&openssl::sha::sha256(blob), key).expect("a signature");
            openssl::base64::encode_block(&signature.to_der().expect("DER"))
        };
        let (key, public) = pair(Nid::X9_62_PRIME256V1);
        let (other, other_public) = pair(Nid::X9_62_PRIME256V1);
        let (wide, wide_public) = pair(Nid::SECP384R1);
        let rsa = PKey::from_rsa(openssl::rsa::Rsa::generate(2048).expect("a key")).expect("a key");
        let good = sign(&key, b"lock");
        for text in [good.clone(), format!("{good}\n")] {
            assert!(verify_signature("it", &public, text.as_bytes(), b"lock").is_ok());
        }
        for (key, signature, blob, wanted) in [
            (&public, &good, &b"lock "[..], "not the key's over these bytes"),
            (&public, &sign(&other, b"lock"), b"lock", "not the key's over these bytes"),
            (&other_public, &good, b"lock", "not the key's over these bytes"),
            (&wide_public, &sign(&wide, b"lock"), b"lock", "not of the curve P-256"),
            (&rsa.public_key_to_pem().expect("PEM"), &good, b"lock", "no public key"),
            (&b"-----BEGIN".to_vec(), &good, b"lock", "no public key"),
            (&public, &"no base64!".to_owned(), b"lock", "not base64"),
            (&public, &"aGVsbG8=".to_owned(), b"lock", "not ECDSA's"),
            (&public, &String::new(), b"lock", "not ECDSA's"),
        ] {
            let error = verify_signature("it", key, signature.as_bytes(), blob).expect_err(wanted).to_string();
            assert!(error.starts_with("it: ") && error.contains(wanted), "{wanted}: {error}");
        }
    }
}
