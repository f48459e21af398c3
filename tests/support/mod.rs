//! What the promises' tests share.

pub mod oracle;
pub mod recorder;
