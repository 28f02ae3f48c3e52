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
/// The least that a request is charged, before its body: its head, its stream, its place among those that wait. Else
/// requests of a few bytes could wait in any number.
pub const REQUEST_BYTES_MIN: usize = 16 << 10;
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

    /// Room for one request, with what each of them costs; its body grows into that. None for who is over its quota.
    fn open_room(&self, caller: &Caller) -> Result<Taken, No> {
        if let Some(over) = self.tenants.over_quota(caller, Instant::now()) {
            return Err(No::Refused(Refusal::over_quota(over, COME_BACK)));
        }
        let mut room = self.tenants.open_room(caller);
        let taken = room.grow_ahead(REQUEST_BYTES_MIN);
        taken.map_err(|full| body_answer(BodyFault::Room(full), self.settings.body_bytes_max))?;
        Ok(room)
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

#[cfg(test)]
mod tests {
    use super::fixture::*;
    use super::*;
    use crate::batch::{Request as OtlpRequest, TenantId, json};
    use crate::net::authority::Authority;
    use crate::tenants::{Credential, Names, Proof, Rights, Terms, Who};
    use rustls::pki_types::ServerName;
    use sha2::{Digest, Sha256};
    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;

    const LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
    const GRPC: (&str, &str) = ("content-type", "application/grpc");
    const TOKEN: (&str, &str) = ("authorization", SENDER);

    #[tokio::test]
    async fn a_port_in_use_and_a_missing_certificate_are_told_by_name() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = taken.local_addr().unwrap();
        let settings = Settings { http: Some(ListenSettings { listen, tls: None }), ..Settings::default() };
        let error = Listeners::bind(&settings).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("receivers.otlp.http: {listen}: ")), "{error}");
        let tls = Authority::new().server("missing");
        let listen = "127.0.0.1:0".parse().unwrap();
        let settings =
            Settings { grpc: Some(ListenSettings { listen, tls: Some(tls) }), ..Settings::default() };
        let error = Listeners::bind(&settings).await.unwrap_err().to_string();
        assert!(error.starts_with("receivers.otlp.grpc: tls: ") && error.contains("missing.pem"), "{error}");
    }

    #[tokio::test]
    async fn a_client_certificate_is_a_credential() {
        let authority = Authority::new();
        authority.sign("server", "localhost");
        let agent = authority.sign("agent", "agent");
        authority.sign("other", "other");
        let tls =
            tls::ServerSettings { client_ca: Some(authority.path("ca.pem")), ..authority.server("server") };
        let listen = ListenSettings { listen: "127.0.0.1:0".parse().unwrap(), tls: Some(tls) };
        let settings = Settings { grpc: Some(listen.clone()), http: Some(listen), ..Settings::default() };
        let mut tenants = tenants(64 << 20);
        tenants.credentials.push(Credential {
            proof: Proof::Certificate(Sha256::digest(&agent).into()),
            who: Who::Tenant { tenant: TenantId::new("agents").unwrap(), projects: Names::All },
            rights: Rights { send: true, read: false, admin: false },
        });
        let taking = |_| async { Ok(Receipt::default()) };
        let world = World::start_with(settings, tenants, taking).await;
        for (name, code) in [("agent", "0"), ("other", "16")] {
            let mut config = tls::client_config(authority.client_as(name)).unwrap();
            config.alpn_protocols = vec![b"h2".to_vec()];
            let socket = TcpStream::connect(world.grpc).await.unwrap();
            let host = ServerName::try_from("localhost").unwrap();
            let stream = TlsConnector::from(Arc::new(config)).connect(host, socket).await.unwrap();
            let answer = Http2::over(stream).await.post(LOGS, &[GRPC], framed(0, b"")).await;
            assert_eq!(answer.header("grpc-status"), Some(code), "{name}");
        }
        // Plain text on a TLS port gets no answer, and the port serves on.
        assert_eq!(post(world.grpc, LOGS, &[GRPC], b"").await.status, 0);
        assert_eq!(post(world.http, "/v1/logs", &[], b"").await.status, 0);
    }

    #[tokio::test]
    async fn a_tenant_over_its_quota_is_told_before_its_body_is_read_and_an_agent_is_not() {
        let mut settings = tenants(64 << 20);
        settings.quotas.default.records = Some(1);
        settings.credentials.push(Credential {
            proof: Proof::of_token("agent"),
            who: Who::SpeaksFor { tenants: Names::All },
            rights: Rights { send: true, read: false, admin: false },
        });
        let taking = |_| async { Ok(Receipt::default()) };
        let world = World::start_with(small(), settings, taking).await;
        let records = ["{}"; 110].join(",");
        let json = format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{records}]}}]}}]}}"#);
        let body = json::to_protobuf(&json::LOGS, json.as_bytes(), 10_000).unwrap();
        let sent = OtlpRequest::check(Signal::Logs, body.into()).unwrap();
        let caller = world.tenants.authenticate(Some(SENDER), None).unwrap();
        let terms = Terms { record_bytes_max: 100, now: Instant::now(), held_bytes: &|_| 0 };
        assert_eq!(world.tenants.admit(sent, &caller, &terms).parts.len(), 1);

        // Nothing follows.
        let head = "POST /v1/logs HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\nauthorization: Bearer sender\r\ncontent-length: 1000\r\n\r\n";
        let answer = raw(world.http, head.as_bytes()).await;
        let seconds = answer.header("retry-after").map(|text| text.parse::<u64>().unwrap());
        assert_eq!(answer.status, 429);
        assert!(seconds.is_some_and(|seconds| (50..=152).contains(&seconds)), "{answer:?}");
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.starts_with("over quota: tenant `acme` may send 1 records a second: come back in "));
        let answer = Http2::connect(world.grpc).await.post(LOGS, &[GRPC, TOKEN], framed(0, b"")).await;
        assert_eq!(answer.header("grpc-status"), Some("8"));
        assert!(answer.header("grpc-status-details-bin").is_some(), "without RetryInfo it were final");
        assert_eq!((world.handed(), world.tenants.room().peak_bytes()), (vec![], 0));
        let labels = vec![("tenant", "acme".to_owned()), ("quota", "records".to_owned())];
        assert_eq!(world.metrics.admit_over_quota.get_or_create(&labels).get(), 2);

        let agent = ("authorization", "Bearer agent");
        let answer = Http2::connect(world.grpc).await.post(LOGS, &[GRPC, agent], framed(0, b"")).await;
        assert_eq!(answer.header("grpc-status"), Some("0"));
    }

    /// A pipeline that walks what it gets, as the real one begins.
    async fn walking() -> World {
        World::start(small(), 64 << 20, |submission: Submission| async move {
            let Submission { signal, body, .. } = submission;
            match OtlpRequest::check(signal, body) {
                Ok(_) => Ok(Receipt::default()),
                Err(wrong) => {
                    Err(Refusal::Malformed { offset: wrong.offset, expected: wrong.expected.into() })
                }
            }
        })
        .await
    }

    #[tokio::test]
    async fn a_request_cut_at_any_length_is_refused_with_the_place_and_the_next_is_served() {
        let json = br#"{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]},
            "scopeLogs":[{"scope":{"name":"lib"},"logRecords":[{"timeUnixNano":"1","severityNumber":9,"traceId":"00000000000000000000000000000001",
            "body":{"kvlistValue":{"values":[{"key":"a","value":{"arrayValue":{"values":[{"doubleValue":1.5},{"bytesValue":"AAE="}]}}}]}}}]}]}]}"#;
        let sample = json::to_protobuf(&json::LOGS, json, 10_000).unwrap();
        let world = walking().await;
        let mut connection = Http2::connect(world.grpc).await;
        for end in 0..=sample.len() {
            let cut = &sample[..end];
            // The request has one field: only nothing and all of it are whole.
            let is_whole = end == 0 || end == sample.len();
            let answer = connection.post(LOGS, &[GRPC, TOKEN], framed(0, cut)).await;
            assert_eq!(answer.header("grpc-status"), Some(if is_whole { "0" } else { "3" }), "{end}");
            let message = answer.header("grpc-message").unwrap_or_default();
            assert_eq!(message.starts_with("malformed at byte "), !is_whole, "{end}: {message}");
            let protobuf = ("content-type", "application/x-protobuf");
            let answer = post(world.http, "/v1/logs", &[protobuf, TOKEN], cut).await;
            assert_eq!(answer.status, if is_whole { 200 } else { 400 }, "{end}");
        }
    }

    #[tokio::test]
    async fn odd_but_valid_requests_are_taken() {
        let world = walking().await;
        let headers = [("content-type", "application/json"), TOKEN];
        let attribute = r#"{"key":"k","value":{"stringValue":"v"}}"#;
        let many = [attribute; 100_000].join(",");
        let record = |fields: &str| {
            format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{{fields}}}]}}]}}]}}"#)
        };
        for (name, text) in [
            ("100,000 attributes in one record", record(&format!(r#""attributes":[{many}]"#))),
            ("empty ids", record(r#""traceId":"","spanId":"""#)),
            ("a lone surrogate", record(r#""body":{"stringValue":"\ud800"}"#)),
            ("the deepest value", {
                let (open, close) = (r#"{"arrayValue":{"values":["#.repeat(64), "]}}".repeat(64));
                record(&format!(r#""body":{open}{{}}{close}"#))
            }),
        ] {
            let answer = post(world.http, "/v1/logs", &headers, text.as_bytes()).await;
            assert_eq!(answer.status, 200, "{name}: {}", String::from_utf8_lossy(&answer.body));
        }
    }
}
