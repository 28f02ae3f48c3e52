//! A plugin that does what it may not: the records it fails on get its policy, everything else goes on.

use crate::identity;
use crate::world::{World, eventually, logs, resource_logs, sha256, text};
use http_body_util::BodyExt;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use prost::Message;
use serde_json::Value;
use tonic::Code;
use tonic_types::StatusExt;

/// What the hostile guest asks for.
const GRANT: &str = "{ reads: [body, name, event-name, description, severity, kind, status, time, number, trace-id, span-id, trace-state, raw, \
     'item:*', 'event:*', 'metric:*', 'scope:*', 'resource:*'], \
     writes: [body, name, event-name, description, severity, trace-state, raw, \
     'item:*', 'event:*', 'metric:*', 'scope:*', 'resource:*', drop, route] }";

const LISTEN: &str = r#"
receivers: { otlp: { grpc: { listen: 127.0.0.1:0 }, http: { listen: 127.0.0.1:0 } } }
console: { listen: 127.0.0.1:0 }
sinks: { streams: { type: streams } }
"#;

/// A folder with the guests of the tests as files.
fn folder_with_guests() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["hostile", "router"] {
        std::fs::write(folder.path().join(format!("{name}.wasm")), artifacts::guest(name).unwrap()).unwrap();
    }
    std::fs::write(folder.path().join("garbage.wasm"), [0x5a; 4096]).unwrap();
    folder
}

/// A collector with guests, all plugins loaded.
async fn start(yaml: &str) -> World {
    let world = World::start_in(folder_with_guests(), yaml).await;
    let (status, text) = readiness(&world).await;
    assert_eq!(status, 200, "{text}");
    world
}

async fn readiness(world: &World) -> (u16, String) {
    let answer = world.http.get(world.console("/readyz")).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// The hostile guest as an entry under `plugins`; `more` are further keys, `config` further settings.
fn hostile(mode: &str, on_failure: &str, more: &str, config: &str) -> String {
    format!(
        "hostile: {{ module: hostile.wasm, on_failure: {on_failure}, grant: {GRANT}, {more} config: {{ mode: {mode}{config} }} }}"
    )
}

/// Tenants acme, whose pipeline has the hostile guest, and globex, whose has none; an agent speaks for both.
fn two_tenants(mode: &str, on_failure: &str) -> String {
    format!(
        "{LISTEN}{}plugins: {{ {} }}\npipelines:\n  - {{ name: acme, when: {{ tenant: [acme] }}, plugins: [hostile], sinks: [streams] }}\n  - {{ name: rest, sinks: [streams] }}\n",
        tokens(),
        hostile(mode, on_failure, "tenant: acme,", ", pattern: '[a-z]+@[a-z.]+'"),
    )
}

fn tokens() -> String {
    format!(
        r#"identity:
  tokens:
    - {{ sha256: "{}", tenant: acme, projects: ["*"], rights: [send, read] }}
    - {{ sha256: "{}", tenant: globex, projects: ["*"], rights: [send, read] }}
    - {{ sha256: "{}", speaks_for: ["acme", "globex"], rights: [send] }}
"#,
        sha256("acme-token"),
        sha256("globex-token"),
        sha256("agent-token"),
    )
}

fn of_both(acme: &[&str], globex: &[&str]) -> ExportLogsServiceRequest {
    let acme = resource_logs(&[("tenant.id", "acme"), ("project.id", "shop")], acme);
    let globex = resource_logs(&[("tenant.id", "globex"), ("project.id", "web")], globex);
    ExportLogsServiceRequest { resource_logs: vec![acme, globex] }
}

fn bodies(records: &[Value]) -> Vec<&str> {
    records.iter().map(|record| record["body"].as_str().unwrap()).collect()
}

async fn calls(world: &World, result: &str) -> f64 {
    let line = format!("trommel_process_calls_total{{plugin=\"hostile\",result=\"{result}\"}}");
    world.metric(&line).await.expect("calls are counted")
}

/// A line of the ledger in `/metrics`: the record counts of the lines whose labels hold all of these.
async fn ledger(world: &World, name: &str, labels: &[&str]) -> f64 {
    let text = world.metrics().await;
    let is_meant = |line: &&str| {
        line.starts_with(&format!("trommel_ledger_{name}_records"))
            && labels.iter().all(|label| line.contains(label))
    };
    text.lines().filter(is_meant).map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_tenants_plugin_traps_and_the_other_tenants_records_are_stored() {
    for (on_failure, rejected, kept) in [("refuse", 3, 0), ("drop", 0, 0), ("pass", 0, 3)] {
        let world = start(&two_tenants("trap", on_failure)).await;
        let answer =
            world.send(Some("agent-token"), of_both(&["a1", "a2", "a3"], &["g1", "g2"])).await.unwrap();
        let partial = answer.partial_success.unwrap_or_default();
        assert_eq!(partial.rejected_log_records, rejected, "{on_failure}");
        assert_eq!(
            partial.error_message.contains("hostile"),
            rejected > 0,
            "{on_failure}: {}",
            partial.error_message
        );

        let globex = world.history_of(Some("globex-token"), "globex", "web", 2).await;
        assert_eq!(bodies(&globex), ["g1", "g2"], "{on_failure}");
        let acme = world.history_of(Some("acme-token"), "acme", "shop", kept).await;
        assert_eq!(bodies(&acme), &["a1", "a2", "a3"][..kept], "{on_failure}");

        let acme = "tenant=\"acme\"";
        assert_eq!(
            ledger(&world, "refused", &[acme, "plugin:hostile"]).await,
            rejected as f64,
            "{on_failure}"
        );
        let dropped = if on_failure == "drop" { 3.0 } else { 0.0 };
        assert_eq!(ledger(&world, "dropped", &[acme, "plugin:hostile"]).await, dropped, "{on_failure}");
        assert_eq!(ledger(&world, "received", &["tenant=\"globex\""]).await, 2.0);
        assert!(calls(&world, "trap").await >= 1.0);
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http_the_answer_has_the_same_count() {
    let world = start(&two_tenants("trap", "refuse")).await;
    let request = of_both(&["a1"], &["g1"]).encode_to_vec();
    let url = format!("http://{}/v1/logs", world.otlp_http());
    let post =
        world.http.post(url).bearer_auth("agent-token").header("content-type", "application/x-protobuf");
    let answer = post.body(request).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let body = answer.bytes().await.unwrap();
    let answer =
        opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse::decode(body).unwrap();
    assert_eq!(answer.partial_success.unwrap().rejected_log_records, 1);
    world.history_of(Some("globex-token"), "globex", "web", 1).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_plugin_does_is_named_and_the_others_go_on() {
    let cases: &[(&str, &[&str])] = &[
        ("loop", &["time"]),
        ("balloon", &["memory"]),
        ("deep", &["trap"]),
        ("trap-late", &["trap"]),
        ("error-late", &["error"]),
        ("search10000", &["work"]),
        ("texts10000", &["work"]),
        ("output-flood", &["output"]),
        ("hostcall-flood", &["output"]),
        ("undeclared-alert", &["fault"]),
        ("undeclared-series", &["fault"]),
        ("undeclared-store", &["fault"]),
        ("bad-row", &["fault"]),
        ("bad-range", &["fault"]),
        ("bad-splice", &["fault"]),
        ("name-flood", &["fault"]),
    ];
    // One collector for all: a plugin each, for a tenant each.
    let plugin = |(mode, _): &(&str, &[&str])| {
        // What a case is not about ends no call of it, however busy the machine is.
        let time = if *mode == "loop" { "20ms" } else { "5s" };
        let more = format!("tenant: t-{mode}, limits: {{ memory: 16MiB, time: {time} }},");
        let entry = hostile(mode, "refuse", &more, ", pattern: '[a-z]+@[a-z.]+'");
        format!("  {mode}: {}\n", entry.split_once(": ").unwrap().1)
    };
    let pipeline = |(mode, _): &(&str, &[&str])| {
        format!(
            "  - {{ name: {mode}, when: {{ tenant: [t-{mode}] }}, plugins: [{mode}], sinks: [streams] }}\n"
        )
    };
    let yaml = format!(
        "{LISTEN}identity:\n  tokens:\n    - {{ sha256: \"{}\", speaks_for: [\"*\"], rights: [send] }}\n    - {{ sha256: \"{}\", tenant: globex, rights: [read] }}\nplugins:\n{}pipelines:\n{}  - {{ name: rest, sinks: [streams] }}\n",
        sha256("agent-token"),
        sha256("globex-token"),
        cases.iter().map(plugin).collect::<String>(),
        cases.iter().map(pipeline).collect::<String>(),
    );
    let world = start(&yaml).await;
    for (number, (mode, results)) in cases.iter().enumerate() {
        let tenant = format!("t-{mode}");
        let ill = resource_logs(&[("tenant.id", &tenant)], &["mail ada@example.com", "two"]);
        let well = resource_logs(&[("tenant.id", "globex"), ("project.id", "web")], &[mode]);
        let request = ExportLogsServiceRequest { resource_logs: vec![ill, well] };
        let answer = world
            .send(Some("agent-token"), request)
            .await
            .unwrap_or_else(|refused| panic!("{mode}: {refused}"));
        let partial = answer.partial_success.unwrap_or_else(|| panic!("{mode}: everything was taken"));
        assert_eq!(partial.rejected_log_records, 2, "{mode}: {}", partial.error_message);
        assert!(partial.error_message.contains(mode), "{mode}: {}", partial.error_message);
        let text = world.metrics().await;
        let is_counted = |result: &&str| {
            let line = format!("trommel_process_calls_total{{plugin=\"{mode}\",result=\"{result}\"}} ");
            text.lines().any(|shown| shown.starts_with(&line) && !shown.ends_with(" 0"))
        };
        let shown: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("process_calls_total{") && line.contains(mode))
            .collect();
        assert!(results.iter().any(is_counted), "{mode}: {shown:?}");
        // The next good request, and the records beside the ill ones.
        let kept = world.history_of(Some("globex-token"), "globex", "web", number + 1).await;
        assert_eq!(kept[number]["body"], *mode);
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_poisonous_record_among_512_is_the_only_one_that_the_policy_meets() {
    for (on_failure, rejected, kept) in [("refuse", 1, 511), ("drop", 0, 511), ("pass", 0, 512)] {
        for mode in ["trap-on", "loop-on"] {
            // On a busy machine the clock of plugins ticks late, and each call that loops costs a few ticks.
            let plugins = hostile(mode, on_failure, "limits: { time: 500ms },", ", text: poison");
            let world = start(&format!("{LISTEN}plugins: {{ {plugins} }}\npipelines: [{{ name: all, plugins: [hostile], sinks: [streams] }}]\n")).await;
            let lines: Vec<String> = (0..512)
                .map(|number| if number == 300 { "poison".into() } else { format!("line {number}") })
                .collect();
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let answer = world.send(None, logs(&[("project.id", "shop")], &lines)).await.unwrap();
            assert_eq!(
                answer.partial_success.unwrap_or_default().rejected_log_records,
                rejected,
                "{mode} {on_failure}"
            );
            let records = world.history_of(None, "local", "shop", kept).await;
            let expected: Vec<&str> =
                lines.iter().copied().filter(|line| *line != "poison" || on_failure == "pass").collect();
            assert_eq!(bodies(&records), expected, "{mode} {on_failure}");
            if on_failure == "drop" {
                assert_eq!(ledger(&world, "dropped", &["plugin:hostile"]).await, 1.0);
            }
            world.end().await;
        }
    }
}

/// Why the only plugin is not loaded, as the console tells it.
async fn failed(world: &World) -> String {
    let answer = world.http.get(world.console("/v1/plugins")).send().await.unwrap();
    let shown = answer.json::<Value>().await.unwrap()[0].clone();
    assert_eq!(shown["state"], "failed");
    shown["error"].as_str().expect("why").to_owned()
}

/// The plugin `broken` stands in the pipeline of tenant acme alone.
fn broken(plugin: &str) -> String {
    format!(
        "{LISTEN}{}plugins: {{ broken: {{ {plugin} grant: {GRANT} }} }}\npipelines:\n  - {{ name: acme, when: {{ tenant: [acme] }}, plugins: [broken], sinks: [streams] }}\n  - {{ name: rest, unguarded: true, sinks: [streams] }}\n",
        tokens(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_that_cannot_be_loaded_refuses_its_pipelines_and_no_other() {
    for (plugin, why) in [
        ("module: missing.wasm, guard: true,", "missing.wasm"),
        ("module: garbage.wasm, guard: true,", "component"),
        ("module: hostile.wasm, guard: true, config: { mode: explode-pattern },", "pattern"),
        ("module: hostile.wasm, guard: true, config: { mode: configure-loop },", "CPU time"),
        ("module: hostile.wasm, on_failure: refuse, config: { mode: bad-settings },", "`ratio` is missing"),
    ] {
        let world = World::start_in(folder_with_guests(), &broken(plugin)).await;
        let told = failed(&world).await;
        assert!(told.contains(why), "{plugin}: {told}");
        let (status, text) = readiness(&world).await;
        assert_eq!(status, 503, "{plugin}");
        assert!(text.contains("broken"), "{plugin}: {text}");

        let refused = world.send(Some("acme-token"), logs(&[], &["mine"])).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{plugin}");
        assert!(refused.message().contains("broken"), "{plugin}: {}", refused.message());
        let delay =
            refused.get_details_retry_info().expect("RetryInfo").retry_delay.expect("a time to come back");
        assert!(delay.as_secs_f64() > 0.0);

        let url = format!("http://{}/v1/logs", world.otlp_http());
        let post =
            world.http.post(url).bearer_auth("acme-token").header("content-type", "application/x-protobuf");
        let answer = post.body(logs(&[], &["mine"]).encode_to_vec()).send().await.unwrap();
        assert_eq!(answer.status(), 503, "{plugin}");
        let after: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=60).contains(&after), "{after}");

        // Other pipelines serve, beside it in one request as well.
        world.send(Some("globex-token"), logs(&[("project.id", "web")], &["g1"])).await.unwrap();
        let answer = world.send(Some("agent-token"), of_both(&["a1"], &["g2"])).await.unwrap();
        let partial = answer.partial_success.expect("acme's record is left out");
        assert_eq!(partial.rejected_log_records, 1, "{plugin}");
        assert!(partial.error_message.contains("broken"), "{}", partial.error_message);
        let records = world.history_of(Some("globex-token"), "globex", "web", 2).await;
        assert_eq!(bodies(&records), ["g1", "g2"]);
        assert_eq!(world.history(Some("acme-token"), "acme", "shop").await.unwrap().len(), 0);
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_loaded_and_is_no_guard_lets_pass_or_drops_as_configured() {
    for (plugin, kept) in [
        ("module: garbage.wasm, on_failure: pass,", 1),
        ("module: missing.wasm,", 1),
        ("module: garbage.wasm, on_failure: drop,", 0),
    ] {
        let world = World::start_in(folder_with_guests(), &broken(plugin)).await;
        let answer = world.send(Some("agent-token"), of_both(&["a1"], &["g1"])).await.unwrap();
        assert_eq!(answer.partial_success, None, "{plugin}");
        world.history_of(Some("globex-token"), "globex", "web", 1).await;
        world.history_of(Some("acme-token"), "acme", "shop", kept).await;
        assert_eq!(
            ledger(&world, "dropped", &["tenant=\"acme\"", "plugin_not_loaded:broken"]).await,
            1.0 - kept as f64,
            "{plugin}"
        );
        let (status, text) = readiness(&world).await;
        assert_eq!((status, text.contains("broken")), (503, true), "{plugin}: {text}");
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_cannot_ask_for_more_than_its_grant() {
    let plugin = "module: hostile.wasm, guard: true,";
    let yaml = broken(plugin).replace(GRANT, "{ reads: [body], writes: [drop] }");
    let world = World::start_in(folder_with_guests(), &yaml).await;
    let told = failed(&world).await;
    assert!(told.contains("grant") && told.contains("item:*"), "{told}");
    let refused = world.send(Some("acme-token"), logs(&[], &["mine"])).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    world.end().await;
}

/// A collector of tenant acme that sends what it has to the gateway, which trusts it to speak for its tenants.
fn sidecar(gateway: &World, mode: &str, config: &str) -> String {
    format!(
        r#"
receivers: {{ otlp: {{ grpc: {{ listen: 127.0.0.1:0 }} }} }}
console: {{ listen: 127.0.0.1:0 }}
{}plugins: {{ {} }}
pipelines: [{{ name: acme, when: {{ tenant: [acme] }}, plugins: [hostile], sinks: [gateway] }}]
sinks: {{ gateway: {{ type: otlp, endpoint: "http://{}", headers: {{ authorization: "Bearer agent-token" }} }} }}
"#,
        tokens(),
        hostile(mode, "refuse", "tenant: acme,", config),
        gateway.grpc(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_own_plugin_cannot_give_records_to_another_through_a_trusted_sidecar() {
    let gateway = World::start(&identity::gateway()).await;
    let mut arrived = 0;
    for (mode, config) in [
        ("forge-identity-set", ""),
        ("forge-identity-set", ", key: project.id"),
        ("forge-identity-remove", ""),
        ("forge-identity-splice", ", own: acme"),
    ] {
        let sidecar = start(&sidecar(&gateway, mode, config)).await;
        let what = format!("{mode}{config}");
        for claim in [
            &[("service.name", "x"), ("project.id", "shop")][..],
            &[("tenant.id", "globex"), ("project.id", "shop")],
        ] {
            let answer = sidecar.send(Some("acme-token"), logs(claim, &[&what])).await.unwrap();
            assert_eq!(answer.partial_success, None, "{what}");
            arrived += 1;
            let records = gateway.history_of(Some("acme-token"), "acme", "shop", arrived).await;
            let last = records.last().unwrap();
            assert_eq!(last["body"], what.as_str());
            assert_eq!(
                (&last["resource"]["tenant.id"], &last["resource"]["project.id"]),
                (&"acme".into(), &"shop".into()),
                "{what}"
            );
        }
        let restored = sidecar.metric("trommel_process_restored_resources_total{plugin=\"hostile\"}").await;
        assert_eq!(restored, Some(2.0), "{what}");
        assert_eq!(
            sidecar.metric("trommel_admit_overwritten_resources_total{tenant=\"acme\"}").await,
            Some(1.0),
            "{what}"
        );
        sidecar.end().await;
    }
    // What the gateway was handed was right already, each key once.
    assert_eq!(gateway.metric("trommel_admit_overwritten_resources_total{tenant=\"acme\"}").await, None);
    assert_eq!(gateway.history(Some("globex-token"), "globex", "web").await.unwrap().len(), 0);
    gateway.end().await;
}

/// An OTLP/HTTP server that takes one request and hands back what stood in it.
async fn one_request(socket: tokio::net::TcpListener) -> ExportLogsServiceRequest {
    let (taken, mut requests) = tokio::sync::mpsc::channel(1);
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let taken = taken.clone();
        async move {
            let body = request.into_body().collect().await?.to_bytes();
            let _ = taken.try_send(body);
            Ok::<_, hyper::Error>(hyper::Response::new(http_body_util::Empty::<bytes::Bytes>::new()))
        }
    });
    let (stream, _) = socket.accept().await.unwrap();
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        body = requests.recv() => {
            // Its answer is written when the connection goes on.
            let _ = tokio::time::timeout(std::time::Duration::from_millis(200), connection).await;
            ExportLogsServiceRequest::decode(body.unwrap()).unwrap()
        }
        ended = &mut connection => panic!("no request came: {ended:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_plugin_writes_the_identity_stands_once_on_the_wire() {
    for (mode, config) in [
        ("forge-identity-set", ""),
        ("forge-identity-remove", ""),
        ("forge-identity-splice", ", own: acme"),
        ("noop", ""),
    ] {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = socket.local_addr().unwrap();
        let yaml = format!(
            "{}{}plugins: {{ {} }}\npipelines: [{{ name: all, when: {{ tenant: [acme] }}, plugins: [hostile], sinks: [far] }}]\n",
            LISTEN.replace(
                "streams: { type: streams }",
                &format!(
                    "far: {{ type: otlp, protocol: http, compression: none, endpoint: \"http://{to}\" }}"
                )
            ),
            tokens(),
            hostile(mode, "refuse", "tenant: acme,", config),
        );
        let world = start(&yaml).await;
        let claims = [("tenant.id", "globex"), ("project.id", "shop"), ("tenant.id", "globex")];
        world.send(Some("acme-token"), logs(&claims, &["x"])).await.unwrap();
        let request = one_request(socket).await;
        let attributes = &request.resource_logs[0].resource.as_ref().unwrap().attributes;
        let of = |key: &str| {
            attributes.iter().filter(|a| a.key == key).map(|a| a.value.clone().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(of("tenant.id"), [text("acme")], "{mode}");
        assert_eq!(of("project.id"), [text("shop")], "{mode}");
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_go_where_a_plugin_or_their_resource_sends_them_and_the_rest_is_counted() {
    let yaml = r#"
receivers: { otlp: { grpc: { listen: 127.0.0.1:0 } } }
console: { listen: 127.0.0.1:0 }
plugins: { router: { module: router.wasm, grant: { reads: [severity], writes: [route] } } }
pipelines:
  - name: logs
    plugins: [router]
    sinks:
      - { sink: streams, when: { "resource:env": [prod, staging] } }
      - { sink: errors, when: { route: [errors] } }
      - { sink: both, when: { route: [errors], "resource:env": prod } }
sinks: { streams: { type: streams }, errors: { type: discard }, both: { type: discard } }
"#;
    let world = start(yaml).await;
    let with_env = |env: &str, lines: &[(&str, i32)]| {
        let names: Vec<&str> = lines.iter().map(|(line, _)| *line).collect();
        let mut resource = resource_logs(&[("env", env), ("project.id", "shop")], &names);
        for (record, (_, severity)) in resource.scope_logs[0].log_records.iter_mut().zip(lines) {
            record.severity_number = *severity;
        }
        resource
    };
    let request = ExportLogsServiceRequest {
        resource_logs: vec![
            with_env("prod", &[("p info", 9), ("p error", 17)]),
            with_env("dev", &[("d info", 9), ("d error", 21), ("d debug", 5)]),
            with_env("staging", &[("s error", 17), ("s info", 9)]),
        ],
    };
    assert_eq!(world.send(None, request).await.unwrap().partial_success, None);
    let records = world.history_of(None, "local", "shop", 4).await;
    let mut stored = bodies(&records);
    stored.sort_unstable();
    assert_eq!(stored, ["p error", "p info", "s error", "s info"]);
    eventually("the other sinks have theirs", || async {
        ledger(&world, "delivered", &["sink=\"errors\""]).await == 3.0
            && ledger(&world, "delivered", &["sink=\"both\""]).await == 1.0
    })
    .await;
    assert_eq!(ledger(&world, "unrouted", &[]).await, 2.0);
    world.end().await;
}
