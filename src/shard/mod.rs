//! ONE CORE: a shard owns an engine, a journal and the ends of its queues.
//!
//! `handle` is what fronts hold, `feed` what followers hold; `core` is one turn of the loop without
//! any I/O of its own; `executor` runs it on a plain thread or on glommio; `recovery` brings it back.

mod archived;
mod clock;
mod core;
mod events;
mod eviction;
mod executor;
mod feed;
mod full;
mod gate;
mod handle;
mod hub;
mod id_filter;
mod logs;
mod memory;
mod past;
mod recovery;
mod segments;
mod snapshot;
mod start;
mod stream;
mod work;

pub use crate::engine::Limits;
pub use crate::queue::Wait;
pub use archived::ArchiveMarks;
pub use clock::{Clock, JUMP_MICROS, MachineTime, Reading, TimeSource};
pub use events::{EventError, EventReader, FeedEvent, FeedKind, OpeningDetails, Unknown};
pub use executor::{ExecutorOptions, glommio_works};
pub use feed::{FrameCopy, Tail};
pub use full::FullReader;
pub use gate::Gate;
pub use handle::{LogName, Opened, OwnedVote, Shards, StateFilter, StatusAnswer, VoteLine, Voted};
pub use hub::{Feed, FeedEnd, FeedItem, Start, Subscription};
pub use id_filter::{IdFilter, Known};
pub use logs::{FollowedLog, Logs};
pub use memory::MemoryStorage;
pub use past::{Past, PastError};
pub use recovery::ShardReport;
pub use segments::{Keep, Segments};
pub use snapshot::SnapshotOptions;
pub use start::{Executor, Options, Started, start};
pub use stream::{StreamLedger, StreamRefusal, StreamTotals};
pub use work::{Absence, Answer, Ask, OpenItem, Turn, Work};

/// Why shards do not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Journal(#[from] crate::journal::Error),
    #[error("no thread for a shard: {0}")]
    Thread(std::io::Error),
    #[error("shard {shard} ended: {message}")]
    Shard { shard: usize, message: String },
}
