//! What is MongoDB's own: collections, what is in them, what a server answers.

use super::*;
use ::mongodb::Client;
use ::mongodb::bson::{Document, doc};

async fn database(world: &World) -> ::mongodb::Database {
    Client::with_uri_str(&world.uri).await.unwrap().database(&world.database)
}

async fn collections(world: &World) -> Vec<String> {
    let mut names = database(world).await.list_collection_names().await.unwrap();
    names.sort();
    names
}

#[tokio::test]
async fn an_entry_of_the_next_day_goes_into_the_next_collection() {
    let world = World::new();
    let midnight = NOON - NOON % DAY + DAY;
    let entries: Vec<_> = [(1, midnight - 1), (2, midnight), (3, midnight + 3 * DAY)]
        .map(|(number, time_ms)| entry(&acme(), number, 1, time_ms))
        .to_vec();
    entries.iter().for_each(|entry| world.streams.publish(entry));
    world.streams.write(entries.iter().flat_map(first_send).collect()).await.unwrap();
    assert_eq!(world.history(&acme(), History::default()).await, numbers(1, 3));
    assert_eq!(lines(&mut world.tail(Some(&Position::at(0).text())), 3).await.0, numbers(1, 3));
    let names = ["logs_7d_20251124", "logs_7d_20251125", "logs_7d_20251128", "streams"];
    assert_eq!(collections(&world).await, names);
}

#[tokio::test]
async fn retention_drops_whole_days_by_the_class_in_their_names_and_nothing_else() {
    let world = World::new();
    let other = stream("globex", "old");
    world.commit(&entry(&other, 1, 1, NOON - 8 * DAY)).await;
    world.commit(&entry(&acme(), 2, 1, NOON - 7 * DAY)).await;
    world.commit(&entry(&acme(), 3, 1, NOON)).await;
    let database = database(&world).await;
    // Of another retention, and of somebody else.
    for name in ["logs_30d_20251101", "logs_1d_20251122", "logs_20000101", "others_7d_20200101"] {
        database.collection::<Document>(name).insert_one(doc! { "_id": 1 }).await.unwrap();
    }
    world.streams.retain(NOON).await;
    assert_eq!(world.history(&acme(), History::default()).await, ["2", "3"]);
    assert_eq!(world.streams.known().await.unwrap(), [acme()]);
    let left = [
        "logs_20000101",
        "logs_30d_20251101",
        "logs_7d_20251117",
        "logs_7d_20251124",
        "others_7d_20200101",
        "streams",
    ];
    assert_eq!(collections(&world).await, left);
    world.streams.retain(NOON + DAY / 2).await;
    assert_eq!(world.history(&acme(), History::default()).await, ["3"]);
    // An entry that comes late begins the day anew.
    world.commit(&entry(&other, 4, 1, NOON - 7 * DAY)).await;
    assert_eq!(world.history(&other, History::default()).await, ["4"]);
    assert_eq!(world.streams.known().await.unwrap(), [acme(), other]);
}

#[tokio::test]
async fn a_restart_keeps_what_was_stored_and_resumes_positions_of_an_older_node() {
    let world = World::new();
    world.commit(&entry(&acme(), 1, 3, NOON)).await;
    let mut tail = world.tail(Some(&Position::at(0).text()));
    let (_, position) = lines(&mut tail, 2).await;
    drop(tail);
    world.streams.close().await;
    let streams = world.other();
    let newer = entry_of(&acme(), [9, 9, 9, 9], 1, NOON + 5, &["new 1".into(), "new 2".into()]);
    streams.publish(&newer);
    streams.write(first_send(&newer)).await.unwrap();
    let mut tail: Pin<Box<dyn Events<Item = TailEvent> + Send>> =
        Box::pin(streams.tail(acme(), Some(&position)).unwrap());
    assert_eq!(lines(&mut tail, 3).await.0, ["3", "new 1", "new 2"]);
    assert_eq!(streams.known().await.unwrap(), [acme()]);
}

#[tokio::test]
async fn history_is_whole_over_days_and_over_retentions_that_share_a_day() {
    let world = World::new();
    let longer = Streams::open_tuned(
        Settings {
            store: StoreSettings::Mongodb(mongodb::Settings {
                uri: Secret::new(&world.uri),
                database: world.database.clone(),
            }),
            retention: Duration::from_secs(30 * 86_400),
        },
        world.tuning,
        Metrics::new(),
    )
    .unwrap();
    for number in 0..20 {
        let entry = entry(&acme(), number, 1, NOON + number / 8 * DAY + number);
        let streams = if number % 3 == 0 { &longer } else { &world.streams };
        streams.write(first_send(&entry)).await.unwrap();
    }
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let query = History { limit: 3, after, ..History::default() };
        // As another process: nothing is known of what was written.
        let page = world.other().history(&acme(), query).await.unwrap();
        seen.extend(bodies(&page.records));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, numbers(0, 20));
    assert!(collections(&world).await.contains(&"logs_30d_20251126".to_owned()));
}

#[tokio::test]
async fn an_operators_own_unique_index_costs_the_records_that_break_it_alone() {
    let world = World::new();
    world.commit(&entry(&acme(), 1, 1, NOON)).await;
    let index = ::mongodb::IndexModel::builder()
        .keys(doc! { "body": 1 })
        .options(::mongodb::options::IndexOptions::builder().unique(true).build())
        .build();
    let database = database(&world).await;
    database.collection::<Document>("logs_7d_20251124").create_index(index).await.unwrap();
    let next = entry_of(&acme(), NODE, 2, NOON, &["1".into(), "2".into(), "1".into(), "3".into()]);
    let written = world.streams.write(first_send(&next)).await.unwrap();
    assert_eq!(written.rejected, [(2, "unique_index"), (4, "unique_index")]);
    assert!(written.collided.is_empty());
    assert_eq!(world.history(&acme(), History::default()).await, ["1", "2", "3"]);
    // Again: what is there is there, what was refused is refused.
    let again = world.streams.write(resend(&next)).await.unwrap();
    assert_eq!((again.rejected, again.presumed), (written.rejected, 2));
}

#[tokio::test]
async fn a_record_that_the_server_refuses_is_set_aside_and_the_others_are_stored() {
    // FerretDB takes no infinite numbers; MongoDB does.
    let server = Server::ferretdb();
    let world = World::at(server.uri(), Some(server), |_| ());
    let mut request = ExportLogsServiceRequest::decode(request(&numbers(1, 3))).unwrap();
    let infinite = AnyValue { value: Some(Value::DoubleValue(f64::INFINITY)) };
    request.resource_logs[0].scope_logs[0].log_records[1].body = Some(infinite);
    let mut entry = Entry::clone(&entry(&acme(), 1, 3, NOON));
    entry.bytes = request.encode_to_vec().into();
    let written = world.streams.write(first_send(&Arc::new(entry))).await.unwrap();
    assert_eq!(written, Written { rejected: vec![(2, "document_refused")], ..Written::default() });
    assert_eq!(world.history(&acme(), History::default()).await, ["1", "3"]);
}

#[tokio::test]
async fn a_record_larger_than_a_document_is_set_aside_and_the_others_are_stored() {
    let world = World::new();
    let large = "x".repeat(17 << 20);
    let half = "y".repeat(6 << 20);
    let lines = ["1".to_owned(), large, half.clone(), half.clone(), "5".to_owned()];
    let written = world.streams.write(first_send(&entry_of(&acme(), NODE, 1, NOON, &lines))).await.unwrap();
    assert_eq!(written, Written { rejected: vec![(2, "document_too_large")], ..Written::default() });
    let seen = world.history(&acme(), History::default()).await;
    assert_eq!(seen, ["1", &half, &half, "5"]);
}

/// The same basics on the other server: its answers have another form.
#[tokio::test]
async fn mongo_java_server_keeps_the_promises_of_a_store_as_well() {
    let server = Server::mongo_java();
    let world = World::at(server.uri(), Some(server), |_| ());
    let sent = entry(&acme(), 1, 3, NOON);
    assert_eq!(world.streams.write(first_send(&sent)).await, Ok(Written::default()));
    let again = world.streams.write(resend(&sent)).await;
    assert_eq!(again, Ok(Written { presumed: 3, ..Written::default() }));
    let other = entry_of(&acme(), NODE, 3, NOON, &["other".into(), "4".into()]);
    assert_eq!(world.streams.write(first_send(&other)).await.unwrap().collided, [3]);
    world.commit(&entry(&acme(), 5, 1, NOON + DAY)).await;
    assert_eq!(world.history(&acme(), History::default()).await, numbers(1, 5));
    assert_eq!(lines(&mut world.tail(Some(&Position::at(0).text())), 5).await.0, numbers(1, 5));
    world.streams.retain(NOON + 8 * DAY).await;
    assert_eq!(world.history(&acme(), History::default()).await, ["5"]);
    assert_eq!(world.streams.known().await.unwrap(), [acme()]);
    world.streams.retain(NOON + 9 * DAY).await;
    assert_eq!(world.history(&acme(), History::default()).await.len(), 0);
    assert_eq!(world.streams.known().await.unwrap(), []);
}
