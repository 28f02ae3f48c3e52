//! Builds every crate below `plugins/` and `tests/guests/` to a WebAssembly component.
//!
//! No list names them: a folder with a `Cargo.toml` is a plugin. All of them are one cargo workspace, built by
//! one call of cargo with a target folder of its own, because the outer cargo holds the lock of its target
//! folder until this script returns. Where this checkout lies does not show in the messages of the components.

use std::collections::hash_map::DefaultHasher;
use std::error::Error;
use std::fmt::Write;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};
use wit_component::ComponentEncoder;

const TARGET: &str = "wasm32-unknown-unknown";

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error=the plugins do not build: {}", error.to_string().replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), Box<dyn Error>> {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("..").canonicalize()?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    for watched in ["plugins", "sdk/rust", "tests/guests", "wit"] {
        println!("cargo::rerun-if-changed={}", root.join(watched).display());
    }
    let plugins = crates_below(&root.join("plugins"))?;
    let guests = crates_below(&root.join("tests/guests"))?;

    add_target()?;
    let target_dir = target_dir(&root, &out);
    compile(&root, &target_dir)?;
    let mut code = String::new();
    write_table(&mut code, "BUNDLED", &componentize(&plugins, &target_dir, &out)?)?;
    write_table(&mut code, "GUESTS", &componentize(&guests, &target_dir, &out)?)?;
    fs::write(out.join("tables.rs"), code)?;
    Ok(())
}

/// The names of the folders that hold a crate, sorted.
fn crates_below(folder: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))? {
        let entry = entry?;
        if entry.path().join("Cargo.toml").is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Installs the standard library for WebAssembly where it is missing.
fn add_target() -> Result<(), Box<dyn Error>> {
    let rustc = env::var("RUSTC")?;
    let sysroot = Command::new(rustc).args(["--print", "sysroot"]).output()?.stdout;
    let sysroot = String::from_utf8(sysroot)?;
    if Path::new(sysroot.trim()).join("lib/rustlib").join(TARGET).join("lib").is_dir() {
        return Ok(());
    }
    let added = Command::new("rustup").args(["target", "add", TARGET]).status();
    match added {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`rustup target add {TARGET}` ended with {status}").into()),
        Err(error) => Err(format!(
            "the standard library for {TARGET} is missing, and `rustup target add {TARGET}` could not be run: {error}"
        )
        .into()),
    }
}

/// `target/guests/<hash of this checkout>`: debug and release builds share it, two checkouts that share a
/// target folder do not.
fn target_dir(root: &Path, out: &Path) -> PathBuf {
    let mut checkout = DefaultHasher::new();
    root.hash(&mut checkout);
    // OUT_DIR is target/PROFILE/build/artifacts-HASH/out.
    let shared = out.ancestors().nth(4).unwrap_or(out);
    shared.join("guests").join(format!("{:016x}", checkout.finish()))
}

fn compile(root: &Path, target_dir: &Path) -> Result<(), Box<dyn Error>> {
    let mut flags =
        vec!["-Ctarget-feature=+simd128".to_string(), format!("--remap-path-prefix={}=", root.display())];
    if let Some(home) =
        env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")))
    {
        flags.push(format!("--remap-path-prefix={}=cargo", home.display()));
    }
    let mut cargo = Command::new(env::var("CARGO")?);
    cargo.current_dir(root.join("plugins")).args(["build", "--release", "--quiet", "--target", TARGET]);
    cargo.arg("--target-dir").arg(target_dir);
    // What the outer build was told about itself would be wrong here: flags for the host's processor, clippy
    // as the compiler, profiles of the other workspace.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let belongs_to_outer = text.starts_with("CARGO_PROFILE_") || text.starts_with("CARGO_BUILD_");
        if belongs_to_outer
            || text.starts_with("CARGO_TARGET_")
            || text.starts_with("RUSTC_")
            || text == "RUSTFLAGS"
        {
            cargo.env_remove(name);
        }
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    let status = cargo.status()?;
    if !status.success() {
        return Err(format!(
            "cargo ended with {status}; its messages are in the output of this script, and \
             `cd plugins && cargo build --release --target {TARGET}` shows them alone"
        )
        .into());
    }
    Ok(())
}

/// Makes a component of each core module; returns names and paths.
fn componentize(
    names: &[String],
    target_dir: &Path,
    out: &Path,
) -> Result<Vec<(String, PathBuf)>, Box<dyn Error>> {
    let mut components = Vec::new();
    for name in names {
        let core = target_dir.join(TARGET).join("release").join(format!("{}.wasm", name.replace('-', "_")));
        let core = fs::read(&core).map_err(|error| {
            format!("{}: {error} (the crate must be named like its folder, and be a cdylib)", core.display())
        })?;
        let component = ComponentEncoder::default()
            .validate(true)
            .module(&core)
            .and_then(|encoder| encoder.encode())
            .map_err(|error| format!("{name} is no component: {error:#}"))?;
        let path = out.join(format!("{name}.wasm"));
        fs::write(&path, component)?;
        components.push((name.clone(), path));
    }
    Ok(components)
}

fn write_table(
    code: &mut String,
    table: &str,
    components: &[(String, PathBuf)],
) -> Result<(), Box<dyn Error>> {
    writeln!(code, "const {table}_COMPONENTS: &[(&str, &[u8])] = &[")?;
    for (name, path) in components {
        writeln!(code, "    ({name:?}, include_bytes!({path:?})),")?;
    }
    writeln!(code, "];\n/// The names, sorted.\npub const {table}: &[&str] = &[")?;
    for (name, _) in components {
        writeln!(code, "    {name:?},")?;
    }
    writeln!(code, "];")?;
    Ok(())
}
