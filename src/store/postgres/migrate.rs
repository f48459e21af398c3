//! The schema: applied by whoever comes first, checked by everyone after.
//!
//! `migrations/postgres/V*.sql` are embedded. What is missing is applied by refinery in one transaction,
//! so that a schema is there whole or not at all, and under an advisory lock, because refinery takes
//! none: a node and its workers may start at once. Which are there stands in `assent_migrations`. A
//! database that lacks none is only read: a worker's role needs no right to create anything.

use super::sqlstate;
use crate::store::Error;
use crate::store::migrate::Schema;
use std::time::Duration;
use tokio_postgres::Client;

mod embedded {
    refinery::embed_migrations!("migrations/postgres");
}

/// Of this product alone: the schema may be shared with somebody else who uses refinery.
const TABLE: &str = "assent_migrations";
/// For all migrations together.
pub const TIMEOUT: Duration = Duration::from_secs(3_600);
/// Only what lies in the schema that new tables would go to: another may hold another archive.
const SCHEMA: &str = "SELECT current_schema(), to_regclass(quote_ident(current_schema()) || '.' || $1) IS NOT NULL";
/// The lock's name in the database: "assent" in ASCII.
const LOCK: i64 = 0x6173_7365_6E74;

/// Applies what is missing. Answers with the names of what it applied, in order; none when all was there.
pub async fn run(client: &mut Client) -> Result<Vec<String>, Error> {
    // Without the lock first, and without any right but to read.
    if check(client).await?.missing.is_empty() {
        return Ok(Vec::new());
    }
    client.execute("SELECT pg_advisory_lock($1)", &[&LOCK]).await.map_err(|error| match sqlstate::error(error) {
        Error::Unavailable(text) => Error::Unavailable(format!("somebody else is migrating: {text}")),
        error => error,
    })?;
    let applied = apply(client).await;
    let unlocked = client.execute("SELECT pg_advisory_unlock($1)", &[&LOCK]).await;
    let applied = applied?;
    unlocked.map_err(sqlstate::error)?;
    Ok(applied)
}

async fn apply(client: &mut Client) -> Result<Vec<String>, Error> {
    // Whoever held the lock before may have done it all.
    if check(client).await?.missing.is_empty() {
        return Ok(Vec::new());
    }
    let mut runner = embedded::migrations::runner().set_grouped(true);
    runner.set_migration_table_name(TABLE);
    // Of a large database an index alone may take longer than any statement of every day may.
    let usual = client.query_one("SHOW statement_timeout", &[]).await.map_err(sqlstate::error)?;
    let usual: String = usual.try_get(0).map_err(sqlstate::error)?;
    set_timeout(client, &TIMEOUT.as_millis().to_string()).await?;
    let report = runner.run_async(client).await.map_err(refinery_error)?;
    set_timeout(client, &usual).await?;
    Ok(report.applied_migrations().iter().map(ToString::to_string).collect())
}

async fn set_timeout(client: &Client, limit: &str) -> Result<(), Error> {
    let set = client.execute("SELECT set_config('statement_timeout', $1, false)", &[&limit]).await;
    set.map(drop).map_err(sqlstate::error)
}

/// What is there, reading only. A migration that was changed since it was applied, or that is newer
/// than this program, is an error: [`Error::Stopped`].
pub async fn check(client: &Client) -> Result<Schema, Error> {
    let row = client.query_one(SCHEMA, &[&TABLE]).await;
    let row = row.map_err(sqlstate::error)?;
    if row.try_get::<_, Option<&str>>(0).map_err(sqlstate::error)?.is_none() {
        let text = "PostgreSQL: no schema to work in: create one that search_path names (or correct search_path)";
        return Err(Error::Stopped(text.into()));
    }
    let applied = if row.try_get(1).map_err(sqlstate::error)? {
        let query = format!("SELECT version, name, checksum FROM {TABLE} ORDER BY version");
        client.query(&query, &[]).await.map_err(sqlstate::error)?
    } else {
        Vec::new()
    };
    let mut missing = ours();
    let mut done = Vec::new();
    for row in applied {
        let version: i32 = row.try_get(0).map_err(sqlstate::error)?;
        let name: &str = row.try_get(1).map_err(sqlstate::error)?;
        let checksum: &str = row.try_get(2).map_err(sqlstate::error)?;
        let Some(at) = missing.iter().position(|migration| migration.version() == version) else {
            return Err(Error::Stopped(format!(
                "the database has migration V{version}__{name}, which this version of assent does not know: \
                 it was made by a newer one; run that one"
            )));
        };
        let migration = missing.remove(at);
        if migration.name() != name || migration.checksum().to_string() != checksum {
            return Err(Error::Stopped(format!(
                "migration {migration} is not the V{version}__{name} that was applied to the database: \
                 migrations never change; run the version of assent that made this database, or a newer one"
            )));
        }
        done.push(migration.to_string());
    }
    Ok(Schema { applied: done, missing: missing.iter().map(ToString::to_string).collect() })
}

/// All migrations as SQL, in order, for whoever would rather read or apply them by hand.
pub fn print() -> String {
    ours().iter().map(|migration| format!("-- {migration}\n{}\n", migration.sql().unwrap_or_default())).collect()
}

fn ours() -> Vec<refinery::Migration> {
    let mut migrations = embedded::migrations::runner().get_migrations().clone();
    migrations.sort();
    migrations
}

fn refinery_error(error: refinery::Error) -> Error {
    let refinery::error::Kind::Connection(_, source) = error.kind() else {
        return Error::Stopped(format!("the migrations cannot be applied: {error}"));
    };
    let Some(cause) = source.downcast_ref::<tokio_postgres::Error>() else {
        return Error::Stopped(format!("the migrations cannot be applied: {source}"));
    };
    match cause.code().map(|code| code.code()) {
        Some("42501") => {
            let what = cause.as_db_error().map(|refusal| refusal.message()).unwrap_or_default();
            Error::Stopped(format!(
                "PostgreSQL: {what} (SQLSTATE 42501): to apply migrations the role needs the right CREATE on its \
                 schema: GRANT CREATE, USAGE ON SCHEMA … TO …, or apply them once as the owner with `assent migrate`"
            ))
        }
        _ => sqlstate::error_of(cause),
    }
}
