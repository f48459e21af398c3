//! What an error of PostgreSQL means for who asked: try again, give up the row, or stop.
//!
//! By SQLSTATE where the server gave one (its documentation, appendix A), by kind where the connection
//! failed. Texts are the server's own with what to do behind; a password is in none of them.

use crate::store::Error;
use tokio_postgres::error::DbError;

pub(super) fn error(error: tokio_postgres::Error) -> Error {
    error_of(&error)
}

pub(super) fn error_of(error: &tokio_postgres::Error) -> Error {
    match error.as_db_error() {
        Some(refusal) => by_code(refusal),
        None => of_connection(error),
    }
}

/// The pool's; a wait for a connection that took too long included.
pub(super) fn pool_error(error: deadpool_postgres::PoolError) -> Error {
    match error {
        deadpool_postgres::PoolError::Backend(inner) => self::error(inner),
        deadpool_postgres::PoolError::Timeout(_) => {
            Error::Unavailable("no connection to PostgreSQL came free in time".into())
        }
        error => Error::Unavailable(error.to_string()),
    }
}

fn by_code(refusal: &DbError) -> Error {
    let code = refusal.code().code();
    let text = text_of(refusal);
    match fate(code) {
        Fate::Unavailable => Error::Unavailable(text),
        Fate::Refused => Error::Refused(text),
        Fate::Stopped(what_to_do) => Error::Stopped(format!("{text}; {what_to_do}")),
    }
}

#[derive(Debug, Eq, PartialEq)]
enum Fate {
    Unavailable,
    Refused,
    Stopped(&'static str),
}

fn fate(code: &str) -> Fate {
    use Fate::{Refused, Stopped, Unavailable};
    match code {
        "53100" => Stopped("the disk of PostgreSQL is full: make room, then start again"),
        "53400" => Stopped("a limit of PostgreSQL's configuration is reached: raise it"),
        "25006" => Stopped("this server takes no writes (a standby?): name the primary, or all hosts, in DB_URL"),
        "42501" => Stopped("the role lacks a right: grant it, or connect as the owner of the schema"),
        "42P01" | "42703" | "42883" | "42804" => {
            Stopped("the schema is not the one that assent made: check it with `assent migrate --check`")
        }
        "42P07" | "42723" | "42710" => Stopped(
            "the schema holds an object of that name which assent did not make: give assent a schema of its own",
        ),
        "3D000" => Stopped("create the database, or correct DB_URL"),
        "3F000" => Stopped("create the schema, or correct search_path"),
        "54000" | "54001" | "54011" | "54023" => Refused,
        "58P01" | "58P02" | "58030" => Stopped("PostgreSQL cannot use its own files: see its log"),
        _ => match &code[..2] {
            // Connection, out of connections or memory, transaction to be tried again, lock, operator.
            "08" | "53" | "40" | "55" | "57" => Unavailable,
            // Data and constraints.
            "22" | "23" => Refused,
            "28" => Stopped("PostgreSQL does not let this user in: correct user or password in DB_URL, or pg_hba.conf"),
            "XX" => Stopped("PostgreSQL reports an internal fault or damage: see its log"),
            _ => Stopped("this should not happen: see PostgreSQL's log"),
        },
    }
}

fn text_of(refusal: &DbError) -> String {
    let mut text = format!("PostgreSQL: {} (SQLSTATE {}", refusal.message(), refusal.code().code());
    for (what, name) in [("table", refusal.table()), ("column", refusal.column()), ("constraint", refusal.constraint())]
    {
        if let Some(name) = name {
            text += &format!(", {what} {name}");
        }
    }
    text.push(')');
    for more in [refusal.detail(), refusal.where_()].into_iter().flatten() {
        // A row's values can be long.
        text += ": ";
        text.extend(more.chars().take(300));
    }
    text
}

fn of_connection(error: &tokio_postgres::Error) -> Error {
    let mut text = format!("PostgreSQL: {error}");
    let mut source = std::error::Error::source(error);
    let mut untrusted = false;
    while let Some(cause) = source {
        text += &format!(": {cause}");
        let inner = cause.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref());
        let tls = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        untrusted |= matches!(tls, Some(rustls::Error::InvalidCertificate(_)));
        source = cause.source();
    }
    if untrusted {
        return Error::Stopped(format!("{text}; its certificate is not one that sslrootcert and sslmode ask for"));
    }
    // These kinds have no public name; their texts are tested against real servers.
    if text.contains("server does not support TLS") {
        return Error::Stopped(format!("{text}; turn ssl on there, or set sslmode=prefer in DB_URL"));
    }
    if text.contains("authentication error") || text.contains("invalid configuration") {
        return Error::Stopped(format!("{text}; correct DB_URL (PGPASSWORD?)"));
    }
    if text.contains("error serializing parameter") || text.contains("error deserializing column") {
        return Error::Stopped(format!("{text}; the schema is not the one that assent made"));
    }
    Error::Unavailable(text)
}

#[cfg(test)]
mod tests {
    use super::{Fate, fate};

    #[test]
    fn every_class_has_its_fate() {
        let unavailable = ["08000", "08006", "57P01", "57P02", "57P03", "57014", "40001", "40P01", "55P03", "53300"];
        assert!(unavailable.iter().all(|code| fate(code) == Fate::Unavailable));
        let refused = ["22001", "22003", "22021", "22P03", "23502", "23505", "23514", "54000"];
        assert!(refused.iter().all(|code| fate(code) == Fate::Refused));
        let stopped =
            ["53100", "42501", "28P01", "28000", "3D000", "42P01", "42703", "25006", "XX001", "58030", "0A000"];
        assert!(stopped.iter().all(|code| matches!(fate(code), Fate::Stopped(_))));
    }
}
