//! The reader against opentelemetry-proto's serde, and against the specification where that one deviates.

use super::*;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValueList};
use proptest::prelude::*;
use serde::de::DeserializeOwned;

const MANY: usize = 64 << 20;

/// What we make of it, decoded again.
fn ours<T: prost::Message + Default>(message: &'static Message, text: &str) -> T {
    let bytes =
        to_protobuf(message, text.as_bytes(), MANY).unwrap_or_else(|fault| panic!("{fault:?}: {text}"));
    T::decode(bytes.as_slice()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn same<T>(message: &'static Message, text: &str)
where
    T: prost::Message + Default + DeserializeOwned + PartialEq,
{
    let theirs: T = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    // Encoded, since NaN is not equal to itself.
    assert_eq!(ours::<T>(message, text).encode_to_vec(), theirs.encode_to_vec(), "{text}");
}

/// Found by the fuzz target: read with an error of one in the last place.
#[test]
fn a_double_is_the_nearest_to_its_text() {
    for text in [
        "6666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666660.5",
        "6.6666666666666665e96",
        "5e-324",
        "0.1",
        "9007199254740993.0",
    ] {
        let request: ExportMetricsServiceRequest = ours(
            &METRICS,
            &format!(
                r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"histogram":{{"dataPoints":[{{"explicitBounds":[{text}]}}]}}}}]}}]}}]}}"#
            ),
        );
        let expected: f64 = text.parse().unwrap();
        let shown = format!("{:?}", request.resource_metrics[0].scope_metrics[0].metrics[0].data);
        assert!(shown.contains(&format!("explicit_bounds: [{expected:?}]")), "{text}: {shown}");
    }
}

fn record(fields: &str) -> String {
    format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{{fields}}}]}}]}}]}}"#)
}

fn span(fields: &str) -> String {
    format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{fields}}}]}}]}}]}}"#)
}

fn metric(fields: &str) -> String {
    format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{{fields}}}]}}]}}]}}"#)
}

#[test]
fn logs_read_as_the_reference_reads_them() {
    for text in [
        "{}",
        r#"{"resourceLogs":[]}"#,
        r#"{"resourceLogs":[{}]}"#,
        r#"{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}],"droppedAttributesCount":2},"schemaUrl":"https://schema.example"}]}"#,
        r#"{"resourceLogs":[{"scopeLogs":[{"scope":{"name":"lib","version":"1","attributes":[{"key":"a","value":{"boolValue":true}}],"droppedAttributesCount":1},"schemaUrl":"u"}]}]}"#,
        &record(""),
        &record(
            r#""timeUnixNano":"1544712660300000000","observedTimeUnixNano":1544712660300000000,"severityNumber":10,"severityText":"Information""#,
        ),
        &record(
            r#""traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"eee19b7ec3c1b174","flags":1,"eventName":"e""#,
        ),
        &record(r#""traceId":"","spanId":"""#),
        &record(r#""body":{"stringValue":"ünï \u00e9 \ud83d\ude00 \n"}"#),
        &record(
            r#""body":{"intValue":"-9223372036854775808"},"attributes":[{"key":"i","value":{"intValue":7}},{"key":"d","value":{"doubleValue":637.704}},{"key":"f","value":{"boolValue":false}}]"#,
        ),
        &record(
            r#""body":{"arrayValue":{"values":[{"stringValue":"many"},{"intValue":"1"},{"arrayValue":{"values":[]}}]}}"#,
        ),
        &record(
            r#""body":{"kvlistValue":{"values":[{"key":"k","value":{"stringValue":"v"}},{"key":"n","value":{"kvlistValue":{"values":[]}}}]}}"#,
        ),
        &record(r#""body":{"bytesValue":"aGVsbG8gd29ybGQ="},"droppedAttributesCount":4294967295"#),
        &record(r#""unknown":{"deep":[1,{"x":null}]},"body":{"stringValue":"known","other":1}"#),
        r#" { "resourceLogs" : [ ] , "more" : [[[[]]]] } "#,
    ] {
        same::<ExportLogsServiceRequest>(&schema::LOGS, text);
    }
}

#[test]
fn traces_read_as_the_reference_reads_them() {
    for text in [
        "{}",
        &span(
            r#""traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"EEE19B7EC3C1B174","parentSpanId":"eee19b7ec3c1b173","traceState":"ot=th:8","name":"GET /","kind":2,"startTimeUnixNano":"1","endTimeUnixNano":"2","flags":257"#,
        ),
        &span(
            r#""events":[{"timeUnixNano":"3","name":"boom","attributes":[{"key":"a","value":{"intValue":"1"}}],"droppedAttributesCount":1}],"droppedEventsCount":2"#,
        ),
        &span(
            r#""links":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","traceState":"x=1","attributes":[],"droppedAttributesCount":3,"flags":1}],"droppedLinksCount":4"#,
        ),
        &span(
            r#""status":{"message":"bad","code":2},"attributes":[{"key":"k","value":{"stringValue":"v"}}],"droppedAttributesCount":9"#,
        ),
    ] {
        same::<ExportTraceServiceRequest>(&schema::TRACES, text);
    }
}

#[test]
fn metrics_read_as_the_reference_reads_them() {
    for text in [
        "{}",
        &metric(
            r#""name":"m","description":"d","unit":"By","metadata":[{"key":"k","value":{"stringValue":"v"}}],"gauge":{"dataPoints":[{"asDouble":1.5,"timeUnixNano":"5","startTimeUnixNano":"4","attributes":[{"key":"a","value":{"stringValue":"b"}}],"flags":1}]}"#,
        ),
        &metric(
            r#""sum":{"dataPoints":[{"asInt":"-5"},{"asInt":7}],"aggregationTemporality":2,"isMonotonic":true}"#,
        ),
        &metric(
            r#""gauge":{"dataPoints":[{"asDouble":0,"exemplars":[{"timeUnixNano":"1","asDouble":3,"spanId":"eee19b7ec3c1b174","traceId":"5b8efff798038103d269b633813fc60c","filteredAttributes":[{"key":"f","value":{"intValue":"1"}}]},{"asInt":"2"}]}]}"#,
        ),
        &metric(
            r#""histogram":{"aggregationTemporality":1,"dataPoints":[{"count":"2","sum":2,"bucketCounts":["1","1"],"explicitBounds":[1],"min":0,"max":2,"timeUnixNano":"1","flags":1}]}"#,
        ),
        &metric(
            r#""exponentialHistogram":{"aggregationTemporality":1,"dataPoints":[{"count":"10","sum":100,"scale":-3,"zeroCount":"1","positive":{"offset":-2,"bucketCounts":["1","300","18446744073709551615"]},"negative":{"offset":1,"bucketCounts":[]},"zeroThreshold":0.5,"min":-1,"max":9}]}"#,
        ),
        &metric(
            r#""summary":{"dataPoints":[{"count":"4","sum":3.5,"quantileValues":[{"quantile":0.5,"value":1},{"quantile":0.9,"value":"NaN"}],"flags":1}]}"#,
        ),
    ] {
        same::<ExportMetricsServiceRequest>(&schema::METRICS, text);
    }
}

#[test]
fn what_proto3_json_allows_and_the_reference_does_not_is_read() {
    let body = |text: &str| {
        let request: ExportLogsServiceRequest = ours(&schema::LOGS, &record(&format!(r#""body":{text}"#)));
        request.resource_logs[0].scope_logs[0].log_records[0].body.clone()
    };
    let of = |value| Some(AnyValue { value: Some(value) });
    for (text, value) in [
        (r#"{"doubleValue":"Infinity"}"#, of(Value::DoubleValue(f64::INFINITY))),
        (r#"{"doubleValue":"-Infinity"}"#, of(Value::DoubleValue(f64::NEG_INFINITY))),
        (r#"{"doubleValue":"1.5e3"}"#, of(Value::DoubleValue(1500.0))),
        (r#"{"doubleValue":-7}"#, of(Value::DoubleValue(-7.0))),
        (r#"{"arrayValue":{}}"#, of(Value::ArrayValue(ArrayValue::default()))),
        (r#"{"kvlistValue":{}}"#, of(Value::KvlistValue(KeyValueList::default()))),
        (r#"{"arrayValue":{"values":null}}"#, of(Value::ArrayValue(ArrayValue::default()))),
        (r#"{"intValue":1e3}"#, of(Value::IntValue(1000))),
        (r#"{"intValue":"1e3"}"#, of(Value::IntValue(1000))),
        (r#"{"stringValue":null,"intValue":"4"}"#, of(Value::IntValue(4))),
        (r#"{"stringValue":""}"#, of(Value::StringValue(String::new()))),
        (r#"{"bytesValue":"-_8"}"#, of(Value::BytesValue(vec![0xfb, 0xff]))),
        (r#"{"bytesValue":"+/8="}"#, of(Value::BytesValue(vec![0xfb, 0xff]))),
        ("{}", Some(AnyValue { value: None })),
        (r#"{"stringValue":null}"#, Some(AnyValue { value: None })),
        ("null", None),
    ] {
        assert_eq!(body(text), value, "{text}");
    }
    let Some(Value::DoubleValue(number)) = body(r#"{"doubleValue":"NaN"}"#).unwrap().value else { panic!() };
    assert!(number.is_nan());
    for text in [
        r#"{"resourceLogs":null}"#,
        r#"{"resourceLogs":[{"resource":null,"scopeLogs":null,"schemaUrl":null}]}"#,
    ] {
        ours::<ExportLogsServiceRequest>(&schema::LOGS, text);
    }
}

#[test]
fn a_lone_surrogate_is_left_to_be_mended() {
    let text = record(r#""body":{"stringValue":"a\ud800b"}"#);
    let bytes = to_protobuf(&schema::LOGS, text.as_bytes(), MANY).unwrap();
    assert!(bytes.ends_with(b"a\xed\xa0\x80b"), "{bytes:x?}");
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (text, field, problem) in [
        ("", "the top", "EOF while parsing a value"),
        ("[]", "the top", "invalid type: sequence, expected an object"),
        ("null", "the top", "invalid type: null, expected an object"),
        ("{} {}", "the top", "trailing characters"),
        (r#"{"resourceLogs":{}}"#, "resourceLogs", "invalid type: map, expected a list"),
        (r#"{"resourceLogs":"x"}"#, "resourceLogs", r#"invalid value: string "x", expected a list"#),
        (r#"{"resourceLogs":[null]}"#, "resourceLogs[0]", "invalid type: null, expected an object"),
        (
            "{\"resourceLogs\":[{},\n 7]}",
            "resourceLogs[1]",
            "invalid type: integer `7`, expected an object at line 2 column 2",
        ),
        (
            r#"{"resourceLogs":[{"schemaUrl":5}]}"#,
            "resourceLogs[0].schemaUrl",
            "invalid type: integer `5`, expected a string",
        ),
        (r#"{"resourceLogs":[{"scopeLogs":["#, "resourceLogs[0].scopeLogs[0]", "EOF while parsing a list"),
        (r#"{"resourceLogs":[],"resourceLogs":[]}"#, "the top", "`resourceLogs` stands twice"),
    ] {
        check(text, field, problem);
    }
}

#[test]
fn values_of_a_record_are_checked() {
    let place = "resourceLogs[0].scopeLogs[0].logRecords[0]";
    for (fields, at, problem) in [
        (
            r#""severityNumber":"SEVERITY_NUMBER_INFO""#,
            ".severityNumber",
            r#"string "SEVERITY_NUMBER_INFO", expected the number of an enum (OTLP/JSON takes no names)"#,
        ),
        (r#""severityNumber":"9""#, ".severityNumber", r#"string "9", expected the number of an enum"#),
        (
            r#""severityNumber":4294967296"#,
            ".severityNumber",
            "integer `4294967296`, expected the number of an enum",
        ),
        (
            r#""timeUnixNano":-1"#,
            ".timeUnixNano",
            "integer `-1`, expected an integer of 64 bits, not negative",
        ),
        (r#""timeUnixNano":1.5"#, ".timeUnixNano", "floating point `1.5`, expected an integer"),
        (
            r#""timeUnixNano":"18446744073709551616""#,
            ".timeUnixNano",
            "an integer out of range, expected an integer",
        ),
        (r#""timeUnixNano":"soon""#, ".timeUnixNano", r#"string "soon", expected an integer"#),
        (r#""timeUnixNano":true"#, ".timeUnixNano", "boolean `true`, expected an integer"),
        (
            r#""flags":4294967296"#,
            ".flags",
            "integer `4294967296`, expected an integer of 32 bits, not negative",
        ),
        (r#""traceId":"5b8"#, ".traceId", "EOF while parsing a string"),
        (r#""traceId":"5b8""#, ".traceId", r#"string "5b8", expected pairs of hexadecimal digits"#),
        (r#""traceId":"zz""#, ".traceId", r#"string "zz", expected pairs of hexadecimal digits"#),
        (r#""traceId":[1,2]"#, ".traceId", "invalid type: sequence, expected pairs of hexadecimal digits"),
        (r#""body":"text""#, ".body", r#"string "text", expected an object"#),
        (r#""body":{"boolValue":"true"}"#, ".body.boolValue", r#"string "true", expected true or false"#),
        (r#""body":{"boolValue":1}"#, ".body.boolValue", "integer `1`, expected true or false"),
        (
            r#""body":{"doubleValue":"inf"}"#,
            ".body.doubleValue",
            r#"string "inf", expected a number, "NaN", "Infinity""#,
        ),
        (r#""body":{"bytesValue":"?"}"#, ".body.bytesValue", r#"string "?", expected a base64 string"#),
        (
            r#""body":{"intValue":"1","stringValue":"1"}"#,
            ".body",
            "`stringValue` stands beside another value",
        ),
        (r#""attributes":{"a":"b"}"#, ".attributes", "map, expected a list"),
    ] {
        check(&record(fields), &format!("{place}{at}"), problem);
    }
    let long = format!(r#""body":"{}""#, "é".repeat(1000));
    check(&record(&long), &format!("{place}.body"), &format!("string \"{}…\", expected", "é".repeat(40)));
}

fn check(text: &str, field: &str, problem: &str) {
    let fault = to_protobuf(&schema::LOGS, text.as_bytes(), MANY).unwrap_err();
    let Fault::Malformed { field: at, problem: found } = fault else { panic!("{text}") };
    assert_eq!(at, field, "{text}: {found}");
    assert!(found.contains(problem), "{text}\n found    {found}\n expected {problem}");
}

#[test]
fn nesting_is_bounded() {
    let nested = |open: &str, close: &str, levels: usize| {
        record(&format!(r#""body":{}{{}}{}"#, open.repeat(levels), close.repeat(levels)))
    };
    for (open, close) in [
        (r#"{"arrayValue":{"values":["#, "]}}"),
        (r#"{"kvlistValue":{"values":[{"key":"k","value":"#, "}]}}"),
    ] {
        let deepest = to_protobuf(&schema::LOGS, nested(open, close, 64).as_bytes(), MANY).unwrap();
        assert!(crate::batch::Request::check(crate::batch::Signal::Logs, deepest.into()).is_ok());
        let fault = to_protobuf(&schema::LOGS, nested(open, close, 65).as_bytes(), MANY).unwrap_err();
        assert!(matches!(fault, Fault::Malformed { problem, .. } if problem.contains("at most 64 levels")));
        let many = nested(open, close, 100_000);
        assert!(to_protobuf(&schema::LOGS, many.as_bytes(), MANY).is_err());
    }
    for unknown in ["[", "{\"a\":"] {
        let deep = format!("{{\"unknown\":{}", unknown.repeat(1_000_000));
        assert!(to_protobuf(&schema::LOGS, deep.as_bytes(), MANY).is_err());
    }
}

#[test]
fn the_output_is_bounded() {
    let zeros = vec!["0"; 10_000].join(",");
    let text = metric(&format!(r#""histogram":{{"dataPoints":[{{"explicitBounds":[{zeros}]}}]}}"#));
    assert!(to_protobuf(&schema::METRICS, text.as_bytes(), 80_200).is_ok());
    assert_eq!(to_protobuf(&schema::METRICS, text.as_bytes(), 79_000), Err(Fault::TooLarge));
}

#[test]
fn lengths_of_all_sizes_are_written() {
    for size in
        [0, 1, 120, 126, 127, 128, 129, 16_370, 16_383, 16_384, 20_000, 2_097_140, 2_097_152, 2_100_000]
    {
        let text = record(&format!(r#""body":{{"stringValue":"{}"}}"#, "x".repeat(size)));
        same::<ExportLogsServiceRequest>(&schema::LOGS, &text);
    }
}

#[test]
fn a_text_cut_anywhere_is_refused() {
    let text = record(
        r#""body":{"stringValue":"a\u00e9"},"attributes":[{"key":"k","value":{"intValue":"1"}}],"traceId":"00ff""#,
    );
    for end in 0..text.len() {
        let cut = to_protobuf(&schema::LOGS, &text.as_bytes()[..end], MANY);
        assert!(matches!(cut, Err(Fault::Malformed { .. })), "{}", &text[..end]);
    }
}

proptest! {
    #[test]
    fn no_text_panics_and_what_is_read_is_protobuf(
        fields in prop::collection::vec("[a-zA-Z0-9\"\\\\:{}\\[\\],. -]{0,12}", 0..20),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut text = record(r#""body":{"kvlistValue":{"values":[{"key":"k","value":{"doubleValue":"NaN"}}]}},"traceId":"00ff","timeUnixNano":"7""#).into_bytes();
        for (cut, (at, byte)) in cuts.iter().enumerate() {
            let at = at.index(text.len());
            match fields.get(cut) {
                Some(field) => drop(text.splice(at..at, field.bytes())),
                None => text[at] = *byte,
            }
        }
        if let Ok(bytes) = to_protobuf(&schema::LOGS, &text, MANY) {
            // Strings may still be no UTF-8: those are mended later.
            if std::str::from_utf8(&text).is_ok() && !text.contains(&b'\\') {
                prop_assert!(<ExportLogsServiceRequest as prost::Message>::decode(bytes.as_slice()).is_ok());
            }
        }
    }
}

/// What the writer makes of what the reader made.
fn written(message: &'static Message, text: &str) -> serde_json::Value {
    let bytes = to_protobuf(message, text.as_bytes(), MANY).unwrap();
    serde_json::from_str(&of_protobuf(message, &bytes)).unwrap()
}

fn is_written_as_it_was_read(message: &'static Message, text: &str) {
    let read: serde_json::Value = serde_json::from_str(text).unwrap();
    assert_eq!(written(message, text), read);
}

#[test]
fn what_was_read_is_written_again() {
    is_written_as_it_was_read(
        &LOGS,
        &record(
            r#""timeUnixNano":"18446744073709551615","observedTimeUnixNano":"1","severityNumber":9,"severityText":"IN\"FO\\\n",
               "body":{"kvlistValue":{"values":[{"key":"a","value":{"arrayValue":{"values":[{"boolValue":true},
                 {"intValue":"-9223372036854775808"},{"doubleValue":-1.5e300},{"bytesValue":"AAE="},{"stringValue":"ä\u0001"},{}]}}}]}},
               "attributes":[{"key":"","value":{"doubleValue":"NaN"}},{"key":"b"}],"droppedAttributesCount":4294967295,
               "flags":255,"traceId":"000102030405060708090a0b0c0d0eff","spanId":"0000000000000001","eventName":"e""#,
        ),
    );
    is_written_as_it_was_read(
        &TRACES,
        &span(
            r#""traceId":"000102030405060708090a0b0c0d0e0f","name":"x","kind":2,"status":{"message":"m","code":2},
               "events":[{"name":"one"},{"timeUnixNano":"7"}],"links":[{"spanId":"0000000000000001","flags":1}]"#,
        ),
    );
    is_written_as_it_was_read(
        &METRICS,
        &metric(
            r#""name":"m","exponentialHistogram":{"aggregationTemporality":2,"dataPoints":[{"count":"3","sum":"Infinity","scale":-2,
               "zeroCount":"1","positive":{"offset":-5,"bucketCounts":["1","300"]},"negative":{},"min":"-Infinity","max":0.0}]}"#,
        ),
    );
    is_written_as_it_was_read(
        &METRICS,
        &metric(
            r#""name":"m","histogram":{"dataPoints":[{"bucketCounts":["1","18446744073709551615"],"explicitBounds":[0.5,2.0],
               "exemplars":[{"asInt":"-1","traceId":"00"}]}]}"#,
        ),
    );
}

#[test]
fn what_stands_in_parts_is_written_once() {
    // Two log records in two parts of one ScopeLogs: proto3 joins messages that stand twice.
    let part = |number: u8, content: &[u8]| [&[number << 3 | 2, content.len() as u8], content].concat();
    let scope = part(2, &part(2, &part(12, b"x")));
    let resource = [part(1, &part(1, &part(1, b"a"))), part(1, &part(1, &part(1, b"b"))), scope].concat();
    let text = of_protobuf(&LOGS, &part(1, &resource));
    let expected = r#"{"resourceLogs":[{"resource":{"attributes":[{"key":"a"},{"key":"b"}]},"scopeLogs":[{"logRecords":[{"eventName":"x"}]}]}]}"#;
    assert_eq!(text, expected);
    // Unpacked numbers of a list that is packed by default, and the last of a choice.
    let point = [&[6 << 3 | 1][..], &7u64.to_le_bytes(), &[6 << 3 | 1], &8u64.to_le_bytes()].concat();
    let histogram = part(1, &part(2, &part(2, &part(9, &part(1, &point)))));
    assert!(of_protobuf(&METRICS, &histogram).contains(r#""bucketCounts":["7","8"]"#));
    let value = part(5, &[part(1, b"text"), vec![2 << 3, 1]].concat());
    let logs = part(1, &part(2, &part(2, &value)));
    assert!(of_protobuf(&LOGS, &logs).contains(r#""body":{"boolValue":true}"#));
}

proptest! {
    #[test]
    fn any_bytes_are_written_as_json(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for message in [&LOGS, &TRACES, &METRICS] {
            let text = of_protobuf(message, &bytes);
            prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{}", text);
        }
    }
}
