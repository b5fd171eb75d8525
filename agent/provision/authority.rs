//! A cluster's CAs: certificate and key of each, in a directory of the operator's.

use std::path::Path;
use std::time::SystemTime;

use crate::certs::issue::{IssueError, self_signed};
use crate::certs::key::{Key, KeyError};
use crate::config::settings::KeyKind;
use crate::config::values::RootPath;
use crate::engine::change::Meta;
use crate::engine::fault::{Class, Explain, Fault};
use crate::host::clock;
use crate::host::root::Root;
use crate::host::seen::Entry;

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
            Self::Exists { .. } => Class::Usage,
            _ => Class::Failed,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Exists { .. } => {
                Some("a CA is never replaced: every certificate that it signed would be worth nothing; name another directory".to_owned())
            }
            _ => None,
        }
    }
}

/// A CA's certificate for a key of its own, in PEM, good for so many days.
pub fn certificate(wanted: NewAuthority, key: &Key, now: SystemTime, days: u32) -> Result<Vec<u8>, AuthorityError> {
    Ok(self_signed(wanted.common_name, key, now, days)?)
}

/// Makes CAs, good for so many days, and returns their files: keys 0600, certificates for everyone. All of them or none,
/// as far as what is there already decides it.
pub fn make(dir: &Path, wanted: &[NewAuthority], kind: KeyKind, days: u32) -> Result<Vec<String>, Fault> {
    let root = Root::open(dir)?;
    for path in wanted.iter().flat_map(NewAuthority::files) {
        if !matches!(root.entry(&path, false)?, Entry::Absent) {
            return Err(AuthorityError::Exists { path: root.display(&path) }.into());
        }
    }
    let mut made = Vec::new();
    for authority in wanted {
        let key = Key::generate(kind).map_err(AuthorityError::from)?;
        let certificate = certificate(*authority, &key, clock::now(), days)?;
        let [key_file, certificate_file] = authority.files();
        // The key first: a certificate without its key would look like a CA that has lost it.
        root.put(&key_file, &key.to_pem().map_err(AuthorityError::from)?, Meta::SECRET)?;
        root.put(&certificate_file, &certificate, Meta::FILE)?;
        made.extend([root.display(&certificate_file), root.display(&key_file)]);
    }
    Ok(made)
}
