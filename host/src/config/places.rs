//! Where each key stands in the file: for faults that show only when what it names is opened.

use super::fault::{Fault, Faults, Position};
use super::node::{Node, Value, key_below};
use std::collections::BTreeMap;

/// The places of a configuration's keys.
#[derive(Clone, Debug, Default)]
pub struct Places {
    file: String,
    keys: BTreeMap<String, Position>,
}

impl Places {
    pub(super) fn of(file: &str, root: &Node) -> Places {
        let mut places = Places { file: file.into(), keys: BTreeMap::new() };
        places.note("", root.at, root);
        places
    }

    fn note(&mut self, path: &str, at: Position, node: &Node) {
        match &node.value {
            Value::Table(entries) => {
                for (key, at, value) in entries {
                    self.note(&key_below(path, key), *at, value);
                }
            }
            Value::List(items) => {
                for (number, item) in items.iter().enumerate() {
                    self.note(&format!("{path}[{number}]"), item.at, item);
                }
            }
            _ => {}
        }
        self.keys.insert(path.into(), at);
    }

    /// A fault at this key: where it stands, else where the nearest key above it stands.
    pub fn fault(&self, key: &str, wrong: impl Into<String>, right: impl Into<String>) -> Fault {
        let at = self.keys.get(key).copied();
        let above = || {
            let ends = key.rmatch_indices(['.', '[']).map(|(end, _)| end);
            ends.chain([0]).find_map(|end| self.keys.get(&key[..end]).copied()).unwrap_or_default()
        };
        Fault { at: at.unwrap_or_else(above), key: key.into(), wrong: wrong.into(), right: right.into() }
    }

    /// All that is wrong with this file.
    pub fn faults(&self, faults: Vec<Fault>) -> Faults {
        let mut all = Faults { file: self.file.clone(), faults: Vec::new() };
        all.add(faults);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_stands_at_its_key_or_at_the_nearest_above() {
        let (root, _) =
            super::super::node::parse("a:\n  b.c: { d: 1 }\ne: [1, { f: 2 }]\n", ".".as_ref()).unwrap();
        let places = Places::of("trommel.yaml", &root);
        let cases = [
            ("a", (1, 1)),
            ("a.b.c", (2, 3)),
            ("a.b.c.d", (2, 10)),
            ("a.b.c.x.y", (2, 3)),
            ("e[1].f", (3, 10)),
            ("e[7].f", (3, 1)),
            ("x", (1, 1)),
        ];
        for (key, at) in cases {
            let Position { line, column } = places.fault(key, "", "").at;
            assert_eq!((line, column), at, "{key}");
        }
    }
}
