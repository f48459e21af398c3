//! What the promises need to be tested: no promise by itself.

pub mod calls;
mod node;

pub use node::{Node, PATIENCE, Said, assent, exchange, folder, get, run};
pub mod crash_storage;
pub mod records;

pub mod crash_storage;
mod node;
pub mod oracle;
pub mod recorder;
pub mod records;

pub use node::{Node, Said, assent, exchange, folder, get, run};
