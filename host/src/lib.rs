//! Trommel: receive → admit → process → route → commit → deliver.
//!
//! ARCHITECTURE.md has the way of a batch on one page and the table of who may import whom.

pub mod alerts;
pub mod app;
pub mod batch;
pub mod cli;
pub mod config;
pub mod console;
pub mod demo;
pub mod journal;
pub mod net;
pub mod pipeline;
pub mod receivers;
pub mod sandbox;
pub mod sinks;
pub mod streams;
pub mod telemetry;
pub mod tenants;
