//! Metrics to Prometheus and what speaks as it, by remote-write 1.0.
//!
//! Series are written straight from the bytes of the entries (`translate`), in portions of a few MiB. One request is in
//! flight, so that the order within a series is kept. Which record was refused the receiver does not say: `work` finds
//! out, and remembers over retries what was answered. Logs and traces have no form here.
//! Source: Prometheus Remote-Write 1.0.

mod answer;
mod labels;
mod names;
mod points;
mod portion;
mod shared;
#[cfg(test)]
mod tests;
mod translate;
mod values;
mod work;

use super::http::{Target, post};
use super::{Delivery, SendError, Sent};
use crate::batch::{Entry, Signal};
use crate::net::{http, tls};
use crate::telemetry::Secret;
use ::http::{HeaderMap, HeaderValue};
use answer::Heard;
use bytes::Bytes;
use jiff::Timestamp;
use portion::Portion;
use reqwest::{Body, Url};
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::Mutex;
use translate::{Entries, Place, Translated, translate};
use work::Work;

/// Of a refusal's text only the kind is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Samples whose translation or compression takes less than half a millisecond stay on the executor.
const INLINE_BYTES_MAX: usize = 64 << 10;
/// Names of metrics without a form here that the log tells, once each; a sender can invent more.
const NAMES_TOLD_MAX: usize = 1000;

/// Where to, and how OTLP's names become Prometheus's.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `http://` or `https://`, with the whole path: `http://127.0.0.1:9090/api/v1/write`.
    pub endpoint: String,
    pub headers: BTreeMap<String, Secret>,
    /// For `https://`.
    pub tls: tls::ClientSettings,
    /// `otel_scope_name` and its like on each series.
    pub is_scope_labelled: bool,
    /// Resource attributes that become labels of each series; the others stand in `target_info`. By default those that say
    /// whose it is, or series of two tenants would be one.
    pub promote: Vec<String>,
}

/// A receiver of remote-write.
#[derive(Debug)]
pub struct RemoteWrite {
    /// The sink's.
    name: String,
    settings: Arc<Settings>,
    client: http::Client,
    url: Url,
    headers: HeaderMap,
    /// Locked while a delivery is sent: one request is in flight, also if deliveries overlap.
    work: Mutex<Work>,
    told: std::sync::Mutex<Told>,
}

/// What the log was told.
#[derive(Debug, Default)]
struct Told {
    names: HashSet<String>,
}

impl RemoteWrite {
    /// `name` is that of the sink in the configuration.
    pub fn open(name: &str, settings: Settings) -> Result<RemoteWrite, String> {
        let target = Target::of(&settings.endpoint, &settings.headers, &settings.tls)?;
        let url = Url::parse(&settings.endpoint).map_err(|error| format!("endpoint: {error}"))?;
        let (client, mut headers) = target.client()?;
        for (name, value) in [
            ("content-type", "application/x-protobuf"),
            ("content-encoding", "snappy"),
            ("x-prometheus-remote-write-version", "0.1.0"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        Ok(RemoteWrite {
            name: name.to_owned(),
            settings: Arc::new(settings),
            client,
            url,
            headers,
            work: Mutex::default(),
            told: std::sync::Mutex::default(),
        })
    }

    /// Sends a delivery request by request. Dropped, or told to try again, it goes on where it was when the same
    /// delivery comes again.
    pub async fn send(&self, delivery: &Delivery) -> Result<Sent, SendError> {
        if delivery.signal != Signal::Metrics {
            let unsupported = delivery.entries.iter().map(|sending| u64::from(sending.entry.records)).sum();
            return Ok(Sent { unsupported, ..Sent::default() });
        }
        let mut work = self.work.lock().await;
        if !work.is_of(&delivery.entries) {
            *work = Work::of(&delivery.entries);
        }
        loop {
            let Some((portion, range)) = work.next() else {
                let Some((entries, place)) = work.untranslated() else { break };
                let mut translated = self.translate(entries, place).await?;
                self.tell_unsupported(std::mem::take(&mut translated.unsupported_names));
                work.begin(translated);
                continue;
            };
            match self.post(portion, range).await {
                Heard::Taken => work.taken(),
                Heard::Refused(refusal) => work.refused(refusal),
                Heard::RefusedAny(refusal) => work.refused_any(refusal),
                Heard::Retry { after, reason, is_unsent } => {
                    if is_unsent {
                        work.unsent();
                    }
                    return Err(SendError::Retry { after, reason });
                }
            }
        }
        Ok(std::mem::take(&mut *work).sent())
    }

    async fn translate(&self, entries: Entries, place: Place) -> Result<Translated, SendError> {
        let settings = self.settings.clone();
        let bytes: usize = entries[place.entry..].iter().map(|(entry, _)| entry.bytes.len()).sum();
        off_executor(bytes, move || translate(&settings, &entries, place)).await
    }

    async fn post(&self, portion: Arc<Portion>, range: Range<usize>) -> Heard {
        let bytes = portion.bytes() / portion.samples.len().max(1) * range.len();
        let body = off_executor(bytes, move || body(&portion, range)).await;
        let body = match body {
            Ok(body) => body,
            Err(error) => return Heard::Retry { after: None, reason: error.to_string(), is_unsent: true },
        };
        match post(&self.client, &self.url, &self.headers, Body::from(body), ANSWER_BYTES_MAX).await {
            Ok((head, body)) => answer::heard(head.status, &head.headers, &body, Timestamp::now()),
            Err(lost) => Heard::Retry { after: None, reason: lost.reason, is_unsent: lost.is_unsent },
        }
    }

    /// A metric's name is the tenant's own word, but without it nobody could find what is missing.
    fn tell_unsupported(&self, names: Vec<(String, &'static str)>) {
        let mut told = self.told.lock().expect("nothing panics while this is locked");
        for (name, why) in names {
            let metric = http::shown(&name);
            if told.names.len() < NAMES_TOLD_MAX && told.names.insert(metric.clone()) {
                tracing::warn!(sink = self.name, metric, why, "remote-write 1.0 has no form for a metric");
            }
        }
    }
}

/// Runs what takes long for so many bytes where it holds up nobody.
async fn off_executor<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, SendError> {
    if bytes <= INLINE_BYTES_MAX {
        return Ok(work());
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| SendError::Retry { after: None, reason: http::chain(&error) })
}

/// The body of a request: a `WriteRequest` as one snappy block.
fn body(portion: &Portion, range: Range<usize>) -> Bytes {
    let mut plain = Vec::with_capacity(portion.bytes());
    portion.write(range, &mut plain);
    let packed = snap::raw::Encoder::new().compress_vec(&plain);
    packed.expect("a portion is smaller than the 4 GiB that a snappy block may have").into()
}

/// The `WriteRequest`s that entries of metrics become, before compression, if nothing is refused.
pub fn write_requests(settings: &Settings, entries: &[Arc<Entry>]) -> Vec<Vec<u8>> {
    let entries: Vec<_> = entries.iter().map(|entry| (entry.clone(), false)).collect();
    let mut requests = Vec::new();
    let mut place = Some(Place::default());
    while let Some(at) = place {
        let translated = translate(settings, &entries, at);
        let mut request = Vec::with_capacity(translated.portion.bytes());
        translated.portion.write(0..translated.portion.samples.len(), &mut request);
        requests.push(request);
        place = translated.next;
    }
    requests
}
