//! What a renewal that failed leaves behind: the pairs that are still the old ones, and for how long each works. Pure.

use std::collections::BTreeSet;

use openssl::x509::X509;

use super::key::Key;
use super::show::{Kind, Says, says, show};
use crate::config::settings::Settings;
use crate::config::values::RootPath;
use crate::engine::history;
use crate::engine::record::{Logged, Record};
use crate::engine::resource::{CannotTell, Seen, Thing};
use crate::identity::Identity;

/// The pairs that a renewal should have seen to, and did not.
#[derive(Default)]
pub struct Left {
    /// The old ones that are there.
    old: Vec<(RootPath, Says)>,
    /// The others, and why there is nothing to say of them: not there, not to be read, no certificate.
    without: Vec<(RootPath, String)>,
}

/// What [`Left::of_node`] wants to see.
pub fn reads(settings: &Settings, identity: &Identity) -> Vec<Thing> {
    super::show::reads(settings, identity, &[])
}

/// The pairs that this program put in place, for when nothing says which ones the node needs. Other credentials are among
/// them.
pub fn placed(records: &[Record]) -> BTreeSet<RootPath> {
    let put = history::standing(records).into_iter().filter_map(|made| match &made.change {
        Logged::Put { path, credential: true, .. } => Some(path.clone()),
        _ => None,
    });
    put.collect()
}

impl Left {
    /// The node's pairs that are not as they should be.
    pub fn of_node(settings: &Settings, identity: &Identity, seen: &Seen) -> Result<Self, CannotTell> {
        let mut left = Self::default();
        let all = show(settings, identity, &[], seen)?;
        for pair in all.into_iter().filter(|shown| shown.kind == Kind::Pair && !shown.flaws.is_empty()) {
            match pair.says {
                Some(says) => left.old.push((pair.file, says)),
                None => left.without.push((pair.file, pair.flaws.join("; "))),
            }
        }
        Ok(left)
    }

    /// The pairs among these files, good or not.
    pub fn of_files(files: &BTreeSet<RootPath>, seen: &Seen) -> Result<Self, CannotTell> {
        let now = seen.now()?;
        let certificate = |pem| Key::from_pem(pem).ok().and_then(|_| X509::from_pem(pem).ok());
        let mut left = Self::default();
        for path in files {
            match seen.bytes(path) {
                Ok(pem) => left.old.extend(pem.and_then(certificate).map(|it| (path.clone(), says(&it, None, now)))),
                Err(cannot) => left.without.push((path.clone(), cannot.why)),
            }
        }
        Ok(left)
    }

    /// Whether every pair is as it should be.
    pub fn is_none(&self) -> bool {
        self.old.is_empty() && self.without.is_empty()
    }

    /// The old ones, each with what is left of its life.
    pub fn old(&self) -> String {
        self.old.iter().map(|(path, says)| format!("{path} ({})", says.left())).collect::<Vec<_>>().join(", ")
    }

    /// The others, each with the reason.
    pub fn without(&self) -> String {
        self.without.iter().map(|(path, why)| format!("{path} ({why})")).collect::<Vec<_>>().join(", ")
    }

    /// Whole days until the first of the old ones ends, negative afterwards; nothing if there is none.
    pub fn days_left(&self) -> Option<i64> {
        self.old.iter().map(|(_, says)| says.days_left).min()
    }
}
