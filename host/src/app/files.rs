//! Tells when files of interest may have changed: plugins, the configuration.
//!
//! Folders are watched, not files: a file that is renamed over another is a new one, and what is mounted by Kubernetes
//! changes by a link that is swapped (`file -> ..data/file`, `..data -> ..2026_11_29`). So every folder is watched that
//! holds the file or a link on the way to it, and the way is looked up again after each event. Events only wake: what
//! counts is where the path leads, and the size, time and number of the file there. The same is looked at every
//! [`LOOK_EVERY`], so that an event that was missed, or a file system without events, costs seconds and no more.
//!
//! A file is told of when it has stood still for [`STILL_FOR`]: then whoever writes in place is probably done. If not,
//! it is told of once more. Whether its content changed is for who reads it.

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

/// How long a file must stand still. Between two writes of a copy lie microseconds; a tenth of a second is not felt.
const STILL_FOR: Duration = Duration::from_millis(100);
/// How often it is looked without an event.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long events gather before it is looked again: a folder may be busy with files of others.
const GATHER: Duration = Duration::from_millis(10);
/// As many links as Linux itself follows.
const LINKS_MAX: usize = 40;

/// Files of interest, and what was last seen of them. One task asks it.
#[derive(Debug)]
pub(super) struct Watch {
    files: BTreeMap<PathBuf, Known>,
    /// Folders that events come from, and which they were: one may be replaced by another of its name.
    folders: BTreeMap<PathBuf, Option<Identity>>,
    /// `None`: there are no events, only looks.
    watcher: Option<RecommendedWatcher>,
    woken: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Known {
    /// What was told of last; `None`: nothing yet.
    told: Option<Seen>,
    /// Something else that was seen, and since when.
    since: Option<(Seen, Instant)>,
}

/// Where a path leads, and what is there. Whoever changes a file's content changes one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Nothing,
    File { resolved: PathBuf, identity: Identity, bytes: u64, modified: (i64, i64) },
}

/// Device and number of a file.
type Identity = (u64, u64);

impl Watch {
    /// Each file is told of once at first: it may have changed since somebody read it.
    pub(super) fn open(files: impl IntoIterator<Item = PathBuf>) -> Watch {
        let woken = Arc::new(Notify::new());
        let wakes = woken.clone();
        let wake = move |event: notify::Result<Event>| {
            // An error may be events that were lost.
            if event.map_or(true, |event| may_change(&event.kind)) {
                wakes.notify_one();
            }
        };
        let watcher = notify::recommended_watcher(wake)
            .inspect_err(|error| {
                tracing::warn!(%error, "changes of files are noticed by looking every few seconds only");
            })
            .ok();
        let mut watch = Watch { files: BTreeMap::new(), folders: BTreeMap::new(), watcher, woken };
        watch.set(files);
        watch
    }

    /// From now on these files. Of those that it knows already it tells only when they change.
    pub(super) fn set(&mut self, files: impl IntoIterator<Item = PathBuf>) {
        let mut known = std::mem::take(&mut self.files);
        self.files = files
            .into_iter()
            .map(|file| {
                let known = known.remove(&file).unwrap_or_default();
                (file, known)
            })
            .collect();
        self.woken.notify_one();
    }

    /// Waits until one of the files may have another content than when it was told of last, or is gone, and stands
    /// still. Which, sorted. Cancelled, nothing is lost.
    pub(super) async fn changed(&mut self) -> Vec<PathBuf> {
        loop {
            let files: Vec<PathBuf> = self.files.keys().cloned().collect();
            // A file system may be far away.
            let looked = tokio::task::spawn_blocking(move || look(&files)).await;
            let Ok((seen, folders)) = looked else {
                sleep(LOOK_EVERY).await;
                continue;
            };
            let is_other_way = self.follow(folders);
            let now = Instant::now();
            let changed = self.note(seen, now);
            if !changed.is_empty() {
                return changed;
            }
            if is_other_way {
                // What happened before the folders were watched gave no event.
                continue;
            }
            let still = self.files.values().filter_map(|known| known.since.as_ref());
            let due = still.map(|(_, since)| *since + STILL_FOR).min().unwrap_or(now + LOOK_EVERY);
            tokio::select! {
                () = sleep_until(due) => {}
                () = self.woken.notified() => sleep(GATHER).await,
            }
        }
    }

    /// Compares with what was known; which files are to be told of.
    fn note(&mut self, seen: Vec<(PathBuf, Seen)>, now: Instant) -> Vec<PathBuf> {
        let mut changed = Vec::new();
        for (file, seen) in seen {
            let Some(known) = self.files.get_mut(&file) else { continue };
            if known.told.as_ref() == Some(&seen) {
                known.since = None;
                continue;
            }
            match &known.since {
                Some((waiting, since)) if *waiting == seen => {
                    if now.saturating_duration_since(*since) >= STILL_FOR {
                        known.told = Some(seen);
                        known.since = None;
                        changed.push(file);
                    }
                }
                _ => known.since = Some((seen, now)),
            }
        }
        changed
    }

    /// Watches these folders and no others. Whether that changed anything.
    fn follow(&mut self, folders: BTreeMap<PathBuf, Option<Identity>>) -> bool {
        if folders == self.folders {
            return false;
        }
        if let Some(watcher) = &mut self.watcher {
            for (folder, identity) in &self.folders {
                if folders.get(folder) != Some(identity) {
                    // The folder may be gone, and its watch with it.
                    let _ = watcher.unwatch(folder);
                }
            }
            for (folder, identity) in &folders {
                let is_new = identity.is_some() && self.folders.get(folder) != Some(identity);
                if is_new && let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
                    tracing::warn!(folder = %folder.display(), %error, "changes in this folder are noticed by looking every few seconds only");
                }
            }
        }
        self.folders = folders;
        true
    }
}

/// Reading is no change; our own looks would wake us.
fn may_change(kind: &EventKind) -> bool {
    !kind.is_access() || *kind == EventKind::Access(AccessKind::Close(AccessMode::Write))
}

type Looked = (Vec<(PathBuf, Seen)>, BTreeMap<PathBuf, Option<Identity>>);

fn look(files: &[PathBuf]) -> Looked {
    let mut folders = BTreeMap::new();
    let mut seen = Vec::with_capacity(files.len());
    for file in files {
        let resolved = resolve(file, |folder| {
            folders.entry(folder.to_owned()).or_insert_with(|| identity_of(folder));
        });
        seen.push((file.clone(), see(resolved)));
    }
    (seen, folders)
}

fn see(resolved: PathBuf) -> Seen {
    match std::fs::metadata(&resolved) {
        Ok(found) => Seen::File {
            resolved,
            identity: (found.dev(), found.ino()),
            bytes: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
        },
        Err(_) => Seen::Nothing,
    }
}

fn identity_of(folder: &Path) -> Option<Identity> {
    std::fs::metadata(folder).ok().map(|found| (found.dev(), found.ino()))
}

/// The path without links; `on_the_way` is told the folder of each link, and the folder of the file.
fn resolve(file: &Path, mut on_the_way: impl FnMut(&Path)) -> PathBuf {
    let mut path = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    for _ in 0..LINKS_MAX {
        let Some((link, to, rest)) = first_link(&path) else { break };
        let folder = link.parent().unwrap_or(Path::new("/"));
        on_the_way(folder);
        let to = folder.join(to);
        path = if rest.as_os_str().is_empty() { to } else { to.join(rest) };
    }
    if let Some(folder) = path.parent() {
        on_the_way(folder);
    }
    path
}

/// The first part of a path that is a link, where it leads, and what comes after it.
fn first_link(path: &Path) -> Option<(PathBuf, PathBuf, PathBuf)> {
    let mut prefix = PathBuf::new();
    let mut parts = path.components();
    while let Some(part) = parts.next() {
        match part {
            // What was resolved before it is no link.
            Component::ParentDir => drop(prefix.pop()),
            other => prefix.push(other),
        }
        if let Ok(to) = std::fs::read_link(&prefix) {
            return Some((prefix, to, parts.as_path().to_owned()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use tokio::time::timeout;

    const PATIENCE: Duration = Duration::from_secs(20);

    async fn changed(watch: &mut Watch) -> Vec<PathBuf> {
        timeout(PATIENCE, watch.changed()).await.expect("a change is noticed")
    }

    /// A watch that told of its files once, and has events.
    async fn watching(files: &[&Path]) -> Watch {
        let mut watch = Watch::open(files.iter().map(|file| file.to_path_buf()));
        assert!(watch.watcher.is_some(), "this machine has events");
        let mut told = Vec::new();
        while told.len() < files.len() {
            told.extend(changed(&mut watch).await);
        }
        watch
    }

    /// The same that hears of nothing.
    async fn deaf(files: &[&Path]) -> Watch {
        let mut watch = watching(files).await;
        watch.watcher = None;
        watch
    }

    fn folder_with(name: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        fs::write(&file, "one").unwrap();
        (folder, file)
    }

    #[tokio::test]
    async fn a_file_renamed_over_it_and_one_written_in_place_are_changes() {
        let (folder, file) = folder_with("p.wasm");
        let mut watch = watching(&[&file]).await;
        for text in ["two", "six"] {
            let aside = folder.path().join("aside");
            fs::write(&aside, text).unwrap();
            fs::rename(&aside, &file).unwrap();
            assert_eq!(changed(&mut watch).await, std::slice::from_ref(&file));
            fs::write(&file, text.to_uppercase()).unwrap();
            assert_eq!(changed(&mut watch).await, std::slice::from_ref(&file));
        }
        fs::remove_file(&file).unwrap();
        assert_eq!(changed(&mut watch).await, std::slice::from_ref(&file));
    }

    /// As kubelet does: a folder for each version, and the link `..data`, which is swapped by a rename.
    fn put_version(folder: &Path, version: &str) {
        let of_version = folder.join(format!("..{version}"));
        fs::create_dir(&of_version).unwrap();
        fs::write(of_version.join("p.wasm"), version).unwrap();
        symlink(format!("..{version}"), folder.join("..data_tmp")).unwrap();
        let before = fs::read_link(folder.join("..data"));
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
        if let Ok(before) = before {
            fs::remove_dir_all(folder.join(before)).unwrap();
        }
    }

    #[tokio::test]
    async fn a_link_that_is_swapped_far_above_the_file_is_a_change_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        put_version(folder, "1");
        let file = folder.join("p.wasm");
        symlink("..data/p.wasm", &file).unwrap();
        let mut watch = watching(&[&file]).await;
        for version in ["2", "3", "4"] {
            put_version(folder, version);
            assert_eq!(changed(&mut watch).await, std::slice::from_ref(&file));
            assert_eq!(fs::read_to_string(&file).unwrap(), version);
        }
        // And what is written in place where the links lead.
        fs::write(folder.join("..4/p.wasm"), "five").unwrap();
        assert_eq!(changed(&mut watch).await, [file]);
    }

    #[tokio::test]
    async fn what_gave_no_event_is_found_all_the_same() {
        let (_folder, file) = folder_with("p.wasm");
        let mut watch = deaf(&[&file]).await;
        let write = async {
            // After the first look.
            sleep(STILL_FOR).await;
            fs::write(&file, "other").unwrap();
        };
        assert_eq!(tokio::join!(changed(&mut watch), write).0, std::slice::from_ref(&file));
    }

    #[tokio::test]
    async fn a_folder_that_is_replaced_is_watched_again() {
        let outer = tempfile::tempdir().unwrap();
        let inner = outer.path().join("plugins");
        fs::create_dir(&inner).unwrap();
        let file = inner.join("p.wasm");
        fs::write(&file, "one").unwrap();
        let mut watch = watching(&[&file]).await;
        fs::rename(&inner, outer.path().join("old")).unwrap();
        fs::create_dir(&inner).unwrap();
        fs::write(&file, "two").unwrap();
        assert_eq!(changed(&mut watch).await, std::slice::from_ref(&file));
        fs::write(&file, "three").unwrap();
        assert_eq!(changed(&mut watch).await, [file]);
    }

    #[tokio::test]
    async fn a_file_that_is_still_written_is_told_of_when_it_stands_still() {
        let (_folder, file) = folder_with("p.wasm");
        let mut watch = watching(&[&file]).await;
        let seen = |bytes| Seen::File { resolved: file.clone(), identity: (1, 1), bytes, modified: (0, 0) };
        let start = Instant::now();
        let mut note = |after_ms, bytes| {
            watch.note(vec![(file.clone(), seen(bytes))], start + Duration::from_millis(after_ms)).len()
        };
        assert_eq!([note(0, 1), note(90, 2), note(180, 3), note(270, 3)], [0, 0, 0, 0]);
        assert_eq!([note(280, 3), note(400, 3)], [1, 0]);
    }

    #[tokio::test]
    async fn other_files_are_told_of_once_and_known_ones_are_not() {
        let (_one, first) = folder_with("a");
        let (_two, second) = folder_with("b");
        let mut watch = watching(&[&first]).await;
        watch.set([first.clone(), second.clone()]);
        assert_eq!(changed(&mut watch).await, std::slice::from_ref(&second));
        watch.set([second.clone()]);
        fs::write(&first, "of no interest").unwrap();
        fs::write(&second, "of interest").unwrap();
        assert_eq!(changed(&mut watch).await, [second]);
    }

    #[test]
    fn reading_does_not_wake() {
        assert!(!may_change(&EventKind::Access(AccessKind::Open(AccessMode::Any))));
        assert!(may_change(&EventKind::Access(AccessKind::Close(AccessMode::Write))));
        assert!(may_change(&EventKind::Any));
    }

    #[test]
    fn links_in_a_circle_end() {
        let folder = tempfile::tempdir().unwrap();
        symlink("b", folder.path().join("a")).unwrap();
        symlink("a", folder.path().join("b")).unwrap();
        assert_eq!(see(resolve(&folder.path().join("a"), |_| {})), Seen::Nothing);
    }
}
