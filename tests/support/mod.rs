//! What the promises need to be tested: no promise by itself.

pub mod approvals;
pub mod archive;
pub mod calls;
pub mod crash_storage;
mod node;
pub mod oracle;
pub mod recorder;
pub mod records;

pub use node::{Ended, Node, PATIENCE, Said, assent, exchange, folder, get, run};
