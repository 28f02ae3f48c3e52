//! OTLP/JSON to protobuf, in one pass and without a tree; `write.rs` is the way back.
//!
//! serde_json reads the text, a table of OTLP's messages says what each name means, and the protobuf bytes are
//! written as the values come. The output, the nesting and the text of an error are bounded; no input panics. Strings
//! are copied as they are: a lone surrogate, which JavaScript writes, becomes bytes that are no UTF-8 and is mended
//! where all such strings are.
//!
//! Source: OTLP specification, "JSON Protobuf Encoding"; the proto3 JSON mapping for what it leaves open: `null` is
//! absent, numbers may be strings, "NaN" and "Infinity" are doubles, base64 comes in both alphabets.

mod schema;
mod write;

pub(crate) use schema::{LOGS, METRICS, Message, TRACES};
pub(crate) use write::{of_protobuf, strangeness, value_of};

use super::Signal;
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use schema::{Field, Kind};
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};
use std::fmt;

/// Arrays and maps inside each other, as many as the checked walk takes. Nothing else in OTLP nests without bound.
const NESTING_MAX: usize = 64;
/// Of a text that stood where it should not.
const SHOWN_CHARS: usize = 40;

/// The Export*ServiceRequest of a signal.
pub(crate) fn request_of(signal: Signal) -> &'static Message {
    match signal {
        Signal::Logs => &LOGS,
        Signal::Traces => &TRACES,
        Signal::Metrics => &METRICS,
    }
}

/// Why a text is no request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `field` is a path like `resourceLogs[0].scopeLogs`; `problem` says what stood there, what would be right, and
    /// line and column.
    Malformed { field: String, problem: String },
    /// The protobuf would be larger than the limit.
    TooLarge,
}

/// The request of this message, as protobuf of at most `bytes_max` bytes.
pub(crate) fn to_protobuf(
    message: &'static Message,
    text: &[u8],
    bytes_max: usize,
) -> Result<Vec<u8>, Fault> {
    let mut writer = Writer { out: Vec::new(), bytes_max, path: Vec::new(), nesting: 0, is_too_large: false };
    let mut reader = serde_json::Deserializer::from_slice(text);
    // Its own limit is less than ours comes to in JSON. Fields that nobody knows are skipped without recursion.
    reader.disable_recursion_limit();
    let read =
        Item { kind: Kind::Message(message), number: None, writer: &mut writer }.deserialize(&mut reader);
    match read.and_then(|()| reader.end()) {
        Ok(()) => Ok(writer.out),
        Err(_) if writer.is_too_large => Err(Fault::TooLarge),
        Err(error) => Err(Fault::Malformed { field: writer.path_text(), problem: error.to_string() }),
    }
}

/// The protobuf so far, and where in the JSON we are.
struct Writer {
    out: Vec<u8>,
    bytes_max: usize,
    /// Not unwound after an error: it then says where.
    path: Vec<Step>,
    nesting: usize,
    is_too_large: bool,
}

#[derive(Clone, Copy)]
enum Step {
    Name(&'static str),
    At(usize),
}

impl Writer {
    fn path_text(&self) -> String {
        let mut text = String::new();
        for step in &self.path {
            match step {
                Step::Name(name) if text.is_empty() => text.push_str(name),
                Step::Name(name) => text.extend([".", name]),
                Step::At(at) => text.push_str(&format!("[{at}]")),
            }
        }
        if text.is_empty() { "the top".into() } else { text }
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.out.push((number as u8) | 0x80);
            number >>= 7;
        }
        self.out.push(number as u8);
    }

    fn tag(&mut self, number: Option<u32>, wire_type: u32) {
        if let Some(number) = number {
            self.varint(u64::from(number << 3 | wire_type));
        }
    }

    /// A field whose length is known.
    fn bytes(&mut self, number: Option<u32>, bytes: &[u8]) {
        self.tag(number, 2);
        self.varint(bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    /// A field whose length comes with [`Writer::close`]: one byte is left for it, since most are short.
    fn open(&mut self, number: u32) -> usize {
        self.tag(Some(number), 2);
        self.out.push(0);
        self.out.len()
    }

    fn close(&mut self, start: usize) {
        let length = self.out.len() - start;
        let more = (usize::BITS - length.leading_zeros()).div_ceil(7).max(1) as usize - 1;
        self.out.resize(self.out.len() + more, 0);
        self.out.copy_within(start..start + length, start + more);
        let mut left = length;
        for at in start - 1..start + more {
            let is_last = at == start + more - 1;
            self.out[at] = (left as u8 & 0x7f) | if is_last { 0 } else { 0x80 };
            left >>= 7;
        }
    }

    /// To be asked before anything is written that the text does not bound.
    fn check<E: de::Error>(&mut self) -> Result<(), E> {
        if self.out.len() <= self.bytes_max {
            return Ok(());
        }
        self.is_too_large = true;
        Err(E::custom("too large"))
    }
}

/// What may stand in a field: a value, a list, or `null` for neither. True where something stood.
struct Slot<'w> {
    field: &'static Field,
    writer: &'w mut Writer,
}

impl<'de> DeserializeSeed<'de> for Slot<'_> {
    type Value = bool;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Slot<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value or null")
    }

    fn visit_none<E: de::Error>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_unit<E: de::Error>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        let Slot { field, writer } = self;
        writer.path.push(Step::Name(field.name));
        if field.is_list {
            deserializer.deserialize_any(List { field, writer: &mut *writer })?;
        } else {
            let number = Some(field.number);
            Item { kind: field.kind, number, writer: &mut *writer }.deserialize(deserializer)?;
        }
        writer.path.pop();
        Ok(true)
    }
}

/// A repeated field.
struct List<'w> {
    field: &'static Field,
    writer: &'w mut Writer,
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        Err(wrong(text.as_bytes(), &self))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Field { kind, number, .. } = *self.field;
        let writer = self.writer;
        // Numbers are packed: one field for all of them.
        let packed = !matches!(kind, Kind::Text | Kind::Message(_));
        let before = writer.out.len();
        let start = packed.then(|| writer.open(number));
        for at in 0.. {
            writer.path.push(Step::At(at));
            let number = (!packed).then_some(number);
            if list.next_element_seed(Item { kind, number, writer: &mut *writer })?.is_none() {
                break;
            }
            writer.path.pop();
        }
        writer.path.pop();
        match start {
            Some(start) if writer.out.len() == start => writer.out.truncate(before),
            Some(start) => writer.close(start),
            None => {}
        }
        Ok(())
    }
}

/// One value. `number` is `None` at the top and in a packed list.
struct Item<'w> {
    kind: Kind,
    number: Option<u32>,
    writer: &'w mut Writer,
}

impl<'de> DeserializeSeed<'de> for Item<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.kind {
            // As bytes: lone surrogates pass, and nothing is checked twice.
            Kind::Text | Kind::Hex | Kind::Base64 => deserializer.deserialize_bytes(self),
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Item<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Text => "a string",
            Kind::Hex => "pairs of hexadecimal digits",
            Kind::Base64 => "a base64 string",
            Kind::Bool => "true or false",
            Kind::Enum => "the number of an enum (OTLP/JSON takes no names)",
            Kind::Int64 | Kind::Sfixed64 => "an integer of 64 bits, as number or string",
            Kind::Uint64 | Kind::Fixed64 => "an integer of 64 bits, not negative, as number or string",
            Kind::Int32 | Kind::Sint32 => "an integer of 32 bits",
            Kind::Uint32 | Kind::Fixed32 => "an integer of 32 bits, not negative",
            Kind::Double => "a number, \"NaN\", \"Infinity\" or \"-Infinity\"",
            Kind::Message(_) => "an object",
        })
    }

    fn visit_bool<E: de::Error>(self, is_so: bool) -> Result<(), E> {
        if !matches!(self.kind, Kind::Bool) {
            return Err(E::invalid_type(Unexpected::Bool(is_so), &self));
        }
        self.writer.check()?;
        self.writer.tag(self.number, 0);
        self.writer.out.push(u8::from(is_so));
        Ok(())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<(), E> {
        match self.kind {
            Kind::Double => self.double(number as f64),
            _ => self.integer(i128::from(number), Unexpected::Unsigned(number)),
        }
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<(), E> {
        match self.kind {
            Kind::Double => self.double(number as f64),
            _ => self.integer(i128::from(number), Unexpected::Signed(number)),
        }
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<(), E> {
        match (self.kind, whole(number)) {
            (Kind::Double, _) => self.double(number),
            (_, Some(integer)) => self.integer(integer, Unexpected::Float(number)),
            (_, None) => Err(E::invalid_type(Unexpected::Float(number), &self)),
        }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        match self.kind {
            Kind::Double => match double_of(text) {
                Some(number) => self.double(number),
                None => Err(wrong(text.as_bytes(), &self)),
            },
            Kind::Bool | Kind::Enum | Kind::Message(_) => Err(wrong(text.as_bytes(), &self)),
            _ => match text.parse().ok().or_else(|| double_of(text).and_then(whole)) {
                Some(integer) => self.integer(integer, Unexpected::Other("an integer out of range")),
                None => Err(wrong(text.as_bytes(), &self)),
            },
        }
    }

    fn visit_bytes<E: de::Error>(self, text: &[u8]) -> Result<(), E> {
        self.writer.check()?;
        let decoded = match self.kind {
            Kind::Text => {
                self.writer.bytes(self.number, text);
                return Ok(());
            }
            Kind::Hex => hex(text),
            Kind::Base64 => base64(text),
            _ => None,
        };
        let Some(bytes) = decoded else { return Err(wrong(text, &self)) };
        self.writer.bytes(self.number, &bytes);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Kind::Message(message) = self.kind else {
            return Err(de::Error::invalid_type(Unexpected::Map, &self));
        };
        let writer = self.writer;
        writer.check()?;
        let nests =
            std::ptr::eq(message, &schema::ARRAY_VALUE) || std::ptr::eq(message, &schema::KEY_VALUE_LIST);
        if nests && writer.nesting == NESTING_MAX {
            return Err(de::Error::custom(format!("expected at most {NESTING_MAX} levels of nested values")));
        }
        writer.nesting += usize::from(nests);
        let start = self.number.map(|number| writer.open(number));
        let mut stood = 0u32;
        while let Some(found) = map.next_key_seed(Name(message))? {
            let Some(at) = found else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let field = &message.fields[at];
            if map.next_value_seed(Slot { field, writer: &mut *writer })? {
                note(message, at, &mut stood).map_err(de::Error::custom)?;
            }
        }
        if let Some(start) = start {
            writer.close(start);
        }
        writer.nesting -= usize::from(nests);
        Ok(())
    }
}

impl Item<'_> {
    fn double<E: de::Error>(self, number: f64) -> Result<(), E> {
        self.writer.check()?;
        self.writer.tag(self.number, 1);
        self.writer.out.extend_from_slice(&number.to_le_bytes());
        Ok(())
    }

    fn integer<E: de::Error>(mut self, number: i128, found: Unexpected<'_>) -> Result<(), E> {
        self.writer.check()?;
        match (self.write_integer(number), self.kind) {
            (Some(()), _) => Ok(()),
            (None, Kind::Bool | Kind::Message(_)) => Err(E::invalid_type(found, &self)),
            (None, _) => Err(E::invalid_value(found, &self)),
        }
    }

    /// `None` where it does not fit, or where no integer belongs.
    fn write_integer(&mut self, number: i128) -> Option<()> {
        let Item { kind, number: field, writer } = self;
        match kind {
            Kind::Int64 => {
                let number = i64::try_from(number).ok()?;
                writer.tag(*field, 0);
                writer.varint(number as u64);
            }
            Kind::Enum | Kind::Int32 => {
                let number = i64::from(i32::try_from(number).ok()?);
                writer.tag(*field, 0);
                // Negative ones take ten bytes in protobuf.
                writer.varint(number as u64);
            }
            Kind::Sint32 => {
                let number = i32::try_from(number).ok()?;
                writer.tag(*field, 0);
                writer.varint(u64::from(((number << 1) ^ (number >> 31)) as u32));
            }
            Kind::Uint32 => {
                let number = u32::try_from(number).ok()?;
                writer.tag(*field, 0);
                writer.varint(u64::from(number));
            }
            Kind::Uint64 => {
                let number = u64::try_from(number).ok()?;
                writer.tag(*field, 0);
                writer.varint(number);
            }
            Kind::Fixed32 => {
                let number = u32::try_from(number).ok()?;
                writer.tag(*field, 5);
                writer.out.extend_from_slice(&number.to_le_bytes());
            }
            Kind::Fixed64 => {
                let number = u64::try_from(number).ok()?;
                writer.tag(*field, 1);
                writer.out.extend_from_slice(&number.to_le_bytes());
            }
            Kind::Sfixed64 => {
                let number = i64::try_from(number).ok()?;
                writer.tag(*field, 1);
                writer.out.extend_from_slice(&number.to_le_bytes());
            }
            Kind::Text | Kind::Hex | Kind::Base64 | Kind::Bool | Kind::Double | Kind::Message(_) => {
                return None;
            }
        }
        Some(())
    }
}

/// Two values for one field, or for one choice, would leave it to chance which one counts.
fn note(message: &Message, at: usize, stood: &mut u32) -> Result<(), String> {
    let field = &message.fields[at];
    let rivals = message.fields.iter().enumerate().filter(|(_, other)| field.is_choice && other.is_choice);
    let mask = rivals.fold(1u32 << at, |mask, (other, _)| mask | 1 << other);
    if *stood & mask == 0 {
        *stood |= 1 << at;
        return Ok(());
    }
    Err(if *stood & 1 << at != 0 {
        format!("`{}` stands twice", field.name)
    } else {
        format!("`{}` stands beside another value, expected one", field.name)
    })
}

/// The field of this name; unknown ones are ignored.
struct Name(&'static Message);

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Option<usize>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_bytes<E: de::Error>(self, name: &[u8]) -> Result<Option<usize>, E> {
        Ok(self.0.fields.iter().position(|field| field.name.as_bytes() == name))
    }
}

/// What stood there, cut to a length that is fit to print.
fn wrong<E: de::Error>(text: &[u8], expected: &dyn de::Expected) -> E {
    // A character takes four bytes at most.
    let head = String::from_utf8_lossy(&text[..text.len().min(4 * SHOWN_CHARS)]);
    let shown: String = head.chars().take(SHOWN_CHARS).flat_map(char::escape_debug).collect();
    let dots = if head.chars().count() > SHOWN_CHARS { "…" } else { "" };
    E::invalid_value(Unexpected::Other(&format!("string \"{shown}{dots}\"")), expected)
}

/// A float that stands for an integer. Beyond 2^53 neighbours are lost, so that none is meant.
fn whole(number: f64) -> Option<i128> {
    (number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0).then_some(number as i128)
}

fn double_of(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        // Rust knows more names of infinity than JSON does.
        _ if text.bytes().any(|byte| byte.is_ascii_digit()) => {
            text.parse().ok().filter(|number: &f64| number.is_finite())
        }
        _ => None,
    }
}

fn hex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (pairs, odd) = text.as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| u8::try_from(digit(*high)? << 4 | digit(*low)?).ok());
    bytes.collect::<Option<Vec<u8>>>().filter(|_| odd.is_empty())
}

fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let is_url_safe = text.iter().any(|byte| matches!(byte, b'-' | b'_'));
    let alphabet = if is_url_safe { &alphabet::URL_SAFE } else { &alphabet::STANDARD };
    GeneralPurpose::new(alphabet, lenient).decode(text).ok()
}

#[cfg(test)]
mod tests;
