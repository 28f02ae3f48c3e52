//! `trommel plugin`: for who writes plugins, and who operates them.

pub(super) mod swap;
