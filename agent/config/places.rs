//! Places: where each key of the merged tree stands, for messages about what only its meaning shows.

use std::collections::BTreeMap;

use super::settings::{Origin, Origins};
use super::tree::{Node, Position, Value, child_key};

/// The place of each key that a file holds, by its dotted form.
pub(super) struct Places {
    top: Position,
    keys: BTreeMap<String, Place>,
}

struct Place {
    at: Position,
    /// Whether the key holds a value of its own, and not only more keys.
    leaf: bool,
}

impl Places {
    /// The places of the merged tree's keys. A null is no value: the default holds.
    pub fn of(tree: &Node) -> Self {
        let mut places = Self { top: Position { line: 1, column: 1, ..tree.at.clone() }, keys: BTreeMap::new() };
        places.gather(tree, "");
        places
    }

    fn gather(&mut self, node: &Node, key: &str) {
        let Value::Map(map) = &node.value else { return };
        for (name, entry) in map {
            if entry.node.is_null() {
                continue;
            }
            let child = child_key(key, name);
            let leaf = !matches!(entry.node.value, Value::Map(_));
            self.gather(&entry.node, &child);
            self.keys.insert(child, Place { at: entry.key_at.clone(), leaf });
        }
    }

    /// Where `key` stands, else the nearest key above it that a file holds.
    pub fn at(&self, key: &str) -> &Position {
        let mut key = key;
        loop {
            if let Some(place) = self.keys.get(key) {
                return &place.at;
            }
            match key.rfind('.') {
                Some(dot) => key = &key[..dot],
                None => return &self.top,
            }
        }
    }

    /// Where `key` itself stands, if a file holds it.
    pub fn of_key(&self, key: &str) -> Option<&Position> {
        self.keys.get(key).map(|place| &place.at)
    }

    /// The key of this name that stands in a line, the last one up to a column.
    pub fn named(&self, name: &str, line: usize, column: usize) -> Option<&str> {
        let keys = self.keys.iter().filter(|(key, place)| {
            place.at.line == line && place.at.column <= column && key.rsplit('.').next() == Some(name)
        });
        keys.max_by_key(|(_, place)| place.at.column).map(|(key, _)| key.as_str())
    }

    /// The origin of each value that a file gave.
    pub fn origins(&self) -> Origins {
        let leaves = self.keys.iter().filter(|(_, place)| place.leaf);
        let origin = |at: &Position| Origin::File { file: at.file.to_string(), line: at.line };
        Origins(leaves.map(|(key, place)| (key.clone(), origin(&place.at))).collect())
    }
}
