//! What a session works by: the configuration, and the pair that it shows to the API server.

use std::time::Duration;

use openssl::error::ErrorStack;

use crate::certs::authority::Authority;
use crate::certs::client::{self, ClientPair};
use crate::certs::{ADMIN_CLIENT, pair_path};
use crate::config::Settings;
use crate::config::values::Sha256;
use crate::engine::fault::{Explain, Fault};
use crate::host::clock;
use crate::host::http::cluster::Login;
use crate::host::root::Root;

/// How often it is looked whether any of it has changed.
pub const REREAD: Duration = Duration::from_secs(10);

/// What was read.
pub struct Basis {
    /// The configuration.
    pub settings: Settings,
    /// The CA's certificates, in PEM, and nothing else: anybody may read them in `cluster-info`.
    pub ca: Vec<u8>,
    pair: ClientPair,
}

/// There is no randomness.
#[derive(Debug, thiserror::Error)]
#[error("use the random number generator: {0}")]
struct NoRandomness(#[from] ErrorStack);

impl Explain for NoRandomness {}

impl Basis {
    /// Reads the files that the configuration names.
    pub fn read(root: &Root, settings: Settings) -> Result<Self, Fault> {
        let ca = client::needed(root, &settings.certs.ca)?;
        let ca = Authority::read(&settings.certs.ca, Some(&ca), clock::now())?.pem().to_vec();
        let pair = ClientPair::read(root, &pair_path(&settings, ADMIN_CLIENT))?;
        Ok(Self { settings, ca, pair })
    }

    /// As whom the API server is asked.
    pub fn login(&self) -> Login<'_> {
        self.pair.login()
    }
}

/// Whether a session would be the same.
impl PartialEq for Basis {
    fn eq(&self, other: &Self) -> bool {
        self.settings.digest == other.settings.digest && self.ca == other.ca && self.pair == other.pair
    }
}

/// What no other process has: a controller may run this twice for a moment.
pub fn nonce() -> Result<String, Fault> {
    let mut bytes = [0; 32];
    openssl::rand::rand_bytes(&mut bytes).map_err(NoRandomness)?;
    Ok(Sha256::from_raw(&bytes).short().to_owned())
}
