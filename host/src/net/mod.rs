//! TLS with reload, deadlines, backoff, the body reader, the accept loop, the client of HTTP.
//!
//! Knows nothing of tenants, batches or OTLP: room is taken through a function that the caller hands in.

#[cfg(test)]
pub(crate) mod authority;
pub mod backoff;
pub mod body;
pub mod http;
pub mod serve;
pub mod tls;
