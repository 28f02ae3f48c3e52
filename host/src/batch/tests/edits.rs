//! Edits of the bytes do what the same edits do on structs.
