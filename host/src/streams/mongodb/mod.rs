//! Streams in MongoDB: collections shared by all tenants, one per retention class and day.
//!
//! A record's id is its document's `_id`, so what is sent twice is there once; a stream's documents lie together, in
//! order. Retention drops collections. Several collectors may write into one database. Nothing waits for the server
//! at the start: what cannot be written is tried again by `deliver`.

mod answer;
mod bson;
mod client;
mod collections;
mod document;
mod reading;
mod scan;
#[cfg(test)]
mod tests;
mod write;

pub use client::{check_database, check_uri};

use super::lane::Hash;
use super::record::{Walk, stream_hash};
use super::store::{Found, Held, Scan, StoreError, Write, Written};
use crate::batch::{Entry, ProjectId, Stream, TenantId};
use crate::net::backoff::{self, Backoff};
use crate::telemetry::Secret;
use ::mongodb::Database;
use ::mongodb::bson::{DateTime, Document, RawDocumentBuf, doc};
use client::{code_of, said, sentence};
use collections::{DAY_MS, Days, Name, class_of};
use futures_util::TryStreamExt;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};
use write::{Commands, Insert};

/// Which server, and where on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `mongodb://…`; holds the password. `tls=true` and `tlsCAFile=` stand in it.
    pub uri: Secret,
    /// The database of the collections.
    pub database: String,
}

/// Readers at once; each may hold a batch of the server's, 16 MB at most.
const READS_MAX: usize = 4;
/// Inserts on their way at once: while the server answers one, others are built and sent.
const TRACKS_MAX: usize = 4;
/// How long anything waits for its turn.
const TURN_PATIENCE: Duration = Duration::from_secs(30);
/// How long one command may take: less than an attempt of `deliver`, which then hears why.
const COMMAND_PATIENCE: Duration = Duration::from_secs(8);
/// How long one look into the collections may take.
const READ_PATIENCE: Duration = Duration::from_secs(20);
/// How old the list of collections may be that reads go by. What we make ourselves is in it at once.
const LIST_AGE_MAX: Duration = Duration::from_secs(5);
/// Streams that are remembered as noted; beyond it they are noted again.
const NOTED_MAX: usize = 100_000;
/// Rows of `streams` noted in one command.
const NOTES_MAX: usize = 500;
/// The collection that names the streams there are.
const STREAMS: &str = "streams";
const REACH: Backoff = Backoff { first: Duration::from_millis(250), most: Duration::from_secs(15) };

pub(super) struct Mongodb {
    inner: Arc<Inner>,
    writing: Arc<Semaphore>,
    reading: Arc<Semaphore>,
    /// Writes whose callers may have gone, and the attempts to reach the server.
    tasks: Mutex<JoinSet<()>>,
}

struct Inner {
    database: Database,
    hash: Hash,
    class: String,
    listed: Mutex<Listed>,
    /// The database takes no `clusteredIndex`: collections are plain.
    is_plain: AtomicBool,
    /// The last day that each stream was noted for.
    noted: Mutex<HashMap<Stream, u64>>,
    /// Why the server is not ready.
    trouble: Mutex<Option<String>>,
    is_closed: AtomicBool,
}

#[derive(Default)]
struct Listed {
    days: Days,
    at: Option<Instant>,
}

impl Mongodb {
    /// Connects to nothing yet. To be called within a runtime, which the driver's own tasks need. The error says what
    /// is wrong with the settings.
    pub(super) fn open(settings: &Settings, retention: Duration, hash: Hash) -> Result<Mongodb, String> {
        let inner = Arc::new(Inner {
            database: client::open(settings)?,
            hash,
            class: class_of(retention),
            listed: Mutex::default(),
            is_plain: AtomicBool::new(false),
            noted: Mutex::default(),
            trouble: Mutex::new(Some("the server was not reached yet".into())),
            is_closed: AtomicBool::new(false),
        });
        let mut tasks = JoinSet::new();
        let reaching = inner.clone();
        tasks.spawn(async move { reaching.reach().await });
        Ok(Mongodb {
            inner,
            writing: Arc::new(Semaphore::new(1)),
            reading: Arc::new(Semaphore::new(READS_MAX)),
            tasks: Mutex::new(tasks),
        })
    }

    pub(super) async fn write(&self, writes: Vec<Write>, held: Held) -> Result<Written, StoreError> {
        let turn = turn(&self.writing).await?;
        let inner = self.inner.clone();
        let (answer, answered) = oneshot::channel();
        {
            let mut tasks = lock(&self.tasks);
            while tasks.try_join_next().is_some() {}
            tasks.spawn(async move {
                let written = inner.write(writes).await;
                inner.note(written.as_ref().err().map(|error| error.reason.clone()));
                drop((turn, held));
                // Nobody may wait any more.
                let _ = answer.send(written);
            });
        }
        answered.await.unwrap_or_else(|_| Err(closed()))
    }

    pub(super) async fn scan(&self, scan: Scan) -> Result<Found, StoreError> {
        let _turn = turn(&self.reading).await?;
        self.inner.in_time(self.inner.scan(scan)).await
    }

    pub(super) async fn known(&self) -> Result<BTreeSet<Stream>, StoreError> {
        let _turn = turn(&self.reading).await?;
        self.inner.in_time(self.inner.known()).await
    }

    /// Drops the collections that are over at `now_ms`.
    pub(super) async fn retain(&self, now_ms: u64) {
        if let Err(error) = self.inner.retain(now_ms).await {
            warn!(reason = %error, "collections of streams were not dropped");
        }
    }

    pub(super) fn is_ready(&self) -> Result<(), String> {
        match &*lock(&self.inner.trouble) {
            Some(reason) => Err(format!("MongoDB: {reason}")),
            None => Ok(()),
        }
    }

    /// Waits for the write in flight, then lets the connections go.
    pub(super) async fn close(&self) {
        let turn = turn(&self.writing).await;
        self.inner.is_closed.store(true, Ordering::SeqCst);
        lock(&self.tasks).abort_all();
        drop(turn);
        let shutdown = self.inner.database.client().clone().shutdown().immediate(true);
        if timeout(COMMAND_PATIENCE, shutdown).await.is_err() {
            warn!("connections to MongoDB were not closed in time");
        }
    }

    /// While this is held no write begins.
    pub(super) async fn hold(&self) -> OwnedSemaphorePermit {
        self.writing.clone().acquire_owned().await.expect("the semaphore is never closed")
    }
}

/// Builds the next command, off the executor.
fn next_of(mut commands: Commands) -> JoinHandle<(Commands, Option<Insert>)> {
    tokio::task::spawn_blocking(move || {
        let insert = commands.next();
        (commands, insert)
    })
}

async fn turn(turns: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, StoreError> {
    let turn = timeout(TURN_PATIENCE, turns.clone().acquire_owned()).await;
    Ok(turn.map_err(|_| failure("the store is busy"))?.expect("the semaphore is never closed"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it is locked")
}

fn failure(reason: impl Into<String>) -> StoreError {
    StoreError { reason: reason.into(), after: None }
}

fn closed() -> StoreError {
    failure("the store is closed")
}

impl Inner {
    /// Asks until the server answers once.
    async fn reach(&self) {
        for attempt in 0.. {
            match self.run(doc! { "ping": 1 }).await {
                Ok(_) => return self.note(None),
                Err(failed) => self.note(Some(failed.error.reason)),
            }
            sleep(REACH.pause(attempt, None, backoff::random())).await;
        }
    }

    fn note(&self, trouble: Option<String>) {
        let mut noted = lock(&self.trouble);
        match (&*noted, &trouble) {
            (old, Some(reason)) if old.as_ref() != Some(reason) => {
                warn!(reason, database = self.database.name(), "streams cannot be written to MongoDB");
            }
            (Some(_), None) => info!(database = self.database.name(), "streams are written to MongoDB"),
            _ => {}
        }
        *noted = trouble;
    }

    async fn in_time<T>(
        &self,
        reading: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        if self.is_closed.load(Ordering::SeqCst) {
            return Err(closed());
        }
        timeout(READ_PATIENCE, reading)
            .await
            .unwrap_or_else(|_| Err(failure("the server does not answer in time")))
    }

    async fn run(&self, command: Document) -> Result<Document, Failed> {
        let command = RawDocumentBuf::try_from(&command)
            .map_err(|_| Failed::of(failure("a command that is no BSON")))?;
        self.run_raw(command).await
    }

    /// Runs a command; the driver does not send it a second time.
    async fn run_raw(&self, command: RawDocumentBuf) -> Result<Document, Failed> {
        if self.is_closed.load(Ordering::SeqCst) {
            return Err(Failed::of(closed()));
        }
        match timeout(COMMAND_PATIENCE, self.database.run_raw_command(command)).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => Err(Failed { code: code_of(&error), error: failure(sentence(&error)) }),
            Err(_) => Err(Failed::of(failure("the server does not answer in time"))),
        }
    }

    async fn write(self: &Arc<Inner>, writes: Vec<Write>) -> Result<Written, StoreError> {
        self.note_streams(&writes).await?;
        let mut tracks = JoinSet::new();
        for track in self.tracks(writes).into_iter().filter(|track| !track.is_empty()) {
            let inner = self.clone();
            tracks.spawn(async move { inner.write_track(track).await });
        }
        // One that fails breaks off no other: what is on its way is waited for.
        let ended = tracks.join_all().await;
        let mut written = Written::default();
        for track in ended {
            let track = track?;
            written.collided.extend(track.collided);
            written.rejected.extend(track.rejected);
            written.presumed += track.presumed;
        }
        written.collided.sort_unstable();
        written.rejected.sort_unstable();
        Ok(written)
    }

    /// Lists that are written at once. A stream is in one of them, so that its documents become visible in order.
    fn tracks(&self, writes: Vec<Write>) -> [Vec<Write>; TRACKS_MAX] {
        let mut tracks = [const { Vec::new() }; TRACKS_MAX];
        let mut bytes = [0; TRACKS_MAX];
        let mut of: HashMap<Stream, usize> = HashMap::new();
        for write in writes {
            let least = (0..TRACKS_MAX).min_by_key(|track| bytes[*track]).expect("there are some");
            let track = *of.entry(write.entry.stream.clone()).or_insert(least);
            bytes[track] += write.entry.bytes.len();
            tracks[track].push(write);
        }
        tracks
    }

    async fn write_track(&self, writes: Vec<Write>) -> Result<Written, StoreError> {
        let mut written = Written::default();
        let mut making = next_of(Commands::new(writes, self.hash, self.class.clone()));
        let commands = loop {
            let (commands, insert) = making.await.map_err(|_| closed())?;
            let Some(insert) = insert else { break commands };
            // The next one is built while this one is on its way.
            making = next_of(commands);
            if !insert.documents.is_empty() {
                self.make(&insert.name).await?;
                self.insert(insert, &mut written).await?;
            }
        };
        if !commands.too_large.is_empty() {
            warn!(
                records = commands.too_large.len(),
                "records are larger than a document may be: they are not stored"
            );
        }
        written.rejected.extend(commands.too_large.iter().map(|number| (*number, "document_too_large")));
        Ok(written)
    }

    /// Makes the collection, clustered by `_id` if the server can, unless it is there.
    async fn make(&self, name: &Name) -> Result<(), StoreError> {
        if lock(&self.listed).days.contains(name) {
            return Ok(());
        }
        let text = name.text().ok_or_else(|| failure("a commit time beyond the calendar"))?;
        // A plain collection is made by the first insert.
        if !self.is_plain.load(Ordering::Relaxed) {
            let clustered = doc! { "key": { "_id": 1 }, "unique": true };
            let made = self.run(doc! { "create": &text, "clusteredIndex": clustered }).await;
            match made {
                Ok(_) => info!(collection = text, "a day of streams begins in MongoDB"),
                Err(Failed { code: Some(answer::NAMESPACE_EXISTS), .. }) => {}
                Err(Failed { code: Some(code), error }) if !answer::is_passing(code) => {
                    info!(reason = %error, "the database makes no clustered collections: they are plain");
                    self.is_plain.store(true, Ordering::Relaxed);
                }
                Err(failed) => return Err(failed.error),
            }
        }
        lock(&self.listed).days.insert(name.clone());
        Ok(())
    }

    /// The collections there are.
    async fn days(&self, age_max: Duration) -> Result<Days, StoreError> {
        {
            let listed = lock(&self.listed);
            if listed.at.is_some_and(|at| at.elapsed() < age_max) {
                return Ok(listed.days.clone());
            }
        }
        let names = self.database.list_collection_names().await.map_err(|error| failure(sentence(&error)))?;
        let days = Days::of(&names);
        *lock(&self.listed) = Listed { days: days.clone(), at: Some(Instant::now()) };
        Ok(days)
    }

    /// Puts the streams that were not seen on their day into the collection that names them.
    async fn note_streams(&self, writes: &[Write]) -> Result<(), StoreError> {
        let mut fresh: HashMap<Stream, u64> = HashMap::new();
        {
            let noted = lock(&self.noted);
            for write in writes {
                let (stream, day) = (&write.entry.stream, write.entry.time_ms / DAY_MS);
                if noted.get(stream).is_none_or(|last| *last < day) {
                    let last = fresh.entry(stream.clone()).or_default();
                    *last = day.max(*last);
                }
            }
        }
        let fresh: Vec<(Stream, u64)> = fresh.into_iter().collect();
        for part in fresh.chunks(NOTES_MAX) {
            let reply = self.run(note_command(part, &self.class)).await.map_err(|failed| failed.error)?;
            if let Some(error) = answer::concern_error(&reply) {
                return Err(error);
            }
            let refused = answer::write_errors(&reply);
            // Two collectors may note a stream at once; the one that came second notes it again with its next write.
            if let Some(error) = refused.iter().find(|error| !error.is_duplicate()) {
                return Err(failure(format!("a stream cannot be noted: {}", said(error.code, ""))));
            }
            let refused: BTreeSet<usize> = refused.iter().map(|error| error.index).collect();
            let mut noted = lock(&self.noted);
            if noted.len() + part.len() > NOTED_MAX {
                noted.clear();
            }
            let new = part.iter().enumerate().filter(|(at, _)| !refused.contains(at));
            noted.extend(new.map(|(_, (stream, day))| (stream.clone(), *day)));
        }
        Ok(())
    }

    async fn known(&self) -> Result<BTreeSet<Stream>, StoreError> {
        let days = self.days(LIST_AGE_MAX).await?;
        let collection = self.database.collection::<Document>(STREAMS);
        let told = |error| failure(sentence(&error));
        let mut known = BTreeSet::new();
        for (class, oldest) in days.oldest() {
            let kept = doc! { "class": class, "last": { "$gte": date_of(oldest) } };
            let mut rows = collection.find(kept).await.map_err(told)?;
            while let Some(row) = rows.try_next().await.map_err(told)? {
                let (Ok(tenant), Ok(project)) = (row.get_str("tenant"), row.get_str("project")) else {
                    continue;
                };
                if let (Ok(tenant), Ok(project)) = (TenantId::new(tenant), ProjectId::new(project)) {
                    known.insert(Stream { tenant, project });
                }
            }
        }
        Ok(known)
    }

    async fn retain(&self, now_ms: u64) -> Result<(), StoreError> {
        let days = self.in_time(self.days(Duration::ZERO)).await?;
        let mut dropped_to: BTreeMap<String, u64> = BTreeMap::new();
        for name in days.names().filter(|name| name.is_over(now_ms)) {
            let Some(text) = name.text() else { continue };
            let dropped = self.run(doc! { "drop": &text }).await;
            // Another collector may have been quicker; some servers say so without a number.
            if let Err(failed) = dropped
                && self.in_time(self.days(Duration::ZERO)).await?.contains(name)
            {
                return Err(failed.error);
            }
            lock(&self.listed).days.remove(name);
            dropped_to.insert(name.class.clone(), name.day);
            // What comes late for that day is noted again.
            lock(&self.noted).clear();
            info!(collection = text, "a day of streams was dropped from MongoDB");
        }
        self.forget_streams(&dropped_to).await
    }

    /// Removes the names of streams whose last record was in a collection that was dropped.
    async fn forget_streams(&self, dropped_to: &BTreeMap<String, u64>) -> Result<(), StoreError> {
        let oldest = lock(&self.listed).days.oldest();
        for (class, dropped) in dropped_to {
            let kept_from = oldest.get(class).copied().unwrap_or(dropped + 1);
            let gone = doc! { "class": class, "last": { "$lt": date_of(kept_from) } };
            let deletes = vec![doc! { "q": gone, "limit": 0 }];
            self.run(doc! { "delete": STREAMS, "deletes": deletes }).await.map_err(|failed| failed.error)?;
        }
        Ok(())
    }
}

/// Appends the documents of an entry of logs, one after another, as they are sent. For whoever measures that.
pub fn put_documents(entry: &Entry, out: &mut Vec<u8>) {
    let mut bson = bson::Bson(std::mem::take(out));
    let mut writer = document::Writer::default();
    writer.begin(&entry.stream);
    let (hash, mut walk) = (stream_hash(&entry.stream), Walk::of(entry));
    while let Some((at, spans)) = walk.next(&entry.bytes) {
        writer.write(&mut bson, &entry.record_id(hash, at), &entry.bytes, &spans);
    }
    *out = bson.0;
}

/// A command that failed, and the server's number for it, if it was the server who refused.
struct Failed {
    code: Option<i32>,
    error: StoreError,
}

impl Failed {
    fn of(error: StoreError) -> Failed {
        Failed { code: None, error }
    }
}

fn date_of(day: u64) -> DateTime {
    DateTime::from_millis(i64::try_from(day.saturating_mul(DAY_MS)).unwrap_or(i64::MAX))
}

fn note_command(streams: &[(Stream, u64)], class: &str) -> Document {
    let updates: Vec<Document> = streams
        .iter()
        .map(|(stream, day)| {
            let (tenant, project) = (stream.tenant.as_str(), stream.project.as_str());
            // No name has a tab.
            let id = format!("{tenant}\t{project}\t{class}");
            let set = doc! { "tenant": tenant, "project": project, "class": class };
            let update = doc! { "$set": set, "$max": { "last": date_of(*day) } };
            doc! { "q": { "_id": id }, "u": update, "upsert": true }
        })
        .collect();
    let concern = doc! { "w": "majority", "j": true, "wtimeout": write::MAJORITY_PATIENCE_MS };
    doc! { "update": STREAMS, "updates": updates, "ordered": false, "writeConcern": concern }
}
