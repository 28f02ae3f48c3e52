//! Entries as `insert` commands, a bounded number of documents each.
//!
//! A command is put together in one buffer and sent as it is: unordered, so that one record that cannot be stored
//! costs itself alone, and acknowledged by a majority, on disk. Not the driver's `insert_many`, which copies each
//! document several times, may send twice by itself, and does not say which index a duplicate key was in.

use super::super::record::Walk;
use super::super::store::Write;
use super::bson::{ARRAY, Bson, DOCUMENT, Open};
use super::collections::{DAY_MS, Name};
use super::document::Writer;
use crate::batch::RecordId;
use crate::streams::lane::Hash;
use std::ops::Range;

/// Documents of one command: where servers were measured to take their full rate, and what a lookup of duplicates
/// reads at once.
const DOCUMENTS_MAX: usize = 1_000;
/// Bytes of one command, unless one document has more: half of what a command may have, and some milliseconds of
/// copying in the driver.
const COMMAND_BYTES: usize = 8 << 20;
/// What a document may have. Source: MongoDB manual, "Limits and Thresholds".
const DOCUMENT_BYTES_MAX: usize = 16 << 20;
/// How long the server may wait for the majority: less than we wait for its answer, so that it says so itself.
pub(super) const MAJORITY_PATIENCE_MS: i64 = 5_000;

/// Makes the commands of a delivery, one after another: what is in memory is one of them.
pub(super) struct Commands {
    writes: Vec<Write>,
    hash: Hash,
    class: String,
    /// The next write, and the walk through it once it has begun.
    next: usize,
    walk: Option<Walk>,
    writer: Writer,
    carried: Option<Carried>,
    /// Room for the next command: what the one before took, and an eighth.
    bytes: usize,
    /// Documents that no server takes.
    pub(super) too_large: Vec<u64>,
}

/// An `insert` of some documents into one collection.
pub(super) struct Insert {
    pub(super) name: Name,
    pub(super) command: Vec<u8>,
    pub(super) documents: Vec<Document>,
}

/// A document of a command.
#[derive(Clone, Debug)]
pub(super) struct Document {
    pub(super) id: RecordId,
    /// Its bytes in the command.
    pub(super) bytes: Range<usize>,
    pub(super) is_resend: bool,
}

impl Commands {
    pub(super) fn new(writes: Vec<Write>, hash: Hash, class: String) -> Commands {
        Commands {
            writes,
            hash,
            class,
            next: 0,
            walk: None,
            writer: Writer::default(),
            carried: None,
            bytes: 0,
            too_large: Vec::new(),
        }
    }

    /// The next command: documents of one day, in their order. It may have none.
    pub(super) fn next(&mut self) -> Option<Insert> {
        let day = match (&self.carried, self.writes.get(self.next)) {
            (Some(carried), _) => carried.id.time_ms() / DAY_MS,
            (None, Some(write)) => write.entry.time_ms / DAY_MS,
            (None, None) => return None,
        };
        let mut making = Making::new(Name { day, class: self.class.clone() }, self.bytes);
        if let Some(carried) = self.carried.take() {
            making.put(&carried);
        }
        while !making.is_full()
            && let Some(write) = self.writes.get(self.next)
            && write.entry.time_ms / DAY_MS == day
        {
            let walk = self.walk.get_or_insert_with(|| {
                self.writer.begin(&write.entry.stream);
                Walk::of(&write.entry)
            });
            let hash = (self.hash)(&write.entry.stream);
            while !making.is_full() {
                let Some((at, spans)) = walk.next(&write.entry.bytes) else {
                    self.walk = None;
                    self.next += 1;
                    break;
                };
                let id = write.entry.record_id(hash, at);
                let begun = making.begin();
                self.writer.write(&mut making.out, &id, &write.entry.bytes, &spans);
                match making.end(begun, id, write.is_resend) {
                    Ended::In => {}
                    Ended::ForTheNext(carried) => {
                        self.carried = Some(carried);
                        return Some(self.finish(making));
                    }
                    Ended::TooLarge => self.too_large.push(id.number()),
                }
            }
        }
        Some(self.finish(making))
    }

    fn finish(&mut self, making: Making) -> Insert {
        let insert = making.finish();
        self.bytes = insert.command.len() + insert.command.len() / 8;
        insert
    }
}

/// A document that did not fit into the command before.
struct Carried {
    id: RecordId,
    bytes: Vec<u8>,
    is_resend: bool,
}

/// What became of a document.
enum Ended {
    In,
    ForTheNext(Carried),
    TooLarge,
}

/// Where a document's head and its bytes begin.
struct Begun {
    head: usize,
    bytes: usize,
}

struct Making {
    insert: Insert,
    out: Bson,
    command: Open,
    documents: Open,
}

impl Making {
    /// With room for so many bytes.
    fn new(name: Name, bytes: usize) -> Making {
        let mut out = Bson(Vec::with_capacity(bytes));
        let command = out.open();
        out.text("insert", &name.text().unwrap_or_default());
        out.bool("ordered", false);
        put_concern(&mut out);
        out.head(ARRAY, "documents");
        let documents = out.open();
        let insert = Insert { name, command: Vec::new(), documents: Vec::new() };
        Making { insert, out, command, documents }
    }

    fn is_full(&self) -> bool {
        self.insert.documents.len() >= DOCUMENTS_MAX || self.out.0.len() >= COMMAND_BYTES
    }

    fn begin(&mut self) -> Begun {
        let head = self.out.0.len();
        self.out.index_head(DOCUMENT, self.insert.documents.len());
        Begun { head, bytes: self.out.0.len() }
    }

    fn end(&mut self, begun: Begun, id: RecordId, is_resend: bool) -> Ended {
        let bytes = begun.bytes..self.out.0.len();
        if bytes.len() > DOCUMENT_BYTES_MAX {
            self.out.0.truncate(begun.head);
            self.out.0.shrink_to(COMMAND_BYTES);
            return Ended::TooLarge;
        }
        if self.out.0.len() > COMMAND_BYTES && !self.insert.documents.is_empty() {
            let bytes = self.out.0.split_off(begun.bytes);
            self.out.0.truncate(begun.head);
            return Ended::ForTheNext(Carried { id, bytes, is_resend });
        }
        self.insert.documents.push(Document { id, bytes, is_resend });
        Ended::In
    }

    fn put(&mut self, carried: &Carried) {
        let begun = self.begin();
        self.out.0.extend_from_slice(&carried.bytes);
        let bytes = begun.bytes..self.out.0.len();
        self.insert.documents.push(Document { id: carried.id, bytes, is_resend: carried.is_resend });
    }

    fn finish(mut self) -> Insert {
        self.out.close(self.documents);
        self.out.close(self.command);
        Insert { command: self.out.0, ..self.insert }
    }
}

impl Insert {
    /// The same for some of its documents.
    pub(super) fn part(&self, documents: Range<usize>) -> Insert {
        let mut making = Making::new(self.name.clone(), 0);
        for document in &self.documents[documents] {
            let bytes = self.command[document.bytes.clone()].to_vec();
            making.put(&Carried { id: document.id, bytes, is_resend: document.is_resend });
        }
        making.finish()
    }
}

/// Acknowledged by a majority and on disk.
pub(super) fn put_concern(out: &mut Bson) {
    out.head(DOCUMENT, "writeConcern");
    let concern = out.open();
    out.text("w", "majority");
    out.bool("j", true);
    out.number("wtimeout", MAJORITY_PATIENCE_MS);
    out.close(concern);
}
