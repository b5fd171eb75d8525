//! The only door to the machine: rooted files, D-Bus, HTTP, facts, what was seen.

pub mod facts;
pub mod http;
pub mod notify;
pub mod peers;
pub mod probe;
pub mod retry;
pub mod root;
pub mod seen;
