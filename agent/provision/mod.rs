//! The operator's side: what is made once, on a machine with a network and time, so that nodes need neither.

pub mod authority;
pub mod cloud_config;
mod directory;
pub mod lock;
pub mod sign;
