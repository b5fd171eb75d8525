//! The ledger read backwards: what would undo a Change, given the machine now. Pure, and the same when asked again.

use super::change::{Body, Change, Meta, ProcessLimit, Verb};
use super::record::{Before, Logged, Made};
use super::resource::{CannotTell, Seen, Thing};
use super::seal;
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
    /// Something that was removed for good.
    #[error("it was removed for good, and cannot come back")]
    Destroyed,
    /// The machine could not be read.
    #[error(transparent)]
    CannotTell(#[from] CannotTell),
}

/// What [`undo`] wants to see.
pub fn reads(made: &Made) -> Vec<Thing> {
    match &made.change {
        Logged::Put { path, .. } if seal::is_sealed(path) => {
            vec![Thing::File(path.clone()), Thing::Digest(path.clone())]
        }
        Logged::Put { path, .. } => vec![Thing::Stat(path.clone()), Thing::Digest(path.clone())],
        Logged::Block { path, .. } => vec![Thing::File(path.clone())],
        Logged::Link { path, .. } | Logged::Dir { path, .. } | Logged::Remove { path } | Logged::Destroy { path } => {
            vec![Thing::Stat(path.clone())]
        }
        Logged::Sysctl { key, .. } => vec![Thing::Sysctl(key.clone())],
        Logged::Module { .. } => Vec::new(),
        Logged::Rlimits { unit, .. } => vec![Thing::Processes(unit.clone())],
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
        Logged::Rlimits { unit, processes } => match &made.before {
            Before::Limits(before) => undo_rlimits(unit, processes, before, now),
            _ => Err(KeptBecause::NotRecorded),
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
    let sealed = matches!(entry, Entry::File { bytes: Some(bytes), .. } if seal::holds(bytes));
    if digest != Some(sha256) && !destroyed && !sealed {
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

/// Processes that ended, or whose limits somebody changed since, are left alone.
fn undo_rlimits(
    unit: &UnitName,
    ours: &[ProcessLimit],
    before: &[ProcessLimit],
    now: &Seen,
) -> Result<Vec<Change>, KeptBecause> {
    let Some(sight) = now.processes(unit)? else { return Ok(Vec::new()) };
    let holds = |wanted: &ProcessLimit| sight.limit(wanted) == Some(wanted.limit);
    let again = |old: &&ProcessLimit| {
        let same = |new: &&ProcessLimit| (new.pid, new.started, new.rlimit) == (old.pid, old.started, old.rlimit);
        !holds(old) && ours.iter().find(same).is_some_and(holds)
    };
    let processes: Vec<ProcessLimit> = before.iter().filter(again).cloned().collect();
    if processes.is_empty() {
        return Ok(Vec::new());
    }
    Ok(vec![Change::Rlimits { unit: unit.clone(), processes }])
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::engine::id::{Id, Step};
    use crate::host::seen::{Sight, Stamp, UnitSight};

    const PATH: &str = "/etc/file";

    /// A case, what was made, the bytes that are there now, whether to purge, and what is to be done.
    type Row<'a> = (&'a str, Made, Option<&'a [u8]>, bool, Result<Vec<&'a str>, KeptBecause>);

    fn made(change: Logged, before: Before) -> Made {
        let id = Id::new(Step::Units, "x");
        Made { seq: 1, run: 1, boot: "b".into(), id, change, before, owes: Vec::new() }
    }

    fn ours() -> Sha256 {
        Sha256::of(b"ours")
    }

    fn put(credential: bool, before: Before) -> Made {
        let path = RootPath::literal(PATH);
        made(Logged::Put { path, sha256: ours(), meta: Meta::FILE, credential }, before)
    }

    /// The machine with a file of these bytes at the path, or with nothing there.
    fn file(bytes: Option<&[u8]>) -> Seen {
        let stamp = Stamp { size: 0, inode: 0, mtime_ns: 0, ctime_ns: 0 };
        let entry = bytes.map_or(Entry::Absent, |_| Entry::File { meta: Meta::FILE, stamp, bytes: None });
        let path = RootPath::literal(PATH);
        Seen(BTreeMap::from([
            (Thing::Stat(path.clone()), Ok(Sight::Entry(entry))),
            (Thing::Digest(path), Ok(Sight::Digest(bytes.map(Sha256::of)))),
        ]))
    }

    fn names(changes: &[Change]) -> Vec<&'static str> {
        let name = |change: &Change| match change {
            Change::Put { .. } => "put",
            Change::Dir { .. } => "dir",
            Change::Remove { .. } => "remove",
            Change::Destroy { .. } => "destroy",
            Change::Job { verb: Verb::Stop, .. } => "stop",
            _ => "other",
        };
        changes.iter().map(name).collect()
    }

    #[test]
    fn a_file_goes_back_unless_somebody_else_has_it_now() {
        let old = || Before::Kept { sha256: Sha256::of(b"old"), meta: Meta::FILE };
        let table: [Row<'_>; 9] = [
            ("ours, was absent", put(false, Before::Absent), Some(b"ours"), false, Ok(vec!["remove"])),
            ("ours, was there", put(false, old()), Some(b"ours"), false, Ok(vec!["dir", "put"])),
            ("undone already", put(false, old()), Some(b"old"), false, Ok(vec![])),
            ("gone already", put(false, Before::Absent), None, false, Ok(vec![])),
            ("theirs now", put(false, old()), Some(b"theirs"), false, Err(KeptBecause::ChangedSince)),
            ("a key", put(true, Before::Absent), Some(b"ours"), false, Err(KeptBecause::Credential)),
            ("a key, purged", put(true, Before::Absent), Some(b"ours"), true, Ok(vec!["destroy"])),
            ("a key, purged before", put(true, Before::Absent), None, true, Ok(vec![])),
            (
                "too little recorded",
                put(false, Before::DigestOnly { meta: Meta::FILE }),
                Some(b"ours"),
                false,
                Err(KeptBecause::NotRecorded),
            ),
        ];
        for (case, made, now, purge, want) in table {
            let got = undo(&made, &file(now), purge).map(|changes| names(&changes));
            assert_eq!(got, want, "{case}");
        }
    }

    #[test]
    fn a_sealed_file_is_ours_though_another_than_the_ledger_knows() {
        let path = RootPath::literal("/etc/network-environment");
        let change = Logged::Put { path: path.clone(), sha256: ours(), meta: Meta::FILE, credential: false };
        let made = made(change, Before::Absent);
        assert_eq!(reads(&made), [Thing::File(path.clone()), Thing::Digest(path.clone())]);
        let refreshed = seal::seal("DEFAULT_IPV4=10.0.0.2\n");
        let edited = refreshed.replace("0.2", "0.3");
        let cases = [(&refreshed, Ok(vec!["remove"])), (&edited, Err(KeptBecause::ChangedSince))];
        for (text, want) in cases {
            let bytes = text.as_bytes();
            let stamp = Stamp { size: 0, inode: 0, mtime_ns: 0, ctime_ns: 0 };
            let entry = Entry::File { meta: Meta::FILE, stamp, bytes: Some(bytes.into()) };
            let now = Seen(BTreeMap::from([
                (Thing::File(path.clone()), Ok(Sight::Entry(entry))),
                (Thing::Digest(path.clone()), Ok(Sight::Digest(Some(Sha256::of(bytes))))),
            ]));
            assert_eq!(undo(&made, &now, false).map(|changes| names(&changes)), want, "{text:?}");
        }
    }

    #[test]
    fn what_could_not_be_seen_is_neither_undone_nor_kept() {
        let mut seen = file(Some(b"ours"));
        seen.0.insert(Thing::Digest(RootPath::literal(PATH)), Err(CannotTell::new(PATH, "the disk fails")));
        assert!(matches!(undo(&put(false, Before::Absent), &seen, false), Err(KeptBecause::CannotTell(_))));
    }

    #[test]
    fn systemds_own_runtime_file_is_not_put_back() {
        let path = control_file(&UnitName::literal("kubelet.service"), "TasksMax");
        let before = Before::Kept { sha256: ours(), meta: Meta::FILE };
        let undone = undo(&made(Logged::Remove { path }, before), &Seen::default(), false);
        assert_eq!(undone.map(|changes| names(&changes)), Ok(vec![]));
    }

    #[test]
    fn limits_go_back_for_the_processes_that_still_have_ours() {
        use crate::config::settings::Rlimit;
        use crate::config::values::Limit;
        use crate::host::seen::{ProcessSight, ProcessesSight};

        let unit = UnitName::literal("etcd.service");
        let of = |pid, soft| {
            let limit = Limit { soft, hard: 9 };
            ProcessLimit { pid, started: 1, rlimit: Rlimit::Core, limit }
        };
        let before = [of(1, 2), of(2, 2), of(3, 2), of(4, 2)];
        let ours = vec![of(1, 5), of(2, 5), of(3, 5), of(4, 5)];
        let process = |pid, started, soft| ProcessSight { pid, started, rlimits: vec![(Rlimit::Core, soft, 9)] };
        // Still ours; changed since; another process under the same number; undone already.
        let all = vec![process(1, 1, 5), process(2, 1, 7), process(3, 8, 5), process(4, 1, 2)];
        let sight = ProcessesSight { may_raise: true, most_files: 9, all };
        let seen = Seen(BTreeMap::from([(Thing::Processes(unit.clone()), Ok(Sight::Processes(Some(sight))))]));
        let made = made(Logged::Rlimits { unit, processes: ours }, Before::Limits(before.to_vec()));
        let undone = undo(&made, &seen, false).expect("it can be told");
        let [Change::Rlimits { processes, .. }] = undone.as_slice() else { panic!("{undone:?}") };
        assert_eq!(processes.as_slice(), &before[..1]);
    }

    #[test]
    fn a_unit_that_we_started_is_stopped_and_no_other() {
        let unit = UnitName::literal("kubelet.service");
        let state = |active: &str| Before::Unit { active: active.into(), invocation: String::new() };
        let sight = |active: &str| {
            let sight = UnitSight {
                active: active.into(),
                sub: String::new(),
                invocation: String::new(),
                tasks_max: None,
                rlimits: Vec::new(),
            };
            Seen(BTreeMap::from([(Thing::Unit(unit.clone()), Ok(Sight::Unit(Some(sight))))]))
        };
        for (verb, before, now, want) in [
            (Verb::Start, "inactive", "active", vec!["stop"]),
            (Verb::Start, "inactive", "inactive", vec![]),
            (Verb::Start, "active", "active", vec![]),
            (Verb::Restart, "active", "active", vec![]),
        ] {
            let made = made(Logged::Job { unit: unit.clone(), verb }, state(before));
            let undone = undo(&made, &sight(now), false);
            assert_eq!(undone.map(|changes| names(&changes)), Ok(want), "{verb} {before} {now}");
        }
    }
}
