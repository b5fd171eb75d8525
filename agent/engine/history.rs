//! What the ledger's records mean together. Pure.
//!
//! A **run** is one execution of a command that changed something. A **point** is the state that the machine was in when
//! a run had ended, named by the run's number; point 0 is before the first.

use std::collections::{BTreeMap, BTreeSet};

use super::change::{Debt, Verb};
use super::ledger::{Before, Logged, Made, Record};
use crate::config::values::{RootPath, Sha256};

/// The command that lifts a hold when it changes something.
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
    let undone = undone(records);
    let mut owed: Vec<(Debt, u64)> = Vec::new();
    for record in records {
        match record {
            // What was undone is owed no longer: the undoing is a Change that owes the same, or nothing had been done.
            Record::Change(made) if made.boot == boot && undone.get(&made.seq) != Some(&false) => {
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

/// The digests of all that was put at a path by Changes that stand. Not only of the last: a kill may have left an earlier.
pub fn written(records: &[Record], path: &RootPath) -> Vec<Sha256> {
    let put = standing(records).into_iter().filter_map(|made| match &made.change {
        Logged::Put { path: at, sha256, .. } if at == path => Some(sha256.clone()),
        _ => None,
    });
    put.collect()
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

/// Whether the state at the end of a run can be gone back to: there was such a run, and nothing that stood then was
/// undone since.
pub fn is_point(records: &[Record], point: u64) -> bool {
    let mut run = 0;
    let mut undone_since: BTreeSet<u64> = BTreeSet::new();
    for record in records {
        match record {
            Record::Run { run: number, .. } => run = *number,
            Record::Undone { seq, .. } if run > point => drop(undone_since.insert(*seq)),
            _ => {}
        }
    }
    // What was removed for good since, an old version of a program say, is not there to go back to.
    let destroyed: BTreeSet<&RootPath> = standing(records).into_iter().filter_map(destroyed_by(point)).collect();
    let gone = changes(records).any(|made| {
        let pruned = matches!(&made.change, Logged::Put { path, .. } if destroyed.contains(path));
        made.run <= point && (pruned || undone_since.contains(&made.seq))
    });
    runs(records).iter().any(|run| run.number == point) && !gone
}

fn destroyed_by<'r>(point: u64) -> impl Fn(&'r Made) -> Option<&'r RootPath> {
    move |made| match &made.change {
        Logged::Destroy { path } if made.run > point => Some(path),
        _ => None,
    }
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
pub fn last_run(records: &[Record]) -> Vec<&Made> {
    let undone = undone(records);
    let records = &records[..interrupted_undoing(records).unwrap_or(records.len())];
    let good: BTreeSet<u64> =
        self::runs(records).into_iter().filter(|run| run.done && !run.undoes()).map(|run| run.number).collect();
    let standing = standing(records);
    let counting: BTreeSet<u64> = standing.iter().filter(|made| brings_back(made)).map(|made| made.run).collect();
    let mut group: Vec<&Made> = Vec::new();
    let mut runs: BTreeSet<u64> = BTreeSet::new();
    for made in standing {
        // An earlier run belongs to the group unless it, or one since, came to a good end: then it was complete.
        if runs.first().is_some_and(|lowest| made.run < *lowest && good.range(made.run..*lowest).next().is_some()) {
            break;
        }
        // A renewal since is no run that anybody means who wants the last one undone.
        if counting.contains(&made.run) {
            runs.insert(made.run);
        }
        group.push(made);
    }
    group.retain(|made| !undone.contains_key(&made.seq));
    group
}

/// Whether undoing a Change brings anything back. A credential stays, and a restart is over: a renewal makes no others.
fn brings_back(made: &Made) -> bool {
    !matches!(made.change, Logged::Put { credential: true, .. } | Logged::Job { verb: Verb::Restart, .. })
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
    /// Whether it undid others.
    pub fn undoes(&self) -> bool {
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
/// What was undone is forgotten together with its undoing, and each renewal with the next. The last runs stay as they
/// are; all before them become one point: of each target, the state before its first Change and what its last Change
/// left. No debt may be owed.
pub fn compacted(records: &[Record]) -> Vec<Record> {
    let records = &renewals_merged(records);
    let left: BTreeSet<u64> = leftovers(records).iter().map(|made| made.seq).collect();
    let stand: BTreeSet<u64> = standing(records).iter().map(|made| made.seq).chain(left.iter().copied()).collect();
    let live: BTreeSet<u64> = changes(records).filter(|m| stand.contains(&m.seq)).map(|m| m.run).collect();
    let points: BTreeSet<u64> =
        changes(records).filter(|m| stand.contains(&m.seq) && brings_back(m)).map(|m| m.run).collect();
    let oldest_point = points.iter().rev().take(POINTS_KEPT).min().copied().unwrap_or(u64::MAX);
    let merged = |run: u64| run < oldest_point;
    // That a run came to a good end bounds the rollback of a later one, even if nothing of its own stands any more.
    let bounds: BTreeSet<u64> = runs(records).into_iter().filter(|r| r.done && !r.undoes()).map(|r| r.number).collect();
    let stays = |run: u64| !merged(run) && (live.contains(&run) || bounds.contains(&run));

    // What is left over is of no point any more: it stays as it is, and marked as it was.
    let apart = |made: &Made| stand.contains(&made.seq) && (!merged(made.run) || left.contains(&made.seq));
    // Undoing a restart is nothing, and merged with a start it would hide it.
    let restart = |made: &Made| matches!(made.change, Logged::Job { verb: Verb::Restart, .. });
    let old: Vec<&Made> = changes(records).filter(|m| stand.contains(&m.seq) && !apart(m) && !restart(m)).collect();
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
                if stays(run) {
                    compact.push(record.clone());
                }
            }
            Record::Change(made) if apart(made) => compact.push(record.clone()),
            Record::End { .. } if stays(run) => compact.push(record.clone()),
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

/// The records without what renewals left behind. Only the last of a credential's bytes are there, to whatever point one
/// goes back: so of all that were put at a path the last stands for the others, with what was there before the first.
/// A certificate of a day would fill the ledger otherwise, and its runs take the places of those that can be undone.
fn renewals_merged(records: &[Record]) -> Vec<Record> {
    let standing = standing(records);
    let mut dropped: BTreeSet<u64> = BTreeSet::new();
    let mut last: BTreeMap<&RootPath, (&Made, &Before)> = BTreeMap::new();
    for made in standing.iter().rev() {
        let Logged::Put { path, credential: true, .. } = &made.change else { continue };
        let first = match last.get(path) {
            Some(&(earlier, first)) if follows(&earlier.change, &made.before) => {
                dropped.insert(earlier.seq);
                first
            }
            _ => &made.before,
        };
        last.insert(path, (made, first));
    }
    // A run of which only restarts are left has nothing to show.
    let is_restart = |made: &Made| matches!(made.change, Logged::Job { verb: Verb::Restart, .. });
    let touched: BTreeSet<u64> = standing.iter().filter(|m| dropped.contains(&m.seq)).map(|m| m.run).collect();
    let rest = standing.iter().filter(|made| !dropped.contains(&made.seq) && !is_restart(made));
    let rest: BTreeSet<u64> = rest.map(|made| made.run).collect();
    let over = |made: &Made| is_restart(made) && touched.contains(&made.run) && !rest.contains(&made.run);
    dropped.extend(standing.iter().filter(|made| over(made)).map(|made| made.seq));

    let before: BTreeMap<u64, &Before> = last.into_values().map(|(made, first)| (made.seq, first)).collect();
    let kept = records.iter().filter(|r| !matches!(r, Record::Change(made) if dropped.contains(&made.seq)));
    let with_first = |record: &Record| match record {
        Record::Change(made) if before.contains_key(&made.seq) => {
            Record::Change(Box::new(Made { before: before[&made.seq].clone(), ..(**made).clone() }))
        }
        other => other.clone(),
    };
    kept.map(with_first).collect()
}

/// One Change per target, at the place of the target's first: so a directory still comes before what was put into it.
/// Where somebody else changed the target in between, what they had is to be restored, not what was before them: there
/// the later Change stays one of its own.
fn by_target(old: &[&Made], run: u64) -> Vec<Made> {
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut all: Vec<Made> = Vec::new();
    for made in old {
        let place = *places.entry(target(&made.change)).or_insert(all.len());
        match all.get_mut(place) {
            Some(first) if !follows(&first.change, &made.before) => {
                places.insert(target(&made.change), all.len());
                all.push(Made { run, ..(*made).clone() });
            }
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

/// Whether `before` is what `change` left.
fn follows(change: &Logged, before: &Before) -> bool {
    match (change, before) {
        (Logged::Put { sha256, meta, .. }, Before::Kept { sha256: then, meta: had }) => sha256 == then && meta == had,
        (Logged::Put { credential, .. }, Before::DigestOnly { .. }) => *credential,
        (Logged::Link { to, .. }, Before::Link { to: then }) => to == then,
        (Logged::Block { lines, .. }, Before::Lines(then)) => then.as_ref() == Some(lines),
        (Logged::Sysctl { value, .. }, Before::Value(then)) => value == then,
        (Logged::Property { value, .. }, Before::Number(then)) => value == then,
        (Logged::Rlimits { processes, .. }, Before::Limits(then)) => processes == then,
        // Starting twice is starting once; a directory that was made again is the same directory.
        (Logged::Job { .. } | Logged::Dir { .. } | Logged::Module { .. }, _)
        | (Logged::Remove { .. } | Logged::Destroy { .. }, Before::Absent) => true,
        _ => false,
    }
}

/// What a Change is made to. A file, a link and a removal have the same target when they have the same path; a
/// directory and our block in a shared file are targets of their own kind.
pub fn target(change: &Logged) -> String {
    match change {
        Logged::Put { path, .. } | Logged::Link { path, .. } | Logged::Remove { path } | Logged::Destroy { path } => {
            format!("entry {path}")
        }
        Logged::Dir { path, .. } => format!("directory {path}"),
        Logged::Block { path, .. } => format!("block {path}"),
        Logged::Sysctl { key, .. } => format!("sysctl {key}"),
        Logged::Module { name } => format!("module {name}"),
        Logged::Property { unit, name, .. } => format!("property {unit} {}", name.as_str()),
        Logged::Rlimits { unit, .. } => format!("limits of {unit}"),
        Logged::Job { unit, .. } => format!("job {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::values::UnitName;
    use crate::engine::change::Meta;
    use crate::engine::id::{Id, Step};

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
    fn a_failed_run_that_a_later_one_made_good_is_no_part_of_the_next_rollback() {
        let records = vec![
            run(1, "bootstrap"),
            change(1, 1, vec![]),
            Record::End { done: false },
            run(2, "bootstrap"),
            Record::End { done: true },
            run(3, "bootstrap"),
            change(2, 3, vec![]),
            Record::End { done: true },
        ];
        assert_eq!(last_run(&records).iter().map(|made| made.seq).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn compaction_keeps_what_somebody_else_had_and_that_a_unit_was_started() {
        let theirs = Before::Kept { sha256: Sha256::of(b"theirs"), meta: Meta::FILE };
        let unit = UnitName::literal("kubelet.service");
        let job = |seq, run, verb, active: &str| {
            let Record::Change(mut made) = change(seq, run, vec![]) else { unreachable!("a change") };
            made.change = Logged::Job { unit: unit.clone(), verb };
            made.before = Before::Unit { active: active.into(), invocation: String::new() };
            Record::Change(made)
        };
        let mut records = vec![run(1, "bootstrap"), change(1, 1, vec![]), job(2, 1, Verb::Start, "inactive")];
        records.extend([Record::End { done: true }, run(2, "bootstrap"), put(3, 2, "/x", theirs.clone(), vec![])]);
        records.extend([job(4, 2, Verb::Restart, "active"), Record::End { done: true }]);
        for later in 3..40 {
            let before = match later {
                3 => Before::Absent,
                _ => Before::Kept { sha256: Sha256::of(&(later + 1_u64).to_be_bytes()), meta: Meta::FILE },
            };
            records.extend([
                run(later, "bootstrap"),
                put(later + 2, later, "/y", before, vec![]),
                Record::End { done: true },
            ]);
        }
        let compact = compacted(&records);
        let kept: Vec<&Made> = changes(&compact).collect();
        assert!(kept.len() < 30, "{}", kept.len());
        assert!(kept.iter().any(|made| made.seq == 3 && made.before == theirs), "somebody else's file");
        let started = kept.iter().find(|made| made.seq == 2).expect("the start");
        assert!(matches!(started.change, Logged::Job { verb: Verb::Start, .. }), "{started:?}");
    }

    fn credential(seq: u64, run: u64, before: Before) -> Record {
        let Record::Change(mut made) = put(seq, run, "/pair.pem", before, vec![]) else { unreachable!("a change") };
        made.change = Logged::Put {
            path: RootPath::literal("/pair.pem"),
            sha256: Sha256::of(&seq.to_be_bytes()),
            meta: Meta::SECRET,
            credential: true,
        };
        Record::Change(made)
    }

    fn restart(seq: u64, run: u64) -> Record {
        let Record::Change(mut made) = change(seq, run, vec![]) else { unreachable!("a change") };
        made.change = Logged::Job { unit: UnitName::literal("kubelet.service"), verb: Verb::Restart };
        Record::Change(made)
    }

    /// A bootstrap, a second one, and then a renewal in each of these many runs.
    fn renewed(times: u64) -> Vec<Record> {
        let renewed = Before::DigestOnly { meta: Meta::SECRET };
        let end = || Record::End { done: true };
        let mut records = vec![run(1, "bootstrap"), change(1, 1, vec![]), credential(2, 1, Before::Absent), end()];
        records.extend([run(2, "bootstrap"), put(3, 2, "/y", Before::Absent, vec![]), end()]);
        for at in 3..3 + times {
            let (pair, job) = (credential(2 * at, at, renewed.clone()), restart(2 * at + 1, at));
            records.extend([run(at, "renew"), pair, job, end()]);
        }
        records
    }

    #[test]
    fn a_rollback_means_the_last_run_that_can_be_undone_and_no_renewal_since() {
        let seqs = |made: Vec<&Made>| made.iter().map(|made| made.seq).collect::<Vec<_>>();
        assert_eq!(seqs(last_run(&renewed(0))), [3]);
        assert_eq!(seqs(last_run(&renewed(2))), [9, 8, 7, 6, 3], "with the renewals, whose pairs a purge is to find");
    }

    #[test]
    fn renewals_neither_fill_the_ledger_nor_take_the_places_of_runs_that_can_be_undone() {
        let records = renewed(500);
        let compact = compacted(&records);
        let seqs: Vec<u64> = changes(&compact).map(|made| made.seq).collect();
        assert_eq!(seqs, [1, 3, 1004, 1005], "both bootstraps, and the last renewal");
        let pair = changes(&compact).find(|made| made.seq == 1004).expect("the last renewal");
        assert_eq!(pair.before, Before::Absent, "what was there before the first");
        assert!(is_point(&compact, 1) && is_point(&compact, 2));
        assert_eq!(last_run(&compact).last().map(|made| made.seq), Some(3));
        assert_eq!(compacted(&compact), compact);
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
        assert_eq!(seqs(last_run(&records)), [3, 2]);
        assert_eq!(seqs(since(&records, 2)), [3]);
        assert_eq!(seqs(since(&records, 0)), [3, 2, 1]);
        records.extend([run(5, "rollback"), change(4, 5, vec![]), Record::Undone { seq: 3, stays: false }]);
        assert_eq!(seqs(last_run(&records)), [2], "a rollback that was killed goes on where it stopped");
        records.extend([Record::Undone { seq: 2, stays: false }]);
        assert_eq!(seqs(last_run(&records)), [] as [u64; 0], "nor does it go further when nothing is left");
        records.extend([run(6, "rollback")]);
        assert_eq!(seqs(last_run(&records)), [] as [u64; 0], "nor when it was killed twice");
        records.extend([Record::End { done: true }]);
        assert_eq!(seqs(last_run(&records)), [1], "the next rollback goes one bootstrap further back");
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
            let last = |records: &[Record]| last_run(records).into_iter().cloned().collect::<Vec<_>>();
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
