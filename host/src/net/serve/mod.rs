//! The accept loop of every listener: HTTP/1.1 and HTTP/2 on one port, inside bounds.
//!
//! Connections and the streams of each are counted, heads must come in time, idle and stalled connections end.
//! Every task belongs to [`serve`]: dropping its future ends all of them. When `stop` is cancelled no new request is
//! taken, those in flight are answered, up to a deadline.

mod activity;

use super::tls;
use activity::{Activity, Flying, Next, Watched};
use bytes::Bytes;
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use prometheus_client::metrics::gauge::Gauge;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Advertised, so that a sender needs a sixtieth of the frames (and of our system calls).
const FRAME_BYTES_MAX: u32 = 1 << 20;
/// A request of usual size needs no round trip for more window.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Heads of requests: names, tokens, traces; not data.
const HEADERS_BYTES_MAX: u32 = 32 << 10;
/// The read buffer of an HTTP/1.1 connection, which bounds a head too.
const HTTP1_BUFFER_BYTES: usize = 128 << 10;
/// Full answers are short; a tail is written as it is read.
const SEND_BUFFER_BYTES: usize = 256 << 10;
/// How long the last frames of a connection that we close may take.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);
/// How long, and how much, we go on reading what nobody wants after the last answer. To close a socket with bytes in
/// it is to reset it, and a reset can overtake the answer: who sent too large a body would never learn so.
const LINGER_DEADLINE: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 256 << 20;

/// Who is refused a thousand times a second is told of once in so long.
const WARNING_PAUSE: Duration = Duration::from_secs(10);

/// Bounds of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// One more closes the connection that has been idle for longest, or is closed itself if none is.
    pub connections_max: usize,
    /// Requests at one time on one HTTP/2 connection.
    pub streams_max: u32,
    /// From the first byte of a request to the end of its head; also from the connection to its first request, TLS included.
    pub header_deadline: Duration,
    /// A connection without a request for so long is closed.
    pub idle_deadline: Duration,
    /// A peer that takes no byte of an answer for so long is given up.
    pub write_deadline: Duration,
    /// HTTP/2: a ping after so much silence, and again so long for its answer.
    pub ping_interval: Duration,
    /// What is in flight when we stop may take so long.
    pub stop_deadline: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_max: 1024,
            streams_max: 256,
            header_deadline: Duration::from_secs(10),
            // Longer than the minute at which SDKs export metrics, so that they keep their connection.
            idle_deadline: Duration::from_secs(300),
            write_deadline: Duration::from_secs(30),
            ping_interval: Duration::from_secs(20),
            stop_deadline: Duration::from_secs(10),
        }
    }
}

/// In a request's extensions: the SHA-256 of the DER of the certificate that the client showed, once TLS has
/// verified it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCertificate(pub [u8; 32]);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Accepts connections and answers their requests with `handler`, until `stop` is cancelled and what was in flight is
/// answered. `open` counts the connections.
///
/// An answer counts as in flight until its body is sent or dropped: a handler whose bodies have no end watches `stop`.
pub async fn serve<H, F, B>(
    listener: TcpListener,
    tls: Option<tls::Acceptor>,
    limits: Limits,
    handler: H,
    stop: CancellationToken,
    open: Gauge,
) where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<BoxError>,
{
    let mut connections = Connections::new(open);
    let mut last_warning: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            () = connections.ended(), if !connections.tasks.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        let problem = match accepted {
            Ok((socket, _)) => {
                if connections.tasks.len() < limits.connections_max || connections.close_idle().await {
                    let (activity, tls) = (Activity::new(), tls.clone());
                    let (handler, stop) = (handler.clone(), stop.clone());
                    connections
                        .begin(activity.clone(), connection(socket, tls, limits, handler, stop, activity));
                    continue;
                }
                "too many are open, and all of them at work".to_owned()
            }
            // The peer had gone before we came.
            Err(error) if is_of_peer(&error) => continue,
            Err(error) => {
                // No file descriptors, most likely: others have to end first.
                tokio::time::sleep(Duration::from_millis(100)).await;
                error.to_string()
            }
        };
        if last_warning.is_none_or(|at| at.elapsed() > WARNING_PAUSE) {
            last_warning = Some(Instant::now());
            tracing::warn!(problem, open = connections.tasks.len(), "a connection was refused");
        }
    }
    drop(listener);
    let ending = async {
        while !connections.tasks.is_empty() {
            connections.ended().await
        }
    };
    // Whoever is still there has had the time that was promised.
    let _ = tokio::time::timeout(limits.stop_deadline, ending).await;
    connections.open.dec_by(i64::try_from(connections.tasks.len()).unwrap_or(i64::MAX));
    connections.tasks.shutdown().await;
}

/// The open connections of a listener, each in a task of its own.
struct Connections {
    tasks: JoinSet<()>,
    known: HashMap<Id, (AbortHandle, Arc<Activity>)>,
    open: Gauge,
}

impl Connections {
    fn new(open: Gauge) -> Connections {
        Connections { tasks: JoinSet::new(), known: HashMap::new(), open }
    }

    fn begin(&mut self, activity: Arc<Activity>, connection: impl Future<Output = ()> + Send + 'static) {
        let task = self.tasks.spawn(connection);
        self.known.insert(task.id(), (task, activity));
        self.open.inc();
    }

    /// Waits for the end of one, if there is any.
    async fn ended(&mut self) {
        let Some(ended) = self.tasks.join_next_with_id().await else { return };
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, ())| *id);
        self.known.remove(&id);
        self.open.dec();
        if ended.is_err_and(|error| error.is_panic()) {
            tracing::error!("a connection ended in a panic");
        }
    }

    /// Closes the one that has been without a request for longest: who holds connections and asks nothing must not
    /// keep others out. False if all are at work.
    async fn close_idle(&mut self) -> bool {
        let idle = self.known.values().filter_map(|(task, activity)| Some((activity.idle_since()?, task)));
        let Some((_, task)) = idle.min_by_key(|(since, _)| *since) else { return false };
        task.abort();
        // At its next wake, which the abort is.
        self.ended().await;
        true
    }
}

fn is_of_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn connection<H, F, B>(
    socket: TcpStream,
    tls: Option<tls::Acceptor>,
    limits: Limits,
    handler: H,
    stop: CancellationToken,
    activity: Arc<Activity>,
) where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<BoxError>,
{
    // Without it small answers wait for the peer's acknowledgement.
    let _ = socket.set_nodelay(true);
    let Some(tls) = tls else { return drive(socket, None, limits, handler, stop, activity).await };
    let shaken = tokio::select! {
        () = stop.cancelled() => return,
        shaken = tokio::time::timeout(limits.header_deadline, tls.accept(socket)) => shaken,
    };
    match shaken {
        Ok(Ok((stream, certificate))) => {
            drive(stream, certificate.map(PeerCertificate), limits, handler, stop, activity).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake was refused"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

/// One connection, to its end.
async fn drive<I, H, F, B>(
    io: I,
    certificate: Option<PeerCertificate>,
    limits: Limits,
    handler: H,
    stop: CancellationToken,
    activity: Arc<Activity>,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<BoxError>,
{
    let service = {
        let activity = activity.clone();
        service_fn(move |mut request: Request<Incoming>| {
            let flight = activity.begin(request.version());
            if let Some(certificate) = certificate {
                request.extensions_mut().insert(certificate);
            }
            let answer = handler(request);
            async move { Ok::<_, std::convert::Infallible>(answer.await.map(|body| Flying::new(body, flight))) }
        })
    };
    let io = TokioIo::new(Watched::new(io, activity.clone()));
    let protocols = protocols(limits);
    let mut connection = pin!(protocols.serve_connection(io, service));
    let mut stopped = pin!(stop.cancelled());
    let mut alarm = pin!(tokio::time::sleep_until(Instant::now()));
    let mut closing_since: Option<Instant> = None;
    let mut is_stopping = false;
    poll_fn(|cx| {
        loop {
            if connection.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let now = Instant::now();
            if !is_stopping && stopped.as_mut().poll(cx).is_ready() {
                is_stopping = true;
                closing_since.get_or_insert(now);
                connection.as_mut().graceful_shutdown();
                continue;
            }
            match activity.next(now, limits, closing_since) {
                Next::Look(at) => {
                    // Most times only move further away: an alarm that comes too early looks again.
                    if alarm.is_elapsed() || at < alarm.deadline() {
                        alarm.as_mut().reset(at);
                    }
                    ready!(alarm.as_mut().poll(cx));
                }
                Next::Close => {
                    closing_since = Some(now);
                    connection.as_mut().graceful_shutdown();
                }
                Next::Drop => return Poll::Ready(()),
            }
        }
    })
    .await;
}

fn protocols(limits: Limits) -> auto::Builder<Streams> {
    let mut builder = auto::Builder::new(Streams::default());
    builder.http1().max_buf_size(HTTP1_BUFFER_BYTES).header_read_timeout(None);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_frame_size(FRAME_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval(limits.ping_interval)
        .keep_alive_timeout(limits.ping_interval);
    builder
}

/// Runs the streams of one HTTP/2 connection; they end with it.
#[derive(Clone, Default)]
struct Streams(Arc<Mutex<JoinSet<()>>>);

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let mut streams = self.0.lock().expect("no panic while streams are counted");
        while let Some(ended) = streams.try_join_next() {
            if ended.is_err_and(|error| error.is_panic()) {
                tracing::error!("a request ended in a panic");
            }
        }
        streams.spawn(stream);
    }
}

#[cfg(test)]
mod tests;
