//! The one retry policy: jittered, exponential pauses up to a deadline that every caller must name.
//!
//! `backoff` is unmaintained (RUSTSEC-2025-0012) and used nowhere else: it computes the pauses, and this file owns the
//! loop, because the crate's own neither bounds a running attempt nor keeps the number of attempts.

use std::time::Duration;

use backoff::ExponentialBackoffBuilder;
use backoff::backoff::Backoff as _;
use tokio::time::{Instant, sleep, timeout_at};

use crate::engine::fault::{Class, Explain};

/// How long the pauses between attempts are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// The first pause, before jitter.
    pub first: Duration,
    /// No pause is longer.
    pub cap: Duration,
    /// What each pause is multiplied by to get the next.
    pub growth: f64,
    /// How far a pause may stray, as a share of itself, so that a cluster's nodes do not knock in step.
    pub jitter: f64,
}

impl Default for Policy {
    fn default() -> Self {
        Self { first: Duration::from_millis(50), cap: Duration::from_secs(5), growth: 2.0, jitter: 0.5 }
    }
}

impl Policy {
    /// The pauses, one after the other, without end.
    pub fn pauses(&self) -> impl Iterator<Item = Duration> + use<> {
        let cap = self.cap;
        let mut backoff = ExponentialBackoffBuilder::new()
            .with_initial_interval(self.first)
            .with_max_interval(cap)
            .with_multiplier(self.growth)
            .with_randomization_factor(self.jitter)
            .with_max_elapsed_time(None)
            .build();
        // The crate's jitter goes past its own maximum, and without a maximum elapsed time it never says None.
        std::iter::repeat_with(move || backoff.next_backoff().unwrap_or(cap).min(cap))
    }
}

/// How an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tried<E> {
    /// Another attempt may succeed.
    Transient(E),
    /// Another attempt may succeed, but not before this time has passed: the server said so (`Retry-After`).
    NotBefore(E, Duration),
    /// No other attempt would.
    Permanent(E),
}

/// Why there was no further attempt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GaveUp<E> {
    /// An attempt failed in a way that another would not mend.
    #[error("attempt {attempts} failed, and another would not help")]
    Permanent {
        /// Which attempt it was.
        attempts: u32,
        /// How it failed.
        #[source]
        error: E,
    },
    /// No attempt succeeded before the deadline.
    #[error("attempt {attempts} was the last before the deadline")]
    Deadline {
        /// How many were begun.
        attempts: u32,
        /// How the last that came to an end failed; `None` when the first was still running.
        #[source]
        last: Option<E>,
    },
}

impl<E> GaveUp<E> {
    /// How many attempts were begun.
    pub fn attempts(&self) -> u32 {
        match self {
            Self::Permanent { attempts, .. } | Self::Deadline { attempts, .. } => *attempts,
        }
    }

    /// How the last attempt that came to an end failed.
    pub fn last(&self) -> Option<&E> {
        match self {
            Self::Permanent { error, .. } => Some(error),
            Self::Deadline { last, .. } => last.as_ref(),
        }
    }
}

impl<E: Explain> Explain for GaveUp<E> {
    fn class(&self) -> Class {
        match self {
            Self::Permanent { error, .. } => error.class(),
            Self::Deadline { last, .. } => last.as_ref().map_or(Class::Deadline, |e| e.class().max(Class::Deadline)),
        }
    }

    fn advice(&self) -> Option<String> {
        self.last().and_then(Explain::advice)
    }
}

/// Attempts until one succeeds, one fails for good, or `deadline` is so near that no pause fits before it.
///
/// An attempt that still runs at the deadline is dropped. `on_retry` hears each transient failure and the pause that
/// follows it.
pub async fn retry<T, E>(
    deadline: Instant,
    policy: &Policy,
    mut on_retry: impl FnMut(&E, Duration),
    mut attempt: impl AsyncFnMut() -> Result<T, Tried<E>>,
) -> Result<T, GaveUp<E>> {
    let mut last = None;
    let mut attempts = 0;
    for pause in policy.pauses() {
        attempts += 1;
        let (error, pause) = match timeout_at(deadline, attempt()).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(Tried::Permanent(error))) => return Err(GaveUp::Permanent { attempts, error }),
            Ok(Err(Tried::Transient(error))) => (error, pause),
            Ok(Err(Tried::NotBefore(error, asked))) => (error, pause.max(asked)),
            Err(_) => break,
        };
        let fits = Instant::now().checked_add(pause).is_some_and(|end| end < deadline);
        if fits {
            on_retry(&error, pause);
        }
        last = Some(error);
        if !fits {
            break;
        }
        sleep(pause).await;
    }
    Err(GaveUp::Deadline { attempts, last })
}

/// Which reasons are worth telling: a new one at once, the same one again after [`News::QUIET`].
#[derive(Debug, Default)]
pub struct News(Option<(String, std::time::Instant)>);

impl News {
    /// How long the same reason is not worth another line.
    pub const QUIET: Duration = Duration::from_secs(30);

    /// Whether this reason is worth telling now. If so it counts as told.
    pub fn is_new(&mut self, reason: &str) -> bool {
        let stale = self.0.as_ref().is_none_or(|(told, at)| told != reason || at.elapsed() >= Self::QUIET);
        if stale {
            self.0 = Some((reason.to_owned(), std::time::Instant::now()));
        }
        stale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Policy =
        Policy { first: Duration::from_millis(1), cap: Duration::from_millis(8), growth: 2.0, jitter: 0.5 };

    fn within(milliseconds: u64) -> Instant {
        Instant::now() + Duration::from_millis(milliseconds)
    }

    #[test]
    fn pauses_grow_to_the_cap_and_stray_no_further_than_the_jitter() {
        let policy = Policy::default();
        for (nth, pause) in policy.pauses().take(40).enumerate() {
            let plain =
                policy.first.mul_f64(policy.growth.powi(i32::try_from(nth).expect("a small number"))).min(policy.cap);
            assert!(pause >= plain.mul_f64(0.49), "pause {nth} is {pause:?}, plain {plain:?}");
            assert!(pause <= plain.mul_f64(1.51).min(policy.cap), "pause {nth} is {pause:?}, plain {plain:?}");
        }
    }

    #[tokio::test]
    async fn a_transient_failure_is_tried_again_and_told() {
        let (mut count, mut told) = (0, Vec::new());
        let result = retry(
            within(10_000),
            &QUICK,
            |error: &String, _| told.push(error.clone()),
            async || {
                count += 1;
                if count < 4 { Err(Tried::Transient(format!("no {count}"))) } else { Ok(count) }
            },
        )
        .await;
        assert_eq!(result, Ok(4));
        assert_eq!(told, ["no 1", "no 2", "no 3"]);
    }

    #[tokio::test]
    async fn a_permanent_failure_ends_it() {
        let result = retry(
            within(10_000),
            &QUICK,
            |_, _| panic!("nothing to retry"),
            async || Err::<(), _>(Tried::Permanent("404")),
        )
        .await;
        assert_eq!(result, Err(GaveUp::Permanent { attempts: 1, error: "404" }));
    }

    #[tokio::test]
    async fn the_last_error_is_kept_and_no_pause_passes_the_deadline() {
        let deadline = within(1_000);
        let mut count = 0;
        let result = retry(
            deadline,
            &QUICK,
            |_, _| (),
            async || {
                count += 1;
                Err::<(), _>(Tried::Transient(count))
            },
        )
        .await;
        assert_eq!(result, Err(GaveUp::Deadline { attempts: count, last: Some(count) }));
        assert!(count > 3, "{count} attempts");
        assert!(Instant::now() < deadline + Duration::from_secs(2), "it slept on");
    }

    #[tokio::test]
    async fn a_pause_that_does_not_fit_is_not_begun() {
        let start = Instant::now();
        let slow = Policy { first: Duration::from_mins(1), cap: Duration::from_mins(1), ..QUICK };
        let result = retry(
            start + Duration::from_secs(20),
            &slow,
            |_, _| panic!("no retry follows"),
            async || Err::<(), _>(Tried::Transient("down")),
        )
        .await;
        assert_eq!(result, Err(GaveUp::Deadline { attempts: 1, last: Some("down") }));
        assert!(start.elapsed() < Duration::from_secs(10), "it slept {:?}", start.elapsed());
    }

    #[tokio::test]
    async fn what_the_server_asks_for_is_waited() {
        let (mut count, mut pauses) = (0, Vec::new());
        let asked = Duration::from_millis(20);
        let result = retry(
            within(10_000),
            &QUICK,
            |_, pause| pauses.push(pause),
            async || {
                count += 1;
                if count < 3 { Err(Tried::NotBefore("busy", asked)) } else { Ok(count) }
            },
        )
        .await;
        assert_eq!((result, pauses), (Ok(3), vec![asked, asked]));

        let asked = Tried::NotBefore("busy", Duration::MAX);
        let result = retry(within(10_000), &QUICK, |_, _| panic!("no retry fits"), async || Err::<(), _>(asked)).await;
        assert_eq!(result, Err(GaveUp::Deadline { attempts: 1, last: Some("busy") }));
    }

    #[tokio::test]
    async fn an_attempt_that_hangs_ends_at_the_deadline() {
        let result =
            retry(within(30), &QUICK, |(), _| (), async || std::future::pending::<Result<(), Tried<()>>>().await).await;
        assert_eq!(result, Err(GaveUp::Deadline { attempts: 1, last: None }));
    }
}
