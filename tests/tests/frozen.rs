//! Components that were built once, and must go on doing what they did: `tests/frozen/v0.1`.
//!
//! Each is run on the same input, and what it makes of it stands beside it as text. Neither is ever made anew: see the
//! README there.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest as Logs;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest as Metrics;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest as Traces;
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use trommel::batch::{IdentityKeys, ProjectId, Request, Signal, Stream, TenantId};
use trommel::sandbox::{
    Alert, AlertEffect, Cell, Effects, Grant, Instance, Limits, Module, OnFailure, Plugin, Sandbox, Settings,
    Window,
};
use trommel::telemetry::Secret;

const NOW_NS: u64 = 1_700_000_000_000_000_000;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("frozen/v0.1")
}

/// Granted what it asks for.
fn load(name: &str, config: &str) -> Plugin {
    let compiled = std::env::temp_dir().join("trommel-tests-compiled");
    let sandbox = Sandbox::open(Some(compiled), trommel::telemetry::Metrics::new()).unwrap();
    let file = folder().join(format!("{name}.wasm"));
    let manifest = sandbox.inspect(&file).unwrap().manifest;
    let settings = Settings {
        name: name.into(),
        module: Module::File(file),
        config: config.into(),
        filled: Vec::new(),
        secrets: BTreeMap::from([("join".into(), Secret::new("swordfish"))]),
        is_guard: false,
        on_failure: OnFailure::Refuse,
        tenant: None,
        instance: Instance::Shared,
        limits: Limits::default(),
        grant: Some(Grant { reads: manifest.reads, writes: manifest.writes }),
    };
    sandbox.load(&settings).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// What the plugin makes of the input of a signal, as text.
fn ran<T: Message + Default + Serialize + DeserializeOwned>(plugin: &Plugin, signal: Signal) -> String {
    let file = folder().join(format!("input/{}.json", signal.name()));
    let input: T = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let request = Request::check(signal, input.encode_to_vec().into()).unwrap();
    let stream = Stream { tenant: TenantId::new("acme").unwrap(), project: ProjectId::new("shop").unwrap() };
    let resources: Vec<usize> = (0..request.resources.len()).collect();
    let batch = request.batch(stream, &resources);
    let (mut text, mut pieces) = (format!("{}\n", signal.name()), Vec::new());
    for piece in batch.pieces(512, 256 << 10) {
        let ran = plugin.run(piece, NOW_NS);
        writeln!(text, "dropped {}, failed {:?}", ran.filtered, ran.failed).unwrap();
        text += &written(&ran.effects);
        pieces.push(ran.piece);
    }
    let keys = IdentityKeys { tenant: "tenant.id".into(), project: "project.id".into() };
    let output = T::decode(batch.written(pieces, &keys).batch.bytes.as_ref()).unwrap();
    text + &serde_json::to_string_pretty(&output).unwrap() + "\n\n"
}

/// Field by field, so that what is added to these types changes nothing here.
fn written(effects: &Effects) -> String {
    let mut text = String::new();
    effects.counts.iter().for_each(|(name, by)| writeln!(text, "count {name} {by}").unwrap());
    effects.gauges.iter().for_each(|(name, value)| writeln!(text, "gauge {name} {value}").unwrap());
    for (key, cell) in &effects.series {
        writeln!(text, "series {key} {} {}", cell.count, cell.sum).unwrap();
    }
    for alert in &effects.alerts {
        match alert {
            AlertEffect::Fire(alert) => {
                let Alert { key, severity, title, text: body, count, labels, .. } = alert;
                writeln!(text, "fire {key} {severity:?} {title:?} {body:?} {count} {labels:?}").unwrap();
            }
            AlertEffect::Resolve(key) => writeln!(text, "resolve {key}").unwrap(),
        }
    }
    text
}

/// A closed window with these values under this key.
fn window(key: &str, values: &[f64]) -> Window {
    let mut cell = Cell::default();
    values.iter().for_each(|value| cell.add(*value));
    Window { key: key.into(), start_ns: NOW_NS - 10_000_000_000, end_ns: NOW_NS, cell }
}

fn ticked(plugin: &Plugin, closed: &[Window]) -> String {
    let tenant = TenantId::new("acme").unwrap();
    format!("tick\n{}", written(&plugin.tick(&tenant, NOW_NS, closed).unwrap()))
}

fn check(name: &str, made: &str) {
    expect_test::expect_file![folder().join(format!("{name}.expected.txt"))].assert_eq(made);
}

/// Of the bytes that stand there: nobody makes them anew, by `UPDATE_EXPECT` neither.
#[test]
fn nothing_was_made_anew() {
    for (file, digest) in [
        ("errors.wasm", "89265394fc24eaee85d4aa56a263456f5737dfc9016cf87935dfab207c971fe9"),
        ("every-function.wasm", "68718bfeaba6710f5879f0a6ffa02c0b16bd2d9df80a16f0a0485dbd15d6fcfb"),
        ("example-c.wasm", "5e2d96cceed4abf19cfcf78bcfea651258fd4b7d51b5a3697f8011a7cffb2439"),
        ("errors.expected.txt", "f402f685d3e0f45b5ffff24536d6d51f8c78638b88c088dd9fd599d472992053"),
        ("every-function.expected.txt", "c6b57d556e507e82cef6412e0b0e595a84933d21704a3e7439839a8c1ce34a48"),
        ("example-c.expected.txt", "2acb632c08a02e48095f6fc8a6e4a01b0c0921a52857b377cda6057ae650f09a"),
    ] {
        let bytes = std::fs::read(folder().join(file)).unwrap();
        let found: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, digest, "{file}");
    }
}

#[test]
fn every_function() {
    let plugin = load("every-function", r#"{"mode": "everything", "pattern": "[a-z]+@[a-z.]+"}"#);
    let made = ran::<Logs>(&plugin, Signal::Logs)
        + &ran::<Traces>(&plugin, Signal::Traces)
        + &ran::<Metrics>(&plugin, Signal::Metrics);
    check("every-function", &made);
}

#[test]
fn alerts_on_windows() {
    let plugin = load("errors", "{}");
    let made = ran::<Logs>(&plugin, Signal::Logs)
        + &ticked(&plugin, &[window("shop", &[7.0, 8.0]), window("stock", &[1.0])])
        + &ticked(&plugin, &[window("shop", &[]), window("stock", &[30.0])]);
    check("errors", &made);
}

#[test]
fn written_in_c() {
    let redact = load("example-c", r#"{"mode": "redact", "pattern": "[\\w.]+@[\\w.]+", "by": "[e-mail]"}"#);
    let sample = load("example-c", r#"{"mode": "sample", "keep": 0.5}"#);
    let check_marked = load("example-c", r#"{"mode": "check"}"#);
    let made: String =
        [redact, sample, check_marked].iter().map(|plugin| ran::<Logs>(plugin, Signal::Logs)).collect();
    check("example-c", &made);
}
