//! What a stop delivers, keeps and counts.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_stop_delivers_what_is_there() {
    let fake = Fake::start([Answer::Silence]).await;
    let mut world = World::new(&["a"]);
    world.serve(0, grpc(&fake), Settings { attempt_timeout: Duration::from_secs(1), ..in_order() });
    for _ in 0..3 {
        world.commit("t", Signal::Logs, "x", 1).await;
    }
    world.stop.cancel();
    world.sinks.join_next().await.unwrap().unwrap();
    assert_eq!(world.settled().await.sinks["a"].delivered, 3);
}

#[tokio::test(start_paused = true)]
async fn what_is_on_disk_is_tried_for_longer_than_a_sink_and_stays_when_it_stops() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::start(vec![Answer::Silence; 1_000]).await;
    let mut world = World::on_disk(&["a"], folder.path());
    let short = Settings { retry_for: Duration::from_secs(1), records_max: 1, ..Settings::default() };
    world.serve(0, grpc(&fake), short);
    for _ in 0..5 {
        world.commit("t", Signal::Logs, "x", 1).await;
    }
    sleep(Duration::from_secs(60)).await;
    world.stop.cancel();
    world.sinks.join_next().await.unwrap().unwrap();
    let line = world.wait(|_| true).await;
    assert_eq!((line.sinks["a"].expired.len(), line.sinks["a"].in_flight), (0, 5));
    world.journal.end().await;

    let mut world = World::on_disk(&["a"], folder.path());
    let fake = Fake::start(vec![Answer::RefuseFrom { bytes: usize::MAX, code: 3 }; 10]).await;
    world.serve(0, grpc(&fake), Settings::default());
    assert_eq!(world.settled().await.sinks["a"].delivered, 5);
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_at_its_deadline_and_counts_what_is_left() {
    let fake = Fake::start(vec![Answer::Silence; 100]).await;
    let mut world = World::new(&["a"]);
    world.serve(0, grpc(&fake), Settings { records_max: 1, ..Settings::default() });
    for _ in 0..20 {
        world.commit("t", Signal::Logs, "x", 1).await;
    }
    let start = Instant::now();
    world.stop.cancel();
    world.sinks.join_next().await.unwrap().unwrap();
    assert_eq!(start.elapsed().as_secs(), 10);
    let line = world.settled().await;
    assert_eq!((line.sinks["a"].expired["stopped"], line.sinks["a"].in_flight), (20, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_handed_over_may_arrive_and_the_rest_is_the_next_ones() {
    let before = Fake::start(vec![Answer::Silence; 3]).await;
    let after = Fake::start([]).await;
    let mut world = World::new(&["a"]);
    let alone = Settings { records_max: 1, attempt_timeout: Duration::from_secs(5), ..in_order() };
    world.serve(0, grpc(&before), alone);
    for body in ["x", "y", "z"] {
        world.commit("t", Signal::Logs, body, 1).await;
    }
    world.pass(Duration::from_secs(1)).await;
    assert_eq!(bodies(&before), ["x"]);
    world.hand_over.cancel();
    let start = Instant::now();
    world.sinks.join_next().await.unwrap().unwrap();
    assert!(start.elapsed() <= Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(world.wait(|_| true).await.sinks["a"].in_flight, 3, "nothing is counted as lost");
    world.hand_over = CancellationToken::new();
    world.serve(0, grpc(&after), alone);
    assert_eq!(world.settled().await.sinks["a"].delivered, 3);
    assert_eq!(bodies(&after), ["x", "y", "z"]);
}

#[tokio::test(start_paused = true)]
async fn a_hand_over_does_not_wait_where_nothing_is_on_its_way() {
    let fake = Fake::start([]).await;
    let mut world = World::new(&["a"]);
    world.serve(0, grpc(&fake), Settings::default());
    world.commit("t", Signal::Logs, "x", 1).await;
    world.settled().await;
    let start = Instant::now();
    world.hand_over.cancel();
    world.sinks.join_next().await.unwrap().unwrap();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}
