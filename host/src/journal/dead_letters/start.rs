//! What a start makes of the frames that it reads.

use super::index::Index;
use super::payload::{self, Payload};
use super::{Letter, LetterId, WholeLetter};
use crate::journal::disk::Opened;
use crate::journal::start::Starts;

#[derive(Debug, Default)]
pub(super) struct Recovered {
    /// In order, until all heads are known.
    replayed: Vec<(LetterId, Replayed)>,
    /// Frames that are neither letters nor finish any.
    pub(super) strange: u64,
}

#[derive(Debug)]
enum Replayed {
    Letter { serial: u64, records: u32, refused_ms: u64 },
    Finished(Vec<LetterId>),
}

impl Recovered {
    /// One frame more, in order.
    pub(super) fn replay(&mut self, id: LetterId, payload: &[u8]) {
        let replayed = match payload::decode(id, payload.to_vec()) {
            Some(Payload::Letter(serial, WholeLetter { letter, .. })) => {
                let Letter { records, refused_ms, .. } = letter;
                Replayed::Letter { serial, records, refused_ms }
            }
            Some(Payload::Finished(ids)) => Replayed::Finished(ids),
            None => {
                self.strange += 1;
                return;
            }
        };
        self.replayed.push((id, replayed));
    }

    /// After the last frame: the letters, and the serial number of the next.
    pub(super) fn end(self, opened: &Opened) -> (Index, u64) {
        let heads = || opened.segments.iter().filter_map(|segment| segment.head);
        let starts = Starts(heads().map(|head| (head.number, head.first)).collect());
        let (mut index, mut next) = (Index::default(), 1);
        for (id, replayed) in self.replayed {
            match replayed {
                Replayed::Finished(ids) => ids.into_iter().for_each(|id| _ = index.finish(id)),
                // A sync had failed: it was written again to a later segment, or its keeper was told that it was not.
                Replayed::Letter { serial, .. } if starts.is_void(id.segment, serial) || serial < next => {}
                Replayed::Letter { serial, records, refused_ms } => {
                    index.add(id, records, refused_ms);
                    next = serial + 1;
                }
            }
        }
        (index, heads().map(|head| head.first).fold(next, u64::max))
    }
}
