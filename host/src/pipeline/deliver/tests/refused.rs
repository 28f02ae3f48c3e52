//! What is refused for good, down to the records at fault.

use super::*;
use crate::journal::Done;
use crate::pipeline::deliver::lane::Lane;
use crate::pipeline::deliver::work::Work;
use crate::sinks::Sent;

#[tokio::test(start_paused = true)]
async fn one_entry_that_is_refused_costs_no_other() {
    let fake = Fake::start([
        Answer::Silence,
        Answer::Grpc { code: 14, details: None },
        Answer::RefuseFrom { bytes: 5, code: 3 },
    ])
    .await;
    let mut world = World::new(&["a"]);
    world.serve(0, grpc(&fake), in_order());
    world.commit("t", Signal::Logs, "0", 1).await;
    world.wait(|_| fake.seen().len() == 1).await;
    for bytes in ["1", "2", "poison", "3", "4", "5", "6"] {
        world.commit("t", Signal::Logs, bytes, 1).await;
    }
    let line = world.settled().await;
    assert_eq!((line.sinks["a"].delivered, line.sinks["a"].rejected["refused"]), (7, 1));
    let arrived: Vec<String> = bodies(&fake).into_iter().skip(2).filter(|body| body.len() < 5).collect();
    assert_eq!(arrived.concat(), "0123456", "in order");
}

/// An answer that names records, over entries of several tenants.
#[tokio::test]
async fn what_an_answer_names_is_counted_for_whose_it_is() {
    let mut world = World::new(&["a"]);
    world.sinks.spawn(std::future::pending());
    world.commit("t", Signal::Logs, "x", 3).await;
    world.commit("u", Signal::Logs, "y", 4).await;
    let joining = Joining { records_max: 100, bytes_max: 100, is_across_tenants: true };
    let mut work = Work::of(world.journal.cursor(SinkId(0)).try_next(joining));
    let rejected = vec![(4, "id_collision"), (3, "id_collision"), (5, "other"), (5, "twice"), (99, "beyond")];
    let unsupported_named = vec![6, 99];
    let sink = Arc::new(Sink::open("a", sinks::Settings::Discard, None).unwrap());
    let lane = Lane::new("a".into(), sink, Settings::default(), None, world.metrics.clone());
    let group = work.groups.pop().unwrap();
    work.taken(&lane, group, Sent { rejected, unsupported: 1, unsupported_named, ..Sent::default() }).await;
    let table = world.journal.ledger.snapshot();
    assert_eq!(table.unaccounted(), []);
    let of = |tenant| table.line(tenant, Signal::Logs).sinks["a"].clone();
    assert_eq!((of("t").rejected["id_collision"], of("t").unsupported, of("t").delivered), (1, 1, 1));
    let rejected = of("u").rejected;
    assert_eq!((rejected["id_collision"], rejected["other"]), (1, 1));
    assert_eq!((of("u").unsupported, of("u").delivered), (1, 1));
}

/// So many log records; those in `bad` say `poison`.
fn records(count: u32, bad: &[u32]) -> Vec<String> {
    (0..count)
        .map(|at| if bad.contains(&at) { format!("poison {at}") } else { format!("record {at}") })
        .collect()
}

fn good(records: &[String]) -> Vec<&String> {
    records.iter().filter(|body| !body.contains("poison")).collect()
}

async fn refuse_poison() -> Fake {
    Fake::start([Answer::RefuseWith(b"poison".to_vec())]).await
}

#[tokio::test(start_paused = true)]
async fn the_records_at_fault_are_rejected_and_all_others_are_delivered_once_and_in_order() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        for bad in [&[0][..], &[4711], &[8191], &[17, 4000, 4001, 8000]] {
            let fake = refuse_poison().await;
            let mut world = World::new(&["a"]);
            world.serve(0, otlp(&fake, protocol, Compression::None), in_order());
            let records = records(8192, bad);
            world.commit("t", Signal::Logs, logs(&records), 8192).await;
            let sink = world.settled().await.sinks["a"].clone();
            let lost = bad.len() as u64;
            assert_eq!(
                (sink.delivered, sink.rejected["refused"]),
                (8192 - lost, lost),
                "{protocol:?} {bad:?}"
            );
            assert!(taken(&fake).iter().eq(good(&records)), "{protocol:?} {bad:?}");
            let requests = fake.seen().len();
            assert!(requests <= 1 + 26 * bad.len(), "{requests} requests");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn records_at_fault_in_joined_entries_are_found_in_each() {
    let fake = refuse_poison().await;
    let mut world = World::new(&["a"]);
    world.sinks.spawn(std::future::pending());
    let mut all = Vec::new();
    for (count, bad) in [(5, &[][..]), (40, &[3, 39]), (1, &[0]), (1, &[]), (300, &[299])] {
        let records = records(count, bad);
        world.commit("t", Signal::Logs, logs(&records), count).await;
        all.extend(records);
    }
    world.serve(0, grpc(&fake), in_order());
    let sink = world.settled().await.sinks["a"].clone();
    assert_eq!((sink.delivered, sink.rejected["refused"]), (343, 4));
    assert!(taken(&fake).iter().eq(good(&all)));
}

/// Its own tenant's as well.
#[tokio::test(start_paused = true)]
async fn an_entry_with_nothing_but_bad_records_costs_no_other() {
    let fake = refuse_poison().await;
    let mut world = World::new(&["a"]);
    world.sinks.spawn(std::future::pending());
    let mut all = Vec::new();
    for (count, bad) in [(10, 0..0), (2000, 0..2000), (10, 0..0), (10, 0..0), (20, 3..4), (10, 0..0)] {
        let records = records(count, &bad.collect::<Vec<_>>());
        world.commit("t", Signal::Logs, logs(&records), count).await;
        all.extend(records);
    }
    world.serve(0, grpc(&fake), in_order());
    let sink = world.settled().await.sinks["a"].clone();
    assert_eq!((sink.delivered, sink.rejected["refused"]), (59, 2001));
    assert!(taken(&fake).iter().eq(good(&all)));
    let requests = fake.seen().len();
    assert!(requests < 100, "{requests} requests");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_everything_is_not_asked_for_each_record() {
    let fake = Fake::start([Answer::RefuseFrom { bytes: 0, code: 3 }]).await;
    let mut world = World::new(&["a"]);
    world.serve(0, grpc(&fake), in_order());
    world.commit("t", Signal::Logs, logs(&records(8192, &[])), 8192).await;
    assert_eq!(world.settled().await.sinks["a"].rejected["refused"], 8192);
    let requests = fake.seen().len();
    assert!((32..=32 + 14).contains(&requests), "{requests} requests");
}

#[tokio::test(start_paused = true)]
async fn a_delivery_with_very_many_bad_records_ends() {
    let fake = refuse_poison().await;
    let mut world = World::new(&["a"]);
    world.serve(0, grpc(&fake), in_order());
    let bad: Vec<u32> = (0..8192).filter(|at| at % 2 == 0).collect();
    world.commit("t", Signal::Logs, logs(&records(8192, &bad)), 8192).await;
    let sink = world.settled().await.sinks["a"].clone();
    assert_eq!(sink.delivered + sink.rejected["refused"], 8192);
    assert!(sink.delivered > 300 && taken(&fake).len() as u64 == sink.delivered);
    let requests = fake.seen().len();
    assert!(requests < 2000, "{requests} requests");
}

#[tokio::test(start_paused = true)]
async fn what_is_about_the_sender_is_not_halved() {
    for (protocol, answer, word) in [
        (Protocol::Grpc, Answer::Grpc { code: 16, details: None }, "unauthorized"),
        (Protocol::Grpc, Answer::Grpc { code: 7, details: None }, "unauthorized"),
        (Protocol::Grpc, Answer::Grpc { code: 12, details: None }, "not_found"),
        (Protocol::Http, Answer::Http { status: 401, header: None, body: Vec::new() }, "unauthorized"),
        (Protocol::Http, Answer::Http { status: 403, header: None, body: Vec::new() }, "unauthorized"),
        (Protocol::Http, Answer::Http { status: 404, header: None, body: Vec::new() }, "not_found"),
        (Protocol::Http, Answer::Http { status: 405, header: None, body: Vec::new() }, "not_found"),
    ] {
        let (line, seen) = one_entry(protocol, vec![answer.clone()]).await;
        assert_eq!((line.sinks["a"].rejected[word], seen.len()), (3, 1), "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_between_refusals_is_tried_again_as_always() {
    let fake = Fake::start([
        Answer::Grpc { code: 3, details: None },
        Answer::Grpc { code: 14, details: Some(retry_info(20)) },
        Answer::Silence,
        Answer::RefuseWith(b"poison".to_vec()),
    ])
    .await;
    let mut world = World::new(&["a"]);
    world.serve(0, grpc(&fake), in_order());
    let records = records(100, &[10, 60]);
    world.commit("t", Signal::Logs, logs(&records), 100).await;
    let sink = world.settled().await.sinks["a"].clone();
    assert_eq!((sink.delivered, sink.rejected["refused"]), (98, 2));
    assert!(taken(&fake).iter().eq(good(&records)));
    let seen = fake.seen();
    assert!(seen[2].at - seen[1].at >= Duration::from_secs(20));
    assert_eq!((&seen[1].body, &seen[2].body), (&seen[2].body, &seen[3].body));
}

/// What servers on tonic say of a message beyond their limit; the specification has it tried again.
#[tokio::test(start_paused = true)]
async fn what_is_out_of_range_is_sent_in_smaller_parts() {
    let fake = Fake::start([Answer::RefuseFrom { bytes: 3000, code: 11 }]).await;
    let mut world = World::new(&["a"]);
    world.serve(0, grpc(&fake), in_order());
    let records = records(1000, &[]);
    let start = Instant::now();
    world.commit("t", Signal::Logs, logs(&records), 1000).await;
    assert_eq!(world.settled().await.sinks["a"].delivered, 1000);
    assert!(taken(&fake).iter().eq(&records));
    assert!(start.elapsed() < Duration::from_secs(1), "no pauses: it is no failure");

    // One record alone that is too large: as often as any failure.
    let fake = Fake::start([Answer::RefuseFrom { bytes: 0, code: 11 }]).await;
    let mut world = World::new(&["a"]);
    world.serve(0, grpc(&fake), Settings { retry_for: Duration::from_secs(60), ..in_order() });
    world.commit("t", Signal::Logs, logs(&["alone"]), 1).await;
    assert_eq!(world.settled().await.sinks["a"].expired["age"], 1);
    let requests = fake.seen().len();
    assert!((4..12).contains(&requests), "{requests} requests");
}

/// A stop in the middle: what is not finished goes back whole, and is sent again after the start.
#[tokio::test(start_paused = true)]
async fn a_stop_between_the_parts_of_an_entry_loses_none_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::start([
        Answer::Grpc { code: 3, details: None },
        Answer::GrpcMessage(Vec::new()),
        Answer::Silence,
    ])
    .await;
    let mut world = World::on_disk(&["a"], folder.path());
    world.serve(0, grpc(&fake), Settings { drain_for: Duration::from_secs(1), ..in_order() });
    let records = records(10, &[]);
    world.commit("t", Signal::Logs, logs(&records), 10).await;
    world.wait(|_| fake.seen().len() == 3).await;
    world.stop.cancel();
    world.sinks.join_next().await.unwrap().unwrap();
    assert_eq!(world.wait(|_| true).await.sinks["a"].in_flight, 10);
    world.journal.end().await;

    let mut world = World::on_disk(&["a"], folder.path());
    let fake = Fake::start([]).await;
    world.serve(0, grpc(&fake), in_order());
    assert_eq!(world.settled().await.sinks["a"].delivered, 10);
    assert_eq!(taken(&fake), records);
}

/// Each refused record that an answer names is a dead letter of its own stream; what cannot be kept is rejected.
#[tokio::test]
async fn what_is_refused_is_a_dead_letter_as_long_as_letters_can_be_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::new(&["a"]);
    world.sinks.spawn(std::future::pending());
    let settings = journal::LetterSettings {
        folder: folder.path().join("letters"),
        bytes_max: 1 << 20,
        age_max: Duration::from_secs(60),
    };
    let letters = DeadLetters::open(&settings, system_clock(), &world.metrics).unwrap();
    let sink = Arc::new(Sink::open("a", sinks::Settings::Discard, None).unwrap());
    let lane = Lane::new("a".into(), sink, Settings::default(), Some(letters.clone()), world.metrics.clone());
    world.commit("t", Signal::Logs, "poison", 1).await;
    let in_flight = world.journal.cursor(SinkId(0)).try_next(Joining {
        records_max: 1,
        bytes_max: 100,
        is_across_tenants: true,
    });
    let entry = in_flight[0].entry.clone();
    let kept = lane.give_up(&entry, "refused", "the words").await;
    assert_eq!(kept, Done::dead_lettered(1, "refused"));
    let page = letters.page(&journal::WhichLetters::default(), 10);
    let letter = letters.read(page.letters[0].id).unwrap();
    assert_eq!((letter.letter.sink.as_str(), letter.letter.first), ("a", entry.first));
    assert_eq!((letter.message.as_str(), &letter.content[..]), ("the words", &b"poison"[..]));
    letters.end().await;
    assert_eq!(lane.give_up(&entry, "refused", "").await, Done::rejected(1, "refused"));
}
