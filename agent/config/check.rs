//! Check: the merged tree against the JSON Schema, every problem at once, and the typed value that comes out of it.
//!
//! Only the part of JSON Schema that our document types produce is understood, and a test fails as soon as they produce
//! more. A null counts as an absent key everywhere.

use serde_json::Value as Json;

use super::errors::Problem;
use super::tree::{Entry, Kind, Map, Node, Position, Scalar, Value, child_key};
use super::values::check_format;

/// The tree as the schema types it, or everything that is wrong with it.
///
/// The result holds neither nulls nor positions, its keys are sorted and its scalars typed: two configurations that say
/// the same have the same value.
pub(super) fn check(schema: &Json, tree: &Node) -> Result<Json, Vec<Problem>> {
    let mut checker = Checker { root: schema, problems: Vec::new() };
    // At the top no key could be blamed for a missing one, hence the top of the first file.
    let top = Position { line: 1, column: 1, ..tree.at.clone() };
    let typed = checker.value(schema, tree, &top, "");
    if checker.problems.is_empty() { Ok(typed) } else { Err(checker.problems) }
}

struct Checker<'s> {
    root: &'s Json,
    problems: Vec<Problem>,
}

impl<'s> Checker<'s> {
    fn report(&mut self, at: &Position, key: &str, message: impl Into<String>) {
        self.problems.push(Problem::new(at, key, message));
    }

    /// The schema itself behind references and "or null".
    fn resolve(&self, schema: &'s Json) -> &'s Json {
        if let Some(reference) = schema["$ref"].as_str() {
            let target = self.root.pointer(reference.trim_start_matches('#'));
            return target.map_or(&Json::Null, |target| self.resolve(target));
        }
        if let Some(choices) = schema["anyOf"].as_array() {
            let other = choices.iter().find(|choice| choice["type"] != "null");
            return other.map_or(&Json::Null, |other| self.resolve(other));
        }
        schema
    }

    /// One value. `blame` is where its key stands: a missing child is reported there.
    ///
    /// After a problem the returned value means nothing, and [`check`] throws it away.
    fn value(&mut self, schema: &'s Json, node: &Node, blame: &Position, key: &str) -> Json {
        let schema = self.resolve(schema);
        let wanted = Wanted::of(schema);
        match (wanted, &node.value) {
            (Wanted::Map, Value::Map(map)) => self.map(schema, map, blame, key),
            (Wanted::List, Value::List(items)) => self.list(schema, items, key),
            (Wanted::Bool | Wanted::Text | Wanted::TextOrInteger, Value::Scalar(scalar)) => {
                self.scalar(schema, wanted, scalar, &node.at, key)
            }
            (_, value) => {
                let hint =
                    if matches!((wanted, value), (Wanted::List, Value::Scalar(_))) { ": write [value]" } else { "" };
                self.report(&node.at, key, format!("wants {}, has {}{hint}", wanted.name(), describe(value)));
                Json::Null
            }
        }
    }

    fn list(&mut self, schema: &'s Json, items: &[Node], key: &str) -> Json {
        let typed = items
            .iter()
            .enumerate()
            .map(|(i, item)| self.value(&schema["items"], item, &item.at, &format!("{key}[{i}]")));
        Json::Array(typed.collect())
    }

    fn map(&mut self, schema: &'s Json, map: &Map, blame: &Position, key: &str) -> Json {
        let mut typed = serde_json::Map::new();
        for (name, entry) in map {
            let child_key = child_key(key, name);
            if let Some(child) = self.child_schema(schema, name, entry, &child_key)
                && !entry.node.is_null()
            {
                let value = self.value(child, &entry.node, &entry.key_at, &child_key);
                // A map that says nothing is an absent one, as far as the digest is concerned.
                if value.as_object().is_none_or(|map| !map.is_empty()) {
                    typed.insert(name.clone(), value);
                }
            }
        }
        self.missing(schema, map, blame, key);
        self.count(schema, typed.len(), blame, key);
        Json::Object(typed)
    }

    /// The schema of the key `name`; a key that is not allowed is reported.
    fn child_schema(&mut self, schema: &'s Json, name: &str, entry: &Entry, key: &str) -> Option<&'s Json> {
        if let Some(child) = schema["properties"].get(name) {
            return Some(child);
        }
        let rest = &schema["additionalProperties"];
        if !rest.is_object() {
            self.report(&entry.key_at, key, unknown_key(schema, name));
            return None;
        }
        if let Some(format) = schema["propertyNames"]["format"].as_str()
            && let Err(error) = check_format(format, name)
        {
            self.report(&entry.key_at, key, error.to_string());
        }
        Some(rest)
    }

    fn missing(&mut self, schema: &'s Json, map: &Map, blame: &Position, key: &str) {
        for name in strings(&schema["required"]) {
            let entry = map.get(name);
            if entry.is_some_and(|entry| !entry.node.is_null()) {
                continue;
            }
            let property = &schema["properties"][name];
            let description = property["description"].as_str().or(self.resolve(property)["description"].as_str());
            let description = description.unwrap_or("a value").trim_end_matches('.');
            let at = entry.map_or(blame, |entry| &entry.key_at);
            self.report(at, &child_key(key, name), format!("is missing, and required: {description}"));
        }
    }

    /// "Exactly one of", as `minProperties` and `maxProperties` say it. A key in there that is reported already (an
    /// unknown one, say) was meant to be the one: then "too few" would only repeat it.
    fn count(&mut self, schema: &'s Json, count: usize, blame: &Position, key: &str) {
        let least = schema["minProperties"].as_u64().unwrap_or(0);
        let most = schema["maxProperties"].as_u64().unwrap_or(u64::MAX);
        let count = count as u64;
        if count > most || (count < least && !self.reported_inside(key)) {
            self.report(blame, key, format!("wants exactly one of: {}", known_keys(schema).join(", ")));
        }
    }

    fn reported_inside(&self, key: &str) -> bool {
        let prefix = format!("{key}.");
        self.problems.iter().any(|problem| problem.key.starts_with(&prefix))
    }

    fn scalar(&mut self, schema: &'s Json, wanted: Wanted, scalar: &Scalar, at: &Position, key: &str) -> Json {
        match (wanted, scalar.kind()) {
            (Wanted::Bool, Kind::Bool(value)) => Json::Bool(value),
            (Wanted::Text | Wanted::TextOrInteger, Kind::Text) | (Wanted::TextOrInteger, Kind::Integer) => {
                self.text(schema, &scalar.text, at, key)
            }
            (_, kind) => {
                let has = describe_scalar(scalar, kind);
                let hint = hint(schema, wanted, scalar);
                self.report(at, key, format!("wants {}, has {has}{hint}", wanted.name()));
                Json::Null
            }
        }
    }

    fn text(&mut self, schema: &'s Json, text: &str, at: &Position, key: &str) -> Json {
        let allowed = allowed_texts(schema);
        if !allowed.is_empty() && !allowed.contains(&text) {
            self.report(at, key, not_allowed(&allowed, text));
        } else if text.contains(|c: char| c.is_control() && c != '\t') {
            self.report(at, key, "wants text of one line, without control characters");
        } else if let Some(format) = schema["format"].as_str()
            && let Err(error) = check_format(format, text)
        {
            self.report(at, key, error.to_string());
        }
        Json::String(text.to_owned())
    }
}

/// What a schema wants, of what our documents can want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Map,
    List,
    Bool,
    Text,
    /// Text that people write as a bare number: sysctls and limits. It is handed on as text, as it was written.
    TextOrInteger,
}

impl Wanted {
    fn of(schema: &Json) -> Self {
        let types = match &schema["type"] {
            Json::String(one) => vec![one.as_str()],
            several => strings(several).collect(),
        };
        let has = |name: &str| types.contains(&name);
        if has("object") {
            Self::Map
        } else if has("array") {
            Self::List
        } else if has("boolean") {
            Self::Bool
        } else if has("integer") {
            Self::TextOrInteger
        } else {
            // `string`, and a choice of constants, which has no type of its own.
            Self::Text
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Map => "a map of keys",
            Self::List => "a list",
            Self::Bool => "true or false",
            Self::Text => "text",
            Self::TextOrInteger => "text or a whole number",
        }
    }
}

fn strings(list: &Json) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Json::as_str)
}

/// The texts that a schema allows, from `const`, `enum` or a choice of constants; empty when it allows any.
fn allowed_texts(schema: &Json) -> Vec<&str> {
    let choices = schema["oneOf"].as_array().into_iter().flatten();
    let constants = choices.chain([schema]).filter_map(|choice| choice["const"].as_str());
    constants.chain(strings(&schema["enum"])).collect()
}

fn not_allowed(allowed: &[&str], text: &str) -> String {
    format!("{text:?} is not known here; it must be: {}", allowed.join(", "))
}

fn known_keys(schema: &Json) -> Vec<&str> {
    schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect()
}

fn unknown_key(schema: &Json, name: &str) -> String {
    let known = known_keys(schema);
    match nearest(name, &known) {
        Some(near) => format!("unknown key; did you mean {near}?"),
        None => format!("unknown key; known here: {}", known.join(", ")),
    }
}

/// The known key that was probably meant: at most a third of its letters away, upper and lower case alike.
fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let folded = name.to_lowercase();
    let distances = known.iter().map(|key| (edit_distance(&folded, &key.to_lowercase()), *key));
    let (distance, key) = distances.min()?;
    (distance <= key.len().div_ceil(3)).then_some(key)
}

/// Levenshtein's distance: the fewest insertions, deletions and replacements that lead from `a` to `b`.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

fn describe(value: &Value) -> String {
    match value {
        Value::Map(_) => "a map".to_owned(),
        Value::List(_) => "a list".to_owned(),
        Value::Scalar(scalar) => describe_scalar(scalar, scalar.kind()),
    }
}

fn describe_scalar(scalar: &Scalar, kind: Kind) -> String {
    match kind {
        Kind::Null => "nothing".to_owned(),
        Kind::Bool(value) => value.to_string(),
        Kind::Integer | Kind::Float => format!("the number {}", scalar.text),
        Kind::Text => format!("the text {:?}", scalar.text),
    }
}

/// What to write instead, where a person can hardly have meant anything else.
fn hint(schema: &Json, wanted: Wanted, scalar: &Scalar) -> String {
    if scalar.kind() == Kind::Null {
        return String::new();
    }
    if wanted == Wanted::Bool {
        return match scalar.text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" | "1" => ": write true, without quotes".to_owned(),
            "false" | "no" | "off" | "n" | "0" => ": write false, without quotes".to_owned(),
            _ => String::new(),
        };
    }
    // Quotes are no help for a value that is bad as text, too: `version: 1.34`.
    match schema["format"].as_str().map(|format| check_format(format, &scalar.text)) {
        Some(Err(error)) => format!(": {error}"),
        _ => format!(": if that is meant, write it in quotes: {:?}", scalar.text),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Source, document, tree};
    use super::*;

    fn problems_of(text: &str) -> Vec<String> {
        let source = Source { name: "n".to_owned(), text: text.as_bytes().to_vec() };
        let node = tree::parse(0, &source, &mut Vec::new()).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        let problems = check(&document::schema(), &node).expect_err(text);
        problems.iter().map(ToString::to_string).collect()
    }

    /// The problem that stands at `key`: each text is otherwise incomplete, which is reported too.
    fn problem_at(text: &str, key: &str) -> String {
        let all = problems_of(text);
        let at_key: Vec<&String> = all.iter().filter(|p| p.split(':').nth(3) == Some(&format!(" {key}"))).collect();
        assert_eq!(at_key.len(), 1, "{text:?} at {key}: {all:#?}");
        at_key[0].clone()
    }

    #[test]
    fn each_kind_of_problem_has_its_words() {
        let table = [
            ("roles: worker", "roles", "n:1:1: roles: unknown key; did you mean role?"),
            ("cluster: {apiserver: x}", "cluster.apiserver", "did you mean apiServer?"),
            ("\"a\\nb\\e\": 1", "a\\nb\\u{1b}", "n:1:1: a\\nb\\u{1b}: unknown key"),
            ("zebra: 1", "zebra", "unknown key; known here: apiVersion, kind, role, node,"),
            ("kind: Nodeconfig", "kind", "\"Nodeconfig\" is not known here; it must be: NodeConfig"),
            ("role: boss", "role", "\"boss\" is not known here; it must be: etcd, controller, worker, edge, kubeadm"),
            ("pki: {signer: {}}", "pki.signer", "wants exactly one of: kubernetes, local, cfssl, offline"),
            ("cluster: []", "cluster", "wants a map of keys, has a list"),
            ("cluster: 5", "cluster", "wants a map of keys, has the number 5"),
            (
                "kubernetes: {mirrors: http://x}",
                "kubernetes.mirrors",
                "wants a list, has the text \"http://x\": write [v",
            ),
            ("kubernetes: {mirrors: [ftp://x]}", "kubernetes.mirrors[0]", "is not an http(s) URL"),
            ("kubernetes: {mirrors: [null]}", "kubernetes.mirrors[0]", "wants text, has nothing"),
            ("kernel: {modules: {overlay: \"yes\"}}", "kernel.modules.overlay", "has the text \"yes\": write true"),
            ("kernel: {modules: {overlay: off}}", "kernel.modules.overlay", "write false"),
            ("kernel: {modules: {a/b: true}}", "kernel.modules.a/b", "is not a kernel module's name"),
            (
                "kernel: {sysctls: {vm.x: 1.5}}",
                "kernel.sysctls.vm.x",
                "wants text or a whole number, has the number 1.5",
            ),
            ("kernel: {sysctls: {vm.x: \"a\\nb\"}}", "kernel.sysctls.vm.x", "text of one line"),
            (
                "kubernetes: {version: 1.34}",
                "kubernetes.version",
                "wants text, has the number 1.34: \"1.34\" is not a Kubernetes version",
            ),
            ("kubernetes: {version: 1.34.2}", "kubernetes.version", "it does not start with v"),
            (
                "node: {name: 7}",
                "node.name",
                "wants text, has the number 7: if that is meant, write it in quotes: \"7\"",
            ),
            ("node: {name: true}", "node.name", "wants text, has true: if that is meant, write it in quotes"),
            ("limits: {kubelet: {}}", "limits.kubelet", "\"kubelet\" is not"),
            ("limits: {a.service: {LimitNOFILES: 1}}", "limits.a.service.LimitNOFILES", "did you mean LimitNOFILE?"),
            ("limits: {a.service: {LimitNOFILE: 2:1}}", "limits.a.service.LimitNOFILE", "soft limit is above"),
            ("cluster:\n  dns: 10", "cluster.apiServer", "n:1:1: cluster.apiServer: is missing, and required: The API"),
            ("cluster:\n  apiServer:", "cluster.apiServer", "n:2:3: cluster.apiServer: is missing"),
            ("cluster: {dns: ten}", "cluster.dns", "\"ten\" is not an IP address"),
        ];
        for (text, key, wanted) in table {
            let problem = problem_at(text, key);
            assert!(problem.contains(wanted), "{text:?}: {problem}");
        }
    }

    #[test]
    fn nearest_key() {
        let known = ["apiServer", "podCIDR", "dns", "domain"];
        let table = [
            ("apiserver", Some("apiServer")),
            ("api_server", Some("apiServer")),
            ("podCidr", Some("podCIDR")),
            ("dnss", Some("dns")),
            ("domian", Some("domain")),
            ("certificates", None),
        ];
        for (name, wanted) in table {
            assert_eq!(nearest(name, &known), wanted, "{name}");
        }
    }

    /// The check knows a part of JSON Schema; a keyword outside of it would silently not be checked.
    #[test]
    fn the_schema_uses_only_what_the_check_understands() {
        const UNDERSTOOD: [&str; 19] = [
            "$defs",
            "$ref",
            "$schema",
            "additionalProperties",
            "anyOf",
            "const",
            "default",
            "description",
            "enum",
            "format",
            "items",
            "maxProperties",
            "minProperties",
            "oneOf",
            "properties",
            "propertyNames",
            "required",
            "title",
            "type",
        ];
        fn walk(schema: &Json) {
            match schema {
                Json::Bool(_) => return,
                Json::Object(_) => {}
                other => panic!("not a schema: {other}"),
            }
            for (keyword, value) in schema.as_object().into_iter().flatten() {
                assert!(UNDERSTOOD.contains(&keyword.as_str()), "{keyword} in {schema}");
                match keyword.as_str() {
                    "properties" | "$defs" => value.as_object().into_iter().flatten().for_each(|(_, s)| walk(s)),
                    "items" | "additionalProperties" | "propertyNames" => walk(value),
                    "anyOf" => {
                        let choices = value.as_array().expect("a list");
                        assert!(choices.len() == 2 && choices[1]["type"] == "null", "more than \"or null\": {value}");
                        choices.iter().for_each(walk);
                    }
                    "oneOf" => value.as_array().expect("a list").iter().for_each(|choice| {
                        assert!(choice["const"].is_string(), "a choice of more than constants: {value}");
                    }),
                    "type" => {
                        let known = ["object", "array", "boolean", "string", "integer", "null"];
                        let all = value.as_str().into_iter().chain(strings(value)).all(|name| known.contains(&name));
                        assert!(all, "{value}");
                    }
                    _ => {}
                }
            }
        }
        walk(&document::schema());
    }
}
