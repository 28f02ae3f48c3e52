//! The runs: floor and system in turn, the same load through each, round by round.

use crate::measure::{cpu_seconds, resident_mib};
use crate::process::{Generated, Process, is_ready, ledger, on_core, start, wait_until};
use anyhow::{Context, Result, ensure};
use std::io::Read;
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

const SINK: &str = "127.0.0.1:36317";
const SINK_COUNT: &str = "127.0.0.1:36316";
const FLOOR: &str = "127.0.0.1:36318";
const SYSTEM: &str = "127.0.0.1:36319";
const CONSOLE: &str = "127.0.0.1:36320";
const WARM_UP_REQUESTS: u64 = 200;
/// Longer than the slow sink takes for one delivery.
const QUIET_TENTHS: u32 = 10;

/// What stands between the generator and the sink.
enum System {
    /// The floor, with these flags.
    Floor(&'static [&'static str]),
    Trommel {
        plugins: &'static str,
        memory: &'static str,
    },
}

/// One line of the table.
struct Run {
    name: &'static str,
    system: System,
    /// More for the generator than the group has.
    flags: &'static [&'static str],
}

/// Runs with the same load, each beside the group's first.
struct Group {
    name: &'static str,
    flags: &'static [&'static str],
    requests: u64,
    sink: &'static [&'static str],
    runs: &'static [Run],
}

const NOTHING: &str = "";
const THREE: &str = r#"redact: { module: "builtin:redact", config: { patterns: [email, card, token] } }
  sample: { module: "builtin:sample", config: { ratio: 1.0 } }
  enrich: { module: "builtin:enrich", config: { rules: [{ set: { region: eu-1 } }] } }"#;
const ALL_PATTERNS: &str = r#"redact: { module: "builtin:redact", config: { patterns: [private_key, token, jwt, email, card, ipv6, ipv4, phone] } }
  sample: { module: "builtin:sample", config: { ratio: 1.0 } }
  enrich: { module: "builtin:enrich", config: { rules: [{ set: { region: eu-1 } }] } }"#;
const ANOMALY: &str = r#"anomaly: { module: "builtin:anomaly" }"#;
const FOUR: &str = r#"redact: { module: "builtin:redact", config: { patterns: [email, card, token] } }
  anomaly: { module: "builtin:anomaly" }
  sample: { module: "builtin:sample", config: { ratio: 1.0 } }
  enrich: { module: "builtin:enrich", config: { rules: [{ set: { region: eu-1 } }] } }"#;
const USUAL: &str = "";
/// The least room that takes bodies of 16 MiB.
const TINY: &str = "memory: { room: 128MiB }\n";

const fn floor(name: &'static str, flags: &'static [&'static str]) -> Run {
    Run { name, system: System::Floor(flags), flags: &[] }
}

const fn trommel(name: &'static str, plugins: &'static str, flags: &'static [&'static str]) -> Run {
    Run { name, system: System::Trommel { plugins, memory: USUAL }, flags }
}

const GROUPS: [Group; 5] = [
    Group {
        name: "512 records, as fast as it goes",
        flags: &[],
        requests: 3000,
        sink: &[],
        runs: &[
            floor("floor", &[]),
            floor("floor, 1 MiB frames", &["--large-frames"]),
            trommel("no plugins", NOTHING, &[]),
            trommel("no plugins, tenant.id sent", NOTHING, &["--with-tenant"]),
            trommel("anomaly alone", ANOMALY, &[]),
            trommel("redact + sample + enrich", THREE, &[]),
            trommel("redact + anomaly + sample + enrich", FOUR, &[]),
            trommel("redact with all patterns + sample + enrich", ALL_PATTERNS, &[]),
        ],
    },
    Group {
        name: "512 records, 500 requests a second",
        flags: &["--per-second", "500"],
        requests: 2500,
        sink: &[],
        runs: &[
            floor("floor", &[]),
            floor("floor, 1 MiB frames", &["--large-frames"]),
            trommel("no plugins", NOTHING, &[]),
            trommel("redact + sample + enrich", THREE, &[]),
            trommel("redact + anomaly + sample + enrich", FOUR, &[]),
        ],
    },
    Group {
        name: "512 records, gzip in and out, 100 requests a second",
        flags: &["--gzip", "--per-second", "100"],
        requests: 500,
        sink: &[],
        runs: &[
            floor("floor that inflates and deflates", &["--gzip"]),
            trommel("no plugins", NOTHING, &[]),
            trommel("redact + sample + enrich", THREE, &[]),
        ],
    },
    Group {
        name: "10 records, 4000 requests a second",
        flags: &["--records", "10", "--resources", "1", "--per-second", "4000"],
        requests: 20_000,
        sink: &[],
        runs: &[
            floor("floor", &[]),
            trommel("no plugins", NOTHING, &[]),
            trommel("redact + sample + enrich", THREE, &[]),
        ],
    },
    Group {
        name: "overload: room of 128 MiB, a slow sink, as fast as it goes",
        flags: &["--connections", "16", "--in-flight", "160"],
        requests: 6000,
        sink: &["--slow-ms", "500"],
        runs: &[
            Run {
                name: "no plugins, room 128 MiB",
                system: System::Trommel { plugins: NOTHING, memory: TINY },
                flags: &[],
            },
            Run {
                name: "redact + sample + enrich, room 128 MiB",
                system: System::Trommel { plugins: THREE, memory: TINY },
                flags: &[],
            },
        ],
    },
];

/// Prints a table for each group; the figures of a line are those of the round with the least CPU.
#[allow(clippy::print_stdout, reason = "the figures")]
pub(crate) async fn run(trommel: &str, rounds: usize, only: Option<&str>) -> Result<()> {
    let bench = Bench {
        own: std::env::current_exe()?,
        trommel: std::fs::canonicalize(trommel).context(trommel.to_owned())?,
    };
    for group in GROUPS.iter().filter(|group| only.is_none_or(|only| group.name.contains(only))) {
        println!("\n{}\n", group.name);
        println!(
            "| run | CPU s / 1M records | × first | idle MiB | peak MiB | p50 ms | p99 ms | records/s | refused | expired |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|");
        let mut best: Vec<Option<Figures>> = group.runs.iter().map(|_| None).collect();
        for _ in 0..rounds {
            for (run, best) in group.runs.iter().zip(&mut best) {
                let figures =
                    bench.round(group, run).await.with_context(|| format!("{}: {}", group.name, run.name))?;
                if best.as_ref().is_none_or(|best| figures.is_better_than(best)) {
                    *best = Some(figures);
                }
            }
        }
        let first = best.first().and_then(Option::as_ref).map_or(f64::NAN, |first| first.cpu);
        for (run, figures) in group.runs.iter().zip(best.into_iter().flatten()) {
            println!("| {} {}", run.name, figures.line(first));
        }
    }
    Ok(())
}

struct Figures {
    cpu: f64,
    idle_mib: f64,
    peak_mib: f64,
    generated: Generated,
    /// Records that the collector could not keep for the sink.
    expired: u64,
}

impl Figures {
    /// A round in which records expired delivered less, and cannot be compared.
    fn is_better_than(&self, other: &Figures) -> bool {
        (self.expired > 0, self.cpu) < (other.expired > 0, other.cpu)
    }

    fn line(&self, first: f64) -> String {
        let Generated { records, seconds, p50_ms, p99_ms, refused } = self.generated;
        format!(
            "| {:.3} | {:.2} | {:.0} | {:.0} | {p50_ms:.1} | {p99_ms:.1} | {:.0} | {refused} | {} |",
            self.cpu,
            self.cpu / first,
            self.idle_mib,
            self.peak_mib,
            records / seconds,
            self.expired,
        )
    }
}

struct Bench {
    own: std::path::PathBuf,
    trommel: std::path::PathBuf,
}

impl Bench {
    async fn round(&self, group: &Group, run: &Run) -> Result<Figures> {
        let mut sink = on_core(1, &self.own);
        sink.args(["sink", "--listen", SINK, "--count", SINK_COUNT]).args(group.sink);
        let _sink = start(sink, SINK).await?;
        let folder = std::env::temp_dir().join(format!("trommel-load-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let (system, to) = self.start_system(run, group.flags.contains(&"--gzip"), &folder).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let pid = system.0.id();
        let (idle_mib, _) = resident_mib(pid)?;
        // Connections, caches and instances are made before the measurement begins.
        self.generate(group, run, to, WARM_UP_REQUESTS)?;
        settle().await?;
        let before = cpu_seconds(pid)?;
        let generated = self.generate(group, run, to, group.requests)?;
        // What is still in the journal belongs to the run.
        settle().await?;
        let cpu = (cpu_seconds(pid)? - before) / generated.records * 1e6;
        let (_, peak_mib) = resident_mib(pid)?;
        let expired = match run.system {
            System::Floor(_) => 0,
            System::Trommel { .. } => ledger(CONSOLE, "expired")?,
        };
        if let System::Trommel { .. } = run.system {
            let sent = generated.records as u64 / group.requests * (group.requests + WARM_UP_REQUESTS);
            let ended = ledger(CONSOLE, "delivered")? + expired;
            ensure!(ended == sent, "{sent} records were sent, and {ended} delivered or expired");
        }
        drop(system);
        let _ = std::fs::remove_dir_all(&folder);
        Ok(Figures { cpu, idle_mib, peak_mib, generated, expired })
    }

    async fn start_system(&self, run: &Run, is_gzip: bool, folder: &Path) -> Result<(Process, &'static str)> {
        match run.system {
            System::Floor(flags) => {
                let mut floor = on_core(0, &self.own);
                floor.args(["floor", "--listen", FLOOR, "--to", &format!("http://{SINK}")]).args(flags);
                Ok((start(floor, FLOOR).await?, FLOOR))
            }
            System::Trommel { plugins, memory } => {
                let file = folder.join("trommel.yaml");
                std::fs::write(&file, configuration(plugins, memory, is_gzip))?;
                let mut system = on_core(0, &self.trommel);
                system.args(["run", "--config"]).arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
                let system = start(system, SYSTEM).await?;
                // A guard refuses until it is loaded.
                wait_until(|| is_ready(CONSOLE)).await?;
                Ok((system, SYSTEM))
            }
        }
    }

    fn generate(&self, group: &Group, run: &Run, to: &str, requests: u64) -> Result<Generated> {
        let mut command = on_core(1, &self.own);
        command.args(["generate", "--to", &format!("http://{to}"), "--requests", &requests.to_string()]);
        Generated::by(command.args(group.flags).args(run.flags))
    }
}

fn configuration(plugins: &str, memory: &str, is_gzip: bool) -> String {
    let section = if plugins.is_empty() { String::new() } else { format!("plugins:\n  {plugins}\n") };
    let names = plugins.lines().filter_map(|line| Some(line.split_once(':')?.0.trim()));
    let names = names.collect::<Vec<_>>().join(", ");
    let compression = if is_gzip { "gzip" } else { "none" };
    let body_max = if memory.is_empty() { "" } else { ", body_max: 16MiB" };
    format!(
        "data: data\njournal: {{ kind: memory }}\nreceivers: {{ otlp: {{ grpc: {{ listen: {SYSTEM} }}{body_max} }} }}\n\
         console: {{ listen: {CONSOLE} }}\n{section}{memory}\
         pipelines: [{{ name: logs, when: {{ signal: logs }}, plugins: [{names}], sinks: [out] }}]\n\
         sinks: {{ out: {{ type: otlp, endpoint: \"http://{SINK}\", compression: {compression} }} }}\n"
    )
}

/// Until nothing has reached the sink for a while.
async fn settle() -> Result<()> {
    let counted = || -> Result<String> {
        let mut text = String::new();
        TcpStream::connect(SINK_COUNT)?.read_to_string(&mut text)?;
        Ok(text)
    };
    let mut last = counted()?;
    let mut same = 0u32;
    while same < QUIET_TENTHS {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = counted()?;
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
    Ok(())
}
