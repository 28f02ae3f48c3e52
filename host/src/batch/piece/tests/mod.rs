//! Tests of pieces and calls.
