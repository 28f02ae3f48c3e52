//! Ten times what the room takes: senders are told when to come back, memory stays within its bound, and whatever was
//! acknowledged arrives.

use super::backend::Backend;
use super::collector::Collector;
use super::oracle::{Oracle, client, drained, ledger, yaml};
use super::{number_in, say};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic_types::StatusExt;

const SECONDS: u64 = 10;
const ROOM_BYTES: u64 = 64 << 20;
/// Beside the room, 100 MiB: 20 for the program, the rest for its caches and what is in the sockets' buffers.
const BESIDE_BYTES: u64 = 80 << 20;
/// A request of 400 kB is charged three times that: what all of them ask for is ten times the room.
const REQUEST_BYTES: usize = 400_000;
const SENDERS: usize = 10 * ROOM_BYTES as usize / (3 * REQUEST_BYTES);
const CONNECTIONS: usize = 16;
const DRAIN: Duration = Duration::from_secs(400);

#[derive(Default)]
struct Counts {
    refused: AtomicU64,
    /// Without a time to come back, and no loss of the connection either.
    rude: AtomicU64,
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_times_the_room_is_refused_with_a_time_and_nothing_acknowledged_is_lost() {
    let seconds = number_in("TROMMEL_TEST_OVERLOAD_SECONDS").unwrap_or(SECONDS);
    let backend = Backend::start().await;
    backend.slow(Duration::from_millis(300));
    let more = "journal: { kind: disk, max: 16GiB, age: 6h }\nmemory: { room: 64MiB }";
    let mut collector = Collector::new(|grpc, console| yaml(grpc, console, &backend.url, more));
    collector.start();
    collector.ready().await;
    let (oracle, counts, stop) =
        (Arc::new(Oracle::default()), Arc::new(Counts::default()), CancellationToken::new());
    let large: Arc<str> = "x".repeat(REQUEST_BYTES).into();
    let clients: Vec<_> = (0..CONNECTIONS).map(|_| client(&collector.grpc)).collect();
    let mut senders = JoinSet::new();
    for sender in 0..SENDERS {
        let (oracle, counts, stop, large) = (oracle.clone(), counts.clone(), stop.clone(), large.clone());
        let mut client = clients[sender % CONNECTIONS].clone();
        senders.spawn(async move {
            while !stop.is_cancelled() {
                if let Err(refused) = oracle.attempt(&mut client, 3, &large).await {
                    counts.note(&refused);
                    // Ruder than it was asked to be, so that the load stays.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        });
    }
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    stop.cancel();
    while let Some(ended) = senders.join_next().await {
        ended.unwrap();
    }
    backend.slow(Duration::ZERO);
    drained(&collector.console, DRAIN).await;
    let peak = collector.peak_resident_bytes();
    let (taken, refused) = (oracle.acknowledged(), counts.refused.load(Ordering::Relaxed));
    say(&format!("{taken} requests taken, {refused} refused, {} MiB at most", peak >> 20));
    assert!(peak <= ROOM_BYTES + BESIDE_BYTES, "{} MiB of memory at most", peak >> 20);
    let rude = counts.rude.load(Ordering::Relaxed);
    assert!(refused > 100 && rude == 0, "{refused} were told when to come back, {rude} were not");
    assert!(taken > 50, "{taken} were taken");
    oracle.check(&collector.console, &backend.reached()).await;
    assert!(ledger(&collector.console).await.lost.is_empty());
    collector.stop().await;
}

impl Counts {
    fn note(&self, refused: &tonic::Status) {
        let after = refused.get_details_retry_info().and_then(|info| info.retry_delay);
        match after {
            Some(after) if after >= Duration::from_secs(1) => self.refused.fetch_add(1, Ordering::Relaxed),
            _ => self.rude.fetch_add(1, Ordering::Relaxed),
        };
    }
}
