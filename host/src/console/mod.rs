//! HTTP for people: streams, metrics, health.
