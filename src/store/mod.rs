//! The archive that people query: what shards have committed, in a database, for good.
//!
//! PostgreSQL where `DB_URL` names one, otherwise an SQLite file in the data folder; the same tables,
//! columns and views (`migrations/`). One [`Writer`] follows the journal, on a thread of its own; any
//! number of readers ask a [`Store`]. Left to others: following the journal, retries (`sinks`).
//!
//! A batch and the position that it brings the database to are one transaction, so that after any
//! crash the writer goes on exactly behind what is there.

pub mod db_url;
pub mod migrate;
mod names;
pub mod postgres;
mod rows;
pub mod sqlite;

pub use rows::{
    Archived, ArchivedVote, ListFilter, ListKey, NewApproval, NewOutcome, NewVote, Reject, TimeRange, WriteBatch,
};

use crate::model::{ApprovalId, Position, ValidatorId};
use futures_util::future::BoxFuture;

/// Why the store did not do as asked. No text of it holds a password.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// Try again: no connection, a timeout, a lock, a server that restarts. Whether a transaction that
    /// was under way was committed is unknown: read the positions again.
    #[error("the archive is not to be had: {0}")]
    Unavailable(String),
    /// This content will never be taken, by whatever name the database gives. Bisect the batch.
    #[error("the archive refuses a row: {0}")]
    Refused(String),
    /// No retry mends it: disk full, a missing right, another deployment's database, a changed schema.
    /// Says what to do.
    #[error("the archive has stopped: {0}")]
    Stopped(String),
}

/// Reads, from any thread of the fronts' runtime. Each call has a bound in time (a setting).
pub trait Store: Send + Sync + 'static {
    /// `postgres` or `sqlite`.
    fn name(&self) -> &'static str;

    /// The one connection that writes. Blocking: for a thread of its own.
    fn writer(&self) -> Result<Box<dyn Writer>, Error>;

    /// In the order asked for; `None` for an id that is not there. A pending one carries the tally of
    /// the votes archived so far.
    fn approvals(&self, ids: Vec<ApprovalId>) -> BoxFuture<'_, Result<Vec<Option<Archived>>, Error>>;

    /// Its content.
    fn content(&self, id: ApprovalId) -> BoxFuture<'_, Result<Option<bytes::Bytes>, Error>>;

    /// Votes in the order they were cast, at most `max` behind the one whose event made the approval's
    /// version `after` (0: from the first).
    fn votes(&self, id: ApprovalId, after: u32, max: usize) -> BoxFuture<'_, Result<Vec<ArchivedVote>, Error>>;

    /// One validator's vote.
    fn vote(&self, id: ApprovalId, validator: ValidatorId) -> BoxFuture<'_, Result<Option<ArchivedVote>, Error>>;

    /// Who may vote, in order, at most `max` behind `after`; none when anyone may.
    fn eligible(
        &self,
        id: ApprovalId,
        after: Option<ValidatorId>,
        max: usize,
    ) -> BoxFuture<'_, Result<Vec<ValidatorId>, Error>>;

    /// Newest first (created_at, then id), at most `max` behind `after`.
    fn list(
        &self,
        filter: ListFilter,
        after: Option<ListKey>,
        max: usize,
    ) -> BoxFuture<'_, Result<Vec<Archived>, Error>>;
}

/// The connection that writes. Dropped and made anew after an error.
pub trait Writer: Send {
    /// Claims an empty database for this deployment, or checks that it is this one's; applies what is
    /// missing of the migrations first. Another deployment's: [`Error::Stopped`] that names both ids.
    fn adopt(&mut self, deployment: [u8; 16]) -> Result<(), Error>;

    /// How far each log is archived; empty in a new database.
    fn positions(&mut self) -> Result<Vec<Position>, Error>;

    /// Rows and positions, in one transaction. A log's position only moves forward: a batch that would
    /// not move one was written before, and is [`Error::Unavailable`] (read the positions again), not a
    /// refused row.
    fn write(&mut self, batch: &WriteBatch) -> Result<(), Error>;

    /// An event that the database refuses for its content, kept as it is, and the position behind it,
    /// in one transaction.
    fn reject(&mut self, reject: &Reject, after: Position) -> Result<(), Error>;
}
