//! The file, checked.
