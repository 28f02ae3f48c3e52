//! `trommel replay`: sends a recording as a client would, over OTLP/HTTP.

use super::{FAILED, STOPPED, WRONG, complain, plain, runtime, say};
use crate::app::recording::Line;
use crate::net::backoff::{Backoff, random};
use crate::net::http::{self, Client};
use crate::net::tls;
use ::http::{HeaderMap, HeaderValue, Method, header::CONTENT_TYPE};
use clap::Args;
use reqwest::Url;
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;

/// A line of a recording.
const LINE_BYTES_MAX: u64 = 64 << 20;
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// For one request.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(500), most: Duration::from_secs(30) };
/// A request that was not taken by then is given up.
const ATTEMPTS_MAX: u32 = 8;
/// A server may ask for any time; nobody waits longer for one request.
const PAUSE_MAX: Duration = Duration::from_secs(120);
/// Between two lines, whatever their times say.
const GAP_MAX: Duration = Duration::from_secs(60);

#[derive(Args)]
pub(super) struct Replay {
    /// One OTLP/JSON request a line; `-` is the standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// An OTLP/HTTP receiver.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:4318")]
    endpoint: String,
    /// A file that holds a token with the right `send`.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The authority to trust for https://, in PEM; without it those of the system.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// `max`, or how many times as fast as it was recorded: `1x`.
    #[arg(long, value_name = "SPEED", default_value = "max", value_parser = speed)]
    speed: Speed,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Speed {
    Max,
    Times(f64),
}

fn speed(text: &str) -> Result<Speed, String> {
    if text == "max" {
        return Ok(Speed::Max);
    }
    let times = text.strip_suffix('x').and_then(|times| times.parse().ok());
    let times = times.filter(|times: &f64| times.is_finite() && *times >= 0.001);
    times.map(Speed::Times).ok_or_else(|| "right would be max, 1x, 10x".into())
}

/// Ends with 1 if a record was not taken, with 2 if a line is no OTLP.
pub(super) fn replay(replay: &Replay) -> u8 {
    let Some(runtime) = runtime() else { return FAILED };
    let mut sum = Sum::default();
    let ended = runtime.block_on(replayed(replay, &mut sum));
    say(&format!(
        "{} records in {} requests sent: {} accepted, {} rejected",
        sum.accepted + sum.rejected,
        sum.requests,
        sum.accepted,
        sum.rejected
    ));
    if let Some(reason) = &sum.reason {
        complain(plain(&format!("rejected: {reason}")));
    }
    match ended {
        Err(error) => {
            complain(plain(&error));
            WRONG
        }
        Ok(()) if sum.rejected > 0 => FAILED,
        Ok(()) => STOPPED,
    }
}

#[derive(Debug, Default)]
struct Sum {
    requests: u64,
    accepted: u64,
    rejected: u64,
    /// Why, the first time.
    reason: Option<String>,
}

async fn replayed(replay: &Replay, sum: &mut Sum) -> Result<(), String> {
    let sender = Sender::open(replay)?;
    let mut lines: Box<dyn BufRead> = match replay.file.as_os_str() == "-" {
        true => Box::new(std::io::stdin().lock()),
        false => {
            let opened = File::open(&replay.file);
            Box::new(BufReader::new(opened.map_err(|error| format!("{}: {error}", replay.file.display()))?))
        }
    };
    let mut pace = Pace { speed: replay.speed, last: None };
    for number in 1.. {
        let mut text = Vec::new();
        let mut limited = std::io::Read::take(&mut lines, LINE_BYTES_MAX + 1);
        let place = |error: String| format!("{}:{number}: {error}", replay.file.display());
        let read = limited.read_until(b'\n', &mut text).map_err(|error| place(error.to_string()))?;
        if read == 0 {
            break;
        }
        if text.len() as u64 > LINE_BYTES_MAX {
            return Err(place(format!("longer than {LINE_BYTES_MAX} bytes")));
        }
        if text.trim_ascii().is_empty() {
            continue;
        }
        let line = Line::of(&text).map_err(place)?;
        pace.wait(line.newest_ms).await;
        sum.requests += 1;
        let told = sender.send(&line, text).await;
        sum.accepted += line.records - told.rejected.min(line.records);
        sum.rejected += told.rejected.min(line.records);
        if told.rejected > 0 {
            sum.reason.get_or_insert(told.reason);
        }
    }
    Ok(())
}

/// Waits as long as lay between the lines when they were recorded.
struct Pace {
    speed: Speed,
    /// The time of the last line, and when it was sent.
    last: Option<(u64, Instant)>,
}

impl Pace {
    async fn wait(&mut self, time_ms: Option<u64>) {
        let (Speed::Times(times), Some(time_ms)) = (self.speed, time_ms) else { return };
        let now = Instant::now();
        let at = match self.last {
            None => now,
            Some((last_ms, sent)) => {
                let gap = Duration::from_millis(time_ms.saturating_sub(last_ms)).div_f64(times);
                sent + gap.min(GAP_MAX)
            }
        };
        tokio::time::sleep_until(at).await;
        self.last = Some((time_ms, at.max(now)));
    }
}

/// What became of a request.
#[derive(Debug, Default)]
struct Told {
    rejected: u64,
    reason: String,
}

struct Sender {
    client: Client,
    endpoint: Url,
    headers: HeaderMap,
}

impl Sender {
    fn open(replay: &Replay) -> Result<Sender, String> {
        let endpoint = Url::parse(&replay.endpoint).ok();
        let endpoint = endpoint.filter(|url| matches!(url.scheme(), "http" | "https"));
        let endpoint = endpoint.ok_or("--endpoint: right would be http://127.0.0.1:4318")?;
        let tls = tls::ClientSettings { ca: replay.ca.clone(), ..tls::ClientSettings::default() };
        let client = Client::open(http::tls_of(endpoint.scheme() == "https", &tls)?)?;
        let mut headers = super::ask::bearer(replay.token_file.as_deref())?;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(Sender { client, endpoint, headers })
    }

    /// Until it is taken, refused for good, or has been tried often enough.
    async fn send(&self, line: &Line, text: Vec<u8>) -> Told {
        let path = format!("{}{}", self.endpoint.path().trim_end_matches('/'), line.path());
        let mut url = self.endpoint.clone();
        url.set_path(&path);
        let text = bytes::Bytes::from(text);
        for attempt in 0.. {
            let sent = self.client.send(Method::POST, &url, &self.headers, text.clone(), ANSWER_BYTES_MAX);
            let answered = match tokio::time::timeout(ANSWER_WITHIN, sent).await {
                Ok(Ok((head, body))) => Answered::of(&head, &body.unwrap_or_default(), line),
                Ok(Err(error)) => Answered::Again { asked: None, reason: error.reason },
                Err(_) => Answered::Again { asked: None, reason: "no answer in time".into() },
            };
            match answered {
                Answered::Taken(told) => return told,
                Answered::Again { reason, .. } if attempt + 1 == ATTEMPTS_MAX => {
                    return Told { rejected: line.records, reason };
                }
                Answered::Again { asked, .. } => {
                    tokio::time::sleep(BACKOFF.pause(attempt, asked, random()).min(PAUSE_MAX)).await;
                }
            }
        }
        Told::default()
    }
}

enum Answered {
    Taken(Told),
    Again { asked: Option<Duration>, reason: String },
}

impl Answered {
    /// Source: OTLP specification, "OTLP/HTTP Response".
    fn of(head: &::http::response::Parts, body: &[u8], line: &Line) -> Answered {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let status = head.status;
        if status.is_success() {
            let partial = &body["partialSuccess"];
            let rejected = &partial[line.rejected_name()];
            // 64 bits are a string in OTLP/JSON.
            let rejected = rejected.as_u64().or_else(|| rejected.as_str()?.parse().ok()).unwrap_or(0);
            let reason = http::shown(partial["errorMessage"].as_str().unwrap_or_default());
            return Answered::Taken(Told { rejected, reason });
        }
        let words = body["message"].as_str().or(body["error"].as_str()).unwrap_or_default();
        let reason = format!("{status}: {}", http::shown(words));
        match status.as_u16() {
            429 | 502 | 503 | 504 => {
                let asked = http::retry_after(&head.headers, jiff::Timestamp::now());
                Answered::Again { asked, reason }
            }
            _ => Answered::Taken(Told { rejected: line.records, reason }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_is_max_or_a_factor() {
        assert_eq!(speed("max"), Ok(Speed::Max));
        assert_eq!(speed("1x"), Ok(Speed::Times(1.0)));
        assert_eq!(speed("0.5x"), Ok(Speed::Times(0.5)));
        for text in ["", "x", "0x", "-1x", "fast", "NaNx", "infx"] {
            assert!(speed(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_answer_says_what_was_taken_and_what_may_come_again() {
        let line = Line::of(br#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{},{}]}]}]}"#).unwrap();
        let check = |status: u16, body: &str, expected: Option<(u64, &str)>| {
            let response =
                ::http::Response::builder().status(status).header("retry-after", "7").body(()).unwrap();
            match (Answered::of(&response.into_parts().0, body.as_bytes(), &line), expected) {
                (Answered::Taken(told), Some((rejected, reason))) => {
                    assert_eq!((told.rejected, told.reason.as_str()), (rejected, reason), "{status} {body}");
                }
                (Answered::Again { asked, .. }, None) => assert_eq!(asked, Some(Duration::from_secs(7))),
                (_, expected) => panic!("{status} {body}: not {expected:?}"),
            }
        };
        check(200, "{}", Some((0, "")));
        check(200, "", Some((0, "")));
        let partial = r#"{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"too large"}}"#;
        check(200, partial, Some((1, "too large")));
        check(200, &partial.replace("\"1\"", "1"), Some((1, "too large")));
        check(400, r#"{"message":"malformed"}"#, Some((2, "400 Bad Request: malformed")));
        check(401, "", Some((2, "401 Unauthorized: ")));
        for status in [429, 502, 503, 504] {
            check(status, "", None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn lines_keep_the_distance_that_they_had() {
        let begun = Instant::now();
        let mut pace = Pace { speed: Speed::Times(2.0), last: None };
        let mut at = Vec::new();
        for time_ms in
            [Some(1_000_000), Some(1_002_000), None, Some(1_001_000), Some(1_006_000), Some(9_000_000_000)]
        {
            pace.wait(time_ms).await;
            at.push(begun.elapsed().as_millis());
        }
        assert_eq!(at, [0, 1_000, 1_000, 1_000, 3_500, 63_500]);
    }
}
