//! The load generator: drives a node through gRPC as clients do, and afterwards asks it for
//! everything that it acknowledged. A run whose ledger does not balance is void.
//!
//! `scheme` says what is sent (`mixed`: in mode mixed), as pure functions of a seed; `track` and `ledger` what became of it;
//! `lane` meters one connection's share; `encode` (by hand) and `message` (generated) make the
//! messages; `stream` and `calls` send them over `framing`; `crew` has the threads; `checker`
//! compares; `events` is a watcher beside it; `report` tells; `noop` is the ceiling that figures are compared with.
//! Left to others: flags (`cli`), connecting (`grpc::client`).

mod calls;
mod checker;
mod condition;
mod crew;
pub mod disk;
mod encode;
pub mod events;
mod framing;
mod lane;
pub mod ledger;
mod machine;
pub mod memory;
mod message;
mod mixed;
mod node;
pub mod noop;
mod plan;
mod progress;
pub mod report;
mod run;
mod scheme;
mod stream;
mod timeline;
mod track;

pub use checker::{Decided, Verdict};
pub use condition::Condition;
pub use ledger::Ledger;
pub use node::Node;
pub use plan::{Mode, Plan};
pub use report::{Report, write_hdr_log};
pub use run::{Failure, Outcome, run, verify};
pub use scheme::Mix;
pub use stream::Layout;
