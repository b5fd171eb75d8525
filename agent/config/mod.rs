//! Configuration: text -> positioned tree -> merge -> check -> Settings.

pub mod settings;
pub mod values;
