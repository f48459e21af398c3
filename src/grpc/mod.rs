//! The gRPC front: one method an rpc, one table from refusal to status, and the client.
//!
//! `front` is what a server serves: it knows deadlines, stopping and the two hot methods, which take raw
//! bytes, and leaves everything else to the generated code. `intake` numbers a stream's items and pushes
//! them to the shards; `stream` and `batch` are the two hot methods around it. `watch` turns a [`Feed`]
//! into streams; `token` and `page` are what clients carry between calls. Left to others: judging
//! fields (`wire`), rules (`shard`), listening and TLS (the server).

mod batch;
mod caller;
pub mod client;
mod codec;
mod filter;
mod follow;
mod front;
mod intake;
mod listener;
mod options;
mod page;
mod pending;
mod service;
pub mod status;
mod stopping;
mod stream;
mod token;
mod watch;

pub use caller::{Caller, PeerCertificate, caller};
pub use codec::RawCodec;
pub use follow::{HubFeed, change_message};
pub use front::{APPROVALS_SERVICE, Deadline, Deps, Front, routes};
pub use listener::{Connection, Port, incoming, serve};
pub use options::{Limits, ServerOptions};
pub use service::Facts;
pub use stopping::{Stopper, Stopping, stopping};
pub use token::{Origin, ResumeToken};
pub use watch::{Feed, NoFeed, Subscribe, WatchEnd, WatchItem};
