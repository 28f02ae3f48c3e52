//! What is wrong with a configuration: all of it at once.

/// Where in the file, from 1. 0 where no place is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub line: u64,
    pub column: u64,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub at: Position,
    /// The path of the key: `sinks.jaeger.endpoint`.
    pub key: String,
    pub wrong: String,
    pub right: String,
}

/// Everything that is wrong, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    /// The file's name, for the messages.
    pub file: String,
    pub faults: Vec<Fault>,
}

impl Faults {
    pub fn is_empty(&self) -> bool {
        self.faults.is_empty()
    }

    /// Those of a later step, put where they stand in the file.
    pub fn add(&mut self, more: Vec<Fault>) {
        self.faults.extend(more);
        self.faults.sort_by_key(|fault| fault.at);
    }

    /// Whether something is wrong with this key or below it.
    pub fn concern(&self, key: &str) -> bool {
        let is_below = |rest: &str| rest.is_empty() || rest.starts_with(['.', '[']);
        self.faults.iter().any(|fault| fault.key.strip_prefix(key).is_some_and(is_below))
    }
}

/// Everything that is likely not meant: shown like [`Faults`], and nothing stops for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warnings(pub(super) Faults);

impl Faults {
    /// A line for each: place, key, what is wrong, what would be right.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.faults.iter().map(|fault| {
            let Position { line, column } = fault.at;
            let key = if fault.key.is_empty() { String::new() } else { format!("{}: ", fault.key) };
            format!("{}:{line}:{column}: {key}{}; right would be: {}", self.file, fault.wrong, fault.right)
        })
    }

    /// All lines, and how many there are.
    fn write(&self, f: &mut std::fmt::Formatter<'_>, what: &str) -> std::fmt::Result {
        for line in self.lines() {
            writeln!(f, "{line}")?;
        }
        let count = self.faults.len();
        write!(f, "{count} {what}{} in {}", if count == 1 { "" } else { "s" }, self.file)
    }
}

impl Warnings {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As [`Faults::lines`].
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.0.lines()
    }
}

impl std::fmt::Display for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.write(f, "fault")
    }
}

impl std::fmt::Display for Warnings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.write(f, "warning")
    }
}

impl std::error::Error for Faults {}
