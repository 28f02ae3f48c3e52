//! Whose a record is: the credential decides, whatever the data, a sidecar or a plugin says.

use crate::world::{World, logs, resource_logs, sha256};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use serde_json::Value;

/// Two tenants, an agent that speaks for both, an administrator.
pub fn gateway() -> String {
    format!(
        r#"
receivers: {{ otlp: {{ grpc: {{ listen: 127.0.0.1:0 }}, http: {{ listen: 127.0.0.1:0 }} }} }}
console: {{ listen: 127.0.0.1:0 }}
identity:
  tokens:
    - {{ sha256: "{}", tenant: acme, projects: ["*"], rights: [send, read] }}
    - {{ sha256: "{}", tenant: globex, projects: [web], rights: [send, read] }}
    - {{ sha256: "{}", speaks_for: ["acme", "globex"], rights: [send] }}
plugins: {{ redact: {{ module: "builtin:redact", guard: true }} }}
pipelines: [{{ name: logs, when: {{ signal: logs }}, plugins: [redact], sinks: [streams] }}]
sinks: {{ streams: {{ type: streams }} }}
"#,
        sha256("acme-token"),
        sha256("globex-token"),
        sha256("agent-token"),
    )
}

fn resource_of<'v>(record: &'v Value, key: &str) -> &'v Value {
    &record["resource"][key]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_token_that_sends_anothers_tenant_id_arrives_as_its_own() {
    let world = World::start(&gateway()).await;
    let answer = world
        .send(Some("acme-token"), logs(&[("tenant.id", "globex"), ("project.id", "shop")], &["mine"]))
        .await
        .unwrap();
    assert_eq!(answer.partial_success, None);
    let records = world.history_of(Some("acme-token"), "acme", "shop", 1).await;
    assert_eq!(records[0]["body"], "mine");
    assert_eq!(resource_of(&records[0], "tenant.id"), "acme");
    assert_eq!(world.history(Some("globex-token"), "globex", "web").await.unwrap().len(), 0);
    let overwritten = world.metric("trommel_admit_overwritten_resources_total{tenant=\"acme\"}").await;
    assert_eq!(overwritten, Some(1.0));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_speaks_for_others_and_each_part_goes_to_its_own_stream() {
    let world = World::start(&gateway()).await;
    let request = ExportLogsServiceRequest {
        resource_logs: vec![
            resource_logs(&[("tenant.id", "acme"), ("project.id", "shop")], &["a1", "a2"]),
            resource_logs(&[("tenant.id", "globex"), ("project.id", "web")], &["g1"]),
            resource_logs(&[("tenant.id", "initech")], &["nobody's"]),
            resource_logs(&[], &["nameless", "nameless"]),
            resource_logs(&[("tenant.id", "acme"), ("project.id", "shop")], &["a3"]),
        ],
    };
    let answer = world.send(Some("agent-token"), request).await.unwrap();
    let partial = answer.partial_success.expect("three records have no tenant that the agent speaks for");
    assert_eq!(partial.rejected_log_records, 3);
    assert!(partial.error_message.contains("tenant"), "{}", partial.error_message);
    let bodies = |records: Vec<Value>| {
        records.iter().map(|r| r["body"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(bodies(world.history_of(Some("acme-token"), "acme", "shop", 3).await), ["a1", "a2", "a3"]);
    assert_eq!(bodies(world.history_of(Some("globex-token"), "globex", "web", 1).await), ["g1"]);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_that_the_credential_does_not_cover_is_rejected() {
    let world = World::start(&gateway()).await;
    let answer = world.send(Some("globex-token"), logs(&[("project.id", "secret")], &["x"])).await.unwrap();
    assert_eq!(answer.partial_success.map(|partial| partial.rejected_log_records), Some(1));
    // Without a project it belongs to the credential's only one.
    world.send(Some("globex-token"), logs(&[], &["y"])).await.unwrap();
    assert_eq!(world.history_of(Some("globex-token"), "globex", "web", 1).await[0]["body"], "y");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_yours_and_what_is_not_there_look_the_same() {
    let world = World::start(&gateway()).await;
    world.send(Some("acme-token"), logs(&[("project.id", "shop")], &["mine"])).await.unwrap();
    world.history_of(Some("acme-token"), "acme", "shop", 1).await;
    let mut answers = Vec::new();
    for path in [
        "/v1/tenants/acme/projects/shop/logs",
        "/v1/tenants/nobody/projects/none/logs",
        "/v1/tenants/acme/projects/shop/tail",
    ] {
        let answer = world.http.get(world.console(path)).bearer_auth("globex-token").send().await.unwrap();
        answers.push((answer.status().as_u16(), answer.text().await.unwrap()));
    }
    assert_eq!(answers[0].0, 404);
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0], answers[2]);
    let nobody = world.http.get(world.console("/v1/tenants/acme/projects/shop/logs")).send().await.unwrap();
    assert_eq!(nobody.status(), 401);
    world.end().await;
}

/// A collector beside an application of acme, which sends all it gets to this gateway.
pub async fn sidecar(gateway: &World) -> World {
    World::start(&format!(
        r#"
receivers: {{ otlp: {{ grpc: {{ listen: 127.0.0.1:0 }} }} }}
console: {{ listen: 127.0.0.1:0 }}
pipelines: [{{ name: all, sinks: [gateway] }}]
sinks: {{ gateway: {{ type: otlp, endpoint: "http://{}", headers: {{ authorization: "Bearer acme-token" }} }} }}
"#,
        gateway.grpc()
    ))
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn through_a_sidecar_that_trusts_its_application_the_gateway_still_knows_the_sender() {
    let gateway = World::start(&gateway()).await;
    let sidecar = sidecar(&gateway).await;
    sidecar.send(None, logs(&[("tenant.id", "globex"), ("project.id", "shop")], &["forged"])).await.unwrap();
    let records = gateway.history_of(Some("acme-token"), "acme", "shop", 1).await;
    assert_eq!(records[0]["body"], "forged");
    assert_eq!(resource_of(&records[0], "tenant.id"), "acme");
    sidecar.end().await;
    gateway.end().await;
}
