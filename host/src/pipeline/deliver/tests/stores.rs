//! Sinks that are told per record.

use super::*;
use crate::sinks::{Delivery, Sending, Sent};
use crate::streams::{self, StoreSettings, Streams};

const LONE: Joining = Joining { records_max: 1, bytes_max: 1, is_across_tenants: false };

#[tokio::test]
async fn a_store_takes_logs_of_many_tenants_at_once_and_has_no_form_for_traces() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::new(&["streams"]);
    let settings = crate::streams::Settings {
        store: crate::streams::StoreSettings::Embedded { folder: folder.path().join("streams") },
        retention: Duration::from_secs(86_400),
    };
    let streams = crate::streams::Streams::open(settings.clone(), world.metrics.clone()).unwrap();
    let sink = Arc::new(Sink::open("streams", sinks::Settings::Streams(settings), Some(streams)).unwrap());
    // Before anybody delivers, so that they stand together.
    world.sinks.spawn(std::future::pending());
    let body = "\n\u{b}\u{12}\u{9}\u{12}\u{7}*\u{5}\n\u{3}abc";
    for tenant in ["t", "u", "t"] {
        world.commit(tenant, Signal::Logs, body, 1).await;
    }
    world.commit("t", Signal::Traces, "\n\0", 5).await;
    let cursor = world.journal.cursor(SinkId(0));
    let (metrics, stop) = (world.metrics.clone(), world.stop.clone());
    world.sinks.spawn(run(
        "streams".into(),
        sink,
        cursor,
        Settings::default(),
        None,
        metrics,
        Ends { drain: stop, ..Ends::default() },
    ));
    assert_eq!(world.settled().await.sinks["streams"].delivered, 2);
    let table = world.journal.ledger.snapshot();
    assert_eq!(table.line("u", Signal::Logs).sinks["streams"].delivered, 1);
    world.wait(|_| world.journal.cursor(SinkId(0)).is_done()).await;
    let table = world.journal.ledger.snapshot();
    assert_eq!(table.line("t", Signal::Traces).sinks["streams"].unsupported, 5);
    let text = world.metrics.text();
    assert!(text.contains(r#"trommel_deliver_attempts_total{sink="streams",result="ok"} 2"#), "{text}");
}

#[tokio::test]
async fn what_a_store_had_already_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let store = StoreSettings::Embedded { folder: folder.path().to_owned() };
    let settings = streams::Settings { store, retention: Duration::from_secs(86_400) };
    let mut world = World::new(&["a"]);
    let streams = Streams::open(settings.clone(), world.metrics.clone()).unwrap();
    let sink = Arc::new(Sink::open("streams", sinks::Settings::Streams(settings), Some(streams)).unwrap());
    // Entries go to as many sinks as there are tasks.
    world.sinks.spawn(std::future::ready(()));
    world.commit("t", Signal::Logs, "\n\x07\x12\x05\x12\x03b\x01a", 1).await;
    // It was stored, and whoever sent it ended before that was known.
    let taken = world.journal.cursor(SinkId(0)).try_next(LONE);
    let sending = Sending { entry: taken[0].entry.clone(), is_resend: false };
    let sent = sink.send(&Delivery { signal: Signal::Logs, entries: vec![sending] }).await;
    assert_eq!(sent, Ok(Sent::default()));
    drop(taken);
    world.serve_open(0, sink, Settings::default());
    let line = world.settled().await;
    assert_eq!(line.sinks["a"].delivered, 1);
    let presumed = r#"trommel_deliver_presumed_records_total{sink="sink0"} 1"#;
    assert!(world.metrics.text().contains(presumed), "{}", world.metrics.text());
}
