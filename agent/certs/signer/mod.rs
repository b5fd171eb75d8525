//! Who signs: one trait, and the signer that Settings name.

mod cfssl;
mod kubernetes;
#[cfg(test)]
mod lab;
mod local;
mod offline;

use std::future::Future;
use std::pin::Pin;

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;

pub use self::cfssl::{Cfssl, CfsslError};
pub use self::kubernetes::{Kubernetes, KubernetesError, Token};
pub use self::local::{Local, LocalError};
pub use self::offline::{Offline, OfflineError};
use super::authority::Authority;
use super::needs::{KUBELET_CLIENT, node_client, pair_path};
use super::request::Wanted;
use crate::config::settings::{self, Settings};
use crate::config::values::RootPath;
use crate::engine::fault::Fault;
use crate::engine::resource::{Seen, Thing};
use crate::host::peers::Peers;
use crate::identity::Identity;

/// A certificate that is asked for.
pub struct Order<'a> {
    /// The request in PEM, signed by the key that never leaves this machine.
    pub request: &'a str,
    /// What the certificate must say. The signer may need parts of it beside the request.
    pub wanted: &'a Wanted,
    /// The cluster's CA: whom to trust on the way, and in the end.
    pub ca: &'a Authority,
}

/// The pending answer of a signer: a certificate in PEM, not yet checked.
pub type Signing<'a> = Pin<Box<dyn Future<Output = Result<Vec<u8>, Fault>> + 'a>>;

/// Where the key comes from for which a certificate is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyFrom {
    /// It is made for this request, whose answer comes at once.
    New,
    /// It stays in the scratch directory until the answer comes, which may be in another run.
    Scratch,
    /// It was made with the request, by another run.
    File(RootPath),
}

/// Something that turns requests into certificates.
pub trait Signer {
    /// Which one, for people: its kind, its place, its profile.
    fn describe(&self) -> String;

    /// What it wants to see of this machine.
    fn reads(&self) -> Vec<Thing>;

    /// What to look at when its certificates are not what was asked for.
    fn advice(&self) -> String;

    /// Where the key is, or is to be, for which it is asked.
    fn key(&self) -> KeyFrom {
        KeyFrom::New
    }

    /// The files on this machine that are worth nothing any more once the pair stands.
    fn leaves(&self) -> Vec<RootPath> {
        Vec::new()
    }

    /// Asks for a certificate. Nothing on this machine changes.
    fn sign<'a>(&'a self, order: Order<'a>, seen: &'a Seen, peers: &'a Peers) -> Signing<'a>;
}

/// What a certificate is for, as far as signers tell it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// It makes the machine a node: the kubelet's client certificate.
    Node,
    /// Programs on this node serve with it.
    Serving,
    /// Another program shows it to a server.
    Client,
    /// A program does both.
    Peer,
}

/// The signer that Settings name, for one of this node's pairs.
pub fn chosen(
    settings: &Settings,
    identity: &Identity,
    signer: &settings::Signer,
    name: &str,
    profile: Profile,
) -> Box<dyn Signer> {
    match signer {
        settings::Signer::Local { key, remove_after_use } => {
            Box::new(Local { key: key.clone(), remove_after_use: *remove_after_use })
        }
        settings::Signer::Cfssl { url, auth_key_file, profile: configured } => Box::new(Cfssl {
            url: url.clone(),
            auth_key_file: auth_key_file.clone(),
            profile: match profile {
                Profile::Node | Profile::Client => configured.clone(),
                Profile::Serving => cfssl::SERVER_PROFILE.to_owned(),
                Profile::Peer => cfssl::PEER_PROFILE.to_owned(),
            },
        }),
        settings::Signer::Offline { dir } => Box::new(Offline::new(dir, name)),
        settings::Signer::Kubernetes { token_file, deadline, .. } => Box::new(Kubernetes {
            url: settings.cluster.api_server.clone(),
            profile,
            label: format!("{}-{name}", identity.name),
            token_file: token_file.clone(),
            client: pair_path(settings, KUBELET_CLIENT),
            node: node_client(settings, identity),
            release: settings.install.version.clone(),
            deadline: *deadline,
        }),
    }
}

/// A message's HMAC-SHA256 (RFC 2104).
pub(super) fn hmac_sha256(key: &[u8], message: &[u8]) -> Result<Vec<u8>, ErrorStack> {
    let key = PKey::hmac(key)?;
    openssl::sign::Signer::new(MessageDigest::sha256(), &key)?.sign_oneshot_to_vec(message)
}
