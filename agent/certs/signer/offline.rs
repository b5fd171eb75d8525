//! The signer `offline`: a person carries requests to where the CA's key is, and certificates back.
//!
//! `nodeagent certs csr` makes key and request, `nodeagent certs sign` the certificate, on another machine. Once the pair
//! stands, all three are destroyed here.

use super::{KeyFrom, Order, Signer, Signing};
use crate::certs::asked::Asked;
use crate::certs::needs::Need;
use crate::config::settings;
use crate::config::values::RootPath;
use crate::engine::fault::{Class, Explain};
use crate::engine::resource::{CannotTell, Seen, Thing};
use crate::host::peers::Peers;

/// The three files of one pair on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offline {
    /// The key, which never leaves this machine.
    pub key: RootPath,
    /// The request to carry.
    pub request: RootPath,
    /// Where its certificate is to be put.
    pub certificate: RootPath,
}

/// The person has not come yet.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// No certificate was brought.
    #[error("there is no certificate {certificate} yet for the request {request}")]
    Absent {
        /// Where it should be.
        certificate: RootPath,
        /// What is to be signed.
        request: RootPath,
        /// What to do.
        advice: Option<String>,
    },
    /// It could not be looked at.
    #[error(transparent)]
    CannotTell(#[from] CannotTell),
}

impl Explain for OfflineError {
    fn class(&self) -> Class {
        match self {
            Self::Absent { .. } => Class::Failed,
            Self::CannotTell(cannot) => cannot.class(),
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Absent { advice, .. } => advice.clone(),
            Self::CannotTell(cannot) => cannot.advice(),
        }
    }
}

impl Offline {
    /// The files in `dir` of the pair that is called so.
    pub fn new(dir: &RootPath, name: &str) -> Self {
        let file = |kind: &str| dir.join(&format!("{name}.{kind}"));
        Self { key: file("key"), request: file("csr"), certificate: file("pem") }
    }

    /// Those of a pair that a person signs; nothing where somebody else does.
    pub fn of(need: &Need) -> Option<Self> {
        match &need.ca.signer {
            settings::Signer::Offline { dir } => Some(Self::new(dir, &need.name)),
            _ => None,
        }
    }

    /// All three.
    pub fn all(&self) -> [RootPath; 3] {
        [&self.key, &self.request, &self.certificate].map(RootPath::clone)
    }

    /// What to do with the request, which says this.
    pub(in crate::certs) fn carry(&self, asked: &Asked) -> String {
        let Self { request, certificate, .. } = self;
        let sign = asked.to_sign();
        format!("carry {request} to where the CA's key is, {sign} there, and put the certificate into {certificate}")
    }
}

impl Signer for Offline {
    fn describe(&self) -> String {
        format!("whoever brings {}", self.certificate)
    }

    fn reads(&self) -> Vec<Thing> {
        self.all().map(Thing::File).to_vec()
    }

    fn advice(&self) -> String {
        format!("have {} signed by its CA, as it is", self.request)
    }

    fn key(&self) -> KeyFrom {
        KeyFrom::File(self.key.clone())
    }

    fn leaves(&self) -> Vec<RootPath> {
        self.all().to_vec()
    }

    fn sign<'a>(&'a self, order: Order<'a>, seen: &'a Seen, _: &'a Peers) -> Signing<'a> {
        let brought = seen.bytes(&self.certificate).map_err(OfflineError::from).and_then(|bytes| {
            let absent = || OfflineError::Absent {
                certificate: self.certificate.clone(),
                request: self.request.clone(),
                advice: Asked::read(order.request.as_bytes()).ok().map(|asked| self.carry(&asked)),
            };
            bytes.map(<[u8]>::to_vec).ok_or_else(absent)
        });
        Box::pin(std::future::ready(brought.map_err(Into::into)))
    }
}
