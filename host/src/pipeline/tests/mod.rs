//! Requests on their way to the journal, without a plugin that is loaded.

mod effects;
mod faults;
mod letters;
mod plugins;
mod quotas;
mod record;
mod versions;

use super::*;
use crate::alerts::{self, Alerts};
use crate::batch::TenantId;
use crate::journal::{self, Cursor, Joining, Journal, LedgerTable, SinkId, system_clock};
use crate::sandbox::OnFailure;
use crate::telemetry::Metrics;
use crate::tenants::{self, Credential, Names, Proof, Rights, Tenants, Who};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use sha2::{Digest, Sha256};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use tokio::time::Instant;

const ALL: Joining = Joining { records_max: u64::MAX, bytes_max: usize::MAX, is_across_tenants: true };

pub(super) struct World {
    pub(super) pipeline: Pipeline,
    pub(super) journal: Arc<Journal>,
    pub(super) tenants: Arc<Tenants>,
    pub(super) alerts: Arc<Alerts>,
    pub(super) metrics: Metrics,
}

pub(super) fn keys() -> IdentityKeys {
    IdentityKeys { tenant: "tenant.id".into(), project: "project.id".into() }
}

/// Credentials by token: `agent` speaks for tenants `t` and `u`, any other is tenant `t`.
fn credentials() -> Vec<Credential> {
    let credential = |token: &str, who: Who| Credential {
        proof: Proof::Token(Sha256::digest(token).into()),
        who,
        rights: Rights { send: true, read: true, admin: false },
    };
    let named = Names::Some(vec!["t".into(), "u".into()]);
    vec![
        credential("agent", Who::SpeaksFor { tenants: named }),
        credential("own", Who::Tenant { tenant: TenantId::new("t").unwrap(), projects: Names::All }),
    ]
}

pub(super) fn world(pipelines: Vec<PipelineSettings>, slots: &[Slot], sinks: &[&str]) -> World {
    world_with(pipelines, slots, sinks, 2, system_clock())
}

/// With so many workers, on this clock.
fn world_with(
    pipelines: Vec<PipelineSettings>,
    slots: &[Slot],
    sinks: &[&str],
    workers: usize,
    clock: journal::Clock,
) -> World {
    world_of(pipelines, slots, sinks, (workers, clock), tenants::QuotaSettings::default())
}

fn world_of(
    pipelines: Vec<PipelineSettings>,
    slots: &[Slot],
    sinks: &[&str],
    (workers, clock): (usize, journal::Clock),
    quotas: tenants::QuotaSettings,
) -> World {
    let metrics = Metrics::new();
    world_around(pipelines, slots, sinks, (workers, clock, quotas), None, metrics)
}

fn world_around(
    pipelines: Vec<PipelineSettings>,
    slots: &[Slot],
    sinks: &[&str],
    (workers, clock, quotas): (usize, journal::Clock, tenants::QuotaSettings),
    letters: Option<Arc<journal::DeadLetters>>,
    metrics: Metrics,
) -> World {
    let settings = tenants::Settings {
        attributes: keys(),
        stamp: true,
        credentials: credentials(),
        token_files: Vec::new(),
        ticket_key: None,
        is_open: false,
        room_bytes: 64 << 20,
        quotas,
    };
    let tenants = Tenants::open(settings, metrics.clone()).unwrap();
    let sinks: Vec<String> = sinks.iter().map(|name| (*name).to_owned()).collect();
    let memory = journal::Settings::Memory { bytes_max: 64 << 20 };
    let journal = Journal::open(&memory, &sinks, clock.clone(), &metrics).unwrap();
    let settings = Settings { workers, record_bytes_max: 10_000, ..Settings::new(keys()) };
    let alerts = Alerts::open(alerts::Settings::default(), metrics.clone()).unwrap();
    let around = Surroundings {
        tenants: tenants.clone(),
        journal: journal.clone(),
        letters,
        alerts: alerts.clone(),
        clock,
        metrics: metrics.clone(),
    };
    let arrangement = Arrangement::of(pipelines, &sinks);
    let pipeline = Pipeline::open(settings, arrangement, slots, around).unwrap();
    World { pipeline, journal, tenants, alerts, metrics }
}

impl World {
    pub(super) fn submission(&self, token: &str, body: Vec<u8>) -> Submission {
        let caller = self.tenants.authenticate(Some(&format!("Bearer {token}")), None).unwrap();
        let room = self.tenants.open_room(&caller);
        let deadline = Instant::now() + Duration::from_secs(10);
        Submission { signal: Signal::Logs, body: body.into(), caller, room, deadline }
    }

    pub(super) async fn submit(&self, token: &str, body: Vec<u8>) -> Result<Receipt, Refusal> {
        let answer = self.pipeline.submit(self.submission(token, body)).await;
        self.table();
        answer
    }

    pub(super) fn table(&self) -> LedgerTable {
        let table = self.journal.ledger.snapshot();
        assert_eq!(table.unaccounted(), []);
        table
    }

    pub(super) fn cursor(&self, sink: u16) -> Cursor {
        self.journal.cursor(SinkId(sink))
    }

    /// What this sink was given: `tenant/project: bodies`.
    pub(super) fn given(&self, sink: u16) -> Vec<String> {
        let entries = self.cursor(sink).try_next(ALL);
        let shown = entries.iter().map(|in_flight| {
            let entry = &in_flight.entry;
            let request = ExportLogsServiceRequest::decode(entry.bytes.clone()).unwrap();
            let records = request.resource_logs.iter().flat_map(|resource| &resource.scope_logs);
            let bodies: Vec<&str> = records
                .flat_map(|scope| &scope.log_records)
                .map(|record| text(record.body.as_ref()))
                .collect();
            assert_eq!(bodies.len(), entry.records as usize);
            format!("{}/{}: {}", entry.stream.tenant, entry.stream.project, bodies.join(" "))
        });
        shown.collect()
    }
}

fn text(value: Option<&AnyValue>) -> &str {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text,
        _ => "-",
    }
}

fn string(text: &str) -> AnyValue {
    AnyValue { value: Some(Value::StringValue(text.into())) }
}

/// Resources by their attributes (`a=b c=d`), and the bodies of their records.
pub(super) fn request(resources: &[(&str, &[&str])]) -> Vec<u8> {
    let attribute = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap();
        KeyValue { key: key.into(), value: Some(string(value)), ..KeyValue::default() }
    };
    let record = |body: &&str| LogRecord { body: Some(string(body)), ..LogRecord::default() };
    let resource = |(attributes, bodies): &(&str, &[&str])| ResourceLogs {
        resource: Some(Resource {
            attributes: attributes.split_whitespace().map(attribute).collect(),
            ..Resource::default()
        }),
        scope_logs: vec![ScopeLogs {
            log_records: bodies.iter().map(record).collect(),
            ..ScopeLogs::default()
        }],
        ..ResourceLogs::default()
    };
    ExportLogsServiceRequest { resource_logs: resources.iter().map(resource).collect() }.encode_to_vec()
}

pub(super) fn to(name: &str, plugins: &[&str], sinks: Vec<SinkRoute>) -> PipelineSettings {
    PipelineSettings {
        name: name.into(),
        signal: None,
        tenants: Vec::new(),
        plugins: plugins.iter().map(|name| (*name).to_owned()).collect(),
        sinks,
        is_unguarded: false,
    }
}

pub(super) fn sink(name: &str) -> SinkRoute {
    SinkRoute { sink: name.into(), resource: BTreeMap::new(), route: Vec::new() }
}

fn sink_where(name: &str, key: &str, values: &[&str]) -> SinkRoute {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    SinkRoute { resource: BTreeMap::from([(key.to_owned(), values)]), ..sink(name) }
}

fn missing(name: &str, is_guard: bool, on_failure: OnFailure) -> Slot {
    Slot { name: name.into(), is_guard, on_failure, plugin: None, versions: Default::default() }
}

#[tokio::test]
async fn records_reach_every_sink_of_their_pipeline_under_their_own_tenant() {
    let world = world(vec![to("all", &[], vec![sink("a"), sink("b")])], &[], &["a", "b", "c"]);
    let body = request(&[("tenant.id=forged project.id=p", &["1", "2"]), ("", &["3"])]);
    assert_eq!(world.submit("own", body).await, Ok(Receipt::default()));
    for at in [0, 1] {
        assert_eq!(world.given(at), ["t/p: 1 2", "t/default: 3"]);
    }
    assert!(world.given(2).is_empty());
    let line = world.table().line("t", Signal::Logs);
    assert_eq!((line.received, line.acknowledged, line.committed), (3, 3, 3));
    assert_eq!((line.sinks["a"].committed, line.sinks["b"].committed), (3, 3));
}

#[tokio::test]
async fn what_is_kept_says_whose_it_is() {
    let world = world(vec![to("all", &[], vec![sink("a")])], &[], &["a"]);
    world.submit("own", request(&[("tenant.id=forged", &["1"])])).await.unwrap();
    let entry = world.cursor(0).try_next(ALL)[0].entry.clone();
    let kept = ExportLogsServiceRequest::decode(entry.bytes.clone()).unwrap();
    let attributes = &kept.resource_logs[0].resource.as_ref().unwrap().attributes;
    let mut shown: Vec<String> =
        attributes.iter().map(|a| format!("{}={}", a.key, text(a.value.as_ref()))).collect();
    shown.sort();
    assert_eq!(shown, ["project.id=default", "tenant.id=t"]);
}

#[tokio::test]
async fn an_empty_request_is_a_success_and_leaves_nothing() {
    let world = world(vec![to("all", &[], vec![sink("a")])], &[], &["a"]);
    assert_eq!(world.submit("own", Vec::new()).await, Ok(Receipt::default()));
    assert_eq!(world.submit("own", request(&[("a=b", &[])])).await, Ok(Receipt::default()));
    assert!(world.given(0).is_empty() && world.table().lines.is_empty());
}

#[tokio::test]
async fn malformed_bytes_are_refused_with_their_place() {
    let world = world(vec![to("all", &[], vec![sink("a")])], &[], &["a"]);
    let mut body = request(&[("", &["1"])]);
    body.truncate(body.len() - 1);
    let Err(Refusal::Malformed { expected, .. }) = world.submit("own", body).await else { panic!("taken") };
    assert!(!expected.is_empty());
    assert!(world.table().lines.is_empty());
}

#[tokio::test]
async fn a_part_without_a_tenant_is_left_out_and_the_rest_is_taken() {
    let world = world(vec![to("all", &[], vec![sink("a")])], &[], &["a"]);
    let body = request(&[("tenant.id=u", &["1"]), ("", &["2", "3"]), ("tenant.id=stranger", &["4"])]);
    let receipt = world.submit("agent", body).await.unwrap();
    assert_eq!(receipt.rejected, 3);
    assert_eq!(
        receipt.message,
        "2 records left out: their resource names no tenant; \
         1 records left out: this credential does not speak for their tenant"
    );
    assert_eq!(world.given(0), ["u/default: 1"]);
    let nobodys = world.table().line("_none", Signal::Logs);
    assert_eq!((nobodys.refused["no_tenant"], nobodys.refused["unknown_tenant"]), (2, 1));
}

#[tokio::test]
async fn a_record_that_is_too_large_is_left_out_alone() {
    let world = world(vec![to("all", &[], vec![sink("a")])], &[], &["a"]);
    let large = "x".repeat(20_000);
    let receipt = world.submit("own", request(&[("", &["1", &large, "2"])])).await.unwrap();
    assert_eq!(
        (receipt.rejected, receipt.message.as_str()),
        (1, "1 records left out: larger than a record may be")
    );
    assert_eq!(world.given(0), ["t/default: 1 2"]);
    let line = world.table().line("t", Signal::Logs);
    assert_eq!((line.received, line.refused["record_too_large"], line.committed), (3, 1, 2));
}

#[tokio::test]
async fn what_no_pipeline_and_no_condition_takes_is_counted_unrouted() {
    let only_u = PipelineSettings {
        tenants: vec!["u".into()],
        ..to("u", &[], vec![sink_where("a", "env", &["prod"])])
    };
    let world = world(vec![only_u], &[], &["a"]);
    let body = request(&[
        ("tenant.id=t", &["1"]),
        ("tenant.id=u env=prod", &["2"]),
        ("tenant.id=u env=test", &["3", "4"]),
        ("tenant.id=u", &["5"]),
    ]);
    assert_eq!(world.submit("agent", body).await, Ok(Receipt::default()));
    assert_eq!(world.given(0), ["u/default: 2"]);
    let table = world.table();
    assert_eq!((table.line("t", Signal::Logs).unrouted, table.line("u", Signal::Logs).unrouted), (1, 3));
}

#[tokio::test]
async fn a_batch_is_split_by_the_sinks_that_its_resources_go_to() {
    let sinks = vec![
        sink("all"),
        sink_where("some", "env", &["prod", "stage"]),
        sink_where("other", "env", &["test"]),
    ];
    let world = world(vec![to("p", &[], sinks)], &[], &["all", "some", "other"]);
    let body =
        request(&[("env=prod", &["1", "2"]), ("env=test", &["3"]), ("env=stage", &["4"]), ("", &["5"])]);
    world.submit("own", body).await.unwrap();
    let mut all = world.given(0);
    all.sort();
    assert_eq!(all, ["t/default: 1 2 4", "t/default: 3", "t/default: 5"]);
    assert_eq!(world.given(1), ["t/default: 1 2 4"]);
    assert_eq!(world.given(2), ["t/default: 3"]);
    let line = world.table().line("t", Signal::Logs);
    assert_eq!((line.committed, line.sinks["all"].committed, line.sinks["some"].committed), (5, 5, 3));
}

#[tokio::test]
async fn the_first_pipeline_that_fits_takes_the_batch() {
    let traces = PipelineSettings { signal: Some(Signal::Traces), ..to("traces", &[], vec![sink("a")]) };
    let own = PipelineSettings { tenants: vec!["u".into()], ..to("u", &[], vec![sink("b")]) };
    let world = world(vec![traces, own, to("rest", &[], vec![sink("c")])], &[], &["a", "b", "c"]);
    world.submit("agent", request(&[("tenant.id=t", &["1"]), ("tenant.id=u", &["2"])])).await.unwrap();
    assert!(world.given(0).is_empty());
    assert_eq!(world.given(1), ["u/default: 2"]);
    assert_eq!(world.given(2), ["t/default: 1"]);
}

#[tokio::test]
async fn a_request_is_one_frame_and_large_ones_leave_the_executor() {
    let world = world(vec![to("all", &[], vec![sink("a")])], &[], &["a"]);
    let bodies: Vec<String> = (0..2_000).map(|at| format!("{at:064}")).collect();
    let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
    let body = request(&[("tenant.id=t", &bodies), ("tenant.id=u", &bodies)]);
    assert!(body.len() > 128 << 10);
    assert_eq!(world.submit("agent", body).await, Ok(Receipt::default()));
    let entries = world.cursor(0).try_next(ALL);
    assert_eq!((entries.len(), entries[0].entry.time_ms), (2, entries[1].entry.time_ms));
    assert_eq!((entries[0].entry.first, entries[1].entry.first), (1, 2_001));
}

#[tokio::test]
async fn a_small_part_does_not_keep_the_whole_request_in_memory() {
    let world = world(vec![to("all", &[], vec![sink_where("a", "keep", &["yes"])])], &[], &["a"]);
    let bodies = vec!["a line of some length"; 300];
    // The identity stands already, so that no splice makes new bytes.
    let identity = "tenant.id=t project.id=default";
    let body = bytes::Bytes::from(request(&[
        (&format!("{identity} keep=yes"), &["1"]),
        (&format!("{identity} keep=no"), &bodies),
    ]));
    let mut submission = world.submission("own", Vec::new());
    submission.body = body.clone();
    world.pipeline.submit(submission).await.unwrap();
    assert_eq!(world.given(0), ["t/default: 1"]);
    assert!(body.is_unique(), "nothing shares the bytes of the request");
}

#[tokio::test]
async fn a_guard_that_is_not_loaded_refuses_retryably_and_other_pipelines_serve() {
    let guarded =
        PipelineSettings { tenants: vec!["t".into()], ..to("guarded", &["redact"], vec![sink("a")]) };
    let slots = [missing("redact", true, OnFailure::Drop)];
    let world = world(vec![guarded, to("rest", &[], vec![sink("a")])], &slots, &["a"]);
    assert_eq!(world.pipeline.not_loaded(), ["redact"]);
    let loaded = || world.metrics.text().lines().find(|line| line.contains("loaded{")).map(str::to_owned);
    assert_eq!(loaded().unwrap(), r#"trommel_process_loaded{plugin="redact"} 0"#);

    let refused = world.submit("own", request(&[("", &["1", "2"])])).await;
    let Err(Refusal::Plugin { name, after }) = refused else { panic!("{refused:?}") };
    assert_eq!(name, "redact");
    assert!(after >= Duration::from_secs(1) && after <= Duration::from_secs(5));
    assert!(world.given(0).is_empty());

    let receipt =
        world.submit("agent", request(&[("tenant.id=t", &["3"]), ("tenant.id=u", &["4"])])).await.unwrap();
    assert_eq!(receipt.rejected, 1);
    assert_eq!(receipt.message, "1 records left out: plugin `redact` is not loaded");
    assert_eq!(world.given(0), ["u/default: 4"]);
    assert_eq!(world.table().line("t", Signal::Logs).refused["plugin_not_loaded:redact"], 3);

    world.pipeline.promote(&[missing("redact", false, OnFailure::Pass)]).unwrap();
    world.submit("own", request(&[("", &["5"])])).await.unwrap();
    assert_eq!(world.given(0), ["u/default: 4", "t/default: 5"]);
    world
        .pipeline
        .arrange(Arrangement::of(vec![to("all", &[], vec![sink("a")])], &["a".into()]), &[])
        .unwrap();
    assert_eq!(loaded(), None, "a plugin that is gone");
}

#[tokio::test]
async fn a_plugin_that_is_not_loaded_drops_or_is_passed_by_as_its_policy_says() {
    for (policy, given, dropped) in [(OnFailure::Drop, 0, Some(&1)), (OnFailure::Pass, 1, None)] {
        let slots = [missing("enrich", false, policy)];
        let world = world(vec![to("all", &["enrich"], vec![sink("a")])], &slots, &["a"]);
        assert_eq!(world.submit("own", request(&[("", &["1"])])).await, Ok(Receipt::default()));
        assert_eq!(world.given(0).len(), given);
        let line = world.table().line("t", Signal::Logs);
        assert_eq!(line.dropped.get("plugin_not_loaded:enrich"), dropped);
    }
}

#[tokio::test]
async fn a_stopping_pipeline_refuses_with_a_time_to_come_back() {
    let world = world(vec![to("all", &[], vec![sink("a")])], &[], &["a"]);
    world.pipeline.stop();
    let refused = world.submit("own", request(&[("", &["1"])])).await;
    assert!(matches!(refused, Err(Refusal::Stopping { after }) if after >= Duration::from_secs(1)));
}

#[tokio::test]
async fn a_sender_that_goes_away_before_the_commit_leaves_nothing() {
    let world = world(vec![to("all", &[], vec![sink("a")])], &[], &["a"]);
    let bodies = vec!["a line of some length"; 5_000];
    let mut submit = Box::pin(world.pipeline.submit(world.submission("own", request(&[("", &bodies)]))));
    // The first poll hands it to a worker.
    let first = submit.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(first.is_pending());
    drop(submit);
    let deadline = Instant::now() + Duration::from_secs(10);
    // Either it was not begun, or the worker's end counts it.
    while world.journal.ledger.snapshot().lines.iter().any(|line| line.in_process > 0) {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(world.given(0).is_empty());
    let line = world.table().line("t", Signal::Logs);
    assert_eq!((line.committed, line.received - line.cancelled), (0, 0));
}

#[tokio::test]
async fn work_that_cannot_start_before_the_deadline_is_busy() {
    let world = world(vec![to("all", &[], vec![sink("a")])], &[], &["a"]);
    let bodies = vec!["a line of some length"; 5_000];
    let mut submission = world.submission("own", request(&[("", &bodies)]));
    submission.deadline = Instant::now();
    let refused = world.pipeline.submit(submission).await;
    assert!(matches!(refused, Err(Refusal::Busy { .. })), "{refused:?}");
    assert!(world.given(0).is_empty());
    world.table();
}

#[tokio::test]
async fn what_one_sends_who_speaks_for_many_is_worked_on_in_the_turns_of_those() {
    let world = world_with(vec![to("all", &[], vec![sink("a")])], &[], &["a"], 1, system_clock());
    // All the turns that `t` may have at one time, and it lasts until it is told to end.
    let turn = world.pipeline.shared.turns.take("t", Instant::now()).await.unwrap();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let mut lasts = pin!(turn.work(move |_| ended.recv()));
    let bodies = vec!["a line of some length"; 5_000];
    let mut of_t = pin!(world.submit("agent", request(&[("tenant.id=t", &bodies)])));
    let of_u = world.submit("agent", request(&[("tenant.id=u", &bodies)]));
    let while_t_waits = async {
        while !world.pipeline.shared.turns.is_waited_for("t") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        of_u.await
    };
    tokio::select! {
        _ = &mut lasts => panic!("it ended by itself"),
        answer = &mut of_t => panic!("in another's turn: {answer:?}"),
        answer = while_t_waits => assert_eq!(answer, Ok(Receipt::default())),
    }
    end.send(()).unwrap();
    lasts.await.unwrap().unwrap();
    assert_eq!(of_t.await, Ok(Receipt::default()));
}

#[test]
fn a_pipeline_names_only_what_is_there() {
    let open = |pipeline| {
        let metrics = Metrics::new();
        let slots = [missing("redact", true, OnFailure::Drop)];
        let settings = tenants::Settings {
            attributes: keys(),
            stamp: true,
            credentials: Vec::new(),
            token_files: Vec::new(),
            ticket_key: None,
            is_open: true,
            room_bytes: 1 << 20,
            quotas: tenants::QuotaSettings::default(),
        };
        let tenants = Tenants::open(settings, metrics.clone()).unwrap();
        let sinks = vec!["a".to_owned()];
        let memory = journal::Settings::Memory { bytes_max: 1 << 20 };
        let journal = Journal::open(&memory, &sinks, system_clock(), &metrics).unwrap();
        let settings = Settings::new(keys());
        let alerts = Alerts::open(alerts::Settings::default(), metrics.clone()).unwrap();
        let around = Surroundings { tenants, journal, letters: None, alerts, clock: system_clock(), metrics };
        Pipeline::open(settings, Arrangement::of(vec![pipeline], &sinks), &slots, around).map(|_| ())
    };
    assert_eq!(open(to("p", &["redact"], vec![sink("a")])), Ok(()));
    assert_eq!(open(to("p", &["sample"], vec![])), Err("pipeline `p`: there is no plugin `sample`".into()));
    assert_eq!(open(to("p", &[], vec![sink("b")])), Err("pipeline `p`: there is no sink `b`".into()));
}
