//! A key and the request for its certificate, for a person to carry to the CA: what `nodeagent certs csr` makes.

use super::asked::Asked;
use super::authority::Authority;
use super::check::check;
use super::key::Key;
use super::pair::{exposed, is_key_of};
use super::request::{Wanted, request};
use super::signer::Offline;
use crate::config::values::RootPath;
use crate::engine::change::{Body, Change, Meta};
use crate::engine::fault::Fault;
use crate::engine::resource::{CannotTell, Delta, Diff, Obtained, Resource, Seen, Thing};
use crate::host::peers::Peers;

/// A request that a person carries away.
pub(super) struct Carried {
    /// What it is for, in a few words.
    pub purpose: String,
    /// Its files.
    pub files: Offline,
    /// The pair that is missing, or no good any more.
    pub pair: RootPath,
    /// The cluster's CA certificate.
    pub ca: RootPath,
    /// What the certificate must say.
    pub wanted: Wanted,
}

impl Carried {
    /// The key of the request that is there already, if another certificate can be asked for with it.
    fn key(&self, seen: &Seen) -> Result<Option<Key>, CannotTell> {
        if exposed(seen.entry(&self.files.key)?).is_some() {
            return Ok(None);
        }
        let key = seen.bytes(&self.files.key)?.and_then(|pem| Key::from_pem(pem).ok());
        let key = key.filter(|key| key.describe() == self.wanted.key.to_string());
        let in_use = seen.bytes(&self.pair)?;
        Ok(key.filter(|key| !is_key_of(key, in_use)))
    }
}

impl Resource for Carried {
    fn summary(&self) -> String {
        format!("{}: a request for {} ({})", self.files.request, self.purpose, self.wanted.subject())
    }

    fn reads(&self) -> Vec<Thing> {
        let files = [&self.files.key, &self.files.request, &self.pair, &self.ca];
        files.into_iter().cloned().map(Thing::File).chain([Thing::Clock]).collect()
    }

    fn makes(&self) -> Vec<Thing> {
        vec![Thing::File(self.files.key.clone()), Thing::File(self.files.request.clone())]
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        let now = seen.now()?;
        let ca = Authority::read(&self.ca, seen.bytes(&self.ca)?, now)?;
        if check(seen.bytes(&self.pair)?, &self.wanted, &ca, now).is_empty() {
            return Ok(Diff::Same);
        }
        let asked = seen.bytes(&self.files.request)?.and_then(|pem| Asked::read(pem).ok());
        if let (Some(key), Some(asked)) = (self.key(seen)?, asked)
            && asked.is_for(&self.wanted, &key)
        {
            return Ok(Diff::Same);
        }
        let dir = self.files.key.parent();
        Ok(Diff::Differs {
            shown: vec![Delta::new("request", "", self.wanted.subject())],
            known: vec![
                Change::Dir { path: dir.parent(), meta: Meta::PROGRAM },
                Change::Dir { path: dir, meta: Meta::root(0o700) },
            ],
        })
    }

    fn obtain<'a>(&'a self, mut known: Vec<Change>, seen: &'a Seen, _: &'a Peers) -> Obtained<'a> {
        let made = || {
            let there = self.key(seen).map_err(crate::engine::apply::Unreadable)?;
            let key = if let Some(key) = there {
                key
            } else {
                let key = Key::generate(self.wanted.key)?;
                let body = Body::Credential(key.to_pem()?);
                known.push(Change::Put { path: self.files.key.clone(), body, meta: Meta::SECRET });
                key
            };
            let body = Body::Bytes(request(&self.wanted, &key)?.into_bytes());
            known.push(Change::Put { path: self.files.request.clone(), body, meta: Meta::FILE });
            Ok::<_, Fault>(known)
        };
        Box::pin(std::future::ready(made()))
    }
}
