//! The bundled plugins in the sandbox: OTLP in, OTLP out, compared as text.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest as Logs;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest as Metrics;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest as Traces;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span};
use prost::Message;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;
use trommel::batch::{Batch, IdentityKeys, ProjectId, Request, Signal, Stream, TenantId};
use trommel::sandbox::{self, Effects, Instance, Limits, Module, OnFailure, Plugin, Sandbox};
use trommel::telemetry::Secret;

/// The pieces that the pipeline cuts.
const PIECE_RECORDS: usize = 512;
const PIECE_BYTES: usize = 256 << 10;

fn sandbox() -> &'static Sandbox {
    static SANDBOX: OnceLock<Sandbox> = OnceLock::new();
    SANDBOX.get_or_init(|| Sandbox::open(None, trommel::telemetry::Metrics::new()).unwrap())
}

fn load(name: &str, config: Json) -> Result<Plugin, String> {
    let settings = settings(name, config);
    sandbox().load(&settings).map_err(|error| error.to_string())
}

pub fn settings(name: &str, config: Json) -> sandbox::Settings {
    sandbox::Settings {
        name: name.into(),
        module: Module::Builtin(name.into()),
        config: config.to_string(),
        filled: Vec::new(),
        secrets: BTreeMap::from([("join".into(), Secret::new("swordfish"))]),
        is_guard: false,
        on_failure: OnFailure::Refuse,
        tenant: None,
        instance: Instance::Shared,
        limits: Limits::default(),
        grant: None,
    }
}

/// An export request of one of the signals.
trait Export: Message + Default {
    const SIGNAL: Signal;
}

impl Export for Logs {
    const SIGNAL: Signal = Signal::Logs;
}
impl Export for Traces {
    const SIGNAL: Signal = Signal::Traces;
}
impl Export for Metrics {
    const SIGNAL: Signal = Signal::Metrics;
}

/// What the plugin makes of the request of tenant `acme`, project `shop`, and its effects. No record may fail.
fn run<T: Export>(plugin: &Plugin, request: &T) -> (T, Effects) {
    let (bytes, effects) = run_bytes(plugin, request);
    (T::decode(bytes.as_slice()).unwrap(), effects)
}

fn run_bytes<T: Export>(plugin: &Plugin, request: &T) -> (Vec<u8>, Effects) {
    let request = Request::check(T::SIGNAL, request.encode_to_vec().into()).unwrap();
    let stream = Stream { tenant: TenantId::new("acme").unwrap(), project: ProjectId::new("shop").unwrap() };
    let resources: Vec<usize> = (0..request.resources.len()).collect();
    let batch: Batch = request.batch(stream, &resources);
    let mut effects = Effects::default();
    let mut pieces = Vec::new();
    for piece in batch.pieces(PIECE_RECORDS, PIECE_BYTES) {
        let ran = plugin.run(piece, 0);
        assert_eq!(ran.failed, []);
        effects.merge(ran.effects);
        pieces.push(ran.piece);
    }
    let keys = IdentityKeys { tenant: "tenant.id".into(), project: "project.id".into() };
    let written = batch.written(pieces, &keys).batch;
    (written.bytes.to_vec(), effects)
}

fn count(effects: &Effects, name: &str) -> u64 {
    effects.counts.iter().filter(|(known, _)| known == name).map(|(_, count)| count).sum()
}

// Building and reading telemetry.

fn any(json: &Json) -> AnyValue {
    let value = match json {
        Json::String(text) => Value::StringValue(text.clone()),
        Json::Bool(value) => Value::BoolValue(*value),
        Json::Number(number) => match number.as_i64() {
            Some(int) => Value::IntValue(int),
            None => Value::DoubleValue(number.as_f64().unwrap()),
        },
        Json::Array(values) => Value::ArrayValue(ArrayValue { values: values.iter().map(any).collect() }),
        Json::Object(_) => Value::KvlistValue(KeyValueList { values: attributes(json) }),
        Json::Null => return AnyValue { value: None },
    };
    AnyValue { value: Some(value) }
}

fn attributes(json: &Json) -> Vec<KeyValue> {
    let attribute = |(key, value): (&String, &Json)| KeyValue {
        key: key.clone(),
        value: Some(any(value)),
        ..Default::default()
    };
    json.as_object().into_iter().flatten().map(attribute).collect()
}

fn json_of(any: &AnyValue) -> Json {
    match &any.value {
        Some(Value::StringValue(text)) => json!(text),
        Some(Value::BoolValue(value)) => json!(value),
        Some(Value::IntValue(value)) => json!(value),
        Some(Value::DoubleValue(value)) => json!(value),
        Some(Value::ArrayValue(list)) => list.values.iter().map(json_of).collect(),
        Some(Value::KvlistValue(list)) => object_of(&list.values),
        _ => Json::Null,
    }
}

fn object_of(attributes: &[KeyValue]) -> Json {
    let pair = |attribute: &KeyValue| (attribute.key.clone(), json_of(attribute.value.as_ref().unwrap()));
    let object: serde_json::Map<String, Json> = attributes.iter().map(pair).collect();
    assert_eq!(object.len(), attributes.len(), "a key stands twice: {attributes:?}");
    Json::Object(object)
}

fn resource(json: Json) -> Option<Resource> {
    Some(Resource { attributes: attributes(&json), ..Default::default() })
}

fn scope(json: Json) -> Option<InstrumentationScope> {
    Some(InstrumentationScope { name: "scope".into(), attributes: attributes(&json), ..Default::default() })
}

fn record(body: Json, attributes_of: Json) -> LogRecord {
    LogRecord {
        body: Some(any(&body)),
        severity_number: 9,
        attributes: attributes(&attributes_of),
        ..Default::default()
    }
}

fn logs_of(service: &str, log_records: Vec<LogRecord>) -> ResourceLogs {
    let scope_logs = vec![ScopeLogs { scope: scope(json!({})), log_records, ..Default::default() }];
    ResourceLogs { resource: resource(json!({"service.name": service})), scope_logs, ..Default::default() }
}

fn logs(records: Vec<LogRecord>) -> Logs {
    Logs { resource_logs: vec![logs_of("web", records)] }
}

fn spans_of(service: &str, spans: Vec<Span>) -> ResourceSpans {
    let scope_spans = vec![ScopeSpans { scope: scope(json!({})), spans, ..Default::default() }];
    ResourceSpans { resource: resource(json!({"service.name": service})), scope_spans, ..Default::default() }
}

fn traces(spans: Vec<Span>) -> Traces {
    Traces { resource_spans: vec![spans_of("web", spans)] }
}

fn records(logs: &Logs) -> Vec<&LogRecord> {
    logs.resource_logs.iter().flat_map(|of| &of.scope_logs).flat_map(|of| &of.log_records).collect()
}

fn spans(traces: &Traces) -> Vec<&Span> {
    traces.resource_spans.iter().flat_map(|of| &of.scope_spans).flat_map(|of| &of.spans).collect()
}

fn bodies(logs: &Logs) -> Vec<Json> {
    records(logs).iter().map(|record| json_of(record.body.as_ref().unwrap())).collect()
}

/// The body that is left of one record with this body.
fn redacted(plugin: &Plugin, body: &str) -> String {
    let (logs, _) = run(plugin, &logs(vec![record(json!(body), json!({}))]));
    bodies(&logs)[0].as_str().unwrap().into()
}

/// The filter of the SDK's README.
#[test]
fn the_first_filter_drops_what_is_below_info() {
    let mut settings = settings("first-filter", json!({}));
    settings.module = Module::File("first-filter.wasm".into());
    settings.grant = Some(sandbox::Grant { reads: vec!["severity".into()], writes: vec!["drop".into()] });
    let plugin = sandbox().load_bytes(&settings, artifacts::guest("first-filter").unwrap()).unwrap();
    let severe = |severity_number| LogRecord { severity_number, ..record(json!(severity_number), json!({})) };
    let (output, _) = run(&plugin, &logs([0, 8, 9, 17].map(severe).to_vec()));
    assert_eq!(bodies(&output), [json!(9), json!(17)]);
}

mod redact {
    use super::*;

    const PATTERNS: [&str; 3] = ["email", "card", "token"];

    #[test]
    fn every_string_of_a_log_record_is_searched() {
        let plugin = load("redact", json!({ "patterns": PATTERNS })).unwrap();
        let mail = "a@example.com";
        let mut input = logs(vec![record(
            json!({"user": [mail, {"deep": mail}]}),
            json!({"to": mail, "list": [mail, 7]}),
        )]);
        input.resource_logs[0].resource = resource(json!({"owner": mail}));
        input.resource_logs[0].scope_logs[0].scope = scope(json!({"author": mail}));
        input.resource_logs[0].scope_logs[0].log_records[0].event_name = format!("mail {mail}");
        let (output, effects) = run(&plugin, &input);
        let of = &output.resource_logs[0];
        let record = &of.scope_logs[0].log_records[0];
        assert_eq!(bodies(&output), [json!({"user": ["[email]", {"deep": "[email]"}]})]);
        assert_eq!(object_of(&record.attributes), json!({"to": "[email]", "list": ["[email]", 7]}));
        assert_eq!(object_of(&of.resource.as_ref().unwrap().attributes), json!({"owner": "[email]"}));
        assert_eq!(
            object_of(&of.scope_logs[0].scope.as_ref().unwrap().attributes),
            json!({"author": "[email]"})
        );
        assert_eq!(record.event_name, "mail [email]");
        assert_eq!(count(&effects, "redacted_email"), 7);
    }

    #[test]
    fn every_string_of_a_span_is_searched() {
        let plugin = load("redact", json!({ "patterns": PATTERNS })).unwrap();
        let mail = "a@example.com";
        let input = Span {
            name: format!("GET /{mail}"),
            attributes: attributes(&json!({"user": mail})),
            events: vec![span::Event {
                name: mail.into(),
                attributes: attributes(&json!({"e": mail})),
                ..Default::default()
            }],
            links: vec![span::Link { attributes: attributes(&json!({"l": mail})), ..Default::default() }],
            status: Some(Status { message: format!("no {mail}"), code: 2 }),
            ..Default::default()
        };
        let (output, effects) = run(&plugin, &traces(vec![input]));
        let span = spans(&output)[0];
        assert_eq!(
            (span.name.as_str(), object_of(&span.attributes)),
            ("GET /[email]", json!({"user": "[email]"}))
        );
        assert_eq!(
            (span.events[0].name.as_str(), object_of(&span.events[0].attributes)),
            ("[email]", json!({"e": "[email]"}))
        );
        assert_eq!(object_of(&span.links[0].attributes), json!({"l": "[email]"}));
        assert_eq!(span.status.as_ref().unwrap().message, "no [email]");
        assert_eq!(count(&effects, "redacted_email"), 6);
    }

    #[test]
    fn every_string_of_a_metric_but_its_name_is_searched() {
        let plugin = load("redact", json!({ "patterns": PATTERNS })).unwrap();
        let mail = "a@example.com";
        let exemplar =
            Exemplar { filtered_attributes: attributes(&json!({"x": mail})), ..Default::default() };
        let point = NumberDataPoint {
            attributes: attributes(&json!({"user": mail})),
            exemplars: vec![exemplar],
            value: Some(number_data_point::Value::AsInt(1)),
            ..Default::default()
        };
        let metric = Metric {
            name: mail.into(),
            description: format!("of {mail}"),
            data: Some(metric::Data::Gauge(Gauge { data_points: vec![point] })),
            ..Default::default()
        };
        let scope_metrics = vec![ScopeMetrics { metrics: vec![metric], ..Default::default() }];
        let input =
            Metrics { resource_metrics: vec![ResourceMetrics { scope_metrics, ..Default::default() }] };
        let (output, effects) = run(&plugin, &input);
        let metric = &output.resource_metrics[0].scope_metrics[0].metrics[0];
        assert_eq!((metric.name.as_str(), metric.description.as_str()), (mail, "of [email]"));
        let Some(metric::Data::Gauge(gauge)) = &metric.data else { panic!() };
        let point = &gauge.data_points[0];
        assert_eq!(object_of(&point.attributes), json!({"user": "[email]"}));
        assert_eq!(object_of(&point.exemplars[0].filtered_attributes), json!({"x": "[email]"}));
        assert_eq!(count(&effects, "redacted_email"), 3);
    }

    #[test]
    fn digits_that_are_no_card_hide_nothing() {
        let plugin = load("redact", json!({"patterns": ["card", "email", "phone"]})).unwrap();
        let check = |body, expected: &str| assert_eq!(redacted(&plugin, body), expected);
        check("pay 4111 1111 1111 1111 now", "pay [card] now");
        check("pay 4111 1111 1111 1112 now", "pay 4111 1111 1111 1112 now");
        check("4111111111111112@example.com", "[email]");
        check("4111111111111111@example.com", "[card][email]");
        check("at 1732441200 4111111111111111", "at 1732441200 [card]");
        check("4111-1111-1111-1111 5555-5555-5555-4444", "[card] [card]");
    }

    #[test]
    fn what_stands_out_of_an_overlap_is_hidden_too() {
        let plugin = load("redact", json!({"patterns": ["phone", "card"]})).unwrap();
        assert_eq!(redacted(&plugin, "+49 171 12345 4111 1111 1111 1111 x"), "[phone][card] x");
    }

    #[test]
    fn the_last_four_and_hashes_can_be_kept() {
        let config = json!({"patterns": [
            {"name": "card", "mask": "****", "keep_last": 4},
            {"name": "order", "regex": "ORD-[0-9]+", "do": "hash"},
            {"name": "email", "mask": ""},
        ]});
        let plugin = load("redact", config).unwrap();
        let input = logs(vec![
            record(json!("ORD-17 by a@b.io, 4111 1111 1111 1111"), json!({})),
            record(json!("ORD-17"), json!({})),
            record(json!("ORD-18"), json!({})),
        ]);
        let (output, effects) = run(&plugin, &input);
        let bodies = bodies(&output);
        let [first, second, third] = &bodies[..] else { panic!() };
        let hash = second.as_str().unwrap();
        assert!(hash.len() == 32 && hash.bytes().all(|digit| digit.is_ascii_hexdigit()), "{hash}");
        assert_eq!(first, &json!(format!("{hash} by , ****1111")));
        assert!(third != second && third.as_str().unwrap().len() == 32);
        let counts = ["card", "order", "email"].map(|name| count(&effects, &format!("redacted_{name}")));
        assert_eq!(counts, [1, 3, 1]);
    }

    #[test]
    fn values_are_hidden_by_their_keys() {
        let config = json!({"patterns": [], "keys": [
            {"match": "user\\.id", "do": "hash"},
            {"match": "debug\\..*", "do": "remove"},
            {"match": "debug\\.pin", "mask": "never seen: the rule before it matches"},
            "default",
        ]});
        let plugin = load("redact", config).unwrap();
        let record = record(
            json!({"password": "x", "nested": [{"Authorization": "y", "plain": "z"}], "n": {"db.password": 7}}),
            json!({"user.id": "17", "debug.pin": 1, "debug.x": "d", "http.request.header.cookie": ["a", "b"], "note": "password"}),
        );
        let (output, effects) = run(&plugin, &logs(vec![record]));
        let attributes = object_of(&records(&output)[0].attributes);
        let hash = attributes["user.id"].as_str().unwrap().to_string();
        assert_eq!(hash.len(), 32);
        assert_eq!(
            attributes,
            json!({"user.id": hash, "http.request.header.cookie": "[redacted]", "note": "password"})
        );
        assert_eq!(
            bodies(&output)[0],
            json!({"password": "[redacted]", "nested": [{"Authorization": "[redacted]", "plain": "z"}], "n": {"db.password": "[redacted]"}})
        );
        assert!(count(&effects, "redacted_keys") >= 7, "{effects:?}");
    }

    #[test]
    fn only_the_places_that_were_named_are_searched() {
        let plugin = load("redact", json!({"patterns": ["email"], "places": ["body"]})).unwrap();
        let (output, _) =
            run(&plugin, &logs(vec![record(json!("a@b.io"), json!({"to": "a@b.io", "password": "x"}))]));
        assert_eq!(bodies(&output), [json!("[email]")]);
        assert_eq!(object_of(&records(&output)[0].attributes), json!({"to": "a@b.io", "password": "x"}));
    }

    #[test]
    fn without_a_match_the_bytes_are_the_same() {
        let plugin = load("redact", json!({})).unwrap();
        let input = logs(
            (0..1500)
                .map(|number| record(json!(format!("request {number}")), json!({"n": number})))
                .collect(),
        );
        let (bytes, effects) = run_bytes(&plugin, &input);
        assert!(bytes == input.encode_to_vec());
        assert!(effects.is_empty());
    }

    /// Words whose fate is known, in random order, in many pieces.
    #[test]
    fn what_is_between_the_matches_stays() {
        let words = [
            ("jane@example.com", "[email]"),
            ("4111 1111 1111 1111", "[card]"),
            ("4111 1111 1111 1112", "4111 1111 1111 1112"),
            ("5555-5555-5555-4444", "[card]"),
            ("Bearer abc123def456", "[token]"),
            ("größe", "größe"),
            ("\u{1f600}", "\u{1f600}"),
            ("1732441200000000000", "1732441200000000000"),
            ("user@host", "user@host"),
            ("\0", "\0"),
            ("", ""),
        ];
        let mut seed = 1u64;
        let mut random = |below: usize| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) as usize % below
        };
        let mut line = || {
            let chosen: Vec<_> = (0..random(6)).map(|_| words[random(words.len())]).collect();
            let join = |of: fn(&(&'static str, &'static str)) -> &'static str| {
                chosen.iter().map(of).collect::<Vec<_>>().join(", ")
            };
            (join(|word| word.0), join(|word| word.1))
        };
        let lines: Vec<_> = (0..1200).map(|_| [line(), line(), line()]).collect();
        let records_of = |text: fn(&(String, String)) -> &String| {
            let one = |[body, a, b]: &[(String, String); 3]| {
                record(json!(text(body)), json!({"a": text(a), "b": [text(b), {"c": text(body)}]}))
            };
            logs(lines.iter().map(one).collect())
        };
        let plugin = load("redact", json!({ "patterns": PATTERNS })).unwrap();
        let (output, effects) = run(&plugin, &records_of(|line| &line.0));
        assert!(output == records_of(|line| &line.1));
        assert!(
            PATTERNS.iter().all(|name| count(&effects, &format!("redacted_{name}")) > 500),
            "{effects:?}"
        );
    }

    #[test]
    fn a_body_full_of_matches_is_redacted() {
        let config = json!({"patterns": [{"name": "email", "do": "hash"}, {"name": "card", "mask": "****", "keep_last": 4}, "ipv4"]});
        let mut settings = settings("redact", config);
        // The collector of a debug build is many times slower.
        settings.limits.time = Duration::from_secs(10);
        let plugin = sandbox().load(&settings).unwrap();
        let check = |word: &str, expected: &str| {
            let times = (200 << 10) / word.len();
            let body = redacted(&plugin, &word.repeat(times));
            assert!(body.starts_with(expected), "{}", &body[..100]);
            assert_eq!(body.len(), expected.len() * times);
        };
        check("4111111111111111 ", "****1111 ");
        check("1.1.1.1 ", "[ipv4] ");
        let hash = redacted(&plugin, "jane@example.com");
        check("jane@example.com ", &format!("{hash} "));
    }

    #[test]
    fn wrong_settings_are_refused_by_name() {
        let refused = |config| load("redact", config).err().unwrap();
        assert!(
            refused(json!({"patterns": ["emial"]})).contains("patterns[0]: no pattern is called `emial`")
        );
        let message = refused(json!({"patterns": [{"name": "x", "regex": "(a"}]}));
        assert!(message.contains("patterns: pattern 0: unclosed group"), "{message}");
    }
}

mod sample {
    use super::*;

    const TRACES: u64 = 2000;

    /// Well mixed: the last 7 bytes are what is sampled by.
    fn trace_id(number: u64) -> Vec<u8> {
        let mut mixed = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        mixed ^= mixed >> 32;
        [number.to_be_bytes(), mixed.to_be_bytes()].concat()
    }

    fn randomness(trace_id: &[u8]) -> u64 {
        u64::from_be_bytes(trace_id[8..].try_into().unwrap()) & ((1 << 56) - 1)
    }

    fn span(number: u64, trace_state: &str) -> Span {
        Span {
            trace_id: trace_id(number),
            span_id: vec![1; 8],
            trace_state: trace_state.into(),
            ..Default::default()
        }
    }

    fn log(number: u64, severity_number: i32) -> LogRecord {
        LogRecord { trace_id: trace_id(number), severity_number, ..record(json!("x"), json!({})) }
    }

    #[test]
    fn spans_and_logs_of_a_trace_stay_or_go_together() {
        let plugin = load("sample", json!({"ratio": 0.25})).unwrap();
        let (kept_spans, _) = run(&plugin, &traces((0..TRACES).map(|number| span(number, "")).collect()));
        let (kept_logs, _) = run(&plugin, &logs((0..TRACES).map(|number| log(number, 9)).collect()));
        let of_spans: Vec<&Vec<u8>> = spans(&kept_spans).iter().map(|span| &span.trace_id).collect();
        let of_logs: Vec<&Vec<u8>> = records(&kept_logs).iter().map(|record| &record.trace_id).collect();
        let ids: Vec<Vec<u8>> = (0..TRACES).map(trace_id).filter(|id| randomness(id) >= 3 << 54).collect();
        assert_eq!(of_spans, ids.iter().collect::<Vec<_>>());
        assert_eq!(of_logs, of_spans);
        assert!((400..600).contains(&ids.len()), "{}", ids.len());
        assert!(spans(&kept_spans).iter().all(|span| span.trace_state == "ot=th:c"));
    }

    #[test]
    fn severe_records_stay() {
        let plugin = load("sample", json!({"ratio": 0})).unwrap();
        let (kept, _) = run(&plugin, &logs([1, 16, 17, 24].map(|severity| log(1, severity)).to_vec()));
        assert_eq!(records(&kept).iter().map(|record| record.severity_number).collect::<Vec<_>>(), [17, 24]);
        let plugin = load("sample", json!({"ratio": 0, "keep_severity": 25})).unwrap();
        assert!(records(&run(&plugin, &logs(vec![log(1, 24)])).0).is_empty());
    }

    #[test]
    fn earlier_decisions_are_honoured_and_written() {
        let plugin = load("sample", json!({"ratio": 0.5})).unwrap();
        let states = [
            ("ot=rv:ffffffffffffff", Some("ot=th:8;rv:ffffffffffffff")),
            ("ot=rv:7fffffffffffff", None),
            ("ot=th:c;rv:f0000000000000", Some("ot=th:c;rv:f0000000000000")),
            ("v=1,ot=th:4;rv:f0000000000000,w=2", Some("ot=th:8;rv:f0000000000000,v=1,w=2")),
        ];
        let input = (0..).zip(states).map(|(number, (state, _))| span(number, state)).collect();
        let (kept, _) = run(&plugin, &traces(input));
        let found: Vec<&str> = spans(&kept).iter().map(|span| span.trace_state.as_str()).collect();
        assert_eq!(found, states.iter().filter_map(|(_, expected)| *expected).collect::<Vec<_>>());
    }

    #[test]
    fn a_service_has_its_own_ratio() {
        let plugin = load("sample", json!({"ratio": 1, "services": {"noisy": 0, "half": 0.5}})).unwrap();
        let all = || (0..TRACES).map(|number| log(number, 9)).collect::<Vec<_>>();
        let input = Logs {
            resource_logs: vec![logs_of("web", all()), logs_of("noisy", all()), logs_of("half", all())],
        };
        let (kept, _) = run(&plugin, &input);
        let counts: Vec<usize> =
            kept.resource_logs.iter().map(|of| of.scope_logs[0].log_records.len()).collect();
        let half = (0..TRACES).filter(|number| randomness(&trace_id(*number)) >= 1 << 55).count();
        assert_eq!(counts, [TRACES as usize, half]);
    }

    #[test]
    fn records_of_no_trace_are_decided_by_their_bytes_or_kept() {
        let input =
            logs((0..TRACES).map(|number| record(json!(format!("line {number}")), json!({}))).collect());
        let sampled = load("sample", json!({"ratio": 0.5})).unwrap();
        let (first, _) = run(&sampled, &input);
        let left = records(&first).len();
        assert!((900..1100).contains(&left), "{left}");
        assert_eq!(run(&sampled, &input).0, first, "the same each time");
        let kept = load("sample", json!({"ratio": 0.5, "no_trace": "keep"})).unwrap();
        assert_eq!(run(&kept, &input).0, input);
    }

    #[test]
    fn a_service_has_a_limit_over_all_batches_and_the_severe_ones_pass_first() {
        let limits = json!({"per_second": 0.001, "burst": 30});
        let plugin = load("sample", json!({"ratio": 0.5, "limits": {"noisy": limits}})).unwrap();
        let all = || (0..100).map(|number| log(number, if number % 5 == 0 { 17 } else { 9 })).collect();
        let input = Logs { resource_logs: vec![logs_of("noisy", all()), logs_of("web", all())] };
        let severities = |kept: &Logs, service: usize| -> Vec<i32> {
            let of = kept.resource_logs.get(service).map(|of| &of.scope_logs[0].log_records);
            of.into_iter().flatten().map(|record| record.severity_number).collect()
        };
        let (kept, _) = run(&plugin, &input);
        let noisy = severities(&kept, 0);
        assert_eq!((noisy.len(), noisy.iter().filter(|severity| **severity == 17).count()), (30, 20));
        let by_ratio = severities(&kept, 1).len();
        assert!((45..75).contains(&by_ratio), "{by_ratio}");
        // The bucket is empty.
        let (kept, _) = run(&plugin, &input);
        assert_eq!((kept.resource_logs.len(), severities(&kept, 0).len()), (1, by_ratio));
    }

    #[test]
    fn spans_that_passed_a_limit_keep_rv_and_lose_th() {
        let limit = json!({"per_second": 0.001, "burst": 2});
        let plugin = load("sample", json!({"ratio": 0.5, "limit": limit})).unwrap();
        let states = [
            "ot=rv:7fffffffffffff",
            "ot=th:c;rv:f0000000000000",
            "ot=rv:e0000000000000,w=2",
            "ot=rv:fffffffffffff0,v=1",
        ];
        let of =
            |states: &[&str]| traces((0..).zip(states).map(|(number, state)| span(number, state)).collect());
        let (kept, _) = run(&plugin, &of(&states));
        let found: Vec<&str> = spans(&kept).iter().map(|span| span.trace_state.as_str()).collect();
        assert_eq!(found, ["ot=rv:f0000000000000", "ot=rv:fffffffffffff0,v=1"]);
        // Where nothing was cut, nothing is unknown.
        let fresh = load("sample", json!({"ratio": 0.5, "limit": limit})).unwrap();
        let (kept, _) = run(&fresh, &of(&states[..2]));
        assert_eq!(spans(&kept)[0].trace_state, "ot=th:c;rv:f0000000000000");
    }

    #[test]
    fn keeping_all_changes_no_byte() {
        let plugin = load("sample", json!({})).unwrap();
        let input = traces((0..100).map(|number| span(number, "ot=th:8")).collect());
        assert!(run_bytes(&plugin, &input).0 == input.encode_to_vec());
    }

    #[test]
    fn metrics_are_left_alone() {
        let plugin = load("sample", json!({"ratio": 0})).unwrap();
        let metric = Metric {
            name: "x".into(),
            data: Some(metric::Data::Gauge(Gauge { data_points: vec![Default::default()] })),
            ..Default::default()
        };
        let scope_metrics = vec![ScopeMetrics { metrics: vec![metric], ..Default::default() }];
        let input =
            Metrics { resource_metrics: vec![ResourceMetrics { scope_metrics, ..Default::default() }] };
        assert_eq!(run(&plugin, &input).0, input);
    }
}

mod enrich {
    use super::*;

    fn resource_of(logs: &Logs, at: usize) -> Json {
        object_of(&logs.resource_logs[at].resource.as_ref().unwrap().attributes)
    }

    #[test]
    fn a_table_gives_attributes_to_resources() {
        let table = "tenant,project,service,team,tier:int,pci:bool,share:double\r\n\
                     acme,,web,\"pay, ments\",1,true,0.5\r\n\
                     acme,shop,db,storage,2,,\r\n\
                     other,,web,nobody,9,,\r\n";
        let plugin = load("enrich", json!({ "table": table })).unwrap();
        let one = || vec![record(json!("x"), json!({}))];
        let nameless = ResourceLogs { resource: resource(json!({})), ..logs_of("", one()) };
        let input = Logs {
            resource_logs: vec![
                logs_of("db", one()),
                logs_of("web", one()),
                nameless,
                logs_of("web", one()),
                logs_of("unknown", one()),
            ],
        };
        let (output, _) = run(&plugin, &input);
        let web = json!({"service.name": "web", "team": "pay, ments", "tier": 1, "pci": true, "share": 0.5});
        assert_eq!(resource_of(&output, 0), json!({"service.name": "db", "team": "storage", "tier": 2}));
        assert_eq!(resource_of(&output, 1), web);
        assert_eq!(resource_of(&output, 2), json!({}));
        assert_eq!(resource_of(&output, 3), web);
        assert_eq!(resource_of(&output, 4), json!({"service.name": "unknown"}));
        assert_eq!(records(&output), records(&input));
    }

    #[test]
    fn rules_set_copy_rename_and_delete() {
        let config = json!({"rules": [{
            "at": "item",
            "set": {"set": "new", "count": 3},
            "set_if_missing": {"here": "no", "absent": true},
            "copy": {"user": "user.name", "gone": "never"},
            "rename": {"old": "new.key", "none": "never.2"},
            "delete": ["junk", "missing"],
        }]});
        let plugin = load("enrich", config).unwrap();
        let input = logs(vec![
            record(
                json!("x"),
                json!({"set": 1, "here": [1], "user": {"deep": 1}, "old": 1.5, "new.key": "replaced", "junk": "x"}),
            ),
            record(json!("y"), json!({"none of": "them"})),
        ]);
        let (output, _) = run(&plugin, &input);
        let found: Vec<Json> = records(&output).iter().map(|record| object_of(&record.attributes)).collect();
        assert_eq!(
            found,
            [
                json!({"set": "new", "count": 3, "here": [1], "absent": true, "user": {"deep": 1}, "user.name": {"deep": 1}, "new.key": 1.5}),
                json!({"set": "new", "count": 3, "here": "no", "absent": true, "none of": "them"}),
            ]
        );
    }

    #[test]
    fn a_rule_is_for_its_tenant_project_and_service() {
        let config = json!({"rules": [
            {"tenant": "acme", "set": {"a": 1}},
            {"tenant": "other", "set": {"a": 2}},
            {"project": "shop", "service": "web", "set": {"b": 1}},
            {"project": "shop", "service": "db", "set": {"b": 2}},
            {"project": "blog", "set": {"b": 3}},
        ]});
        let plugin = load("enrich", config).unwrap();
        let (output, _) = run(&plugin, &logs(vec![record(json!("x"), json!({}))]));
        assert_eq!(resource_of(&output, 0), json!({"service.name": "web", "a": 1, "b": 1}));
    }

    #[test]
    fn spans_their_events_and_data_points_are_enriched() {
        let rule = |at: &str| json!({"at": at, "set": { at: true }});
        let levels = ["resource", "scope", "metric", "item", "event"];
        let plugin = load("enrich", json!({"rules": levels.map(rule)})).unwrap();

        let link = span::Link { flags: 1, ..Default::default() };
        let span = Span { events: vec![Default::default()], links: vec![link], ..Default::default() };
        let (output, _) = run(&plugin, &traces(vec![span]));
        let of = &output.resource_spans[0];
        let span = spans(&output)[0];
        assert_eq!(
            object_of(&of.resource.as_ref().unwrap().attributes),
            json!({"service.name": "web", "resource": true})
        );
        assert_eq!(object_of(&of.scope_spans[0].scope.as_ref().unwrap().attributes), json!({"scope": true}));
        assert_eq!(object_of(&span.attributes), json!({"item": true}));
        assert_eq!(object_of(&span.events[0].attributes), json!({"event": true}));
        assert_eq!(object_of(&span.links[0].attributes), json!({"event": true}));

        let exemplar = Exemplar { time_unix_nano: 1, ..Default::default() };
        let point = NumberDataPoint { exemplars: vec![exemplar], ..Default::default() };
        let gauge = metric::Data::Gauge(Gauge { data_points: vec![point] });
        let metric = Metric { name: "x".into(), data: Some(gauge), ..Default::default() };
        let scope_metrics =
            vec![ScopeMetrics { scope: scope(json!({})), metrics: vec![metric], ..Default::default() }];
        let of = ResourceMetrics { resource: resource(json!({})), scope_metrics, ..Default::default() };
        let (output, _) = run(&plugin, &Metrics { resource_metrics: vec![of] });
        let metric = &output.resource_metrics[0].scope_metrics[0].metrics[0];
        assert_eq!(object_of(&metric.metadata), json!({"metric": true}));
        let Some(metric::Data::Gauge(gauge)) = &metric.data else { panic!() };
        assert_eq!(object_of(&gauge.data_points[0].attributes), json!({"item": true}));
        assert_eq!(object_of(&gauge.data_points[0].exemplars[0].filtered_attributes), json!({"event": true}));
    }

    #[test]
    fn rules_in_conflict_are_refused_by_name() {
        let message = load("enrich", json!({"rules": [{"set": {"x": 1}}, {"tenant": "a", "delete": ["x"]}]}))
            .err()
            .unwrap();
        assert!(message.contains("rules[0] and rules[1] can meet: both write `x`"), "{message}");
    }
}
