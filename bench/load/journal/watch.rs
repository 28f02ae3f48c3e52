//! A sender that also watches its own stream: how long until a request is acknowledged, and until a viewer sees it.

use super::shape;
use crate::wire;
use anyhow::{Context, Result, ensure};
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value};
use prost::Message;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Stands in the body of one record of each request, before the request's number.
const MARK: &str = "watched-";
const MARK_DIGITS: usize = 8;
const WARM_UP_REQUESTS: usize = 50;
/// How long the last one is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whom to send to, what, and where to look for it.
pub(crate) struct Watch {
    pub(crate) to: String,
    pub(crate) console: String,
    pub(crate) tenant: String,
    pub(crate) token: String,
    pub(crate) requests: usize,
    pub(crate) per_second: u64,
    pub(crate) records: usize,
}

/// Of each request: when it was sent and when it was seen.
type Times = Arc<Mutex<Vec<(Instant, Option<Instant>)>>>;

/// Prints `ack_p50_us ack_p99_us seen_p50_us seen_p99_us unseen`.
#[allow(clippy::print_stdout, reason = "its figures, for the process that started it")]
pub(crate) async fn watch(watch: Watch) -> Result<()> {
    let total = WARM_UP_REQUESTS + watch.requests;
    let frames = (0..total).map(|number| marked(watch.records, number)).collect::<Result<Vec<_>>>()?;
    let channel = wire::connect(&watch.to)?.connect().await?;
    // A stream is there once it has a record.
    wire::send(&channel, marked(watch.records, total)?, false, Some(&watch.token)).await?;
    let viewer = view(&watch).await?;
    let started = Instant::now();
    let times: Times = Arc::new(Mutex::new(vec![(started, None); total]));
    let mut viewing = tokio::task::JoinSet::new();
    viewing.spawn(note_seen(viewer, times.clone()));
    let mut senders = tokio::task::JoinSet::new();
    for (number, frame) in frames.into_iter().enumerate() {
        let due = Duration::from_micros(number as u64 * 1_000_000 / watch.per_second);
        tokio::time::sleep_until(started + due).await;
        let (channel, token) = (channel.clone(), watch.token.clone());
        let sent = Instant::now();
        times.lock().expect("nobody panics")[number].0 = sent;
        senders.spawn(async move {
            wire::send(&channel, frame, false, Some(&token)).await.context("a request of the quiet one")?;
            anyhow::Ok((number, sent.elapsed()))
        });
    }
    let mut acknowledged = Vec::new();
    while let Some(done) = senders.join_next().await {
        let (number, took) = done??;
        acknowledged.extend((number >= WARM_UP_REQUESTS).then_some(took));
    }
    let is_all_seen = || times.lock().expect("nobody panics").iter().all(|(_, seen)| seen.is_some());
    let until = Instant::now() + PATIENCE;
    while !is_all_seen() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    viewing.abort_all();
    let times = times.lock().expect("nobody panics");
    let measured = &times[WARM_UP_REQUESTS..];
    let seen: Vec<Duration> =
        measured.iter().filter_map(|(sent, seen)| Some(*seen.as_ref()? - *sent)).collect();
    let unseen = measured.len() - seen.len();
    ensure!(!seen.is_empty(), "the viewer saw nothing");
    let ([ack_p50, ack_p99], [seen_p50, seen_p99]) = (spread(acknowledged), spread(seen));
    println!("{ack_p50} {ack_p99} {seen_p50} {seen_p99} {unseen}");
    Ok(())
}

fn spread(mut took: Vec<Duration>) -> [u128; 2] {
    took.sort_unstable();
    [0.5, 0.99].map(|share| took[((took.len() - 1) as f64 * share) as usize].as_micros())
}

/// Request number `number`, its last record marked: who sees that has seen all.
fn marked(records: usize, number: usize) -> Result<bytes::Bytes> {
    let mut request = bench::request(shape(records), number as u64);
    let last = request.resource_logs.last_mut().and_then(|of| of.scope_logs.last_mut());
    let record = last.and_then(|of| of.log_records.last_mut()).context("a record")?;
    record.body =
        Some(AnyValue { value: Some(Value::StringValue(format!("{MARK}{number:0MARK_DIGITS$};"))) });
    wire::frame(&request.encode_to_vec().into(), false)
}

/// A connection that the stream's events come from, once they begin. HTTP/1.0 has no chunks.
async fn view(watch: &Watch) -> Result<TcpStream> {
    let Watch { console, tenant, token, .. } = watch;
    let mut socket = TcpStream::connect(console).await?;
    let ask = format!(
        "GET /v1/tenants/{tenant}/projects/default/tail HTTP/1.0\r\nhost: 127.0.0.1\r\n\
         authorization: Bearer {token}\r\n\r\n"
    );
    socket.write_all(ask.as_bytes()).await?;
    let mut head = Vec::new();
    while !has(&head, b"retry:") {
        let read = tokio::time::timeout(PATIENCE, socket.read_buf(&mut head)).await??;
        ensure!(read > 0, "no events: {}", String::from_utf8_lossy(&head));
    }
    Ok(socket)
}

async fn note_seen(mut socket: TcpStream, times: Times) -> Result<()> {
    let mut unread = Vec::with_capacity(1 << 16);
    while socket.read_buf(&mut unread).await? > 0 {
        let now = Instant::now();
        let mut times = times.lock().expect("nobody panics");
        let mut done = 0;
        while let Some(line) = unread[done..].iter().position(|byte| *byte == b'\n') {
            if let Some(number) = mark(&unread[done..done + line]).filter(|number| *number < times.len()) {
                times[number].1.get_or_insert(now);
            }
            done += line + 1;
        }
        unread.drain(..done);
    }
    Ok(())
}

fn mark(line: &[u8]) -> Option<usize> {
    let at = line.windows(MARK.len()).position(|window| window == MARK.as_bytes())? + MARK.len();
    std::str::from_utf8(line.get(at..at + MARK_DIGITS)?).ok()?.parse().ok()
}

fn has(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}
