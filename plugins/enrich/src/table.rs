//! A table of attributes: one line for each tenant, project or service.
//!
//! As CSV text, as JSON text, or as a list in the settings. The columns `tenant`, `project` and `service` say
//! for whom a line is; each other column is an attribute of the resource. An empty field means anybody, or
//! no attribute.

use crate::csv;
use crate::rules::{Action, Rule, Selector, Value, What};
use crate::settings::{part, value};
use serde_json::{Map, Value as Json};
use trommel_sdk::Level;

pub(crate) fn rules(written: Json) -> Result<Vec<Rule>, String> {
    match written {
        Json::String(text) if is_json(&text) => {
            let list = serde_json::from_str(text.trim_start_matches('\u{feff}'));
            of_list(list.map_err(|error| format!("table: {error}"))?)
        }
        Json::String(text) => of_csv(&text),
        Json::Array(list) => of_list(list),
        _ => Err("table: it is neither a list nor text".into()),
    }
}

fn is_json(text: &str) -> bool {
    text.trim_start_matches('\u{feff}').trim_start().starts_with('[')
}

fn of_list(list: Vec<Json>) -> Result<Vec<Rule>, String> {
    let mut rules = Vec::new();
    for (number, entry) in list.into_iter().enumerate() {
        let place = format!("table[{number}]");
        let Json::Object(fields) = entry else {
            return Err(format!("{place}: it is no object with a column for each key"));
        };
        let line = of_object(fields).map_err(|error| format!("{place}: {error}"))?;
        rules.extend(line.map(|(who, actions)| Rule { place, who, actions }));
    }
    Ok(rules)
}

fn of_object(fields: Map<String, Json>) -> Result<Option<(Selector, Vec<Action>)>, String> {
    let (mut who, mut actions) = (Selector::default(), Vec::new());
    for (column, field) in fields {
        match (column.as_str(), field) {
            (_, Json::Null) => {}
            ("tenant" | "project" | "service", Json::String(text)) => select(&mut who, &column, text)?,
            ("tenant" | "project" | "service", _) => return Err(format!("{column}: it is no text")),
            (_, field) => {
                let value = value(&field).map_err(|error| format!("`{column}`: {error}"))?;
                actions.push(set(&column, value));
            }
        }
    }
    Ok((!actions.is_empty()).then_some((who, actions)))
}

/// A column of the head: its name and how its fields are read.
struct Column {
    key: String,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Selector,
    Text,
    Int,
    Double,
    Bool,
}

fn of_csv(text: &str) -> Result<Vec<Rule>, String> {
    let mut records = csv::records(text).map_err(|error| format!("table {error}"))?.into_iter();
    let Some(head) = records.next() else { return Ok(Vec::new()) };
    let columns = columns(head.fields).map_err(|error| format!("table line {}: {error}", head.line))?;
    let mut rules = Vec::new();
    for record in records {
        let place = format!("table line {}", record.line);
        let line = of_fields(&columns, record.fields).map_err(|error| format!("{place}: {error}"))?;
        rules.extend(line.map(|(who, actions)| Rule { place, who, actions }));
    }
    Ok(rules)
}

fn columns(head: Vec<String>) -> Result<Vec<Column>, String> {
    let mut columns = Vec::<Column>::new();
    for written in head {
        let written = written.trim();
        let (key, kind) = match written.rsplit_once(':') {
            _ if matches!(written, "tenant" | "project" | "service") => (written, Kind::Selector),
            Some((key, "int")) => (key, Kind::Int),
            Some((key, "double")) => (key, Kind::Double),
            Some((key, "bool")) => (key, Kind::Bool),
            Some((key, "string")) => (key, Kind::Text),
            _ => (written, Kind::Text),
        };
        if key.is_empty() {
            return Err(format!("column {} has no name", columns.len() + 1));
        }
        if columns.iter().any(|column| column.key == key) {
            return Err(format!("the column `{key}` stands there twice"));
        }
        columns.push(Column { key: key.into(), kind });
    }
    Ok(columns)
}

fn of_fields(columns: &[Column], fields: Vec<String>) -> Result<Option<(Selector, Vec<Action>)>, String> {
    if fields.len() != columns.len() {
        return Err(format!("it has {} fields where the head has {} columns", fields.len(), columns.len()));
    }
    let (mut who, mut actions) = (Selector::default(), Vec::new());
    for (column, field) in columns.iter().zip(fields) {
        if field.is_empty() {
            continue;
        }
        let wrong = |what: &str| format!("`{}`: `{field}` is no {what}", column.key);
        let value = match column.kind {
            Kind::Selector => {
                select(&mut who, &column.key, field)?;
                continue;
            }
            Kind::Int => Value::Int(field.trim().parse().map_err(|_| wrong("int of 64 bits"))?),
            Kind::Double => Value::Double(field.trim().parse().map_err(|_| wrong("double"))?),
            Kind::Bool => Value::Bool(field.trim().parse().map_err(|_| wrong("bool: true or false"))?),
            Kind::Text => Value::Text(field),
        };
        actions.push(set(&column.key, value));
    }
    Ok((!actions.is_empty()).then_some((who, actions)))
}

fn select(who: &mut Selector, column: &str, text: String) -> Result<(), String> {
    let part = part(column, Some(text))?;
    match column {
        "tenant" => who.tenant = part,
        "project" => who.project = part,
        _ => who.service = part,
    }
    Ok(())
}

fn set(key: &str, value: Value) -> Action {
    Action { at: Level::Resource, what: What::Set { key: key.into(), value, only_missing: false } }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each rule as `place tenant/project/service: key=value ..`.
    fn shown(table: Json) -> Result<Vec<String>, String> {
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        let show = |action: &Action| match &action.what {
            What::Set { key, value, only_missing: false } => format!("{key}={value:?}"),
            _ => unreachable!(),
        };
        let line = |rule: Rule| {
            let actions: Vec<String> = rule.actions.iter().map(show).collect();
            let who = [&rule.who.tenant, &rule.who.project, &rule.who.service].map(part).join("/");
            format!("{} {who}: {}", rule.place, actions.join(" "))
        };
        Ok(rules(table)?.into_iter().map(line).collect())
    }

    #[test]
    fn a_csv_line_is_a_rule() {
        let text = "\u{feff}tenant,service,team,tier:int,pci:bool,share:double\r\n\
                    acme,web,\"pay, ments\",1,true,0.5\r\n\
                    ,db,,2,,\r\n\
                    acme,nothing,,,,\r\n";
        assert_eq!(
            shown(text.into()).unwrap(),
            [
                r#"table line 2 acme//web: team=Text("pay, ments") tier=Int(1) pci=Bool(true) share=Double(0.5)"#,
                "table line 3 //db: tier=Int(2)",
            ]
        );
    }

    #[test]
    fn json_says_the_same() {
        let json = r#"[{"tenant": "acme", "service": "web", "team": "x", "tier": 1}, {"team": null}]"#;
        let expected = [r#"table[0] acme//web: team=Text("x") tier=Int(1)"#];
        assert_eq!(shown(json.into()).unwrap(), expected);
        assert_eq!(shown(serde_json::from_str(json).unwrap()).unwrap(), expected);
        assert_eq!(shown(format!("\u{feff} {json}").into()).unwrap(), expected);
    }

    #[test]
    fn an_empty_table_has_no_rules() {
        for text in ["", "\n", "tenant,x\n", "[]"] {
            assert!(shown(text.into()).unwrap().is_empty());
        }
    }

    #[test]
    fn a_wrong_table_is_refused_with_its_line() {
        let cases = [
            ("tenant,x\na\n", "table line 2: it has 1 fields where the head has 2"),
            ("tenant,x,x:int\n", "table line 1: the column `x` stands there twice"),
            ("tenant,,x\n", "table line 1: column 2 has no name"),
            ("tenant,x:int\n\na,b\n", "table line 3: `x`: `b` is no int"),
            ("tenant,x:bool\na,yes\n", "`yes` is no bool"),
            ("tenant,x\n*,b\n", "table line 2: tenant: `*` is no wildcard"),
            ("tenant,x\n\"a,b\n", "table line 2: the quote that opens"),
            ("[{\"tenant\": 1, \"x\": 2}]", "table[0]: tenant: it is no text"),
            ("[1]", "table[0]: it is no object"),
            ("[{\"x\": [1]}]", "table[0]: `x`: a value is"),
            ("[", "table: EOF"),
        ];
        for (text, expected) in cases {
            let message = shown(text.into()).unwrap_err();
            assert!(message.contains(expected), "{text:?}: {message}");
        }
        assert!(shown(Json::from(1)).unwrap_err().contains("neither a list nor text"));
    }
}
