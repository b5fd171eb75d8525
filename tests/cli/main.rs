//! Tests of the program against file trees: no systemd, no network but loopback. Failing storage needs root, to mount.
#![allow(clippy::disallowed_methods, reason = "tests prepare trees and run the program")]

mod config;
mod docs;
mod golden;
mod kill;
mod privileges;
mod snapshot;
mod storage;
mod world;
