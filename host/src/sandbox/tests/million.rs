//! A million calls in a row leave neither the host nor the guest larger.

use super::*;
use std::process::Command;

/// A million, and half of the calls of another instance: at both looks one is as old.
const CALLS: u64 = 1_050_000;
/// By then every buffer has the size that it keeps, and instances were replaced.
const SETTLED: u64 = 250_000;
/// The allocator keeps what it was given back for a while.
const GROWTH_MAX: u64 = 2 << 20;

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size() as u64
}

/// In a process of its own: others would grow beside it.
#[test]
fn a_million_calls_grow_neither_host_nor_guest() {
    let name = "sandbox::tests::million::in_a_process_of_its_own";
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--ignored", "--nocapture"]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("1 passed"), "{said}{:?}", output.stderr);
}

#[test]
#[ignore = "started by the test above"]
fn in_a_process_of_its_own() {
    let sandbox = sandbox();
    // It reads no text: a search takes a build for tests too long to be done a million times.
    let settings = settings(r#"{"mode": "drop-even"}"#);
    let plugin = sandbox.load_bytes(&settings, guest()).unwrap();
    let bytes = logs(&[("service.name", "shop")], &["one".into(), "two".into()]);
    let (mut host, mut guest) = (0, 0);
    for call in 0..CALLS {
        let ran = plugin.run(only_piece(&batch_of("acme", Signal::Logs, bytes.clone())), call * 1_000);
        assert!(ran.failed.is_empty() && ran.filtered == 1);
        if call + 1 == SETTLED {
            (host, guest) = (resident_bytes(), plugin.idle_memory_bytes());
        }
    }
    let (host_now, guest_now) = (resident_bytes(), plugin.idle_memory_bytes());
    assert_eq!(guest_now, guest, "linear memory of the instance");
    assert!(host_now <= host + GROWTH_MAX, "{host} -> {host_now} bytes are resident");
}
