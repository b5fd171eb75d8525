//! The env file.
