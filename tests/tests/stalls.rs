//! Whoever hangs, is slow, full or not there costs what it has, and holds back nobody else.

use crate::deliver::LOCAL;
use crate::world::{Event, PATIENCE, Tail, World, eventually, logs};
use prost::Message;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use trommel::config::Config;

/// Streams, and a second sink at this address.
fn with_sink(address: &str) -> String {
    format!(
        r#"
receivers: {{ otlp: {{ grpc: {{ listen: 127.0.0.1:0 }}, http: {{ listen: 127.0.0.1:0 }} }} }}
console: {{ listen: 127.0.0.1:0 }}
pipelines: [{{ name: all, sinks: [streams, far] }}]
sinks: {{ streams: {{ type: streams }}, far: {{ type: otlp, protocol: http, compression: none, endpoint: "http://{address}" }} }}
"#
    )
}

/// A collector whose settings are changed where the file has no key for them.
async fn start_config(yaml: &str, change: impl FnOnce(&mut Config)) -> World {
    let folder = tempfile::tempdir().unwrap();
    let mut config =
        Config::parse(yaml, folder.path(), "test.yaml").unwrap_or_else(|faults| panic!("{faults}"));
    change(&mut config);
    World::start_config(folder, config).await
}

/// Small times, so that a test need not wait for large ones.
fn hurry(config: &mut Config) {
    for delivery in &mut config.deliver {
        delivery.attempt_timeout = Duration::from_millis(200);
        delivery.backoff.first = Duration::from_millis(50);
        delivery.backoff.most = Duration::from_millis(200);
        delivery.drain_for = Duration::from_millis(300);
    }
}

/// Sends so many lines, one after the other, and asserts that none had to wait.
async fn send_lines(world: &World, what: &str, count: usize) {
    for number in 0..count {
        let line = format!("{what} {number}");
        let sent = world.send(None, logs(&[("project.id", "shop")], &[&line]));
        let answer = timeout(Duration::from_secs(5), sent).await.expect("the sender is not blocked").unwrap();
        assert_eq!(answer.partial_success, None);
    }
}

fn lines(what: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{what} {number}")).collect()
}

fn bodies(records: &[serde_json::Value]) -> Vec<&str> {
    records.iter().map(|record| record["body"].as_str().unwrap()).collect()
}

/// Tries to send of the second sink, by their result.
async fn attempts(world: &World, result: &str) -> Option<f64> {
    world.metric(&format!("trommel_deliver_attempts_total{{sink=\"far\",result=\"{result}\"}}")).await
}

/// Records in these lines of the ledger.
async fn ledger(world: &World, name: &str, label: &str) -> f64 {
    let text = world.metrics().await;
    let is_meant =
        |line: &&str| line.starts_with(&format!("trommel_ledger_{name}_records")) && line.contains(label);
    text.lines().filter(is_meant).map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_accepts_and_never_answers_is_timed_out_and_holds_back_no_other() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let mut accepting = JoinSet::new();
    accepting.spawn(async move {
        let mut held = Vec::new();
        while let Ok(accepted) = silent.accept().await {
            held.push(accepted);
        }
    });
    let world = start_config(&with_sink(&address), hurry).await;
    send_lines(&world, "line", 20).await;
    let records = world.history_of(None, "local", "shop", 20).await;
    assert_eq!(bodies(&records), lines("line", 20));
    eventually("two attempts timed out", || async { attempts(&world, "retry").await >= Some(2.0) }).await;
    assert_eq!(ledger(&world, "in_flight", "sink=\"far\"").await, 20.0);
    send_lines(&world, "more", 5).await;
    world.history_of(None, "local", "shop", 25).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_sink_loses_its_own_oldest_records_and_nobody_waits() {
    // Answers 503 to everything.
    let full = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = full.local_addr().unwrap().to_string();
    let mut refusing = JoinSet::new();
    refusing.spawn(async move {
        while let Ok((mut socket, _)) = full.accept().await {
            let mut bytes = vec![0; 1 << 20];
            let _ = socket.read(&mut bytes).await;
            let answer = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _ = socket.write_all(answer).await;
        }
    });
    let yaml = with_sink(&address) + "journal: { kind: memory, max: 2MiB }\n";
    let world = start_config(&yaml, hurry).await;
    let large = "x".repeat(200_000);
    for number in 0..30 {
        let sent = world.send(None, logs(&[("project.id", "shop")], &[&format!("{number} {large}")]));
        timeout(Duration::from_secs(5), sent).await.expect("the sender is not blocked").unwrap();
        // The store takes each before the next, so that only the full sink is behind.
        eventually("it is stored", || async {
            ledger(&world, "delivered", "sink=\"streams\"").await >= f64::from(number + 1)
        })
        .await;
    }
    assert_eq!(world.history_of(None, "local", "shop", 30).await.len(), 30);
    assert!(
        ledger(&world, "expired", "sink=\"far\",reason=\"room\"").await >= 10.0,
        "{}",
        world.metrics().await
    );
    assert_eq!(ledger(&world, "expired", "sink=\"streams\"").await, 0.0);
    eventually("refused attempts", || async { attempts(&world, "retry").await >= Some(1.0) }).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_was_not_there_at_the_start_gets_everything_when_it_comes() {
    let port = crate::shutdown::free_port();
    let world = start_config(&with_sink(&format!("127.0.0.1:{port}")), hurry).await;
    send_lines(&world, "early", 3).await;
    eventually("a failed attempt", || async { attempts(&world, "retry").await >= Some(1.0) }).await;
    let late = World::start(
        &LOCAL.replace("http: { listen: 127.0.0.1:0 }", &format!("http: {{ listen: 127.0.0.1:{port} }}")),
    )
    .await;
    let records = late.history_of(None, "local", "shop", 3).await;
    // Several deliveries were on the way: in which order they get through nobody promises.
    let mut arrived = bodies(&records);
    arrived.sort_unstable();
    assert_eq!(arrived, lines("early", 3));
    assert_eq!(world.history_of(None, "local", "shop", 3).await.len(), 3);
    world.end().await;
    late.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_who_joins_while_the_store_hangs_misses_no_line() {
    let world = World::start(LOCAL).await;
    let mut first = world.tail(None, "local", "shop", None).await;
    send_lines(&world, "before", 2).await;
    let position = first.next().await.unwrap().id;
    world.history_of(None, "local", "shop", 2).await;

    let held = world.app.streams.as_ref().unwrap().hold().await;
    send_lines(&world, "while it hangs", 5).await;
    let mut tail = world.tail(None, "local", "shop", Some(&position)).await;
    send_lines(&world, "after joining", 5).await;
    let expected: Vec<String> =
        [vec!["before 1".into()], lines("while it hangs", 5), lines("after joining", 5)].concat();
    // What is stored is shown at once; the rest waits for the store, two seconds here.
    let mut seen = Vec::new();
    let hangs_until = Instant::now() + Duration::from_secs(2);
    while let Ok(shown) = tokio::time::timeout_at(hangs_until, tail.bodies(1)).await {
        seen.extend(shown);
    }
    assert!(seen.len() <= 1, "these are not stored: {seen:?}");
    drop(held);
    let rest = expected.len() - seen.len();
    seen.extend(tail.bodies(rest).await);
    assert_eq!(seen, expected);
    // Whoever was there before saw them live all the while.
    assert_eq!(first.bodies(11).await, expected);
    let history = world.history_of(None, "local", "shop", 12).await;
    assert_eq!(bodies(&history)[1..], expected);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_whose_store_does_not_come_back_is_told_and_live_goes_on() {
    let world = World::start(LOCAL).await;
    let mut first = world.tail(None, "local", "shop", None).await;
    send_lines(&world, "before", 1).await;
    let position = first.next().await.unwrap().id;
    world.history_of(None, "local", "shop", 1).await;

    let held = world.app.streams.as_ref().unwrap().hold().await;
    send_lines(&world, "not stored", 4).await;
    let mut tail = world.tail(None, "local", "shop", Some(&position)).await;
    let gap = tail.next().await.unwrap();
    assert_eq!(
        (gap.kind.as_str(), &gap.data["reason"], &gap.data["count"]),
        ("gap", &"store".into(), &4.into())
    );
    send_lines(&world, "live", 2).await;
    assert_eq!(tail.bodies(2).await, lines("live", 2));
    drop(held);
    // What the gap names can be read when the store is back.
    let history = world.history_of(None, "local", "shop", 7).await;
    assert_eq!(bodies(&history)[1..5], lines("not stored", 4));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_claim_64_mib_and_stall_cost_what_they_sent_and_end_by_deadline() {
    const SENT: usize = 1000;
    let world =
        start_config(LOCAL, |config| config.receivers.body_idle_deadline = Duration::from_secs(3)).await;
    let head = format!(
        "POST /v1/logs HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
        64 << 20
    );
    let begin = [head.as_bytes(), &[b'x'; SENT]].concat();
    let mut stalled = JoinSet::new();
    let to = world.otlp_http();
    for _ in 0..256 {
        let begin = begin.clone();
        let mut socket = TcpStream::connect(to).await.unwrap();
        socket.write_all(&begin).await.unwrap();
        stalled.spawn(async move {
            let mut answer = vec![0; 4096];
            let read = timeout(PATIENCE, socket.read(&mut answer))
                .await
                .expect("it ends by deadline")
                .unwrap_or_default();
            String::from_utf8_lossy(&answer[..read]).into_owned()
        });
    }
    eventually("all of them are open", || async {
        world.metric("trommel_receive_connections{listener=\"http\"}").await == Some(256.0)
    })
    .await;
    eventually("what they sent has room", || async {
        world.metric("trommel_admit_room_used_bytes").await >= Some((256 * SENT) as f64)
    })
    .await;
    let used = world.metric("trommel_admit_room_used_bytes").await;
    // A request holds a little before its first byte; what they sent is less than that.
    let most = (256 * trommel::receivers::REQUEST_BYTES_MIN) as f64;
    assert!(used.is_some_and(|used| used <= most), "{used:?} bytes of room");
    // Others are served meanwhile, on both ports.
    send_lines(&world, "good", 3).await;
    let url = format!("http://{}/v1/logs", world.otlp_http());
    let post = world.http.post(url).header("content-type", "application/x-protobuf");
    let answer =
        post.body(logs(&[("project.id", "shop")], &["good 3"]).encode_to_vec()).send().await.unwrap();
    assert_eq!(answer.status(), 200);

    while let Some(answer) = stalled.join_next().await {
        let answer = answer.unwrap();
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.to_ascii_lowercase().contains("retry-after:"), "{answer}");
    }
    eventually("their room is given back", || async {
        world.metric("trommel_admit_room_used_bytes").await == Some(0.0)
    })
    .await;
    let records = world.history_of(None, "local", "shop", 4).await;
    assert_eq!(bodies(&records), lines("good", 4));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_who_does_not_read_is_told_what_was_lost_and_slows_nobody() {
    const LINES: u64 = 60;
    let yaml = LOCAL.replace("plugins: [redact], ", "unguarded: true, ");
    let world = World::start(&yaml).await;
    let mut slow = world.tail(None, "local", "shop", None).await;
    let large = "x".repeat(500_000);
    for number in 0..LINES {
        let sent = world.send(None, logs(&[("project.id", "shop")], &[&format!("{number} {large}")]));
        timeout(Duration::from_secs(5), sent).await.expect("the sender is not blocked").unwrap();
    }
    eventually("all are stored", || async {
        ledger(&world, "delivered", "sink=\"streams\"").await == LINES as f64
    })
    .await;
    let (mut seen, mut lost) = (0, 0);
    let mut gaps: Vec<Event> = Vec::new();
    while seen + lost < LINES {
        let event = slow.next().await.expect("the tail goes on");
        match event.kind.as_str() {
            "log" => {
                let body = event.data["body"].as_str().unwrap();
                let number: u64 = body.split(' ').next().unwrap().parse().unwrap();
                assert_eq!(number, seen + lost, "in order, and none twice");
                seen += 1;
            }
            "gap" => {
                lost += event.data["count"].as_u64().unwrap();
                gaps.push(event);
            }
            other => assert_eq!(other, "alive"),
        }
    }
    assert!(lost > 0 && seen > 0, "{seen} seen, {lost} lost");
    assert_eq!(gaps[0].data["reason"], "slow");
    let counted = world.metric("trommel_deliver_gap_records_total{reason=\"slow\"}").await;
    assert_eq!(counted, Some(lost as f64));
    // Live goes on, and what was lost is in the history, from the position before the gap.
    send_lines(&world, "live", 1).await;
    assert_eq!(slow.bodies(1).await, ["live 0"]);
    drop(slow);
    world.history_of(None, "local", "shop", LINES as usize + 1).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_flight_when_it_stops_is_answered() {
    let world = World::start(LOCAL).await;
    let (http, grpc) = (world.otlp_http(), world.grpc());
    send_lines(&world, "line", 1).await;
    let mut tail: Tail = world.tail(None, "local", "shop", None).await;
    let body = logs(&[("project.id", "shop")], &["in flight"]).encode_to_vec();
    let head = format!(
        "POST /v1/logs HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut socket = TcpStream::connect(http).await.unwrap();
    socket.write_all(&[head.as_bytes(), &body[..10]].concat()).await.unwrap();
    eventually("half of it is read", || async {
        world.metric("trommel_admit_room_used_bytes").await > Some(0.0)
    })
    .await;

    let mut stopping = JoinSet::new();
    stopping.spawn(world.end());
    eventually("no new connection is taken", || async { TcpStream::connect(grpc).await.is_err() }).await;
    socket.write_all(&body[10..]).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = timeout(PATIENCE, socket.read(&mut answer)).await.expect("an answer").unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    let is_taken = answer.starts_with("HTTP/1.1 200");
    // Or it may come again.
    assert!(
        is_taken
            || (answer.starts_with("HTTP/1.1 503") && answer.to_ascii_lowercase().contains("retry-after:")),
        "{answer}"
    );
    let mut last = None;
    while let Some(event) = tail.next().await {
        last = Some(event);
    }
    assert_eq!(last.expect("an event").kind, "end");

    let folder = stopping.join_next().await.unwrap().unwrap();
    let world = World::start_in(folder, LOCAL).await;
    let kept = world.history_of(None, "local", "shop", 1 + usize::from(is_taken)).await;
    assert_eq!(kept[0]["body"], "line 0");
    world.end().await;
}
