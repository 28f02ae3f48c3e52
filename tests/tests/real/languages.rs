//! The interface holds in other languages: the plugins of `tests/languages` do what the guest `example` does in Rust.
//!
//! `cargo xtask test` builds them with the bindings that the generators give and says where they are.

use crate::real::installed;
use crate::world::{World, resource_logs, sha256, text};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use prost::Message;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;
use trommel::batch::{Batch, IdentityKeys, ProjectId, Request, Signal, Stream, TenantId};
use trommel::sandbox::{
    Effects, Failed, Grant, Instance, Limits, Module, OnFailure, Plugin, PluginError, Sandbox, Settings,
};
use trommel::telemetry::Metrics;

/// With the memory that 20,000 calls may need: what a plugin has after some calls, and half as much again.
const LANGUAGES: [(&str, usize); 5] =
    [("rust", 2 << 20), ("c", 512 << 10), ("go", 12 << 20), ("python", 20 << 20), ("typescript", 3 << 20)];
const RECORDS: usize = 600;
const REASON: &str = "a record is marked as unreadable";

/// Where the component of a language lies. Rust's is built with the tests.
fn component(language: &str) -> PathBuf {
    if language != "rust" {
        return installed(&format!("TROMMEL_TEST_PLUGIN_{}", language.to_uppercase()));
    }
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("rust.wasm"), artifacts::guest("example").unwrap()).unwrap();
        folder
    });
    folder.path().join("rust.wasm")
}

fn sandbox() -> &'static Sandbox {
    static SANDBOX: OnceLock<Sandbox> = OnceLock::new();
    // CPython takes seconds to compile: once for all tests, and for all runs.
    let folder = std::env::temp_dir().join("trommel-tests-compiled");
    SANDBOX.get_or_init(|| Sandbox::open(Some(folder), Metrics::new()).unwrap())
}

fn settings(language: &str, config: &Value) -> Settings {
    let words = |text: &str| text.split(' ').map(String::from).collect();
    Settings {
        name: language.into(),
        module: Module::File(component(language)),
        config: config.to_string(),
        filled: Vec::new(),
        secrets: BTreeMap::new(),
        is_guard: false,
        on_failure: OnFailure::Refuse,
        tenant: None,
        instance: Instance::PerTenant,
        limits: Limits::default(),
        grant: Some(Grant { reads: words("body severity trace-id"), writes: words("body drop") }),
    }
}

fn load(settings: &Settings) -> Result<Plugin, String> {
    sandbox().load(settings).map_err(|error| error.to_string())
}

fn redact() -> Value {
    json!({ "mode": "redact", "pattern": r"[\w.+-]+@[\w-]+\.[\w.]+", "by": "[e-mail ✉]" })
}

fn sample() -> Value {
    json!({ "mode": "sample", "keep": 0.25 })
}

fn check() -> Value {
    json!({ "mode": "check" })
}

/// A record of every severity there is, and one that is none; every third with an address, every fifth without a trace.
fn record(at: usize, body: &str) -> LogRecord {
    let trace = (at as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834);
    LogRecord {
        time_unix_nano: 1_700_000_000_000_000_000 + at as u64,
        severity_number: (at % 25) as i32,
        body: Some(text(body)),
        trace_id: if at.is_multiple_of(5) { Vec::new() } else { trace.to_be_bytes().to_vec() },
        ..Default::default()
    }
}

/// Several hundred records in two resources; two of them are marked.
fn request() -> ExportLogsServiceRequest {
    let body = |at: usize| match at {
        77 | 590 => format!("record {at} is UNREADABLE"),
        _ if at.is_multiple_of(3) => {
            format!("Grüße von jürgen+{at}@exämple.org, 东京 ≠ Ōsaka, {at}@b.example 🎉")
        }
        _ => format!("line {at}\u{0} with a NUL, a \u{202e} and „quotes“"),
    };
    let records = |range: std::ops::Range<usize>| ResourceLogs {
        resource: Some(Default::default()),
        scope_logs: vec![ScopeLogs {
            log_records: range.map(|at| record(at, &body(at))).collect(),
            ..Default::default()
        }],
        ..Default::default()
    };
    ExportLogsServiceRequest { resource_logs: vec![records(0..350), records(350..RECORDS)] }
}

fn batch_of(request: &ExportLogsServiceRequest) -> Batch {
    let request = Request::check(Signal::Logs, request.encode_to_vec().into()).unwrap();
    let stream = Stream { tenant: TenantId::new("acme").unwrap(), project: ProjectId::new("shop").unwrap() };
    let resources: Vec<usize> = (0..request.resources.len()).collect();
    request.batch(stream, &resources)
}

/// All that a plugin makes of a request.
#[derive(Debug, PartialEq)]
struct Made {
    bytes: Vec<u8>,
    effects: Effects,
    dropped: u32,
    failed: Vec<Failed>,
}

fn made(plugin: &Plugin, batch: &Batch) -> Made {
    let mut made = Made { bytes: Vec::new(), effects: Effects::default(), dropped: 0, failed: Vec::new() };
    let mut pieces = Vec::new();
    for piece in batch.pieces(512, 256 << 10) {
        let ran = plugin.run(piece, 0);
        made.effects.merge(ran.effects);
        made.dropped += ran.filtered;
        made.failed.extend(ran.failed);
        pieces.push(ran.piece);
    }
    let keys = IdentityKeys { tenant: "tenant.id".into(), project: "project.id".into() };
    made.bytes = batch.clone().written(pieces, &keys).batch.bytes.to_vec();
    made
}

/// What each language makes of the request, held against what Rust makes of it.
fn same_everywhere(config: &Value, on_failure: OnFailure) -> Made {
    let batch = batch_of(&request());
    let make = |language| {
        let settings = Settings { on_failure, ..settings(language, config) };
        made(&load(&settings).unwrap_or_else(|error| panic!("{language}: {error}")), &batch)
    };
    let expected = make("rust");
    for (language, _) in &LANGUAGES[1..] {
        let found = make(language);
        assert_eq!(found.failed, expected.failed, "{language} in {config}");
        assert_eq!(found.effects, expected.effects, "{language} in {config}");
        assert_eq!(found.dropped, expected.dropped, "{language} in {config}");
        assert!(found.bytes == expected.bytes, "{language} in {config} made other bytes");
    }
    expected
}

fn count(made: &Made, name: &str) -> u64 {
    made.effects.counts.iter().filter(|(known, _)| known == name).map(|(_, count)| count).sum()
}

fn bodies(bytes: &[u8]) -> Vec<String> {
    let request = ExportLogsServiceRequest::decode(bytes).unwrap();
    let scopes = request.resource_logs.into_iter().flat_map(|resource| resource.scope_logs);
    let records = scopes.flat_map(|scope| scope.log_records);
    records.map(|record| string(record.body)).collect()
}

fn string(value: Option<opentelemetry_proto::tonic::common::v1::AnyValue>) -> String {
    use opentelemetry_proto::tonic::common::v1::any_value::Value::StringValue;
    match value.and_then(|value| value.value) {
        Some(StringValue(text)) => text,
        other => panic!("{other:?} is no text"),
    }
}

#[test]
fn a_redaction_is_the_same_in_every_language() {
    let made = same_everywhere(&redact(), OnFailure::Refuse);
    assert_eq!((made.dropped, made.failed.as_slice()), (0, [].as_slice()));
    assert_eq!(count(&made, "redacted"), 2 * RECORDS as u64 / 3);
    let bodies = bodies(&made.bytes);
    assert_eq!(bodies[3], "Grüße von [e-mail ✉], 东京 ≠ Ōsaka, [e-mail ✉] 🎉");
    assert_eq!(bodies[4], "line 4\u{0} with a NUL, a \u{202e} and „quotes“");
}

#[test]
fn a_sample_is_the_same_in_every_language() {
    let made = same_everywhere(&sample(), OnFailure::Refuse);
    assert_eq!(made.failed, []);
    assert_eq!(u64::from(made.dropped), count(&made, "sampled-out"));
    assert_eq!(bodies(&made.bytes).len(), RECORDS - made.dropped as usize);
    // A third are errors, and of the rest three quarters go.
    assert!((250..350).contains(&made.dropped), "{} of {RECORDS} were dropped", made.dropped);
}

#[test]
fn records_that_a_plugin_fails_on_stand_alone_in_every_language() {
    let failed = Failed { records: 1, error: PluginError::Guest(REASON.into()) };
    for (on_failure, left) in [(OnFailure::Pass, RECORDS), (OnFailure::Drop, RECORDS - 2)] {
        let made = same_everywhere(&check(), on_failure);
        assert_eq!(made.failed, [failed.clone(), failed.clone()]);
        assert_eq!(count(&made, "checked"), RECORDS as u64 - 2);
        assert_eq!(bodies(&made.bytes).len(), left);
    }
}

#[test]
fn what_is_wrong_with_the_settings_is_told_in_every_language() {
    let wrong = json!({ "mode": "redact", "pattern": "(", "by": "" });
    for (language, _) in LANGUAGES {
        let refusal = load(&settings(language, &wrong)).unwrap_err();
        assert_eq!(refusal, "its settings are refused: pattern 0: unclosed group at byte 0", "{language}");
    }
}

#[test]
fn a_loop_without_end_is_stopped_and_the_next_call_works_in_every_language() {
    let piece = |body: &str| {
        let request = ExportLogsServiceRequest { resource_logs: vec![resource_logs(&[], &[body])] };
        batch_of(&request).pieces(512, 256 << 10).remove(0)
    };
    for (language, _) in LANGUAGES {
        let plugin = load(&settings(language, &json!({ "mode": "spin" }))).unwrap();
        for _ in 0..3 {
            let stopped = plugin.process(piece("ENDLESS"), None, 0).result;
            assert_eq!(stopped, Err(PluginError::Time { limit_ms: 100 }), "{language}");
            let next = plugin.process(piece("good"), None, 0).result;
            assert_eq!(next, Ok(Effects::default()), "{language}");
        }
    }
}

#[test]
fn twenty_thousand_calls_need_no_more_memory_than_the_first_in_every_language() {
    let bodies = ["a@b.example", "one", "two", "three and a few words more than that"];
    let batch = batch_of(&ExportLogsServiceRequest { resource_logs: vec![resource_logs(&[], &bodies)] });
    let piece = || batch.pieces(512, 256 << 10).remove(0);
    for (language, memory) in LANGUAGES {
        for config in [redact(), sample(), check()] {
            let mut settings = settings(language, &config);
            // One instance serves all calls: there is one tenant, and it is replaced after 100,000.
            settings.limits = Limits { memory, ..Limits::default() };
            let plugin = load(&settings).unwrap_or_else(|error| panic!("{language}: {error}"));
            for call in 0..20_000 {
                let called = plugin.process(piece(), None, 0);
                assert!(called.result.is_ok(), "{language} in {config}, call {call}: {:?}", called.result);
            }
        }
    }
}

/// A tenant for each language, with a plugin that refuses what it fails on.
fn configuration() -> String {
    let mut yaml = String::from(
        "receivers: { otlp: { grpc: { listen: 127.0.0.1:0 } } }\nconsole: { listen: 127.0.0.1:0 }\nsinks: { streams: { type: streams } }\n",
    );
    let names: Vec<&str> = LANGUAGES.iter().map(|(language, _)| *language).collect();
    yaml += "identity:\n  tokens:\n";
    for name in &names {
        let token = sha256(&format!("{name}-token"));
        yaml += &format!(
            "    - {{ sha256: \"{token}\", tenant: {name}, projects: [\"*\"], rights: [send, read] }}\n"
        );
    }
    yaml += "plugins:\n";
    for name in &names {
        let module = component(name);
        yaml += &format!(
            "  {name}: {{ module: {:?}, on_failure: refuse, grant: {{ reads: [body, severity, trace-id], writes: [body, drop] }}, config: {{ mode: check }} }}\n",
            module.display().to_string()
        );
    }
    yaml += "pipelines:\n";
    for name in &names {
        yaml += &format!(
            "  - {{ name: {name}, when: {{ tenant: [{name}] }}, plugins: [{name}], sinks: [streams] }}\n"
        );
    }
    yaml
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_is_told_the_same_whatever_language_refused() {
    let world = World::start(&configuration()).await;
    let mut answers = Vec::new();
    for (language, _) in LANGUAGES {
        let resource = resource_logs(&[("project.id", "shop")], &["one", "UNREADABLE", "three"]);
        let request = ExportLogsServiceRequest { resource_logs: vec![resource] };
        let token = format!("{language}-token");
        let answer = world.send(Some(&token), request).await.unwrap();
        let partial = answer.partial_success.unwrap_or_default();
        assert_eq!(partial.rejected_log_records, 1, "{language}: {}", partial.error_message);
        answers.push(partial.error_message.replace(&format!("`{language}`"), "`LANGUAGE`"));
        let kept = world.history_of(Some(&token), language, "shop", 2).await;
        let kept: Vec<&str> = kept.iter().map(|record| record["body"].as_str().unwrap()).collect();
        assert_eq!(kept, ["one", "three"], "{language}");
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    world.end().await;
}
