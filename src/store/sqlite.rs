//! The archive in a file of the data folder: `archive.sqlite`, with its log `archive.sqlite-wal`.
//!
//! One connection writes; a few others read, on threads of their own behind a bounded queue
//! (`readers.rs`), each read in a snapshot and with a bound in time. Readers never make the writer wait,
//! nor it them (WAL).
//!
//! What a commit rests on: `synchronous=FULL` syncs the log before a commit returns, and SQLite syncs
//! the folder when it makes the log; so a position that was reported is on the disk as far as the file
//! system and the disk keep what fsync promised. A torn write of the log is found by its checksums, and
//! cut off with the transaction that it belongs to. Not on a network file system: WAL needs shared memory.
//!
//! Memory-mapped reads stay off: with them an I/O error is a SIGBUS, not an error. What a writer takes is
//! measured by `cargo bench --bench store`: on 2 cores, batches of 10,000 events, every commit synced,
//! 617 k events/s where opening and outcome share a batch, 460 k/s where not; with random ids instead of
//! UUIDv7s 323 k/s and 289 k/s.

pub mod error;
mod list;
mod readers;
mod reads;
mod writer;

use super::migrate::{self, Schema};
use super::{Archived, ArchivedVote, Error, ListFilter, ListKey, Store, Writer};
use crate::model::{ApprovalId, ValidatorId};
use error::at_open;
use futures_util::future::BoxFuture;
use readers::Readers;
use rusqlite::{Connection, OpenFlags};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use writer::SqliteWriter;

/// Its file in the data folder.
pub const FILE: &str = "archive.sqlite";

const PAGE_BYTES: u32 = 4_096;
/// The log goes into the file when it holds this many pages (16 MiB): a page that several commits
/// changed is then written there once.
const CHECKPOINT_PAGES: u32 = 4_096;
/// What the log's file is cut back to after that.
const LOG_BYTES_KEPT: u32 = 64 << 20;
/// Pages that a connection keeps in memory: a whole transaction's, and those where ids of the last
/// minutes stand.
const WRITER_CACHE_KIB: u32 = 64 << 10;
const READER_CACHE_KIB: u32 = 8 << 10;

/// Where, and within which bounds.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data folder; it must be there.
    pub folder: PathBuf,
    /// Connections that read, each with a thread and up to 8 MiB.
    pub readers: usize,
    /// Reads that wait for a connection; one more is Unavailable.
    pub reads_waiting_max: usize,
    /// From being asked to its answer.
    pub read_timeout: Duration,
    /// How long a write waits for another process's lock.
    pub lock_timeout: Duration,
    /// Where the log has grown beyond this, a write waits for readers so that it can start over.
    pub log_bytes_max: u64,
    /// The file grows no further than this; `None`: as far as the disk goes.
    pub bytes_max: Option<u64>,
}

impl Options {
    pub fn new(folder: impl Into<PathBuf>) -> Options {
        Options {
            folder: folder.into(),
            readers: 2,
            reads_waiting_max: 256,
            read_timeout: Duration::from_secs(5),
            lock_timeout: Duration::from_secs(5),
            log_bytes_max: 256 << 20,
            bytes_max: None,
        }
    }
}

/// The archive in a file.
pub struct Sqlite {
    options: Options,
    readers: Readers,
}

impl Sqlite {
    /// Opens the file, making it if there is none, and brings its schema up to date.
    pub fn open(options: Options) -> Result<Sqlite, Error> {
        migrate::apply_sqlite(&mut connect_writer(&options)?)?;
        let readers = Readers::start(&options)?;
        Ok(Sqlite { options, readers })
    }
}

/// What `assent migrate --check` tells of this folder's archive; nothing is written.
pub fn check(folder: &Path) -> Result<Schema, Error> {
    let file = folder.join(FILE);
    if !file.exists() {
        let why = format!("{} is not there: a node that keeps its archive here makes it", file.display());
        return Err(Error::Stopped(why));
    }
    let mut connection = Connection::open_with_flags(file, FLAGS).map_err(at_open)?;
    connection.busy_timeout(Options::new(folder).lock_timeout).map_err(at_open)?;
    connection.pragma_update(None, "query_only", true).map_err(at_open)?;
    migrate::check_sqlite(&mut connection)
}

/// Without a lock of its own: a connection is used by one thread at a time, which Rust's types see to.
const FLAGS: OpenFlags = OpenFlags::SQLITE_OPEN_READ_WRITE.union(OpenFlags::SQLITE_OPEN_NO_MUTEX);

fn connect_writer(options: &Options) -> Result<Connection, Error> {
    let flags = FLAGS.union(OpenFlags::SQLITE_OPEN_CREATE);
    let connection = Connection::open_with_flags(options.folder.join(FILE), flags).map_err(at_open)?;
    prepare_writer(&connection, options).map_err(at_open)?;
    Ok(connection)
}

fn prepare_writer(connection: &Connection, options: &Options) -> rusqlite::Result<()> {
    connection.busy_timeout(options.lock_timeout)?;
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    into_wal(connection, options.lock_timeout)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "cache_size", -i64::from(WRITER_CACHE_KIB))?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES_KEPT)?;
    if let Some(bytes) = options.bytes_max {
        // In pages of the size that the file has, which an older version may have chosen.
        let page: u64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        connection.pragma_update(None, "max_page_count", (bytes / page).clamp(1, u64::from(u32::MAX - 1)) as i64)?;
    }
    Ok(())
}

/// Changing into WAL needs the file alone for a moment, and does not wait for that by itself.
fn into_wal(connection: &Connection, timeout: Duration) -> rusqlite::Result<()> {
    let deadline = Instant::now() + timeout;
    loop {
        match connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0)) {
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => {
                if Instant::now() >= deadline {
                    return Err(error);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(error),
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(mode) => {
                let failure = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
                let text = format!("its log cannot be used (journal mode {mode}): is this a network file system?");
                return Err(rusqlite::Error::SqliteFailure(failure, Some(text)));
            }
        }
    }
}

fn connect_reader(options: &Options) -> Result<Connection, Error> {
    let open = || {
        let connection = Connection::open_with_flags(options.folder.join(FILE), FLAGS)?;
        connection.busy_timeout(options.read_timeout)?;
        connection.pragma_update(None, "query_only", true)?;
        connection.pragma_update(None, "cache_size", -i64::from(READER_CACHE_KIB))?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(connection)
    };
    open().map_err(at_open)
}

impl Store for Sqlite {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn writer(&self) -> Result<Box<dyn Writer>, Error> {
        let log_pages_max = self.options.log_bytes_max / u64::from(PAGE_BYTES);
        Ok(Box::new(SqliteWriter::new(connect_writer(&self.options)?, log_pages_max)))
    }

    fn approvals(&self, ids: Vec<ApprovalId>) -> BoxFuture<'_, Result<Vec<Option<Archived>>, Error>> {
        self.readers.ask(move |connection| reads::approvals(connection, &ids))
    }

    fn content(&self, id: ApprovalId) -> BoxFuture<'_, Result<Option<bytes::Bytes>, Error>> {
        self.readers.ask(move |connection| reads::content(connection, id))
    }

    fn votes(&self, id: ApprovalId, after: u32, max: usize) -> BoxFuture<'_, Result<Vec<ArchivedVote>, Error>> {
        self.readers.ask(move |connection| reads::votes(connection, id, after, max))
    }

    fn vote(&self, id: ApprovalId, validator: ValidatorId) -> BoxFuture<'_, Result<Option<ArchivedVote>, Error>> {
        self.readers.ask(move |connection| reads::vote(connection, id, &validator))
    }

    fn eligible(
        &self,
        id: ApprovalId,
        after: Option<ValidatorId>,
        max: usize,
    ) -> BoxFuture<'_, Result<Vec<ValidatorId>, Error>> {
        self.readers.ask(move |connection| reads::eligible(connection, id, after.as_ref(), max))
    }

    fn list(
        &self,
        filter: ListFilter,
        after: Option<ListKey>,
        max: usize,
    ) -> BoxFuture<'_, Result<Vec<Archived>, Error>> {
        self.readers.ask(move |connection| list::list(connection, &filter, after, max))
    }
}
