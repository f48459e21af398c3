//! The gRPC front: one method an rpc, one table from refusal to status, and the client.
//!
//! `front` is what a server serves: it knows deadlines, stopping and the two hot methods, which take raw
//! bytes, and leaves everything else to the generated code. `intake` numbers a stream's items and pushes
//! them to the shards; `stream` and `batch` are the two hot methods around it. `watch` turns a [`Feed`]
//! into streams; `token`, `page` and `list` hold what clients carry between calls. What memory no longer has
//! is asked of the [`Archive`](archive::Archive) by `read`, `submit` and, for streams, `lanes`; `calls`
//! counts how calls end. Left to others: judging fields (`wire`), rules (`shard`), TLS (the server).

mod archive;
mod batch;
mod caller;
mod calls;
pub mod client;
mod codec;
mod filter;
mod follow;
mod front;
mod intake;
mod lanes;
mod list;
mod listener;
mod options;
mod page;
mod pending;
mod read;
mod service;
pub mod status;
mod stopping;
mod stream;
mod submit;
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
