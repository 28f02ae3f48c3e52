//! `plugins:` what each is, what it may, and what becomes of records it fails on.

use super::identity::tenant_id;
use super::limits;
use super::node::{Node, Value};
use super::read::{Table, choice, flag, secret, text};
use super::swap;
use crate::pipeline::SwapSettings;
use crate::sandbox::{Grant, Instance, Module, OnFailure, Settings};
use crate::telemetry::Secret;
use std::collections::BTreeMap;

const KEYS: [&str; 11] = [
    "module",
    "guard",
    "on_failure",
    "tenant",
    "instance",
    "limits",
    "circuit",
    "grant",
    "secrets",
    "config",
    "swap",
];

/// The plugins, and how new versions of them come into use where the file says so.
pub(super) fn read(table: Table<'_>) -> (Vec<Settings>, BTreeMap<String, SwapSettings>) {
    let (mut all, mut swaps) = (Vec::new(), BTreeMap::new());
    for (name, _, node) in table.all() {
        let entry = table.reader.table(&table.path(name), node);
        let swap = entry.table("swap").map(swap::read);
        let module = entry.node("module").and_then(|node| text(&node.value).ok());
        if swap.is_some() && module.is_some_and(|module| module.starts_with("builtin:")) {
            entry.fault(
                "swap",
                "a bundled plugin is the collector's own and changes with it",
                "leave it out",
            );
        }
        swaps.extend(swap.map(|swap| (name.clone(), swap)));
        all.extend(read_plugin(name, entry));
    }
    (all, swaps)
}

fn read_plugin(name: &str, table: Table<'_>) -> Option<Settings> {
    let module = table.required("module", "builtin:NAME or the path of a .wasm component", text);
    let module = module.map(|module| match module.strip_prefix("builtin:") {
        Some(name) => Module::Builtin(name.into()),
        None => Module::File(table.reader.folder.join(module)),
    });
    if let Some(Module::Builtin(bundled)) = &module
        && !artifacts::BUNDLED.contains(&bundled.as_str())
    {
        table.fault(
            "module",
            format!("`{bundled}` does not come with the collector"),
            artifacts::BUNDLED.join(", "),
        );
    }
    let is_bundled = matches!(module, Some(Module::Builtin(_)));
    let is_guard = table
        .optional("guard", flag)
        .unwrap_or(matches!(&module, Some(Module::Builtin(bundled)) if bundled == "redact"));
    let on_failure = read_on_failure(&table, is_guard);
    let grant = table.table("grant").map(|grant| {
        let read = Grant {
            reads: grant.values("reads", text).unwrap_or_default(),
            writes: grant.values("writes", text).unwrap_or_default(),
        };
        grant.finish(&["reads", "writes"]);
        read
    });
    if grant.is_none() && !is_bundled && module.is_some() {
        table.fault("grant", "is missing", "what this plugin may read and write, in the words of its manifest: { reads: [severity], writes: [drop] }");
    }
    let tenant = table.optional("tenant", tenant_id);
    let settings = Settings {
        name: name.into(),
        module: module.unwrap_or(Module::Builtin(String::new())),
        config: table.node("config").map_or_else(|| "{}".into(), |node| json(node).to_string()),
        filled: table.node("config").map(found_in).unwrap_or_default(),
        secrets: read_secrets(&table),
        is_guard,
        on_failure,
        instance: read_instance(&table, is_bundled),
        limits: limits::read(&table, tenant.is_some()),
        tenant,
        grant,
    };
    table.finish(&KEYS);
    Some(settings)
}

fn read_on_failure(table: &Table<'_>, is_guard: bool) -> OnFailure {
    let word = table.optional("on_failure", text);
    match (word.as_deref(), is_guard) {
        (None, true) | (Some("drop"), _) => OnFailure::Drop,
        (Some("refuse"), _) => OnFailure::Refuse,
        (None | Some("pass"), false) => OnFailure::Pass,
        (Some("pass" | "quarantine"), true) => {
            table.fault("on_failure", "would let records past a guard that failed on them", "drop or refuse");
            OnFailure::Drop
        }
        (Some("quarantine"), false) => OnFailure::Quarantine,
        (Some(other), _) => {
            let right = "refuse, drop, pass or quarantine";
            table.fault("on_failure", format!("`{other}` is not known"), right);
            OnFailure::Drop
        }
    }
}

fn read_instance(table: &Table<'_>, is_bundled: bool) -> Instance {
    const WORDS: &[(&str, Instance)] = &[("shared", Instance::Shared), ("per_tenant", Instance::PerTenant)];
    let usual = if is_bundled { Instance::Shared } else { Instance::PerTenant };
    table.optional("instance", choice(WORDS)).unwrap_or(usual)
}

fn read_secrets(table: &Table<'_>) -> BTreeMap<String, Secret> {
    let Some(secrets) = table.table("secrets") else { return BTreeMap::new() };
    secrets
        .all()
        .iter()
        .filter_map(|(name, _, _)| Some((name.clone(), secrets.optional(name, secret)?)))
        .collect()
}

/// What was put in place of references, anywhere below.
fn found_in(node: &Node) -> Vec<Secret> {
    match &node.value {
        Value::Text { found, .. } => found.clone(),
        Value::List(items) => items.iter().flat_map(found_in).collect(),
        Value::Table(entries) => entries.iter().flat_map(|(_, _, value)| found_in(value)).collect(),
        _ => Vec::new(),
    }
}

/// The plugin's own settings, as JSON.
fn json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Nothing => serde_json::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Integer(value) => (*value).into(),
        Value::Float(value) => (*value).into(),
        Value::Text { filled, .. } => filled.clone().into(),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Table(entries) => entries.iter().map(|(key, _, value)| (key.clone(), json(value))).collect(),
    }
}
