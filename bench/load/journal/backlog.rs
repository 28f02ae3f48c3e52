//! A sink that is down: how fast its backlog grows, what a start with it takes, how fast it drains, and what memory.

use super::{Bench, CONSOLE, SINK, SINK_COUNT, frame_bytes, shape};
use crate::measure::{forget_peak, resident_mib};
use crate::process::{Process, is_ready, ledger, metric, wait_until};
use anyhow::{Context, Result, ensure};
use std::io::Read;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tokio::time::Instant;

const BACKLOG_BYTES: usize = 2 << 30;
const RECORDS: usize = 512;
const POLL: Duration = Duration::from_millis(20);
const START_MAX: Duration = Duration::from_secs(30);
const DRAIN_MAX: Duration = Duration::from_secs(180);
/// After which a start has read what it reads ahead.
const SETTLED: Duration = Duration::from_secs(2);
const MB: f64 = 1e6;

#[allow(clippy::print_stdout, reason = "the figures")]
pub(super) async fn run(bench: &Bench) -> Result<()> {
    bench.clear()?;
    let requests = BACKLOG_BYTES.div_ceil(frame_bytes(shape(RECORDS))) as u64;
    let bytes = requests as f64 * frame_bytes(shape(RECORDS)) as f64;
    let configuration = configuration();
    let collector = bench.collector(&configuration).await?;
    let (idle_mib, _) = resident_mib(collector.0.id())?;
    let generated = bench.generate(shape(RECORDS), requests, &[])?;
    let ingest = bytes / generated.seconds / MB;
    let (_, ingest_mib) = resident_mib(collector.0.id())?;
    let disk_bytes = metric(CONSOLE, "trommel_commit_disk_bytes")?;
    ensure!(disk_bytes as usize > BACKLOG_BYTES / 100 * 95, "only {disk_bytes} bytes are on the disk");
    // Killed: nothing was said that a start could rely on.
    drop(collector);
    forget_cached(&bench.data().join("journal"))?;

    let started = Instant::now();
    let collector = Process(bench.collector_command(&configuration)?.spawn()?);
    while !is_ready(CONSOLE) {
        ensure!(started.elapsed() < START_MAX, "not ready after {START_MAX:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let start = started.elapsed().as_secs_f64();
    let pid = collector.0.id();
    let (ready_mib, _) = resident_mib(pid)?;
    tokio::time::sleep(SETTLED).await;
    let (_, start_mib) = resident_mib(pid)?;

    forget_peak(pid)?;
    let asked = Instant::now();
    let sink = bench.sink().await?;
    let (waited, drained, drain_bytes) = drain(asked, requests * RECORDS as u64).await?;
    let (after_mib, drain_mib) = resident_mib(pid)?;
    let drain = drain_bytes / drained / MB;
    drop((collector, sink));

    println!(
        "\nbacklog of {:.2} GiB in {requests} requests of {RECORDS} records\n",
        bytes / f64::from(1 << 30)
    );
    println!("| | |\n|---|---|");
    println!(
        "| ingest, sink down | {ingest:.0} MB/s, {:.0} records/s |",
        generated.records / generated.seconds
    );
    println!("| resident: idle, at most during ingest | {idle_mib:.0}, {ingest_mib:.0} MiB |");
    println!("| start after kill -9, files not cached: until ready | {start:.2} s |");
    println!("| resident: when ready, at most 2 s later | {ready_mib:.0}, {start_mib:.0} MiB |");
    println!("| sink up: first delivery after | {waited:.2} s |");
    println!("| drain | {drain:.0} MB/s, {:.2} × ingest |", drain / ingest);
    println!("| resident: at most during the drain, after it | {drain_mib:.0}, {after_mib:.0} MiB |");
    Ok(())
}

/// Seconds until the first delivery, seconds from there to the last, and the bytes of these.
async fn drain(asked: Instant, records: u64) -> Result<(f64, f64, f64)> {
    while sunk_bytes()? == 0.0 {
        ensure!(asked.elapsed() < DRAIN_MAX, "nothing was delivered");
        tokio::time::sleep(POLL).await;
    }
    let (waited, first, began) = (asked.elapsed(), sunk_bytes()?, Instant::now());
    let (mut last, mut last_at) = (first, began);
    loop {
        tokio::time::sleep(POLL).await;
        let now = sunk_bytes()?;
        if now > last {
            (last, last_at) = (now, Instant::now());
        } else if last_at.elapsed() > Duration::from_secs(1) && ledger(CONSOLE, "delivered")? == records {
            break;
        }
        ensure!(asked.elapsed() < DRAIN_MAX, "{} of {records} delivered", ledger(CONSOLE, "delivered")?);
    }
    // Nothing is missing; what an attempt sent twice is in the bytes.
    wait_until(|| ledger(CONSOLE, "delivered").is_ok_and(|delivered| delivered == records)).await?;
    Ok((waited.as_secs_f64(), (last_at - began).as_secs_f64(), last - first))
}

fn sunk_bytes() -> Result<f64> {
    let mut text = String::new();
    TcpStream::connect(SINK_COUNT)?.read_to_string(&mut text)?;
    Ok(text.parse()?)
}

/// What is read comes from the disk.
fn forget_cached(folder: &Path) -> Result<()> {
    for file in std::fs::read_dir(folder)? {
        let path = file?.path();
        let status = Command::new("dd")
            .arg(format!("if={}", path.display()))
            .args(["iflag=nocache", "count=0", "status=none"])
            .status()
            .context("dd")?;
        ensure!(status.success(), "dd ended with {status}");
    }
    Ok(())
}

fn configuration() -> String {
    format!(
        "journal: {{ kind: disk, max: 6GiB }}\npipelines: [{{ name: logs, when: {{ signal: logs }}, sinks: [out] }}]\n\
         sinks: {{ out: {{ type: otlp, endpoint: \"http://{SINK}\", compression: none }} }}\n"
    )
}
