//! Values of any type as the text of a label, and numbers as Prometheus writes them.
//!
//! Texts stand in the bytes and are not copied; the others are written to a buffer: numbers as ECMAScript prints them,
//! bytes in base64, arrays and maps as JSON with their keys in order.
//! Source: OpenTelemetry specification, "Representing attribute values as strings".

use crate::batch::wire::{FIXED64, Field, LENGTH, VARINT, fields_of, fixed64, varint};
use base64::prelude::{BASE64_STANDARD, Engine};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Range;

/// The walk lets at most 64 levels through.
const DEPTH_MAX: u32 = 100;

/// A text that stands in the bytes, or was written to a buffer.
#[derive(Clone, Debug)]
pub(super) enum Text<'b> {
    Here(&'b [u8]),
    Made(Range<usize>),
}

impl<'b> Text<'b> {
    pub(super) fn of<'t>(&'t self, made: &'t str) -> &'t [u8]
    where
        'b: 't,
    {
        match self {
            Text::Here(bytes) => bytes,
            Text::Made(range) => made.as_bytes().get(range.clone()).unwrap_or_default(),
        }
    }
}

/// The text of a value, given the content of its AnyValue.
#[inline]
pub(super) fn text_of<'b>(value: &'b [u8], made: &mut String) -> Text<'b> {
    const TEXT: u8 = 1 << 3 | LENGTH;
    // Almost all values are short strings.
    if let [TEXT, length @ 0..0x80, text @ ..] = value
        && text.len() == usize::from(*length)
        && text.is_ascii()
    {
        return Text::Here(text);
    }
    other_text(value, made)
}

#[inline(never)]
fn other_text<'b>(value: &'b [u8], made: &mut String) -> Text<'b> {
    let Some((field, content)) = choice(value) else { return Text::Here(b"") };
    let start = made.len();
    match field.number {
        1 => match std::str::from_utf8(content) {
            Ok(text) => return Text::Here(text.as_bytes()),
            // The walk mends texts; whatever came another way is mended here.
            Err(_) => made.push_str(&String::from_utf8_lossy(content)),
        },
        4 => put_number(made, f64::from_bits(fixed64(value, &field))),
        7 => BASE64_STANDARD.encode_string(content, made),
        _ => put_json(made, value, 0),
    }
    Text::Made(start..made.len())
}

/// The field of an AnyValue that counts, and its content if it has a length.
fn choice(value: &[u8]) -> Option<(Field, &[u8])> {
    let known = |field: &Field| {
        matches!((field.number, field.wire), (1 | 5 | 6 | 7, LENGTH) | (2 | 3, VARINT) | (4, FIXED64))
    };
    let field = fields_of(value).filter(known).last()?;
    Some((field, field.of(value)))
}

fn put_json(out: &mut String, value: &[u8], depth: u32) {
    let Some((field, content)) = choice(value).filter(|_| depth < DEPTH_MAX) else {
        return out.push_str("null");
    };
    let number = || varint(value, field.content).map_or(0, |(number, _)| number);
    match field.number {
        1 => put_json_text(out, content),
        2 => out.push_str(if number() != 0 { "true" } else { "false" }),
        3 => put(out, number().cast_signed()),
        4 => put_json_number(out, f64::from_bits(fixed64(value, &field))),
        5 => {
            out.push('[');
            let start = out.len();
            for item in fields_of(content).filter(|item| item.is_message(1)) {
                put_comma(out, start);
                put_json(out, item.of(content), depth + 1);
            }
            out.push(']');
        }
        6 => put_json_map(out, content, depth),
        _ => {
            out.push('"');
            BASE64_STANDARD.encode_string(content, out);
            out.push('"');
        }
    }
}

fn put_json_map(out: &mut String, content: &[u8], depth: u32) {
    // Of a key that comes twice the last one counts, as in the maps of other readers.
    let map: BTreeMap<&[u8], &[u8]> = fields_of(content)
        .filter(|entry| entry.is_message(1))
        .map(|entry| key_and_value(entry.of(content)))
        .collect();
    out.push('{');
    let start = out.len();
    for (key, value) in map {
        put_comma(out, start);
        put_json_text(out, key);
        out.push(':');
        put_json(out, value, depth + 1);
    }
    out.push('}');
}

fn put_comma(out: &mut String, start: usize) {
    if out.len() > start {
        out.push(',');
    }
}

/// Key and AnyValue of a KeyValue.
#[inline]
pub(super) fn key_and_value(pair: &[u8]) -> (&[u8], &[u8]) {
    const KEY: u8 = 1 << 3 | LENGTH;
    const VALUE: u8 = 2 << 3 | LENGTH;
    // Almost all have a short key and a short value, in this order, and nothing else.
    if let [KEY, key_bytes @ 0..0x80, rest @ ..] = pair
        && let Some((key, [VALUE, value_bytes @ 0..0x80, value @ ..])) =
            rest.split_at_checked(usize::from(*key_bytes))
        && value.len() == usize::from(*value_bytes)
    {
        return (key, value);
    }
    let (mut key, mut value) = (&[][..], &[][..]);
    for field in fields_of(pair) {
        match (field.number, field.wire) {
            (1, LENGTH) => key = field.of(pair),
            (2, LENGTH) => value = field.of(pair),
            _ => {}
        }
    }
    (key, value)
}

fn put_json_text(out: &mut String, text: &[u8]) {
    out.push('"');
    for c in String::from_utf8_lossy(text).chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\u{0}'..='\u{1f}' | '\u{2028}' | '\u{2029}' => put(out, format_args!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// JSON has no form for what is no number.
fn put_json_number(out: &mut String, number: f64) {
    let quote = if number.is_finite() { "" } else { "\"" };
    out.push_str(quote);
    put_number(out, number);
    out.push_str(quote);
}

/// As ECMAScript's `Number::toString`: the fewest digits that read back as the same number, with an exponent below 1e-6
/// and from 1e21 on.
fn put_number(out: &mut String, number: f64) {
    let size = number.abs();
    if number.is_infinite() {
        out.push_str(if number < 0.0 { "-Infinity" } else { "Infinity" });
    } else if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{number:e}");
        // There a positive exponent has its sign.
        out.push_str(&if size >= 1e21 { text.replace('e', "e+") } else { text });
    } else {
        put(out, number);
    }
}

/// The value of `le` or `quantile`: the fewest digits, never an exponent.
pub(super) fn put_bound(out: &mut String, number: f64) {
    match number {
        f64::INFINITY => out.push_str("+Inf"),
        f64::NEG_INFINITY => out.push_str("-Inf"),
        number => put(out, number),
    }
}

fn put(out: &mut String, value: impl std::fmt::Display) {
    write!(out, "{value}").expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};
    use prost::Message;

    fn check(value: Value, expected: &str) {
        let bytes = AnyValue { value: Some(value) }.encode_to_vec();
        let mut made = "before".to_owned();
        let text = text_of(&bytes, &mut made);
        assert_eq!(std::str::from_utf8(text.of(&made)).unwrap(), expected);
    }

    fn any(value: Value) -> AnyValue {
        AnyValue { value: Some(value) }
    }

    #[test]
    fn values_of_any_type_have_a_text() {
        check(Value::StringValue("plain".into()), "plain");
        check(Value::StringValue("größe".into()), "größe");
        check(Value::StringValue("x".repeat(300)), &"x".repeat(300));
        check(Value::StringValue(String::new()), "");
        check(Value::BoolValue(true), "true");
        check(Value::BoolValue(false), "false");
        check(Value::IntValue(i64::MIN), "-9223372036854775808");
        check(Value::BytesValue(vec![0, 255, 1]), "AP8B");
        check(Value::BytesValue(vec![]), "");
    }

    #[test]
    fn doubles_are_written_as_ecmascript_does() {
        for (number, expected) in [
            (0.0, "0"),
            (1.0, "1"),
            (0.1, "0.1"),
            (-2.5, "-2.5"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1.5e300, "1.5e+300"),
            (1e-6, "0.000001"),
            (1e-7, "1e-7"),
            (2.5e-10, "2.5e-10"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "Infinity"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            check(Value::DoubleValue(number), expected);
        }
    }

    #[test]
    fn arrays_and_maps_are_json_with_keys_in_order() {
        let pair = |key: &str, value| KeyValue { key: key.into(), value: Some(value), ..Default::default() };
        let list = vec![
            any(Value::StringValue("a\"\\<\n\u{1}\u{2028}".into())),
            any(Value::IntValue(7)),
            AnyValue { value: None },
            any(Value::DoubleValue(f64::NAN)),
            any(Value::BytesValue(vec![0, 255, 1])),
        ];
        check(
            Value::ArrayValue(ArrayValue { values: list }),
            r#"["a\"\\<\n\u0001\u2028",7,null,"NaN","AP8B"]"#,
        );
        let map = vec![
            pair("b", any(Value::BoolValue(true))),
            pair("a", any(Value::IntValue(1))),
            pair("b", any(Value::BoolValue(false))),
        ];
        check(Value::KvlistValue(KeyValueList { values: map }), r#"{"a":1,"b":false}"#);
        check(Value::ArrayValue(ArrayValue { values: vec![] }), "[]");
    }

    #[test]
    fn what_is_no_value_is_empty_and_what_is_not_utf_8_is_mended() {
        let mut made = String::new();
        for bytes in [&b""[..], b"\x12", b"\xff\xff", &[0x40, 1]] {
            let text = text_of(bytes, &mut made);
            assert_eq!(text.of(&made), b"", "{bytes:?}");
        }
        let text = text_of(b"\x0a\x02\xffa", &mut made);
        assert_eq!(text.of(&made), "\u{fffd}a".as_bytes());
    }

    #[test]
    fn bounds_are_written_as_prometheus_writes_them() {
        for (number, expected) in [
            (1.0, "1"),
            (0.005, "0.005"),
            (1e21, "1000000000000000000000"),
            (1e-7, "0.0000001"),
            (-1.0, "-1"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            let mut text = String::new();
            put_bound(&mut text, number);
            assert_eq!(text, expected);
        }
    }
}
