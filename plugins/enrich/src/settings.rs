//! What the operator writes, as rules.

use crate::rules::{Action, Rule, Selector, Value, What};
use crate::{conflicts, table};
use serde::Deserialize;
use serde_json::{Map, Value as Json};
use trommel_sdk::Level;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    rules: Vec<Json>,
    table: Option<Json>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRule {
    tenant: Option<String>,
    project: Option<String>,
    service: Option<String>,
    #[serde(default)]
    at: At,
    #[serde(default)]
    set: Map<String, Json>,
    #[serde(default)]
    set_if_missing: Map<String, Json>,
    #[serde(default)]
    copy: Map<String, Json>,
    #[serde(default)]
    rename: Map<String, Json>,
    #[serde(default)]
    delete: Vec<String>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum At {
    #[default]
    Resource,
    Scope,
    Metric,
    Item,
    Event,
}

pub(crate) fn parse(json: &str) -> Result<Vec<Rule>, String> {
    let written: Written = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let mut rules = Vec::new();
    for (number, entry) in written.rules.into_iter().enumerate() {
        let place = format!("rules[{number}]");
        let parsed = rule(entry).map_err(|error| format!("{place}: {error}"))?;
        rules.push(Rule { place, ..parsed });
    }
    if let Some(written) = written.table {
        rules.extend(table::rules(written)?);
    }
    conflicts::check(&rules)?;
    Ok(rules)
}

fn rule(entry: Json) -> Result<Rule, String> {
    let written: WrittenRule = serde_json::from_value(entry).map_err(|error| error.to_string())?;
    let mut whats = Vec::new();
    for (map, only_missing) in [(written.set, false), (written.set_if_missing, true)] {
        for (key, json) in map {
            let value = value(&json).map_err(|error| format!("`{key}`: {error}"))?;
            whats.push(What::Set { key, value, only_missing });
        }
    }
    for (from, to) in written.copy {
        let (from, to) = pair(from, to)?;
        whats.push(What::Copy { from, to });
    }
    for (from, to) in written.rename {
        let (from, to) = pair(from, to)?;
        whats.push(What::Rename { from, to });
    }
    whats.extend(written.delete.into_iter().map(|key| What::Delete { key }));
    if whats.is_empty() {
        return Err("it does nothing; it needs one of set, set_if_missing, copy, rename, delete".into());
    }
    let at = match written.at {
        At::Resource => Level::Resource,
        At::Scope => Level::Scope,
        At::Metric => Level::Metric,
        At::Item => Level::Item,
        At::Event => Level::Event,
    };
    let who = Selector {
        tenant: part("tenant", written.tenant)?,
        project: part("project", written.project)?,
        service: part("service", written.service)?,
    };
    let actions = whats.into_iter().map(|what| Action { at, what }).collect();
    Ok(Rule { place: String::new(), who, actions })
}

/// One part of a selector, as written in a rule or in a table.
pub(crate) fn part(name: &str, text: Option<String>) -> Result<Option<String>, String> {
    match text.as_deref() {
        Some("*") => Err(format!("{name}: `*` is no wildcard; leave it out to mean any")),
        Some("") => Ok(None),
        _ => Ok(text),
    }
}

pub(crate) fn value(json: &Json) -> Result<Value, String> {
    match json {
        Json::String(text) => Ok(Value::Text(text.clone())),
        Json::Bool(value) => Ok(Value::Bool(*value)),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(int), _) => Ok(Value::Int(int)),
            // An integer beyond 64 bits with sign would lose digits as a double.
            (None, Some(double)) if !number.is_u64() => Ok(Value::Double(double)),
            _ => Err(format!("{number} is too large for an attribute")),
        },
        _ => Err("a value is a text, a number, true or false".into()),
    }
}

fn pair(from: String, to: Json) -> Result<(String, String), String> {
    match to {
        Json::String(to) if to == from => Err(format!("`{from}` to itself is nothing to do")),
        Json::String(to) if !to.is_empty() && !from.is_empty() => Ok((from, to)),
        _ => Err(format!("`{from}`: a new key is a text that is not empty")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(json: &str) -> String {
        parse(json).err().unwrap_or_else(|| panic!("{json} was taken"))
    }

    #[test]
    fn a_rule_says_for_whom_where_and_what() {
        let rules = parse(
            r#"{"rules": [{"tenant": "acme", "service": "web", "at": "item",
                "set": {"a": "x", "b": 1, "c": 1.5, "d": true}, "set_if_missing": {"e": "y"},
                "copy": {"f": "g"}, "rename": {"h": "i"}, "delete": ["j"]}]}"#,
        )
        .unwrap();
        let rule = &rules[0];
        assert_eq!((rule.who.tenant.as_deref(), rule.who.project.as_deref()), (Some("acme"), None));
        assert!(rule.actions.iter().all(|action| action.at == Level::Item));
        let values: Vec<&Value> = rule
            .actions
            .iter()
            .filter_map(|action| match &action.what {
                What::Set { value, only_missing: false, .. } => Some(value),
                _ => None,
            })
            .collect();
        assert_eq!(
            values,
            [&Value::Text("x".into()), &Value::Int(1), &Value::Double(1.5), &Value::Bool(true)]
        );
        assert_eq!(rule.actions.len(), 8);
    }

    #[test]
    fn nothing_written_does_nothing() {
        assert!(parse("{}").unwrap().is_empty());
    }

    #[test]
    fn a_wrong_setting_is_named() {
        let cases = [
            (r#"{"rule": []}"#, "unknown field `rule`"),
            (r#"{"rules": [{"sets": {}}]}"#, "rules[0]: unknown field `sets`"),
            (r#"{"rules": [{"tenant": "a"}]}"#, "rules[0]: it does nothing"),
            (r#"{"rules": [{"tenant": "*", "delete": ["x"]}]}"#, "rules[0]: tenant: `*` is no wildcard"),
            (r#"{"rules": [{"at": "span", "delete": ["x"]}]}"#, "rules[0]: unknown variant `span`"),
            (r#"{"rules": [{"set": {"x": null}}]}"#, "`x`: a value is a text"),
            (r#"{"rules": [{"set": {"x": 18446744073709551615}}]}"#, "is too large for an attribute"),
            (r#"{"rules": [{"copy": {"x": "x"}}]}"#, "`x` to itself"),
            (r#"{"rules": [{"rename": {"x": 1}}]}"#, "`x`: a new key is a text"),
            (
                r#"{"rules": [{"set": {"x": 1}}, {"delete": ["x"]}]}"#,
                "rules[0] and rules[1] can meet: both write `x`",
            ),
            (
                r#"{"table": "service,x\na,1\na,2\n"}"#,
                "table line 2 and table line 3 can meet: both write `x`",
            ),
            (
                r#"{"rules": [{"set": {"x": 1}}], "table": "service,x\na,1\n"}"#,
                "rules[0] and table line 2 can meet",
            ),
        ];
        for (json, expected) in cases {
            let message = refused(json);
            assert!(message.contains(expected), "{json}: {message}");
        }
    }
}
