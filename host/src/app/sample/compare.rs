//! What differs between two JSON values, each difference with its path.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Differences that are shown; a person reads fewer.
const SHOWN_MAX: usize = 20;
/// Of a value that differs.
const VALUE_CHARS_MAX: usize = 200;
/// What names the entry of a list of attributes.
const KEY: &str = "key";

/// One value that differs.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// `resourceLogs[0].scopeLogs[0].logRecords[3].attributes[user.name].value.stringValue`
    pub path: String,
    pub expected: Option<Value>,
    pub found: Option<Value>,
}

/// What differs, a line for each with its path: `resourceLogs[0].scopeLogs[0].logRecords[3].body.stringValue: expected
/// "a", found "b"`. `None`: nothing does. Attributes are compared by their key, in any order; a number is the string
/// that shows it, as OTLP/JSON takes both.
pub fn compare(expected: &Value, found: &Value) -> Option<String> {
    let found = differences(expected, found);
    let mut lines: Vec<String> = found.iter().take(SHOWN_MAX).map(Difference::to_string).collect();
    if found.len() > SHOWN_MAX {
        lines.push(format!("… and {} more", found.len() - SHOWN_MAX));
    }
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// The same one by one, all of them.
pub fn differences(expected: &Value, found: &Value) -> Vec<Difference> {
    let mut differences = Differences::default();
    differences.between("", expected, found);
    differences.0
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown =
            |value: &Option<Value>| value.as_ref().map_or("nothing".into(), |value| cut(&value.to_string()));
        let path = if self.path.is_empty() { "the top" } else { &self.path };
        write!(f, "{path}: expected {}, found {}", shown(&self.expected), shown(&self.found))
    }
}

#[derive(Default)]
struct Differences(Vec<Difference>);

impl Differences {
    fn between(&mut self, path: &str, expected: &Value, found: &Value) {
        match (expected, found) {
            (Value::Object(expected), Value::Object(found)) => self.between_objects(path, expected, found),
            (Value::Array(expected), Value::Array(found)) => {
                match (by_key(expected), by_key(found)) {
                    (Some(expected), Some(found)) => self.between_named(path, &expected, &found),
                    _ => self.between_lists(path, expected, found),
                };
            }
            _ if is_same(expected, found) => {}
            _ => self.add(path, Some(expected), Some(found)),
        }
    }

    fn between_objects(&mut self, path: &str, expected: &Map<String, Value>, found: &Map<String, Value>) {
        let inner = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        for (name, value) in expected {
            match found.get(name) {
                Some(found) => self.between(&inner(name), value, found),
                None if value.is_null() => {}
                None => self.add(&inner(name), Some(value), None),
            }
        }
        for (name, value) in found.iter().filter(|(name, _)| expected.get(*name).is_none()) {
            self.add(&inner(name), None, Some(value));
        }
    }

    fn between_named(
        &mut self,
        path: &str,
        expected: &BTreeMap<&str, &Value>,
        found: &BTreeMap<&str, &Value>,
    ) {
        let inner = |name: &str| format!("{path}[{}]", name.escape_debug());
        for (name, value) in expected {
            match found.get(name) {
                Some(found) => self.between(&inner(name), value, found),
                None => self.add(&inner(name), Some(value), None),
            }
        }
        for (name, value) in found.iter().filter(|(name, _)| !expected.contains_key(*name)) {
            self.add(&inner(name), None, Some(value));
        }
    }

    /// One entry too few or too many moves all others: what is the same at the start and at the end is left out first.
    fn between_lists(&mut self, path: &str, expected: &[Value], found: &[Value]) {
        let is_same = |(one, other): &(&Value, &Value)| !is_different(one, other);
        let start = expected.iter().zip(found).take_while(is_same).count();
        let (expected, found) = (&expected[start..], &found[start..]);
        let end = match expected.len() == found.len() {
            // Then each stands for the one at its place.
            true => 0,
            false => expected.iter().rev().zip(found.iter().rev()).take_while(is_same).count(),
        };
        let (expected, found) = (&expected[..expected.len() - end], &found[..found.len() - end]);
        for at in 0..expected.len().max(found.len()) {
            let inner = format!("{path}[{}]", start + at);
            match (expected.get(at), found.get(at)) {
                (Some(expected), Some(found)) => self.between(&inner, expected, found),
                (expected, found) => self.add(&inner, expected, found),
            }
        }
    }

    fn add(&mut self, path: &str, expected: Option<&Value>, found: Option<&Value>) {
        let path = path.to_owned();
        self.0.push(Difference { path, expected: expected.cloned(), found: found.cloned() });
    }
}

fn is_different(expected: &Value, found: &Value) -> bool {
    expected != found && !differences(expected, found).is_empty()
}

/// Attributes by their key, if each has one of its own.
fn by_key(list: &[Value]) -> Option<BTreeMap<&str, &Value>> {
    let named: BTreeMap<&str, &Value> =
        list.iter().map(|entry| Some((entry[KEY].as_str()?, entry))).collect::<Option<_>>()?;
    (named.len() == list.len()).then_some(named)
}

fn is_same(expected: &Value, found: &Value) -> bool {
    match (expected, found) {
        (Value::Number(one), Value::Number(other)) => one == other || one.as_f64() == other.as_f64(),
        (Value::Number(number), Value::String(text)) | (Value::String(text), Value::Number(number)) => {
            number.to_string() == *text
        }
        _ => expected == found,
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(expected: Value, found: Value, says: Option<&str>) {
        assert_eq!(compare(&expected, &found).as_deref(), says, "{expected} {found}");
    }

    #[test]
    fn what_differs_is_named_with_its_path() {
        let logs = |body: &str| json!({ "resourceLogs": [{ "scopeLogs": [{ "logRecords": [{}, { "body": { "stringValue": body } }] }] }] });
        check(logs("a"), logs("a"), None);
        check(
            logs("a"),
            logs("b"),
            Some(r#"resourceLogs[0].scopeLogs[0].logRecords[1].body.stringValue: expected "a", found "b""#),
        );
        check(json!({ "dropped": 1 }), json!({ "dropped": 2 }), Some("dropped: expected 1, found 2"));
        check(json!({}), json!({ "counts": { "a": 1 } }), Some(r#"counts: expected nothing, found {"a":1}"#));
        check(json!(1), json!([1]), Some("the top: expected 1, found [1]"));
    }

    #[test]
    fn attributes_are_compared_by_key_in_any_order() {
        let attributes = |list: &[(&str, &str)]| {
            let one = |(key, value): &(&str, &str)| json!({ "key": key, "value": { "stringValue": value } });
            json!({ "attributes": list.iter().map(one).collect::<Vec<_>>() })
        };
        check(attributes(&[("a", "1"), ("b", "2")]), attributes(&[("b", "2"), ("a", "1")]), None);
        check(
            attributes(&[("a", "1"), ("b", "2")]),
            attributes(&[("b", "3"), ("c", "4")]),
            Some(concat!(
                r#"attributes[a]: expected {"key":"a","value":{"stringValue":"1"}}, found nothing"#,
                "\n",
                r#"attributes[b].value.stringValue: expected "2", found "3""#,
                "\n",
                r#"attributes[c]: expected nothing, found {"key":"c","value":{"stringValue":"4"}}"#
            )),
        );
        // Twice the same key: then the order is all there is.
        let twice = attributes(&[("a", "1"), ("a", "2")]);
        check(twice.clone(), twice, None);
    }

    #[test]
    fn one_entry_too_few_is_one_difference() {
        let list =
            |bodies: &[&str]| json!(bodies.iter().map(|body| json!({ "body": body })).collect::<Vec<_>>());
        check(
            list(&["a", "b", "c"]),
            list(&["a", "c"]),
            Some(r#"[1]: expected {"body":"b"}, found nothing"#),
        );
        check(
            list(&["a", "c"]),
            list(&["a", "b", "c"]),
            Some(r#"[1]: expected nothing, found {"body":"b"}"#),
        );
    }

    #[test]
    fn integers_are_the_same_as_number_and_as_string() {
        check(json!({ "intValue": 5 }), json!({ "intValue": "5" }), None);
        check(json!({ "asDouble": 1 }), json!({ "asDouble": 1.0 }), None);
        check(
            json!({ "intValue": 5 }),
            json!({ "intValue": "6" }),
            Some(r#"intValue: expected 5, found "6""#),
        );
        check(json!({ "unit": null }), json!({}), None);
    }

    #[test]
    fn a_flood_of_differences_is_cut() {
        let many = |value: u32| json!(vec![value; 100]);
        let said = compare(&many(1), &many(2)).unwrap();
        assert_eq!(said.lines().count(), 21);
        assert!(said.ends_with("… and 80 more"), "{said}");
        let long = compare(&json!("a".repeat(1000)), &json!("b")).unwrap();
        assert!(long.len() < 300, "{long}");
    }
}
