//! Merge: what a later file says over what an earlier one said.
//!
//! Maps merge by key; scalars and lists are replaced. So whatever users extend is a map by name, never a list. Each
//! node keeps the place where it was written, so that a message points at the file that is to be changed.

use super::tree::{Entry, Map, Node, Value};

/// The earlier file's tree with the later one's on top.
///
/// A blank value (`kernel:` with nothing below it, or everything commented out) says nothing and changes nothing. A
/// written `null` takes back what an earlier file said: the default holds again.
pub(super) fn merge(earlier: Node, later: Node) -> Node {
    match (earlier.value, later.value) {
        (Value::Map(base), Value::Map(over)) => Node { at: earlier.at, value: Value::Map(merge_maps(base, over)) },
        (_, value) => Node { at: later.at, value },
    }
}

fn merge_maps(mut base: Map, over: Map) -> Map {
    for (name, entry) in over {
        let merged = match base.remove(&name) {
            None => entry,
            Some(earlier) if entry.node.is_blank() => earlier,
            Some(earlier) => merge_entries(earlier, entry),
        };
        base.insert(name, merged);
    }
    base
}

fn merge_entries(earlier: Entry, later: Entry) -> Entry {
    let both_maps = matches!((&earlier.node.value, &later.node.value), (Value::Map(_), Value::Map(_)));
    let key_at = if both_maps { earlier.key_at } else { later.key_at };
    Entry { key_at, node: merge(earlier.node, later.node) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Source;
    use super::super::tree::{Scalar, parse};
    use super::*;

    fn read(order: usize, name: &str, text: &str) -> Node {
        let source = Source { name: name.to_owned(), text: text.as_bytes().to_vec() };
        parse(order, &source, &mut Vec::new()).unwrap_or_else(|error| panic!("{text:?}: {error}"))
    }

    /// The tree in one line, each scalar with its file and line.
    fn show(node: &Node) -> String {
        match &node.value {
            Value::Scalar(scalar) => format!("{}@{}:{}", scalar.text, node.at.file, node.at.line),
            Value::List(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" ")),
            Value::Map(map) => {
                let entries: Vec<String> = map.iter().map(|(name, e)| format!("{name}={}", show(&e.node))).collect();
                format!("{{{}}}", entries.join(" "))
            }
        }
    }

    #[test]
    fn later_wins_by_key() {
        let table = [
            ("a: 1\nb: 2", "b: 3", "{a=1@one:1 b=3@two:1}"),
            ("a: {x: 1, y: 2}", "a:\n  y: 3\n  z: 4", "{a={x=1@one:1 y=3@two:2 z=4@two:3}}"),
            ("a: [1, 2]", "a: [3]", "{a=[3@two:1]}"),
            ("a: {x: 1}", "a: 2", "{a=2@two:1}"),
            ("a: 1", "a: {x: 2}", "{a={x=2@two:1}}"),
            ("a: {x: 1}", "a:", "{a={x=1@one:1}}"),
            ("a: 1", "a: null", "{a=null@two:1}"),
        ];
        for (one, two, wanted) in table {
            let merged = merge(read(0, "one", one), read(1, "two", two));
            assert_eq!(show(&merged), wanted, "{one:?} then {two:?}");
        }
    }

    proptest! {
        #[test]
        fn the_later_scalar_is_kept(
            one in prop::collection::btree_map("[a-e]", "[a-z0-9]{1,6}", 1..5),
            two in prop::collection::btree_map("[a-e]", "[a-z0-9]{1,6}", 1..5),
        ) {
            let text = |map: &std::collections::BTreeMap<String, String>| {
                map.iter().map(|(k, v)| format!("{k}: '{v}'")).collect::<Vec<_>>().join("\n")
            };
            let merged = merge(read(0, "one", &text(&one)), read(1, "two", &text(&two)));
            let Value::Map(map) = merged.value else { panic!("two maps merge into a map") };
            for (name, entry) in &map {
                let (wanted, file) = match two.get(name) {
                    Some(later) => (later, "two"),
                    None => (&one[name], "one"),
                };
                prop_assert_eq!(&entry.node.value, &Value::Scalar(Scalar { text: wanted.clone(), plain: false }));
                prop_assert_eq!(&*entry.node.at.file, file);
            }
            prop_assert!(one.keys().chain(two.keys()).all(|name| map.contains_key(name)));
        }

        #[test]
        fn three_files_merge_in_any_grouping_and_saying_it_twice_changes_nothing(
            one in a_map(), two in a_map(), three in a_map(),
        ) {
            let (one, two, three) = (read(0, "one", &one), read(1, "two", &two), read(2, "three", &three));
            let twice = merge(merge(one.clone(), two.clone()), two.clone());
            prop_assert_eq!(show(&twice), show(&merge(one.clone(), two.clone())));
            let left = merge(merge(one.clone(), two.clone()), three.clone());
            let right = merge(one, merge(two, three));
            prop_assert_eq!(show(&left), show(&right));
        }
    }

    /// A map in flow style, of scalars, lists and maps. Without blanks and with one kind of value by key: a later
    /// scalar takes away an earlier map for good, and only the grouping from the left knows of it.
    fn a_map() -> impl Strategy<Value = String> {
        let scalars = prop::collection::btree_map("[a-c]", "[0-9]", 0..3);
        let lists = prop::collection::btree_map("[d-e]", "\\[[0-9]\\]", 0..2);
        let inner = prop::collection::btree_map("[a-c]", "[0-9]", 0..3).prop_map(|map| flow(&map));
        let maps = prop::collection::btree_map("[f-g]", inner, 0..2);
        (scalars, lists, maps).prop_map(|(a, b, c)| flow(&a.into_iter().chain(b).chain(c).collect()))
    }

    fn flow(map: &std::collections::BTreeMap<String, String>) -> String {
        let entries: Vec<String> = map.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        format!("{{{}}}", entries.join(", "))
    }
}
