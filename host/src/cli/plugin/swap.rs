//! `trommel plugin swap`: the version that a plugin's file has now, or the one before.

use crate::cli::ask::{Console, answered};
use crate::cli::{STOPPED, say};
use clap::Args;
use serde_json::{Value, json};

#[derive(Args)]
pub(in crate::cli) struct Swap {
    #[command(flatten)]
    console: Console,
    /// As it stands under `plugins`.
    #[arg(value_name = "NAME")]
    name: String,
    /// Takes a version that was rolled back before.
    #[arg(long)]
    force: bool,
    /// Ends a trial, or goes back to the version before as long as that is kept.
    #[arg(long, conflicts_with = "force")]
    back: bool,
}

/// Ends with 1 if the version that ran goes on, and says why.
pub(in crate::cli) fn run(swap: &Swap) -> u8 {
    let path = format!("/v1/plugins/{}/swap", encoded(&swap.name));
    let answer = match (swap.back, swap.force) {
        (true, _) => swap.console.delete(&path),
        (false, is_forced) => swap.console.post(&path, &json!({ "force": is_forced })),
    };
    match answered(answer) {
        Ok(answer) => {
            say(&told(&swap.name, &answer));
            STOPPED
        }
        Err(code) => code,
    }
}

fn told(name: &str, answer: &Value) -> String {
    let plugin = &answer["plugin"];
    let version = |of: &Value| {
        let text = |key: &str| of[key].as_str().unwrap_or("?").escape_debug().to_string();
        format!("{} ({})", text("version"), text("digest"))
    };
    match answer["result"].as_str().unwrap_or_default() {
        "unchanged" => format!("`{name}` is {} already", version(plugin)),
        "on_trial" => format!(
            "`{name}` {} is on trial ({}), {} goes on: GET /v1/plugins tells how it does",
            version(&plugin["candidate"]),
            plugin["candidate"]["stage"].as_str().unwrap_or("?"),
            version(plugin),
        ),
        "ended" => format!("`{name}` is {} again", version(plugin)),
        _ if plugin["stage"] == "watching" => {
            format!("`{name}` is {} now, and is watched: `--back` goes back", version(plugin))
        }
        _ => format!("`{name}` is {} now", version(plugin)),
    }
}

/// As one part of a path.
fn encoded(name: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let encode =
        |byte: u8| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    name.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_a_sentence() {
        let one = json!({ "version": "1.0.0", "digest": "sha256:aa", "stage": "active" });
        let watched = json!({ "version": "1.0.0", "digest": "sha256:aa", "stage": "watching" });
        let trial = json!({ "version": "1", "digest": "sha256:aa", "candidate": { "version": "2", "digest": "sha256:bb", "stage": "shadow" } });
        for (result, plugin, sentence) in [
            ("unchanged", &one, "`p` is 1.0.0 (sha256:aa) already"),
            ("promoted", &one, "`p` is 1.0.0 (sha256:aa) now"),
            ("promoted", &watched, "`p` is 1.0.0 (sha256:aa) now, and is watched: `--back` goes back"),
            ("ended", &one, "`p` is 1.0.0 (sha256:aa) again"),
            (
                "on_trial",
                &trial,
                "`p` 2 (sha256:bb) is on trial (shadow), 1 (sha256:aa) goes on: GET /v1/plugins tells how it does",
            ),
        ] {
            assert_eq!(told("p", &json!({ "result": result, "plugin": plugin })), sentence);
        }
    }

    #[test]
    fn a_name_is_one_part_of_a_path() {
        assert_eq!(encoded("acme-filter_2"), "acme-filter_2");
        assert_eq!(encoded("../a?b é"), "%2E%2E%2Fa%3Fb%20%C3%A9");
    }
}
