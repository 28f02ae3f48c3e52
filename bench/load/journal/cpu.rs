//! CPU time of the collector per million records, at one rate.

use super::{Bench, Kind, SINK, shape};
use crate::measure::cpu_seconds;
use crate::process::{ledger, wait_until};
use anyhow::Result;

const WARM_UP_REQUESTS: u64 = 300;

pub(super) struct Load {
    pub(super) name: &'static str,
    records: usize,
    per_second: u64,
    requests: u64,
    has_sink: bool,
}

pub(super) const LOADS: [Load; 4] = [
    Load {
        name: "cpu: to an otlp sink, 512 records, 300 requests a second",
        records: 512,
        per_second: 300,
        requests: 1800,
        has_sink: true,
    },
    Load {
        name: "cpu: discarded, 512 records, 300 requests a second",
        records: 512,
        per_second: 300,
        requests: 1800,
        has_sink: false,
    },
    Load {
        name: "cpu: to an otlp sink, 10 records, 4000 requests a second",
        records: 10,
        per_second: 4000,
        requests: 20_000,
        has_sink: true,
    },
    Load {
        name: "cpu: discarded, 10 records, 4000 requests a second",
        records: 10,
        per_second: 4000,
        requests: 20_000,
        has_sink: false,
    },
];

/// Each side's figure is that of the round with the least.
#[allow(clippy::print_stdout, reason = "the figures")]
pub(super) async fn run(bench: &Bench, load: &Load) -> Result<()> {
    let mut least = [f64::INFINITY; 2];
    for _ in 0..bench.rounds {
        for (kind, least) in [Kind::Memory, Kind::Disk].into_iter().zip(&mut least) {
            *least = least.min(spent(bench, load, kind).await?);
        }
    }
    println!("\n{}\n", load.name);
    println!("| journal | CPU s / 1M records | × memory |\n|---|---|---|");
    for (kind, cpu) in [Kind::Memory, Kind::Disk].into_iter().zip(least) {
        println!("| {} | {cpu:.3} | {:.2} |", kind.name(), cpu / least[0]);
    }
    Ok(())
}

async fn spent(bench: &Bench, load: &Load, kind: Kind) -> Result<f64> {
    bench.clear()?;
    let sink = bench.sink().await?;
    let collector = bench.collector(&configuration(kind, load.has_sink)).await?;
    let pid = collector.0.id();
    let paced = ["--per-second".to_owned(), load.per_second.to_string()];
    bench.generate(shape(load.records), WARM_UP_REQUESTS, &paced)?;
    delivered(load, WARM_UP_REQUESTS).await?;
    let before = cpu_seconds(pid)?;
    let generated = bench.generate(shape(load.records), load.requests, &paced)?;
    // What is still in the journal belongs to the run.
    delivered(load, WARM_UP_REQUESTS + load.requests).await?;
    let cpu = (cpu_seconds(pid)? - before) / generated.records * 1e6;
    drop((collector, sink));
    Ok(cpu)
}

async fn delivered(load: &Load, requests: u64) -> Result<()> {
    let records = requests * load.records as u64;
    wait_until(|| ledger(super::CONSOLE, "delivered").is_ok_and(|delivered| delivered == records)).await
}

fn configuration(kind: Kind, has_sink: bool) -> String {
    let sink = match has_sink {
        true => format!("type: otlp, endpoint: \"http://{SINK}\", compression: none"),
        false => "type: discard".to_owned(),
    };
    format!(
        "journal: {{ kind: {} }}\npipelines: [{{ name: logs, when: {{ signal: logs }}, sinks: [out] }}]\n\
         sinks: {{ out: {{ {sink} }} }}\n",
        kind.name()
    )
}
