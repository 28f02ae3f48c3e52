//! An incident as a message of at most 4,096 UTF-16 units, as Telegram counts them: after its markup was read.
//!
//! The head (severity, title, tenant, count, since) is always whole. Labels and text share what is left, and are cut
//! before anything is escaped, so no cut can fall into a tag or an entity, and none into a character.

use crate::alerts::Severity;
use crate::alerts::incidents::{How, State, timestamp};

/// Source: Telegram Bot API, "sendMessage", `text`.
const UNITS_MAX: usize = 4096;

/// With `parse_mode` HTML.
pub(super) fn html(state: &State) -> String {
    let parts = Parts::of(state);
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    format!("{} <b>{}</b>{}", parts.sign, escaped(&parts.title), escaped(&parts.rest))
}

/// Without markup.
pub(super) fn plain(state: &State) -> String {
    let parts = Parts::of(state);
    format!("{} {}{}", parts.sign, parts.title, parts.rest)
}

/// As people see it, before it is escaped.
struct Parts {
    sign: &'static str,
    title: String,
    rest: String,
}

impl Parts {
    fn of(state: &State) -> Parts {
        let (sign, word) = sign(state);
        let title = format!("{word}: {}", line(&state.content.title));
        let mut rest =
            format!("\n{} · {}\n{}", line(state.print.tenant()), line(&state.print.plugin), numbers(state));
        let left = UNITS_MAX.saturating_sub(units(sign) + 1 + units(&title) + units(&rest));
        let text = block(&state.content.text);
        let labels = labels(state, left - (left / 2).min(units(&text)));
        let text = shortened(&text, left - units(&labels));
        rest += &labels;
        rest += &text;
        Parts { sign, title, rest }
    }
}

fn sign(state: &State) -> (&'static str, &'static str) {
    match (state.ended, state.severity) {
        (Some((_, How::Resolved)), _) => ("✅", "Resolved"),
        (Some((_, How::Expired)), _) => ("✅", "Over"),
        (None, Severity::Critical) => ("🔴", "Critical"),
        (None, Severity::Warning) => ("🟠", "Warning"),
        (None, Severity::Info) => ("🔵", "Info"),
    }
}

/// `× 12,345 in 3 min · since 2026-11-24 15:03:12 UTC`.
fn numbers(state: &State) -> String {
    let until = state.ended.map_or(state.last_ms, |(time_ms, _)| time_ms);
    let seconds = until.saturating_sub(state.since_ms) / 1000;
    let time = |time_ms| timestamp(time_ms).strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
    let ended = state.ended.map(|(time_ms, _)| format!(" until {}", time(time_ms))).unwrap_or_default();
    format!("× {} in {} · since {}{ended}", grouped(state.count), span(seconds), time(state.since_ms))
}

/// The labels that fit into `left` units, a line each, and how many did not.
fn labels(state: &State, left: usize) -> String {
    let labels = &state.content.labels;
    if labels.is_empty() {
        return String::new();
    }
    let more = |count: usize| if count > 0 { format!("\n… {count} more labels") } else { String::new() };
    let mut lines = String::from("\n");
    for (at, (name, value)) in labels.iter().enumerate() {
        let next = format!("\n{}: {}", line(name), line(value));
        let after = labels.len() - at - 1 + state.content.labels_left_out;
        if units(&lines) + units(&next) + units(&more(after)) > left {
            let rest = more(after + 1);
            return if units(&lines) + units(&rest) <= left { lines + &rest } else { String::new() };
        }
        lines += &next;
    }
    lines + &more(state.content.labels_left_out)
}

/// An empty line and the text, or its head and `…`, in at most `left` units.
fn shortened(text: &str, left: usize) -> String {
    let begin = "\n\n";
    if text.is_empty() || left < 8 {
        return String::new();
    }
    let mut room = left - begin.len();
    if units(text) <= room {
        return format!("{begin}{text}");
    }
    room -= 1;
    let fits = |letter: &char| {
        let is_in = letter.len_utf16() <= room;
        room = room.saturating_sub(letter.len_utf16());
        is_in
    };
    let head: String = text.chars().take_while(fits).collect();
    format!("{begin}{}…", head.trim_end())
}

fn units(text: &str) -> usize {
    text.encode_utf16().count()
}

/// Text for one line.
fn line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_whitespace() { ' ' } else { letter }).filter(is_shown).collect()
}

/// Text that keeps its lines.
fn block(text: &str) -> String {
    let letters = text.chars().map(|letter| if letter == '\t' { ' ' } else { letter });
    let text: String = letters.filter(|letter| *letter == '\n' || is_shown(letter)).collect();
    text.trim().to_owned()
}

/// Control characters, and those that turn the direction of what follows, are not for other people's messages.
fn is_shown(letter: &char) -> bool {
    !letter.is_control()
        && !matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::content::Content;
    use crate::alerts::incidents::Fingerprint;
    use crate::alerts::stub::shown;
    use crate::batch::TenantId;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn state(title: &str, text: &str, labels: Vec<(String, String)>) -> State {
        State {
            print: Arc::new(Fingerprint {
                tenant: Some(TenantId::new("acme").unwrap()),
                plugin: "anomaly".into(),
                key: "k".into(),
            }),
            severity: Severity::Critical,
            content: Arc::new(Content::new(title.into(), text.into(), labels)),
            count: 12_345,
            since_ms: 1_700_000_000_000,
            last_ms: 1_700_000_185_000,
            ended: None,
        }
    }

    const HEAD: &str = "\nacme · anomaly\n× 12,345 in 3 min · since 2023-11-14 22:13:20 UTC";

    #[test]
    fn markup_of_others_is_text() {
        let labels = vec![("<route>".to_owned(), "a&b".to_owned())];
        let html = html(&state("1 < 2 </b>", "<script>\u{202e}\u{0}\u{7}x &amp;\r\n\ty</script>", labels));
        let expected = "🔴 <b>Critical: 1 &lt; 2 &lt;/b&gt;</b>".to_owned()
            + HEAD
            + "\n\n&lt;route&gt;: a&amp;b\n\n&lt;script&gt;x &amp;amp;\n y&lt;/script&gt;";
        assert_eq!(html, expected);
    }

    #[test]
    fn severity_and_end_have_their_sign() {
        for (severity, ended, expected) in [
            (Severity::Info, None, "🔵 Info: t"),
            (Severity::Warning, None, "🟠 Warning: t"),
            (Severity::Critical, None, "🔴 Critical: t"),
            (Severity::Critical, Some((1_700_000_200_000, How::Resolved)), "✅ Resolved: t"),
            (Severity::Info, Some((1_700_000_200_000, How::Expired)), "✅ Over: t"),
        ] {
            let plain = plain(&State { severity, ended, ..state("t", "", vec![]) });
            assert!(plain.starts_with(expected), "{plain}");
            assert_eq!(plain.contains(" until 2023-11-14 22:16:40 UTC"), ended.is_some());
        }
    }

    #[test]
    fn numbers_and_spans_are_for_people() {
        for (number, expected) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), expected);
        }
        for (seconds, expected) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3_599, "59 min"),
            (7_500, "2 h 5 min"),
            (90_000, "1 d 1 h"),
        ] {
            assert_eq!(span(seconds), expected);
        }
    }

    #[test]
    fn text_and_labels_are_cut_and_the_head_is_not() {
        let many = |count: usize| (0..count).map(|at| (format!("label-{at}"), "v".repeat(250))).collect();
        for (text, labels) in [
            ("x".repeat(5_000), many(0)),
            ("x".repeat(5_000), many(100)),
            ("short".to_owned(), many(100)),
            (String::new(), many(32)),
            ("🔥".repeat(5_000), many(3)),
            ("&".repeat(5_000), many(3)),
        ] {
            let message = plain(&state(&"t".repeat(500), &text, labels));
            assert!(units(&message) <= UNITS_MAX, "{}", units(&message));
            assert!(units(&message) > UNITS_MAX - 300, "and what fits is told: {}", units(&message));
            assert!(message.contains(HEAD));
            assert!(message.contains('…'));
        }
        let message = plain(&state("t", "short", many(100)));
        let seen = message.matches("\nlabel-").count();
        assert!(
            seen > 10 && message.contains(&format!("\n… {} more labels\n\nshort", 100 - seen)),
            "{message}"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn every_message_is_right_and_short_enough(
            title in "\\PC{0,300}",
            text in prop::collection::vec(prop_oneof![Just("<"), Just("&"), Just("🔥"), Just("é"), Just("a\n"), Just("</b>"), Just("&lt;"), Just("\u{0}")], 0..5000),
            labels in prop::collection::vec(("\\PC{0,40}", "[<&>a🔥]{0,300}"), 0..40),
        ) {
            let state = state(&title, &text.concat(), labels);
            let seen = shown(&html(&state)).expect("HTML as it should be");
            prop_assert!(seen.encode_utf16().count() <= UNITS_MAX);
            prop_assert!(seen.contains(HEAD));
            prop_assert_eq!(seen, plain(&state));
        }
    }
}
