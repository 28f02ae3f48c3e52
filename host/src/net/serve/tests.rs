//! The accept loop on real sockets, with short deadlines.

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

async fn are_open(served: &Served, count: i64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while served.open.get() != count {
        assert!(Instant::now() < deadline, "{} are open", served.open.get());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn one_connection_more_than_there_may_be_closes_the_longest_idle() {
    let patient = Duration::from_secs(600);
    let limits = Limits { connections_max: 2, header_deadline: patient, idle_deadline: patient, ..quick() };
    let served = served(limits, echo).await;
    let first = connect(&served, b"").await;
    are_open(&served, 1).await;
    // It came later, and asked something.
    let mut second = connect(&served, GET).await;
    are_open(&served, 2).await;
    second.read_exact(&mut [0; 12]).await.unwrap();
    let mut third = connect(&served, GET).await;
    let mut answer = [0; 12];
    third.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    assert_eq!(rest(first).await.0, "", "the first is closed");
    // The second is as good as before.
    let head = &b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"[..];
    second.write_all(head).await.unwrap();
    assert!(rest(second).await.0.contains("HTTP/1.1 200"));
    are_open(&served, 1).await;
}

#[tokio::test]
async fn connections_beyond_the_bound_are_closed_while_all_are_at_work_and_room_is_made_again() {
    let begun = Arc::new(tokio::sync::Semaphore::new(0));
    let (go, gate) = tokio::sync::watch::channel(false);
    let waiting = {
        let begun = begun.clone();
        move |_| {
            begun.add_permits(1);
            let mut gate = gate.clone();
            async move {
                gate.wait_for(|is_open| *is_open).await.unwrap();
                Response::new(Full::new(Bytes::new()))
            }
        }
    };
    let limits = Limits { connections_max: 2, header_deadline: Duration::from_secs(600), ..quick() };
    let served = served(limits, waiting).await;
    let held = [connect(&served, GET).await, connect(&served, GET).await];
    begun.acquire_many(2).await.unwrap().forget();
    let mut texts = Vec::new();
    for _ in 0..3 {
        texts.push(rest(connect(&served, GET).await).await.0);
    }
    assert_eq!(texts, [""; 3]);
    go.send(true).unwrap();
    for socket in held {
        assert!(rest(socket).await.0.starts_with("HTTP/1.1 200"));
    }
    all_closed(&served).await;
    assert!(rest(connect(&served, GET).await).await.0.starts_with("HTTP/1.1 200"));
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

#[tokio::test]
async fn a_panic_ends_one_request_and_no_other() {
    let handler = |request: Request<Incoming>| async move {
        assert!(request.uri().path() != "/panic", "as asked");
        Response::new(Full::new(Bytes::from_static(b"fine")))
    };
    let served = served(Limits::default(), handler).await;
    let socket = TokioIo::new(TcpStream::connect(served.address).await.unwrap());
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut send, connection) = hyper::client::conn::http2::handshake(executor, socket).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let _ = connection.await;
    });
    let mut ask = async |path: &str| {
        let request = Request::get(format!("http://a{path}")).body(Full::new(Bytes::new())).unwrap();
        send.send_request(request).await.map(|answer| answer.status().as_u16())
    };
    for _ in 0..3 {
        assert!(ask("/panic").await.is_err());
        assert_eq!(ask("/").await.unwrap(), 200);
    }
    assert_eq!(rest(connect(&served, b"GET /panic HTTP/1.1\r\nhost: a\r\n\r\n").await).await.0, "");
    assert_eq!(ask("/").await.unwrap(), 200);
}
