//! Files of objects for the cluster's API: several YAML documents each, as `kubectl apply -f` takes them.
//!
//! The text goes through the same reader as the configuration, so anchors, tags and duplicate keys are refused with their
//! line. Scalars mean what they mean to kubectl, which reads YAML 1.1: `0644` is 420, and `on` is true.

use serde_json::{Map, Number, Value};

use super::tree::{self, Node, Value as Tree};
use super::{Problem, Source};

/// Most bytes in one file: etcd takes no object above 1.5 MB, and a file holds several.
const MAX_BYTES: usize = 8 << 20;

/// Most maps and lists inside one another. Definitions of resources spell out a pod, which goes thirty deep.
const MAX_DEPTH: usize = 96;

/// One object, and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The file, as the source was named.
    pub file: String,
    /// The line where it begins, from 1.
    pub line: usize,
    /// The object.
    pub object: Value,
}

/// The objects in a file; those in a `List` by themselves. Documents that say nothing are passed over.
pub fn manifests(source: &Source) -> Result<Vec<Manifest>, Problem> {
    let mut all = Vec::new();
    for node in tree::parse_all(source, MAX_BYTES, MAX_DEPTH)? {
        if node.is_null() {
            continue;
        }
        let Tree::Map(map) = &node.value else {
            return Err(Problem::new(
                &node.at,
                "",
                "an object is wanted here: a map with apiVersion, kind and metadata",
            ));
        };
        let kind = map.get("kind").map(|entry| &entry.node.value);
        let items = map.get("items").map(|entry| &entry.node.value);
        match (kind, items) {
            (Some(Tree::Scalar(kind)), Some(Tree::List(items))) if kind.text.ends_with("List") => {
                all.extend(items.iter().map(manifest));
            }
            _ => all.push(manifest(&node)),
        }
    }
    Ok(all)
}

fn manifest(node: &Node) -> Manifest {
    Manifest { file: node.at.file.to_string(), line: node.at.line, object: value(node) }
}

fn value(node: &Node) -> Value {
    match &node.value {
        Tree::Scalar(scalar) if scalar.plain => plain(&scalar.text),
        Tree::Scalar(scalar) => Value::String(scalar.text.clone()),
        Tree::List(items) => items.iter().map(value).collect(),
        Tree::Map(map) => {
            Value::Object(map.iter().map(|(key, entry)| (key.clone(), value(&entry.node))).collect::<Map<_, _>>())
        }
    }
}

/// What YAML 1.1 makes of a scalar without quotes (yaml.org/type), as Go's `yaml.v2` implements it.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Value::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Value::Bool(false),
        _ => number(text).map_or_else(|| Value::String(text.to_owned()), Value::Number),
    }
}

fn number(text: &str) -> Option<Number> {
    let (minus, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let radix = |digits: &str, radix| {
        // from_str_radix takes a sign of its own.
        let number = digits.chars().all(|c| c.is_digit(radix)).then(|| i64::from_str_radix(digits, radix).ok())??;
        Some(Number::from(if minus { -number } else { number }))
    };
    let lower = digits.to_ascii_lowercase();
    match lower.as_bytes() {
        [b'0', b'x', ..] => return radix(&lower[2..], 16),
        [b'0', b'b', ..] => return radix(&lower[2..], 2),
        [b'0', b'o', ..] => return radix(&lower[2..], 8),
        [b'0', rest @ ..] if !rest.is_empty() && rest.iter().all(u8::is_ascii_digit) => {
            return radix(&digits[1..], 8);
        }
        all if all.iter().all(u8::is_ascii_digit) => {
            return radix(digits, 10).or_else(|| digits.parse::<u64>().ok().filter(|_| !minus).map(Number::from));
        }
        _ => {}
    }
    let is_float = digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'-' | b'+'));
    is_float.then(|| text.parse::<f64>().ok()).flatten().and_then(Number::from_f64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Result<Vec<Manifest>, Problem> {
        manifests(&Source { name: "dns.yaml".to_owned(), text: text.as_bytes().to_vec() })
    }

    #[test]
    fn documents_keep_their_lines_and_lists_are_opened() {
        let text = "# nothing\n---\nkind: A\n---\n# nothing either\n---\nkind: PodList\nitems:\n- kind: B\n- kind: C\n";
        let all: Vec<_> = read(text).expect("read").into_iter().map(|m| (m.line, m.object)).collect();
        assert_eq!(all, [(3, json!({"kind": "A"})), (9, json!({"kind": "B"})), (10, json!({"kind": "C"}))]);
        assert_eq!(read("").expect("an empty file"), []);
        assert_eq!(
            read("{\"kind\": \"A\", \"n\": [1, true]}").expect("JSON")[0].object,
            json!({"kind": "A", "n": [1, true]})
        );
    }

    #[test]
    fn scalars_are_what_kubectl_makes_of_them() {
        for (text, want) in [
            ("0644", json!(420)),
            ("0o644", json!(420)),
            ("0x1F", json!(31)),
            ("-12", json!(-12)),
            ("+12", json!(12)),
            ("0", json!(0)),
            ("089", json!("089")),
            ("18446744073709551615", json!(u64::MAX)),
            ("1.5", json!(1.5)),
            ("1e3", json!(1000.0)),
            ("on", json!(true)),
            ("No", json!(false)),
            ("~", json!(null)),
            ("'on'", json!("on")),
            ("\"0644\"", json!("0644")),
            ("100m", json!("100m")),
            ("v1", json!("v1")),
            ("10.96.0.10", json!("10.96.0.10")),
            ("2026-11-22", json!("2026-11-22")),
            ("-a", json!("-a")),
            (".inf", json!(".inf")),
            ("1_000", json!("1_000")),
        ] {
            assert_eq!(read(&format!("a: {text}")).map(|all| all[0].object["a"].clone()), Ok(want), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_line() {
        for (text, line, part) in [
            ("kind: A\n---\n- b\n", 3, "an object is wanted here"),
            ("kind: A\nkind: B\n", 2, "the key is here twice"),
            ("kind: A\n---\nb: [\n", 4, "this is not YAML"),
            ("kind: &a A\n", 1, "anchors"),
        ] {
            let problem = read(text).expect_err(text);
            assert!(problem.line == line && problem.message.contains(part), "{text:?}: {problem}");
        }
    }
}
