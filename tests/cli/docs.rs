//! The documents say what the program does: drift fails here.

use std::fs;
use std::path::Path;
use std::process::Command;

fn repository(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

#[test]
fn every_command_is_documented() {
    let help = Command::new(env!("CARGO_BIN_EXE_nodeagent")).arg("--help").output().expect("help").stdout;
    let help = String::from_utf8(help).expect("text");
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // What is too long for one line goes on further in.
    let names = commands.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let commands: Vec<&str> = names.filter(|name| !name.is_empty() && *name != "help").collect();
    assert!(commands.len() > 8, "{commands:?}");
    let document = repository("docs/commands.md");
    for command in commands {
        assert!(document.contains(&format!("`{command}")), "docs/commands.md does not mention `{command}`");
    }
}

#[test]
fn every_event_is_in_the_catalogue() {
    let source = repository("agent/journal/event.rs");
    let document = repository("docs/journal.md");
    let ids: Vec<&str> =
        source.split('"').filter(|part| part.len() == 32 && part.bytes().all(|b| b.is_ascii_hexdigit())).collect();
    assert!(ids.len() > 10, "{ids:?}");
    for id in &ids {
        assert_eq!(ids.iter().filter(|other| other == &id).count(), 1, "{id} is used twice");
        assert!(document.contains(id), "docs/journal.md does not list {id}");
    }
    let listed =
        document.split('`').filter(|part| part.len() == 32 && part.bytes().all(|b| b.is_ascii_hexdigit())).count();
    assert_eq!(listed, ids.len(), "docs/journal.md lists an event that does not exist");
}
