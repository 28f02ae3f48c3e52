//! What a start finds in the folder, and what it makes of it.
//!
//! Of most segments only the head is read. Those from the newest on that opens with marks are read whole, which is
//! the last one, except after a crash in the moment between a new segment and its marks. No bad file stops the
//! start: its damage is reported, and a torn tail is cut off.

use super::file::{Disk, File};
use super::frame::{Damage, FORMAT, Fault, HEADER_BYTES, Head, Kind, Position};
use super::log::{Current, Log, Settings, WriteError};
use super::scan::{Found, Placed, Scan};
use std::io;
use std::ops::Range;

const LOCK: &str = "lock";
pub(super) const RESERVE: &str = "reserve";
/// A reserve that does not have all of its room yet.
pub(super) const RESERVE_NEW: &str = "reserve.new";

/// The only reasons not to start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("{file} has format {found}, and this version reads up to format {FORMAT}")]
    Newer { file: String, found: u8 },
    #[error("another process uses the journal")]
    InUse,
    #[error(transparent)]
    Folder(#[from] io::Error),
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Opened {
    /// Ascending by number; some may be missing in between.
    pub(crate) segments: Vec<Segment>,
    /// What is damaged, cut off, or none of ours. Of a segment that was not read whole only a damaged head is told.
    pub(crate) skipped: Vec<Skipped>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    /// `None` if it is damaged.
    pub(crate) head: Option<Head>,
    pub(crate) bytes: u64,
}

/// Bytes that are not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Skipped {
    pub(crate) file: String,
    pub(crate) range: Range<u64>,
    pub(crate) fault: Fault,
    /// They are no longer in the file.
    pub(crate) is_cut: bool,
}

impl Skipped {
    fn is_of(&self, segment: &Segment) -> bool {
        self.file == segment_file(segment.number)
    }
}

/// A segment's file. The zeros let names sort as numbers.
pub(super) fn segment_file(number: u64) -> String {
    format!("journal-{number:020}.log")
}

/// Only the very name that [`segment_file`] gives, and no number near the largest: there is always a next one.
pub(super) fn segment_number(file: &str) -> Option<u64> {
    let number = file.strip_prefix("journal-")?.strip_suffix(".log")?.parse().ok()?;
    (number <= u64::MAX / 2 && segment_file(number) == file).then_some(number)
}

pub(super) fn scan(
    file: &File,
    from: Position,
    end: u64,
) -> Scan<impl FnMut(&mut [u8], u64) -> io::Result<()>> {
    Scan::new(|buffer: &mut [u8], offset| file.read_at(buffer, offset), from, end)
}

impl Log {
    /// Finds what is there and calls `replay` with every intact frame from the newest segment on that opens with
    /// marks (from the oldest, if none does), in order. What was replayed is made safe; if the disk fails to, the log
    /// wants a new segment, and of what was replayed only that is safe which was so before.
    ///
    /// The folder is locked as long as the log lives.
    pub(crate) fn open(
        disk: Disk,
        settings: Settings,
        mut replay: impl FnMut(Position, Kind, &[u8]),
    ) -> Result<(Log, Opened), OpenError> {
        let lock = disk.lock(LOCK)?.ok_or(OpenError::InUse)?;
        let (mut opened, next_number) = find(&disk)?;
        // Before anything is cut: a newer format may mean something by what looks torn.
        let damaged_heads = read_heads(&disk, &mut opened.segments)?;
        let whole = first_to_read_whole(&disk, &opened.segments);
        let mut last = None;
        for (at, segment) in opened.segments.iter_mut().enumerate() {
            match at < whole {
                true => opened.skipped.extend(damaged_heads.iter().find(|head| head.is_of(segment)).cloned()),
                false => last = read_whole(&disk, segment, &mut opened.skipped, &mut replay),
            }
        }
        let mut log = Log::new(disk, settings, lock, next_number);
        log.adopt(&opened.segments, last);
        // Without a reserve the log works as well, until the disk is full.
        let _ = log.adopt_reserve().or_else(|_| log.restore_reserve());
        Ok((log, opened))
    }

    fn adopt(&mut self, segments: &[Segment], last: Option<File>) {
        let mut bytes: Vec<(u64, u64)> =
            segments.iter().map(|segment| (segment.number, segment.bytes)).collect();
        if let Some(file) = last
            && let Some((number, end)) = bytes.pop()
        {
            self.current = Some(Current { number, file, end, synced: end, preallocated: 0 });
        }
        self.sealed = bytes;
    }

    /// Takes the reserve that is there. Its room is not given back for a moment: another might take it.
    fn adopt_reserve(&mut self) -> io::Result<()> {
        let file = self.disk.open(RESERVE)?;
        if file.bytes()? > 0 {
            return Err(io::Error::other("it was begun as a segment"));
        }
        file.preallocate(self.settings.reserve_bytes)?;
        self.has_reserve = true;
        Ok(())
    }

    /// Makes the reserve if there is none: as much room as the settings say, taken now, for the day on which there
    /// is none.
    pub(crate) fn restore_reserve(&mut self) -> Result<(), WriteError> {
        if self.has_reserve {
            return Ok(());
        }
        // One that was there before may have been begun as a segment, or have another size.
        for leftover in [RESERVE, RESERVE_NEW] {
            remove_if_there(&self.disk, leftover)?;
        }
        let made = make_reserve(&self.disk, self.settings.reserve_bytes);
        if made.is_err() {
            let _ = self.disk.remove(RESERVE_NEW);
        }
        made?;
        self.has_reserve = true;
        Ok(())
    }
}

fn make_reserve(disk: &Disk, bytes: u64) -> io::Result<()> {
    let file = disk.create(RESERVE_NEW)?;
    file.preallocate(bytes)?;
    file.sync_data()?;
    disk.rename(RESERVE_NEW, RESERVE)?;
    disk.sync_folder()
}

fn remove_if_there(disk: &Disk, name: &str) -> io::Result<()> {
    match disk.remove(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The segments, without their heads, and the number of the next.
fn find(disk: &Disk) -> Result<(Opened, u64), OpenError> {
    let mut opened = Opened { segments: Vec::new(), skipped: Vec::new() };
    let mut next_number = 1;
    for listed in disk.list()? {
        if [LOCK, RESERVE, RESERVE_NEW].contains(&listed.name.as_str()) {
            continue;
        }
        let named = segment_number(&listed.name);
        // A folder of that name takes the number as well.
        next_number = next_number.max(named.map_or(1, |number| number + 1));
        let number = named.filter(|_| listed.is_file);
        let fault = match number {
            Some(number) if listed.bytes > 0 => {
                opened.segments.push(Segment { number, head: None, bytes: listed.bytes });
                continue;
            }
            Some(_) => Fault::Empty,
            None => Fault::Foreign,
        };
        let is_cut = fault == Fault::Empty && disk.remove(&listed.name).is_ok();
        opened.skipped.push(Skipped { file: listed.name, range: 0..listed.bytes, fault, is_cut });
    }
    opened.segments.sort_by_key(|segment| segment.number);
    Ok((opened, next_number))
}

fn first_to_read_whole(disk: &Disk, segments: &[Segment]) -> usize {
    segments.iter().rposition(|segment| opens_with_marks(disk, segment).unwrap_or(false)).unwrap_or(0)
}

/// Whether an intact head is followed by intact marks.
fn opens_with_marks(disk: &Disk, segment: &Segment) -> io::Result<bool> {
    let file = disk.open(&segment_file(segment.number))?;
    let mut scan = scan(&file, start_of(segment), segment.bytes);
    let mut payload = Vec::new();
    for kind in [Kind::Head, Kind::Marks] {
        match scan.next() {
            Some(Found::Frame(frame)) if frame.header.kind == kind => {
                if scan.payload(&frame, &mut payload).is_err() {
                    return Ok(false);
                }
            }
            _ => return Ok(false),
        }
    }
    Ok(true)
}

fn start_of(segment: &Segment) -> Position {
    Position { segment: segment.number, offset: 0 }
}

/// Tells which are damaged; the frames behind such a head can still be read.
fn read_heads(disk: &Disk, segments: &mut [Segment]) -> Result<Vec<Skipped>, OpenError> {
    let mut damaged = Vec::new();
    for segment in segments {
        let file = segment_file(segment.number);
        match head_of(disk, segment) {
            Ok(head) => segment.head = Some(head),
            Err(Fault::Format(found)) if found > FORMAT => return Err(OpenError::Newer { file, found }),
            Err(fault) => {
                let range = 0..segment.bytes.min((HEADER_BYTES + Head::BYTES) as u64);
                damaged.push(Skipped { file, range, fault, is_cut: false });
            }
        }
    }
    Ok(damaged)
}

fn head_of(disk: &Disk, segment: &Segment) -> Result<Head, Fault> {
    let file = disk.open(&segment_file(segment.number)).map_err(|_| Fault::Unreadable)?;
    let mut scan = scan(&file, start_of(segment), segment.bytes);
    let header = scan.header(0)?;
    let frame = Placed { at: start_of(segment), header };
    if header.kind != Kind::Head || header.payload_bytes as usize != Head::BYTES {
        return Err(Fault::Header);
    }
    let mut payload = Vec::new();
    scan.payload(&frame, &mut payload).map_err(|damage| damage.fault)?;
    Head::parse(&payload).filter(|head| head.number == segment.number).ok_or(Fault::Header)
}

/// Replays the segment and cuts its tail. Returns its file if more may be appended to it.
fn read_whole(
    disk: &Disk,
    segment: &mut Segment,
    skipped: &mut Vec<Skipped>,
    replay: &mut impl FnMut(Position, Kind, &[u8]),
) -> Option<File> {
    let name = segment_file(segment.number);
    let Ok(file) = disk.open(&name) else {
        let range = 0..segment.bytes;
        skipped.push(Skipped { file: name, range, fault: Fault::Unreadable, is_cut: false });
        return None;
    };
    let (intact_end, damage) = replay_frames(&file, segment, replay);
    let cut = cut(&file, segment, intact_end);
    skipped.extend(damage.into_iter().map(|Damage { range, fault }| {
        let is_cut = range.start >= segment.bytes;
        Skipped { file: name.clone(), range, fault, is_cut }
    }));
    (cut.is_ok() && segment.head.is_some()).then_some(file)
}

/// The offset behind the last intact frame, and what is damaged.
fn replay_frames(
    file: &File,
    segment: &Segment,
    replay: &mut impl FnMut(Position, Kind, &[u8]),
) -> (u64, Vec<Damage>) {
    let (mut intact_end, mut damaged) = (0, Vec::new());
    let mut payload = Vec::new();
    let mut scan = scan(file, start_of(segment), segment.bytes);
    while let Some(found) = scan.next() {
        let frame = match found {
            Found::Frame(frame) => frame,
            Found::Damage(damage) => {
                damaged.push(damage);
                continue;
            }
        };
        match scan.payload(&frame, &mut payload) {
            Err(damage) => damaged.push(damage),
            Ok(()) => {
                intact_end = frame.end();
                if frame.header.kind != Kind::Head {
                    replay(frame.at, frame.header.kind, &payload);
                }
            }
        }
    }
    (intact_end, damaged)
}

/// Cuts what is behind the last intact frame, then makes safe what was read: the process before may have died
/// between a write and its sync. A file without any intact frame is left as it is.
fn cut(file: &File, segment: &mut Segment, intact_end: u64) -> io::Result<()> {
    if 0 < intact_end && intact_end < segment.bytes {
        file.truncate(intact_end)?;
        segment.bytes = intact_end;
    }
    file.sync_data()
}
