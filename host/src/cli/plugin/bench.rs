//! `trommel plugin bench`: what calls take, by how many records each is given.

use super::{Chosen, Loaded};
use crate::app::sample::Sample;
use crate::cli::ask::table;
use crate::cli::{FAILED, STOPPED, WRONG, complain, plain, say};
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// From a record alone to what the pipeline gives at most.
const SIZES: [usize; 4] = [1, 8, 64, 512];
/// Lines of the synthetic sample: several pieces.
const SYNTHETIC_RECORDS: usize = 4_096;

#[derive(Args)]
pub(in crate::cli) struct Bench {
    #[command(flatten)]
    chosen: Chosen,
    /// Telemetry, as for `test`; without it log lines that nobody wrote.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// How long each size is measured.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = seconds)]
    seconds: f64,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.01..=600.0).contains(seconds));
    seconds.ok_or_else(|| "0.01 to 600".into())
}

pub(super) fn bench(bench: &Bench) -> u8 {
    measured(bench).unwrap_or_else(|error| {
        complain(plain(&error));
        WRONG
    })
}

fn measured(bench: &Bench) -> Result<u8, String> {
    let sample = match &bench.input {
        Some(input) => Sample::read(input, bench.chosen.signal.as_deref())?,
        None => Sample::synthetic(SYNTHETIC_RECORDS),
    };
    let loaded = Loaded::new(&bench.chosen)?;
    let plugin = loaded.plugin()?;
    say(&loaded.head(&plugin));
    let time = Duration::from_secs_f64(bench.seconds);
    let (mut rows, mut failed) = (Vec::new(), None);
    for size in SIZES {
        let measured = sample.measure(&plugin, &loaded.whose, size, time).ok_or_else(|| {
            format!(
                "it is called with other signals than {}: give it some with --input",
                sample.signals().join(", ")
            )
        })?;
        let micros = |time: Duration| format!("{:.1}", time.as_nanos() as f64 / 1_000.0);
        rows.push(vec![
            size.to_string(),
            measured.calls.to_string(),
            format!("{:.0}", measured.ns_per_record),
            micros(measured.p50),
            micros(measured.p90),
            micros(measured.p99),
            micros(measured.max),
            format!("{:.0}", measured.floor_ns_per_record),
        ]);
        failed = failed.or(measured.failed);
    }
    let head = ["records", "calls", "ns/record", "p50 µs", "p90 µs", "p99 µs", "max µs", "floor ns/record"];
    say(&table(&head, &rows));
    say(&format!(
        "\nThe times are those of whole calls, on the clock on the wall. The floor is what the pipeline does for a piece \
         without\na plugin: cut it out of the batch, put the batch together again.\nmemory    {} KiB, {} KiB allowed",
        plugin.memory_peak() >> 10,
        loaded.settings.limits.memory >> 10
    ));
    let Some((error, calls)) = failed else { return Ok(STOPPED) };
    complain(plain(&format!("{calls} calls failed: {error}")));
    Ok(FAILED)
}
