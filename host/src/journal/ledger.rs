//! The ledger: every record is somewhere, and each line adds up to zero unaccounted.

#[derive(Debug)]
pub struct Ledger {}
#[derive(Debug)]
pub struct Pending {}
#[derive(Debug)]
pub struct Outcome {}
