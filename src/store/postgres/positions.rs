//! How far each log is archived, and how a transaction moves it.
//!
//! A position moves from where its writer knows it to be, or not at all, and before anything else in
//! its transaction: so rows are never there twice, whoever wrote them, and a writer that comes after one
//! whose end is unknown waits for that end.

use super::sqlstate;
use crate::model::{LogId, Position};
use crate::store::Error;
use std::collections::HashMap;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

/// $1 logs, $2 where they are known to be (NULL: nowhere yet), $3 where they go. Answers how many moved.
pub(super) const MOVE: &str = "WITH n AS (SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS n (log, before, after)), \
     moved AS (UPDATE archive_positions p SET sequence = n.after, updated_at = now() FROM n \
        WHERE p.log_id = n.log AND p.sequence = n.before AND n.after > n.before RETURNING 1), \
     added AS (INSERT INTO archive_positions (log_id, sequence) SELECT log, after FROM n WHERE before IS NULL \
        ON CONFLICT (log_id) DO NOTHING RETURNING 1) \
     SELECT (SELECT count(*) FROM moved) + (SELECT count(*) FROM added)";

/// What this writer knows of the positions.
pub(super) enum Known {
    /// To be read before the first batch.
    Unread,
    At(HashMap<LogId, u64>),
    /// A transaction may or may not have been committed: whoever writes reads them first.
    Unsure,
}

impl Known {
    pub fn at(positions: &[Position]) -> Known {
        Known::At(positions.iter().map(|position| (position.log, position.sequence)).collect())
    }
}

pub(super) async fn read(client: &Client) -> Result<Vec<Position>, Error> {
    let rows = client.query("SELECT log_id, sequence FROM archive_positions ORDER BY log_id", &[]).await;
    let position = |row: tokio_postgres::Row| {
        let number = |column| row.try_get::<_, i64>(column).map_err(sqlstate::error);
        let (log, sequence) = (number(0)?, number(1)?);
        let (Ok(log), Ok(sequence)) = (u64::try_from(log), u64::try_from(sequence)) else {
            return Err(Error::Stopped(format!(
                "archive_positions holds log {log} at {sequence}: not written by assent"
            )));
        };
        Ok(Position { log: LogId(log), sequence })
    };
    rows.map_err(sqlstate::error)?.into_iter().map(position).collect()
}

/// The parameters of [`MOVE`].
pub(super) struct Moves {
    logs: Vec<i64>,
    before: Vec<Option<i64>>,
    after: Vec<i64>,
}

impl Moves {
    pub async fn new(client: &Client, known: &mut Known, after: &[Position]) -> Result<Moves, Error> {
        if let Known::Unread = known {
            let positions = read(client).await?;
            *known = Known::at(&positions);
        }
        let Known::At(known) = known else {
            let text = "whether the last batch was written is unknown: read the positions again";
            return Err(Error::Unavailable(text.into()));
        };
        Ok(Moves {
            logs: after.iter().map(|position| position.log.0 as i64).collect(),
            before: after.iter().map(|position| known.get(&position.log).map(|sequence| *sequence as i64)).collect(),
            after: after.iter().map(|position| position.sequence as i64).collect(),
        })
    }

    pub fn parameters(&self) -> [&(dyn ToSql + Sync); 3] {
        [&self.logs, &self.before, &self.after]
    }

    pub fn checked(&self, answer: Result<tokio_postgres::Row, tokio_postgres::Error>) -> Result<(), Error> {
        let moved: i64 = answer.and_then(|row| row.try_get(0)).map_err(sqlstate::error)?;
        if moved == self.logs.len() as i64 {
            return Ok(());
        }
        let logs: Vec<String> = self.logs.iter().map(i64::to_string).take(8).collect();
        Err(Error::Unavailable(format!(
            "the archive is not where this writer left it (of logs {}): read the positions again",
            logs.join(", ")
        )))
    }

    /// They are where they went.
    pub fn done(self, known: &mut Known) {
        if let Known::At(known) = known {
            known.extend(self.logs.iter().zip(&self.after).map(|(log, at)| (LogId(*log as u64), *at as u64)));
        }
    }
}
