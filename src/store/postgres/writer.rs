//! The connection that writes: a batch is one transaction of binary COPY.
//!
//! The transaction begins with the positions: each moves from where this writer knows it to be, or
//! nothing is written. So the transaction of a connection that was given up for lost, and that commits
//! all the same, is met as "read the positions again", never as rows that are there twice; its row
//! locks make whoever comes after wait for its end.
//!
//! Statements are pipelined: three round trips a batch, four when it has outcomes. COMMIT may travel
//! with the last COPY, because in a transaction that has failed it rolls back.
//!
//! COPY goes straight into the tables: the positions make a repeat impossible, so that nothing needs to
//! be staged and compared first.

use super::positions::{self, Known, Moves};
use super::session::Sessions;
use super::timestamp::Timestamp;
use super::{copy, migrate, sqlstate};
use crate::model::{Position, ValidatorId};
use crate::store::{Error, NewOutcome, Reject, WriteBatch, Writer, names};
use bytes::{Bytes, BytesMut};
use futures_util::SinkExt;
use futures_util::future::{join, join3};
use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, CopyInSink, Statement};
use uuid::Uuid;

/// Digests of sets known to be stored; with more than these, all are asked for again.
const SETS_KNOWN_MAX: usize = 4_096;

/// Whatever the role's default: each statement sees what was committed before it.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";
/// $1 digests, $2 members as array literals: arrays of arrays must be of one length. One statement, because
/// it travels before a COPY that stays open: a second one would wait behind that for ever.
const SETS: &str = "INSERT INTO eligible_sets (set_digest, members) \
     SELECT digest, members::text[] FROM unnest($1::bytea[], $2::text[]) AS n (digest, members) \
     ON CONFLICT (set_digest) DO NOTHING";
const OUTCOMES: &str = "UPDATE approval_requests r SET status = o.status, finalized_at = o.finalized_at, \
     approvals = o.approvals, rejections = o.rejections, abstentions = o.abstentions, version = o.version, \
     decided_log_id = o.log, decided_sequence = o.sequence \
     FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::int[], $5::int[], $6::int[], $7::int[], $8::bigint[], \
        $9::bigint[]) AS o (id, status, finalized_at, approvals, rejections, abstentions, version, log, sequence) \
     WHERE r.approval_id = o.id AND r.status = 'PENDING'";
/// Of outcomes that an [`OUTCOMES`] just before was given, the first in the batch that it did not write.
const NOT_UPDATED: &str = "SELECT o.id FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) WITH ORDINALITY \
     AS o (id, log, sequence, place) WHERE NOT EXISTS (SELECT 1 FROM approval_requests r WHERE r.approval_id = o.id \
     AND r.decided_log_id = o.log AND r.decided_sequence = o.sequence) ORDER BY o.place LIMIT 1";
const REJECT: &str =
    "INSERT INTO archive_rejects (log_id, sequence, approval_id, event, reason) VALUES ($1, $2, $3, $4, $5)";

/// For a thread of its own: it has its own runtime, and every call blocks.
pub(super) struct PostgresWriter {
    sessions: Sessions,
    /// For one call, beyond what the server allows a statement.
    timeout: Duration,
    /// `Some` until dropped.
    runtime: Option<Runtime>,
    session: Option<Session>,
    known: Known,
    sets_known: HashSet<[u8; 32]>,
    buffer: BytesMut,
}

struct Session {
    client: Client,
    connection: JoinHandle<()>,
    statements: Option<Statements>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Prepared on the first batch: the tables are there by then.
struct Statements {
    positions: Statement,
    approvals: Statement,
    votes: Statement,
    sets: Statement,
    outcomes: Statement,
    reject: Statement,
}

impl PostgresWriter {
    pub fn new(sessions: Sessions, timeout: Duration) -> Result<PostgresWriter, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Error::Unavailable(format!("no runtime: {error}")))?;
        Ok(PostgresWriter {
            sessions,
            timeout,
            runtime: Some(runtime),
            session: None,
            known: Known::Unread,
            sets_known: HashSet::new(),
            buffer: BytesMut::new(),
        })
    }

    /// Runs `work` on the connection, a new one if need be, within the time limit. After an error the
    /// connection goes, and its open transaction with it: a COPY that was sent behind one that failed leaves
    /// an answer too many on it (tokio-postgres ends what never began).
    fn run<T>(
        &mut self,
        limit: Duration,
        work: impl AsyncFnOnce(&mut Session, &mut Scratch<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let runtime = self.runtime.as_ref().expect("there until dropped");
        let scratch =
            &mut Scratch { known: &mut self.known, sets_known: &mut self.sets_known, buffer: &mut self.buffer };
        let (sessions, session) = (&self.sessions, &mut self.session);
        let done = runtime.block_on(async {
            if session.as_ref().is_none_or(|session| session.client.is_closed()) {
                *session = Some(connect(sessions).await?);
                // It may be another server, or this one restored from a copy.
                scratch.sets_known.clear();
            }
            let session = session.as_mut().expect("it was just made");
            within(limit, work(session, scratch)).await
        });
        if let Err(error) = &done {
            self.session = None;
            self.sets_known.clear();
            // What is refused was not committed: the positions are where they were.
            if !matches!(error, Error::Refused(_)) {
                self.known = Known::Unsure;
            }
        }
        done
    }
}

impl Drop for PostgresWriter {
    fn drop(&mut self) {
        self.session = None;
        // Not the ordinary drop, which waits, and must not be where a runtime runs.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What a call may use beside the connection.
struct Scratch<'a> {
    known: &'a mut Known,
    sets_known: &'a mut HashSet<[u8; 32]>,
    buffer: &'a mut BytesMut,
}

async fn connect(sessions: &Sessions) -> Result<Session, Error> {
    let (client, connection) = sessions.connect().await?;
    Ok(Session { client, connection, statements: None })
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let late = || Error::Unavailable(format!("PostgreSQL did not answer within {limit:?}"));
    tokio::time::timeout(limit, work).await.map_err(|_| late())?
}

impl Writer for PostgresWriter {
    fn adopt(&mut self, deployment: [u8; 16]) -> Result<(), Error> {
        self.run(migrate::TIMEOUT, async |session, _| {
            migrate::run(&mut session.client).await?;
            adopt(&session.client, Uuid::from_bytes(deployment)).await
        })
    }

    fn positions(&mut self) -> Result<Vec<Position>, Error> {
        let positions = self.run(self.timeout, async |session, _| positions::read(&session.client).await)?;
        self.known = Known::at(&positions);
        Ok(positions)
    }

    fn write(&mut self, batch: &WriteBatch) -> Result<(), Error> {
        self.run(self.timeout, async |session, scratch| {
            let moves = Moves::new(&session.client, scratch.known, &batch.after).await?;
            if scratch.sets_known.len() > SETS_KNOWN_MAX {
                scratch.sets_known.clear();
            }
            session.write(batch, &moves, scratch).await?;
            moves.done(scratch.known);
            let sets = batch.approvals.iter().filter_map(|approval| approval.eligible.as_deref());
            scratch.sets_known.extend(sets.map(|set| set.digest));
            Ok(())
        })
    }

    fn reject(&mut self, reject: &Reject, after: Position) -> Result<(), Error> {
        self.run(self.timeout, async |session, scratch| {
            let moves = Moves::new(&session.client, scratch.known, &[after]).await?;
            session.reject(reject, &moves).await?;
            moves.done(scratch.known);
            Ok(())
        })
    }
}

async fn adopt(client: &Client, ours: Uuid) -> Result<(), Error> {
    let read = async || {
        let row = client.query_opt("SELECT deployment_id FROM archive_deployment", &[]).await;
        let theirs = row.map_err(sqlstate::error)?.map(|row| row.try_get::<_, Uuid>(0));
        theirs.transpose().map_err(sqlstate::error)
    };
    let mut theirs = read().await?;
    if theirs.is_none() {
        // Another node may claim it in the same moment: then its row is the one that is read.
        let claim = "INSERT INTO archive_deployment (deployment_id) VALUES ($1) ON CONFLICT DO NOTHING";
        client.execute(claim, &[&ours]).await.map_err(sqlstate::error)?;
        theirs = read().await?;
    }
    match theirs {
        Some(theirs) if theirs == ours => Ok(()),
        Some(theirs) => Err(Error::Stopped(format!(
            "the database belongs to deployment {theirs}, this node is of deployment {ours}: give it a database or \
             schema of its own in DB_URL, or the data folder of {theirs}"
        ))),
        None => Err(Error::Stopped("archive_deployment does not keep its row: restore a copy of the database".into())),
    }
}

type Sink = Pin<Box<CopyInSink<Bytes>>>;

impl Session {
    async fn statements(&mut self) -> Result<(&Client, &Statements), Error> {
        if self.statements.is_none() {
            let prepare = async |sql| self.client.prepare(sql).await.map_err(sqlstate::error);
            self.statements = Some(Statements {
                positions: prepare(positions::MOVE).await?,
                approvals: prepare(copy::COPY_APPROVALS).await?,
                votes: prepare(copy::COPY_VOTES).await?,
                sets: prepare(SETS).await?,
                outcomes: prepare(OUTCOMES).await?,
                reject: prepare(REJECT).await?,
            });
        }
        Ok((&self.client, self.statements.as_ref().expect("they were just prepared")))
    }

    /// The whole transaction. After an error it may still be open.
    async fn write(&mut self, batch: &WriteBatch, moves: &Moves, scratch: &mut Scratch<'_>) -> Result<(), Error> {
        let (client, statements) = self.statements().await?;
        // Futures of one join are sent in its order, and waited for together.
        let (begun, moved, sink) = join3(
            client.batch_execute(BEGIN),
            client.query_one(&statements.positions, &moves.parameters()),
            start_copy(client, &statements.approvals, !batch.approvals.is_empty()),
        )
        .await;
        begun.map_err(sqlstate::error)?;
        moves.checked(moved)?;
        let mut sink = sink?;
        send(&mut sink, &batch.approvals, copy::approval, scratch.buffer).await?;
        let (copied, stored, sink) = join3(
            finish(sink),
            store_sets(client, &statements.sets, batch, scratch.sets_known),
            start_copy(client, &statements.votes, !batch.votes.is_empty()),
        )
        .await;
        copied?;
        stored?;
        let mut sink = sink?;
        send(&mut sink, &batch.votes, copy::vote, scratch.buffer).await?;
        if batch.outcomes.is_empty() {
            let (copied, committed) = join(finish(sink), client.batch_execute("COMMIT")).await;
            copied?;
            return committed.map_err(sqlstate::error);
        }
        let (copied, updated) = join(finish(sink), update(client, &statements.outcomes, &batch.outcomes)).await;
        copied?;
        updated?;
        client.batch_execute("COMMIT").await.map_err(sqlstate::error)
    }

    async fn reject(&mut self, reject: &Reject, moves: &Moves) -> Result<(), Error> {
        let (client, statements) = self.statements().await?;
        let (log, sequence) = (reject.at.log.0 as i64, reject.at.sequence as i64);
        let approval = Uuid::from_bytes(reject.approval.0);
        // What the database would not take in a row may stand in its own words for it.
        let reason = reject.reason.replace('\0', "\u{FFFD}");
        let row: [&(dyn ToSql + Sync); 5] = [&log, &sequence, &approval, &reject.event, &reason];
        let (begun, moved, inserted) = join3(
            client.batch_execute(BEGIN),
            client.query_one(&statements.positions, &moves.parameters()),
            client.execute(&statements.reject, &row),
        )
        .await;
        begun.map_err(sqlstate::error)?;
        moves.checked(moved)?;
        inserted.map_err(sqlstate::error)?;
        client.batch_execute("COMMIT").await.map_err(sqlstate::error)
    }
}

async fn start_copy(client: &Client, statement: &Statement, wanted: bool) -> Result<Option<Sink>, Error> {
    if !wanted {
        return Ok(None);
    }
    Ok(Some(Box::pin(client.copy_in(statement).await.map_err(sqlstate::error)?)))
}

async fn send<T>(
    sink: &mut Option<Sink>,
    rows: &[T],
    encode: impl Fn(&T, &mut BytesMut),
    buffer: &mut BytesMut,
) -> Result<(), Error> {
    let Some(sink) = sink else { return Ok(()) };
    // Of a batch that was broken off.
    buffer.clear();
    copy::header(buffer);
    for row in rows {
        encode(row, buffer);
        if buffer.len() >= copy::PIECE_BYTES && sink.feed(buffer.split().freeze()).await.is_err() {
            // The server has ended the COPY, or the connection: finish() says why.
            return Ok(());
        }
    }
    copy::trailer(buffer);
    // As above.
    let _ = sink.feed(buffer.split().freeze()).await;
    Ok(())
}

async fn finish(sink: Option<Sink>) -> Result<(), Error> {
    let Some(mut sink) = sink else { return Ok(()) };
    sink.as_mut().finish().await.map(drop).map_err(sqlstate::error)
}

/// Those that are not known to be there.
async fn store_sets(
    client: &Client,
    statement: &Statement,
    batch: &WriteBatch,
    known: &HashSet<[u8; 32]>,
) -> Result<(), Error> {
    let mut stored = HashSet::new();
    let sets = batch.approvals.iter().filter_map(|approval| approval.eligible.as_deref());
    let (digests, members): (Vec<&[u8]>, Vec<String>) = sets
        .filter(|set| !known.contains(&set.digest) && stored.insert(set.digest))
        .map(|set| (&set.digest[..], array_literal(&set.members)))
        .unzip();
    if digests.is_empty() {
        return Ok(());
    }
    client.execute(statement, &[&digests, &members]).await.map(drop).map_err(sqlstate::error)
}

/// `{"a","b"}`.
fn array_literal(members: &[ValidatorId]) -> String {
    let mut text = String::from("{");
    for (at, member) in members.iter().enumerate() {
        text.push_str(if at > 0 { ",\"" } else { "\"" });
        for character in member.as_str().chars() {
            if matches!(character, '"' | '\\') {
                text.push('\\');
            }
            text.push(character);
        }
        text.push('"');
    }
    text.push('}');
    text
}

async fn update(client: &Client, statement: &Statement, outcomes: &[NewOutcome]) -> Result<(), Error> {
    fn column<T>(outcomes: &[NewOutcome], value: impl Fn(&NewOutcome) -> T) -> Vec<T> {
        outcomes.iter().map(value).collect()
    }
    let ids = column(outcomes, |outcome| Uuid::from_bytes(outcome.id.0));
    let statuses = column(outcomes, |outcome| names::outcome(outcome.outcome));
    let times = column(outcomes, |outcome| Timestamp::from(outcome.finalized_at));
    let approvals = column(outcomes, |outcome| i32::from(outcome.tally.approvals));
    let rejections = column(outcomes, |outcome| i32::from(outcome.tally.rejections));
    let abstentions = column(outcomes, |outcome| i32::from(outcome.tally.abstentions));
    let versions = column(outcomes, |outcome| outcome.version as i32);
    let logs = column(outcomes, |outcome| outcome.decided.log.0 as i64);
    let sequences = column(outcomes, |outcome| outcome.decided.sequence as i64);
    let parameters: [&(dyn ToSql + Sync); 9] =
        [&ids, &statuses, &times, &approvals, &rejections, &abstentions, &versions, &logs, &sequences];
    let updated = client.execute(statement, &parameters).await.map_err(sqlstate::error)?;
    if updated == outcomes.len() as u64 {
        return Ok(());
    }
    // In the same transaction: what this update did not write.
    let row = client.query_opt(NOT_UPDATED, &[&ids, &logs, &sequences]).await.map_err(sqlstate::error)?;
    let Some(row) = row else { return Err(Error::Refused("an outcome stands twice in one batch".into())) };
    let which: Uuid = row.try_get(0).map_err(sqlstate::error)?;
    Err(Error::Refused(format!(
        "{} of {} outcomes have no pending approval, the first of them {which}: not archived, or decided already",
        outcomes.len() as u64 - updated,
        outcomes.len()
    )))
}
