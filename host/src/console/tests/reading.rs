//! Histories and tails, as their readers get them.

use super::*;
use crate::batch::{Entry, ProjectId, Signal, Stream};
use crate::streams::Write;
use http_body_util::BodyExt;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use prost::Message;
use serde_json::Value;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The events of a tail until one is named `last`.
async fn events(body: &mut Body, last: &str) -> String {
    let mut text = String::new();
    while !text.contains(&format!("event: {last}\n")) {
        let frame =
            tokio::time::timeout(Duration::from_secs(60), body.frame()).await.expect("an event in time");
        text += std::str::from_utf8(&frame.expect("more events").unwrap().into_data().unwrap()).unwrap();
    }
    text
}

async fn tail(world: &World, text: &str) -> Body {
    let response = world.open(text).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    response.into_body()
}

#[tokio::test]
async fn a_tail_ends_when_the_process_stops() {
    let world = world(Shape::default()).await;
    let asked = "GET /v1/tenants/acme/projects/shop/tail\nauthorization: Bearer acme-reads-all";
    let mut body = tail(&world, asked).await;
    world.stop.cancel();
    let text = events(&mut body, "end").await;
    assert!(text.starts_with("retry: "), "{text}");
    assert!(text.ends_with("event: end\ndata: {\"reason\":\"stopping\"}\n\n"), "{text}");
    assert!(body.frame().await.is_none(), "nothing comes after the end");
}

#[tokio::test]
async fn a_tail_ends_with_its_credential() {
    let world = world(Shape::default()).await;
    let asked = "GET /v1/tenants/acme/projects/shop/tail\nauthorization: Bearer from-a-file";
    let mut body = tail(&world, asked).await;
    std::fs::write(world.folder.path().join("tokens.csv"), TOKENS_HEADER).unwrap();
    world.tenants.reload_files(SystemTime::now());
    tokio::time::pause();
    let text = events(&mut body, "end").await;
    let end = "event: end\ndata: {\"reason\":\"the credential is no longer valid\"}\n\n";
    assert!(text.ends_with(end), "{text}");
    assert!(body.frame().await.is_none());
    assert_eq!(world.open(asked).await.status(), 401);
}

#[tokio::test]
async fn a_silent_tail_shows_every_quarter_of_a_minute_that_it_lives() {
    let world = world(Shape::default()).await;
    let asked = "GET /v1/tenants/acme/projects/shop/tail\nauthorization: Bearer acme-reads-shop";
    let mut body = tail(&world, asked).await;
    tokio::time::pause();
    let start = tokio::time::Instant::now();
    for round in 1..=4 {
        let text = events(&mut body, "alive").await;
        assert!(text.contains("\nid: ") && text.contains("\ndata: {\"position\":\""), "{text}");
        assert!(start.elapsed() <= Duration::from_secs(16 * round), "{:?}", start.elapsed());
    }
}

/// Commits lines of `acme/shop` as the journal would, stored and shown.
async fn commit(world: &World, first: u64, lines: &[&str]) {
    let log_records = lines.iter().map(|line| LogRecord {
        body: Some(AnyValue { value: Some(any_value::Value::StringValue((*line).to_owned())) }),
        ..LogRecord::default()
    });
    let scope_logs = vec![ScopeLogs { log_records: log_records.collect(), ..ScopeLogs::default() }];
    let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
    let entry = Arc::new(Entry {
        stream: Stream { tenant: TenantId::new("acme").unwrap(), project: ProjectId::new("shop").unwrap() },
        signal: Signal::Logs,
        first,
        records: u32::try_from(lines.len()).unwrap(),
        time_ms: u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap(),
        node: [1, 2, 3, 4],
        bytes: ExportLogsServiceRequest { resource_logs }.encode_to_vec().into(),
    });
    world.streams.publish(&entry);
    world.streams.write(vec![Write { entry, is_resend: false }]).await.unwrap();
}

fn bodies(lines: impl Iterator<Item = Value>) -> Vec<String> {
    lines.map(|record| record["body"].as_str().unwrap().to_owned()).collect()
}

const LOGS: &str = "/v1/tenants/acme/projects/shop/logs";
const TAIL: &str = "/v1/tenants/acme/projects/shop/tail";
const READER: &str = "authorization: Bearer acme-reads-shop";

#[tokio::test]
async fn the_history_comes_in_pages_that_join() {
    let world = world(Shape::default()).await;
    commit(&world, 0, &["one", "two \u{1b}[31m", "three", "four", "five"]).await;
    let (mut seen, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let (status, headers, text) =
            world.ask(&format!("GET {LOGS}?limit=2&cursor={cursor}\n{READER}")).await;
        assert_eq!((status.as_u16(), headers["content-type"].to_str().unwrap()), (200, "application/json"));
        let page: Value = serde_json::from_str(&text).unwrap();
        let records = page["records"].as_array().unwrap().clone();
        assert!(records.len() <= 2 && records.iter().all(|record| record["id"].is_string()), "{page}");
        seen.extend(bodies(records.into_iter()));
        pages += 1;
        match page["next"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, ["one", "two \u{1b}[31m", "three", "four", "five"]);
    assert!(pages >= 3);
}

#[tokio::test]
async fn lines_go_on_from_the_id_of_the_last() {
    let world = world(Shape::default()).await;
    commit(&world, 0, &["one", "two", "three"]).await;
    let lines = "accept: application/x-ndjson";
    let (_, headers, text) = world.ask(&format!("GET {LOGS}?limit=2\n{READER}\n{lines}")).await;
    assert_eq!(headers["content-type"], "application/x-ndjson");
    assert!(text.ends_with('\n'));
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let id = records[1]["id"].as_str().unwrap().to_owned();
    assert_eq!(bodies(records.into_iter()), ["one", "two"]);
    let (_, _, text) = world.ask(&format!("GET {LOGS}?cursor={id}\n{READER}\n{lines}")).await;
    assert_eq!(bodies(text.lines().map(|line| serde_json::from_str(line).unwrap())), ["three"]);
    let (status, _, text) = world.ask(&format!("GET {LOGS}?from=1&to=2\n{READER}\n{lines}")).await;
    assert_eq!((status.as_u16(), text.as_str()), (200, ""), "before the first record");
    let (_, _, text) = world.ask(&format!("GET {LOGS}?q=thr\n{READER}\n{lines}")).await;
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[tokio::test]
async fn faults_of_a_readers_query_are_answered_with_what_is_right() {
    let world = world(Shape::default()).await;
    let cases = [
        (format!("{LOGS}?limit=0"), "limit must be a number from 1 to 10000"),
        (
            format!("{LOGS}?from=today"),
            "from must be milliseconds since 1970, or a time like 2026-01-31T12:00:00Z",
        ),
        (format!("{LOGS}?since=1"), "unknown parameter: from, to, limit, cursor, q, ticket are right"),
        (format!("{LOGS}?cursor=none"), "bad position: "),
        (format!("{TAIL}?after=none"), "bad position: "),
        (format!("{TAIL}?cursor=none"), "unknown parameter: after, ticket are right"),
    ];
    for (path, expected) in cases {
        let (status, _, text) = world.ask(&format!("GET {path}\n{READER}")).await;
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(status, 400, "{path}");
        assert!(answer["error"].as_str().unwrap().starts_with(expected), "{path}: {answer}");
    }
}

#[tokio::test]
async fn the_list_of_streams_has_what_the_credential_may_read() {
    let world = world(Shape::default()).await;
    commit(&world, 0, &["one"]).await;
    let known = r#"[{"project":"shop","tenant":"acme"}]"#;
    for (token, expected) in
        [("acme-reads-shop", known), ("acme-reads-all", known), ("platform-reads", known)]
    {
        let (_, _, text) = world.ask(&format!("GET /v1/streams\nauthorization: Bearer {token}")).await;
        assert_eq!(text, expected, "{token}");
    }
    for (tenant, projects) in [("globex", "*"), ("acme", "blog")] {
        let text = ticket(tenant, &[projects], in_a_minute());
        assert_eq!(world.ask(&format!("GET /v1/streams?ticket={text}")).await.2, "[]");
    }
}

/// The `data` of the events of this name.
fn data(text: &str, name: &str) -> Vec<Value> {
    let events = text.split("\n\n").filter(|event| event.contains(&format!("event: {name}\n")));
    events.map(|event| serde_json::from_str(event.split_once("data: ").unwrap().1).unwrap()).collect()
}

fn last_id(text: &str) -> String {
    text.lines().filter_map(|line| line.strip_prefix("id: ")).next_back().unwrap().to_owned()
}

/// The events of a tail until its `count`th line.
async fn log_events(body: &mut Body, count: usize) -> String {
    let mut text = String::new();
    while data(&text, "log").len() < count {
        text += &events(body, "log").await;
    }
    text
}

#[tokio::test]
async fn a_viewer_resumes_where_it_was_by_header_or_by_address() {
    let world = world(Shape::default()).await;
    let mut body = tail(&world, &format!("GET {TAIL}\n{READER}")).await;
    commit(&world, 0, &["one", "two\nlines"]).await;
    let text = log_events(&mut body, 2).await;
    assert_eq!(bodies(data(&text, "log").into_iter()), ["one", "two\nlines"]);
    drop(body);
    commit(&world, 2, &["three", "four"]).await;
    let id = last_id(&text);
    let good = ticket("acme", &["shop"], in_a_minute());
    for asked in [
        format!("GET {TAIL}\n{READER}\nlast-event-id: {id}"),
        format!("GET {TAIL}?after={id}\n{READER}"),
        format!("GET {TAIL}?ticket={good}&after={id}"),
        format!("GET {TAIL}?ticket={good}&after=stale\nlast-event-id: {id}"),
    ] {
        let mut body = tail(&world, &asked).await;
        let text = log_events(&mut body, 2).await;
        assert_eq!(bodies(data(&text, "log").into_iter()), ["three", "four"], "{asked}");
    }
}

#[tokio::test]
async fn over_a_connection_a_tail_comes_line_by_line_and_ends_with_the_process() {
    let world = world(Shape::default()).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = serve(listener, None, world.console.clone(), world.settings.clone(), world.stop.clone());
    let viewing = async {
        let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let asked = format!("GET {TAIL} HTTP/1.1\r\nhost: {address}\r\n{READER}\r\n\r\n");
        socket.write_all(asked.as_bytes()).await.unwrap();
        let mut text = String::new();
        let mut read = async |until: &str| {
            let mut buffer = [0; 4096];
            while !text.contains(until) {
                let count = socket.read(&mut buffer).await.unwrap();
                assert!(count > 0, "closed before {until}: {text}");
                text += std::str::from_utf8(&buffer[..count]).unwrap();
            }
        };
        read("retry: ").await;
        commit(&world, 0, &["one"]).await;
        read("\"body\":\"one\"").await;
        commit(&world, 1, &["two"]).await;
        read("\"body\":\"two\"").await;
        world.stop.cancel();
        read("event: end\n").await;
    };
    let both = async { tokio::join!(serving, viewing) };
    tokio::time::timeout(Duration::from_secs(20), both).await.expect("both end");
}

#[tokio::test]
async fn a_viewer_that_reads_nothing_holds_up_nobody_and_is_told_what_it_missed() {
    let world = world(Shape::default()).await;
    let mut slow = tail(&world, &format!("GET {TAIL}\n{READER}")).await;
    let line = "x".repeat(100_000);
    // More than a ring keeps.
    for number in 0..60 {
        commit(&world, number, &[line.as_str()]).await;
    }
    let mut body = tail(&world, &format!("GET {TAIL}\n{READER}")).await;
    commit(&world, 60, &["the last"]).await;
    assert_eq!(bodies(data(&events(&mut body, "log").await, "log").into_iter()), ["the last"]);
    let text = events(&mut slow, "gap").await;
    let gap = data(&text, "gap").remove(0);
    assert_eq!(gap["reason"], "slow");
    assert!(gap["count"].as_u64().unwrap() > 0 && gap["from"].is_string() && gap["to"].is_string(), "{gap}");
}

#[tokio::test]
async fn viewers_over_http_1_leave_connections_to_those_who_ask_and_go() {
    let world = world(Shape::default()).await;
    let router = router_within(&world.settings, world.console.clone(), 1);
    let open = |version, path: &'static str| {
        let mut asked = request(&format!("GET {path}\nauthorization: Bearer acme-reads-all"));
        *asked.version_mut() = version;
        let mut router = router.clone();
        async move { router.call(asked).await.unwrap() }
    };
    let (old, new) = (axum::http::Version::HTTP_11, axum::http::Version::HTTP_2);
    let path = "/v1/tenants/acme/projects/shop/tail";
    let first = open(old, path).await;
    assert_eq!(first.status(), 200);
    let refused = open(old, path).await;
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].as_bytes()), (503, &b"5"[..]));
    assert_eq!(open(new, path).await.status(), 200, "many share one connection");
    assert_eq!(open(old, "/healthz").await.status(), 200);
    drop(first);
    assert_eq!(open(old, path).await.status(), 200, "the place is free again");
}

#[tokio::test]
async fn pages_of_history_that_nobody_takes_are_bounded() {
    let world = world(Shape::default()).await;
    commit(&world, 1, &["one", "two"]).await;
    let asked = "GET /v1/tenants/acme/projects/shop/logs\nauthorization: Bearer acme-reads-all";
    let mut pages = Vec::new();
    for _ in 0..pages::PAGES_OF_TENANT_MAX {
        pages.push(world.open(asked).await);
        assert_eq!(pages.last().unwrap().status(), 200);
    }
    let refused = world.open(asked).await;
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].as_bytes()), (503, &b"5"[..]));
    let text = to_bytes(pages.pop().unwrap().into_body(), 1 << 20).await.unwrap();
    assert!(String::from_utf8_lossy(&text).contains("two"));
    assert_eq!(world.open(asked).await.status(), 200, "what was read is gone");
}
