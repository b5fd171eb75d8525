//! The cluster's CAs and shared keys on the operator's machine: made once, and found again.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use openssl::base64::encode_block;
use openssl::rand::rand_bytes;
use zeroize::Zeroizing;

use crate::certs::authority::{Authority, AuthorityFlaw};
use crate::certs::issue::{IssueError, Issuer};
use crate::certs::key::{Key, KeyError};
use crate::config::cluster::{Cluster, NodeConfig};
use crate::config::settings::{CaSettings, CertsSettings, KeyKind, Role, Signer};
use crate::config::values::{NodeName, RootPath};
use crate::engine::change::Meta;
use crate::engine::fault::{Class, Explain, Fault};
use crate::host::root::FileError;
use crate::provision::authority::{self, NewAuthority};

use super::store::Store;

/// How many days CAs are good for: kubeadm's ten years.
const CA_DAYS: u32 = 3650;

/// Bytes of the key that Secrets are encrypted with (secretbox and AES-256 alike).
const ENCRYPTION_KEY: usize = 32;

/// A key that cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// It is there, and not usable.
    #[error("use {path}")]
    Unusable {
        /// Which file.
        path: String,
        /// What is wrong with it.
        source: KeyError,
    },
    /// It holds no certificate of a CA that is good today.
    #[error("use the CA certificate {path}: {flaw}")]
    Authority {
        /// Which file.
        path: String,
        /// What is wrong with it.
        flaw: AuthorityFlaw,
    },
    /// It is another CA's.
    #[error("use {path}")]
    OtherKey {
        /// Which file.
        path: String,
        /// What is wrong with it.
        source: IssueError,
    },
    /// A CA has lost one of its halves.
    #[error("use the CA in {path}: there is no such file")]
    Half {
        /// The file that is missing.
        path: String,
    },
    /// OpenSSL could not.
    #[error("make {path}: {why}")]
    Make {
        /// Which file.
        path: String,
        /// Why not.
        why: String,
    },
}

impl Explain for KeysError {
    fn class(&self) -> Class {
        match self {
            Self::Make { .. } => Class::Failed,
            Self::Authority { .. } => Class::Verification,
            _ => Class::Usage,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Half { .. } | Self::Authority { .. } => {
                Some("bring certificate and key of the CA, or name another directory with --pki".to_owned())
            }
            Self::Unusable { source, .. } => source.advice(),
            Self::OtherKey { .. } => Some("certificate and key must be those of one CA".to_owned()),
            Self::Make { .. } => None,
        }
    }
}

/// What a cluster needs.
pub(super) struct Wanted {
    /// What kind of keys CAs get.
    pub key: KeyKind,
    /// Who signs with the key of etcd's CA.
    pub etcd_key: Holder,
    /// The same of the aggregation layer's CA, if there is such a layer.
    pub front_proxy_key: Option<Holder>,
    /// Whether Secrets are encrypted.
    pub encryption: bool,
}

/// Who signs with the key of a CA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    /// Machines of the cluster: they are brought it.
    Machines,
    /// A person, to whom requests are carried: the certificate alone will do, and a CA may be made here.
    Person,
    /// Another server, whose CA no one can make here.
    Server,
}

impl Wanted {
    /// What the machines' configurations ask for.
    pub fn of(cluster: &Cluster, configs: &BTreeMap<NodeName, NodeConfig>) -> Self {
        let holder = |pick: fn(&CertsSettings) -> Option<&CaSettings>| {
            // Etcd's is a part of every machine's settings, and means something to those alone that have certificates of it.
            let signs = |config: &&NodeConfig| matches!(config.settings.role, Role::Etcd | Role::Controller);
            let signers = configs.values().filter(signs).filter_map(|config| pick(&config.settings.certs));
            let signers: Vec<&Signer> = signers.map(|authority| &authority.signer).collect();
            if signers.iter().any(|signer| matches!(signer, Signer::Local { .. })) {
                Holder::Machines
            } else if signers.iter().any(|signer| matches!(signer, Signer::Cfssl { .. })) {
                Holder::Server
            } else {
                Holder::Person
            }
        };
        let front_proxy = || holder(|certs| certs.front_proxy.as_ref());
        Self {
            key: cluster.pki.key.unwrap_or_default(),
            etcd_key: holder(|certs| Some(&certs.etcd)),
            front_proxy_key: (!cluster.pki.no_aggregation).then(front_proxy),
            encryption: cluster.pki.encrypt_secrets,
        }
    }
}

/// The cluster's CA, by which the administrator's own certificate is signed here.
pub(super) struct Ca {
    /// In PEM.
    pub certificate: String,
    /// In PEM.
    pub key: Zeroizing<String>,
    /// To sign with.
    pub issuer: Issuer,
    /// To judge with.
    pub authority: Authority,
}

/// Another CA.
pub(super) struct OtherCa {
    /// In PEM.
    pub certificate: String,
    /// In PEM, unless somebody else has it, who signs for this cluster.
    pub key: Option<Zeroizing<String>>,
}

impl From<Ca> for OtherCa {
    fn from(ca: Ca) -> Self {
        Self { certificate: ca.certificate, key: Some(ca.key) }
    }
}

/// All that a cluster shares.
pub(super) struct Keys {
    /// The cluster's CA.
    pub cluster: Ca,
    /// Etcd's own.
    pub etcd: OtherCa,
    /// The aggregation layer's, if there is one.
    pub front_proxy: Option<OtherCa>,
    /// What service accounts' tokens are signed with, in PEM.
    pub service_account: Zeroizing<String>,
    /// What Secrets are encrypted with, in base64.
    pub encryption: Option<Zeroizing<String>>,
}

impl Keys {
    /// Finds what there is in the directory, and makes the rest.
    pub fn find(dir: &Path, store: &mut Store, wanted: &Wanted, now: SystemTime) -> Result<Self, Fault> {
        let cluster = find_ca(dir, store, NewAuthority::CLUSTER, wanted.key, now)?;
        let mut other = |new: NewAuthority, holder: Holder| match find_certificate(store, new, now)? {
            Some(certificate) if holder != Holder::Machines => Ok::<_, Fault>(OtherCa { certificate, key: None }),
            None if holder == Holder::Server && !store.has(&new.files()[1])? => {
                Err(KeysError::Half { path: store.display(&new.files()[1]) }.into())
            }
            _ => Ok(find_ca(dir, store, new, wanted.key, now)?.into()),
        };
        let etcd = other(NewAuthority::ETCD, wanted.etcd_key)?;
        let front_proxy = wanted.front_proxy_key.map(|with_key| other(NewAuthority::FRONT_PROXY, with_key));
        let front_proxy = front_proxy.transpose()?;
        let service_account = find_service_account(store)?;
        let encryption = if wanted.encryption { Some(find_encryption(store)?) } else { None };
        Ok(Self { cluster, etcd, front_proxy, service_account, encryption })
    }
}

/// Whether the directory has a CA for the cluster.
pub(super) fn has_ca(dir: &Path) -> Result<bool, FileError> {
    let [_, certificate] = NewAuthority::CLUSTER.files();
    Store::there(dir)?.map_or(Ok(false), |store| store.has(&certificate))
}

/// The certificate of a CA whose key is not here.
fn find_certificate(store: &Store, new: NewAuthority, now: SystemTime) -> Result<Option<String>, Fault> {
    let [key_file, certificate_file] = new.files();
    match store.read(&certificate_file)? {
        Some(certificate) if !store.has(&key_file)? => {
            Ok(Some(text(read_authority(store, &certificate_file, &certificate, now)?.pem())))
        }
        _ => Ok(None),
    }
}

/// A CA's certificate, if it is one and good today.
fn read_authority(store: &Store, path: &RootPath, certificate: &[u8], now: SystemTime) -> Result<Authority, Fault> {
    Authority::read(path, Some(certificate), now)
        .map_err(|error| KeysError::Authority { path: store.display(path), flaw: error.flaw }.into())
}

fn find_ca(dir: &Path, store: &mut Store, new: NewAuthority, kind: KeyKind, now: SystemTime) -> Result<Ca, Fault> {
    let [key_file, certificate_file] = new.files();
    // A run that was killed between the two left the key alone: nobody has had a certificate of it yet.
    if let (Some(key), None) = (store.read(&key_file)?, store.read(&certificate_file)?) {
        let shown = store.display(&key_file);
        let key = Key::from_pem(&Zeroizing::new(key)).map_err(|source| KeysError::Unusable { path: shown, source })?;
        store.put(&certificate_file, &authority::certificate(new, &key, now, CA_DAYS)?, Meta::FILE)?;
    }
    if store.read(&key_file)?.is_none() && store.read(&certificate_file)?.is_none() {
        authority::make(dir, &[new], kind, CA_DAYS)?;
        store.note(&key_file);
        store.note(&certificate_file);
    }
    let read = |path: &RootPath| -> Result<Zeroizing<Vec<u8>>, Fault> {
        let bytes = store.read(path)?.ok_or_else(|| KeysError::Half { path: store.display(path) })?;
        Ok(Zeroizing::new(bytes))
    };
    let (certificate, secret) = (read(&certificate_file)?, read(&key_file)?);
    let authority = read_authority(store, &certificate_file, &certificate, now)?;
    let shown = store.display(&key_file);
    let key = Key::from_pem(&secret).map_err(|source| KeysError::Unusable { path: shown.clone(), source })?;
    let issuer = Issuer::new(&authority, key).map_err(|source| KeysError::OtherKey { path: shown, source })?;
    // Without what else the file may hold.
    let certificate = text(authority.pem());
    Ok(Ca { certificate, key: Zeroizing::new(text(&secret)), issuer, authority })
}

/// RSA, as the machines make it: tokens are also checked outside of the cluster (OIDC), where not everyone knows ECDSA.
/// The public half follows from it, and the machines write it themselves.
fn find_service_account(store: &mut Store) -> Result<Zeroizing<String>, Fault> {
    let path = RootPath::literal("/sa-key.pem");
    if let Some(there) = store.read(&path)? {
        let there = Zeroizing::new(there);
        Key::from_pem(&there).map_err(|source| KeysError::Unusable { path: store.display(&path), source })?;
        return Ok(Zeroizing::new(text(&there)));
    }
    let fail = |why: KeyError| KeysError::Make { path: store.display(&path), why: why.to_string() };
    let made = Key::generate(KeyKind::Rsa2048).and_then(|key| key.to_pem()).map_err(fail)?;
    store.put(&path, &made, Meta::SECRET)?;
    Ok(Zeroizing::new(text(&made)))
}

fn find_encryption(store: &mut Store) -> Result<Zeroizing<String>, Fault> {
    let path = RootPath::literal("/encryption-key");
    if let Some(there) = store.read(&path)? {
        return Ok(Zeroizing::new(text(&Zeroizing::new(there))));
    }
    let mut bytes = Zeroizing::new([0; ENCRYPTION_KEY]);
    rand_bytes(&mut bytes[..])
        .map_err(|error| KeysError::Make { path: store.display(&path), why: error.to_string() })?;
    let made = Zeroizing::new(encode_block(&bytes[..]) + "\n");
    store.put(&path, made.as_bytes(), Meta::SECRET)?;
    Ok(made)
}

/// PEM and base64 are ASCII.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
