//! Incidents in our own log: a line per change.
//!
//! Texts and labels hold what senders wrote, and stay out of it; titles are made by plugins, and are cut and escaped.

use super::Severity;
use super::incidents::{Change, Tell};

const TITLE_CHARS_MAX: usize = 120;

pub(super) fn tell(channel: &str, tell: &Tell) {
    let state = &tell.state;
    let (tenant, plugin) = (state.print.tenant(), &*state.print.plugin);
    let (severity, count) = (state.severity.name(), state.count);
    let title: String =
        state.content.title.chars().take(TITLE_CHARS_MAX).flat_map(char::escape_debug).collect();
    let what = match tell.change {
        Change::Opened => "opened",
        Change::Grown => "grown",
        Change::Resolved => "resolved",
    };
    match (tell.change, state.severity) {
        (Change::Resolved, _) | (_, Severity::Info) => {
            tracing::info!(channel, severity, tenant, plugin, title, count, "alert {what}");
        }
        (_, Severity::Warning) => {
            tracing::warn!(channel, severity, tenant, plugin, title, count, "alert {what}");
        }
        (_, Severity::Critical) => {
            tracing::error!(channel, severity, tenant, plugin, title, count, "alert {what}");
        }
    }
}
