//! Protobuf to OTLP/JSON, by the same table.
//!
//! For bytes that the checked walk took; on any others it leaves out what it cannot read. What stands in the protobuf
//! stands in the JSON, in the order of the table; fields that nobody knows have no name there and are left out. Ids are
//! hexadecimal, integers of 64 bits are strings, NaN and the infinities too: nothing that is known is lost.
//!
//! Source: OTLP specification, "JSON Protobuf Encoding".

use super::super::wire::{FIXED64, Field as Wire, LENGTH, VARINT, fields_of, varint};
use super::schema::{Field, Kind, Message};
use base64::prelude::{BASE64_STANDARD, Engine};
use std::borrow::Cow;
use std::fmt::Write;

const FIXED32: u8 = 5;

/// The message as one line of JSON.
pub(crate) fn of_protobuf(message: &'static Message, bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    write_message(&mut out, message, bytes);
    out
}

/// The same as a tree, to look into.
pub(crate) fn value_of(message: &'static Message, bytes: &[u8]) -> serde_json::Value {
    let text = of_protobuf(message, bytes);
    let mut reader = serde_json::Deserializer::from_str(&text);
    // The checked walk bounds the nesting.
    reader.disable_recursion_limit();
    serde::Deserialize::deserialize(&mut reader).expect("what was written is JSON")
}

/// How many fields of these bytes the message does not know, and how many it does: to tell what they are.
pub(crate) fn strangeness(message: &'static Message, bytes: &[u8]) -> (usize, usize) {
    let (mut strange, mut known) = (0, 0);
    for wire in fields_of(bytes) {
        match message.fields.iter().find(|field| field.number == wire.number && fits(field, wire.wire)) {
            None => strange += 1,
            Some(field) => {
                known += 1;
                if let Kind::Message(inner) = field.kind {
                    let inside = strangeness(inner, wire.of(bytes));
                    (strange, known) = (strange + inside.0, known + inside.1);
                }
            }
        }
    }
    (strange, known)
}

fn write_message(out: &mut String, message: &'static Message, bytes: &[u8]) {
    out.push('{');
    // Of a choice the last one on the wire counts.
    let is_rival = |wire: &Wire| {
        message
            .fields
            .iter()
            .any(|field| field.is_choice && field.number == wire.number && fits(field, wire.wire))
    };
    let chosen = match message.fields.iter().any(|field| field.is_choice) {
        true => fields_of(bytes).filter(is_rival).last().map(|wire| wire.number),
        false => None,
    };
    let mut is_first = true;
    for field in message.fields {
        if field.is_choice && chosen != Some(field.number) {
            continue;
        }
        let mut found =
            fields_of(bytes).filter(|wire| wire.number == field.number && fits(field, wire.wire)).peekable();
        if found.peek().is_none() {
            continue;
        }
        if !std::mem::take(&mut is_first) {
            out.push(',');
        }
        let _ = write!(out, "\"{}\":", field.name);
        match field.is_list {
            true => write_list(out, field, bytes, found),
            false => write_one(out, field, bytes, found),
        }
    }
    out.push('}');
}

fn write_list(out: &mut String, field: &Field, bytes: &[u8], found: impl Iterator<Item = Wire>) {
    out.push('[');
    let mut is_first = true;
    let mut comma = |out: &mut String| {
        if !std::mem::take(&mut is_first) {
            out.push(',');
        }
    };
    for wire in found {
        if wire.wire != LENGTH || is_of_length(field.kind) {
            comma(out);
            write_value(out, field.kind, wire.wire, wire.of(bytes));
            continue;
        }
        let mut packed = wire.of(bytes);
        while let Some((value, rest)) = first_of(field.kind, packed) {
            comma(out);
            write_value(out, field.kind, wire_of(field.kind), value);
            packed = rest;
        }
    }
    out.push(']');
}

/// A message that stands in parts is their concatenation; of anything else the last one counts.
fn write_one(out: &mut String, field: &Field, bytes: &[u8], found: impl Iterator<Item = Wire>) {
    let mut content: Cow<'_, [u8]> = Cow::Borrowed(&[]);
    let mut wire_type = wire_of(field.kind);
    for wire in found {
        wire_type = wire.wire;
        match field.kind {
            Kind::Message(_) if !content.is_empty() => content.to_mut().extend_from_slice(wire.of(bytes)),
            _ => content = Cow::Borrowed(wire.of(bytes)),
        }
    }
    write_value(out, field.kind, wire_type, &content);
}

fn write_value(out: &mut String, kind: Kind, wire: u8, content: &[u8]) {
    let number = number_of(wire, content);
    let written = match kind {
        Kind::Message(message) => return write_message(out, message, content),
        Kind::Text => return write_text(out, &String::from_utf8_lossy(content)),
        Kind::Hex => return write_hex(out, content),
        Kind::Base64 => write!(out, "\"{}\"", BASE64_STANDARD.encode(content)),
        Kind::Bool => write!(out, "{}", number != 0),
        Kind::Int64 | Kind::Sfixed64 => write!(out, "\"{}\"", number.cast_signed()),
        Kind::Uint64 | Kind::Fixed64 => write!(out, "\"{number}\""),
        // The upper half of a varint is the sign again, or nothing.
        Kind::Enum | Kind::Int32 => write!(out, "{}", (number as u32).cast_signed()),
        Kind::Sint32 => {
            let number = number as u32;
            write!(out, "{}", (number >> 1).cast_signed() ^ -(number & 1).cast_signed())
        }
        Kind::Uint32 | Kind::Fixed32 => write!(out, "{}", number as u32),
        Kind::Double => return write_double(out, f64::from_bits(number)),
    };
    // A string takes all that there is memory for.
    let _ = written;
}

fn write_text(out: &mut String, text: &str) {
    out.push('"');
    let mut from = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && !matches!(byte, b'"' | b'\\' | 0x7f) {
            continue;
        }
        out.push_str(&text[from..at]);
        from = at + 1;
        let _ = match byte {
            b'"' => out.write_str("\\\""),
            b'\\' => out.write_str("\\\\"),
            b'\n' => out.write_str("\\n"),
            b'\r' => out.write_str("\\r"),
            b'\t' => out.write_str("\\t"),
            other => write!(out, "\\u{other:04x}"),
        };
    }
    out.push_str(&text[from..]);
    out.push('"');
}

fn write_hex(out: &mut String, bytes: &[u8]) {
    out.push('"');
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
    out.push('"');
}

fn write_double(out: &mut String, number: f64) {
    let _ = match number {
        number if number.is_nan() => out.write_str("\"NaN\""),
        f64::INFINITY => out.write_str("\"Infinity\""),
        f64::NEG_INFINITY => out.write_str("\"-Infinity\""),
        number => write!(out, "{number:?}"),
    };
}

/// The bits of a value; 0 where they are cut.
fn number_of(wire: u8, content: &[u8]) -> u64 {
    match wire {
        VARINT => varint(content, 0).map_or(0, |(number, _)| number),
        FIXED64 => content.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)),
        FIXED32 => content.first_chunk().map_or(0, |bytes| u64::from(u32::from_le_bytes(*bytes))),
        _ => 0,
    }
}

/// The first of packed values, and the others.
fn first_of(kind: Kind, packed: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = match wire_of(kind) {
        VARINT => varint(packed, 0)?.1,
        FIXED64 => 8,
        _ => 4,
    };
    packed.split_at_checked(length).filter(|(value, _)| !value.is_empty())
}

fn fits(field: &Field, wire: u8) -> bool {
    wire == wire_of(field.kind) || wire == LENGTH && field.is_list && !is_of_length(field.kind)
}

fn is_of_length(kind: Kind) -> bool {
    wire_of(kind) == LENGTH
}

fn wire_of(kind: Kind) -> u8 {
    match kind {
        Kind::Text | Kind::Hex | Kind::Base64 | Kind::Message(_) => LENGTH,
        Kind::Fixed64 | Kind::Sfixed64 | Kind::Double => FIXED64,
        Kind::Fixed32 => FIXED32,
        Kind::Bool | Kind::Int64 | Kind::Uint64 | Kind::Uint32 | Kind::Enum | Kind::Int32 | Kind::Sint32 => {
            VARINT
        }
    }
}
