//! The batch after the chain: what the plugins changed in the pieces becomes one splice of the batch.

use super::part::Batch;
use super::piece::{Changes, Piece};
use super::request::IdentityKeys;
use super::splice::{Edit, place, splice};
use super::tree::Tree;
use super::wire::{LENGTH, fields, put_field};
use super::{dropping, identity};
use std::collections::HashMap;
use std::sync::Arc;

/// What [`Batch::written`] made.
#[derive(Debug)]
pub struct Written {
    pub batch: Batch,
    /// Resources in which a plugin had changed the identity attributes.
    pub restored: u32,
    /// The route that a plugin gave to each record; `None` if none has one.
    pub routes: Option<Vec<Option<Arc<str>>>>,
}

impl Batch {
    /// The batch after the chain: one splice of the stamps and of what the plugins changed in the pieces (all pieces
    /// of this batch, in order). Records dropped in the pieces are gone, with the envelopes they emptied. Without any
    /// change the same bytes are handed back. Identity attributes are put right a second time.
    ///
    /// Where two pieces edited one resource, scope or metric that they share, the later piece wins.
    pub fn written(self, pieces: Vec<Piece>, keys: &IdentityKeys) -> Written {
        let routes = routes(&pieces);
        let (batch, restored) = if pieces.iter().any(Piece::is_rewritten) {
            self.joined(pieces, keys)
        } else {
            let changes = pieces.into_iter().map(|piece| (piece.items(), piece.changes())).collect();
            self.edited(changes, keys)
        };
        Written { batch, restored, routes }
    }

    /// One splice of all edits. With each piece's changes comes the number of its records, dropped or not.
    pub(super) fn edited(mut self, changes: Vec<(u32, Changes)>, keys: &IdentityKeys) -> (Batch, u32) {
        let mut sources = vec![std::mem::take(&mut self.stamps)];
        let mut dropped = Vec::new();
        let mut before = 0;
        for (records, changes) in changes {
            if let Changes::Edits { edits, dropped: rows } = changes {
                dropped.extend(rows.into_iter().map(|row| before + row));
                sources.push(edits);
            }
            before += records;
        }
        let is_plugin_edited = sources[1..].iter().any(|edits| !edits.is_empty());
        let mut edits = merge(&self.bytes, sources);
        let removals = self.removals(&dropped);
        if edits.is_empty() && removals.is_empty() {
            return (self, 0);
        }
        let adds = if is_plugin_edited { self.adds_of_survivors(&removals, keys) } else { Vec::new() };
        self.records -= dropped.len() as u32;
        edits.extend(removals);
        self.bytes = splice(&self.bytes, &edits).into();
        let restored = if is_plugin_edited { self.restore(keys, |at| adds.get(at).copied()) } else { 0 };
        (self, restored)
    }

    /// The edits that drop these records (ascending).
    fn removals(&self, dropped: &[u32]) -> Vec<Edit> {
        if dropped.is_empty() {
            return Vec::new();
        }
        let mut rest = dropped.iter().peekable();
        let (edits, _) = dropping::removals(self.signal, &self.bytes, |standing| {
            rest.next_if_eq(&&standing.item.number).is_some()
        });
        edits
    }

    /// For each resource that is left: which of the keys it must have.
    fn adds_of_survivors(&self, removals: &[Edit], keys: &IdentityKeys) -> Vec<[bool; 2]> {
        let mut gone = removals.iter().filter(|edit| edit.owner == 0).peekable();
        let mut adds = Vec::new();
        for envelope in identity::envelopes(&self.bytes) {
            while gone.next_if(|edit| edit.range.end <= envelope.start).is_some() {}
            if gone.peek().is_none_or(|edit| envelope.start < edit.range.start) {
                adds.push(if self.adds {
                    [true; 2]
                } else {
                    identity::presence(&self.bytes, &envelope, keys)
                });
            }
        }
        adds
    }

    /// The concatenation of the pieces, because one of them was written anew as a whole.
    fn joined(mut self, pieces: Vec<Piece>, keys: &IdentityKeys) -> (Batch, u32) {
        let mut adds = [self.adds; 2];
        for envelope in identity::envelopes(&self.bytes) {
            let has = identity::presence(&self.bytes, &envelope, keys);
            adds = [adds[0] || has[0], adds[1] || has[1]];
        }
        let mut out = Vec::with_capacity(self.bytes.len());
        for piece in pieces {
            if piece.is_rewritten() {
                if let Changes::Rewritten(request) = piece.changes() {
                    out.extend_from_slice(&request.bytes);
                }
            } else {
                out.extend_from_slice(&piece.standalone());
            }
        }
        self.bytes = out.into();
        self.stamps.clear();
        self.records = Tree::over(self.signal, &self.bytes).count() as u32;
        let restored = self.restore(keys, |_| Some(adds));
        (self, restored)
    }

    /// Puts the identity attributes right once more, `adds` by number of the resource. Returns how many were wrong.
    fn restore(&mut self, keys: &IdentityKeys, adds: impl Fn(usize) -> Option<[bool; 2]>) -> u32 {
        let mut edits = Vec::new();
        let mut restored = 0;
        for (at, envelope) in identity::envelopes(&self.bytes).enumerate() {
            let before = edits.len();
            let adds = adds(at).unwrap_or([self.adds; 2]);
            identity::stamp(&self.bytes, &envelope, keys, &self.stream, adds, &mut edits);
            restored += u32::from(edits.len() > before);
        }
        if restored > 0 {
            self.bytes = splice(&self.bytes, &edits).into();
        }
        restored
    }
}

fn routes(pieces: &[Piece]) -> Option<Vec<Option<Arc<str>>>> {
    let each: Vec<_> = pieces.iter().map(Piece::routes).collect();
    if each.iter().all(Option::is_none) {
        return None;
    }
    Some(
        each.into_iter()
            .zip(pieces)
            .flat_map(|(routes, piece)| routes.unwrap_or_else(|| vec![None; piece.left() as usize]))
            .collect(),
    )
}

/// One list of edits of `bytes` in the order of the document, from several of which a later one wins.
pub(super) fn merge(bytes: &[u8], sources: Vec<Vec<Edit>>) -> Vec<Edit> {
    let mut filled: Vec<Vec<Edit>> = sources.into_iter().filter(|edits| !edits.is_empty()).collect();
    if filled.len() <= 1 {
        return filled.pop().unwrap_or_default();
    }
    let mut all: Vec<(usize, Edit)> = Vec::with_capacity(filled.iter().map(Vec::len).sum());
    for (source, edits) in filled.into_iter().enumerate() {
        all.extend(edits.into_iter().map(|edit| (source, edit)));
    }
    all.sort_by_key(|(_, edit)| place(edit));
    let mut envelopes = None;
    let mut merged = Vec::with_capacity(all.len());
    for same in all.chunk_by(|(_, one), (_, next)| is_same_place(one, next)) {
        match same {
            [.., (_, last)] if !last.range.is_empty() || last.is_content => merged.push(last.clone()),
            [(first, one), .., (last, _)] if first != last => {
                let envelopes = envelopes.get_or_insert_with(|| envelope_contents(bytes));
                let with: Vec<&[u8]> = same.iter().map(|(_, edit)| &edit.with[..]).collect();
                let is_head = one.owner == one.range.start && envelopes.binary_search(&one.owner).is_ok();
                let with = if is_head { joined_heads(&with) } else { joined(&with) };
                merged.push(Edit { with: with.into(), ..one.clone() });
            }
            _ => merged.extend(same.iter().map(|(_, edit)| edit.clone())),
        }
    }
    merged
}

fn is_same_place(one: &Edit, other: &Edit) -> bool {
    one.owner == other.owner && one.range == other.range && one.is_content == other.is_content
}

/// Where the contents of the Resource* and Scope* fields begin, ascending.
fn envelope_contents(bytes: &[u8]) -> Vec<usize> {
    let mut all = Vec::new();
    for envelope in identity::envelopes(bytes) {
        all.push(envelope.content);
        let scopes = fields(bytes, envelope.content, envelope.end).filter(|field| field.is_message(2));
        all.extend(scopes.map(|scope| scope.content));
    }
    all
}

/// Fields that several sources insert into one message: an attribute that more than one adds is added once, as the
/// last one says.
fn joined(sources: &[&[u8]]) -> Vec<u8> {
    let mut places = HashMap::new();
    let mut parts: Vec<&[u8]> = Vec::new();
    for source in sources {
        for field in fields(source, 0, source.len()) {
            let part = &source[field.start..field.end];
            let key = (field.wire == LENGTH)
                .then(|| fields(source, field.content, field.end).find(|inner| inner.is_message(1)))
                .flatten()
                .map(|key| &source[key.content..key.end]);
            let place = *places.entry((field.number, key)).or_insert(parts.len());
            if place == parts.len() {
                parts.push(part);
            } else {
                parts[place] = part;
            }
        }
    }
    parts.concat()
}

/// A Resource or scope that several sources add where there was none: one, with what each has in it.
fn joined_heads(sources: &[&[u8]]) -> Vec<u8> {
    let mut contents: Vec<&[u8]> = Vec::new();
    for source in sources {
        contents.extend(
            fields(source, 0, source.len())
                .filter(|field| field.is_message(1))
                .map(|field| &source[field.content..field.end]),
        );
    }
    let mut out = Vec::new();
    put_field(&mut out, 1, &joined(&contents));
    out
}
