//! The file as a tree: every value with its line and column, `${env:NAME}` and `${file:PATH}` filled in.
//!
//! Filling in happens after parsing and into one scalar, so that no value can add keys. What was filled in is
//! never shown: messages quote the text as it stands in the file.

use super::fault::{Fault, Position};
use crate::telemetry::Secret;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use std::path::Path;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) value: Value,
}

#[derive(Clone)]
pub(super) enum Value {
    Nothing,
    Bool(bool),
    Integer(i64),
    Float(f64),
    /// `written` stands in the file, `filled` is what it means, `found` is what was put in place of the references.
    Text {
        written: String,
        filled: String,
        found: Vec<Secret>,
    },
    List(Vec<Node>),
    Table(Vec<(String, Position, Node)>),
}

impl std::fmt::Debug for Value {
    /// Without what was filled in: it may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown())
    }
}

impl Value {
    /// The value for a message, as it stands in the file and cut to length.
    pub(super) fn shown(&self) -> String {
        match self {
            Value::Nothing => "nothing".into(),
            Value::Bool(value) => format!("`{value}`"),
            Value::Integer(value) => format!("`{value}`"),
            Value::Float(value) => format!("`{value}`"),
            Value::Text { written, .. } => {
                let short: String = written.chars().take(60).collect();
                format!("`{}{}`", short.escape_debug(), if short.len() < written.len() { "…" } else { "" })
            }
            Value::List(_) => "a list".into(),
            Value::Table(_) => "a table".into(),
        }
    }
}

/// Parses the text and fills in. `folder` is that of the file: relative paths start there. A reference that leads
/// nowhere is a fault and reads as nothing: the rest of the file is read all the same.
pub(super) fn parse(text: &str, folder: &Path) -> Result<(Node, Vec<Fault>), Vec<Fault>> {
    let raw: Spanned<Raw> = serde_saphyr::from_str(text).map_err(|error| {
        let at =
            error.location().map(|l| Position { line: l.line(), column: l.column() }).unwrap_or_default();
        // The place stands before the message already, and advice for programmers is none for operators.
        let message = error.without_snippet().to_string();
        let message = message.split(", set ").next().unwrap_or_default();
        let message = message.split(" at line ").next().unwrap_or_default().to_owned();
        vec![Fault {
            at,
            key: String::new(),
            wrong: message,
            right: "YAML: keys and values with spaces for indentation".into(),
        }]
    })?;
    let mut faults = Vec::new();
    let node = fill(raw, "", folder, &mut faults);
    Ok((node, faults))
}

/// The tree before filling in.
enum Raw {
    Nothing,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Table(Vec<(Spanned<String>, Spanned<Raw>)>),
}

fn position(spanned: &serde_saphyr::Location) -> Position {
    Position { line: spanned.line(), column: spanned.column() }
}

fn fill(raw: Spanned<Raw>, path: &str, folder: &Path, faults: &mut Vec<Fault>) -> Node {
    let at = position(&raw.referenced);
    let value = match raw.value {
        Raw::Nothing => Value::Nothing,
        Raw::Bool(value) => Value::Bool(value),
        Raw::Integer(value) => Value::Integer(value),
        Raw::Float(value) => Value::Float(value),
        Raw::Text(written) => match filled(&written, folder) {
            Ok((filled, found)) => Value::Text { written, filled, found },
            Err((wrong, right)) => {
                faults.push(Fault { at, key: path.into(), wrong, right });
                Value::Nothing
            }
        },
        Raw::List(items) => {
            let items = items.into_iter().enumerate();
            let filled = items.map(|(number, item)| fill(item, &format!("{path}[{number}]"), folder, faults));
            Value::List(filled.collect())
        }
        Raw::Table(entries) => {
            let entries = entries.into_iter().map(|(key, value)| {
                let at = position(&key.referenced);
                let filled = fill(value, &key_below(path, &key.value), folder, faults);
                (key.value, at, filled)
            });
            Value::Table(entries.collect())
        }
    };
    Node { at, value }
}

/// `sinks.out` for key `out` of `sinks`.
pub(super) fn key_below(path: &str, key: &str) -> String {
    if path.is_empty() { key.into() } else { format!("{path}.{key}") }
}

/// Replaces each `${env:NAME}`, `${env:NAME:-VALUE}` and `${file:PATH}`; `$${` is a plain `${`. Also returns what was put in.
fn filled(written: &str, folder: &Path) -> Result<(String, Vec<Secret>), (String, String)> {
    let mut out = String::new();
    let mut found = Vec::new();
    let mut rest = written;
    while let Some(start) = rest.find("${") {
        if rest[..start].ends_with('$') {
            out.push_str(&rest[..start - 1]);
            out.push_str("${");
            rest = &rest[start + 2..];
            continue;
        }
        out.push_str(&rest[..start]);
        let inner = &rest[start + 2..];
        let Some(end) = inner.find('}') else {
            return Err((
                format!("`{written}` has no closing brace"),
                "${env:NAME}, ${env:NAME:-VALUE} or ${file:PATH}".into(),
            ));
        };
        let text = looked_up(&inner[..end], folder)?;
        out.push_str(&text);
        found.push(Secret::new(text));
        rest = &inner[end + 1..];
    }
    out.push_str(rest);
    Ok((out, found))
}

fn looked_up(name: &str, folder: &Path) -> Result<String, (String, String)> {
    match name.split_once(':') {
        Some(("env", variable)) => {
            // As shells read it: empty is as good as not set.
            let (variable, usual) = match variable.split_once(":-") {
                Some((variable, usual)) => (variable, Some(usual)),
                None => (variable, None),
            };
            match (std::env::var(variable), usual) {
                (Ok(text), None) => Ok(text),
                (Ok(text), Some(_)) if !text.is_empty() => Ok(text),
                (_, Some(usual)) => Ok(usual.to_owned()),
                (Err(_), None) => Err((
                    format!("the environment variable `{variable}` is not set"),
                    format!("set {variable} before the start"),
                )),
            }
        }
        Some(("file", path)) => {
            let path = folder.join(path);
            let text = std::fs::read_to_string(&path).map_err(|error| {
                (
                    format!("the file {} cannot be read: {error}", path.display()),
                    "a text file that the collector may read".into(),
                )
            })?;
            // Editors and `echo` end a file with a line break that is no part of a token or key.
            Ok(text
                .strip_suffix('\n')
                .map_or(text.as_str(), |t| t.strip_suffix('\r').unwrap_or(t))
                .to_owned())
        }
        _ => Err((
            format!("`${{{name}}}` is no reference"),
            "${env:NAME}, ${env:NAME:-VALUE}, ${file:PATH}, or $${ for a plain ${".into(),
        )),
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Raw, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Nothing)
    }
    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Nothing)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Integer(value))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(i64::try_from(value).map_or(Raw::Float(value as f64), Raw::Integer))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Float(value))
    }
    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.into()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut table = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            table.push(entry);
        }
        Ok(Raw::Table(table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_filled_in_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), "s3cret\n").unwrap();
        let node = parse("token: \"Bearer ${file:key}\"\nplain: $${x}\n", folder.path()).unwrap().0;
        let Value::Table(entries) = &node.value else { panic!("a table") };
        let Value::Text { written, filled, found } = &entries[0].2.value else { panic!("a text") };
        assert_eq!((written.as_str(), filled.as_str()), ("Bearer ${file:key}", "Bearer s3cret"));
        assert_eq!(found, &[Secret::new("s3cret")]);
        assert!(!format!("{node:?}").contains("s3cret"));
        let Value::Text { filled, .. } = &entries[1].2.value else { panic!("a text") };
        assert_eq!(filled, "${x}");
    }

    #[test]
    fn positions_are_those_of_the_file() {
        let node = parse("a:\n  b: [1, 2]\n", Path::new(".")).unwrap().0;
        let Value::Table(entries) = node.value else { panic!("a table") };
        let Value::Table(inner) = &entries[0].2.value else { panic!("a table") };
        assert_eq!((inner[0].1.line, inner[0].1.column), (2, 3));
        let Value::List(items) = &inner[0].2.value else { panic!("a list") };
        assert_eq!((items[1].at.line, items[1].at.column), (2, 10));
    }

    #[test]
    fn a_variable_may_have_a_value_for_where_it_is_not_set() {
        let home = std::env::var("HOME").unwrap();
        for (written, filled) in [
            ("${env:TROMMEL_NOT_SET:-http://h:1/x}", "http://h:1/x"),
            ("a${env:TROMMEL_NOT_SET:-}b", "ab"),
            ("${env:HOME:-elsewhere}", home.as_str()),
            ("${env:TROMMEL_NOT_SET:-:-}", ":-"),
        ] {
            let node = parse(&format!("a: \"{written}\""), Path::new(".")).unwrap().0;
            let Value::Table(entries) = &node.value else { panic!("a table") };
            let Value::Text { filled: found, .. } = &entries[0].2.value else { panic!("a text") };
            assert_eq!(found, filled, "{written}");
        }
    }

    #[test]
    fn a_missing_reference_says_what_is_missing() {
        let text = "a: ${env:TROMMEL_NOT_SET}\nb: { c: [x, \"${file:nowhere}\"] }\nd: ${x\ne: here\n";
        let (node, faults) = parse(text, Path::new(".")).unwrap();
        let keys: Vec<&str> = faults.iter().map(|fault| fault.key.as_str()).collect();
        assert_eq!(keys, ["a", "b.c[1]", "d"]);
        assert_eq!(faults[0].at.line, 1);
        assert!(faults[0].wrong.contains("TROMMEL_NOT_SET"));
        let Value::Table(entries) = node.value else { panic!("a table") };
        assert_eq!(entries[3].2.value.shown(), "`here`", "the rest is read");
    }
}
