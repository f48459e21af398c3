//! Reads: rows as the model knows them.

use super::sqlstate;
use super::timestamp::Timestamp;
use crate::model::{
    ApprovalId, ApprovalState, EventRef, LogId, Micros, Position, RequesterId, Status, Tally, ValidatorId,
};
use crate::store::{Archived, ArchivedVote, Error, ListFilter, ListKey, names};
use bytes::Bytes;
use deadpool_postgres::ClientWrapper;
use std::collections::HashMap;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql};
use uuid::Uuid;

/// What [`archived`] reads, in its order. Of a pending approval the last is its newest vote, as
/// {version, log, sequence}, behind the counts of its votes so far.
const COLUMNS: &str = "r.approval_id, r.approval_type, r.priority, r.requester_id, r.content_hash, \
     r.required_approvals, r.total_validators, r.status, r.created_at, r.expires_at, r.finalized_at, r.approvals, \
     r.rejections, r.abstentions, r.version, r.request_digest, r.eligible_count, r.eligible_digest, r.log_id, \
     r.sequence, r.decided_log_id, r.decided_sequence, v.approvals, v.rejections, v.abstentions, v.last";
/// A decided one's votes are not looked at.
const VOTES_SO_FAR: &str = "LEFT JOIN LATERAL (SELECT count(*) FILTER (WHERE decision = 'APPROVED') AS approvals, \
     count(*) FILTER (WHERE decision = 'REJECTED') AS rejections, \
     count(*) FILTER (WHERE decision = 'ABSTAIN') AS abstentions, \
     max(ARRAY[version::bigint, log_id, sequence]) AS last \
     FROM approval_responses WHERE approval_id = r.approval_id AND r.status = 'PENDING') v ON true";
const VOTE: &str = "SELECT validator_id, decision, reason, created_at, version, signature, log_id, sequence \
     FROM approval_responses WHERE approval_id = $1";

/// Prepared once a connection.
async fn query(client: &ClientWrapper, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
    let statement = client.prepare_cached(sql).await.map_err(sqlstate::error)?;
    client.query(&statement, parameters).await.map_err(sqlstate::error)
}

pub(super) async fn approvals(client: &ClientWrapper, ids: &[ApprovalId]) -> Result<Vec<Option<Archived>>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM approval_requests r {VOTES_SO_FAR} WHERE r.approval_id = ANY ($1)");
    let uuids: Vec<Uuid> = ids.iter().map(|id| Uuid::from_bytes(id.0)).collect();
    let mut found = HashMap::with_capacity(ids.len());
    for row in query(client, &sql, &[&uuids]).await? {
        let approval = archived(&row)?;
        found.insert(approval.state.id, approval);
    }
    Ok(ids.iter().map(|id| found.get(id).cloned()).collect())
}

pub(super) async fn content(client: &ClientWrapper, id: ApprovalId) -> Result<Option<Bytes>, Error> {
    let sql = "SELECT content FROM approval_requests WHERE approval_id = $1";
    let rows = query(client, sql, &[&Uuid::from_bytes(id.0)]).await?;
    rows.first().map(|row| Ok(Bytes::copy_from_slice(get::<&[u8]>(row, 0)?))).transpose()
}

/// Sorted for each page rather than kept in an index: at most 32,767 rows that lie together.
pub(super) async fn votes(
    client: &ClientWrapper,
    id: ApprovalId,
    after: u32,
    max: usize,
) -> Result<Vec<ArchivedVote>, Error> {
    let sql = format!("{VOTE} AND version > $2 ORDER BY version LIMIT $3");
    let after = i32::try_from(after).unwrap_or(i32::MAX);
    let rows = query(client, &sql, &[&Uuid::from_bytes(id.0), &after, &limit(max)]).await?;
    rows.iter().map(archived_vote).collect()
}

pub(super) async fn vote(
    client: &ClientWrapper,
    id: ApprovalId,
    validator: &ValidatorId,
) -> Result<Option<ArchivedVote>, Error> {
    let sql = format!("{VOTE} AND validator_id = $2");
    let rows = query(client, &sql, &[&Uuid::from_bytes(id.0), &validator.as_str()]).await?;
    rows.first().map(archived_vote).transpose()
}

pub(super) async fn eligible(
    client: &ClientWrapper,
    id: ApprovalId,
    after: Option<&ValidatorId>,
    max: usize,
) -> Result<Vec<ValidatorId>, Error> {
    // Members are stored sorted by bytes; no name is empty, so that all come behind ''. The server cuts
    // the page, since a set may have 32,767 names.
    let sql = "SELECT r.eligible_count > 0, s.set_digest IS NOT NULL, \
         ARRAY (SELECT m FROM unnest(s.members) m WHERE m COLLATE \"C\" > $2 ORDER BY m COLLATE \"C\" LIMIT $3) \
         FROM approval_requests r LEFT JOIN eligible_sets s ON s.set_digest = r.eligible_digest \
         WHERE r.approval_id = $1";
    let after = after.map_or("", ValidatorId::as_str);
    let rows = query(client, sql, &[&Uuid::from_bytes(id.0), &after, &limit(max)]).await?;
    let Some(row) = rows.first() else { return Ok(Vec::new()) };
    let broken = |why: &str| Error::Stopped(format!("the eligible set of approval {id} {why}"));
    if get(row, 0)? && !get::<bool>(row, 1)? {
        return Err(broken("is not in eligible_sets: was it deleted by hand?"));
    }
    let members: Vec<&str> = get(row, 2)?;
    let names = members.into_iter().map(ValidatorId::parse);
    names.map(|name| name.ok_or_else(|| broken("holds an illegal name"))).collect()
}

pub(super) async fn list(
    client: &ClientWrapper,
    filter: &ListFilter,
    after: Option<ListKey>,
    max: usize,
) -> Result<Vec<Archived>, Error> {
    let mut conditions: Vec<String> = Vec::new();
    let mut parameters: Vec<Box<dyn ToSql + Sync + Send>> = Vec::new();
    // A condition has a ? for each of its parameters. Only those asked for, so that the plan fits.
    let mut also = |condition: &str, values: Vec<Box<dyn ToSql + Sync + Send>>| {
        let mut text = condition.to_string();
        for value in values {
            parameters.push(value);
            text = text.replacen('?', &format!("${}", parameters.len()), 1);
        }
        conditions.push(text);
    };
    if let Some(status) = filter.status {
        also("r.status = ?", vec![Box::new(names::status(status))]);
    }
    if let Some(kind) = filter.approval_type {
        also("r.approval_type = ?", vec![Box::new(names::approval_type(kind))]);
    }
    if let Some(priority) = filter.priority {
        also("r.priority = ?", vec![Box::new(names::priority(priority))]);
    }
    if let Some(requester) = filter.requester {
        also("r.requester_id = ?", vec![Box::new(Uuid::from_bytes(requester.0))]);
    }
    if let Some(validator) = &filter.validator {
        let voted =
            "EXISTS (SELECT 1 FROM approval_responses a WHERE a.approval_id = r.approval_id AND a.validator_id = ?)";
        also(voted, vec![Box::new(validator.as_str().to_string())]);
    }
    if let Some(from) = filter.created.from {
        also("r.created_at >= ?", vec![Box::new(Timestamp::bound(from))]);
    }
    if let Some(to) = filter.created.to {
        also("r.created_at < ?", vec![Box::new(Timestamp::bound(to))]);
    }
    if let Some(key) = after {
        let values: Vec<Box<dyn ToSql + Sync + Send>> =
            vec![Box::new(Timestamp::from(key.created_at)), Box::new(Uuid::from_bytes(key.id.0))];
        also("(r.created_at, r.approval_id) < (?, ?)", values);
    }
    let selected = if conditions.is_empty() { String::new() } else { format!("WHERE {}", conditions.join(" AND ")) };
    parameters.push(Box::new(limit(max)));
    // The page first, then the votes of its pending ones.
    let sql = format!(
        "SELECT {COLUMNS} FROM (SELECT * FROM approval_requests r {selected} \
         ORDER BY r.created_at DESC, r.approval_id DESC LIMIT ${}) r {VOTES_SO_FAR} \
         ORDER BY r.created_at DESC, r.approval_id DESC",
        parameters.len()
    );
    let borrowed: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect();
    query(client, &sql, &borrowed).await?.iter().map(archived).collect()
}

fn limit(max: usize) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX)
}

fn get<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, Error> {
    row.try_get(column).map_err(sqlstate::error)
}

/// What assent never writes: somebody else did.
fn foreign(row: &Row, column: usize) -> Error {
    let name = row.columns().get(column).map_or("a column", |column| column.name());
    Error::Stopped(format!("{name} holds a value that assent does not write: restore it"))
}

fn parsed<'a, T: FromSql<'a>, V>(row: &'a Row, column: usize, parse: impl Fn(T) -> Option<V>) -> Result<V, Error> {
    parse(get(row, column)?).ok_or_else(|| foreign(row, column))
}

fn time(row: &Row, column: usize) -> Result<Micros, Error> {
    parsed(row, column, Timestamp::micros)
}

fn bytes<const N: usize>(row: &Row, column: usize) -> Result<[u8; N], Error> {
    parsed(row, column, |bytes: &[u8]| bytes.try_into().ok())
}

fn position(row: &Row, column: usize) -> Result<Position, Error> {
    let number = |column| parsed(row, column, |number: i64| u64::try_from(number).ok());
    Ok(Position { log: LogId(number(column)?), sequence: number(column + 1)? })
}

/// A row of [`COLUMNS`].
fn archived(row: &Row) -> Result<Archived, Error> {
    let status = parsed(row, 7, names::parse_status)?;
    let mut version: u32 = parsed(row, 14, |version: i32| u32::try_from(version).ok())?;
    let mut last = position(row, if get::<Option<i64>>(row, 20)?.is_some() { 20 } else { 18 })?;
    let small = |column| parsed(row, column, |count: i16| u16::try_from(count).ok());
    let tally = if status == Status::Pending {
        let count = |column| parsed(row, column, |count: i64| u16::try_from(count).ok());
        if let Some(newest) = get::<Option<Vec<i64>>>(row, 25)? {
            let [newest_version, log, sequence] = newest[..] else { return Err(foreign(row, 25)) };
            let proper = |number: i64| u64::try_from(number).map_err(|_| foreign(row, 25));
            version = u32::try_from(newest_version).map_err(|_| foreign(row, 25))?;
            last = Position { log: LogId(proper(log)?), sequence: proper(sequence)? };
        }
        Tally { approvals: count(22)?, rejections: count(23)?, abstentions: count(24)? }
    } else {
        let count = |column| parsed(row, column, |count: i32| u16::try_from(count).ok());
        Tally { approvals: count(11)?, rejections: count(12)?, abstentions: count(13)? }
    };
    let eligible: Option<&[u8]> = get(row, 17)?;
    let sequence = Some(last.sequence).filter(|sequence| *sequence <= EventRef::SEQUENCE_MAX);
    Ok(Archived {
        state: ApprovalState {
            id: ApprovalId(get::<Uuid>(row, 0)?.into_bytes()),
            status,
            approval_type: parsed(row, 1, names::parse_approval_type)?,
            priority: parsed(row, 2, names::parse_priority)?,
            requester: RequesterId(get::<Uuid>(row, 3)?.into_bytes()),
            content_hash: parsed(row, 4, names::parse_content_hash)?,
            required: small(5)?,
            total: small(6)?,
            tally,
            created_at: time(row, 8)?,
            expires_at: time(row, 9)?,
            finalized_at: get::<Option<Timestamp>>(row, 10)?.map(|_| time(row, 10)).transpose()?,
            version,
            last_event: EventRef::new(0, sequence.ok_or_else(|| foreign(row, 19))?),
            eligible_count: small(16)?,
            eligible_digest: eligible.map(|_| bytes(row, 17)).transpose()?,
        },
        log: last.log,
        digest: bytes(row, 15)?,
    })
}

fn archived_vote(row: &Row) -> Result<ArchivedVote, Error> {
    Ok(ArchivedVote {
        validator: parsed(row, 0, ValidatorId::parse)?,
        decision: parsed(row, 1, names::parse_decision)?,
        reason: get::<Option<&str>>(row, 2)?.unwrap_or_default().into(),
        signature: get::<Option<&[u8]>>(row, 5)?.unwrap_or_default().into(),
        voted_at: time(row, 3)?,
        version: parsed(row, 4, |version: i32| u32::try_from(version).ok())?,
        at: position(row, 6)?,
    })
}
