//! Recordings: what passes the guards, as it passes.
//!
//! A recording taps every batch that fits it directly after the last guard of its chain, so that what a guard takes
//! away, fails on or refuses is never in one. A chain without a guard is tapped at its start, and only if its pipeline
//! says `unguarded: true`. While nobody records, a batch costs one relaxed load. A recording that is slower than what
//! passes loses batches, counted, and holds up nothing.

use super::Pipeline;
use crate::batch::{Batch, IdentityKeys, Piece, Signal, Stream, json};
use arc_swap::ArcSwap;
use bytes::Bytes;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Recordings at one time: each copies all that it takes.
const RECORDINGS_MAX: usize = 4;
/// What waits for one recording.
const QUEUE_BYTES_MAX: usize = 16 << 20;
const QUEUE_BATCHES_MAX: usize = 4096;

/// What a recording takes. `None`: of any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Which {
    pub tenant: Option<String>,
    pub project: Option<String>,
    pub signal: Option<Signal>,
    /// The name of a pipeline.
    pub pipeline: Option<String>,
}

/// Why nothing is recorded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("{} recordings run already", RECORDINGS_MAX)]
    TooMany,
    #[error("there is no such pipeline")]
    NoPipeline,
    #[error(
        "that pipeline has no guard, and does not say `unguarded: true`: what passes it is never recorded"
    )]
    Unguarded,
}

/// Begins recordings of a pipeline. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Recordings {
    pipeline: Pipeline,
}

/// One that runs, until it is dropped.
#[derive(Debug)]
pub struct Recording {
    tap: Arc<Tap>,
    queue: mpsc::Receiver<Recorded>,
    pipeline: Pipeline,
}

/// Where those that run hang.
#[derive(Debug, Default)]
pub(super) struct Taps {
    /// Kept beside them, so that nobody who does not record looks further.
    number: AtomicUsize,
    taps: ArcSwap<Vec<Arc<Tap>>>,
    /// Held to change them.
    changing: Mutex<()>,
}

/// Those that take a batch.
#[derive(Debug)]
pub(super) struct Taken(Vec<Arc<Tap>>);

#[derive(Debug)]
struct Tap {
    which: Which,
    /// Whoever does not read is not copied for any longer.
    until: Instant,
    queue: mpsc::Sender<Recorded>,
    /// Bytes that wait.
    waiting: AtomicUsize,
    lost_batches: AtomicU64,
    lost_records: AtomicU64,
}

/// Up to a piece of a batch, as the last guard left it.
#[derive(Debug)]
pub struct Recorded {
    pub records: u32,
    stream: Stream,
    signal: Signal,
    bytes: Bytes,
}

impl Recordings {
    pub fn new(pipeline: Pipeline) -> Recordings {
        Recordings { pipeline }
    }

    /// From now on, until then or until what is handed out is dropped.
    pub fn begin(&self, which: Which, until: Instant) -> Result<Recording, RecordError> {
        if let Some(name) = &which.pipeline {
            let snapshot = self.pipeline.shared.snapshot.load();
            let way = snapshot.ways.iter().find(|way| way.name == *name).ok_or(RecordError::NoPipeline)?;
            way.chain.tapped_at().ok_or(RecordError::Unguarded)?;
        }
        let (sender, queue) = mpsc::channel(QUEUE_BATCHES_MAX);
        let tap = Arc::new(Tap {
            which,
            until,
            queue: sender,
            waiting: AtomicUsize::new(0),
            lost_batches: AtomicU64::new(0),
            lost_records: AtomicU64::new(0),
        });
        self.pipeline.shared.taps.add(tap.clone())?;
        Ok(Recording { tap, queue, pipeline: self.pipeline.clone() })
    }
}

impl Recording {
    /// The next, in the order in which they passed. Never `None`: whoever records decides how long. May be cancelled.
    pub async fn next(&mut self) -> Option<Recorded> {
        let recorded = self.queue.recv().await?;
        self.tap.waiting.fetch_sub(recorded.bytes.len(), Ordering::Relaxed);
        Some(recorded)
    }

    /// Batches and records that passed and are not in it, since nobody took them in time.
    pub fn lost(&self) -> (u64, u64) {
        (self.tap.lost_batches.load(Ordering::Relaxed), self.tap.lost_records.load(Ordering::Relaxed))
    }

    /// The attributes that say whose a resource is.
    pub fn keys(&self) -> IdentityKeys {
        self.pipeline.shared.settings.identity.clone()
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.pipeline.shared.taps.remove(&self.tap);
    }
}

impl Recorded {
    /// One OTLP/JSON request on one line, the verified tenant and project in each resource under these keys. Takes a
    /// few milliseconds for a large one.
    pub fn line(self, keys: &IdentityKeys) -> String {
        let mut batch = Batch::over(self.signal, self.stream, self.bytes);
        batch.stamp(keys, true);
        let written = batch.written(Vec::new(), keys).batch;
        json::of_protobuf(json::request_of(self.signal), &written.bytes)
    }
}

impl Taps {
    fn add(&self, tap: Arc<Tap>) -> Result<(), RecordError> {
        self.change(|taps| {
            if taps.len() == RECORDINGS_MAX {
                return Err(RecordError::TooMany);
            }
            taps.push(tap);
            Ok(())
        })
    }

    fn remove(&self, tap: &Arc<Tap>) {
        self.change(|taps| taps.retain(|known| !Arc::ptr_eq(known, tap)));
    }

    fn change<T>(&self, change: impl FnOnce(&mut Vec<Arc<Tap>>) -> T) -> T {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taps = self.taps.load().to_vec();
        let changed = change(&mut taps);
        let number = taps.len();
        self.taps.store(Arc::new(taps));
        self.number.store(number, Ordering::Relaxed);
        changed
    }

    /// Those that take a batch of this stream in this pipeline.
    pub(super) fn of(&self, pipeline: &str, batch: &Batch) -> Option<Taken> {
        if self.number.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let now = Instant::now();
        let is_wanted =
            |tap: &&Arc<Tap>| tap.until > now && tap.which.takes(pipeline, batch.signal, &batch.stream);
        let taken: Vec<Arc<Tap>> = self.taps.load().iter().filter(is_wanted).cloned().collect();
        (!taken.is_empty()).then_some(Taken(taken))
    }
}

impl Which {
    fn takes(&self, pipeline: &str, signal: Signal, stream: &Stream) -> bool {
        let is =
            |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        is(&self.pipeline, pipeline)
            && is(&self.tenant, stream.tenant.as_str())
            && is(&self.project, stream.project.as_str())
            && self.signal.is_none_or(|wanted| wanted == signal)
    }
}

impl Taken {
    /// Hands a copy to each; never waits.
    pub(super) fn offer(&self, piece: &Piece) {
        if piece.records() == 0 {
            return;
        }
        let bytes = Bytes::from(piece.standalone());
        for tap in &self.0 {
            let (records, stream, signal) = (piece.records(), piece.stream().clone(), piece.signal());
            tap.offer(Recorded { records, stream, signal, bytes: bytes.clone() });
        }
    }
}

impl Tap {
    fn offer(&self, recorded: Recorded) {
        let (records, bytes) = (recorded.records, recorded.bytes.len());
        let before = self.waiting.fetch_add(bytes, Ordering::Relaxed);
        // One that is larger than the queue goes in alone.
        let has_room = before == 0 || before + bytes <= QUEUE_BYTES_MAX;
        if has_room && self.queue.try_send(recorded).is_ok() {
            return;
        }
        self.waiting.fetch_sub(bytes, Ordering::Relaxed);
        self.lost_batches.fetch_add(1, Ordering::Relaxed);
        self.lost_records.fetch_add(records.into(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{ProjectId, Request, TenantId};

    fn stream(tenant: &str) -> Stream {
        Stream { tenant: TenantId::new(tenant).unwrap(), project: ProjectId::default_project() }
    }

    fn batch(tenant: &str, records: usize) -> Batch {
        let records = vec!["{}"; records].join(",");
        let text = format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{records}]}}]}}]}}"#);
        let bytes = json::to_protobuf(json::request_of(Signal::Logs), text.as_bytes(), 1 << 30).unwrap();
        Request::check(Signal::Logs, bytes.into()).unwrap().batch(stream(tenant), &[0])
    }

    fn tap(which: Which) -> (Arc<Tap>, mpsc::Receiver<Recorded>) {
        let (sender, queue) = mpsc::channel(QUEUE_BATCHES_MAX);
        let (waiting, [lost_batches, lost_records]) = (AtomicUsize::new(0), [0, 0].map(AtomicU64::new));
        let until = Instant::now() + std::time::Duration::from_secs(60);
        (Arc::new(Tap { which, until, queue: sender, waiting, lost_batches, lost_records }), queue)
    }

    #[test]
    fn a_tap_takes_what_fits_all_that_it_names() {
        let named = |which: Which| which.takes("p", Signal::Logs, &stream("t"));
        let text = |text: &str| Some(text.to_owned());
        assert!(named(Which::default()));
        assert!(named(Which {
            tenant: text("t"),
            project: text("default"),
            pipeline: text("p"),
            signal: Some(Signal::Logs)
        }));
        assert!(!named(Which { tenant: text("u"), ..Which::default() }));
        assert!(!named(Which { project: text("q"), ..Which::default() }));
        assert!(!named(Which { pipeline: text("q"), ..Which::default() }));
        assert!(!named(Which { signal: Some(Signal::Traces), ..Which::default() }));
    }

    #[test]
    fn taps_are_few_and_those_that_are_gone_take_nothing() {
        let taps = Taps::default();
        assert!(taps.of("p", &batch("t", 1)).is_none());
        let hung: Vec<_> = (0..RECORDINGS_MAX).map(|_| tap(Which::default())).collect();
        hung.iter().for_each(|(tap, _)| taps.add(tap.clone()).unwrap());
        assert_eq!(taps.add(tap(Which::default()).0), Err(RecordError::TooMany));
        assert_eq!(taps.of("p", &batch("t", 1)).unwrap().0.len(), RECORDINGS_MAX);
        hung.iter().for_each(|(tap, _)| taps.remove(tap));
        assert!(taps.of("p", &batch("t", 1)).is_none());
        assert_eq!(taps.add(tap(Which::default()).0), Ok(()));
    }

    #[test]
    fn what_nobody_takes_in_time_is_lost_and_counted_and_the_queue_is_bounded() {
        let (tap, mut queue) = tap(Which::default());
        let large = |bytes: usize| Recorded {
            records: 3,
            stream: stream("t"),
            signal: Signal::Logs,
            bytes: vec![0; bytes].into(),
        };
        // Larger than the queue: alone.
        tap.offer(large(QUEUE_BYTES_MAX + 1));
        tap.offer(large(1));
        assert_eq!(queue.try_recv().unwrap().bytes.len(), QUEUE_BYTES_MAX + 1);
        tap.waiting.fetch_sub(QUEUE_BYTES_MAX + 1, Ordering::Relaxed);
        (0..5).for_each(|_| tap.offer(large(QUEUE_BYTES_MAX / 4)));
        assert_eq!(tap.waiting.load(Ordering::Relaxed), QUEUE_BYTES_MAX);
        let lost = [&tap.lost_batches, &tap.lost_records].map(|lost| lost.load(Ordering::Relaxed));
        assert_eq!(lost, [2, 6]);
        drop(queue);
        tap.offer(large(1));
        assert_eq!(tap.lost_batches.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_line_bears_the_verified_names_whatever_the_records_say() {
        let keys = IdentityKeys { tenant: "tenant.id".into(), project: "project.id".into() };
        let (tap, mut queue) = tap(Which::default());
        let taken = Taken(vec![tap]);
        batch("acme", 2).pieces(512, 1 << 20).iter().for_each(|piece| taken.offer(piece));
        let line = queue.try_recv().unwrap().line(&keys);
        let expected = r#"{"resourceLogs":[{"resource":{"attributes":[{"key":"tenant.id","value":{"stringValue":"acme"}},{"key":"project.id","value":{"stringValue":"default"}}]},"scopeLogs":[{"logRecords":[{},{}]}]}]}"#;
        assert_eq!(line, expected);
    }
}
