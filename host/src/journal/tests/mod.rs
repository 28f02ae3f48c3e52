//! The journal as sinks, followers and the ledger see it.

mod crashes;
mod damage;
mod durable;
mod shares;
mod sinks;

use super::*;
use crate::batch::{Entry, ProjectId, Signal, Stream, TenantId};
use crate::telemetry::Metrics;
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

const ALL: Joining = Joining { records_max: u64::MAX, bytes_max: usize::MAX, is_across_tenants: true };
const ONE: Joining = Joining { records_max: 1, bytes_max: 1, is_across_tenants: false };
const FIRST: SinkId = SinkId(0);
const SECOND: SinkId = SinkId(1);

struct World {
    journal: Arc<Journal>,
    now_ms: Arc<AtomicU64>,
    metrics: Metrics,
}

fn world(bytes_max: usize, sinks: &[&str]) -> World {
    let now_ms = Arc::new(AtomicU64::new(1_000));
    let clock: Clock = {
        let now_ms = now_ms.clone();
        Arc::new(move || now_ms.load(Ordering::Relaxed))
    };
    let names: Vec<String> = sinks.iter().map(|name| (*name).to_owned()).collect();
    let metrics = Metrics::new();
    World {
        journal: Journal::open(&Settings::Memory { bytes_max }, &names, clock, &metrics).unwrap(),
        now_ms,
        metrics,
    }
}

/// One in memory, one on disk.
fn both(bytes_max: usize, sinks: &[&str]) -> [World; 2] {
    [world(bytes_max, sinks), durable::world(bytes_max, sinks)]
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn part(tenant: &str, records: u32, bytes: usize, sinks: &[SinkId]) -> FramePart {
    let stream = Stream { tenant: self::tenant(tenant), project: ProjectId::default_project() };
    FramePart {
        stream,
        signal: Signal::Logs,
        bytes: vec![b'x'; bytes].into(),
        records,
        sinks: sinks.iter().copied().collect(),
    }
}

impl World {
    /// A request of these parts, of which all was acknowledged and routed.
    async fn commit(&self, parts: Vec<FramePart>) -> Result<Committed, CommitRefused> {
        let settled = parts.iter().map(|part| {
            let records = part.records.into();
            let pending = self.journal.ledger.receive(&part.stream.tenant, part.signal, records);
            (pending, Outcome { acknowledged: records, ..Outcome::default() })
        });
        let settled = settled.collect();
        self.journal.commit(Frame { settled, parts, after: None }).await
    }

    fn table(&self) -> LedgerTable {
        let table = self.journal.ledger.snapshot();
        assert_eq!(table.unaccounted(), []);
        table
    }
}

fn is_pending<F: Future>(future: F) -> bool {
    let mut future = Box::pin(future);
    future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

fn firsts(taken: &[InFlight]) -> Vec<u64> {
    taken.iter().map(|in_flight| in_flight.entry.first).collect()
}

#[tokio::test]
async fn records_are_numbered_without_a_gap_and_a_frame_has_one_time() {
    for world in both(1 << 20, &["a"]) {
        let one = world.commit(vec![part("t", 3, 10, &[FIRST]), part("u", 2, 10, &[FIRST])]).await.unwrap();
        assert_eq!(one, Committed { first: 1, records: 5, time_ms: 1_000 });
        world.now_ms.store(900, Ordering::Relaxed);
        let two = world.commit(vec![part("t", 1, 10, &[FIRST])]).await.unwrap();
        assert_eq!(two, Committed { first: 6, records: 1, time_ms: 1_000 }, "the time never goes back");
        world.now_ms.store(1_100, Ordering::Relaxed);
        assert_eq!(world.commit(vec![part("t", 1, 10, &[FIRST])]).await.unwrap().time_ms, 1_100);
        let taken = world.journal.cursor(FIRST).try_next(ALL);
        assert_eq!(firsts(&taken), [1, 4, 6, 7]);
        assert!(taken.iter().all(|in_flight| in_flight.entry.node == taken[0].entry.node));
    }
}

#[test]
fn journals_have_nodes_of_their_own() {
    let nodes: std::collections::HashSet<_> = (0..50)
        .map(|_| {
            let world = world(1 << 20, &["a"]);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(world.commit(vec![part("t", 1, 1, &[FIRST])])).unwrap();
            world.journal.cursor(FIRST).try_next(ALL)[0].entry.node
        })
        .collect();
    assert!(nodes.len() > 45, "{nodes:?}");
}

#[tokio::test]
async fn a_sink_that_is_behind_expires_its_own_and_no_other_notices() {
    // Each sink's share holds three entries.
    for world in both(2 * 3 * (1_000 + 256), &["stuck", "well"]) {
        let well = world.journal.cursor(SECOND);
        for _ in 0..10 {
            world.commit(vec![part("t", 2, 1_000, &[FIRST, SECOND])]).await.unwrap();
            for in_flight in well.try_next(ALL) {
                let done = Done::delivered(in_flight.entry.records);
                in_flight.finish(&done);
            }
            assert!(world.journal.charged_bytes(FIRST) <= world.journal.share_bytes(FIRST));
            world.table();
        }
        let line = world.table().line("t", Signal::Logs);
        assert_eq!((line.committed, line.sinks["well"].delivered), (20, 20));
        assert_eq!((line.sinks["stuck"].expired["room"], line.sinks["stuck"].in_flight), (14, 6));
        // The oldest went.
        assert_eq!(firsts(&world.journal.cursor(FIRST).try_next(ALL)), [15, 17, 19]);
    }
}

#[tokio::test]
async fn what_is_being_sent_does_not_expire() {
    for world in both(3 * (1_000 + 256), &["a"]) {
        world.commit(vec![part("t", 1, 1_000, &[FIRST])]).await.unwrap();
        let cursor = world.journal.cursor(FIRST);
        let taken = cursor.try_next(ONE);
        for _ in 0..5 {
            world.commit(vec![part("t", 1, 1_000, &[FIRST])]).await.unwrap();
        }
        taken.into_iter().for_each(|in_flight| in_flight.finish(&Done::delivered(1)));
        let sink = &world.table().line("t", Signal::Logs).sinks["a"];
        assert_eq!((sink.delivered, sink.expired["room"], sink.in_flight), (1, 3, 2));
    }
}

#[tokio::test]
async fn an_entry_larger_than_the_share_is_kept_while_it_is_alone() {
    for world in both(1_000, &["a"]) {
        world.commit(vec![part("t", 1, 5_000, &[FIRST])]).await.unwrap();
        assert!(world.journal.charged_bytes(FIRST) > 5_000);
        world.commit(vec![part("t", 1, 10, &[FIRST])]).await.unwrap();
        assert_eq!(firsts(&world.journal.cursor(FIRST).try_next(ALL)), [2]);
        assert_eq!(world.table().line("t", Signal::Logs).sinks["a"].expired["room"], 1);
    }
}

#[tokio::test]
async fn entries_of_one_tenant_join_past_those_of_others() {
    for world in both(1 << 20, &["a"]) {
        for tenant in ["t", "u", "t", "u", "t"] {
            world.commit(vec![part(tenant, 1, 100, &[FIRST])]).await.unwrap();
        }
        let cursor = world.journal.cursor(FIRST);
        let own = Joining { is_across_tenants: false, ..ALL };
        let taken = cursor.try_next(Joining { records_max: 2, ..own });
        assert_eq!(firsts(&taken), [1, 3]);
        let others = cursor.try_next(own);
        assert_eq!(firsts(&others), [2, 4]);
        let rest = cursor.try_next(own);
        assert_eq!(firsts(&rest), [5]);
        assert!(cursor.try_next(own).is_empty());
    }
}

#[tokio::test]
async fn a_smaller_entry_does_not_overtake_a_larger_one_of_its_tenant() {
    for world in both(1 << 20, &["a"]) {
        for bytes in [100, 1_000, 100] {
            world.commit(vec![part("t", 1, bytes, &[FIRST])]).await.unwrap();
        }
        let taken = world.journal.cursor(FIRST).try_next(Joining { bytes_max: 500, ..ALL });
        assert_eq!(firsts(&taken), [1]);
    }
}

#[tokio::test]
async fn what_is_dropped_unfinished_goes_back_to_its_place() {
    for world in both(1 << 20, &["a"]) {
        for _ in 0..4 {
            world.commit(vec![part("t", 1, 100, &[FIRST])]).await.unwrap();
        }
        let cursor = world.journal.cursor(FIRST);
        let (first, second) = (cursor.try_next(ONE), cursor.try_next(ONE));
        drop(second);
        drop(first);
        let taken = cursor.try_next(ALL);
        assert_eq!(firsts(&taken), [1, 2, 3, 4]);
        let resent: Vec<bool> = taken.iter().map(|in_flight| in_flight.is_resend).collect();
        assert_eq!(resent, [true, true, false, false]);
        assert!(!cursor.is_done());
        taken.into_iter().for_each(|in_flight| in_flight.finish(&Done::delivered(1)));
        assert!(cursor.is_done());
        assert_eq!(world.journal.charged_bytes(FIRST), 0);
        world.table();
    }
}

#[tokio::test]
async fn a_cursor_wakes_when_something_is_committed_for_its_sink() {
    for world in both(1 << 20, &["a", "b"]) {
        let cursor = world.journal.cursor(FIRST);
        let mut next = Box::pin(cursor.next(ALL));
        assert!(is_pending(&mut next));
        world.commit(vec![part("t", 1, 100, &[SECOND])]).await.unwrap();
        assert!(is_pending(&mut next));
        world.commit(vec![part("t", 1, 100, &[FIRST])]).await.unwrap();
        let taken = tokio::time::timeout(Duration::from_secs(5), next).await.unwrap();
        assert_eq!(firsts(&taken), [2]);
    }
}

#[tokio::test]
async fn a_closed_journal_refuses_and_counts_it() {
    for world in both(1 << 20, &["a"]) {
        world.journal.close();
        let refused = world.commit(vec![part("t", 7, 100, &[FIRST])]).await;
        assert_eq!(refused, Err(CommitRefused::Stopping));
        let line = world.table().line("t", Signal::Logs);
        assert_eq!((line.received, line.refused["stopping"], line.committed), (7, 7, 0));
    }
}

#[tokio::test]
async fn what_is_left_when_we_stop_expires() {
    for world in both(1 << 20, &["a"]) {
        world.commit(vec![part("t", 7, 100, &[FIRST])]).await.unwrap();
        assert_eq!(world.journal.expire_rest(FIRST, "stopped"), 7);
        let sink = &world.table().line("t", Signal::Logs).sinks["a"];
        assert_eq!((sink.expired["stopped"], sink.in_flight), (7, 0));
    }
}

fn entry(followed: Followed) -> Arc<Entry> {
    match followed {
        Followed::Entry(entry) => entry,
        Followed::Hole { first, until } => panic!("a hole from {first} until {until}"),
    }
}

#[tokio::test]
async fn a_follower_reads_every_entry_of_its_sink_in_order_from_when_it_joined() {
    for world in both(1 << 20, &["a", "b"]) {
        world.commit(vec![part("t", 1, 100, &[FIRST])]).await.unwrap();
        let mut of_first = world.journal.follow(Some(FIRST));
        let mut of_all = world.journal.follow(None);
        world.commit(vec![part("t", 1, 100, &[FIRST]), part("t", 2, 100, &[SECOND])]).await.unwrap();
        world.commit(vec![part("t", 1, 100, &[FIRST, SECOND])]).await.unwrap();
        assert_eq!([entry(of_first.next().await).first, entry(of_first.next().await).first], [2, 5]);
        for number in [2, 3, 5] {
            assert_eq!(entry(of_all.next().await).first, number);
        }
        let mut next = Box::pin(of_all.next());
        assert!(is_pending(&mut next));
        world.commit(vec![part("t", 1, 100, &[SECOND])]).await.unwrap();
        assert_eq!(entry(next.await).first, 6);
    }
}

#[tokio::test]
async fn a_follower_that_lags_is_told_of_the_hole_and_goes_on_behind_it() {
    // Ten entries, each charged for what it costs beside its bytes.
    for world in both(10 * (100 + 256), &["a"]) {
        let mut slow = world.journal.follow(None);
        let mut quick = world.journal.follow(None);
        for number in 1..=20 {
            world.commit(vec![part("t", 1, 100, &[FIRST])]).await.unwrap();
            assert_eq!(entry(quick.next().await).first, number);
        }
        let Followed::Hole { first, until } = slow.next().await else { panic!("no hole") };
        assert_eq!((first, until), (1, 11));
        for number in 11..=20 {
            assert_eq!(entry(slow.next().await).first, number);
        }
    }
}

#[tokio::test]
async fn nothing_is_kept_for_a_follower_that_left() {
    for world in both(1 << 20, &["a"]) {
        let follower = world.journal.follow(None);
        world.commit(vec![part("t", 1, 100, &[FIRST])]).await.unwrap();
        let taken = world.journal.cursor(FIRST).try_next(ALL);
        let kept = taken[0].entry.clone();
        taken.into_iter().for_each(|in_flight| in_flight.finish(&Done::delivered(1)));
        assert_eq!(Arc::strong_count(&kept), 2);
        drop(follower);
        assert_eq!(Arc::strong_count(&kept), 1);
    }
}

#[test]
fn a_request_that_goes_away_is_counted_cancelled() {
    let world = world(1 << 20, &["a"]);
    let mut pending = world.journal.ledger.receive(&tenant("t"), Signal::Traces, 10);
    pending.refuse(4, "record_too_large");
    assert_eq!(world.table().line("t", Signal::Traces).in_process, 6);
    drop(pending);
    let line = world.table().line("t", Signal::Traces);
    assert_eq!((line.refused["record_too_large"], line.cancelled, line.in_process), (4, 6, 0));
}

#[test]
fn a_line_that_does_not_add_up_shows_what_it_lacks() {
    let world = world(1 << 20, &["a"]);
    let pending = world.journal.ledger.receive(&tenant("t"), Signal::Logs, 10);
    // Nine of ten acknowledged are said to be filtered; the tenth is nowhere.
    let mut outcome = Outcome { acknowledged: 10, ..Outcome::default() };
    outcome.filtered.insert("sample".into(), 9);
    world.journal.ledger.settle(vec![(pending, outcome)], &[part("t", 0, 0, &[])]);
    let unaccounted = world.journal.ledger.snapshot().unaccounted();
    let expected = Line { tenant: "t".into(), signal: "logs", line: "acknowledged".into(), lacks: 1 };
    assert_eq!(unaccounted, [expected]);
    assert!(
        world.metrics.text().contains(
            r#"trommel_ledger_unaccounted_records{tenant="t",signal="logs",line="acknowledged"} 1"#
        )
    );
}

#[tokio::test]
async fn the_ledger_stands_in_the_metrics() {
    for world in both(1 << 20, &["a"]) {
        world.commit(vec![part("t", 3, 10, &[FIRST])]).await.unwrap();
        let taken = world.journal.cursor(FIRST).try_next(ALL);
        taken.into_iter().for_each(|in_flight| in_flight.finish(&Done::rejected(3, "refused")));
        let text = world.metrics.text();
        for line in [
            r#"trommel_ledger_received_records_total{tenant="t",signal="logs"} 3"#,
            r#"trommel_ledger_committed_records_total{tenant="t",signal="logs"} 3"#,
            r#"trommel_ledger_in_flight_records{tenant="t",signal="logs",sink="a"} 0"#,
            r#"trommel_ledger_rejected_records_total{tenant="t",signal="logs",sink="a",reason="refused"} 3"#,
            r#"trommel_ledger_unaccounted_records{tenant="t",signal="logs",line="sink",sink="a"} 0"#,
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}

#[tokio::test]
async fn what_waits_for_each_sink_is_shown_in_bytes() {
    for world in both(1 << 20, &["a", "b"]) {
        world.commit(vec![part("t", 1, 100, &[FIRST, SECOND])]).await.unwrap();
        world.commit(vec![part("t", 1, 100, &[FIRST])]).await.unwrap();
        let shown = |line: &str| assert!(world.metrics.text().lines().any(|shown| shown == line), "{line}");
        shown(r#"trommel_deliver_waiting_bytes{sink="a"} 712"#);
        shown(r#"trommel_deliver_waiting_bytes{sink="b"} 356"#);
        for in_flight in world.journal.cursor(SECOND).try_next(ALL) {
            shown(r#"trommel_deliver_waiting_bytes{sink="b"} 356"#);
            in_flight.finish(&Done::delivered(1));
        }
        shown(r#"trommel_deliver_waiting_bytes{sink="b"} 0"#);
    }
}

#[test]
fn the_busiest_tenants_have_a_label_and_the_sums_stay_exact() {
    let world = world(1 << 20, &["a"]);
    for at in 0..250u64 {
        drop(world.journal.ledger.receive(&tenant(&format!("t{at}")), Signal::Logs, at + 1));
    }
    let text = world.metrics.text();
    let received: Vec<&str> =
        text.lines().filter(|line| line.starts_with("trommel_ledger_received_records_total{")).collect();
    assert_eq!(received.len(), 201);
    let of = |line: &&str| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
    assert_eq!(received.iter().map(of).sum::<u64>(), (1..=250).sum::<u64>());
    let others = received.iter().find(|line| line.contains(r#"tenant="_other""#)).unwrap();
    assert_eq!(of(others), (1..=50).sum::<u64>(), "the smallest fifty");
}

#[derive(Clone, Debug)]
enum Step {
    Receive { tenant: u8, records: u8 },
    Refuse(u8),
    Cancel,
    Commit { sinks: u8, filtered: u8 },
    Take { sink: u16, is_across_tenants: bool },
    Finish { delivered: u8, unsupported: u8 },
    GoBack,
    ExpireRest(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0u8..3, 0u8..20).prop_map(|(tenant, records)| Step::Receive { tenant, records }),
        1 => any::<u8>().prop_map(Step::Refuse),
        1 => Just(Step::Cancel),
        3 => (0u8..4, any::<u8>()).prop_map(|(sinks, filtered)| Step::Commit { sinks, filtered }),
        3 => (0u16..2, any::<bool>()).prop_map(|(sink, is_across_tenants)| Step::Take { sink, is_across_tenants }),
        3 => (any::<u8>(), any::<u8>()).prop_map(|(delivered, unsupported)| Step::Finish { delivered, unsupported }),
        1 => Just(Step::GoBack),
        1 => (0u16..2).prop_map(Step::ExpireRest),
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_line_adds_up_whatever_happens(steps in steps(), is_on_disk in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let open = if is_on_disk { durable::world } else { world };
        let world = open(2 * 5_000, &["a", "b"]);
        let mut pending: Vec<Pending> = Vec::new();
        let mut in_flight: Vec<InFlight> = Vec::new();
        for step in steps {
            match step {
                Step::Receive { tenant, records } => {
                    let tenant = self::tenant(&format!("t{tenant}"));
                    pending.push(world.journal.ledger.receive(&tenant, Signal::Logs, records.into()));
                }
                Step::Refuse(records) => {
                    if let Some(last) = pending.last_mut() {
                        last.refuse(records.into(), "record_too_large");
                    }
                }
                Step::Cancel => drop(pending.pop()),
                Step::Commit { sinks, filtered } => {
                    let Some(pending) = pending.pop() else { continue };
                    let acknowledged = pending.open();
                    let filtered = u64::from(filtered).min(acknowledged);
                    let left = acknowledged - filtered;
                    let sinks: Vec<SinkId> = [FIRST, SECOND].into_iter().filter(|s| sinks & (1 << s.0) != 0).collect();
                    let mut outcome = Outcome { acknowledged, ..Outcome::default() };
                    outcome.filtered.insert("sample".into(), filtered);
                    let mut parts = Vec::new();
                    if sinks.is_empty() {
                        outcome.unrouted = left;
                    } else {
                        parts.push(part(pending.tenant().as_str(), left as u32, 700, &sinks));
                    }
                    let frame = Frame { settled: vec![(pending, outcome)], parts, after: None };
                    runtime.block_on(world.journal.commit(frame)).unwrap();
                }
                Step::Take { sink, is_across_tenants } => {
                    let joining = Joining { is_across_tenants, records_max: 30, bytes_max: 2_000 };
                    in_flight.extend(world.journal.cursor(SinkId(sink)).try_next(joining));
                }
                Step::Finish { delivered, unsupported } => {
                    let Some(last) = in_flight.pop() else { continue };
                    let records = u64::from(last.entry.records);
                    let delivered = u64::from(delivered).min(records);
                    let unsupported = u64::from(unsupported).min(records - delivered);
                    let refused = records - delivered - unsupported;
                    let rejected = [("refused".into(), refused / 2)].into();
                    let dead_lettered = [("refused".into(), refused - refused / 2)].into();
                    let done = Done { delivered, unsupported, rejected, dead_lettered, ..Done::default() };
                    last.finish(&done);
                }
                Step::GoBack => in_flight.clear(),
                Step::ExpireRest(sink) => _ = world.journal.expire_rest(SinkId(sink), "stopped"),
            }
            prop_assert_eq!(world.journal.ledger.snapshot().unaccounted(), []);
            world.charges_agree(&["t0", "t1", "t2"], &[FIRST, SECOND]);
        }
        drop((pending, in_flight));
        for sink in [FIRST, SECOND] {
            world.journal.expire_rest(sink, "stopped");
            prop_assert_eq!(world.journal.charged_bytes(sink), 0);
        }
        for line in world.journal.ledger.snapshot().lines {
            prop_assert_eq!(line.in_process, 0);
            prop_assert!(line.sinks.values().all(|sink| sink.in_flight == 0));
        }
        prop_assert_eq!(world.journal.ledger.snapshot().unaccounted(), []);
    }
}

/// What takes effect with a frame: notes the first record of its commit.
fn noting(notes: &Arc<std::sync::Mutex<Vec<u64>>>) -> Option<After> {
    let notes = notes.clone();
    Some(Box::new(move |committed: Committed| notes.lock().unwrap().push(committed.first)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn frames_take_effect_in_commit_order() {
    for world in both(1 << 20, &["a"]) {
        take_effect_in_commit_order(Arc::new(world)).await;
    }
}

async fn take_effect_in_commit_order(world: Arc<World>) {
    let notes = Arc::default();
    let mut committers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (world, notes) = (world.clone(), Arc::clone(&notes));
        committers.spawn(async move {
            for _ in 0..500 {
                let parts = vec![part("t", 3, 1, &[FIRST])];
                let pending = world.journal.ledger.receive(&tenant("t"), Signal::Logs, 3);
                let settled = vec![(pending, Outcome { acknowledged: 3, ..Outcome::default() })];
                let frame = Frame { settled, parts, after: noting(&notes) };
                world.journal.commit(frame).await.unwrap();
            }
        });
    }
    while let Some(done) = committers.join_next().await {
        done.unwrap();
    }
    let notes = notes.lock().unwrap();
    assert!(notes.iter().copied().eq((0..4_000).map(|at| 1 + at * 3)), "{notes:?}");
    world.table();
}

#[tokio::test]
async fn a_frame_that_is_refused_takes_no_effect() {
    for world in both(1 << 20, &["a"]) {
        let notes = Arc::default();
        world.journal.close();
        let frame = Frame { after: noting(&notes), ..Frame::default() };
        assert_eq!(world.journal.commit(frame).await, Err(CommitRefused::Stopping));
        assert!(notes.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_panic_in_what_takes_effect_costs_neither_the_frame_nor_the_journal() {
    for world in both(1 << 20, &["a"]) {
        let waits = world.journal.cursor(FIRST);
        let parts = vec![part("t", 3, 1, &[FIRST])];
        let pending = world.journal.ledger.receive(&tenant("t"), Signal::Logs, 3);
        let settled = vec![(pending, Outcome { acknowledged: 3, ..Outcome::default() })];
        let frame = Frame { settled, parts, after: Some(Box::new(|_| panic!("on purpose"))) };
        assert_eq!(world.journal.commit(frame).await.map(|committed| committed.records), Ok(3));
        assert_eq!(waits.try_next(ALL).len(), 1);
        let notes = Arc::default();
        let frame = Frame { after: noting(&notes), ..Frame::default() };
        world.journal.commit(frame).await.unwrap();
        assert_eq!(*notes.lock().unwrap(), [4]);
        assert_eq!(world.journal.between_commits(|time_ms| time_ms), 1_000);
    }
}

#[tokio::test]
async fn no_later_frame_has_an_earlier_time_than_what_happened_before_it() {
    for world in both(1 << 20, &["a"]) {
        world.now_ms.store(5_000, Ordering::Relaxed);
        assert_eq!(world.journal.between_commits(|time_ms| time_ms), 5_000);
        world.now_ms.store(2_000, Ordering::Relaxed);
        assert_eq!(world.journal.between_commits(|time_ms| time_ms), 5_000);
        let committed = world.commit(vec![part("t", 1, 1, &[FIRST])]).await.unwrap();
        assert_eq!(committed.time_ms, 5_000);
    }
}
