//! Events: one type owns each message's `MESSAGE_ID`, fields and text, and goes to every sink there is.
//!
//! The sinks: the journal whenever its socket exists, stderr unless that *is* the journal, and systemd's `STATUS=`.
//! Secrets cannot reach any of them: an event is built from names, numbers and faults, never from file content.

mod event;
mod fields;
mod sinks;
mod text;

pub use event::{Event, Level};
pub use sinks::{Options, StatusLine, Teller, start};
pub use text::size;
