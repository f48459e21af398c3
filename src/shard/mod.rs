//! ONE CORE: a shard owns an engine, a journal and the ends of its queues.
//!
//! `handle` is what fronts hold, `feed` what followers hold; `core` is one turn of the loop without
//! any I/O of its own; `executor` runs it on a plain thread or on glommio; `recovery` brings it back.

mod handle;
mod stream;
mod work;

pub use handle::{Opened, OwnedVote, Shards, StateFilter, StatusAnswer, VoteLine, Voted, VotesAfter};
pub use stream::{StreamLedger, StreamRefusal, StreamTotals};
pub use work::{Answer, Ask, OpenItem, Turn, Work};
