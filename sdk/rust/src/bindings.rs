//! What `wit-bindgen` makes of `wit/plugin.wit`; documented there.
#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated; the manual is wit/plugin.wit")]

/// World `plugin`.
pub mod plain {
    wit_bindgen::generate!({
        path: "wit",
        world: "plugin",
        pub_export_macro: true,
        export_macro_name: "export_plugin",
        default_bindings_module: "trommel_sdk::__rt::plain",
        additional_derives: [PartialEq, Clone],
        additional_type_attributes: {
            "trommel:plugin/types@0.1.0/level": [#[derive(Hash)]],
            "trommel:plugin/types@0.1.0/signal": [#[derive(Hash)]],
            "trommel:plugin/types@0.1.0/text-column": [#[derive(Default)]],
            "trommel:plugin/types@0.1.0/int-column": [#[derive(Default)]],
            "trommel:plugin/types@0.1.0/double-column": [#[derive(Default)]],
            "trommel:plugin/types@0.1.0/bool-column": [#[derive(Default)]],
            "trommel:plugin/types@0.1.0/hits": [#[derive(Default)]],
            "trommel:plugin/types@0.1.0/packed": [#[derive(Default)]],
        },
    });
}

/// What world `ticking-plugin` has besides: a world of its own, because two worlds that export the same
/// interface would define the same macros.
pub mod ticking {
    wit_bindgen::generate!({
        path: "wit",
        inline: "package trommel:sdk; world timer { export trommel:plugin/timer@0.1.0; }",
        world: "trommel:sdk/timer",
        pub_export_macro: true,
        export_macro_name: "export_timer",
        default_bindings_module: "trommel_sdk::__rt::ticking",
        additional_derives: [PartialEq, Clone],
    });
}
