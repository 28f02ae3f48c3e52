//! What no section can see alone.

use super::Config;
use super::fault::Fault;
use super::pipelines::Placed;
use super::read::Table;
use crate::journal::SINKS_MAX;
use crate::pipeline::PipelineSettings;
use crate::sandbox::{Module, OnFailure, Settings};
use std::collections::BTreeSet;

pub(super) fn check(root: &Table<'_>, config: &Config, pipelines: &[Placed]) {
    is_there_something_to_do(root, config);
    ports_differ(root, config);
    open_means_loopback(root, config);
    largest_body_fits(root, config);
    shares_fit(root, config);
    for (number, placed) in pipelines.iter().enumerate() {
        let fault = |key: &str, wrong: String, right: String| {
            root.reader.fault(placed.at, &format!("pipelines[{number}].{key}"), wrong, right);
        };
        names_exist(config, &placed.settings, &fault);
        tenants_keep_their_plugins(config, &placed.settings, &fault);
        guards_come_before_quarantine(config, &placed.settings, &fault);
        if pipelines[..number].iter().any(|earlier| earlier.settings.name == placed.settings.name) {
            fault("name", format!("`{}` stands twice", placed.settings.name), "a name of its own".into());
        }
    }
}

/// What is likely not meant.
pub(super) fn doubts(config: &Config) -> Vec<Fault> {
    let is = |name: &String, bundled: &str| {
        let is_module = |module: &Module| matches!(module, Module::Builtin(builtin) if builtin == bundled);
        config.plugins.iter().any(|plugin| plugin.name == *name && is_module(&plugin.module))
    };
    let mut doubts = Vec::new();
    for plugin in config.plugins.iter().filter(|plugin| plugin.on_failure == OnFailure::Quarantine) {
        if config.dead_letters.is_none() {
            let (key, name) = (format!("plugins.{}.on_failure", plugin.name), &plugin.name);
            let wrong = format!("what `{name}` fails on is dropped: no dead letters are kept");
            doubts.push(config.places.fault(&key, wrong, "a journal on disk, and dead_letters.max"));
        }
    }
    for (number, pipeline) in config.pipelines.iter().enumerate() {
        let Some(at) = pipeline.plugins.iter().position(|name| is(name, "anomaly")) else { continue };
        let mut doubt = |at: usize, wrong: String, right: String| {
            let key = format!("pipelines[{number}].plugins[{at}]");
            doubts.push(config.places.fault(&key, wrong, right));
        };
        let anomaly = &pipeline.plugins[at];
        if let Some(sample) = pipeline.plugins[..at].iter().find(|name| is(name, "sample")) {
            let wrong = format!("`{anomaly}` stands after `{sample}`: it would count what `{sample}` left");
            doubt(at, wrong, format!("`{anomaly}` before `{sample}`"));
        }
        if config.alerts.channels.is_empty() {
            let wrong = format!("nobody is told of what `{anomaly}` finds: there is no channel");
            doubt(at, wrong, "alerts: { channels: { ops: { type: log } } }".into());
        }
    }
    doubts
}

type FaultAt<'f> = dyn Fn(&str, String, String) + 'f;

fn is_there_something_to_do(root: &Table<'_>, config: &Config) {
    if root.node("receivers").is_none() {
        root.fault("receivers", "there is none", "receivers: { otlp: { grpc: { listen: 127.0.0.1:4317 } } }");
    }
    if config.pipelines.is_empty() {
        root.fault(
            "pipelines",
            "there is none",
            "pipelines: [{ name: logs, when: { signal: logs }, sinks: [streams] }]",
        );
    }
    let streams =
        config.sinks.iter().filter(|(_, sink)| matches!(sink, crate::sinks::Settings::Streams(_))).count();
    if streams > 1 {
        root.fault("sinks", "there are two of type streams", "one: a stream has one store");
    }
    if config.sinks.len() > SINKS_MAX {
        let wrong = format!("there are {}", config.sinks.len());
        root.fault("sinks", wrong, format!("{SINKS_MAX} at most: each needs a place in the journal"));
    }
}

fn ports_differ(root: &Table<'_>, config: &Config) {
    let receivers =
        [&config.receivers.grpc, &config.receivers.http].into_iter().flatten().map(|listen| listen.listen);
    let mut taken = BTreeSet::new();
    for address in receivers.chain(config.console.iter().map(|console| console.listen)) {
        if address.port() != 0 && !taken.insert(address) {
            root.fault("receivers", format!("two listeners share {address}"), "a port of its own for each");
        }
    }
}

/// Without credentials everybody is tenant `local` with every right: only for whoever is on this machine.
fn open_means_loopback(root: &Table<'_>, config: &Config) {
    if !config.tenants.is_open {
        return;
    }
    let receivers =
        [&config.receivers.grpc, &config.receivers.http].into_iter().flatten().map(|listen| listen.listen);
    for address in receivers.chain(config.console.iter().map(|console| console.listen)) {
        if !address.ip().is_loopback() {
            root.fault(
                "identity",
                format!("has no tokens, and {address} can be reached from other machines"),
                "tokens under `identity`, or a loopback address",
            );
        }
    }
}

/// A body is charged three times (input, output, index); one tenant holds at most half of what the journal leaves.
fn largest_body_fits(root: &Table<'_>, config: &Config) {
    let body = config.receivers.body_bytes_max.saturating_mul(crate::receivers::ROOM_FACTOR);
    let needed = body.max(crate::receivers::REQUEST_BYTES_MIN);
    if needed > config.tenants.room_bytes / 2 {
        // Both halves, and a third of them again: the journal's usual quarter.
        let room = needed.saturating_mul(8).div_ceil(3 << 20);
        let right = format!("memory.room of at least {room} MiB, or a smaller receivers.otlp.body_max");
        root.fault("memory", "half of the room beside the journal is less than 3 × the largest body", right);
    }
}

/// Who has no share of its own has an equal part of what is left.
fn shares_fit(root: &Table<'_>, config: &Config) {
    let Some(bytes_max) = config.journal.bytes_max() else { return };
    let taken = config.kept.iter().filter_map(|sink| sink.bytes_max).fold(0, u64::saturating_add);
    let is_all_named = config.kept.iter().all(|sink| sink.bytes_max.is_some());
    if taken > bytes_max || (taken == bytes_max && !is_all_named) {
        let wrong = "the shares that sinks name under `journal.max` leave nothing for the others";
        root.fault("journal", wrong, format!("a sum below {bytes_max} bytes, or a larger journal.max"));
    }
}

fn names_exist(config: &Config, pipeline: &PipelineSettings, fault: &FaultAt<'_>) {
    for name in &pipeline.plugins {
        if !config.plugins.iter().any(|plugin| plugin.name == *name) {
            let known: Vec<&str> = config.plugins.iter().map(|plugin| plugin.name.as_str()).collect();
            fault("plugins", format!("there is no plugin `{name}`"), one_of(&known, "plugins"));
        }
    }
    for route in &pipeline.sinks {
        if !config.sinks.iter().any(|(sink, _)| *sink == route.sink) {
            let known: Vec<&str> = config.sinks.iter().map(|(sink, _)| sink.as_str()).collect();
            fault("sinks", format!("there is no sink `{}`", route.sink), one_of(&known, "sinks"));
        }
    }
}

/// What a name may be.
pub(super) fn one_of(known: &[&str], section: &str) -> String {
    if known.is_empty() { format!("one that stands under `{section}`") } else { known.join(", ") }
}

/// What is put aside is kept as it was before the plugin: what the guards did not see would be stored.
fn guards_come_before_quarantine(config: &Config, pipeline: &PipelineSettings, fault: &FaultAt<'_>) {
    let settings = |name: &String| config.plugins.iter().find(|plugin| plugin.name == *name);
    let plugins: Vec<&Settings> = pipeline.plugins.iter().filter_map(settings).collect();
    let Some(guard) = plugins.iter().rposition(|plugin| plugin.is_guard) else { return };
    for early in plugins[..guard].iter().filter(|plugin| plugin.on_failure == OnFailure::Quarantine) {
        let wrong = format!(
            "`{}` stands before the guard `{}`, and keeps what it fails on",
            early.name, plugins[guard].name
        );
        fault("plugins", wrong, "behind the guard, or another `on_failure`".into());
    }
}

fn tenants_keep_their_plugins(config: &Config, pipeline: &PipelineSettings, fault: &FaultAt<'_>) {
    for plugin in config.plugins.iter().filter(|plugin| pipeline.plugins.contains(&plugin.name)) {
        let Some(tenant) = &plugin.tenant else { continue };
        if pipeline.tenants.iter().any(|name| name != tenant.as_str()) || pipeline.tenants.is_empty() {
            fault(
                "plugins",
                format!("`{}` is for tenant `{tenant}` alone", plugin.name),
                format!("when: {{ tenant: [{tenant}] }}"),
            );
        }
    }
}
