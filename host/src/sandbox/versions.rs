//! Which versions of `trommel:plugin` fit this collector.
//!
//! A component names the version that it was built against in each import. Within 0.1 interfaces only grow, so an older
//! one fits as it is. A newer one fits as long as it does without what was added since: a linker leaves out what no code
//! refers to, but the tools of interpreted languages import whole interfaces. What is imported and not there is therefore
//! told apart by the code. If a direct call, or a chain of them, leads there from an export, the component is refused. If
//! none does, it runs, and the function is one that fails the call, with the same sentence.

use super::host::State;
use std::collections::HashSet;
use wasmparser::{ExternalKind, Operator, Parser, Payload, TypeRef};
use wasmtime::Engine;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker};

/// Of `wit/v0.1`.
const OURS: Version = Version { major: 0, minor: 1, patch: 0 };
/// What the package lets plugins import.
const INTERFACES: [&str; 6] = ["types", "batch", "host", "alerts", "series", "store"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    major: u32,
    minor: u32,
    patch: u32,
}

/// A function that a component imports, and this collector does not have.
#[derive(Clone, Debug)]
struct Missing {
    /// As the component imports it, with the version.
    import: String,
    interface: String,
    function: String,
    version: Version,
}

/// What a component imports and exports, before anything of it runs; whether it has a timer. The error is for the operator.
pub(super) fn check_world(engine: &Engine, component: &Component) -> Result<bool, String> {
    let world = component.component_type();
    let imports: Vec<&str> = world.imports(engine).map(|(name, _)| name).collect();
    let exports: Vec<&str> = world.exports(engine).map(|(name, _)| name).collect();
    let mut versions = imports.iter().chain(&exports).filter_map(|name| Some(parsed(name)?.1));
    if let Some(other) = versions.find(|version| !version.is_of_our_folder()) {
        return Err(format!(
            "was built against trommel:plugin@{other}; this collector has trommel:plugin@{OURS}: build it against \
             wit/v0.1, or use a collector that has {}.{}",
            other.major, other.minor
        ));
    }
    let foreign: Vec<&str> = imports.into_iter().filter(|name| !may_be_imported(name)).collect();
    if !foreign.is_empty() {
        return Err(format!("asks for {foreign:?}; a plugin may import trommel:plugin@0.1 only, no WASI"));
    }
    let has = |wanted: &str| exports.iter().any(|name| parsed(name).is_some_and(|(name, _)| name == wanted));
    for interface in ["lifecycle", "processor"] {
        if !has(interface) {
            return Err(format!("does not export trommel:plugin/{interface}@{OURS}: it is no plugin"));
        }
    }
    Ok(has("timer"))
}

/// A linker that has all that the component imports: what this collector lacks fails the call that uses it. `None` if the
/// collector lacks nothing. The error says what the component's code uses and is not there.
pub(super) fn with_missing(
    linker: &Linker<State>,
    engine: &Engine,
    component: &Component,
    bytes: &[u8],
) -> Result<Option<Linker<State>>, String> {
    let mut linker = linker.clone();
    let missing = add_missing(&mut linker, engine, component);
    let too_old = missing.iter().find(|missing| !missing.version.is_later());
    if let Some(Missing { interface, function, version, .. }) = too_old {
        return Err(format!(
            "imports `{interface}.{function}` of trommel:plugin@{version}, which has no such function: build it \
             against the collector's own wit/v0.1"
        ));
    }
    match first_used(bytes, &missing) {
        Some(used) => Err(used.to_string()),
        None => Ok((!missing.is_empty()).then_some(linker)),
    }
}

/// Defines each function that the component imports and the linker does not have.
fn add_missing(linker: &mut Linker<State>, engine: &Engine, component: &Component) -> Vec<Missing> {
    let mut found = Vec::new();
    for (import, item) in component.component_type().imports(engine) {
        let (Some((interface, version)), ComponentItem::ComponentInstance(instance)) =
            (parsed(import), item.ty)
        else {
            continue;
        };
        // By the name that the others have: a name of its own would hide them.
        let Ok(mut ours) = linker.instance(&format!("trommel:plugin/{interface}@{OURS}")) else { continue };
        for (function, item) in instance.exports(engine) {
            if !matches!(item.ty, ComponentItem::ComponentFunc(_)) {
                continue;
            }
            let missing = Missing {
                import: import.into(),
                interface: interface.into(),
                function: function.into(),
                version,
            };
            let text = missing.to_string();
            let fails = move |mut context: wasmtime::StoreContextMut<'_, State>, _, _: &[_], _: &mut [_]| {
                let () = context.data_mut().note(text.clone());
                Err(wasmtime::Error::msg(text.clone()))
            };
            // An error says that the function is defined: this collector has it.
            if ours.func_new(function, fails).is_ok() {
                found.push(missing);
            }
        }
    }
    found
}

/// One of these functions that is called for sure, if any code is: from an export or a start function through direct
/// calls. What stands in tables only is left out, since that is where interpreters keep every function there is.
fn first_used<'a>(bytes: &[u8], missing: &'a [Missing]) -> Option<&'a Missing> {
    if missing.is_empty() {
        return None;
    }
    let mut modules: Vec<CoreModule<'_>> = Vec::new();
    for payload in Parser::new(0).parse_all(bytes) {
        // It was compiled, so it is valid.
        let Ok(payload) = payload else { return None };
        if let Payload::Version { .. } = payload {
            modules.push(CoreModule { missing, ..CoreModule::default() });
            continue;
        }
        if let Payload::End(_) = payload {
            let used = modules.pop().and_then(|module| module.first_used());
            if used.is_some() {
                return used;
            }
            continue;
        }
        modules.last_mut()?.read(payload)?;
    }
    None
}

/// A core module inside the component, as far as it was read.
#[derive(Default)]
struct CoreModule<'a> {
    missing: &'a [Missing],
    functions: u32,
    /// Functions of the module that are imports of ours.
    wanted: Vec<(u32, &'a Missing)>,
    roots: Vec<u32>,
    /// Who calls whom directly. Empty unless there is an import to look for.
    calls: Vec<(u32, u32)>,
}

impl<'a> CoreModule<'a> {
    fn read(&mut self, payload: Payload<'_>) -> Option<()> {
        match payload {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import.ok()?;
                    if !matches!(import.ty, TypeRef::Func(_) | TypeRef::FuncExact(_)) {
                        continue;
                    }
                    let is_it = |of: &&Missing| of.import == import.module && of.function == import.name;
                    self.wanted.extend(self.missing.iter().find(is_it).map(|of| (self.functions, of)));
                    self.functions += 1;
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export.ok()?;
                    if matches!(export.kind, ExternalKind::Func | ExternalKind::FuncExact) {
                        self.roots.push(export.index);
                    }
                }
            }
            Payload::StartSection { func, .. } => self.roots.push(func),
            Payload::CodeSectionEntry(body) => {
                let caller = self.functions;
                self.functions += 1;
                if self.wanted.is_empty() {
                    return Some(());
                }
                for operator in body.get_operators_reader().ok()? {
                    if let Operator::Call { function_index } | Operator::ReturnCall { function_index } =
                        operator.ok()?
                    {
                        self.calls.push((caller, function_index));
                    }
                }
            }
            _ => {}
        }
        Some(())
    }

    fn first_used(mut self) -> Option<&'a Missing> {
        self.calls.sort_unstable();
        let mut reached: HashSet<u32> = self.roots.iter().copied().collect();
        let mut open = self.roots;
        while let Some(caller) = open.pop() {
            let first = self.calls.partition_point(|call| call.0 < caller);
            for (_, callee) in self.calls[first..].iter().take_while(|call| call.0 == caller) {
                if reached.insert(*callee) {
                    open.push(*callee);
                }
            }
        }
        self.wanted.into_iter().find(|(function, _)| reached.contains(function)).map(|(_, missing)| missing)
    }
}

/// Ours, or one that a later 0.1 may have.
fn may_be_imported(name: &str) -> bool {
    parsed(name).is_some_and(|(interface, version)| INTERFACES.contains(&interface) || version.is_later())
}

/// `batch` and the version of `trommel:plugin/batch@0.1.3`.
fn parsed(name: &str) -> Option<(&str, Version)> {
    let (interface, version) = name.strip_prefix("trommel:plugin/")?.split_once('@')?;
    let mut numbers = version.splitn(3, '.').map(|number| number.parse().ok());
    let (major, minor, patch) = (numbers.next()??, numbers.next()??, numbers.next()??);
    Some((interface, Version { major, minor, patch }))
}

impl Version {
    /// Folders of `wit` hold what is compatible.
    fn is_of_our_folder(self) -> bool {
        (self.major, self.minor) == (OURS.major, OURS.minor)
    }

    /// Than ours, of those that fit.
    fn is_later(self) -> bool {
        self.patch > OURS.patch
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Missing { interface, function, version, .. } = self;
        write!(
            f,
            "uses `{interface}.{function}` of trommel:plugin@{version}; this collector has trommel:plugin@{OURS}: it \
             takes a newer collector, or a plugin that does without"
        )
    }
}
