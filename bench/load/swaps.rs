//! What do requests notice of new versions of a plugin, and how soon is a new one active?
//!
//! `load swaps [--trommel PATH] [--folder FOLDER] [--rounds N]`. Requests come at a fixed rate through a plugin whose file
//! has another version again and again. The floor is the same traffic while the file stays.

use crate::journal::{Bench, CONSOLE, median, shape};
use crate::process::{Generated, metric, on_core};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

const RECORDS: usize = 100;
const PER_SECOND: u64 = 200;
const SECONDS: u64 = 10;
/// By a change of the file, in each round.
const FILE_CHANGES: usize = 50;
/// Between two swaps by command; the second is as fast as it goes.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::ZERO];

#[allow(clippy::print_stdout, reason = "the figures")]
pub(crate) async fn run(bench: &Bench) -> Result<()> {
    let mut said = [const { [Vec::new(), Vec::new()] }; 1 + PAUSES.len()];
    let mut swaps = [const { Vec::new() }; 1 + PAUSES.len()];
    let mut active_ms = Vec::new();
    for _ in 0..bench.rounds {
        for (at, pause) in std::iter::once(None).chain(PAUSES.map(Some)).enumerate() {
            let (generated, swapped) = by_command(bench, pause).await?;
            said[at][0].push(generated.p50_ms);
            said[at][1].push(generated.p99_ms);
            swaps[at].push(swapped as f64);
        }
        active_ms.extend(by_file(bench).await?);
    }
    println!(
        "\n{PER_SECOND} requests of {RECORDS} records a second through a plugin of which there are new versions\n"
    );
    println!("| new versions in {SECONDS} s | p50 ms | p99 ms | p99 more by ms |\n|---|---|---|---|");
    let floor = median(said[0][1].clone());
    for (said, swaps) in said.into_iter().zip(swaps) {
        let [p50, p99] = said.map(median);
        println!("| {:.0} | {p50:.2} | {p99:.2} | {:.2} |", median(swaps), p99 - floor);
    }
    active_ms.sort_by(f64::total_cmp);
    let part = |part: usize| active_ms[(active_ms.len() - 1) * part / 100];
    println!(
        "\nfrom file written to active, {} times, versions compiled before: median {:.0} ms, p99 {:.0} ms, most {:.0} ms",
        active_ms.len(),
        part(50),
        part(99),
        part(100)
    );
    Ok(())
}

/// Traffic, with swaps by `trommel plugin swap` beside it, or without; and how many there were.
async fn by_command(bench: &Bench, pause: Option<Duration>) -> Result<(Generated, u64)> {
    let file = prepare(bench)?;
    let collector = bench.collector(&configuration("auto: false, watch: 0s")).await?;
    // Both versions are compiled, and the traffic has its connections.
    swap(bench, &file, 2)?;
    swap(bench, &file, 1)?;
    generate(bench, 1)?;
    let is_over = Arc::new(AtomicBool::new(false));
    let swapping = pause.map(|pause| {
        let (is_over, file, bench) = (is_over.clone(), file.clone(), bench.clone());
        std::thread::spawn(move || -> Result<()> {
            let mut version = 1;
            while !is_over.load(Ordering::Relaxed) {
                version = 3 - version;
                swap(&bench, &file, version)?;
                std::thread::sleep(pause);
            }
            Ok(())
        })
    });
    let before = promoted()?;
    let generated = generate(bench, SECONDS);
    let swapped = promoted()? - before;
    is_over.store(true, Ordering::Relaxed);
    if let Some(swapping) = swapping {
        swapping.join().expect("it does not panic")?;
    }
    drop(collector);
    Ok((generated?, swapped))
}

/// Milliseconds from a file that is renamed into place until requests take what it has.
async fn by_file(bench: &Bench) -> Result<Vec<f64>> {
    let file = prepare(bench)?;
    let collector = bench.collector(&configuration("watch: 0s")).await?;
    let mut took = Vec::new();
    for number in 0..FILE_CHANGES + 2 {
        let before = promoted()?;
        put(&file, 1 + (number + 1) % 2)?;
        let written = Instant::now();
        while promoted()? == before {
            ensure!(written.elapsed() < Duration::from_secs(30), "the new file is not taken");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        took.push(written.elapsed().as_secs_f64() * 1e3);
    }
    drop(collector);
    // The first two compile.
    Ok(took.split_off(2))
}

fn promoted() -> Result<u64> {
    metric(CONSOLE, "trommel_process_swaps_total")
}

fn prepare(bench: &Bench) -> Result<PathBuf> {
    bench.clear()?;
    let file = bench.folder.join("p.wasm");
    put(&file, 1)?;
    Ok(file)
}

/// The guest as this version, in the place of the one before at once.
fn put(file: &Path, version: usize) -> Result<()> {
    let mut bytes = artifacts::guest("stamper").context("the guest")?.to_vec();
    let at = bytes.windows(8).position(|window| window == b"FLAVOUR ").context("the guest's place for it")?;
    let flavour = format!("FLAVOUR {version};stamp;");
    bytes[at..at + 64].fill(b'.');
    bytes[at..at + flavour.len()].copy_from_slice(flavour.as_bytes());
    let aside = file.with_extension("aside");
    std::fs::write(&aside, bytes)?;
    Ok(std::fs::rename(&aside, file)?)
}

fn swap(bench: &Bench, file: &Path, version: usize) -> Result<()> {
    put(file, version)?;
    // On its core the traffic goes first.
    let mut command = on_core(1, "nice");
    command.args(["-n", "19"]).arg(&bench.trommel).args([
        "plugin",
        "swap",
        "p",
        "--console",
        &format!("http://{CONSOLE}"),
    ]);
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    ensure!(status.success(), "`trommel plugin swap` ended with {status}");
    Ok(())
}

fn generate(bench: &Bench, seconds: u64) -> Result<Generated> {
    let flags = ["--per-second", &PER_SECOND.to_string()].map(str::to_owned);
    bench.generate(shape(RECORDS), PER_SECOND * seconds, &flags)
}

fn configuration(swap: &str) -> String {
    format!(
        "journal: {{ kind: memory }}\n\
         plugins:\n  p: {{ module: ./p.wasm, on_failure: pass, grant: {{ reads: [\"item:stamp\"], writes: [\"item:stamp\", drop] }}, swap: {{ {swap} }} }}\n\
         pipelines: [{{ name: all, plugins: [p], sinks: [out] }}]\n\
         sinks: {{ out: {{ type: discard }} }}\n"
    )
}
