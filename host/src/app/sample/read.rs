//! A file of telemetry, whatever form it has.

use crate::batch::{Request, Signal, json};
use bytes::Bytes;
use serde_json::Value;
use std::io::Read;
use std::path::Path;

/// What a recording has at most unless it is told otherwise.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// A request in JSON is smaller in protobuf, but for lists of short numbers.
const REQUEST_BYTES_MAX: usize = 256 << 20;

/// The requests of a file, checked.
#[derive(Clone, Debug)]
pub struct Sample {
    pub(super) requests: Vec<Request>,
}

/// How telemetry stands in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// One request.
    Json,
    /// One request a line.
    Lines,
    /// One Export*ServiceRequest.
    Protobuf,
}

impl Sample {
    /// `.json` is one request in OTLP/JSON, `.jsonl` one a line, anything else one Export*ServiceRequest in protobuf.
    /// The signal is told by the content unless `signal` says it (`logs`, `traces`, `metrics`). At most 64 MiB. The
    /// error is for a person and begins with the path.
    pub fn read(path: &Path, signal: Option<&str>) -> Result<Sample, String> {
        let place = |error: String| format!("{}: {error}", path.display());
        let signal = signal.map(signal_of).transpose()?;
        let form = match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => Form::Json,
            Some("jsonl" | "ndjson") => Form::Lines,
            _ => Form::Protobuf,
        };
        let file = std::fs::File::open(path).map_err(|error| place(error.to_string()))?;
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| place(error.to_string()))?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(place(format!("larger than {FILE_BYTES_MAX} bytes")));
        }
        Sample::of(form, bytes, signal).map_err(place)
    }

    /// Log lines that nobody wrote, of several kinds: `records` of them.
    pub fn synthetic(records: usize) -> Sample {
        let text = |at: usize| match at % 4 {
            0 => format!("GET /orders/{} 200 in {} ms", at * 7919 % 100_000, at % 90),
            1 => format!("user.{}@example.com signed in from 192.0.2.{}", at % 500, at % 250),
            2 => format!(
                "cache miss for cart:{:08x}, loaded in {} µs",
                at.wrapping_mul(2_654_435_761),
                at % 700
            ),
            _ => format!("payment {} of 4111 1111 1111 1111 declined: insufficient funds", at),
        };
        let record = |at: usize| {
            let severity = [9, 9, 5, 17][at % 4];
            serde_json::json!({
                "timeUnixNano": format!("17672256{:011}", at as u64 * 1_000_000),
                "severityNumber": severity,
                "body": { "stringValue": text(at) },
                "attributes": [
                    { "key": "http.route", "value": { "stringValue": "/orders/{id}" } },
                    { "key": "http.status", "value": { "intValue": "200" } },
                    { "key": "thread", "value": { "stringValue": format!("worker-{}", at % 8) } },
                ],
            })
        };
        let resource = serde_json::json!({ "attributes": [
            { "key": "service.name", "value": { "stringValue": "shop" } },
            { "key": "host.name", "value": { "stringValue": "node-1" } },
        ] });
        let records: Vec<Value> = (0..records).map(record).collect();
        let request = serde_json::json!({ "resourceLogs": [
            { "resource": resource, "scopeLogs": [{ "scope": { "name": "shop" }, "logRecords": records }] },
        ] });
        let request = json_request(request.to_string().as_bytes(), None).expect("it is OTLP");
        Sample { requests: vec![request] }
    }

    fn of(form: Form, bytes: Vec<u8>, signal: Option<Signal>) -> Result<Sample, String> {
        let requests = match form {
            Form::Json => vec![json_request(&bytes, signal)?],
            Form::Protobuf => vec![protobuf_request(bytes.into(), signal)?],
            Form::Lines => bytes
                .split(|byte| *byte == b'\n')
                .enumerate()
                .filter(|(_, line)| !line.trim_ascii().is_empty())
                .map(|(at, line)| {
                    json_request(line, signal).map_err(|error| format!("line {}: {error}", at + 1))
                })
                .collect::<Result<_, _>>()?,
        };
        Ok(Sample { requests })
    }

    /// Log records, spans and data points.
    pub fn records(&self) -> u64 {
        self.requests.iter().map(|request| request.records).sum()
    }

    /// Those that it holds.
    pub fn signals(&self) -> Vec<&'static str> {
        let is_held = |signal: &Signal| self.requests.iter().any(|request| request.signal == *signal);
        Signal::ALL.into_iter().filter(is_held).map(Signal::name).collect()
    }
}

fn signal_of(name: &str) -> Result<Signal, String> {
    let known = Signal::ALL.into_iter().find(|signal| signal.name() == name);
    known.ok_or_else(|| format!("there is no signal `{name}`: logs, traces or metrics"))
}

/// A request in OTLP/JSON, whatever its signal.
pub(in crate::app) fn request_in(text: &[u8]) -> Result<Request, String> {
    json_request(text, None)
}

fn json_request(text: &[u8], signal: Option<Signal>) -> Result<Request, String> {
    let signal = signal.map_or_else(|| signal_in(text), Ok)?;
    let made = json::to_protobuf(json::request_of(signal), text, REQUEST_BYTES_MAX);
    let bytes = made.map_err(|fault| match fault {
        json::Fault::Malformed { field, problem } => format!("{field}: {problem}"),
        json::Fault::TooLarge => format!("its protobuf is larger than {REQUEST_BYTES_MAX} bytes"),
    })?;
    Request::check(signal, bytes.into()).map_err(|error| error.to_string())
}

/// The signal whose list stands at the top.
fn signal_in(text: &[u8]) -> Result<Signal, String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Top {
        resource_logs: Option<serde::de::IgnoredAny>,
        resource_spans: Option<serde::de::IgnoredAny>,
        resource_metrics: Option<serde::de::IgnoredAny>,
    }
    let top: Top = serde_json::from_slice(text).map_err(|error| format!("no OTLP/JSON: {error}"))?;
    match (top.resource_logs, top.resource_spans, top.resource_metrics) {
        (Some(_), None, None) => Ok(Signal::Logs),
        (None, Some(_), None) => Ok(Signal::Traces),
        (None, None, Some(_)) => Ok(Signal::Metrics),
        (None, None, None) => {
            Err("no OTLP/JSON request: none of resourceLogs, resourceSpans, resourceMetrics is there".into())
        }
        _ => Err("it holds more than one signal: say which one is meant with --signal".into()),
    }
}

/// Protobuf does not say what it is: the signal whose messages know the most of it and miss the least.
fn protobuf_request(bytes: Bytes, signal: Option<Signal>) -> Result<Request, String> {
    if let Some(signal) = signal {
        return Request::check(signal, bytes).map_err(|error| error.to_string());
    }
    if serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok() {
        return Err("this is JSON: name it .json, or .jsonl with one request a line".into());
    }
    let fitting = |signal: Signal| {
        let request = Request::check(signal, bytes.clone()).ok()?;
        let (strange, known) = json::strangeness(json::request_of(signal), &request.bytes);
        Some((request, strange, known))
    };
    let mut fitting: Vec<_> = Signal::ALL.into_iter().filter_map(fitting).collect();
    fitting.sort_by_key(|(_, strange, known)| (*strange, std::cmp::Reverse(*known)));
    let is_same = |a: &(Request, usize, usize), b: &(Request, usize, usize)| (a.1, a.2) == (b.1, b.2);
    match &fitting[..] {
        [] => Err("no Export*ServiceRequest in protobuf: it fits neither logs nor traces nor metrics".into()),
        [one, other, ..] if is_same(one, other) => {
            Err("it may be of more than one signal: say which one with --signal".into())
        }
        [..] => Ok(fitting.swap_remove(0).0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGS: &str = r#"{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]},
        "scopeLogs":[{"scope":{"name":"lib"},"logRecords":[{"timeUnixNano":"5","body":{"stringValue":"hello"}},{}]}]}]}"#;
    const SPANS: &str = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"00000000000000000000000000000001",
        "spanId":"0000000000000001","name":"GET","startTimeUnixNano":"1","endTimeUnixNano":"2"}]}]}]}"#;
    const METRICS: &str = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"m","gauge":{"dataPoints":[{"asInt":"1"}]}}]}]}]}"#;

    fn found(form: Form, bytes: &[u8], signal: Option<Signal>) -> Result<(Vec<&'static str>, u64), String> {
        Sample::of(form, bytes.to_vec(), signal).map(|sample| (sample.signals(), sample.records()))
    }

    #[test]
    fn the_signal_is_found_in_either_form() {
        for (text, name, records) in [(LOGS, "logs", 2), (SPANS, "traces", 1), (METRICS, "metrics", 1)] {
            assert_eq!(found(Form::Json, text.as_bytes(), None), Ok((vec![name], records)));
            let request = json_request(text.as_bytes(), None).unwrap();
            assert_eq!(found(Form::Protobuf, &request.bytes, None), Ok((vec![name], records)), "{text}");
            assert_eq!(request.signal.name(), name);
        }
    }

    #[test]
    fn lines_are_requests_of_any_signal_and_empty_ones_are_none() {
        let one_line = |text: &str| text.replace('\n', "");
        let text = format!("{}\n\n{}\n", one_line(LOGS), one_line(METRICS));
        assert_eq!(found(Form::Lines, text.as_bytes(), None), Ok((vec!["logs", "metrics"], 3)));
        let error = found(Form::Lines, format!("{text}{{}}").as_bytes(), None).unwrap_err();
        assert!(error.starts_with("line 4: no OTLP/JSON request"), "{error}");
    }

    #[test]
    fn what_is_none_is_told_with_what_would_be() {
        let check = |form, bytes: &[u8], signal, says: &str| {
            let error = found(form, bytes, signal).unwrap_err();
            assert!(error.contains(says), "{error}");
        };
        check(Form::Json, b"[1", None, "no OTLP/JSON");
        check(Form::Json, br#"{"resourceLogs":[],"resourceSpans":[]}"#, None, "--signal");
        check(Form::Json, br#"{"resourceLogs":[{"scopeLogs":7}]}"#, None, "resourceLogs[0].scopeLogs: ");
        check(Form::Protobuf, b"\x07\xff\xff", None, "neither logs nor traces nor metrics");
        check(Form::Protobuf, b"", None, "--signal");
        check(Form::Protobuf, LOGS.as_bytes(), None, "name it .json");
        check(Form::Protobuf, b"\x07", Some(Signal::Logs), "malformed at byte");
        let error = Sample::read(Path::new("/nowhere/sample.json"), None).unwrap_err();
        assert!(error.starts_with("/nowhere/sample.json: "), "{error}");
        let error = Sample::read(Path::new("a.json"), Some("log")).unwrap_err();
        assert_eq!(error, "there is no signal `log`: logs, traces or metrics");
    }

    #[test]
    fn synthetic_lines_are_as_many_as_asked_for() {
        assert_eq!(Sample::synthetic(513).records(), 513);
    }
}
