//! A million calls in a row leave neither the host nor the guest larger.
//!
//! Every eighth takes lists of texts and of numbers from the host and hands over both, and each hands over a list and a
//! text: whatever the two sides do not give back on the way adds up. An instance is replaced after so many calls, so
//! each is held against itself, early and late.

use super::super::pool::CALLS_MAX;
use super::*;
use std::process::Command;

/// A million, and half of the calls of another instance: at both looks one is as old.
const CALLS: u64 = 1_050_000;
/// By then every buffer has the size that it keeps, and instances were replaced.
const SETTLED: u64 = 250_000;
/// Calls of one instance after which it is looked at: its own buffers have their size, and shortly before it goes.
const EARLY: u64 = 1_000;
const LATE: u64 = 99_000;
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
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{why}");
}

#[test]
#[ignore = "started by the test above"]
fn in_a_process_of_its_own() {
    let sandbox = sandbox();
    // One instance at a time, that of the load too.
    let settings = Settings { instance: Instance::Shared, ..settings(r#"{"mode": "lists"}"#) };
    let plugin = sandbox.load_bytes(&settings, guest()).unwrap();
    let bytes = logs(&[("service.name", "shop")], &["one".into(), "two".into()]);
    let batch = batch_of("acme", Signal::Logs, bytes);
    let (mut host, mut early, mut compared) = (0, 0, 0);
    for call in 1..=CALLS {
        let ran = plugin.run(only_piece(&batch), call * 1_000);
        assert!(ran.failed.is_empty() && ran.filtered == 1);
        assert_eq!(plugin.idle_instances(), usize::from(!(call + 1).is_multiple_of(CALLS_MAX.into())));
        match call % u64::from(CALLS_MAX) {
            EARLY => early = plugin.idle_memory_bytes(),
            LATE => {
                assert_eq!(plugin.idle_memory_bytes(), early, "linear memory of the instance, call {call}");
                compared += 1;
            }
            _ => {}
        }
        if call == SETTLED {
            host = resident_bytes();
        }
    }
    let host_now = resident_bytes();
    assert_eq!(compared, CALLS / u64::from(CALLS_MAX));
    assert!(host_now <= host + GROWTH_MAX, "{host} -> {host_now} bytes are resident");
}
