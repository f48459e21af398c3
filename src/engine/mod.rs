//! filled by a colleague
pub struct Engine;
