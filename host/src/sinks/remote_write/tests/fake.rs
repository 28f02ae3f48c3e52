//! A receiver at the socket that stores as Prometheus does: a request whole or not at all, each series in order; or
//! answers as it is told.

use super::reference::{TimeSeries, WriteRequest};
use super::samples::settings;
use crate::sinks::remote_write::RemoteWrite;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use prost::Message;
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// What is done with the next request; when the script is over, it is [`Act::Judge`]d.
#[derive(Clone, Debug)]
pub(super) enum Act {
    Judge,
    /// This answer; nothing is stored.
    Say(u16, Option<(&'static str, &'static str)>, &'static str),
    /// Judged, but nobody is told.
    JudgeSilently,
    /// Neither stored nor answered.
    Ignore,
}

/// Status and text for a series that is not taken.
pub(super) type Rule = fn(&TimeSeries) -> Option<(u16, &'static str)>;

/// Samples by their series' labels.
pub(super) type Stored = BTreeMap<String, Vec<(i64, f64)>>;

#[derive(Debug)]
pub(super) struct Fake {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    script: Mutex<VecDeque<Act>>,
    rule: Rule,
    requests: Mutex<Vec<WriteRequest>>,
    stored: Mutex<Stored>,
}

impl Fake {
    /// `rule` says which series are never taken.
    pub(super) async fn start(script: impl IntoIterator<Item = Act>, rule: Rule) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = Mutex::new(script.into_iter().collect());
        let shared = Shared { script, rule, requests: Mutex::default(), stored: Mutex::default() };
        let shared = Arc::new(shared);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, shared.clone()));
        Fake { address, shared, _tasks: tasks }
    }

    pub(super) fn sink(&self) -> RemoteWrite {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let endpoint = format!("http://{}/api/v1/write", self.address);
        RemoteWrite::open("prometheus", settings(endpoint)).unwrap()
    }

    pub(super) fn say(&self, script: impl IntoIterator<Item = Act>) {
        self.shared.script.lock().unwrap().extend(script);
    }

    /// The requests that came since the last time.
    pub(super) fn take_requests(&self) -> Vec<WriteRequest> {
        std::mem::take(&mut self.shared.requests.lock().unwrap())
    }

    pub(super) fn stored(&self) -> Stored {
        self.shared.stored.lock().unwrap().clone()
    }
}

/// `name{label=value,…}`; `target_info` too.
pub(super) fn labels_of(series: &TimeSeries) -> String {
    let is_name = |name: &str| name == "__name__";
    let name = series.labels.iter().find(|label| is_name(&label.name)).map_or("", |label| &label.value);
    let rest = series.labels.iter().filter(|label| !is_name(&label.name));
    let rest: Vec<String> = rest.map(|label| format!("{}={}", label.name, label.value)).collect();
    format!("{name}{{{}}}", rest.join(","))
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let shared = shared.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let shared = shared.clone();
                async move { Ok::<_, Infallible>(answer(request, &shared).await) }
            });
            let server = auto::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(socket), service).await;
        });
    }
}

async fn answer(request: Request<Incoming>, shared: &Shared) -> Response<Full<bytes::Bytes>> {
    let (head, body) = request.into_parts();
    assert_eq!((head.method.as_str(), head.uri.path()), ("POST", "/api/v1/write"));
    for (name, value) in [
        ("content-type", "application/x-protobuf"),
        ("content-encoding", "snappy"),
        ("x-prometheus-remote-write-version", "0.1.0"),
        ("user-agent", concat!("trommel/", env!("CARGO_PKG_VERSION"))),
    ] {
        assert_eq!(head.headers[name], value);
    }
    let body = body.collect().await.unwrap().to_bytes();
    let plain = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
    let request = WriteRequest::decode(&plain[..]).unwrap();
    shared.requests.lock().unwrap().push(request.clone());
    let act = shared.script.lock().unwrap().pop_front().unwrap_or(Act::Judge);
    let (status, header, text) = match act {
        Act::Judge => judged(&request, shared),
        Act::Say(status, header, text) => (status, header, text),
        Act::JudgeSilently => {
            judged(&request, shared);
            std::future::pending().await
        }
        Act::Ignore => std::future::pending().await,
    };
    let response = Response::builder().status(status);
    let response = header.into_iter().fold(response, |response, (name, value)| response.header(name, value));
    response.body(Full::from(text)).unwrap()
}

fn judged(
    request: &WriteRequest,
    shared: &Shared,
) -> (u16, Option<(&'static str, &'static str)>, &'static str) {
    let mut stored = shared.stored.lock().unwrap();
    let mut new = stored.clone();
    for series in &request.timeseries {
        let names: Vec<&str> = series.labels.iter().map(|label| &*label.name).collect();
        assert!(names.is_sorted_by(|a, b| a < b), "sorted and unique: {names:?}");
        assert!(series.labels.iter().all(|label| !label.name.is_empty() && !label.value.is_empty()));
        assert!(!series.samples.is_empty());
        if let Some((status, text)) = (shared.rule)(series) {
            return (status, None, text);
        }
        let samples = new.entry(labels_of(series)).or_default();
        for sample in &series.samples {
            match samples.last() {
                Some((last, _)) if sample.timestamp < *last => return (400, None, "out of order sample"),
                Some((last, value)) if sample.timestamp == *last => {
                    if sample.value.to_bits() != value.to_bits() {
                        return (400, None, "duplicate sample for timestamp");
                    }
                }
                _ => samples.push((sample.timestamp, sample.value)),
            }
        }
    }
    *stored = new;
    (204, None, "")
}
