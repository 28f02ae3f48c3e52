//! `pipelines:` the first that fits takes the batch.

use super::fault::Position;
use super::node::{Node, Value};
use super::read::{Table, Wrong, choice, flag, text};
use crate::batch::Signal;
use crate::pipeline::{PipelineSettings, SinkRoute};
use std::collections::BTreeMap;

/// A pipeline and where it stands, for what `check` has to say.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) at: Position,
    pub(super) settings: PipelineSettings,
}

pub(super) fn read(root: &Table<'_>) -> Vec<Placed> {
    let Some(node) = root.node("pipelines") else { return Vec::new() };
    let items = root.reader.list("pipelines", node);
    items
        .iter()
        .enumerate()
        .filter_map(|(number, item)| read_pipeline(root.reader.table(&format!("pipelines[{number}]"), item)))
        .collect()
}

fn read_pipeline(table: Table<'_>) -> Option<Placed> {
    let name = table.required("name", "a name for metrics and messages", text);
    let (signal, tenants) = table.table("when").map(read_when).unwrap_or_default();
    let plugins = table.values("plugins", text).unwrap_or_default();
    let mut sinks = Vec::new();
    match table.node("sinks") {
        None => table.fault("sinks", "is missing", "a list of sinks: [streams]"),
        Some(node) => {
            let path = table.path("sinks");
            let items = table.reader.list(&path, node);
            sinks.extend(items.iter().filter_map(|item| read_route(&table, &path, item)));
        }
    }
    let is_unguarded = table.optional("unguarded", flag).unwrap_or(false);
    let at = table.at;
    table.finish(&["name", "when", "plugins", "sinks", "unguarded"]);
    Some(Placed {
        at,
        settings: PipelineSettings { name: name?, signal, tenants, plugins, sinks, is_unguarded },
    })
}

fn read_when(when: Table<'_>) -> (Option<Signal>, Vec<String>) {
    const SIGNALS: &[(&str, Signal)] =
        &[("logs", Signal::Logs), ("traces", Signal::Traces), ("metrics", Signal::Metrics)];
    let signal = when.optional("signal", choice(SIGNALS));
    let tenants = when.values("tenant", text).unwrap_or_default();
    when.finish(&["signal", "tenant"]);
    (signal, tenants)
}

fn read_route(table: &Table<'_>, path: &str, item: &Node) -> Option<SinkRoute> {
    if let Value::Text { filled, .. } = &item.value {
        return Some(SinkRoute { sink: filled.clone(), resource: BTreeMap::new(), route: Vec::new() });
    }
    let entry = table.reader.table(path, item);
    let sink = entry.required("sink", "the name of a sink", text);
    let mut resource = BTreeMap::new();
    let mut route = Vec::new();
    if let Some(when) = entry.table("when") {
        route = when.values("route", text).unwrap_or_default();
        for (key, at, _) in when.all() {
            match key.strip_prefix("resource:") {
                Some(attribute) if !attribute.is_empty() => {
                    resource.insert(attribute.to_owned(), one_or_more(&when, key));
                }
                _ if key == "route" => {}
                _ => {
                    table.reader.fault(*at, &when.path(key), "is no condition", "resource:ATTRIBUTE or route")
                }
            }
        }
    }
    entry.finish(&["sink", "when"]);
    Some(SinkRoute { sink: sink?, resource, route })
}

/// `[prod, staging]` or `prod`.
fn one_or_more(table: &Table<'_>, key: &str) -> Vec<String> {
    let single: Option<Result<String, Wrong>> = match table.node(key).map(|node| &node.value) {
        Some(Value::List(_)) | None => None,
        Some(other) => Some(text(other)),
    };
    match single {
        Some(Ok(value)) => vec![value],
        Some(Err((wrong, right))) => {
            table.fault(key, wrong, right);
            Vec::new()
        }
        None => table.values(key, text).unwrap_or_default(),
    }
}
