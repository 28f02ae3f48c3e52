//! Reads typed values out of the tree; what is wrong is noted, and reading goes on.

use super::fault::{Fault, Position};
use super::node::{Node, Value, key_below};
use crate::telemetry::Secret;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Notes faults while the file is read.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) folder: PathBuf,
    unfilled_at: BTreeSet<Position>,
    faults: RefCell<Vec<Fault>>,
}

impl Reader {
    /// `unfilled` are references that led nowhere.
    pub(super) fn new(folder: &Path, unfilled: Vec<Fault>) -> Reader {
        let unfilled_at = unfilled.iter().map(|fault| fault.at).collect();
        Reader { folder: folder.into(), unfilled_at, faults: RefCell::new(unfilled) }
    }

    pub(super) fn fault(&self, at: Position, key: &str, wrong: impl Into<String>, right: impl Into<String>) {
        // Nothing stands there because of the reference, which was told.
        if self.unfilled_at.contains(&at) {
            return;
        }
        self.faults.borrow_mut().push(Fault {
            at,
            key: key.into(),
            wrong: wrong.into(),
            right: right.into(),
        });
    }

    pub(super) fn into_faults(self) -> Vec<Fault> {
        let mut faults = self.faults.into_inner();
        faults.sort_by_key(|fault| fault.at);
        faults
    }

    /// The table at `node`; anything else is a fault and reads as an empty table.
    pub(super) fn table<'r>(&'r self, key: &str, node: &'r Node) -> Table<'r> {
        let entries: &[(String, Position, Node)] = match &node.value {
            Value::Table(entries) => entries,
            Value::Nothing => &[],
            other => {
                self.fault(
                    node.at,
                    key,
                    format!("{} stands here", other.shown()),
                    "a table of keys and values",
                );
                &[]
            }
        };
        Table {
            reader: self,
            key: key.into(),
            at: node.at,
            entries,
            taken: RefCell::new(vec![false; entries.len()]),
        }
    }

    /// The items of the list at `node`.
    pub(super) fn list<'r>(&self, key: &str, node: &'r Node) -> &'r [Node] {
        match &node.value {
            Value::List(items) => items,
            other => {
                self.fault(node.at, key, format!("{} stands here", other.shown()), "a list: [a, b]");
                &[]
            }
        }
    }
}

/// A table that is being read. Keys that nobody asked for are faults when it is dropped by [`Table::finish`].
#[derive(Debug)]
pub(super) struct Table<'r> {
    pub(super) reader: &'r Reader,
    pub(super) key: String,
    pub(super) at: Position,
    entries: &'r [(String, Position, Node)],
    taken: RefCell<Vec<bool>>,
}

/// What a value cannot be, and what would be right.
pub(super) type Wrong = (String, String);

impl<'r> Table<'r> {
    pub(super) fn path(&self, key: &str) -> String {
        key_below(&self.key, key)
    }

    /// The node under a key, marked as known.
    pub(super) fn node(&self, key: &str) -> Option<&'r Node> {
        let at = self.entries.iter().position(|(name, _, _)| name == key)?;
        self.taken.borrow_mut()[at] = true;
        Some(&self.entries[at].2)
    }

    /// Every entry, for tables whose keys are names.
    pub(super) fn all(&self) -> &'r [(String, Position, Node)] {
        self.taken.borrow_mut().fill(true);
        self.entries
    }

    pub(super) fn table(&self, key: &str) -> Option<Table<'r>> {
        let node = self.node(key)?;
        Some(self.reader.table(&self.path(key), node))
    }

    pub(super) fn fault(&self, key: &str, wrong: impl Into<String>, right: impl Into<String>) {
        let at = self.entries.iter().find(|(name, _, _)| name == key).map_or(self.at, |(_, _, node)| node.at);
        self.reader.fault(at, &self.path(key), wrong, right);
    }

    pub(super) fn optional<T>(&self, key: &str, read: impl Fn(&Value) -> Result<T, Wrong>) -> Option<T> {
        let node = self.node(key)?;
        read(&node.value)
            .map_err(|(wrong, right)| self.reader.fault(node.at, &self.path(key), wrong, right))
            .ok()
    }

    pub(super) fn required<T>(
        &self,
        key: &str,
        right: &str,
        read: impl Fn(&Value) -> Result<T, Wrong>,
    ) -> Option<T> {
        if self.entries.iter().any(|(name, _, _)| name == key) {
            return self.optional(key, read);
        }
        self.reader.fault(self.at, &self.path(key), "is missing", right);
        None
    }

    /// A list of values of one kind; empty where the key is absent.
    pub(super) fn values<T>(&self, key: &str, read: impl Fn(&Value) -> Result<T, Wrong>) -> Option<Vec<T>> {
        let node = self.node(key)?;
        let path = self.path(key);
        let items = self.reader.list(&path, node);
        let read_one = |item: &Node| {
            read(&item.value).map_err(|(wrong, right)| self.reader.fault(item.at, &path, wrong, right)).ok()
        };
        Some(items.iter().filter_map(read_one).collect())
    }

    /// Notes the keys that nobody asked for.
    pub(super) fn finish(self, known: &[&str]) {
        let taken = self.taken.borrow();
        for ((name, at, _), taken) in self.entries.iter().zip(taken.iter()) {
            if !taken && LATER.contains(&name.as_str()) {
                self.reader.fault(*at, &self.path(name), "comes with a later version", "leave it out");
            } else if !taken {
                let near =
                    known.iter().min_by_key(|key| distance(key, name)).filter(|key| distance(key, name) <= 2);
                let right = match near {
                    Some(key) => format!("`{key}`"),
                    None => format!("one of {}", known.join(", ")),
                };
                self.reader.fault(*at, &self.path(name), "is no key that is known here", right);
            }
        }
    }
}

/// Keys that are decided and not built yet, wherever they stand.
const LATER: [&str; 1] = ["unknown_fields"];

/// How many letters differ (Levenshtein), to suggest the key that was meant.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let next = (diagonal + usize::from(x != *y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], next);
        }
    }
    row[b.len()]
}

pub(super) fn text(value: &Value) -> Result<String, Wrong> {
    match value {
        Value::Text { filled, .. } => Ok(filled.clone()),
        // `project: 7` and `when: { x: [true] }` mean the text.
        Value::Integer(number) => Ok(number.to_string()),
        Value::Bool(flag) => Ok(flag.to_string()),
        other => Err((format!("{} is no text", other.shown()), "a text".into())),
    }
}

pub(super) fn secret(value: &Value) -> Result<Secret, Wrong> {
    let secret = text(value)?;
    if secret.is_empty() {
        Err(("is empty".into(), "a secret: ${file:PATH} or ${env:NAME}".into()))
    } else {
        Ok(Secret::new(secret))
    }
}

pub(super) fn flag(value: &Value) -> Result<bool, Wrong> {
    match value {
        Value::Bool(flag) => Ok(*flag),
        Value::Text { filled, .. } if filled == "true" => Ok(true),
        Value::Text { filled, .. } if filled == "false" => Ok(false),
        other => Err((format!("{} is no switch", other.shown()), "true or false".into())),
    }
}

const SIZES: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];
const TIMES: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// `64MiB`, `10 GiB`, `512 KiB`, `100B`, `1MB`.
pub(super) fn size(value: &Value) -> Result<usize, Wrong> {
    quantity(value, &SIZES, "a size with its unit: 64MiB").and_then(|bytes| {
        usize::try_from(bytes)
            .map_err(|_| (format!("{} is too large", value.shown()), "a size that fits the memory".into()))
    })
}

/// `250ms`, `10s`, `5m`, `1h`, `7d`.
pub(super) fn duration(value: &Value) -> Result<Duration, Wrong> {
    quantity(value, &TIMES, "a time with its unit: 250ms, 10s, 5m, 1h, 7d").map(Duration::from_millis)
}

fn quantity(value: &Value, units: &[(&str, u64)], right: &str) -> Result<u64, Wrong> {
    let wrong = |why: &str| (format!("{} {why}", value.shown()), right.to_string());
    let Value::Text { filled, .. } = value else { return Err(wrong("has no unit")) };
    quantity_of(filled, units).map_err(wrong)
}

fn quantity_of(text: &str, units: &[(&str, u64)]) -> Result<u64, &'static str> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "does not begin with a number")?;
    let is_named = |(name, factor): &&(&str, u64)| *name == unit.trim() && *factor > 0;
    let factor = units.iter().find(is_named).ok_or("has no unit that is known")?.1;
    number.checked_mul(factor).ok_or("is too large")
}

/// A size as the configuration writes it, from the command line: `64MiB`.
pub fn size_of(text: &str) -> Result<usize, String> {
    let bytes = quantity_of(text, &SIZES).ok().and_then(|bytes| usize::try_from(bytes).ok());
    bytes.ok_or_else(|| "right would be a size with its unit: 64MiB".into())
}

/// Likewise a time: `60s`.
pub fn duration_of(text: &str) -> Result<Duration, String> {
    let ms = quantity_of(text, &TIMES).map_err(|_| "right would be a time with its unit: 60s, 5m".to_owned());
    ms.map(Duration::from_millis)
}

pub(super) fn address(value: &Value) -> Result<SocketAddr, Wrong> {
    text(value)?.parse().map_err(|_| {
        (format!("{} is no address", value.shown()), "an address with a port: 127.0.0.1:4317".into())
    })
}

/// A number of things, one at least.
pub(super) fn count(value: &Value) -> Result<u32, Wrong> {
    let number = match value {
        Value::Integer(number) => u32::try_from(*number).ok(),
        Value::Text { filled, .. } => filled.parse().ok(),
        _ => None,
    };
    number
        .filter(|number| *number > 0)
        .ok_or_else(|| (format!("{} is no number of 1 or more", value.shown()), "a whole number: 20".into()))
}

/// One of a few words.
pub(super) fn choice<T: Copy>(words: &'static [(&'static str, T)]) -> impl Fn(&Value) -> Result<T, Wrong> {
    move |value| {
        let written = text(value)?;
        words.iter().find(|(word, _)| *word == written).map(|(_, means)| *means).ok_or_else(|| {
            let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            (format!("{} is not known", value.shown()), names.join(" or "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> Value {
        Value::Text { written: text.into(), filled: text.into(), found: Vec::new() }
    }

    #[test]
    fn quantities_need_a_unit_that_is_known() {
        for (text, bytes) in [("64MiB", 64 << 20), ("10 GiB", 10 << 30), ("7B", 7), ("1KB", 1000)] {
            assert_eq!(size(&written(text)), Ok(bytes), "{text}");
        }
        for text in ["64", "MiB", "64mib", "-1B", "99999999999GiB", ""] {
            assert!(size(&written(text)).is_err(), "{text}");
        }
        for (text, millis) in [("250ms", 250), ("10s", 10_000), ("7d", 604_800_000)] {
            assert_eq!(duration(&written(text)), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert!(duration(&Value::Integer(5)).is_err());
        assert!(duration(&written("5us")).is_err());
    }

    #[test]
    fn a_key_with_two_wrong_letters_is_suggested() {
        assert_eq!(distance("listen", "lisen"), 1);
        assert_eq!(distance("endpoint", "endpiont"), 2);
        assert!(distance("journal", "sinks") > 2);
    }
}
