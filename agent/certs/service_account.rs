//! The key pair of service accounts' tokens: a key of its own, never that of a TLS server, and the same on every controller.
//!
//! The controller manager signs tokens with it, and each API server tells by it whether a token is good. The script that
//! this replaces took the API server's TLS key, so that every renewal of its certificate ended all tokens.

use super::check::exposed;
use super::key::{Key, KeyError};
use crate::config::settings::KeyKind;
use crate::config::values::RootPath;
use crate::engine::change::{Body, Change, Meta};
use crate::engine::fault::Fault;
use crate::engine::resource::{CannotTell, Delta, Diff, Obtained, Resource, Seen, Thing};
use crate::host::peers::Peers;

/// What others that judge such tokens can do: most that speak `OpenID` Connect take RS256 alone (its Discovery 1.0,
/// `id_token_signing_alg_values_supported`).
const KIND: KeyKind = KeyKind::Rsa2048;

/// The service accounts' key, and its public half beside it.
pub(super) struct ServiceAccountKey {
    key: RootPath,
    public: RootPath,
    /// Whether no other controller has to have the same, so that it can be made here.
    alone: bool,
}

impl ServiceAccountKey {
    pub(super) fn new(key: &RootPath, alone: bool) -> Self {
        Self { key: key.clone(), public: key.parent().join("sa.pub"), alone }
    }

    /// The Changes that bring both files about.
    fn put(&self, key: Option<&Key>, public: &Key) -> Result<Vec<Change>, KeyError> {
        let mut changes = Vec::new();
        if let Some(key) = key {
            let body = Body::Credential(key.to_pem()?);
            changes.push(Change::Put { path: self.key.clone(), body, meta: Meta::SECRET });
        }
        let body = Body::Bytes(public.public()?.public_key_to_pem()?);
        changes.push(Change::Put { path: self.public.clone(), body, meta: Meta::FILE });
        Ok(changes)
    }
}

impl Resource for ServiceAccountKey {
    fn summary(&self) -> String {
        format!("key that signs service accounts' tokens, {}", self.key)
    }

    fn reads(&self) -> Vec<Thing> {
        vec![Thing::File(self.key.clone()), Thing::File(self.public.clone())]
    }

    fn makes(&self) -> Vec<Thing> {
        self.reads()
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        let Some(pem) = seen.bytes(&self.key)? else {
            if !self.alone {
                let advice = "put the one key of the cluster there, the same on every controller: `nodeagent cloud-config` \
                              makes it";
                let why = "there is no such file, and other controllers must have the same";
                return Err(CannotTell { advice: Some(advice.to_owned()), ..CannotTell::new(&self.key, why) });
            }
            let dir = Change::Dir { path: self.key.parent(), meta: Meta::PROGRAM };
            return Ok(Diff::Differs { shown: vec![Delta::new("key", "", KIND)], known: vec![dir] });
        };
        let cannot = |error: &KeyError| CannotTell::because(&self.key, error);
        let key = Key::from_pem(pem).map_err(|error| cannot(&error))?;
        let public = key.public().and_then(|public| public.public_key_to_pem());
        let public = public.map_err(|error| CannotTell::new(&self.key, error))?;
        let exposed = exposed(seen.entry(&self.key)?);
        let same = seen.bytes(&self.public)? == Some(public.as_slice());
        if same && exposed.is_none() {
            return Ok(Diff::Same);
        }
        // Another key would end every token: its mode is mended, and that it was open is said.
        let known = self.put(exposed.is_some().then_some(&key), &key).map_err(|error| cannot(&error))?;
        let other = (!same).then(|| Delta::new("public key", "", &self.public));
        Ok(Diff::Differs { shown: exposed.into_iter().chain(other).collect(), known })
    }

    fn obtain<'a>(&'a self, mut known: Vec<Change>, seen: &'a Seen, _: &'a Peers) -> Obtained<'a> {
        let made = || {
            if seen.bytes(&self.key).is_ok_and(|pem| pem.is_none()) {
                let key = Key::generate(KIND)?;
                known.extend(self.put(Some(&key), &key)?);
            }
            Ok::<_, Fault>(known)
        };
        Box::pin(std::future::ready(made()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::testing::{new_key, seen_files};

    fn resource(alone: bool) -> ServiceAccountKey {
        ServiceAccountKey::new(&RootPath::literal("/etc/kubernetes/pki/sa-key.pem"), alone)
    }

    #[test]
    fn it_is_made_where_no_other_controller_needs_the_same() {
        let (resource, lone) = (resource(false), resource(true));
        let none = seen_files(&[(&lone.key, None), (&lone.public, None)]);
        assert!(matches!(lone.diff(&none), Ok(Diff::Differs { .. })));
        let error = resource.diff(&none).expect_err("it must be brought");
        assert!(error.advice.is_some_and(|advice| advice.contains("every controller")), "{}", error.why);
    }

    #[test]
    fn the_public_half_follows_and_an_open_key_is_closed_and_kept() {
        let (resource, key) = (resource(false), new_key());
        let pem = key.to_pem().expect("PEM");
        let public = key.public().and_then(|public| public.public_key_to_pem()).expect("PEM");
        let with = |meta, beside: Option<&[u8]>| {
            let beside = beside.map(|bytes| (bytes, Meta::FILE));
            seen_files(&[(&resource.key, Some((pem.as_slice(), meta))), (&resource.public, beside)])
        };
        let shown = |seen: &Seen| match resource.diff(seen).expect("a difference") {
            Diff::Same => Vec::new(),
            Diff::Differs { shown, .. } => shown.into_iter().map(|delta| delta.what).collect(),
        };
        assert_eq!(shown(&with(Meta::SECRET, Some(&public))), [""; 0]);
        assert_eq!(shown(&with(Meta::SECRET, None)), ["public key"]);
        assert_eq!(shown(&with(Meta::SECRET, Some(b"another"))), ["public key"]);
        let open = with(Meta::FILE, Some(&public));
        assert_eq!(shown(&open), ["mode and owner"]);
        let Diff::Differs { known, .. } = resource.diff(&open).expect("a difference") else { panic!("same") };
        let kept = known.iter().any(|change| match change {
            Change::Put { path, body: Body::Credential(body), meta } => {
                *path == resource.key && **body == *pem && *meta == Meta::SECRET
            }
            _ => false,
        });
        assert!(kept, "{known:?}");
    }
}
