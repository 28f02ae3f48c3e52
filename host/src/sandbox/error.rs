//! What can go wrong with a plugin. A variant is what the caller, or a metric, tells apart.

/// Why a plugin could not be loaded, or a call left nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PluginError {
    /// It never ran: the file, its imports, its manifest or its settings are wrong.
    #[error("{0}")]
    Load(String),
    /// It stopped in the middle: a panic, a wrong access, an overflow of its stack.
    #[error("trap: {0}")]
    Trap(String),
    /// It used up the CPU time of a call.
    #[error("took longer than {limit_ms} ms of CPU time")]
    Time { limit_ms: u64 },
    /// It stopped after it was refused more memory.
    #[error("needs more than {limit} bytes of memory")]
    Memory { limit: usize },
    /// Its edits, or one of its calls of the host, were too large.
    #[error("{0}")]
    Output(String),
    /// It made the host work more than the piece is worth.
    #[error("{0}")]
    Work(String),
    /// It returned an error itself. The text is the plugin's, cut and escaped.
    #[error("the plugin says: {0}")]
    Guest(String),
    /// It did what it may not, or asked for what is not there; it was told at the end of the call.
    #[error("{0}")]
    Fault(String),
}

impl PluginError {
    /// Whether the instance may be called again. One that was stopped halfway may hold anything in its memory.
    pub fn is_survivable(&self) -> bool {
        matches!(self, PluginError::Guest(_) | PluginError::Fault(_))
    }

    /// The values of label `result` in the metrics, by their numbers.
    pub const NAMES: [&str; 8] = ["load", "trap", "time", "memory", "output", "work", "error", "fault"];

    pub(super) fn number(&self) -> usize {
        match self {
            PluginError::Load(_) => 0,
            PluginError::Trap(_) => 1,
            PluginError::Time { .. } => 2,
            PluginError::Memory { .. } => 3,
            PluginError::Output(_) => 4,
            PluginError::Work(_) => 5,
            PluginError::Guest(_) => 6,
            PluginError::Fault(_) => 7,
        }
    }

    /// The value of label `result` in the metrics.
    pub fn name(&self) -> &'static str {
        PluginError::NAMES[self.number()]
    }

    /// What errors have in common that the log tells once a minute: the name, and for a trap the innermost function.
    pub(super) fn kind(&self) -> &str {
        match self {
            PluginError::Trap(text) => text.split_once(" < ").map_or(text, |(innermost, _)| innermost),
            other => other.name(),
        }
    }
}
