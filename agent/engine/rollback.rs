//! Undoing: the ledger read backwards, last Change first. Itself a recorded run, which may be killed and repeated.

use std::collections::BTreeSet;

use serde::Serialize;

use super::change::{Change, Debt};
use super::commit::{By, Hand};
use super::fault::{Explain, Fault};
use super::history;
use super::ledger::{self, Logged, Made, Record};
use super::undo::{self, KeptBecause};
use crate::config::values::Sha256;
use crate::host::{Host, clock};
use crate::journal::Event;

/// How far back to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Back {
    /// To before the last bootstrap.
    LastBootstrap,
    /// To the point at the end of this run; 0 is before the first.
    To(u64),
}

impl Back {
    /// The Changes to undo, last first. Going all the way back, or purging, also takes up what earlier ones had to leave.
    fn select(self, records: &[Record], purge: bool) -> Result<Vec<&Made>, NoSuchPoint> {
        let mut selected = match self {
            Self::LastBootstrap => history::last_bootstrap(records),
            Self::To(0) => history::since(records, 0),
            Self::To(point) if history::runs(records).iter().any(|run| run.number == point) => {
                history::since(records, point)
            }
            Self::To(point) => return Err(NoSuchPoint { point }),
        };
        if purge || self == Self::To(0) {
            selected.extend(history::leftovers(records));
            selected.sort_by_key(|made| std::cmp::Reverse(made.seq));
        }
        Ok(selected)
    }
}

/// The ledger knows no such run.
#[derive(Debug, thiserror::Error)]
#[error("go back to point {point}: the ledger has no such run")]
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
}

fn as_text<S: serde::Serializer>(because: &KeptBecause, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(because)
}

/// What undoing would do, without doing it.
pub async fn preview(host: &Host, back: Back, purge: bool) -> Result<Vec<Undone>, Fault> {
    let records = ledger::read(&host.root)?;
    let mut all = Vec::new();
    for made in back.select(&records, purge)? {
        let what = describe(&made.change);
        // The bytes themselves are not needed to say that they would be restored.
        let kept = undo::needs(made).map(|_| Vec::new());
        all.push(match undo::undo(made, kept, &host.see(&undo::reads(made)).await, purge) {
            Ok(changes) if changes.is_empty() => Undone::Already { what },
            Ok(_) => Undone::Undone { what },
            Err(because) => Undone::Kept { what, because },
        });
    }
    Ok(all)
}

/// Undoes, and leaves a hold for `config`: the next boot's bootstrap does nothing until the configuration changes.
///
/// A key that stays without `--purge`, and a directory that stays because of it, are marked as still ours.
pub async fn undo(hand: &mut Hand<'_>, back: Back, config: Option<Sha256>, purge: bool) -> Result<Vec<Undone>, Fault> {
    let records = hand.records().to_vec();
    let selected = back.select(&records, purge)?;
    // One that was killed has debts to pay and an end to record, even if nothing is left to undo.
    if selected.is_empty() && history::interrupted_undoing(&records).is_none() {
        return Ok(Vec::new());
    }
    // The hold comes first: a machine that reboots in the middle must not build up what is being taken down.
    hand.note(Record::Hold { config, at: clock::seconds(clock::now()) })?;
    let mut all = Vec::new();
    for made in selected {
        let outcome = undo_one(hand, made, purge).await?;
        match &outcome {
            Undone::Undone { what } => hand.tell.tell(&Event::Undone { what }),
            Undone::Kept { what, because } => hand.tell.tell(&Event::Kept { what, why: &because.to_string() }),
            Undone::Already { .. } => {}
        }
        hand.note(Record::Undone { seq: made.seq, stays: stays_ours(&outcome) })?;
        all.push(outcome);
    }
    super::settle::pay(hand, &BTreeSet::new()).await?;
    hand.end(true)?;
    Ok(all)
}

fn stays_ours(outcome: &Undone) -> bool {
    matches!(outcome, Undone::Kept { because: KeptBecause::Credential | KeptBecause::NotEmpty, .. })
}

async fn undo_one(hand: &mut Hand<'_>, made: &Made, purge: bool) -> Result<Undone, Fault> {
    let what = describe(&made.change);
    let kept = undo::needs(made).map(|sha256| hand.ledger.kept(sha256)).transpose()?;
    let now = hand.host.see(&undo::reads(made)).await;
    match undo::undo(made, kept, &now, purge) {
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
        Logged::Property { unit, name, value } => format!("set {} of {unit} to {value}", name.as_str()),
        Logged::Job { unit, verb } => format!("{verb} {unit}"),
    }
}
