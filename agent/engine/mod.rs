//! One engine, six steps: see, diff, obtain, commit, settle.

pub mod change;
pub mod fault;
pub mod file;
pub mod id;
pub mod resource;
