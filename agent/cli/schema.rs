//! `nodeagent schema`: the JSON Schema of node.yaml, for editors.

use super::output;

/// Prints it.
pub fn run() {
    output::json(&crate::config::json_schema());
}
