//! The bundled plugin `anomaly` in the sandbox: requests in, windows as the collector closes them, alerts out.

mod signals;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::ResourceMetrics;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use prost::Message;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use trommel::batch::{ProjectId, Request, Signal, Stream, TenantId};
use trommel::sandbox::{Alert, AlertEffect, Effects, Plugin, Sandbox, Window};
use trommel::telemetry::Metrics;

const WINDOW_NS: u64 = 10_000_000_000;
const START_NS: u64 = 1_700_000_000_000_000_000;
/// Windows after its last value in which the collector shows a key.
const SILENT_MAX: u32 = 10;

fn load(sandbox: &Sandbox, config: Json) -> Plugin {
    let settings = crate::plugins::settings("anomaly", config);
    sandbox.load(&settings).unwrap()
}

fn sandbox() -> Sandbox {
    Sandbox::open(None, Metrics::new()).unwrap()
}

fn text(text: &str) -> Option<AnyValue> {
    Some(AnyValue { value: Some(Value::StringValue(text.into())) })
}

fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.into(), value: text(value), ..Default::default() }
}

fn resource(service: Option<&str>) -> Option<Resource> {
    let attributes = service.iter().map(|name| attribute("service.name", name)).collect();
    Some(Resource { attributes, ..Default::default() })
}

fn of_service(service: Option<&str>, log_records: Vec<LogRecord>) -> ResourceLogs {
    ResourceLogs {
        resource: resource(service),
        scope_logs: vec![ScopeLogs { log_records, ..Default::default() }],
        ..Default::default()
    }
}

fn records(number: usize, severity_number: i32, body: &str) -> Vec<LogRecord> {
    vec![LogRecord { severity_number, body: text(body), ..Default::default() }; number]
}

type Requests = Vec<Vec<ResourceLogs>>;

/// A request of any signal.
#[derive(Clone)]
struct Sent {
    signal: Signal,
    bytes: Vec<u8>,
}

impl From<Vec<ResourceLogs>> for Sent {
    fn from(resource_logs: Vec<ResourceLogs>) -> Sent {
        Sent { signal: Signal::Logs, bytes: ExportLogsServiceRequest { resource_logs }.encode_to_vec() }
    }
}

impl From<Vec<ResourceSpans>> for Sent {
    fn from(resource_spans: Vec<ResourceSpans>) -> Sent {
        Sent { signal: Signal::Traces, bytes: ExportTraceServiceRequest { resource_spans }.encode_to_vec() }
    }
}

impl From<Vec<ResourceMetrics>> for Sent {
    fn from(resource_metrics: Vec<ResourceMetrics>) -> Sent {
        Sent {
            signal: Signal::Metrics,
            bytes: ExportMetricsServiceRequest { resource_metrics }.encode_to_vec(),
        }
    }
}

/// A collector's series of one tenant, with so many workers.
struct World {
    plugin: Plugin,
    workers: usize,
    now_ns: u64,
    /// By key, windows since the last value.
    keys: BTreeMap<String, u32>,
}

impl World {
    fn new(plugin: Plugin, workers: usize) -> World {
        World { plugin, workers, now_ns: START_NS, keys: BTreeMap::new() }
    }

    fn process(&self, Sent { signal, bytes }: Sent) -> Effects {
        let request = Request::check(signal, bytes.into()).unwrap();
        let stream = Stream { tenant: tenant(), project: ProjectId::new("shop").unwrap() };
        let resources: Vec<usize> = (0..request.resources.len()).collect();
        let mut effects = Effects::default();
        for piece in request.batch(stream, &resources).pieces(512, 256 << 10) {
            let ran = self.plugin.run(piece, self.now_ns);
            assert_eq!((ran.failed.as_slice(), ran.filtered), ([].as_slice(), 0));
            effects.merge(ran.effects);
        }
        effects
    }

    /// All requests of a window, in whatever order the workers finish them.
    fn work(&self, requests: Vec<Sent>) -> Effects {
        let all = Mutex::new(Effects::default());
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                let effects = self.process(request.clone());
                all.lock().unwrap().merge(effects);
            }
        };
        std::thread::scope(|scope| (0..self.workers).for_each(|_| drop(scope.spawn(work))));
        all.into_inner().unwrap()
    }

    /// One window, and what is told at its end.
    fn pass(&mut self, requests: Vec<impl Into<Sent>>) -> Vec<AlertEffect> {
        let mut series = self.work(requests.into_iter().map(Into::into).collect()).series;
        let end_ns = self.now_ns + WINDOW_NS;
        self.keys.extend(series.keys().map(|key| (key.clone(), 0)));
        let mut closed = Vec::new();
        self.keys.retain(|key, silent| {
            let cell = series.remove(key);
            *silent += u32::from(cell.is_none());
            if *silent <= SILENT_MAX {
                let cell = cell.unwrap_or_default();
                closed.push(Window { key: key.clone(), start_ns: self.now_ns, end_ns, cell });
            }
            *silent <= SILENT_MAX
        });
        self.now_ns = end_ns;
        if closed.is_empty() {
            Vec::new()
        } else {
            self.plugin.tick(&tenant(), end_ns, &closed).unwrap().alerts
        }
    }
}

fn tenant() -> TenantId {
    TenantId::new("acme").unwrap()
}

/// `key+count` of a firing, `key-` of a resolution.
fn words(alerts: &[AlertEffect]) -> Vec<String> {
    let word = |alert: &AlertEffect| match alert {
        AlertEffect::Fire(Alert { key, count, .. }) => format!("{key}+{count}"),
        AlertEffect::Resolve(key) => format!("{key}-"),
    };
    alerts.iter().map(word).collect()
}

/// Two services speak, one fails a hundred thousand times within seconds, then one is silent, then a new error comes.
fn story(mut world: World) -> Vec<(usize, AlertEffect)> {
    let mut told = Vec::new();
    let usual = |of: &[&str]| -> Requests {
        of.iter()
            .map(|name| {
                vec![
                    of_service(Some(name), records(60, 9, "all is well")),
                    of_service(None, records(5, 9, "x")),
                ]
            })
            .collect()
    };
    for window in 0..120 {
        let mut requests = usual(if (60..75).contains(&window) { &["web"] } else { &["web", "db"] });
        // It begins with a few at the end of a window.
        let errors = match window {
            40 => 7,
            41 => 70_000,
            42 => 29_993,
            _ => 0,
        };
        for first in (0..errors).step_by(512) {
            let number = (errors - first).min(512);
            let mut failed =
                records(number, 17, &format!("order {first} failed: no route to 10.0.0.{}", first % 250));
            failed[0].attributes.push(attribute("exception.type", "RouteError"));
            requests.push(vec![of_service(Some("web"), failed)]);
        }
        if window == 90 {
            requests.push(vec![of_service(Some("db"), records(2, 21, "disk \"sda\" is full\nat line 7"))]);
        }
        told.extend(world.pass(requests).into_iter().map(|alert| (window, alert)));
    }
    told
}

#[test]
fn one_worker_and_four_tell_the_same_and_counts_are_exact() {
    let config = || json!({ "learning_windows": 30 });
    let (first, second) = (sandbox(), sandbox());
    let alone = story(World::new(load(&first, config()), 1));
    let four = story(World::new(load(&second, config()), 4));
    assert_eq!(alone, four);
    let failing = "error-rate:shop/web";
    let of_failing = alone.iter().filter_map(|(_, alert)| match alert {
        AlertEffect::Fire(alert) if alert.key == failing => Some(u64::from(alert.count)),
        _ => None,
    });
    assert_eq!(of_failing.sum::<u64>(), 100_000);
    let mut told: Vec<(usize, String)> = Vec::new();
    for (window, alert) in &alone {
        told.extend(words(std::slice::from_ref(alert)).into_iter().map(|word| (*window, word)));
    }
    let new = told.iter().find_map(|(_, word)| word.strip_prefix("new-error:shop/db:")).unwrap();
    let new = format!("new-error:shop/db:{}", new.split('+').next().unwrap());
    let expected = [
        (41, format!("{failing}+70007")),
        (42, format!("{failing}+29993")),
        (48, format!("{failing}-")),
        (65, "silence:shop/db+1".into()),
        (75, "silence:shop/db-".into()),
        (91, format!("{new}+2")),
        (96, format!("{new}-")),
    ];
    assert_eq!(told, expected);
    let texts: Vec<&str> = alone
        .iter()
        .filter_map(|(_, alert)| match alert {
            AlertEffect::Fire(alert) => Some(alert.text.as_str()),
            AlertEffect::Resolve(_) => None,
        })
        .collect();
    assert!(texts[0].contains("\nnew: order <n> failed: no route to <n>"), "{}", texts[0]);
    assert!(texts[0].contains("\nnew: RouteError: order <n> failed"), "{}", texts[0]);
    assert!(texts[3].starts_with("disk <text> is full\n"), "{}", texts[3]);
}

#[test]
fn what_is_usual_outlives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let usual = || vec![vec![of_service(Some("web"), records(100, 9, "all is well"))]];
    let open = || load(&sandbox().keep_state_in(state.clone()), json!({}));
    let mut world = World::new(open(), 1);
    for _ in 0..10 {
        assert_eq!(world.pass(usual()), []);
    }
    world.plugin = open();
    world.keys.clear();
    let failing = vec![vec![of_service(Some("web"), records(50, 17, "broken"))]];
    assert_eq!(words(&world.pass(failing)), ["error-rate:shop/web+50"]);
}

#[test]
fn hostile_names_and_bodies_fail_no_record_and_fit_in_keys() {
    let mut world = World::new(load(&sandbox(), json!({ "learning_windows": 0, "baseline_windows": 1 })), 1);
    let names = ["", "a|b", "\u{202e}%/~", &"ü".repeat(5_000), "unknown"];
    let bodies = ["", "\0\u{1b}[2J|", &"'".repeat(9_000), &"wort ".repeat(9_000), &"漢".repeat(9_000)];
    for severity in [9, 17, 24, 99, 9] {
        let of = |name: &&str| {
            let all = bodies.iter().flat_map(|body| records(10, severity, body));
            of_service(
                Some(name),
                all.chain(vec![LogRecord { severity_number: severity, ..Default::default() }; 3]).collect(),
            )
        };
        let effects = world.pass(vec![
            names.iter().map(of).collect(),
            vec![of_service(None, records(1, severity, "x"))],
            vec![of_service(Some("empty"), vec![])],
        ]);
        for effect in &effects {
            assert!(effect.key().len() <= 256, "{}", effect.key());
        }
    }
    assert_eq!(world.keys.keys().filter(|key| key.starts_with("total|")).count(), names.len());
    assert!(world.keys.keys().all(|key| key.len() <= 256 && !key.contains('#')));
}
