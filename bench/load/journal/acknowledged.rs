//! How long a sender waits for its acknowledgement.

use super::{Bench, Kind, frame_bytes, median, shape};
use anyhow::Result;

/// Requests that make connections and caches before the clock starts.
const WARM_UP_REQUESTS: u64 = 300;

pub(super) struct Load {
    pub(super) name: &'static str,
    records: usize,
    senders: usize,
    /// 0: each sends its next request at once.
    per_second: u64,
    requests: u64,
    /// Frames of a round of the bare loop. Of 64 senders that never pause, half gather while the other half is synced.
    gathered: usize,
}

pub(super) const LOADS: [Load; 6] = [
    Load {
        name: "ack: 1 sender, 10 records",
        records: 10,
        senders: 1,
        per_second: 0,
        requests: 4000,
        gathered: 1,
    },
    Load {
        name: "ack: 1 sender, 512 records",
        records: 512,
        senders: 1,
        per_second: 0,
        requests: 1500,
        gathered: 1,
    },
    Load {
        name: "ack: 64 senders, 10 records, as fast as it goes",
        records: 10,
        senders: 64,
        per_second: 0,
        requests: 30_000,
        gathered: 32,
    },
    Load {
        name: "ack: 64 senders, 10 records, 2000 requests a second",
        records: 10,
        senders: 64,
        per_second: 2000,
        requests: 8000,
        gathered: 1,
    },
    Load {
        name: "ack: 64 senders, 512 records, as fast as it goes",
        records: 512,
        senders: 64,
        per_second: 0,
        requests: 2500,
        gathered: 32,
    },
    Load {
        name: "ack: 64 senders, 512 records, 200 requests a second",
        records: 512,
        senders: 64,
        per_second: 200,
        requests: 1000,
        gathered: 1,
    },
];

/// What one side took, round by round.
#[derive(Default)]
struct Took {
    p50_ms: Vec<f64>,
    p99_ms: Vec<f64>,
    per_second: Vec<f64>,
}

impl Took {
    fn add(&mut self, p50_ms: f64, p99_ms: f64, per_second: f64) {
        self.p50_ms.push(p50_ms);
        self.p99_ms.push(p99_ms);
        self.per_second.push(per_second);
    }

    fn line(&self, bare: &Took) -> String {
        let times = |own: &[f64], bare: &[f64]| {
            median(own.iter().zip(bare).map(|(own, bare)| own / bare).collect::<Vec<_>>())
        };
        format!(
            "{:.3} | {:.3} | {:.2} | {:.2} | {:.0} |",
            median(self.p50_ms.clone()),
            median(self.p99_ms.clone()),
            times(&self.p50_ms, &bare.p50_ms),
            times(&self.p99_ms, &bare.p99_ms),
            median(self.per_second.clone()),
        )
    }
}

/// A figure is the median of the rounds, a ratio that of the rounds' ratios.
#[allow(clippy::print_stdout, reason = "the figures")]
pub(super) async fn run(bench: &Bench, load: &Load) -> Result<()> {
    let mut single = Took::default();
    let mut gathered = Took::default();
    let mut kept = [Took::default(), Took::default()];
    let frame_bytes = frame_bytes(shape(load.records));
    for _ in 0..bench.rounds {
        bare(bench, &mut single, frame_bytes, 1)?;
        if load.gathered > 1 {
            bare(bench, &mut gathered, frame_bytes, load.gathered)?;
        }
        for (kind, took) in [Kind::Memory, Kind::Disk].into_iter().zip(&mut kept) {
            acknowledge(bench, load, kind, took).await?;
        }
    }
    let floor = if load.gathered > 1 { &gathered } else { &single };
    println!("\n{}\n", load.name);
    println!("| side | p50 ms | p99 ms | p50 × bare | p99 × bare | rounds or requests/s |");
    println!("|---|---|---|---|---|---|");
    println!("| bare, 1 frame of {frame_bytes} bytes | {}", single.line(floor));
    if load.gathered > 1 {
        println!("| bare, {} frames | {}", load.gathered, gathered.line(floor));
    }
    for (kind, took) in [Kind::Memory, Kind::Disk].into_iter().zip(&kept) {
        println!("| {} | {}", kind.name(), took.line(floor));
    }
    Ok(())
}

fn bare(bench: &Bench, took: &mut Took, frame_bytes: usize, gathered: usize) -> Result<()> {
    // Some seconds on a disk of 200 MB a second, and enough for a p99.
    let rounds = ((512 << 20) / (frame_bytes * gathered)).clamp(100, 2000);
    let [p50_ms, p99_ms] = bench.bare(frame_bytes, gathered, rounds)?;
    took.add(p50_ms, p99_ms, 1000.0 / p50_ms);
    Ok(())
}

async fn acknowledge(bench: &Bench, load: &Load, kind: Kind, took: &mut Took) -> Result<()> {
    bench.clear()?;
    let collector = bench.collector(&configuration(kind)).await?;
    let flags = ["--connections", "--in-flight"].map(|flag| [flag.to_owned(), load.senders.to_string()]);
    let flags = flags.concat();
    bench.generate(shape(load.records), WARM_UP_REQUESTS, &flags)?;
    let paced = ["--per-second".to_owned(), load.per_second.to_string()];
    let generated = bench.generate(shape(load.records), load.requests, &[&flags[..], &paced].concat())?;
    took.add(generated.p50_ms, generated.p99_ms, load.requests as f64 / generated.seconds);
    drop(collector);
    Ok(())
}

fn configuration(kind: Kind) -> String {
    format!(
        "journal: {{ kind: {} }}\npipelines: [{{ name: logs, when: {{ signal: logs }}, sinks: [out] }}]\n\
         sinks: {{ out: {{ type: discard }} }}\n",
        kind.name()
    )
}
