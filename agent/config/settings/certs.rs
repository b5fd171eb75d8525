//! Keys, certificates and who signs them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use super::{Role, Settings};
use crate::config::defaults;
use crate::config::values::{CertName, DnsDomain, HttpUrl, KeyHash, RootPath, UnitName};

/// Keys, certificates and who signs them.
#[derive(Debug, Clone)]
pub struct CertsSettings {
    /// The directory of keys and certificates.
    pub dir: RootPath,
    /// The cluster's CA certificate.
    pub ca: RootPath,
    /// What keys are made.
    pub key: KeyKind,
    /// Who signs.
    pub signer: Signer,
    /// The CA of the cluster's store. Workers have nothing to do with it: theirs is the cluster's.
    pub etcd: CaSettings,
    /// The CA of the API server's aggregation layer, where there is such a layer.
    pub front_proxy: Option<CaSettings>,
    /// The key that signs service accounts' tokens.
    pub service_account_key: RootPath,
    /// The key that Secrets are encrypted with at rest, where they are.
    pub encryption_key: Option<RootPath>,
    /// Pairs that no role needs, by the name of their file.
    pub extra: BTreeMap<CertName, ExtraCertificate>,
}

/// A CA, and who signs for it.
#[derive(Debug, Clone)]
pub struct CaSettings {
    /// Its certificate.
    pub ca: RootPath,
    /// Who signs.
    pub signer: Signer,
}

/// A pair that no role needs.
#[derive(Debug, Clone)]
pub struct ExtraCertificate {
    /// Whose it is.
    pub common_name: String,
    /// That user's group.
    pub organization: Option<String>,
    /// The DNS names that it is for.
    pub dns: Vec<DnsDomain>,
    /// The addresses that it is for.
    pub addresses: Vec<IpAddr>,
    /// What it is good for.
    pub usages: Vec<Usage>,
    /// The unit to restart when it is replaced.
    pub restart: Option<UnitName>,
}

/// What a certificate may be used for (extended key usage).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Usage {
    /// To prove a client to a server.
    Client,
    /// To prove a server to a client.
    Server,
}

/// The name that cfssl profiles and Kubernetes' CSR API have for it.
impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client auth",
            Self::Server => "server auth",
        })
    }
}

impl CertsSettings {
    /// The cluster's CA, and who signs for it.
    pub fn cluster(&self) -> CaSettings {
        CaSettings { ca: self.ca.clone(), signer: self.signer.clone() }
    }

    /// The directory in which requests wait for a person, if nothing else is said.
    pub fn offline_dir(&self) -> RootPath {
        match &self.signer {
            Signer::Offline { dir } => dir.clone(),
            _ => self.dir.join(defaults::OFFLINE_DIR),
        }
    }
}

/// What is said of a [`Settings::stray_key`].
pub const STRAY_KEY: &str = "whoever reads this key on a worker can sign a cluster administrator; set \
                             pki.signer.local.removeAfterUse: true, or choose another pki.signer";

impl Settings {
    /// The key of the cluster's CA, where it stays on a machine that has no right to it: only a controller's controller
    /// manager signs with it for others.
    pub fn stray_key(&self) -> Option<&RootPath> {
        match &self.certs.signer {
            Signer::Local { key, remove_after_use: false } if self.role != Role::Controller => Some(key),
            _ => None,
        }
    }
}

/// What kind of key a certificate is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
pub enum KeyKind {
    /// ECDSA on the curve P-256: made at once, small, and accepted by everything in a cluster.
    #[default]
    #[serde(rename = "ecdsa-p256")]
    EcdsaP256,
    /// RSA, 2048 bits.
    #[serde(rename = "rsa-2048")]
    Rsa2048,
    /// RSA, 4096 bits.
    #[serde(rename = "rsa-4096")]
    Rsa4096,
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EcdsaP256 => "ecdsa-p256",
            Self::Rsa2048 => "rsa-2048",
            Self::Rsa4096 => "rsa-4096",
        })
    }
}

/// Who signs this node's certificates.
#[derive(Debug, Clone)]
pub enum Signer {
    /// The cluster's own signers, at its API server.
    Kubernetes {
        /// The file that holds the bootstrap token.
        token_file: RootPath,
        /// The hash of the CA's key, if its certificate is to be taken from the cluster.
        ca_hash: Option<KeyHash>,
        /// How long an approval is waited for.
        deadline: Duration,
    },
    /// The CA's own key, on this machine.
    Local {
        /// The file that holds it.
        key: RootPath,
        /// Whether it goes once the certificates stand.
        remove_after_use: bool,
    },
    /// A cfssl server's authenticated `authsign`.
    Cfssl {
        /// Its base URL.
        url: HttpUrl,
        /// The file that holds the authentication key in hexadecimal digits.
        auth_key_file: RootPath,
        /// The signing profile.
        profile: String,
    },
    /// A person.
    Offline {
        /// The directory of keys, requests and brought certificates.
        dir: RootPath,
    },
}
