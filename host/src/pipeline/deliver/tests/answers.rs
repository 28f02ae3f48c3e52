//! What a server answers, and what becomes of the records: the tables of OTLP 1.11 and of remote-write 1.0.

use super::*;
use crate::journal::SinkTable;

#[tokio::test(start_paused = true)]
async fn a_server_that_says_when_is_asked_again_then_and_not_before() {
    let script = vec![
        Answer::Grpc { code: 8, details: Some(retry_info(40)) },
        Answer::Grpc { code: 14, details: None },
    ];
    let (line, seen) = one_entry(Protocol::Grpc, script).await;
    assert_eq!(line.sinks["a"].delivered, 3);
    let pauses: Vec<Duration> = seen.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    assert!(pauses[0] >= Duration::from_secs(40), "{pauses:?}");
    assert!(pauses[1] < Duration::from_secs(2), "{pauses:?}");

    let unavailable = |header| Answer::Http { status: 503, header, body: Vec::new() };
    let script = vec![unavailable(Some(("retry-after", "50"))), unavailable(None)];
    let (line, seen) = one_entry(Protocol::Http, script).await;
    assert_eq!(line.sinks["a"].delivered, 3);
    assert!(seen[1].at - seen[0].at >= Duration::from_secs(50));
}

/// One entry of one record, and a server that always answers so.
async fn one_record(protocol: Protocol, answer: Answer) -> (SinkTable, Vec<Seen>) {
    let fake = Fake::start(vec![answer; 500]).await;
    let mut world = World::new(&["a"]);
    world.step = LONG_STEP;
    let minute = Settings { retry_for: Duration::from_secs(60), ..long() };
    world.serve(0, otlp(&fake, protocol, Compression::None), minute);
    world.commit("t", Signal::Logs, logs(&["a"]), 1).await;
    (world.settled().await.sinks["a"].clone(), fake.seen())
}

/// Each code and status: tried again until its time is over, or given up after one request.
#[tokio::test(start_paused = true)]
async fn every_answer_is_tried_again_or_given_up_as_the_specification_says() {
    let retried = [1, 4, 10, 11, 14, 15];
    for code in 1..=16 {
        let (sink, seen) = one_record(Protocol::Grpc, Answer::Grpc { code, details: None }).await;
        check(&format!("grpc {code}"), retried.contains(&code), &sink, seen.len());
        // With a time, resource exhausted is a matter of time.
        let answer = Answer::Grpc { code, details: Some(retry_info(1)) };
        let (sink, seen) = one_record(Protocol::Grpc, answer).await;
        check(&format!("grpc {code} with a time"), code == 8 || retried.contains(&code), &sink, seen.len());
    }
    let retried = [429, 502, 503, 504];
    for status in [
        301, 302, 304, 400, 401, 403, 404, 405, 408, 409, 411, 413, 415, 422, 429, 431, 500, 501, 502, 503,
        504, 505,
    ] {
        let answer = Answer::Http { status, header: Some(("location", "/")), body: b"\xff".to_vec() };
        for protocol in [Protocol::Http, Protocol::Grpc] {
            let (sink, seen) = one_record(protocol, answer.clone()).await;
            check(&format!("{protocol:?} {status}"), retried.contains(&status), &sink, seen.len());
        }
    }
    fn check(what: &str, is_retried: bool, sink: &SinkTable, requests: usize) {
        let rejected: u64 = sink.rejected.values().sum();
        let expired: u64 = sink.expired.values().sum();
        assert_eq!((sink.delivered, rejected + expired), (0, 1), "{what}");
        if is_retried {
            assert!(expired == 1 && requests > 4, "{what}: {requests} requests");
        } else {
            assert!(rejected == 1 && requests == 1, "{what}: {requests} requests");
        }
    }
}

/// Remote-write 1.0: 5xx and 429 are tried again, other 4xx are final.
#[tokio::test(start_paused = true)]
async fn every_answer_to_a_remote_write_is_tried_again_or_given_up_as_the_specification_says() {
    for status in
        [301, 400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 500, 501, 502, 503, 504, 505, 507]
    {
        let fake = Fake::start(vec![Answer::Http { status, header: None, body: Vec::new() }; 500]).await;
        let mut world = World::new(&["a"]);
        world.step = LONG_STEP;
        world.serve(0, remote(&fake), Settings { retry_for: Duration::from_secs(60), ..long() });
        world.commit("t", Signal::Metrics, points(1), 1).await;
        let sink = world.settled_of(Signal::Metrics).await.sinks["a"].clone();
        let (rejected, expired): (u64, u64) = (sink.rejected.values().sum(), sink.expired.values().sum());
        let requests = fake.seen().len();
        if status == 429 || status >= 500 {
            assert!((rejected, expired) == (0, 1) && requests > 4, "{status}: {sink:?}, {requests} requests");
        } else {
            assert!(
                (rejected, expired) == (1, 0) && requests == 1,
                "{status}: {sink:?}, {requests} requests"
            );
        }
    }
}

/// The three sinks that speak HTTP, with a fake each and a record under way to it.
async fn each_sink(script: &[Answer], settings: Settings) -> Vec<(&'static str, SinkTable, Fake)> {
    let mut outcomes = Vec::new();
    for name in ["grpc", "http", "remote_write"] {
        let fake = Fake::start(script.to_vec()).await;
        let mut world = World::new(&["a"]);
        let (sink, signal, bytes) = match name {
            "grpc" => (grpc(&fake), Signal::Logs, logs(&["a", "b", "c"])),
            "http" => (otlp(&fake, Protocol::Http, Compression::None), Signal::Logs, logs(&["a", "b", "c"])),
            _ => (remote(&fake), Signal::Metrics, points(3)),
        };
        world.step = if settings.attempt_timeout >= long().attempt_timeout { LONG_STEP } else { STEP };
        world.serve(0, sink, settings);
        world.commit("t", signal, bytes, 3).await;
        outcomes.push((name, world.settled_of(signal).await.sinks["a"].clone(), fake));
    }
    outcomes
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_ends_in_the_middle_is_tried_again() {
    let script = [Answer::Close, Answer::Break, Answer::Close, Answer::Break];
    for (name, sink, fake) in each_sink(&script, Settings::default()).await {
        assert_eq!(sink.delivered, 3, "{name}");
        let seen = fake.seen();
        assert_eq!(seen.len(), 3, "{name}: of four tries two were read, and the fifth was answered");
        let last = seen.last().unwrap();
        assert!(seen.iter().all(|seen| seen.body == last.body), "{name}: what is sent again is the same");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_slow_is_waited_for_up_to_the_timeout_of_an_attempt() {
    let ten = Duration::from_secs(10);
    let patient = Settings { attempt_timeout: Duration::from_secs(15), ..Settings::default() };
    for (name, sink, fake) in each_sink(&[Answer::Slow(ten)], patient).await {
        assert_eq!((sink.delivered, fake.seen().len()), (3, 1), "{name}: delivered once");
    }
    let hasty = Settings { attempt_timeout: Duration::from_secs(5), ..Settings::default() };
    for (name, sink, fake) in each_sink(&[Answer::Slow(ten)], hasty).await {
        assert_eq!((sink.delivered, fake.seen().len()), (3, 2), "{name}: sent again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_time_to_come_back_is_seconds_or_a_date() {
    let date = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(3000);
    let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&date).unwrap();
    // The clock of dates is the system's, which may tick on meanwhile.
    for (header, least, most) in [("3000".to_owned(), 3000, 3001), (date, 2900, 3001)] {
        let header = Some(("retry-after", &*header.leak()));
        let script = [Answer::Http { status: 503, header, body: Vec::new() }];
        let settings = Settings { retry_for: Duration::from_secs(3600), ..long() };
        for (name, sink, fake) in each_sink(&script, settings).await {
            if name == "grpc" {
                // Without a gRPC answer no header counts.
                continue;
            }
            let seen = fake.seen();
            assert_eq!((sink.delivered, seen.len()), (3, 2), "{name}");
            let pause = seen[1].at - seen[0].at;
            assert!((least..most).contains(&pause.as_secs()), "{name}: {pause:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_no_grpc_is_judged_by_its_status() {
    let answer = |status| vec![Answer::Http { status, header: None, body: b"<html>".to_vec() }];
    let (line, seen) = one_entry(Protocol::Grpc, answer(503)).await;
    assert_eq!((line.sinks["a"].delivered, seen.len()), (3, 2));
    let (line, seen) = one_entry(Protocol::Grpc, answer(403)).await;
    assert_eq!((line.sinks["a"].rejected["unauthorized"], seen.len()), (3, 1));
    // A success without a grpc-status: nobody said that it arrived.
    let (line, seen) = one_entry(Protocol::Grpc, answer(200)).await;
    assert_eq!((line.sinks["a"].delivered, seen.len()), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn a_partial_success_is_counted_and_not_sent_again() {
    // `partial_success { rejected: 2 }`
    let message = vec![0x0a, 2, 0x08, 2];
    let (line, seen) = one_entry(Protocol::Grpc, vec![Answer::GrpcMessage(message.clone())]).await;
    let sink = &line.sinks["a"];
    assert_eq!((sink.delivered, sink.rejected["refused"], seen.len()), (1, 2, 1));
    let answer = Answer::Http { status: 200, header: None, body: message };
    let (line, _) = one_entry(Protocol::Http, vec![answer]).await;
    assert_eq!(line.sinks["a"].rejected["refused"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_asked_again_after_the_timeout() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let (line, seen) = one_entry(protocol, vec![Answer::Silence]).await;
        assert_eq!((line.sinks["a"].delivered, seen.len()), (3, 2), "{protocol:?}");
        let pause = seen[1].at - seen[0].at;
        assert!(pause >= Duration::from_secs(10) && pause < Duration::from_secs(12), "{pause:?}");
    }
}

/// Orders of failures by seed; a failure names it.
#[tokio::test(start_paused = true)]
async fn whatever_a_server_answers_every_record_is_accounted_for() {
    let mut delivered = 0;
    for seed in 0..30u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut draw = |below: u64| {
            // xorshift64
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let script: Vec<Answer> = (0..40)
            .map(|_| match draw(8) {
                0 => Answer::Silence,
                1 => Answer::Grpc { code: 14, details: Some(retry_info(draw(50) as u8)) },
                2 => Answer::Grpc { code: draw(18) as i32, details: None },
                3 => Answer::GrpcMessage(vec![0x0a, 2, 0x08, draw(5) as u8]),
                4 => Answer::Http { status: 500 + draw(5) as u16, header: None, body: Vec::new() },
                _ => Answer::GrpcMessage(Vec::new()),
            })
            .collect();
        let fake = Fake::start(script).await;
        let mut world = World::new(&["a"]);
        let settings = Settings {
            records_max: 1 + draw(20),
            window: Some(1 + draw(4) as usize),
            retry_for: Duration::from_secs(30 + draw(120)),
            ..Settings::default()
        };
        world.serve(0, grpc(&fake), settings);
        for at in 0..60 {
            let tenant = ["t", "u", "v"][draw(3) as usize];
            let records = 1 + draw(5) as u32;
            // Spans and points stand as deep in their messages.
            let bytes = logs(&vec![at.to_string(); records as usize]);
            world.commit(tenant, Signal::ALL[draw(3) as usize], bytes, records).await;
            sleep(Duration::from_millis(draw(1_000))).await;
        }
        if draw(2) == 0 {
            world.stop.cancel();
            world.sinks.join_next().await.unwrap().unwrap();
        }
        let deadline = Instant::now() + Duration::from_secs(36_000);
        while !world.journal.cursor(SinkId(0)).is_done() {
            assert!(Instant::now() < deadline, "seed {seed}");
            sleep(Duration::from_secs(1)).await;
        }
        let table = world.journal.ledger.snapshot();
        assert_eq!(table.unaccounted(), [], "seed {seed}");
        let sinks = table.lines.iter().flat_map(|line| line.sinks.values());
        assert!(sinks.clone().all(|sink| sink.in_flight == 0), "seed {seed}");
        delivered += sinks.map(|sink| sink.delivered).sum::<u64>();
        assert_eq!(world.journal.charged_bytes(SinkId(0)), 0, "seed {seed}");
    }
    assert!(delivered > 1000, "{delivered}");
}
