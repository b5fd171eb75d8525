//! Applying a plan: per step, in rounds, see -> diff -> obtain -> commit.
//!
//! A round holds the resources whose reads no unfinished one makes. What a round obtains (downloads, certificates) it
//! obtains concurrently; what it commits, it commits in the plan's order. When a resource fails, those that read what
//! it makes are not tried, the rest of its step goes on, and the next step does not start; but what was obtained for it
//! by then is kept, because a certificate may not be granted twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use futures_util::future::join_all;

use super::change::{Change, Verb};
use super::commit::{By, Hand};
use super::fault::{Class, Explain, Fault};
use super::id::{Id, Step};
use super::plan::{Plan, skipped};
use super::resource::{CannotTell, Diff, Planned, Thing};
use super::settle;
use crate::config::values::UnitName;
use crate::host::Host;
use crate::host::peers::Peers;
use crate::journal::{Event, Teller};

/// What became of a plan.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Brought to what is wanted.
    pub changed: Vec<Id>,
    /// As wanted already.
    pub unchanged: usize,
    /// Not for this machine.
    pub skipped: usize,
    /// Failed, with the reason.
    pub failed: Vec<(Id, Fault)>,
    /// Not tried: each with the failed resource that it needs, or the step that failed before.
    pub not_tried: Vec<(Id, String)>,
    /// Done, but something else stands against it.
    pub unproven: Vec<(Id, CannotTell)>,
    /// Restarts that the configuration does not allow, and that are still owed.
    pub owed: Vec<String>,
}

impl Outcome {
    /// Whether everything is as wanted.
    pub fn is_done(&self) -> bool {
        self.failed.is_empty() && self.not_tried.is_empty()
    }

    /// The class that decides the exit code: of several, verification before deadline before failure.
    pub fn class(&self) -> Option<Class> {
        self.failed.iter().map(|(_, fault)| fault.class).max()
    }

    /// Debts could not be paid.
    pub fn settle_failed(&mut self, fault: Fault, tell: &Teller) {
        let id = Id::new(Step::Units, "debts");
        tell_failure(tell, Step::Units, &id, &fault);
        self.failed.push((id, fault));
    }

    /// All resources of the plan.
    pub fn total(&self) -> usize {
        self.changed.len() + self.unchanged + self.skipped + self.failed.len() + self.not_tried.len()
    }
}

/// Something that a resource reads cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("read {0}")]
pub struct Unreadable(pub CannotTell);

impl Explain for Unreadable {
    fn class(&self) -> Class {
        self.0.class()
    }

    fn advice(&self) -> Option<String> {
        self.0.advice()
    }
}

/// Resources that each read what the other makes.
#[derive(Debug, thiserror::Error)]
#[error("{0} waits for what itself has to make")]
struct Cycle(Id);

impl Explain for Cycle {
    fn advice(&self) -> Option<String> {
        Some("this is a mistake in nodeagent; please report it with the output of plan".to_owned())
    }
}

/// Makes the machine what the plan says.
pub async fn apply(plan: &Plan, host: &Host, hand: &mut Hand<'_>, peers: &Peers) -> Outcome {
    let mut outcome = Outcome::default();
    let mut steps = plan.steps.as_slice();
    while let Some(((first, _), _)) = steps.split_first() {
        // Certificates are requested beside the downloads: a stage is a step and those whose obtaining may overlap it.
        let overlapping = steps.iter().skip(1).take_while(|(step, _)| overlaps(*first, *step)).count();
        let (stage, rest) = steps.split_at(1 + overlapping);
        Stage::new(stage, plan, host, &mut outcome).run(hand, peers, &mut outcome).await;
        steps = rest;
        if !outcome.is_done() {
            break;
        }
    }
    for (step, planned) in steps {
        let why = format!("a step before {step} failed");
        outcome.not_tried.extend(planned.iter().map(|p| (p.id.clone(), why.clone())));
    }
    outcome
}

/// Whether `next` may obtain while `step` is still at work.
fn overlaps(step: Step, next: Step) -> bool {
    step == Step::Install && next == Step::Certs
}

/// One resource on its way.
struct Item<'p> {
    step: Step,
    planned: &'p Planned,
    state: State,
    started: Instant,
}

#[derive(Debug)]
enum State {
    Waiting,
    Obtained(Vec<Change>),
    Finished,
    Failed,
}

struct Stage<'p, 'h> {
    items: Vec<Item<'p>>,
    plan: &'p Plan,
    host: &'h Host,
}

impl<'p, 'h> Stage<'p, 'h> {
    fn new(steps: &'p [(Step, Vec<Planned>)], plan: &'p Plan, host: &'h Host, outcome: &mut Outcome) -> Self {
        let mut items = Vec::new();
        for (step, planned) in steps.iter().flat_map(|(step, all)| all.iter().map(move |p| (*step, p))) {
            if skipped(planned.what.as_ref(), host).is_some() {
                outcome.skipped += 1;
            } else {
                items.push(Item { step, planned, state: State::Waiting, started: Instant::now() });
            }
        }
        Self { items, plan, host }
    }

    async fn run(mut self, hand: &mut Hand<'_>, peers: &Peers, outcome: &mut Outcome) {
        let mut steps: Vec<Step> = self.items.iter().map(|item| item.step).collect();
        steps.dedup();
        for (at, &step) in steps.iter().enumerate() {
            while self.items.iter().any(|item| item.step == step && !item.is_over()) {
                self.give_up_on_dependants(outcome);
                self.obtain(hand, peers, outcome).await;
                if !self.commit(step, hand, outcome).await {
                    break;
                }
            }
            // A certificate that failed while programs were fetched stops its own step, not this one.
            if self.items.iter().any(|item| item.step == step && matches!(item.state, State::Failed)) {
                // To ask for it anew may be impossible: tokens end.
                for next in &steps[at + 1..] {
                    self.commit_obtained(*next, hand, outcome).await;
                }
                break;
            }
        }
        for item in self.items.iter().filter(|item| !item.is_over()) {
            outcome.not_tried.push((item.planned.id.clone(), format!("{} was not reached", item.step)));
        }
    }

    /// What reads what a failed resource makes is not tried.
    fn give_up_on_dependants(&mut self, outcome: &mut Outcome) {
        loop {
            let failed: Vec<(Id, Vec<Thing>)> = self
                .items
                .iter()
                .filter(|i| matches!(i.state, State::Failed))
                .map(|i| (i.planned.id.clone(), i.planned.what.makes()))
                .collect();
            let hit = self.items.iter_mut().filter(|item| !item.is_over()).find_map(|item| {
                let reads = item.planned.what.reads();
                let (id, _) = failed.iter().find(|(_, makes)| touch(makes, &reads))?;
                Some((id.clone(), item))
            });
            let Some((needed, item)) = hit else { return };
            item.state = State::Failed;
            outcome.not_tried.push((item.planned.id.clone(), format!("it needs {needed}")));
        }
    }

    /// The resources that wait for nothing unfinished.
    fn ready(&self) -> Vec<usize> {
        let free = |at: usize| {
            let reads = self.items[at].planned.what.reads();
            let others = self.items.iter().enumerate().filter(|(other, item)| *other != at && !item.is_finished());
            others.into_iter().all(|(_, item)| !touch(&item.planned.what.makes(), &reads))
        };
        (0..self.items.len()).filter(|at| matches!(self.items[*at].state, State::Waiting) && free(*at)).collect()
    }

    /// Sees, diffs and obtains for every ready resource, all at once.
    async fn obtain(&mut self, hand: &mut Hand<'_>, peers: &Peers, outcome: &mut Outcome) {
        let ready = self.ready();
        let wants = |at: &usize| self.items[*at].planned.what.reads();
        let (live, _): (Vec<usize>, Vec<usize>) = ready.iter().partition(|at| wants(at).iter().any(Thing::is_of_units));
        if !live.is_empty() {
            // A unit is seen as it would be started: with its files read again.
            if let Err(fault) = hand.reload_if_owed().await {
                self.fail_all(&live, fault, hand, outcome);
                return;
            }
        }
        let host = self.host;
        let items = &self.items;
        let tell = &hand.tell;
        let attempts = ready.iter().map(|at| async {
            let what = items[*at].planned.what.as_ref();
            let started = Instant::now();
            let seen = host.see(&what.reads()).await;
            let obtained = match what.diff(&seen) {
                Err(cannot) => Err(Fault::from(Unreadable(cannot))),
                Ok(Diff::Same) => Ok(None),
                Ok(Diff::Differs { known, .. }) => what.obtain(known, &seen, peers).await.map(Some),
            };
            // Told at once: others of this round may go on obtaining for minutes.
            if let Err(fault) = &obtained {
                tell_failure(tell, items[*at].step, &items[*at].planned.id, fault);
            }
            (*at, started, obtained)
        });
        for (at, started, obtained) in join_all(attempts).await {
            self.items[at].started = started;
            match obtained {
                Err(fault) => self.set_failed(at, fault, outcome),
                Ok(None) => {
                    self.items[at].state = State::Finished;
                    outcome.unchanged += 1;
                }
                Ok(Some(changes)) => self.items[at].state = State::Obtained(changes),
            }
        }
    }

    /// Commits what this step obtained, and sees to it that the next round has something to do. Returns whether it has.
    async fn commit(&mut self, step: Step, hand: &mut Hand<'_>, outcome: &mut Outcome) -> bool {
        self.commit_obtained(step, hand, outcome).await || self.unstick(step, hand, outcome)
    }

    /// Commits what this step obtained, in order. Returns whether there was anything.
    async fn commit_obtained(&mut self, step: Step, hand: &mut Hand<'_>, outcome: &mut Outcome) -> bool {
        let mut jobs = Vec::new();
        let mut moved = false;
        for at in 0..self.items.len() {
            let item = &mut self.items[at];
            if item.step != step || !matches!(item.state, State::Obtained(_)) {
                continue;
            }
            moved = true;
            let State::Obtained(changes) = std::mem::replace(&mut item.state, State::Finished) else { continue };
            let planned = item.planned;
            match hand.commit(By { id: &planned.id, owes: &planned.owes }, changes).await {
                Err(fault) => self.fail(at, fault, hand, outcome),
                Ok(queued) if queued.is_empty() => self.succeed(at, hand, outcome),
                Ok(queued) => jobs.extend(queued.into_iter().map(|(unit, verb)| (at, unit, verb))),
            }
        }
        if jobs.iter().any(|(.., verb)| *verb == Verb::Start) {
            // What fails is still owed: it is tried again, and told, when debts are settled.
            let _ = settle::pay_for_others(hand, self.plan).await;
        }
        self.run_jobs(jobs, hand, outcome).await;
        moved
    }

    async fn run_jobs(&mut self, jobs: Vec<(usize, UnitName, Verb)>, hand: &mut Hand<'_>, outcome: &mut Outcome) {
        let by = |at: usize| By { id: &self.items[at].planned.id, owes: &[] };
        let queue: Vec<_> = jobs.iter().map(|(at, unit, verb)| (by(*at), unit.clone(), *verb)).collect();
        let mut over: BTreeMap<usize, Result<(), Fault>> = BTreeMap::new();
        match hand.run_jobs(&queue).await {
            Err(fault) => {
                let all: BTreeSet<usize> = jobs.iter().map(|(at, ..)| *at).collect();
                self.fail_all(&all.into_iter().collect::<Vec<_>>(), fault, hand, outcome);
            }
            Ok(results) => {
                for ((at, ..), result) in jobs.iter().zip(results) {
                    let merged = over.remove(at).unwrap_or(Ok(()));
                    over.insert(*at, merged.and(result.map_err(Fault::from)));
                }
            }
        }
        for (at, result) in over {
            match result {
                Ok(()) => self.succeed(at, hand, outcome),
                Err(fault) => self.fail(at, fault, hand, outcome),
            }
        }
    }

    /// Nothing of this step can move. If something is still to come it waits for itself, which only a mistake in a
    /// step's planner can cause: say so instead of turning for ever.
    fn unstick(&mut self, step: Step, hand: &Hand<'_>, outcome: &mut Outcome) -> bool {
        if !self.ready().is_empty() {
            return true;
        }
        // What failed in this round may be what all others wait for.
        self.give_up_on_dependants(outcome);
        let stuck = (0..self.items.len()).find(|at| self.items[*at].step == step && !self.items[*at].is_over());
        let Some(at) = stuck else { return false };
        let fault = Fault::from(Cycle(self.items[at].planned.id.clone()));
        self.fail(at, fault, hand, outcome);
        true
    }

    fn succeed(&mut self, at: usize, hand: &Hand<'_>, outcome: &mut Outcome) {
        let item = &mut self.items[at];
        item.state = State::Finished;
        let (id, summary) = (&item.planned.id, item.planned.what.summary());
        hand.tell.tell(&Event::Changed { step: item.step, id, summary: &summary, took: item.started.elapsed() });
        outcome.changed.push(id.clone());
    }

    /// One fault that concerns several resources.
    fn fail_all(&mut self, ats: &[usize], fault: Fault, hand: &Hand<'_>, outcome: &mut Outcome) {
        let text = fault.to_string();
        let mut fault = Some(fault);
        for at in ats {
            let fault = fault.take().unwrap_or_else(|| Together(text.clone()).into());
            self.fail(*at, fault, hand, outcome);
        }
    }

    fn fail(&mut self, at: usize, fault: Fault, hand: &Hand<'_>, outcome: &mut Outcome) {
        tell_failure(&hand.tell, self.items[at].step, &self.items[at].planned.id, &fault);
        self.set_failed(at, fault, outcome);
    }

    fn set_failed(&mut self, at: usize, fault: Fault, outcome: &mut Outcome) {
        self.items[at].state = State::Failed;
        outcome.failed.push((self.items[at].planned.id.clone(), fault));
    }
}

fn tell_failure(tell: &Teller, step: Step, id: &Id, fault: &Fault) {
    let advice = fault.advice.as_deref().unwrap_or_default();
    tell.tell(&Event::ResourceFailed { step: Some(step), id, why: &fault.to_string(), advice });
}

/// What failed for several resources at once.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Together(String);

impl Explain for Together {}

impl Item<'_> {
    fn is_over(&self) -> bool {
        matches!(self.state, State::Finished | State::Failed)
    }

    fn is_finished(&self) -> bool {
        matches!(self.state, State::Finished)
    }
}

fn touch(makes: &[Thing], reads: &[Thing]) -> bool {
    makes.iter().any(|made| reads.iter().any(|read| made.touches(read)))
}
