//! Waiting for targets.
