//! What the promises need to be tested: no promise by itself.

pub mod crash_storage;
pub mod records;
