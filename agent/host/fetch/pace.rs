//! Is a mirror fast enough? A minimum rate over a window, whatever stands still in between.

use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use tokio::time::{Instant, timeout};

use crate::config::values::Rate;
use crate::host::http::HttpError;

/// Measures only the time for which the mirror is waited for: a slow disk is not its fault.
#[derive(Debug)]
pub struct Pace {
    least: u64,
    within: Duration,
    came: u64,
    waited: Duration,
}

impl Pace {
    /// At least `rate` over each window of this length.
    pub fn new(rate: Rate, within: Duration) -> Self {
        Self { least: rate.over(within).max(1), within, came: 0, waited: Duration::ZERO }
    }

    /// The next piece of a body; nothing at its end, and an error when the mirror is too slow.
    pub async fn next<B: AsRef<[u8]>, E>(
        &mut self,
        url: &str,
        body: &mut (impl Stream<Item = Result<B, E>> + Unpin),
    ) -> Result<Option<Result<B, E>>, HttpError> {
        let begun = Instant::now();
        let left = self.within.saturating_sub(self.waited);
        let Ok(piece) = timeout(left, body.next()).await else { return Err(self.stalled(url)) };
        if let Some(Ok(piece)) = &piece {
            self.count(piece.as_ref().len() as u64, begun.elapsed());
        }
        Ok(piece)
    }

    /// A window ends as soon as enough came in it.
    fn count(&mut self, bytes: u64, waited: Duration) {
        self.came += bytes;
        self.waited += waited;
        if self.came >= self.least {
            self.came = 0;
            self.waited = Duration::ZERO;
        }
    }

    fn stalled(&self, url: &str) -> HttpError {
        HttpError::Stalled { url: url.to_owned(), bytes: self.came, within: self.within }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    const RATE: Rate = Rate::bytes_per_second(10);
    const WINDOW: Duration = Duration::from_secs(10);

    fn after(waits: &[(u64, u64)]) -> Pace {
        let mut pace = Pace::new(RATE, WINDOW);
        for (bytes, seconds) in waits {
            pace.count(*bytes, Duration::from_secs(*seconds));
        }
        pace
    }

    #[test]
    fn a_window_ends_when_enough_came() {
        for (waits, waited) in [
            (&[(100, 9)][..], 0),
            (&[(99, 9)], 9),
            (&[(1, 1), (1, 1), (1, 1)], 3),
            (&[(50, 4), (50, 4), (1, 1)], 1),
            (&[(1_000_000, 9), (5, 2)], 2),
        ] {
            assert_eq!(after(waits).waited, Duration::from_secs(waited), "{waits:?}");
        }
    }

    #[tokio::test]
    async fn a_body_that_trickles_is_given_up_and_one_that_flows_is_not() {
        let mut slow = after(&[(1, 5), (1, 5)]);
        let mut silent = stream::pending::<Result<&[u8], ()>>();
        let error = slow.next("http://x", &mut silent).await.expect_err("stalled").to_string();
        assert_eq!(error, "http://x: the server sent only 2 B in 10 s");

        let mut pieces = stream::iter([Ok::<&[u8], ()>(b"abc")]);
        let mut pace = Pace::new(RATE, WINDOW);
        assert!(matches!(pace.next("http://x", &mut pieces).await, Ok(Some(Ok(b"abc")))));
        assert!(matches!(pace.next("http://x", &mut pieces).await, Ok(None)));
    }
}
