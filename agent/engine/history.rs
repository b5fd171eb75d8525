//! What the ledger's records mean together. Pure.
//!
//! A **run** is one execution of a command that changed something. A **point** is the state that the machine was in when
//! a run had ended, named by the run's number; point 0 is before the first.

use std::collections::{BTreeMap, BTreeSet};

use super::change::{Debt, Verb};
use super::record::{Logged, Made, Record};
use crate::config::values::{RootPath, Sha256};

/// The command that lifts a hold when it changes something.
pub const BOOTSTRAP: &str = "bootstrap";
/// The command that renews certificates.
pub const RENEW: &str = "renew";
/// The commands that undo. Their own Changes are never undone.
pub const ROLLBACK: &str = "rollback";
/// See [`ROLLBACK`].
pub const UNINSTALL: &str = "uninstall";

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
    let good: BTreeSet<u64> = self::runs(records).into_iter().filter(Run::bounds).map(|run| run.number).collect();
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
pub(super) fn brings_back(made: &Made) -> bool {
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

    /// Whether what was left incomplete before it was complete at its end, so that no later run continued it.
    pub(super) fn bounds(&self) -> bool {
        self.done && !self.undoes() && self.command != RENEW
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

/// Records for tests.
#[cfg(test)]
pub(super) mod testing {
    use super::*;
    use crate::config::values::UnitName;
    use crate::engine::change::Meta;
    use crate::engine::id::{Id, Step};
    use crate::engine::record::Before;

    pub fn change(seq: u64, run: u64, owes: Vec<Debt>) -> Record {
        put(seq, run, "/x", Before::Absent, owes)
    }

    pub fn put(seq: u64, run: u64, path: &str, before: Before, owes: Vec<Debt>) -> Record {
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

    pub fn run(run: u64, command: &str) -> Record {
        Record::Run { run, boot: "boot-1".into(), at: 0, command: command.into(), config: None }
    }

    pub fn credential(seq: u64, run: u64, before: Before) -> Record {
        let Record::Change(mut made) = put(seq, run, "/pair.pem", before, vec![]) else { unreachable!("a change") };
        made.change = Logged::Put {
            path: RootPath::literal("/pair.pem"),
            sha256: Sha256::of(&seq.to_be_bytes()),
            meta: Meta::SECRET,
            credential: true,
        };
        Record::Change(made)
    }

    pub fn restart(seq: u64, run: u64) -> Record {
        let Record::Change(mut made) = change(seq, run, vec![]) else { unreachable!("a change") };
        made.change = Logged::Job { unit: UnitName::literal("kubelet.service"), verb: Verb::Restart };
        Record::Change(made)
    }

    /// A bootstrap, a second one, and then a renewal in each of these many runs.
    pub fn renewed(times: u64) -> Vec<Record> {
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
}

#[cfg(test)]
mod tests {
    use super::testing::{change, renewed, run};
    use super::*;
    use crate::config::values::UnitName;

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
    fn a_rollback_means_the_last_run_that_can_be_undone_and_no_renewal_since() {
        let seqs = |made: Vec<&Made>| made.iter().map(|made| made.seq).collect::<Vec<_>>();
        assert_eq!(seqs(last_run(&renewed(0))), [3]);
        assert_eq!(seqs(last_run(&renewed(2))), [9, 8, 7, 6, 3], "with the renewals, whose pairs a purge is to find");
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
}
