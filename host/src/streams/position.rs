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

    /// Whether the viewer has not had this record.
    pub(super) fn is_new(&self, id: &RecordId) -> bool {
        match self.nodes.get(&id.node()) {
            Some(last) => (id.time_ms(), id.number()) > *last,
            None => id.time_ms() >= self.floor_ms,
        }
    }

    /// The viewer has had this record. Other nodes may still be `skew_ms` behind it.
    pub(super) fn advance(&mut self, id: &RecordId, skew_ms: u64) {
        self.nodes.insert(id.node(), (id.time_ms(), id.number()));
        self.floor_ms = self.floor_ms.max(id.time_ms().saturating_sub(skew_ms));
        let floor_ms = self.floor_ms;
        self.nodes.retain(|_, (time_ms, _)| *time_ms >= floor_ms);
    }

    /// Where a scan of the store begins that finds everything new.
    pub(super) fn start(&self, hash: [u8; 8], skew_ms: u64) -> RecordId {
        let floor = RecordId::new(hash, self.floor_ms, [0; 4], 0);
        // With one writer everything up to the last record seen was seen.
        let seen = self.nodes.iter().filter(|_| skew_ms == 0);
        seen.map(|(node, (time_ms, number))| RecordId::new(hash, *time_ms, *node, *number))
            .fold(floor, RecordId::max)
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
