//! Databases to try the store on, and rows to put in.
//!
//! [`stores`] lists SQLite, each in a file of its own, and PostgreSQL, each in a fresh database of a real server.
//! A [`Database`] says how each is asked for its catalog.

use super::postgres;
use assent::model::{
    ApprovalId, ApprovalState, ApprovalType, ContentHash, Decision, EventRef, LogId, Micros, Outcome, Position,
    Priority, RequesterId, Status, Tally, ValidatorId,
};
use assent::store::postgres::Postgres;
use assent::store::sqlite::{FILE, Options, Sqlite};
use assent::store::{Archived, ArchivedVote, Error, NewApproval, NewOutcome, NewVote, Store, WriteBatch, Writer};
use std::future::Future;
use std::sync::LazyLock;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// A database of one test's own, and ways to look into it that are not the store's.
pub trait Database {
    fn store(&self) -> &dyn Store;
    /// Runs one statement, by a connection of its own; what it answers, as text (`NULL` for none).
    fn ask(&self, sql: &str) -> Vec<Vec<String>>;
    /// (name, type), in the database's words.
    fn columns(&self, table: &str) -> Vec<(String, String)>;
    /// The columns of each index, the primary key's among them, separated by commas.
    fn indexes(&self, table: &str) -> Vec<String>;
    /// A type of the contract in the words that [`Database::columns`] uses.
    fn spelled(&self, kind: &str) -> String;
    /// Functions or triggers by these names.
    fn has_routine(&self, name: &str) -> bool;
}

/// How a database comes to be.
pub struct Maker {
    pub name: &'static str,
    pub make: fn() -> Box<dyn Database>,
}

/// Every database that the store can be; each check runs on all of them.
pub fn stores() -> Vec<Maker> {
    vec![
        Maker { name: "sqlite", make: || Box::new(SqliteFile::new()) },
        Maker { name: "postgres", make: || Box::new(PostgresDatabase::new()) },
    ]
}

/// An archive in a folder of its own.
pub struct SqliteFile {
    store: Sqlite,
    pub folder: TempDir,
}

impl SqliteFile {
    pub fn new() -> SqliteFile {
        SqliteFile::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Options)) -> SqliteFile {
        let folder = super::folder();
        let mut options = Options::new(folder.path());
        change(&mut options);
        SqliteFile { store: Sqlite::open(options).expect("a new archive"), folder }
    }

    pub fn connect(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.folder.path().join(FILE)).expect("it is there")
    }
}

impl Database for SqliteFile {
    fn store(&self) -> &dyn Store {
        &self.store
    }

    fn ask(&self, sql: &str) -> Vec<Vec<String>> {
        let connection = self.connect();
        let mut statement = connection.prepare(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        let columns = statement.column_count();
        let text = |row: &rusqlite::Row<'_>, at: usize| -> rusqlite::Result<String> {
            use rusqlite::types::Value;
            Ok(match row.get(at)? {
                Value::Null => "NULL".into(),
                Value::Integer(number) => number.to_string(),
                Value::Real(number) => number.to_string(),
                Value::Text(text) => text,
                Value::Blob(bytes) => format!("{bytes:02x?}"),
            })
        };
        let rows = statement.query_map([], |row| (0..columns).map(|at| text(row, at)).collect());
        rows.expect("it runs").map(|row| row.unwrap_or_else(|error| panic!("{sql}: {error}"))).collect()
    }

    fn columns(&self, table: &str) -> Vec<(String, String)> {
        let rows = self.ask(&format!("SELECT name, type FROM pragma_table_info('{table}')"));
        rows.into_iter().map(|row| (row[0].clone(), row[1].clone())).collect()
    }

    fn indexes(&self, table: &str) -> Vec<String> {
        let columns = format!(
            "SELECT (SELECT group_concat(name) FROM (SELECT name FROM pragma_index_info(list.name) ORDER BY seqno)) \
             FROM pragma_index_list('{table}') AS list"
        );
        self.ask(&columns).into_iter().map(|row| row[0].clone()).collect()
    }

    fn spelled(&self, kind: &str) -> String {
        match kind {
            "UUID" | "JSONB" | "TEXT[]" => "TEXT",
            "TIMESTAMPTZ" => "INTEGER",
            "BYTEA" => "BLOB",
            "DECIMAL(5,2)" => "REAL",
            same => same,
        }
        .into()
    }

    fn has_routine(&self, name: &str) -> bool {
        !self.ask(&format!("SELECT 1 FROM sqlite_schema WHERE type = 'trigger' AND name = '{name}'")).is_empty()
    }
}

/// A database of its own on the server that all tests share.
struct PostgresDatabase {
    store: Postgres,
    database: postgres::Database,
}

impl PostgresDatabase {
    fn new() -> PostgresDatabase {
        let database = postgres::database();
        let store = database.store();
        store.migrate().expect("an empty database");
        PostgresDatabase { store, database }
    }
}

impl Database for PostgresDatabase {
    fn store(&self) -> &dyn Store {
        &self.store
    }

    fn ask(&self, sql: &str) -> Vec<Vec<String>> {
        let text = |value: Option<String>| value.unwrap_or_else(|| "NULL".into());
        self.database.run(sql).into_iter().map(|row| row.into_iter().map(text).collect()).collect()
    }

    fn columns(&self, table: &str) -> Vec<(String, String)> {
        let rows = self.ask(&format!(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute \
             WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
        ));
        rows.into_iter().map(|row| (row[0].clone(), row[1].clone())).collect()
    }

    fn indexes(&self, table: &str) -> Vec<String> {
        let columns = format!(
            "SELECT string_agg(a.attname, ',' ORDER BY k.place) FROM pg_index i \
             CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (number, place) \
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number \
             WHERE i.indrelid = '{table}'::regclass GROUP BY i.indexrelid"
        );
        self.ask(&columns).into_iter().map(|row| row[0].clone()).collect()
    }

    fn spelled(&self, kind: &str) -> String {
        kind.replace("VARCHAR", "character varying")
            .replace("DECIMAL", "numeric")
            .replace("TIMESTAMPTZ", "timestamp with time zone")
            .to_lowercase()
    }

    fn has_routine(&self, name: &str) -> bool {
        let used = "SELECT 1 FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid WHERE p.proname =";
        !self.ask(&format!("{used} '{name}'")).is_empty()
    }
}

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));

/// Waits for a read.
pub fn wait<T>(read: impl Future<Output = T>) -> T {
    RUNTIME.block_on(read)
}

pub const DEPLOYMENT: [u8; 16] = [0xD1; 16];
pub const LOG: LogId = LogId(77);
/// Of the first approval; the others follow by a second each.
pub const START: Micros = Micros(1_790_000_000_000_123);

/// A writer whose database is adopted.
pub fn writer(store: &dyn Store) -> Box<dyn Writer> {
    let mut writer = store.writer().expect("a writer");
    writer.adopt(DEPLOYMENT).expect("it is nobody's, or ours");
    writer
}

/// Events of one log, numbered from 1 as a journal does.
#[derive(Default)]
pub struct Log {
    pub sequence: u64,
    pub batch: WriteBatch,
}

impl Log {
    pub fn next(&mut self) -> Position {
        self.sequence += 1;
        Position { log: LOG, sequence: self.sequence }
    }

    /// An opening, changed; the same id for the same number.
    pub fn open(&mut self, number: u64, change: impl FnOnce(&mut NewApproval)) -> ApprovalId {
        let mut new = NewApproval {
            id: ApprovalId(super::calls::id_bytes(number)),
            approval_type: ApprovalType::LargeTransaction,
            priority: Priority::Normal,
            requester: RequesterId([0x33; 16]),
            content: bytes::Bytes::from_static(b"pay 5"),
            content_hash: ContentHash::Sha256([0xAB; 32]),
            required: 2,
            total: 3,
            created_at: START.plus(number * Micros::SECOND),
            expires_at: START.plus(Micros::SECOND * 86_400),
            digest: [number as u8; 16],
            eligible: None,
            opened: self.next(),
            outcome: None,
        };
        change(&mut new);
        let id = new.id;
        self.batch.approvals.push(new);
        id
    }

    /// The vote that makes the approval's version `version`.
    pub fn vote(&mut self, approval: ApprovalId, validator: &str, decision: Decision, version: u32) {
        let at = self.next();
        self.batch.votes.push(NewVote {
            approval,
            validator: validator.into(),
            decision,
            reason: "".into(),
            signature: Box::new([]),
            voted_at: START.plus(u64::from(version)),
            version,
            at,
        });
    }

    /// The outcome that the last event brought.
    pub fn outcome(&self, id: ApprovalId, outcome: Outcome, tally: Tally) -> NewOutcome {
        NewOutcome {
            id,
            outcome,
            tally,
            finalized_at: START.plus(5 * Micros::SECOND),
            version: 1 + tally.cast() + u32::from(outcome == Outcome::Expired),
            decided: Position { log: LOG, sequence: self.sequence },
        }
    }

    /// What came since the last time, up to here.
    pub fn take(&mut self) -> WriteBatch {
        self.batch.after = vec![Position { log: LOG, sequence: self.sequence }];
        std::mem::take(&mut self.batch)
    }

    pub fn write(&mut self, writer: &mut dyn Writer) {
        writer.write(&self.take()).expect("it is taken");
    }
}

/// What the store must answer for a row without votes.
pub fn archived(new: &NewApproval) -> Archived {
    let outcome = new.outcome.as_ref();
    let last = outcome.map_or(new.opened, |outcome| outcome.decided);
    Archived {
        state: ApprovalState {
            id: new.id,
            status: outcome.map_or(Status::Pending, |outcome| outcome.outcome.status()),
            approval_type: new.approval_type,
            priority: new.priority,
            requester: new.requester,
            content_hash: new.content_hash.clone(),
            required: new.required,
            total: new.total,
            tally: outcome.map(|outcome| outcome.tally).unwrap_or_default(),
            created_at: new.created_at,
            expires_at: new.expires_at,
            finalized_at: outcome.map(|outcome| outcome.finalized_at),
            version: outcome.map_or(1, |outcome| outcome.version),
            last_event: EventRef::new(0, last.sequence),
            eligible_count: new.eligible.as_ref().map_or(0, |set| set.members.len() as u16),
            eligible_digest: new.eligible.as_ref().map(|set| set.digest),
        },
        log: last.log,
        digest: new.digest,
    }
}

pub fn archived_vote(new: &NewVote) -> ArchivedVote {
    ArchivedVote {
        validator: ValidatorId::parse(&new.validator).expect("a legal name"),
        decision: new.decision,
        reason: new.reason.clone(),
        signature: new.signature.clone(),
        voted_at: new.voted_at,
        version: new.version,
        at: new.at,
    }
}

/// One approval, which must be there.
pub fn read(store: &dyn Store, id: ApprovalId) -> Archived {
    wait(store.approvals(vec![id])).expect("it answers").remove(0).expect("it is there")
}

pub fn is_refused<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Refused(why)) => why,
        other => panic!("not refused: {other:?}"),
    }
}

pub fn is_stopped<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Stopped(why)) => why,
        other => panic!("not stopped: {other:?}"),
    }
}

pub fn is_unavailable<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Unavailable(why)) => why,
        other => panic!("not unavailable: {other:?}"),
    }
}

/// `#[test]`s of checks: each runs on every database that [`stores`] lists.
macro_rules! on_every_store {
    ($($(#[doc = $promise:literal])+ $check:ident,)+) => {
        $(
            $(#[doc = $promise])+
            #[test]
            fn $check() {
                for maker in crate::support::archive::stores() {
                    println!("on {}", maker.name);
                    checks::$check(&*(maker.make)());
                }
            }
        )+
    };
}
pub(crate) use on_every_store;
