//! What a tenant may send and keep: who is over that is told when to come back, and holds back nobody else.

use crate::shutdown::free_port;
use crate::world::{World, eventually, logs, resource_logs, sha256};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use prost::Message;
use std::time::Duration;
use tonic_types::StatusExt;
use trommel::config::Config;

/// Two tenants, an agent that speaks for both, and these quotas.
fn gateway(quotas: &str) -> String {
    format!(
        r#"
receivers: {{ otlp: {{ grpc: {{ listen: 127.0.0.1:0 }}, http: {{ listen: 127.0.0.1:0 }} }} }}
console: {{ listen: 127.0.0.1:0 }}
identity:
  tokens:
    - {{ sha256: "{}", tenant: acme, rights: [send, read] }}
    - {{ sha256: "{}", tenant: globex, rights: [send, read] }}
    - {{ sha256: "{}", speaks_for: ["acme", "globex"], rights: [send] }}
quotas: {quotas}
pipelines: [{{ name: logs, when: {{ signal: logs }}, sinks: [streams] }}]
sinks: {{ streams: {{ type: streams }} }}
"#,
        sha256("acme-token"),
        sha256("globex-token"),
        sha256("agent-token"),
    )
}

/// So many records of `acme`'s project `shop`.
fn lines(count: usize) -> ExportLogsServiceRequest {
    logs(&[("tenant.id", "acme"), ("project.id", "shop")], &vec!["a line"; count])
}

/// When the sender may come again.
fn told(status: &tonic::Status) -> Duration {
    assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status}");
    let info = status.get_details_retry_info().expect("without RetryInfo the refusal were final");
    info.retry_delay.expect("a time")
}

async fn ledger(world: &World, word: &str, tenant: &str, labels: &str) -> Option<f64> {
    let line = format!("trommel_ledger_{word}_records_total{{tenant=\"{tenant}\",signal=\"logs\"{labels}}}");
    world.metric(&line).await
}

fn over_quota(tenant: &str, quota: &str) -> String {
    format!("trommel_admit_over_quota_requests_total{{tenant=\"{tenant}\",quota=\"{quota}\"}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_when_told_over_grpc_is_taken() {
    let world = World::start(&gateway("{ default: { records: 100, burst: 1s } }")).await;
    let mut sent = 0;
    // The first is larger than the burst, and taken; it takes two seconds until something is taken again.
    let refused = loop {
        match world.send(Some("acme-token"), lines(300)).await {
            Ok(answer) => assert_eq!(answer.partial_success, None),
            Err(status) => break status,
        }
        sent += 300;
    };
    let after = told(&refused);
    assert!(sent > 0 && after > Duration::ZERO, "{after:?}");
    let message = "over quota: tenant `acme` may send 100 records a second: come back in ";
    assert!(refused.message().starts_with(message), "{refused}");
    assert_eq!(world.metric(&over_quota("acme", "records")).await, Some(1.0));
    world.send(Some("globex-token"), logs(&[("project.id", "web")], &["mine"])).await.unwrap();

    tokio::time::sleep(after).await;
    world.send(Some("acme-token"), lines(1)).await.unwrap();
    world.history_of(Some("acme-token"), "acme", "shop", sent + 1).await;
    world.history_of(Some("globex-token"), "globex", "web", 1).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_when_told_over_http_is_taken() {
    let world = World::start(&gateway("{ tenants: { acme: { bytes: 10KiB, burst: 1s } } }")).await;
    let url = format!("http://{}/v1/logs", world.otlp_http());
    let post = |count: usize| {
        let request = world.http.post(&url).bearer_auth("acme-token").body(lines(count).encode_to_vec());
        request.header("content-type", "application/x-protobuf").send()
    };
    assert!(lines(1_500).encoded_len() > 20 << 10);
    let mut sent = 0;
    let refused = loop {
        let answer = post(1_500).await.unwrap();
        if answer.status() != 200 {
            break answer;
        }
        sent += 1_500;
    };
    assert_eq!((refused.status().as_u16(), sent > 0), (429, true));
    let after: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!(after >= 1);
    let body = refused.bytes().await.unwrap();
    let told_again = tonic_types::Status::decode(body.clone()).unwrap();
    let message = "over quota: tenant `acme` may send 10240 bytes a second: come back in ";
    assert!(told_again.message.starts_with(message), "{}", told_again.message);
    assert_eq!(told_again.code, tonic::Code::ResourceExhausted as i32);

    tokio::time::sleep(Duration::from_secs(after)).await;
    assert_eq!(post(1).await.unwrap().status(), 200);
    world.history_of(Some("acme-token"), "acme", "shop", sent + 1).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_agents_request_the_part_over_quota_is_left_out_and_the_rest_arrives() {
    let world = World::start(&gateway("{ tenants: { acme: { records: 1, burst: 1s } } }")).await;
    // Paid back after ten minutes.
    world.send(Some("agent-token"), lines(600)).await.unwrap();
    let request = ExportLogsServiceRequest {
        resource_logs: vec![
            resource_logs(&[("tenant.id", "acme"), ("project.id", "shop")], &["a1", "a2"]),
            resource_logs(&[("tenant.id", "globex"), ("project.id", "web")], &["g1"]),
            resource_logs(&[("tenant.id", "acme"), ("project.id", "blog")], &["a3"]),
        ],
    };
    let answer = world.send(Some("agent-token"), request).await.unwrap();
    let partial = answer.partial_success.expect("the part of acme is left out");
    assert_eq!(partial.rejected_log_records, 3);
    assert_eq!(partial.error_message, "3 records left out: their tenant sends more records than its quota");
    assert_eq!(world.history_of(Some("globex-token"), "globex", "web", 1).await[0]["body"], "g1");
    let refused = || ledger(&world, "refused", "acme", ",reason=\"quota_records\"");
    assert_eq!(refused().await, Some(3.0));
    // With nothing else in it, it is not final.
    let after = told(&world.send(Some("agent-token"), lines(2)).await.unwrap_err());
    assert!(after > Duration::from_secs(300), "{after:?}");
    assert_eq!(refused().await, Some(5.0));
    assert_eq!(ledger(&world, "received", "acme", "").await, Some(605.0));
    assert_eq!(ledger(&world, "committed", "acme", "").await, Some(600.0));
    assert_eq!(world.metric(&over_quota("acme", "records")).await, Some(2.0));
    world.history_of(Some("acme-token"), "acme", "shop", 600).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_waits_as_it_is_told_and_loses_nothing() {
    let gateway = World::start(&gateway("{ default: { records: 100, burst: 1s } }")).await;
    let sidecar = crate::identity::sidecar(&gateway).await;
    let retries = "trommel_deliver_attempts_total{sink=\"gateway\",result=\"retry\"}";
    let mut sent = 0;
    while sidecar.metric(retries).await.unwrap_or_default() < 1.0 {
        sidecar.send(None, lines(150)).await.unwrap();
        sent += 150;
    }
    eventually("what was refused is delivered", || async {
        let delivered = ledger(&sidecar, "delivered", "local", ",sink=\"gateway\"").await;
        delivered == Some(sent as f64)
    })
    .await;
    gateway.history_of(Some("acme-token"), "acme", "shop", sent).await;
    sidecar.end().await;
    gateway.end().await;
}

const KEEPING: &str = r#"
receivers: { otlp: { grpc: { listen: 127.0.0.1:0 } } }
console: { listen: 127.0.0.1:0 }
identity:
  tokens:
    - { sha256: "ACME", tenant: acme, rights: [send] }
    - { sha256: "GLOBEX", tenant: globex, rights: [send] }
quotas: { tenants: { acme: { journal: 256KiB } } }
pipelines: [{ name: logs, sinks: [backend] }]
sinks: { backend: { type: otlp, endpoint: "http://127.0.0.1:BACKEND" } }
journal: { kind: disk, max: 1GiB, age: 1h }
"#;

const BACKEND: &str = r#"
receivers: { otlp: { grpc: { listen: 127.0.0.1:BACKEND } } }
console: { listen: 127.0.0.1:0 }
pipelines: [{ name: logs, sinks: [nowhere] }]
sinks: { nowhere: { type: discard } }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_share_of_the_journal_is_full_while_a_sink_is_down_and_free_when_it_is_back() {
    let backend = free_port().to_string();
    let yaml = KEEPING.replace("ACME", &sha256("acme-token")).replace("GLOBEX", &sha256("globex-token"));
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::parse(&yaml.replace("BACKEND", &backend), folder.path(), "test.yaml").unwrap();
    for delivery in &mut config.deliver {
        delivery.backoff.first = Duration::from_millis(50);
        delivery.backoff.most = Duration::from_millis(200);
    }
    let world = World::start_config(folder, config).await;
    let line = "x".repeat(50_000);
    let send = |token: &'static str| {
        let request = logs(&[("project.id", "shop")], &[&line]);
        let world = &world;
        async move { world.send(Some(token), request).await }
    };
    let is_taken = |answer: &Result<ExportLogsServiceResponse, _>| {
        answer.as_ref().is_ok_and(|answer| answer.partial_success.is_none())
    };
    let mut sent = 0.0;
    let refused = loop {
        match send("acme-token").await {
            Ok(answer) => assert_eq!(answer.partial_success, None),
            Err(status) => break status,
        }
        sent += 1.0;
        assert!(sent < 10.0, "six fill its share");
    };
    assert!((Duration::from_secs(1)..=Duration::from_secs(5)).contains(&told(&refused)), "{refused}");
    assert!(refused.message().contains("may hold 262144 bytes of the journal"), "{refused}");
    for _ in 0..20 {
        assert!(is_taken(&send("globex-token").await));
    }
    assert!(!is_taken(&send("acme-token").await));
    assert_eq!(world.metric(&over_quota("acme", "journal")).await, Some(2.0));
    // At the second request within a second nobody counted its records.
    let counted = ledger(&world, "refused", "acme", ",reason=\"quota_journal\"").await;
    assert!(counted == Some(1.0) || counted == Some(2.0), "{counted:?}");

    let backend = World::start(&BACKEND.replace("BACKEND", &backend)).await;
    eventually("its share is free again", || async { is_taken(&send("acme-token").await) }).await;
    eventually("all is delivered", || async {
        let of = |tenant| ledger(&world, "delivered", tenant, ",sink=\"backend\"");
        (of("acme").await, of("globex").await) == (Some(sent + 1.0), Some(20.0))
    })
    .await;
    world.end().await;
    backend.end().await;
}
