//! The way of a frame to the disk.
//!
//! One round at a time writes what has gathered, syncs once, and then hands it to the queues; while it does, the next
//! gathers. Whoever finds nobody writing starts a round, so there is no thread and no timer. Marks stand before the
//! entries of their round, and tell of what was handed to the queues before it.

use super::disk::{self, Disk, Kind, Log, Position, Skipped, WriteError};
use super::expire::Added;
use super::keep::{CommitRefused, Committed, Frame, Journal, Limits, State, refuse};
use super::payload;
use super::{FRAME_BYTES_MAX, SinkId};
use crate::telemetry::Metrics;
use prometheus_client::metrics::counter::Counter;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// How often a round is written again after a failed sync.
const TRIES: u32 = 4;
/// A disk that goes bad has thousands of damaged ranges.
const TOLD_MAX: u64 = 100;
/// The disk has room again once so many reserves fit.
const RESERVES_FREE: u64 = 4;

type Answer = Result<Committed, CommitRefused>;

/// What a journal on disk has beside its queues.
pub(super) struct OnDisk {
    pub(super) disk: Disk,
    pub(super) bytes_max: u64,
    pub(super) age_max_ms: u64,
    reserve_bytes: u64,
    inbox: Mutex<Inbox>,
    /// `None` once the journal has ended.
    writer: Mutex<Option<Writer>>,
    pub(super) is_full: AtomicBool,
    is_damaged: AtomicBool,
    damaged_ranges: Counter,
    /// Files that the next upkeep removes: a round would hold up its senders for as long as many syncs take.
    unneeded: Mutex<Vec<String>>,
}

#[derive(Default)]
struct Inbox {
    asked: Vec<Asked>,
    /// Who waits for marks.
    keeping: Vec<oneshot::Sender<()>>,
    is_writing: bool,
}

struct Asked {
    frame: Frame,
    answer: oneshot::Sender<Answer>,
}

pub(super) struct Writer {
    pub(super) log: Log,
    /// Those before them do not stand for all accounts: one was lost, or this is the first.
    pub(super) wants_full_marks: bool,
    /// When, and after which changes.
    pub(super) marked: Option<(Instant, u64)>,
}

/// A frame with its numbers, as it is written.
struct Numbered {
    asked: Asked,
    first: u64,
    /// Before the bytes of its parts.
    payload: Vec<u8>,
}

/// How far a round came.
#[derive(Default)]
pub(super) struct Came {
    /// Of each frame that is safe, in order.
    at: Vec<Position>,
    /// Why the others are not.
    refused: Option<CommitRefused>,
    /// Segments below are not needed.
    pub(super) needed: Option<u64>,
}

impl OnDisk {
    pub(super) fn new(
        disk: Disk,
        log: Log,
        files: disk::Settings,
        limits: &Limits,
        metrics: &Metrics,
    ) -> OnDisk {
        OnDisk {
            disk,
            bytes_max: limits.bytes_max,
            age_max_ms: u64::try_from(limits.age_max.as_millis()).unwrap_or(u64::MAX),
            reserve_bytes: files.reserve_bytes,
            inbox: Mutex::default(),
            writer: Mutex::new(Some(Writer { log, wants_full_marks: true, marked: None })),
            is_full: AtomicBool::new(false),
            is_damaged: AtomicBool::new(false),
            damaged_ranges: metrics.commit_damaged_ranges.clone(),
            unneeded: Mutex::default(),
        }
    }

    /// Behind all that is safe.
    pub(super) fn end(&self) -> Position {
        let writer = self.writer();
        let Some(log) = writer.as_ref().map(|writer| &writer.log) else { return Position::default() };
        let behind_all =
            || Position { segment: log.segments().last().map_or(0, |last| last.0 + 1), offset: 0 };
        log.synced_end().unwrap_or_else(behind_all)
    }

    pub(super) fn tell_skipped(&self, skipped: &Skipped) {
        let Skipped { file, range, fault, is_cut } = skipped;
        let told = self.damaged_ranges.inc();
        if told == TOLD_MAX {
            tracing::warn!("what else of the journal is skipped is only counted");
        }
        if told >= TOLD_MAX {
            return;
        }
        tracing::warn!(file, ?range, %fault, is_cut, "a part of the journal is skipped");
    }

    pub(super) fn notice_damage(&self) {
        self.is_damaged.store(true, Ordering::Relaxed);
    }

    fn unneeded(&self) -> MutexGuard<'_, Vec<String>> {
        self.unneeded.lock().expect("nothing panics while names are noted")
    }

    /// Blocks. What cannot be removed is tried again the next time.
    fn remove_unneeded(&self) {
        let names = std::mem::take(&mut *self.unneeded());
        let is_any = !names.is_empty();
        for name in names {
            match self.disk.remove(&name) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(name, %error, "a segment of the journal cannot be removed yet");
                    self.unneeded().push(name);
                }
                _ => {}
            }
        }
        if is_any && let Err(error) = self.disk.sync_folder() {
            tracing::warn!(%error, "the folder of the journal cannot be synced");
        }
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After a panic the log is as it was before or behind the frame; both can be gone on from.
    fn writer(&self) -> MutexGuard<'_, Option<Writer>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal {
    pub(super) async fn commit_on(self: &Arc<Journal>, on_disk: &OnDisk, frame: Frame) -> Answer {
        let (answer, answered) = oneshot::channel();
        self.ask(on_disk, |inbox| inbox.asked.push(Asked { frame, answer }));
        // The sender is dropped by a round that panicked.
        answered.await.unwrap_or(Err(CommitRefused::Failed))
    }

    /// Writes how far everybody is, if that changed; expires what is due; looks whether a full disk has room again;
    /// removes the files that nobody needs.
    /// To be called once a second, and when everything has ended. Does nothing in memory.
    pub async fn upkeep(self: &Arc<Journal>) {
        let Some(on_disk) = &self.on_disk else { return };
        for sink in 0..self.queue_count() {
            let sink = SinkId(sink as u16);
            // So that what is too old is found, even where nobody takes what waits.
            self.start_reading(sink);
            self.expire_due(&mut self.state(), sink);
        }
        if on_disk.is_damaged.load(Ordering::Relaxed) {
            self.expire_damaged();
        }
        self.write_upkeep(on_disk).await;
        let journal = self.clone();
        let removing = move || journal.on_disk.as_ref().map(OnDisk::remove_unneeded);
        let _ = tokio::task::spawn_blocking(removing).await;
        if self.is_full() {
            // There may be room now.
            self.write_upkeep(on_disk).await;
        }
    }

    async fn write_upkeep(self: &Arc<Journal>, on_disk: &OnDisk) {
        let (kept, is_kept) = oneshot::channel();
        self.ask(on_disk, |inbox| inbox.keeping.push(kept));
        let _ = is_kept.await;
    }

    /// The last marks; then the files are let go, and nothing more is committed. What is outstanding stays for the
    /// next start.
    pub async fn end(self: &Arc<Journal>) {
        self.close();
        self.upkeep().await;
        if let Some(on_disk) = &self.on_disk {
            on_disk.writer().take();
        }
    }

    /// New requests should be refused: an essential sink is too far behind.
    pub fn is_waited_for(&self) -> bool {
        self.sinks.load().essential().next().is_some() && self.is_held(&self.state())
    }

    /// New requests should be refused: there is no room for them on the disk.
    pub fn is_full(&self) -> bool {
        self.on_disk.as_ref().is_some_and(|on_disk| on_disk.is_full.load(Ordering::Relaxed))
    }

    fn queue_count(&self) -> usize {
        self.state().queues.len()
    }

    /// What the ledger has in flight to a sink that has nothing outstanding was damaged.
    fn expire_damaged(&self) {
        let mut state = self.state();
        let State { queues, changes, .. } = &mut *state;
        for (at, queue) in queues.iter_mut().enumerate().filter(|(_, queue)| queue.is_done()) {
            queue.charged_bytes = 0;
            let records = self.ledger.expire_in_flight(SinkId(at as u16), "damaged");
            if records > 0 {
                *changes += 1;
                let sinks = self.sinks.load();
                let sink = &sinks.known[at].name;
                tracing::warn!(sink, records, "records are lost: the journal is damaged");
            }
        }
    }

    fn ask(self: &Arc<Journal>, on_disk: &OnDisk, put: impl FnOnce(&mut Inbox)) {
        let mut inbox = on_disk.inbox();
        put(&mut inbox);
        if std::mem::replace(&mut inbox.is_writing, true) {
            return;
        }
        drop(inbox);
        let rounds = Rounds { journal: self.clone(), is_ended: false };
        // Whoever asked waits for the answer, and not for the end of the rounds.
        drop(tokio::task::spawn_blocking(move || rounds.run()));
    }
}

/// Rounds until nobody asks any more. Ended otherwise, by a panic or with the runtime, it lets go of those who wait.
struct Rounds {
    journal: Arc<Journal>,
    is_ended: bool,
}

impl Rounds {
    fn run(mut self) {
        let journal = self.journal.clone();
        let Some(on_disk) = &journal.on_disk else { return };
        loop {
            let mut inbox = on_disk.inbox();
            let (asked, keeping) = (std::mem::take(&mut inbox.asked), std::mem::take(&mut inbox.keeping));
            if asked.is_empty() && keeping.is_empty() {
                inbox.is_writing = false;
                self.is_ended = true;
                return;
            }
            drop(inbox);
            journal.round(on_disk, asked, !keeping.is_empty());
            keeping.into_iter().for_each(|kept| _ = kept.send(()));
        }
    }
}

impl Drop for Rounds {
    fn drop(&mut self) {
        let Some(on_disk) = self.journal.on_disk.as_ref().filter(|_| !self.is_ended) else { return };
        self.journal.state().round_ms = None;
        *on_disk.inbox() = Inbox::default();
    }
}

impl Journal {
    fn round(&self, on_disk: &OnDisk, asked: Vec<Asked>, is_upkeep: bool) {
        // Whose caller has gone is cancelled; from here on the commit completes.
        let asked: Vec<Asked> = asked.into_iter().filter(|asked| !asked.answer.is_closed()).collect();
        let mut writer = on_disk.writer();
        let Some(writer) = writer.as_mut() else { return refuse_all(asked, CommitRefused::Stopping) };
        if is_upkeep {
            look_for_room(on_disk, writer);
        }
        let numbered = self.number(asked);
        let mut round = Round { journal: self, on_disk, writer, is_upkeep };
        let came = round.write(&numbered);
        self.hand_over(writer, numbered, &came);
        if let Some(needed) = came.needed {
            on_disk.unneeded().extend(writer.log.forget_before(needed));
        }
        let mut state = self.state();
        state.round_ms = None;
        (state.segments, state.disk_bytes) = (writer.log.segments(), writer.log.bytes());
        let oldest = state.segments.first().map_or(0, |(number, _)| *number);
        state.starts.0.retain(|segment, _| *segment >= oldest);
    }

    /// The time of the round, and the numbers of its frames. Those that cannot be kept are answered.
    fn number(&self, asked: Vec<Asked>) -> Vec<Numbered> {
        let mut state = self.state();
        let time_ms = state.time_ms.max((self.clock)());
        (state.time_ms, state.round_ms) = (time_ms, Some(time_ms));
        let mut first = state.next_number;
        let (is_closed, is_held) = (state.is_closed, self.is_held(&state));
        let mut added = Added::default();
        let mut refused = Vec::new();
        let mut kept = Vec::new();
        for asked in asked {
            if is_closed {
                refused.push((asked, CommitRefused::Stopping));
            } else if is_held || !self.has_room(&state, &mut added, &asked.frame) {
                refused.push((asked, CommitRefused::Behind));
            } else {
                kept.push(asked);
            }
        }
        drop(state);
        let mut numbered = Vec::new();
        for asked in kept {
            let entry = self.entry(&asked.frame, first, time_ms);
            let payload = entry.encode();
            let bytes = asked.frame.parts.iter().fold(payload.len(), |sum, part| sum + part.bytes.len());
            if bytes > FRAME_BYTES_MAX {
                refused.push((asked, CommitRefused::TooLarge));
                continue;
            }
            numbered.push(Numbered { asked, first, payload });
            first += entry.records();
        }
        refused.into_iter().for_each(|(asked, with)| refuse_all(vec![asked], with));
        numbered
    }

    fn entry(&self, frame: &Frame, first: u64, time_ms: u64) -> payload::Entry {
        let settled = frame.settled.iter().map(|(pending, outcome)| payload::Settled {
            tenant: pending.tenant().clone(),
            signal: pending.signal(),
            outcome: outcome.clone(),
        });
        let known = self.sinks.load();
        let parts = frame.parts.iter().map(|part| payload::Part {
            stream: part.stream.clone(),
            signal: part.signal,
            records: part.records,
            bytes: u32::try_from(part.bytes.len()).unwrap_or(u32::MAX),
            sinks: part.sinks.iter().filter_map(|sink| known.get(sink).map(|sink| sink.number)).collect(),
        });
        payload::Entry { first, time_ms, settled: settled.collect(), parts: parts.collect() }
    }

    /// What is safe goes to the queues, in order; then everybody is answered.
    fn hand_over(&self, writer: &Writer, numbered: Vec<Numbered>, came: &Came) {
        let mut answers = Vec::new();
        let ends = came.at.iter().skip(1).copied().chain(writer.log.end());
        let mut safe = came.at.iter().zip(ends);
        for Numbered { asked: Asked { frame, answer }, first, .. } in numbered {
            let Some((at, end)) = safe.next() else {
                let refused = came.refused.unwrap_or(CommitRefused::Failed);
                refuse(frame, refused);
                answers.push((answer, Err(refused)));
                continue;
            };
            let mut state = self.state();
            (state.next_number, state.end) = (first, end);
            answers.push((answer, Ok(self.keep(state, frame, *at))));
        }
        self.notify();
        // Who has gone meanwhile has committed all the same.
        answers.into_iter().for_each(|(answer, with)| _ = answer.send(with));
    }
}

/// One round: the writer is its own.
pub(super) struct Round<'r> {
    pub(super) journal: &'r Journal,
    pub(super) on_disk: &'r OnDisk,
    pub(super) writer: &'r mut Writer,
    pub(super) is_upkeep: bool,
}

impl Round<'_> {
    /// Makes the frames safe, as many of them as it goes, from the first on.
    fn write(&mut self, frames: &[Numbered]) -> Came {
        for _ in 0..TRIES {
            let mut came = Came::default();
            match self.write_once(frames, &mut came) {
                Ok(()) => return came,
                Err(WriteError::Unsynced(error)) => {
                    tracing::warn!(%error, "a sync of the journal failed; it is written again to a new segment");
                }
                Err(WriteError::Full) => {
                    set_full(self.on_disk);
                    return Came { refused: Some(CommitRefused::Full), ..Came::default() };
                }
                Err(error) => {
                    tracing::error!(%error, "the journal cannot be written");
                    self.writer.wants_full_marks = true;
                    break;
                }
            }
        }
        Came { refused: Some(CommitRefused::Failed), ..Came::default() }
    }

    fn write_once(&mut self, frames: &[Numbered], came: &mut Came) -> Result<(), WriteError> {
        self.write_marks(came)?;
        for Numbered { asked, payload, .. } in frames {
            // What there is belongs to the marks.
            if self.on_disk.is_full.load(Ordering::Relaxed) {
                came.refused = Some(CommitRefused::Full);
                break;
            }
            let parts = asked.frame.parts.iter().map(|part| &part.bytes[..]);
            let all: Vec<&[u8]> = std::iter::once(&payload[..]).chain(parts).collect();
            match self.writer.log.append(Kind::Entry, &all) {
                Ok(at) => came.at.push(at),
                Err(WriteError::Full) => {
                    set_full(self.on_disk);
                    came.refused = Some(CommitRefused::Full);
                    break;
                }
                Err(error) => {
                    tracing::error!(%error, "the journal cannot be written");
                    came.refused = Some(CommitRefused::Failed);
                    break;
                }
            }
        }
        self.writer.log.sync()
    }
}

fn refuse_all(asked: Vec<Asked>, refused: CommitRefused) {
    for Asked { frame, answer } in asked {
        refuse(frame, refused);
        let _ = answer.send(Err(refused));
    }
}

pub(super) fn set_full(on_disk: &OnDisk) {
    if !on_disk.is_full.swap(true, Ordering::Relaxed) {
        tracing::error!("the disk of the journal is full: requests are refused until it has room");
    }
}

/// The reserve is restored before anything else may use the room.
fn look_for_room(on_disk: &OnDisk, writer: &mut Writer) {
    let free_bytes = writer.log.free_bytes().unwrap_or(0);
    let is_full = on_disk.is_full.load(Ordering::Relaxed);
    if free_bytes < on_disk.reserve_bytes.saturating_mul(RESERVES_FREE) {
        return;
    }
    if writer.log.restore_reserve().is_ok() && is_full {
        on_disk.is_full.store(false, Ordering::Relaxed);
        tracing::info!("the disk of the journal has room again");
    }
}
