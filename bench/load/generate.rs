//! The generator: requests that were made before the clock starts, over several connections.

use crate::wire;
use anyhow::Result;
use bench::Shape;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Different requests; they are sent in turn.
const BODIES: usize = 200;
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// What to send, and how.
pub(crate) struct Load {
    pub(crate) to: String,
    pub(crate) requests: u64,
    /// 0: as fast as it goes.
    pub(crate) per_second: u64,
    pub(crate) connections: usize,
    pub(crate) in_flight: usize,
    pub(crate) is_gzip: bool,
    pub(crate) token: Option<String>,
    /// What is refused is not sent again.
    pub(crate) gives_up: bool,
    pub(crate) shape: Shape,
}

/// Sends the load and prints `records seconds p50_us p99_us refused`. What is refused is sent again, unless it
/// gives up.
#[allow(clippy::print_stdout, reason = "its figures, for the process that started it")]
pub(crate) async fn generate(load: Load) -> Result<()> {
    let bodies = bench::encoded(load.shape, BODIES);
    let frames = bodies.iter().map(|body| wire::frame(body, load.is_gzip)).collect::<Result<Vec<_>>>()?;
    let load = Arc::new((load, frames));
    let mut channels = Vec::new();
    for _ in 0..load.0.connections {
        channels.push(wire::connect(&load.0.to)?.connect().await?);
    }
    let next = Arc::new(AtomicU64::new(0));
    let refused = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..load.0.in_flight {
        let channel = channels[worker % channels.len()].clone();
        workers.spawn(work(load.clone(), channel, next.clone(), refused.clone(), started));
    }
    let mut latencies: Vec<u64> = Vec::new();
    while let Some(done) = workers.join_next().await {
        latencies.extend(done?);
    }
    latencies.sort_unstable();
    anyhow::ensure!(!latencies.is_empty(), "nothing was taken");
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    let seconds = started.elapsed().as_secs_f64();
    let records = load.0.requests * load.0.shape.records as u64;
    println!("{records} {seconds:.3} {} {} {}", at(0.5), at(0.99), refused.load(Ordering::Relaxed));
    Ok(())
}

/// One of those in flight at a time; returns how long each request took, in microseconds.
async fn work(
    load: Arc<(Load, Vec<bytes::Bytes>)>,
    channel: tonic::transport::Channel,
    next: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    started: Instant,
) -> Vec<u64> {
    let (load, frames) = &*load;
    let mut latencies = Vec::new();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= load.requests {
            return latencies;
        }
        if let Some(due) = (number * 1_000_000).checked_div(load.per_second) {
            tokio::time::sleep_until(started + Duration::from_micros(due)).await;
        }
        let frame = &frames[number as usize % frames.len()];
        let asked = Instant::now();
        let send = || wire::send(&channel, frame.clone(), load.is_gzip, load.token.as_deref());
        let mut is_taken = send().await.is_ok();
        while !is_taken {
            refused.fetch_add(1, Ordering::Relaxed);
            if load.gives_up {
                break;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
            is_taken = send().await.is_ok();
        }
        latencies.extend(is_taken.then(|| asked.elapsed().as_micros() as u64));
    }
}
