//! Between the generated exports and the trait.

use crate::bindings::plain;
use crate::{Manifest, Plugin, Window, host};
use std::cell::RefCell;
use std::thread::LocalKey;

/// Where an instance of a component keeps its plugin; the collector calls with one thread at a time.
pub type Slot<P> = RefCell<Option<P>>;

const NOT_CONFIGURED: &str = "called before `configure`";

/// Makes the plugin, after installing the hook that puts the text of a panic into the plugin's log: the trap
/// itself carries none.
pub fn configure<P: Plugin>(slot: &'static LocalKey<Slot<P>>, json: &str) -> Result<(), String> {
    std::panic::set_hook(Box::new(|panic| host::log(host::LogLevel::Error, &panic.to_string())));
    let plugin = P::configure(json)?;
    slot.set(Some(plugin));
    Ok(())
}

/// Works on the batch at hand.
pub fn process<P: Plugin>(slot: &'static LocalKey<Slot<P>>) -> Result<(), String> {
    slot.with_borrow_mut(|plugin| plugin.as_mut().ok_or(NOT_CONFIGURED)?.process())
}

/// Looks at closed windows.
pub fn tick<P: Plugin>(
    slot: &'static LocalKey<Slot<P>>,
    tenant: &str,
    now: u64,
    closed: &[Window],
) -> Result<(), String> {
    slot.with_borrow_mut(|plugin| plugin.as_mut().ok_or(NOT_CONFIGURED)?.tick(tenant, now, closed))
}

impl From<Manifest> for plain::exports::trommel::plugin::lifecycle::Manifest {
    fn from(manifest: Manifest) -> Self {
        let Manifest { name, version, signals, reads, writes, needs, window_seconds } = manifest;
        Self { name, version, signals, reads, writes, needs, window_seconds }
    }
}

/// The exports of world `plugin`.
#[doc(hidden)]
#[macro_export]
macro_rules! __exports {
    ($plugin:ty, $($timer:ident)?) => {
        // On the machine that builds it nothing calls the plugin; so the compiler does not call it unused.
        #[cfg(not(target_arch = "wasm32"))]
        const _: (
            fn() -> $crate::Manifest,
            fn(&str) -> Result<$plugin, String>,
            fn(&mut $plugin) -> Result<(), String>,
        ) = (
            <$plugin as $crate::Plugin>::manifest,
            <$plugin as $crate::Plugin>::configure,
            <$plugin as $crate::Plugin>::process,
        );
        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code, reason = "the exported symbols of a component")]
        mod __trommel_exports {
            use super::*;
            use $crate::__rt::plain::exports::trommel::plugin as exports;

            std::thread_local! {
                static PLUGIN: $crate::__rt::Slot<$plugin> = const { std::cell::RefCell::new(None) };
            }
            struct Exported;
            impl exports::lifecycle::Guest for Exported {
                fn describe() -> exports::lifecycle::Manifest {
                    <$plugin as $crate::Plugin>::manifest().into()
                }
                fn configure(json: String) -> Result<(), String> {
                    $crate::__rt::configure(&PLUGIN, &json)
                }
            }
            impl exports::processor::Guest for Exported {
                fn process() -> Result<(), String> {
                    $crate::__rt::process(&PLUGIN)
                }
            }
            $crate::__rt::plain::export_plugin!(Exported with_types_in $crate::__rt::plain);
            $($crate::__exports!($timer);)?
        }
    };
    (ticking) => {
        impl $crate::__rt::ticking::exports::trommel::plugin::timer::Guest for Exported {
            fn tick(tenant: String, now: u64, closed: Vec<$crate::Window>) -> Result<(), String> {
                $crate::__rt::tick(&PLUGIN, &tenant, now, &closed)
            }
        }
        $crate::__rt::ticking::export_timer!(Exported with_types_in $crate::__rt::ticking);
    };
}
