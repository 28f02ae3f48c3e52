//! Sinks that are away, or in trouble.

use super::*;

#[tokio::test(start_paused = true)]
async fn records_expire_when_the_server_stays_away() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let fake = Fake::start([]).await;
        let settings = otlp(&fake, protocol, Compression::None);
        // The port is closed from here on.
        drop(fake);
        let mut world = World::new(&["a"]);
        world.serve(0, settings, Settings { retry_for: Duration::from_secs(60), ..Settings::default() });
        let start = Instant::now();
        world.commit("t", Signal::Logs, "abc", 3).await;
        let line = world.settled().await;
        assert_eq!(line.sinks["a"].expired["age"], 3);
        let waited = start.elapsed();
        assert!(waited > Duration::from_secs(20) && waited <= Duration::from_secs(65), "{waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hanging_sink_holds_back_no_other() {
    let hanging = Fake::start(vec![Answer::Silence; 100]).await;
    let well = Fake::start([]).await;
    let mut world = World::new(&["hanging", "well"]);
    world.serve(0, grpc(&hanging), Settings::default());
    world.serve(1, grpc(&well), Settings::default());
    for _ in 0..20 {
        world.commit("t", Signal::Logs, "x", 1).await;
    }
    let start = Instant::now();
    let line = world.wait(|line| line.sinks["well"].delivered == 20).await;
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(line.sinks["hanging"].in_flight, 20);
}

#[tokio::test(start_paused = true)]
async fn a_receiver_of_metrics_in_trouble_for_ever_costs_what_it_was_sent_and_no_other_sink() {
    let trouble = |status| Answer::Http { status, header: None, body: b"out of order sample".into() };
    let (broken, well) = (Fake::start(vec![trouble(500); 20]).await, Fake::start([]).await);
    let mut world = World::new(&["broken", "well"]);
    let short = Settings { retry_for: Duration::from_secs(60), ..Settings::default() };
    world.serve(0, remote(&broken), short);
    world.serve(1, remote(&well), short);
    let metrics = |world: &World| world.journal.ledger.snapshot().line("t", Signal::Metrics);
    let settled = async |world: &World| {
        while metrics(world).sinks.values().any(|sink| sink.in_flight > 0) {
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(world.journal.ledger.snapshot().unaccounted(), []);
        metrics(world).sinks
    };
    world.commit("t", Signal::Metrics, &points(3), 3).await;
    let sinks = settled(&world).await;
    assert_eq!((sinks["broken"].expired["age"], sinks["broken"].delivered), (3, 0));
    assert_eq!(sinks["well"].delivered, 3);
    let attempts = broken.seen().len();
    assert!((3..=20).contains(&attempts), "{attempts} requests, none of them halved");
    assert_eq!(broken.seen()[0].path, "/api/v1/write");

    // It is well again: what comes next arrives.
    for _ in attempts..20 {
        let _ = client_of_fake(&broken).await;
    }
    world.commit("t", Signal::Metrics, &points(2), 2).await;
    let sinks = settled(&world).await;
    assert_eq!((sinks["broken"].delivered, sinks["well"].delivered), (2, 5));
}

/// Takes one answer of the script.
async fn client_of_fake(fake: &Fake) -> std::io::Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut socket = tokio::net::TcpStream::connect(fake.address).await?;
    socket.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await?;
    socket.read_to_end(&mut Vec::new()).await.map(drop)
}

/// An hour of trouble costs the journal, a request now and then, and no record.
#[tokio::test(start_paused = true)]
async fn a_sink_that_is_down_for_an_hour_is_asked_seldom_and_then_given_everything() {
    let hour = Duration::from_secs(3600);
    let http = |status| Answer::Http { status, header: None, body: Vec::new() };
    for (name, answer) in [
        ("grpc", Answer::Grpc { code: 14, details: None }),
        ("grpc", Answer::Silence),
        ("grpc", Answer::Close),
        ("http", http(503)),
        ("http", Answer::Silence),
        ("remote_write", http(500)),
        ("remote_write", http(503)),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let fake = Fake::start([Answer::For(hour, Box::new(answer.clone()))]).await;
        let mut world = World::on_disk(&["a"], folder.path());
        let (sink, signal) = match name {
            "grpc" => (grpc(&fake), Signal::Logs),
            "http" => (otlp(&fake, Protocol::Http, Compression::None), Signal::Logs),
            _ => (remote(&fake), Signal::Metrics),
        };
        // Each entry goes alone, four at a time where order is not kept.
        world.step = LONG_STEP;
        world.serve(0, sink, Settings { records_max: 1, ..long() });
        let start = Instant::now();
        for at in 0..20 {
            let bytes = if signal == Signal::Logs { logs(&[at.to_string()]) } else { points(1) };
            world.commit("t", signal, bytes, 1).await;
        }
        world.pass(hour / 2).await;
        assert_eq!(world.metric("deliver_circuit_open").as_deref(), Some("1"), "{name} {answer:?}");
        let line = world.settled_of(signal).await;
        assert_eq!(line.sinks["a"].delivered, 20, "{name} {answer:?}");
        let elapsed = start.elapsed();
        assert!(
            elapsed >= hour && elapsed < hour + Duration::from_secs(120),
            "{name} {answer:?}: {elapsed:?}"
        );
        assert_eq!(world.metric("deliver_circuit_open").as_deref(), Some("0"), "{name} {answer:?}");
        let seen = fake.seen();
        // Every 15 to 30 seconds, and a few until it was open.
        let asked = seen.iter().filter(|seen| seen.at - start < hour).count();
        assert!(asked <= 20 + 3600 / 15, "{name} {answer:?}: {asked} requests");
        if signal == Signal::Logs {
            let mut taken = taken(&fake);
            taken.sort_by_key(|body| body.parse::<u32>().unwrap());
            assert!(taken.iter().eq(&(0..20).map(|at| at.to_string()).collect::<Vec<_>>()), "each once");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_circuit_is_open_one_delivery_at_a_time_asks() {
    // Four fail, and four again: it opened with the fifth.
    let fake = Fake::start(vec![Answer::Grpc { code: 14, details: None }; 14]).await;
    let mut world = World::new(&["a"]);
    world.serve(0, grpc(&fake), Settings { records_max: 1, ..Settings::default() });
    assert_eq!(world.metric("deliver_circuit_open"), None, "nobody was asked yet");
    let start = Instant::now();
    for _ in 0..10 {
        world.commit("t", Signal::Logs, logs(&["x"]), 1).await;
    }
    assert_eq!(world.settled().await.sinks["a"].delivered, 10);
    let at: Vec<f64> = fake.seen().iter().map(|seen| (seen.at - start).as_secs_f64()).collect();
    assert!(at[3] < 0.1 && at[4] > 0.2, "four at once: {at:?}");
    // Those that were to ask again within half a second.
    let opened = at.partition_point(|at| *at < 0.6);
    assert!((5..=8).contains(&opened), "{at:?}");
    let pauses: Vec<f64> = at[opened - 1..14].windows(2).map(|pair| pair[1] - pair[0]).collect();
    let least = |number: usize| (0.2 * f64::from(1 << number)).min(14.0);
    let is_seldom = pauses.iter().enumerate().all(|(number, pause)| *pause > least(number));
    assert!(is_seldom && pauses.last().unwrap() > &5.0, "one at a time, ever less often: {pauses:?}");
    // The first that is taken lets the others go on at once.
    assert!(at[at.len() - 1] - at[14] < 1.0, "{at:?}");
}

#[tokio::test(start_paused = true)]
async fn what_the_server_asks_of_one_delivery_holds_for_all() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let answer = match protocol {
            Protocol::Grpc => Answer::Grpc { code: 14, details: Some(retry_info(100)) },
            Protocol::Http => {
                Answer::Http { status: 429, header: Some(("retry-after", "100")), body: Vec::new() }
            }
        };
        let fake = Fake::start([answer]).await;
        let mut world = World::new(&["a"]);
        let sink = otlp(&fake, protocol, Compression::None);
        world.serve(0, sink, Settings { records_max: 1, ..Settings::default() });
        world.commit("t", Signal::Logs, logs(&["first"]), 1).await;
        world.wait(|_| fake.seen().len() == 1).await;
        world.pass(Duration::from_secs(1)).await;
        for _ in 0..10 {
            world.commit("t", Signal::Logs, logs(&["x"]), 1).await;
        }
        assert_eq!(world.settled().await.sinks["a"].delivered, 11);
        let seen = fake.seen();
        assert!(
            seen[1..].iter().all(|later| later.at - seen[0].at >= Duration::from_secs(100)),
            "{protocol:?}"
        );
        assert_eq!(world.metric("deliver_circuit_open").as_deref(), Some("0"), "one failure opens nothing");
    }
}

#[tokio::test(start_paused = true)]
async fn an_order_is_kept_through_an_outage() {
    let fake = Fake::start(vec![Answer::Grpc { code: 14, details: None }; 12]).await;
    let mut world = World::new(&["a"]);
    world.serve(0, grpc(&fake), Settings { records_max: 2, ..in_order() });
    let all: Vec<String> = (0..30).map(|at| at.to_string()).collect();
    for body in &all {
        world.commit("t", Signal::Logs, logs(&[body]), 1).await;
        world.pass(Duration::from_secs(2)).await;
    }
    assert_eq!(world.settled().await.sinks["a"].delivered, 30);
    assert_eq!(taken(&fake), all);
}

/// Who waits for the sink is too old at its time, whatever the sink does.
#[tokio::test(start_paused = true)]
async fn what_waits_for_an_open_circuit_expires_in_its_time() {
    let fake = Fake::start(vec![Answer::Grpc { code: 14, details: Some(retry_info(120)) }; 100]).await;
    let mut world = World::new(&["a"]);
    let retry_for = Duration::from_secs(200);
    world.serve(0, grpc(&fake), Settings { records_max: 1, retry_for, ..Settings::default() });
    for _ in 0..4 {
        world.commit("t", Signal::Logs, logs(&["x"]), 1).await;
    }
    let start = Instant::now();
    assert_eq!(world.settled().await.sinks["a"].expired["age"], 4);
    let elapsed = start.elapsed();
    assert!(elapsed <= retry_for + Duration::from_secs(1), "{elapsed:?}");
}
