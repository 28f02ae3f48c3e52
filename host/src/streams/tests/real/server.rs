//! Servers that speak MongoDB's protocol, each a process of its own that ends with its test.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

/// A process, and the folder of its data.
pub(super) struct Server {
    /// None: it is not there, or belongs to the test.
    process: Option<Child>,
    _folder: tempfile::TempDir,
    pub(super) port: u16,
}

impl Server {
    pub(super) fn ferretdb() -> Server {
        Server::ferretdb_with(&[], free_port())
    }

    pub(super) fn ferretdb_with(more: &[&str], port: u16) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let (data, state) = (folder.path().join("data"), folder.path().join("state"));
        std::fs::create_dir(&data).unwrap();
        std::fs::create_dir(&state).unwrap();
        let mut command = Command::new(installed("TROMMEL_TEST_FERRETDB"));
        command
            .args(["--handler=sqlite", "--telemetry=disable", "--debug-addr=-", "--log-level=error"])
            .arg(format!("--sqlite-url=file:{}/", data.display()))
            .arg(format!("--state-dir={}", state.display()))
            .arg(format!("--listen-addr=127.0.0.1:{port}"))
            .args(more);
        Server::start(command, folder, port)
    }

    /// The one that has change streams.
    pub(super) fn mongo_java() -> Server {
        let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
        let source = installed("TROMMEL_TEST_MONGO_WIRE");
        let libraries = source.parent().unwrap_or(Path::new("/")).join("lib/*");
        let mut command = Command::new("java");
        command.args(["-Xmx256m", "-cp"]).arg(libraries).arg(source).arg(port.to_string());
        Server::start(command, folder, port)
    }

    /// Nothing listens.
    pub(super) fn none() -> Server {
        Server { process: None, _folder: tempfile::tempdir().unwrap(), port: 0 }
    }

    fn start(mut command: Command, folder: tempfile::TempDir, port: u16) -> Server {
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let server = Server { process: Some(process), _folder: folder, port };
        let end = SystemTime::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(SystemTime::now() < end, "the server does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    pub(super) fn uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}/?directConnection=true", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The server of somebody who has a real one.
pub(super) fn uri_given() -> Option<String> {
    std::env::var("MONGODB_URI").ok().filter(|uri| !uri.is_empty())
}

fn installed(variable: &str) -> PathBuf {
    let path = std::env::var_os(variable)
        .unwrap_or_else(|| panic!("{variable} is not set: `cargo xtask test` installs the tool and sets it"));
    PathBuf::from(path)
}

pub(super) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A name that no other test has.
pub(super) fn free_database() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("trommel_test_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// From a thread of its own: a test's runtime may be one that must not be blocked.
pub(super) fn drop_database(uri: &str, database: &str) {
    let (uri, database) = (uri.to_owned(), database.to_owned());
    let dropping = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = mongodb::Client::with_uri_str(&uri).await.unwrap();
            client.database(&database).drop().await.unwrap();
        });
    });
    let _ = dropping.join();
}
