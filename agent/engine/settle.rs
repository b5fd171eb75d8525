//! Settling: every debt is paid or shown, and what was set is proven to be in force.

use std::collections::BTreeSet;

use super::apply::Outcome;
use super::change::{Debt, Verb};
use super::commit::{By, Hand};
use super::fault::Fault;
use super::history;
use super::id::{Id, Step};
use super::ledger;
use super::plan::Plan;
use super::record::{Before, Logged, Record};
use crate::config::values::UnitName;
use crate::host::Host;
use crate::host::seen::UnitSight;
use crate::journal::Event;

/// The debts of earlier runs that are still to be paid. A tree that is not the running machine owes nothing: whatever
/// boots it reads everything anew.
pub fn owed(host: &Host) -> Result<Vec<Debt>, Fault> {
    if !host.is_live() {
        return Ok(Vec::new());
    }
    let records = ledger::read(&host.root)?;
    Ok(history::debts(&records, &host.boot_id()?).into_iter().map(|(debt, _)| debt).collect())
}

/// Pays the debts of this boot: a daemon-reload, then the restarts, queued together.
///
/// Restarts in `forbidden` stay owed and are returned.
pub async fn pay(hand: &mut Hand<'_>, forbidden: &BTreeSet<UnitName>) -> Result<Vec<Debt>, Fault> {
    pay_of(hand, forbidden, |_| true).await
}

/// Pays the restarts of units that are not the plan's own, such as the container runtime's: what the plan is about to
/// start finds them as they will stay. The plan's own units are restarted once, at the end.
pub async fn pay_for_others(hand: &mut Hand<'_>, plan: &Plan) -> Result<(), Fault> {
    let of_units = plan.resources().filter(|(step, _)| *step == Step::Units);
    let own: BTreeSet<UnitName> = of_units.flat_map(|(_, planned)| &planned.owes).filter_map(restarted).collect();
    pay_of(hand, &plan.no_restart, |unit| !own.contains(unit)).await.map(drop)
}

fn restarted(debt: &Debt) -> Option<UnitName> {
    match debt {
        Debt::Restart(unit) => Some(unit.clone()),
        Debt::DaemonReload => None,
    }
}

async fn pay_of(
    hand: &mut Hand<'_>,
    forbidden: &BTreeSet<UnitName>,
    now: impl Fn(&UnitName) -> bool,
) -> Result<Vec<Debt>, Fault> {
    if !hand.host.is_live() {
        return Ok(Vec::new());
    }
    hand.reload_if_owed().await?;
    let mut left = Vec::new();
    let mut due = Vec::new();
    for (debt, seq) in history::debts(hand.records(), &hand.boot) {
        let Some(unit) = restarted(&debt).filter(&now) else { continue };
        let unit = &unit;
        let sight = hand.host.systemd().await?.unit(unit).await?;
        if !owes_still(sight.as_ref(), unit, seq, hand.records()) {
            hand.forgive(debt)?;
        } else if forbidden.contains(unit) {
            left.push(debt);
        } else {
            due.push((Id::new(Step::Units, unit), debt));
        }
    }
    let restarts: Vec<(By<'_>, UnitName, Verb)> =
        due.iter().filter_map(|(id, debt)| Some((By { id, owes: &[] }, restarted(debt)?, Verb::Restart))).collect();
    let results = hand.run_jobs(&restarts).await?;
    let mut failed = None;
    for ((_, debt), result) in due.iter().zip(results) {
        match result {
            Ok(()) => hand.pay(debt.clone())?,
            Err(error) => failed = failed.or(Some(Fault::from(error))),
        }
    }
    failed.map_or(Ok(left), Err)
}

/// Whether a unit runs with what was there before Change `seq`.
///
/// A unit that does not run will read everything when it starts. One that runs has read it if one of our own later jobs
/// started it anew: its invocation is then not the one that the job's record saw. That is also how a restart that a
/// killed run had queued is not done twice.
fn owes_still(sight: Option<&UnitSight>, unit: &UnitName, seq: u64, records: &[Record]) -> bool {
    let Some(sight) = sight else { return false };
    if !matches!(sight.active.as_str(), "active" | "activating" | "reloading") {
        return false;
    }
    let last_job = history::changes(records).rev().find(|made| {
        made.seq > seq
            && matches!(&made.change, Logged::Job { unit: other, verb: Verb::Start | Verb::Restart } if other == unit)
    });
    match last_job.map(|made| &made.before) {
        Some(Before::Unit { invocation, .. }) => *invocation == sight.invocation,
        _ => true,
    }
}

/// Looks whether the machine behaves as asked, and tells where it does not.
pub async fn prove(plan: &Plan, host: &Host, hand: &Hand<'_>, outcome: &mut Outcome) {
    for (_, planned) in plan.resources() {
        let reads = planned.what.proof_reads();
        let live_elsewhere = !host.is_live() && reads.iter().any(super::resource::Thing::is_live);
        if reads.is_empty() || live_elsewhere {
            continue;
        }
        if let Err(why) = planned.what.prove(&host.see(&reads).await) {
            hand.tell.tell(&Event::NotProven { id: &planned.id, why: &why.to_string() });
            outcome.unproven.push((planned.id.clone(), why));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::record::Made;

    fn sight(active: &str, invocation: &str) -> UnitSight {
        UnitSight {
            active: active.into(),
            sub: String::new(),
            invocation: invocation.into(),
            tasks_max: None,
            rlimits: Vec::new(),
        }
    }

    #[test]
    fn a_restart_is_owed_until_the_unit_ran_anew() {
        let unit = UnitName::literal("kubelet.service");
        let job = |seq, invocation: &str| {
            Record::Change(Box::new(Made {
                seq,
                run: 1,
                boot: "b".into(),
                id: Id::new(Step::Units, "kubelet"),
                change: Logged::Job { unit: unit.clone(), verb: Verb::Restart },
                before: Before::Unit { active: "active".into(), invocation: invocation.into() },
                owes: vec![],
            }))
        };
        let table: [(&str, Option<UnitSight>, Vec<Record>, bool); 6] = [
            ("no such unit", None, vec![], false),
            ("not running", Some(sight("inactive", "one")), vec![], false),
            ("running since before", Some(sight("active", "one")), vec![], true),
            ("job recorded, not done", Some(sight("active", "one")), vec![job(6, "one")], true),
            ("job recorded and done", Some(sight("active", "two")), vec![job(6, "one")], false),
            ("job before the Change", Some(sight("active", "two")), vec![job(4, "one")], true),
        ];
        for (case, sight, records, want) in table {
            assert_eq!(owes_still(sight.as_ref(), &unit, 5, &records), want, "{case}");
        }
    }
}
