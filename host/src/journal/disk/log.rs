//! The end of the journal, where one writer appends.
//!
//! Frames are written at once and safe after [`Log::sync`]. A write that fails leaves the end where it was. A sync
//! that fails is never tried again on the same pages, which the system takes for clean from then on: the segment is
//! sealed, and what was not safe is appended again to the next. All of it blocks.

use super::file::{Disk, File};
use super::frame::{Head, Header, Kind, PAYLOAD_BYTES_MAX, Position};
use super::open::{RESERVE, segment_file};
use std::io;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// A segment that is larger gets no more frames.
    pub(crate) segment_bytes: u64,
    /// Room that is kept for marks when the disk is full.
    pub(crate) reserve_bytes: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        // A start reads one segment: a fraction of a second. The reserve holds marks of some thousand tenants.
        Settings { segment_bytes: 64 << 20, reserve_bytes: 4 << 20 }
    }
}

impl Settings {
    /// For files that may take so much in all: what is not needed any more goes segment by segment.
    pub(crate) fn within(bytes_max: u64) -> Settings {
        let usual = Settings::default();
        Settings { segment_bytes: (bytes_max / 16).clamp(1 << 20, usual.segment_bytes), ..usual }
    }
}

/// What the head of a new segment says beside its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) node: [u8; 4],
    pub(crate) created_ms: u64,
    /// The number of the first record that may be in it.
    pub(crate) first: u64,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// Nothing was appended: the disk is full. It can be tried again, or the reserve used.
    #[error("the disk is full")]
    Full,
    /// Nothing was appended.
    #[error(transparent)]
    Failed(io::Error),
    /// The segment is sealed. All that was appended since the last sync that succeeded must be appended again, to a
    /// new segment.
    #[error("a sync failed: {0}")]
    Unsynced(io::Error),
    /// Nothing was appended: no segment is open, see [`Log::wants_segment`].
    #[error("no segment is open")]
    NoSegment,
    /// Nothing was appended, nor ever will be.
    #[error("a frame of more than {PAYLOAD_BYTES_MAX} bytes")]
    TooLarge,
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> WriteError {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => WriteError::Full,
            _ => WriteError::Failed(error),
        }
    }
}

/// The segments, and the one that is appended to. Opened by [`Log::open`].
#[derive(Debug)]
pub(crate) struct Log {
    pub(super) disk: Disk,
    pub(super) settings: Settings,
    /// Number and bytes, ascending.
    pub(super) sealed: Vec<(u64, u64)>,
    pub(super) current: Option<Current>,
    pub(super) has_reserve: bool,
    /// A segment has its head and could not be begun. A crash may leave that all the same, and void what comes here after
    /// it: nothing more is appended before another one is begun.
    is_over: bool,
    /// A number is used once, even if its segment could not be begun.
    next_number: u64,
    _lock: File,
}

/// The segment that is appended to.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) number: u64,
    pub(super) file: File,
    /// Behind the last frame.
    pub(super) end: u64,
    /// What is before it is safe.
    pub(super) synced: u64,
    /// The room that it has in any case.
    pub(super) preallocated: u64,
}

impl Current {
    fn taken(&self) -> u64 {
        self.end.max(self.preallocated)
    }
}

impl Log {
    pub(super) fn new(disk: Disk, settings: Settings, lock: File, next_number: u64) -> Log {
        Log {
            disk,
            settings,
            sealed: Vec::new(),
            current: None,
            has_reserve: false,
            is_over: false,
            next_number,
            _lock: lock,
        }
    }

    /// Whether [`Log::start_segment`] should be called before the next frame: none is open, or it is large enough, or
    /// the next one has a head and could not be begun.
    pub(crate) fn wants_segment(&self) -> bool {
        self.is_over || self.current.as_ref().is_none_or(|current| current.end >= self.settings.segment_bytes)
    }

    /// Syncs the current segment, then goes on to a new one. The caller appends its marks first.
    ///
    /// After an error other than [`WriteError::Unsynced`] the current segment is still the current one; if the new one
    /// has its head already, nothing is appended before another is begun.
    pub(crate) fn start_segment(&mut self, start: &Start) -> Result<(), WriteError> {
        self.sync()?;
        let number = self.take_number();
        let file = self.disk.create(&segment_file(number))?;
        self.begin(number, file, 0, start)
    }

    /// As [`Log::start_segment`], in the reserve's room, so that marks can be written on a full disk.
    /// [`WriteError::Full`] if there is no reserve.
    pub(crate) fn use_reserve(&mut self, start: &Start) -> Result<(), WriteError> {
        if !self.has_reserve {
            return Err(WriteError::Full);
        }
        self.sync()?;
        let number = self.take_number();
        self.disk.rename(RESERVE, &segment_file(number))?;
        self.has_reserve = false;
        let file = self.disk.open(&segment_file(number))?;
        self.begin(number, file, self.settings.reserve_bytes, start)
    }

    pub(crate) fn has_reserve(&self) -> bool {
        self.has_reserve
    }

    fn take_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number - 1
    }

    /// Makes the file a segment before anything counts that is in it.
    fn begin(&mut self, number: u64, file: File, preallocated: u64, start: &Start) -> Result<(), WriteError> {
        let Start { node, created_ms, first } = *start;
        let head = Head { number, node, created_ms, first };
        let written = write_head(&file, &head);
        let has_head = written.is_ok();
        let begun = written
            .and_then(|end| file.sync_data().map(|()| end))
            .and_then(|end| self.disk.sync_folder().map(|()| end));
        match begun {
            Ok(end) => {
                self.seal();
                self.current = Some(Current { number, file, end, synced: end, preallocated });
                self.is_over = false;
                Ok(())
            }
            Err(error) => {
                self.is_over |= has_head;
                let _ = self.disk.remove(&segment_file(number));
                Err(error.into())
            }
        }
    }

    /// Writes a frame at the end; `parts` follow one another without a gap. Safe after the next sync. `kind` is not
    /// [`Kind::Head`].
    pub(crate) fn append(&mut self, kind: Kind, parts: &[&[u8]]) -> Result<Position, WriteError> {
        debug_assert_ne!(kind, Kind::Head, "only a new segment has a head");
        let current = self.current.as_mut().filter(|_| !self.is_over).ok_or(WriteError::NoSegment)?;
        let at = Position { segment: current.number, offset: current.end };
        let header = Header::of(kind, parts).ok_or(WriteError::TooLarge)?;
        let end = at.offset + header.frame_bytes();
        if let Err(error) = write_frame(&current.file, &header, at, parts) {
            // Else a shorter frame would leave a part of this one behind it. What was preallocated must stay so.
            if current.end >= current.preallocated {
                let _ = current.file.truncate(current.end);
            }
            return Err(error.into());
        }
        current.end = end;
        Ok(at)
    }

    /// Makes safe what was appended. Costs nothing if that is nothing.
    pub(crate) fn sync(&mut self) -> Result<(), WriteError> {
        let Some(current) = &mut self.current else { return Ok(()) };
        if current.synced == current.end {
            return Ok(());
        }
        match current.file.sync_data() {
            Ok(()) => {
                current.synced = current.end;
                Ok(())
            }
            Err(error) => {
                self.seal();
                Err(WriteError::Unsynced(error))
            }
        }
    }

    /// Nothing is appended to the current segment from now on. What is behind its safe end is cut, as well as it
    /// goes: left there, it would be read as damage, or a second time.
    fn seal(&mut self) {
        let Some(current) = self.current.take() else { return };
        let bytes = match current.file.truncate(current.synced) {
            Ok(()) => current.synced,
            Err(_) => current.taken(),
        };
        self.sealed.push((current.number, bytes));
    }

    /// The names of the segments below this number, except the current one, for [`Disk::remove`]. The caller no longer
    /// needs them after any crash: what says so is safe. To remove a large file takes longer than many syncs.
    pub(crate) fn forget_before(&mut self, segment: u64) -> Vec<String> {
        let (needed, unneeded) = self.sealed.iter().partition(|(number, _)| *number >= segment);
        self.sealed = needed;
        let unneeded: Vec<(u64, u64)> = unneeded;
        unneeded.iter().map(|(number, _)| segment_file(*number)).collect()
    }

    /// Removes the segments below this number, except the current one. The caller no longer needs them after any
    /// crash: what says so is safe.
    ///
    /// What could not be removed is tried again by the next call.
    pub(crate) fn remove_before(&mut self, segment: u64) -> io::Result<()> {
        let mut result = Ok(());
        let count = self.sealed.len();
        let disk = &self.disk;
        self.sealed.retain(|(number, _)| {
            let removed = match *number < segment {
                true => disk.remove(&segment_file(*number)),
                false => return true,
            };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    result = Err(error);
                    true
                }
                _ => false,
            }
        });
        if self.sealed.len() < count {
            self.disk.sync_folder()?;
        }
        result
    }

    /// Where the next frame goes. `None` if no segment is open.
    pub(crate) fn end(&self) -> Option<Position> {
        self.current.as_ref().map(|current| Position { segment: current.number, offset: current.end })
    }

    /// What is before it is safe and may be read. `None` if no segment is open.
    pub(crate) fn synced_end(&self) -> Option<Position> {
        self.current.as_ref().map(|current| Position { segment: current.number, offset: current.synced })
    }

    /// Number and bytes of every segment, ascending.
    pub(crate) fn segments(&self) -> Vec<(u64, u64)> {
        let current = self.current.as_ref().map(|current| (current.number, current.taken()));
        self.sealed.iter().copied().chain(current).collect()
    }

    /// The room that segments and reserve take.
    pub(crate) fn bytes(&self) -> u64 {
        let sealed: u64 = self.sealed.iter().map(|(_, bytes)| bytes).sum();
        let current = self.current.as_ref().map_or(0, Current::taken);
        let reserve = if self.has_reserve { self.settings.reserve_bytes } else { 0 };
        sealed + current + reserve
    }

    /// What the disk still has.
    pub(crate) fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }
}

fn write_head(file: &File, head: &Head) -> io::Result<u64> {
    let payload = head.encode();
    let header = Header::of(Kind::Head, &[&payload]).expect("a head is small");
    write_frame(file, &header, Position { segment: head.number, offset: 0 }, &[&payload])?;
    Ok(header.frame_bytes())
}

fn write_frame(file: &File, header: &Header, at: Position, parts: &[&[u8]]) -> io::Result<()> {
    let header = header.encode(at);
    let all: Vec<&[u8]> = std::iter::once(&header[..]).chain(parts.iter().copied()).collect();
    file.write_at(&all, at.offset)
}
