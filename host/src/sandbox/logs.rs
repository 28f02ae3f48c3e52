//! What a plugin writes: escaped, cut to length, and no more than a fixed number of bytes a second.
//!
//! A line holds what the plugin put there, which may be tenants' content: it is the plugin author's choice, and the
//! reason why a plugin's lines carry its name.

use super::mask::Mask;
use super::refusals::Refusals;
use std::sync::Mutex;

/// A longer line is cut.
pub(super) const LINE_BYTES_MAX: usize = 4096;

#[derive(Clone, Copy, Debug)]
pub(super) enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

/// The log of one plugin.
#[derive(Debug)]
pub(super) struct PluginLog {
    plugin: String,
    mask: Mask,
    /// What it may write in a second, over all instances.
    bytes_per_second: usize,
    refusals: Refusals,
    second: Mutex<Second>,
}

/// What was written in the second that began last.
#[derive(Debug, Default)]
struct Second {
    number: u64,
    bytes: usize,
    lines_left_out: u64,
}

impl PluginLog {
    pub(super) fn new(plugin: &str, mask: Mask, bytes_per_second: usize, refusals: Refusals) -> PluginLog {
        PluginLog { plugin: plugin.into(), mask, bytes_per_second, refusals, second: Mutex::default() }
    }

    /// What the collector tells of the plugin. It is not the plugin's to use up; who writes it bounds it.
    pub(super) fn report(&self, line: &str) {
        let line = printable(&self.mask.apply(line), LINE_BYTES_MAX);
        tracing::error!(plugin = self.plugin, "{line}");
    }

    /// Writes one line, or counts it as left out; the next second begins with their number.
    pub(super) fn write(&self, level: LogLevel, line: &str, now_ns: u64) {
        let line = printable(&self.mask.apply(line), LINE_BYTES_MAX);
        let (is_written, left_out) = self.admit(line.len(), now_ns);
        let plugin = &self.plugin;
        if left_out > 0 {
            tracing::warn!(
                plugin,
                lines = left_out,
                "a plugin wrote more than its log takes; lines were left out"
            );
        }
        if !is_written {
            self.refusals.count("log", 1);
            return;
        }
        match level {
            LogLevel::Debug => tracing::debug!(plugin, "{line}"),
            LogLevel::Info => tracing::info!(plugin, "{line}"),
            LogLevel::Warn => tracing::warn!(plugin, "{line}"),
            LogLevel::Error => tracing::error!(plugin, "{line}"),
        }
    }

    /// Whether so many bytes may be written now, and how many lines the seconds before had to leave out.
    fn admit(&self, bytes: usize, now_ns: u64) -> (bool, u64) {
        let mut second = self.second.lock().expect("no panic while the lock is held");
        let number = now_ns / 1_000_000_000;
        let mut left_out = 0;
        if second.number != number {
            left_out = second.lines_left_out;
            *second = Second { number, ..Second::default() };
        }
        let is_written = second.bytes + bytes <= self.bytes_per_second;
        match is_written {
            // A line costs more than its bytes.
            true => second.bytes += bytes + 32,
            false => second.lines_left_out += 1,
        }
        (is_written, left_out)
    }
}

/// Guest text for a log or an error: one line, control characters escaped, at most `bytes_max` bytes.
pub(super) fn printable(text: &str, bytes_max: usize) -> String {
    let mut line = String::with_capacity(text.len().min(bytes_max));
    for character in text.chars() {
        let escaped = character.escape_debug();
        let is_kept = escaped.len() == 1 || matches!(character, '"' | '\'' | '\\');
        let bytes = if is_kept { character.len_utf8() } else { escaped.len() };
        if line.len() + bytes > bytes_max {
            line.push('…');
            break;
        }
        match is_kept {
            true => line.push(character),
            false => line.extend(escaped),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn guest_text_becomes_one_harmless_line() {
        let check = |text, bytes_max, line| assert_eq!(printable(text, bytes_max), line);
        check("a \"b\" \\ 'c' ü 漢", 100, "a \"b\" \\ 'c' ü 漢");
        check("a\nb\u{1b}[2J\0", 100, "a\\nb\\u{1b}[2J\\0");
        check("\u{202e}evil", 100, "\\u{202e}evil");
        check("abcdef", 3, "abc…");
        check("aü", 2, "a…");
        check("a\u{1b}", 4, "a…");
    }

    #[test]
    fn a_flood_is_cut_and_its_lines_are_counted() {
        let log = PluginLog::new("loud", Mask::default(), 64 << 10, Refusals::new("loud", Metrics::new()));
        let written = (0..1000).filter(|_| log.admit(1000, 5).0).count();
        assert_eq!(written, 63);
        assert_eq!(log.admit(10, 1_000_000_000), (true, 937));
        assert_eq!(log.admit(10, 1_000_000_001), (true, 0));
    }
}
