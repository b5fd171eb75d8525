//! What a session works by: the configuration, and the pair that it shows to the API server.

use std::time::Duration;

use openssl::x509::X509;
use zeroize::Zeroizing;

use crate::certs::key::Key;
use crate::config::Settings;
use crate::config::values::{RootPath, Sha256};
use crate::engine::fault::{Explain, Fault};
use crate::host::http::cluster::Login;
use crate::host::root::Root;

/// How often it is looked whether any of it has changed.
pub const REREAD: Duration = Duration::from_secs(10);

/// The administrator's pair, in `pki.dir`.
const PAIR: &str = "admin-client.pem";

/// What was read.
pub struct Basis {
    /// The configuration.
    pub settings: Settings,
    /// The CA's certificate, in PEM.
    pub ca: Vec<u8>,
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

/// A file that it takes is missing, or is something else.
#[derive(Debug, thiserror::Error)]
#[error("use {path}: {why}")]
struct Unusable {
    path: String,
    why: String,
}

impl Explain for Unusable {
    fn advice(&self) -> Option<String> {
        Some("`nodeagent certs` makes it on a controller".to_owned())
    }
}

impl Basis {
    /// Reads the files that the configuration names.
    pub fn read(root: &Root, settings: Settings) -> Result<Self, Fault> {
        let bytes = |path: &RootPath| {
            let absent = || Unusable { path: root.display(path), why: "there is no such file".to_owned() };
            Ok::<_, Fault>(root.read(path)?.ok_or_else(absent)?)
        };
        let ca = bytes(&settings.certs.ca)?;
        let path = settings.certs.dir.join(PAIR);
        let pair = Zeroizing::new(bytes(&path)?);
        let unusable = |why: &str| Unusable { path: root.display(&path), why: why.to_owned() };
        let certificate = X509::from_pem(&pair).and_then(|certificate| certificate.to_pem());
        let certificate = certificate.map_err(|_| unusable("it holds no certificate"))?;
        let key = Key::from_pem(&pair).and_then(|key| key.to_pem());
        let key = key.map_err(|error| unusable(&error.to_string()))?;
        Ok(Self { settings, ca, certificate, key })
    }

    /// As whom the API server is asked.
    pub fn login(&self) -> Login<'_> {
        Login::Pair { certificate: &self.certificate, key: &self.key }
    }
}

/// Whether a session would be the same.
impl PartialEq for Basis {
    fn eq(&self, other: &Self) -> bool {
        self.settings.digest == other.settings.digest && self.ca == other.ca && self.certificate == other.certificate
    }
}

/// What no other process has: a controller may run this twice for a moment.
pub fn nonce() -> Result<String, Fault> {
    let mut bytes = [0; 32];
    let random = |source| Unusable { path: "the random number generator".to_owned(), why: format!("{source}") };
    openssl::rand::rand_bytes(&mut bytes).map_err(random)?;
    Ok(Sha256::from_raw(&bytes).short().to_owned())
}
