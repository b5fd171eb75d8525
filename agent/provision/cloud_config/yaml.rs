//! YAML that every reader takes for the same: those of YAML 1.1 (cloud-init), of 1.2 (the agent itself) and
//! coreos-cloudinit, which looks at the bare text.
//!
//! A text stands without quotes only where no version of YAML has another idea of it: never `on`, `0700`, `1e3` or `10:30`.

use std::net::Ipv4Addr;

use serde_json::{Map, Value};

/// The longest line of what is written on one line.
const WIDTH: usize = 100;

/// A map as a document, its keys in their order.
pub(super) fn print(map: &Map<String, Value>) -> String {
    let mut text = String::new();
    for (name, value) in map {
        entry(name, value, 0, &mut text);
    }
    text
}

/// A key and its value, which stands in lines of its own if it is a map or a list at the top, or does not fit in one.
fn entry(name: &str, value: &Value, indent: usize, text: &mut String) {
    pad(indent, text);
    text.push_str(&scalar(name, true));
    text.push(':');
    let room = WIDTH.saturating_sub(indent + name.len() + 4);
    let line = match value {
        Value::String(text) if !text.contains('\n') => Some(scalar(text, false)),
        other => flow(other).filter(|line| line.len() <= room && (indent > 0 || is_plain_line(other))),
    };
    match line {
        Some(line) => push_line(&format!(" {line}"), text),
        None => under(value, indent, text),
    }
}

/// Whether it belongs on its key's line even at the top.
fn is_plain_line(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => true,
    }
}

/// What stands below and behind a key or a list's dash.
fn under(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            text.push('\n');
            for (name, value) in map {
                entry(name, value, indent + 2, text);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            text.push('\n');
            for item in items {
                list_item(item, indent + 2, text);
            }
        }
        Value::String(lines) => match literal(lines, indent + 2) {
            Some(block) => text.extend([" ", &block]),
            None => push_line(&format!(" {}", scalar(lines, false)), text),
        },
        other => push_line(&format!(" {other}"), text),
    }
}

fn list_item(item: &Value, indent: usize, text: &mut String) {
    pad(indent, text);
    text.push('-');
    match (flow(item).filter(|line| line.len() + indent + 2 <= WIDTH), item) {
        (Some(line), _) => push_line(&format!(" {line}"), text),
        (None, Value::Object(map)) if !map.is_empty() => {
            // The first key stands behind the dash, the others below it.
            let mut lines = String::new();
            for (name, value) in map {
                entry(name, value, indent + 2, &mut lines);
            }
            text.push(' ');
            text.push_str(&lines[indent + 2..]);
        }
        (None, _) => under(item, indent, text),
    }
}

/// The value on one line, unless it has lines itself, or maps in maps, which nobody could read.
fn flow(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if text.contains('\n') => None,
        Value::String(text) => Some(scalar(text, true)),
        Value::Array(items) => {
            let items: Option<Vec<String>> = items.iter().map(flow).collect();
            Some(format!("[{}]", items?.join(", ")))
        }
        Value::Object(map) if map.is_empty() => Some("{}".to_owned()),
        Value::Object(map) if map.values().any(Value::is_object) => None,
        Value::Object(map) => {
            let entries = map.iter().map(|(name, value)| Some(format!("{}: {}", scalar(name, true), flow(value)?)));
            Some(format!("{{ {} }}", entries.collect::<Option<Vec<_>>>()?.join(", ")))
        }
        other => Some(other.to_string()),
    }
}

fn pad(indent: usize, text: &mut String) {
    text.extend(std::iter::repeat_n(' ', indent));
}

fn push_line(line: &str, text: &mut String) {
    text.push_str(line);
    text.push('\n');
}

/// Several lines as they are, below `|`. None where that would not give the same text back, or be hard to see.
fn literal(lines: &str, indent: usize) -> Option<String> {
    let readable = |c: char| c == '\n' || c == '\t' || is_printable(c);
    if !lines.contains('\n') || lines.starts_with([' ', '\n', '\t']) || !lines.chars().all(readable) {
        return None;
    }
    let (content, mark) = match lines.strip_suffix('\n') {
        None => (lines, "|-"),
        // More empty lines at the end would be lost.
        Some(content) if content.ends_with('\n') => return None,
        Some(content) => (content, "|"),
    };
    let mut block = format!("{mark}\n");
    for line in content.split('\n') {
        if !line.is_empty() {
            pad(indent, &mut block);
        }
        push_line(line, &mut block);
    }
    Some(block)
}

/// A text of one line, in quotes unless it cannot be taken for anything else. `flow`: between braces or brackets.
fn scalar(text: &str, flow: bool) -> String {
    if is_bare(text, flow) { text.to_owned() } else { quoted(text) }
}

fn is_bare(text: &str, flow: bool) -> bool {
    // YAML 1.1 (yaml.org/type/bool.html, null.html).
    const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let good = |c: char| c.is_ascii_alphanumeric() || "-._/".contains(c) || (!flow && c == ':');
    let is_address = || text.split('/').next().is_some_and(|host| host.parse::<Ipv4Addr>().is_ok());
    text.chars().all(good)
        && !text.ends_with(':')
        && (text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/') || is_address())
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

fn is_printable(c: char) -> bool {
    // A line end to YAML 1.1 are also U+0085, U+2028 and U+2029; U+FEFF marks a file's start.
    !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

fn quoted(text: &str) -> String {
    let escape = |c: char| match c {
        '"' => "\\\"".to_owned(),
        '\\' => "\\\\".to_owned(),
        '\n' => "\\n".to_owned(),
        '\t' => "\\t".to_owned(),
        c if is_printable(c) => c.to_string(),
        c => match u32::from(c) {
            code @ 0..=0xff => format!("\\x{code:02x}"),
            code @ 0x100..=0xffff => format!("\\u{code:04x}"),
            code => format!("\\U{code:08x}"),
        },
    };
    format!("\"{}\"", text.chars().map(escape).collect::<String>())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "the test asks another reader of YAML")]

    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use proptest::prelude::*;
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;
    use serde_json::json;

    use super::*;
    use crate::config::Source;
    use crate::config::manifests::manifests;

    /// Texts that YAML has its own idea of, and others.
    fn a_text() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z0-9:.,#&*!|>'\"%@`{}\\[\\]?<=~+ \t_-]{0,12}",
            "[0-9]{1,3}[:._eExob-][0-9]{1,3}([:.][0-9]{2})?",
            "([Yy]|[Nn]|on|ON|Off|yes|No|true|False|null|~|NULL|<<|=|---|\\.\\.\\.|\\.inf|\\.NaN|2026-11-21)",
            "( |\t)?[a-z#-]{0,5}: ?[a-z]{0,5}( #)?",
            "([ a-z\t:#-]{0,9}\n){0,4}[ a-z]{0,4}",
            any::<String>().prop_map(|text| text.replace('\0', "")),
        ]
    }

    /// A map, so deep.
    fn a_map(depth: u32) -> BoxedStrategy<Value> {
        let text = || a_text().prop_map(Value::from);
        let leaf =
            prop_oneof![8 => text(), 1 => any::<bool>().prop_map(Value::from), 1 => any::<u16>().prop_map(Value::from)];
        let value = if depth == 0 {
            leaf.boxed()
        } else {
            let list = prop::collection::vec(prop_oneof![text(), a_map(depth - 1)], 0..3).prop_map(Value::from);
            prop_oneof![4 => leaf, 1 => list, 1 => a_map(depth - 1)].boxed()
        };
        let key = a_text().prop_map(|text| text.replace(['\n', '\r'], " "));
        prop::collection::btree_map(key, value, 0..4).prop_map(|map| map.into_iter().collect()).boxed()
    }

    /// `PyYAML` reads YAML 1.1 and is cloud-init's own reader; the other one is the agent's.
    #[test]
    fn every_reader_finds_what_was_written() {
        const SCRIPT: &str = "import json, sys, yaml\n\
            json.dump([yaml.safe_load(text) for text in json.load(sys.stdin)], sys.stdout)";
        let (mut runner, maps) = (TestRunner::default(), a_map(3));
        let written: Vec<Value> =
            (0..500).map(|_| json!({ "top": maps.new_tree(&mut runner).expect("a map").current() })).collect();
        let texts: Vec<String> = written.iter().cloned().map(shown).collect();

        let mut python = Command::new("/usr/bin/python3");
        let python = python.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut python = python.spawn().expect("python3 and python3-yaml: run `make setup`");
        let input = serde_json::to_vec(&texts).expect("JSON");
        python.stdin.take().expect("its input").write_all(&input).expect("write");
        let output = python.wait_with_output().expect("its answer");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let read: Vec<Value> = serde_json::from_slice(&output.stdout).expect("JSON");
        for ((written, text), read) in written.iter().zip(&texts).zip(&read) {
            assert_eq!(written, read, "PyYAML, of\n{text}");
            let source = Source { name: "x".to_owned(), text: text.clone().into_bytes() };
            let own = manifests(&source).unwrap_or_else(|problem| panic!("{problem} in\n{text}"));
            assert_eq!(&own[0].object, written, "the agent, of\n{text}");
        }
    }

    fn shown(value: Value) -> String {
        print(value.as_object().expect("a map"))
    }

    #[test]
    fn looks_like_what_people_write() {
        let value = json!({
            "apiVersion": "nodeagent.io/v1alpha1",
            "on": "on",
            "cluster": {
                "apiServer": "https://10.10.30.11:6443",
                "nodes": { "worker-1": { "address": "10.10.30.21", "podCIDR": "10.244.1.0/24" } },
            },
            "none": {},
            "write_files": [
                { "path": "/etc/a", "permissions": "0600", "content": "one\n\n  two\n" },
                { "path": "/etc/b", "content": "x\ny" },
            ],
            "runcmd": [["systemctl", "start", "--no-block", "a.service"], ["sync"]],
            "yes": true,
            "mode": 420,
        });
        insta::assert_snapshot!(shown(value), @r#"
        apiVersion: nodeagent.io/v1alpha1
        "on": "on"
        cluster:
          apiServer: https://10.10.30.11:6443
          nodes:
            worker-1: { address: 10.10.30.21, podCIDR: 10.244.1.0/24 }
        none: {}
        write_files:
          - path: /etc/a
            permissions: "0600"
            content: |
              one

                two
          - path: /etc/b
            content: |-
              x
              y
        runcmd:
          - [systemctl, start, "--no-block", a.service]
          - [sync]
        "yes": true
        mode: 420
        "#);
    }

    #[test]
    fn what_could_be_something_else_is_quoted() {
        for text in [
            "on", "Off", "y", "NULL", "0700", "1e3", "10:30", "1.5", "", "~", "-", "a: b", "# a", " a", "10.10/8", "=",
            "a,b", "*a", "a:",
        ] {
            assert_eq!(scalar(text, false), quoted(text), "{text:?}");
        }
        for text in
            ["worker-1", "10.10.30.11", "10.244.0.0/16", "v1.34.2", "/etc/a", "kubelet.service", "https://a:1/b"]
        {
            assert_eq!(scalar(text, false), text);
        }
    }
}
