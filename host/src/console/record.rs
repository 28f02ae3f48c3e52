//! `GET /v1/record`: what passes the guards from now on, one OTLP/JSON request a line, for a bounded time and to a
//! bounded number of bytes. The last line is `{"end": …}` and says why it ended and what was lost.

use super::Site;
use super::answer::Fault;
use super::read::Parameters;
use super::tail::{RECHECK_INTERVAL, place};
use crate::batch::Signal;
use crate::pipeline::{RecordError, Recorded, Recording, Which};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};

const BYTES_DEFAULT: u64 = 64 << 20;
/// A recording is for looking at a problem, no archive.
const BYTES_MAX: u64 = 4 << 30;
const SECONDS_DEFAULT: u64 = 60;
const SECONDS_MAX: u64 = 3_600;

pub(super) async fn record(State(site): State<Arc<Site>>, parts: Parts) -> Result<Response, Fault> {
    site.allow_admin(&parts)?;
    let parameters = Parameters::of(&parts)?;
    parameters.expect(&["tenant", "project", "signal", "pipeline", "max", "for"])?;
    let number = |name: &str, usual: u64, most: u64| match parameters.text(name) {
        None => Ok(usual),
        Some(text) => text
            .parse()
            .ok()
            .filter(|number| (1..=most).contains(number))
            .ok_or_else(|| Fault::bad(format!("{name} must be a number from 1 to {most}"))),
    };
    let bytes_left = number("max", BYTES_DEFAULT, BYTES_MAX)?;
    let seconds = number("for", SECONDS_DEFAULT, SECONDS_MAX)?;
    let which = which(&parameters)?;
    let place = place(&site, parts.version)?;
    let recordings = site.console.recordings.as_ref();
    let recordings = recordings.ok_or_else(|| Fault::not_configured("nothing passes here"))?;
    let end = Instant::now() + Duration::from_secs(seconds);
    let recording = recordings.begin(which.clone(), end)?;
    tracing::info!(
        tenant = which.tenant,
        project = which.project,
        signal = which.signal.map(Signal::name),
        pipeline = which.pipeline,
        seconds,
        bytes_max = bytes_left,
        "a recording begins"
    );
    let mut recheck = interval_at(Instant::now() + RECHECK_INTERVAL, RECHECK_INTERVAL);
    recheck.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let running = Running {
        site,
        parts,
        recording,
        recheck,
        end,
        bytes_left,
        sum: Sum::default(),
        ended: None,
        _place: place,
    };
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], running.into_body()).into_response())
}

fn which(parameters: &Parameters) -> Result<Which, Fault> {
    let text = |name| parameters.text(name).filter(|text| !text.is_empty()).map(str::to_owned);
    let signal = |name: String| {
        let known = Signal::ALL.into_iter().find(|signal| signal.name() == name);
        known.ok_or_else(|| Fault::bad("signal must be logs, traces or metrics"))
    };
    Ok(Which {
        tenant: text("tenant"),
        project: text("project"),
        signal: text("signal").map(signal).transpose()?,
        pipeline: text("pipeline"),
    })
}

impl From<RecordError> for Fault {
    fn from(error: RecordError) -> Fault {
        match error {
            RecordError::TooMany => Fault::unavailable(error.to_string()),
            RecordError::NoPipeline => Fault::not_found(error.to_string()),
            RecordError::Unguarded => Fault::bad(error.to_string()),
        }
    }
}

/// A recording on its way to who asked for it.
struct Running {
    site: Arc<Site>,
    parts: Parts,
    recording: Recording,
    recheck: Interval,
    end: Instant,
    bytes_left: u64,
    sum: Sum,
    /// Why it is over.
    ended: Option<&'static str>,
    _place: Option<OwnedSemaphorePermit>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    batches: u64,
    records: u64,
    bytes: u64,
}

impl Running {
    fn into_body(self) -> Body {
        let lines = futures_util::stream::unfold(self, |mut running| async {
            let line = running.next().await?;
            Some((Ok::<_, Infallible>(line), running))
        });
        Body::from_stream(lines)
    }

    async fn next(&mut self) -> Option<Bytes> {
        if self.ended.is_some() {
            return None;
        }
        let reason = loop {
            tokio::select! {
                biased;
                () = self.site.console.stop.cancelled() => break "the collector stops",
                () = sleep_until(self.end) => break "time",
                _ = self.recheck.tick() => {
                    if self.site.allow_admin(&self.parts).is_err() {
                        break "the credential is no longer valid";
                    }
                }
                recorded = self.recording.next() => match recorded {
                    None => break "the collector stops",
                    Some(recorded) => match self.line(recorded).await {
                        Some(line) => return Some(line),
                        None => break "bytes",
                    },
                },
            }
        };
        self.ended = Some(reason);
        Some(self.last(reason))
    }

    /// `None`: it would be too much.
    async fn line(&mut self, recorded: Recorded) -> Option<Bytes> {
        let (keys, records) = (self.recording.keys(), recorded.records);
        let making = tokio::task::spawn_blocking(move || recorded.line(&keys) + "\n");
        // Cancelled only when the runtime shuts down.
        let line = Bytes::from(making.await.ok()?);
        let bytes = line.len() as u64;
        self.bytes_left = self.bytes_left.checked_sub(bytes)?;
        self.sum.batches += 1;
        self.sum.records += u64::from(records);
        self.sum.bytes += bytes;
        Some(line)
    }

    fn last(&self, reason: &str) -> Bytes {
        let Sum { batches, records, bytes } = self.sum;
        let (lost_batches, lost_records) = self.recording.lost();
        let end = json!({ "end": {
            "reason": reason, "batches": batches, "records": records, "bytes": bytes,
            "lost_batches": lost_batches, "lost_records": lost_records,
        } });
        format!("{end}\n").into()
    }
}

/// Whoever reads may just go.
impl Drop for Running {
    fn drop(&mut self) {
        let Sum { batches, records, bytes } = self.sum;
        let (reason, (_, lost_records)) =
            (self.ended.unwrap_or("its reader has gone"), self.recording.lost());
        tracing::info!(reason, batches, records, bytes, lost_records, "a recording ends");
    }
}
