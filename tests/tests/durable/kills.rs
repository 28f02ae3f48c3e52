//! `kill -9` at random moments under load. It proves nothing of the syncs: what the system has of a file outlives the
//! process. What the disk may lose is asserted in the journal's own tests.

use super::backend::Backend;
use super::collector::Collector;
use super::oracle::{Oracle, Random, drained, send, yaml};
use super::{number_in, say};
use crate::world::eventually;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const KILLS: u64 = 100;
const SENDERS: u64 = 8;
/// Of all that was left to deliver; a debug build on a slow machine.
const DRAIN: Duration = Duration::from_secs(180);

/// Says how it was drawn, if it fails.
struct Seed(u64);

impl Drop for Seed {
    #[allow(clippy::print_stderr, reason = "a failing test says how to see it again")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("again with SEED={}", self.0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_number_of_kills_loses_nothing_acknowledged_and_stores_nothing_twice() {
    let kills = number_in("TROMMEL_TEST_KILLS").unwrap_or(KILLS);
    let seed = Seed(number_in("SEED").unwrap_or_else(|| trommel::journal::system_clock()()));
    let mut random = Random(seed.0);
    let backend = Backend::start().await;
    // What it has taken and does not own up to is sent again.
    backend.forget_one_in(16);
    backend.slow(Duration::from_millis(3));
    let journal = "journal: { kind: disk, max: 4GiB, age: 6h }\nmemory: { room: 64MiB }";
    let mut collector = Collector::new(|grpc, console| yaml(grpc, console, &backend.url, journal));
    let oracle = Arc::new(Oracle::default());
    let stop = CancellationToken::new();
    let mut senders = JoinSet::new();
    for _ in 0..SENDERS {
        let (to, random) = (collector.grpc.clone(), Random(random.next()));
        senders.spawn(send(oracle.clone(), to, random, stop.clone()));
    }
    for _ in 0..kills {
        let before = oracle.acknowledged();
        collector.start();
        match random.below(4) {
            // While it starts, or shortly after.
            0 => tokio::time::sleep(Duration::from_millis(random.below(400))).await,
            1 => {
                collector.ready().await;
                tokio::time::sleep(Duration::from_millis(random.below(150))).await;
            }
            _ => {
                eventually("an answer", || async { oracle.acknowledged() > before }).await;
                tokio::time::sleep(Duration::from_millis(random.below(150))).await;
            }
        }
        collector.kill();
    }
    let before = oracle.acknowledged();
    collector.start();
    collector.ready().await;
    eventually("each sender is answered", || async { oracle.acknowledged() >= before + 2 * SENDERS }).await;
    stop.cancel();
    while let Some(ended) = senders.join_next().await {
        ended.unwrap();
    }
    drained(&collector.console, DRAIN).await;
    assert!(oracle.acknowledged() > kills, "{} of {}", oracle.acknowledged(), oracle.attempts());
    let reached = backend.reached();
    assert!(reached.values().any(|times| times.count > 1), "what was not owned up to came again");
    oracle.check(&collector.console, &reached).await;
    say(&format!("{kills} kills: {} of {} attempts acknowledged", oracle.acknowledged(), oracle.attempts()));
    collector.stop().await;
}
