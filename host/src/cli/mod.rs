//! The command line. Exit codes: 0 stopped as asked, 1 failed while running, 2 the command line or the configuration is
//! wrong.

mod ask;
mod ledger;
mod letters;
mod plugin;
mod record;
mod replay;
mod top;

use crate::app::{self, App, StartError};
use crate::config::Config;
use crate::telemetry::start_logging;
use clap::{Parser, Subcommand};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
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
    /// For who writes plugins.
    #[command(subcommand)]
    Plugin(plugin::Command),
    /// Prints where every record of a running collector went. Ends with 1 if a line does not add up.
    Ledger {
        #[command(flatten)]
        console: ask::Console,
        /// As the console answers it.
        #[arg(long)]
        json: bool,
    },
    /// What the plugins of a running collector use, by plugin and tenant, live.
    Top {
        #[command(flatten)]
        console: ask::Console,
        /// Prints one table, of two looks a second apart, and ends.
        #[arg(long)]
        once: bool,
    },
    /// Writes what passes the guards of a running collector to a file, one OTLP/JSON request a line.
    Record(record::Record),
    /// Sends a recording as a client would, over OTLP/HTTP. Ends with 1 if something was rejected.
    Replay(replay::Replay),
    /// What the sinks of a running collector refused for good.
    #[command(subcommand)]
    DeadLetters(letters::Command),
}

/// How long threads that still write may take at the very end.
const LAST_WRITES_MAX: std::time::Duration = std::time::Duration::from_secs(2);

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
        Command::Plugin(command) => plugin::run(&command),
        Command::DeadLetters(command) => letters::run(&command),
        Command::Record(asked) => record::record(&asked),
        Command::Replay(asked) => replay::replay(&asked),
        Command::Ledger { console, json } => ledger::print(&console, json),
        Command::Top { console, once } => top::run(&console, once),
    })
}

/// On standard output. Whoever reads it may have gone (`trommel run | head -1`): that stops nothing.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// On standard error, likewise.
fn complain(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// What could move a terminal's cursor or reorder a line is written as JSON escapes it.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => plain.push(character),
            '\u{61c}'
            | '\u{200e}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
            | '\u{feff}' => plain.push_str(&format!("\\u{:04x}", u32::from(character))),
            control if control.is_control() => {
                plain.push_str(&format!("\\u{:04x}", u32::from(control)));
            }
            other => plain.push(other),
        }
    }
    plain
}

fn check(file: &Path) -> u8 {
    let (config, mut faults) = Config::examine(file);
    if let Some(config) = config {
        let Some(runtime) = runtime() else { return FAILED };
        faults.add(runtime.block_on(app::faults(&config, &faults)));
        let warnings = config.warnings();
        if !warnings.is_empty() {
            complain(warnings);
        }
    }
    if !faults.is_empty() {
        complain(faults);
        return WRONG;
    }
    say(&format!("{} is valid", file.display()));
    STOPPED
}

fn runtime() -> Option<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.inspect_err(|error| complain(format!("the runtime cannot start: {error}"))).ok()
}

fn run(file: Option<&Path>, is_demo: bool) -> u8 {
    let config = match file {
        Some(file) => Config::load(file),
        None => Ok(Config::defaults(Path::new("."))),
    };
    let mut config = match config {
        Ok(config) => config,
        Err(faults) => {
            complain(faults);
            return WRONG;
        }
    };
    start_logging();
    let demo = is_demo.then(|| app::Demo::prepare(&mut config));
    let Some(runtime) = runtime() else { return FAILED };
    let code = runtime.block_on(serve(config, demo));
    // A thread that writes to a pipe nobody reads would hold the process for ever.
    runtime.shutdown_timeout(LAST_WRITES_MAX);
    code
}

async fn serve(config: Config, demo: Option<app::Demo>) -> u8 {
    let reach = Reach::of(&config);
    let mut app = match App::start(config).await {
        Ok(app) => app,
        Err(StartError::Configuration(faults)) => {
            complain(faults);
            return WRONG;
        }
        Err(StartError::Running(error)) => {
            complain(format!("trommel cannot start: {error:#}"));
            return FAILED;
        }
    };
    let reach = Reach {
        grpc: app.grpc,
        http: app.http,
        console: app.console,
        has_streams: app.streams.is_some(),
        ..reach
    };
    say(&reach.in_words(demo.as_ref()));
    if let Some(demo) = demo {
        app.send_demonstration(demo);
    }
    let is_whole = app::stop_signal().await;
    let unaccounted = app.stop().await;
    for line in &unaccounted {
        complain(format!("the ledger does not add up: {line}"));
    }
    if is_whole && unaccounted.is_empty() { STOPPED } else { FAILED }
}

/// Where an operator finds what runs.
struct Reach {
    grpc: Option<SocketAddr>,
    http: Option<SocketAddr>,
    console: Option<SocketAddr>,
    is_http_secure: bool,
    is_console_secure: bool,
    /// Whether no token is asked.
    is_open: bool,
    has_streams: bool,
}

impl Reach {
    fn of(config: &Config) -> Reach {
        Reach {
            grpc: None,
            http: None,
            console: None,
            is_http_secure: config.receivers.http.as_ref().is_some_and(|http| http.tls.is_some()),
            is_console_secure: config.console.as_ref().is_some_and(|console| console.tls.is_some()),
            is_open: config.tenants.is_open,
            has_streams: false,
        }
    }

    /// In plain words: where to send, where to look.
    fn in_words(&self, demo: Option<&app::Demo>) -> String {
        let mut text = "Trommel is running.\n".to_owned();
        if let Some(address) = self.grpc {
            text += &format!("  OTLP/gRPC   {}\n", reachable(address));
        }
        if let Some(address) = self.http {
            let url = url(self.is_http_secure, address);
            text += &format!("  OTLP/HTTP   {url}/v1/logs, /v1/traces, /v1/metrics\n");
        }
        let Some(console) = self.console else { return text };
        let url = url(self.is_console_secure, console);
        text += &format!("  console     {url}/   (streams, /metrics, /readyz)\n");
        text + &match demo {
            Some(demo) => format!(
                "\nDemonstration traffic is on its way: {}.\nFollow one project's lines as its client would, live and \
                 redacted:\n\n  {}\n\n{}.\nOpen incidents:\n\n  curl {url}/v1/alerts\n",
                demo.summary(),
                demo.curl(console),
                demo.incident(),
            ),
            None if !self.has_streams => String::new(),
            None if self.is_open => format!(
                "\nFollow the lines of a project:\n\n  curl -N {url}/v1/tenants/local/projects/default/tail\n"
            ),
            None => format!(
                "\nFollow the lines of a project, with a token that may read them:\n\n  curl -N -H \"authorization: Bearer \
                 TOKEN\" {url}/v1/tenants/TENANT/projects/PROJECT/tail\n"
            ),
        }
    }
}

fn url(is_secure: bool, address: SocketAddr) -> String {
    format!("{}://{}", if is_secure { "https" } else { "http" }, reachable(address))
}

/// Nobody can connect to "any address"; from this machine, loopback is one of them.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curl_line_is_printed_only_where_it_works() {
        let address = |text: &str| Some(text.parse().unwrap());
        let open = || Reach {
            grpc: address("127.0.0.1:4317"),
            http: address("[::]:4318"),
            console: address("0.0.0.0:4380"),
            is_http_secure: false,
            is_console_secure: false,
            is_open: true,
            has_streams: true,
        };
        let check = |reach: Reach, lines: &[&str]| {
            let text = reach.in_words(None);
            let is_meant = |line: &&str| {
                ["curl", "console", "OTLP/HTTP"].iter().any(|word| line.trim().starts_with(word))
            };
            let found: Vec<&str> = text.lines().filter(is_meant).map(str::trim).collect();
            assert_eq!(found, lines);
        };
        let http = "OTLP/HTTP   http://[::1]:4318/v1/logs, /v1/traces, /v1/metrics";
        let console = "console     http://127.0.0.1:4380/   (streams, /metrics, /readyz)";
        let curl = "curl -N http://127.0.0.1:4380/v1/tenants/local/projects/default/tail";
        check(open(), &[http, console, curl]);
        let with_token = "curl -N -H \"authorization: Bearer TOKEN\" https://127.0.0.1:4380/v1/tenants/TENANT/projects/PROJECT/tail";
        check(
            Reach { is_open: false, is_console_secure: true, ..open() },
            &[http, &console.replace("http:", "https:"), with_token],
        );
        check(Reach { has_streams: false, ..open() }, &[http, console]);
        check(Reach { console: None, ..open() }, &[http]);
    }
}
