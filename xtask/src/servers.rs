//! What the tests need beside Rust: real servers and other languages' clients.
//!
//! Each is installed once per machine, in the user's cache folder, under a key made of its name, version and
//! recipe: a changed recipe is another folder, and a half-built one has no `ready` mark. Nothing is skipped
//! silently: what cannot be installed fails the run with the command that failed.

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where each tool ended up, as environment variables that the tests read.
pub(crate) type Installed = Vec<(&'static str, PathBuf)>;

struct Recipe {
    name: &'static str,
    version: &'static str,
    /// The variable by which the tests find it.
    variable: &'static str,
    /// Where it lies in its folder.
    product: &'static str,
    script: &'static str,
}

/// Jaeger has `replace` lines in its go.mod, so `go install` refuses it: a module of our own that takes over the
/// replaces and the checksums builds it.
const JAEGER: Recipe = Recipe {
    name: "jaeger",
    version: "v1.76.0",
    variable: "TROMMEL_TEST_JAEGER",
    product: "bin/jaeger",
    script: r#"
export GOTOOLCHAIN=local GOFLAGS="-buildvcs=false"
module=github.com/jaegertracing/jaeger
dir=$(go mod download -json $module@$VERSION | sed -n 's/^\t"Dir": "\(.*\)",*$/\1/p')
mkdir -p own bin
{ printf 'module servers/jaeger\n\ngo 1.25.0\n\nrequire %s %s\n\n' $module $VERSION
  awk '/^(replace|exclude) \(/{b=1} b||/^(replace|exclude) /{print} /^\)/{b=0}' "$dir/go.mod" | grep -v '=> \./' || true; } > own/go.mod
cp "$dir/go.sum" own/go.sum
chmod u+w own/go.sum
cd own
go build -mod=mod -o ../bin/jaeger $module/cmd/jaeger
"#,
};

const PYTHON: Recipe = Recipe {
    name: "python-clients",
    version: "1.45.2",
    variable: "TROMMEL_TEST_PYTHON",
    product: "venv/bin/python",
    script: r#"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
  opentelemetry-sdk==1.45.2 opentelemetry-exporter-otlp-proto-grpc==1.45.2 opentelemetry-exporter-otlp-proto-http==1.45.2
"#,
};

const NODE: Recipe = Recipe {
    name: "node-clients",
    version: "0.301.0",
    variable: "TROMMEL_TEST_NODE",
    product: "node_modules",
    script: r#"
cat > package.json <<'JSON'
{ "private": true }
JSON
npm install --silent --no-audit --no-fund \
  @opentelemetry/api@1.10.0 @opentelemetry/resources@3.1.0 \
  @opentelemetry/sdk-logs@3.1.0 @opentelemetry/sdk-trace@3.1.0 @opentelemetry/sdk-metrics@3.1.0 \
  @opentelemetry/exporter-logs-otlp-grpc@0.301.0 @opentelemetry/exporter-logs-otlp-http@0.301.0 @opentelemetry/exporter-logs-otlp-proto@0.301.0 \
  @opentelemetry/exporter-trace-otlp-grpc@0.301.0 @opentelemetry/exporter-trace-otlp-http@0.301.0 @opentelemetry/exporter-trace-otlp-proto@0.301.0 \
  @opentelemetry/exporter-metrics-otlp-grpc@0.301.0 @opentelemetry/exporter-metrics-otlp-http@0.301.0 @opentelemetry/exporter-metrics-otlp-proto@0.301.0
"#,
};

const CARGO_FUZZ: Recipe = Recipe {
    name: "cargo-fuzz",
    version: "0.13.2",
    variable: "TROMMEL_TEST_CARGO_FUZZ",
    product: "bin/cargo-fuzz",
    script: r#"cargo install --quiet --locked --root . cargo-fuzz@$VERSION"#,
};

const ALL: [&Recipe; 4] = [&PYTHON, &NODE, &CARGO_FUZZ, &JAEGER];

/// Installs everything that is not there yet.
pub(crate) fn install() -> Result<Installed> {
    ALL.iter().map(|recipe| Ok((recipe.variable, install_one(recipe)?))).collect()
}

fn install_one(recipe: &Recipe) -> Result<PathBuf> {
    let folder = folder_of(recipe)?;
    let product = folder.join(recipe.product);
    if folder.join("ready").exists() {
        return Ok(product);
    }
    let started = std::time::SystemTime::now();
    std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let status = Command::new("bash")
        .args(["-euo", "pipefail", "-c", recipe.script])
        .env("VERSION", recipe.version)
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTFLAGS")
        .current_dir(&folder)
        .status()
        .with_context(|| format!("install {}", recipe.name))?;
    ensure!(
        status.success(),
        "{} {} could not be installed: its recipe in xtask/src/servers.rs ended with {status}",
        recipe.name,
        recipe.version
    );
    ensure!(product.exists(), "{} was installed, but {} is missing", recipe.name, product.display());
    std::fs::write(folder.join("ready"), "")?;
    crate::steps::say(&format!(
        "installed {} {} in {} s",
        recipe.name,
        recipe.version,
        started.elapsed()?.as_secs()
    ));
    Ok(product)
}

fn folder_of(recipe: &Recipe) -> Result<PathBuf> {
    let cache = match (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")) {
        (Some(cache), _) => PathBuf::from(cache),
        (None, Some(home)) => Path::new(&home).join(".cache"),
        (None, None) => anyhow::bail!("neither XDG_CACHE_HOME nor HOME is set: where is the cache folder?"),
    };
    let digest = Sha256::digest(recipe.script.as_bytes());
    let key: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    Ok(cache.join("trommel").join(format!("{}-{}-{key}", recipe.name, recipe.version)))
}
