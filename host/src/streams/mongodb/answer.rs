//! What a server answers to an insert, record by record.

use super::client::{said, sentence};
use super::reading::id_of;
use super::write::{Document, Insert};
use super::{Failed, Inner, failure};
use crate::batch::RecordId;
use crate::streams::store::{StoreError, Written};
use futures_util::TryStreamExt;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, Document as Reply, RawDocumentBuf, doc};
use std::collections::HashMap;
use tracing::warn;

pub(super) const NAMESPACE_EXISTS: i32 = 48;
const UNAUTHORIZED: i32 = 13;

/// Errors that pass: of a server that stops, steps down, is busy or has no room, or of a user who may not yet. Source: the
/// server's `error_codes.yml` and the drivers' specification of retryable writes.
pub(super) fn is_passing(code: i32) -> bool {
    const CODES: [i32; 33] = [
        1, 6, 7, 8, 11, 18, 24, 46, 50, 63, 64, 79, 89, 91, 100, 112, 133, 134, 150, 189, 202, 234, 246, 249,
        262, 462, 8000, 9001, 10107, 11600, 11602, 13435, 14031,
    ];
    matches!(code, 13436 | 13388 | 16500) || CODES.contains(&code)
}

/// Errors about a whole command that one of its documents may be at fault for.
fn is_of_a_document(code: i32) -> bool {
    matches!(code, 2 | 9 | 14 | 15 | 22 | 52 | 53 | 56 | 57 | 121 | 10334 | 17280 | 17419 | 17420)
}

/// One of a command's writes that was not done.
#[derive(Clone, Copy, Debug)]
pub(super) struct WriteError {
    pub(super) index: usize,
    pub(super) code: i32,
}

impl WriteError {
    pub(super) fn is_duplicate(&self) -> bool {
        matches!(self.code, 11000 | 11001 | 12582)
    }
}

pub(super) fn write_errors(reply: &Reply) -> Vec<WriteError> {
    let Ok(errors) = reply.get_array("writeErrors") else { return Vec::new() };
    let read = |error: &Bson| {
        let error = error.as_document()?;
        let number = |name| match error.get(name)? {
            Bson::Int32(number) => Some(i64::from(*number)),
            Bson::Int64(number) => Some(*number),
            Bson::Double(number) => Some(*number as i64),
            _ => None,
        };
        let index = usize::try_from(number("index")?).ok()?;
        Some(WriteError { index, code: i32::try_from(number("code")?).ok()? })
    };
    errors.iter().filter_map(read).collect()
}

/// What was written may be lost again.
pub(super) fn concern_error(reply: &Reply) -> Option<StoreError> {
    let error = reply.get_document("writeConcernError").ok()?;
    let code = error.get_i32("code").unwrap_or(0);
    Some(failure(format!(
        "not written by a majority: {}",
        said(code, error.get_str("codeName").unwrap_or(""))
    )))
}

impl Inner {
    /// Sends it. A command that is refused as a whole for a document's sake is halved until that one stands alone.
    pub(super) async fn insert(&self, insert: Insert, written: &mut Written) -> Result<(), StoreError> {
        let mut inserts = vec![insert];
        while let Some(insert) = inserts.pop() {
            let command = RawDocumentBuf::from_bytes(insert.command.clone());
            let command = command.map_err(|_| failure("a command that is no BSON"))?;
            match self.run_raw(command).await {
                Ok(reply) => self.read_reply(&insert, &reply, written).await?,
                Err(Failed { code: Some(code), .. }) if is_of_a_document(code) => {
                    match insert.documents.len() {
                        1 => self.refuse(&insert.documents, code, written),
                        len => {
                            // The first half is on top, so that the order is kept.
                            inserts.extend([insert.part(len / 2..len), insert.part(0..len / 2)]);
                        }
                    }
                }
                Err(failed) => return Err(failed.error),
            }
        }
        Ok(())
    }

    async fn read_reply(
        &self,
        insert: &Insert,
        reply: &Reply,
        written: &mut Written,
    ) -> Result<(), StoreError> {
        if let Some(error) = concern_error(reply) {
            return Err(error);
        }
        let errors = write_errors(reply);
        if let Some(error) = errors.iter().find(|error| is_passing(error.code) || error.code == UNAUTHORIZED)
        {
            return Err(failure(said(error.code, "")));
        }
        let mut duplicates = Vec::new();
        for error in &errors {
            match insert.documents.get(error.index) {
                Some(document) if error.is_duplicate() => duplicates.push(document),
                Some(document) => self.refuse(std::slice::from_ref(document), error.code, written),
                None => {}
            }
        }
        match duplicates.is_empty() {
            true => Ok(()),
            false => self.compare(insert, &duplicates, written).await,
        }
    }

    fn refuse(&self, documents: &[Document], code: i32, written: &mut Written) {
        let first = documents.first().map(|document| document.id.number());
        warn!(records = documents.len(), first, reason = said(code, ""), "MongoDB refuses records");
        let refused = documents.iter().map(|document| (document.id.number(), "document_refused"));
        written.rejected.extend(refused);
    }

    /// Looks what is there under these ids. The server says "duplicate key" also for another unique index.
    async fn compare(
        &self,
        insert: &Insert,
        duplicates: &[&Document],
        written: &mut Written,
    ) -> Result<(), StoreError> {
        let there = self.in_time(self.stored(insert, duplicates)).await?;
        let mut others = 0;
        for document in duplicates {
            let number = document.id.number();
            match there.get(&document.id) {
                Some(stored) if stored.as_bytes() == &insert.command[document.bytes.clone()] => {
                    written.presumed += u64::from(document.is_resend);
                }
                Some(_) => written.collided.push(number),
                None => {
                    others += 1;
                    written.rejected.push((number, "unique_index"));
                }
            }
        }
        if others > 0 {
            warn!(records = others, "a unique index other than that of `_id` refuses records: drop it");
        }
        Ok(())
    }

    async fn stored(
        &self,
        insert: &Insert,
        documents: &[&Document],
    ) -> Result<HashMap<RecordId, RawDocumentBuf>, StoreError> {
        let told = |error| failure(sentence(&error));
        let ids: Vec<Binary> = documents.iter().map(|document| binary(&document.id)).collect();
        let name = insert.name.text().unwrap_or_default();
        let collection = self.database.collection::<RawDocumentBuf>(&name);
        let mut found = collection.find(doc! { "_id": { "$in": ids } }).await.map_err(told)?;
        let mut stored = HashMap::new();
        while let Some(document) = found.try_next().await.map_err(told)? {
            stored.extend(id_of(&document).map(|id| (id, document)));
        }
        Ok(stored)
    }
}

pub(super) fn binary(id: &RecordId) -> Binary {
    Binary { subtype: BinarySubtype::Generic, bytes: id.0.to_vec() }
}
