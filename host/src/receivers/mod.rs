//! Where a batch begins; protocol in, protocol out.
//!
//! OTLP/gRPC on one port, OTLP/HTTP (protobuf and JSON) on another. A receiver checks the credential before the
//! first byte of the body, takes room while the body comes in, and hands it on whole and uncompressed. It decodes
//! nothing; the statuses of both protocols are made in `answer.rs` and nowhere else.

mod answer;
#[cfg(test)]
mod fixture;
mod grpc;
mod health;
mod http;
mod json;

use crate::batch::Signal;
use crate::net::body::{Fault as BodyFault, Limits as BodyLimits};
use crate::net::serve::{Limits, PeerCertificate, serve as serve_connections};
use crate::net::{backoff, tls};
use crate::pipeline::{Receipt, Refusal, Submission};
use crate::telemetry::{Labels, Metrics};
use crate::tenants::{Caller, Full, Taken, Tenants};
use answer::No;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::header::AUTHORIZATION;
use hyper::{Request, Response};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Until its commit a request holds its input, its output, and the index of the pieces at work.
pub const ROOM_FACTOR: usize = 3;
/// When a sender that is sent away may come back: drawn evenly, so that many do not return together.
const COME_BACK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

/// OTLP in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub grpc: Option<ListenSettings>,
    pub http: Option<ListenSettings>,
    /// Before and after decompression. 64 MiB, as the OTLP specification recommends.
    pub body_bytes_max: usize,
    /// Longest wait for the next chunk of a body.
    pub body_idle_deadline: Duration,
    /// From the head of a request to its answer, where the sender names no time of its own.
    pub request_deadline: Duration,
    /// The longest that a sender may name.
    pub request_deadline_max: Duration,
    pub limits: Limits,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            grpc: None,
            http: None,
            body_bytes_max: 64 << 20,
            body_idle_deadline: Duration::from_secs(10),
            // What OTLP's exporters wait for unless told otherwise.
            request_deadline: Duration::from_secs(10),
            request_deadline_max: Duration::from_secs(60),
            limits: Limits::default(),
        }
    }
}

/// One port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenSettings {
    pub listen: SocketAddr,
    pub tls: Option<tls::ServerSettings>,
}

/// What receivers work with.
#[derive(Debug)]
pub struct Receiver<S> {
    pub settings: Settings,
    pub tenants: Arc<Tenants>,
    pub metrics: Metrics,
    /// Whether the collector can take data, for `grpc.health.v1`.
    pub ready: watch::Receiver<bool>,
    /// No new requests; those in flight are answered.
    pub stop: CancellationToken,
    /// Where requests go: [`crate::pipeline::Pipeline::submit`].
    pub submit: S,
}

/// Ports that are bound, not yet served.
#[derive(Debug)]
pub struct Listeners {
    pub grpc: Option<Listener>,
    pub http: Option<Listener>,
}

#[derive(Debug)]
pub struct Listener {
    pub socket: TcpListener,
    pub tls: Option<tls::Acceptor>,
}

/// A port that cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("receivers.otlp.{protocol}: {listen}: {error}")]
    Socket { protocol: &'static str, listen: SocketAddr, error: std::io::Error },
    #[error("receivers.otlp.{protocol}: tls: {fault}")]
    Tls { protocol: &'static str, fault: tls::TlsFault },
}

impl Listeners {
    /// Takes the ports, so that one in use is told before anything starts.
    pub async fn bind(settings: &Settings) -> Result<Listeners, BindError> {
        Ok(Listeners {
            grpc: bind("grpc", settings.grpc.as_ref()).await?,
            http: bind("http", settings.http.as_ref()).await?,
        })
    }
}

async fn bind(
    protocol: &'static str,
    settings: Option<&ListenSettings>,
) -> Result<Option<Listener>, BindError> {
    let Some(settings) = settings else { return Ok(None) };
    let tls = settings.tls.clone().map(tls::Acceptor::open).transpose();
    let tls = tls.map_err(|fault| BindError::Tls { protocol, fault })?;
    let listen = settings.listen;
    let socket = TcpListener::bind(listen).await;
    let socket = socket.map_err(|error| BindError::Socket { protocol, listen, error })?;
    Ok(Some(Listener { socket, tls }))
}

/// Serves both protocols until `stop`; returns when what was in flight is answered.
pub async fn serve<S, F>(listeners: Listeners, receiver: Arc<Receiver<S>>)
where
    S: Fn(Submission) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Receipt, Refusal>> + Send + 'static,
{
    tokio::join!(serve_grpc(listeners.grpc, receiver.clone()), serve_http(listeners.http, receiver));
}

async fn serve_grpc<S, F>(listener: Option<Listener>, receiver: Arc<Receiver<S>>)
where
    S: Fn(Submission) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Receipt, Refusal>> + Send + 'static,
{
    let Some(Listener { socket, tls }) = listener else { return };
    let (limits, stop, open) =
        (receiver.settings.limits, receiver.stop.clone(), receiver.connections("grpc"));
    let handler = move |request| {
        let receiver = receiver.clone();
        async move { grpc::answer(&receiver, request).await }
    };
    serve_connections(socket, tls, limits, handler, stop, open).await;
}

async fn serve_http<S, F>(listener: Option<Listener>, receiver: Arc<Receiver<S>>)
where
    S: Fn(Submission) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Receipt, Refusal>> + Send + 'static,
{
    let Some(Listener { socket, tls }) = listener else { return };
    let (limits, stop, open) =
        (receiver.settings.limits, receiver.stop.clone(), receiver.connections("http"));
    let handler = move |request| {
        let receiver = receiver.clone();
        async move { http::answer(&receiver, request).await }
    };
    serve_connections(socket, tls, limits, handler, stop, open).await;
}

/// The body of an answer.
type Body = UnsyncBoxBody<Bytes, Infallible>;

impl<S, F> Receiver<S>
where
    S: Fn(Submission) -> F,
    F: Future<Output = Result<Receipt, Refusal>>,
{
    fn connections(&self, listener: &'static str) -> prometheus_client::metrics::gauge::Gauge {
        self.metrics.receive_connections.get_or_create_owned(&vec![("listener", listener.to_owned())])
    }

    /// Who sends, from the head alone.
    fn authorize(&self, request: &Request<Incoming>) -> Result<Arc<Caller>, No> {
        let certificate = request.extensions().get::<PeerCertificate>().map(|certificate| certificate.0);
        let shown = request.headers().get(AUTHORIZATION).map(|value| value.to_str().unwrap_or_default());
        let caller = self.tenants.authenticate(shown, certificate);
        let caller = caller.map_err(|_| No::Refused(Refusal::Unauthenticated))?;
        if caller.rights.send { Ok(caller) } else { Err(No::Refused(Refusal::Forbidden)) }
    }

    fn body_limits(&self) -> BodyLimits {
        BodyLimits {
            bytes_max: self.settings.body_bytes_max,
            idle_deadline: self.settings.body_idle_deadline,
        }
    }

    /// Hands a whole body on, and waits for the answer no longer than the sender does.
    async fn submit(&self, submission: Submission) -> Result<Receipt, No> {
        let labels = vec![("signal", submission.signal.name().to_owned())];
        self.metrics.receive_bytes.get_or_create(&labels).inc_by(submission.body.len() as u64);
        let deadline = submission.deadline;
        match tokio::time::timeout_at(deadline, (self.submit)(submission)).await {
            Ok(answer) => answer.map_err(No::Refused),
            Err(_) => Err(No::Late { after: come_back() }),
        }
    }

    fn count(&self, protocol: &'static str, signal: Signal, answer: &'static str) {
        let labels: Labels = vec![
            ("protocol", protocol.to_owned()),
            ("signal", signal.name().to_owned()),
            ("answer", answer.to_owned()),
        ];
        self.metrics.receive_requests.get_or_create(&labels).inc();
    }
}

fn come_back() -> Duration {
    backoff::drawn(COME_BACK.0, COME_BACK.1)
}

/// Room for `bytes` more of a body, and for what is made of it.
fn take_room(room: &mut Taken, bytes: usize) -> Result<(), Full> {
    room.grow(bytes.saturating_mul(ROOM_FACTOR))
}

/// What a body that was not read to its end means for the sender.
fn body_answer(fault: BodyFault<Full>, bytes_max: usize) -> No {
    match fault {
        BodyFault::Room(Full::Now) => No::Refused(Refusal::Busy { after: come_back() }),
        BodyFault::Room(Full::Never) | BodyFault::TooLarge => {
            No::Refused(Refusal::TooLarge { limit: bytes_max })
        }
        BodyFault::Stalled | BodyFault::Late => No::Late { after: come_back() },
        BodyFault::Broken => No::Gone,
        BodyFault::Short { found, .. } | BodyFault::Long { expected: found } => {
            No::Wrong { at: found, text: fault.to_string() }
        }
        BodyFault::Compressed { offset, .. } => No::Wrong { at: offset, text: fault.to_string() },
    }
}

/// The time at which the sender stops waiting.
fn deadline(settings: &Settings, asked: Option<Duration>) -> Instant {
    Instant::now() + asked.unwrap_or(settings.request_deadline).min(settings.request_deadline_max)
}

fn respond(body: Body) -> Response<Body> {
    Response::new(body)
}
