//! The runs: floor and system in turn, the same load through each.

use crate::measure::{cpu_seconds, resident_mib};
use anyhow::{Context, Result, ensure};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A process that ends with the run.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const SINK: &str = "127.0.0.1:36317";
const FLOOR: &str = "127.0.0.1:36318";
const SYSTEM: &str = "127.0.0.1:36319";

/// What is between the generator and the sink.
enum System {
    Floor,
    Trommel(&'static str),
}

struct Run {
    name: &'static str,
    system: System,
    flags: &'static [&'static str],
    requests: u64,
    is_gzip: bool,
}

const NOTHING: &str = "";
const THREE: &str = r#"redact: { module: "builtin:redact", config: { patterns: [email, card, token] } }
  sample: { module: "builtin:sample", config: { ratio: 1.0 } }
  enrich: { module: "builtin:enrich", config: { rules: [{ set: { region: eu-1 } }] } }"#;
const ALL_PATTERNS: &str = r#"redact: { module: "builtin:redact", config: { patterns: [email, card, ipv4, ipv6, jwt, token, private_key, phone] } }
  sample: { module: "builtin:sample", config: { ratio: 1.0 } }
  enrich: { module: "builtin:enrich", config: { rules: [{ set: { region: eu-1 } }] } }"#;

const RUNS: [Run; 11] = [
    Run { name: "floor", system: System::Floor, flags: &[], requests: 3000, is_gzip: false },
    Run { name: "no plugins", system: System::Trommel(NOTHING), flags: &[], requests: 3000, is_gzip: false },
    Run {
        name: "no plugins, tenant.id sent",
        system: System::Trommel(NOTHING),
        flags: &["--with-tenant"],
        requests: 3000,
        is_gzip: false,
    },
    Run {
        name: "redact + sample + enrich",
        system: System::Trommel(THREE),
        flags: &[],
        requests: 3000,
        is_gzip: false,
    },
    Run {
        name: "all patterns + sample + enrich",
        system: System::Trommel(ALL_PATTERNS),
        flags: &[],
        requests: 2000,
        is_gzip: false,
    },
    Run { name: "floor, gzip", system: System::Floor, flags: &["--gzip"], requests: 600, is_gzip: true },
    Run {
        name: "no plugins, gzip",
        system: System::Trommel(NOTHING),
        flags: &["--gzip"],
        requests: 600,
        is_gzip: true,
    },
    Run {
        name: "redact + sample + enrich, gzip",
        system: System::Trommel(THREE),
        flags: &["--gzip"],
        requests: 600,
        is_gzip: true,
    },
    Run {
        name: "floor, 10 records",
        system: System::Floor,
        flags: &["--records", "10", "--resources", "1"],
        requests: 60_000,
        is_gzip: false,
    },
    Run {
        name: "no plugins, 10 records",
        system: System::Trommel(NOTHING),
        flags: &["--records", "10", "--resources", "1"],
        requests: 60_000,
        is_gzip: false,
    },
    Run {
        name: "redact + sample + enrich, 10 records",
        system: System::Trommel(THREE),
        flags: &["--records", "10", "--resources", "1"],
        requests: 60_000,
        is_gzip: false,
    },
];

/// Prints one line per run; each figure is the least of three rounds.
pub(crate) async fn run(trommel: &str) -> Result<()> {
    println!("| run | CPU s / 1M records | × floor | idle MiB | peak MiB | p50 ms | p99 ms | records/s |");
    println!("|---|---|---|---|---|---|---|---|");
    let mut floor = f64::NAN;
    for run in &RUNS {
        let mut rounds = Vec::new();
        for _ in 0..3 {
            rounds.push(round(run, trommel).await.with_context(|| run.name.to_owned())?);
        }
        rounds.sort_by(|a, b| a.cpu.total_cmp(&b.cpu));
        let best = &rounds[0];
        if matches!(run.system, System::Floor) {
            floor = best.cpu;
        }
        println!(
            "| {} | {:.3} | {:.2} | {:.0} | {:.0} | {:.1} | {:.1} | {:.0} |",
            run.name,
            best.cpu,
            best.cpu / floor,
            best.idle_mib,
            best.peak_mib,
            best.p50_ms,
            best.p99_ms,
            best.per_second
        );
    }
    Ok(())
}

struct Figures {
    cpu: f64,
    idle_mib: f64,
    peak_mib: f64,
    p50_ms: f64,
    p99_ms: f64,
    per_second: f64,
}

async fn round(run: &Run, trommel: &str) -> Result<Figures> {
    let own = std::env::current_exe()?;
    let gzip: &[&str] = if run.is_gzip { &["--gzip"] } else { &[] };
    let _sink = start(
        Command::new("taskset").args(["-c", "1"]).arg(&own).args(["sink", "--listen", SINK]).args(gzip),
        SINK,
    )
    .await?;
    let folder = std::env::temp_dir().join(format!("trommel-load-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let (system, to) = match run.system {
        System::Floor => {
            let mut floor = Command::new("taskset");
            floor
                .args(["-c", "0"])
                .arg(&own)
                .args(["floor", "--listen", FLOOR, "--to", &format!("http://{SINK}")])
                .args(gzip);
            (start(&mut floor, FLOOR).await?, FLOOR)
        }
        System::Trommel(plugins) => {
            let file = folder.join("trommel.yaml");
            std::fs::write(&file, configuration(plugins, run.is_gzip))?;
            let mut command = Command::new("taskset");
            command.args(["-c", "0", trommel, "run", "--config"]).arg(&file).stderr(Stdio::null());
            (start(&mut command, SYSTEM).await?, SYSTEM)
        }
    };
    tokio::time::sleep(Duration::from_secs(2)).await;
    let pid = system.0.id();
    let (idle_mib, _) = resident_mib(pid)?;
    // Connections, caches and instances are made before the measurement begins.
    generate(&own, to, run, 50)?;
    let before = cpu_seconds(pid)?;
    let words = generate(&own, to, run, run.requests)?;
    // What is still in the journal belongs to the run.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let spent = cpu_seconds(pid)? - before;
    let (_, peak_mib) = resident_mib(pid)?;
    let _ = std::fs::remove_dir_all(&folder);
    Ok(Figures {
        cpu: spent / words[0] * 1e6,
        idle_mib,
        peak_mib,
        p50_ms: words[2] / 1000.0,
        p99_ms: words[3] / 1000.0,
        per_second: words[0] / words[1],
    })
}

fn generate(own: &std::path::Path, to: &str, run: &Run, requests: u64) -> Result<Vec<f64>> {
    let mut command = Command::new("taskset");
    command.args(["-c", "1"]).arg(own).args([
        "generate",
        "--to",
        &format!("http://{to}"),
        "--requests",
        &requests.to_string(),
    ]);
    let output = command.args(run.flags).output()?;
    ensure!(
        output.status.success(),
        "the generator ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let words: Vec<f64> =
        String::from_utf8(output.stdout)?.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    ensure!(words.len() == 5, "the generator prints five figures");
    Ok(words)
}

fn configuration(plugins: &str, is_gzip: bool) -> String {
    let (section, names) = if plugins.is_empty() {
        (String::new(), "")
    } else {
        (format!("plugins:\n  {plugins}\n"), "redact, sample, enrich")
    };
    let compression = if is_gzip { "gzip" } else { "none" };
    format!(
        "data: data\nreceivers: {{ otlp: {{ grpc: {{ listen: {SYSTEM} }} }} }}\n{section}pipelines: [{{ name: logs, plugins: [{names}], sinks: [out] }}]\n\
         sinks: {{ out: {{ type: otlp, endpoint: \"http://{SINK}\", compression: {compression} }} }}\n"
    )
}

async fn start(command: &mut Command, address: &str) -> Result<Process> {
    let process = Process(command.stdin(Stdio::null()).spawn()?);
    for _ in 0..500 {
        if tokio::net::TcpStream::connect(address).await.is_ok() {
            return Ok(process);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    anyhow::bail!("nothing listens on {address}")
}
