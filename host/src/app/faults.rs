//! What is wrong with a configuration and shows only when what it names is opened.
//!
//! `trommel check` tells all of it at once, beside what the file alone shows. A start looks at the same before it
//! takes ports, so that what `check` takes is not refused by `run`.

use crate::alerts::{self, Alerts};
use crate::batch::Signal;
use crate::config::{Config, Fault, Faults};
use crate::net::tls;
use crate::pipeline::PipelineSettings;
use crate::sandbox::{self, Module, Sandbox};
use crate::sinks::{self, Sink};
use crate::telemetry::Metrics;
use crate::tenants::Tenants;
use std::collections::BTreeMap;

const RIGHT_TLS: &str = "certificates and their key in PEM, in files that the collector may read";
const RIGHT_TOKENS: &str = "files that the collector may read, with each token once";
pub(super) const RIGHT_SINK: &str =
    "an address without credentials, and files in PEM that the collector may read";
const RIGHT_CHANNEL: &str = "an address that can be called, and files in PEM that the collector may read";
pub(super) const RIGHT_PLUGIN: &str =
    "a component whose settings and `grant` fit: `trommel plugin inspect FILE` prints what it asks for";

/// Opens the files and loads the plugins of a configuration. What is in `told` is not told again.
pub async fn faults(config: &Config, told: &Faults) -> Vec<Fault> {
    let (config, told) = (config.clone(), told.clone());
    off_the_executor(move || [of_files(&config, &told), of_plugins(&config, &told)].concat()).await
}

/// What a start refuses before it takes ports.
pub(super) async fn before_start(config: &Config) -> Result<(), Faults> {
    let opened = config.clone();
    let told = config.places.faults(Vec::new());
    refused(config, off_the_executor(move || of_files(&opened, &told)).await)
}

/// What a start refuses once it knows which signals the guards describe; `None` where that is not known.
pub(super) fn with_guards<'g>(
    config: &Config,
    described: impl Fn(&sandbox::Settings) -> Option<&'g [Signal]>,
) -> Result<(), Faults> {
    refused(config, of_guards(config, described))
}

fn refused(config: &Config, faults: Vec<Fault>) -> Result<(), Faults> {
    if faults.is_empty() { Ok(()) } else { Err(config.places.faults(faults)) }
}

/// What a guard describes without being asked: the bundled one need not be compiled before a start.
pub(super) fn known_signals(guard: &sandbox::Settings) -> Option<&'static [Signal]> {
    matches!(&guard.module, Module::Builtin(name) if name == "redact").then_some(&Signal::ALL)
}

/// Reads files and compiles; clients of gRPC want a runtime around them all the same.
async fn off_the_executor<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn of_files(config: &Config, told: &Faults) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut note = |key: String, wrong: String, right: &str| {
        if !told.concern(&key) {
            faults.push(config.places.fault(&key, wrong, right));
        }
    };
    let listeners = [
        ("receivers.otlp.grpc", config.receivers.grpc.as_ref().and_then(|listen| listen.tls.as_ref())),
        ("receivers.otlp.http", config.receivers.http.as_ref().and_then(|listen| listen.tls.as_ref())),
        ("console", config.console.as_ref().and_then(|console| console.tls.as_ref())),
    ];
    for (key, settings) in listeners {
        let Some(settings) = settings else { continue };
        if let Err(fault) = tls::Acceptor::open(settings.clone()) {
            note(format!("{key}.tls"), fault.to_string(), RIGHT_TLS);
        }
    }
    if let Err(wrong) = Tenants::open(config.tenants.clone(), Metrics::new()) {
        note("identity.tokens".into(), wrong, RIGHT_TOKENS);
    }
    for (name, sink) in &config.sinks {
        // A store is opened once, by the start: two at a time would be in each other's way.
        if matches!(sink, sinks::Settings::Streams(_)) {
            continue;
        }
        if let Err(wrong) = Sink::open(name, sink.clone(), None) {
            note(format!("sinks.{name}"), wrong, RIGHT_SINK);
        }
    }
    for channel in &config.alerts.channels {
        // Each alone, so that the fault stands at its place.
        let alone = alerts::Settings { channels: vec![channel.clone()], ..Default::default() };
        if let Err(wrong) = Alerts::open(alone, Metrics::new()) {
            note(format!("alerts.channels.{}", channel.0), wrong, RIGHT_CHANNEL);
        }
    }
    faults
}

fn of_plugins(config: &Config, told: &Faults) -> Vec<Fault> {
    let sandbox = match Sandbox::open(None, Metrics::new()) {
        Ok(sandbox) => sandbox,
        Err(error) => {
            return vec![config.places.fault("plugins", error.to_string(), "a machine that runs plugins")];
        }
    };
    let mut faults = Vec::new();
    let mut described = BTreeMap::new();
    for plugin in &config.plugins {
        let key = format!("plugins.{}", plugin.name);
        if told.concern(&key) {
            continue;
        }
        match sandbox.load(plugin) {
            Ok(loaded) => {
                described.insert(plugin.name.as_str(), loaded.manifest().signals.clone());
            }
            Err(error) => faults.push(config.places.fault(&key, error.to_string(), RIGHT_PLUGIN)),
        }
    }
    faults.extend(of_guards(config, |guard| described.get(guard.name.as_str()).map(Vec::as_slice)));
    faults
}

/// Nothing may be stored before the guards of its signal ran. A guard of which nothing is known must stand everywhere.
fn of_guards<'g>(
    config: &Config,
    described: impl Fn(&sandbox::Settings) -> Option<&'g [Signal]>,
) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (number, pipeline) in config.pipelines.iter().enumerate().filter(|(_, p)| !p.is_unguarded) {
        for guard in config.plugins.iter().filter(|plugin| plugin.is_guard) {
            let described = described(guard).unwrap_or(&Signal::ALL);
            if let Some((wrong, right)) = guarded(pipeline, guard, described) {
                let key = format!("pipelines[{number}].plugins");
                faults.push(config.places.fault(&key, wrong, right));
            }
        }
    }
    faults
}

/// What is wrong with this guard in this pipeline, and what would be right.
fn guarded(
    pipeline: &PipelineSettings,
    guard: &sandbox::Settings,
    described: &[Signal],
) -> Option<(String, String)> {
    let name = &guard.name;
    let taken: Vec<Signal> = pipeline.signal.map_or(Signal::ALL.to_vec(), |signal| vec![signal]);
    let unseen: Vec<&str> = taken.iter().filter(|s| !described.contains(s)).map(|s| s.name()).collect();
    if pipeline.plugins.contains(name) {
        let seen: Vec<&str> = described.iter().map(|signal| signal.name()).collect();
        let wrong = format!("the guard `{name}` does not look at {}", unseen.join(" and "));
        let right = format!("it stands in pipelines of {} alone, or `unguarded: true`", seen.join(" and "));
        return (!unseen.is_empty()).then_some((wrong, right));
    }
    // A tenant's own guard concerns that tenant's pipelines alone.
    let is_concerned = guard
        .tenant
        .as_ref()
        .is_none_or(|tenant| pipeline.tenants.iter().any(|name| name == tenant.as_str()));
    (is_concerned && unseen.len() < taken.len()).then(|| {
        (
            format!("the guard `{name}` is missing"),
            format!("`{name}` among the plugins, or `unguarded: true`"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use std::path::Path;

    const REST: &str =
        "receivers: { otlp: { grpc: { listen: 127.0.0.1:0 } } }\nsinks: { out: { type: discard } }\n";

    fn config(text: &str) -> Config {
        Config::parse(&format!("{text}\n{REST}"), Path::new("/nowhere"), "trommel.yaml").unwrap()
    }

    fn told(config: &Config, faults: Vec<Fault>) -> String {
        if faults.is_empty() { "valid".into() } else { config.places.faults(faults).to_string() }
    }

    fn check_guards(plugins: &str, pipelines: &str, described: &[Signal], expected: Expect) {
        let config = config(&format!("plugins: {{ {plugins} }}\npipelines:\n{pipelines}"));
        expected.assert_eq(&told(&config, of_guards(&config, |_| Some(described))));
    }

    const GUARD: &str = "own: { module: ./own.wasm, guard: true, grant: {} }";

    #[test]
    fn a_guard_stands_in_every_pipeline_of_its_signals_or_is_waived() {
        let pipelines = "- { name: l, when: { signal: logs }, plugins: [own], sinks: [out] }
- { name: t, when: { signal: traces }, sinks: [out] }
- { name: rest, sinks: [out] }
- { name: all, plugins: [own], sinks: [out] }
- { name: open, unguarded: true, sinks: [out] }";
        check_guards(
            GUARD,
            pipelines,
            &Signal::ALL,
            expect![[r#"
            trommel.yaml:4:3: pipelines[1].plugins: the guard `own` is missing; right would be: `own` among the plugins, or `unguarded: true`
            trommel.yaml:5:3: pipelines[2].plugins: the guard `own` is missing; right would be: `own` among the plugins, or `unguarded: true`
            2 faults in trommel.yaml"#]],
        );
        check_guards(
            GUARD,
            pipelines,
            &[Signal::Logs],
            expect![[r#"
            trommel.yaml:5:3: pipelines[2].plugins: the guard `own` is missing; right would be: `own` among the plugins, or `unguarded: true`
            trommel.yaml:6:16: pipelines[3].plugins: the guard `own` does not look at traces and metrics; right would be: it stands in pipelines of logs alone, or `unguarded: true`
            2 faults in trommel.yaml"#]],
        );
        check_guards(
            GUARD,
            pipelines,
            &[Signal::Metrics, Signal::Traces],
            expect![[r#"
            trommel.yaml:3:38: pipelines[0].plugins: the guard `own` does not look at logs; right would be: it stands in pipelines of metrics and traces alone, or `unguarded: true`
            trommel.yaml:4:3: pipelines[1].plugins: the guard `own` is missing; right would be: `own` among the plugins, or `unguarded: true`
            trommel.yaml:5:3: pipelines[2].plugins: the guard `own` is missing; right would be: `own` among the plugins, or `unguarded: true`
            trommel.yaml:6:16: pipelines[3].plugins: the guard `own` does not look at logs; right would be: it stands in pipelines of metrics and traces alone, or `unguarded: true`
            4 faults in trommel.yaml"#]],
        );
    }

    #[test]
    fn a_tenants_guard_is_missed_in_pipelines_of_that_tenant_alone() {
        let guard = GUARD.replace("guard:", "tenant: acme, guard:");
        let pipelines = "- { name: a, when: { tenant: [acme] }, sinks: [out] }\n- { name: b, sinks: [out] }";
        check_guards(
            &guard,
            pipelines,
            &Signal::ALL,
            expect![[r#"
            trommel.yaml:3:3: pipelines[0].plugins: the guard `own` is missing; right would be: `own` among the plugins, or `unguarded: true`
            1 fault in trommel.yaml"#]],
        );
    }

    #[test]
    fn the_bundled_guard_describes_what_it_is_known_for() {
        let config = config(
            "plugins: { redact: { module: \"builtin:redact\" } }\npipelines: [{ name: a, plugins: [redact], sinks: [out] }]",
        );
        let sandbox = Sandbox::open(None, Metrics::new()).unwrap();
        let loaded = sandbox.load(&config.plugins[0]).unwrap();
        assert_eq!(Some(loaded.manifest().signals.as_slice()), known_signals(&config.plugins[0]));
    }

    #[tokio::test]
    async fn files_and_plugins_that_cannot_be_used_are_told_with_all_else() {
        let text = format!(
            "console: {{ listen: 127.0.0.1:0, tls: {{ cert: cert.pem, key: key.pem }} }}
identity:
  tokens:
  - {{ file: tokens.csv }}
plugins:
  own: {{ module: ./own.wasm, grant: {{}} }}
  redact: {{ module: \"builtin:redact\", config: {{ patterns: [nonsense] }} }}
  told: {{ module: ./told.wasm }}
pipelines: [{{ name: a, plugins: [redact], sinks: [out, more] }}]
{}",
            REST.replace(
                "discard }",
                "discard }, more: { type: otlp, endpoint: \"http://a:b@127.0.0.1:1\" }"
            )
        );
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("trommel.yaml");
        std::fs::write(&file, text).unwrap();
        let (read, mut all) = Config::examine(&file);
        all.add(faults(&read.unwrap(), &all).await);
        let shown = all.to_string().replace(&folder.path().display().to_string(), "");
        expect![[r#"
            /trommel.yaml:1:33: console.tls: /cert.pem: I/O error: No such file or directory (os error 2); right would be: certificates and their key in PEM, in files that the collector may read
            /trommel.yaml:3:3: identity.tokens: /tokens.csv: No such file or directory (os error 2); right would be: files that the collector may read, with each token once
            /trommel.yaml:6:3: plugins.own: /./own.wasm: No such file or directory (os error 2); right would be: a component whose settings and `grant` fit: `trommel plugin inspect FILE` prints what it asks for
            /trommel.yaml:7:3: plugins.redact: its settings are refused: patterns[0]: no pattern is called `nonsense`; there are private_key, token, jwt, email, card, ipv6, ipv4, phone, and your own with a `regex`; right would be: a component whose settings and `grant` fit: `trommel plugin inspect FILE` prints what it asks for
            /trommel.yaml:8:9: plugins.told.grant: is missing; right would be: what this plugin may read and write, in the words of its manifest: { reads: [severity], writes: [drop] }
            /trommel.yaml:11:34: sinks.more: endpoint: name and password stand in `headers`, not in the address; right would be: an address without credentials, and files in PEM that the collector may read
            6 faults in /trommel.yaml"#]].assert_eq(&shown);
    }

    #[tokio::test]
    async fn what_a_plugins_settings_were_filled_in_with_is_in_no_fault() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("word"), "hunter2secret\n").unwrap();
        let text = format!(
            "plugins: {{ redact: {{ module: \"builtin:redact\", config: {{ patterns: [\"${{file:word}}\"] }} }} }}\npipelines: [{{ name: a, plugins: [redact], sinks: [out] }}]\n{REST}"
        );
        let config = Config::parse(&text, folder.path(), "trommel.yaml").unwrap();
        let found = faults(&config, &config.places.faults(Vec::new())).await;
        let shown = config.places.faults(found).to_string();
        assert!(shown.contains("no pattern is called `…`"), "{shown}");
    }
}
