//! The accept loop of every listener: HTTP/1.1 and HTTP/2 on one port, inside bounds.
//!
//! Connections and the streams of each are counted, heads must come in time, idle and stalled connections end.
//! Every task belongs to [`serve`]: dropping its future ends all of them. When `stop` is cancelled no new request is
//! taken, those in flight are answered, up to a deadline.

use super::tls;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use prometheus_client::metrics::gauge::Gauge;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
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

/// Bounds of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// More are closed as they come.
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
    let mut connections = JoinSet::new();
    let mut last_warning: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => {
                note_end(ended, &open);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let is_full = connections.len() >= limits.connections_max;
        match accepted {
            Ok((socket, _)) if !is_full => {
                open.inc();
                let answer = connection(socket, tls.clone(), limits, handler.clone(), stop.clone());
                connections.spawn(answer);
                continue;
            }
            Ok(_) => {}
            // The peer had gone before we came.
            Err(error) if is_of_peer(&error) => continue,
            // No file descriptors, most likely: others have to end first.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
        if last_warning.is_none_or(|at| at.elapsed() > Duration::from_secs(10)) {
            last_warning = Some(Instant::now());
            let open = connections.len();
            tracing::warn!(
                open,
                most = limits.connections_max,
                "a connection was refused: too many are open"
            );
        }
    }
    drop(listener);
    let ending = async {
        while let Some(ended) = connections.join_next().await {
            note_end(ended, &open);
        }
    };
    // Whoever is still there has had the time that was promised.
    let _ = tokio::time::timeout(limits.stop_deadline, ending).await;
    open.dec_by(i64::try_from(connections.len()).unwrap_or(i64::MAX));
    connections.shutdown().await;
}

fn note_end(ended: Result<(), tokio::task::JoinError>, open: &Gauge) {
    open.dec();
    if ended.is_err_and(|error| error.is_panic()) {
        tracing::error!("a connection ended in a panic");
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
) where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<BoxError>,
{
    // Without it small answers wait for the peer's acknowledgement.
    let _ = socket.set_nodelay(true);
    let Some(tls) = tls else { return drive(socket, None, limits, handler, stop).await };
    let shaken = tokio::select! {
        () = stop.cancelled() => return,
        shaken = tokio::time::timeout(limits.header_deadline, tls.accept(socket)) => shaken,
    };
    match shaken {
        Ok(Ok((stream, certificate))) => {
            drive(stream, certificate.map(PeerCertificate), limits, handler, stop).await;
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
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<BoxError>,
{
    let activity = Activity::new();
    let service = {
        let activity = activity.clone();
        service_fn(move |mut request: Request<Incoming>| {
            let flight = activity.begin(request.version());
            if let Some(certificate) = certificate {
                request.extensions_mut().insert(certificate);
            }
            let answer = handler(request);
            async move {
                Ok::<_, std::convert::Infallible>(answer.await.map(|body| Flying { body, _flight: flight }))
            }
        })
    };
    let io = TokioIo::new(Watched { io, activity: activity.clone(), is_shut: false, drained: 0 });
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
                    alarm.as_mut().reset(at);
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
        while streams.try_join_next().is_some() {}
        streams.spawn(stream);
    }
}

/// What a connection was last seen doing.
#[derive(Debug)]
struct Activity(Mutex<Seen>);

#[derive(Debug)]
struct Seen {
    in_flight: usize,
    /// Whether there was a request yet.
    has_asked: bool,
    /// Only of HTTP/1 do we know that bytes without a request are the head of one.
    is_http1: bool,
    idle_since: Instant,
    head_since: Option<Instant>,
    stalled_since: Option<Instant>,
    /// All is said; what still comes is thrown away.
    lingering_since: Option<Instant>,
}

/// What to do with a connection.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Nothing before this time.
    Look(Instant),
    Close,
    Drop,
}

impl Activity {
    fn new() -> Arc<Activity> {
        Arc::new(Activity(Mutex::new(Seen {
            in_flight: 0,
            has_asked: false,
            is_http1: false,
            idle_since: Instant::now(),
            head_since: None,
            stalled_since: None,
            lingering_since: None,
        })))
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().expect("no panic while activity is noted")
    }

    fn begin(self: &Arc<Activity>, version: Version) -> Flight {
        let mut seen = self.seen();
        seen.in_flight += 1;
        seen.has_asked = true;
        seen.is_http1 = version < Version::HTTP_2;
        seen.head_since = None;
        Flight(self.clone())
    }

    fn note_read(&self) {
        let mut seen = self.seen();
        if seen.in_flight == 0 {
            seen.head_since.get_or_insert_with(Instant::now);
        }
    }

    fn note_write(&self, is_stalled: bool) {
        let mut seen = self.seen();
        if is_stalled {
            seen.stalled_since.get_or_insert_with(Instant::now);
        } else {
            seen.stalled_since = None;
        }
    }

    fn next(&self, now: Instant, limits: Limits, closing_since: Option<Instant>) -> Next {
        let seen = self.seen();
        let stalled =
            seen.stalled_since.map_or(now + limits.write_deadline, |since| since + limits.write_deadline);
        if let Some(since) = seen.lingering_since {
            let at = since + LINGER_DEADLINE;
            return if now >= at { Next::Drop } else { Next::Look(at) };
        }
        let (at, then) = match (seen.in_flight, closing_since, seen.has_asked, seen.head_since) {
            (1.., ..) => (now + limits.idle_deadline, Next::Close),
            (0, Some(since), ..) => (since + CLOSE_DEADLINE, Next::Drop),
            (0, None, false, _) => (seen.idle_since + limits.header_deadline, Next::Drop),
            (0, None, true, Some(since)) if seen.is_http1 => (since + limits.header_deadline, Next::Drop),
            (0, None, true, _) => (seen.idle_since + limits.idle_deadline, Next::Close),
        };
        match (now >= stalled, now >= at) {
            (true, _) => Next::Drop,
            (false, true) => then,
            (false, false) => Next::Look(at.min(stalled)),
        }
    }
}

/// A request in flight.
#[derive(Debug)]
struct Flight(Arc<Activity>);

impl Drop for Flight {
    fn drop(&mut self) {
        let mut seen = self.0.seen();
        seen.in_flight -= 1;
        seen.idle_since = Instant::now();
        seen.head_since = None;
    }
}

/// The body of an answer: its request is in flight until the body is sent or dropped.
struct Flying<B> {
    body: B,
    _flight: Flight,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Flying<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A socket that notes when bytes come and when they are not taken.
struct Watched<I> {
    io: I,
    activity: Arc<Activity>,
    is_shut: bool,
    /// Bytes read after the end.
    drained: usize,
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.activity.note_read();
        }
        read
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.activity.note_write(written.is_pending());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, parts);
        self.activity.note_write(written.is_pending());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_shut {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
            self.is_shut = true;
            self.activity.seen().lingering_since = Some(Instant::now());
        }
        let mut space = [0; 16 << 10];
        while self.drained < LINGER_BYTES {
            let mut buffer = ReadBuf::new(&mut space);
            // An error is an end as well: the peer has gone.
            let read = ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                break;
            }
            self.drained += buffer.filled().len();
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, Full};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    struct Served {
        address: std::net::SocketAddr,
        stop: CancellationToken,
        open: Gauge,
        tasks: JoinSet<()>,
    }

    fn quick() -> Limits {
        Limits {
            header_deadline: Duration::from_millis(200),
            idle_deadline: Duration::from_millis(600),
            write_deadline: Duration::from_millis(200),
            ..Limits::default()
        }
    }

    async fn served<F>(
        limits: Limits,
        handler: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    ) -> Served
    where
        F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, open) = (CancellationToken::new(), Gauge::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, None, limits, handler, stop.clone(), open.clone()));
        Served { address, stop, open, tasks }
    }

    async fn echo(request: Request<Incoming>) -> Response<Full<Bytes>> {
        let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
        Response::new(Full::new(body.unwrap_or_default()))
    }

    /// Everything until the socket closes, and how long that took.
    async fn rest(mut socket: TcpStream) -> (String, Duration) {
        let begun = Instant::now();
        let mut text = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut text)).await;
        let _ = read.expect("closed within 20 s");
        (String::from_utf8_lossy(&text).into_owned(), begun.elapsed())
    }

    async fn connect(served: &Served, bytes: &[u8]) -> TcpStream {
        let mut socket = TcpStream::connect(served.address).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        socket
    }

    async fn all_closed(served: &Served) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while served.open.get() != 0 {
            assert!(Instant::now() < deadline, "{} are open", served.open.get());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

    #[tokio::test]
    async fn who_sends_no_whole_head_is_cut_off_at_the_deadline() {
        // Idling may take much longer: what ends these is the deadline of heads.
        let served = served(Limits { idle_deadline: Duration::from_secs(600), ..quick() }, echo).await;
        // Nothing, half a head, half of HTTP/2's preface, a preface without a request.
        for bytes in [
            &b""[..],
            b"GET / HT",
            b"PRI * HTTP/2.0\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        ] {
            let (_, time) = rest(connect(&served, bytes).await).await;
            assert!(time >= Duration::from_millis(150), "{bytes:?}: {time:?}");
        }
        // A good request first, then half of the next.
        let mut socket = connect(&served, GET).await;
        let mut answer = [0; 12];
        socket.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        socket.write_all(b"GET / H").await.unwrap();
        rest(socket).await;
        all_closed(&served).await;
    }

    #[tokio::test]
    async fn an_idle_connection_lives_longer_than_a_head_may_take_and_is_closed() {
        let served = served(quick(), echo).await;
        let (text, time) = rest(connect(&served, GET).await).await;
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        assert!(time >= Duration::from_millis(500), "{time:?}");
        all_closed(&served).await;
    }

    #[tokio::test]
    async fn connections_beyond_the_bound_are_closed_and_room_is_made_again() {
        let served = served(Limits { connections_max: 2, ..quick() }, echo).await;
        let held = [connect(&served, b"").await, connect(&served, b"").await];
        let deadline = Instant::now() + Duration::from_secs(20);
        while served.open.get() < 2 {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let (text, _) = rest(connect(&served, GET).await).await;
        assert_eq!(text, "");
        drop(held);
        all_closed(&served).await;
        let (text, _) = rest(connect(&served, GET).await).await;
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    }

    #[tokio::test]
    async fn a_peer_that_takes_no_bytes_is_given_up() {
        let large = |_| async { Response::new(Full::new(Bytes::from(vec![0; 64 << 20]))) };
        let served = served(Limits { idle_deadline: Duration::from_secs(60), ..quick() }, large).await;
        let socket = connect(&served, GET).await;
        let deadline = Instant::now() + Duration::from_secs(20);
        while served.open.get() != 1 {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        all_closed(&served).await;
        drop(socket);
    }

    #[tokio::test]
    async fn a_stop_answers_what_is_in_flight_and_takes_nothing_new() {
        let begun = Arc::new(tokio::sync::Semaphore::new(0));
        let (go, gate) = tokio::sync::watch::channel(false);
        let handler = {
            let begun = begun.clone();
            move |_| {
                let (begun, mut gate) = (begun.clone(), gate.clone());
                async move {
                    begun.add_permits(1);
                    gate.wait_for(|is_open| *is_open).await.unwrap();
                    Response::new(Full::new(Bytes::from_static(b"late but whole")))
                }
            }
        };
        let mut served = served(Limits::default(), handler).await;
        let (asking, idle) = (connect(&served, GET).await, connect(&served, b"").await);
        begun.acquire().await.unwrap().forget();
        served.stop.cancel();
        // The idle one is closed at once, the listener as well.
        assert_eq!(rest(idle).await.0, "");
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(served.address).await.is_ok() {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        go.send(true).unwrap();
        assert!(rest(asking).await.0.ends_with("late but whole"));
        served.tasks.join_next().await.unwrap().unwrap();
        assert_eq!(served.open.get(), 0);
    }

    #[tokio::test]
    async fn a_stop_does_not_wait_for_ever() {
        let never = |_| std::future::pending::<Response<Full<Bytes>>>();
        let mut served =
            served(Limits { stop_deadline: Duration::from_millis(100), ..Limits::default() }, never).await;
        let socket = connect(&served, GET).await;
        let deadline = Instant::now() + Duration::from_secs(20);
        while served.open.get() != 1 {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        served.stop.cancel();
        served.tasks.join_next().await.unwrap().unwrap();
        assert_eq!((rest(socket).await.0.as_str(), served.open.get()), ("", 0));
    }

    #[tokio::test]
    async fn an_answer_before_the_end_of_the_body_reaches_the_sender() {
        let refuse = |_| async { Response::new(Full::new(Bytes::from_static(b"no"))) };
        let served = served(Limits::default(), refuse).await;
        let mut socket =
            connect(&served, b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 20000000\r\n\r\n").await;
        // All of it is sent before the answer is read, as simple clients do.
        socket.write_all(&vec![0; 20_000_000]).await.unwrap();
        assert!(rest(socket).await.0.ends_with("no"));
    }
}
