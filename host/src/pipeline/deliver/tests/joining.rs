//! What is sent together.

use super::*;

#[tokio::test(start_paused = true)]
async fn what_waits_is_joined_by_tenant_and_signal() {
    let fake = Fake::start([Answer::Silence]).await;
    let mut world = World::new(&["a"]);
    world.serve(0, grpc(&fake), in_order());
    // The first entry is on the way while the others gather.
    world.commit("t", Signal::Logs, "1", 1).await;
    world.wait(|_| fake.seen().len() == 1).await;
    for (tenant, signal, bytes) in [
        ("t", Signal::Logs, "2"),
        ("u", Signal::Logs, "3"),
        ("t", Signal::Traces, "4"),
        ("t", Signal::Logs, "5"),
        ("u", Signal::Logs, "6"),
    ] {
        world.commit(tenant, signal, bytes, 1).await;
    }
    world.wait(|_| fake.seen().len() == 5).await;
    world.settled().await;
    assert_eq!(bodies(&fake), ["1", "1", "25", "36", "4"]);
}

#[tokio::test(start_paused = true)]
async fn a_delivery_is_bounded_in_records_and_bytes() {
    let fake = Fake::start([Answer::Silence]).await;
    let mut world = World::new(&["a"]);
    let settings = Settings { records_max: 4, bytes_max: 6, ..in_order() };
    world.serve(0, grpc(&fake), settings);
    world.commit("t", Signal::Logs, "first", 1).await;
    world.wait(|_| fake.seen().len() == 1).await;
    for (bytes, records) in [("a", 2), ("b", 2), ("c", 1), ("dddd", 1), ("ee", 1), ("large!!!", 9)] {
        world.commit("t", Signal::Logs, bytes, records).await;
    }
    let line = world.settled().await;
    assert_eq!(line.sinks["a"].delivered, 17);
    assert_eq!(bodies(&fake), ["first", "first", "ab", "cdddd", "ee", "large!!!"]);
}

fn delayed(seconds: u64) -> Settings {
    Settings { delay: Duration::from_secs(seconds), ..in_order() }
}

#[tokio::test(start_paused = true)]
async fn what_is_there_waits_for_more_as_long_as_it_is_told_and_no_longer() {
    let fake = Fake::start([]).await;
    let mut world = World::new(&["a"]);
    world.serve(0, grpc(&fake), delayed(5));
    let start = Instant::now();
    // The second tenant's come a second later, and are due by then or sooner.
    for (tenant, body) in [("t", "1"), ("u", "2"), ("t", "3"), ("u", "4"), ("t", "5")] {
        world.commit(tenant, Signal::Logs, body, 1).await;
        world.pass(Duration::from_secs(1)).await;
    }
    assert!(fake.seen().is_empty());
    world.commit("t", Signal::Logs, "6", 1).await;
    world.wait(|_| fake.seen().len() == 2).await;
    assert_eq!(bodies(&fake), ["1356", "24"]);
    assert!(
        fake.seen().iter().all(|seen| (seen.at - start).as_millis().abs_diff(5000) < 50),
        "{:?}",
        fake.seen()
    );
    // And again, from the first that comes.
    world.pass(Duration::from_secs(20)).await;
    let start = Instant::now();
    world.commit("t", Signal::Logs, "7", 1).await;
    world.settled().await;
    assert!((fake.seen()[2].at - start).as_millis().abs_diff(5000) < 50);
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_is_full_waits_for_nothing() {
    for (settings, entries) in [
        (Settings { records_max: 6, ..delayed(5) }, &[("a", 3), ("b", 3)][..]),
        (Settings { bytes_max: 8, ..delayed(5) }, &[("aaaa", 1), ("bbbb", 1)]),
        (Settings { bytes_max: 8, ..delayed(5) }, &[("more than that", 1)]),
    ] {
        let fake = Fake::start([]).await;
        let mut world = World::new(&["a"]);
        world.serve(0, grpc(&fake), settings);
        let start = Instant::now();
        for (bytes, records) in entries {
            world.commit("t", Signal::Logs, bytes, *records).await;
        }
        world.settled().await;
        assert!(start.elapsed() < Duration::from_millis(500), "{entries:?}");
        assert_eq!(fake.seen().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_goes_on_while_others_are_on_the_way() {
    let fake = Fake::start([Answer::Slow(Duration::from_secs(8))]).await;
    let mut world = World::new(&["a"]);
    world.serve(0, grpc(&fake), delayed(5));
    let start = Instant::now();
    world.commit("t", Signal::Logs, "1", 1).await;
    world.pass(Duration::from_secs(6)).await;
    world.commit("t", Signal::Logs, "2", 1).await;
    world.settled().await;
    // The first from 5 to 13; the second had waited for long enough by then.
    assert_eq!(bodies(&fake), ["1", "2"]);
    assert!((fake.seen()[1].at - start).as_millis().abs_diff(13_000) < 50, "{:?}", fake.seen());
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_nothing_to_join() {
    let fake = Fake::start([]).await;
    let mut world = World::new(&["a"]);
    world.serve(0, grpc(&fake), delayed(50));
    world.commit("t", Signal::Logs, "1", 1).await;
    world.pass(Duration::from_secs(1)).await;
    let start = Instant::now();
    world.stop.cancel();
    world.sinks.join_next().await.unwrap().unwrap();
    assert!(start.elapsed() < Duration::from_millis(500));
    assert_eq!(world.settled().await.sinks["a"].delivered, 1);
}

#[tokio::test(start_paused = true)]
async fn as_many_are_on_the_way_as_may_be() {
    for window in [1, 3, 64] {
        let fake = Fake::start(vec![Answer::Slow(Duration::from_secs(5)); 200]).await;
        let mut world = World::new(&["a"]);
        let settings = Settings { records_max: 1, window: Some(window), ..Settings::default() };
        world.serve(0, grpc(&fake), settings);
        for _ in 0..100 {
            world.commit("t", Signal::Logs, "x", 1).await;
        }
        world.pass(Duration::from_secs(2)).await;
        assert_eq!(fake.seen().len(), window);
        world.wait(|line| line.sinks["a"].delivered >= window as u64).await;
    }
}
