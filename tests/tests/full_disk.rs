//! A store on a disk that is full: senders and other sinks do not notice, and what waited is stored once there is space.
//!
//! The disk is a small tmpfs, so this test needs the right to mount; without it, it fails and says so.

use crate::world::{World, eventually, logs};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use trommel::config::Config;

const YAML: &str = r#"
receivers: { otlp: { grpc: { listen: 127.0.0.1:0 } } }
console: { listen: 127.0.0.1:0 }
pipelines: [{ name: logs, when: { signal: logs }, sinks: [streams, nowhere] }]
sinks: { streams: { type: streams }, nowhere: { type: discard } }
"#;

/// A filesystem of its own, gone with the test.
pub struct Disk(PathBuf);

impl Disk {
    pub fn mount(at: &Path, mebibytes: u32) -> Disk {
        std::fs::create_dir_all(at).unwrap();
        mount(&["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"], at);
        Disk(at.to_owned())
    }

    /// What is below this folder stays, and can no longer be written, unless it is open already.
    pub fn read_only(at: &Path) -> Disk {
        mount(&["--bind", &at.display().to_string()], at);
        let disk = Disk(at.to_owned());
        mount(&["-o", "remount,ro,bind"], at);
        disk
    }

    /// Leaves no byte free.
    pub fn fill(&self) {
        let mut ballast =
            std::fs::OpenOptions::new().create(true).append(true).open(self.0.join("ballast")).unwrap();
        for size in [1 << 20, 4096] {
            while ballast.write_all(&vec![0; size]).is_ok() {}
        }
    }

    pub fn free(&self) {
        std::fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

fn mount(options: &[&str], at: &Path) {
    let output = Command::new("mount").args(options).arg(at).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "this test must mount: {said}");
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_holds_back_nobody_and_what_waited_is_stored_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::parse(YAML, folder.path(), "test.yaml").unwrap();
    let disk = Disk::mount(&config.data.join("streams"), 96);
    for delivery in &mut config.deliver {
        delivery.backoff.first = std::time::Duration::from_millis(50);
        delivery.backoff.most = std::time::Duration::from_millis(200);
    }
    let world = World::start_config(folder, config).await;
    let large = "x".repeat(100_000);
    let send = |number: usize| {
        let line = format!("{number} {large}");
        let world = &world;
        async move { world.send(None, logs(&[("project.id", "shop")], &[&line])).await.unwrap() }
    };
    send(0).await;
    world.history_of(None, "local", "shop", 1).await;

    disk.fill();
    for number in 1..=100 {
        assert_eq!(send(number).await.partial_success, None);
    }
    let attempts = "trommel_deliver_attempts_total{sink=\"streams\",result=\"retry\"}";
    eventually("the full store is tried again", || async {
        world.metric(attempts).await.unwrap_or_default() >= 2.0
    })
    .await;
    eventually("the other sink has everything", || async {
        let metrics = world.metrics().await;
        metrics.lines().any(|line| {
            line.contains("delivered") && line.contains("sink=\"nowhere\"") && line.ends_with(" 101")
        })
    })
    .await;

    disk.free();
    let records = world.history_of(None, "local", "shop", 101).await;
    for (number, record) in records.iter().enumerate() {
        assert!(record["body"].as_str().unwrap().starts_with(&format!("{number} ")), "{number}");
    }
    world.end().await;
}
