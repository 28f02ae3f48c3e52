//! Reads frames in order, beside the writer and on any thread.
//!
//! It reads up to where its caller says, which is what the writer has synced. Files are the only thing that it
//! shares with the writer; a segment that was removed is passed over.

use super::file::{Disk, File};
use super::frame::{Damage, Fault, Kind, Position};
use super::open::{Skipped, scan, segment_file, segment_number};
use super::scan::Found;
use std::io;

#[derive(Debug)]
pub(crate) struct Reader {
    disk: Disk,
    at: Position,
    /// The segment of `at`, once something of it was read.
    open: Option<File>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    Frame {
        at: Position,
        kind: Kind,
        payload: Vec<u8>,
    },
    /// Damaged, and the next frame is behind it.
    Skipped(Skipped),
}

impl Reader {
    /// `from` is where a frame starts. Zeros: the oldest there is.
    pub(crate) fn new(disk: Disk, from: Position) -> Reader {
        Reader { disk, at: from, open: None }
    }

    /// Where the next frame is looked for.
    pub(crate) fn at(&self) -> Position {
        self.at
    }

    /// The next frame, entry or marks, that ends at or before `until`. `None`: there is none, or there will be.
    ///
    /// An error is one of the folder or of the process, and can be tried again; a segment that cannot be opened for a
    /// reason of its own is skipped.
    pub(crate) fn next(&mut self, until: Position) -> io::Result<Option<Read>> {
        while self.at < until {
            let Some(file) = self.open.take() else {
                match self.open_segment(until)? {
                    None => {}
                    Some(skipped) => return Ok(Some(Read::Skipped(skipped))),
                }
                continue;
            };
            let read = self.next_in(&file, until);
            if read.is_some() {
                self.open = Some(file);
                return Ok(read);
            }
            if self.at.segment < until.segment {
                self.at = Position { segment: self.at.segment + 1, offset: 0 };
            } else {
                self.open = Some(file);
                self.at = until;
            }
        }
        Ok(None)
    }

    /// Opens the segment at which it stands, or the next that exists.
    fn open_segment(&mut self, until: Position) -> io::Result<Option<Skipped>> {
        let name = segment_file(self.at.segment);
        match self.disk.open_to_read(&name) {
            Ok(file) => self.open = Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.at = self.next_segment()?.map_or(until, |next| next.min(until));
            }
            // What was acknowledged is not given up since this process may open no more files for the moment.
            Err(error) if is_passing(&error) => return Err(error),
            Err(_) => {
                let range = self.at.offset..self.at.offset;
                self.at = Position { segment: self.at.segment.saturating_add(1), offset: 0 };
                return Ok(Some(Skipped { file: name, range, fault: Fault::Unreadable, is_cut: false }));
            }
        }
        Ok(None)
    }

    fn next_segment(&self) -> io::Result<Option<Position>> {
        let listed = self.disk.list()?;
        let numbers = listed.iter().filter_map(|listed| segment_number(&listed.name));
        let next = numbers.filter(|number| *number > self.at.segment).min();
        Ok(next.map(|segment| Position { segment, offset: 0 }))
    }

    /// The next frame or damage in this segment; the place moves behind it. `None` at its end.
    fn next_in(&mut self, file: &File, until: Position) -> Option<Read> {
        let written = file.bytes().unwrap_or(0);
        let is_last = self.at.segment == until.segment;
        let end = if is_last { written.min(until.offset) } else { written };
        let mut scan = scan(file, self.at, end);
        while let Some(found) = scan.next() {
            let (at, read) = match found {
                Found::Damage(damage) => (damage.range.end, self.skipped(damage)),
                Found::Frame(frame) if frame.header.kind == Kind::Head => continue,
                Found::Frame(frame) => {
                    let mut payload = Vec::new();
                    let read = match scan.payload(&frame, &mut payload) {
                        Ok(()) => Read::Frame { at: frame.at, kind: frame.header.kind, payload },
                        Err(damage) => self.skipped(damage),
                    };
                    (frame.end(), read)
                }
            };
            self.at.offset = at;
            return Some(read);
        }
        self.at.offset = self.at.offset.max(end);
        None
    }

    fn skipped(&self, Damage { range, fault }: Damage) -> Read {
        let file = segment_file(self.at.segment);
        Read::Skipped(Skipped { file, range, fault, is_cut: false })
    }
}

/// It says nothing of the file.
fn is_passing(error: &io::Error) -> bool {
    use rustix::io::Errno;
    const PASSING: [Errno; 6] =
        [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::INTR, Errno::ACCESS, Errno::PERM];
    Errno::from_io_error(error).is_some_and(|errno| PASSING.contains(&errno))
}
