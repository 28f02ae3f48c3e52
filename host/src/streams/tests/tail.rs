//! What a viewer is promised.

use super::*;

#[tokio::test]
async fn what_is_written_is_in_the_history_and_in_the_tail() {
    let world = World::new();
    let mut tail = world.tail(None);
    world.commit(&entry(&acme(), 10, 3, NOON)).await;
    assert_eq!(world.history(&acme(), History::default()).await, ["10", "11", "12"]);
    assert_eq!(lines(&mut tail, 3).await.0, ["10", "11", "12"]);
    assert_eq!(world.streams.known().await.unwrap(), [acme()]);
    assert_eq!(world.streams.is_ready(), Ok(()));
}

#[tokio::test]
async fn a_viewer_comes_back_with_its_position_and_gets_each_line_once() {
    let world = World::new();
    for first in [10, 20, 30] {
        world.commit(&entry(&acme(), first, 2, NOON + first)).await;
    }
    let mut tail = world.tail(Some(&Position::at(0).text()));
    let (seen, position) = lines(&mut tail, 3).await;
    assert_eq!(seen, ["10", "11", "20"]);
    drop(tail);
    world.commit(&entry(&acme(), 40, 1, NOON + 40)).await;
    let mut tail = world.tail(Some(&position));
    assert_eq!(lines(&mut tail, 4).await.0, ["21", "30", "31", "40"]);
    world.commit(&entry(&acme(), 50, 1, NOON + 50)).await;
    assert_eq!(lines(&mut tail, 1).await.0, ["50"]);
}

#[tokio::test]
async fn the_id_of_a_record_is_a_position() {
    let world = World::new();
    world.commit(&entry(&acme(), 10, 4, NOON)).await;
    let page = world.streams.history(&acme(), History { limit: 2, ..History::default() }).await.unwrap();
    let mut tail = world.tail(Some(&page.next.unwrap()));
    assert_eq!(lines(&mut tail, 2).await.0, ["12", "13"]);
}

#[tokio::test]
async fn a_text_that_is_no_position_is_refused_and_told_why() {
    let world = World::new();
    let good = Position::at(NOON).text();
    for (text, why) in [
        ("", "it is empty"),
        ("not a position", "it is no base64url text"),
        (&good[..4], "it was cut or lengthened"),
        (&format!("{good}AA"), "it was cut or lengthened"),
        ("_wAAAAAAAA", "it is of a version that this collector does not know"),
    ] {
        let Err(StreamsError::BadPosition(said)) = world.streams.tail(acme(), Some(text)).map(drop) else {
            panic!("{text} was taken");
        };
        assert_eq!(said, format!("{why}: send the position of an event or the id of a record, unchanged"));
    }
    // None of them is counted as a viewer.
    assert_eq!(world.streams.viewers.number(), 0);
}

#[tokio::test]
async fn a_viewer_who_joins_while_the_store_hangs_misses_no_line() {
    let world = Arc::new(World::new());
    world.commit(&entry(&acme(), 1, 1, NOON)).await;
    let held = world.streams.hold().await;
    let late = entry(&acme(), 2, 2, NOON + 1);
    world.streams.publish(&late);
    let streams = world.streams.clone();
    let writing = async move { streams.write(first_send(&late)).await.unwrap() };
    let viewing = async {
        let mut tail = world.tail(Some(&Position::at(0).text()));
        assert_eq!(lines(&mut tail, 1).await.0, ["1"]);
        let live = entry(&acme(), 4, 1, NOON + 2);
        world.streams.publish(&live);
        // Two seconds: less than its patience.
        assert!(tokio::time::timeout(Duration::from_secs(2), tail.next()).await.is_err());
        drop(held);
        assert_eq!(lines(&mut tail, 3).await.0, ["2", "3", "4"]);
    };
    tokio::join!(writing, viewing);
}

#[tokio::test]
async fn a_viewer_whom_the_store_keeps_waiting_is_told_of_a_gap_and_goes_on_live() {
    let world = World::tuned(|tuning| tuning.store_patience = Duration::from_millis(200));
    world.commit(&entry(&acme(), 1, 1, NOON)).await;
    world.streams.publish(&entry(&acme(), 2, 5, NOON + 1));
    let mut tail = world.tail(Some(&Position::at(0).text()));
    let (_, before) = lines(&mut tail, 1).await;
    let hash = stream_hash(&acme());
    let expected = TailEvent::Gap {
        from: json::id_text(&RecordId::new(hash, NOON, NODE, 1)),
        to: json::id_text(&RecordId::new(hash, NOON + 1, NODE, 6)),
        count: 5,
        reason: "store",
        position: before,
    };
    assert_eq!(next(&mut tail).await, expected);
    world.streams.publish(&entry(&acme(), 7, 1, NOON + 2));
    assert_eq!(lines(&mut tail, 1).await.0, ["7"]);
}

#[tokio::test]
async fn a_viewer_is_told_of_what_the_store_will_never_have() {
    let world = World::new();
    world.commit(&entry(&acme(), 1, 1, NOON)).await;
    world.streams.publish(&entry(&acme(), 2, 3, NOON + 1));
    let mut tail = world.tail(Some(&Position::at(0).text()));
    assert_eq!(lines(&mut tail, 1).await.0, ["1"]);
    world.streams.skip(&acme(), 5);
    assert!(matches!(next(&mut tail).await, TailEvent::Gap { count: 3, reason: "store", .. }));
    world.streams.publish(&entry(&acme(), 5, 1, NOON + 2));
    assert_eq!(lines(&mut tail, 1).await.0, ["5"]);
}

#[tokio::test]
async fn a_slow_viewer_is_told_how_many_lines_it_lost() {
    let world = World::tuned(|tuning| tuning.ring_bytes = RingBytes { one: 1500, all: 1 << 20 });
    let (mut slow, mut quick) = (world.tail(None), world.tail(None));
    world.commit(&entry(&acme(), 1, 1, NOON)).await;
    assert_eq!(lines(&mut slow, 1).await.0, ["1"]);
    assert_eq!(lines(&mut quick, 1).await.0, ["1"]);
    for number in 2..=40 {
        world.commit(&entry(&acme(), number, 1, NOON + number)).await;
        assert_eq!(lines(&mut quick, 1).await.0, [number.to_string()]);
    }
    let TailEvent::Gap { from, to, count, reason, position } = next(&mut slow).await else {
        panic!("no gap")
    };
    let (from, to) = (json::id_of(&from).unwrap(), json::id_of(&to).unwrap());
    assert_eq!((from.number(), to.number(), reason), (1, 1 + count, "slow"));
    assert!((20..39).contains(&count), "{count} lines lost");
    let rest = usize::try_from(39 - count).unwrap();
    assert_eq!(lines(&mut slow, rest).await.0, numbers(2 + count, u32::try_from(rest).unwrap()));
    // With the position of the gap it gets from the store what it lost.
    let mut again = world.tail(Some(&position));
    assert_eq!(lines(&mut again, 39).await.0, numbers(2, 39));
}

#[tokio::test]
async fn what_every_viewer_has_taken_leaves_the_ring() {
    let world = World::tuned(|tuning| tuning.ring_bytes = RingBytes { one: 1500, all: 1 << 20 });
    let (mut tail, other) = (world.tail(None), world.tail(None));
    drop(other);
    for number in 1..=100 {
        world.streams.publish(&entry(&acme(), number, 1, NOON + number));
        assert_eq!(lines(&mut tail, 1).await.0, [number.to_string()]);
    }
}

#[tokio::test]
async fn a_lane_that_nothing_waits_for_is_forgotten() {
    let world = World::new();
    let tail = world.tail(None);
    // Stored before it is published, and the other way round.
    let (early, late) = (entry(&acme(), 1, 1, NOON), entry(&acme(), 2, 1, NOON));
    world.streams.write(first_send(&early)).await.unwrap();
    world.streams.publish(&early);
    world.commit(&late).await;
    assert_eq!(world.streams.lanes.len(), 1);
    drop(tail);
    assert_eq!(world.streams.lanes.len(), 0);
    let ahead = entry(&acme(), 3, 1, NOON);
    world.streams.write(first_send(&ahead)).await.unwrap();
    assert_eq!(world.streams.lanes.len(), 1, "the publisher has not passed it yet");
    world.streams.publish(&ahead);
    assert_eq!(world.streams.lanes.len(), 0);
}

#[tokio::test]
async fn viewers_are_bounded_and_the_place_of_one_who_left_is_free() {
    let world = World::tuned(|tuning| tuning.viewers_max = 2);
    let first = world.tail(None);
    let _second = world.tail(None);
    assert_eq!(world.streams.tail(acme(), None).map(drop), Err(StreamsError::TooManyViewers(2)));
    assert_eq!(world.streams.metrics.deliver_viewers.get(), 2);
    drop(first);
    assert!(world.streams.tail(acme(), None).is_ok());
    assert_eq!(world.streams.metrics.deliver_viewers.get(), 1);
}

#[tokio::test]
async fn one_tenants_viewers_take_no_place_of_anothers() {
    let world = World::tuned(|tuning| tuning.viewers_of_tenant_max = 1);
    let own = world.tail(None);
    let another = Stream { project: ProjectId::new("other").unwrap(), ..acme() };
    let refused = world.streams.tail(another.clone(), None).map(drop);
    assert_eq!(refused, Err(StreamsError::TooManyViewersOfTenant(1)));
    let globex = Stream { tenant: TenantId::new("globex").unwrap(), ..acme() };
    assert!(world.streams.tail(globex, None).is_ok());
    drop(own);
    assert!(world.streams.tail(another, None).is_ok());
    assert_eq!(world.streams.viewers.number(), 0);
}

#[tokio::test]
async fn at_the_stop_a_viewer_gets_what_was_published_and_then_the_end() {
    let world = World::new();
    let mut tail = world.tail(None);
    world.streams.publish(&entry(&acme(), 1, 2, NOON));
    world.streams.close().await;
    assert_eq!(lines(&mut tail, 2).await.0, ["1", "2"]);
    assert_eq!(next(&mut tail).await, TailEvent::End { reason: "stopping" });
    assert_eq!(tail.next().await, None);
    assert_eq!(world.streams.tail(acme(), None).map(drop), Err(StreamsError::Stopping));
}

#[tokio::test]
async fn a_viewer_of_a_silent_stream_hears_that_the_line_is_alive() {
    let world = World::tuned(|tuning| tuning.alive_every = Duration::from_millis(20));
    let mut tail = world.tail(None);
    let TailEvent::Alive { position } = next(&mut tail).await else { panic!("not alive") };
    drop(tail);
    // Nothing was seen yet: the position stands before what comes next.
    world.commit(&entry(&acme(), 1, 1, now_ms())).await;
    assert_eq!(lines(&mut world.tail(Some(&position)), 1).await.0, ["1"]);
}

#[tokio::test]
async fn a_large_entry_is_shown_in_parts_and_stored_whole() {
    let world = World::new();
    let mut tail = world.tail(None);
    let large = entry(&acme(), 0, LARGE_RECORDS, NOON);
    world.commit(&large).await;
    let (count, all) = (LARGE_RECORDS as usize, numbers(0, LARGE_RECORDS));
    assert_eq!(lines(&mut tail, count).await.0, all);
    let query = History { limit: 10_000, ..History::default() };
    assert_eq!(world.history(&acme(), query).await, all);
    let mut again = world.tail(Some(&Position::at(0).text()));
    assert_eq!(lines(&mut again, count).await.0, all);
}

#[tokio::test]
async fn a_viewer_of_a_store_that_cannot_be_read_goes_on_live_and_knows_it() {
    let world = World::tuned(|tuning| tuning.store_patience = Duration::from_millis(300));
    world.commit(&entry(&acme(), 1, 2, NOON)).await;
    world.streams.store.close().await;
    let mut tail = world.tail(Some(&Position::at(0).text()));
    let TailEvent::Gap { to, count, reason, position, .. } = next(&mut tail).await else { panic!("no gap") };
    assert_eq!((json::id_of(&to).unwrap().number(), count, reason), (2, 0, "store"));
    // Who comes back with it gets all, once the store can be read.
    assert_eq!(position, Position::at(0).text());
    world.streams.publish(&entry(&acme(), 3, 1, NOON + 1));
    assert_eq!(lines(&mut tail, 1).await.0, ["3"]);
}

#[tokio::test]
async fn a_write_says_of_what_was_left_out_before_it_that_it_never_comes() {
    let world = World::new();
    let (left_out, written) = (entry(&acme(), 1, 2, NOON), entry(&acme(), 3, 1, NOON));
    world.streams.publish(&left_out);
    world.streams.publish(&written);
    let mut tail = world.tail(Some(&Position::at(0).text()));
    assert!(
        tokio::time::timeout(Duration::from_millis(50), tail.next()).await.is_err(),
        "it waits for the store"
    );
    world.streams.write(first_send(&written)).await.unwrap();
    let TailEvent::Gap { to, count, reason, .. } = next(&mut tail).await else { panic!("no gap") };
    assert_eq!((json::id_of(&to).unwrap().number(), count, reason), (2, 2, "store"));
    assert_eq!(lines(&mut tail, 1).await.0, ["3"]);
}

#[tokio::test]
async fn what_the_publisher_left_out_is_a_gap_of_unknown_length() {
    let world = World::new();
    let mut tail = world.tail(None);
    world.streams.publish(&entry(&acme(), 1, 1, NOON));
    assert_eq!(lines(&mut tail, 1).await.0, ["1"]);
    world.streams.miss(10);
    world.streams.publish(&entry(&acme(), 10, 1, NOON));
    let TailEvent::Gap { from, to, count, reason, .. } = next(&mut tail).await else { panic!("no gap") };
    let (from, to) = (json::id_of(&from).unwrap().number(), json::id_of(&to).unwrap().number());
    assert_eq!((from, to, count, reason), (1, 9, 0, "slow"));
    assert_eq!(lines(&mut tail, 1).await.0, ["10"]);
}
