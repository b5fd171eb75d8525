//! Who signs: one trait, and the signer that Settings name.

mod cfssl;
#[cfg(test)]
mod lab;
mod local;

use std::future::Future;
use std::pin::Pin;

pub use self::cfssl::{Cfssl, CfsslError};
pub use self::local::{Local, LocalError};
use super::authority::Authority;
use super::request::Wanted;
use crate::config::settings;
use crate::engine::fault::Fault;
use crate::engine::resource::{Seen, Thing};
use crate::host::peers::Peers;

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

/// Something that turns requests into certificates.
pub trait Signer {
    /// Which one, for people: its kind, its place, its profile.
    fn describe(&self) -> String;

    /// What it wants to see of this machine.
    fn reads(&self) -> Vec<Thing>;

    /// What to look at when its certificates are not what was asked for.
    fn advice(&self) -> String;

    /// Asks for a certificate. Nothing on this machine changes.
    fn sign<'a>(&'a self, order: Order<'a>, seen: &'a Seen, peers: &'a Peers) -> Signing<'a>;
}

/// What a certificate is for, as far as a signer's profiles tell it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// The profile that Settings name: certificates of clients.
    Configured,
    /// The profile `server`: certificates that programs on this node serve with.
    Server,
}

/// The signer that Settings name, for certificates of this profile.
pub fn chosen(signer: &settings::Signer, profile: Profile) -> Box<dyn Signer> {
    match signer {
        settings::Signer::Local { key, remove_after_use } => {
            Box::new(Local { key: key.clone(), remove_after_use: *remove_after_use })
        }
        settings::Signer::Cfssl { url, auth_key_file, profile: configured } => Box::new(Cfssl {
            url: url.clone(),
            auth_key_file: auth_key_file.clone(),
            profile: match profile {
                Profile::Configured => configured.clone(),
                Profile::Server => cfssl::SERVER_PROFILE.to_owned(),
            },
        }),
    }
}
