//! The connection that writes: a batch is one transaction, a row one prepared statement.

use super::error::of;
use crate::model::{EligibleSet, LogId, Position};
use crate::store::{Error, NewApproval, NewOutcome, NewVote, Reject, WriteBatch, Writer, migrate, names};
use rusqlite::{Connection, OptionalExtension, Statement, Transaction, TransactionBehavior, params};
use std::collections::HashSet;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

/// Digests of sets known to be stored; with more than these, the oldest knowledge goes, not the sets.
const SETS_KNOWN_MAX: usize = 4_096;

const APPROVAL: &str = "INSERT INTO approval_requests (approval_id, approval_type, priority, requester_id, \
    content_hash, required_approvals, total_validators, status, created_at, expires_at, finalized_at, approvals, \
    rejections, abstentions, version, request_digest, eligible_count, eligible_digest, log_id, sequence, \
    decided_log_id, decided_sequence, content) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23)";
const VOTE: &str = "INSERT INTO approval_responses (approval_id, validator_id, decision, reason, created_at, version, \
    signature, log_id, sequence) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
const OUTCOME: &str = "UPDATE approval_requests SET status = ?2, finalized_at = ?3, approvals = ?4, rejections = ?5, \
    abstentions = ?6, version = ?7, decided_log_id = ?8, decided_sequence = ?9 \
    WHERE approval_id = ?1 AND status = 'PENDING'";
const SET: &str = "INSERT INTO eligible_sets (set_digest, members) VALUES (?1, ?2) ON CONFLICT (set_digest) DO NOTHING";
/// Never back, and never to where it is already: this batch was written before.
const POSITION: &str = "INSERT INTO archive_positions (log_id, sequence) VALUES (?1, ?2) \
    ON CONFLICT (log_id) DO UPDATE SET sequence = excluded.sequence, updated_at = excluded.updated_at \
    WHERE excluded.sequence > archive_positions.sequence";
const REJECT: &str =
    "INSERT INTO archive_rejects (log_id, sequence, approval_id, event, reason) VALUES (?1, ?2, ?3, ?4, ?5)";

pub struct SqliteWriter {
    connection: Connection,
    log_pages_max: u64,
    sets_known: HashSet<[u8; 32]>,
}

impl SqliteWriter {
    pub fn new(connection: Connection, log_pages_max: u64) -> SqliteWriter {
        SqliteWriter { connection, log_pages_max, sets_known: HashSet::new() }
    }

    /// SQLite starts its log over at a commit when no reader needs it any more. Where reads overlap without
    /// end that moment never comes by itself: then readers are waited for, at most as long as for a lock.
    fn bound_log(&self) -> rusqlite::Result<()> {
        let pages: u64 = self.connection.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| row.get(1))?;
        if pages > self.log_pages_max {
            // Whether it waited in vain is in the answer: then the next commit tries again.
            self.connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()))?;
        }
        Ok(())
    }

    /// A transaction that holds the lock from its start: it fails there, not half-way.
    fn begin(&mut self) -> Result<Transaction<'_>, Error> {
        self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(|error| of(&error))
    }
}

impl Writer for SqliteWriter {
    fn adopt(&mut self, deployment: [u8; 16]) -> Result<(), Error> {
        migrate::apply_sqlite(&mut self.connection)?;
        let ours = text(&deployment);
        let transaction = self.begin()?;
        let owner = "SELECT deployment_id FROM archive_deployment";
        let owner: Option<String> =
            transaction.query_row(owner, [], |row| row.get(0)).optional().map_err(|error| of(&error))?;
        match owner {
            Some(owner) if owner == ours.as_str() => return Ok(()),
            Some(owner) => {
                return Err(Error::Stopped(format!(
                    "it belongs to deployment {owner}, this node is deployment {}: give the node its own archive, or \
                     move archive.sqlite (with archive.sqlite-wal) back to its data folder",
                    ours.as_str()
                )));
            }
            None => {}
        }
        let claim = "INSERT INTO archive_deployment (deployment_id) VALUES (?1)";
        transaction.execute(claim, [ours.as_str()]).map_err(|error| of(&error))?;
        transaction.commit().map_err(|error| of(&error))
    }

    fn positions(&mut self) -> Result<Vec<Position>, Error> {
        let read = |connection: &Connection| {
            let mut statement = connection.prepare("SELECT log_id, sequence FROM archive_positions ORDER BY log_id")?;
            let rows =
                statement.query_map([], |row| Ok(Position { log: LogId(row.get(0)?), sequence: row.get(1)? }))?;
            rows.collect::<rusqlite::Result<_>>()
        };
        read(&self.connection).map_err(|error| of(&error))
    }

    fn write(&mut self, batch: &WriteBatch) -> Result<(), Error> {
        if self.sets_known.len() > SETS_KNOWN_MAX {
            self.sets_known.clear();
        }
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(|error| of(&error))?;
        advance(&transaction, &batch.after)?;
        let sets = write_rows(&transaction, batch, &self.sets_known)?;
        transaction.commit().map_err(|error| of(&error))?;
        self.sets_known.extend(sets);
        self.bound_log().map_err(|error| of(&error))
    }

    fn reject(&mut self, reject: &Reject, after: Position) -> Result<(), Error> {
        let transaction = self.begin()?;
        advance(&transaction, &[after])?;
        let approval = text(&reject.approval.0);
        let row = params![reject.at.log.0, reject.at.sequence, approval.as_str(), reject.event, reject.reason];
        transaction.execute(REJECT, row).map_err(|error| of(&error))?;
        transaction.commit().map_err(|error| of(&error))
    }
}

/// First in its transaction, so that a batch that was written before is told from one with bad rows.
fn advance(transaction: &Transaction<'_>, after: &[Position]) -> Result<(), Error> {
    let mut statement = transaction.prepare_cached(POSITION).map_err(|error| of(&error))?;
    for position in after {
        let moved = statement.execute(params![position.log.0, position.sequence]).map_err(|error| of(&error))?;
        if moved == 0 {
            return Err(Error::Unavailable(format!(
                "log {} is archived to sequence {} or further already: read the positions again",
                position.log.0, position.sequence
            )));
        }
    }
    Ok(())
}

/// The sets that are stored now and were not known to be.
fn write_rows(
    transaction: &Transaction<'_>,
    batch: &WriteBatch,
    sets_known: &HashSet<[u8; 32]>,
) -> Result<HashSet<[u8; 32]>, Error> {
    let prepare = |sql| transaction.prepare_cached(sql).map_err(|error| of(&error));
    let (mut approval, mut vote, mut outcome) = (prepare(APPROVAL)?, prepare(VOTE)?, prepare(OUTCOME)?);
    let mut set = prepare(SET)?;
    let mut sets = HashSet::new();
    for new in &batch.approvals {
        if let Some(eligible) = new.eligible.as_deref()
            && !sets_known.contains(&eligible.digest)
            && sets.insert(eligible.digest)
        {
            set.execute(params![eligible.digest, members(eligible)]).map_err(|error| of(&error))?;
        }
        insert_approval(&mut approval, new).map_err(|error| refused_id(of(&error), &new.id.0))?;
    }
    for new in &batch.votes {
        insert_vote(&mut vote, new).map_err(|error| refused_id(of(&error), &new.approval.0))?;
    }
    for new in &batch.outcomes {
        let updated = update_outcome(&mut outcome, new).map_err(|error| refused_id(of(&error), &new.id.0))?;
        if updated == 0 {
            return Err(Error::Refused(format!("approval {} is not there, or decided already", new.id)));
        }
    }
    Ok(sets)
}

fn insert_approval(statement: &mut Statement<'_>, new: &NewApproval) -> rusqlite::Result<usize> {
    let outcome = new.outcome.as_ref();
    let tally = outcome.map(|outcome| outcome.tally).unwrap_or_default();
    statement.execute(params![
        text(&new.id.0).as_str(),
        names::approval_type(new.approval_type),
        names::priority(new.priority),
        text(&new.requester.0).as_str(),
        new.content_hash.to_string(),
        new.required,
        new.total,
        outcome.map_or("PENDING", |outcome| names::outcome(outcome.outcome)),
        new.created_at.0,
        new.expires_at.0,
        outcome.map(|outcome| outcome.finalized_at.0),
        tally.approvals,
        tally.rejections,
        tally.abstentions,
        outcome.map_or(1, |outcome| outcome.version),
        new.digest,
        new.eligible.as_ref().map_or(0, |set| set.members.len()),
        new.eligible.as_ref().map(|set| set.digest),
        new.opened.log.0,
        new.opened.sequence,
        outcome.map(|outcome| outcome.decided.log.0),
        outcome.map(|outcome| outcome.decided.sequence),
        &new.content[..],
    ])
}

fn insert_vote(statement: &mut Statement<'_>, new: &NewVote) -> rusqlite::Result<usize> {
    statement.execute(params![
        text(&new.approval.0).as_str(),
        new.validator,
        names::decision(new.decision),
        // Most votes have neither.
        (!new.reason.is_empty()).then_some(&*new.reason),
        new.voted_at.0,
        new.version,
        (!new.signature.is_empty()).then_some(&*new.signature),
        new.at.log.0,
        new.at.sequence,
    ])
}

fn update_outcome(statement: &mut Statement<'_>, new: &NewOutcome) -> rusqlite::Result<usize> {
    statement.execute(params![
        text(&new.id.0).as_str(),
        names::outcome(new.outcome),
        new.finalized_at.0,
        new.tally.approvals,
        new.tally.rejections,
        new.tally.abstentions,
        new.version,
        new.decided.log.0,
        new.decided.sequence,
    ])
}

fn members(set: &EligibleSet) -> String {
    let names: Vec<_> = set.members.iter().map(|member| member.as_str()).collect();
    serde_json::Value::from(names).to_string()
}

/// Names the approval that a refusal is about.
fn refused_id(error: Error, id: &[u8; 16]) -> Error {
    match error {
        Error::Refused(why) => Error::Refused(format!("approval {}: {why}", text(id).as_str())),
        other => other,
    }
}

/// A UUID as columns hold it, without an allocation.
pub struct UuidText([u8; Hyphenated::LENGTH]);

impl UuidText {
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hex digits and hyphens")
    }
}

pub fn text(id: &[u8; 16]) -> UuidText {
    let mut buffer = [0; Hyphenated::LENGTH];
    Uuid::from_bytes(*id).hyphenated().encode_lower(&mut buffer);
    UuidText(buffer)
}
