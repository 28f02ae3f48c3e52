//! The way of a letter to the disk.
//!
//! One round at a time writes what has gathered and syncs once; while it does, the next gathers, up to a bound in
//! bytes. Whoever finds nobody writing starts a round, so there is no thread and no timer.

use super::index::Amount;
use super::payload::{encode_finished, encode_letter, encode_serial};
use super::{DeadLetters, Letter, LetterId, NotKept, SEGMENTS, WAITING_KIB};
use crate::journal::disk::{Kind, Log, Position, Start, WriteError};
use bytes::Bytes;
use std::io;
use std::sync::{Arc, MutexGuard, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// How often a round is written again after a failed sync.
const TRIES: u32 = 3;
/// A segment that has nothing but its head is smaller, and so is what a frame takes beside its payload.
const HEAD_BYTES_MAX: u64 = 64;

#[derive(Default)]
pub(super) struct Inbox {
    asked: Vec<Asked>,
    is_writing: bool,
}

/// The end of the files, where one round at a time appends.
#[derive(Debug)]
pub(super) struct Writer {
    log: Log,
    /// The serial number of the next letter. It is used once.
    next: u64,
    /// Letters from this one on, in the segments that there are, are not safe, and void once there is another segment:
    /// a sync had failed.
    void_from: Option<u64>,
}

impl Writer {
    pub(super) fn new(log: Log, next: u64) -> Writer {
        Writer { log, next, void_from: None }
    }
}

enum Asked {
    Keep {
        letter: Letter,
        meta: Vec<u8>,
        content: Bytes,
        answer: oneshot::Sender<Result<LetterId, NotKept>>,
        _room: OwnedSemaphorePermit,
    },
    Finish {
        ids: Vec<LetterId>,
        /// `None`: letters whose keeper has gone.
        answer: Option<oneshot::Sender<Result<Amount, NotKept>>>,
    },
    Upkeep(oneshot::Sender<()>),
}

impl Asked {
    /// Whoever has gone is cancelled.
    fn is_wanted(&self) -> bool {
        match self {
            Asked::Keep { answer, .. } => !answer.is_closed(),
            Asked::Finish { .. } | Asked::Upkeep(_) => true,
        }
    }
}

/// What became of one that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Open,
    /// Safe once the round has ended.
    At(Position),
    /// There was nothing to write.
    Nothing,
    Refused(NotKept),
}

impl From<WriteError> for NotKept {
    fn from(error: WriteError) -> NotKept {
        match error {
            WriteError::Full => NotKept::Full,
            WriteError::TooLarge => NotKept::TooLarge,
            WriteError::Failed(_) | WriteError::Unsynced(_) | WriteError::NoSegment => NotKept::Failed,
        }
    }
}

impl DeadLetters {
    pub(super) async fn ask_to_keep(
        self: &Arc<DeadLetters>,
        letter: Letter,
        message: &str,
        content: &Bytes,
    ) -> Result<LetterId, NotKept> {
        let meta = encode_letter(&letter, message);
        let kib = u32::try_from((meta.len() + content.len()) / 1024 + 1).unwrap_or(u32::MAX);
        let room = self.waiting.clone().acquire_many_owned(kib.min(WAITING_KIB)).await;
        let room = room.expect("the semaphore is never closed");
        let (answer, answered) = oneshot::channel();
        self.ask(Asked::Keep { letter, meta, content: content.clone(), answer, _room: room });
        // The sender is dropped by a round that panicked.
        answered.await.unwrap_or(Err(NotKept::Failed))
    }

    pub(super) async fn ask_to_finish(
        self: &Arc<DeadLetters>,
        ids: Vec<LetterId>,
    ) -> Result<Amount, NotKept> {
        let (answer, answered) = oneshot::channel();
        self.ask(Asked::Finish { ids, answer: Some(answer) });
        answered.await.unwrap_or(Err(NotKept::Failed))
    }

    /// As [`DeadLetters::finish`], for whoever cannot wait. Where there is no runtime any more they stay.
    pub fn finish_unseen(self: &Arc<DeadLetters>, ids: Vec<LetterId>) {
        if tokio::runtime::Handle::try_current().is_ok() {
            self.ask(Asked::Finish { ids, answer: None });
        }
    }

    /// Letters that are too old go, and a full disk is looked at again. To be called once a minute.
    pub async fn upkeep(self: &Arc<DeadLetters>) {
        let (answer, answered) = oneshot::channel();
        self.ask(Asked::Upkeep(answer));
        let _ = answered.await;
    }

    /// Lets go of the files; nothing is kept any more.
    pub async fn end(self: &Arc<DeadLetters>) {
        self.upkeep().await;
        self.writer().take();
    }

    fn ask(self: &Arc<DeadLetters>, asked: Asked) {
        let mut inbox = self.inbox();
        inbox.asked.push(asked);
        if std::mem::replace(&mut inbox.is_writing, true) {
            return;
        }
        drop(inbox);
        let rounds = Rounds { letters: self.clone(), is_ended: false };
        // Whoever asked waits for the answer, and not for the end of the rounds.
        drop(tokio::task::spawn_blocking(move || rounds.run()));
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After a panic the log is as it was before or behind the frame; both can be gone on from.
    fn writer(&self) -> MutexGuard<'_, Option<Writer>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Rounds until nobody asks any more. Ended otherwise, by a panic or with the runtime, it lets go of those who wait.
struct Rounds {
    letters: Arc<DeadLetters>,
    is_ended: bool,
}

impl Rounds {
    fn run(mut self) {
        let letters = self.letters.clone();
        loop {
            let mut inbox = letters.inbox();
            let asked = std::mem::take(&mut inbox.asked);
            if asked.is_empty() {
                inbox.is_writing = false;
                self.is_ended = true;
                return;
            }
            drop(inbox);
            letters.round(asked.into_iter().filter(Asked::is_wanted).collect());
        }
    }
}

impl Drop for Rounds {
    fn drop(&mut self) {
        if !self.is_ended {
            *self.letters.inbox() = Inbox::default();
        }
    }
}

/// Who finished letters, and what is to be told.
struct Finished {
    answer: oneshot::Sender<Result<Amount, NotKept>>,
    with: Result<Amount, NotKept>,
}

impl Finished {
    fn tell(self) {
        let _ = self.answer.send(self.with);
    }
}

impl DeadLetters {
    fn round(&self, asked: Vec<Asked>) {
        let mut writer = self.writer();
        let Some(writer) = writer.as_mut() else {
            let nothing = vec![Outcome::Refused(NotKept::Stopping); asked.len()];
            return self.answer(asked, &nothing).into_iter().for_each(Finished::tell);
        };
        let outcomes = self.write(writer, &asked);
        for (asked, outcome) in asked.iter().zip(&outcomes) {
            if let (Asked::Keep { letter, .. }, Outcome::At(at)) = (asked, outcome) {
                self.state().index.add((*at).into(), letter.records, letter.refused_ms);
            }
        }
        // What was removed to make room for the others.
        self.forget(&writer.log, "room");
        let finished = self.answer(asked, &outcomes);
        self.remove_finished(writer);
        // What was dropped is off the disk, as far as it can be.
        finished.into_iter().for_each(Finished::tell);
        self.state().disk_bytes = writer.log.bytes();
    }

    fn write(&self, writer: &mut Writer, asked: &[Asked]) -> Vec<Outcome> {
        let serials: Vec<u64> = asked
            .iter()
            .map(|asked| {
                // What is no letter has the number of the next.
                let serial = writer.next;
                writer.next += u64::from(matches!(asked, Asked::Keep { .. }));
                serial
            })
            .collect();
        let mut outcomes = vec![Outcome::Open; asked.len()];
        for _ in 0..TRIES {
            let Err(error) = self.write_once(writer, asked, &serials, &mut outcomes) else { return outcomes };
            tracing::warn!(%error, "a sync of the dead letters failed; they are written again to a new segment");
            // Those in segments before are safe: the next one begins with a sync.
            let unsafe_segment = outcomes.iter().filter_map(Outcome::segment).max();
            let unsafe_ones = outcomes
                .iter_mut()
                .zip(&serials)
                .filter(|(outcome, _)| outcome.segment().is_some() && outcome.segment() == unsafe_segment);
            for (outcome, serial) in unsafe_ones {
                *outcome = Outcome::Open;
                writer.void_from = Some(writer.void_from.map_or(*serial, |from| from.min(*serial)));
            }
        }
        outcomes
    }

    /// An error is a failed sync: what was written since the last one that succeeded is not safe.
    fn write_once(
        &self,
        writer: &mut Writer,
        asked: &[Asked],
        serials: &[u64],
        outcomes: &mut [Outcome],
    ) -> io::Result<()> {
        for ((asked, serial), outcome) in asked.iter().zip(serials).zip(outcomes.iter_mut()) {
            if *outcome != Outcome::Open {
                continue;
            }
            *outcome = match self.append(writer, asked, *serial) {
                Ok(outcome) => outcome,
                Err(WriteError::Unsynced(error)) => return Err(error),
                Err(error) => {
                    if let WriteError::Failed(error) = &error {
                        tracing::error!(%error, "the dead letters cannot be written");
                    }
                    Outcome::Refused(error.into())
                }
            };
        }
        match writer.log.sync() {
            Err(WriteError::Unsynced(error)) => Err(error),
            _ => Ok(()),
        }
    }

    fn append(&self, writer: &mut Writer, asked: &Asked, serial: u64) -> Result<Outcome, WriteError> {
        match asked {
            Asked::Keep { meta, content, .. } => {
                let start = encode_serial(serial);
                let parts = [&start[..], &meta[..], &content[..]];
                self.make_room(writer, parts.iter().map(|part| part.len() as u64).sum(), serial)?;
                writer.log.append(Kind::Entry, &parts).map(Outcome::At)
            }
            Asked::Finish { ids, .. } => {
                let live: Vec<LetterId> = {
                    let state = self.state();
                    ids.iter().copied().filter(|id| state.index.is_live(*id)).collect()
                };
                match live.is_empty() {
                    true => Ok(Outcome::Nothing),
                    false => self.append_finished(writer, &encode_finished(&live), serial).map(Outcome::At),
                }
            }
            Asked::Upkeep(_) => {
                self.expire(writer, serial)?;
                if writer.log.free_bytes().is_ok_and(|free| free >= super::RESERVE_BYTES * 4) {
                    // Without a reserve all works as well, until the disk is full.
                    let _ = writer.log.restore_reserve();
                }
                Ok(Outcome::Nothing)
            }
        }
    }

    /// A new segment, for letters from this serial number on.
    fn begin(&self, writer: &mut Writer, serial: u64) -> Result<(), WriteError> {
        writer.log.start_segment(&self.start(writer, serial))?;
        writer.void_from = None;
        Ok(())
    }

    fn start(&self, writer: &Writer, serial: u64) -> Start {
        let first = writer.void_from.unwrap_or(serial);
        // Letters have no node.
        Start { node: [0; 4], created_ms: (self.clock)(), first }
    }

    /// On a full disk too, or letters could not be dropped there.
    fn append_finished(
        &self,
        writer: &mut Writer,
        payload: &[u8],
        serial: u64,
    ) -> Result<Position, WriteError> {
        let begun = match writer.log.wants_segment() {
            true => self.begin(writer, serial),
            false => Ok(()),
        };
        match begun.and_then(|()| writer.log.append(Kind::Entry, &[payload])) {
            Err(WriteError::Full) => {
                let start = self.start(writer, serial);
                writer.log.use_reserve(&start)?;
                writer.void_from = None;
                writer.log.append(Kind::Entry, &[payload])
            }
            appended => appended,
        }
    }

    /// For a letter of so many bytes: a new segment if it is time for one, and beyond the bound the oldest go.
    fn make_room(&self, writer: &mut Writer, bytes: u64, serial: u64) -> Result<(), WriteError> {
        if bytes + 2 * super::RESERVE_BYTES > self.bytes_max {
            return Err(WriteError::TooLarge);
        }
        if writer.log.wants_segment() || self.is_segment_over(&writer.log, bytes) {
            self.begin(writer, serial)?;
        }
        let log = &mut writer.log;
        // With the header of its frame.
        while log.bytes() + bytes + HEAD_BYTES_MAX > self.bytes_max {
            let segments = log.segments();
            let [(_, _), (next, _), ..] = segments[..] else { break };
            log.remove_before(next)?;
        }
        Ok(())
    }

    /// A letter that does not fit goes to the next one, and no segment goes on for longer than a part of the age: it
    /// could not expire before its newest letter.
    fn is_segment_over(&self, log: &Log, bytes: u64) -> bool {
        let Some(end) = log.end() else { return true };
        let segment_bytes = (self.bytes_max / SEGMENTS).min(super::SEGMENT_BYTES_MAX);
        let oldest_ms = self.state().index.oldest_ms(end.segment);
        let is_long_open =
            oldest_ms.is_some_and(|ms| ms.saturating_add(self.age_max_ms / SEGMENTS) <= (self.clock)());
        is_long_open || end.offset > HEAD_BYTES_MAX && end.offset + bytes > segment_bytes
    }

    fn expire(&self, writer: &mut Writer, serial: u64) -> Result<(), WriteError> {
        let now_ms = (self.clock)();
        let until_ms = now_ms.checked_sub(self.age_max_ms);
        let last = until_ms.and_then(|ms| self.state().index.last_refused_until(ms));
        let Some(last) = last else { return Ok(()) };
        if writer.log.end().is_some_and(|end| end.segment <= last) {
            self.begin(writer, serial)?;
        }
        let removed = remove_before(&mut writer.log, last + 1);
        self.forget(&writer.log, "age");
        Ok(removed?)
    }

    /// What was finished is off the disk as soon as nothing before it is needed.
    fn remove_finished(&self, writer: &mut Writer) {
        let (needed, is_any) = {
            let state = self.state();
            (state.index.oldest_needed(), state.index.is_any())
        };
        let removed = match needed {
            Some(needed) => remove_before(&mut writer.log, needed).map_err(WriteError::from),
            None if !is_any => Ok(()),
            // The last of them was finished: the segment that it stands in goes as well, if there is room for another.
            None => {
                let begun = self.begin(writer, writer.next);
                let end = writer.log.end().map_or(0, |end| end.segment);
                remove_before(&mut writer.log, end).map_err(WriteError::from).and(begun)
            }
        };
        if let Err(error) = removed {
            tracing::warn!(%error, "dead letters that were finished cannot be removed yet");
        }
        self.forget(&writer.log, "room");
    }

    /// Forgets what is no longer in the files.
    fn forget(&self, log: &Log, reason: &'static str) {
        let segments = log.segments();
        let oldest = segments.first().map_or(u64::MAX, |(number, _)| *number);
        let Amount { letters, records } = self.state().index.forget_before(oldest);
        if letters > 0 {
            self.metrics
                .deliver_letters_expired
                .get_or_create(&vec![("reason", reason.to_owned())])
                .inc_by(records);
            tracing::warn!(letters, records, reason, "dead letters have expired");
        }
    }

    /// All but those who finished letters: these are to be told.
    fn answer(&self, asked: Vec<Asked>, outcomes: &[Outcome]) -> Vec<Finished> {
        let (mut unclaimed, mut finished) = (Vec::new(), Vec::new());
        for (asked, outcome) in asked.into_iter().zip(outcomes) {
            let refused = match outcome {
                Outcome::Refused(refused) => Some(*refused),
                Outcome::Open => Some(NotKept::Failed),
                Outcome::At(_) | Outcome::Nothing => None,
            };
            match (asked, refused, outcome) {
                (Asked::Keep { answer, .. }, None, Outcome::At(at)) => {
                    if answer.send(Ok((*at).into())).is_err() {
                        unclaimed.push((*at).into());
                    }
                }
                (Asked::Keep { answer, .. }, refused, _) => {
                    let _ = answer.send(Err(refused.unwrap_or(NotKept::Failed)));
                }
                (Asked::Finish { ids, answer }, refused, _) => {
                    let with = refused.map_or_else(|| Ok(self.finish_in_index(&ids)), Err);
                    finished.extend(answer.map(|answer| Finished { answer, with }));
                }
                (Asked::Upkeep(answer), ..) => _ = answer.send(()),
            }
        }
        if !unclaimed.is_empty() {
            // Its caller counted otherwise.
            self.inbox().asked.push(Asked::Finish { ids: unclaimed, answer: None });
        }
        finished
    }

    fn finish_in_index(&self, ids: &[LetterId]) -> Amount {
        let mut state = self.state();
        ids.iter().fold(Amount::default(), |mut sum, id| {
            let Amount { letters, records } = state.index.finish(*id);
            sum.letters += letters;
            sum.records += records;
            sum
        })
    }
}

/// One after the other: a segment may say that letters of those before it are finished.
fn remove_before(log: &mut Log, segment: u64) -> io::Result<()> {
    for (number, _) in log.segments().into_iter().filter(|(number, _)| *number < segment) {
        log.remove_before(number + 1)?;
    }
    Ok(())
}

impl Outcome {
    fn segment(&self) -> Option<u64> {
        match self {
            Outcome::At(at) => Some(at.segment),
            Outcome::Open | Outcome::Nothing | Outcome::Refused(_) => None,
        }
    }
}
