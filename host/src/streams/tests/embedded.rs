//! What holds for the embedded store: folders, days, retention, failures.

use super::*;

#[tokio::test]
async fn a_restart_keeps_what_was_stored_and_resumes_positions_of_an_older_node() {
    let mut world = World::new();
    world.commit(&entry(&acme(), 1, 3, NOON)).await;
    let mut tail = world.tail(Some(&Position::at(0).text()));
    let (_, position) = lines(&mut tail, 2).await;
    drop(tail);
    world.restart().await;
    let newer = entry_of(&acme(), [9, 9, 9, 9], 1, NOON + 5, &["new 1".into(), "new 2".into()]);
    world.commit(&newer).await;
    assert_eq!(world.history(&acme(), History::default()).await, ["1", "2", "3", "new 1", "new 2"]);
    let mut tail = world.tail(Some(&position));
    assert_eq!(lines(&mut tail, 3).await.0, ["3", "new 1", "new 2"]);
    assert_eq!(world.streams.known().await.unwrap(), [acme()]);
}

#[tokio::test]
async fn a_folder_that_another_process_uses_is_refused_and_named() {
    let world = World::new();
    let said = open(world.folder.path(), world.tuning).map(drop).unwrap_err();
    assert!(said.ends_with("streams: another process uses this folder; stop it or name another"), "{said}");
}

#[tokio::test]
async fn an_entry_of_the_next_day_goes_into_the_next_folder() {
    let world = World::new();
    let midnight = NOON - NOON % DAY + DAY;
    let writes = [
        (1, midnight - 1),
        (2, midnight),
        (3, midnight + DAY),
        (4, midnight + 2 * DAY),
        (5, midnight + 3 * DAY),
    ];
    let mut tail = world.tail(None);
    let entries: Vec<_> = writes.map(|(number, time_ms)| entry(&acme(), number, 1, time_ms)).to_vec();
    entries.iter().for_each(|entry| world.streams.publish(entry));
    let writes = entries.iter().flat_map(first_send).collect();
    world.streams.write(writes).await.unwrap();
    assert_eq!(lines(&mut tail, 5).await.0, numbers(1, 5));
    assert_eq!(world.history(&acme(), History::default()).await, numbers(1, 5));
    let mut tail = world.tail(Some(&Position::at(0).text()));
    assert_eq!(lines(&mut tail, 5).await.0, numbers(1, 5));
    let folder = world.folder.path().join("streams");
    for day in ["2025-11-24", "2025-11-25", "2025-11-26", "2025-11-27", "2025-11-28"] {
        assert!(folder.join(day).is_dir(), "{day}");
    }
    let Store::Embedded(embedded) = &world.streams.store else { unreachable!() };
    assert_eq!(embedded.open_days(), 3);
}

#[tokio::test]
async fn retention_removes_whole_days_and_nothing_younger() {
    let world = World::new();
    let other = stream("globex", "old");
    world.commit(&entry(&other, 1, 1, NOON - 8 * DAY)).await;
    world.commit(&entry(&acme(), 2, 1, NOON - 7 * DAY)).await;
    world.commit(&entry(&acme(), 3, 1, NOON)).await;
    world.streams.retain(NOON).await;
    // The day seven days ago still has records younger than seven days.
    assert_eq!(world.history(&acme(), History::default()).await, ["2", "3"]);
    assert_eq!(world.streams.known().await.unwrap(), [acme()]);
    assert!(!world.folder.path().join("streams/2025-11-16").exists());
    world.streams.retain(NOON + DAY / 2).await;
    assert_eq!(world.history(&acme(), History::default()).await, ["3"]);
    let left: Vec<_> = std::fs::read_dir(world.folder.path().join("streams")).unwrap().collect();
    assert!(left.iter().flatten().all(|entry| !entry.file_name().to_str().unwrap().starts_with(".gone")));
    // An entry that comes late begins the day anew.
    world.commit(&entry(&acme(), 4, 1, NOON - 7 * DAY)).await;
    assert_eq!(world.history(&acme(), History::default()).await, ["4", "3"]);
}

#[tokio::test]
async fn a_database_that_failed_is_opened_again_and_written_again() {
    let world = World::new();
    let Store::Embedded(embedded) = &world.streams.store else { unreachable!() };
    embedded.fail(2);
    let writes: Vec<Write> =
        (1..=4).flat_map(|number| first_send(&entry(&acme(), number, 1, NOON))).collect();
    assert!(world.streams.write(writes.clone()).await.is_err());
    assert!(world.streams.is_ready().is_err());
    let again: Vec<Write> = writes.into_iter().map(|write| Write { is_resend: true, ..write }).collect();
    let written = tokio::time::timeout(PATIENCE, async {
        loop {
            match world.streams.write(again.clone()).await {
                Ok(written) => return written,
                Err(error) => tokio::time::sleep(error.after.expect("it says when")).await,
            }
        }
    });
    assert_eq!(written.await.unwrap(), Written { presumed: 2, ..Written::default() });
    assert_eq!(world.history(&acme(), History::default()).await, numbers(1, 4));
    assert_eq!(world.streams.is_ready(), Ok(()));
}

#[tokio::test]
async fn a_day_that_cannot_be_read_is_set_aside_and_begins_anew() {
    let mut world = World::new();
    world.commit(&entry(&acme(), 1, 1, NOON - DAY)).await;
    world.commit(&entry(&acme(), 2, 1, NOON)).await;
    world.streams.close().await;
    let folder = world.folder.path().join("streams");
    std::fs::write(folder.join("2025-11-24/version"), "nonsense").unwrap();
    world.restart().await;
    assert_eq!(world.history(&acme(), History::default()).await, ["1"]);
    assert!(folder.join("2025-11-24.corrupt").is_dir());
    world.commit(&entry(&acme(), 3, 1, NOON)).await;
    assert_eq!(world.history(&acme(), History::default()).await, ["1", "3"]);
}

#[tokio::test]
async fn a_day_that_was_being_made_at_a_crash_is_made_again() {
    let mut world = World::new();
    world.streams.close().await;
    let folder = world.folder.path().join("streams/2025-11-24");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("0.jnl"), "").unwrap();
    world.restart().await;
    world.commit(&entry(&acme(), 1, 1, NOON)).await;
    assert_eq!(world.history(&acme(), History::default()).await, ["1"]);
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_refused_and_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("streams"), "a file").unwrap();
    let said = open(folder.path(), Tuning::default()).map(drop).unwrap_err();
    assert!(said.contains("/streams: "), "{said}");
}

#[tokio::test]
async fn a_position_and_a_page_lead_over_days() {
    let world = World::new();
    for day in 0..5 {
        world.commit(&entry(&acme(), day * 10, 3, NOON + day * DAY)).await;
    }
    let page = world.streams.history(&acme(), History { limit: 4, ..History::default() }).await.unwrap();
    assert_eq!(bodies(&page.records), ["0", "1", "2", "10"]);
    let after = History { after: page.next.clone(), ..History::default() };
    let rest = ["11", "12", "20", "21", "22", "30", "31", "32", "40", "41", "42"];
    assert_eq!(world.history(&acme(), after).await, rest);
    let mut tail = world.tail(page.next.as_deref());
    assert_eq!(lines(&mut tail, 11).await.0, rest);
}
