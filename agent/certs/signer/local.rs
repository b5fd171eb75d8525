//! The signer `local`: the CA's own key is on this machine. Right on a controller; on a worker it is the old way.

use super::{Order, Signer, Signing};
use crate::certs::authority::Authority;
use crate::certs::issue::{IssueError, Issuer, LIFETIME};
use crate::certs::key::{Key, KeyError};
use crate::config::values::RootPath;
use crate::engine::fault::{Class, Explain};
use crate::engine::resource::{CannotTell, Seen, Thing};
use crate::host::peers::Peers;

/// The CA's key in a file.
pub struct Local {
    /// The file, in PEM: PKCS#8, PKCS#1 or SEC1.
    pub key: RootPath,
    /// Whether it goes once the certificates stand.
    pub remove_after_use: bool,
}

/// The CA's key on this machine cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// There is none.
    #[error("sign with the CA's key {path}: there is no such file")]
    Absent {
        /// Where it should be.
        path: RootPath,
        /// Whether an earlier run destroyed it, as it was asked to.
        removed: bool,
    },
    /// It could not be looked at.
    #[error(transparent)]
    CannotTell(#[from] CannotTell),
    /// It is no key.
    #[error("sign with the CA's key {path}")]
    Key {
        /// The file.
        path: RootPath,
        /// What is wrong with it.
        source: KeyError,
    },
    /// It is another CA's, or OpenSSL could not.
    #[error("sign with the CA's key {path}")]
    Issue {
        /// The file.
        path: RootPath,
        /// What is wrong.
        source: IssueError,
    },
}

impl Explain for LocalError {
    fn class(&self) -> Class {
        match self {
            Self::Issue { source, .. } => source.class(),
            Self::CannotTell(cannot) => cannot.class(),
            _ => Class::Failed,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Absent { removed: false, .. } => {
                Some("put the CA's private key there, or choose another pki.signer".to_owned())
            }
            Self::Absent { removed: true, .. } => Some(
                "pki.signer.local.removeAfterUse had it destroyed: put it back for as long as a renewal takes, or choose \
                 another pki.signer"
                    .to_owned(),
            ),
            Self::CannotTell(cannot) => cannot.advice(),
            Self::Key { source, .. } => source.advice(),
            Self::Issue { source: IssueError::OtherKey { .. }, .. } => {
                Some("pki.ca and pki.signer.local.key must be certificate and key of one CA".to_owned())
            }
            Self::Issue { source, .. } => source.advice(),
        }
    }
}

impl Local {
    fn issuer(&self, ca: &Authority, seen: &Seen) -> Result<Issuer, LocalError> {
        let path = || self.key.clone();
        let absent = || LocalError::Absent { path: path(), removed: self.remove_after_use };
        let pem = seen.bytes(&self.key)?.ok_or_else(absent)?;
        let key = Key::from_pem(pem).map_err(|source| LocalError::Key { path: path(), source })?;
        Issuer::new(ca, key).map_err(|source| LocalError::Issue { path: path(), source })
    }
}

impl Signer for Local {
    fn describe(&self) -> String {
        format!("the CA's key {} on this machine", self.key)
    }

    fn reads(&self) -> Vec<Thing> {
        vec![Thing::File(self.key.clone())]
    }

    fn advice(&self) -> String {
        "this is a mistake in nodeagent; please report it with the output of plan".to_owned()
    }

    fn sign<'a>(&'a self, order: Order<'a>, seen: &'a Seen, _peers: &'a Peers) -> Signing<'a> {
        Box::pin(async move {
            let issuer = self.issuer(order.ca, seen)?;
            let now = seen.now().map_err(LocalError::from)?;
            let signed = issuer.sign(order.request.as_bytes(), order.wanted, now, LIFETIME);
            Ok(signed.map_err(|source| LocalError::Issue { path: self.key.clone(), source })?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::testing::{Ca, CaKind, seen_file};

    #[test]
    fn a_key_that_cannot_sign_is_named_with_its_file() {
        let (ca, other) = (Ca::valid(CaKind::Ec), Ca::valid(CaKind::Rsa));
        let local = Local { key: RootPath::literal("/etc/kubernetes/pki/ca-key.pem"), remove_after_use: false };
        let try_with = |pem: Option<&[u8]>| local.issuer(&ca.authority(), &seen_file(&local.key, pem)).map(drop);
        assert!(try_with(Some(&ca.key_pem())).is_ok());
        let encrypted = ca.key.private_key_to_pem_pkcs8_passphrase(openssl::symm::Cipher::aes_128_cbc(), b"x");
        let table: [(Option<Vec<u8>>, &str, Class); 4] = [
            (None, "there is no such file", Class::Failed),
            (Some(b"garbage".to_vec()), "it holds no readable private key", Class::Failed),
            (Some(encrypted.expect("PEM")), "encrypted with a passphrase", Class::Failed),
            (Some(other.key_pem()), "the key is not that of CN=test-ca", Class::Verification),
        ];
        for (pem, why, class) in table {
            let fault = crate::engine::fault::Fault::from(try_with(pem.as_deref()).expect_err(why));
            let text = fault.to_string();
            assert!(text.starts_with("sign with the CA's key /etc/kubernetes/pki/ca-key.pem: "), "{text}");
            assert!(text.contains(why), "{text}");
            assert_eq!(fault.class, class, "{text}");
            assert!(fault.advice.is_some(), "{text}: no advice");
            assert!(!text.contains("error:"), "OpenSSL's own words: {text}");
        }
    }
}
