//! What the promises need to be tested: no promise by itself.

mod node;

pub use node::{Node, exchange, folder, get, run};
pub mod crash_storage;
pub mod records;
//! What the promises' tests share.

pub mod oracle;
pub mod recorder;
