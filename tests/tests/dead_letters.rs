//! What a backend refuses for good is kept, listed, and sent again once the backend is mended.

use crate::shutdown::binary;
use crate::world::{World, eventually, logs};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tokio::task::JoinSet;

/// Over OTLP/HTTP it takes whole requests or refuses them with 400: those with a body that begins with `bad`.
#[derive(Default)]
struct Backend {
    bodies: Mutex<Vec<String>>,
    is_mended: AtomicBool,
}

impl Backend {
    async fn serve(self: Arc<Backend>) -> (SocketAddr, JoinSet<()>) {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = socket.accept().await.unwrap();
                let backend = self.clone();
                let answer = move |request: Request<Incoming>| {
                    let backend = backend.clone();
                    async move { Ok::<_, Infallible>(backend.answer(request).await) }
                };
                connections.spawn(async move {
                    let service = hyper::service::service_fn(answer);
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        (address, serving)
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let request = ExportLogsServiceRequest::decode(body).unwrap();
        let records = request.resource_logs.iter().flat_map(|resource| &resource.scope_logs);
        let bodies = records.flat_map(|scope| &scope.log_records).map(|record| {
            let Some(Value::StringValue(text)) = record.body.clone().and_then(|body| body.value) else {
                panic!("a text")
            };
            text
        });
        let bodies: Vec<String> = bodies.collect();
        let refused = bodies.iter().find(|body| body.starts_with("bad"));
        if let Some(refused) = refused.filter(|_| !self.is_mended.load(Ordering::Relaxed)) {
            let words = Full::from(format!("cannot index `{refused}`"));
            return Response::builder().status(400).body(words).unwrap();
        }
        self.bodies.lock().unwrap().extend(bodies);
        Response::builder().header("content-type", "application/x-protobuf").body(Full::default()).unwrap()
    }

    fn taken(&self) -> Vec<String> {
        let mut bodies = self.bodies.lock().unwrap().clone();
        bodies.sort_unstable();
        bodies
    }
}

/// Exit code, standard output, standard error of `trommel dead-letters …`.
async fn dead_letters(world: &World, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(binary());
    command.arg("dead-letters").args(arguments).args(["--console", &world.console("")]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_backend_refuses_is_listed_and_sent_again_once_it_is_mended() {
    let backend = Arc::new(Backend::default());
    let (address, _serving) = backend.clone().serve().await;
    let yaml = format!(
        "receivers: {{ otlp: {{ grpc: {{ listen: 127.0.0.1:0 }} }} }}
console: {{ listen: 127.0.0.1:0 }}
pipelines: [{{ name: logs, sinks: [backend, other] }}]
sinks: {{ backend: {{ type: otlp, endpoint: \"http://{address}\", protocol: http, compression: none }}, other: {{ type: discard }} }}
journal: {{ kind: disk, max: 1GiB }}
"
    );
    let world = World::start(&yaml).await;
    let lines = ["good 1", "good 2", "bad 4111", "good 3", "good 4"];
    world.send(None, logs(&[("project.id", "shop")], &lines)).await.unwrap();
    world.send(None, logs(&[("project.id", "blog")], &["good 5"])).await.unwrap();
    let good = ["good 1", "good 2", "good 3", "good 4", "good 5"];
    eventually("all but the one delivered", || async { backend.taken() == good }).await;
    let kept = "trommel_ledger_dead_lettered_records_total{tenant=\"local\",signal=\"logs\",sink=\"backend\",reason=\"refused\"}";
    eventually("a dead letter", || async { world.metric(kept).await == Some(1.0) }).await;

    let (code, listed, said) = dead_letters(&world, &["list"]).await;
    assert_eq!((code, said.as_str()), (Some(0), ""), "{listed}");
    assert!(!listed.contains("4111") && !listed.contains("cannot index"), "{listed}");
    let row: Vec<&str> = listed.lines().nth(1).expect("a row").split_whitespace().collect();
    assert_eq!((listed.lines().count(), &row[2..6]), (2, &["backend", "local", "logs", "1"][..]), "{listed}");
    let id = row[0];
    let (_, lines, _) =
        dead_letters(&world, &["list", "--json", "--sink", "backend", "--tenant", "local"]).await;
    let letter: serde_json::Value = serde_json::from_str(&lines).unwrap();
    assert_eq!((&letter["id"], &letter["project"]), (&id.into(), &"shop".into()));
    assert_eq!(dead_letters(&world, &["list", "--sink", "other"]).await.1, "no dead letters\n");
    let (code, shown, _) = dead_letters(&world, &["show", id]).await;
    let letter: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let record = &letter["content"]["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0];
    assert_eq!((code, &record["body"]["stringValue"]), (Some(0), &"bad 4111".into()));
    assert!(letter["message"].as_str().unwrap().contains("cannot index"), "{letter}");

    // Not mended yet: it comes back as another letter.
    let (code, said, _) = dead_letters(&world, &["replay", "--all"]).await;
    assert_eq!((code, said.as_str()), (Some(0), "1 letters with 1 records sent again\n"));
    eventually("another dead letter", || async { world.metric(kept).await == Some(2.0) }).await;
    // It outlives the collector.
    let folder = world.end().await;
    let world = World::start_in(folder, &yaml).await;
    backend.is_mended.store(true, Ordering::Relaxed);
    let (code, _, said) = dead_letters(&world, &["replay", id]).await;
    assert_eq!(code, Some(1), "it was sent: {said}");
    assert!(said.contains("1 were not there"), "{said}");
    let (_, lines, _) = dead_letters(&world, &["list", "--json"]).await;
    let letter: serde_json::Value = serde_json::from_str(&lines).unwrap();
    let (code, said, _) = dead_letters(&world, &["replay", letter["id"].as_str().unwrap()]).await;
    assert_eq!((code, said.as_str()), (Some(0), "1 letters with 1 records sent again\n"));
    let all = ["bad 4111", "good 1", "good 2", "good 3", "good 4", "good 5"];
    eventually("it is delivered, and no other twice", || async { backend.taken() == all }).await;
    assert_eq!(dead_letters(&world, &["list"]).await.1, "no dead letters\n");
    let line = "trommel_ledger_added_records_total{tenant=\"local\",signal=\"logs\",plugin=\"replay\"}";
    assert_eq!(world.metric(line).await, Some(2.0));
    world.end().await;
}
