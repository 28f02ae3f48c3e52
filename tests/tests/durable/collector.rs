//! A collector as a process that is killed and started again, on the same ports and in the same folder.

use crate::shutdown::{Process, binary};
use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

pub struct Collector {
    pub grpc: String,
    /// The address of its console.
    pub console: String,
    file: PathBuf,
    log: PathBuf,
    http: reqwest::Client,
    process: Option<Process>,
    /// Removed with it.
    _folder: tempfile::TempDir,
}

impl Collector {
    /// `yaml` makes the configuration from the addresses of receiver and console.
    pub fn new(yaml: impl Fn(&str, &str) -> String) -> Collector {
        let folder = tempfile::tempdir().unwrap();
        let [grpc, console] = [(); 2].map(|()| format!("127.0.0.1:{}", own_port()));
        let (file, log) = (folder.path().join("trommel.yaml"), folder.path().join("log"));
        std::fs::write(&file, yaml(&grpc, &console)).unwrap();
        let (http, console) = (crate::world::client(), format!("http://{console}"));
        Collector { grpc, console, file, log, http, process: None, _folder: folder }
    }

    pub fn start(&mut self) {
        let log = OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let mut command = Command::new(binary());
        command.args(["run", "--config"]).arg(&self.file).stdout(Stdio::null()).stderr(log);
        self.process = Some(Process(command.spawn().unwrap()));
    }

    /// Waits until it serves; it must not end before.
    pub async fn ready(&mut self) {
        let until = tokio::time::Instant::now() + crate::world::PATIENCE;
        loop {
            let answer = self.http.get(format!("{}/readyz", self.console)).send().await;
            if answer.is_ok_and(|answer| answer.status() == 200) {
                return;
            }
            let ended = self.process.as_mut().and_then(|process| process.0.try_wait().unwrap());
            assert_eq!(ended, None, "the collector ended by itself");
            assert!(tokio::time::Instant::now() < until, "the collector is not ready");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// As `kill -9` does.
    pub fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.0.kill().unwrap();
        let status = process.0.wait().unwrap();
        assert_eq!(status.code(), None, "it had ended by itself: {status}");
    }

    /// As SIGTERM does.
    pub async fn stop(&mut self) {
        let mut process = self.process.take().unwrap();
        process.terminate();
        assert_eq!(process.exit_code().await, Some(0));
    }

    /// The most memory that it had so far, without the pages of the program itself, in bytes: a build for tests has 50 MiB
    /// of those, one for use less than 20.
    pub fn peak_resident_bytes(&self) -> u64 {
        let pid = self.process.as_ref().unwrap().0.id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"));
            line.unwrap().parse::<u64>().unwrap() << 10
        };
        bytes("VmHWM:") - bytes("RssFile:")
    }
}

impl Drop for Collector {
    #[allow(clippy::print_stderr, reason = "a failing test shows what the collector said last")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
    }
}

/// A port below those that the system gives to others: nobody takes it while its collector is dead.
fn own_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let from = std::process::id() as u16 % 4_000;
    let mut ports = (0..8_000).map(|_| 20_000 + (from + NEXT.fetch_add(1, Ordering::Relaxed)) % 8_000);
    ports.find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}
