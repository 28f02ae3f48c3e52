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
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
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
    /// Success, after a while.
    Slow(Duration),
    /// From here on: success if it is smaller than so many bytes, else this gRPC code.
    RefuseFrom { bytes: usize, code: i32 },
    /// From here on: success, but for a request that holds these bytes, of which nothing is taken: gRPC code 3, HTTP 400.
    RefuseWith(Vec<u8>),
    /// The connection ends before the request was read.
    Close,
    /// The request is read, and the connection ends in the middle of the answer.
    Break,
    /// This answer for so long from the first request on, then the next one's.
    For(Duration, Box<Answer>),
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
    /// It was told that it arrived. (A partial success and an answer that breaks off are none.)
    pub(super) is_taken: bool,
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
    /// Of the [`Answer::For`] at hand.
    until: Mutex<Option<Instant>>,
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
        async move { answer(request, shared).await }
    });
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(connection, service).await;
}

type Body = StreamBody<futures_util::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, io::Error>>>>;

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Body>, io::Error> {
    let (head, body) = request.into_parts();
    let is_grpc = head.headers.get("content-type").is_some_and(|value| value == "application/grpc");
    let next = shared.next();
    if let Some(Answer::Close) = next {
        return Err(io::Error::other("as the script says"));
    }
    let Ok(body) = body.collect().await else {
        // The sender went away.
        return Err(io::Error::other("no request"));
    };
    let mut seen = Seen {
        path: head.uri.path().to_owned(),
        is_compressed: head.headers.contains_key("content-encoding"),
        headers: head.headers,
        body: body.to_bytes(),
        at: Instant::now(),
        is_taken: false,
    };
    if is_grpc {
        seen.is_compressed = seen.body[0] == 1;
        assert_eq!(u32::from_be_bytes(seen.body[1..5].try_into().unwrap()) as usize, seen.body.len() - 5);
        seen.body = seen.body.slice(5..);
    }
    let refuses = match &next {
        Some(Answer::RefuseFrom { bytes, .. }) => Some(seen.body.len() >= *bytes),
        Some(Answer::RefuseWith(bytes)) => Some(memchr::memmem::find(&seen.body, bytes).is_some()),
        _ => None,
    };
    seen.is_taken = refuses == Some(false) || matches!(next, None | Some(Answer::Slow(_)));
    shared.seen.lock().unwrap().push(seen);
    let ok = || if is_grpc { grpc_ok(&[]) } else { http(200, None, Vec::new()) };
    Ok(match next {
        None => ok(),
        Some(Answer::GrpcMessage(message)) => grpc_ok(&message),
        Some(Answer::Grpc { code, details }) => grpc_status(code, details),
        Some(Answer::Http { status, header, body }) => http(status, header, body),
        Some(Answer::Slow(time)) => {
            tokio::time::sleep(time).await;
            ok()
        }
        Some(Answer::RefuseFrom { .. } | Answer::RefuseWith(_)) if refuses == Some(false) => ok(),
        Some(Answer::RefuseFrom { code, .. }) => grpc_status(code, None),
        Some(Answer::RefuseWith(_)) if is_grpc => grpc_status(3, None),
        Some(Answer::RefuseWith(_)) => http(400, None, Vec::new()),
        Some(Answer::Break) => broken(is_grpc),
        Some(Answer::Silence | Answer::Close | Answer::For(..)) => std::future::pending().await,
    })
}

impl Shared {
    fn next(&self) -> Option<Answer> {
        let mut script = self.script.lock().unwrap();
        let next = script.pop_front()?;
        match next {
            Answer::RefuseFrom { .. } | Answer::RefuseWith(_) => script.push_front(next.clone()),
            Answer::For(time, answer) => {
                let until = *self.until.lock().unwrap().get_or_insert_with(|| Instant::now() + time);
                if Instant::now() < until {
                    script.push_front(Answer::For(time, answer.clone()));
                    return Some(*answer);
                }
                *self.until.lock().unwrap() = None;
                drop(script);
                return self.next();
            }
            _ => {}
        }
        Some(next)
    }
}

fn broken(is_grpc: bool) -> Response<Body> {
    let frames =
        vec![Ok(Frame::data(Bytes::from_static(b"\0\0"))), Err(io::Error::other("as the script says"))];
    let mut response = Response::new(StreamBody::new(futures_util::stream::iter(frames)));
    let content_type = if is_grpc { "application/grpc" } else { "application/x-protobuf" };
    response.headers_mut().insert("content-type", HeaderValue::from_static(content_type));
    response
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
    let frames: Vec<Result<_, io::Error>> = frames.into_iter().map(Ok).collect();
    Response::new(StreamBody::new(futures_util::stream::iter(frames)))
}
