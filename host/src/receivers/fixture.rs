//! Receivers on real sockets, with a pipeline of the test's own behind them.

use super::*;
use crate::batch::{IdentityKeys, TenantId};
use crate::tenants::{Credential, Names, Proof, QuotaSettings, Rights, Settings as TenantSettings, Who};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sha2::{Digest, Sha256};
use std::pin::Pin;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

pub(super) const SENDER: &str = "Bearer sender";
pub(super) const READER: &str = "Bearer reader";

type Answering = Pin<Box<dyn Future<Output = Result<Receipt, Refusal>> + Send>>;
type Fake = Box<dyn Fn(Submission) -> Answering + Send + Sync>;

/// What the fake pipeline was handed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Handed {
    pub(super) signal: Signal,
    pub(super) body: Bytes,
    pub(super) room_bytes: usize,
}

pub(super) struct World {
    pub(super) grpc: SocketAddr,
    pub(super) http: SocketAddr,
    pub(super) tenants: Arc<Tenants>,
    pub(super) metrics: Metrics,
    pub(super) ready: watch::Sender<bool>,
    pub(super) stop: CancellationToken,
    pub(super) handed: Arc<Mutex<Vec<Handed>>>,
    pub(super) tasks: JoinSet<()>,
}

pub(super) fn small() -> Settings {
    let listen = ListenSettings { listen: "127.0.0.1:0".parse().unwrap(), tls: None };
    Settings { grpc: Some(listen.clone()), http: Some(listen), ..Settings::default() }
}

impl World {
    /// Everything is taken.
    pub(super) async fn taking() -> World {
        World::start(small(), 64 << 20, |_| async { Ok(Receipt::default()) }).await
    }

    pub(super) async fn answering(answer: Result<Receipt, Refusal>) -> World {
        World::start(small(), 64 << 20, move |_| std::future::ready(answer.clone())).await
    }

    pub(super) async fn start<F>(
        settings: Settings,
        room_bytes: usize,
        submit: impl Fn(Submission) -> F + Send + Sync + 'static,
    ) -> World
    where
        F: Future<Output = Result<Receipt, Refusal>> + Send + 'static,
    {
        World::start_with(settings, tenants(room_bytes), submit).await
    }

    pub(super) async fn start_with<F>(
        settings: Settings,
        tenants: TenantSettings,
        submit: impl Fn(Submission) -> F + Send + Sync + 'static,
    ) -> World
    where
        F: Future<Output = Result<Receipt, Refusal>> + Send + 'static,
    {
        let metrics = Metrics::new();
        let tenants = Tenants::open(tenants, metrics.clone()).unwrap();
        let listeners = Listeners::bind(&settings).await.unwrap();
        let address = |listener: &Option<Listener>| listener.as_ref().unwrap().socket.local_addr().unwrap();
        let (grpc, http) = (address(&listeners.grpc), address(&listeners.http));
        let (ready, is_ready) = watch::channel(true);
        let stop = CancellationToken::new();
        let handed = Arc::new(Mutex::new(Vec::new()));
        let noted = handed.clone();
        let submit: Fake = Box::new(move |submission: Submission| {
            let Submission { signal, body, room, .. } = &submission;
            noted.lock().unwrap().push(Handed {
                signal: *signal,
                body: body.clone(),
                room_bytes: room.bytes(),
            });
            Box::pin(submit(submission))
        });
        let receiver = Receiver {
            settings,
            tenants: tenants.clone(),
            metrics: metrics.clone(),
            ready: is_ready,
            stop: stop.clone(),
            submit,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listeners, Arc::new(receiver)));
        World { grpc, http, tenants, metrics, ready, stop, handed, tasks }
    }

    pub(super) fn handed(&self) -> Vec<Handed> {
        self.handed.lock().unwrap().clone()
    }

    /// Waits until the room is empty again.
    pub(super) async fn settled(&self) {
        until("the room is given back", || self.tenants.room().used_bytes() == 0).await;
    }
}

pub(super) fn tenants(room_bytes: usize) -> TenantSettings {
    let credential = |token: &str, rights| Credential {
        proof: Proof::Token(Sha256::digest(token).into()),
        who: Who::Tenant { tenant: TenantId::new("acme").unwrap(), projects: Names::All },
        rights,
    };
    TenantSettings {
        attributes: IdentityKeys { tenant: "tenant.id".into(), project: "project.id".into() },
        stamp: true,
        credentials: vec![
            credential("sender", Rights { send: true, read: false, admin: false }),
            credential("reader", Rights { send: false, read: true, admin: false }),
        ],
        token_files: Vec::new(),
        ticket_key: None,
        is_open: false,
        room_bytes,
        quotas: QuotaSettings::default(),
    }
}

/// A refusal of a tenant that sent too much.
pub(super) fn over_quota(after: Duration) -> Refusal {
    let may = "may send 10 records a second".into();
    Refusal::OverQuota { tenant: TenantId::new("acme").unwrap(), may, after }
}

pub(super) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// An answer, read whole.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) status: u16,
    /// Headers and trailers, names in small letters.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Answered {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// POST over HTTP/1.1, on a connection of its own.
pub(super) async fn post(address: SocketAddr, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answered {
    let mut lines = format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        lines.push_str(&format!("{name}: {value}\r\n"));
    }
    raw(address, &[lines.as_bytes(), b"connection: close\r\n\r\n", body].concat()).await
}

/// Bytes to a socket, and what comes back until it closes.
pub(super) async fn raw(address: SocketAddr, request: &[u8]) -> Answered {
    let mut socket = TcpStream::connect(address).await.unwrap();
    // The receiver may answer and close before it has read all.
    let _ = socket.write_all(request).await;
    let mut answer = Vec::new();
    let reading = tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut answer)).await;
    let _ = reading.expect("an answer within 20 s");
    parse(&answer)
}

pub(super) fn parse(answer: &[u8]) -> Answered {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(answer.len());
    let text = String::from_utf8_lossy(&answer[..end]);
    let mut lines = text.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
    let headers =
        lines.filter_map(|line| line.split_once(": ")).map(|(k, v)| (k.to_lowercase(), v.to_owned()));
    let body = answer.get(end + 4..).unwrap_or_default().to_vec();
    Answered { status: status.unwrap_or(0), headers: headers.collect(), body }
}

/// A connection for raw gRPC.
pub(super) struct Http2 {
    pub(super) send: hyper::client::conn::http2::SendRequest<Body>,
    _tasks: JoinSet<()>,
}

impl Http2 {
    pub(super) async fn connect(address: SocketAddr) -> Http2 {
        let socket = TcpStream::connect(address).await.unwrap();
        // As gRPC's clients do; without it each request waits for an acknowledgement.
        socket.set_nodelay(true).unwrap();
        Http2::over(socket).await
    }

    pub(super) async fn over<I>(socket: I) -> Http2
    where
        I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let socket = TokioIo::new(socket);
        let (send, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), socket).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let _ = connection.await;
        });
        Http2 { send, _tasks: tasks }
    }

    pub(super) async fn post(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answered {
        self.send(path, headers, http_body_util::Full::new(body.into()).boxed_unsync()).await
    }

    pub(super) async fn send(&mut self, path: &str, headers: &[(&str, &str)], body: Body) -> Answered {
        let mut request = Request::post(format!("http://test{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send.ready().await.unwrap();
        let answer = self.send.send_request(request.body(body).unwrap());
        let answer = tokio::time::timeout(Duration::from_secs(20), answer)
            .await
            .expect("an answer within 20 s")
            .unwrap();
        let (head, body) = answer.into_parts();
        let body = body.collect().await.unwrap();
        let trailers = body.trailers().cloned().unwrap_or_default();
        let all = head.headers.iter().chain(trailers.iter());
        let headers =
            all.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
        Answered { status: head.status.as_u16(), headers, body: body.to_bytes().to_vec() }
    }
}

/// Five bytes of frame and the message.
pub(super) fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    [&[flag][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}
