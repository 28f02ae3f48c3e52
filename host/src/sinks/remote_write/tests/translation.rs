//! From OTLP to series: against the reference, and by hand where the two could err together.

use super::fake::labels_of;
use super::reference::{self, Options, TimeSeries, WriteRequest};
use super::samples::{
    SECOND, attribute, attributes, delivery, entry, entry_of, gauge, metric, point, request, settings,
};
use crate::batch::{Entry, Items, Signal};
use crate::sinks::remote_write::translate::{Place, Translated, translate};
use crate::sinks::remote_write::{Settings, write_requests};
use expect_test::{Expect, expect};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::*;
use opentelemetry_proto::tonic::resource::v1::Resource;
use proptest::prelude::*;
use prost::Message;
use std::sync::Arc;

const STALE: u64 = 0x7ff0_0000_0000_0002;

fn translated(settings: &Settings, entry: &Arc<Entry>) -> Translated {
    let translated = translate(settings, &[(entry.clone(), false)], Place::default());
    assert_eq!(translated.next, None, "one portion");
    translated
}

fn written(settings: &Settings, entries: &[Arc<Entry>]) -> WriteRequest {
    let requests = write_requests(settings, entries);
    let decoded = requests.iter().map(|request| WriteRequest::decode(&request[..]).unwrap());
    WriteRequest { timeseries: decoded.flat_map(|request| request.timeseries).collect() }
}

/// A line per series: labels, samples as seconds and value, exemplars.
fn lines(request: &WriteRequest) -> String {
    let line = |series: &TimeSeries| {
        let mut line = labels_of(series);
        for sample in &series.samples {
            let value = match sample.value.to_bits() {
                STALE => "stale".to_owned(),
                _ => sample.value.to_string(),
            };
            line += &format!(" {}@{}", value, sample.timestamp - SECOND as i64 * 1000);
        }
        for exemplar in &series.exemplars {
            let labels: Vec<String> =
                exemplar.labels.iter().map(|label| format!("{}={}", label.name, label.value)).collect();
            let time = exemplar.timestamp - SECOND as i64 * 1000;
            line += &format!(" # {{{}}} {}@{time}", labels.join(","), exemplar.value);
        }
        line + "\n"
    };
    request.timeseries.iter().map(line).collect()
}

fn check(request: &ExportMetricsServiceRequest, expected: Expect) {
    expected.assert_eq(&lines(&written(&settings("http://x".into()), &[entry(1, request)])));
}

fn histogram(points: Vec<HistogramDataPoint>) -> Data {
    metric::Data::Histogram(Histogram { data_points: points, aggregation_temporality: 2 })
}

type Data = metric::Data;

fn sum(points: Vec<NumberDataPoint>, is_monotonic: bool, aggregation_temporality: i32) -> Data {
    metric::Data::Sum(Sum { data_points: points, aggregation_temporality, is_monotonic })
}

#[test]
fn each_kind_of_metric_has_its_series() {
    let buckets = HistogramDataPoint {
        attributes: attributes(&[("http.route", "/")]),
        time_unix_nano: SECOND * 1_000_000_000,
        count: 10,
        sum: Some(2.5),
        bucket_counts: vec![1, 2, 3, 4],
        explicit_bounds: vec![0.005, 1.0, 2.5],
        ..Default::default()
    };
    let quantiles =
        vec![ValueAtQuantile { quantile: 0.5, value: 1.5 }, ValueAtQuantile { quantile: 1.0, value: 9.0 }];
    let summary = SummaryDataPoint {
        time_unix_nano: SECOND * 1_000_000_000,
        count: 3,
        sum: 12.0,
        quantile_values: quantiles,
        ..Default::default()
    };
    let metrics = vec![
        metric("cpu", "1", Data::Gauge(Gauge { data_points: vec![point(&[("core", "0")], 0, 0.5)] })),
        metric("requests", "{r}", sum(vec![point(&[], 1, 7.0)], true, 2)),
        metric("open", "{r}", sum(vec![point(&[], 1, -7.0)], false, 2)),
        metric("latency", "s", histogram(vec![buckets])),
        metric("gc", "ms", Data::Summary(Summary { data_points: vec![summary] })),
    ];
    let resource = [
        ("service.name", "shop"),
        ("service.namespace", "eu"),
        ("service.instance.id", "i-1"),
        ("tenant.id", "acme"),
        ("host.name", "h"),
    ];
    check(
        &request(&resource, metrics),
        expect![[r#"
            cpu_ratio{core=0,instance=i-1,job=eu/shop,tenant_id=acme} 0.5@0
            requests_total{instance=i-1,job=eu/shop,tenant_id=acme} 7@1000
            open{instance=i-1,job=eu/shop,tenant_id=acme} -7@1000
            latency_seconds_sum{http_route=/,instance=i-1,job=eu/shop,tenant_id=acme} 2.5@0
            latency_seconds_count{http_route=/,instance=i-1,job=eu/shop,tenant_id=acme} 10@0
            latency_seconds_bucket{http_route=/,instance=i-1,job=eu/shop,le=0.005,tenant_id=acme} 1@0
            latency_seconds_bucket{http_route=/,instance=i-1,job=eu/shop,le=1,tenant_id=acme} 3@0
            latency_seconds_bucket{http_route=/,instance=i-1,job=eu/shop,le=2.5,tenant_id=acme} 6@0
            latency_seconds_bucket{http_route=/,instance=i-1,job=eu/shop,le=+Inf,tenant_id=acme} 10@0
            gc_milliseconds_sum{instance=i-1,job=eu/shop,tenant_id=acme} 12@0
            gc_milliseconds_count{instance=i-1,job=eu/shop,tenant_id=acme} 3@0
            gc_milliseconds{instance=i-1,job=eu/shop,quantile=0.5,tenant_id=acme} 1.5@0
            gc_milliseconds{instance=i-1,job=eu/shop,quantile=1,tenant_id=acme} 9@0
            target_info{host_name=h,instance=i-1,job=eu/shop,tenant_id=acme} 1@1000
        "#]],
    );
}

#[test]
fn labels_are_sorted_unique_and_not_empty() {
    let own = [
        ("z", "1"),
        ("A", "2"),
        ("a.b", "3"),
        ("a-b", "4"),
        ("", "5"),
        ("日本", "6"),
        ("__name__", "7"),
        ("..name..", "8"),
        ("empty", ""),
        ("5", "9"),
        ("job", "mine"),
    ];
    check(
        &request(&[("service.name", "shop")], vec![gauge("g", vec![point(&own, 0, 1.0)])]),
        expect![[r#"
            g{A=2,a_b=4;3,job=shop,key_5=9,z=1} 1@0
        "#]],
    );
}

#[test]
fn no_attribute_of_a_point_says_whose_it_is() {
    let own = [("tenant.id", "victim"), ("tenant_id", "victim"), ("project.id", "victim"), ("job", "j")];
    let metrics = || vec![gauge("g", vec![point(&own, 0, 1.0)])];
    let resource = [
        ("tenant.id", "acme"),
        ("tenant_id", "victim"),
        ("project-id", "victim"),
        ("service.instance.id", "i"),
    ];
    check(
        &request(&resource, metrics()),
        expect![[r#"
            g{instance=i,job=j,tenant_id=acme} 1@0
            target_info{instance=i,tenant_id=acme} 1@0
        "#]],
    );
    check(
        &request(&[], metrics()),
        expect![[r#"
            g{job=j} 1@0
        "#]],
    );
}

#[test]
fn the_scope_is_shown_where_it_is_asked_for() {
    let mut request = request(
        &[("service.name", "shop")],
        vec![gauge("g", vec![point(&[("otel.scope.name", "x")], 0, 1.0)])],
    );
    let scope = &mut request.resource_metrics[0].scope_metrics[0];
    scope.schema_url = "https://schema".into();
    scope.scope = Some(InstrumentationScope {
        name: "lib".into(),
        version: "2".into(),
        attributes: attributes(&[("a.b", "c"), ("name", "forged")]),
        ..Default::default()
    });
    let shown = Settings { is_scope_labelled: true, ..settings("http://x".into()) };
    let labelled = lines(&written(&shown, &[entry(1, &request)]));
    expect![[r#"
        g{job=shop,otel_scope_a_b=c,otel_scope_name=lib,otel_scope_schema_url=https://schema,otel_scope_version=2} 1@0
    "#]]
    .assert_eq(&labelled);
    check(
        &request,
        expect![[r#"
        g{job=shop,otel_scope_name=x} 1@0
    "#]],
    );
}

#[test]
fn a_stale_marker_is_sent_for_each_point_that_is_flagged_and_for_nothing_else() {
    let flagged = |mut point: NumberDataPoint| {
        point.flags = 1;
        point
    };
    let nan = f64::from_bits(STALE);
    let ended = HistogramDataPoint {
        time_unix_nano: SECOND * 1_000_000_000,
        explicit_bounds: vec![1.0],
        flags: 1,
        ..Default::default()
    };
    let summary = SummaryDataPoint {
        time_unix_nano: SECOND * 1_000_000_000,
        quantile_values: vec![ValueAtQuantile { quantile: 0.5, value: 1.0 }],
        flags: 1,
        ..Default::default()
    };
    let without_value = NumberDataPoint { value: None, ..point(&[("p", "4")], 0, 0.0) };
    let metrics = vec![
        gauge(
            "g",
            vec![
                flagged(point(&[("p", "1")], 0, 5.0)),
                point(&[("p", "2")], 0, nan),
                NumberDataPoint { flags: 2, ..point(&[("p", "3")], 0, f64::NAN) },
                flagged(without_value.clone()),
            ],
        ),
        metric("h", "", histogram(vec![ended])),
        metric("s", "", Data::Summary(Summary { data_points: vec![summary] })),
    ];
    check(
        &request(&[], metrics),
        expect![[r#"
        g{p=1} stale@0
        g{p=2} NaN@0
        g{p=3} NaN@0
        g{p=4} stale@0
        h_sum{} stale@0
        h_count{} stale@0
        h_bucket{le=1} stale@0
        h_bucket{le=+Inf} stale@0
        s_sum{} stale@0
        s_count{} stale@0
        s{quantile=0.5} stale@0
    "#]],
    );
    let rejected = translated(
        &settings("http://x".into()),
        &entry(7, &request(&[], vec![gauge("g", vec![without_value])])),
    );
    let words: Vec<_> = rejected.rejected.iter().map(|(record, refusal)| (*record, refusal.word())).collect();
    assert_eq!(words, [(7, "no_value")]);
}

#[test]
fn a_point_without_a_time_has_that_of_its_commit_and_the_later_of_two_counts() {
    let timeless = NumberDataPoint { time_unix_nano: 0, ..point(&[], 0, 5.0) };
    let points =
        vec![point(&[], 3, 3.0), point(&[], 1, 1.0), timeless, point(&[], 3, 33.0), point(&[], 2, 2.0)];
    check(
        &request(&[], vec![gauge("g", points)]),
        expect![[r#"
        g{} 5@123 1@1000 2@2000 33@3000
    "#]],
    );
}

#[test]
fn samples_of_a_series_from_several_entries_are_one_series() {
    let at = |first, second: u64| {
        entry(
            first,
            &request(
                &[("service.name", "a"), ("x", "y")],
                vec![gauge("g", vec![point(&[], second, second as f64)])],
            ),
        )
    };
    let entries = [at(1, 2), at(2, 1), at(3, 3)];
    expect![[r#"
        g{job=a} 1@1000 2@2000 3@3000
        target_info{job=a,x=y} 1@1000 1@2000 1@3000
    "#]]
    .assert_eq(&lines(&written(&settings("http://x".into()), &entries)));
}

#[test]
fn what_has_no_form_is_named_once_by_its_metric_and_counted_by_its_points() {
    let exponential = Data::ExponentialHistogram(ExponentialHistogram {
        data_points: vec![ExponentialHistogramDataPoint::default(); 2],
        aggregation_temporality: 2,
    });
    let metrics = vec![
        gauge("good", vec![point(&[], 0, 1.0)]),
        metric("delta", "", sum(vec![point(&[], 0, 1.0); 3], true, 1)),
        metric("neither", "", sum(vec![point(&[], 0, 1.0)], true, 0)),
        metric("exponential", "", exponential),
        metric("…", "", Data::Gauge(Gauge { data_points: vec![point(&[], 0, 1.0)] })),
    ];
    let found = translated(
        &settings("http://x".into()),
        &entry(10, &request(&[("service.name", "a"), ("b", "c")], metrics)),
    );
    assert_eq!(found.unsupported, [11, 12, 13, 14, 15, 16]);
    let names: Vec<_> = found.unsupported_names.iter().map(|(name, why)| (&**name, *why)).collect();
    assert_eq!(
        names,
        [
            ("delta", "not cumulative"),
            ("neither", "not cumulative"),
            ("exponential", "exponential histogram")
        ]
    );
    let words: Vec<_> = found.rejected.iter().map(|(record, refusal)| (*record, refusal.word())).collect();
    assert_eq!(words, [(17, "no_name")]);
    assert_eq!((found.portion.samples.len(), found.portion.records_end), (2, 1));
}

#[test]
fn exemplars_keep_their_trace_and_stay_short() {
    let exemplar = |value: f64, attributes: Vec<KeyValue>| Exemplar {
        filtered_attributes: attributes,
        time_unix_nano: (SECOND + 5) * 1_000_000_000,
        trace_id: vec![0xab; 16],
        span_id: vec![0xcd; 8],
        value: Some(exemplar::Value::AsDouble(value)),
    };
    let forged = attributes(&[("trace_id", "mine"), ("user.id", "7")]);
    let long = attributes(&[("text", &"x".repeat(80))]);
    let bare =
        Exemplar { trace_id: vec![0; 16], span_id: vec![1; 7], time_unix_nano: 0, ..exemplar(9.0, vec![]) };
    let without_value = Exemplar { value: None, ..exemplar(0.0, vec![]) };
    let buckets = HistogramDataPoint {
        time_unix_nano: SECOND * 1_000_000_000,
        bucket_counts: vec![1, 1, 1],
        explicit_bounds: vec![1.0, 2.0],
        exemplars: vec![exemplar(1.5, long), bare.clone(), exemplar(1.0, forged.clone()), without_value],
        ..Default::default()
    };
    let counted = NumberDataPoint { exemplars: vec![exemplar(1.0, forged), bare], ..point(&[], 0, 1.0) };
    let metrics = vec![
        metric("h", "", histogram(vec![buckets])),
        metric("c", "", sum(vec![counted.clone()], true, 2)),
        metric("g", "", sum(vec![counted], false, 2)),
    ];
    check(
        &request(&[], metrics),
        expect![[r#"
        h_count{} 0@0
        h_bucket{le=1} 1@0 # {span_id=cdcdcdcdcdcdcdcd,trace_id=abababababababababababababababab,user_id=7} 1@5000
        h_bucket{le=2} 2@0 # {span_id=cdcdcdcdcdcdcdcd,trace_id=abababababababababababababababab} 1.5@5000
        h_bucket{le=+Inf} 0@0 # {} 9@0
        c_total{} 1@0 # {} 9@0 # {span_id=cdcdcdcdcdcdcdcd,trace_id=abababababababababababababababab,user_id=7} 1@5000
        g{} 1@0
    "#]],
    );
}

#[test]
fn labels_and_records_that_are_too_long_are_refused_and_cost_no_memory() {
    let settings = settings("http://x".into());
    let words = |request: &ExportMetricsServiceRequest| -> Vec<(u64, &'static str)> {
        let found = translated(&settings, &entry(1, request));
        found.rejected.iter().map(|(record, refusal)| (*record, refusal.word())).collect()
    };
    let long = "x".repeat(40_000);
    let good = || point(&[], 0, 1.0);
    let value = request(&[], vec![gauge("g", vec![good(), point(&[("a", &long)], 0, 1.0)])]);
    assert_eq!(words(&value), [(2, "labels_too_long")]);
    let name = request(&[], vec![gauge(&long, vec![good()]), gauge("g", vec![good()])]);
    assert_eq!(words(&name), [(1, "labels_too_long")]);
    let resource = request(&[("service.name", &long), ("a", "b")], vec![gauge("g", vec![good()])]);
    assert_eq!(words(&resource), [(1, "labels_too_long")]);
    // Only `target_info` would be too long: it is left out.
    let info = request(&[("service.name", "s"), ("a", &long)], vec![gauge("g", vec![good()])]);
    assert_eq!(words(&info), []);
    assert_eq!(written(&settings, &[entry(1, &info)]).timeseries.len(), 1);

    let wide = HistogramDataPoint {
        attributes: vec![attribute("a", &"x".repeat(10_000))],
        bucket_counts: vec![1; 1001],
        explicit_bounds: (0..1000).map(f64::from).collect(),
        ..Default::default()
    };
    let wide = request(&[], vec![metric("h", "", histogram(vec![wide])), gauge("g", vec![good()])]);
    assert_eq!(words(&wide), [(1, "too_large")]);
    assert_eq!(written(&settings, &[entry(1, &wide)]).timeseries.len(), 1);
}

#[test]
fn a_delivery_is_cut_by_samples_and_by_bytes_and_where_the_resends_end() {
    let settings = settings("http://x".into());
    let sizes = |entries: &[Arc<Entry>]| -> Vec<usize> {
        let requests = write_requests(&settings, entries);
        requests.iter().map(|request| WriteRequest::decode(&request[..]).unwrap().timeseries.len()).collect()
    };
    assert_eq!(sizes(&[super::samples::series(1, 25_000, 0)]), [10_000, 10_000, 5000]);
    let points =
        (0..1000).map(|at| point(&[("a", &format!("{at}{}", "x".repeat(10_000)))], 0, 0.0)).collect();
    let long = sizes(&[entry(1, &request(&[], vec![gauge("g", points)]))]);
    assert_eq!((long.len(), long.iter().sum::<usize>()), (3, 1000), "{long:?}");

    let entries = [(super::samples::series(1, 3, 0), true), (super::samples::series(4, 3, 1), false)];
    let first = translate(&settings, &entries, Place::default());
    assert_eq!((first.portion.samples.len(), first.next), (3, Some(Place { entry: 1, records: 0 })));
}

#[test]
fn bytes_that_are_no_utf_8_and_no_otlp_do_not_reach_the_receiver() {
    // Mended where it comes in.
    let mut bytes = request(&[], vec![gauge("g", vec![point(&[("kkkk", "vvvv")], 0, 1.0)])]).encode_to_vec();
    for at in 0..bytes.len() - 3 {
        if matches!(&bytes[at..at + 4], b"kkkk" | b"vvvv") {
            bytes[at + 1] = 0xff;
        }
    }
    let raw = Arc::new(Entry { bytes: bytes.clone().into(), ..(*entry(1, &request(&[], vec![]))).clone() });
    for entry in [entry_of("acme", 1, bytes), raw] {
        let lines = lines(&written(&settings("http://x".into()), &[entry]));
        assert_eq!(lines, "g{k_kk=v\u{fffd}vv} 1@0\n");
    }
}

fn keys() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "a",
        "a.b",
        "a_b",
        "A",
        "le",
        "quantile",
        "job",
        "tenant.id",
        "tenant_id",
        "",
        "..",
        "5",
        "_x",
        "service.name",
        "service.namespace",
        "service.instance.id",
    ])
    .prop_map(str::to_owned)
}

fn values() -> impl Strategy<Value = Option<AnyValue>> {
    let value = prop_oneof![
        4 => prop::sample::select(vec!["", "x", "größe", "a \"quoted\" text that is longer than others"]).prop_map(|text| Value::StringValue(text.into())),
        1 => any::<bool>().prop_map(Value::BoolValue),
        1 => any::<i64>().prop_map(Value::IntValue),
        1 => prop::sample::select(vec![0.5, -2.0, 1e10]).prop_map(Value::DoubleValue),
        1 => Just(Value::ArrayValue(ArrayValue { values: vec![AnyValue { value: Some(Value::IntValue(3)) }] })),
    ];
    prop::option::weighted(0.9, value.prop_map(|value| AnyValue { value: Some(value) }))
}

fn maps() -> impl Strategy<Value = Vec<KeyValue>> {
    let pair = (keys(), values()).prop_map(|(key, value)| KeyValue { key, value, ..Default::default() });
    prop::collection::vec(pair, 0..4)
}

fn times() -> impl Strategy<Value = u64> {
    prop_oneof![1 => Just(0), 6 => (0..5u64).prop_map(|at| (SECOND + at) * 1_000_000_000)]
}

fn numbers() -> impl Strategy<Value = f64> {
    prop_oneof![4 => any::<f64>(), 1 => Just(f64::from_bits(STALE)), 1 => Just(0.0)]
}

fn exemplars() -> impl Strategy<Value = Vec<Exemplar>> {
    let value = prop::option::of(prop_oneof![
        any::<i64>().prop_map(exemplar::Value::AsInt),
        (0..4).prop_map(|at| exemplar::Value::AsDouble(f64::from(at))),
    ]);
    let one =
        (maps(), times(), value, 0..2u8).prop_map(|(filtered_attributes, time_unix_nano, value, id)| {
            Exemplar {
                filtered_attributes,
                time_unix_nano,
                value,
                trace_id: vec![id; 16],
                span_id: vec![id; 8],
            }
        });
    prop::collection::vec(one, 0..3)
}

fn number_points() -> impl Strategy<Value = Vec<NumberDataPoint>> {
    let value = prop::option::weighted(
        0.9,
        prop_oneof![
            numbers().prop_map(number_data_point::Value::AsDouble),
            any::<i64>().prop_map(number_data_point::Value::AsInt),
        ],
    );
    let one = (maps(), times(), value, 0..4u32, exemplars());
    let one = one.prop_map(|(attributes, time_unix_nano, value, flags, exemplars)| NumberDataPoint {
        attributes,
        time_unix_nano,
        value,
        flags,
        exemplars,
        start_time_unix_nano: 1,
    });
    prop::collection::vec(one, 0..4)
}

fn histogram_points() -> impl Strategy<Value = Vec<HistogramDataPoint>> {
    let counts = prop::collection::vec(any::<u64>(), 0..4);
    let bounds =
        prop::collection::vec(prop_oneof![Just(0.5), Just(2.0), Just(f64::INFINITY), any::<f64>()], 0..4);
    let one =
        (maps(), times(), any::<u64>(), prop::option::of(numbers()), counts, bounds, 0..2u32, exemplars());
    let one = one.prop_map(
        |(attributes, time_unix_nano, count, sum, bucket_counts, explicit_bounds, flags, exemplars)| {
            HistogramDataPoint {
                attributes,
                time_unix_nano,
                count,
                sum,
                bucket_counts,
                explicit_bounds,
                flags,
                exemplars,
                ..Default::default()
            }
        },
    );
    prop::collection::vec(one, 0..3)
}

fn summary_points() -> impl Strategy<Value = Vec<SummaryDataPoint>> {
    let quantile = (prop_oneof![Just(0.5), Just(0.99)], numbers());
    let quantile = quantile.prop_map(|(quantile, value)| ValueAtQuantile { quantile, value });
    let one = (maps(), times(), any::<u64>(), numbers(), prop::collection::vec(quantile, 0..3), 0..2u32);
    let one =
        one.prop_map(|(attributes, time_unix_nano, count, sum, quantile_values, flags)| SummaryDataPoint {
            attributes,
            time_unix_nano,
            count,
            sum,
            quantile_values,
            flags,
            ..Default::default()
        });
    prop::collection::vec(one, 0..3)
}

fn metrics() -> impl Strategy<Value = Metric> {
    let data = prop_oneof![
        number_points().prop_map(|data_points| Data::Gauge(Gauge { data_points })),
        (number_points(), any::<bool>(), 0..3).prop_map(|(points, is_monotonic, temporality)| sum(
            points,
            is_monotonic,
            temporality
        )),
        (histogram_points(), 1..3).prop_map(|(data_points, aggregation_temporality)| Data::Histogram(
            Histogram { data_points, aggregation_temporality }
        )),
        (0..2usize).prop_map(|count| Data::ExponentialHistogram(ExponentialHistogram {
            data_points: vec![Default::default(); count],
            aggregation_temporality: 2
        })),
        summary_points().prop_map(|data_points| Data::Summary(Summary { data_points })),
    ];
    let name = prop::sample::select(vec!["m", "http.requests", "io_bytes", "total", "…", "5xx"]);
    let unit = prop::sample::select(vec!["", "1", "s", "By/s", "m/{turn}", "{call}"]);
    (name, unit, data).prop_map(|(name, unit, data)| metric(name, unit, data))
}

fn requests() -> impl Strategy<Value = ExportMetricsServiceRequest> {
    let scope = (maps(), prop::sample::select(vec!["", "lib"]), prop::collection::vec(metrics(), 0..3));
    let scope = scope.prop_map(|(attributes, name, metrics)| ScopeMetrics {
        scope: Some(InstrumentationScope { name: name.into(), attributes, ..Default::default() }),
        schema_url: name.into(),
        metrics,
    });
    let resource = (maps(), prop::collection::vec(scope, 0..3)).prop_map(|(attributes, scope_metrics)| {
        ResourceMetrics {
            resource: Some(Resource { attributes, ..Default::default() }),
            scope_metrics,
            ..Default::default()
        }
    });
    prop::collection::vec(resource, 0..3)
        .prop_map(|resource_metrics| ExportMetricsServiceRequest { resource_metrics })
}

/// In an order that says nothing, with NaNs that are equal to themselves.
fn comparable(request: &WriteRequest) -> Vec<String> {
    let mut all: Vec<String> = request
        .timeseries
        .iter()
        .map(|series| {
            let labels: Vec<_> = series.labels.iter().map(|label| (&label.name, &label.value)).collect();
            let samples: Vec<_> =
                series.samples.iter().map(|sample| (sample.timestamp, sample.value.to_bits())).collect();
            let mut exemplars: Vec<_> = series
                .exemplars
                .iter()
                .map(|exemplar| {
                    format!("{:?}", (exemplar.timestamp, exemplar.value.to_bits(), &exemplar.labels))
                })
                .collect();
            exemplars.sort();
            format!("{labels:?} {samples:?} {exemplars:?}")
        })
        .collect();
    all.sort();
    all
}

proptest! {
    #[test]
    fn the_series_are_those_of_the_reference(request in requests(), is_scope_labelled in any::<bool>()) {
        let settings = Settings { is_scope_labelled, ..settings("http://x".into()) };
        let entry = entry(100, &request);
        let options = Options { is_scope_labelled, promote: &settings.promote, committed_ms: entry.time_ms as i64 };
        let expected = reference::translate(&entry.bytes, &options);
        let found = translated(&settings, &entry);
        let add = |number: &u64| number + 100;
        prop_assert_eq!(&found.unsupported, &expected.unsupported.iter().map(add).collect::<Vec<_>>());
        let rejected: Vec<_> = found.rejected.iter().map(|(record, refusal)| (*record, refusal.word())).collect();
        let expected_rejected: Vec<_> = expected.rejected.iter().map(|(number, why)| (number + 100, *why)).collect();
        prop_assert_eq!(rejected, expected_rejected);
        prop_assert_eq!(comparable(&written(&settings, &[entry])), comparable(&expected.request));
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), request in requests(), cut in any::<prop::sample::Index>()) {
        let whole = request.encode_to_vec();
        let cut = whole.get(..cut.index(whole.len() + 1)).unwrap_or_default().to_vec();
        for bytes in [bytes, cut] {
            let entry = Arc::new(Entry { bytes: bytes.into(), ..(*entry(1, &ExportMetricsServiceRequest::default())).clone() });
            let _ = write_requests(&settings("http://x".into()), &[entry.clone(), entry.clone()]);
            let _ = Items::over(Signal::Metrics, &entry.bytes).count();
            let _ = delivery(&[entry], false);
        }
    }
}
