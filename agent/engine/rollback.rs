//! Undoing: the ledger read backwards, last Change first. Itself a recorded run, which may be killed and repeated.

use std::collections::BTreeSet;

use serde::Serialize;

use super::apply::Unreadable;
use super::change::{Change, Debt};
use super::commit::{By, Hand};
use super::fault::{Class, Explain, Fault};
use super::history;
use super::ledger;
use super::record::{Before, Logged, Made, Record};
use super::resource::Thing;
use super::undo::{self, KeptBecause};
use crate::config::values::{Limit, RootPath, Sha256, UnitName};
use crate::host::{Host, clock};
use crate::journal::{Event, Teller};

/// How far back to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Back {
    /// To before the last run that changed something, and the runs before it that it completed.
    LastRun,
    /// To the point at the end of this run; 0 is before the first.
    To(u64),
}

impl Back {
    /// The Changes to undo, last first. Going all the way back, or purging, also takes up what earlier ones had to leave.
    fn select(self, records: &[Record], purge: bool) -> Result<Vec<&Made>, NoSuchPoint> {
        let mut selected = match self {
            Self::LastRun => history::last_run(records),
            Self::To(0) => history::since(records, 0),
            Self::To(point) if history::is_point(records, point) => history::since(records, point),
            Self::To(point) => return Err(NoSuchPoint { point }),
        };
        if purge || self == Self::To(0) {
            selected.extend(history::leftovers(records));
            selected.sort_by_key(|made| std::cmp::Reverse(made.seq));
        }
        Ok(selected)
    }
}

/// There is no way back to that point.
#[derive(Debug, thiserror::Error)]
#[error("go back to point {point}: the ledger has no such run, or what it or one before it did was undone since")]
pub struct NoSuchPoint {
    point: u64,
}

impl Explain for NoSuchPoint {
    fn class(&self) -> super::fault::Class {
        super::fault::Class::Usage
    }

    fn advice(&self) -> Option<String> {
        Some(
            "`nodeagent rollback --list` shows the runs; old ones become one point when the ledger is compacted"
                .to_owned(),
        )
    }
}

/// What became of one recorded Change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum Undone {
    /// It was undone, or would be.
    Undone {
        /// The Change, in words.
        what: String,
    },
    /// It is already as it was before.
    Already {
        /// The Change, in words.
        what: String,
    },
    /// It stays.
    Kept {
        /// The Change, in words.
        what: String,
        /// Why.
        #[serde(rename = "why", serialize_with = "as_text")]
        because: KeptBecause,
    },
    /// It could not be undone, and the next attempt will try again.
    Failed {
        /// The Change, in words.
        what: String,
        /// Why.
        why: String,
    },
}

fn as_text<S: serde::Serializer>(because: &KeptBecause, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(because)
}

/// What an undoing came to.
#[derive(Debug, Default)]
pub struct Undoing {
    /// Each Change, last first.
    pub changes: Vec<Undone>,
    /// The gravest class of what failed.
    pub failed: Option<Class>,
    /// Restarts that the configuration does not allow, and that are still owed.
    pub owed: Vec<Debt>,
}

/// A link that undoing would change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relinked {
    /// The link.
    pub path: RootPath,
    /// Its target then; nothing if there would be no link.
    pub to: Option<String>,
}

/// The links that undoing would change, if nobody has touched them since.
pub fn relinked(records: &[Record], back: Back, purge: bool) -> Result<Vec<Relinked>, NoSuchPoint> {
    let mut all: Vec<Relinked> = Vec::new();
    for made in back.select(records, purge)? {
        let Logged::Link { path, .. } = &made.change else { continue };
        let to = match &made.before {
            Before::Link { to } => Some(to.clone()),
            _ => None,
        };
        // Last first: what is found later was there earlier.
        match all.iter_mut().find(|relinked| relinked.path == *path) {
            Some(relinked) => relinked.to = to,
            None => all.push(Relinked { path: path.clone(), to }),
        }
    }
    Ok(all)
}

/// What undoing would do, without doing it.
///
/// Each Change is judged as if the later ones had been undone already: of two to the same path only the later is compared
/// with the machine, and a directory counts as empty when all that is in it would be gone.
pub async fn preview(host: &Host, back: Back, purge: bool) -> Result<Vec<Undone>, Fault> {
    let records = ledger::read(&host.root)?;
    let mut all = Vec::new();
    let mut judged: BTreeSet<String> = BTreeSet::new();
    let mut gone: BTreeSet<String> = BTreeSet::new();
    for made in back.select(&records, purge)? {
        let what = describe(&made.change);
        let outcome = if judged.insert(history::target(&made.change)) {
            undo::undo(made, &host.see(&undo::reads(made)).await, purge)
        } else {
            Ok(vec![])
        };
        all.push(match outcome {
            Ok(changes) if changes.is_empty() => Undone::Already { what },
            Ok(changes) => match changes.as_slice() {
                [Change::Remove { path }] if !would_be_empty(host, path, &gone) => {
                    Undone::Kept { what, because: KeptBecause::NotEmpty }
                }
                [.., Change::Remove { path } | Change::Destroy { path }] => {
                    gone.insert(path.to_string());
                    Undone::Undone { what }
                }
                _ => Undone::Undone { what },
            },
            Err(KeptBecause::CannotTell(cannot)) => Undone::Failed { what, why: cannot.to_string() },
            Err(because) => Undone::Kept { what, because },
        });
    }
    Ok(all)
}

fn would_be_empty(host: &Host, path: &RootPath, gone: &BTreeSet<String>) -> bool {
    let names = host.root.list(path).unwrap_or_default();
    names.iter().all(|name| path.child(name).is_some_and(|path| gone.contains(path.as_str())))
}

/// Undoes, and leaves a hold for `config`: the next boot's bootstrap does nothing until the configuration changes.
///
/// A Change that cannot be undone now does not keep the others from it; it is tried again by the next undoing. Keys that
/// stay without `--purge`, and directories that stay because of them, are marked as still ours. Units in `forbidden` are
/// not restarted.
pub async fn undo(
    hand: &mut Hand<'_>,
    back: Back,
    config: Option<Sha256>,
    purge: bool,
    forbidden: &BTreeSet<UnitName>,
) -> Result<Undoing, Fault> {
    let records = hand.records().to_vec();
    let selected = back.select(&records, purge)?;
    let mut undoing = Undoing::default();
    // One that was killed has debts to pay and an end to record, even if nothing is left to undo.
    if selected.is_empty() && history::interrupted_undoing(&records).is_none() {
        return Ok(undoing);
    }
    // The hold comes first: a machine that reboots in the middle must not build up what is being taken down.
    hand.note(Record::Hold { config, at: clock::seconds(clock::now()) })?;
    for made in selected {
        let what = describe(&made.change);
        let outcome = match undo_one(hand, made, purge).await {
            Ok(outcome) => outcome,
            Err(fault) => {
                undoing.failed = undoing.failed.max(Some(fault.class));
                Undone::Failed { what, why: fault.to_string() }
            }
        };
        tell(&hand.tell, made, &outcome);
        // A directory may be full of what failed: it is tried again with it.
        let again = match &outcome {
            Undone::Failed { .. } => true,
            Undone::Kept { because: KeptBecause::NotEmpty, .. } => undoing.failed.is_some(),
            _ => false,
        };
        if !again {
            hand.note(Record::Undone { seq: made.seq, stays: stays_ours(&outcome) })?;
        }
        undoing.changes.push(outcome);
    }
    match super::settle::pay(hand, forbidden).await {
        Ok(owed) => undoing.owed = owed,
        Err(fault) => {
            undoing.failed = undoing.failed.max(Some(fault.class));
            undoing
                .changes
                .push(Undone::Failed { what: "what units must be made to see".to_owned(), why: fault.to_string() });
        }
    }
    hand.end(undoing.failed.is_none())?;
    if undoing.failed.is_none() {
        hand.clear_scratch(&BTreeSet::new());
    }
    Ok(undoing)
}

fn tell(tell: &Teller, made: &Made, outcome: &Undone) {
    match outcome {
        Undone::Undone { what } => tell.tell(&Event::Undone { what }),
        Undone::Kept { what, because } => tell.tell(&Event::Kept { what, why: &because.to_string() }),
        Undone::Failed { why, .. } => {
            tell.tell(&Event::ResourceFailed {
                step: None,
                id: &made.id,
                why: &format!("not undone: {why}"),
                advice: "",
            });
        }
        Undone::Already { .. } => {}
    }
}

fn stays_ours(outcome: &Undone) -> bool {
    matches!(outcome, Undone::Kept { because: KeptBecause::Credential | KeptBecause::NotEmpty, .. })
}

async fn undo_one(hand: &mut Hand<'_>, made: &Made, purge: bool) -> Result<Undone, Fault> {
    let what = describe(&made.change);
    let reads = undo::reads(made);
    if reads.iter().any(Thing::is_of_units) {
        // A unit is judged with the files that were put back already.
        hand.reload_if_owed().await?;
    }
    let now = hand.host.see(&reads).await;
    match undo::undo(made, &now, purge) {
        Err(KeptBecause::CannotTell(cannot)) => Err(Unreadable(cannot).into()),
        Err(because) => Ok(Undone::Kept { what, because }),
        Ok(changes) if changes.is_empty() => Ok(Undone::Already { what }),
        Ok(changes) => {
            if let [Change::Remove { path }] = changes.as_slice()
                && !hand.host.root.list(path).unwrap_or_default().is_empty()
            {
                return Ok(Undone::Kept { what, because: KeptBecause::NotEmpty });
            }
            hand.make_in_order(By { id: &made.id, owes: &owed_by_undo(made) }, changes).await?;
            Ok(Undone::Undone { what })
        }
    }
}

/// What units must be made to see of the undoing: the same as of the doing, but for a directory, which nobody reads.
fn owed_by_undo(made: &Made) -> Vec<Debt> {
    match made.change {
        Logged::Dir { .. } | Logged::Job { .. } => Vec::new(),
        _ => made.owes.clone(),
    }
}

/// A recorded Change in words.
pub fn describe(change: &Logged) -> String {
    match change {
        Logged::Put { path, .. } => format!("put {path}"),
        Logged::Link { path, to } => format!("link {path} -> {to}"),
        Logged::Dir { path, .. } => format!("make directory {path}"),
        Logged::Block { path, .. } => format!("write our block in {path}"),
        Logged::Remove { path } => format!("remove {path}"),
        Logged::Destroy { path } => format!("destroy {path}"),
        Logged::Sysctl { key, value } => format!("set {key}={value}"),
        Logged::Module { name } => format!("load module {name}"),
        Logged::Property { unit, name, value } => {
            format!("set {} of {unit} to {}", name.as_str(), Limit { soft: *value, hard: *value })
        }
        Logged::Rlimits { unit, .. } => format!("set limits of the processes of {unit}"),
        Logged::Job { unit, verb } => format!("{verb} {unit}"),
    }
}
