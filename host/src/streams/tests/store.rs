//! What holds for every store: ids, tenants, history.

use super::*;

#[tokio::test]
async fn a_resend_is_presumed_and_stored_once() {
    let world = World::new();
    let sent = entry(&acme(), 1, 3, NOON);
    assert_eq!(world.streams.write(first_send(&sent)).await.unwrap(), Written::default());
    let again = world.streams.write(resend(&sent)).await.unwrap();
    assert_eq!(again, Written { presumed: 3, ..Written::default() });
    assert_eq!(world.history(&acme(), History::default()).await, ["1", "2", "3"]);
}

#[tokio::test]
async fn another_record_under_a_taken_id_is_a_collision_and_changes_nothing() {
    let world = World::new();
    world.streams.write(first_send(&entry(&acme(), 1, 2, NOON))).await.unwrap();
    let other = entry_of(&acme(), NODE, 1, NOON, &["1".into(), "other".into(), "free".into()]);
    for writes in [first_send(&other), resend(&other)] {
        let written = world.streams.write(writes).await.unwrap();
        assert_eq!(written.collided, [2]);
    }
    assert_eq!(world.history(&acme(), History::default()).await, ["1", "2", "free"]);
}

#[tokio::test]
async fn a_tenant_with_the_same_hash_sees_nothing_of_another() {
    let world = World::tuned(|tuning| tuning.hash = |_| [7; 8]);
    let globex = stream("globex", "web");
    world.commit(&entry(&acme(), 1, 2, NOON)).await;
    world.commit(&entry(&globex, 3, 2, NOON)).await;
    world.commit(&entry(&acme(), 5, 1, NOON)).await;
    assert_eq!(world.history(&acme(), History::default()).await, ["1", "2", "5"]);
    assert_eq!(world.history(&globex, History::default()).await, ["3", "4"]);
    let mut tail = world.tail(Some(&Position::at(0).text()));
    assert_eq!(lines(&mut tail, 3).await.0, ["1", "2", "5"]);
    assert_eq!(world.streams.known().await.unwrap(), [acme(), globex]);
}

#[tokio::test]
async fn history_goes_on_page_by_page() {
    let world = World::new();
    for first in (0..50).step_by(5) {
        world.commit(&entry(&acme(), first, 5, NOON + first)).await;
    }
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let query = History { limit: 7, after: after.clone(), ..History::default() };
        let page = world.streams.history(&acme(), query).await.unwrap();
        assert!(page.records.len() <= 7);
        seen.extend(bodies(&page.records));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, numbers(0, 50));
    let part = History { from_ms: Some(NOON + 10), to_ms: Some(NOON + 20), ..History::default() };
    assert_eq!(world.history(&acme(), part).await, numbers(10, 10));
    let foreign = json::id_text(&RecordId::new([0; 8], NOON, NODE, 1));
    let query = History { after: Some(foreign), ..History::default() };
    assert!(matches!(world.streams.history(&acme(), query).await, Err(StreamsError::BadPosition(_))));
}

#[tokio::test]
async fn a_search_that_finds_nothing_goes_on_in_bounded_steps() {
    let world = World::tuned(|tuning| (tuning.page_records, tuning.history_records) = (4, 10));
    world.commit(&entry(&acme(), 0, 25, NOON)).await;
    let query = |after| History { contains: Some("24".into()), after, ..History::default() };
    let mut page = world.streams.history(&acme(), query(None)).await.unwrap();
    let mut steps = 1;
    while page.records.is_empty() {
        let after = page.next.clone().expect("it goes on");
        page = world.streams.history(&acme(), query(Some(after))).await.unwrap();
        steps += 1;
    }
    assert_eq!((bodies(&page.records), steps), (vec!["24".to_owned()], 3));
}
