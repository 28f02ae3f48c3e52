//! What does the whole path cost beside forwarding the bytes unread? What does the journal cost (`journal/mod.rs`)? What does
//! a tenant notice of another's bad plugin (`neighbours.rs`), and anybody of a new version of one (`swaps.rs`)?
//!
//! `load run [--trommel PATH] [--rounds N] [--only GROUP]` starts a sink, then in turn the floor (a tonic proxy that
//! forwards messages unread) and the collector under several configurations, sends the same load through each, and
//! prints CPU seconds per million records, resident memory and latencies. Generator and sink share one core, the system
//! under test has the other. `load sink|floor|generate|bare|watch` are the processes that the runs start.

#![allow(clippy::print_stdout, reason = "a command line tool that prints its figures")]

mod generate;
mod journal;
mod measure;
mod neighbours;
mod peers;
mod process;
mod run;
mod swaps;
mod wire;

use anyhow::{Context, Result, bail};
use bench::Shape;
use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;

fn main() -> Result<()> {
    let arguments = Arguments(std::env::args().skip(1).collect());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match arguments.0.first().map(String::as_str) {
            Some("sink") => {
                let (listen, count) = (arguments.needed("--listen")?, arguments.needed("--count")?);
                peers::sink(listen, count, arguments.number("--slow-ms", 0)?).await
            }
            Some("floor") => {
                let (listen, to): (SocketAddr, String) =
                    (arguments.needed("--listen")?, arguments.needed("--to")?);
                peers::floor(listen, &to, arguments.has("--gzip"), arguments.has("--large-frames")).await
            }
            Some("generate") => generate::generate(load(&arguments)?).await,
            Some("run") => {
                let trommel = arguments.text("--trommel").unwrap_or("target/release/trommel");
                run::run(trommel, arguments.number("--rounds", 3)?, arguments.text("--only")).await
            }
            Some(part @ ("journal" | "neighbours" | "swaps")) => {
                let folder = std::env::temp_dir();
                let options = journal::Options {
                    trommel: arguments.text("--trommel").unwrap_or("target/release/trommel"),
                    folder: arguments.text("--folder").map_or(folder.as_path(), Path::new),
                    rounds: arguments.number("--rounds", 5)?,
                    only: arguments.text("--only"),
                    sync_us: arguments.number("--sync-us", 0)?,
                };
                match part {
                    "journal" => journal::run(options).await,
                    "swaps" => swaps::run(&journal::Bench::new(&options)?).await,
                    _ => neighbours::run(&journal::Bench::new(&options)?, options.only).await,
                }
            }
            Some("bare") => journal::bare::run(&journal::bare::Bare {
                folder: arguments.needed("--folder")?,
                frame_bytes: arguments.needed("--bytes")?,
                gathered: arguments.needed("--gathered")?,
                rounds: arguments.needed("--rounds")?,
            }),
            Some("watch") => {
                let watch = journal::watch::Watch {
                    to: arguments.needed("--to")?,
                    console: arguments.needed("--console")?,
                    tenant: arguments.needed("--tenant")?,
                    token: arguments.needed("--token")?,
                    requests: arguments.needed("--requests")?,
                    per_second: arguments.needed("--per-second")?,
                    records: arguments.needed("--records")?,
                };
                journal::watch::watch(watch).await
            }
            _ => {
                bail!("usage: load run|journal|neighbours|swaps [--trommel PATH] [--rounds N] [--only WORDS]")
            }
        }
    })
}

fn load(arguments: &Arguments) -> Result<generate::Load> {
    Ok(generate::Load {
        to: arguments.needed("--to")?,
        requests: arguments.number("--requests", 1000)?,
        per_second: arguments.number("--per-second", 0)?,
        connections: arguments.number("--connections", 4)?,
        in_flight: arguments.number("--in-flight", 16)?,
        is_gzip: arguments.has("--gzip"),
        token: arguments.text("--token").map(str::to_owned),
        gives_up: arguments.has("--gives-up"),
        shape: Shape {
            records: arguments.number("--records", 512)?,
            resources: arguments.number("--resources", 4)?,
            has_tenant: arguments.has("--with-tenant"),
            projects: arguments.number("--projects", 0)?,
        },
    })
}

/// The words of the command line.
struct Arguments(Vec<String>);

impl Arguments {
    fn text(&self, name: &str) -> Option<&str> {
        let at = self.0.iter().position(|word| word == name)?;
        self.0.get(at + 1).map(String::as_str)
    }

    fn needed<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(&self, name: &str) -> Result<T> {
        let text = self.text(name).with_context(|| format!("{name} is missing"))?;
        text.parse().with_context(|| name.to_owned())
    }

    fn number<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
        &self,
        name: &str,
        usual: T,
    ) -> Result<T> {
        self.text(name).map_or(Ok(usual), |text| text.parse().with_context(|| name.to_owned()))
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|word| word == name)
    }
}
