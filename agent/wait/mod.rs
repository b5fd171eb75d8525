//! Waiting until targets are ready, and saying why they are not.
//!
//! Replaces `wupiao` (`until curl -sIf http://$1; do sleep 1; done`) in an `ExecStartPre=`. What that did without end
//! or reason has both here: an empty host is refused, a name that does not resolve is told from a port that nothing
//! listens on, and a deadline ends it.
//!
//! Targets are tried side by side, so that one whose packets are dropped holds up no other. Files and sockets' paths
//! are heard of by inotify, units by D-Bus signals, and this machine's ports by asking the kernel every few milliseconds
//! ([`crate::host::listen`]); [`HEARD`] is only for what was not. Other machines are tried at most four times a second.
//!
//! # Under systemd
//!
//! Each `ExecStartPre=` has the unit's `TimeoutStartSec=` to itself (90 s unless set), and a wait's own deadline may
//! be later. So, every [`TELL_EVERY`], the wait asks by `EXTEND_TIMEOUT_USEC=` for [`EXTENSION`] more from then on, but
//! not beyond its own deadline: systemd's timeout becomes the later of `TimeoutStartSec=` and what was asked for
//! last, and a wait that hangs is still killed. At the end it asks for [`LAST_WORDS`] more than it needs, so that the
//! wait says why it gave up before systemd cuts it off. systemd listens only in a unit with `NotifyAccess=exec`, and a
//! timeout can be moved only if there is one: `TimeoutStartSec=` must be finite.

pub mod http;
pub mod probe;
pub mod target;

use std::cell::RefCell;
use std::fmt;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use self::probe::{Prober, Watch};
use self::target::Target;
use crate::engine::fault::{Class, Explain};
use crate::host::notify;
use crate::host::probe::{BadAsker, Reason};
use crate::host::retry::Policy;

/// How long one try may take.
const TRY: Duration = Duration::from_secs(5);

/// The pause between tries where this machine says at once that there is nothing, and nothing tells more.
pub const NEAR: Duration = Duration::from_millis(5);

/// The pause between tries where changes are heard of.
pub const HEARD: Duration = Duration::from_secs(1);

/// The pauses between other tries on this machine.
const HERE: Policy =
    Policy { first: Duration::from_millis(10), cap: Duration::from_millis(250), growth: 1.5, jitter: 0.1 };

/// The pauses between tries at other machines: 250 ms or more, and not in step.
const FAR: Policy =
    Policy { first: Duration::from_millis(275), cap: Duration::from_millis(300), growth: 1.0, jitter: 0.09 };

/// How often a wait says that it still waits.
pub const TELL_EVERY: Duration = Duration::from_secs(5);

/// How much time a wait asks systemd for: enough to outlive a late or lost message or two.
pub const EXTENSION: Duration = Duration::from_secs(15);

/// How much time beyond its deadline a wait asks systemd for, to say why it gives up.
pub const LAST_WORDS: Duration = Duration::from_secs(5);

/// How many of the targets must be ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Every one.
    All,
    /// The first.
    Any,
}

/// A target and why it is not ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// The target.
    pub target: Target,
    /// Its last reason; `None` while the first try runs.
    pub reason: Option<Reason>,
}

/// What happens during a wait.
#[derive(Debug)]
pub enum Progress<'a> {
    /// A target has a reason that it did not have before.
    Changed {
        /// The target.
        target: &'a Target,
        /// The new reason.
        reason: &'a Reason,
    },
    /// A target became ready.
    Ready {
        /// The target.
        target: &'a Target,
        /// Since the wait began.
        after: Duration,
    },
    /// Nothing new: some targets are still not ready.
    Still {
        /// Those targets.
        pending: &'a [Pending],
        /// Since the wait began.
        after: Duration,
        /// When it will give up, since it began.
        timeout: Option<Duration>,
    },
}

/// A wait that ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waited {
    /// The targets that became ready, in that order, and when, since the wait began. Of [`How::Any`]: one.
    pub ready: Vec<(Target, Duration)>,
}

/// A wait that came to its deadline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not ready within {}: {}", Brief(*.after), List(.pending))]
pub struct NotReady {
    /// The targets that are not ready, as they were given.
    pub pending: Vec<Pending>,
    /// Those that became ready, as in [`Waited`].
    pub ready: Vec<(Target, Duration)>,
    /// How long the wait lasted.
    pub after: Duration,
}

/// A wait failed.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// It could not begin.
    #[error(transparent)]
    Prober(#[from] BadAsker),
    /// It came to its deadline.
    #[error(transparent)]
    NotReady(#[from] NotReady),
}

impl Explain for NotReady {
    fn class(&self) -> Class {
        Class::Deadline
    }
}

impl Explain for WaitError {
    fn class(&self) -> Class {
        match self {
            Self::Prober(error) => error.class(),
            Self::NotReady(error) => error.class(),
        }
    }
}

/// Waits for all or any of the targets. Without a timeout it waits for ever.
pub async fn wait(
    prober: &Prober,
    targets: &[Target],
    how: How,
    timeout: Option<Duration>,
    tell: impl Fn(&Progress<'_>),
) -> Result<Waited, WaitError> {
    prober.prepare(targets)?;
    let start = Instant::now();
    // A timeout that the clock cannot hold is for ever.
    let deadline = timeout.and_then(|timeout| start.checked_add(timeout));
    let entries = targets.iter().map(|target| Some(Pending { target: target.clone(), reason: None })).collect();
    let board = Board { entries: RefCell::new(entries), start, timeout, tell };
    let mut holds: FuturesUnordered<_> = targets
        .iter()
        .enumerate()
        .map(async |(place, target)| {
            let is_ready = hold(prober, target, deadline, |reason| board.changed(place, target, reason)).await;
            is_ready.then(|| (target.clone(), board.ready(place, target)))
        })
        .collect();
    let mut ticks = interval(TELL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    extend(deadline);

    let mut ready = Vec::new();
    loop {
        tokio::select! {
            biased;
            ended = holds.next() => match ended {
                Some(one) => {
                    ready.extend(one);
                    if how == How::Any && !ready.is_empty() {
                        return Ok(Waited { ready });
                    }
                }
                None if ready.len() == targets.len() => return Ok(Waited { ready }),
                None => return Err(NotReady { pending: board.pending(), ready, after: start.elapsed() }.into()),
            },
            _ = ticks.tick() => {
                extend(deadline);
                board.still();
            }
        }
    }
}

/// Tries one target until it is ready (true) or the deadline has come (false). `changed` hears each new reason.
async fn hold(prober: &Prober, target: &Target, deadline: Option<Instant>, changed: impl Fn(&Reason)) -> bool {
    let mut watch = Watch::new(prober, target);
    let (mut here, mut far) = (HERE.pauses(), FAR.pauses());
    let mut last: Option<Reason> = None;
    loop {
        let full = Instant::now() + TRY;
        let until = deadline.map_or(full, |deadline| deadline.min(full));
        let Err(reason) = watch.probe(until).await else {
            return true;
        };
        // The deadline may cut a try short: its silence then tells less than the answer before it.
        let cut_short = until < full && reason.is_silence();
        if last.as_ref() != Some(&reason) && !(cut_short && last.is_some()) {
            changed(&reason);
            watch.changed_its_answer();
            last = Some(reason);
        }
        let pause = match &last {
            _ if watch.hears() => HEARD,
            Some(Reason::Refused) if watch.is_near() => NEAR,
            Some(Reason::Absent) => NEAR,
            _ if watch.is_near() => here.next().unwrap_or(HERE.cap),
            _ => far.next().unwrap_or(FAR.cap),
        };
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        tokio::select! {
            () = watch.changed() => (),
            () = sleep(left.map_or(pause, |left| left.min(pause))) => (),
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return false;
        }
    }
}

/// Asks systemd for time, not beyond the deadline but for the last words.
fn extend(deadline: Option<Instant>) {
    let left = deadline.map_or(EXTENSION, |deadline| deadline.saturating_duration_since(Instant::now()) + LAST_WORDS);
    notify::extend_timeout(left.min(EXTENSION));
}

/// What is known of each target, and who hears of it.
struct Board<F> {
    /// In the order of the targets; `None` where one is ready.
    entries: RefCell<Vec<Option<Pending>>>,
    start: Instant,
    timeout: Option<Duration>,
    tell: F,
}

impl<F: Fn(&Progress<'_>)> Board<F> {
    fn changed(&self, place: usize, target: &Target, reason: &Reason) {
        self.set(place, Some(Pending { target: target.clone(), reason: Some(reason.clone()) }));
        self.tell(&Progress::Changed { target, reason });
    }

    fn ready(&self, place: usize, target: &Target) -> Duration {
        let after = self.start.elapsed();
        self.set(place, None);
        self.tell(&Progress::Ready { target, after });
        after
    }

    fn still(&self) {
        let after = self.start.elapsed();
        self.tell(&Progress::Still { pending: &self.pending(), after, timeout: self.timeout });
    }

    fn set(&self, place: usize, now: Option<Pending>) {
        if let Some(entry) = self.entries.borrow_mut().get_mut(place) {
            *entry = now;
        }
    }

    fn pending(&self) -> Vec<Pending> {
        self.entries.borrow().iter().flatten().cloned().collect()
    }

    fn tell(&self, progress: &Progress<'_>) {
        notify::status(&progress.to_string());
        (self.tell)(progress);
    }
}

impl fmt::Display for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Some(reason) => write!(f, "{}: {reason}", self.target),
            None => write!(f, "{}: no answer yet", self.target),
        }
    }
}

impl fmt::Display for Progress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { target, reason } => write!(f, "waiting for {target}: {reason}"),
            Self::Ready { target, after } => write!(f, "{target} is ready after {}", Brief(*after)),
            Self::Still { pending, after, timeout: None } => {
                write!(f, "waiting for {} ({})", List(pending), Brief(*after))
            }
            Self::Still { pending, after, timeout: Some(timeout) } => {
                write!(f, "waiting for {} ({} of {})", List(pending), Brief(*after), Brief(*timeout))
            }
        }
    }
}

/// Pending targets on one line.
struct List<'a>(&'a [Pending]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, pending) in self.0.iter().enumerate() {
            let between = if place == 0 { "" } else { "; " };
            write!(f, "{between}{pending}")?;
        }
        Ok(())
    }
}

/// A duration to the millisecond, which is as exact as a wait is.
struct Brief(Duration);

impl fmt::Display for Brief {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        write!(f, "{:?}", Duration::from_millis(milliseconds))
    }
}

#[cfg(test)]
mod tests;
