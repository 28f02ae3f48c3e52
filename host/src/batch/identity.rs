//! Identity attributes: what a resource says of whose it is, and the edits that put it right.

use super::Stream;
use super::request::{Claim, Claimed, IdentityKeys, Stamped};
use super::splice::Edit;
use super::wire::{Field, LENGTH, fields, put_field, text_attribute};
use bytes::Bytes;

/// An attribute as it reads.
struct Attribute<'b> {
    key: &'b [u8],
    /// `None`: no string, or no value at all.
    text: Option<&'b [u8]>,
}

fn attribute<'b>(bytes: &'b [u8], field: &Field) -> Attribute<'b> {
    let mut read = Attribute { key: b"", text: None };
    for part in fields(bytes, field.content, field.end) {
        if part.is_message(1) {
            read.key = &bytes[part.content..part.end];
        } else if part.is_message(2) {
            let text = fields(bytes, part.content, part.end).find(|choice| choice.is_message(1));
            read.text = text.map(|text| &bytes[text.content..text.end]);
        }
    }
    read
}

/// The Resource in a Resource*. The walk lets one through at most.
pub(super) fn resource_in(bytes: &[u8], envelope: &Field) -> Option<Field> {
    fields(bytes, envelope.content, envelope.end).find(|field| field.is_message(1))
}

/// The Resource* fields of a batch or request.
pub(super) fn envelopes(bytes: &[u8]) -> impl Iterator<Item = Field> {
    fields(bytes, 0, bytes.len()).filter(|field| field.is_message(1))
}

/// Its attributes with this key.
fn with_key<'b>(
    bytes: &'b [u8],
    resource: &Field,
    key: &str,
) -> impl Iterator<Item = (Field, Attribute<'b>)> {
    fields(bytes, resource.content, resource.end)
        .filter(|field| field.is_message(1))
        .map(|field| (field, attribute(bytes, &field)))
        .filter(move |(_, attribute)| attribute.key == key.as_bytes())
}

pub(super) fn claim(bytes: &[u8], envelope: &Field, keys: &IdentityKeys) -> Claim {
    let resource = resource_in(bytes, envelope);
    let claimed = |key| resource.map_or(Claimed::Absent, |resource| claimed(bytes, &resource, key));
    Claim { tenant: claimed(&keys.tenant), project: claimed(&keys.project) }
}

fn claimed(bytes: &[u8], resource: &Field, key: &str) -> Claimed {
    let mut one = None;
    for (_, attribute) in with_key(bytes, resource, key) {
        let Some(text) = attribute.text else { return Claimed::Conflict };
        if one.is_some_and(|one| one != text) {
            return Claimed::Conflict;
        }
        one = Some(text);
    }
    match one {
        None => Claimed::Absent,
        Some(text) => Claimed::One(String::from_utf8_lossy(text).into_owned()),
    }
}

/// The text of a resource attribute; of several with this key, the first.
pub(super) fn text(bytes: &[u8], envelope: &Field, key: &str) -> Option<String> {
    let resource = resource_in(bytes, envelope)?;
    let (_, attribute) = with_key(bytes, &resource, key).next()?;
    Some(String::from_utf8_lossy(attribute.text?).into_owned())
}

/// Whether the resource has each of the keys, with any value.
pub(super) fn presence(bytes: &[u8], envelope: &Field, keys: &IdentityKeys) -> [bool; 2] {
    let resource = resource_in(bytes, envelope);
    [&keys.tenant, &keys.project]
        .map(|key| resource.is_some_and(|resource| with_key(bytes, &resource, key).next().is_some()))
}

/// The edits that put one resource right. `adds` says for each key whether it is added where it is absent.
pub(super) fn stamp(
    bytes: &[u8],
    envelope: &Field,
    keys: &IdentityKeys,
    stream: &Stream,
    adds: [bool; 2],
    edits: &mut Vec<Edit>,
) -> Stamped {
    let resource = resource_in(bytes, envelope);
    let mut missing = Vec::new();
    let mut is_overwritten = false;
    let wanted = [(&keys.tenant, stream.tenant.as_str()), (&keys.project, stream.project.as_str())];
    let first = edits.len();
    for ((key, text), add) in wanted.into_iter().zip(adds) {
        match resource.map_or(Standing::Absent, |resource| right(bytes, &resource, key, text, edits)) {
            Standing::Right => {}
            Standing::Wrong => is_overwritten = true,
            Standing::Absent if add => missing.extend(text_attribute(1, key, text)),
            Standing::Absent => {}
        }
    }
    let is_added = !missing.is_empty();
    if is_added {
        edits.push(addition(envelope, resource, missing));
    }
    edits[first..].sort_by_key(super::splice::place);
    Stamped { overwritten: u32::from(is_overwritten), added: u32::from(is_added) }
}

/// How a key stands in a resource.
enum Standing {
    Absent,
    Right,
    Wrong,
}

/// Overwrites the first attribute with this key and removes the others, unless all is right.
fn right(bytes: &[u8], resource: &Field, key: &str, text: &str, edits: &mut Vec<Edit>) -> Standing {
    let mut all = with_key(bytes, resource, key);
    let Some((first, attribute)) = all.next() else { return Standing::Absent };
    let mut others = all.map(|(field, _)| field).peekable();
    if attribute.text == Some(text.as_bytes()) && others.peek().is_none() {
        return Standing::Right;
    }
    let owner = resource.content;
    let with = text_attribute(1, key, text).into();
    edits.push(Edit { owner, range: first.start..first.end, is_content: false, with });
    edits.extend(others.map(|other| removal(owner, &other)));
    Standing::Wrong
}

/// The edit that removes a field.
pub(super) fn removal(owner: usize, field: &Field) -> Edit {
    Edit { owner, range: field.start..field.end, is_content: false, with: Bytes::new() }
}

fn addition(envelope: &Field, resource: Option<Field>, attributes: Vec<u8>) -> Edit {
    let insertion =
        |owner, at: usize, with: Vec<u8>| Edit { owner, range: at..at, is_content: false, with: with.into() };
    match resource.filter(|resource| resource.wire == LENGTH) {
        Some(resource) => insertion(resource.content, resource.end, attributes),
        None => {
            let mut with = Vec::with_capacity(attributes.len() + 6);
            put_field(&mut with, 1, &attributes);
            insertion(envelope.content, envelope.content, with)
        }
    }
}
