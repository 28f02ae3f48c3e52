//! `trommel plugin`: what authors of plugins need, in the real sandbox and without a collector; and `swap`, which asks one.

mod bench;
mod inspect;
mod show;
mod swap;
mod test;

use crate::app::sample::{self, Whose};
use crate::sandbox::{Module, OnFailure, Plugin, Sandbox, Settings};
use crate::telemetry::{Metrics, Secret, start_logging};
use clap::{Args, Subcommand};
use std::borrow::Cow;
use std::path::Path;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Prints what a component is, what it says of itself, and the grant that it asks for.
    Inspect {
        /// A component, or `builtin:NAME`.
        #[arg(value_name = "FILE")]
        file: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Shows what a plugin makes of telemetry in a file, and holds it against what is expected. Ends with 1 if it differs
    /// or the plugin fails.
    Test(Box<test::Test>),
    /// Measures what its calls take, by how many records each is given.
    Bench(Box<bench::Bench>),
    /// Brings the version that a plugin's file has now into use in a running collector, or on trial. Ends with 1 if it is
    /// refused.
    Swap(swap::Swap),
}

pub(super) fn run(command: &Command) -> u8 {
    match command {
        Command::Inspect { file, json } => inspect::inspect(file, *json),
        Command::Test(test) => test::test(test),
        Command::Bench(bench) => bench::bench(bench),
        Command::Swap(wish) => swap::run(wish),
    }
}

/// A plugin, its settings, and whose the telemetry is.
#[derive(Args)]
struct Chosen {
    /// A component, or `builtin:NAME`.
    #[arg(value_name = "FILE")]
    file: String,
    /// Its settings: a file of JSON or YAML, or the JSON itself.
    #[arg(long, value_name = "FILE|JSON")]
    config: Option<String>,
    /// A secret that it uses by name, in a file. May be given several times.
    #[arg(long = "secret", value_name = "NAME=FILE")]
    secrets: Vec<String>,
    #[arg(long, value_name = "NAME", default_value = "local")]
    tenant: String,
    #[arg(long, value_name = "NAME", default_value = "default")]
    project: String,
    /// What the telemetry is, where that does not show: logs, traces or metrics.
    #[arg(long, value_name = "SIGNAL")]
    signal: Option<String>,
}

/// The component with its settings, ready to be tried.
struct Loaded {
    sandbox: Sandbox,
    settings: Settings,
    component: Cow<'static, [u8]>,
    whose: Whose,
    file: String,
}

impl Loaded {
    /// The error is for a person.
    fn new(chosen: &Chosen) -> Result<Loaded, String> {
        // What the plugin writes to its log.
        start_logging();
        let mut settings = named(&chosen.file);
        if let Some(config) = &chosen.config {
            settings.config = match config.trim_start().starts_with('{') {
                true => sample::config_of(config).map_err(|error| format!("--config: {error}"))?,
                false => sample::config_in(Path::new(config))?,
            };
        }
        for secret in &chosen.secrets {
            let (name, file) = secret.split_once('=').ok_or("--secret: right would be NAME=FILE")?;
            let text = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
            settings.secrets.insert(name.into(), Secret::new(text.trim_end().to_owned()));
        }
        let whose = Whose::new(&chosen.tenant, &chosen.project)?;
        let place = |error: crate::sandbox::PluginError| format!("{}: {error}", chosen.file);
        let sandbox = Sandbox::open(None, Metrics::new()).map_err(place)?;
        let component = sandbox.component_of(&settings.module).map_err(place)?;
        Ok(Loaded { sandbox, settings, component, whose, file: chosen.file.clone() })
    }

    fn plugin(&self) -> Result<Plugin, String> {
        let loaded = self.sandbox.load_apart(&self.settings, &self.component);
        loaded.map_err(|error| format!("{}: {error}", self.file))
    }

    /// What is tried, and what it may do here.
    fn head(&self, plugin: &Plugin) -> String {
        let manifest = plugin.manifest();
        let listed = |words: &[String]| if words.is_empty() { "nothing".into() } else { words.join(", ") };
        super::plain(&format!(
            "{} {}, granted all that it asks for here: reads {}; writes {}\n",
            manifest.name,
            manifest.version,
            listed(&manifest.reads),
            listed(&manifest.writes)
        ))
    }
}

/// The settings of a plugin that is named on the command line: a file, or `builtin:NAME`.
fn named(file: &str) -> Settings {
    let unnamed = Settings::unnamed(Path::new(file));
    match file.strip_prefix("builtin:") {
        None => unnamed,
        Some(name) => Settings {
            name: name.into(),
            module: Module::Builtin(name.into()),
            // As in a configuration: what a guard fails on does not go on.
            is_guard: name == "redact",
            on_failure: if name == "redact" { OnFailure::Drop } else { OnFailure::Pass },
            ..unnamed
        },
    }
}
