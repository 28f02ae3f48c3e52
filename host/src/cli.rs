//! The command line. Exit codes: 0 stopped as asked, 1 failed while running, 2 the command line or the configuration is
//! wrong.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the command line answers on its own streams")]

use crate::app::{self, App, StartError};
use crate::config::Config;
use crate::telemetry::start_logging;
use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "trommel", version, about = "A telemetry collector that anybody can extend")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Receives, processes and delivers until it is told to stop.
    Run {
        /// The configuration; without it: embedded defaults, loopback only.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Sends itself demonstration traffic: three tenants with two projects each.
        #[arg(long, conflicts_with = "config")]
        demo: bool,
    },
    /// Reads a configuration, loads its plugins, and prints everything that is wrong.
    Check {
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

const STOPPED: u8 = 0;
const FAILED: u8 = 1;
const WRONG: u8 = 2;

/// Runs the command line.
pub fn main() -> ExitCode {
    // clap itself ends with 2 on a wrong command line, 0 on --help and --version.
    let arguments = Arguments::parse();
    ExitCode::from(match arguments.command {
        Command::Run { config, demo } => run(config.as_deref(), demo),
        Command::Check { file } => check(&file),
    })
}

fn check(file: &Path) -> u8 {
    let (config, mut faults) = Config::examine(file);
    if let Some(config) = config {
        let Some(runtime) = runtime() else { return FAILED };
        faults.add(runtime.block_on(app::faults(&config, &faults)));
    }
    if !faults.is_empty() {
        eprintln!("{faults}");
        return WRONG;
    }
    println!("{} is valid", file.display());
    STOPPED
}

fn runtime() -> Option<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.inspect_err(|error| eprintln!("the runtime cannot start: {error}")).ok()
}

fn run(file: Option<&Path>, is_demo: bool) -> u8 {
    let config = match file {
        Some(file) => Config::load(file),
        None => Ok(Config::defaults(Path::new("."))),
    };
    let mut config = match config {
        Ok(config) => config,
        Err(faults) => {
            eprintln!("{faults}");
            return WRONG;
        }
    };
    start_logging();
    let demo = is_demo.then(|| app::Demo::prepare(&mut config));
    let Some(runtime) = runtime() else { return FAILED };
    runtime.block_on(serve(config, demo))
}

async fn serve(config: Config, demo: Option<app::Demo>) -> u8 {
    let mut app = match App::start(config).await {
        Ok(app) => app,
        Err(StartError::Configuration(faults)) => {
            eprintln!("{faults}");
            return WRONG;
        }
        Err(StartError::Running(error)) => {
            eprintln!("trommel cannot start: {error:#}");
            return FAILED;
        }
    };
    print_where_to_look(&app, demo.as_ref());
    if let Some(demo) = demo {
        app.send_demonstration(demo);
    }
    let is_whole = app::stop_signal().await;
    let unaccounted = app.stop().await;
    for line in &unaccounted {
        eprintln!("the ledger does not add up: {line}");
    }
    if is_whole && unaccounted.is_empty() { STOPPED } else { FAILED }
}

/// In plain words: where to send, where to look.
fn print_where_to_look(app: &App, demo: Option<&app::Demo>) {
    println!("Trommel is running.");
    if let Some(address) = app.grpc {
        println!("  OTLP/gRPC   {address}");
    }
    if let Some(address) = app.http {
        println!("  OTLP/HTTP   http://{address}/v1/logs, /v1/traces, /v1/metrics");
    }
    let Some(console) = app.console else { return };
    println!("  console     http://{console}/   (streams, /metrics, /readyz)");
    match demo {
        Some(demo) => {
            println!("\nDemonstration traffic is on its way: {}.", demo.summary());
            println!("Follow one project's lines as its client would, live and redacted:\n");
            println!("  {}\n", demo.curl(console));
        }
        None => {
            println!(
                "\nFollow the lines of a project (of tenant `local`, if the configuration names no tokens):\n"
            );
            println!("  curl -N http://{console}/v1/tenants/local/projects/default/tail\n");
        }
    }
}
