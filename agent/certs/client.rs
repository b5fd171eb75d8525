//! A pair of this node's, as whoever shows it to one of the cluster's servers.

use openssl::x509::X509;
use zeroize::Zeroizing;

use super::key::Key;
use crate::config::values::RootPath;
use crate::engine::fault::{Explain, Fault};
use crate::host::http::cluster::Login;
use crate::host::root::Root;

/// A certificate and its key.
#[derive(PartialEq, Eq)]
pub struct ClientPair {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

/// A file that is needed to speak to a server is missing, or is something else.
#[derive(Debug, thiserror::Error)]
#[error("use {path}: {why}")]
struct Unusable {
    path: String,
    why: String,
}

impl Explain for Unusable {
    fn advice(&self) -> Option<String> {
        Some("`nodeagent certs` makes what this node's role needs".to_owned())
    }
}

impl ClientPair {
    /// Reads the file of a pair.
    pub fn read(root: &Root, path: &RootPath) -> Result<Self, Fault> {
        let pair = Zeroizing::new(needed(root, path)?);
        let unusable = |why: &str| Unusable { path: root.display(path), why: why.to_owned() };
        let certificate = X509::from_pem(&pair).and_then(|certificate| certificate.to_pem());
        let certificate = certificate.map_err(|_| unusable("it holds no certificate"))?;
        let key = Key::from_pem(&pair).and_then(|key| key.to_pem());
        let key = key.map_err(|error| unusable(&error.to_string()))?;
        Ok(Self { certificate, key })
    }

    /// As whom a server is asked.
    pub fn login(&self) -> Login<'_> {
        Login::Pair { certificate: &self.certificate, key: &self.key }
    }
}

/// The bytes of a file that must be there.
pub fn needed(root: &Root, path: &RootPath) -> Result<Vec<u8>, Fault> {
    let absent = || Unusable { path: root.display(path), why: "there is no such file".to_owned() };
    Ok(root.read(path)?.ok_or_else(absent)?)
}
