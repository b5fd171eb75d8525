//! How far a file is: a bar for people at a terminal, a message at sensible steps, a status line for systemd.

use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use crate::host::notify;
use crate::journal::{Event, Teller, size};

/// How often systemd's status line changes.
const STATUS: Duration = Duration::from_secs(1);

/// One file's.
pub struct Progress<'a> {
    what: &'a str,
    tell: &'a Teller,
    /// Once a mirror has begun to send.
    bar: Option<ProgressBar>,
    total: Option<u64>,
    done: u64,
    from_network: u64,
    begun: Instant,
    status: Instant,
    steps: Steps,
}

impl<'a> Progress<'a> {
    /// Of a file of which so many bytes are there.
    pub fn new(what: &'a str, tell: &'a Teller, done: u64, now: Instant) -> Self {
        Self {
            what,
            tell,
            bar: None,
            total: None,
            done,
            from_network: 0,
            begun: now,
            status: now,
            steps: Steps::new(done, now),
        }
    }

    /// A mirror begins to send what follows the first `done` bytes.
    pub fn resume(&mut self, done: u64, total: Option<u64>) {
        if self.bar.is_none() || total != self.total {
            self.clear();
        }
        self.total = total;
        self.done = done;
        self.bar.get_or_insert_with(|| self.tell.progress(self.what, total)).set_position(done);
    }

    /// More came.
    pub fn add(&mut self, bytes: u64, now: Instant) {
        self.done += bytes;
        self.from_network += bytes;
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
        if now.duration_since(self.status) >= STATUS {
            self.status = now;
            let of = self.total.map_or_else(String::new, |total| format!(" of {}", size(total)));
            notify::status(&format!("fetching {}: {}{of}", self.what, size(self.done)));
        }
        if self.steps.is_due(self.done, self.total, now) {
            let took = now.duration_since(self.begun);
            let (what, bytes, total) = (self.what, self.done, self.total);
            self.tell.tell(&Event::Fetching { what, bytes, total, from_network: self.from_network, took });
        }
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// What came over the network so far, thrown away or not.
    pub fn fetched(&self) -> u64 {
        self.from_network
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}

/// When another message is due: at each further quarter, but not more than one in ten seconds; and each minute anyway.
#[derive(Debug)]
struct Steps {
    at: Instant,
    done: u64,
}

impl Steps {
    const SOON: Duration = Duration::from_secs(10);
    const ANYWAY: Duration = Duration::from_mins(1);

    fn new(done: u64, now: Instant) -> Self {
        Self { at: now, done }
    }

    fn is_due(&mut self, done: u64, total: Option<u64>, now: Instant) -> bool {
        let since = now.duration_since(self.at);
        let quarter = total.is_some_and(|total| done.saturating_sub(self.done) >= total / 4);
        let due = (quarter && since >= Self::SOON) || since >= Self::ANYWAY;
        if due {
            *self = Self::new(done, now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_in_sensible_steps() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        for (rate, want) in
            [(1, vec![60, 120, 180, 240, 300, 360]), (3, vec![34, 68, 102]), (10, vec![10, 20, 30, 40]), (100, vec![])]
        {
            // A file of 400 bytes at `rate` bytes per second.
            let mut steps = Steps::new(0, begun);
            let due: Vec<u64> =
                (1..=400 / rate).filter(|second| steps.is_due(second * rate, Some(400), at(*second))).collect();
            assert_eq!(due, want, "{rate} bytes per second");
        }
    }
}
