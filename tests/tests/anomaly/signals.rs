//! Spans and metrics: what the plugin reads of them through the sandbox.

use super::{
    AlertEffect, Json, Plugin, Sent, World, attribute, json, load, of_service, records, resource, sandbox,
    words,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric::Data,
    number_data_point::Value,
};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::Event};

const MILLISECOND_NS: u64 = 1_000_000;
const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const START_NS: u64 = super::START_NS;

/// Windows that are learned, of all rules.
fn plugin(metrics: Json) -> Plugin {
    load(&sandbox(), json!({ "learning_windows": 30, "metrics": metrics }))
}

fn spans(number: usize, kind: i32, milliseconds: u64) -> Vec<Span> {
    let start = START_NS;
    let end = |at: usize| start + (milliseconds + at as u64 % 7) * MILLISECOND_NS;
    let span = |at: usize| Span {
        kind,
        name: "GET /".into(),
        start_time_unix_nano: start,
        end_time_unix_nano: end(at),
        ..Default::default()
    };
    (0..number).map(span).collect()
}

fn failed(mut spans: Vec<Span>, events: &[Event]) -> Vec<Span> {
    for span in &mut spans {
        span.status = Some(Status { code: 2, ..Default::default() });
        span.events = events.to_vec();
    }
    spans
}

fn of_spans(service: &str, spans: Vec<Span>) -> ResourceSpans {
    let scope_spans = vec![ScopeSpans { spans, ..Default::default() }];
    ResourceSpans { resource: resource(Some(service)), scope_spans, ..Default::default() }
}

fn exception(kind: &str, message: &str, stack: &str) -> Vec<KeyValue> {
    vec![
        attribute("exception.type", kind),
        attribute("exception.message", message),
        attribute("exception.stacktrace", stack),
    ]
}

fn event(name: &str, attributes: Vec<KeyValue>) -> Event {
    Event { name: name.into(), attributes, ..Default::default() }
}

fn text(alert: &AlertEffect) -> Option<&str> {
    match alert {
        AlertEffect::Fire(alert) => Some(&alert.text),
        AlertEffect::Resolve(_) => None,
    }
}

fn texts(alerts: &[AlertEffect]) -> Vec<&str> {
    alerts.iter().filter_map(text).collect()
}

/// So many windows of the same; what was told in each that told anything, with its number.
fn pass(world: &mut World, windows: usize, request: impl Fn(usize) -> Vec<Sent>) -> Vec<(usize, String)> {
    let told = (0..windows).map(|window| (window, words(&world.pass(request(window))).join(" ")));
    told.filter(|(_, words)| !words.is_empty()).collect()
}

#[test]
fn requests_that_become_slow_are_told_until_they_are_fast_again() {
    let mut world = World::new(plugin(json!([])), 2);
    // Two services in one request; waiting for others gets longer all the time and is not looked at.
    let of = |milliseconds: u64, window: usize| -> Vec<Sent> {
        let web = [spans(50, SERVER, milliseconds), spans(90, CLIENT, 10 + 100 * window as u64)].concat();
        vec![vec![of_spans("web", web), of_spans("db", spans(600, SERVER, 3))].into()]
    };
    assert_eq!(pass(&mut world, 60, |window| of(80, window)), []);
    let mut single = spans(1, SERVER, 60_000);
    single.extend(spans(49, SERVER, 80));
    assert_eq!(
        pass(&mut world, 20, |_| vec![
            vec![of_spans("web", single.clone())].into(),
            vec![of_spans("db", spans(9, SERVER, 3))].into()
        ]),
        [],
        "one slow request"
    );
    let mut told = pass(&mut world, 2, |_| of(400, 60));
    let opened = world.pass(of(400, 60));
    let text = texts(&opened)[0].to_owned();
    assert!(text.starts_with("slower since ") && text.contains("half of the requests take up to "), "{text}");
    told.push((2, words(&opened).join(" ")));
    told.extend(pass(&mut world, 5, |_| of(400, 60)).into_iter().map(|(window, told)| (window + 3, told)));
    let expected: Vec<(usize, String)> = (2..8)
        .map(|window| (window, format!("latency:shop/web+{}", if window == 2 { 3 } else { 1 })))
        .collect();
    assert_eq!(told, expected);
    assert_eq!(pass(&mut world, 12, |_| of(80, 60)), [(5, "latency:shop/web-".to_owned())]);
}

#[test]
fn spans_that_fail_are_told_apart_from_logs() {
    let mut world = World::new(plugin(json!([])), 2);
    let of = |bad: usize| -> Vec<Sent> {
        let all = [spans(100 - bad, CLIENT, 5), failed(spans(bad, SERVER, 5), &[])].concat();
        vec![vec![of_spans("web", all)].into(), vec![of_service(Some("web"), records(50, 9, "well"))].into()]
    };
    assert_eq!(pass(&mut world, 40, |_| of(1)), []);
    assert_eq!(
        pass(&mut world, 2, |_| of(60)),
        [(0, "error-rate:shop/web:spans+60".to_owned()), (1, "error-rate:shop/web:spans+60".to_owned())]
    );
    let ended = (5, "error-rate:shop/web:spans-".to_owned());
    assert_eq!(pass(&mut world, 10, |_| of(0)), [ended]);
}

#[test]
fn an_exception_of_a_span_is_one_new_error_by_its_type_and_top_frame() {
    let mut world = World::new(plugin(json!([])), 2);
    let stack = |method: &str, line: u32| {
        format!("E: x\n\tat shop.Order.{method}(Order.java:{line})\n\tat b.C(D.java:1)")
    };
    let usual = |line: u32| {
        let known = event("exception", exception("IOError", "disk 7 full", &stack("pay", line)));
        vec![of_spans(
            "web",
            [spans(99, SERVER, 5), failed(spans(1, SERVER, 5), &[event("retry", vec![]), known])].concat(),
        )]
    };
    assert_eq!(pass(&mut world, 40, |window| vec![usual(window as u32).into()]), []);
    // The same words from another place, in two spans; and one that was handled, in a span that did not fail.
    let new = event("exception", exception("IOError", "disk 9 full", &stack("refund", 1)));
    let mut handled = spans(1, SERVER, 5);
    handled[0].events = vec![event("exception", exception("Other", "never mind", ""))];
    let with_new = || {
        let bad = failed(spans(2, SERVER, 5), &[event("cache miss", vec![]), new.clone()]);
        vec![usual(5).into(), vec![of_spans("web", [bad, handled.clone()].concat())].into()]
    };
    assert_eq!(pass(&mut world, 1, |_| with_new()), [], "it waits for a window");
    let opened = world.pass(vec![Sent::from(usual(6))]);
    assert_eq!(opened.len(), 1, "{opened:?}");
    let word = &words(&opened)[0];
    assert!(word.starts_with("new-error:shop/web:") && word.ends_with("+2"), "{word}");
    assert!(texts(&opened)[0].starts_with("IOError: disk <n> full at shop.Order.refund\n"), "{opened:?}");
    let told = pass(&mut world, 30, |_| vec![usual(7).into()]);
    assert_eq!(told.len(), 1, "{told:?}");
    // Now it is known.
    assert_eq!(pass(&mut world, 3, |_| with_new()), []);
}

#[test]
fn an_exception_of_a_log_record_has_its_frame_too() {
    let mut world = World::new(plugin(json!([])), 1);
    let failing = |frame: &str| -> Vec<Sent> {
        let stack = format!(
            "Traceback (most recent call last):\n  File \"/srv/a.py\", line 3, in run\n  File \"/srv/pay.py\", line 9, in {frame}\nE"
        );
        let record = LogRecord {
            severity_number: 17,
            body: super::text("no"),
            attributes: exception("E", "no", &stack),
            ..Default::default()
        };
        vec![vec![of_service(Some("web"), [records(99, 9, "well"), vec![record]].concat())].into()]
    };
    assert_eq!(pass(&mut world, 40, |_| failing("charge")), []);
    assert_eq!(pass(&mut world, 1, |_| failing("refund")), []);
    let opened = world.pass(failing("charge"));
    assert!(texts(&opened)[0].starts_with("E: no at pay.py refund\n"), "{opened:?}");
}

fn point(value: f64, at_s: u64, queue: &str) -> NumberDataPoint {
    NumberDataPoint {
        attributes: vec![attribute("queue", queue)],
        start_time_unix_nano: START_NS,
        time_unix_nano: START_NS + at_s * 1_000 * MILLISECOND_NS,
        value: Some(Value::AsDouble(value)),
        ..Default::default()
    }
}

fn metric(name: &str, data: Data) -> Metric {
    Metric { name: name.into(), data: Some(data), ..Default::default() }
}

fn gauge(name: &str, data_points: Vec<NumberDataPoint>) -> Metric {
    metric(name, Data::Gauge(Gauge { data_points }))
}

fn sum(name: &str, temporality: i32, data_points: Vec<NumberDataPoint>) -> Metric {
    metric(name, Data::Sum(Sum { data_points, aggregation_temporality: temporality, is_monotonic: true }))
}

fn of_metrics(service: &str, metrics: Vec<Metric>) -> ResourceMetrics {
    let scope_metrics = vec![ScopeMetrics { metrics, ..Default::default() }];
    ResourceMetrics { resource: resource(Some(service)), scope_metrics, ..Default::default() }
}

/// A gauge, a sum that grows for ever and one that begins anew each time, of two queues; by whichever worker.
#[test]
fn a_configured_metric_far_from_the_usual_is_told_and_others_are_not_looked_at() {
    let settings = json!([
        { "name": "queue.depth" },
        { "name": "jobs.done", "service": "web", "direction": "below" },
        { "name": "bytes.sent", "min": 1_000_000 },
        { "name": "calls" }
    ]);
    let mut world = World::new(plugin(settings), 3);
    let mut done = [0.0, 0.0];
    let mut window_number = 0;
    let mut send = |depth: f64, rate: f64, delta: f64| -> Vec<Sent> {
        window_number += 1;
        let at_s = window_number * 10;
        done = [done[0] + 10.0 * rate, done[1] + 30.0 * rate];
        let both = |[one, other]: [f64; 2]| vec![point(one, at_s, "a"), point(other, at_s, "b")];
        let mut calls = both([delta, delta]);
        calls
            .iter_mut()
            .for_each(|point| point.start_time_unix_nano = point.time_unix_nano - 5_000 * MILLISECOND_NS);
        let metrics = vec![
            gauge("queue.depth", both([depth, depth + 2.0])),
            sum("jobs.done", 2, both(done)),
            gauge("bytes.sent", both([depth, depth])),
            sum("calls", 1, calls),
            gauge("other", both([depth, depth])),
        ];
        vec![
            vec![of_metrics("web", metrics)].into(),
            vec![of_metrics("db", vec![sum("jobs.done", 2, both(done))])].into(),
        ]
    };
    let mut told = |windows: usize, depth: f64, rate: f64, delta: f64| {
        let all = (0..windows).flat_map(|window| {
            let jitter = (window % 3) as f64;
            words(&world.pass(send(depth + jitter, rate, delta + jitter)))
        });
        all.collect::<Vec<_>>()
    };
    assert_eq!(told(60, 50.0, 4.0, 500.0), [""; 0]);
    assert_eq!(told(3, 500.0, 4.0, 500.0), ["metric:shop/web:queue.depth+3"]);
    assert_eq!(told(6, 50.0, 4.0, 500.0), ["metric:shop/web:queue.depth-"]);
    assert_eq!(told(4, 50.0, 0.1, 500.0), ["metric:shop/web:jobs.done+3", "metric:shop/web:jobs.done+1"]);
    assert_eq!(told(6, 50.0, 4.0, 500.0), ["metric:shop/web:jobs.done-"]);
    assert_eq!(told(5, 50.0, 40.0, 500.0), [""; 0], "more jobs are no matter");
    assert_eq!(told(6, 50.0, 4.0, 500.0), [""; 0]);
    assert_eq!(told(3, 50.0, 4.0, 2_000.0), ["metric:shop/web:calls+3"]);
}

#[test]
fn any_signal_that_a_service_used_to_send_is_missed() {
    let mut world = World::new(plugin(json!([])), 1);
    let all = |window: usize, has: [bool; 3]| -> Vec<Sent> {
        let mut sent: Vec<Sent> = vec![vec![of_service(Some("db"), records(3, 9, "x"))].into()];
        if has[0] {
            sent.push(vec![of_service(Some("web"), records(3, 9, "x"))].into());
        }
        if has[1] {
            sent.push(vec![of_spans("web", spans(3, SERVER, 5))].into());
        }
        // Once in half a minute.
        if has[2] && window.is_multiple_of(3) {
            sent.push(vec![of_metrics("web", vec![gauge("x", vec![point(1.0, 1, "a")])])].into());
        }
        sent
    };
    assert_eq!(pass(&mut world, 120, |window| all(window, [true; 3])), []);
    let silence = |number: usize, word: &str| (number, format!("silence:shop/web{word}"));
    assert_eq!(pass(&mut world, 9, |window| all(window, [true, false, true])), [silence(5, "+1")]);
    assert_eq!(pass(&mut world, 9, |window| all(window, [true, true, true])), [silence(0, "-")]);
    // The last data points were two windows ago.
    assert_eq!(
        pass(&mut world, 9, |window| all(window, [false, true, false])),
        [silence(3, "+1"), silence(5, "+1")]
    );
    assert_eq!(pass(&mut world, 9, |window| all(window, [true, true, true])), [silence(0, "-")]);
}
