//! The manifest, written as a chain of calls.

use crate::Signal;

/// Who a plugin is and what it needs. `wit/plugin.wit` lists the words of `reads`, `writes` and `needs`;
/// the operator's grant is checked against them, and the collector refuses every use outside them.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// How it calls itself; the operator may give it another name.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// It is called with these only.
    pub signals: Vec<Signal>,
    /// What it reads.
    pub reads: Vec<String>,
    /// What it edits.
    pub writes: Vec<String>,
    /// What else it uses: `alerts`, `series`, `store`.
    pub needs: Vec<String>,
    /// The length of the windows of `series`; zero if it uses none.
    pub window_seconds: u32,
}

impl Manifest {
    /// A manifest that asks for nothing. `env!("CARGO_PKG_VERSION")` is a good version.
    pub fn new(name: &str, version: &str) -> Manifest {
        Manifest {
            name: name.into(),
            version: version.into(),
            signals: Vec::new(),
            reads: Vec::new(),
            writes: Vec::new(),
            needs: Vec::new(),
            window_seconds: 0,
        }
    }

    /// Adds signals that it is called with.
    pub fn signals(mut self, more: impl IntoIterator<Item = Signal>) -> Manifest {
        self.signals.extend(more);
        self
    }

    /// Adds what it reads.
    pub fn reads<'a>(mut self, words: impl IntoIterator<Item = &'a str>) -> Manifest {
        self.reads.extend(words.into_iter().map(String::from));
        self
    }

    /// Adds what it edits.
    pub fn writes<'a>(mut self, words: impl IntoIterator<Item = &'a str>) -> Manifest {
        self.writes.extend(words.into_iter().map(String::from));
        self
    }

    /// Adds what else it uses.
    pub fn needs<'a>(mut self, words: impl IntoIterator<Item = &'a str>) -> Manifest {
        self.needs.extend(words.into_iter().map(String::from));
        self
    }

    /// Sets the length of its windows.
    pub fn window_seconds(mut self, seconds: u32) -> Manifest {
        self.window_seconds = seconds;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_add_up_in_the_order_they_were_given() {
        let manifest = Manifest::new("a", "1").reads(["body"]).reads(["severity", "item:*"]).writes(["drop"]);
        assert_eq!(manifest.reads, ["body", "severity", "item:*"]);
        assert_eq!((manifest.writes.len(), manifest.needs.len(), manifest.window_seconds), (1, 0, 0));
    }
}
