//! A server at the socket that answers as it is told, over gRPC or HTTP, and remembers what it was sent.

use crate::net::tls::Acceptor;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// One answer; when the script is over, the answer is success.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// gRPC: this code, and these details (base64) if any. HTTP/2 status 200.
    Grpc { code: i32, details: Option<String> },
    /// gRPC: the message of a success.
    GrpcMessage(Vec<u8>),
    /// HTTP: this status, header and body.
    Http { status: u16, header: Option<(&'static str, &'static str)>, body: Vec<u8> },
    /// The head is read, no answer comes.
    Silence,
    /// Success if it is smaller than so many bytes, else gRPC code 3 (invalid argument).
    RefuseFrom { bytes: usize },
}

/// A request that came in.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    /// For gRPC without the frame's header.
    pub(super) body: Bytes,
    pub(super) is_compressed: bool,
    pub(super) at: Instant,
}

#[derive(Debug)]
pub(super) struct Fake {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Shared {
    script: Mutex<VecDeque<Answer>>,
    seen: Mutex<Vec<Seen>>,
}

impl Fake {
    pub(super) async fn start(script: impl IntoIterator<Item = Answer>) -> Fake {
        Fake::start_with(script, None).await
    }

    pub(super) async fn start_with(script: impl IntoIterator<Item = Answer>, tls: Option<Acceptor>) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared =
            Arc::new(Shared { script: Mutex::new(script.into_iter().collect()), ..Shared::default() });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, tls, shared.clone()));
        Fake { address, shared, _tasks: tasks }
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }
}

async fn accept(listener: TcpListener, tls: Option<Acceptor>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let (tls, shared) = (tls.clone(), shared.clone());
        connections.spawn(async move {
            match tls {
                None => serve(TokioIo::new(socket), shared).await,
                Some(tls) => {
                    if let Ok((stream, _)) = tls.accept(socket).await {
                        serve(TokioIo::new(stream), shared).await;
                    }
                }
            }
        });
    }
}

async fn serve<C: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static>(
    connection: C,
    shared: Arc<Shared>,
) {
    let service = service_fn(|request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(answer(request, shared).await) }
    });
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(connection, service).await;
}

type Body = StreamBody<futures_util::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let is_grpc = head.headers.get("content-type").is_some_and(|value| value == "application/grpc");
    let body = body.collect().await.unwrap().to_bytes();
    let mut seen = Seen {
        path: head.uri.path().to_owned(),
        is_compressed: head.headers.contains_key("content-encoding"),
        headers: head.headers,
        body,
        at: Instant::now(),
    };
    if is_grpc {
        seen.is_compressed = seen.body[0] == 1;
        assert_eq!(u32::from_be_bytes(seen.body[1..5].try_into().unwrap()) as usize, seen.body.len() - 5);
        seen.body = seen.body.slice(5..);
    }
    let bytes = seen.body.len();
    shared.seen.lock().unwrap().push(seen);
    let next = shared.script.lock().unwrap().pop_front();
    match next {
        None if is_grpc => grpc_ok(&[]),
        None => http(200, None, Vec::new()),
        Some(Answer::GrpcMessage(message)) => grpc_ok(&message),
        Some(Answer::Grpc { code, details }) => grpc_status(code, details),
        Some(Answer::Http { status, header, body }) => http(status, header, body),
        Some(Answer::Silence) => std::future::pending().await,
        Some(Answer::RefuseFrom { bytes: least }) => {
            shared.script.lock().unwrap().push_front(Answer::RefuseFrom { bytes: least });
            if bytes >= least { grpc_status(3, None) } else { grpc_ok(&[]) }
        }
    }
}

fn grpc_ok(message: &[u8]) -> Response<Body> {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(message);
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
    grpc(Vec::from([Frame::data(frame.freeze()), Frame::trailers(trailers)]))
}

fn grpc_status(code: i32, details: Option<String>) -> Response<Body> {
    let mut response = grpc(Vec::new());
    let headers = response.headers_mut();
    headers.insert("grpc-status", code.into());
    headers.insert("grpc-message", HeaderValue::from_static("told%20so"));
    if let Some(details) = details {
        headers.insert("grpc-status-details-bin", details.parse().unwrap());
    }
    response
}

fn grpc(frames: Vec<Frame<Bytes>>) -> Response<Body> {
    let mut response = respond(frames);
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

fn http(status: u16, header: Option<(&'static str, &'static str)>, body: Vec<u8>) -> Response<Body> {
    let mut response = respond(Vec::from([Frame::data(body.into())]));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    if let Some((name, value)) = header {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn respond(frames: Vec<Frame<Bytes>>) -> Response<Body> {
    let frames: Vec<Result<_, Infallible>> = frames.into_iter().map(Ok).collect();
    Response::new(StreamBody::new(futures_util::stream::iter(frames)))
}
