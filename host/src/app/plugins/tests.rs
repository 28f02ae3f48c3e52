//! Another configuration's plugins: what is kept, what is loaded, what is refused.

use super::*;
use crate::sandbox::{Grant, Instance, Limits, OnFailure};
use crate::telemetry::Metrics;
use std::path::Path;

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
    let sandbox = Arc::new(Sandbox::open(None, Metrics::new()).unwrap());
    let plugins = Arc::new(Plugins::new(sandbox, all, &BTreeMap::new()));
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
