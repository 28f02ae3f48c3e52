//! What a receiver refuses costs itself alone.

use super::fake::{Act, Fake, labels_of};
use super::reference::TimeSeries;
use super::samples::{SECOND, delivery, entry, entry_of, gauge, point, request, series};
use crate::batch::Signal;
use crate::sinks::{Delivery, SendError, Sent};
use prost::Message;
use std::time::Duration;

fn none(_: &TimeSeries) -> Option<(u16, &'static str)> {
    None
}

fn is_137(series: &TimeSeries) -> Option<(u16, &'static str)> {
    (labels_of(series) == "g{series=137}").then_some((400, "what is that"))
}

fn rejected(records: impl IntoIterator<Item = (u64, &'static str)>) -> Sent {
    Sent { rejected: records.into_iter().collect(), ..Sent::default() }
}

#[tokio::test]
async fn one_bad_series_among_500_costs_itself_alone() {
    let fake = Fake::start([], is_137).await;
    let sink = fake.sink();
    let sent = sink.send(&delivery(&[series(1000, 500, 0)], false)).await;
    assert_eq!(sent, Ok(rejected([(1137, "refused")])));
    let stored = fake.stored();
    assert_eq!(stored.len(), 499);
    assert!(stored.values().all(|samples| samples.len() == 1));
    let requests = fake.take_requests().len();
    assert!(requests <= 20, "{requests} requests");

    let sent = sink.send(&delivery(&[series(1500, 100, 1)], false)).await;
    assert_eq!((sent, fake.take_requests().len()), (Ok(Sent::default()), 1), "the next good one");
}

#[tokio::test]
async fn a_series_that_is_out_of_order_and_one_that_is_twice_are_told_with_their_reasons() {
    let fake = Fake::start([], none).await;
    let sink = fake.sink();
    let newer = entry(1, &request(&[], vec![gauge("g", vec![point(&[("series", "7")], 9, 1.0)])]));
    let other = entry(2, &request(&[], vec![gauge("g", vec![point(&[("series", "450")], 0, -1.0)])]));
    assert_eq!(sink.send(&delivery(&[newer, other], false)).await, Ok(Sent::default()));
    let sent = sink.send(&delivery(&[series(1000, 500, 0)], false)).await;
    assert_eq!(sent, Ok(rejected([(1007, "out_of_order"), (1450, "duplicate")])));
    assert_eq!(fake.stored().len(), 500);
}

#[tokio::test]
async fn one_bad_sample_of_a_series_costs_that_record() {
    let fake = Fake::start([], none).await;
    let sink = fake.sink();
    let at = |first, second| entry(first, &request(&[], vec![gauge("g", vec![point(&[], second, 1.0)])]));
    assert_eq!(sink.send(&delivery(&[at(1, 5)], false)).await, Ok(Sent::default()));
    let sent = sink.send(&delivery(&[at(2, 3), at(3, 6), at(4, 7)], false)).await;
    assert_eq!(sent, Ok(rejected([(2, "out_of_order")])));
    let times: Vec<i64> = fake.stored()["g{}"].iter().map(|(time, _)| time / 1000 - SECOND as i64).collect();
    assert_eq!(times, [5, 6, 7]);
}

#[tokio::test]
async fn a_refused_target_info_takes_no_record_with_it() {
    let is_info = |series: &TimeSeries| {
        labels_of(series).starts_with("target_info").then_some((400, "out of order sample"))
    };
    let fake = Fake::start([], is_info).await;
    let points = (0..50).map(|at| point(&[("series", &at.to_string())], 0, 0.0)).collect();
    let resource = [("service.name", "shop"), ("host.name", "a")];
    let entry = entry(1, &request(&resource, vec![gauge("g", points)]));
    assert_eq!(fake.sink().send(&delivery(&[entry], false)).await, Ok(Sent::default()));
    assert_eq!(fake.stored().len(), 50);
    assert_eq!(fake.take_requests().len(), 3, "all, the records, the target_info");
}

#[tokio::test]
async fn a_status_that_refuses_any_request_is_not_asked_again() {
    for (status, reason) in [(401, "unauthorized"), (404, "not_found"), (308, "refused")] {
        let fake = Fake::start([Act::Say(status, Some(("location", "http://other/")), "secret")], none).await;
        let sink = fake.sink();
        let sent = sink.send(&delivery(&[series(1, 20, 0)], false)).await;
        assert_eq!(sent, Ok(rejected((1..21).map(|record| (record, reason)))));
        assert_eq!(fake.take_requests().len(), 1);
        assert_eq!(sink.send(&delivery(&[series(21, 20, 0)], false)).await, Ok(Sent::default()));
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_halved() {
    let fake = Fake::start([Act::Say(413, None, "")], none).await;
    assert_eq!(fake.sink().send(&delivery(&[series(1, 20, 0)], false)).await, Ok(Sent::default()));
    let sizes: Vec<usize> = fake.take_requests().iter().map(|request| request.timeseries.len()).collect();
    assert_eq!(sizes, [20, 10, 10]);
}

#[tokio::test]
async fn trouble_of_the_receiver_asks_for_another_try_and_tells_no_content() {
    let slow = Some(("retry-after", "7"));
    let script =
        [Act::Say(500, None, "secret"), Act::Say(503, slow, "secret"), Act::Say(429, slow, "secret")];
    let fake = Fake::start(script, none).await;
    let sink = fake.sink();
    let after = Some(Duration::from_secs(7));
    for (status, after) in [(500, None), (503, after), (429, after)] {
        let sent = sink.send(&delivery(&[series(1, 20, 0)], false)).await;
        assert_eq!(sent, Err(SendError::Retry { after, reason: format!("status {status}") }));
        assert_eq!(fake.take_requests().len(), 1);
    }
    assert_eq!(sink.send(&delivery(&[series(1, 20, 0)], true)).await, Ok(Sent::default()));
    assert_eq!(fake.stored().len(), 20);
}

#[tokio::test]
async fn nobody_at_the_address_asks_for_another_try() {
    let fake = Fake::start([], none).await;
    let sink = fake.sink();
    drop(fake);
    let sent = sink.send(&delivery(&[series(1, 1, 0)], false)).await;
    assert!(matches!(sent, Err(SendError::Retry { after: None, .. })), "{sent:?}");
}

#[tokio::test]
async fn a_receiver_that_takes_everything_and_keeps_nothing_is_believed() {
    let fake = Fake::start((0..3).map(|_| Act::Say(204, None, "")), none).await;
    let sink = fake.sink();
    for first in [1, 21, 41] {
        assert_eq!(sink.send(&delivery(&[series(first, 20, 0)], false)).await, Ok(Sent::default()));
    }
    assert_eq!(fake.take_requests().len(), 3);
}

#[tokio::test]
async fn a_tenant_with_nothing_but_bad_series_is_bounded_and_costs_no_other() {
    let is_bad =
        |series: &TimeSeries| labels_of(series).starts_with("bad").then_some((400, "too old sample"));
    let fake = Fake::start([], is_bad).await;
    let sink = fake.sink();
    let points = (0..3000).map(|at| point(&[("series", &at.to_string())], 0, 0.0)).collect();
    let bad = request(&[], vec![gauge("bad", points)]).encode_to_vec();
    let entries = [series(1, 100, 0), entry_of("evil", 101, bad), series(3101, 100, 1)];
    let sent = sink.send(&delivery(&entries, false)).await;
    assert_eq!(sent, Ok(rejected((101..3101).map(|record| (record, "too_old")))));
    assert_eq!(fake.stored().values().map(Vec::len).sum::<usize>(), 200);
    let requests = fake.take_requests().len();
    assert!(requests < 1100, "{requests} requests");
}

#[tokio::test]
async fn other_signals_are_unsupported() {
    let fake = Fake::start([], none).await;
    for signal in [Signal::Logs, Signal::Traces] {
        let delivery = Delivery { signal, ..delivery(&[series(1, 4, 0)], false) };
        let sent = fake.sink().send(&delivery).await;
        assert_eq!(sent, Ok(Sent { unsupported: 4, ..Sent::default() }));
    }
    assert_eq!(fake.take_requests().len(), 0);
}
