//! OTLP's names as Prometheus wants them: metrics with the words of their units, labels.
//!
//! The result is that of Prometheus' own OTLP endpoint with its default settings (`UnderscoreEscapingWithSuffixes`),
//! so that dashboards fit either way in; tests compare the two. Where it would refuse a record for a label without a
//! usable name, only the label is left out.

/// What a metric is, as far as its name shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Gauge,
    /// A monotonic sum.
    Counter,
    Other,
}

/// The name without `_bucket` and its like; `None` if nothing of it is usable.
///
/// Source: OpenTelemetry specification, "Prometheus and OpenMetrics Compatibility", metric metadata.
pub(super) fn metric_name(name: &str, unit: &str, form: Form) -> Option<String> {
    let mut words: Vec<&str> = name.split(|c| !is_metric_char(c)).filter(|word| !word.is_empty()).collect();
    let (unit_word, per_word) = unit_words(unit);
    let is_new = |word: &str, words: &[&str]| !word.is_empty() && !words.contains(&word);
    // As there: whether the second is new is asked before the first is added.
    let adds_per = is_new(&per_word, &words);
    let unit_word = if adds_per { unit_word.trim_end_matches('_') } else { &unit_word };
    if is_new(unit_word, &words) {
        words.push(unit_word);
    }
    if adds_per {
        words.push(&per_word);
    }
    if form == Form::Counter {
        words.retain(|word| *word != "total");
        words.push("total");
    }
    // Counts of things have the unit `1` too, often wrongly: only a gauge is called a ratio.
    if form == Form::Gauge && unit == "1" {
        words.retain(|word| *word != "ratio");
        words.push("ratio");
    }
    let name = words.join("_");
    match name.as_bytes().first() {
        None => None,
        Some(first) if first.is_ascii_digit() => Some(format!("_{name}")),
        Some(_) => Some(name),
    }
}

fn is_metric_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == ':'
}

/// The words for a UCUM unit: what is measured, and `per_…` what. Annotations in braces are no unit.
fn unit_words(unit: &str) -> (String, String) {
    let (unit, per) = unit.split_once('/').unwrap_or((unit, ""));
    let known = |unit: &str, word: fn(&str) -> &str| match unit.trim() {
        unit if unit.contains(['{', '}']) => String::new(),
        unit => word(unit).to_owned(),
    };
    let per = match known(per, per_word) {
        word if word.is_empty() => word,
        word => cleaned(&format!("per_{word}")).trim_end_matches('_').to_owned(),
    };
    // Of a unit that has no letters nothing but `per` is left.
    let per = if per == "per" { String::new() } else { per };
    (cleaned(&known(unit, unit_word)), per)
}

fn cleaned(word: &str) -> String {
    let mut cleaned = String::with_capacity(word.len());
    for c in word.chars() {
        match is_metric_char(c) {
            true => cleaned.push(c),
            false if cleaned.ends_with('_') => {}
            false => cleaned.push('_'),
        }
    }
    cleaned.trim_start_matches('_').to_owned()
}

fn unit_word(unit: &str) -> &str {
    match unit {
        "d" => "days",
        "h" => "hours",
        "min" => "minutes",
        "s" => "seconds",
        "ms" => "milliseconds",
        "us" => "microseconds",
        "ns" => "nanoseconds",
        "By" => "bytes",
        "KiBy" => "kibibytes",
        "MiBy" => "mebibytes",
        "GiBy" => "gibibytes",
        "TiBy" => "tibibytes",
        "KBy" => "kilobytes",
        "MBy" => "megabytes",
        "GBy" => "gigabytes",
        "TBy" => "terabytes",
        "m" => "meters",
        "V" => "volts",
        "A" => "amperes",
        "J" => "joules",
        "W" => "watts",
        "g" => "grams",
        "Cel" => "celsius",
        "Hz" => "hertz",
        "1" => "",
        "%" => "percent",
        other => other,
    }
}

fn per_word(unit: &str) -> &str {
    match unit {
        "s" => "second",
        "m" => "minute",
        "h" => "hour",
        "d" => "day",
        "w" => "week",
        "mo" => "month",
        "y" => "year",
        other => other,
    }
}

/// The label for an attribute's key; `None` if nothing of it is usable, or if it would be the metric's name.
pub(super) fn label_name(key: &str) -> Option<String> {
    let plain: String = key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let name = match plain.as_bytes() {
        [b'0'..=b'9', ..] => format!("key_{plain}"),
        // Two of them mark a reserved name, which stays what it is.
        [b'_', second, ..] if *second != b'_' => format!("key{plain}"),
        b"_" => "key_".to_owned(),
        _ => plain,
    };
    let is_usable = name != "__name__" && name.bytes().any(|byte| byte != b'_');
    is_usable.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_called_as_prometheus_calls_them() {
        use Form::{Counter, Gauge, Other};
        let check = |name: &str, unit: &str, form, expected: &str| {
            let found = metric_name(name, unit, form);
            assert_eq!(found.as_deref().unwrap_or(""), expected, "{name:?} {unit:?} {form:?}");
        };
        check("http.server.duration", "s", Other, "http_server_duration_seconds");
        check("http.server.duration", "ms", Other, "http_server_duration_milliseconds");
        check("memory.usage", "By", Gauge, "memory_usage_bytes");
        check("memory.usage", "", Gauge, "memory_usage");
        check("requests", "1", Counter, "requests_total");
        check("requests", "{request}", Counter, "requests_total");
        check("requests.total", "", Counter, "requests_total");
        check("total.requests", "", Counter, "requests_total");
        check("requests.total", "", Gauge, "requests_total");
        check("cpu.utilization", "1", Gauge, "cpu_utilization_ratio");
        check("cpu.ratio.used", "1", Gauge, "cpu_used_ratio");
        check("cpu.utilization", "1", Other, "cpu_utilization");
        check("cpu", "%", Gauge, "cpu_percent");
        check("speed", "m/s", Gauge, "speed_meters_per_second");
        check("speed", "{packet}/s", Gauge, "speed_per_second");
        check("speed", "m/{turn}", Gauge, "speed_meters");
        check("speed", "/s", Gauge, "speed_per_second");
        check("speed", "m/", Gauge, "speed_meters");
        check("speed", "m/s/h", Gauge, "speed_meters_per_s_h");
        check("io", "By/s", Counter, "io_bytes_per_second_total");
        check("io.bytes", "By", Counter, "io_bytes_total");
        check("bytes.io", "By", Counter, "bytes_io_total");
        check("request.duration.seconds", "s", Other, "request_duration_seconds");
        check("odd", "foo.bar", Gauge, "odd_foo_bar");
        check("odd", "foo_", Gauge, "odd_foo_");
        check("odd", "foo_/s", Gauge, "odd_foo_per_second");
        check("odd", "°", Gauge, "odd");
        check("odd", "m/°", Gauge, "odd_meters");
        check("odd", " s ", Gauge, "odd_seconds");
        check("a--b..c__d", "", Gauge, "a_b_c_d");
        check("_a_", "", Gauge, "a");
        check("ns:metric", "", Gauge, "ns:metric");
        check("5xx", "", Gauge, "_5xx");
        check("größe", "", Gauge, "gr_e");
        check("", "s", Gauge, "seconds");
        check("", "", Counter, "total");
        for nameless in ["", "...", "日本", "_"] {
            assert_eq!(metric_name(nameless, "", Gauge), None, "{nameless:?}");
        }
    }

    #[test]
    fn labels_are_called_as_prometheus_calls_them() {
        let check = |key: &str, expected: Option<&str>| {
            assert_eq!(label_name(key).as_deref(), expected, "{key:?}");
        };
        check("http.route", Some("http_route"));
        check("a..b", Some("a__b"));
        check("Größe", Some("Gr__e"));
        check("5xx", Some("key_5xx"));
        check("_hidden", Some("key_hidden"));
        check(".hidden", Some("key_hidden"));
        check("_", Some("key_"));
        check("__reserved", Some("__reserved"));
        check("le", Some("le"));
        check("a:b", Some("a_b"));
        check("", None);
        check("__", None);
        check("..", None);
        check("日本", None);
        check("__name__", None);
        check("..name..", None);
    }
}
