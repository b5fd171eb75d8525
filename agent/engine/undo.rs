//! The ledger read backwards: what would undo a Change, given the machine now. Pure, and the same when asked again.

use super::change::{Body, Change, Meta, Verb};
use super::ledger::{Before, Logged, Made};
use super::resource::{CannotTell, Seen, Thing};
use crate::config::values::{RootPath, Sha256, UnitName};
use crate::host::seen::Entry;

/// Why a Change stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeptBecause {
    /// It is not what we left there.
    #[error("it was changed since by somebody else")]
    ChangedSince,
    /// A directory that others use.
    #[error("it is not empty")]
    NotEmpty,
    /// A key or certificate.
    #[error("keys and certificates go only with --purge")]
    Credential,
    /// The bytes that were there were never recorded.
    #[error("what was there before was not recorded (a secret, or too large)")]
    NotRecorded,
    /// A module.
    #[error("a loaded module may be in use")]
    Module,
    /// A destroyed secret.
    #[error("a destroyed secret cannot come back")]
    Destroyed,
    /// The machine could not be read.
    #[error(transparent)]
    CannotTell(#[from] CannotTell),
}

/// What [`undo`] wants to see.
pub fn reads(made: &Made) -> Vec<Thing> {
    match &made.change {
        Logged::Put { path, .. } => vec![Thing::Stat(path.clone()), Thing::Digest(path.clone())],
        Logged::Block { path, .. } => vec![Thing::File(path.clone())],
        Logged::Link { path, .. } | Logged::Dir { path, .. } | Logged::Remove { path } | Logged::Destroy { path } => {
            vec![Thing::Stat(path.clone())]
        }
        Logged::Sysctl { key, .. } => vec![Thing::Sysctl(key.clone())],
        Logged::Module { .. } => Vec::new(),
        Logged::Property { unit, .. } | Logged::Job { unit, .. } => vec![Thing::Unit(unit.clone())],
    }
}

/// The Changes that bring back what was there before; none if it is there already.
pub fn undo(made: &Made, now: &Seen, purge: bool) -> Result<Vec<Change>, KeptBecause> {
    match &made.change {
        Logged::Put { path, sha256, credential, .. } => {
            let secret = credential.then_some(purge);
            undo_put(made, path, sha256, secret, now)
        }
        Logged::Link { path, to } => match now.entry(path)? {
            Entry::Link(target) if target == to => restore(path, &made.before),
            entry if is_before(entry, None, &made.before) => Ok(Vec::new()),
            _ => Err(KeptBecause::ChangedSince),
        },
        // Whether it is empty only the removal itself can tell: see `rollback`.
        Logged::Dir { path, .. } => match now.entry(path)? {
            Entry::Dir(_) => Ok(vec![Change::Remove { path: path.clone() }]),
            Entry::Absent => Ok(Vec::new()),
            _ => Err(KeptBecause::ChangedSince),
        },
        Logged::Block { path, lines } => undo_block(made, path, lines, now),
        // systemd's own runtime files: their property's undo removes them too, and a boot forgets them.
        Logged::Remove { path } if path.as_str().starts_with(CONTROL_DIR) => Ok(Vec::new()),
        Logged::Remove { path } => match now.entry(path)? {
            Entry::Absent => restore(path, &made.before),
            _ => Err(KeptBecause::ChangedSince),
        },
        Logged::Destroy { .. } => Err(KeptBecause::Destroyed),
        Logged::Sysctl { key, value } => match (&made.before, now.sysctl(key)?) {
            (Before::Value(old), Some(current)) if old == current => Ok(Vec::new()),
            (Before::Value(old), Some(current)) if current == value => {
                Ok(vec![Change::Sysctl { key: key.clone(), value: old.clone() }])
            }
            (_, None) => Ok(Vec::new()),
            _ => Err(KeptBecause::ChangedSince),
        },
        Logged::Module { .. } => Err(KeptBecause::Module),
        Logged::Property { unit, name, value } => match (&made.before, now.unit(unit)?.and_then(|u| u.tasks_max)) {
            (_, None) => Ok(Vec::new()),
            (Before::Number(old), Some(current)) if *old == current => Ok(Vec::new()),
            (Before::Number(old), Some(current)) if current == *value => Ok(vec![
                Change::Property { unit: unit.clone(), name: *name, value: *old },
                Change::Remove { path: control_file(unit, name.as_str()) },
            ]),
            _ => Err(KeptBecause::ChangedSince),
        },
        Logged::Job { unit, verb } => undo_job(unit, *verb, &made.before, now),
    }
}

/// Where systemd keeps what was set with `SetUnitProperties` until the next boot.
const CONTROL_DIR: &str = "/run/systemd/system.control";

/// The file that systemd leaves behind `SetUnitProperties`, which would shadow a drop-in from the next reload on.
pub fn control_file(unit: &UnitName, property: &str) -> RootPath {
    RootPath::literal(CONTROL_DIR).join(&format!("{unit}.d/50-{property}.conf"))
}

/// `secret` says of a credential whether it is to be purged.
fn undo_put(
    made: &Made,
    path: &RootPath,
    sha256: &Sha256,
    secret: Option<bool>,
    now: &Seen,
) -> Result<Vec<Change>, KeptBecause> {
    let entry = now.entry(path)?;
    let digest = if matches!(entry, Entry::File { .. }) { now.digest(path)? } else { None };
    if is_before(entry, digest, &made.before) {
        return Ok(Vec::new());
    }
    // A purge that was killed between destroying and restoring goes on where it was.
    let destroyed = secret == Some(true) && matches!(entry, Entry::Absent);
    if digest != Some(sha256) && !destroyed {
        return Err(KeptBecause::ChangedSince);
    }
    match secret {
        None => restore(path, &made.before),
        Some(false) => Err(KeptBecause::Credential),
        Some(true) => purge_put(path, made, destroyed),
    }
}

/// Destroys a credential, then puts back what was there before unless that was a secret itself. One after the other: the
/// bytes that a Change replaces or removes are kept, and no key's may be.
fn purge_put(path: &RootPath, made: &Made, destroyed: bool) -> Result<Vec<Change>, KeptBecause> {
    let mut changes = Vec::new();
    if !destroyed {
        changes.push(Change::Destroy { path: path.clone() });
    }
    if !matches!(made.before, Before::Absent | Before::DigestOnly { .. }) {
        changes.extend(restore(path, &made.before)?);
    }
    Ok(changes)
}

fn undo_block(made: &Made, path: &RootPath, lines: &[String], now: &Seen) -> Result<Vec<Change>, KeptBecause> {
    let Some(text) = now.bytes(path)? else {
        return if made.before == Before::Absent { Ok(Vec::new()) } else { Err(KeptBecause::ChangedSince) };
    };
    let current = super::block::lines(text);
    let before = match &made.before {
        Before::Lines(before) => before.clone(),
        Before::Absent => None,
        _ => return Err(KeptBecause::NotRecorded),
    };
    if current == before {
        return Ok(Vec::new());
    }
    if current.as_deref() != Some(lines) {
        return Err(KeptBecause::ChangedSince);
    }
    let before = before.unwrap_or_default();
    // We made the file: it goes, unless others wrote into it since.
    if made.before == Before::Absent && super::block::with_lines(text, &[]).is_empty() {
        return Ok(vec![Change::Remove { path: path.clone() }]);
    }
    Ok(vec![Change::Block { path: path.clone(), lines: before }])
}

fn undo_job(unit: &UnitName, verb: Verb, before: &Before, now: &Seen) -> Result<Vec<Change>, KeptBecause> {
    let running = |active: &str| matches!(active, "active" | "activating" | "reloading");
    let Some(sight) = now.unit(unit)? else { return Ok(Vec::new()) };
    let Before::Unit { active, .. } = before else { return Ok(Vec::new()) };
    let verb = match (verb, running(active), running(&sight.active)) {
        (Verb::Start, false, true) => Verb::Stop,
        (Verb::Stop, true, false) => Verb::Start,
        _ => return Ok(Vec::new()),
    };
    Ok(vec![Change::Job { unit: unit.clone(), verb }])
}

/// Whether what is at a path is what was there before.
fn is_before(entry: &Entry, digest: Option<&Sha256>, before: &Before) -> bool {
    match (entry, before) {
        (Entry::Absent, Before::Absent) => true,
        (Entry::Link(to), Before::Link { to: old }) => to == old,
        (Entry::File { meta, .. }, Before::Kept { sha256, meta: old }) => digest == Some(sha256) && meta == old,
        _ => false,
    }
}

/// Puts back what was at a path, and the directory that held it.
fn restore(path: &RootPath, before: &Before) -> Result<Vec<Change>, KeptBecause> {
    let put_back = match before {
        Before::Absent => return Ok(vec![Change::Remove { path: path.clone() }]),
        Before::Link { to } => Change::Link { path: path.clone(), to: to.clone() },
        Before::Dir { meta } => Change::Dir { path: path.clone(), meta: *meta },
        Before::Kept { sha256, meta } => {
            Change::Put { path: path.clone(), body: Body::Kept(sha256.clone()), meta: *meta }
        }
        _ => return Err(KeptBecause::NotRecorded),
    };
    Ok(vec![Change::Dir { path: path.parent(), meta: Meta::PROGRAM }, put_back])
}
