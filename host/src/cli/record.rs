//! `trommel record`: what passes the guards of a running collector, to a file.
//!
//! The file holds one OTLP/JSON request a line, as other collectors read it (OpenTelemetry protocol, "File exporter").
//! It is bounded in bytes and in time, here as well as there, and only its owner may read it.

use super::ask::{Console, refusal};
use super::{FAILED, STOPPED, WRONG, complain, plain, runtime, say};
use crate::app::stop_signal;
use crate::config::{duration_of, size_of};
use clap::Args;
use reqwest::Url;
use serde_json::Value;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A piece of a batch in JSON is far less.
const LINE_BYTES_MAX: usize = 256 << 20;
/// Beyond the time of the recording itself.
const GRACE: Duration = Duration::from_secs(30);

#[derive(Args)]
pub(super) struct Record {
    #[command(flatten)]
    console: Console,
    /// The file to write, which must not be there yet.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Only of this tenant.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Only of this project.
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// Only logs, traces or metrics.
    #[arg(long, value_name = "SIGNAL")]
    signal: Option<String>,
    /// Only what passes this pipeline.
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,
    /// Bytes of the file at most.
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = size_of)]
    max: usize,
    /// How long.
    #[arg(long = "for", value_name = "TIME", default_value = "60s", value_parser = duration_of)]
    time: Duration,
}

/// Ends with 1 if the recording broke off.
pub(super) fn record(record: &Record) -> u8 {
    if record.out.exists() {
        complain(format!("{}: is there already", record.out.display()));
        return WRONG;
    }
    let Some(runtime) = runtime() else { return FAILED };
    runtime.block_on(recorded(record)).unwrap_or_else(|error| {
        complain(plain(&error));
        FAILED
    })
}

async fn recorded(record: &Record) -> Result<u8, String> {
    let (client, url, headers) = record.console.reach(&path(record))?;
    let asked = tokio::time::timeout(GRACE, client.stream(&url, &headers)).await;
    let mut answer = asked
        .map_err(|_| "the console did not answer in time".to_owned())?
        .map_err(|error| format!("the console: {}", error.reason))?;
    if !answer.head.status.is_success() {
        let status = answer.head.status;
        let body = answer.rest(LINE_BYTES_MAX).await.unwrap_or_default();
        return Err(refusal(status, &body));
    }
    let mut file = Recording::create(&record.out, record.max)?;
    let all = async {
        while let Some(chunk) = answer.next().await {
            if !file.take(&chunk?)? {
                break;
            }
        }
        Ok::<(), String>(())
    };
    let ended = tokio::select! {
        ended = tokio::time::timeout(record.time + GRACE, all) => {
            ended.unwrap_or_else(|_| Err("the console goes on longer than it was asked to".to_owned()))
        }
        _ = stop_signal() => {
            file.reason = Some("stopped".into());
            Ok(())
        }
    };
    let told = file.end(&record.out);
    ended?;
    told
}

fn path(record: &Record) -> String {
    let mut url = Url::parse("http://console/v1/record").expect("an address");
    let (max, time) = (record.max.to_string(), record.time.as_secs().max(1).to_string());
    let pairs = [
        ("tenant", record.tenant.as_deref()),
        ("project", record.project.as_deref()),
        ("signal", record.signal.as_deref()),
        ("pipeline", record.pipeline.as_deref()),
        ("max", Some(max.as_str())),
        ("for", Some(time.as_str())),
    ];
    for (name, value) in pairs {
        if let Some(value) = value {
            url.query_pairs_mut().append_pair(name, value);
        }
    }
    format!("{}?{}", url.path(), url.query().unwrap_or_default())
}

/// The file so far.
struct Recording {
    file: BufWriter<File>,
    bytes_left: usize,
    lines: u64,
    bytes: u64,
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
    /// What the console said at the end.
    end: Option<Value>,
    reason: Option<String>,
}

impl Recording {
    fn create(path: &Path, bytes_max: usize) -> Result<Recording, String> {
        let mut options = File::options();
        let opened = options.write(true).create_new(true).mode(0o600).open(path);
        let file = opened.map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Recording {
            file: BufWriter::new(file),
            bytes_left: bytes_max,
            lines: 0,
            bytes: 0,
            line: Vec::new(),
            end: None,
            reason: None,
        })
    }

    /// Whole lines go to the file. False once it is over.
    fn take(&mut self, chunk: &[u8]) -> Result<bool, String> {
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if self.line.len() > LINE_BYTES_MAX {
                return Err("no console: its lines do not end".into());
            }
            if part.ends_with(b"\n") && !self.whole_line()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn whole_line(&mut self) -> Result<bool, String> {
        let line = std::mem::take(&mut self.line);
        if line.starts_with(br#"{"end":"#) {
            let end: Value = serde_json::from_slice(&line).map_err(|error| format!("no console: {error}"))?;
            self.reason = end["end"]["reason"].as_str().map(str::to_owned);
            self.end = Some(end["end"].clone());
            return Ok(false);
        }
        let Some(left) = self.bytes_left.checked_sub(line.len()) else {
            self.reason = Some("bytes".into());
            return Ok(false);
        };
        self.bytes_left = left;
        self.lines += 1;
        self.bytes += line.len() as u64;
        self.file.write_all(&line).map_err(|error| format!("the file cannot be written: {error}"))?;
        // The place is kept for the next one.
        self.line = line;
        self.line.clear();
        Ok(true)
    }

    fn end(mut self, path: &Path) -> Result<u8, String> {
        let written = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        written.map_err(|error| format!("{}: {error}", path.display()))?;
        let number = |name: &str| self.end.as_ref().and_then(|end| end[name].as_u64());
        let records = number("records").map(|records| format!(" with {records} records")).unwrap_or_default();
        let reason = plain(self.reason.as_deref().unwrap_or("broken off"));
        say(&format!(
            "{} batches{records}, {} bytes in {}; ended by: {reason}",
            self.lines,
            self.bytes,
            path.display()
        ));
        let lost = number("lost_records").unwrap_or(0);
        if lost > 0 {
            complain(format!(
                "{lost} records that passed are not in it: they came faster than they could be taken"
            ));
        }
        Ok(if self.reason.is_some() { STOPPED } else { FAILED })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(chunks: &[&str], bytes_max: usize) -> (String, Option<String>, bool) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        let mut recording = Recording::create(&path, bytes_max).unwrap();
        let goes_on = chunks.iter().all(|chunk| recording.take(chunk.as_bytes()).unwrap());
        let reason = recording.reason.clone();
        recording.end(&path).unwrap();
        (std::fs::read_to_string(&path).unwrap(), reason, goes_on)
    }

    #[test]
    fn whole_lines_reach_the_file_and_the_last_says_why_it_ended() {
        let end = r#"{"end":{"reason":"time","records":2,"lost_records":0}}"#;
        let (text, reason, goes_on) = recorded(&["{\"a", "\":1}\n{\"b\":2}\n{", &end[1..], "\n"], 1_000);
        assert_eq!(
            (text.as_str(), reason.as_deref(), goes_on),
            ("{\"a\":1}\n{\"b\":2}\n", Some("time"), false)
        );
        // A line that was cut is no line.
        assert_eq!(recorded(&["{\"a\":1}\n{\"b"], 1_000), ("{\"a\":1}\n".into(), None, true));
    }

    #[test]
    fn the_file_is_never_larger_than_it_may_be() {
        let (text, reason, _) = recorded(&["1234\n12345678\n1\n"], 9);
        assert_eq!((text.as_str(), reason.as_deref()), ("1234\n", Some("bytes")));
    }

    #[test]
    fn nobody_else_may_read_it_and_nothing_is_written_over() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        Recording::create(&path, 1).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Recording::create(&path, 1).is_err());
    }
}
