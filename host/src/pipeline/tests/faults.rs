//! Plugins that fail: what is put aside, and what holds while one is not called.

use super::plugins::slot_with;
use super::*;
use crate::journal::{DeadLetters, LetterSettings};
use crate::pipeline::letters::{Chosen, Letters, LettersError, WhichLetters};
use crate::sandbox::{CircuitSettings, Limits};

struct Post {
    world: World,
    store: Arc<DeadLetters>,
    letters: Letters,
    _folder: tempfile::TempDir,
}

/// One pipeline with this plugin, and dead letters.
fn post(slot: Slot) -> Post {
    let folder = tempfile::tempdir().unwrap();
    let settings = LetterSettings {
        folder: folder.path().join("dead-letters"),
        bytes_max: 64 << 20,
        age_max: Duration::from_secs(3600),
    };
    let metrics = Metrics::new();
    let store = DeadLetters::open(&settings, system_clock(), &metrics).unwrap();
    let way = vec![to("all", &["hostile"], vec![sink("a")])];
    let with = (2, system_clock(), tenants::QuotaSettings::default());
    let world = world_around(way, &[slot], &["a"], with, Some(store.clone()), metrics);
    let letters = Letters::new(store.clone(), world.pipeline.clone());
    Post { world, store, letters, _folder: folder }
}

/// A tenant's circuit opens with its first failed run.
const AT_ONCE: CircuitSettings = CircuitSettings { calls: 1, failures: 1, pause: Duration::from_secs(3600) };

fn hostile(mode: &str, on_failure: OnFailure) -> Slot {
    let limits = Limits { circuit: AT_ONCE, ..Limits::default() };
    slot_with("hostile", "hostile", &format!(r#"{{"mode": "{mode}"}}"#), on_failure, limits)
}

impl Post {
    fn line(&self) -> crate::journal::LineTable {
        self.world.table().line("t", Signal::Logs)
    }

    async fn send(&self, bodies: &[&str]) -> Result<Receipt, Refusal> {
        self.world.submit("own", request(&[("", bodies)])).await
    }

    /// What is there, after all that was asked before.
    async fn kept(&self) -> u64 {
        self.store.upkeep().await;
        self.store.live().records
    }
}

#[tokio::test]
async fn what_a_plugin_fails_on_is_kept_as_it_was_and_the_rest_goes_on() {
    let post = post(hostile("trap-on", OnFailure::Quarantine));
    let receipt = post.send(&["1", "poison", "2", "3"]).await.unwrap();
    assert_eq!(receipt, Receipt::default(), "the sender is told yes");
    assert_eq!(post.world.given(0), ["t/default: 1 2 3"]);
    let line = post.line();
    assert_eq!((line.acknowledged, line.dropped["quarantined:hostile"], line.committed), (4, 1, 3));
    let page = post.letters.page(WhichLetters::default(), 10).await.unwrap();
    let [letter] = &page.letters[..] else { panic!("{page:?}") };
    assert_eq!((letter.sink.as_str(), letter.reason.as_str()), ("plugin:hostile", "quarantined"));
    assert_eq!((letter.tenant.as_str(), letter.records), ("t", 1));
    let whole = post.letters.show(letter.id.parse().unwrap()).await.unwrap().unwrap();
    assert!(whole.message.starts_with("trap: "), "{}", whole.message);
    let content = &whole.content["resourceLogs"][0];
    assert_eq!(content["scopeLogs"][0]["logRecords"][0]["body"]["stringValue"], "poison");
    assert_eq!(content["resource"]["attributes"][0]["key"], "tenant.id", "with its identity");
}

#[tokio::test]
async fn where_no_letters_are_kept_it_is_dropped_and_counted() {
    let slots = [hostile("trap-on", OnFailure::Quarantine)];
    let world = world(vec![to("all", &["hostile"], vec![sink("a")])], &slots, &["a"]);
    world.submit("own", request(&[("", &["1", "poison", "2", "3"])])).await.unwrap();
    assert_eq!(world.given(0), ["t/default: 1 2 3"]);
    assert_eq!(world.table().line("t", Signal::Logs).dropped["plugin:hostile"], 1);
}

#[tokio::test]
async fn a_request_that_is_refused_leaves_no_letter() {
    let post = post(hostile("trap-on", OnFailure::Quarantine));
    post.world.journal.close();
    let refused = post.send(&["1", "poison", "2", "3"]).await;
    assert!(matches!(refused, Err(Refusal::Stopping { .. })), "{refused:?}");
    assert_eq!(post.kept().await, 0);
    assert_eq!(post.line().dropped.get("quarantined:hostile"), None);
}

#[tokio::test]
async fn what_was_put_aside_passes_the_mended_plugin_when_it_is_replayed() {
    let post = post(hostile("trap-on", OnFailure::Quarantine));
    post.send(&["1", "poison", "2", "3"]).await.unwrap();
    let all = || Chosen::All(WhichLetters::default());
    // Not mended yet: it is put aside again, as another letter.
    assert_eq!(post.letters.replay(all()).await.unwrap().records, 1);
    assert_eq!(post.kept().await, 1);
    assert_eq!(post.line().dropped["quarantined:hostile"], 2);
    // Not there: the letter stays.
    let gone = Slot { plugin: None, ..hostile("noop", OnFailure::Refuse) };
    post.world.pipeline.promote(&[gone]).unwrap();
    let replayed = post.letters.replay(all()).await;
    assert!(matches!(replayed, Err(LettersError::NotTaken { .. })), "{replayed:?}");
    assert_eq!(post.kept().await, 1);

    post.world.pipeline.promote(&[hostile("noop", OnFailure::Quarantine)]).unwrap();
    assert_eq!(post.letters.replay(all()).await.unwrap().records, 1);
    assert_eq!(post.world.given(0), ["t/default: 1 2 3", "t/default: poison"]);
    assert_eq!(post.kept().await, 0);
    let line = post.line();
    assert_eq!((line.acknowledged, line.added["replay"], line.committed), (4, 2, 4));
}

#[tokio::test]
async fn while_it_is_not_there_all_is_put_aside() {
    let post = post(Slot { plugin: None, ..hostile("noop", OnFailure::Quarantine) });
    post.send(&["1", "2"]).await.unwrap();
    assert_eq!((post.kept().await, post.line().dropped["quarantined:hostile"]), (2, 2));
}

#[tokio::test]
async fn a_guard_that_a_tenant_makes_fail_refuses_that_tenants_records_and_no_other() {
    let guard = Slot { is_guard: true, ..hostile("trap-on", OnFailure::Drop) };
    let way = vec![to("all", &["hostile"], vec![sink("a")])];
    let world = world(way, &[guard], &["a"]);
    let send = |tenant: &str, bodies: &[&str]| {
        let body = request(&[(&format!("tenant.id={tenant}"), bodies)]);
        let world = &world;
        async move { world.submit("agent", body).await }
    };
    send("t", &["poison"]).await.unwrap();
    assert_eq!(world.table().line("t", Signal::Logs).dropped["plugin:hostile"], 1);
    for _ in 0..3 {
        match send("t", &["1", "2"]).await {
            Err(Refusal::Plugin { name, after }) => {
                assert_eq!(name, "hostile");
                assert!(after > Duration::from_secs(3_000), "it says when: {after:?}");
            }
            other => panic!("{other:?}"),
        }
    }
    send("u", &["3"]).await.unwrap();
    assert_eq!(world.given(0), ["u/default: 3"]);
    assert_eq!(world.table().line("t", Signal::Logs).refused["plugin_circuit_open:hostile"], 6);
    assert_eq!(world.pipeline.open_guards(), ["hostile"]);
    assert!(world.pipeline.unmakeable_guards().is_empty());
    let text = world.metrics.text();
    // Of both tenants' records in one request those of one are left out.
    let both = request(&[("tenant.id=t", &["4"]), ("tenant.id=u", &["5"])]);
    let receipt = world.submit("agent", both).await.unwrap();
    assert_eq!(receipt.rejected, 1, "{text}");
    assert!(receipt.message.contains("failed too often"), "{}", receipt.message);
}

#[tokio::test]
async fn a_policy_holds_while_the_plugin_is_not_called() {
    for policy in [OnFailure::Drop, OnFailure::Pass, OnFailure::Quarantine] {
        let post = post(hostile("trap-on", policy));
        post.send(&["poison"]).await.unwrap();
        post.send(&["1", "2"]).await.unwrap();
        let (line, text) = (post.line(), post.world.metrics.text());
        let dropped = |reason: &str| line.dropped.get(reason).copied().unwrap_or_default();
        let passed = r#"trommel_process_passed_records_total{plugin="hostile",reason="circuit_open"} 2"#;
        assert_eq!(text.contains(passed), policy == OnFailure::Pass, "{text}");
        let (as_open, put_aside) = (dropped("plugin_circuit_open:hostile"), dropped("quarantined:hostile"));
        match policy {
            OnFailure::Drop => assert_eq!((as_open, put_aside, line.committed), (2, 0, 0)),
            OnFailure::Pass => assert_eq!((as_open, put_aside, line.committed), (0, 0, 3)),
            _ => assert_eq!((as_open, put_aside, line.committed), (0, 3, 0)),
        }
        assert_eq!(post.kept().await, put_aside);
    }
}

#[tokio::test]
async fn a_batch_that_a_guard_cannot_end_goes_back_as_if_it_had_not_begun() {
    let guard = Slot { is_guard: true, ..hostile("trap-on", OnFailure::Drop) };
    let world = world(vec![to("all", &["hostile"], vec![sink("a")])], &[guard], &["a"]);
    // The first piece opens the circuit, the second is not tried.
    let bodies: Vec<&str> = std::iter::repeat_n("poison", 512).chain(["1"; 10]).collect();
    let refused = world.submit("own", request(&[("", &bodies)])).await;
    assert!(matches!(refused, Err(Refusal::Plugin { .. })), "{refused:?}");
    assert!(world.given(0).is_empty());
    let line = world.table().line("t", Signal::Logs);
    assert_eq!(
        (line.refused["plugin_circuit_open:hostile"], line.dropped.len(), line.acknowledged),
        (522, 0, 0)
    );
}
