//! The archive in a file: whole after kill -9, a full disk and a bad start; reads are bounded.

use crate::support::archive::*;
use crate::support::{calls, folder, run};
use assent::model::{Decision, Micros, ValidatorId};
use assent::store::sqlite::{FILE, Options, Sqlite};
use assent::store::{ListFilter, Store};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Set in a child process of this very test: the folder whose archive it writes until it is ended.
const TO_WRITE: &str = "ARCHIVE_TO_WRITE";
/// How far the child was told that it is: of the last write that returned.
const REPORTED: &str = "reported";
const APPROVALS_A_BATCH: u64 = 50;

fn open(folder: &Path) -> Sqlite {
    Sqlite::open(Options::new(folder)).expect("the archive opens")
}

/// Writes batch after batch behind what is there, each an event of opening and one of voting per
/// approval, and notes each position that it was given. Ends with the store's error.
fn write_until_ended(folder: &Path) -> assent::store::Error {
    let store = open(folder);
    let mut writer = writer(&store);
    let at = writer.positions().expect("positions").first().map_or(0, |position| position.sequence);
    let mut log = Log { sequence: at, ..Log::default() };
    loop {
        for _ in 0..APPROVALS_A_BATCH {
            let number = log.sequence / 2;
            let id = log.open(number, |new| new.content = vec![7; 1_000].into());
            log.vote(id, "ann", Decision::Approved, 2);
        }
        if let Err(error) = writer.write(&log.take()) {
            return error;
        }
        let reported = folder.join("reported.new");
        std::fs::write(&reported, log.sequence.to_string()).expect("it can be noted");
        std::fs::rename(&reported, folder.join(REPORTED)).expect("it can be noted");
    }
}

fn reported(folder: &Path) -> u64 {
    std::fs::read_to_string(folder.join(REPORTED)).map_or(0, |text| text.parse().expect("a number"))
}

/// Exactly the rows of the events up to the position are there, and the file is sound.
fn check(folder: &Path) -> u64 {
    let store = open(folder);
    let at = writer(&store).positions().expect("positions").first().map_or(0, |position| position.sequence);
    assert_eq!(at % (2 * APPROVALS_A_BATCH), 0, "whole batches");
    let connection = rusqlite::Connection::open(folder.join(FILE)).expect("it opens");
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, u64>(0)).expect("it answers");
    assert_eq!(number("SELECT COUNT(*) FROM approval_requests"), at / 2);
    assert_eq!(number("SELECT COUNT(*) FROM approval_responses"), at / 2);
    assert_eq!(number("SELECT COALESCE(MAX(sequence), 0) FROM approval_responses"), at);
    let sound = connection.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
    assert_eq!(sound.as_deref(), Ok("ok"));
    at
}

/// This test's own binary, at this test only, told to write there; `before` is a shell's words.
fn child(test: &str, folder: &Path, before: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{before} exec \"$0\" \"$@\"")]);
    command.arg(std::env::current_exe().expect("it has a path")).args(["--exact", test, "--nocapture"]);
    command.env(TO_WRITE, folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn folder_to_write() -> Option<std::path::PathBuf> {
    std::env::var_os(TO_WRITE).map(Into::into)
}

/// Ten times kill -9 at any moment of a transaction or between two: what was reported is there, whole.
#[test]
fn survives_kill_9() {
    if let Some(folder) = folder_to_write() {
        panic!("the writer ended: {}", write_until_ended(&folder));
    }
    let folder = folder();
    let mut before = 0;
    for round in 0..10u64 {
        let mut child = child("sqlite::survives_kill_9", folder.path(), "").spawn().expect("it starts");
        let deadline = Instant::now() + Duration::from_secs(30);
        while reported(folder.path()) <= before {
            assert!(Instant::now() < deadline, "the writer wrote nothing: {:?}", child.try_wait());
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(7_919 * round % 20_000));
        child.kill().expect("it is our child");
        child.wait().expect("it ended");
        let (at, told) = (check(folder.path()), reported(folder.path()));
        assert!((told..=told + 2 * APPROVALS_A_BATCH).contains(&at), "at {at}, reported {told}");
        before = told;
    }
}

/// The kernel refuses to let the file grow: the writer stops with what to do, and what it reported stays.
#[test]
fn a_disk_that_takes_no_more() {
    if let Some(folder) = folder_to_write() {
        let why = is_stopped(Err::<(), _>(write_until_ended(&folder)));
        panic!("the writer ended: {why}");
    }
    let folder = folder();
    // No file of the child grows beyond 2,000 blocks of 512 bytes: the log, then the archive.
    let limits = "trap '' XFSZ; ulimit -f 2000;";
    let child = child("sqlite::a_disk_that_takes_no_more", folder.path(), limits).output().expect("it runs");
    let said = String::from_utf8_lossy(&child.stderr);
    assert!(said.contains("the writer ended: the disk"), "{said}");
    let at = check(folder.path());
    assert!(at > 0 && at == reported(folder.path()), "{at}");
    // With room it goes on where it was.
    let mut log = Log { sequence: at, ..Log::default() };
    log.open(at, |_| {});
    log.write(&mut *writer(&open(folder.path())));
}

/// At its own limit the archive stops, whole, and goes on with a higher one.
#[test]
fn an_archive_at_its_limit() {
    let database = SqliteFile::with(|options| options.bytes_max = Some(1 << 20));
    let mut writer = writer(database.store());
    let mut log = Log::default();
    let (full, at) = loop {
        let at = log.sequence;
        log.open(at, |new| new.content = vec![7; 10_000].into());
        let batch = log.take();
        if let Err(error) = writer.write(&batch) {
            assert!(is_stopped(Err::<(), _>(error)).contains("full: make room"));
            break (batch, at);
        }
        assert!(at < 200, "a MiB holds no more than a hundred");
    };
    assert_eq!(writer.positions().expect("it reads").first().map(|position| position.sequence), Some(at));
    assert_eq!(database.ask("SELECT COUNT(*) FROM approval_requests"), [[at.to_string()]]);
    drop(writer);
    open(database.folder.path()).writer().expect("a writer").write(&full).expect("there is room");
}

/// Another process holds the lock: unavailable after a while, and then not.
#[test]
fn a_file_that_is_locked() {
    let database = SqliteFile::with(|options| options.lock_timeout = Duration::from_millis(50));
    let mut writer = writer(database.store());
    let mut log = Log::default();
    let id = log.open(1, |_| {});
    let batch = log.take();
    let other = database.connect();
    other.execute_batch("BEGIN IMMEDIATE").expect("nobody writes");
    is_unavailable(writer.write(&batch));
    // Readers do not mind.
    assert_eq!(wait(database.store().approvals(vec![id])), Ok(vec![None]));
    other.execute_batch("ROLLBACK").expect("it was begun");
    writer.write(&batch).expect("nobody holds it");
}

/// Readers that overlap without end do not make the log grow without end.
#[test]
fn the_log_is_bounded() {
    let database = SqliteFile::with(|options| options.log_bytes_max = 1 << 20);
    let mut writer = writer(database.store());
    let done = AtomicBool::new(false);
    let read = |offset: u64| {
        let connection = database.connect();
        std::thread::sleep(Duration::from_millis(offset));
        let start = Instant::now();
        while !done.load(Ordering::Relaxed) && start.elapsed() < Duration::from_secs(30) {
            connection.execute_batch("BEGIN; SELECT COUNT(*) FROM archive_positions;").expect("it reads");
            std::thread::sleep(Duration::from_millis(4));
            connection.execute_batch("COMMIT").expect("it was begun");
        }
    };
    std::thread::scope(|scope| {
        for offset in 0..3 {
            let read = &read;
            scope.spawn(move || read(offset));
        }
        let mut log = Log::default();
        for _ in 0..100 {
            for _ in 0..APPROVALS_A_BATCH {
                let number = log.sequence;
                log.open(number, |new| new.content = vec![7; 2_000].into());
            }
            log.write(&mut *writer);
        }
        done.store(true, Ordering::Relaxed);
    });
    let wal = database.folder.path().join(format!("{FILE}-wal"));
    let bytes = std::fs::metadata(wal).expect("it is there").len();
    assert!(bytes < 3 << 20, "{bytes} bytes of log for 10 MB of rows");
}

/// Eight at once on a new folder: one makes the schema, all find it, and one deployment adopts it.
#[test]
fn starts_at_once() {
    let folder = folder();
    let start = || writer(&open(folder.path())).positions();
    std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
        for one in starts {
            assert_eq!(one.join().expect("it starts"), Ok(vec![]));
        }
    });
}

/// Files that are no archive, and folders that are not there, are named as what they are.
#[test]
fn what_cannot_be_opened() {
    let folder = folder();
    let why = |folder: &Path| is_stopped(Sqlite::open(Options::new(folder)).map(|_| ()));
    assert!(why(&folder.path().join("nowhere")).contains("cannot be opened"));
    std::fs::write(folder.path().join(FILE), vec![0x5A; 8_192]).expect("it can be written");
    assert!(why(folder.path()).contains("is damaged: restore it"));
}

fn many(database: &SqliteFile) {
    let (mut writer, mut log) = (writer(database.store()), Log::default());
    for number in 0..20_000 {
        log.open(number, |_| {});
    }
    log.write(&mut *writer);
}

/// Nobody by this name has voted: every approval is looked at.
fn long() -> ListFilter {
    ListFilter { validator: ValidatorId::parse("nobody"), ..ListFilter::default() }
}

/// A read that takes too long ends; one more than may wait is told so; what was begun is answered.
#[test]
fn reads_are_bounded() {
    let database = SqliteFile::new();
    many(&database);
    let options = Options::new(database.folder.path());
    let hasty = Sqlite::open(Options { read_timeout: Duration::from_millis(1), ..options.clone() }).expect("it opens");
    let why = is_unavailable(wait(hasty.list(long(), None, 10)));
    assert!(why.contains("too l"), "{why}");

    let narrow = Sqlite::open(Options { readers: 1, reads_waiting_max: 1, ..options }).expect("it opens");
    let asked: Vec<_> = (0..4).map(|_| narrow.list(long(), None, 10)).collect();
    let answers: Vec<_> = asked.into_iter().map(wait).collect();
    assert_eq!(answers[0], Ok(vec![]));
    let full = answers.into_iter().filter(Result::is_err).map(is_unavailable).collect::<Vec<_>>();
    assert!(full.len() >= 2 && full.iter().all(|why| why.contains("too many reads")), "{full:?}");
    assert_eq!(wait(narrow.list(ListFilter::default(), None, 1)).expect("it answers").len(), 1);
}

/// A page of the newest takes no longer because there are many.
#[test]
fn a_page_of_many() {
    let database = SqliteFile::new();
    many(&database);
    let page = wait(database.store().list(ListFilter::default(), None, 3)).expect("it answers");
    let ids: Vec<_> = page.iter().map(|archived| archived.state.id.to_string()).collect();
    assert_eq!(ids, [calls::id(19_999), calls::id(19_998), calls::id(19_997)]);
    assert_eq!(page[0].state.created_at, START.plus(19_999 * Micros::SECOND));
}

/// `assent migrate`: the schema as SQL, and what a folder's archive has of it.
#[test]
fn migrate_command() {
    let folder = folder();
    let migrate = |arguments: &[&str]| run(folder.path(), &[&["migrate"], arguments].concat(), &[]);
    let printed = migrate(&["--print"]);
    assert!(printed.stdout.contains("CREATE TABLE approval_requests"), "{printed:?}");
    assert_eq!(printed.code, Some(0));
    let none = migrate(&["--check", "--data", "."]);
    assert!(none.code == Some(1) && none.stderr.contains("archive.sqlite is not there"), "{none:?}");
    drop(open(folder.path()));
    let done = migrate(&["--check", "--data", "."]);
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), "V1__approvals: applied\nV2__webhooks: applied\n"));
    let connection = rusqlite::Connection::open(folder.path().join(FILE)).expect("it opens");
    connection.execute("DELETE FROM refinery_schema_history WHERE version = 2", []).expect("it is there");
    let missing = migrate(&["--check", "--data", "."]);
    assert_eq!((missing.code, missing.stdout.as_str()), (Some(1), "V1__approvals: applied\nV2__webhooks: missing\n"));
    for wrong in [&[][..], &["--print", "--check"]] {
        assert_eq!(migrate(wrong).code, Some(2), "{wrong:?}");
    }
}
