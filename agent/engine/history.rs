//! What the ledger's records mean together. Pure.
//!
//! A **run** is one execution of a command that changed something. A **point** is the state that the machine was in when
//! a run had ended, named by the run's number; point 0 is before the first.

use std::collections::{BTreeMap, BTreeSet};

use super::change::Debt;
use super::ledger::{Logged, Made, Record};
use crate::config::values::Sha256;

/// The command whose runs a rollback undoes as one, however often it was killed and run again.
pub const BOOTSTRAP: &str = "bootstrap";
/// The commands that undo. Their own Changes are never undone.
pub const ROLLBACK: &str = "rollback";
/// See [`ROLLBACK`].
pub const UNINSTALL: &str = "uninstall";

/// How many runs stay points of their own when the ledger is compacted.
const POINTS_KEPT: usize = 20;

/// The Changes among the records, in their order.
pub fn changes(records: &[Record]) -> impl DoubleEndedIterator<Item = &Made> {
    records.iter().filter_map(|record| if let Record::Change(made) = record { Some(made.as_ref()) } else { None })
}

/// The debts that are still owed in this boot, each with the Change that owes it last.
///
/// A boot pays all earlier ones: whatever starts in it reads what is on the disk.
pub fn debts(records: &[Record], boot: &str) -> Vec<(Debt, u64)> {
    let mut owed: Vec<(Debt, u64)> = Vec::new();
    for record in records {
        match record {
            Record::Change(made) if made.boot == boot => {
                for debt in &made.owes {
                    owed.retain(|(other, _)| other != debt);
                    owed.push((debt.clone(), made.seq));
                }
            }
            Record::Paid { debt } => owed.retain(|(other, _)| other != debt),
            _ => {}
        }
    }
    owed
}

/// The hold that the last rollback left, unless a later `--resume` or bootstrap lifted it: the configuration's digest
/// then, and when.
pub fn hold(records: &[Record]) -> Option<(&Option<Sha256>, u64)> {
    let mut held = None;
    for record in records {
        match record {
            Record::Hold { config, at } => held = Some((config, *at)),
            Record::Resume => held = None,
            Record::Run { command, .. } if command == BOOTSTRAP => held = None,
            _ => {}
        }
    }
    held
}

/// The Changes that stand, last first: neither undone, nor themselves the undoing of others.
pub fn standing(records: &[Record]) -> Vec<&Made> {
    let undone = undone(records);
    let undoing: BTreeSet<u64> = runs(records).into_iter().filter(Run::undoes).map(|run| run.number).collect();
    changes(records).rev().filter(|made| !undone.contains_key(&made.seq) && !undoing.contains(&made.run)).collect()
}

/// The Changes that were undone but whose work stays and is still ours, last first.
pub fn leftovers(records: &[Record]) -> Vec<&Made> {
    let undone = undone(records);
    changes(records).rev().filter(|made| undone.get(&made.seq) == Some(&true)).collect()
}

/// By the number of each Change that was undone: whether its work stays.
fn undone(records: &[Record]) -> BTreeMap<u64, bool> {
    let undone =
        records.iter().filter_map(|r| if let Record::Undone { seq, stays } = r { Some((*seq, *stays)) } else { None });
    undone.collect()
}

/// The Changes that stand and were made after a point, last first.
pub fn since(records: &[Record], point: u64) -> Vec<&Made> {
    standing(records).into_iter().filter(|made| made.run > point).collect()
}

/// Where the undoing begins that did not come to its end and after which nothing else was done: the index of its run,
/// the first one if it was killed more than once.
pub fn interrupted_undoing(records: &[Record]) -> Option<usize> {
    let ended = runs(records).into_iter().rev().take_while(|run| run.undoes() && !run.done).last()?.number;
    records.iter().position(|record| matches!(record, Record::Run { run, .. } if *run == ended))
}

/// The Changes that a rollback undoes, last first: those of the last run that changed something, and of the runs before
/// it that never came to a good end and that it therefore continued.
///
/// A rollback after one that was killed undoes what is left of the same bootstrap, even if that is nothing: it must not
/// go one bootstrap further back.
pub fn last_bootstrap(records: &[Record]) -> Vec<&Made> {
    let undone = undone(records);
    let records = &records[..interrupted_undoing(records).unwrap_or(records.len())];
    let good: BTreeSet<u64> = self::runs(records).into_iter().filter(|run| run.done).map(|run| run.number).collect();
    let mut group: Vec<&Made> = Vec::new();
    let mut runs: BTreeSet<u64> = BTreeSet::new();
    for made in standing(records) {
        // An earlier run belongs to the group unless it came to a good end: then it was a bootstrap of its own.
        if !runs.contains(&made.run) && !runs.is_empty() && good.contains(&made.run) {
            break;
        }
        runs.insert(made.run);
        group.push(made);
    }
    group.retain(|made| !undone.contains_key(&made.seq));
    group
}

/// One run, as the ledger knows it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Run {
    /// Its number, which also names the point at its end.
    pub number: u64,
    /// The command.
    pub command: String,
    /// When it began, in seconds since the epoch.
    pub at: u64,
    /// Whether it came to a good end.
    pub done: bool,
    /// Its Changes that stand.
    pub standing: usize,
}

impl Run {
    fn undoes(&self) -> bool {
        [ROLLBACK, UNINSTALL].contains(&self.command.as_str())
    }
}

/// All runs, in their order.
pub fn runs(records: &[Record]) -> Vec<Run> {
    let undone = undone(records);
    let mut all: Vec<Run> = Vec::new();
    for record in records {
        match (record, all.last_mut()) {
            (Record::Run { run, command, at, .. }, _) => {
                all.push(Run { number: *run, command: command.clone(), at: *at, done: false, standing: 0 });
            }
            (Record::End { done }, Some(last)) => last.done = *done,
            (Record::Change(made), Some(last)) if !undone.contains_key(&made.seq) => last.standing += 1,
            _ => {}
        }
    }
    all
}

/// Records that mean the same for every undo, but fewer.
///
/// What was undone is forgotten together with its undoing. The last runs stay as they are; all before them become one
/// point: of each target, the state before its first Change and what its last Change left. No debt may be owed.
pub fn compacted(records: &[Record]) -> Vec<Record> {
    let left: BTreeSet<u64> = leftovers(records).iter().map(|made| made.seq).collect();
    let stand: BTreeSet<u64> = standing(records).iter().map(|made| made.seq).chain(left.iter().copied()).collect();
    let live: BTreeSet<u64> = changes(records).filter(|m| stand.contains(&m.seq)).map(|m| m.run).collect();
    let own_points: BTreeSet<u64> = live.iter().rev().take(POINTS_KEPT).copied().collect();
    let merged = |run: u64| !own_points.contains(&run);

    // What is left over is of no point any more: it stays as it is, and marked as it was.
    let apart = |made: &Made| stand.contains(&made.seq) && (!merged(made.run) || left.contains(&made.seq));
    let old: Vec<&Made> = changes(records).filter(|m| stand.contains(&m.seq) && !apart(m)).collect();
    let mut compact = Vec::new();
    let begin =
        |run: u64| records.iter().find(|r| matches!(r, Record::Run { run: number, .. } if *number == run)).cloned();
    if let Some(last) = old.last() {
        compact.extend(begin(last.run));
        compact.extend(by_target(&old, last.run).into_iter().map(|made| Record::Change(Box::new(made))));
        compact.push(Record::End { done: true });
    }
    let mut run = 0;
    for record in records {
        match record {
            Record::Run { run: number, .. } => {
                run = *number;
                if !merged(run) {
                    compact.push(record.clone());
                }
            }
            Record::Change(made) if apart(made) => compact.push(record.clone()),
            Record::End { .. } if !merged(run) => compact.push(record.clone()),
            _ => {}
        }
    }
    compact.extend(left.into_iter().map(|seq| Record::Undone { seq, stays: true }));
    let owed: BTreeSet<Debt> = changes(&compact).flat_map(|made| made.owes.iter().cloned()).collect();
    compact.extend(owed.into_iter().map(|debt| Record::Paid { debt }));
    if let Some((config, at)) = hold(records) {
        compact.push(Record::Hold { config: config.clone(), at });
    }
    compact
}

/// One Change per target, at the place of the target's first: so a directory still comes before what was put into it.
fn by_target(old: &[&Made], run: u64) -> Vec<Made> {
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut all: Vec<Made> = Vec::new();
    for made in old {
        let place = *places.entry(target(&made.change)).or_insert(all.len());
        match all.get_mut(place) {
            None => all.push(Made { run, ..(*made).clone() }),
            Some(first) => {
                first.change = made.change.clone();
                for debt in &made.owes {
                    if !first.owes.contains(debt) {
                        first.owes.push(debt.clone());
                    }
                }
            }
        }
    }
    all
}

/// What a Change is made to. A file, a link and a removal have the same target when they have the same path; a
/// directory and our block in a shared file are targets of their own kind.
fn target(change: &Logged) -> String {
    match change {
        Logged::Put { path, .. } | Logged::Link { path, .. } | Logged::Remove { path } | Logged::Destroy { path } => {
            format!("entry {path}")
        }
        Logged::Dir { path, .. } => format!("directory {path}"),
        Logged::Block { path, .. } => format!("block {path}"),
        Logged::Sysctl { key, .. } => format!("sysctl {key}"),
        Logged::Module { name } => format!("module {name}"),
        Logged::Property { unit, name, .. } => format!("property {unit} {}", name.as_str()),
        Logged::Job { unit, .. } => format!("job {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::values::{RootPath, UnitName};
    use crate::engine::change::Meta;
    use crate::engine::id::{Id, Step};
    use crate::engine::ledger::Before;

    fn change(seq: u64, run: u64, owes: Vec<Debt>) -> Record {
        put(seq, run, "/x", Before::Absent, owes)
    }

    fn put(seq: u64, run: u64, path: &str, before: Before, owes: Vec<Debt>) -> Record {
        Record::Change(Box::new(Made {
            seq,
            run,
            boot: "boot-1".into(),
            id: Id::new(Step::Kernel, "x"),
            change: Logged::Put {
                path: RootPath::literal(path),
                sha256: Sha256::of(&seq.to_be_bytes()),
                meta: Meta::FILE,
                credential: false,
            },
            before,
            owes,
        }))
    }

    fn run(run: u64, command: &str) -> Record {
        Record::Run { run, boot: "boot-1".into(), at: 0, command: command.into(), config: None }
    }

    #[test]
    fn debts_last_until_paid_or_a_boot() {
        let restart = Debt::Restart(UnitName::literal("kubelet.service"));
        let records = vec![
            change(1, 1, vec![Debt::DaemonReload, restart.clone()]),
            Record::Paid { debt: Debt::DaemonReload },
            change(2, 1, vec![restart.clone()]),
        ];
        assert_eq!(debts(&records, "boot-1"), vec![(restart, 2)]);
        assert_eq!(debts(&records, "boot-2"), vec![]);
    }

    #[test]
    fn a_rollback_reaches_back_over_runs_that_were_killed() {
        let mut records = vec![
            run(1, "bootstrap"),
            change(1, 1, vec![]),
            Record::End { done: true },
            run(2, "bootstrap"),
            change(2, 2, vec![]),
            run(3, "bootstrap"),
            change(3, 3, vec![]),
            Record::End { done: true },
            run(4, "bootstrap"),
            Record::End { done: true },
        ];
        let seqs = |made: Vec<&Made>| made.iter().map(|made| made.seq).collect::<Vec<_>>();
        assert_eq!(seqs(last_bootstrap(&records)), [3, 2]);
        assert_eq!(seqs(since(&records, 2)), [3]);
        assert_eq!(seqs(since(&records, 0)), [3, 2, 1]);
        records.extend([run(5, "rollback"), change(4, 5, vec![]), Record::Undone { seq: 3, stays: false }]);
        assert_eq!(seqs(last_bootstrap(&records)), [2], "a rollback that was killed goes on where it stopped");
        records.extend([Record::Undone { seq: 2, stays: false }]);
        assert_eq!(seqs(last_bootstrap(&records)), [] as [u64; 0], "nor does it go further when nothing is left");
        records.extend([run(6, "rollback")]);
        assert_eq!(seqs(last_bootstrap(&records)), [] as [u64; 0], "nor when it was killed twice");
        records.extend([Record::End { done: true }]);
        assert_eq!(seqs(last_bootstrap(&records)), [1], "the next rollback goes one bootstrap further back");
    }

    /// The machine as a map from path to content, with the digest of the last Put in it.
    fn restored(records: &[Record], point: u64) -> BTreeMap<String, Before> {
        since(records, point).iter().map(|made| (target(&made.change), made.before.clone())).collect()
    }

    proptest! {
        /// Whatever was put, undone and put again: compaction changes neither what an uninstall brings back, nor what
        /// the last rollback does, nor what is left where.
        #[test]
        fn compaction_keeps_the_meaning(steps in prop::collection::vec((0_usize..5, any::<bool>(), any::<bool>(), any::<bool>()), 1..80)) {
            let mut records = Vec::new();
            let mut now: BTreeMap<String, Option<Sha256>> = BTreeMap::new();
            for (at, (path, good, undo, stays)) in (1_u64..).zip(&steps) {
                let path = format!("/file-{path}");
                let before = match now.get(&path).cloned().flatten() {
                    Some(sha256) => Before::Kept { sha256, meta: Meta::FILE },
                    None => Before::Absent,
                };
                records.extend([run(2 * at, "bootstrap"), put(2 * at, 2 * at, &path, before.clone(), vec![Debt::DaemonReload])]);
                records.push(Record::Paid { debt: Debt::DaemonReload });
                if *good {
                    records.push(Record::End { done: true });
                }
                if *undo {
                    let back = put(2 * at + 1, 2 * at + 1, &path, Before::Absent, vec![]);
                    records.extend([run(2 * at + 1, "rollback"), back, Record::Undone { seq: 2 * at, stays: *stays }, Record::End { done: true }]);
                } else {
                    now.insert(path, Some(Sha256::of(&(2 * at).to_be_bytes())));
                }
            }
            let compact = compacted(&records);
            prop_assert!(compact.len() <= records.len() + 1);
            prop_assert_eq!(restored(&compact, 0), restored(&records, 0));
            let last = |records: &[Record]| last_bootstrap(records).into_iter().cloned().collect::<Vec<_>>();
            // Runs that became one point are one bootstrap from then on; the ones that stay are undone as before.
            let kept_apart = last(&records).iter().all(|made| changes(&compact).any(|other| other == made));
            if kept_apart {
                prop_assert_eq!(last(&compact), last(&records));
            }
            let left = |records: &[Record]| leftovers(records).into_iter().cloned().collect::<Vec<_>>();
            prop_assert_eq!(left(&compact), left(&records));
            prop_assert_eq!(debts(&compact, "boot-1"), vec![]);
            let after = |records: &[Record]| changes(records).map(|m| (target(&m.change), m.change.clone())).collect::<BTreeMap<_, _>>();
            let standing_after = |records: &[Record]| {
                let stand: Vec<Record> = standing(records).into_iter().rev().map(|m| Record::Change(Box::new(m.clone()))).collect();
                after(&stand)
            };
            prop_assert_eq!(standing_after(&compact), standing_after(&records));
            prop_assert_eq!(compacted(&compact), compact.clone(), "doing it again changes nothing");
        }
    }
}
