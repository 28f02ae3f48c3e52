//! Another configuration's plugins: what is kept, what is loaded, what is refused.

use super::swap::Looked;
use super::*;
use crate::pipeline::CanarySettings;
use crate::sandbox::{Grant, Instance, Limits, OnFailure};
use std::path::Path;
use std::time::Duration;

fn settings(name: &str, file: &Path) -> sandbox::Settings {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    sandbox::Settings {
        name: name.into(),
        module: Module::File(file.into()),
        config: "{}".into(),
        filled: Vec::new(),
        secrets: BTreeMap::new(),
        is_guard: false,
        on_failure: OnFailure::Pass,
        tenant: None,
        instance: Instance::Shared,
        limits: Limits::default(),
        grant: Some(Grant { reads: words(&["severity"]), writes: words(&["drop", "route"]) }),
    }
}

async fn loaded(all: Vec<sandbox::Settings>) -> Arc<Plugins> {
    let metrics = Metrics::new();
    let sandbox = Arc::new(Sandbox::open(None, metrics.clone()).unwrap());
    let plugins = Arc::new(Plugins::new(sandbox, metrics, all, &BTreeMap::new()));
    plugins.load_all(|_| {}).await;
    plugins
}

/// Name, version and how it came of each.
fn shown(plugins: &Plugins) -> Vec<String> {
    let show = |entry: &Entry| match &entry.active {
        Some(active) => {
            let manifest = active.plugin.manifest();
            format!("{}: {} by {}", entry.settings.name, manifest.name, active.how.name())
        }
        None => format!("{}: none", entry.settings.name),
    };
    plugins.table().iter().map(show).collect()
}

fn guest(name: &str) -> &'static [u8] {
    artifacts::guest(name).unwrap()
}

#[tokio::test]
async fn what_has_the_same_settings_is_kept_and_the_rest_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let [kept, changed, new, gone] = ["kept", "changed", "new", "gone"].map(|name| folder.path().join(name));
    for file in [&kept, &changed, &new, &gone] {
        std::fs::write(file, guest("first-filter")).unwrap();
    }
    let plugins =
        loaded(vec![settings("kept", &kept), settings("changed", &changed), settings("gone", &gone)]).await;
    assert_eq!(shown(&plugins), ["kept: quiet by start", "changed: quiet by start", "gone: quiet by start"]);
    let before = plugins.entry("kept").unwrap().active.unwrap();

    // The content of a file alone is for the watch of that file.
    for file in [&kept, &changed] {
        std::fs::write(file, guest("router")).unwrap();
    }
    let other = sandbox::Settings { config: r#"{"a": 1}"#.into(), ..settings("changed", &changed) };
    let wanted = vec![settings("new", &new), other, settings("kept", &kept)];
    let swaps = BTreeMap::from([("kept".into(), SwapSettings { is_auto: false, ..Default::default() })]);
    let turn = plugins.turn().await;
    let prepared = plugins.prepare(&turn, wanted, &swaps).await.unwrap();
    assert_eq!(shown(&plugins), ["kept: quiet by start", "changed: quiet by start", "gone: quiet by start"]);
    let names: Vec<String> = prepared.slots().into_iter().map(|slot| slot.name).collect();
    assert_eq!(names, ["new", "changed", "kept"]);
    assert_eq!(prepared.described()["changed"], [Signal::Logs]);
    plugins.adopt(&turn, prepared);
    assert_eq!(
        shown(&plugins),
        ["new: quiet by config", "changed: router by config", "kept: quiet by start"]
    );
    let after = plugins.entry("kept").unwrap();
    assert!(Arc::ptr_eq(&before.score, &after.active.unwrap().score) && !after.swap.is_auto);
}

#[tokio::test]
async fn what_cannot_be_used_is_told_by_name_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let [good, bad] = ["good", "bad"].map(|name| folder.path().join(name));
    std::fs::write(&good, guest("first-filter")).unwrap();
    let plugins = loaded(vec![settings("good", &good), settings("bad", &bad)]).await;
    assert_eq!(shown(&plugins), ["good: quiet by start", "bad: none"]);
    let turn = plugins.turn().await;

    std::fs::write(&good, "garbage").unwrap();
    let other = sandbox::Settings { config: r#"{"a": 1}"#.into(), ..settings("good", &good) };
    let refused = plugins.prepare(&turn, vec![other, settings("more", &good)], &BTreeMap::new()).await;
    let why = "is no WebAssembly component".to_owned();
    assert_eq!(refused.unwrap_err(), [("good".to_owned(), why.clone()), ("more".to_owned(), why)]);
    assert_eq!(shown(&plugins), ["good: quiet by start", "bad: none"]);

    // One that was not there before is no reason to refuse the rest.
    let same = || vec![settings("bad", &bad), settings("good", &good)];
    let prepared = plugins.prepare(&turn, same(), &BTreeMap::new()).await.unwrap();
    plugins.adopt(&turn, prepared);
    assert_eq!(shown(&plugins), ["bad: none", "good: quiet by start"]);
    std::fs::write(&bad, guest("router")).unwrap();
    let prepared = plugins.prepare(&turn, same(), &BTreeMap::new()).await.unwrap();
    plugins.adopt(&turn, prepared);
    assert_eq!(shown(&plugins), ["bad: router by config", "good: quiet by start"]);
}

/// The router with these settings, which it does not read.
fn router(file: &Path, config: &str) -> sandbox::Settings {
    sandbox::Settings { config: config.into(), ..settings("p", file) }
}

#[tokio::test]
async fn what_was_rolled_back_is_not_tried_again_when_its_file_went_and_came() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p");
    std::fs::write(&file, guest("router")).unwrap();
    let plugins = loaded(vec![router(&file, "{}")]).await;
    std::fs::write(&file, guest("first-filter")).unwrap();
    let mut entry = plugins.entry("p").unwrap();
    let digest = Some(Digest::of(guest("first-filter")));
    entry.ended = Some(Failure::new(digest, Stage::Watching, Outcome::RolledBack, "it drops all"));
    entry.failure = Some(Failure::refused(None, Stage::Loading, "no such file"));
    for (how, is_forced, is_known) in
        [(How::File, false, true), (How::Command, false, true), (How::Command, true, false)]
    {
        let looked = plugins.look(&entry, how, is_forced);
        match looked {
            Looked::Known(known) => assert!(is_known && known.outcome == Outcome::RolledBack, "{how:?}"),
            Looked::Ready { .. } => assert!(!is_known, "{how:?}"),
            other => panic!("{how:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_guard_that_comes_later_has_the_signals_that_the_pipelines_were_checked_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("own");
    let guard = sandbox::Settings { is_guard: true, on_failure: OnFailure::Drop, ..settings("own", &file) };
    let plugins = loaded(vec![guard]).await;
    std::fs::write(&file, guest("first-filter")).unwrap();
    let looked = plugins.look(&plugins.entry("own").unwrap(), How::File, false);
    let Looked::Refused(failure) = looked else { panic!("{looked:?}") };
    assert!(failure.why.starts_with("a guard of other signals"), "{}", failure.why);
}

/// The configuration is read again with these settings of the one plugin.
async fn reloaded(plugins: &Arc<Plugins>, settings: sandbox::Settings, swap: SwapSettings) -> Entry {
    let turn = plugins.turn().await;
    let swaps = BTreeMap::from([("p".into(), swap)]);
    let prepared = plugins.prepare(&turn, vec![settings], &swaps).await.unwrap();
    plugins.adopt(&turn, prepared);
    plugins.entry("p").unwrap()
}

#[tokio::test]
async fn other_settings_are_watched_or_tried_as_another_version_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p");
    std::fs::write(&file, guest("router")).unwrap();
    let [first, second, third] = ["{}", r#"{"a": 2}"#, r#"{"a": 3}"#].map(|config| router(&file, config));
    let active = |entry: &Entry| entry.active.as_ref().unwrap().plugin.settings().config.clone();
    let tried =
        |entry: &Entry| entry.candidate.as_ref().map(|of| of.version.plugin.settings().config.clone());
    let kept = |entry: &Entry| entry.previous.as_ref().map(|of| of.version.plugin.settings().config.clone());
    let plugins = loaded(vec![first.clone()]).await;

    let entry = reloaded(&plugins, second.clone(), SwapSettings::default()).await;
    assert_eq!((active(&entry), tried(&entry)), (second.config.clone(), None));
    assert_eq!(kept(&entry), Some(first.config), "the way back, while it is watched");

    let canary = CanarySettings { share: 0.5, lasts: Duration::from_secs(60) };
    for swap in [
        SwapSettings { shadow: Duration::from_secs(60), ..SwapSettings::default() },
        SwapSettings { canary: Some(canary), ..SwapSettings::default() },
    ] {
        let entry = reloaded(&plugins, third.clone(), swap).await;
        assert_eq!((active(&entry), tried(&entry)), (second.config.clone(), Some(third.config.clone())));
        assert!(slots(&[entry])[0].versions.trial.is_some());
        let entry = reloaded(&plugins, third.clone(), swap).await;
        assert_eq!(tried(&entry), Some(third.config.clone()), "the same file again ends no trial");
        let entry = reloaded(&plugins, second.clone(), swap).await;
        assert_eq!((active(&entry), tried(&entry)), (second.config.clone(), None), "back to what runs");
    }
}
