//! The WIT package as Rust: one trait per imported interface, typed calls for the exports. Generated.
#![allow(unsafe_code, reason = "wasmtime's generated lifting and lowering implements unsafe traits")]
#![allow(missing_docs, unreachable_pub, reason = "generated; the WIT is the documentation")]

wasmtime::component::bindgen!({
    path: "../wit/v0.1",
    world: "plugin",
    imports: { default: trappable },
});

/// What world `ticking-plugin` exports besides.
pub mod ticking {
    wasmtime::component::bindgen!({
        path: "../wit/v0.1",
        inline: "package trommel:collector; world timer { export trommel:plugin/timer@0.1.0; }",
        world: "trommel:collector/timer",
    });
}
