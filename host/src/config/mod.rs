//! The file, checked.
//!
//! A configuration is read in three steps: the text becomes a tree with positions (`node`), the tree becomes the
//! modules' own `Settings` (one file per section), and `check` looks at what no section can see alone. Faults are
//! collected through all three: whoever runs `trommel check` sees everything that is wrong, once.

mod alerts;
mod check;
mod fault;
mod identity;
mod limits;
mod node;
mod pipelines;
mod places;
mod plugins;
mod ports;
mod quotas;
mod read;
mod sinks;
mod swap;

pub use fault::{Fault, Faults, Position, Warnings};
pub use places::Places;
pub use read::{duration_of, size_of};

use crate::{console, journal, pipeline, receivers, sandbox, tenants};
use read::{Reader, duration, size, text};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Everything the collector needs to know, already valid.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it was read from; `None`: from no file.
    pub file: Option<PathBuf>,
    /// Embedded store, compiled plugins; created with mode 0700.
    pub data: PathBuf,
    /// Compiled plugins: `compiled` below `data`.
    pub compiled: PathBuf,
    pub receivers: receivers::Settings,
    pub console: Option<console::Settings>,
    pub tenants: tenants::Settings,
    pub plugins: Vec<sandbox::Settings>,
    /// How new versions of the plugins come into use, by the name of the plugin.
    pub swaps: BTreeMap<String, pipeline::SwapSettings>,
    pub pipelines: Vec<pipeline::PipelineSettings>,
    pub sinks: Vec<(String, crate::sinks::Settings)>,
    /// How each of `sinks` is served, in their order.
    pub deliver: Vec<pipeline::deliver::Settings>,
    /// What the journal keeps for each of `sinks`, in their order.
    pub kept: Vec<journal::SinkSettings>,
    pub journal: journal::Settings,
    /// `None`: what a sink refuses for good is counted, and gone.
    pub dead_letters: Option<journal::LetterSettings>,
    pub alerts: crate::alerts::Settings,
    /// Records larger than this are refused before any plugin sees them.
    pub record_bytes_max: usize,
    /// Where the keys stand in the file.
    pub places: Places,
}

/// What runs where no file is named: loopback only, the bundled plugins, the embedded store, the console.
pub const DEFAULTS: &str = include_str!("defaults.yaml");

/// 512 MiB: beside the journal's quarter, 3 × the largest body fits the half that one tenant may hold.
const ROOM_BYTES: usize = 512 << 20;
/// A log line of a megabyte is a mistake of its sender, and would cost each viewer as much.
const RECORD_BYTES_MAX: usize = 1 << 20;
/// A night in which nobody looks at a destination that is down.
const JOURNAL_AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Some hundred thousand log lines; a sixteenth goes at once.
const LETTERS_BYTES_MAX: usize = 256 << 20;
/// What is smaller holds no sixteenths of a use.
const LETTERS_BYTES_LEAST: usize = 1 << 20;
/// A month in which somebody looks at what a destination did not take.
const LETTERS_AGE_MAX: Duration = Duration::from_secs(30 * 86_400);
/// One request, and a few segments.
const JOURNAL_BYTES_MIN: u64 = 64 << 20;
const KEYS: [&str; 12] = [
    "data",
    "receivers",
    "console",
    "identity",
    "quotas",
    "plugins",
    "pipelines",
    "sinks",
    "alerts",
    "journal",
    "dead_letters",
    "memory",
];

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Config, Faults> {
        whole(Config::examine(path))
    }

    /// The same for a person who wants to know everything: what is wrong, and what could be read in spite of that.
    pub fn examine(path: &Path) -> (Option<Config>, Faults) {
        let file = path.display().to_string();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                let fault = Fault {
                    at: Position::default(),
                    key: String::new(),
                    wrong: format!("cannot be read: {error}"),
                    right: "the path of a YAML file".into(),
                };
                return (None, Faults { file, faults: vec![fault] });
            }
        };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let (config, faults) = examine(&text, folder, &file);
        (config.map(|config| Config { file: Some(path.to_owned()), ..config }), faults)
    }

    /// The embedded defaults, with their data below `folder`.
    pub fn defaults(folder: &Path) -> Config {
        Config::parse(DEFAULTS, folder, "defaults.yaml").expect("a test reads the embedded defaults")
    }

    /// What is likely not meant, and stops nothing.
    pub fn warnings(&self) -> Warnings {
        Warnings(self.places.faults(check::doubts(self)))
    }

    /// Reads and checks a text; relative paths start at `folder`.
    pub fn parse(text: &str, folder: &Path, file: &str) -> Result<Config, Faults> {
        whole(examine(text, folder, file))
    }
}

fn whole(examined: (Option<Config>, Faults)) -> Result<Config, Faults> {
    match examined {
        (Some(config), faults) if faults.is_empty() => Ok(config),
        (_, faults) => Err(faults),
    }
}

fn examine(text: &str, folder: &Path, file: &str) -> (Option<Config>, Faults) {
    let faults = |faults| Faults { file: file.to_owned(), faults };
    let (root, unfilled) = match node::parse(text, folder) {
        Ok(parsed) => parsed,
        Err(found) => return (None, faults(found)),
    };
    let reader = Reader::new(folder, unfilled);
    let config = Config { places: Places::of(file, &root), ..read_root(&reader, &root) };
    (Some(config), faults(reader.into_faults()))
}

fn read_root(reader: &Reader, root: &node::Node) -> Config {
    let table = reader.table("", root);
    let data = reader.folder.join(table.optional("data", text).unwrap_or_else(|| "trommel-data".into()));
    let identity = table.table("identity").map(identity::read);
    let quotas = table.table("quotas").map(quotas::read).unwrap_or_default();
    let (room_bytes, record_bytes_max) = read_memory(&table);
    let placed = pipelines::read(&table);
    let keys = identity.as_ref().map(|identity| identity.attributes.clone()).unwrap_or_else(identity::keys);
    let sinks = table.table("sinks").map(|sinks| sinks::read(sinks, &data, &keys)).unwrap_or_default();
    let journal = read_journal(&table, &data, room_bytes);
    let dead_letters = read_dead_letters(&table, &data, &journal);
    let journal_bytes = match journal {
        journal::Settings::Memory { bytes_max } => bytes_max,
        journal::Settings::Disk { memory_bytes_max, .. } => memory_bytes_max,
    };
    let (plugins, swaps) = table.table("plugins").map(plugins::read).unwrap_or_default();
    let names: Vec<&str> = plugins.iter().map(|plugin| plugin.name.as_str()).collect();
    let alerts = table.table("alerts").map(|alerts| alerts::read(alerts, &names)).unwrap_or_default();
    let config = Config {
        file: None,
        receivers: ports::read_receivers(table.table("receivers")),
        console: ports::read_console(table.table("console")),
        plugins,
        swaps,
        alerts,
        deliver: sinks.iter().map(|sink| sink.served).collect(),
        kept: sinks.iter().map(|sink| sink.kept.clone()).collect(),
        sinks: sinks.into_iter().map(|sink| (sink.kept.name, sink.settings)).collect(),
        journal,
        tenants: tenants::Settings {
            quotas,
            ..tenants_of(identity, room_bytes.saturating_sub(journal_bytes))
        },
        dead_letters,
        pipelines: placed.iter().map(|placed| placed.settings.clone()).collect(),
        record_bytes_max,
        compiled: data.join("compiled"),
        data,
        places: Places::default(),
    };
    check::check(&table, &config, &placed);
    table.finish(&KEYS);
    config
}

fn tenants_of(identity: Option<identity::Identity>, room_bytes: usize) -> tenants::Settings {
    let is_open = identity.as_ref().is_none_or(|i| i.credentials.is_empty() && i.token_files.is_empty());
    let identity = identity.unwrap_or_default();
    tenants::Settings {
        attributes: identity.attributes,
        stamp: identity.stamp,
        credentials: identity.credentials,
        token_files: identity.token_files,
        ticket_key: identity.ticket_key,
        is_open,
        room_bytes,
        quotas: tenants::QuotaSettings::default(),
    }
}

fn read_memory(table: &read::Table<'_>) -> (usize, usize) {
    let Some(memory) = table.table("memory") else { return (ROOM_BYTES, RECORD_BYTES_MAX) };
    let room = memory.optional("room", size).unwrap_or(ROOM_BYTES);
    let record = memory.optional("record_max", size).unwrap_or(RECORD_BYTES_MAX);
    memory.finish(&["room", "record_max"]);
    (room, record)
}

fn read_journal(table: &read::Table<'_>, data: &Path, room_bytes: usize) -> journal::Settings {
    let usual = room_bytes / 4;
    let disk = |bytes_max, age_max: Option<Duration>| journal::Settings::Disk {
        folder: data.join("journal"),
        bytes_max,
        age_max: age_max.unwrap_or(JOURNAL_AGE_MAX),
        memory_bytes_max: usual,
    };
    let Some(journal) = table.table("journal") else { return disk(None, None) };
    match journal.optional("kind", text).as_deref() {
        Some("memory") => {
            let bytes_max = journal.optional("max", size).unwrap_or(usual);
            if bytes_max > room_bytes / 2 {
                let wrong = "is more than half of `memory.room`, to which it is charged";
                journal.fault("max", wrong, "a quarter of the room");
            }
            journal.finish(&["kind", "max"]);
            return journal::Settings::Memory { bytes_max };
        }
        None | Some("disk") => {}
        Some(other) => {
            journal.fault("kind", format!("`{}` is not known", other.escape_debug()), "disk or memory");
        }
    }
    let bytes_max = journal.optional("max", size).map(|bytes| bytes as u64);
    if bytes_max.is_some_and(|bytes| bytes < JOURNAL_BYTES_MIN) {
        journal.fault("max", "is too small for files", "64MiB or more");
    }
    let settings = disk(bytes_max, journal.optional("age", duration));
    journal.finish(&["kind", "max", "age"]);
    settings
}

/// Beside a journal on disk alone: what dies with the process needs no place for what was refused.
fn read_dead_letters(
    table: &read::Table<'_>,
    data: &Path,
    journal: &journal::Settings,
) -> Option<journal::LetterSettings> {
    let (mut bytes_max, mut age_max) = (LETTERS_BYTES_MAX, LETTERS_AGE_MAX);
    if let Some(letters) = table.table("dead_letters") {
        bytes_max = letters.optional("max", size_or_none).unwrap_or(bytes_max);
        age_max = letters.optional("age", duration).unwrap_or(age_max);
        if bytes_max > 0 && matches!(journal, journal::Settings::Memory { .. }) {
            let wrong = "dead letters need a journal on disk";
            table.fault("dead_letters", wrong, "journal: { kind: disk }, or max: 0");
        }
        if (1..LETTERS_BYTES_LEAST).contains(&bytes_max) {
            letters.fault("max", "is too small", "1MiB or more, or 0 for none");
        }
        if age_max < Duration::from_secs(1) {
            letters.fault("age", "is too short", "1s or more: 30d");
        }
        letters.finish(&["max", "age"]);
    }
    let is_on = bytes_max > 0 && matches!(journal, journal::Settings::Disk { .. });
    is_on.then(|| journal::LetterSettings {
        folder: data.join("dead-letters"),
        bytes_max: bytes_max as u64,
        age_max,
    })
}

/// A size, or a plain 0.
fn size_or_none(value: &node::Value) -> Result<usize, read::Wrong> {
    match value {
        node::Value::Integer(0) => Ok(0),
        other => size(other),
    }
}

#[cfg(test)]
mod tests;
