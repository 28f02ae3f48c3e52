//! Translation against a plain reference, and the sink against a receiver that answers as it is told.

mod fake;
mod lost;
#[expect(unreachable_pub, reason = "the bench compiles this file too")]
mod reference;
mod refused;
mod samples;
mod translation;
