//! Golden samples: what a plugin's author says it makes of some input, tried before a new version counts.

use super::file;
use crate::app::sample::{self, Whose};
use crate::sandbox::{OnFailure, Sandbox, Settings};

/// Lines and bytes of a difference that are kept: enough to know which sample to run again with `trommel plugin test`.
const LINES_MAX: usize = 12;
const BYTES_MAX: usize = 2 << 10;

/// Why the samples in `NAME.golden/`, beside the module, say that these bytes are not what they should be. Without such
/// a folder nothing is wrong. A sample is what its author made it: `config`, `on_failure` and `tenant` of the
/// configuration say nothing of it, as in `trommel plugin test`. Blocks; loads the plugin for each sample, apart from
/// the one that runs.
pub(super) fn check(sandbox: &Sandbox, settings: &Settings, component: &[u8]) -> Result<(), String> {
    let Some(folder) = file(settings).map(sample::beside).filter(|folder| folder.is_dir()) else {
        return Ok(());
    };
    let settings =
        Settings { config: "{}".into(), on_failure: OnFailure::Pass, tenant: None, ..settings.clone() };
    for case in sample::cases(&folder)? {
        let place = |what: &str| format!("sample `{}`: {what}", case.name);
        let output =
            case.run(sandbox, &settings, component, &Whose::default()).map_err(|error| place(&error))?;
        if let Some(difference) = case.difference(&output).map_err(|error| place(&error))? {
            return Err(place(&short(&difference)));
        }
    }
    Ok(())
}

fn short(difference: &str) -> String {
    let mut text: String = difference.lines().take(LINES_MAX).collect::<Vec<_>>().join("\n");
    let is_whole = text.len() == difference.trim_end().len() && text.len() <= BYTES_MAX;
    if text.len() > BYTES_MAX {
        text.truncate(text.floor_char_boundary(BYTES_MAX));
    }
    if is_whole { text } else { text + " …" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_difference_is_cut() {
        assert_eq!(short("a\nb\n"), "a\nb");
        assert_eq!(short(&"x\n".repeat(20)), format!("{} …", ["x"; LINES_MAX].join("\n")));
        assert_eq!(short(&"é".repeat(BYTES_MAX)).len(), BYTES_MAX + " …".len());
    }
}
