//! A cluster's CAs: certificate and key of each, in a directory of the operator's.

use std::path::Path;
use std::time::SystemTime;

use serde::Serialize;
use zeroize::Zeroizing;

use crate::certs::issue::{IssueError, self_signed};
use crate::certs::key::{Key, KeyError};
use crate::config::settings::KeyKind;
use crate::config::values::RootPath;
use crate::engine::change::Meta;
use crate::engine::fault::{Class, Explain, Fault};
use crate::host::clock;
use crate::host::root::Root;
use crate::host::seen::Entry;
use crate::provision::directory;

/// A CA to be made.
#[derive(Debug, Clone, Copy)]
pub struct NewAuthority {
    /// The stem of its files.
    file: &'static str,
    /// Its name: those of Kubernetes' "PKI certificates and requirements".
    common_name: &'static str,
}

impl NewAuthority {
    /// What all of a cluster trusts.
    pub const CLUSTER: Self = Self { file: "ca", common_name: "kubernetes-ca" };
    /// What etcd's members and clients trust.
    pub const ETCD: Self = Self { file: "etcd-ca", common_name: "etcd-ca" };
    /// What extensions of the API server trust.
    pub const FRONT_PROXY: Self = Self { file: "front-proxy-ca", common_name: "kubernetes-front-proxy-ca" };

    /// The files of its key and its certificate, in the directory of CAs.
    pub fn files(&self) -> [RootPath; 2] {
        let root = RootPath::literal("/");
        [root.join(&format!("{}-key.pem", self.file)), root.join(&format!("{}.pem", self.file))]
    }
}

/// A CA could not be made. Nothing that was there is replaced.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file is there already.
    #[error("make a CA in {path}: there is something already")]
    Exists {
        /// Which.
        path: String,
    },
    /// A key is there alone, and it is no such key as was asked for.
    #[error("make a CA with the key {path}: it is {found}, not {wanted}")]
    OtherKind {
        /// Which file.
        path: String,
        /// What it is.
        found: String,
        /// What was asked for.
        wanted: String,
    },
    /// A key is there alone, and cannot be used.
    #[error("make a CA with the key {path}")]
    Unusable {
        /// Which file.
        path: String,
        /// What is wrong with it.
        source: KeyError,
    },
    /// OpenSSL could not.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// OpenSSL could not make a key.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl Explain for AuthorityError {
    fn class(&self) -> Class {
        match self {
            Self::Exists { .. } | Self::OtherKind { .. } | Self::Unusable { .. } => Class::Usage,
            _ => Class::Failed,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Exists { .. } => {
                Some("a CA is never replaced: every certificate that it signed would be worth nothing; name another directory".to_owned())
            }
            Self::OtherKind { .. } | Self::Unusable { .. } => Some(
                "a key without its certificate is mostly what a killed run left: say the same --key as then, or name \
                 another directory"
                    .to_owned(),
            ),
            Self::Issue(_) | Self::Key(_) => None,
        }
    }
}

/// A CA that was made.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Made {
    /// The file of its certificate.
    pub certificate: String,
    /// The file of its key.
    pub key: String,
}

/// A CA's certificate for a key of its own, in PEM, good for so many days.
pub fn certificate(wanted: NewAuthority, key: &Key, now: SystemTime, days: u32) -> Result<Vec<u8>, AuthorityError> {
    Ok(self_signed(wanted.common_name, key, now, days)?)
}

/// Makes CAs, good for so many days: keys 0600, certificates for everyone. What a killed run left is finished: a key that
/// is alone gets its certificate, and a CA that is whole stays as it is beside those that are missing. Nothing is made where
/// a certificate has lost its key, or where all of them are there.
pub fn make(dir: &Path, wanted: &[NewAuthority], kind: KeyKind, days: u32) -> Result<Vec<Made>, Fault> {
    let root = directory::open(dir)?;
    let is_there = |path: &RootPath| Ok::<_, Fault>(!matches!(root.entry(path, false)?, Entry::Absent));
    let mut missing = Vec::new();
    for authority in wanted {
        let [key, certificate] = authority.files();
        match (is_there(&key)?, is_there(&certificate)?) {
            (true, true) => {}
            (false, true) => return Err(AuthorityError::Exists { path: root.display(&certificate) }.into()),
            (key_is_there, false) => missing.push((*authority, key_is_there)),
        }
    }
    if let (true, Some(first)) = (missing.is_empty(), wanted.first()) {
        let [key, _] = first.files();
        return Err(AuthorityError::Exists { path: root.display(&key) }.into());
    }
    let mut made = Vec::new();
    for (authority, key_is_there) in missing {
        let [key_file, certificate_file] = authority.files();
        let key = if key_is_there {
            left_alone(&root, &key_file, kind)?
        } else {
            // The key first: a certificate without its key would look like a CA that has lost it.
            let key = Key::generate(kind).map_err(AuthorityError::from)?;
            root.put(&key_file, &key.to_pem().map_err(AuthorityError::from)?, Meta::SECRET)?;
            key
        };
        root.put(&certificate_file, &certificate(authority, &key, clock::now(), days)?, Meta::FILE)?;
        made.push(Made { certificate: root.display(&certificate_file), key: root.display(&key_file) });
    }
    Ok(made)
}

/// The key of a run that was killed before it wrote the certificate: nobody has had a certificate of it yet.
fn left_alone(root: &Root, file: &RootPath, kind: KeyKind) -> Result<Key, Fault> {
    let path = root.display(file);
    let pem = Zeroizing::new(root.read(file)?.unwrap_or_default());
    let key = Key::from_pem(&pem).map_err(|source| AuthorityError::Unusable { path: path.clone(), source })?;
    let (found, wanted) = (key.describe(), kind.to_string());
    if found == wanted { Ok(key) } else { Err(AuthorityError::OtherKind { path, found, wanted }.into()) }
}
