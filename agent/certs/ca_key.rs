//! The CA's private key on a machine that only needed certificates: destroyed once they stand.

use super::copies::NoCopies;
use super::needs::{Need, of_own, pair_path};
use crate::config::settings::{Role, STRAY_KEY, Settings, Signer};
use crate::config::values::RootPath;
use crate::engine::change::Change;
use crate::engine::id::{Id, Step};
use crate::engine::resource::{CannotTell, Delta, Diff, Planned, Resource, Seen, Thing};
use crate::host::seen::Entry;

/// What becomes of each CA's key where that is what signs.
///
/// A controller holds them by right: the controller manager signs with the cluster's. So does a member of the store that
/// store's own.
pub(super) fn ca_keys(settings: &Settings, needs: &[Need]) -> Vec<Planned> {
    let mut all = Vec::new();
    for (name, why, ca) in of_own(settings) {
        let Signer::Local { key, remove_after_use } = &ca.signer else { continue };
        let by_right = match settings.role {
            Role::Controller => true,
            Role::Etcd => name == "etcd-ca",
            Role::Worker | Role::Edge | Role::Kubeadm => false,
        };
        if by_right && !remove_after_use {
            continue;
        }
        let planned = |name: String, what: Box<dyn Resource>| Planned {
            id: Id::new(Step::Certs, name),
            why: settings.origins.of(why),
            owes: Vec::new(),
            what,
        };
        let pairs = needs.iter().filter(|need| need.ca.ca == ca.ca).map(|need| pair_path(settings, &need.name));
        let (pairs, remove) = (pairs.collect(), *remove_after_use);
        all.push(planned(format!("{name}-key"), Box::new(CaKey { key: key.clone(), pairs, remove })));
        if remove {
            all.push(planned(format!("{name}-key-copies"), Box::new(NoCopies { ca: ca.ca.clone() })));
        }
    }
    all
}

/// The CA's key goes once every pair stands, or stays and is warned of.
struct CaKey {
    key: RootPath,
    /// The pairs that it signs.
    pairs: Vec<RootPath>,
    /// Whether it goes.
    remove: bool,
}

impl Resource for CaKey {
    fn summary(&self) -> String {
        let what = if self.remove {
            "destroyed once the certificates stand; until it is put back, nothing renews them"
        } else {
            "on this machine"
        };
        format!("the CA's key {} {what}", self.key)
    }

    fn reads(&self) -> Vec<Thing> {
        self.pairs.iter().cloned().map(Thing::Stat).chain([Thing::Stat(self.key.clone())]).collect()
    }

    /// Nothing that others wait for: the pairs read the key, and this waits for them.
    fn makes(&self) -> Vec<Thing> {
        Vec::new()
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        if !self.remove || matches!(seen.entry(&self.key)?, Entry::Absent) {
            return Ok(Diff::Same);
        }
        Ok(Diff::Differs {
            shown: vec![Delta::new("CA's key", &self.key, "")],
            known: vec![Change::Destroy { path: self.key.clone() }],
        })
    }

    fn proof_reads(&self) -> Vec<Thing> {
        vec![Thing::Stat(self.key.clone())]
    }

    fn prove(&self, seen: &Seen) -> Result<(), CannotTell> {
        if matches!(seen.entry(&self.key)?, Entry::Absent) {
            return Ok(());
        }
        Err(CannotTell::new(&self.key, STRAY_KEY))
    }
}
