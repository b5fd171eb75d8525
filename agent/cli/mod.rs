//! Commands.

pub mod wait;
