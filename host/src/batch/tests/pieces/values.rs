//! Keys, hashes, randomness, and the stamps of identity, function by function.

use super::super::samples::Decoded;
use super::{attribute, batch_of, logs, model, piece, stream};
use crate::batch::{
    Batch, Call, Hits, IdentityKeys, IntColumn, Level, Piece, Places, Request, Signal, TextColumn,
};
use expect_test::{Expect, expect};
use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest,
};
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, KeyValue, KeyValueList, any_value::Value,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};

fn value(value: Value) -> Option<AnyValue> {
    Some(AnyValue { value: Some(value) })
}

fn entry(key: &str, value: Option<AnyValue>) -> KeyValue {
    KeyValue { key: key.into(), value, key_strindex: 0 }
}

fn map(values: Vec<KeyValue>) -> Option<AnyValue> {
    value(Value::KvlistValue(KeyValueList { values }))
}

fn list(values: Vec<Option<AnyValue>>) -> Option<AnyValue> {
    let values = values.into_iter().map(Option::unwrap_or_default).collect();
    value(Value::ArrayValue(ArrayValue { values }))
}

fn text(text: &str) -> Option<AnyValue> {
    Some(model::text_value(text))
}

/// One record: the body is a map with passwords at several depths, and so is an attribute.
fn record() -> Piece {
    let secrets = map(vec![
        entry("user", text("jane")),
        entry("password", text("one")),
        entry(
            "deep",
            list(vec![map(vec![entry("password", value(Value::IntValue(7))), entry("b", text("c"))])]),
        ),
    ]);
    let attributes = vec![
        attribute("password", "two"),
        entry("all", secrets.clone()),
        entry("password", value(Value::BoolValue(true))),
        attribute("user", "joe"),
    ];
    let record = LogRecord { body: secrets, attributes, ..LogRecord::default() };
    let scope = ScopeLogs { log_records: vec![record], ..ScopeLogs::default() };
    let resource = ResourceLogs { scope_logs: vec![scope], ..ResourceLogs::default() };
    let request = Decoded::Logs(ExportLogsServiceRequest { resource_logs: vec![resource] });
    piece(&batch_of(Signal::Logs, request.encode())).unwrap()
}

fn shown(value: Option<&AnyValue>) -> String {
    let entries = |all: &[KeyValue]| {
        all.iter()
            .map(|one| format!("{}={}", one.key, shown(one.value.as_ref())))
            .collect::<Vec<_>>()
            .join(" ")
    };
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(value)) => value.to_string(),
        Some(Value::BoolValue(value)) => value.to_string(),
        Some(Value::ArrayValue(array)) => {
            format!(
                "[{}]",
                array.values.iter().map(|value| shown(Some(value))).collect::<Vec<_>>().join(", ")
            )
        }
        Some(Value::KvlistValue(map)) => format!("{{{}}}", entries(&map.values)),
        other => format!("{other:?}"),
    }
}

/// The body and the attributes of the first record.
fn first(piece: &Piece) -> String {
    let request = Decoded::decode(Signal::Logs, &piece.standalone()).unwrap();
    let Decoded::Logs(request) = request else { panic!("logs") };
    let record = &request.resource_logs[0].scope_logs[0].log_records[0];
    let attributes = record.attributes.iter().map(|one| format!("{}={}", one.key, shown(one.value.as_ref())));
    format!("{}\n{}", shown(record.body.as_ref()), attributes.collect::<Vec<_>>().join("\n"))
}

const ALL: Places = Places(511);

fn is_password(key: &str) -> Option<u32> {
    match key {
        "password" => Some(1),
        "user" => Some(0),
        _ => None,
    }
}

fn check(edit: impl FnOnce(&mut Call) -> u32, count: u32, expected: Expect) {
    let mut call = record().call(None);
    assert_eq!(edit(&mut call), count);
    expected.assert_eq(&first(&call.commit().unwrap().piece));
}

#[test]
fn values_under_a_key_are_removed_wherever_they_stand() {
    check(
        |call| call.remove_keys(ALL, &mut |key| (key == "password").then_some(0)),
        6,
        expect![[r#"
            {user=jane deep=[{b=c}]}
            all={user=jane deep=[{b=c}]}
            user=joe"#]],
    );
}

#[test]
fn values_under_a_key_are_masked_by_the_text_of_their_pattern() {
    check(
        |call| call.mask_keys(ALL, &mut is_password, &["[user]".into(), "[secret]".into()]),
        9,
        expect![[r#"
            {user=[user] password=[secret] deep=[{password=[secret] b=c}]}
            password=[secret]
            all={user=[user] password=[secret] deep=[{password=[secret] b=c}]}
            password=[secret]
            user=[user]"#]],
    );
}

#[test]
fn values_under_a_key_are_hashed_a_number_by_its_encoded_form() {
    let mut hash = |value: &[u8]| format!("#{value:?}");
    check(
        |call| call.hash_keys(Places::BODY, &mut is_password, &mut hash),
        3,
        expect![[r#"
            {user=#[106, 97, 110, 101] password=#[111, 110, 101] deep=[{password=#[24, 7] b=c}]}
            password=two
            all={user=jane password=one deep=[{password=7 b=c}]}
            password=true
            user=joe"#]],
    );
}

#[test]
fn inside_a_value_under_a_key_nothing_more_is_counted() {
    check(
        |call| {
            call.mask_keys(
                ALL,
                &mut |key| matches!(key, "deep" | "all" | "password").then_some(0),
                &["x".into()],
            )
        },
        5,
        expect![[r#"
            {user=jane password=x deep=x}
            password=x
            all=x
            password=x
            user=joe"#]],
    );
}

#[test]
fn an_edit_of_a_whole_value_beats_those_inside_it_and_the_last_whole_one_wins() {
    check(
        |call| {
            let texts = call.texts(Places::ITEM_ATTRIBUTES).unwrap();
            assert_eq!((texts.at(0), texts.at(1)), ("two", "jane"));
            call.replace_texts(Places::ITEM_ATTRIBUTES, &[0, 1], &["lost".into(), "kept".into()]);
            call.remove_attribute(Level::Item, "password");
            call.mask_keys(
                Places::ITEM_ATTRIBUTES,
                &mut |key| (key == "password").then_some(0),
                &["last".into()],
            )
        },
        4,
        expect![[r#"
            {user=jane password=one deep=[{password=7 b=c}]}
            password=last
            all={user=kept password=last deep=[{password=last b=c}]}
            password=last
            user=joe"#]],
    );
}

#[test]
fn setting_replaces_the_first_of_its_key_and_removes_the_others() {
    check(
        |call| {
            let column = IntColumn { rows: vec![0], values: vec![3] };
            call.set_int_attribute(Level::Item, "password", &column);
            call.copy_attribute(Level::Item, "all", "copy", &[0]);
            0
        },
        0,
        expect![[r#"
            {user=jane password=one deep=[{password=7 b=c}]}
            password=3
            all={user=jane password=one deep=[{password=7 b=c}]}
            user=joe
            copy={user=jane password=one deep=[{password=7 b=c}]}"#]],
    );
}

#[test]
fn hashes_stand_where_the_texts_stood() {
    check(
        |call| {
            call.hash_attribute(Level::Item, "all", &mut |text| format!("#{text}"));
            let which = Hits { texts: vec![0], patterns: vec![9], starts: vec![1], ends: vec![3] };
            call.hash(Places::BODY, &which, &mut |text| format!("<{text}>"));
            0
        },
        0,
        expect![[r#"
            {user=j<an>e password=one deep=[{password=7 b=c}]}
            password=two
            all={user=#jane password=#one deep=[{password=7 b=#c}]}
            password=true
            user=joe"#]],
    );
}

fn spans(states: &[(&str, &[u8])]) -> Call {
    let span = |(state, id): &(&str, &[u8])| Span {
        trace_state: (*state).to_owned(),
        trace_id: id.to_vec(),
        ..Span::default()
    };
    let scope = ScopeSpans { spans: states.iter().map(span).collect(), ..ScopeSpans::default() };
    let resource = ResourceSpans { scope_spans: vec![scope], ..ResourceSpans::default() };
    let request = Decoded::Traces(ExportTraceServiceRequest { resource_spans: vec![resource] });
    piece(&batch_of(Signal::Traces, request.encode())).unwrap().call(None)
}

#[test]
fn randomness_is_that_of_the_trace() {
    let id: [u8; 16] = std::array::from_fn(|at| at as u8 + 1);
    let of_id = 0x000a_0b0c_0d0e_0f10;
    let stated = 0x80_0000_0000_0001;
    for (state, expected) in [
        ("", of_id),
        ("ot=rv:80000000000001", stated),
        ("ot=th:8;rv:80000000000001", stated),
        ("other=1, ot=th:8;rv:80000000000001,more=2", stated),
        ("ot=rv:8000000000000", of_id),
        ("ot=rv:8000000000000g", of_id),
        ("not=rv:80000000000001", of_id),
    ] {
        assert_eq!(spans(&[(state, &id)]).randomness().unwrap(), [expected], "{state}");
    }
    let mut call = spans(&[("ot=rv:80000000000001", &id), ("", &[]), ("", &[0; 16]), ("x", &[])]);
    let random = call.randomness().unwrap();
    assert!(random.iter().all(|random| *random < 1 << 56));
    assert_ne!(random[1], random[3]);
    assert_eq!(random, call.randomness().unwrap());
    assert_eq!(call.trace_fractions().unwrap()[0], 0.5 + 0.5_f64.powi(56));
    call.set_trace_states(&[0], &["ot=rv:00000000000001".into()]);
    assert_eq!(call.commit().unwrap().piece.call(None).randomness().unwrap()[0], 1);
}

#[test]
fn a_log_record_has_the_randomness_of_its_trace() {
    let id = [9; 16];
    let record = LogRecord { trace_id: id.to_vec(), ..LogRecord::default() };
    let scope = ScopeLogs { log_records: vec![record], ..ScopeLogs::default() };
    let resource = ResourceLogs { scope_logs: vec![scope], ..ResourceLogs::default() };
    let request = Decoded::Logs(ExportLogsServiceRequest { resource_logs: vec![resource] });
    let mut call = piece(&batch_of(Signal::Logs, request.encode())).unwrap().call(None);
    assert_eq!(call.randomness().unwrap(), spans(&[("", &id)]).randomness().unwrap());
}

fn keys() -> IdentityKeys {
    IdentityKeys { tenant: "tenant.id".into(), project: "project.id".into() }
}

/// One record under a resource with these attributes, or under none.
fn stamped(attributes: Option<&[(&str, &str)]>) -> Batch {
    let resource = attributes.map(|all| Resource {
        attributes: all.iter().map(|(key, text)| attribute(key, text)).collect(),
        ..Resource::default()
    });
    let scope = ScopeLogs { log_records: vec![LogRecord::default()], ..ScopeLogs::default() };
    let one = ResourceLogs { resource, scope_logs: vec![scope], ..ResourceLogs::default() };
    let request = Decoded::Logs(ExportLogsServiceRequest { resource_logs: vec![one] });
    let request = Request::check(Signal::Logs, request.encode().into()).unwrap();
    let mut batch = request.batch(stream(), &[0]);
    batch.stamp(&keys(), true);
    batch
}

const RESOURCES: [Option<&[(&str, &str)]>; 5] = [
    None,
    Some(&[]),
    Some(&[("tenant.id", "evil"), ("a", "b"), ("project.id", "web")]),
    Some(&[("tenant.id", "acme"), ("project.id", "x"), ("tenant.id", "acme"), ("project.id", "web")]),
    Some(&[("tenant.id", "acme"), ("project.id", "web")]),
];

#[test]
fn plugins_see_the_identity_as_it_was_verified() {
    for attributes in RESOURCES {
        let mut call = piece(&stamped(attributes)).unwrap().call(None);
        for (key, expected) in [("tenant.id", "acme"), ("project.id", "web")] {
            let column = call.text_attribute(Level::Resource, key).unwrap();
            assert_eq!((column.rows, column.strings), (vec![0], vec![expected.to_owned()]), "{attributes:?}");
        }
        let raw = Decoded::decode(Signal::Logs, &call.raw().unwrap()).unwrap();
        let lines = model::lines(&raw);
        assert_eq!(lines[0].matches("tenant.id").count(), 1, "{}", lines[0]);
        assert!(lines[0].contains("acme") && lines[0].contains("web"), "{}", lines[0]);
    }
}

#[test]
fn what_a_plugin_does_to_the_identity_is_put_right_and_counted() {
    let evil = TextColumn { rows: vec![0], index: vec![0], strings: vec!["evil".into()] };
    type Forge<'f> = &'f dyn Fn(&mut Call);
    let forges: [Forge<'_>; 4] = [
        &|call| call.set_text_attribute(Level::Resource, "tenant.id", &evil),
        &|call| call.remove_attribute(Level::Resource, "tenant.id"),
        &|call| call.replace_texts(Places::RESOURCE_ATTRIBUTES, &[0, 1], &["evil".into(), "evil".into()]),
        &|call| {
            call.mask_keys(ALL, &mut |_| Some(0), &["evil".into()]);
        },
    ];
    for attributes in RESOURCES {
        for (number, forge) in forges.iter().enumerate() {
            let batch = stamped(attributes);
            let mut call = piece(&batch).unwrap().call(None);
            forge(&mut call);
            let piece = call.commit().unwrap().piece;
            let written = batch.written(vec![piece], &keys());
            assert_eq!(written.restored, 1, "{attributes:?} {number}");
            let lines = model::lines(&Decoded::decode(Signal::Logs, &written.batch.bytes).unwrap());
            assert_eq!(lines[0].matches("tenant.id").count(), 1, "{}", lines[0]);
            assert!(lines[0].contains("acme") && lines[0].contains("web"), "{}", lines[0]);
        }
    }
}

#[test]
fn what_a_plugin_adds_beside_the_identity_stays() {
    for attributes in RESOURCES {
        let batch = stamped(attributes);
        let mut call = piece(&batch).unwrap().call(None);
        let column = TextColumn { rows: vec![0], index: vec![0], strings: vec!["here".into()] };
        call.set_text_attribute(Level::Resource, "new", &column);
        let mut call = call.commit().unwrap().piece.call(None);
        assert_eq!(call.text_attribute(Level::Resource, "new").unwrap().strings, ["here"]);
        call.copy_attribute(Level::Resource, "tenant.id", "owner", &[0]);
        let written = batch.written(vec![call.commit().unwrap().piece], &keys());
        assert_eq!(written.restored, 0, "{attributes:?}");
        let lines = model::lines(&Decoded::decode(Signal::Logs, &written.batch.bytes).unwrap());
        for key in ["tenant.id", "project.id", "new", "owner"] {
            assert_eq!(lines[0].matches(key).count(), 1, "{key} in {}", lines[0]);
        }
    }
}

#[test]
fn debug_shows_no_content() {
    let piece = logs(3);
    assert_eq!(format!("{piece:?}"), "Piece { signal: Logs, records: 3 }");
    assert_eq!(format!("{:?}", piece.call(None)), "Call { signal: Logs, edits: 0 }");
}

#[test]
fn bytes_that_nobody_checked_do_no_harm() {
    // Rows at places where nothing stands, as if the walk had lied.
    for bytes in [vec![], vec![0xff; 40], vec![0x0a; 40], (0..=255).collect::<Vec<u8>>()] {
        for signal in Signal::ALL {
            let batch = Batch::over(signal, stream(), bytes.clone().into());
            for piece in batch.pieces(9, 99) {
                let mut call = piece.call(None);
                let texts = call.texts(ALL).unwrap().len();
                call.set_text_attribute(Level::Item, "k", &TextColumn::default());
                call.remove_keys(ALL, &mut |_| Some(0));
                call.randomness().unwrap();
                call.trace_states().unwrap();
                call.temporalities().unwrap();
                assert!(texts < 300);
                call.commit().unwrap().piece.standalone();
            }
        }
    }
}
