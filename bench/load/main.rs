//! What does the whole path cost beside forwarding the bytes unread?
//!
//! `load run [--trommel PATH]` starts a sink, then in turn the floor (a tonic proxy that forwards messages unread) and
//! the collector under several configurations, sends the same load through each, and prints CPU seconds per million
//! records, resident memory and latencies. Generator and sink share one core, the system under test has the other.
//! `load sink|floor|generate` are the processes it starts.

#![allow(clippy::print_stdout, reason = "a command line tool that prints its figures")]

mod measure;
mod run;
mod wire;

use anyhow::{Context, Result, bail};
use bench::Shape;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let flag = |name: &str| {
        arguments.iter().position(|a| a == name).and_then(|at| arguments.get(at + 1)).map(String::as_str)
    };
    let number = |name: &str, usual: u64| flag(name).map_or(Ok(usual), str::parse);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match arguments.first().map(String::as_str) {
        Some("sink") => runtime.block_on(sink(
            flag("--listen").context("--listen")?.parse()?,
            arguments.contains(&"--gzip".into()),
        )),
        Some("floor") => runtime.block_on(floor(
            flag("--listen").context("--listen")?.parse()?,
            flag("--to").context("--to")?,
            arguments.contains(&"--gzip".into()),
        )),
        Some("generate") => runtime.block_on(generate(Load {
            to: flag("--to").context("--to")?.to_owned(),
            requests: number("--requests", 1000)?,
            per_second: number("--per-second", 0)?,
            connections: number("--connections", 4)?,
            in_flight: number("--in-flight", 16)?,
            is_gzip: arguments.contains(&"--gzip".into()),
            shape: Shape {
                records: number("--records", 512)? as usize,
                resources: number("--resources", 4)? as usize,
                has_tenant: arguments.contains(&"--with-tenant".into()),
                projects: number("--projects", 0)? as usize,
            },
        })),
        Some("run") => runtime.block_on(run::run(flag("--trommel").unwrap_or("target/release/trommel"))),
        _ => bail!("usage: load run [--trommel PATH]"),
    }
}

/// Takes everything and counts messages' bytes; the answer is an empty success.
async fn sink(listen: std::net::SocketAddr, is_gzip: bool) -> Result<()> {
    let service =
        wire::Service { handler: |_message: bytes::Bytes| async { Ok(bytes::Bytes::new()) }, is_gzip };
    tonic::transport::Server::builder()
        .max_frame_size(1 << 20)
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(64 << 20)
        .add_service(service)
        .serve(listen)
        .await?;
    Ok(())
}

/// Forwards each message unread and answers what it was answered.
async fn floor(listen: std::net::SocketAddr, to: &str, is_gzip: bool) -> Result<()> {
    let channel = tonic::transport::Endpoint::from_shared(to.to_owned())?.connect_lazy();
    let handler = move |message: bytes::Bytes| {
        let channel = channel.clone();
        async move { wire::export(&channel, message, is_gzip).await }
    };
    tonic::transport::Server::builder().add_service(wire::Service { handler, is_gzip }).serve(listen).await?;
    Ok(())
}

struct Load {
    to: String,
    requests: u64,
    /// 0: as fast as it goes.
    per_second: u64,
    connections: u64,
    in_flight: u64,
    is_gzip: bool,
    shape: Shape,
}

/// Sends the load and prints `records seconds p50_us p99_us refused`.
async fn generate(load: Load) -> Result<()> {
    let bodies = Arc::new(bench::encoded(load.shape, 200));
    let mut channels = Vec::new();
    for _ in 0..load.connections {
        channels.push(tonic::transport::Endpoint::from_shared(load.to.clone())?.connect().await?);
    }
    let next = Arc::new(AtomicU64::new(0));
    let refused = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..load.in_flight {
        let channel = channels[(worker % load.connections) as usize].clone();
        let (bodies, next, refused) = (bodies.clone(), next.clone(), refused.clone());
        let (requests, per_second, is_gzip) = (load.requests, load.per_second, load.is_gzip);
        workers.spawn(async move {
            let mut latencies = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= requests {
                    return latencies;
                }
                if let Some(due) = (number * 1_000_000).checked_div(per_second) {
                    tokio::time::sleep_until(started + Duration::from_micros(due)).await;
                }
                let body = bodies[(number % bodies.len() as u64) as usize].clone();
                let asked = Instant::now();
                while wire::export(&channel, body.clone(), is_gzip).await.is_err() {
                    refused.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                latencies.push(asked.elapsed().as_micros() as u64);
            }
        });
    }
    let mut latencies: Vec<u64> = Vec::new();
    while let Some(done) = workers.join_next().await {
        latencies.extend(done?);
    }
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{} {seconds:.3} {} {} {}",
        load.requests * load.shape.records as u64,
        at(0.5),
        at(0.99),
        refused.load(Ordering::Relaxed)
    );
    Ok(())
}
