//! Lists: newest first by (created_at, approval_id), the one index that serves every page.
//!
//! A filter that few rows match makes SQLite walk that index; the read's bound in time ends a walk that
//! is too long, and a range of time shortens it.

use super::error::of;
use super::reads::{COLUMNS, archived, limit, with_votes_so_far};
use super::writer::text;
use crate::model::Micros;
use crate::store::{Archived, Error, ListFilter, ListKey, names};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

pub fn list(
    connection: &Connection,
    filter: &ListFilter,
    after: Option<ListKey>,
    max: usize,
) -> Result<Vec<Archived>, Error> {
    let (sql, values) = query(filter, after, max);
    let read = || {
        let mut statement = connection.prepare_cached(&sql)?;
        let found = statement.query_map(params_from_iter(values), archived)?;
        found.map(|found| with_votes_so_far(connection, found?)).collect::<rusqlite::Result<_>>()
    };
    read().map_err(|error| of(&error))
}

/// The statement has one form for each set of conditions, so that it can be kept prepared.
fn query(filter: &ListFilter, after: Option<ListKey>, max: usize) -> (String, Vec<Value>) {
    let mut conditions = Vec::new();
    let mut values = Vec::new();
    let mut given = |condition: &'static str, some: &mut dyn Iterator<Item = Value>| {
        let before = values.len();
        values.extend(some);
        if values.len() > before {
            conditions.push(condition);
        }
    };
    let word = |name: &str| Value::Text(name.to_string());
    let uuid = |id: &[u8; 16]| Value::Text(text(id).as_str().to_string());
    given("status = ?", &mut filter.status.iter().map(|status| word(names::status(*status))));
    given("approval_type = ?", &mut filter.approval_type.iter().map(|kind| word(names::approval_type(*kind))));
    given("priority = ?", &mut filter.priority.iter().map(|priority| word(names::priority(*priority))));
    given("requester_id = ?", &mut filter.requester.iter().map(|id| uuid(&id.0)));
    given(
        "EXISTS (SELECT 1 FROM approval_responses AS votes \
         WHERE votes.approval_id = approval_requests.approval_id AND votes.validator_id = ?)",
        &mut filter.validator.iter().map(|validator| word(validator.as_str())),
    );
    given("created_at >= ?", &mut filter.created.from.iter().map(|from| time(*from)));
    given("created_at < ?", &mut filter.created.to.iter().map(|to| time(*to)));
    given(
        "(created_at, approval_id) < (?, ?)",
        &mut after.iter().flat_map(|key| [time(key.created_at), uuid(&key.id.0)]),
    );
    let conditions = if conditions.is_empty() { "1".to_string() } else { conditions.join(" AND ") };
    values.push(Value::Integer(limit(max)));
    let sql = format!(
        "SELECT {COLUMNS} FROM approval_requests WHERE {conditions} \
         ORDER BY created_at DESC, approval_id DESC LIMIT ?"
    );
    (sql, values)
}

/// No row has a time that does not fit: the largest stands for those beyond.
fn time(time: Micros) -> Value {
    Value::Integer(i64::try_from(time.0).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ApprovalId, RequesterId, Status, ValidatorId};
    use crate::store::{TimeRange, migrate};

    /// No page sorts, and none reads the table in another order than the index's.
    #[test]
    fn every_page_walks_the_index() {
        let mut connection = Connection::open_in_memory().expect("memory");
        migrate::apply_sqlite(&mut connection).expect("applied");
        let key = ListKey { created_at: Micros(5), id: ApprovalId([7; 16]) };
        let whole = ListFilter {
            status: Some(Status::Pending),
            requester: Some(RequesterId([1; 16])),
            validator: ValidatorId::parse("val"),
            created: TimeRange { from: Some(Micros(1)), to: Some(Micros(u64::MAX)) },
            ..ListFilter::default()
        };
        for (filter, after) in [(ListFilter::default(), None), (whole.clone(), None), (whole, Some(key))] {
            let (sql, values) = query(&filter, after, 10);
            let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("legal");
            let plan = statement.query_map(params_from_iter(values), |row| row.get::<_, String>(3)).expect("runs");
            let plan: Vec<_> = plan.map(|line| line.expect("a line")).collect();
            assert!(plan[0].contains("USING INDEX approval_requests_created_at"), "{plan:?}");
            assert!(!plan.iter().any(|line| line.contains("TEMP B-TREE")), "{plan:?}");
        }
    }
}
