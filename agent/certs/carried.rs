//! A key and the request for its certificate, for a person to carry to the CA: what `nodeagent certs csr` makes.

use super::asked::Asked;
use super::check::{exposed, judge};
use super::key::Key;
use super::needs::{Need, needs, pair_path};
use super::pair::is_key_of;
use super::request::{Wanted, request};
use super::signer::Offline;
use crate::config::settings::Settings;
use crate::config::values::RootPath;
use crate::engine::change::{Body, Change, Meta};
use crate::engine::fault::Fault;
use crate::engine::id::{Id, Step};
use crate::engine::resource::{CannotTell, Delta, Diff, Obtained, Planned, Resource, Seen, Thing};
use crate::host::peers::Peers;
use crate::identity::Identity;

/// The keys and requests for those of this node's pairs that are missing or due, for a person to carry: for the pairs that a
/// person signs, or, where there is none, for all. They are in `dir`, or else where their signer looks for them.
pub fn requests(settings: &Settings, identity: &Identity, dir: Option<&RootPath>) -> Vec<Planned> {
    let needs = needs(settings, identity);
    let has_offline = needs.iter().any(|need| Offline::of(need).is_some());
    let default = settings.certs.offline_dir();
    let carried = |need: &Need| {
        let own = Offline::of(need);
        if has_offline && own.is_none() {
            return None;
        }
        let files = match dir {
            Some(dir) => Offline::new(dir, &need.name),
            None => own.unwrap_or_else(|| Offline::new(&default, &need.name)),
        };
        Some(Planned {
            id: Id::new(Step::Certs, format!("{}.csr", need.name)),
            why: settings.origins.of(need.why),
            owes: Vec::new(),
            what: Box::new(Carried::new(settings, need, files)),
        })
    };
    needs.iter().filter_map(carried).collect()
}

/// A request that a person carries away.
pub(super) struct Carried {
    /// What it is for, in a few words.
    pub purpose: String,
    /// Its files.
    pub files: Offline,
    /// The pair that is missing, or no good any more.
    pub pair: RootPath,
    /// The certificate of its CA.
    pub ca: RootPath,
    /// What the certificate must say.
    pub wanted: Wanted,
}

impl Carried {
    /// The request for a pair, in these files.
    pub(super) fn new(settings: &Settings, need: &Need, files: Offline) -> Self {
        Self {
            purpose: need.purpose.clone(),
            files,
            pair: pair_path(settings, &need.name),
            ca: need.ca.ca.clone(),
            wanted: need.wanted.clone(),
        }
    }

    /// What a person has to do next for a pair that is no good.
    pub(super) fn next(&self, seen: &Seen) -> Result<String, CannotTell> {
        Ok(match self.open(seen)? {
            None => "make key and request: nodeagent certs csr".to_owned(),
            Some(_) if seen.bytes(&self.files.certificate)?.is_some() => {
                format!("make the pair with {}, which was brought: nodeagent certs", self.files.certificate)
            }
            Some(asked) => self.files.carry(&asked),
        })
    }

    /// The same for a pair that is good.
    pub(super) fn no_more(&self) -> String {
        format!("destroy {} and its key, for which nothing waits any more: nodeagent certs", self.files.request)
    }

    /// The request that is there already, if the pair can be made with its answer.
    fn open(&self, seen: &Seen) -> Result<Option<Asked>, CannotTell> {
        let asked = seen.bytes(&self.files.request)?.and_then(|pem| Asked::read(pem).ok());
        let key = self.key(seen)?;
        Ok(asked.filter(|asked| key.is_some_and(|key| asked.is_for(&self.wanted, &key))))
    }

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
        if judge(&self.pair, &self.wanted, &self.ca, seen)?.is_empty() || self.open(seen)?.is_some() {
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
