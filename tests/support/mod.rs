//! What the promises need to be tested: no promise by itself.

pub mod approvals;
pub mod archive;
pub mod calls;
pub mod crash_storage;
pub mod kafka;
mod node;
pub mod oracle;
pub mod postgres;
pub mod proxy;
pub mod recorder;
pub mod records;
pub mod switched_archive;

pub use node::{Ended, Node, PATIENCE, Said, assent, exchange, folder, get, run};
