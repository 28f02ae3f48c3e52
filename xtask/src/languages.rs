//! Plugins in other languages: `tests/languages`, built with the bindings that the generators give.
//!
//! The commands are those of `wit/README.md`, and the programs the ones that an author would run. Each component is
//! built once for its sources, the WIT and its recipe: a warm cache runs no compiler.

use crate::servers::{self, Installed, Recipe};
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Not optimized: they run for seconds, and would compile for minutes.
const COMPONENT_TOOLS: Recipe = Recipe {
    name: "component-tools",
    version: "1.263.0",
    variable: "COMPONENT_TOOLS",
    product: "bin",
    script: r#"
export CARGO_PROFILE_DEV_DEBUG=0
tool() { cargo install --debug --quiet --locked --root . --target-dir target --no-default-features "$@"; }
tool wit-bindgen-cli@0.63.0 --features c,go
tool wasm-tools@$VERSION --features component
rm -rf target
"#,
};

/// A clang with a libc for WebAssembly, from one package of one registry. The libc is built by its first use: here.
const ZIG: Recipe = Recipe {
    name: "zig",
    version: "0.16.0",
    variable: "ZIG",
    product: "venv/bin/python",
    script: r#"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check ziglang==$VERSION
echo > empty.c
ZIG_GLOBAL_CACHE_DIR=$PWD/cache venv/bin/python -m ziglang cc -target wasm32-wasi -Os -mexec-model=reactor empty.c -o empty.wasm
"#,
};

const COMPONENTIZE_PY: Recipe = Recipe {
    name: "componentize-py",
    version: "0.25.1",
    variable: "COMPONENTIZE_PY",
    product: "venv/bin/componentize-py",
    script: r#"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check componentize-py==$VERSION
"#,
};

const COMPONENTIZE_QJS: Recipe = Recipe {
    name: "componentize-qjs",
    version: "0.4.5",
    variable: "COMPONENTIZE_QJS",
    product: "node_modules/.bin",
    script: r#"
echo '{ "private": true }' > package.json
npm install --silent --no-audit --no-fund componentize-qjs@$VERSION esbuild@0.28.2
"#,
};

const TOOLS: [&Recipe; 4] = [&COMPONENT_TOOLS, &ZIG, &COMPONENTIZE_PY, &COMPONENTIZE_QJS];

/// Its libc imports WASI only for what needs it: files, clocks, `printf`.
const C: Recipe = Recipe {
    name: "plugin-c",
    version: "0.1.0",
    variable: "TROMMEL_TEST_PLUGIN_C",
    product: "plugin.wasm",
    script: r#"
$COMPONENT_TOOLS/wit-bindgen c $WIT --world plugin --out-dir gen
ZIG_GLOBAL_CACHE_DIR=${ZIG%/venv/*}/cache $ZIG -m ziglang cc -target wasm32-wasi -Os -mexec-model=reactor -Igen \
  $SOURCES/c/plugin.c gen/plugin.c gen/plugin_component_type.o -o core.wasm -Wl,--strip-debug -Wl,-z,stack-size=65536
$COMPONENT_TOOLS/wasm-tools component new core.wasm -o plugin.wasm
"#,
};

/// Its runtime asks for WASI; the adapter answers with `trommel:plugin/host`.
const GO: Recipe = Recipe {
    name: "plugin-go",
    version: "0.1.0",
    variable: "TROMMEL_TEST_PLUGIN_GO",
    product: "plugin.wasm",
    script: r#"
cp -r $SOURCES/adapter .
mkdir -p adapter/wit/deps/trommel-plugin
cp $WIT/plugin.wit adapter/wit/deps/trommel-plugin/
$COMPONENT_TOOLS/wasm-tools component embed adapter/wit adapter/trommel.wat --world adapter -o adapter.wasm

$COMPONENT_TOOLS/wit-bindgen go $WIT --world plugin --out-dir module
cp -r $SOURCES/go/. module
(cd module && GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -trimpath -ldflags='-s -w' -o ../core.wasm .)
$COMPONENT_TOOLS/wasm-tools component embed $WIT core.wasm --world plugin -o embedded.wasm
$COMPONENT_TOOLS/wasm-tools component new embedded.wasm --adapt wasi_snapshot_preview1=adapter.wasm -o plugin.wasm
"#,
};

/// The module must not be called like the world.
const PYTHON: Recipe = Recipe {
    name: "plugin-python",
    version: "0.1.0",
    variable: "TROMMEL_TEST_PLUGIN_PYTHON",
    product: "plugin.wasm",
    script: r#"
cp $SOURCES/python/example.py .
$COMPONENTIZE_PY -d $WIT -w plugin componentize example --stub-wasi -o plugin.wasm
"#,
};

const TYPESCRIPT: Recipe = Recipe {
    name: "plugin-typescript",
    version: "0.1.0",
    variable: "TROMMEL_TEST_PLUGIN_TYPESCRIPT",
    product: "plugin.wasm",
    script: r#"
$COMPONENTIZE_QJS/esbuild $SOURCES/typescript/plugin.ts --bundle --format=esm '--external:trommel:*' --outfile=plugin.js
$COMPONENTIZE_QJS/componentize-qjs --wit $WIT --js plugin.js -n plugin --stub-wasi --sync -o plugin.wasm
"#,
};

const PLUGINS: [(&Recipe, &[&str]); 4] =
    [(&C, &["c"]), (&GO, &["go", "adapter"]), (&PYTHON, &["python"]), (&TYPESCRIPT, &["typescript"])];

/// Installs the toolchains and builds the plugins, where that was not done yet.
pub(crate) fn install() -> Result<Installed> {
    let (sources, wit) = (absolute("tests/languages")?, absolute("wit/v0.1")?);
    let mut variables = vec![("SOURCES", sources.clone()), ("WIT", wit.clone())];
    let mut tools = Sha256::new();
    for tool in TOOLS {
        variables.push((tool.variable, servers::install_one(tool)?));
        tools.update(tool.version);
        tools.update(tool.script);
    }
    let build = |(plugin, folders): (&Recipe, &[&str])| {
        let mut inputs = tools.clone();
        add_folder(&mut inputs, &wit)?;
        folders.iter().try_for_each(|folder| add_folder(&mut inputs, &sources.join(folder)))?;
        Ok((plugin.variable, servers::make(plugin, &inputs.finalize(), &variables)?))
    };
    PLUGINS.into_iter().map(build).collect()
}

/// Paths and contents of everything below a folder, in order.
fn add_folder(digest: &mut Sha256, folder: &Path) -> Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            add_folder(digest, &path)?;
            continue;
        }
        let content = std::fs::read(&path)?;
        let name = path.file_name().unwrap_or_default();
        digest.update(format!("{}\n{}\n", name.display(), content.len()));
        digest.update(content);
    }
    Ok(())
}

fn absolute(path: &str) -> Result<PathBuf> {
    std::fs::canonicalize(path).with_context(|| format!("{path}: run xtask from the root of the repository"))
}
