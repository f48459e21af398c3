//! Reads of one approval, and rows as the model knows them.

use super::error::of;
use super::writer::text;
use crate::model::{
    ApprovalId, ApprovalState, EventRef, LogId, Micros, Position, RequesterId, Status, Tally, ValidatorId,
};
use crate::store::{Archived, ArchivedVote, Error, names};
use bytes::Bytes;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

/// What [`archived`] reads, in its order.
pub const COLUMNS: &str = "approval_id, approval_type, priority, requester_id, content_hash, required_approvals, \
    total_validators, status, created_at, expires_at, finalized_at, approvals, rejections, abstentions, version, \
    request_digest, eligible_count, eligible_digest, log_id, sequence, decided_log_id, decided_sequence";

pub fn approvals(connection: &Connection, ids: &[ApprovalId]) -> Result<Vec<Option<Archived>>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM approval_requests WHERE approval_id = ?1");
    let read = |id: &ApprovalId| {
        let mut statement = connection.prepare_cached(&sql)?;
        let found = statement.query_row([text(&id.0).as_str()], archived).optional()?;
        found.map(|found| with_votes_so_far(connection, found)).transpose()
    };
    ids.iter().map(read).collect::<rusqlite::Result<_>>().map_err(|error| of(&error))
}

/// A pending approval's tally, version and last event are its votes'.
pub fn with_votes_so_far(connection: &Connection, mut found: Archived) -> rusqlite::Result<Archived> {
    if found.state.status != Status::Pending {
        return Ok(found);
    }
    // With MAX, the bare columns beside it are of the row that has it.
    let votes = "SELECT COUNT(*) FILTER (WHERE decision = 'APPROVED'), COUNT(*) FILTER (WHERE decision = 'REJECTED'), \
        COUNT(*) FILTER (WHERE decision = 'ABSTAIN'), MAX(version), log_id, sequence \
        FROM approval_responses WHERE approval_id = ?1";
    let mut statement = connection.prepare_cached(votes)?;
    statement.query_row([text(&found.state.id.0).as_str()], |row| {
        found.state.tally = Tally { approvals: row.get(0)?, rejections: row.get(1)?, abstentions: row.get(2)? };
        if let Some(version) = row.get(3)? {
            found.state.version = version;
            found.log = LogId(row.get(4)?);
            found.state.last_event = EventRef::new(0, sequence(row, 5)?);
        }
        Ok(())
    })?;
    Ok(found)
}

pub fn content(connection: &Connection, id: ApprovalId) -> Result<Option<Bytes>, Error> {
    let read = || {
        let mut statement =
            connection.prepare_cached("SELECT content FROM approval_requests WHERE approval_id = ?1")?;
        statement.query_row([text(&id.0).as_str()], |row| row.get::<_, Vec<u8>>(0)).optional()
    };
    Ok(read().map_err(|error| of(&error))?.map(Bytes::from))
}

const VOTE: &str = "SELECT validator_id, decision, reason, created_at, version, signature, log_id, sequence \
    FROM approval_responses WHERE approval_id = ?1";

/// Sorted for each page rather than kept in an index: at most 32,767 rows that lie together.
pub fn votes(connection: &Connection, id: ApprovalId, after: u32, max: usize) -> Result<Vec<ArchivedVote>, Error> {
    let read = || {
        let mut statement = connection.prepare_cached(&format!("{VOTE} AND version > ?2 ORDER BY version LIMIT ?3"))?;
        let rows = statement.query_map(params![text(&id.0).as_str(), after, limit(max)], archived_vote)?;
        rows.collect::<rusqlite::Result<_>>()
    };
    read().map_err(|error| of(&error))
}

pub fn vote(connection: &Connection, id: ApprovalId, validator: &ValidatorId) -> Result<Option<ArchivedVote>, Error> {
    let read = || {
        let mut statement = connection.prepare_cached(&format!("{VOTE} AND validator_id = ?2"))?;
        statement.query_row(params![text(&id.0).as_str(), validator.as_str()], archived_vote).optional()
    };
    read().map_err(|error| of(&error))
}

pub fn eligible(
    connection: &Connection,
    id: ApprovalId,
    after: Option<&ValidatorId>,
    max: usize,
) -> Result<Vec<ValidatorId>, Error> {
    let sql = "SELECT eligible_digest, members FROM approval_requests \
        LEFT JOIN eligible_sets ON set_digest = eligible_digest WHERE approval_id = ?1";
    let read = || {
        let mut statement = connection.prepare_cached(sql)?;
        let columns = |row: &Row<'_>| Ok((row.get::<_, Option<Vec<u8>>>(0)?, row.get::<_, Option<String>>(1)?));
        statement.query_row([text(&id.0).as_str()], columns).optional()
    };
    let Some((Some(_), members)) = read().map_err(|error| of(&error))? else { return Ok(Vec::new()) };
    let broken = |why: &str| Error::Stopped(format!("the eligible set of approval {id} {why}"));
    let members = members.ok_or_else(|| broken("is not in eligible_sets: was it deleted by hand?"))?;
    let members: Vec<String> =
        serde_json::from_str(&members).map_err(|error| broken(&format!("is not an array of names: {error}")))?;
    // Sorted as they were stored.
    let from = after.map_or(0, |after| members.partition_point(|member| member.as_str() <= after.as_str()));
    let page = members.iter().skip(from).take(max);
    page.map(|member| ValidatorId::parse(member).ok_or_else(|| broken("holds an illegal name"))).collect()
}

/// A row of [`COLUMNS`].
pub fn archived(row: &Row<'_>) -> rusqlite::Result<Archived> {
    let status = named(row, 7, names::parse_status)?;
    let version: u32 = row.get(14)?;
    let opened: (u64, u64) = (row.get(18)?, sequence(row, 19)?);
    let last = match row.get(20)? {
        Some(log) => (log, sequence(row, 21)?),
        None => opened,
    };
    Ok(Archived {
        state: ApprovalState {
            id: ApprovalId(uuid(row, 0)?),
            status,
            approval_type: named(row, 1, names::parse_approval_type)?,
            priority: named(row, 2, names::parse_priority)?,
            requester: RequesterId(uuid(row, 3)?),
            content_hash: named(row, 4, names::parse_content_hash)?,
            required: row.get(5)?,
            total: row.get(6)?,
            tally: Tally { approvals: row.get(11)?, rejections: row.get(12)?, abstentions: row.get(13)? },
            created_at: Micros(row.get(8)?),
            expires_at: Micros(row.get(9)?),
            finalized_at: row.get::<_, Option<u64>>(10)?.map(Micros),
            version,
            last_event: EventRef::new(0, last.1),
            eligible_count: row.get(16)?,
            eligible_digest: row.get(17)?,
        },
        log: LogId(last.0),
        digest: row.get(15)?,
    })
}

fn archived_vote(row: &Row<'_>) -> rusqlite::Result<ArchivedVote> {
    Ok(ArchivedVote {
        validator: named(row, 0, ValidatorId::parse)?,
        decision: named(row, 1, names::parse_decision)?,
        reason: row.get::<_, Option<Box<str>>>(2)?.unwrap_or_default(),
        voted_at: Micros(row.get(3)?),
        version: row.get(4)?,
        signature: row.get::<_, Option<Vec<u8>>>(5)?.unwrap_or_default().into(),
        at: Position { log: LogId(row.get(6)?), sequence: sequence(row, 7)? },
    })
}

/// SQLite's LIMIT is signed.
pub fn limit(max: usize) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX)
}

fn named<T>(row: &Row<'_>, column: usize, parse: impl FnOnce(&str) -> Option<T>) -> rusqlite::Result<T> {
    let value = row.get_ref(column)?;
    let name = value.as_str().map_err(|error| broken(row, column, value.data_type(), &error.to_string()))?;
    parse(name).ok_or_else(|| broken(row, column, Type::Text, &format!("`{name}` is not known")))
}

fn uuid(row: &Row<'_>, column: usize) -> rusqlite::Result<[u8; 16]> {
    named(row, column, |name| uuid::Uuid::try_parse(name).ok()).map(uuid::Uuid::into_bytes)
}

/// Below 2^48.
fn sequence(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let sequence: u64 = row.get(column)?;
    match sequence <= EventRef::SEQUENCE_MAX {
        true => Ok(sequence),
        false => Err(rusqlite::Error::IntegralValueOutOfRange(column, sequence as i64)),
    }
}

fn broken(row: &Row<'_>, column: usize, kind: Type, why: &str) -> rusqlite::Error {
    let name = row.as_ref().column_name(column).unwrap_or("a column").to_string();
    rusqlite::Error::FromSqlConversionFailure(column, kind, format!("{name}: {why}").into())
}
