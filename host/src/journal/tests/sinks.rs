//! Sinks that come and go while the journal is open.

use super::durable::{LIMITS, open_with};
use super::*;
use crate::journal::disk::{self, Faulty};

const THIRD: SinkId = SinkId(2);

fn named(names: &[&str]) -> Vec<SinkSettings> {
    names.iter().map(|name| SinkSettings::from((*name).to_owned())).collect()
}

async fn finish_all(world: &World, sink: SinkId) -> Vec<u64> {
    let taken = world.journal.cursor(sink).next(ALL).await;
    let firsts = firsts(&taken);
    taken.into_iter().for_each(|flight| {
        let records = flight.entry.records;
        flight.finish(&Done::delivered(records));
    });
    firsts
}

#[tokio::test]
async fn a_sink_that_is_taken_on_starts_at_the_head_and_the_others_keep_their_numbers() {
    for world in both(1 << 20, &["a", "b"]) {
        world.commit(vec![part("t", 1, 10, &[FIRST, SECOND])]).await.unwrap();
        let ids = world.journal.take_on(&named(&["c", "b", "a"])).unwrap();
        assert_eq!(ids, [THIRD, SECOND, FIRST]);
        world.commit(vec![part("t", 2, 10, &[FIRST, SECOND, THIRD])]).await.unwrap();
        assert_eq!(finish_all(&world, THIRD).await, [2]);
        assert_eq!(finish_all(&world, FIRST).await, [1, 2]);
        let line = world.table().line("t", Signal::Logs);
        let delivered = |sink: &str| (line.sinks[sink].committed, line.sinks[sink].delivered);
        assert_eq!((delivered("a"), delivered("b"), delivered("c")), ((3, 3), (3, 0), (2, 2)));
    }
}

#[tokio::test]
async fn what_a_retired_sink_had_not_taken_expires_and_so_does_what_still_comes() {
    for world in both(1 << 20, &["a", "b"]) {
        world.commit(vec![part("t", 3, 10, &[FIRST, SECOND])]).await.unwrap();
        let flying = world.journal.cursor(SECOND).try_next(ONE);
        assert_eq!(world.journal.take_on(&named(&["a"])).unwrap(), [FIRST]);
        world.journal.retire("b");
        // Of a request that began before.
        world.commit(vec![part("t", 2, 10, &[FIRST, SECOND])]).await.unwrap();
        // Its answer comes too late to count.
        flying.into_iter().for_each(|flight| flight.finish(&Done::delivered(3)));
        let line = world.table().line("t", Signal::Logs);
        assert_eq!(line.sinks["b"].expired["removed"], 5);
        assert_eq!((line.sinks["b"].delivered, line.sinks["b"].in_flight), (0, 0));
        assert_eq!(line.sinks["a"].in_flight, 5);
        assert_eq!(world.journal.charged_bytes(SECOND), 0);
        world.charges_agree(&["t"], &[FIRST]);
    }
}

#[tokio::test]
async fn a_sink_that_comes_back_has_its_number_and_nothing_of_before() {
    for world in both(1 << 20, &["a", "b"]) {
        world.commit(vec![part("t", 1, 10, &[SECOND])]).await.unwrap();
        world.journal.take_on(&named(&["a"])).unwrap();
        world.journal.retire("b");
        assert_eq!(world.journal.take_on(&named(&["b", "a"])).unwrap(), [SECOND, FIRST]);
        world.commit(vec![part("t", 1, 10, &[SECOND])]).await.unwrap();
        assert_eq!(finish_all(&world, SECOND).await, [2]);
        world.table();
    }
}

#[tokio::test]
async fn shares_are_those_of_the_sinks_that_there_are() {
    let world = world(1_000_000, &["a", "b"]);
    assert_eq!(world.journal.share_bytes(FIRST), 500_000);
    world.journal.take_on(&named(&["a", "b", "c", "d"])).unwrap();
    assert_eq!(world.journal.share_bytes(FIRST), 250_000);
    world.journal.take_on(&named(&["a"])).unwrap();
    assert_eq!(world.journal.share_bytes(FIRST), 1_000_000);
    assert_eq!(world.journal.share_bytes(SECOND), 250_000, "until it is retired");
    world.journal.retire("b");
    assert_eq!(world.journal.share_bytes(SECOND), 0);
}

#[tokio::test]
async fn a_process_knows_so_many_names_and_refuses_the_next_unchanged() {
    let world = world(1 << 20, &["a"]);
    let names = |numbers: std::ops::Range<usize>| -> Vec<SinkSettings> {
        numbers.map(|number| SinkSettings::from(format!("sink{number}"))).collect()
    };
    world.journal.take_on(&names(0..SINKS_MAX - 1)).unwrap();
    assert_eq!(world.journal.take_on(&names(1..SINKS_MAX)), Err(TooManySinks));
    let share = world.journal.share_bytes(SECOND);
    assert_eq!(share, (1 << 20) / (SINKS_MAX - 1));
    world.commit(vec![part("t", 1, 10, &[SECOND])]).await.unwrap();
    assert_eq!(finish_all(&world, SECOND).await, [1]);
    assert_eq!(world.journal.take_on(&names(0..1)).unwrap(), [SECOND]);
}

#[tokio::test]
async fn what_was_acknowledged_for_a_new_sink_is_there_after_a_crash() {
    let files = Faulty::new(7);
    let start = |files: &Faulty, names: &[&str]| {
        open_with(files, disk::Settings::default(), LIMITS, &named(names), 1_000)
    };
    let world = start(&files, &["a"]);
    world.commit(vec![part("t", 1, 10, &[FIRST])]).await.unwrap();
    world.journal.take_on(&named(&["a", "b"])).unwrap();
    world.commit(vec![part("t", 1, 10, &[FIRST, SECOND])]).await.unwrap();
    let files = files.crash();
    drop(world);
    let world = start(&files, &["a", "b"]);
    assert_eq!(finish_all(&world, SECOND).await, [2]);
    world.table();
}

#[tokio::test]
async fn the_next_start_finds_the_sinks_as_they_were_left() {
    let files = Faulty::new(7);
    let start = |names: &[&str]| open_with(&files, disk::Settings::default(), LIMITS, &named(names), 1_000);
    let world = start(&["a", "b"]);
    world.commit(vec![part("t", 1, 10, &[FIRST, SECOND])]).await.unwrap();
    world.journal.take_on(&named(&["a", "c"])).unwrap();
    world.journal.retire("b");
    world.commit(vec![part("t", 1, 10, &[FIRST, THIRD])]).await.unwrap();
    let before = world.table();
    world.journal.end().await;
    drop(world);

    // In another order: `a` and `c` go on, and of `b` is known what became of it.
    let world = start(&["c", "a"]);
    assert_eq!(world.table().line("t", Signal::Logs).sinks, before.line("t", Signal::Logs).sinks);
    assert_eq!(finish_all(&world, FIRST).await, [2]);
    assert_eq!(finish_all(&world, SECOND).await, [1, 2]);
    world.table();
}
