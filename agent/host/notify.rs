//! What systemd is told of a unit: `sd_notify(3)`.
//!
//! Each does nothing when `NOTIFY_SOCKET` is not set. Nothing here fails: a status line that was not delivered changes
//! nothing about the work that it tells of.
//!
//! systemd takes messages from an `ExecStartPre=` process only in a unit with `NotifyAccess=exec` (or `all`).

use std::time::Duration;

use sd_notify::NotifyState;

/// Says in one line what is going on: `systemctl status` shows it.
pub fn status(line: &str) {
    // A message is lines of its own: a line break would begin another assignment.
    let line = line.replace(['\n', '\r'], " ");
    let _ = sd_notify::notify(&[NotifyState::Status(&line)]);
}

/// Asks for this much time from now before the running start (or stop) times out.
///
/// systemd moves the timeout only ever later, so asking for less than is left changes nothing.
pub fn extend_timeout(from_now: Duration) {
    let microseconds = u32::try_from(from_now.as_micros()).unwrap_or(u32::MAX);
    let _ = sd_notify::notify(&[NotifyState::ExtendTimeoutUsec(microseconds)]);
}

/// Says that a `Type=notify` unit has started.
pub fn ready() {
    let _ = sd_notify::notify(&[NotifyState::Ready]);
}

/// Says that the unit is about to end.
pub fn stopping() {
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
}
