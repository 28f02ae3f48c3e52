//! The plugins that we ship, and the guests of the tests, as WebAssembly components.
//!
//! `build.rs` finds and builds them: a folder below `plugins/` is a bundled plugin, one below `tests/guests/` a guest.

include!(concat!(env!("OUT_DIR"), "/tables.rs"));

/// The component of the plugin in `plugins/<name>`.
pub fn bundled(name: &str) -> Option<&'static [u8]> {
    find(BUNDLED_COMPONENTS, name)
}

/// The component of the guest in `tests/guests/<name>`.
pub fn guest(name: &str) -> Option<&'static [u8]> {
    find(GUESTS_COMPONENTS, name)
}

fn find(components: &[(&str, &'static [u8])], name: &str) -> Option<&'static [u8]> {
    components.iter().find(|(known, _)| *known == name).map(|(_, component)| *component)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_folder_is_a_component() {
        for name in BUNDLED {
            let component = bundled(name).unwrap();
            // Version 0x0d, layer 1: a component, not a core module.
            assert_eq!(&component[..8], b"\0asm\x0d\0\x01\0", "{name}");
        }
        assert!(BUNDLED.contains(&"redact") && guest("first-filter").is_some());
        assert_eq!(bundled("no-such-plugin"), None);
    }

    #[test]
    fn no_component_asks_for_more_than_our_interfaces() {
        for (name, component) in BUNDLED_COMPONENTS.iter().chain(GUESTS_COMPONENTS) {
            let (imports, exports) = interfaces(component);
            assert!(!imports.is_empty());
            for interface in imports.iter().chain(&exports) {
                assert!(interface.starts_with("trommel:plugin/"), "{name}: {interface}");
            }
        }
    }

    #[test]
    fn only_a_ticking_plugin_exports_a_timer() {
        let exports = |name| interfaces(guest(name).unwrap()).1;
        let plain = ["trommel:plugin/lifecycle@0.1.0", "trommel:plugin/processor@0.1.0"];
        assert_eq!(exports("first-filter"), plain);
        assert_eq!(exports("ticking"), [plain.as_slice(), &["trommel:plugin/timer@0.1.0"]].concat());
    }

    /// What the component itself imports and exports, sorted; what the modules and components inside it ask for, it
    /// gives to them.
    fn interfaces(component: &[u8]) -> (Vec<String>, Vec<String>) {
        use wasmparser::Payload;
        let (mut depth, mut imports, mut exports) = (0, Vec::new(), Vec::new());
        for payload in wasmparser::Parser::new(0).parse_all(component) {
            match payload.unwrap() {
                Payload::Version { .. } => depth += 1,
                Payload::End(_) => depth -= 1,
                Payload::ComponentImportSection(section) if depth == 1 => {
                    imports.extend(section.into_iter().map(|import| import.unwrap().name.name.to_string()));
                }
                Payload::ComponentExportSection(section) if depth == 1 => {
                    exports.extend(section.into_iter().map(|export| export.unwrap().name.name.to_string()));
                }
                _ => {}
            }
        }
        imports.sort();
        exports.sort();
        (imports, exports)
    }
}
