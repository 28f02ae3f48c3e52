//! The processes of a run, and what they say of themselves.

use anyhow::{Context, Result, ensure};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::time::Instant;

/// A process that ends with the run.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn on_core(core: u32, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string()]).arg(program);
    command
}

/// Starts it, and waits until something listens there.
pub(crate) async fn start(mut command: Command, address: &str) -> Result<Process> {
    let process = Process(command.stdin(Stdio::null()).spawn()?);
    wait_until(|| TcpStream::connect(address).is_ok())
        .await
        .context(format!("nothing listens on {address}"))?;
    Ok(process)
}

pub(crate) async fn wait_until(is_so: impl Fn() -> bool) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        ensure!(Instant::now() < until, "waited for 30 s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// The numbers that a process prints when it ends.
pub(crate) fn figures<const N: usize>(command: &mut Command) -> Result<[f64; N]> {
    let output = command.stdin(Stdio::null()).output()?;
    let (status, error) = (output.status, String::from_utf8_lossy(&output.stderr));
    ensure!(status.success(), "it ended with {status}: {error}");
    let text = String::from_utf8(output.stdout)?;
    let words: Vec<f64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    words.try_into().map_err(|words| anyhow::anyhow!("{N} figures were expected: {words:?}"))
}

/// What the generator says.
#[derive(Clone, Copy)]
pub(crate) struct Generated {
    pub(crate) records: f64,
    pub(crate) seconds: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// Requests that were refused, and sent again unless the generator gives up.
    pub(crate) refused: f64,
}

impl Generated {
    pub(crate) fn by(generator: &mut Command) -> Result<Generated> {
        let [records, seconds, p50_us, p99_us, refused] = figures(generator).context("the generator")?;
        Ok(Generated { records, seconds, p50_ms: p50_us / 1000.0, p99_ms: p99_us / 1000.0, refused })
    }
}

/// A number of the collector's at `console`, over all labels.
pub(crate) fn metric(console: &str, name: &str) -> Result<u64> {
    let text = ask(console, "/metrics")?;
    let is_it = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let value = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<u64>().ok());
    Ok(text.lines().filter(is_it).filter_map(value).sum())
}

/// The collector's own account.
pub(crate) fn ledger(console: &str, column: &str) -> Result<u64> {
    metric(console, &format!("trommel_ledger_{column}_records_total"))
}

pub(crate) fn is_ready(console: &str) -> bool {
    ask(console, "/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

fn ask(console: &str, path: &str) -> Result<String> {
    let mut socket = TcpStream::connect(console)?;
    socket.write_all(
        format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer)
}
