//! stdout: data only, as text for people or JSON for programs.

use serde::Serialize;

use crate::host::console;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs; the fields are documented and stable.
    Json,
}

/// Prints text as it is.
pub fn print(text: &str) {
    console::print(text);
}

/// Prints JSON with a line end.
pub fn json(value: &impl Serialize) {
    // Plain data cannot fail to serialise: no map with other keys than text is ever printed.
    match serde_json::to_string_pretty(value) {
        Ok(text) => console::print(&format!("{text}\n")),
        Err(error) => console::complain(&format!("nodeagent: print JSON: {error}")),
    }
}
