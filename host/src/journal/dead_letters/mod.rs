//! What a sink refused for good, kept on disk: listed, read, replayed, dropped.
//!
//! A letter is kept once it is synced; only then may it be counted so. The files are those of the journal's own file
//! layer, in a folder of their own, and bounded: beyond the bound the oldest segments go, counted. In memory is where
//! letters stand, and nothing of what they say; whoever lists or reads them reads the files, beside the writer. What
//! becomes of the records of a letter is its reader's.

mod index;
mod payload;
mod rounds;
mod start;

#[cfg(test)]
mod tests;

pub use index::Amount;

use super::disk::{self, Disk, Log, Position, Read, Reader};
use super::{CannotOpen, Clock};
use crate::batch::{Entry, Signal, Stream};
use crate::telemetry::Metrics;
use bytes::Bytes;
use index::Index;
use payload::Payload;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use rounds::{Inbox, Writer};
use start::Recovered;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Where letters are kept, how many bytes of them, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LetterSettings {
    pub folder: PathBuf,
    /// Of the files. At least 1 MiB.
    pub bytes_max: u64,
    /// A letter goes at the latest a sixteenth of it later.
    pub age_max: Duration,
}

/// Into how many segments the bound is cut: so much of it goes at once.
const SEGMENTS: u64 = 16;
const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// Room to write that letters were dropped, on a full disk.
const RESERVE_BYTES: u64 = 64 << 10;
/// Letters that wait for the disk at one time, in units of 1 KiB. A larger one waits alone.
const WAITING_KIB: u32 = 4 << 10;
/// A disk that takes longer does not keep them.
const KEEP_DEADLINE: Duration = Duration::from_secs(10);
/// What is kept of the words of a server.
const MESSAGE_BYTES_MAX: usize = 1 << 10;
/// Letters of a page, at most.
pub const PAGE_MAX: usize = 1_000;
/// What is read for one page, so that a search for few among many comes back.
const PAGE_READ_BYTES: usize = 16 << 20;
const PAGE_READ_LETTERS: usize = 4_096;
/// The log tells of letters that were not kept at most so often.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Where a letter stands: its name, for as long as it is there. Written `SEGMENT-OFFSET`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LetterId {
    pub segment: u64,
    pub offset: u64,
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.segment, self.offset)
    }
}

impl FromStr for LetterId {
    type Err = ();

    fn from_str(text: &str) -> Result<LetterId, ()> {
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let (segment, offset) = text.split_once('-').ok_or(())?;
        if !is_number(segment) || !is_number(offset) {
            return Err(());
        }
        Ok(LetterId { segment: segment.parse().map_err(|_| ())?, offset: offset.parse().map_err(|_| ())? })
    }
}

impl From<Position> for LetterId {
    fn from(at: Position) -> LetterId {
        LetterId { segment: at.segment, offset: at.offset }
    }
}

/// Records of one stream that one sink refused: without what they say, and without the sink's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    pub id: LetterId,
    /// The name of the sink.
    pub sink: String,
    pub stream: Stream,
    pub signal: Signal,
    /// The number of the first record of the entry that they were committed in.
    pub first: u64,
    /// Commit time in ms since 1970.
    pub time_ms: u64,
    /// When the sink refused them, in ms since 1970.
    pub refused_ms: u64,
    pub records: u32,
    /// Of the content.
    pub bytes: usize,
    /// A fixed word, as in the ledger.
    pub reason: String,
}

/// A letter with all that it says.
#[derive(Clone, PartialEq, Eq)]
pub struct WholeLetter {
    pub letter: Letter,
    /// The words of the server, cut to 1 KiB. They may quote what was sent.
    pub message: String,
    /// An Export*ServiceRequest.
    pub content: Bytes,
}

impl fmt::Debug for WholeLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WholeLetter").field("letter", &self.letter).finish_non_exhaustive()
    }
}

/// Which letters are meant; all conditions hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WhichLetters {
    pub sink: Option<String>,
    pub tenant: Option<String>,
    /// Only those behind this one.
    pub after: Option<LetterId>,
    /// Only those up to this one, and itself.
    pub until: Option<LetterId>,
}

/// Letters, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LetterPage {
    pub letters: Vec<Letter>,
    /// Where to go on; a page can be short and still have it. `None`: the end.
    pub next: Option<LetterId>,
}

/// Why a letter is not kept, or not finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotKept {
    #[error("the disk of the dead letters is full")]
    Full,
    #[error("the disk of the dead letters fails")]
    Failed,
    #[error("it is larger than all dead letters together may be")]
    TooLarge,
    #[error("the disk of the dead letters does not answer in time")]
    Late,
    #[error("stopping")]
    Stopping,
}

impl NotKept {
    /// As the value of a label.
    fn word(self) -> &'static str {
        match self {
            NotKept::Full => "disk_full",
            NotKept::Failed => "disk_failed",
            NotKept::TooLarge => "too_large",
            NotKept::Late => "late",
            NotKept::Stopping => "stopping",
        }
    }
}

/// The letters of a data folder.
pub struct DeadLetters {
    disk: Disk,
    bytes_max: u64,
    age_max_ms: u64,
    clock: Clock,
    metrics: Metrics,
    state: Mutex<State>,
    inbox: Mutex<Inbox>,
    /// `None` once it has ended.
    writer: Mutex<Option<Writer>>,
    waiting: Arc<Semaphore>,
    told: Mutex<Option<Instant>>,
}

#[derive(Debug, Default)]
struct State {
    index: Index,
    /// The room that the files take.
    disk_bytes: u64,
}

impl DeadLetters {
    /// Reads all that is there, once: blocks.
    pub fn open(
        settings: &LetterSettings,
        clock: Clock,
        metrics: &Metrics,
    ) -> Result<Arc<DeadLetters>, CannotOpen> {
        let place = |error: &dyn fmt::Display| CannotOpen(format!("{}: {error}", settings.folder.display()));
        let disk = Disk::real(&settings.folder).map_err(|error| place(&error))?;
        DeadLetters::open_on(disk, settings, clock, metrics).map_err(|error| place(&error))
    }

    fn open_on(
        disk: Disk,
        settings: &LetterSettings,
        clock: Clock,
        metrics: &Metrics,
    ) -> Result<Arc<DeadLetters>, disk::OpenError> {
        let files = disk::Settings {
            segment_bytes: (settings.bytes_max / SEGMENTS).min(SEGMENT_BYTES_MAX),
            reserve_bytes: RESERVE_BYTES,
        };
        let mut recovered = Recovered::default();
        let (log, opened) =
            Log::open(disk.clone(), files, |at, _, payload| recovered.replay(at.into(), payload))?;
        let strange = recovered.strange;
        let (index, next) = recovered.end(&opened);
        for skipped in &opened.skipped {
            let disk::Skipped { file, range, fault, is_cut } = skipped;
            metrics.deliver_letters_damaged.inc();
            tracing::warn!(file, ?range, %fault, is_cut, "a part of the dead letters is skipped");
        }
        if strange > 0 {
            metrics.deliver_letters_damaged.inc_by(strange);
            tracing::warn!(frames = strange, "what stands among the dead letters is none");
        }
        let letters = Arc::new(DeadLetters {
            disk,
            bytes_max: settings.bytes_max,
            age_max_ms: u64::try_from(settings.age_max.as_millis()).unwrap_or(u64::MAX),
            clock,
            metrics: metrics.clone(),
            state: Mutex::new(State { index, disk_bytes: log.bytes() }),
            inbox: Mutex::default(),
            writer: Mutex::new(Some(Writer::new(log, next))),
            waiting: Arc::new(Semaphore::new(WAITING_KIB as usize)),
            told: Mutex::default(),
        });
        metrics.add_collector(Box::new(letters.clone()));
        Ok(letters)
    }

    /// Keeps what `sink` refused: `entry` has the refused records alone. It is safe when this returns.
    ///
    /// Waits for the disk, for 10 s at most. What is not kept is counted by sink and reason. Cancelled, or too late, it
    /// may be kept for a moment, and is finished then.
    pub async fn keep(
        self: &Arc<DeadLetters>,
        sink: &str,
        entry: &Entry,
        reason: &str,
        message: &str,
    ) -> Result<LetterId, NotKept> {
        let letter = Letter {
            // It has its place when it is written.
            id: LetterId { segment: 0, offset: 0 },
            sink: sink.to_owned(),
            stream: entry.stream.clone(),
            signal: entry.signal,
            first: entry.first,
            time_ms: entry.time_ms,
            refused_ms: (self.clock)(),
            records: entry.records,
            bytes: entry.bytes.len(),
            reason: reason.to_owned(),
        };
        let message = cut(message, MESSAGE_BYTES_MAX);
        let kept = tokio::time::timeout(KEEP_DEADLINE, self.ask_to_keep(letter, message, &entry.bytes)).await;
        kept.unwrap_or(Err(NotKept::Late)).inspect_err(|error| self.tell_unkept(sink, entry.records, *error))
    }

    /// These were replayed or are dropped: they are listed no more. Those that are not there are passed over; returns
    /// how many were.
    pub async fn finish(self: &Arc<DeadLetters>, ids: Vec<LetterId>) -> Result<Amount, NotKept> {
        tokio::time::timeout(KEEP_DEADLINE, self.ask_to_finish(ids)).await.unwrap_or(Err(NotKept::Late))
    }

    /// A page of at most `limit` letters, and of [`PAGE_MAX`]. Blocks while it reads; nothing waits for it.
    pub fn page(&self, which: &WhichLetters, limit: usize) -> LetterPage {
        let limit = limit.clamp(1, PAGE_MAX);
        let ids = self.state().index.live_between(which.after, which.until, PAGE_READ_LETTERS + 1);
        let mut page = LetterPage::default();
        let (mut read_bytes, mut last) = (0, None);
        for (at, id) in ids.into_iter().enumerate() {
            if page.letters.len() == limit || at == PAGE_READ_LETTERS || read_bytes > PAGE_READ_BYTES {
                page.next = last;
                break;
            }
            last = Some(id);
            let Some(WholeLetter { letter, .. }) = self.read_file(id) else { continue };
            read_bytes += letter.bytes;
            let is_meant = which.sink.as_ref().is_none_or(|sink| *sink == letter.sink)
                && which.tenant.as_ref().is_none_or(|tenant| tenant == letter.stream.tenant.as_str());
            if is_meant {
                page.letters.push(letter);
            }
        }
        page
    }

    /// The newest letter; where [`WhichLetters::until`] of "all" ends.
    pub fn newest(&self) -> Option<LetterId> {
        self.state().index.newest()
    }

    /// The letter, unless it was finished, has expired, or is damaged. Blocks.
    pub fn read(&self, id: LetterId) -> Option<WholeLetter> {
        let is_live = self.state().index.is_live(id);
        // What is no letter's place is not looked at: the content of another may look like one there.
        if is_live { self.read_file(id) } else { None }
    }

    fn read_file(&self, id: LetterId) -> Option<WholeLetter> {
        let from = Position { segment: id.segment, offset: id.offset };
        let until = Position { segment: id.segment, offset: u64::MAX };
        let read = Reader::new(self.disk.clone(), from).next(until);
        let read =
            read.inspect_err(|error| tracing::warn!(%error, "the dead letters cannot be read")).ok()??;
        let (at, payload) = match read {
            Read::Frame { at, payload, .. } if at == from => (at, payload),
            // It has just expired, or it is damaged: told once, at the start.
            Read::Frame { .. } | Read::Skipped(_) => return None,
        };
        match payload::decode(at.into(), payload)? {
            Payload::Letter(_, letter) => Some(letter),
            Payload::Finished(_) => None,
        }
    }

    /// By the clock of the letters.
    pub fn now_ms(&self) -> u64 {
        (self.clock)()
    }

    /// Letters that are there.
    pub fn live(&self) -> Amount {
        self.state().index.live()
    }

    fn tell_unkept(&self, sink: &str, records: u32, error: NotKept) {
        let labels = vec![("sink", sink.to_owned()), ("reason", error.word().to_owned())];
        self.metrics.deliver_letters_unkept.get_or_create(&labels).inc_by(records.into());
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if told.is_none_or(|told| now - told >= TELL_EVERY) {
            *told = Some(now);
            tracing::warn!(sink, %error, "what a sink refused is not kept as a dead letter");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while the letters are locked")
    }
}

/// At the border of a character.
fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

impl Collector for DeadLetters {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let (Amount { letters, records }, bytes) = {
            let state = self.state();
            (state.index.live(), state.disk_bytes)
        };
        let gauges = [
            ("deliver_letters", "Dead letters that are there", letters),
            ("deliver_letters_records", "Records in dead letters that are there", records),
            ("deliver_letters_bytes", "The room that the files of the dead letters take", bytes),
        ];
        for (name, help, value) in gauges {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            metric.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX))?;
        }
        Ok(())
    }
}

impl fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetters").field("live", &self.live()).finish_non_exhaustive()
    }
}
