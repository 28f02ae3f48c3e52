//! The command line: what it prints, and what it ends with.

use crate::shutdown::{Process, binary, free_port};
use crate::world::eventually;
use std::path::Path;
use std::process::{Command, Stdio};

fn trommel(arguments: &[&str], file: &Path) -> (Option<i32>, String, String) {
    let output = Command::new(binary()).args(arguments).arg(file).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// `check` and `run` both refuse this, with 2 and these words.
fn both_refuse(folder: &Path, yaml: &str, words: &[&str]) {
    let file = folder.join("trommel.yaml");
    std::fs::write(&file, yaml).unwrap();
    for arguments in [&["check"][..], &["run", "--config"]] {
        let (code, _, said) = trommel(arguments, &file);
        assert_eq!(code, Some(2), "{arguments:?}: {said}");
        for word in words {
            assert!(said.contains(word), "{arguments:?}: {word} is missing in:\n{said}");
        }
    }
}

const FRAME: &str =
    "receivers: { otlp: { grpc: { listen: 127.0.0.1:0 } } }\nsinks: { out: { type: discard } }\n";

#[test]
fn check_refuses_what_run_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = "pipelines: [{ name: all, plugins: [redact], sinks: [out] }]\nplugins: { redact: { module: \"builtin:redact\" } }\n";
    let tls = FRAME.replace("127.0.0.1:0 }", "127.0.0.1:0, tls: { cert: none.pem, key: none.pem } }");
    both_refuse(folder.path(), &format!("{tls}{pipeline}"), &["trommel.yaml:1:", "grpc.tls", "none.pem"]);
    let tokens = "identity: { tokens: [{ file: none.csv }] }\n";
    both_refuse(folder.path(), &format!("{FRAME}{pipeline}{tokens}"), &["trommel.yaml:5:", "none.csv"]);
    let ca = FRAME.replace("discard", "otlp, endpoint: \"https://127.0.0.1:1\", tls: { ca: none-ca.pem }");
    both_refuse(folder.path(), &format!("{ca}{pipeline}"), &["trommel.yaml:2:", "sinks.out", "none-ca.pem"]);
    let unguarded = pipeline.replace("plugins: [redact], ", "");
    both_refuse(folder.path(), &format!("{FRAME}{unguarded}"), &["trommel.yaml:3:", "`redact` is missing"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_likely_not_meant_is_said_by_check_and_by_run_and_stops_neither() {
    let folder = tempfile::tempdir().unwrap();
    let (file, console) = (folder.path().join("trommel.yaml"), free_port());
    let yaml = format!(
        "{FRAME}console: {{ listen: 127.0.0.1:{console} }}
plugins: {{ cut: {{ module: \"builtin:sample\" }}, watch: {{ module: \"builtin:anomaly\" }} }}
pipelines: [{{ name: logs, when: {{ signal: logs }}, plugins: [cut, watch], sinks: [out] }}]\n"
    );
    std::fs::write(&file, yaml).unwrap();
    let place = format!("{}:5:66: pipelines[0].plugins[1]: ", file.display());
    let said = [
        format!(
            "{place}`watch` stands after `cut`: it would count what `cut` left; right would be: `watch` before `cut`"
        ),
        format!(
            "{place}nobody is told of what `watch` finds: there is no channel; right would be: alerts: {{ channels: {{ ops: {{ type: log }} }} }}"
        ),
    ];
    let (code, printed, warned) = trommel(&["check"], &file);
    assert_eq!((code, printed), (Some(0), format!("{} is valid\n", file.display())), "{warned}");
    assert_eq!(warned, format!("{}\n2 warnings in {}\n", said.join("\n"), file.display()));
    let log = folder.path().join("log");
    let mut command = Command::new(binary());
    command.args(["run", "--config"]).arg(&file).current_dir(folder.path());
    command.stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap());
    let mut process = Process(command.spawn().unwrap());
    eventually("ready", || crate::shutdown::is_ready(console)).await;
    process.terminate();
    assert_eq!(process.exit_code().await, Some(0));
    let log = std::fs::read_to_string(log).unwrap();
    assert!(said.iter().all(|line| log.contains(line)), "{log}");
}

#[test]
fn a_guard_must_look_at_what_its_pipelines_take() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("own.wasm"), artifacts::guest("first-filter").unwrap()).unwrap();
    let yaml = |signal: &str| {
        format!(
            "{FRAME}plugins:\n  own: {{ module: ./own.wasm, guard: true, grant: {{ reads: [severity], writes: [drop] }} }}\npipelines:\n- {{ name: l, when: {{ signal: {signal} }}, plugins: [own], sinks: [out] }}\n- {{ name: m, when: {{ signal: metrics }}, sinks: [out] }}\n"
        )
    };
    both_refuse(folder.path(), &yaml("traces"), &["trommel.yaml:6:", "does not look at traces"]);
    let file = folder.path().join("trommel.yaml");
    std::fs::write(&file, yaml("logs")).unwrap();
    let (code, _, said) = trommel(&["check"], &file);
    assert_eq!(code, Some(0), "metrics need no guard that describes logs: {said}");
}

#[test]
fn inspect_prints_what_a_plugin_says_and_the_grant_it_asks_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("own.wasm");
    std::fs::write(&file, artifacts::guest("first-filter").unwrap()).unwrap();
    let (code, printed, _) = trommel(&["plugin", "inspect"], &file);
    assert_eq!(code, Some(0));
    for line in [
        "name      quiet\nversion   0.1.0\nworld     plugin, of trommel:plugin@0.1.0\nsignals   logs\nreads     severity\n",
        "writes    drop\nneeds     nothing\nwindows   none\nimports   trommel:plugin/",
        "\nexports   trommel:plugin/lifecycle@0.1.0\n          trommel:plugin/processor@0.1.0\nsize      ",
        "\ndigest    sha256:",
        "\nmemory    ",
    ] {
        assert!(printed.contains(line), "{line} is missing in {printed}");
    }
    let grant = format!(
        "To grant what it asks for:

plugins:
  \"quiet\":
    module: {file:?}
    grant: {{ reads: [\"severity\"], writes: [\"drop\"] }}
"
    );
    assert!(printed.ends_with(&grant), "{printed}");
    std::fs::write(&file, artifacts::guest("first-alert").unwrap()).unwrap();
    let (_, printed, _) = trommel(&["plugin", "inspect"], &file);
    assert!(printed.contains("\nneeds     series, alerts\nwindows   10 s\nimports   "), "{printed}");
    std::fs::write(&file, "no component").unwrap();
    let (code, printed, said) = trommel(&["plugin", "inspect"], &file);
    assert_eq!((code, printed.as_str()), (Some(2), ""));
    assert!(said.contains("is no WebAssembly component"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_whose_output_nobody_reads_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let console = free_port();
    let file = folder.path().join("trommel.yaml");
    let yaml = format!(
        "{FRAME}console: {{ listen: 127.0.0.1:{console} }}\npipelines: [{{ name: all, sinks: [out] }}]\n"
    );
    std::fs::write(&file, yaml).unwrap();
    let mut command = Command::new(binary());
    command.args(["run", "--config"]).arg(&file).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = Process(command.spawn().unwrap());
    drop((process.0.stdout.take(), process.0.stderr.take()));
    let url = format!("http://127.0.0.1:{console}/healthz");
    eventually("healthy", || async {
        crate::world::client().get(&url).send().await.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    process.terminate();
    assert_eq!(process.exit_code().await, Some(0));
}
