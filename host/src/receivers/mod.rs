//! Where a batch begins; protocol in, protocol out.
