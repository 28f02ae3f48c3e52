//! The store and the tail together.

use super::*;
use crate::batch::{ProjectId, TenantId};
use bytes::Bytes;
use futures_util::{Stream as Events, StreamExt};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use prost::Message;
use std::pin::Pin;

const NODE: [u8; 4] = [1, 2, 3, 4];
const NOON: u64 = 1_763_985_600_000;
const DAY: u64 = 86_400_000;
/// A test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

fn stream(tenant: &str, project: &str) -> Stream {
    Stream { tenant: TenantId::new(tenant).unwrap(), project: ProjectId::new(project).unwrap() }
}

fn acme() -> Stream {
    stream("acme", "web")
}

fn request(lines: &[String]) -> Bytes {
    let log_records = lines
        .iter()
        .map(|line| LogRecord {
            body: Some(AnyValue { value: Some(Value::StringValue(line.clone())) }),
            ..LogRecord::default()
        })
        .collect();
    let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
    let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
    ExportLogsServiceRequest { resource_logs }.encode_to_vec().into()
}

/// An entry whose lines are the numbers of its records.
fn entry(stream: &Stream, first: u64, records: u32, time_ms: u64) -> Arc<Entry> {
    entry_of(stream, NODE, first, time_ms, &numbers(first, records))
}

fn entry_of(stream: &Stream, node: [u8; 4], first: u64, time_ms: u64, lines: &[String]) -> Arc<Entry> {
    let records = u32::try_from(lines.len()).unwrap();
    let stream = stream.clone();
    Arc::new(Entry { stream, signal: Signal::Logs, first, records, time_ms, node, bytes: request(lines) })
}

fn numbers(first: u64, records: u32) -> Vec<String> {
    (first..first + u64::from(records)).map(|number| number.to_string()).collect()
}

fn first_send(entry: &Arc<Entry>) -> Vec<Write> {
    vec![Write { entry: entry.clone(), is_resend: false }]
}

fn resend(entry: &Arc<Entry>) -> Vec<Write> {
    vec![Write { entry: entry.clone(), is_resend: true }]
}

struct World {
    streams: Arc<Streams>,
    folder: tempfile::TempDir,
    tuning: Tuning,
}

impl World {
    fn new() -> World {
        World::tuned(|_| ())
    }

    fn tuned(tune: impl FnOnce(&mut Tuning)) -> World {
        let mut tuning = Tuning::default();
        tune(&mut tuning);
        let folder = tempfile::tempdir().unwrap();
        let streams = open(folder.path(), tuning).unwrap();
        World { streams, folder, tuning }
    }

    async fn restart(&mut self) {
        self.streams.close().await;
        let tuning = self.tuning;
        // The folder is free when the last task that uses it has ended.
        let streams = std::mem::replace(&mut self.streams, World::new().streams);
        drop(streams);
        self.streams = open(self.folder.path(), tuning).unwrap();
    }

    async fn commit(&self, entry: &Arc<Entry>) {
        self.streams.publish(entry);
        self.streams.write(first_send(entry)).await.unwrap();
    }

    async fn history(&self, stream: &Stream, query: History) -> Vec<String> {
        bodies(&self.streams.history(stream, query).await.unwrap().records)
    }

    fn tail(&self, position: Option<&str>) -> Pin<Box<dyn Events<Item = TailEvent> + Send>> {
        Box::pin(self.streams.tail(acme(), position).unwrap())
    }
}

fn open(folder: &std::path::Path, tuning: Tuning) -> Result<Arc<Streams>, String> {
    let store = StoreSettings::Embedded { folder: folder.join("streams") };
    Streams::open_tuned(
        Settings { store, retention: Duration::from_secs(7 * 86_400) },
        tuning,
        Metrics::new(),
    )
}

fn body(json: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(json).unwrap();
    value["body"].as_str().unwrap().to_owned()
}

fn bodies(records: &[String]) -> Vec<String> {
    records.iter().map(|json| body(json)).collect()
}

async fn next(tail: &mut Pin<Box<dyn Events<Item = TailEvent> + Send>>) -> TailEvent {
    tokio::time::timeout(PATIENCE, tail.next()).await.expect("an event in time").expect("the tail goes on")
}

/// The next `count` events, which are lines; with the last position.
async fn lines(
    tail: &mut Pin<Box<dyn Events<Item = TailEvent> + Send>>,
    count: usize,
) -> (Vec<String>, String) {
    let (mut lines, mut last) = (Vec::new(), String::new());
    while lines.len() < count {
        match next(tail).await {
            TailEvent::Log { position, json } => {
                lines.push(body(&json));
                last = position;
            }
            other => panic!("a line was expected after {lines:?}, not {other:?}"),
        }
    }
    (lines, last)
}

#[tokio::test]
async fn what_is_written_is_in_the_history_and_in_the_tail() {
    let world = World::new();
    let mut tail = world.tail(None);
    world.commit(&entry(&acme(), 10, 3, NOON)).await;
    assert_eq!(world.history(&acme(), History::default()).await, ["10", "11", "12"]);
    assert_eq!(lines(&mut tail, 3).await.0, ["10", "11", "12"]);
    assert_eq!(world.streams.known().await.unwrap(), [acme()]);
    assert_eq!(world.streams.is_ready(), Ok(()));
}

#[tokio::test]
async fn a_viewer_comes_back_with_its_position_and_gets_each_line_once() {
    let world = World::new();
    for first in [10, 20, 30] {
        world.commit(&entry(&acme(), first, 2, NOON + first)).await;
    }
    let mut tail = world.tail(Some(&Position::at(0).text()));
    let (seen, position) = lines(&mut tail, 3).await;
    assert_eq!(seen, ["10", "11", "20"]);
    drop(tail);
    world.commit(&entry(&acme(), 40, 1, NOON + 40)).await;
    let mut tail = world.tail(Some(&position));
    assert_eq!(lines(&mut tail, 4).await.0, ["21", "30", "31", "40"]);
    world.commit(&entry(&acme(), 50, 1, NOON + 50)).await;
    assert_eq!(lines(&mut tail, 1).await.0, ["50"]);
}

#[tokio::test]
async fn the_id_of_a_record_is_a_position() {
    let world = World::new();
    world.commit(&entry(&acme(), 10, 4, NOON)).await;
    let page = world.streams.history(&acme(), History { limit: 2, ..History::default() }).await.unwrap();
    let mut tail = world.tail(Some(&page.next.unwrap()));
    assert_eq!(lines(&mut tail, 2).await.0, ["12", "13"]);
}

#[tokio::test]
async fn a_text_that_is_no_position_is_refused_and_told_why() {
    let world = World::new();
    let good = Position::at(NOON).text();
    for (text, why) in [
        ("", "it is empty"),
        ("not a position", "it is no base64url text"),
        (&good[..4], "it was cut or lengthened"),
        (&format!("{good}AA"), "it was cut or lengthened"),
        ("_wAAAAAAAA", "it is of a version that this collector does not know"),
    ] {
        let Err(StreamsError::BadPosition(said)) = world.streams.tail(acme(), Some(text)).map(drop) else {
            panic!("{text} was taken");
        };
        assert_eq!(said, format!("{why}: send the position of an event or the id of a record, unchanged"));
    }
    // None of them is counted as a viewer.
    assert_eq!(world.streams.viewers.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_viewer_who_joins_while_the_store_hangs_misses_no_line() {
    let world = Arc::new(World::new());
    world.commit(&entry(&acme(), 1, 1, NOON)).await;
    let held = world.streams.hold().await;
    let late = entry(&acme(), 2, 2, NOON + 1);
    world.streams.publish(&late);
    let streams = world.streams.clone();
    let writing = async move { streams.write(first_send(&late)).await.unwrap() };
    let viewing = async {
        let mut tail = world.tail(Some(&Position::at(0).text()));
        assert_eq!(lines(&mut tail, 1).await.0, ["1"]);
        let live = entry(&acme(), 4, 1, NOON + 2);
        world.streams.publish(&live);
        // Two seconds: less than its patience.
        assert!(tokio::time::timeout(Duration::from_secs(2), tail.next()).await.is_err());
        drop(held);
        assert_eq!(lines(&mut tail, 3).await.0, ["2", "3", "4"]);
    };
    tokio::join!(writing, viewing);
}

#[tokio::test]
async fn a_viewer_whom_the_store_keeps_waiting_is_told_of_a_gap_and_goes_on_live() {
    let world = World::tuned(|tuning| tuning.store_patience = Duration::from_millis(200));
    world.commit(&entry(&acme(), 1, 1, NOON)).await;
    world.streams.publish(&entry(&acme(), 2, 5, NOON + 1));
    let mut tail = world.tail(Some(&Position::at(0).text()));
    let (_, before) = lines(&mut tail, 1).await;
    let hash = stream_hash(&acme());
    let expected = TailEvent::Gap {
        from: json::id_text(&RecordId::new(hash, NOON, NODE, 1)),
        to: json::id_text(&RecordId::new(hash, NOON + 1, NODE, 6)),
        count: 5,
        reason: "store",
        position: before,
    };
    assert_eq!(next(&mut tail).await, expected);
    world.streams.publish(&entry(&acme(), 7, 1, NOON + 2));
    assert_eq!(lines(&mut tail, 1).await.0, ["7"]);
}

#[tokio::test]
async fn a_viewer_is_told_of_what_the_store_will_never_have() {
    let world = World::new();
    world.commit(&entry(&acme(), 1, 1, NOON)).await;
    world.streams.publish(&entry(&acme(), 2, 3, NOON + 1));
    let mut tail = world.tail(Some(&Position::at(0).text()));
    assert_eq!(lines(&mut tail, 1).await.0, ["1"]);
    world.streams.skip(&acme(), 5);
    assert!(matches!(next(&mut tail).await, TailEvent::Gap { count: 3, reason: "store", .. }));
    world.streams.publish(&entry(&acme(), 5, 1, NOON + 2));
    assert_eq!(lines(&mut tail, 1).await.0, ["5"]);
}

#[tokio::test]
async fn a_slow_viewer_is_told_how_many_lines_it_lost() {
    let world = World::tuned(|tuning| tuning.ring_bytes = RingBytes { one: 1500, all: 1 << 20 });
    let (mut slow, mut quick) = (world.tail(None), world.tail(None));
    world.commit(&entry(&acme(), 1, 1, NOON)).await;
    assert_eq!(lines(&mut slow, 1).await.0, ["1"]);
    assert_eq!(lines(&mut quick, 1).await.0, ["1"]);
    for number in 2..=40 {
        world.commit(&entry(&acme(), number, 1, NOON + number)).await;
        assert_eq!(lines(&mut quick, 1).await.0, [number.to_string()]);
    }
    let TailEvent::Gap { from, to, count, reason, position } = next(&mut slow).await else {
        panic!("no gap")
    };
    let (from, to) = (json::id_of(&from).unwrap(), json::id_of(&to).unwrap());
    assert_eq!((from.number(), to.number(), reason), (1, 1 + count, "slow"));
    assert!((20..39).contains(&count), "{count} lines lost");
    let rest = usize::try_from(39 - count).unwrap();
    assert_eq!(lines(&mut slow, rest).await.0, numbers(2 + count, u32::try_from(rest).unwrap()));
    // With the position of the gap it gets from the store what it lost.
    let mut again = world.tail(Some(&position));
    assert_eq!(lines(&mut again, 39).await.0, numbers(2, 39));
}

#[tokio::test]
async fn what_every_viewer_has_taken_leaves_the_ring() {
    let world = World::tuned(|tuning| tuning.ring_bytes = RingBytes { one: 1500, all: 1 << 20 });
    let (mut tail, other) = (world.tail(None), world.tail(None));
    drop(other);
    for number in 1..=100 {
        world.streams.publish(&entry(&acme(), number, 1, NOON + number));
        assert_eq!(lines(&mut tail, 1).await.0, [number.to_string()]);
    }
}

#[tokio::test]
async fn a_lane_that_nothing_waits_for_is_forgotten() {
    let world = World::new();
    let tail = world.tail(None);
    // Stored before it is published, and the other way round.
    let (early, late) = (entry(&acme(), 1, 1, NOON), entry(&acme(), 2, 1, NOON));
    world.streams.write(first_send(&early)).await.unwrap();
    world.streams.publish(&early);
    world.commit(&late).await;
    assert_eq!(world.streams.lanes.len(), 1);
    drop(tail);
    assert_eq!(world.streams.lanes.len(), 0);
    let ahead = entry(&acme(), 3, 1, NOON);
    world.streams.write(first_send(&ahead)).await.unwrap();
    assert_eq!(world.streams.lanes.len(), 1, "the publisher has not passed it yet");
    world.streams.publish(&ahead);
    assert_eq!(world.streams.lanes.len(), 0);
}

#[tokio::test]
async fn a_restart_keeps_what_was_stored_and_resumes_positions_of_an_older_node() {
    let mut world = World::new();
    world.commit(&entry(&acme(), 1, 3, NOON)).await;
    let mut tail = world.tail(Some(&Position::at(0).text()));
    let (_, position) = lines(&mut tail, 2).await;
    drop(tail);
    world.restart().await;
    let newer = entry_of(&acme(), [9, 9, 9, 9], 1, NOON + 5, &["new 1".into(), "new 2".into()]);
    world.commit(&newer).await;
    assert_eq!(world.history(&acme(), History::default()).await, ["1", "2", "3", "new 1", "new 2"]);
    let mut tail = world.tail(Some(&position));
    assert_eq!(lines(&mut tail, 3).await.0, ["3", "new 1", "new 2"]);
    assert_eq!(world.streams.known().await.unwrap(), [acme()]);
}

#[tokio::test]
async fn a_folder_that_another_process_uses_is_refused_and_named() {
    let world = World::new();
    let said = open(world.folder.path(), world.tuning).map(drop).unwrap_err();
    assert!(said.ends_with("streams: another process uses this folder; stop it or name another"), "{said}");
}

#[tokio::test]
async fn a_resend_is_presumed_and_stored_once() {
    let world = World::new();
    let sent = entry(&acme(), 1, 3, NOON);
    assert_eq!(world.streams.write(first_send(&sent)).await.unwrap(), Written::default());
    let again = world.streams.write(resend(&sent)).await.unwrap();
    assert_eq!(again, Written { presumed: 3, ..Written::default() });
    assert_eq!(world.history(&acme(), History::default()).await, ["1", "2", "3"]);
}

#[tokio::test]
async fn another_record_under_a_taken_id_is_a_collision_and_changes_nothing() {
    let world = World::new();
    world.streams.write(first_send(&entry(&acme(), 1, 2, NOON))).await.unwrap();
    let other = entry_of(&acme(), NODE, 1, NOON, &["1".into(), "other".into(), "free".into()]);
    for writes in [first_send(&other), resend(&other)] {
        let written = world.streams.write(writes).await.unwrap();
        assert_eq!(written.collided, [2]);
    }
    assert_eq!(world.history(&acme(), History::default()).await, ["1", "2", "free"]);
}

#[tokio::test]
async fn a_tenant_with_the_same_hash_sees_nothing_of_another() {
    let world = World::tuned(|tuning| tuning.hash = |_| [7; 8]);
    let globex = stream("globex", "web");
    world.commit(&entry(&acme(), 1, 2, NOON)).await;
    world.commit(&entry(&globex, 3, 2, NOON)).await;
    world.commit(&entry(&acme(), 5, 1, NOON)).await;
    assert_eq!(world.history(&acme(), History::default()).await, ["1", "2", "5"]);
    assert_eq!(world.history(&globex, History::default()).await, ["3", "4"]);
    let mut tail = world.tail(Some(&Position::at(0).text()));
    assert_eq!(lines(&mut tail, 3).await.0, ["1", "2", "5"]);
    assert_eq!(world.streams.known().await.unwrap(), [acme(), globex]);
}

#[tokio::test]
async fn history_goes_on_page_by_page() {
    let world = World::new();
    for first in (0..50).step_by(5) {
        world.commit(&entry(&acme(), first, 5, NOON + first)).await;
    }
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let query = History { limit: 7, after: after.clone(), ..History::default() };
        let page = world.streams.history(&acme(), query).await.unwrap();
        assert!(page.records.len() <= 7);
        seen.extend(bodies(&page.records));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, numbers(0, 50));
    let part = History { from_ms: Some(NOON + 10), to_ms: Some(NOON + 20), ..History::default() };
    assert_eq!(world.history(&acme(), part).await, numbers(10, 10));
    let foreign = json::id_text(&RecordId::new([0; 8], NOON, NODE, 1));
    let query = History { after: Some(foreign), ..History::default() };
    assert!(matches!(world.streams.history(&acme(), query).await, Err(StreamsError::BadPosition(_))));
}

#[tokio::test]
async fn a_search_that_finds_nothing_goes_on_in_bounded_steps() {
    let world = World::tuned(|tuning| (tuning.page_records, tuning.history_records) = (4, 10));
    world.commit(&entry(&acme(), 0, 25, NOON)).await;
    let query = |after| History { contains: Some("24".into()), after, ..History::default() };
    let mut page = world.streams.history(&acme(), query(None)).await.unwrap();
    let mut steps = 1;
    while page.records.is_empty() {
        let after = page.next.clone().expect("it goes on");
        page = world.streams.history(&acme(), query(Some(after))).await.unwrap();
        steps += 1;
    }
    assert_eq!((bodies(&page.records), steps), (vec!["24".to_owned()], 3));
}

#[tokio::test]
async fn an_entry_of_the_next_day_goes_into_the_next_folder() {
    let world = World::new();
    let midnight = NOON - NOON % DAY + DAY;
    let writes = [
        (1, midnight - 1),
        (2, midnight),
        (3, midnight + DAY),
        (4, midnight + 2 * DAY),
        (5, midnight + 3 * DAY),
    ];
    let mut tail = world.tail(None);
    let entries: Vec<_> = writes.map(|(number, time_ms)| entry(&acme(), number, 1, time_ms)).to_vec();
    entries.iter().for_each(|entry| world.streams.publish(entry));
    let writes = entries.iter().flat_map(first_send).collect();
    world.streams.write(writes).await.unwrap();
    assert_eq!(lines(&mut tail, 5).await.0, numbers(1, 5));
    assert_eq!(world.history(&acme(), History::default()).await, numbers(1, 5));
    let mut tail = world.tail(Some(&Position::at(0).text()));
    assert_eq!(lines(&mut tail, 5).await.0, numbers(1, 5));
    let folder = world.folder.path().join("streams");
    for day in ["2025-11-24", "2025-11-25", "2025-11-26", "2025-11-27", "2025-11-28"] {
        assert!(folder.join(day).is_dir(), "{day}");
    }
    let Store::Embedded(embedded) = &world.streams.store;
    assert_eq!(embedded.open_days(), 3);
}

#[tokio::test]
async fn retention_removes_whole_days_and_nothing_younger() {
    let world = World::new();
    let other = stream("globex", "old");
    world.commit(&entry(&other, 1, 1, NOON - 8 * DAY)).await;
    world.commit(&entry(&acme(), 2, 1, NOON - 7 * DAY)).await;
    world.commit(&entry(&acme(), 3, 1, NOON)).await;
    world.streams.retain(NOON).await;
    // The day seven days ago still has records younger than seven days.
    assert_eq!(world.history(&acme(), History::default()).await, ["2", "3"]);
    assert_eq!(world.streams.known().await.unwrap(), [acme()]);
    assert!(!world.folder.path().join("streams/2025-11-16").exists());
    world.streams.retain(NOON + DAY / 2).await;
    assert_eq!(world.history(&acme(), History::default()).await, ["3"]);
    let left: Vec<_> = std::fs::read_dir(world.folder.path().join("streams")).unwrap().collect();
    assert!(left.iter().flatten().all(|entry| !entry.file_name().to_str().unwrap().starts_with(".gone")));
    // An entry that comes late begins the day anew.
    world.commit(&entry(&acme(), 4, 1, NOON - 7 * DAY)).await;
    assert_eq!(world.history(&acme(), History::default()).await, ["4", "3"]);
}

#[tokio::test]
async fn a_database_that_failed_is_opened_again_and_written_again() {
    let world = World::new();
    let Store::Embedded(embedded) = &world.streams.store;
    embedded.fail(2);
    let writes: Vec<Write> =
        (1..=4).flat_map(|number| first_send(&entry(&acme(), number, 1, NOON))).collect();
    assert!(world.streams.write(writes.clone()).await.is_err());
    assert!(world.streams.is_ready().is_err());
    let again: Vec<Write> = writes.into_iter().map(|write| Write { is_resend: true, ..write }).collect();
    let written = tokio::time::timeout(PATIENCE, async {
        loop {
            match world.streams.write(again.clone()).await {
                Ok(written) => return written,
                Err(error) => tokio::time::sleep(error.after.expect("it says when")).await,
            }
        }
    });
    assert_eq!(written.await.unwrap(), Written { presumed: 2, ..Written::default() });
    assert_eq!(world.history(&acme(), History::default()).await, numbers(1, 4));
    assert_eq!(world.streams.is_ready(), Ok(()));
}

#[tokio::test]
async fn a_day_that_cannot_be_read_is_set_aside_and_begins_anew() {
    let mut world = World::new();
    world.commit(&entry(&acme(), 1, 1, NOON - DAY)).await;
    world.commit(&entry(&acme(), 2, 1, NOON)).await;
    world.streams.close().await;
    let folder = world.folder.path().join("streams");
    std::fs::write(folder.join("2025-11-24/version"), "nonsense").unwrap();
    world.restart().await;
    assert_eq!(world.history(&acme(), History::default()).await, ["1"]);
    assert!(folder.join("2025-11-24.corrupt").is_dir());
    world.commit(&entry(&acme(), 3, 1, NOON)).await;
    assert_eq!(world.history(&acme(), History::default()).await, ["1", "3"]);
}

#[tokio::test]
async fn viewers_are_bounded_and_the_place_of_one_who_left_is_free() {
    let world = World::tuned(|tuning| tuning.viewers_max = 2);
    let first = world.tail(None);
    let _second = world.tail(None);
    assert_eq!(world.streams.tail(acme(), None).map(drop), Err(StreamsError::TooManyViewers(2)));
    assert_eq!(world.streams.metrics.deliver_viewers.get(), 2);
    drop(first);
    assert!(world.streams.tail(acme(), None).is_ok());
    assert_eq!(world.streams.metrics.deliver_viewers.get(), 1);
}

#[tokio::test]
async fn at_the_stop_a_viewer_gets_what_was_published_and_then_the_end() {
    let world = World::new();
    let mut tail = world.tail(None);
    world.streams.publish(&entry(&acme(), 1, 2, NOON));
    world.streams.close().await;
    assert_eq!(lines(&mut tail, 2).await.0, ["1", "2"]);
    assert_eq!(next(&mut tail).await, TailEvent::End { reason: "stopping" });
    assert_eq!(tail.next().await, None);
    assert_eq!(world.streams.tail(acme(), None).map(drop), Err(StreamsError::Stopping));
}

#[tokio::test]
async fn a_viewer_of_a_silent_stream_hears_that_the_line_is_alive() {
    let world = World::tuned(|tuning| tuning.alive_every = Duration::from_millis(20));
    let mut tail = world.tail(None);
    let TailEvent::Alive { position } = next(&mut tail).await else { panic!("not alive") };
    drop(tail);
    // Nothing was seen yet: the position stands before what comes next.
    world.commit(&entry(&acme(), 1, 1, now_ms())).await;
    assert_eq!(lines(&mut world.tail(Some(&position)), 1).await.0, ["1"]);
}

#[tokio::test]
async fn a_large_entry_is_shown_in_parts_and_stored_whole() {
    let world = World::new();
    let mut tail = world.tail(None);
    let large = entry(&acme(), 0, 10_000, NOON);
    world.commit(&large).await;
    let all = numbers(0, 10_000);
    assert_eq!(lines(&mut tail, 10_000).await.0, all);
    let query = History { limit: 10_000, ..History::default() };
    assert_eq!(world.history(&acme(), query).await, all);
    let mut again = world.tail(Some(&Position::at(0).text()));
    assert_eq!(lines(&mut again, 10_000).await.0, all);
}

/// Seeds of the races: `SEED=…` runs one, `SEEDS=…` that many.
fn seeds() -> std::ops::Range<u64> {
    let given = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match given("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..given("SEEDS").unwrap_or(10),
    }
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
    async fn dawdle(&mut self) {
        for _ in 0..self.below(8) {
            tokio::task::yield_now().await;
        }
    }
}

/// Publishes, writes and joins at once: whoever views from a position gets every line from there on once and in
/// order, whatever came first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewers_who_join_at_any_moment_get_each_line_once_and_in_order() {
    for seed in seeds() {
        race(seed).await;
    }
}

async fn race(seed: u64) {
    let mut random = Random(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let world = Arc::new(World::tuned(|tuning| (tuning.page_records, tuning.store_patience) = (7, PATIENCE)));
    let other = stream("globex", "web");
    let (mut entries, mut number) = (Vec::new(), 1);
    for step in 0..60 {
        let records = 1 + random.below(5) as u32;
        let owner = if random.below(3) == 0 { &other } else { &acme() };
        entries.push(entry(owner, number, records, NOON + step / 3));
        number += u64::from(records);
    }
    let expected: Vec<String> = entries
        .iter()
        .filter(|entry| entry.stream == acme())
        .flat_map(|entry| numbers(entry.first, entry.records))
        .collect();
    let mut tasks = tokio::task::JoinSet::new();
    let (publisher, list, mut dice) = (world.clone(), entries.clone(), Random(seed * 7 + 1));
    tasks.spawn(async move {
        for entry in &list {
            dice.dawdle().await;
            publisher.streams.publish(entry);
        }
    });
    let (writer, list, mut dice) = (world.clone(), entries, Random(seed * 11 + 1));
    tasks.spawn(async move {
        let mut list = &list[..];
        while !list.is_empty() {
            let (now, later) = list.split_at(1 + (dice.below(6) as usize).min(list.len() - 1));
            list = later;
            dice.dawdle().await;
            writer.streams.write(now.iter().flat_map(first_send).collect()).await.unwrap();
        }
    });
    for viewer in 0..6 {
        let (world, expected, mut dice) = (world.clone(), expected.clone(), Random(seed * 13 + viewer + 1));
        tasks.spawn(async move { view(&world, &expected, &mut dice, seed).await });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

/// Views all lines, over several connections.
async fn view(world: &World, expected: &[String], dice: &mut Random, seed: u64) {
    let mut position = Position::at(0).text();
    let mut seen = Vec::new();
    while seen.len() < expected.len() {
        dice.dawdle().await;
        let mut tail = world.tail(Some(&position));
        let part = (1 + dice.below(40) as usize).min(expected.len() - seen.len());
        let (lines, last) = lines(&mut tail, part).await;
        seen.extend(lines);
        position = last;
        assert_eq!(seen, expected[..seen.len()], "seed {seed}");
    }
}

/// A store that hangs, entries that it never gets, rings that are too small: every line is shown once and in order,
/// or counted in a gap.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_shown_is_counted_in_a_gap() {
    for seed in seeds() {
        let mut dice = Random(seed * 17 + 1);
        let world = Arc::new(World::tuned(|tuning| {
            tuning.ring_bytes = RingBytes { one: 600 + dice.below(2000) as usize, all: 1 << 20 };
            tuning.page_records = 1 + dice.below(9) as usize;
            tuning.store_patience = Duration::from_millis(1 + dice.below(20));
        }));
        let entries: Vec<_> = (0..60).map(|at| entry(&acme(), 1 + at * 3, 3, NOON + at / 4)).collect();
        // The lane learns of the first before anybody joins: who views has everything to lose.
        world.streams.publish(&entries[0]);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(publish_all(world.clone(), entries[1..].to_vec(), Random(seed * 7 + 1)));
        tasks.spawn(store_most(world.clone(), entries, Random(seed * 11 + 1)));
        for viewer in 0..4 {
            let (world, mut dice) = (world.clone(), Random(seed * 13 + viewer + 1));
            tasks.spawn(async move { account(&world, &mut dice, seed).await });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    }
}

async fn publish_all(world: Arc<World>, entries: Vec<Arc<Entry>>, mut dice: Random) {
    for entry in &entries {
        dice.dawdle().await;
        world.streams.publish(entry);
        if dice.below(20) == 0 {
            tokio::time::sleep(Duration::from_millis(dice.below(5))).await;
        }
    }
}

async fn store_most(world: Arc<World>, entries: Vec<Arc<Entry>>, mut dice: Random) {
    for entry in &entries {
        match dice.below(6) {
            0 => world.streams.skip(&acme(), entry.first + 3),
            1 => {
                let held = world.streams.hold().await;
                tokio::time::sleep(Duration::from_millis(dice.below(20))).await;
                drop(held);
                world.streams.write(first_send(entry)).await.unwrap();
            }
            _ => drop(world.streams.write(first_send(entry)).await.unwrap()),
        }
    }
}

/// Views until the last line, and counts.
async fn account(world: &World, dice: &mut Random, seed: u64) {
    let mut tail = world.tail(Some(&Position::at(0).text()));
    let (mut last, mut told) = (0, 0);
    while told < 180 {
        match next(&mut tail).await {
            TailEvent::Log { json, .. } => {
                let number: u64 = body(&json).parse().unwrap();
                assert!(number > last, "seed {seed}: {number} after {last}");
                told += 1;
                assert!(told <= number, "seed {seed}: {told} told up to {number}");
                last = number;
            }
            TailEvent::Gap { from, to, count, .. } => {
                let (from, to) = (json::id_of(&from).unwrap().number(), json::id_of(&to).unwrap().number());
                assert!(count > 0 && from < to && from >= last, "seed {seed}: {from} to {to} after {last}");
                told += count;
                assert!(told <= to, "seed {seed}: {told} told up to {to}");
                last = to;
            }
            other => panic!("seed {seed}: {other:?}"),
        }
        dice.dawdle().await;
    }
    assert_eq!(told, 180, "seed {seed}");
}

/// Who views from now on misses nothing that is published after it joined.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_who_starts_now_gets_all_that_is_published_afterwards() {
    for seed in seeds() {
        let world = Arc::new(World::new());
        let publisher = world.clone();
        let mut tasks = tokio::task::JoinSet::new();
        let published = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let seen = published.clone();
        tasks.spawn(async move {
            let mut dice = Random(seed + 1);
            for number in 1..=200 {
                publisher.streams.publish(&entry(&acme(), number, 1, NOON + number / 9));
                seen.store(number, Ordering::SeqCst);
                dice.dawdle().await;
            }
        });
        let before = published.load(Ordering::SeqCst);
        let mut tail = world.tail(None);
        tasks.join_next().await.unwrap().unwrap();
        let mut last = None;
        world.streams.end_tails();
        while let TailEvent::Log { json, .. } = next(&mut tail).await {
            let number: u64 = body(&json).parse().unwrap();
            let wanted = last.map_or(number, |last: u64| last + 1);
            assert_eq!(number, wanted, "seed {seed}");
            assert!(last.is_some() || number >= before, "seed {seed}");
            last = Some(number);
        }
        assert!(last.is_none_or(|last| last == 200), "seed {seed}");
    }
}
