//! One day's database: a folder with the records and the index of their streams.

use super::super::lane::Hash;
use super::super::record::{Walk, content_of, header, names_of, request_of};
use super::super::store::{Found, Scan, Write, Written};
use crate::batch::{ProjectId, RecordId, Stream, TenantId};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::Instant;

/// Milliseconds of a day; days are UTC.
pub(super) const DAY_MS: u64 = 86_400_000;

/// Blocks read from disk. A tail reads each once, so a large cache would hold what nobody asks for again.
const CACHE_BYTES: u64 = 1024 * 1024;
/// What is gathered before it is sorted into a table. Up to four are kept while the disk is slow.
const MEMTABLE_BYTES: u64 = 8 * 1024 * 1024;
const INDEX_MEMTABLE_BYTES: u64 = 512 * 1024;
/// The smallest that the database allows.
const JOURNAL_BYTES: u64 = 64 * 1024 * 1024;
/// Tables hold the records of all streams by time within a stream; larger blocks compress their alike resources.
const BLOCK_BYTES: u32 = 16 * 1024;
/// Files kept open per day.
const FILES_MAX: usize = 64;
/// One atomic write. Larger deliveries are several, in order.
const CHUNK_RECORDS: usize = 4096;
const CHUNK_BYTES: usize = 2 * 1024 * 1024;
/// How long a write waits for tables to be written before it is called failed.
const ROOM_PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Day {
    database: Database,
    records: Keyspace,
    streams: Keyspace,
    index: Mutex<Index>,
    hash: Hash,
}

#[derive(Default)]
struct Index {
    /// What `streams` holds.
    known: BTreeSet<Stream>,
    /// Bytes of records written since a row was put into `streams`, if that is not in a table yet.
    bytes_since: Option<usize>,
}

impl Day {
    pub(super) fn open(folder: &Path, hash: Hash) -> fjall::Result<Day> {
        let database = Database::builder(folder)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .max_cached_files(Some(FILES_MAX))
            // With more, the first of them spins while another sorts tables (3.1): a core, and twice the time of a write.
            .worker_threads(1)
            .open()?;
        let records = database.keyspace("records", || options(MEMTABLE_BYTES))?;
        let streams = database.keyspace("streams", || options(INDEX_MEMTABLE_BYTES))?;
        let mut known = BTreeSet::new();
        for row in streams.iter() {
            known.extend(stream_of(&row.key()?));
        }
        Ok(Day { database, records, streams, index: Mutex::new(Index { known, bytes_since: None }), hash })
    }

    pub(super) fn known(&self) -> BTreeSet<Stream> {
        self.index().known.clone()
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().expect("nothing panics while the index is locked")
    }

    /// Writes the entries and returns when they are on disk.
    pub(super) fn write(&self, writes: &[Write], written: &mut Written) -> fjall::Result<()> {
        let mut chunk = Chunk { day: self, batch: self.database.batch(), records: 0, bytes: 0 };
        for write in writes {
            self.write_entry(write, &mut chunk, written)?;
        }
        if chunk.records > 0 {
            return chunk.commit(PersistMode::SyncData);
        }
        // What was found there may have been written by an attempt that did not get to the sync.
        self.database.persist(PersistMode::SyncData)
    }

    fn write_entry(&self, write: &Write, chunk: &mut Chunk<'_>, written: &mut Written) -> fjall::Result<()> {
        let entry = &write.entry;
        let hash = (self.hash)(&entry.stream);
        self.note_stream(&entry.stream, chunk);
        let header = header(&entry.stream);
        let mut value = Vec::new();
        // Node and number name a record once by construction, so the first attempt looks for one id of the entry
        // only (a filter in memory answers); a copied journal would show there. A resend looks for every id.
        let is_checked = write.is_resend || self.records.contains_key(entry.record_id(hash, 0).0)?;
        let mut walk = Walk::of(entry);
        while let Some((at, spans)) = walk.next(&entry.bytes) {
            let id = entry.record_id(hash, at);
            value.clear();
            value.extend_from_slice(&header);
            request_of(&entry.bytes, &spans, &mut value);
            match if is_checked { self.records.get(id.0)? } else { None } {
                Some(there) if *there != *value => written.collided.push(id.number()),
                Some(_) => written.presumed += u64::from(write.is_resend),
                None => chunk.insert(id, &value)?,
            }
        }
        Ok(())
    }

    fn note_stream(&self, stream: &Stream, chunk: &mut Chunk<'_>) {
        let mut index = self.index();
        if !index.known.contains(stream) {
            chunk.batch.insert(&self.streams, header(stream), Vec::new());
            chunk.records += 1;
            index.known.insert(stream.clone());
            index.bytes_since.get_or_insert(0);
        }
    }

    /// Puts the index into a table when many records came after its last row. The journal is kept from the oldest row
    /// on that is in no table; without this a rare new stream would keep all of it, and the next opening read it.
    fn note_bytes(&self, bytes: usize) -> fjall::Result<()> {
        let mut index = self.index();
        let Some(bytes_since) = &mut index.bytes_since else { return Ok(()) };
        *bytes_since += bytes;
        if *bytes_since > MEMTABLE_BYTES as usize {
            index.bytes_since = None;
            self.streams.rotate_memtable()?;
        }
        Ok(())
    }

    /// Adds what it finds to `found`; true when it stopped at a bound, and `found.next` says where to go on.
    pub(super) fn scan(&self, scan: &Scan, room: &mut Room, found: &mut Found) -> fjall::Result<bool> {
        let mut last = [0xff; 24];
        last[..8].copy_from_slice(&scan.hash);
        for row in self.records.range(scan.from.0..=last) {
            let (key, value) = row.into_inner()?;
            let Ok(id) = <[u8; 24]>::try_from(&*key).map(RecordId) else { continue };
            if id.time_ms() >= scan.to_ms {
                return Ok(false);
            }
            if room.is_used_up() {
                found.next = Some(id);
                return Ok(true);
            }
            room.records = room.records.saturating_sub(1);
            room.bytes = room.bytes.saturating_sub(value.len());
            // Another tenant's record under the same hash is as good as not there.
            if let Some(content) = content_of(&value, &scan.stream) {
                found.records.push((id, content.to_vec()));
            }
        }
        Ok(false)
    }

    /// Waits until a write cannot be held up inside the database. It would wait there without end for tables that a
    /// broken disk never takes.
    fn wait_for_room(&self) -> fjall::Result<()> {
        let end = Instant::now() + ROOM_PATIENCE;
        while self.records.sealed_memtable_count() > 2 || self.records.l0_table_count() >= 18 {
            if Instant::now() > end {
                return Err(fjall::Error::Io(std::io::Error::other("the disk does not keep up")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

/// What a scan may still look at, over several days.
pub(super) struct Room {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

impl Room {
    fn is_used_up(&self) -> bool {
        self.records == 0 || self.bytes == 0
    }
}

struct Chunk<'d> {
    day: &'d Day,
    batch: fjall::OwnedWriteBatch,
    records: usize,
    bytes: usize,
}

impl Chunk<'_> {
    fn insert(&mut self, id: RecordId, value: &[u8]) -> fjall::Result<()> {
        self.batch.insert(&self.day.records, id.0, value);
        self.records += 1;
        self.bytes += value.len();
        if self.records < CHUNK_RECORDS && self.bytes < CHUNK_BYTES {
            return Ok(());
        }
        self.commit(PersistMode::Buffer)
    }

    fn commit(&mut self, mode: PersistMode) -> fjall::Result<()> {
        let batch = std::mem::replace(&mut self.batch, self.day.database.batch());
        let bytes = std::mem::take(&mut self.bytes);
        self.records = 0;
        self.day.wait_for_room()?;
        batch.durability(Some(mode)).commit()?;
        self.day.note_bytes(bytes)
    }
}

fn stream_of(key: &[u8]) -> Option<Stream> {
    let (tenant, project, _) = names_of(key)?;
    Some(Stream { tenant: TenantId::new(tenant).ok()?, project: ProjectId::new(project).ok()? })
}

fn options(memtable_bytes: u64) -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(memtable_bytes)
        .data_block_size_policy(fjall::config::BlockSizePolicy::all(BLOCK_BYTES))
        .data_block_compression_policy(fjall::config::CompressionPolicy::all(CompressionType::Lz4))
}
