//! Answers that never came: what was acknowledged is not sent again, what was stored is presumed to be.

use super::fake::{Act, Fake, labels_of};
use super::reference::TimeSeries;
use super::samples::{delivery, entry, gauge, point, request, series};
use crate::batch::Entry;
use crate::sinks::remote_write::RemoteWrite;
use crate::sinks::{SendError, Sent};
use std::sync::Arc;
use std::time::Duration;

fn none(_: &TimeSeries) -> Option<(u16, &'static str)> {
    None
}

/// Sends, and leaves before the answer.
async fn lose(sink: &RemoteWrite, fake: &Fake, entries: &[Arc<Entry>], requests: usize) {
    let delivery = delivery(entries, false);
    let sending = sink.send(&delivery);
    let arrived = async {
        let mut seen = 0;
        while seen < requests {
            tokio::time::sleep(Duration::from_millis(1)).await;
            seen += fake.take_requests().len();
        }
    };
    tokio::select! {
        sent = sending => panic!("answered: {sent:?}"),
        () = arrived => {}
    }
}

/// Several samples for each of `count` series.
fn several(first: u64, count: usize) -> Vec<Arc<Entry>> {
    (0..4).map(|at| series(first + at * count as u64, count, at)).collect()
}

#[tokio::test]
async fn what_was_stored_unanswered_is_found_out_by_one_request_where_each_series_has_one_sample() {
    let fake = Fake::start([Act::JudgeSilently], none).await;
    let sink = fake.sink();
    let entries = [series(1, 300, 0)];
    lose(&sink, &fake, &entries, 1).await;
    assert_eq!(sink.send(&delivery(&entries, true)).await, Ok(Sent::default()));
    assert_eq!(fake.take_requests().len(), 1);
    assert!(fake.stored().values().all(|samples| samples.len() == 1));
}

#[tokio::test]
async fn what_was_stored_unanswered_is_presumed_after_four_requests() {
    // Also by a sink that knows nothing of the first attempt, as after a restart.
    for is_new in [false, true] {
        let fake = Fake::start([Act::JudgeSilently], none).await;
        let mut sink = fake.sink();
        let entries = several(1, 300);
        lose(&sink, &fake, &entries, 1).await;
        if is_new {
            sink = fake.sink();
        }
        let sent = sink.send(&delivery(&entries, true)).await;
        assert_eq!(sent, Ok(Sent { presumed: 1200, ..Sent::default() }));
        assert_eq!(fake.take_requests().len(), 4);
        assert_eq!(sink.send(&delivery(&[series(2000, 300, 9)], false)).await, Ok(Sent::default()));
        assert!(fake.stored().values().all(|samples| samples.len() == 5));
    }
}

#[tokio::test]
async fn what_was_not_stored_for_one_bad_series_is_not_presumed() {
    let fake = Fake::start([Act::Ignore], none).await;
    let sink = fake.sink();
    let newer = entry(1, &request(&[], vec![gauge("g", vec![point(&[("series", "200")], 9, 1.0)])]));
    fake.say([Act::Judge]);
    let entries = several(1000, 300);
    // The first request is ignored; the other one is of another sink.
    lose(&sink, &fake, &entries, 1).await;
    assert_eq!(fake.sink().send(&delivery(&[newer], false)).await, Ok(Sent::default()));
    let sent = sink.send(&delivery(&entries, true)).await.unwrap();
    let bad: Vec<(u64, &str)> = (0..4).map(|at| (1200 + at * 300, "out_of_order")).collect();
    assert_eq!((sent.rejected, sent.presumed), (bad, 0));
    let stored = fake.stored();
    assert_eq!(stored.len(), 300);
    assert_eq!(stored.values().filter(|samples| samples.len() == 4).count(), 299);
}

#[tokio::test]
async fn a_retry_within_a_bisection_goes_on_where_it_was() {
    let is_137 = |series: &TimeSeries| (labels_of(series) == "g{series=137}").then_some((400, "no"));
    let fake = Fake::start([], is_137).await;
    let sink = fake.sink();
    let entries = [series(1000, 500, 0)];
    let mut taken = Vec::new();
    let mut is_resend = false;
    let sent = loop {
        // Every third request meets trouble.
        fake.say([Act::Judge, Act::Judge, Act::Say(503, None, "")]);
        let sent = sink.send(&delivery(&entries, is_resend)).await;
        taken.extend(fake.take_requests());
        is_resend = true;
        match sent {
            Err(SendError::Retry { .. }) => {}
            sent => break sent,
        }
    };
    assert_eq!(sent, Ok(Sent { rejected: vec![(1137, "refused")], ..Sent::default() }));
    assert_eq!(fake.stored().len(), 499);
    assert!(taken.len() <= 40, "{} requests", taken.len());
}

#[tokio::test]
async fn the_portions_that_were_answered_are_not_sent_again() {
    let fake = Fake::start([Act::Judge, Act::Say(500, None, "")], none).await;
    let sink = fake.sink();
    let entries: Vec<_> = (0..3).map(|at| series(1 + at * 8000, 8000, at)).collect();
    let sent = sink.send(&delivery(&entries, false)).await;
    assert!(matches!(sent, Err(SendError::Retry { .. })), "{sent:?}");
    assert_eq!(sink.send(&delivery(&entries, true)).await, Ok(Sent::default()));
    let samples = |request: &super::reference::WriteRequest| -> usize {
        request.timeseries.iter().map(|series| series.samples.len()).sum()
    };
    let sizes: Vec<usize> = fake.take_requests().iter().map(samples).collect();
    assert_eq!(sizes, [10_000, 10_000, 10_000, 4000], "the second one twice");
    assert!(fake.stored().values().all(|samples| samples.len() == 3));
}

#[tokio::test]
async fn another_delivery_begins_anew() {
    let fake = Fake::start([Act::Say(500, None, "")], none).await;
    let sink = fake.sink();
    assert!(sink.send(&delivery(&[series(1, 10, 0)], false)).await.is_err());
    // The first one has expired.
    assert_eq!(sink.send(&delivery(&[series(11, 10, 1)], false)).await, Ok(Sent::default()));
    let times: Vec<usize> = fake.stored().values().map(Vec::len).collect();
    assert_eq!(times, [1; 10]);
}
