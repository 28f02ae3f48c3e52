//! An OTLP backend in the test's process: it outlives the collectors, and knows what reached it.

use crate::durable::oracle::Stamp;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use prost::Message;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// The records of the oracle that came.
pub type Reached = HashMap<Stamp, Times>;

#[derive(Clone, Debug, Default)]
pub struct Times {
    pub count: u32,
    /// Tenant and project, as the collector said.
    pub streams: BTreeSet<(String, String)>,
}

/// How it answers.
#[derive(Debug, Default)]
struct Manners {
    /// Each answer takes so long.
    slow_ms: AtomicU64,
    /// One request of so many is taken, and told to come again; 0: none.
    forgets: AtomicU64,
    /// Everything is sent away, and nothing is taken.
    refuses: AtomicU64,
    requests: AtomicU64,
}

#[derive(Clone)]
struct Taking {
    manners: Arc<Manners>,
    reached: Arc<Mutex<Reached>>,
}

pub struct Backend {
    pub url: String,
    taking: Taking,
    _serving: JoinSet<()>,
}

impl Backend {
    pub async fn start() -> Backend {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let taking = Taking { manners: Arc::default(), reached: Arc::default() };
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, taking.clone()));
        Backend { url, taking, _serving: serving }
    }

    pub fn slow(&self, pause: Duration) {
        self.taking.manners.slow_ms.store(pause.as_millis() as u64, Ordering::Relaxed);
    }

    pub fn forget_one_in(&self, requests: u64) {
        self.taking.manners.forgets.store(requests, Ordering::Relaxed);
    }

    pub fn refuse(&self, refuses: bool) {
        self.taking.manners.refuses.store(refuses.into(), Ordering::Relaxed);
    }

    pub fn requests(&self) -> u64 {
        self.taking.manners.requests.load(Ordering::Relaxed)
    }

    pub fn reached(&self) -> Reached {
        self.taking.reached.lock().unwrap().clone()
    }
}

async fn serve(listener: TcpListener, taking: Taking) {
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let taking = taking.clone();
        let answer = service_fn(move |request| answer(request, taking.clone()));
        connections.spawn(async move {
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(socket), answer).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(
    request: http::Request<Incoming>,
    taking: Taking,
) -> anyhow::Result<http::Response<Full<Bytes>>> {
    let Manners { slow_ms, forgets, refuses, requests } = &*taking.manners;
    let body = request.into_body().collect().await?.to_bytes();
    tokio::time::sleep(Duration::from_millis(slow_ms.load(Ordering::Relaxed))).await;
    if refuses.load(Ordering::Relaxed) > 0 {
        return Ok(http::Response::builder().status(503).body(Full::default())?);
    }
    taking.take(&ExportLogsServiceRequest::decode(body)?);
    let number = requests.fetch_add(1, Ordering::Relaxed);
    let forgets = forgets.load(Ordering::Relaxed);
    let status = if forgets > 0 && number % forgets == 0 { 503 } else { 200 };
    let answer = http::Response::builder().status(status).header("content-type", "application/x-protobuf");
    Ok(answer.body(Full::default())?)
}

impl Taking {
    fn take(&self, request: &ExportLogsServiceRequest) {
        let mut reached = self.reached.lock().unwrap();
        for resource in &request.resource_logs {
            let attributes = resource.resource.as_ref().map_or(&[][..], |resource| &resource.attributes);
            let stream = (text(attributes, "tenant.id"), text(attributes, "project.id"));
            for record in resource.scope_logs.iter().flat_map(|scope| &scope.log_records) {
                let body = record.body.as_ref().and_then(|body| body.value.as_ref());
                let Some(Value::StringValue(body)) = body else { panic!("nobody sent {record:?}") };
                // Else it is ballast.
                let Some(stamp) = Stamp::parse(body) else { continue };
                let times = reached.entry(stamp).or_default();
                times.count += 1;
                times.streams.insert(stream.clone());
            }
        }
    }
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        other => panic!("{key} is {other:?}"),
    }
}
