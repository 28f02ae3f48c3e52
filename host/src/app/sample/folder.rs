//! Golden samples in a folder: `NAME.golden/` beside the module, with a folder for each that holds `input.json` (or
//! `.jsonl`, `.otlp`), `expected.json`, and `config.json` or `config.yaml` if the plugin needs other settings.

use super::{Output, Sample, Whose, compare};
use crate::sandbox::{Sandbox, Settings};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Samples of one plugin; each loads it.
const CASES_MAX: usize = 256;
/// Settings, and what is expected.
const TEXT_BYTES_MAX: u64 = 64 << 20;

/// One golden sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    pub name: String,
    pub input: PathBuf,
    /// `None`: the settings that the plugin has anyway.
    pub config: Option<PathBuf>,
    /// May be missing: then nothing is known to be right.
    pub expected: PathBuf,
}

/// The folder of golden samples that belongs to a module: `quiet.golden` beside `quiet.wasm`.
pub fn beside(module: &Path) -> PathBuf {
    module.with_extension("golden")
}

/// The samples of a folder, by name. One without any is an error: it was meant to say something.
pub fn cases(folder: &Path) -> Result<Vec<Case>, String> {
    let fail = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if !path.is_dir() {
            continue;
        }
        found.push(case(&path)?);
        if found.len() > CASES_MAX {
            return Err(format!("{}: more than {CASES_MAX} samples", folder.display()));
        }
    }
    if found.is_empty() {
        return Err(format!("{}: no sample: right would be SAMPLE/input.json in it", folder.display()));
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

fn case(folder: &Path) -> Result<Case, String> {
    let one_of = |names: &[&str]| {
        let there: Vec<PathBuf> =
            names.iter().map(|name| folder.join(name)).filter(|path| path.is_file()).collect();
        match there.len() {
            0 => Ok(None),
            1 => Ok(there.into_iter().next()),
            _ => Err(format!("{}: more than one of {}", folder.display(), names.join(", "))),
        }
    };
    let input = one_of(&["input.json", "input.jsonl", "input.otlp", "input.pb"])?;
    Ok(Case {
        name: folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        input: input.ok_or_else(|| format!("{}: no input.json, .jsonl or .otlp", folder.display()))?,
        config: one_of(&["config.json", "config.yaml"])?,
        expected: folder.join("expected.json"),
    })
}

impl Case {
    /// What the plugin makes of it, with its own settings. The error is for a person: a file that cannot be read, a
    /// component that cannot be loaded with these settings.
    pub fn run(
        &self,
        sandbox: &Sandbox,
        settings: &Settings,
        component: &[u8],
        whose: &Whose,
    ) -> Result<Output, String> {
        let sample = Sample::read(&self.input, None)?;
        let mut settings = settings.clone();
        if let Some(config) = &self.config {
            settings.config = config_in(config)?;
        }
        let plugin = sandbox.load_apart(&settings, component).map_err(|error| error.to_string())?;
        Ok(sample.run(&plugin, whose))
    }

    /// What differs from what is expected; `None`: nothing.
    pub fn difference(&self, output: &Output) -> Result<Option<String>, String> {
        let expected = expected_in(&self.expected)?;
        Ok(compare(&expected, &output.golden()))
    }
}

/// What a golden file says.
pub fn expected_in(path: &Path) -> Result<Value, String> {
    let text = read(path)?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// A plugin's settings from a file of JSON or YAML, as the JSON text that the plugin is given.
pub fn config_in(path: &Path) -> Result<String, String> {
    config_of(&read(path)?).map_err(|error| format!("{}: {error}", path.display()))
}

/// The same of a text: JSON is YAML too.
pub fn config_of(text: &str) -> Result<String, String> {
    let value: Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    Ok(if value.is_null() { "{}".into() } else { value.to_string() })
}

fn read(path: &Path) -> Result<String, String> {
    let place = |error: std::io::Error| format!("{}: {error}", path.display());
    let length = std::fs::metadata(path).map_err(place)?.len();
    if length > TEXT_BYTES_MAX {
        return Err(format!("{}: larger than {TEXT_BYTES_MAX} bytes", path.display()));
    }
    std::fs::read_to_string(path).map_err(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_samples_is_read_by_name_and_what_is_wrong_in_it_is_told() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(beside(Path::new("a/quiet.wasm")), Path::new("a/quiet.golden"));
        let path = |name: &str| folder.path().join(name);
        let put = |name: &str| {
            std::fs::create_dir_all(path(name).parent().unwrap()).unwrap();
            std::fs::write(path(name), "{}").unwrap();
        };
        let refused = |says: &str| {
            let error = cases(folder.path()).unwrap_err();
            assert!(error.contains(says), "{error}");
        };
        refused("no sample: right would be");
        put("b/input.otlp");
        put("a/input.json");
        put("a/config.yaml");
        put("README.md");
        let found = cases(folder.path()).unwrap();
        let names: Vec<&str> = found.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(found[0].config, Some(path("a/config.yaml")));
        assert_eq!((&found[1].input, &found[1].config), (&path("b/input.otlp"), &None));
        put("a/input.jsonl");
        refused("more than one of input.json");
        put("c/expected.json");
        std::fs::remove_file(path("a/input.jsonl")).unwrap();
        refused("c: no input.json");
    }

    #[test]
    fn settings_are_json_or_yaml() {
        assert_eq!(config_of("{\"a\": [1]}").unwrap(), r#"{"a":[1]}"#);
        assert_eq!(config_of("a: [1, x]\nb: 1.5").unwrap(), r#"{"a":[1,"x"],"b":1.5}"#);
        assert_eq!(config_of("").unwrap(), "{}");
        assert!(config_of("{").is_err());
    }
}
