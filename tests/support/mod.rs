//! What the promises need to be tested: no promise by itself.

pub mod approvals;
mod node;

pub use node::{Ended, Node, PATIENCE, Said, assent, exchange, folder, get, run};
pub mod crash_storage;
pub mod records;

pub mod oracle;
pub mod recorder;
