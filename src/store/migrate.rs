//! The schema: numbered migrations that the program carries, applied at start, each once.
//!
//! What was applied stands in `refinery_schema_history` of the database itself. A migration that was
//! changed after it was applied, or that this version does not know, is an error: nobody guesses which
//! schema is there. All that is missing is applied in one transaction, so a schema is never half there.

use super::Error;
use super::sqlite::error::{at_open, of};
use refinery::error::Kind;
use refinery::{Migration, Runner};
use rusqlite::{Connection, TransactionBehavior};

mod sqlite {
    refinery::embed_migrations!("migrations/sqlite");
}

/// Where refinery keeps what was applied.
const HISTORY: &str = "refinery_schema_history";

/// What `assent migrate --check` tells of a database.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Schema {
    /// Names of migrations (`V1__approvals`), in order.
    pub applied: Vec<String>,
    pub missing: Vec<String>,
}

/// The migrations as SQL, to be read or entered by hand.
pub fn print_sqlite() -> String {
    print(&sqlite::migrations::runner())
}

/// What of the schema is there, reading only.
pub fn check_sqlite(connection: &mut Connection) -> Result<Schema, Error> {
    let runner = sqlite::migrations::runner();
    let has_history = connection
        .query_row("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = ?1)", [HISTORY], |row| row.get(0))
        .map_err(at_open)?;
    let applied = match has_history {
        true => runner.get_applied_migrations(connection).map_err(|error| explain(&error, &runner))?,
        false => Vec::new(),
    };
    judge(&runner, &applied)
}

/// Applies what is missing. Of two processes that do so at once, one does it and the other finds it done.
pub fn apply_sqlite(connection: &mut Connection) -> Result<(), Error> {
    if check_sqlite(connection)?.missing.is_empty() {
        return Ok(());
    }
    // Grouped: all of it and its entries in the history are one transaction, which takes the lock when it begins.
    let runner = sqlite::migrations::runner().set_grouped(true);
    connection.set_transaction_behavior(TransactionBehavior::Immediate);
    let run = runner.run(connection);
    connection.set_transaction_behavior(TransactionBehavior::Deferred);
    let Err(error) = run else { return Ok(()) };
    // refinery reads the history before it takes the lock: another process may have been faster, and what
    // we tried then failed as a whole on its tables.
    match check_sqlite(connection)?.missing.is_empty() {
        true => Ok(()),
        false => Err(explain(&error, &runner)),
    }
}

fn print(runner: &Runner) -> String {
    let mut text = String::new();
    for migration in in_order(runner) {
        text += &format!("-- {migration}\n\n{}\n", migration.sql().unwrap_or_default());
    }
    text
}

fn in_order(runner: &Runner) -> Vec<&Migration> {
    let mut migrations: Vec<_> = runner.get_migrations().iter().collect();
    migrations.sort();
    migrations
}

/// What is applied against what this program carries.
pub fn judge(runner: &Runner, applied: &[Migration]) -> Result<Schema, Error> {
    let known = in_order(runner);
    for done in applied {
        match known.iter().find(|migration| migration.version() == done.version()) {
            None => return Err(newer(done)),
            Some(migration) if *migration != done => return Err(changed(done, migration)),
            Some(_) => {}
        }
    }
    let is_applied = |migration: &Migration| applied.iter().any(|done| done.version() == migration.version());
    let missing = known.iter().filter(|migration| !is_applied(migration)).map(|migration| migration.to_string());
    Ok(Schema { applied: applied.iter().map(Migration::to_string).collect(), missing: missing.collect() })
}

/// refinery's error in our words.
fn explain(error: &refinery::Error, runner: &Runner) -> Error {
    match error.kind() {
        Kind::DivergentVersion(done, known) => changed(done, known),
        Kind::MissingVersion(migration) if !runner.get_migrations().contains(migration) => newer(migration),
        Kind::Connection(doing, source) => match source.downcast_ref::<rusqlite::Error>() {
            // A statement that does not fit what is there: a schema of somebody else's making.
            Some(source) if source.sqlite_error_code() == Some(rusqlite::ErrorCode::Unknown) => {
                Error::Stopped(format!(
                    "its schema cannot be made ({source}): the database holds something else under our tables' names; \
                     use an empty one"
                ))
            }
            Some(source) => of(source),
            None => Error::Stopped(format!("its schema cannot be made: {doing}: {source}")),
        },
        other => Error::Stopped(format!("its schema cannot be made: {other}")),
    }
}

fn newer(migration: &Migration) -> Error {
    Error::Stopped(format!(
        "its schema has the migration {migration}, which this version does not know: use the version of assent that \
         made it, or a newer one"
    ))
}

fn changed(done: &Migration, known: &Migration) -> Error {
    Error::Stopped(format!(
        "its migration {done} is not the {known} of this version (checksum {} in the database, {} here): the schema \
         was made by a changed build; use that build, or restore a copy of the database",
        done.checksum(),
        known.checksum()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stopped(connection: &mut Connection) -> String {
        match apply_sqlite(connection) {
            Err(Error::Stopped(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn is_applied_once() {
        let mut connection = Connection::open_in_memory().expect("memory");
        let before = check_sqlite(&mut connection).expect("an empty one");
        assert_eq!(before.applied, [""; 0]);
        assert_eq!(before.missing, ["V1__approvals", "V2__webhooks"]);
        apply_sqlite(&mut connection).expect("applied");
        apply_sqlite(&mut connection).expect("nothing to do");
        let after = check_sqlite(&mut connection).expect("ours");
        assert_eq!((after.applied, after.missing), (before.missing, before.applied));
    }

    #[test]
    fn a_changed_or_newer_one_is_an_error() {
        let mut connection = Connection::open_in_memory().expect("memory");
        apply_sqlite(&mut connection).expect("applied");
        let newer = "INSERT INTO refinery_schema_history VALUES (900, 'later', '2030-01-01T00:00:00Z', '7')";
        connection.execute(newer, []).expect("entered");
        assert!(stopped(&mut connection).contains("V900__later, which this version does not know"));
        connection.execute("DELETE FROM refinery_schema_history WHERE version = 900", []).expect("removed");
        connection.execute("UPDATE refinery_schema_history SET checksum = '7' WHERE version = 2", []).expect("changed");
        assert!(stopped(&mut connection).contains("V2__webhooks is not the V2__webhooks of this version (checksum 7"));
    }

    #[test]
    fn fails_as_a_whole() {
        let mut connection = Connection::open_in_memory().expect("memory");
        connection.execute("CREATE TABLE webhook_registry (mine TEXT)", []).expect("made");
        assert!(stopped(&mut connection).contains("webhook_registry"));
        let tables = "SELECT COUNT(*) FROM sqlite_schema WHERE name LIKE 'approval%'";
        assert_eq!(connection.query_row(tables, [], |row| row.get::<_, i64>(0)), Ok(0));
    }

    #[test]
    fn prints_every_object() {
        let text = print_sqlite();
        assert!(text.starts_with("-- V1__approvals\n"));
        for object in ["TABLE approval_requests", "TABLE webhook_registry", "VIEW webhook_statistics"] {
            assert!(text.contains(&format!("CREATE {object}")), "{object}");
        }
    }
}
