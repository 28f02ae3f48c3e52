//! Write plugins for Trommel in Rust.
//!
//! A plugin is a type that implements [`Plugin`], and one call of [`export!`]. It is compiled to a
//! WebAssembly component, sees the batches that the operator's configuration sends through it, and
//! reaches nothing else. What it may ask the collector for are the functions of [`batch`] and [`host`],
//! and of [`series`], [`store`] and [`alerts`] if its manifest needs them;
//! `wit/plugin.wit` of this crate is their manual.
//!
//! ```
//! use trommel_sdk::{Manifest, Plugin, Signal, batch, export, rows_where};
//!
//! struct Quiet;
//!
//! impl Plugin for Quiet {
//!     fn manifest() -> Manifest {
//!         Manifest::new("quiet", "0.1.0").signals([Signal::Logs]).reads(["severity"]).writes(["drop"])
//!     }
//!     fn configure(_: &str) -> Result<Self, String> {
//!         Ok(Quiet)
//!     }
//!     fn process(&mut self) -> Result<(), String> {
//!         batch::drop(&rows_where(&batch::severities(), |severity| *severity < 9));
//!         Ok(())
//!     }
//! }
//!
//! export!(Quiet);
//! # fn main() {}
//! ```

mod bindings;
mod columns;
mod manifest;
mod run;

pub use bindings::plain::trommel::plugin::types::{
    BoolColumn, DoubleColumn, Hits, IntColumn, Level, Packed, Places, Signal, TextColumn,
};
pub use bindings::plain::trommel::plugin::{alerts, batch, host, series, store};
pub use bindings::ticking::exports::trommel::plugin::timer::Window;
pub use columns::{Hit, ids, pairs, rows_where};
pub use manifest::Manifest;

/// What the macros need.
#[doc(hidden)]
pub mod __rt {
    pub use crate::bindings::{plain, ticking};
    pub use crate::run::{Slot, configure, process, tick};
}

/// A plugin. The collector makes as many instances as it has workers and throws any of them away between
/// two calls: fields are a cache of the settings, never the place of what must last.
pub trait Plugin: Sized + 'static {
    /// Who it is and what it needs. Asked before there are settings, so it names the most that any
    /// settings could need.
    fn manifest() -> Manifest;

    /// Makes an instance from the settings of the plugin, which are JSON text: `{}` if the operator wrote none.
    /// The message of an error is shown to the operator, who sees nothing else.
    fn configure(json: &str) -> Result<Self, String>;

    /// Called for each batch. After an error, or a panic, the call leaves no trace, and the plugin's
    /// failure policy decides about the records.
    fn process(&mut self) -> Result<(), String>;

    /// Called for each tenant whose windows have closed, one call at a time; needs `export!(Name, ticking)`, `series`
    /// among the manifest's needs, and the length of its windows. `now` is in nanoseconds since 1970. After an error, or a
    /// panic, the call leaves no trace, and its windows are not given again.
    fn tick(&mut self, tenant: &str, now: u64, closed: &[Window]) -> Result<(), String> {
        let _ = (tenant, now, closed);
        Ok(())
    }
}

/// Makes the component's exports from a type that implements [`Plugin`]. With `ticking` after it, the
/// component exports `timer` too.
///
/// Written once, in the root of the crate. It does nothing where the target is not wasm32, so that the
/// crate's unit tests run on the machine that builds it.
#[macro_export]
macro_rules! export {
    ($plugin:ty) => {
        $crate::__exports!($plugin,);
    };
    ($plugin:ty, ticking) => {
        $crate::__exports!($plugin, ticking);
    };
}
