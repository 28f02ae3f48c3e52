//! A journal whose disk fills, or may no longer be written: senders are refused with a time to come back, what was
//! acknowledged is delivered meanwhile, and it recovers by itself.
//!
//! These tests mount; without the right to do so they fail and say so. The loss of permissions is a folder that becomes
//! read-only, since permissions do not bind whoever may mount.

use super::backend::Backend;
use super::oracle::{Oracle, client, drained, ledger, yaml};
use crate::full_disk::Disk;
use crate::world::{World, eventually_within};
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use std::path::PathBuf;
use std::time::Duration;
use tonic::transport::Channel;
use tonic_types::StatusExt;
use trommel::app::App;
use trommel::config::Config;

const LARGE_BYTES: usize = 200_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// A collector, its backend, and who sends to it.
struct Scene {
    world: World,
    backend: Backend,
    oracle: Oracle,
    client: LogsServiceClient<Channel>,
    large: String,
}

fn config(folder: &std::path::Path, backend: &Backend) -> Config {
    // Of the memory each sink has 8 MiB.
    let more = "journal: { kind: disk, max: 1GiB, age: 6h }\nmemory: { room: 64MiB }";
    let yaml = yaml("127.0.0.1:0", "127.0.0.1:0", &backend.url, more);
    let mut config = Config::parse(&yaml, folder, "test.yaml").unwrap_or_else(|faults| panic!("{faults}"));
    for delivery in &mut config.deliver {
        delivery.backoff.first = Duration::from_millis(50);
        delivery.backoff.most = Duration::from_millis(200);
        delivery.drain_for = Duration::from_millis(500);
    }
    config
}

impl Scene {
    async fn start(folder: tempfile::TempDir, backend: Backend, oracle: Oracle) -> Scene {
        let config = config(folder.path(), &backend);
        let world = World::start_config(folder, config).await;
        let client = client(world.grpc());
        Scene { world, backend, oracle, client, large: "x".repeat(LARGE_BYTES) }
    }

    async fn attempt(&mut self) -> Result<(), tonic::Status> {
        self.oracle.attempt(&mut self.client, 5, &self.large).await
    }

    /// Sends until one is refused, and then some more; each refusal has a time to come back.
    async fn until_refused(&mut self) -> usize {
        let mut taken = 0;
        loop {
            match self.attempt().await {
                Ok(()) => taken += 1,
                Err(refused) => {
                    asks_to_come_back(&refused);
                    break;
                }
            }
            assert!(taken < 1_000, "it is never refused");
        }
        for _ in 0..10 {
            if let Err(refused) = self.attempt().await {
                asks_to_come_back(&refused);
            }
        }
        taken
    }

    /// It takes requests again; nobody does anything for it.
    async fn until_taken(&mut self) {
        let until = tokio::time::Instant::now() + PATIENCE;
        while self.attempt().await.is_err() {
            assert!(tokio::time::Instant::now() < until, "it does not recover");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn console(&self) -> String {
        self.world.console("")
    }

    async fn end(self) {
        drained(&self.console(), PATIENCE).await;
        self.oracle.check(&self.console(), &self.backend.reached()).await;
        self.world.end().await;
    }
}

fn asks_to_come_back(refused: &tonic::Status) {
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused:?}");
    let info = refused.get_details_retry_info().expect("RetryInfo");
    let after = info.retry_delay.expect("a time to come back");
    assert!((Duration::from_secs(1)..=Duration::from_secs(5)).contains(&after), "{after:?}");
}

/// A folder in which the journal will be, without a journal.
fn journal_in(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("trommel-data/journal")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_fills_its_disk_refuses_delivers_and_recovers_by_itself() {
    let (folder, backend) = (tempfile::tempdir().unwrap(), Backend::start().await);
    let _disk = Disk::mount(&journal_in(&folder), 40);
    backend.refuse(true);
    let mut scene = Scene::start(folder, backend, Oracle::default()).await;
    let taken = scene.until_refused().await;
    assert!(taken > 100, "{taken} of 200 kB are taken by 40 MiB");
    // The store is on another disk and goes on.
    let console = scene.console();
    eventually_within(PATIENCE, "the store has everything", || async {
        ledger(&console).await.in_flight("streams") == 0
    })
    .await;
    assert!(ledger(&console).await.refused("disk_full") > 0);
    scene.backend.refuse(false);
    scene.until_taken().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_others_fill_is_survived_running_and_over_a_restart() {
    let (folder, backend) = (tempfile::tempdir().unwrap(), Backend::start().await);
    let disk = Disk::mount(&journal_in(&folder), 40);
    backend.refuse(true);
    let mut scene = Scene::start(folder, backend, Oracle::default()).await;
    for _ in 0..10 {
        scene.attempt().await.unwrap();
    }
    disk.fill();
    scene.until_refused().await;
    let Scene { world, backend, oracle, .. } = scene;
    let folder = world.end().await;

    let mut scene = Scene::start(folder, backend, oracle).await;
    scene.until_refused().await;
    // What was taken before arrives although there is no room.
    scene.backend.refuse(false);
    drained(&scene.console(), PATIENCE).await;
    disk.free();
    scene.until_taken().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_may_no_longer_be_written_delivers_refuses_and_recovers_by_itself() {
    let (folder, backend) = (tempfile::tempdir().unwrap(), Backend::start().await);
    let journal = journal_in(&folder);
    backend.refuse(true);
    let mut scene = Scene::start(folder, backend, Oracle::default()).await;
    // Four times what a sink has in memory: the rest is read from the disk.
    for _ in 0..160 {
        scene.attempt().await.unwrap();
    }
    let lost = Disk::read_only(&journal);
    scene.attempt().await.unwrap();
    scene.backend.refuse(false);
    drained(&scene.console(), PATIENCE).await;
    assert!(ledger(&scene.console()).await.lost.is_empty(), "what can be read is read");
    // The segment that is open can be written until the next is due.
    let taken = scene.until_refused().await;
    assert!(taken > 50, "{taken}");
    assert!(ledger(&scene.console()).await.refused("disk_failed") > 0);
    drop(lost);
    scene.until_taken().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_may_not_be_written_at_the_start_is_told_and_starts_once_it_may() {
    let (folder, backend) = (tempfile::tempdir().unwrap(), Backend::start().await);
    let journal = journal_in(&folder);
    backend.refuse(true);
    let mut scene = Scene::start(folder, backend, Oracle::default()).await;
    for _ in 0..5 {
        scene.attempt().await.unwrap();
    }
    let Scene { world, backend, oracle, .. } = scene;
    let folder = world.end().await;
    let lost = Disk::read_only(&journal);
    let mut config = config(folder.path(), &backend);
    config.compiled = std::env::temp_dir().join("trommel-tests-compiled");
    let refused = App::start(config).await.expect_err("it does not start").to_string();
    assert!(refused.contains("journal: ") && refused.contains("Read-only file system"), "{refused}");
    drop(lost);
    backend.refuse(false);
    let scene = Scene::start(folder, backend, oracle).await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_collector_in_the_same_folder_is_refused_in_words() {
    let (folder, backend) = (tempfile::tempdir().unwrap(), Backend::start().await);
    let mut scene = Scene::start(folder, backend, Oracle::default()).await;
    let second = config(scene.world.folder.path(), &scene.backend);
    let refused = App::start(second).await.expect_err("it does not start").to_string();
    assert!(refused.contains("another process uses the journal"), "{refused}");
    scene.attempt().await.unwrap();
    eventually_within(PATIENCE, "it goes on", || async { scene.backend.requests() > 0 }).await;
    scene.end().await;
}
