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

pub(crate) struct Recipe {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    /// The variable by which the tests, or other recipes, find it.
    pub(crate) variable: &'static str,
    /// Where it lies in its folder.
    pub(crate) product: &'static str,
    pub(crate) script: &'static str,
}

/// What the recipes of Go programs share: a module of our own takes over the `replace` lines of the other's go.mod,
/// which `go install` refuses, and its checksums.
const GO: &str = r#"
export GOTOOLCHAIN=local GOFLAGS="-buildvcs=false"
source_of() { go mod download -json "$1@$VERSION" | sed -n 's/^\t"Dir": "\(.*\)",*$/\1/p'; }
own() {  # NAME MODULE PACKAGE [TAGS]
  local dir; dir=$(source_of "$2")
  mkdir -p own bin
  { printf 'module servers/%s\n\ngo 1.26.5\n\nrequire %s %s\n\n' "$1" "$2" "$VERSION"
    awk '/^(replace|exclude) \(/{b=1} b||/^(replace|exclude) /{print} /^\)/{b=0}' "$dir/go.mod" | grep -v '=> \./' || true; } > own/go.mod
  cp "$dir/go.sum" own/go.sum
  chmod u+w own/go.sum
  (cd own && go build -mod=mod -tags "${4-}" -o "../bin/$1" "$3")
}
"#;

const JAEGER: Recipe = Recipe {
    name: "jaeger",
    version: "v1.76.0",
    variable: "TROMMEL_TEST_JAEGER",
    product: "bin/jaeger",
    script: r#"own jaeger github.com/jaegertracing/jaeger github.com/jaegertracing/jaeger/cmd/jaeger"#,
};

/// Without the tag it compiles every cloud's service discovery, three times as long.
const PROMETHEUS: Recipe = Recipe {
    name: "prometheus",
    version: "v0.314.0",
    variable: "TROMMEL_TEST_PROMETHEUS",
    product: "bin/prometheus",
    script: r#"own prometheus github.com/prometheus/prometheus github.com/prometheus/prometheus/cmd/prometheus remove_all_sd"#,
};

const VICTORIA_METRICS: Recipe = Recipe {
    name: "victoria-metrics",
    version: "v1.150.0",
    variable: "TROMMEL_TEST_VICTORIA_METRICS",
    product: "bin/victoria-metrics",
    script: r#"own victoria-metrics github.com/VictoriaMetrics/VictoriaMetrics github.com/VictoriaMetrics/VictoriaMetrics/app/victoria-metrics"#,
};

/// Its version file is missing from the module, and it panics without it. The other line lets drivers log in that
/// negotiate `skipEmptyExchange`, as the Rust driver does: the published server answers `done: false` to the proof.
const FERRETDB: Recipe = Recipe {
    name: "ferretdb",
    version: "v1.24.2",
    variable: "TROMMEL_TEST_FERRETDB",
    product: "bin/ferretdb",
    script: r#"
dir=$(source_of github.com/FerretDB/FerretDB)
rm -rf source && cp -r "$dir" source && chmod -R u+w source
echo $VERSION > source/build/version/version.txt
sed -i 's|"done", valid, // for.*|"done", conv.Valid(),|' source/internal/handler/msg_saslcontinue.go
grep -q '"done", conv.Valid(),' source/internal/handler/msg_saslcontinue.go
(cd source && CGO_ENABLED=0 go build -tags ferretdb_no_postgresql -o ../bin/ferretdb ./cmd/ferretdb)
"#,
};

/// A server in memory that has change streams. Its own version number is too low for the Rust driver.
const MONGO_WIRE: Recipe = Recipe {
    name: "mongo-java-server",
    version: "1.47.0",
    variable: "TROMMEL_TEST_MONGO_WIRE",
    product: "MongoWire.java",
    script: r#"
cat > pom.xml <<XML
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>servers</groupId><artifactId>mongo-wire</artifactId><version>1</version><dependencies>
<dependency><groupId>de.bwaldvogel</groupId><artifactId>mongo-java-server</artifactId><version>$VERSION</version></dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-nop</artifactId><version>2.0.17</version></dependency>
</dependencies></project>
XML
mvn -q dependency:copy-dependencies -DoutputDirectory=lib
cat > MongoWire.java <<'JAVA'
import de.bwaldvogel.mongo.*;
import de.bwaldvogel.mongo.backend.memory.MemoryBackend;
import java.util.List;

public class MongoWire {
  public static void main(String[] arguments) throws Exception {
    MemoryBackend backend = new MemoryBackend();
    backend.version(new MongoVersion() {
      public List<Integer> getVersionArray() { return List.of(7, 0, 0); }
      public int getWireVersion() { return 21; }
    });
    MongoServer server = new MongoServer(backend);
    server.enableOplog();
    server.bind("127.0.0.1", Integer.parseInt(arguments[0]));
    System.out.println("ready " + server.getConnectionString());
    Thread.currentThread().join();
  }
}
JAVA
"#,
};

const TELEGRAM: Recipe = Recipe {
    name: "telegram-test-api",
    version: "4.2.1",
    variable: "TROMMEL_TEST_TELEGRAM",
    product: "server.js",
    script: r#"
echo '{ "private": true }' > package.json
npm install --silent --no-audit --no-fund telegram-test-api@$VERSION
cat > server.js <<'JS'
const TelegramServer = require('telegram-test-api');
const server = new TelegramServer({ port: Number(process.argv[2]), host: '127.0.0.1', storage: 'RAM', storeTimeout: 3600 });
server.start().then(() => console.log('ready'));
JS
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
  opentelemetry-sdk==1.45.2 opentelemetry-exporter-otlp-proto-grpc==1.45.2 opentelemetry-exporter-otlp-proto-http==1.45.2 pymongo==4.20.1
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

const ALL: [&Recipe; 9] =
    [&PYTHON, &NODE, &TELEGRAM, &MONGO_WIRE, &CARGO_FUZZ, &FERRETDB, &VICTORIA_METRICS, &PROMETHEUS, &JAEGER];

/// Installs everything that is not there yet.
pub(crate) fn install() -> Result<Installed> {
    ALL.iter().map(|recipe| Ok((recipe.variable, install_one(recipe)?))).collect()
}

pub(crate) fn install_one(recipe: &Recipe) -> Result<PathBuf> {
    make(recipe, &[], &[])
}

/// The same for what is also made of other inputs, of which `inputs` is a digest; the script sees these variables.
pub(crate) fn make(recipe: &Recipe, inputs: &[u8], variables: &[(&str, PathBuf)]) -> Result<PathBuf> {
    let folder = folder_of(recipe, inputs)?;
    let product = folder.join(recipe.product);
    if folder.join("ready").exists() {
        return Ok(product);
    }
    let started = std::time::SystemTime::now();
    std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let status = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &format!("{GO}{}", recipe.script)])
        .env("VERSION", recipe.version)
        .envs(variables.iter().map(|(name, path)| (name, path)))
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTFLAGS")
        .current_dir(&folder)
        .status()
        .with_context(|| format!("install {}", recipe.name))?;
    ensure!(
        status.success(),
        "{} {} could not be installed: its recipe in xtask/src ended with {status}",
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

fn folder_of(recipe: &Recipe, inputs: &[u8]) -> Result<PathBuf> {
    let cache = match (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")) {
        (Some(cache), _) => PathBuf::from(cache),
        (None, Some(home)) => Path::new(&home).join(".cache"),
        (None, None) => anyhow::bail!("neither XDG_CACHE_HOME nor HOME is set: where is the cache folder?"),
    };
    let digest = Sha256::new().chain_update(GO).chain_update(recipe.script).chain_update(inputs).finalize();
    let key: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    Ok(cache.join("trommel").join(format!("{}-{}-{key}", recipe.name, recipe.version)))
}
