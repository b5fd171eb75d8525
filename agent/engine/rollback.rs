//! Rollback: the last bootstrap undone, last Change first. Itself a recorded run, which may be killed and repeated.

use serde::Serialize;

use super::change::{Change, Debt};
use super::commit::{By, Hand};
use super::fault::Fault;
use super::ledger::{self, Made, Record};
use super::undo;
use crate::config::values::Sha256;
use crate::host::{Host, clock};
use crate::journal::Event;

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
        why: String,
    },
}

/// What a rollback would do, without doing it.
pub async fn preview(host: &Host, purge: bool) -> Result<Vec<Undone>, Fault> {
    let records = ledger::read(&host.root)?;
    let mut all = Vec::new();
    for made in ledger::last_bootstrap(&records) {
        let what = describe(made);
        // The bytes themselves are not needed to say that they would be restored.
        let kept = undo::needs(made).map(|_| Vec::new());
        all.push(match undo::undo(made, kept, &host.see(&undo::reads(made)).await, purge) {
            Ok(changes) if changes.is_empty() => Undone::Already { what },
            Ok(_) => Undone::Undone { what },
            Err(why) => Undone::Kept { what, why: why.to_string() },
        });
    }
    Ok(all)
}

/// Undoes the last bootstrap, and leaves a hold for `config`: the next boot's bootstrap does nothing until the
/// configuration changes.
pub async fn rollback(hand: &mut Hand<'_>, config: Option<Sha256>, purge: bool) -> Result<Vec<Undone>, Fault> {
    let records = hand.records().to_vec();
    let group = ledger::last_bootstrap(&records);
    if group.is_empty() {
        return Ok(Vec::new());
    }
    // The hold comes first: a machine that reboots in the middle must not build up what is being taken down.
    hand.note(Record::Hold { config, at: clock::seconds(clock::now()) })?;
    let mut all = Vec::new();
    for made in group {
        let outcome = undo_one(hand, made, purge).await?;
        match &outcome {
            Undone::Undone { what } => hand.tell.tell(&Event::Undone { what }),
            Undone::Kept { what, why } => hand.tell.tell(&Event::Kept { what, why }),
            Undone::Already { .. } => {}
        }
        hand.note(Record::Undone { seq: made.seq })?;
        all.push(outcome);
    }
    super::settle::pay(hand, &std::collections::BTreeSet::new()).await?;
    hand.end(true)?;
    Ok(all)
}

async fn undo_one(hand: &mut Hand<'_>, made: &Made, purge: bool) -> Result<Undone, Fault> {
    let what = describe(made);
    let kept = undo::needs(made).map(|sha256| hand.ledger.kept(sha256)).transpose()?;
    let now = hand.host.see(&undo::reads(made)).await;
    match undo::undo(made, kept, &now, purge) {
        Err(why) => Ok(Undone::Kept { what, why: why.to_string() }),
        Ok(changes) if changes.is_empty() => Ok(Undone::Already { what }),
        Ok(changes) => {
            if let [Change::Remove { path }] = changes.as_slice()
                && !hand.host.root.list(path).unwrap_or_default().is_empty()
            {
                return Ok(Undone::Kept { what, why: undo::KeptBecause::NotEmpty.to_string() });
            }
            hand.make_in_order(By { id: &made.id, owes: &owed_by_undo(made) }, changes).await?;
            Ok(Undone::Undone { what })
        }
    }
}

/// What units must be made to see of the undoing: the same as of the doing, but for a directory, which nobody reads.
fn owed_by_undo(made: &Made) -> Vec<Debt> {
    match made.change {
        ledger::Logged::Dir { .. } | ledger::Logged::Job { .. } => Vec::new(),
        _ => made.owes.clone(),
    }
}

/// A recorded Change in words.
fn describe(made: &Made) -> String {
    use ledger::Logged as L;
    match &made.change {
        L::Put { path, .. } => format!("put {path}"),
        L::Link { path, to } => format!("link {path} -> {to}"),
        L::Dir { path, .. } => format!("make directory {path}"),
        L::Block { path, .. } => format!("write our block in {path}"),
        L::Remove { path } => format!("remove {path}"),
        L::Destroy { path } => format!("destroy {path}"),
        L::Sysctl { key, value } => format!("set {key}={value}"),
        L::Module { name } => format!("load module {name}"),
        L::Property { unit, name, value } => format!("set {} of {unit} to {value}", name.as_str()),
        L::Job { unit, verb } => format!("{verb} {unit}"),
    }
}
