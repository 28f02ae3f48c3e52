//! What a viewer resumes by.
//!
//! Opaque text: base64url of a version, the floor, and per node the last record seen. A record is new to the viewer if
//! it comes after the last one of its node, or, for a node that is not named, if it was committed at the floor or
//! later. A node whose last record is below the floor needs no mention, so the text stays short.

use super::StreamsError;
use super::json::id_of;
use crate::batch::RecordId;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use std::collections::BTreeMap;

/// Nodes that one text can name. Positions of our own making name the nodes of the last moments only.
const NODES_MAX: usize = 256;
const VERSION: u8 = 1;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    /// Commit time in ms.
    pub(super) floor_ms: u64,
    /// Node → commit time and number of the last record seen.
    nodes: BTreeMap<[u8; 4], (u64, u64)>,
}

impl Position {
    pub(super) fn at(floor_ms: u64) -> Position {
        Position { floor_ms, nodes: BTreeMap::new() }
    }

    /// Whether a stored record is one that the viewer has not had.
    pub(super) fn is_new(&self, id: &RecordId) -> bool {
        let is_above = id.time_ms() >= self.floor_ms || self.nodes.contains_key(&id.node());
        is_above && !self.is_seen(id)
    }

    /// Whether the viewer has had this record of a node that it has seen before.
    pub(super) fn is_seen(&self, id: &RecordId) -> bool {
        self.nodes.get(&id.node()).is_some_and(|last| (id.time_ms(), id.number()) <= *last)
    }

    /// The viewer has had this record. Other nodes may still be `skew_ms` behind it.
    pub(super) fn advance(&mut self, id: &RecordId, skew_ms: u64) {
        let time_ms = id.time_ms();
        self.nodes.insert(id.node(), (time_ms, id.number()));
        // A clock that was set back takes the floor with it: rather a line twice than none.
        self.floor_ms = self.floor_ms.max(time_ms.saturating_sub(skew_ms)).min(time_ms);
        let floor_ms = self.floor_ms;
        self.nodes.retain(|_, (time_ms, _)| *time_ms >= floor_ms);
    }

    /// The number of the last record seen of this node.
    pub(super) fn last_of(&self, node: &[u8; 4]) -> Option<u64> {
        self.nodes.get(node).map(|(_, number)| *number)
    }

    /// Where a scan of the store begins that finds everything new.
    pub(super) fn start(&self, hash: [u8; 8], skew_ms: u64) -> RecordId {
        let floor = RecordId::new(hash, self.floor_ms, [0; 4], 0);
        if skew_ms > 0 {
            return floor;
        }
        // With one writer nothing new comes before the last record of a node that is still named.
        let seen =
            self.nodes.iter().map(|(node, (time_ms, number))| RecordId::new(hash, *time_ms, *node, *number));
        seen.min().unwrap_or(floor)
    }

    pub(super) fn text(&self) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.floor_ms.to_be_bytes()[2..]);
        for (node, (time_ms, number)) in self.nodes.iter().rev().take(NODES_MAX) {
            bytes.extend_from_slice(node);
            bytes.extend_from_slice(&time_ms.to_be_bytes()[2..]);
            bytes.extend_from_slice(&number.to_be_bytes()[2..]);
        }
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a text that an event carried, or the `id` of a record: the viewer then gets what follows that record.
    pub(super) fn parse(text: &str) -> Result<Position, StreamsError> {
        if let Some(id) = id_of(text) {
            let mut position = Position::default();
            position.advance(&id, 0);
            return Ok(position);
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| bad("it is no base64url text"))?;
        match bytes.split_first() {
            Some((&VERSION, rest)) if rest.len() >= 6 && (rest.len() - 6).is_multiple_of(16) => read(rest),
            Some((&VERSION, _)) => Err(bad("it was cut or lengthened")),
            Some(_) => Err(bad("it is of a version that this collector does not know")),
            None => Err(bad("it is empty")),
        }
    }
}

fn read(bytes: &[u8]) -> Result<Position, StreamsError> {
    let (floor, nodes) = bytes.split_at(6);
    if nodes.len() / 16 > NODES_MAX {
        return Err(bad("it names more than 256 nodes"));
    }
    let mut position = Position::at(six(floor));
    for entry in nodes.chunks_exact(16) {
        let node = [entry[0], entry[1], entry[2], entry[3]];
        position.nodes.insert(node, (six(&entry[4..10]), six(&entry[10..])));
    }
    Ok(position)
}

fn six(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn bad(why: &str) -> StreamsError {
    StreamsError::BadPosition(format!(
        "{why}: send the position of an event or the id of a record, unchanged"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [u8; 4] = [1; 4];
    const B: [u8; 4] = [2; 4];

    fn id(node: [u8; 4], time_ms: u64, number: u64) -> RecordId {
        RecordId::new([7; 8], time_ms, node, number)
    }

    fn seen(records: &[RecordId], skew_ms: u64) -> Position {
        let mut position = Position::at(100);
        records.iter().for_each(|record| position.advance(record, skew_ms));
        position
    }

    #[test]
    fn what_comes_after_the_last_record_of_its_node_is_new() {
        let position = seen(&[id(A, 150, 5)], 0);
        for (record, is_new) in [
            (id(A, 150, 5), false),
            (id(A, 150, 6), true),
            (id(A, 151, 6), true),
            (id(A, 149, 4), false),
            // Another node was not seen: what it committed since is new.
            (id(B, 150, 1), true),
            (id(B, 149, 9), false),
        ] {
            assert_eq!(position.is_new(&record), is_new, "{record:?}");
        }
    }

    #[test]
    fn a_text_reads_back_as_the_position_it_was_made_of() {
        for position in [
            Position::at(0),
            seen(&[id(A, 150, 5)], 0),
            seen(&[id(A, 150, 5), id(B, 149, (1 << 48) - 1)], 60),
        ] {
            assert_eq!(Position::parse(&position.text()), Ok(position));
        }
    }

    #[test]
    fn the_text_names_only_nodes_that_can_still_matter() {
        let position = seen(&[id(A, 150, 5), id(B, 200, 6)], 0);
        assert_eq!(position.nodes.len(), 1);
        assert!(!position.is_new(&id(A, 150, 5)));
        assert_eq!(seen(&[id(A, 150, 5), id(B, 200, 6)], 60).nodes.len(), 2);
    }

    #[test]
    fn a_clock_that_was_set_back_hides_no_record() {
        let position = seen(&[id(A, 200, 5), id(B, 90, 1)], 0);
        assert!(position.is_new(&id(B, 91, 2)));
        assert!(!position.is_new(&id(A, 200, 5)));
        assert!(position.start([7; 8], 0) < id(B, 91, 2));
    }
}
