//! Room: the bytes that requests at work may hold. What has no room is never buffered.

/// The budget of the whole process. One payer (a tenant, or a credential that speaks for others) holds at most half.
#[derive(Debug)]
pub struct Room {}

/// There is no room now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// Others will leave: come back.
    Now,
    /// It would never fit.
    Never,
}

/// Room that a request holds; given back when dropped.
#[derive(Debug)]
pub struct Taken {}
