//! Making the ledger's records fewer. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::change::{Debt, Verb};
use super::history::{Run, brings_back, changes, hold, leftovers, runs, standing, target};
use super::record::{Before, Logged, Made, Record};
use crate::config::values::RootPath;

/// How many runs stay points of their own when the ledger is compacted.
const POINTS_KEPT: usize = 20;

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
    let bounds: BTreeSet<u64> = runs(records).into_iter().filter(Run::bounds).map(|r| r.number).collect();
    let stays = |run: u64| !merged(run) && (live.contains(&run) || bounds.contains(&run));

    // What is left over is of no point any more: it stays as it is, and marked as it was.
    let apart = |made: &Made| stand.contains(&made.seq) && (!merged(made.run) || left.contains(&made.seq));
    // Undoing a restart is nothing, and merged with a start it would hide it.
    let restart = |made: &Made| matches!(made.change, Logged::Job { verb: Verb::Restart, .. });
    let old: Vec<&Made> = changes(records).filter(|m| stand.contains(&m.seq) && !apart(m) && !restart(m)).collect();
    let mut compact = Vec::new();
    let begin =
        |run: u64| records.iter().find(|r| matches!(r, Record::Run { run: number, .. } if *number == run)).cloned();
    // The point is the last of them that bounds a later rollback, even if all that it did was undone: else a renewal before
    // it would become a part of the run after it.
    let bound = bounds.iter().rev().copied().find(|run| merged(*run));
    if let Some(point) = old.last().map(|last| bound.unwrap_or(last.run)) {
        compact.extend(begin(point));
        compact.extend(by_target(&old, point).into_iter().map(|made| Record::Change(Box::new(made))));
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::values::{Sha256, UnitName};
    use crate::engine::change::Meta;
    use crate::engine::history::testing::{change, credential, put, renewed, run};
    use crate::engine::history::{debts, is_point, last_run, since};

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

    #[test]
    fn renewals_neither_fill_the_ledger_nor_take_the_places_of_runs_that_can_be_undone() {
        let records = renewed(500);
        let compact = compacted(&records);
        let seqs: Vec<u64> = changes(&compact).map(|made| made.seq).collect();
        assert_eq!(seqs, [1, 3, 1004, 1005], "both bootstraps, and the last renewal");
        assert!(compact.len() < 12, "{compact:?}");
        let pair = changes(&compact).find(|made| made.seq == 1004).expect("the last renewal");
        assert_eq!(pair.before, Before::Absent, "what was there before the first");
        assert!(is_point(&compact, 1) && is_point(&compact, 2));
        assert_eq!(last_run(&compact).last().map(|made| made.seq), Some(3));
        assert_eq!(compacted(&compact), compact);
    }

    #[test]
    fn a_bootstrap_that_was_undone_still_parts_a_renewal_from_the_run_after_it() {
        let kept = Before::Kept { sha256: Sha256::of(&4_u64.to_be_bytes()), meta: Meta::FILE };
        let mut records = vec![run(2, "renew"), credential(2, 2, Before::Absent)];
        records.extend([run(4, "bootstrap"), put(4, 4, "/x", Before::Absent, vec![]), Record::End { done: true }]);
        records.extend([run(5, "rollback"), put(5, 5, "/x", kept, vec![])]);
        records.extend([Record::Undone { seq: 4, stays: false }, Record::End { done: true }]);
        records.extend([run(6, "bootstrap"), put(6, 6, "/x", Before::Absent, vec![])]);
        let last = |records: &[Record]| last_run(records).iter().map(|made| made.seq).collect::<Vec<_>>();
        assert_eq!(last(&records), [6]);
        let compact = compacted(&records);
        assert_eq!(last(&compact), [6]);
        assert_eq!(compacted(&compact), compact);
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
                // One of them is a pair that renewals replace.
                let renews = *path == 4;
                let path = if renews { "/pair.pem".to_owned() } else { format!("/file-{path}") };
                let before = match now.get(&path).cloned().flatten() {
                    Some(_) if renews => Before::DigestOnly { meta: Meta::SECRET },
                    Some(sha256) => Before::Kept { sha256, meta: Meta::FILE },
                    None => Before::Absent,
                };
                let made = if renews {
                    [run(2 * at, "renew"), credential(2 * at, 2 * at, before.clone())]
                } else {
                    [run(2 * at, "bootstrap"), put(2 * at, 2 * at, &path, before.clone(), vec![Debt::DaemonReload])]
                };
                records.extend(made);
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
