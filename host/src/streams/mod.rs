//! A tenant's log: id, store, live tail.
//!
//! A stream is one tenant's one project. The sink writes its entries into the store, in lanes: one write in flight per
//! stream, numbers ascending. One task publishes the same entries, in the journal's order, to those who view the stream.
//! A viewer gets every line once and in order from each node, or is told of a gap.

mod embedded;
mod json;
mod lane;
pub mod mongodb;
mod position;
mod record;
mod ring;
mod store;
mod tail;
#[cfg(test)]
mod tests;
mod viewers;
mod wire;

pub use record::stream_hash;
pub use store::{StoreError, Write, Written};
pub use tail::TailEvent;

use crate::batch::{Entry, RecordId, Signal, Stream};
use crate::telemetry::Metrics;
use embedded::Embedded;
use lane::{Hash, Lanes, RingBytes};
use mongodb::Mongodb;
use position::Position;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use store::{Scan, Store};
use tokio::sync::{OwnedSemaphorePermit, watch};
use viewers::Viewers;

/// Where streams are kept and how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub store: StoreSettings,
    /// Whole days are removed when their youngest record is older.
    pub retention: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreSettings {
    /// On disk, below this folder: one database per day.
    Embedded { folder: std::path::PathBuf },
    /// On a MongoDB server.
    Mongodb(mongodb::Settings),
}

/// Why a reader gets nothing, as what it can do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamsError {
    /// Send another position or cursor; the text says what is wrong and what would be right.
    #[error("bad position: {0}")]
    BadPosition(String),
    /// Come back later.
    #[error("{0} viewers are connected, more are not taken")]
    TooManyViewers(usize),
    /// The same, of one tenant.
    #[error("{0} viewers of this tenant are connected, more are not taken")]
    TooManyViewersOfTenant(usize),
    #[error("the store cannot be read: {0}")]
    Store(StoreError),
    #[error("stopping")]
    Stopping,
}

/// What part of a stream's history is asked for. Times are commit times in ms since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// The first; `None`: the oldest there is.
    pub from_ms: Option<u64>,
    /// Not in it any more; `None`: everything there is.
    pub to_ms: Option<u64>,
    /// Records of one page, 1 to 10,000.
    pub limit: usize,
    /// The id of a record, or `next` of the page before: begins behind it.
    pub after: Option<String>,
    /// Only records with this text in a string: body, names, keys and values of attributes. Case counts.
    pub contains: Option<String>,
}

impl Default for History {
    fn default() -> History {
        History { from_ms: None, to_ms: None, limit: 100, after: None, contains: None }
    }
}

/// Records as JSON objects, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryPage {
    pub records: Vec<String>,
    /// What to send as `after` to go on; a page may be short or empty and still go on, since the work for one is
    /// bounded. `None`: the end was reached.
    pub next: Option<String>,
}

/// Limits that only tests change.
#[derive(Clone, Copy)]
struct Tuning {
    hash: Hash,
    ring_bytes: RingBytes,
    /// How long a viewer who joins waits for the store.
    store_patience: Duration,
    alive_every: Duration,
    viewers_max: usize,
    viewers_of_tenant_max: usize,
    /// What one scan looks at, at most.
    page_records: usize,
    page_bytes: usize,
    /// What one page of history looks at, at most.
    history_records: usize,
    history_bytes: usize,
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning {
            hash: stream_hash,
            // One ring holds some seconds of a busy stream; all of them an eighth of the default room.
            ring_bytes: RingBytes { one: 4 << 20, all: 64 << 20 },
            store_patience: Duration::from_secs(5),
            // Proxies commonly close what was silent for 30 s or more.
            alive_every: Duration::from_secs(15),
            viewers_max: 10_000,
            viewers_of_tenant_max: 500,
            page_records: 512,
            page_bytes: 1 << 20,
            history_records: 50_000,
            history_bytes: 32 << 20,
        }
    }
}

/// Records of one page of history, at most.
const LIMIT_MAX: usize = 10_000;
/// JSON of one page of history, about.
const PAGE_JSON_BYTES: usize = 16 << 20;
/// How long a page of history waits for the store.
const HISTORY_PATIENCE: Duration = Duration::from_secs(30);

/// The streams of all tenants.
pub struct Streams {
    store: Store,
    lanes: Lanes,
    tuning: Tuning,
    retention: Duration,
    metrics: Metrics,
    viewers: Viewers,
    ended: watch::Sender<bool>,
}

/// While this is held no write to the store begins.
#[derive(Debug)]
pub struct Held(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

impl Streams {
    /// Opens the store, which blocks for a moment; MongoDB is not waited for. To be called within a runtime. The error
    /// is for the operator: a folder that another process uses or that cannot be written, or a connection string that
    /// is none. A day that cannot be read is renamed and warned of, nothing more.
    pub fn open(settings: Settings, metrics: Metrics) -> Result<Arc<Streams>, String> {
        Streams::open_tuned(settings, Tuning::default(), metrics)
    }

    fn open_tuned(settings: Settings, tuning: Tuning, metrics: Metrics) -> Result<Arc<Streams>, String> {
        let opened_ms = now_ms();
        let store = match &settings.store {
            StoreSettings::Embedded { folder } => {
                Store::Embedded(Embedded::open(folder, tuning.hash, opened_ms)?)
            }
            StoreSettings::Mongodb(mongodb) => {
                Store::Mongodb(Mongodb::open(mongodb, settings.retention, tuning.hash)?)
            }
        };
        Ok(Arc::new(Streams {
            store,
            lanes: Lanes::new(tuning.ring_bytes, tuning.hash, opened_ms),
            tuning,
            retention: settings.retention,
            metrics,
            viewers: Viewers::default(),
            ended: watch::Sender::new(false),
        }))
    }

    /// Stores entries of logs, ascending by number, and returns when they are on disk.
    ///
    /// One write is in flight per stream; another one waits, even for a write whose caller has gone. Made again after
    /// an error, a timeout or a cancellation, with `is_resend`, it is the same write.
    pub async fn write(&self, writes: Vec<Write>) -> Result<Written, StoreError> {
        let mut lanes: BTreeMap<Stream, (Vec<u64>, u64)> = BTreeMap::new();
        for Write { entry, .. } in &writes {
            let (firsts, below) = lanes.entry(entry.stream.clone()).or_default();
            firsts.push(entry.first);
            *below = entry.first + u64::from(entry.records);
        }
        let mut held = Vec::with_capacity(lanes.len());
        for lock in self.lanes.writes(lanes.keys()) {
            held.push(lock.lock_owned().await);
        }
        let written = self.store.write(writes, held).await;
        for (stream, (firsts, below)) in &lanes {
            // Also after an error, since a lane that nothing waits for is forgotten here.
            self.lanes.stored(stream, firsts, if written.is_ok() { *below } else { 0 });
        }
        written
    }

    /// What is not stored of this stream below number `up_to` never will be: rejected or expired. Viewers who wait for
    /// it are told. A later write of the stream says the same of what was left out before it; without either they are
    /// told when their patience ends.
    pub fn skip(&self, stream: &Stream, up_to: u64) {
        self.lanes.given_up(stream, up_to);
    }

    /// Shows a committed entry to those who view its stream, and returns at once whatever they do.
    ///
    /// Called by one task, in the journal's order, for every entry of logs that goes to this store, and only for these:
    /// each is also written or skipped, before or after, or viewers who join would wait for it. Other signals are ignored.
    pub fn publish(&self, entry: &Arc<Entry>) {
        if entry.signal == Signal::Logs {
            self.lanes.publish(entry);
        }
    }

    /// Entries up to record number `until`, not including it, were left out by the publisher: every viewer is told of a
    /// gap (`slow`) whose count nobody knows.
    pub fn miss(&self, until: u64) {
        self.lanes.miss(until);
    }

    /// Follows a stream: from a position on (of an earlier event, or the id of a record), or from now. The viewer has
    /// joined when this returns: what is committed afterwards it gets.
    pub fn tail(
        self: &Arc<Streams>,
        stream: Stream,
        position: Option<&str>,
    ) -> Result<impl futures_util::Stream<Item = TailEvent> + Send + use<>, StreamsError> {
        if *self.ended.borrow() {
            return Err(StreamsError::Stopping);
        }
        let position = position.map(Position::parse).transpose()?;
        let (max, of_tenant_max) = (self.tuning.viewers_max, self.tuning.viewers_of_tenant_max);
        self.viewers.enter(&stream.tenant, max, of_tenant_max)?;
        let viewer = tail::Viewer::join(self, stream, position);
        Ok(futures_util::stream::unfold(viewer, |mut viewer| async move {
            let event = viewer.next().await?;
            Some((event, viewer))
        }))
    }

    /// A page of what is stored of a stream, oldest first. The work for one page is bounded.
    pub async fn history(&self, stream: &Stream, query: History) -> Result<HistoryPage, StreamsError> {
        tokio::time::timeout(HISTORY_PATIENCE, self.read_history(stream, query)).await.unwrap_or_else(|_| {
            Err(StreamsError::Store(StoreError { reason: "it does not answer".into(), after: None }))
        })
    }

    async fn read_history(&self, stream: &Stream, query: History) -> Result<HistoryPage, StreamsError> {
        let limit = query.limit.clamp(1, LIMIT_MAX);
        let contains = query.contains.filter(|text| !text.is_empty());
        let hash = (self.tuning.hash)(stream);
        let mut from = RecordId::new(hash, query.from_ms.unwrap_or(0), [0; 4], 0);
        if let Some(after) = &query.after {
            from = from.max(behind(&cursor_of(after, hash)?));
        }
        let mut page = HistoryPage::default();
        let mut json_bytes = 0;
        let (mut records_left, mut bytes_left) = (self.tuning.history_records, self.tuning.history_bytes);
        loop {
            let wanted =
                if contains.is_some() { self.tuning.page_records } else { limit - page.records.len() };
            let scan = Scan {
                stream: stream.clone(),
                hash,
                from,
                to_ms: query.to_ms.unwrap_or(u64::MAX),
                records_max: wanted.min(self.tuning.page_records).min(records_left),
                bytes_max: self.tuning.page_bytes.min(bytes_left),
            };
            records_left = records_left.saturating_sub(scan.records_max);
            let found = self.store.scan(scan).await.map_err(StreamsError::Store)?;
            bytes_left =
                bytes_left.saturating_sub(found.records.iter().map(|(_, request)| request.len()).sum());
            let next = found.next;
            for (id, json) in render(found.records, contains.clone()).await? {
                json_bytes += json.len();
                page.records.push(json);
                if page.records.len() >= limit || json_bytes >= PAGE_JSON_BYTES {
                    page.next = Some(json::id_text(&id));
                    return Ok(page);
                }
            }
            let Some(next) = next else { return Ok(page) };
            if records_left == 0 || bytes_left == 0 {
                page.next = Some(json::id_text(&before(&next)));
                return Ok(page);
            }
            from = next;
        }
    }

    /// Streams that have records in the store, ascending. The first call after a start reads every day's index.
    pub async fn known(&self) -> Result<Vec<Stream>, StreamsError> {
        Ok(self.store.known().await.map_err(StreamsError::Store)?.into_iter().collect())
    }

    /// Whether the last write succeeded; else why not.
    pub fn is_ready(&self) -> Result<(), String> {
        self.store.is_ready()
    }

    /// Removes the days whose youngest record is older than the retention. To be called about once an hour.
    pub async fn retain(&self, now_ms: u64) {
        self.lanes.sweep();
        let retention_ms = u64::try_from(self.retention.as_millis()).unwrap_or(u64::MAX);
        self.store.retain(now_ms, retention_ms).await;
    }

    /// Ends the tails: each viewer gets what was published, then `end`. No new ones are taken.
    pub fn end_tails(&self) {
        self.ended.send_replace(true);
    }

    /// Ends the tails, waits for the write in flight and closes the store.
    pub async fn close(&self) {
        self.end_tails();
        self.store.close().await;
    }

    /// Holds the store as a hanging disk would, for tests of what happens meanwhile.
    pub async fn hold(&self) -> Held {
        match &self.store {
            Store::Embedded(embedded) => Held(embedded.hold().await),
            Store::Mongodb(mongodb) => Held(mongodb.hold().await),
        }
    }
}

/// Renders what holds the text, off the executor.
async fn render(
    records: Vec<(RecordId, Vec<u8>)>,
    contains: Option<String>,
) -> Result<Vec<(RecordId, String)>, StreamsError> {
    let rendering = tokio::task::spawn_blocking(move || {
        let held = |request: &[u8]| contains.as_ref().is_none_or(|text| json::holds(request, text));
        let held = records.iter().filter(|(_, request)| held(request));
        held.map(|(id, request)| (*id, json::render(id, request))).collect()
    });
    rendering.await.map_err(|_| StreamsError::Stopping)
}

fn cursor_of(text: &str, hash: [u8; 8]) -> Result<RecordId, StreamsError> {
    json::id_of(text).filter(|id| id.0[..8] == hash).ok_or_else(|| {
        StreamsError::BadPosition(
            "it is no id of a record of this stream: send `id` or `next` unchanged".into(),
        )
    })
}

/// The next id in order.
fn behind(id: &RecordId) -> RecordId {
    let mut bytes = id.0;
    for byte in bytes.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            break;
        }
    }
    RecordId(bytes)
}

/// The id before in order.
fn before(id: &RecordId) -> RecordId {
    let mut bytes = id.0;
    for byte in bytes.iter_mut().rev() {
        *byte = byte.wrapping_sub(1);
        if *byte != 0xff {
            break;
        }
    }
    RecordId(bytes)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl std::fmt::Debug for Streams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Streams")
    }
}
