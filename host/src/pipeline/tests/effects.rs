//! What plugins leave, from their calls to windows, counts and alerts: `tests/guests/hostile-timer` in its modes.

use super::plugins::{sandbox, settings, slot, slot_with};
use super::*;
use crate::pipeline::ticks::Rounds;
use crate::sandbox::{Limits, Window};
use serde_json::Value as Json;
use std::sync::atomic::{AtomicU64, Ordering};

/// A plugin of this name that does `process` with a batch and `tick` with windows of ten seconds.
fn timer(name: &str, process: &str, tick: &str) -> Slot {
    let modes = format!(r#"{{"process": "{process}", "tick": "{tick}"}}"#);
    slot(name, "hostile-timer", &modes, OnFailure::Pass)
}

/// Begins with a window; the clock stands still until it is told.
pub(super) struct Timed {
    pub(super) world: World,
    now_ms: Arc<AtomicU64>,
}

const BEGIN_MS: u64 = 1_700_000_000_000;

pub(super) fn timed(slots: &[Slot], workers: usize) -> Timed {
    let now_ms = Arc::new(AtomicU64::new(BEGIN_MS));
    let clock: journal::Clock = {
        let now_ms = now_ms.clone();
        Arc::new(move || now_ms.load(Ordering::Relaxed))
    };
    let names: Vec<&str> = slots.iter().map(|slot| slot.name.as_str()).collect();
    let world = world_with(vec![to("all", &names, vec![sink("a")])], slots, &["a"], workers, clock);
    Timed { world, now_ms }
}

impl Timed {
    pub(super) fn pass(&self, seconds: u64) {
        self.now_ms.fetch_add(seconds * 1_000, Ordering::Relaxed);
    }

    pub(super) async fn send(&self, tenant: &str, bodies: &[&str]) -> Result<Receipt, Refusal> {
        self.world.submit("agent", request(&[(&format!("tenant.id={tenant}"), bodies)])).await
    }

    /// Closed windows that no plugin was given: `key@start: count, sum`, seconds from the beginning.
    pub(super) fn windows(&self, plugin: &str, tenant: &str) -> Vec<String> {
        let now_ms = self.now_ms.load(Ordering::Relaxed);
        let series = &self.world.pipeline.shared.consequences.series;
        let show = |window: &Window| {
            let start = window.start_ns / 1_000_000_000 - BEGIN_MS / 1_000;
            format!("{}@{start}: {}, {}", window.key, window.cell.count, window.cell.sum)
        };
        series.take(plugin, &TenantId::new(tenant).unwrap(), now_ms).iter().map(show).collect()
    }

    /// What `/metrics` says of this plugin under this name; 0: nothing.
    fn counted(&self, plugin: &str, name: &str) -> u64 {
        self.metric(&format!(r#"trommel_process_plugin_total{{plugin="{plugin}",name="{name}"}}"#))
    }

    fn metric(&self, line: &str) -> u64 {
        let text = self.world.metrics.text();
        text.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok()).unwrap_or(0)
    }

    /// `tenant plugin key: count` of each incident, sorted.
    pub(super) fn incidents(&self) -> Vec<String> {
        let shown = self.world.alerts.shown();
        let show = |incident: &Json| {
            let text = |key: &str| incident[key].as_str().unwrap_or_default().to_owned();
            format!("{} {} {}: {}", text("tenant"), text("plugin"), text("key"), incident["count"])
        };
        let mut all: Vec<String> = shown["incidents"].as_array().unwrap().iter().map(show).collect();
        all.sort();
        all
    }
}

/// Eight senders at once; both tenants in most requests.
async fn send_from_many(timed: &Arc<Timed>) {
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..8_u32 {
        let timed = timed.clone();
        senders.spawn(async move {
            for at in 0..20 {
                let [one, two] = [(sender * 20 + at).to_string(), (at * 10 + 3).to_string()];
                // Some are large enough to leave the executor.
                let filler = "0".repeat(if at % 5 == 0 { 40 } else { 1 });
                let many = vec![filler.as_str(); if at % 5 == 0 { 1_500 } else { 2 }];
                let body =
                    request(&[("tenant.id=t", &[&one]), ("tenant.id=u", &[&two]), ("tenant.id=t", &many)]);
                timed.world.submit("agent", body).await.unwrap();
            }
        });
    }
    while let Some(sent) = senders.join_next().await {
        sent.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn windows_are_the_same_for_one_worker_and_four_and_each_tenant_has_its_own() {
    let mut of_workers = Vec::new();
    for workers in [1, 4] {
        let timed = Arc::new(timed(&[timer("p", "add", "")], workers));
        send_from_many(&timed).await;
        timed.pass(10);
        send_from_many(&timed).await;
        timed.pass(10);
        of_workers.push([timed.windows("p", "t"), timed.windows("p", "u")]);
    }
    let [of_t, of_u] = &of_workers[0];
    let find = |of: &[String], key: &str| of.iter().find(|window| window.starts_with(key)).cloned();
    // 160 requests: their number, and the fillers.
    let records = 160 + 8 * (4 * 1_500 + 16 * 2);
    let sum: u32 = (0..160).sum();
    for start in ["0", "10"] {
        let all = find(of_t, &format!("all@{start}"));
        assert_eq!(all, Some(format!("all@{start}: {records}, {sum}")));
        // 3, 13, 23, …: all end in the same digit.
        let sum: u32 = 8 * (0..20).map(|at| at * 10 + 3).sum::<u32>();
        assert_eq!(find(of_u, &format!("3@{start}")), Some(format!("3@{start}: 160, {sum}")));
    }
    assert_eq!((of_t.len(), of_u.len()), (22, 4));
    assert_eq!(of_workers[0], of_workers[1]);
}

#[tokio::test]
async fn a_plugin_is_given_each_tenants_windows_once_and_silence_after() {
    let timed = timed(&[timer("p", "add", "report")], 2);
    timed.send("t", &["1", "2"]).await.unwrap();
    timed.send("u", &["5"]).await.unwrap();
    timed.world.pipeline.tick_once().await;
    assert_eq!(timed.counted("p", "tenant t"), 0, "no window has closed");
    timed.pass(10);
    for _ in 0..3 {
        timed.world.pipeline.tick_once().await;
    }
    assert_eq!((timed.counted("p", "tenant t"), timed.counted("p", "tenant u")), (1, 1));
    let window = format!("all {BEGIN_MS}000000-{}000000", BEGIN_MS + 10_000);
    assert_eq!(timed.counted("p", &window), 3, "both tenants'");
    for _ in 0..15 {
        timed.pass(10);
        timed.world.pipeline.tick_once().await;
    }
    assert_eq!(timed.counted("p", "tenant t"), 11, "ten windows of silence, then nothing");
    assert!(timed.windows("p", "t").is_empty());
    let line = timed.world.table().line("t", Signal::Logs);
    assert_eq!(line.committed, 2);
}

#[tokio::test]
async fn a_commit_that_is_refused_leaves_nothing() {
    let timed = timed(&[timer("p", "all-then-trap", "")], 2);
    timed.send("t", &["1"]).await.unwrap();
    timed.world.journal.close();
    assert!(matches!(timed.send("t", &["2"]).await, Err(Refusal::Stopping { .. })));
    assert_eq!(timed.counted("p", "calls"), 1);
    assert_eq!(timed.incidents(), ["t p a: 1"]);
    timed.pass(10);
    assert_eq!(timed.windows("p", "t"), ["all@0: 1, 1"]);
}

#[tokio::test]
async fn a_sender_that_goes_away_leaves_nothing() {
    let timed = timed(&[timer("p", "all-then-trap", "")], 1);
    let body = request(&[("tenant.id=t", &["a line of some length"; 5_000])]);
    let mut submit = Box::pin(timed.world.pipeline.submit(timed.world.submission("agent", body)));
    assert!(submit.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(submit);
    // The only worker is free again: the work has ended.
    let deadline = Instant::now() + Duration::from_secs(10);
    drop(timed.world.pipeline.shared.turns.take("t", deadline).await.unwrap());
    timed.pass(10);
    assert_eq!((timed.counted("p", "calls"), timed.incidents().len()), (0, 0));
    assert!(timed.windows("p", "t").is_empty());
}

#[tokio::test]
async fn a_call_that_is_made_again_in_halves_counts_once() {
    let timed = timed(&[timer("p", "all-then-trap", "")], 2);
    // 1 2 | poison | 3: two calls return.
    timed.send("t", &["1", "2", "poison", "3"]).await.unwrap();
    timed.send("u", &["poison"]).await.unwrap();
    assert_eq!(timed.counted("p", "calls"), 2);
    assert_eq!(timed.incidents(), ["t p a: 2"]);
    timed.pass(10);
    assert_eq!(timed.windows("p", "t"), ["all@0: 2, 2"]);
    assert!(timed.windows("p", "u").is_empty());
    assert_eq!(timed.metric(r#"trommel_process_passed_records_total{plugin="p",reason="failed"}"#), 2);
}

#[tokio::test]
async fn one_poisonous_record_among_512_leaves_everything_else_as_it_is_without_it() {
    let mut left = Vec::new();
    for poison in [None, Some(0), Some(300), Some(511)] {
        let timed = timed(&[timer("p", "records-then-trap", "")], 2);
        let mut bodies: Vec<String> = (0..511).map(|number| format!("line {number}")).collect();
        if let Some(at) = poison {
            bodies.insert(at, "poison".into());
        }
        let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
        timed.send("t", &bodies).await.unwrap();
        timed.pass(10);
        let gauge = r#"trommel_process_plugin_gauge{plugin="p",name="seen"} 7.0"#;
        left.push((
            timed.counted("p", "records"),
            timed.world.metrics.text().contains(gauge),
            timed.windows("p", "t"),
            timed.incidents(),
        ));
        assert_eq!(timed.world.table().line("t", Signal::Logs).committed, bodies.len() as u64);
    }
    assert_eq!((left[0].0, left[0].1, left[0].2.len()), (511, true, 10));
    assert_eq!(left[0].3, ["t p a: 511"]);
    assert!(left.iter().all(|one| *one == left[0]), "{left:?}");
}

/// The same with a shadow beside it, which meets the poison too.
#[tokio::test]
async fn a_shadow_beside_a_poisonous_record_and_a_commit_that_is_refused_leave_nothing_more() {
    let modes = r#"{"process": "records-then-trap", "tick": ""}"#;
    let mut left = Vec::new();
    for (poison, has_shadow, is_refused) in [
        (false, false, false),
        (true, false, false),
        (true, true, false),
        (true, false, true),
        (true, true, true),
    ] {
        let mut slot = slot("p", "hostile-timer", modes, OnFailure::Pass);
        let score: Arc<Score> = Arc::default();
        if has_shadow {
            let settings = settings("p", "hostile-timer", modes, OnFailure::Pass);
            let guest = artifacts::guest("hostile-timer").unwrap();
            let plugin = sandbox().load_shadow(&settings, guest).unwrap();
            let kind = TrialKind::Shadow(Arc::new(Differences::new("p", &Metrics::new())));
            slot.versions.trial = Some(Trial { plugin, score: score.clone(), kind });
        }
        let timed = timed(&[slot], 2);
        let mut bodies: Vec<String> = (0..511).map(|number| format!("line {number}")).collect();
        if poison {
            bodies.insert(300, "poison".into());
        }
        let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
        timed.send("t", &bodies).await.unwrap();
        if is_refused {
            timed.world.journal.close();
            assert!(matches!(timed.send("t", &bodies).await, Err(Refusal::Stopping { .. })));
        }
        if has_shadow {
            let runs = if is_refused { 2 } else { 1 };
            assert_eq!((score.read().runs, score.read().failed_runs), (runs, runs), "it met the poison");
        }
        timed.pass(10);
        let text = timed.world.metrics.text();
        let is_of_it = |line: &&str| line.starts_with("trommel_process_plugin_") && line.contains("\"p\"");
        let counted: Vec<String> = text.lines().filter(is_of_it).map(String::from).collect();
        left.push((counted, timed.windows("p", "t"), timed.incidents()));
    }
    assert_eq!((left[0].0.len(), left[0].1.len()), (2, 10), "{left:?}");
    assert_eq!(left[0].2, ["t p a: 511"]);
    assert!(left.iter().all(|one| *one == left[0]), "{left:?}");
}

#[tokio::test]
async fn names_beyond_those_of_a_plugin_are_one_and_counted() {
    let limits = Limits { names: 1, ..Limits::default() };
    let mode = r#"{"mode": "drop-even"}"#;
    let timed = timed(&[slot_with("p", "hostile", mode, OnFailure::Pass, limits)], 2);
    for _ in 0..3 {
        timed.send("t", &["1", "2"]).await.unwrap();
    }
    assert_eq!(timed.counted("p", "dropped"), 3);
    // The gauge came second.
    let others = r#"trommel_process_plugin_gauge{plugin="p",name="_other"}"#;
    let text = timed.world.metrics.text();
    assert!(text.contains(others) && !text.contains("name=\"last\""), "{text}");
    assert_eq!(timed.metric(r#"trommel_process_limit_total{plugin="p",limit="names"}"#), 3);
}

#[tokio::test]
async fn what_a_tick_leaves_takes_effect_for_its_tenant_if_it_returns_ok() {
    let timed = timed(&[timer("good", "add", "fire"), timer("bad", "add", "remember-then-trap")], 2);
    timed.send("t", &["1"]).await.unwrap();
    timed.pass(10);
    timed.world.pipeline.tick_once().await;
    let of_t = ["t good key0: 1", "t good key1: 1", "t good key2: 1"];
    assert_eq!(timed.incidents(), of_t);
    let lost = r#"trommel_process_lost_windows_total{plugin="bad",reason="failed"}"#;
    // `all` and the last digit.
    assert_eq!(timed.metric(lost), 2);
    timed.pass(10);
    timed.world.pipeline.tick_once().await;
    assert_eq!(timed.metric(lost), 4, "it goes on with the next ones");
    assert_eq!(timed.incidents(), of_t.map(|incident| incident.replace(": 1", ": 2")));
}

#[tokio::test]
async fn windows_wait_for_a_plugin_that_has_no_turn() {
    let timed = timed(&[timer("p", "add", "report")], 1);
    timed.send("t", &["1"]).await.unwrap();
    timed.pass(10);
    let deadline = Instant::now() + Duration::from_secs(10);
    let shared = &timed.world.pipeline.shared;
    let turn = shared.turns.take("u", deadline).await.unwrap();
    let mut rounds = Rounds::default();
    for _ in 0..3 {
        rounds.begin(shared);
        tokio::task::yield_now().await;
    }
    assert_eq!(rounds.running.len(), 1, "never two at a time");
    drop(turn);
    let ended = rounds.running.join_next_with_id().await.unwrap();
    rounds.end(ended.map(|(id, ())| id));
    assert_eq!(timed.counted("p", "tenant t"), 1);
    rounds.begin(shared);
    assert_eq!(rounds.running.len(), 1, "and the next one begins");
}

#[tokio::test]
async fn a_plugin_that_is_gone_keeps_no_windows_and_is_called_no_more() {
    let both = [timer("p", "add", "report"), timer("q", "add", "report")];
    let timed = timed(&both, 2);
    timed.send("t", &["1"]).await.unwrap();
    timed.pass(10);
    let [p, q] = both;
    timed.world.pipeline.promote(&[Slot { plugin: None, ..p.clone() }, q.clone()]).unwrap();
    timed.world.pipeline.tick_once().await;
    assert_eq!((timed.counted("p", "tenant t"), timed.counted("q", "tenant t")), (0, 1));
    timed.world.pipeline.promote(&[p, q]).unwrap();
    timed.world.pipeline.tick_once().await;
    assert_eq!(timed.counted("p", "tenant t"), 0, "what it had is gone");
    timed.send("t", &["1"]).await.unwrap();
    timed.pass(10);
    timed.world.pipeline.tick_once().await;
    assert_eq!((timed.counted("p", "tenant t"), timed.counted("q", "tenant t")), (1, 2));
}

#[tokio::test]
async fn a_new_key_per_record_is_bounded_and_harms_neither_sums_nor_others() {
    let timed = timed(&[timer("bad", "key-per-record", ""), timer("good", "add", "")], 2);
    let bodies: Vec<String> = (0..10_000).map(|at| at.to_string()).collect();
    let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
    for _ in 0..2 {
        timed.send("t", &bodies).await.unwrap();
    }
    timed.send("u", &["7"]).await.unwrap();
    timed.pass(10);
    let of_t = timed.windows("bad", "t");
    assert_eq!(of_t.len(), 1_000, "the others are one of them");
    let count = |window: &String| {
        let (_, numbers) = window.split_once(": ").unwrap();
        numbers.split_once(", ").unwrap().0.parse::<u64>().unwrap()
    };
    assert_eq!(of_t.iter().map(count).sum::<u64>(), 20_000);
    let others = of_t.iter().find(|window| window.starts_with("_other@")).unwrap();
    assert_eq!(
        timed.metric(r#"trommel_process_limit_total{plugin="bad",limit="series_keys"}"#),
        count(others)
    );
    assert_eq!(timed.windows("bad", "u"), ["key of 7@0: 1, 1"]);
    assert_eq!(timed.windows("good", "u"), ["7@0: 1, 7", "all@0: 1, 7"]);
    let of_t = timed.windows("good", "t");
    assert_eq!((of_t.len(), count(&of_t[10])), (11, 20_000));
}

#[tokio::test]
async fn ten_thousand_alerts_of_a_call_are_few_and_harm_nobody() {
    let timed = timed(&[timer("bad", "fire-10000-keys", ""), timer("good", "fire", "")], 2);
    for _ in 0..10 {
        timed.send("t", &["1"]).await.unwrap();
    }
    timed.send("u", &["1"]).await.unwrap();
    let raised = timed.metric(r#"trommel_alerts_raised_total{tenant="_other",plugin="bad"}"#);
    // So many of a call; the sandbox counts the rest.
    assert_eq!(raised, 11 * 32);
    let incidents = timed.incidents();
    let good: Vec<_> = incidents.iter().filter(|incident| incident.contains(" good ")).collect();
    assert_eq!(good, ["t good key0: 10", "u good key0: 1"]);
    assert_eq!(timed.world.given(0).len(), 11, "the records are not harmed");
}

/// Gauges and alerts show the last commit's, so that nobody's thread decides.
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn the_order_of_effects_is_that_of_commits() {
    use crate::journal::Frame;
    use crate::pipeline::left::Left;
    use crate::sandbox::Effects;
    let timed = Arc::new(timed(&[], 4));
    let last = Arc::new(AtomicU64::new(0));
    let mut committers = tokio::task::JoinSet::new();
    for number in 0..8_u32 {
        let (timed, last) = (timed.clone(), last.clone());
        committers.spawn(async move {
            for at in 0..500 {
                let value = f64::from(number * 1_000 + at);
                let (applied, last) = (timed.clone(), last.clone());
                let after: journal::After = Box::new(move |committed| {
                    let tenant = TenantId::new("t").unwrap();
                    let effects = Effects { gauges: vec![("last".into(), value)], ..Effects::default() };
                    let left = vec![Left { effects, ..Left::of("p", &tenant) }];
                    applied.world.pipeline.shared.consequences.apply(left, committed.time_ms);
                    last.store(value as u64, Ordering::Relaxed);
                });
                let frame = Frame { after: Some(after), ..Frame::default() };
                timed.world.journal.commit(frame).await.unwrap();
            }
        });
    }
    while let Some(done) = committers.join_next().await {
        done.unwrap();
    }
    let text = timed.world.metrics.text();
    let last = last.load(Ordering::Relaxed);
    let line = format!(r#"trommel_process_plugin_gauge{{plugin="p",name="last"}} {last}.0"#);
    assert!(text.contains(&line), "{line} is not in {text}");
}
