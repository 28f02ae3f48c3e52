//! The piece as plain protobuf, and splices of it.

use super::super::splice::{Edit, splice};
use super::super::walk::schema::{self, BYTES, MESSAGE, TEXT};
use super::super::wire::{Fields, LENGTH, fields};
use super::super::{Batch, Request, Signal};
use super::view::View;
use super::{Call, Committed, Fault, Inner, Piece, Rows, same_length};
use bytes::{Bytes, BytesMut};

impl Call {
    /// What the call sees, as an OTLP export request.
    pub fn raw(&mut self) -> Result<Bytes, Fault> {
        if self.raw.is_none() {
            self.raw = Some(self.inner.standalone(&self.inner.view).into());
        }
        Ok(self.raw.clone().unwrap_or_default())
    }

    /// Replaces `lengths[i]` bytes at `offsets[i]` of [`Call::raw`] by `by[i]`.
    ///
    /// A place where several messages end or begin belongs to the outermost of them.
    pub fn splice(&mut self, offsets: &[u32], lengths: &[u32], by: &[Vec<u8>]) {
        self.edit("splice", |call| {
            same_length("offsets", offsets.len(), "lengths", lengths.len())?;
            same_length("offsets", offsets.len(), "by", by.len())?;
            let raw = call.raw()?;
            let mut pieces = Vec::with_capacity(by.len());
            for ((offset, length), by) in offsets.iter().zip(lengths).zip(by) {
                let (start, end) = (*offset as usize, *offset as usize + *length as usize);
                if end > raw.len() {
                    return Err(Fault(format!("there are no bytes {start} to {end}, `raw` has {}", raw.len())));
                }
                pieces.push((start, end, by));
            }
            pieces.sort_by_key(|(start, end, _)| (*start, *end));
            let mut finder = Finder::over(call.inner.signal, &raw);
            for (start, end, by) in pieces {
                let Some((owner, is_content)) = finder.find(start, end) else {
                    return Err(Fault(format!(
                        "bytes {start} to {end} are no whole fields of one message, and no content of a string or bytes field"
                    )));
                };
                call.edits.count(1, by.len());
                let with = Bytes::copy_from_slice(by);
                call.edits.splices.push(Edit { owner, range: start..end, is_content, with });
            }
            Ok(())
        });
    }

    /// The piece becomes what the splices made of it. Only `drop` and `route` go with them.
    pub(super) fn commit_splices(mut self) -> Result<Committed, (Piece, Fault)> {
        match self.spliced() {
            Err(fault) => Err((self.abort(), Fault(format!("splice: {}", fault.0)))),
            Ok(inner) => {
                let (before, after) = (self.inner.left(), inner.left());
                let dropped = before.saturating_sub(after);
                Ok(Committed {
                    piece: Piece { inner },
                    dropped,
                    added: after.saturating_sub(before - dropped),
                })
            }
        }
    }

    fn spliced(&mut self) -> Result<Box<Inner>, Fault> {
        let edits = std::mem::take(&mut self.edits);
        if edits.has_column_edits() {
            return Err(Fault(
                "of the other edits, only `drop` and `route` may go with it in one call".into(),
            ));
        }
        let mut splices = edits.splices;
        splices.sort_by_key(|edit| (edit.range.start, edit.range.end));
        for pair in splices.windows(2) {
            let (one, next) = (&pair[0].range, &pair[1].range);
            if next.start < one.end || one == next {
                return Err(Fault(format!("bytes {} to {} are edited twice", next.start, next.end)));
            }
        }
        let request = Request::check(self.inner.signal, splice(&self.raw()?, &splices).into());
        let request = request.map_err(|malformed| Fault(format!("what it leaves is {malformed}")))?;
        let seen = self.inner.view.items.rows.len() as u64;
        if request.records != seen && !(edits.dropped.is_empty() && edits.routes.is_empty()) {
            return Err(Fault(format!(
                "it makes {} items of {seen}: `drop` and `route` cannot go with it",
                request.records
            )));
        }
        let mut inner = self.inner.rewritten(&request.bytes);
        let first = self.inner.before_subset();
        let numbers = &self.inner.view.items.numbers;
        let moved =
            |rows: &[u32]| -> Vec<u32> { rows.iter().map(|row| first + numbers[*row as usize]).collect() };
        if request.records == seen {
            inner.routes = self.inner.routes_left();
        }
        for (name, rows) in &edits.routes {
            inner.apply_route(name, &moved(rows));
        }
        let dropped = moved(&edits.dropped);
        inner.drop_items(&dropped);
        Ok(inner)
    }
}

impl Inner {
    /// How many items that are left stand before the first that is seen.
    fn before_subset(&self) -> u32 {
        let first = self.view.items.rows.first().copied().unwrap_or(0);
        let dropped = self.is_dropped.iter().take(first as usize).filter(|is_dropped| **is_dropped).count();
        first - dropped as u32
    }

    /// The piece with other bytes for what is seen.
    fn rewritten(&self, seen: &[u8]) -> Box<Inner> {
        let rows = &self.view.items.rows;
        let mut bytes = BytesMut::new();
        let is_left = |row: u32| !self.is_dropped.get(row as usize).copied().unwrap_or(false);
        if let Some(first) = rows.first() {
            bytes.extend_from_slice(
                &self.standalone(&View::of(&self.rows, |row| row < *first && is_left(row))),
            );
        }
        bytes.extend_from_slice(seen);
        if let Some(last) = rows.last() {
            bytes.extend_from_slice(
                &self.standalone(&View::of(&self.rows, |row| row > *last && is_left(row))),
            );
        }
        let batch = Batch::over(self.signal, self.stream.clone(), bytes.freeze());
        let whole = batch.pieces(usize::MAX, usize::MAX).pop();
        let piece = whole.unwrap_or_else(|| {
            Piece::open(self.signal, self.stream.clone(), batch.bytes, Rows::default(), Vec::new())
        });
        let mut inner = piece.inner;
        inner.is_rewritten = true;
        inner
    }
}

/// Finds the messages in which ranges stand, in ascending order.
struct Finder<'r> {
    raw: &'r [u8],
    /// The messages around the last range, the request first.
    open: Vec<Open<'r>>,
}

struct Open<'r> {
    kind: u8,
    content: usize,
    end: usize,
    rest: Fields<'r>,
}

impl<'r> Finder<'r> {
    fn over(signal: Signal, raw: &'r [u8]) -> Finder<'r> {
        let request = Open {
            kind: schema::request(signal),
            content: 0,
            end: raw.len(),
            rest: fields(raw, 0, raw.len()),
        };
        Finder { raw, open: vec![request] }
    }

    /// Where the content begins of the message whose fields the range is, or whose string it is (then `true`).
    fn find(&mut self, start: usize, end: usize) -> Option<(usize, bool)> {
        while self.open.len() > 1 && self.open.last().is_some_and(|open| start >= open.end || end > open.end)
        {
            self.open.pop();
        }
        loop {
            let open = self.open.last_mut()?;
            let field = loop {
                let mut ahead = open.rest;
                match ahead.next() {
                    Some(field) if field.end <= start => open.rest = ahead,
                    other => break other,
                }
            };
            if open.rest.at() == start {
                let mut ahead = open.rest;
                while ahead.at() < end {
                    ahead.next()?;
                }
                return (ahead.at() == end).then_some((open.content, false));
            }
            let field =
                field.filter(|field| field.wire == LENGTH && field.content <= start && end <= field.end)?;
            match schema::look(open.kind, field.number.into(), LENGTH) {
                Ok(op @ MESSAGE..) => {
                    let rest = fields(self.raw, field.content, field.end);
                    let (kind, content, end) = (op - MESSAGE, field.content, field.end);
                    self.open.push(Open { kind, content, end, rest });
                }
                Ok(TEXT | BYTES) if (start, end) == (field.content, field.end) => return Some((start, true)),
                _ => return None,
            }
        }
    }
}
