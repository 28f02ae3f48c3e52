//! The payload, and how answers are taken.

use super::payload;
use crate::alerts::Severity;
use crate::alerts::content::Content;
use crate::alerts::incidents::{Fingerprint, How, State};
use crate::alerts::stub::{Hook, Reply, Running, seconds};
use crate::batch::TenantId;
use std::sync::Arc;

fn state(labels: &[(&str, &str)], ended: Option<(u64, How)>) -> State {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    State {
        print: Arc::new(Fingerprint {
            tenant: Some(TenantId::new("acme").unwrap()),
            plugin: "anomaly".into(),
            key: "errors:shop".into(),
        }),
        severity: Severity::Critical,
        content: Arc::new(Content::new("errors in shop".into(), "card declined".into(), labels)),
        count: 12_345,
        since_ms: 1_700_000_000_000,
        last_ms: 1_700_000_060_000,
        ended,
    }
}

#[test]
fn a_firing_incident_as_alertmanager_tells_it() {
    expect_test::expect![[r#"
        {
          "alerts": [
            {
              "annotations": {
                "count": "12345",
                "description": "card declined",
                "summary": "errors in shop"
              },
              "endsAt": "0001-01-01T00:00:00Z",
              "fingerprint": "ed2bfc6228b9f413",
              "generatorURL": "",
              "labels": {
                "alertname": "errors in shop",
                "plugin": "anomaly",
                "service_name": "shop",
                "severity": "critical",
                "tenant": "acme"
              },
              "startsAt": "2023-11-14T22:13:20Z",
              "status": "firing"
            }
          ],
          "commonAnnotations": {
            "count": "12345",
            "description": "card declined",
            "summary": "errors in shop"
          },
          "commonLabels": {
            "alertname": "errors in shop",
            "plugin": "anomaly",
            "service_name": "shop",
            "severity": "critical",
            "tenant": "acme"
          },
          "externalURL": "",
          "groupKey": "trommel:ed2bfc6228b9f413",
          "groupLabels": {
            "alertname": "errors in shop",
            "plugin": "anomaly",
            "tenant": "acme"
          },
          "receiver": "pager",
          "status": "firing",
          "truncatedAlerts": 0,
          "version": "4"
        }"#]]
    .assert_eq(
        &serde_json::to_string_pretty(&payload::of("pager", &state(&[("service.name", "shop")], None)))
            .unwrap(),
    );
}

#[test]
fn a_resolved_one_has_the_same_fingerprint_and_an_end() {
    let firing = payload::of("pager", &state(&[("a", "b")], None));
    let resolved = payload::of("pager", &state(&[], Some((1_700_000_120_000, How::Expired))));
    assert_eq!(
        (&resolved["status"], &resolved["alerts"][0]["status"]),
        (&"resolved".into(), &"resolved".into())
    );
    assert_eq!(resolved["alerts"][0]["endsAt"], "2023-11-14T22:15:20Z");
    assert_eq!(firing["alerts"][0]["fingerprint"], resolved["alerts"][0]["fingerprint"]);
    assert_eq!(firing["groupKey"], resolved["groupKey"]);
}

#[test]
fn labels_are_such_that_prometheus_takes_them() {
    for (labels, expected) in [
        (&[("http.route", "/pay"), ("http_route", "/x")][..], &["http_route=/pay", "http_route_2=/x"][..]),
        (
            &[("tenant", "globex"), ("exported_tenant", "x")],
            &["exported_tenant=globex", "exported_tenant_2=x"],
        ),
        (&[("alertname", "x"), ("severity", "none")], &["exported_alertname=x", "exported_severity=none"]),
        (&[("", "x"), ("é", "y")], &["label=x", "label_2=y"]),
        (&[("9lives", "x"), ("__name__", "y"), ("_a", "z")], &["_9lives=x", "_name__=y", "_a=z"]),
        (&[("a<b>", "<i>\n\"")], &["a_b_=<i>\n\""]),
    ] {
        let payload = payload::of("pager", &state(labels, None));
        let got = payload["alerts"][0]["labels"].as_object().unwrap();
        for label in expected {
            let (name, value) = label.split_once('=').unwrap();
            assert_eq!(got.get(name).and_then(|got| got.as_str()), Some(value), "{label} in {got:?}");
        }
        assert_eq!(got.len(), 4 + expected.len());
        assert_eq!((&got["tenant"], &got["severity"]), (&"acme".into(), &"critical".into()));
        for name in got.keys() {
            let mut letters = name.chars();
            let first = letters.next().unwrap();
            assert!(first.is_ascii_alphabetic() || first == '_', "{name}");
            assert!(letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_'), "{name}");
            assert!(!name.starts_with("__"), "{name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_receiver_is_told_of_each_change_in_order_with_our_headers() {
    let hook = Hook::start().await;
    let running = Running::start(vec![("hook", hook.channel())]);
    running.fire("shop", "declined", 1);
    seconds(6).await;
    running.fire("shop", "declined", 1);
    seconds(61).await;
    running.resolve("shop");
    seconds(6).await;
    assert_eq!(hook.told(), ["firing errors in shop", "firing errors in shop", "resolved errors in shop"]);
    hook.look(|got| {
        let header = |name: &str| got.headers[0][name].to_str().unwrap().to_owned();
        assert_eq!(header("authorization"), "Bearer s3cr3t_header");
        assert_eq!(header("content-type"), "application/json");
        assert_eq!(got.bodies[2].1["alerts"][0]["annotations"]["count"], "2");
    });
    running.end().await;
}

/// What a receiver answers first: how many calls there are after a minute and a half, and which counter says it.
async fn check(reply: Reply, calls: usize, least_pause_s: u64, result: &str) {
    let hook = Hook::start().await;
    hook.look(|got| got.script.push_back(reply.clone()));
    let running = Running::start(vec![("hook", hook.channel())]);
    running.fire("shop", "declined", 1);
    seconds(90).await;
    assert_eq!(hook.told().len(), calls, "{reply:?}");
    let line = format!("trommel_alerts_calls_total{{channel=\"hook\",result=\"{result}\"}} 1");
    assert!(running.counts(&line), "{line} in\n{}", running.metrics.text());
    if calls == 2 {
        let pause = hook.look(|got| got.bodies[1].0 - got.bodies[0].0);
        assert!(
            pause.as_secs_f64() >= least_pause_s as f64 * 0.5 && pause.as_secs() <= least_pause_s + 11,
            "{pause:?}"
        );
    }
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_cannot_now_is_called_again_and_one_that_refuses_is_not() {
    check(Reply::Text(204, String::new()), 1, 0, "ok").await;
    check(Reply::After(429, "60"), 2, 60, "limited").await;
    check(Reply::After(503, "60"), 2, 60, "retry").await;
    check(Reply::Text(500, "x".repeat(1 << 20)), 2, 1, "retry").await;
    check(Reply::Nothing, 2, 10, "retry").await;
    for status in [302, 400, 401, 403, 404, 413, 422] {
        check(Reply::Text(status, "no".into()), 1, 0, "refused").await;
    }
}
