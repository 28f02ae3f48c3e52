//! What does a plugin's call cost per record, beside the same work done natively on the same columns?
//!
//! Both sides begin with pieces that nobody has looked into, so finding the columns is in both, and end with the edits
//! committed. "native" runs the same search, the same decisions and the same edits through `batch::Call`, with no
//! guest between.

#[allow(dead_code, reason = "the plugin's own rules for cards; not all of them are asked here")]
#[path = "../../plugins/redact/src/card.rs"]
mod card;
#[allow(dead_code, reason = "the plugin's own patterns; not all of them are asked here")]
#[path = "../../plugins/redact/src/patterns.rs"]
mod patterns;
#[allow(dead_code, reason = "the plugin's own templates; not all of them are asked here")]
#[path = "../../plugins/anomaly/src/signature.rs"]
mod signature;

use bench::Shape;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::Event};
use prost::Message;
use std::collections::BTreeMap;
use std::hint::black_box;
use trommel::batch::{
    Call, Hits, Level, Piece, Places, ProjectId, Request, Signal, Stream, TenantId, TextColumn,
};
use trommel::sandbox::{Grant, Instance, Limits, Module, OnFailure, Plugin, Sandbox, Searcher, Settings};
use trommel::telemetry::Metrics;

/// As the pipeline cuts batches.
const PIECE_RECORDS_MAX: usize = 512;
const PIECE_BYTES_MAX: usize = 256 << 10;
const RECORDS: usize = 512;
/// The places of log records that have keys, and all of them.
const PLACES: Places = Places(0b1_1001_0001);
const EVERY_PLACE: Places = Places(0b1_1001_0011);
const BODIES: Places = Places(1);
const NOW_NS: u64 = 1_700_000_000_000_000_000;

const REDACT: &str = r#"{"patterns": ["email", "card", "token"]}"#;
const REDACT_ALL: &str =
    r#"{"patterns": ["private_key", "token", "jwt", "email", "card", "ipv6", "ipv4", "phone"]}"#;
const SAMPLE_ALL: &str = r#"{"ratio": 1.0}"#;
/// Half of the records would go, and all are severe enough to stay: every decision is made, nothing is dropped.
const SAMPLE_DECIDING: &str = r#"{"ratio": 0.5, "keep_severity": 1}"#;
const ENRICH: &str = r#"{"rules": [{"set": {"region": "eu-1"}}]}"#;

fn plugin(sandbox: &Sandbox, name: &str, config: &str) -> Plugin {
    let settings = Settings {
        name: name.into(),
        module: Module::Builtin(name.into()),
        config: config.into(),
        filled: Vec::new(),
        secrets: BTreeMap::new(),
        is_guard: false,
        on_failure: OnFailure::Pass,
        tenant: None,
        instance: Instance::Shared,
        limits: Limits::default(),
        grant: (name == "noop").then(Grant::default),
    };
    let bytes = artifacts::bundled(name).or(artifacts::guest(name)).expect("a plugin or a guest");
    sandbox.load_bytes(&settings, bytes).expect("it loads")
}

/// The pieces of the load's requests, in turn.
struct Load {
    signal: Signal,
    requests: Vec<Vec<Piece>>,
    bodies: Vec<bytes::Bytes>,
}

impl Load {
    fn new() -> Load {
        let shape = Shape { records: RECORDS, resources: 4, has_tenant: false, projects: 0 };
        Load { signal: Signal::Logs, requests: Vec::new(), bodies: bench::encoded(shape, 20) }
    }

    fn of_spans() -> Load {
        Load { signal: Signal::Traces, requests: Vec::new(), bodies: vec![spans(); 20] }
    }

    /// Pieces that nobody has looked into.
    fn next(&mut self) -> Vec<Piece> {
        if self.requests.is_empty() {
            self.requests = self.bodies.iter().map(|body| pieces(self.signal, body)).collect();
        }
        self.requests.pop().expect("filled above")
    }
}

/// Spans of four services, half of them server spans; one in twenty has failed with an exception.
fn spans() -> bytes::Bytes {
    let text = |key: &str, value: String| KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(Value::StringValue(value)) }),
        ..Default::default()
    };
    let span = |at: u64| {
        let exception = ["type", "message", "stacktrace"].map(|key| {
            text(&format!("exception.{key}"), "java.io.IOException: full\n\tat a.B.c(D.java:1)".into())
        });
        let event = Event { name: "exception".into(), attributes: exception.into(), ..Default::default() };
        Span {
            trace_id: vec![at as u8; 16],
            span_id: vec![at as u8; 8],
            name: "POST /orders/{id}".into(),
            kind: 2 + (at % 2) as i32,
            start_time_unix_nano: NOW_NS + at,
            end_time_unix_nano: NOW_NS + at * 1_000_000,
            attributes: (0..6).map(|key| text(&format!("http.key{key}"), format!("value {at}"))).collect(),
            status: at.is_multiple_of(20).then(|| Status { code: 2, ..Default::default() }),
            events: if at.is_multiple_of(20) { vec![event] } else { Vec::new() },
            ..Default::default()
        }
    };
    let of = |service: u64| ResourceSpans {
        resource: Some(Resource {
            attributes: vec![text("service.name", format!("orders-{service}"))],
            ..Default::default()
        }),
        scope_spans: vec![ScopeSpans {
            spans: (0..RECORDS as u64 / 4).map(span).collect(),
            ..Default::default()
        }],
        ..Default::default()
    };
    ExportTraceServiceRequest { resource_spans: (0..4).map(of).collect() }.encode_to_vec().into()
}

fn pieces(signal: Signal, body: &bytes::Bytes) -> Vec<Piece> {
    let request = Request::check(signal, body.clone()).expect("valid");
    let stream = Stream { tenant: TenantId::local(), project: ProjectId::default_project() };
    request.batch(stream, &[0, 1, 2, 3]).pieces(PIECE_RECORDS_MAX, PIECE_BYTES_MAX)
}

fn through(plugins: &[&Plugin], pieces: Vec<Piece>) -> Vec<Piece> {
    let run = |piece, plugin: &&Plugin| {
        let called = plugin.process(piece, None, NOW_NS);
        called.result.expect("the plugin works");
        called.piece
    };
    pieces.into_iter().map(|piece| plugins.iter().fold(piece, run)).collect()
}

fn natively(work: &dyn Fn(&mut Call), pieces: Vec<Piece>) -> Vec<Piece> {
    let run = |piece: Piece| {
        let mut call = piece.call(None);
        work(&mut call);
        call.commit().unwrap_or_else(|(_, fault)| panic!("{fault}")).piece
    };
    pieces.into_iter().map(run).collect()
}

struct Redact {
    names: Vec<&'static str>,
    patterns: Searcher,
    keys: Searcher,
    masks: Vec<String>,
}

impl Redact {
    fn new(names: &[&'static str]) -> Redact {
        let regexes: Vec<String> =
            names.iter().map(|name| patterns::named(name).expect("named").to_owned()).collect();
        Redact {
            names: names.to_vec(),
            patterns: Searcher::compile(&regexes).expect("compiles"),
            keys: Searcher::compile(&[patterns::SECRET_KEYS.to_owned()]).expect("compiles"),
            masks: names.iter().map(|name| format!("[{name}]")).collect(),
        }
    }

    fn redact(&self, call: &mut Call) {
        let mask = ["[redacted]".to_owned()];
        self.keys.with_keys(|matches| call.mask_keys(PLACES, matches, &mask));
        let found = self.patterns.search(&call.texts(EVERY_PLACE).expect("texts"));
        if found.texts.is_empty() {
            return;
        }
        let hits = apart(self.with_cards(call, &found));
        call.replace(EVERY_PLACE, &hits, &self.masks);
    }

    /// Text, start, pattern and end of each hit; cards in the place of the regions that hold them.
    fn with_cards(&self, call: &mut Call, found: &Hits) -> Vec<(u32, u32, u32, u32)> {
        let is_card = |at: usize| self.names[found.patterns[at] as usize] == "card";
        let all = 0..found.texts.len();
        let hit = |at: usize| (found.texts[at], found.starts[at], found.patterns[at], found.ends[at]);
        let mut hits: Vec<_> = all.clone().filter(|at| !is_card(*at)).map(hit).collect();
        let regions: Vec<_> = all.filter(|at| is_card(*at)).map(hit).collect();
        let texts = call.matches(EVERY_PLACE, &as_hits(&regions)).expect("texts");
        for ((text, start, pattern, _), region) in regions.into_iter().zip(texts) {
            let card = |card: std::ops::Range<usize>| {
                (text, start + card.start as u32, pattern, start + card.end as u32)
            };
            hits.extend(card::cards(&region).into_iter().map(card));
        }
        hits
    }
}

/// Sorted, and cut where an earlier one covers them, as the plugin does.
fn apart(mut hits: Vec<(u32, u32, u32, u32)>) -> Hits {
    hits.sort_unstable();
    let (mut text, mut covered) = (u32::MAX, 0);
    hits.retain_mut(|hit| {
        if hit.0 != text {
            (text, covered) = (hit.0, 0);
        }
        hit.1 = hit.1.max(covered);
        covered = covered.max(hit.3);
        hit.1 < hit.3
    });
    as_hits(&hits)
}

fn as_hits(hits: &[(u32, u32, u32, u32)]) -> Hits {
    Hits {
        texts: hits.iter().map(|hit| hit.0).collect(),
        starts: hits.iter().map(|hit| hit.1).collect(),
        patterns: hits.iter().map(|hit| hit.2).collect(),
        ends: hits.iter().map(|hit| hit.3).collect(),
    }
}

fn sample(call: &mut Call) {
    let randomness = call.randomness().expect("a column");
    let below = (0..).zip(&randomness).filter(|(_, random)| **random < 1 << 55);
    let mut dropped: Vec<u32> = below.map(|(row, _)| row).collect();
    if !dropped.is_empty() {
        let severities = call.severities().expect("a column");
        dropped.retain(|row| severities[*row as usize] < 1);
    }
    black_box(&dropped);
}

fn enrich(call: &mut Call) {
    let rows: Vec<u32> = (0..call.rows(Level::Resource)).collect();
    let column = TextColumn { index: vec![0; rows.len()], rows, strings: vec!["eu-1".into()] };
    call.set_text_attribute(Level::Resource, "region", &column);
}

/// Counts by resource, and looks at some errors, as the plugin does when it has learned them.
fn anomaly(call: &mut Call) {
    let severities = call.severities().expect("a column");
    let names = call.text_attribute(Level::Resource, "service.name").expect("a column");
    let resources = call.parents(Level::Item, Level::Resource).expect("a column");
    let mut counts = vec![0; call.rows(Level::Resource) as usize];
    let errors = (0..).zip(&severities).filter(|(_, severity)| **severity >= 17).map(|(row, _)| row);
    let errors: Vec<u32> = errors.collect();
    resources.iter().for_each(|resource| counts[*resource as usize] += 1);
    let rows = call.text_rows(BODIES).expect("a column");
    let types = call.text_attribute(Level::Item, "exception.type").expect("a column");
    let bodies = call.texts(BODIES).expect("texts");
    let some = errors.iter().step_by(errors.len().div_ceil(8).max(1));
    let some = some.filter_map(|row| rows.binary_search(row).ok());
    let hashes = some.map(|at| signature::Signature::hash_of("", bodies.bytes(at), ""));
    black_box((names, counts, types, hashes.fold(0, u64::wrapping_add)));
}

fn bench(criterion: &mut Criterion) {
    let sandbox = Sandbox::open(None, Metrics::new()).expect("the sandbox starts");
    let mut group = criterion.benchmark_group("512 records");
    group.throughput(Throughput::Elements(RECORDS as u64));
    let mut load = Load::new();
    let mut side = |name: &str, work: &dyn Fn(Vec<Piece>) -> Vec<Piece>| {
        group.bench_function(name, |bencher| {
            bencher.iter_batched(|| load.next(), work, BatchSize::PerIteration)
        });
    };

    let noop = plugin(&sandbox, "noop", "{}");
    side("no-op, plugin", &|pieces| through(&[&noop], pieces));
    side("no-op, native", &|pieces| natively(&|_| {}, pieces));

    let three = plugin(&sandbox, "redact", REDACT);
    let three_native = Redact::new(&["email", "card", "token"]);
    side("redact email card token, plugin", &|pieces| through(&[&three], pieces));
    side("redact email card token, native", &|pieces| natively(&|call| three_native.redact(call), pieces));
    let all = plugin(&sandbox, "redact", REDACT_ALL);
    let names = patterns::NAMED.iter().map(|(name, _)| *name).collect::<Vec<_>>();
    let all_native = Redact::new(&names);
    side("redact all patterns, plugin", &|pieces| through(&[&all], pieces));
    side("redact all patterns, native", &|pieces| natively(&|call| all_native.redact(call), pieces));

    let keeping = plugin(&sandbox, "sample", SAMPLE_ALL);
    side("sample ratio 1, plugin", &|pieces| through(&[&keeping], pieces));
    let deciding = plugin(&sandbox, "sample", SAMPLE_DECIDING);
    side("sample deciding and keeping all, plugin", &|pieces| through(&[&deciding], pieces));
    side("sample deciding and keeping all, native", &|pieces| natively(&sample, pieces));

    let adding = plugin(&sandbox, "enrich", ENRICH);
    side("enrich one resource attribute, plugin", &|pieces| through(&[&adding], pieces));
    side("enrich one resource attribute, native", &|pieces| natively(&enrich, pieces));

    let watching = plugin(&sandbox, "anomaly", "{}");
    side("anomaly, plugin", &|pieces| through(&[&watching], pieces));
    side("anomaly, native", &|pieces| natively(&anomaly, pieces));
    side("redact + anomaly, plugins", &|pieces| through(&[&three, &watching], pieces));

    side("redact + sample + enrich, plugins", &|pieces| through(&[&three, &deciding, &adding], pieces));
    side("redact + sample + enrich, native", &|pieces| {
        let redacted = natively(&|call| three_native.redact(call), pieces);
        natively(&enrich, natively(&sample, redacted))
    });
    group.finish();

    let mut group = criterion.benchmark_group("512 spans");
    group.throughput(Throughput::Elements(RECORDS as u64));
    let mut load = Load::of_spans();
    for (name, plugin) in [("no-op", &noop), ("anomaly", &watching)] {
        group.bench_function(name, |bencher| {
            bencher.iter_batched(|| load.next(), |pieces| through(&[plugin], pieces), BatchSize::PerIteration)
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
