//! A server that is down, breaks off, is slow, refuses us, or cannot be trusted.

use super::proxy::{Line, Proxy};
use super::server::free_port;
use super::*;
use std::sync::atomic::Ordering;

fn again(writes: Vec<Write>) -> Vec<Write> {
    writes.into_iter().map(|write| Write { is_resend: true, ..write }).collect()
}

/// As `deliver` does.
async fn write_until_done(streams: &Streams, writes: Vec<Write>) -> Written {
    let trying = async {
        loop {
            match streams.write(again(writes.clone())).await {
                Ok(written) => return written,
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE * 2, trying).await.expect("written in time")
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{what}"));
}

fn patient_for(ms: u64) -> impl FnOnce(&mut Tuning) {
    move |tuning| tuning.store_patience = Duration::from_millis(ms)
}

#[tokio::test]
async fn a_server_that_is_down_at_the_start_is_not_waited_for_and_the_tail_goes_on() {
    let port = free_port();
    let uri = format!("mongodb://127.0.0.1:{port}/?directConnection=true");
    let started = tokio::time::Instant::now();
    let mut world = World::at(uri, Some(Server::none()), patient_for(300));
    assert!(started.elapsed() < Duration::from_secs(1), "the start waited");
    let said = world.streams.is_ready().unwrap_err();
    assert!(said.starts_with("MongoDB: "), "{said}");
    let mut live = world.tail(None);
    let first = entry(&acme(), 1, 2, NOON);
    world.streams.publish(&first);
    assert_eq!(lines(&mut live, 2).await.0, ["1", "2"]);
    let error = world.streams.write(first_send(&first)).await.unwrap_err();
    assert_eq!(error.reason, "no server answers that can be written to");
    let mut joined = world.tail(Some(&Position::at(0).text()));
    assert!(matches!(next(&mut joined).await, TailEvent::Gap { reason: "store", .. }));
    let second = entry(&acme(), 3, 1, NOON + 1);
    world.streams.publish(&second);
    assert_eq!(lines(&mut joined, 1).await.0, ["3"]);
    assert_eq!(lines(&mut live, 1).await.0, ["3"]);
    // It comes.
    world.server = Some(Server::ferretdb_with(&[], port));
    let writes = [first_send(&first), first_send(&second)].concat();
    assert_eq!(write_until_done(&world.streams, writes).await, Written::default());
    assert_eq!(world.streams.is_ready(), Ok(()));
    assert_eq!(world.history(&acme(), History::default()).await, ["1", "2", "3"]);
}

#[tokio::test]
async fn a_server_that_breaks_off_is_written_to_again_and_nothing_is_there_twice() {
    let server = Server::ferretdb();
    let proxy = Proxy::to(server.port).await;
    let world = World::at(proxy.uri(), Some(server), patient_for(300));
    world.commit(&entry(&acme(), 1, 2, NOON)).await;
    assert_eq!(world.streams.is_ready(), Ok(()));
    let mut live = world.tail(None);
    proxy.set(Line::Cut);
    let next_entry = entry(&acme(), 3, 2, NOON + 1);
    world.streams.publish(&next_entry);
    let error = world.streams.write(first_send(&next_entry)).await.unwrap_err();
    assert!(
        ["the connection broke", "no server answers that can be written to"].contains(&&*error.reason),
        "{error}"
    );
    assert!(world.streams.is_ready().is_err());
    assert_eq!(lines(&mut live, 2).await.0, ["3", "4"]);
    proxy.set(Line::Open);
    let both = [first_send(&entry(&acme(), 1, 2, NOON)), first_send(&next_entry)].concat();
    assert_eq!(write_until_done(&world.streams, both).await, Written { presumed: 2, ..Written::default() });
    assert_eq!(world.streams.is_ready(), Ok(()));
    assert_eq!(world.history(&acme(), History::default()).await, numbers(1, 4));
}

#[tokio::test]
async fn an_answer_that_is_lost_is_missed_in_time_and_what_was_stored_is_presumed() {
    let server = Server::ferretdb();
    let proxy = Proxy::to(server.port).await;
    let world = World::at(proxy.uri(), Some(server), |_| ());
    world.commit(&entry(&acme(), 1, 1, NOON)).await;
    proxy.set(Line::Deaf);
    let lost = entry(&acme(), 2, 3, NOON + 1);
    let started = tokio::time::Instant::now();
    let error = world.streams.write(first_send(&lost)).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(10), "later than an attempt of `deliver`");
    assert_eq!(error.reason, "the server does not answer in time");
    proxy.set(Line::Open);
    let written = write_until_done(&world.streams, first_send(&lost)).await;
    assert_eq!(written, Written { presumed: 3, ..Written::default() });
    assert_eq!(world.history(&acme(), History::default()).await, numbers(1, 4));
}

#[tokio::test]
async fn a_slow_server_is_slow_and_nothing_worse() {
    let server = Server::ferretdb();
    let proxy = Proxy::to(server.port).await;
    let world = World::at(proxy.uri(), Some(server), |_| ());
    world.commit(&entry(&acme(), 1, 1, NOON)).await;
    proxy.set(Line::Slow(Duration::from_millis(500)));
    let mut live = world.tail(None);
    let slow = entry(&acme(), 2, 3, NOON + 1);
    world.streams.publish(&slow);
    // Viewers who are there do not wait for the store.
    let seen = tokio::time::timeout(Duration::from_millis(400), lines(&mut live, 3)).await;
    assert_eq!(seen.expect("before the store").0, numbers(2, 3));
    assert_eq!(world.streams.write(first_send(&slow)).await, Ok(Written::default()));
    assert_eq!(world.history(&acme(), History::default()).await, numbers(1, 4));
    assert_eq!(world.streams.is_ready(), Ok(()));
}

#[tokio::test]
async fn a_database_that_refuses_clustered_collections_gets_plain_ones_and_is_asked_once() {
    let server = Server::ferretdb();
    let proxy = Proxy::that_refuses_clustered_collections(server.port).await;
    let world = World::at(proxy.uri(), Some(server), |_| ());
    for day in 0..3 {
        world.commit(&entry(&acme(), 1 + day, 1, NOON + day * DAY)).await;
    }
    assert_eq!(proxy.refusals.load(Ordering::SeqCst), 1);
    assert_eq!(world.history(&acme(), History::default()).await, numbers(1, 3));
    let again = world.streams.write(resend(&entry(&acme(), 1, 1, NOON))).await;
    assert_eq!(again, Ok(Written { presumed: 1, ..Written::default() }));
}

#[tokio::test]
async fn a_user_logs_in_and_a_wrong_password_is_told_without_it() {
    let options = [
        "--test-enable-new-auth",
        "--setup-database=t",
        "--setup-username=writer",
        "--setup-password=secret",
    ];
    let server = Server::ferretdb_with(&options, free_port());
    let uri = |password: &str, more: &str| {
        format!("mongodb://writer:{password}@127.0.0.1:{}/t?directConnection=true{more}", server.port)
    };
    for mechanism in ["", "&authMechanism=SCRAM-SHA-256", "&authMechanism=SCRAM-SHA-1"] {
        let world = World::at(uri("secret", mechanism), Some(Server::none()), |_| ());
        world.commit(&entry(&acme(), 1, 2, NOON)).await;
        assert_eq!(world.history(&acme(), History::default()).await, ["1", "2"], "{mechanism}");
        assert_eq!(world.streams.is_ready(), Ok(()));
    }
    let world = World::at(uri("hunter2", ""), Some(Server::none()), |_| ());
    let error = world.streams.write(first_send(&entry(&acme(), 1, 2, NOON))).await.unwrap_err();
    assert_eq!(error.reason, "the server refuses the user or the password");
    assert_eq!(world.streams.is_ready().unwrap_err(), "MongoDB: the server refuses the user or the password");
}

#[tokio::test]
async fn a_server_is_trusted_by_its_authority_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for name in ["server", "other"] {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into(), "localhost".into()]).unwrap();
        std::fs::write(path(&format!("{name}.pem")), made.cert.pem()).unwrap();
        std::fs::write(path(&format!("{name}.key")), made.signing_key.serialize_pem()).unwrap();
    }
    let port = free_port();
    let options = [
        format!("--listen-tls=127.0.0.1:{port}"),
        format!("--listen-tls-cert-file={}", path("server.pem").display()),
        format!("--listen-tls-key-file={}", path("server.key").display()),
    ];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let _server = Server::ferretdb_with(&options, free_port());
    let uri = |authority: &str| {
        let file = path(authority).display().to_string();
        format!("mongodb://127.0.0.1:{port}/?directConnection=true&tls=true&tlsCAFile={file}")
    };
    let world = World::at(uri("server.pem"), Some(Server::none()), |_| ());
    write_until_done(&world.streams, first_send(&entry(&acme(), 1, 2, NOON))).await;
    assert_eq!(world.history(&acme(), History::default()).await, ["1", "2"]);
    let wary = World::at(uri("other.pem"), Some(Server::none()), |_| ());
    let error = wary.streams.write(first_send(&entry(&acme(), 1, 2, NOON))).await.unwrap_err();
    assert_eq!(error.reason, "no server answers: the certificate of one is not trusted");
}

#[tokio::test]
async fn a_store_is_ready_when_its_server_has_answered() {
    let world = World::new();
    until("ready", || world.streams.is_ready() == Ok(())).await;
}

#[tokio::test]
async fn a_connection_string_that_is_none_is_an_error_without_the_secret() {
    let said = open("mongodb://u:hunter2/x@h", "d", Tuning::default()).map(drop).unwrap_err();
    assert!(said.contains("no connection string") && !said.contains("hunter2"), "{said}");
}
