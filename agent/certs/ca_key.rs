//! The CA's private key on a machine that only needed certificates: destroyed once they stand.

use crate::config::values::RootPath;
use crate::engine::change::Change;
use crate::engine::resource::{CannotTell, Delta, Diff, Resource, Seen, Thing};
use crate::host::seen::Entry;

/// The CA's key goes once every pair stands, or stays and is warned of.
pub(super) struct CaKey {
    pub(super) key: RootPath,
    /// The pairs that it signs.
    pub(super) pairs: Vec<RootPath>,
    /// Whether it goes.
    pub(super) remove: bool,
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
        let why = "whoever reads this key on a worker can sign a cluster administrator; set \
                   pki.signer.local.removeAfterUse: true, or choose another pki.signer";
        Err(CannotTell::new(&self.key, why))
    }
}
