//! What an error of SQLite means for whoever asked.

use crate::store::Error;
use rusqlite::ErrorCode;

/// By value, for `map_err`.
pub fn at_open(error: rusqlite::Error) -> Error {
    of(&error)
}

/// Anything that is not known to pass, or to be the row's fault, needs an operator.
pub fn of(error: &rusqlite::Error) -> Error {
    let text = error.to_string();
    match error {
        // A number that has no place in 64 signed bits.
        rusqlite::Error::ToSqlConversionFailure(_) | rusqlite::Error::NulError(_) => Error::Refused(text),
        rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::Utf8Error(..) => {
            Error::Stopped(format!("a row was changed by hand, or by another version: {text}"))
        }
        _ => match error.sqlite_error_code() {
            Some(code) => by_code(code, text),
            None => Error::Stopped(text),
        },
    }
}

fn by_code(code: ErrorCode, text: String) -> Error {
    match code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed => {
            Error::Unavailable(format!("another process holds its lock ({text})"))
        }
        // Another process applied a migration meanwhile: the statement is prepared anew.
        ErrorCode::SchemaChanged | ErrorCode::OperationAborted | ErrorCode::OutOfMemory => Error::Unavailable(text),
        ErrorCode::OperationInterrupted => Error::Unavailable("the read took too long: ask for less".into()),
        ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch => Error::Refused(text),
        ErrorCode::DiskFull => {
            Error::Stopped(format!("the disk, or the archive's own limit, is full: make room, or raise it ({text})"))
        }
        ErrorCode::SystemIoFailure => {
            Error::Stopped(format!("the disk failed: look into the kernel's log, then start again ({text})"))
        }
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied => Error::Stopped(format!(
            "archive.sqlite, or its folder, may not be written: give the node that right ({text})"
        )),
        ErrorCode::CannotOpen => Error::Stopped(format!(
            "archive.sqlite cannot be opened: see that its folder is there and may be written, and that the limit on \
             open files is high enough ({text})"
        )),
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Error::Stopped(format!(
            "archive.sqlite is damaged: restore it from a copy, with archive.sqlite-wal if that is there ({text})"
        )),
        _ => Error::Stopped(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::ffi;

    #[test]
    fn every_code_has_its_fate() {
        let fate = |code: i32| {
            let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some("why".into()));
            match of(&error) {
                Error::Unavailable(_) => 'u',
                Error::Refused(_) => 'r',
                Error::Stopped(text) => {
                    assert!(text.contains("why"), "{text}");
                    's'
                }
            }
        };
        for code in [ffi::SQLITE_BUSY, ffi::SQLITE_BUSY_SNAPSHOT, ffi::SQLITE_LOCKED, ffi::SQLITE_INTERRUPT] {
            assert_eq!(fate(code), 'u', "{code}");
        }
        for code in [
            ffi::SQLITE_CONSTRAINT,
            ffi::SQLITE_CONSTRAINT_PRIMARYKEY,
            ffi::SQLITE_CONSTRAINT_NOTNULL,
            ffi::SQLITE_TOOBIG,
            ffi::SQLITE_MISMATCH,
        ] {
            assert_eq!(fate(code), 'r', "{code}");
        }
        for code in [
            ffi::SQLITE_FULL,
            ffi::SQLITE_IOERR,
            ffi::SQLITE_IOERR_FSYNC,
            ffi::SQLITE_READONLY,
            ffi::SQLITE_CORRUPT,
            ffi::SQLITE_NOTADB,
            ffi::SQLITE_PERM,
            ffi::SQLITE_CANTOPEN,
            ffi::SQLITE_ERROR,
        ] {
            assert_eq!(fate(code), 's', "{code}");
        }
    }
}
