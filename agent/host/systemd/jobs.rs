//! Unit jobs: queued together, so that systemd orders them, and each one's result waited for.
//!
//! A job's result is what its `JobRemoved` signal carries, and the signal is subscribed to before the job is queued. A
//! signal can still be missed: the bus is restarted, or systemd executes itself anew and speaks under another name on the
//! bus. So, beside the status lines that are read anyway, it is looked whether each job is still there; how one ended that
//! nobody announced is told by its unit's state.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::Instant;
use zbus::OwnedObjectPath;

use super::error::{JobEnd, SystemdError};
use super::{JobRemovedStream, Systemd, text};
use crate::config::values::UnitName;
use crate::engine::change::Verb;

/// How often it is looked what the waiting units say, and whether their jobs are still there.
const LOOK: Duration = Duration::from_secs(2);

impl Systemd {
    /// Queues all jobs together and waits for each one's result. Results come in the order of the jobs. `told` hears each
    /// waiting unit's status line about every two seconds.
    pub async fn run_jobs(
        &self,
        jobs: &[(UnitName, Verb)],
        deadline: Duration,
        mut told: impl FnMut(&UnitName, &str),
    ) -> Vec<Result<(), SystemdError>> {
        let end = Instant::now() + deadline;
        let mut queue = Queue { systemd: self, jobs, results: BTreeMap::new(), waiting: BTreeMap::new() };
        let lost = match self.listen().await {
            Ok(removed) => {
                queue.fill().await;
                queue.wait(removed, end, &mut told).await.err()
            }
            Err(error) => Some(error),
        };
        queue.into_results(deadline, lost).await
    }

    /// The stream of ended jobs, over a connection that holds.
    async fn listen(&self) -> Result<JobRemovedStream, SystemdError> {
        self.call("listen to", "systemd", async |link| link.manager.receive_job_removed().await).await
    }

    async fn queue(&self, unit: &UnitName, verb: Verb) -> Result<OwnedObjectPath, SystemdError> {
        let name = unit.as_str();
        match verb {
            Verb::Start => self.call("start", name, async |link| link.manager.start_unit(name, "replace").await).await,
            Verb::Stop => self.call("stop", name, async |link| link.manager.stop_unit(name, "replace").await).await,
            Verb::Restart => {
                self.call("restart", name, async |link| link.manager.try_restart_unit(name, "replace").await).await
            }
        }
    }

    /// What the result of a job means.
    async fn job_result(&self, unit: &UnitName, verb: Verb, result: &str) -> Result<(), SystemdError> {
        // "skipped" is what a condition that does not hold gives: the unit decided, and systemd calls it success.
        if matches!(result, "done" | "skipped") {
            return Ok(());
        }
        let report = self.report(unit, true).await;
        let end = match (result, report.result.as_str()) {
            ("failed", "start-limit-hit") => JobEnd::StartLimit,
            ("failed", "timeout") => JobEnd::UnitTimeout,
            ("failed", _) => JobEnd::Failed,
            ("timeout", _) => JobEnd::JobTimeout,
            ("canceled", _) => JobEnd::Canceled,
            ("dependency", _) => JobEnd::Blocked(self.failed_requirements(unit).await),
            (other, _) => JobEnd::Other(other.to_owned()),
        };
        Err(SystemdError::Job { verb, unit: unit.clone(), end, report: Box::new(report) })
    }

    /// How a job ended whose signal nobody heard.
    async fn judge(&self, unit: &UnitName, verb: Verb) -> Result<(), SystemdError> {
        let report = self.report(unit, false).await;
        let ended_well = match (verb, report.active.as_str()) {
            (Verb::Start | Verb::Restart, "active" | "reloading" | "refreshing") | (Verb::Stop, "failed") => true,
            // A oneshot that is done, a unit whose condition does not hold, one that did not run and was not to be
            // restarted, one that was stopped.
            (_, "inactive") => report.result.is_empty(),
            _ => false,
        };
        if ended_well { Ok(()) } else { self.job_result(unit, verb, "failed").await }
    }

    /// The units that this one requires and that did not come up.
    async fn failed_requirements(&self, unit: &UnitName) -> Vec<String> {
        let Ok(all) = self.properties(unit.as_str(), super::UNIT).await else { return Vec::new() };
        let required = ["Requires", "Requisite", "BindsTo"].iter().filter_map(|name| {
            let names = all.get(*name)?.try_clone().ok()?;
            Vec::<String>::try_from(names).ok()
        });
        let required: BTreeSet<String> = required.flatten().collect();
        let mut failed = Vec::new();
        for name in required {
            let state = self.properties(&name, super::UNIT).await.map(|all| text(&all, "ActiveState"));
            if state.is_ok_and(|state| matches!(state.as_str(), "failed" | "inactive" | "activating")) {
                failed.push(name);
            }
        }
        failed
    }

    /// The unit's job; nothing if it has none.
    async fn job_of(&self, unit: &UnitName) -> Result<Option<OwnedObjectPath>, SystemdError> {
        let all = self.properties(unit.as_str(), super::UNIT).await?;
        let job = all.get("Job").and_then(|job| <(u32, OwnedObjectPath)>::try_from(job.try_clone().ok()?).ok());
        Ok(job.filter(|(id, _)| *id != 0).map(|(_, path)| path))
    }
}

/// Jobs on their way.
struct Queue<'a> {
    systemd: &'a Systemd,
    jobs: &'a [(UnitName, Verb)],
    /// By the job's place.
    results: BTreeMap<usize, Result<(), SystemdError>>,
    waiting: BTreeMap<usize, Waiting>,
}

struct Waiting {
    job: OwnedObjectPath,
    /// It was gone when it was last looked for; its signal may be on its way.
    gone: bool,
}

impl Queue<'_> {
    async fn fill(&mut self) {
        for (at, (unit, verb)) in self.jobs.iter().enumerate() {
            match self.systemd.queue(unit, *verb).await {
                Ok(job) => drop(self.waiting.insert(at, Waiting { job, gone: false })),
                Err(error) => drop(self.results.insert(at, Err(error))),
            }
        }
    }

    /// Waits until no job is left or the deadline passes. Fails when the bus is lost for good.
    async fn wait(
        &mut self,
        mut removed: JobRemovedStream,
        end: Instant,
        told: &mut impl FnMut(&UnitName, &str),
    ) -> Result<(), SystemdError> {
        let mut look = tokio::time::interval(LOOK);
        look.tick().await;
        while !self.waiting.is_empty() {
            tokio::select! {
                signal = removed.next() => match signal {
                    Some(signal) => {
                        if let Ok(args) = signal.args() {
                            self.ended(args.job().as_str(), args.result()).await;
                        }
                    }
                    None => removed = self.systemd.listen().await?,
                },
                _ = look.tick() => self.look(told).await,
                () = tokio::time::sleep_until(end) => return Ok(()),
            }
        }
        Ok(())
    }

    async fn ended(&mut self, job: &str, result: &str) {
        let ended: Vec<usize> = self.waiting.iter().filter(|(_, w)| w.job.as_str() == job).map(|(at, _)| *at).collect();
        for at in ended {
            self.waiting.remove(&at);
            let (unit, verb) = &self.jobs[at];
            self.results.insert(at, self.systemd.job_result(unit, *verb, result).await);
        }
    }

    /// Tells what the waiting units say, and finds the jobs whose end was missed.
    async fn look(&mut self, told: &mut impl FnMut(&UnitName, &str)) {
        // One that executed itself anew may have forgotten who listens.
        self.systemd.subscribe_again().await;
        let places: Vec<usize> = self.waiting.keys().copied().collect();
        for at in places {
            let (unit, verb) = &self.jobs[at];
            // Systemd that cannot be asked now is asked again at the next look.
            let Ok(now) = self.systemd.job_of(unit).await else { continue };
            let Some(waiting) = self.waiting.get_mut(&at) else { continue };
            if now.as_ref() == Some(&waiting.job) {
                told(unit, &self.systemd.report(unit, false).await.to_string());
            } else if !std::mem::replace(&mut waiting.gone, true) {
                // Once more, for the signal to arrive.
            } else {
                self.waiting.remove(&at);
                self.results.insert(at, self.systemd.judge(unit, *verb).await);
            }
        }
    }

    /// The results in the order of the jobs. What has none was not finished in time, or the bus was lost.
    async fn into_results(mut self, after: Duration, lost: Option<SystemdError>) -> Vec<Result<(), SystemdError>> {
        let cause = lost.map(|error| error.to_string());
        let mut all = Vec::with_capacity(self.jobs.len());
        for (at, (unit, verb)) in self.jobs.iter().enumerate() {
            all.push(match (self.results.remove(&at), &cause) {
                (Some(result), _) => result,
                (None, Some(cause)) => {
                    Err(SystemdError::BusLost { verb: *verb, unit: unit.clone(), cause: cause.clone() })
                }
                (None, None) => {
                    let report = Box::new(self.systemd.report(unit, true).await);
                    Err(SystemdError::JobDeadline { verb: *verb, unit: unit.clone(), after, report })
                }
            });
        }
        all
    }
}
