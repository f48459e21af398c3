//! What each error of a real server is taken for, and that the writer goes on after it.

use super::{approval_id, at, decided, opened, outcome, vote, writer};
use crate::support::postgres::{Server, database, options};
use assent::store::postgres::Postgres;
use assent::store::{Error, Reject, Store, WriteBatch};
use std::time::Duration;

fn text(result: Result<(), Error>) -> (&'static str, String) {
    match result {
        Ok(()) => ("ok", String::new()),
        Err(Error::Unavailable(text)) => ("unavailable", text),
        Err(Error::Refused(text)) => ("refused", text),
        Err(Error::Stopped(text)) => ("stopped", text),
    }
}

#[test]
fn a_refused_row_leaves_the_writer_as_it_was() {
    let database = database();
    let mut writer = writer(&database.store());
    writer.write(&decided(0, 10)).expect("good rows");
    let batch = |approvals| WriteBatch { approvals, after: vec![at(41)], ..WriteBatch::default() };

    let (fate, why) = text(writer.write(&batch(vec![opened(5, 41)])));
    assert_eq!(fate, "refused", "an id twice: {why}");
    assert!(why.contains("approval_requests_pkey"), "{why}");
    let mut long = vote(3, 4, 41);
    long.validator = "v".repeat(65).into();
    let (fate, why) = text(writer.write(&WriteBatch { votes: vec![long], after: vec![at(41)], ..Default::default() }));
    assert_eq!(fate, "refused", "{why}");
    assert!(why.contains("character varying(64)"), "{why}");
    let mut nul = vote(3, 4, 41);
    nul.reason = "a\0b".into();
    let (fate, _) = text(writer.write(&WriteBatch { votes: vec![nul], after: vec![at(41)], ..Default::default() }));
    assert_eq!(fate, "refused");
    let mut late = opened(77, 41);
    late.expires_at = assent::model::Micros(u64::MAX);
    assert_eq!(text(writer.write(&batch(vec![late]))).0, "refused");
    // An outcome without its approval, and one of a decided approval.
    for number in [99, 5] {
        let outcomes = vec![outcome(number, 41)];
        let (fate, why) = text(writer.write(&WriteBatch { outcomes, after: vec![at(41)], ..Default::default() }));
        assert_eq!(fate, "refused", "{why}");
        assert!(why.contains(&approval_id(number).to_string()), "{why}");
    }
    assert_eq!(database.value("SELECT sequence FROM archive_positions"), "40", "nothing moved");

    let reject = Reject { at: at(41), approval: approval_id(5), event: b"{}".to_vec(), reason: "twice\0".into() };
    writer.reject(&reject, at(41)).expect("kept");
    assert_eq!(database.value("SELECT sequence || encode(event, 'escape') FROM archive_rejects"), "41{}");
    writer
        .write(&WriteBatch { approvals: vec![opened(77, 42)], after: vec![at(42)], ..Default::default() })
        .expect("on");
    assert_eq!(writer.positions(), Ok(vec![at(42)]));
}

#[test]
fn positions_only_move_from_where_the_writer_left_them() {
    let database = database();
    let store = database.store();
    let (mut first, mut second) = (writer(&store), writer(&store));
    second.positions().expect("none yet");
    first.write(&decided(0, 10)).expect("good rows");
    // It still believes that the archive is empty; its rows would be there twice.
    let (fate, why) = text(second.write(&decided(0, 20)));
    assert_eq!(fate, "unavailable");
    assert!(why.contains("read the positions again"), "{why}");
    assert_eq!(text(second.write(&decided(10, 20))).0, "unavailable", "not before it has read them");
    assert_eq!(second.positions(), Ok(vec![at(40)]));
    second.write(&decided(10, 20)).expect("it knows them now");
    assert_eq!(text(second.write(&WriteBatch { after: vec![at(80)], ..Default::default() })).0, "unavailable");
}

#[test]
fn timeouts_locks_and_operators_are_met_by_trying_again() {
    let database = database();
    let mut bounds = database.options();
    bounds.lock_timeout = Duration::from_millis(200);
    bounds.read_timeout = Duration::from_millis(300);
    let store = Postgres::open(bounds).expect("good options");
    let mut writer = writer(&store);
    writer.write(&decided(0, 10)).expect("good rows");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (client, connection) =
            tokio_postgres::connect(&database.url(), tokio_postgres::NoTls).await.expect("it lets us in");
        tokio::spawn(connection);
        client.batch_execute("BEGIN; LOCK TABLE approval_requests IN ACCESS EXCLUSIVE MODE").await.expect("locked");
        let (fate, why) = tokio::task::spawn_blocking(move || {
            let done = text(writer.write(&decided(10, 20)));
            // Not dropped with the closure: the writer has a runtime of its own.
            drop(writer);
            done
        })
        .await
        .expect("no panic");
        assert_eq!(fate, "unavailable");
        assert!(why.contains("55P03"), "{why}");
        let read = store.approvals(vec![approval_id(1)]).await;
        assert!(matches!(read, Err(Error::Unavailable(_))), "{read:?}");
        client.batch_execute("COMMIT").await.expect("unlocked");
        let read = store.approvals(vec![approval_id(1)]).await.expect("free again");
        assert!(read[0].is_some());
        // An operator ends every connection but its own.
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid()";
        client.batch_execute(end).await.expect("the superuser may");
        tokio::time::sleep(Duration::from_millis(50)).await;
        let read = store.approvals(vec![approval_id(1)]).await;
        let read = if read.is_err() { store.approvals(vec![approval_id(1)]).await } else { read };
        assert!(read.expect("a new connection")[0].is_some());
    });
}

#[test]
fn no_room_for_connections_is_tried_again_and_read_only_is_not() {
    let server = Server::start(&["max_connections=5", "superuser_reserved_connections=2"]);
    let database = server.database();
    database.run("CREATE ROLE clerk LOGIN; GRANT CREATE ON SCHEMA public TO clerk");
    let store = Postgres::open(options(&database.url_as("clerk", ""))).expect("good options");
    let mut held: Vec<_> = (0..3).map(|_| store.writer().expect("a writer")).collect();
    held.iter_mut().for_each(|writer| writer.adopt([1; 16]).expect("there is room"));
    let mut more = store.writer().expect("it connects later");
    let (fate, why) = text(more.adopt([1; 16]));
    assert_eq!(fate, "unavailable", "{why}");
    held.pop();
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while more.adopt([1; 16]).is_err() {
        assert!(std::time::Instant::now() < until, "room again");
        std::thread::sleep(Duration::from_millis(20));
    }
    more.positions().expect("it is connected");
    more.write(&decided(0, 10)).expect("good rows");
    database.run("ALTER ROLE clerk SET default_transaction_read_only = on");
    let mut writer = held.pop().expect("one is left");
    drop(more);
    drop(held);
    database.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'clerk'");
    std::thread::sleep(Duration::from_millis(100));
    // Its connection is gone; the next one is read-only.
    let _ = writer.positions();
    writer.positions().expect("reading is allowed");
    let (fate, why) = text(writer.write(&decided(10, 20)));
    assert_eq!(fate, "stopped", "{why}");
    assert!(why.contains("name the primary"), "{why}");
    // A table that somebody dropped.
    database.run("ALTER ROLE clerk RESET default_transaction_read_only; DROP TABLE approval_responses");
    let mut writer = store.writer().expect("a writer");
    let (fate, why) = text(writer.write(&decided(10, 20)));
    assert_eq!(fate, "stopped", "{why}");
    assert!(why.contains("migrate --check"), "{why}");
}

#[test]
fn a_full_disk_stops_and_says_so() {
    // A tablespace on a tiny file system would need root: a limit on the size of files does the same
    // to the write that meets it.
    let server = Server::start_with_file_limit(24 << 20);
    let database = server.database();
    let mut writer = writer(&database.store());
    let mut fate = ("ok", String::new());
    for round in 0..200 {
        fate = text(writer.write(&decided(round * 1_000, (round + 1) * 1_000)));
        if fate.0 != "ok" {
            break;
        }
    }
    assert_eq!(fate.0, "stopped", "{}", fate.1);
}

#[test]
fn commits_are_durable_whatever_the_role_says() {
    let database = database();
    database.run(&format!("ALTER DATABASE {} SET synchronous_commit = off", database.name));
    let mut writer = writer(&database.store());
    writer.write(&decided(0, 1)).expect("good rows");
    // Seen from within a trigger, which runs on the writer's connection.
    database.run(
        "CREATE TABLE seen (setting TEXT); \
         CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN INSERT INTO seen VALUES (current_setting(''synchronous_commit'')); RETURN NULL; END'; \
         CREATE TRIGGER see AFTER INSERT ON approval_requests EXECUTE FUNCTION see()",
    );
    writer.write(&decided(1, 2)).expect("good rows");
    assert_eq!(database.value("SELECT setting FROM seen"), "on");
}
