//! What does the journal on disk cost beside the one in memory, and beside a bare loop of append and fdatasync?
//!
//! `load journal [--trommel PATH] [--folder FOLDER] [--rounds N] [--only PART] [--sync-us N]`. The sides take turns in
//! one run, in one folder, which should lie on the disk that is asked about. `--sync-us` makes every `fdatasync` of bare
//! loop and collector so much longer (by `strace`): a slower disk than the machine has. The collector has one core, all
//! that it talks to the other.

mod acknowledged;
mod backlog;
pub(crate) mod bare;
mod cpu;
mod fairness;
pub(crate) mod watch;

use crate::process::{Generated, Process, figures, is_ready, on_core, start, wait_until};
use anyhow::{Context, Result};
use bench::Shape;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(crate) const SYSTEM: &str = "127.0.0.1:36329";
pub(crate) const CONSOLE: &str = "127.0.0.1:36330";
const SINK: &str = "127.0.0.1:36327";
const SINK_COUNT: &str = "127.0.0.1:36326";

/// Where the journal is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Memory,
    Disk,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Memory => "memory",
            Kind::Disk => "disk",
        }
    }
}

/// What the command line says.
pub(crate) struct Options<'a> {
    pub(crate) trommel: &'a str,
    pub(crate) folder: &'a Path,
    pub(crate) rounds: usize,
    pub(crate) only: Option<&'a str>,
    pub(crate) sync_us: u64,
}

#[derive(Clone)]
pub(crate) struct Bench {
    pub(crate) own: PathBuf,
    pub(crate) trommel: PathBuf,
    pub(crate) folder: PathBuf,
    pub(crate) rounds: usize,
    sync_us: u64,
}

#[allow(clippy::print_stdout, reason = "the figures")]
pub(crate) async fn run(options: Options<'_>) -> Result<()> {
    let bench = Bench::new(&options)?;
    let is_asked = |part: &str| options.only.is_none_or(|only| part.contains(only));
    bench.clear()?;
    println!("filesystem: {}; every fdatasync {} µs longer", filesystem(options.folder)?, options.sync_us);
    let ran = async {
        for load in acknowledged::LOADS.iter().filter(|load| is_asked(load.name)) {
            acknowledged::run(&bench, load).await.context(load.name)?;
        }
        for load in cpu::LOADS.iter().filter(|load| is_asked(load.name)) {
            cpu::run(&bench, load).await.context(load.name)?;
        }
        if is_asked("backlog") {
            backlog::run(&bench).await.context("backlog")?;
        }
        if is_asked("fairness") {
            fairness::run(&bench).await.context("fairness")?;
        }
        Ok(())
    };
    let result = ran.await;
    let _ = std::fs::remove_dir_all(&bench.folder);
    result
}

impl Bench {
    pub(crate) fn new(options: &Options<'_>) -> Result<Bench> {
        let folder = std::fs::canonicalize(options.folder).context("the folder")?;
        Ok(Bench {
            own: std::env::current_exe()?,
            trommel: std::fs::canonicalize(options.trommel).context(options.trommel.to_owned())?,
            folder: folder.join(format!("trommel-load-{}", std::process::id())),
            rounds: options.rounds,
            sync_us: options.sync_us,
        })
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Nothing is left of the collector before.
    pub(crate) fn clear(&self) -> Result<()> {
        let _ = std::fs::remove_dir_all(&self.folder);
        Ok(std::fs::create_dir_all(&self.folder)?)
    }

    /// The collector, ready. `rest` is its configuration beside the listeners.
    pub(crate) async fn collector(&self, rest: &str) -> Result<Process> {
        let started = start(self.collector_command(rest)?, SYSTEM).await?;
        wait_until(|| is_ready(CONSOLE)).await?;
        Ok(started)
    }

    fn collector_command(&self, rest: &str) -> Result<Command> {
        let file = self.folder.join("trommel.yaml");
        let listeners = format!(
            "data: data\nreceivers: {{ otlp: {{ grpc: {{ listen: {SYSTEM} }} }} }}\nconsole: {{ listen: {CONSOLE} }}\n"
        );
        std::fs::write(&file, listeners + rest)?;
        let mut command = self.slowed(&self.trommel);
        command.args(["run", "--config"]).arg(&file).stdout(Stdio::null());
        command.stderr(std::fs::File::create(self.folder.join("log"))?);
        Ok(command)
    }

    /// On the core of the system under test, with longer syncs if that was asked for.
    fn slowed(&self, program: &Path) -> Command {
        if self.sync_us == 0 {
            return on_core(0, program);
        }
        let mut command = on_core(0, "strace");
        // The tracer is the grandchild, so that the process is ours; all other calls of the system run untouched.
        command.args(["-D", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=fdatasync", "-e"]);
        command.arg(format!("inject=fdatasync:delay_enter={}", self.sync_us)).arg(program);
        command
    }

    fn generator(&self, shape: Shape, requests: u64) -> Command {
        let mut command = on_core(1, &self.own);
        command.args(["generate", "--to", &format!("http://{SYSTEM}"), "--requests", &requests.to_string()]);
        command.args(["--records", &shape.records.to_string(), "--resources", &shape.resources.to_string()]);
        command
    }

    pub(crate) fn generate(&self, shape: Shape, requests: u64, flags: &[String]) -> Result<Generated> {
        Generated::by(self.generator(shape, requests).args(flags))
    }

    async fn sink(&self) -> Result<Process> {
        let mut sink = on_core(1, &self.own);
        sink.args(["sink", "--listen", SINK, "--count", SINK_COUNT]);
        start(sink, SINK).await
    }

    /// p50 and p99 of a round of the bare loop, in ms.
    fn bare(&self, frame_bytes: usize, gathered: usize, rounds: usize) -> Result<[f64; 2]> {
        let mut command = self.slowed(&self.own);
        command.arg("bare").arg("--folder").arg(&self.folder);
        command.args(["--bytes", &frame_bytes.to_string(), "--gathered", &gathered.to_string()]);
        command.args(["--rounds", &rounds.to_string()]);
        let took_us: [f64; 2] = figures(&mut command).context("the bare loop")?;
        Ok(took_us.map(|us| us / 1000.0))
    }
}

pub(crate) fn shape(records: usize) -> Shape {
    Shape { records, resources: if records < 100 { 1 } else { 4 }, has_tenant: false, projects: 0 }
}

/// Bytes of a request in its frame, about: the collector adds a stamp to each resource, and a header.
fn frame_bytes(shape: Shape) -> usize {
    const SAMPLES: usize = 20;
    const HEADER_BYTES: usize = 100;
    const STAMP_BYTES: usize = 50;
    let bytes: usize = bench::encoded(shape, SAMPLES).iter().map(bytes::Bytes::len).sum();
    bytes / SAMPLES + HEADER_BYTES + shape.resources * STAMP_BYTES
}

fn filesystem(folder: &Path) -> Result<String> {
    let output = Command::new("stat").args(["-f", "-c", "%T"]).arg(folder).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Of the rounds.
pub(crate) fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}
