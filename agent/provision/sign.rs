//! Signing what nodes ask for, on the machine where the CA's key is.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::certs::asked::{Asked, AskedError};
use crate::certs::authority::{Authority, AuthorityError, AuthorityFlaw};
use crate::certs::issue::{IssueError, Issuer};
use crate::certs::key::{Key, KeyError};
use crate::certs::request::Wanted;
use crate::config::values::{BadValue, RootPath};
use crate::engine::change::Meta;
use crate::engine::fault::{Class, Explain, Fault};
use crate::host::clock;
use crate::host::root::Root;
use crate::provision::directory;

/// A certificate that was signed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Signed {
    /// Its file.
    pub certificate: String,
    /// The request's.
    pub request: String,
    /// Whose it is.
    pub subject: String,
    /// The names and addresses that it vouches for.
    pub names: Vec<String>,
    /// What it may be used for.
    pub usages: Vec<String>,
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The request asks for what it may not have.
    #[error("sign {path}")]
    Asked {
        /// The request.
        path: String,
        /// What is wrong with it.
        source: AskedError,
    },
    /// The CA's certificate cannot be used.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The CA's key cannot be used.
    #[error("sign with the CA's key {path}")]
    Key {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: KeyError,
    },
    /// It is another CA's.
    #[error("sign with the CA's key {path}")]
    Issuer {
        /// The file.
        path: String,
        /// What is wrong.
        source: IssueError,
    },
    /// OpenSSL could not.
    #[error("sign {path}")]
    Issue {
        /// The request.
        path: String,
        /// What is wrong.
        source: IssueError,
    },
    /// There is no such file.
    #[error("read {path}: there is no such file")]
    Absent {
        /// Which.
        path: String,
    },
    /// It has no name that a certificate's could follow from.
    #[error("{path}: {why}")]
    Name {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// It would take the place of what it is made from.
    #[error("put a certificate in {path}: that is what is signed, or what it is signed with")]
    InPlace {
        /// Where.
        path: String,
    },
    /// Two requests would have their certificates in one place.
    #[error("{path} would hold the certificates of two requests")]
    Twice {
        /// Where.
        path: String,
    },
}

impl Explain for SignError {
    fn class(&self) -> Class {
        match self {
            Self::Asked { source, .. } => source.class(),
            Self::Authority(error) => error.class(),
            Self::Issuer { source, .. } | Self::Issue { source, .. } => source.class(),
            Self::Absent { .. } | Self::Name { .. } | Self::Twice { .. } | Self::InPlace { .. } => Class::Usage,
            Self::Key { .. } => Class::Failed,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Asked { source: AskedError::NotANodes { .. }, .. } => Some(
                "sign what `nodeagent certs csr` made on the node; if that is a controller or a member of etcd, say \
                 --control-plane; for other certificates there is openssl"
                    .to_owned(),
            ),
            Self::Asked { source, .. } => source.advice(),
            Self::Authority(AuthorityError { flaw: AuthorityFlaw::Garbage, .. })
            | Self::Key { source: KeyError::Absent, .. } => {
                Some("--ca wants the CA's certificate in PEM, and --key its private key".to_owned())
            }
            Self::Authority(error) => error.advice(),
            Self::Key { source, .. } => source.advice(),
            Self::Issuer { .. } => Some("--ca and --key must be certificate and key of one CA".to_owned()),
            Self::InPlace { .. } => {
                Some("give requests another name or directory than the CA's, or say --to".to_owned())
            }
            Self::Issue { source, .. } => source.advice(),
            Self::Twice { .. } => Some("sign each node's requests into a directory of their own (--to)".to_owned()),
            Self::Absent { .. } | Self::Name { .. } => None,
        }
    }
}

/// Whose requests are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Nodes': what a machine that runs pods may have.
    Nodes,
    /// Those of controllers and members of the store too, an administrator's certificate among them.
    ControlPlane,
}

impl Whose {
    fn wanted(self, asked: &Asked) -> Result<Wanted, AskedError> {
        match self {
            Self::Nodes => asked.wanted(),
            Self::ControlPlane => asked.wanted_of_anybody(),
        }
    }
}

/// A file of the operator's: its directory, and its place in there.
struct Place {
    root: Root,
    path: RootPath,
}

impl Place {
    fn of(file: &Path) -> Result<Self, Fault> {
        let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let bad = |why: String| SignError::Name { path: file.display().to_string(), why };
        let name =
            file.file_name().and_then(|name| name.to_str()).ok_or_else(|| bad("its name is not UTF-8".to_owned()))?;
        let path = format!("/{name}").parse().map_err(|error: BadValue| bad(error.why().to_owned()))?;
        Ok(Self { root: directory::open(dir)?, path })
    }

    fn read(&self) -> Result<Vec<u8>, Fault> {
        let bytes = self.root.read(&self.path)?;
        Ok(bytes.ok_or_else(|| SignError::Absent { path: self.shown() })?)
    }

    fn is(&self, other: &Self) -> bool {
        self.path == other.path && self.root.is_same_as(&other.root)
    }

    fn shown(&self) -> String {
        self.root.display(&self.path)
    }
}

/// Signs requests, each into `NAME.pem` in `to` or beside it, good for so many days. All of them are signed before the
/// first certificate is written.
pub fn sign(
    files: &[PathBuf],
    whose: Whose,
    ca: &Path,
    key: &Path,
    days: u32,
    to: Option<&Path>,
) -> Result<Vec<Signed>, Fault> {
    let (ca, key) = (Place::of(ca)?, Place::of(key)?);
    let now = clock::now();
    let ca_path: RootPath = ca
        .shown()
        .parse()
        .map_err(|error: BadValue| SignError::Name { path: ca.shown(), why: error.why().to_owned() })?;
    let authority = Authority::read(&ca_path, Some(&ca.read()?), now).map_err(SignError::from)?;
    let secret = zeroize::Zeroizing::new(key.read()?);
    let secret = Key::from_pem(&secret).map_err(|source| SignError::Key { path: key.shown(), source })?;
    let issuer = Issuer::new(&authority, secret).map_err(|source| SignError::Issuer { path: key.shown(), source })?;

    let mut orders = Vec::new();
    for file in files {
        let place = Place::of(file)?;
        let pem = place.read()?;
        let wanted = Asked::read(&pem).and_then(|asked| whose.wanted(&asked));
        let wanted = wanted.map_err(|source| SignError::Asked { path: place.shown(), source })?;
        let target = file.with_extension("pem");
        let target = to.map_or(target.clone(), |dir| dir.join(target.file_name().unwrap_or_default()));
        orders.push((place, pem, wanted, Place::of(&target)?));
    }
    for (at, (_, _, _, target)) in orders.iter().enumerate() {
        let sources = orders.iter().map(|(request, ..)| request).chain([&ca, &key]);
        if sources.into_iter().any(|source| source.is(target)) {
            return Err(SignError::InPlace { path: target.shown() }.into());
        }
        if orders[..at].iter().any(|(_, _, _, other)| other.shown() == target.shown()) {
            return Err(SignError::Twice { path: target.shown() }.into());
        }
    }

    let certificates: Result<Vec<Vec<u8>>, SignError> = orders
        .iter()
        .map(|(place, pem, wanted, _)| {
            let certificate = issuer.sign(pem, wanted, now, days);
            certificate.map_err(|source| SignError::Issue { path: place.shown(), source })
        })
        .collect();
    let mut signed = Vec::new();
    for ((place, _, wanted, target), certificate) in orders.into_iter().zip(certificates?) {
        target.root.put(&target.path, &certificate, Meta::FILE)?;
        signed.push(Signed {
            certificate: target.shown(),
            request: place.shown(),
            subject: wanted.subject(),
            names: wanted.names(),
            usages: wanted.usages.iter().map(ToString::to_string).collect(),
        });
    }
    Ok(signed)
}
