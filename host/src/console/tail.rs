//! `GET …/tail`: a stream as it comes, as server-sent events `log`, `gap`, `alive`, `end`.
//!
//! One event is made when the connection has taken the one before, so a slow viewer costs one event here and what
//! `streams` bounds there. A tail ends with its credential, with the process, or with its viewer.
//! Source: HTML standard, "Server-sent events".

use super::Site;
use super::access::Shown;
use super::answer::Fault;
use super::read::Readable;
use crate::streams::TailEvent;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{Version, header};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Interval, MissedTickBehavior};

/// How often the credential is looked at again.
pub(super) const RECHECK_INTERVAL: Duration = Duration::from_secs(15);

/// From the position in `Last-Event-ID`, which a browser sends when it comes back, else `?after=`, else from now on.
pub(super) async fn follow(State(site): State<Arc<Site>>, mut parts: Parts) -> Result<Response, Fault> {
    let readable = Readable::of(&site, &mut parts).await?;
    readable.parameters.expect(&["after"])?;
    let resumed = parts.headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let position = resumed.or(readable.parameters.text("after")).filter(|position| !position.is_empty());
    let place = place(&site, parts.version)?;
    let events = site.streams()?.tail(readable.stream, position)?;
    let body = Following::new(site, Box::pin(events), readable.shown, place).into_body();
    Ok(([(header::CONTENT_TYPE, "text/event-stream")], body).into_response())
}

/// A viewer over HTTP/1.1 has a connection for itself, and connections are bounded.
pub(super) fn place(site: &Site, version: Version) -> Result<Option<OwnedSemaphorePermit>, Fault> {
    if version >= Version::HTTP_2 {
        return Ok(None);
    }
    let place = site.lasting.clone().try_acquire_owned();
    place
        .map(Some)
        .map_err(|_| Fault::unavailable("too many viewers are connected: come back, or over HTTP/2"))
}

type Events = Pin<Box<dyn Stream<Item = TailEvent> + Send>>;

/// One viewer, from the first event to the last.
struct Following {
    site: Arc<Site>,
    events: Events,
    shown: Shown,
    recheck: Interval,
    is_stopping: bool,
    is_over: bool,
    _place: Option<OwnedSemaphorePermit>,
}

impl Following {
    fn new(site: Arc<Site>, events: Events, shown: Shown, place: Option<OwnedSemaphorePermit>) -> Following {
        let mut recheck = tokio::time::interval_at(Instant::now() + RECHECK_INTERVAL, RECHECK_INTERVAL);
        recheck.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Following { site, events, shown, recheck, is_stopping: false, is_over: false, _place: place }
    }

    fn into_body(self) -> Body {
        let first = futures_util::stream::once(async { Ok(retry()) });
        let rest = futures_util::stream::unfold(self, |mut viewer| async {
            let event = viewer.next().await?;
            Some((Ok::<_, Infallible>(event), viewer))
        });
        Body::from_stream(first.chain(rest))
    }

    async fn next(&mut self) -> Option<Bytes> {
        if self.is_over {
            return None;
        }
        let event = loop {
            tokio::select! {
                biased;
                () = self.site.console.stop.cancelled(), if !self.is_stopping => {
                    self.is_stopping = true;
                    // What was published is still shown; then each tail says its `end`.
                    self.site.streams().ok().inspect(|streams| streams.end_tails());
                }
                _ = self.recheck.tick() => {
                    if self.shown.caller(&self.site.console.tenants).is_err() {
                        break end("the credential is no longer valid");
                    }
                }
                event = self.events.next() => break event.unwrap_or_else(|| end("the stream was closed")),
            }
        };
        self.is_over = matches!(event, TailEvent::End { .. });
        Some(frame(&event))
    }
}

fn end(reason: &'static str) -> TailEvent {
    TailEvent::End { reason }
}

/// Before a browser comes back, drawn from a range: many viewers must not return together.
fn retry() -> Bytes {
    let drawn = RandomState::new().hash_one(0) % 3000;
    format!("retry: {}\n\n", 1000 + drawn).into()
}

/// An event as it stands on the wire. JSON texts and positions have no line ends, which would end a field.
fn frame(event: &TailEvent) -> Bytes {
    let named = |name: &str, position: Option<&str>, data: &str| {
        let id = position.map(|position| format!("id: {position}\n")).unwrap_or_default();
        Bytes::from(format!("event: {name}\n{id}data: {data}\n\n"))
    };
    match event {
        TailEvent::Log { position, json } => named("log", Some(position), json),
        TailEvent::Gap { from, to, count, reason, position } => {
            let data: Value = json!({ "from": from, "to": to, "count": count, "reason": reason });
            named("gap", Some(position), &data.to_string())
        }
        TailEvent::Alive { position } => {
            named("alive", Some(position), &json!({ "position": position }).to_string())
        }
        TailEvent::End { reason } => named("end", None, &json!({ "reason": reason }).to_string()),
    }
}
