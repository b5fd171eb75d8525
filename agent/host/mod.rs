//! The only door to the machine: rooted files, D-Bus, HTTP, facts, what was seen.

pub mod facts;
pub mod gather;
pub mod http;
pub mod peers;
pub mod root;
pub mod seen;
