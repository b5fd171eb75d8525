//! Tests of the program against file trees: no root needed, no systemd, no network but loopback.
#![allow(clippy::disallowed_methods, reason = "tests prepare trees and run the program")]

mod config;
mod docs;
mod golden;
mod kill;
mod privileges;
mod snapshot;
mod world;
