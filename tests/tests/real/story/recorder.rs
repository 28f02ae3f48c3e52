//! Stands between the collector and Telegram, passes everything on, and keeps what was called.

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// A call of the Bot API.
#[derive(Clone, Debug)]
pub struct Call {
    /// `sendMessage`, `editMessageText`.
    pub method: String,
    pub body: Value,
    pub answer: Value,
}

impl Call {
    pub fn text(&self) -> &str {
        self.body["text"].as_str().unwrap_or_default()
    }

    /// The message that the call made or changed.
    pub fn message(&self) -> Option<i64> {
        self.body["message_id"].as_i64().or_else(|| self.answer["result"]["message_id"].as_i64())
    }
}

pub struct Recorder {
    address: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
    _serving: tokio::task::JoinSet<()>,
}

impl Recorder {
    pub async fn start(api: String) -> Recorder {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let calls: Arc<Mutex<Vec<Call>>> = Arc::default();
        let mut serving = tokio::task::JoinSet::new();
        serving.spawn(serve(listener, api, calls.clone()));
        Recorder { address, calls, _serving: serving }
    }

    /// What the collector takes for Telegram.
    pub fn api(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }
}

async fn serve(listener: tokio::net::TcpListener, api: String, calls: Arc<Mutex<Vec<Call>>>) {
    let mut connections = tokio::task::JoinSet::new();
    let client = crate::world::client();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let (api, calls, client) = (api.clone(), calls.clone(), client.clone());
        let answer = service_fn(move |request| pass_on(request, api.clone(), calls.clone(), client.clone()));
        connections.spawn(async move {
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(socket), answer).await;
        });
    }
}

async fn pass_on(
    request: http::Request<Incoming>,
    api: String,
    calls: Arc<Mutex<Vec<Call>>>,
    client: reqwest::Client,
) -> anyhow::Result<http::Response<Full<Bytes>>> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await?.to_bytes();
    let passed = client.post(format!("{api}{path}")).header("content-type", "application/json");
    let answer = passed.body(body.clone()).send().await?;
    let (status, answer) = (answer.status().as_u16(), answer.bytes().await?);
    let json = |bytes: &[u8]| serde_json::from_slice(bytes).unwrap_or(Value::Null);
    let method = path.rsplit('/').next().unwrap_or_default().to_owned();
    calls.lock().unwrap().push(Call { method, body: json(&body), answer: json(&answer) });
    let response = http::Response::builder().status(status).header("content-type", "application/json");
    Ok(response.body(Full::new(answer))?)
}

/// Answers every request with 500.
pub struct Broken {
    pub address: SocketAddr,
    requests: Arc<AtomicUsize>,
    _serving: tokio::task::JoinSet<()>,
}

impl Broken {
    pub async fn start() -> Broken {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests: Arc<AtomicUsize> = Arc::default();
        let counted = requests.clone();
        let mut serving = tokio::task::JoinSet::new();
        serving.spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let counted = counted.clone();
                let answer = service_fn(move |request: http::Request<Incoming>| {
                    let counted = counted.clone();
                    async move {
                        request.into_body().collect().await?;
                        counted.fetch_add(1, Ordering::SeqCst);
                        let answer = http::Response::builder().status(500);
                        Ok::<_, hyper::Error>(answer.body(Full::<Bytes>::default()).unwrap())
                    }
                });
                connections.spawn(async move {
                    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(socket), answer).await;
                });
            }
        });
        Broken { address, requests, _serving: serving }
    }

    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}
