//! The schema: as the contract has it, applied once however many come at once, and never by half.

use super::{DEPLOYMENT, writer};
use crate::support::postgres::{Database, database, options};
use assent::store::postgres::Postgres;
use assent::store::{Error, Store};
use std::sync::Barrier;
use std::thread;

fn stopped<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Stopped(text)) => text,
        other => panic!("{other:?}"),
    }
}

fn columns(database: &Database, table: &str) -> String {
    let sql = format!(
        "SELECT string_agg(column_name || ' ' || upper(udt_name) || coalesce('(' || coalesce(character_maximum_length, \
         CASE WHEN udt_name = 'numeric' THEN numeric_precision END) || coalesce(',' || CASE WHEN udt_name = 'numeric' \
         THEN numeric_scale END, '') || ')', '') || CASE is_nullable WHEN 'NO' THEN ' NOT NULL' ELSE '' END || \
         coalesce(' ' || split_part(column_default, '::', 1), ''), ', ' ORDER BY ordinal_position) \
         FROM information_schema.columns WHERE table_schema = 'public' AND table_name = '{table}'"
    );
    database.value(&sql)
}

#[test]
fn tables_have_the_contracts_columns() {
    let database = database();
    writer(&database.store());
    assert_eq!(
        columns(&database, "approval_requests"),
        "approval_id UUID NOT NULL, approval_type VARCHAR(100) NOT NULL, priority VARCHAR(50) NOT NULL, \
         requester_id UUID NOT NULL, content BYTEA NOT NULL, content_hash VARCHAR(255) NOT NULL, \
         required_approvals INT2 NOT NULL, total_validators INT2 NOT NULL, status VARCHAR(50) NOT NULL 'PENDING', \
         created_at TIMESTAMPTZ now(), expires_at TIMESTAMPTZ, finalized_at TIMESTAMPTZ, approvals INT4 NOT NULL 0, \
         rejections INT4 NOT NULL 0, abstentions INT4 NOT NULL 0, version INT4 NOT NULL 1, \
         request_digest BYTEA NOT NULL, eligible_count INT2 NOT NULL 0, eligible_digest BYTEA, log_id INT8 NOT NULL, \
         sequence INT8 NOT NULL, decided_log_id INT8, decided_sequence INT8"
    );
    assert_eq!(
        columns(&database, "approval_responses"),
        "approval_id UUID NOT NULL, validator_id VARCHAR(64) NOT NULL, decision VARCHAR(50) NOT NULL, reason TEXT, \
         created_at TIMESTAMPTZ NOT NULL now(), version INT4 NOT NULL, signature BYTEA, log_id INT8 NOT NULL, \
         sequence INT8 NOT NULL"
    );
    assert_eq!(
        columns(&database, "webhook_registry"),
        "webhook_id UUID NOT NULL, owner_id UUID NOT NULL, endpoint_url VARCHAR(2048) NOT NULL, \
         http_method VARCHAR(10) NOT NULL 'POST', status VARCHAR(50) NOT NULL 'ACTIVE', \
         webhook_secret BYTEA NOT NULL, require_signature BOOL true, custom_headers JSONB '{}', metadata JSONB '{}', \
         total_deliveries INT8 0, successful_deliveries INT8 0, failed_deliveries INT8 0, \
         success_rate NUMERIC(5,2) 0.00, created_at TIMESTAMPTZ now(), updated_at TIMESTAMPTZ now()"
    );
    assert_eq!(
        columns(&database, "webhook_delivery_records"),
        "delivery_id UUID NOT NULL, webhook_id UUID NOT NULL, event_id VARCHAR(255) NOT NULL, \
         endpoint_url VARCHAR(2048) NOT NULL, http_method VARCHAR(10) NOT NULL, request_body BYTEA, \
         response_code INT4, response_body TEXT, status VARCHAR(50) NOT NULL, attempt_number INT2 1, \
         max_attempts INT2 5, error_message TEXT, next_retry_at TIMESTAMPTZ, response_time_ms INT4, \
         created_at TIMESTAMPTZ now(), completed_at TIMESTAMPTZ"
    );
    assert_eq!(
        columns(&database, "webhook_event_subscriptions"),
        "subscription_id UUID NOT NULL, webhook_id UUID NOT NULL, event_type VARCHAR(100) NOT NULL, \
         active BOOL true, created_at TIMESTAMPTZ now()"
    );
    let indexes = database.value(
        "SELECT string_agg(tablename || substring(indexdef FROM ' \\(.*\\)'), ', ' ORDER BY tablename, indexdef) \
         FROM pg_indexes WHERE schemaname = 'public' AND tablename ~ '^(approval|webhook)'",
    );
    for index in [
        "approval_requests (approval_id)",
        "approval_requests (created_at, approval_id)",
        "approval_responses (approval_id, validator_id)",
        "webhook_registry (owner_id)",
        "webhook_registry (status)",
        "webhook_registry (created_at)",
        "webhook_registry (owner_id, status)",
        "webhook_delivery_records (webhook_id)",
        "webhook_delivery_records (status)",
        "webhook_delivery_records (created_at)",
        "webhook_delivery_records (next_retry_at)",
        "webhook_delivery_records (webhook_id, created_at, delivery_id)",
    ] {
        assert!(
            format!(", {indexes},").contains(&format!(", {index},")) || indexes.ends_with(index),
            "{index}: {indexes}"
        );
    }
    let references = "SELECT string_agg(conrelid::regclass || ' ' || pg_get_constraintdef(oid), ', ' ORDER BY 1) \
         FROM pg_constraint WHERE contype = 'f'";
    assert_eq!(
        database.value(&references.replace("ORDER BY 1", "ORDER BY conrelid::regclass::text")),
        "webhook_delivery_records FOREIGN KEY (webhook_id) REFERENCES webhook_registry(webhook_id), \
         webhook_event_subscriptions FOREIGN KEY (webhook_id) REFERENCES webhook_registry(webhook_id)"
    );
    let uncommented = "SELECT count(*) FROM pg_class c WHERE relnamespace = 'public'::regnamespace \
         AND relkind IN ('r', 'v') AND obj_description(oid, 'pg_class') IS NULL AND relname <> 'assent_migrations'";
    assert_eq!(database.value(uncommented), "0");
}

#[test]
fn views_and_triggers_give_the_right_figures() {
    let database = database();
    writer(&database.store());
    let (webhook, owner) = ("00000000-0000-0000-0000-0000000000a1", "00000000-0000-0000-0000-0000000000b1");
    database.run(&format!(
        "INSERT INTO webhook_registry (webhook_id, owner_id, endpoint_url, webhook_secret, updated_at) \
         VALUES ('{webhook}', '{owner}', 'https://one', '\\x01', '2020-01-01')"
    ));
    let deliveries = [("PENDING", "NULL"), ("RETRY", "30"), ("SUCCESS", "10"), ("FAILED", "20")];
    for (number, (status, millis)) in deliveries.iter().enumerate() {
        database.run(&format!(
            "INSERT INTO webhook_delivery_records (delivery_id, webhook_id, event_id, endpoint_url, http_method, status, \
             response_time_ms) VALUES ('00000000-0000-0000-0000-00000000000{number}', '{webhook}', 'e', 'https://one', \
             'POST', '{status}', {millis})"
        ));
    }
    let waiting = "SELECT string_agg(status, ',' ORDER BY status) FROM pending_webhook_deliveries";
    assert_eq!(database.value(waiting), "PENDING,RETRY");
    let missing = "SELECT count(*) FROM information_schema.columns r WHERE table_name = 'webhook_delivery_records' AND \
         NOT EXISTS (SELECT 1 FROM information_schema.columns v WHERE v.table_name = 'pending_webhook_deliveries' \
         AND v.column_name = r.column_name)";
    assert_eq!(database.value(missing), "0", "the view has every column");

    let update = |set: &str| database.run(&format!("UPDATE webhook_registry SET {set} WHERE webhook_id = '{webhook}'"));
    update("total_deliveries = 3, successful_deliveries = 2, failed_deliveries = 1");
    let statistics = "SELECT concat_ws(' ', webhook_id, owner_id, total_deliveries, successful_deliveries, \
         failed_deliveries, success_rate, round(avg_response_time_ms, 1)) FROM webhook_statistics";
    assert_eq!(database.value(statistics), format!("{webhook} {owner} 3 2 1 66.67 20.0"));
    let is_old = "SELECT updated_at < now() - interval '1 year' FROM webhook_registry";
    assert_eq!(database.value(is_old), "t", "counters are no change of configuration");
    update("endpoint_url = 'https://two'");
    assert_eq!(database.value(is_old), "f");
    update("successful_deliveries = 0, failed_deliveries = 0");
    assert_eq!(database.value("SELECT success_rate FROM webhook_registry"), "0.00");
    let functions = "SELECT string_agg(proname || pronargs || prorettype::regtype, ',' ORDER BY proname) FROM pg_proc \
         WHERE pronamespace = 'public'::regnamespace";
    assert_eq!(database.value(functions), "calculate_webhook_success_rate0trigger,update_webhook_updated_at0trigger");
}

#[test]
fn a_node_and_its_workers_may_start_at_once() {
    for _ in 0..5 {
        let database = database();
        let start = Barrier::new(8);
        let applied: Vec<String> = thread::scope(|scope| {
            let one = || {
                let store = database.store();
                start.wait();
                let applied = store.migrate().expect("one of them does it, and the others wait");
                store.writer().expect("a writer").adopt(DEPLOYMENT).expect("the same deployment");
                applied
            };
            let all: Vec<_> = (0..8).map(|_| scope.spawn(one)).collect();
            all.into_iter().flat_map(|one| one.join().expect("no panic")).collect()
        });
        assert_eq!(applied, ["V1__approvals", "V2__webhooks"], "each once");
        assert_eq!(database.value("SELECT count(*) FROM archive_deployment"), "1");
    }
}

#[test]
fn a_lock_that_somebody_holds_is_waited_for_within_bounds() {
    let database = database();
    let mut options = database.options();
    options.lock_timeout = std::time::Duration::from_millis(100);
    let store = Postgres::open(options).expect("good options");
    let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' \
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    thread::scope(|scope| {
        // The lock's number, as migrate.rs has it: "assent" in ASCII.
        let holds = scope.spawn(|| database.run("SELECT pg_advisory_lock(107148485160564), pg_sleep(1)"));
        while database.value(held) == "0" {
            thread::sleep(std::time::Duration::from_millis(5));
        }
        match store.migrate() {
            Err(Error::Unavailable(text)) => assert!(text.contains("somebody else is migrating"), "{text}"),
            other => panic!("{other:?}"),
        }
        holds.join().expect("no panic");
    });
    assert_eq!(store.migrate().expect("free again").len(), 2);
}

#[test]
fn a_changed_or_newer_schema_is_refused_and_nothing_is_left_by_half() {
    let database = database();
    let store = database.store();
    assert_eq!(store.schema().expect("an empty one").missing, ["V1__approvals", "V2__webhooks"]);
    assert_eq!(store.schema().expect("read only").applied, [""; 0]);
    writer(&store);
    assert_eq!(store.schema().expect("ours").missing, [""; 0]);
    database.run("INSERT INTO assent_migrations VALUES (900, 'later', '2030-01-01T00:00:00Z', '7')");
    let newer = stopped(store.writer().expect("a writer").adopt(DEPLOYMENT));
    assert!(newer.contains("V900__later") && newer.contains("newer"), "{newer}");
    database.run("DELETE FROM assent_migrations WHERE version = 900");
    database.run("UPDATE assent_migrations SET checksum = '7' WHERE version = 2");
    let changed = stopped(store.schema());
    assert!(changed.contains("V2__webhooks is not the V2__webhooks that was applied"), "{changed}");

    // The second migration meets a table of somebody else's: the first is not left behind.
    let theirs = crate::support::postgres::database();
    theirs.run("CREATE TABLE webhook_registry (mine TEXT)");
    let taken = stopped(theirs.store().migrate());
    assert!(taken.contains("webhook_registry") && taken.contains("schema of its own"), "{taken}");
    assert_eq!(theirs.value("SELECT count(*) FROM pg_tables WHERE tablename LIKE 'approval%'"), "0");
    let elsewhere = theirs.url_as("postgres", "?options=-c%20search_path%3Dnowhere");
    let nowhere = stopped(Postgres::open(options(&elsewhere)).expect("good options").migrate());
    assert!(nowhere.contains("search_path"), "{nowhere}");
    let print = assent::store::postgres::migrate::print();
    assert!(print.starts_with("-- V1__approvals\n") && print.contains("CREATE VIEW webhook_statistics"));
}

#[test]
fn a_role_needs_no_more_than_its_schema() {
    let database = database();
    let roles = database.name.clone();
    for role in ["owner", "worker", "reader"] {
        database.run(&format!("CREATE ROLE {roles}_{role} LOGIN"));
    }
    database.run("REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    let open =
        |role: &str| Postgres::open(options(&database.url_as(&format!("{roles}_{role}"), ""))).expect("good options");
    // A role without the right CREATE.
    let lacking = stopped(open("worker").migrate());
    assert!(lacking.contains("42501") && lacking.contains("GRANT CREATE"), "{lacking}");
    assert_eq!(database.value("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"), "0");
    // One that owns a schema of its own name, and nothing else.
    database.run(&format!("CREATE SCHEMA {roles}_owner AUTHORIZATION {roles}_owner"));
    let owner = open("owner");
    let mut ours = writer(&owner);
    ours.write(&super::decided(0, 10)).expect("all rights within its schema");
    // What is applied needs no right to create.
    let schema = format!("{roles}_owner");
    database.run(&format!(
        "GRANT USAGE ON SCHEMA {schema} TO {roles}_worker, {roles}_reader; \
         GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA {schema} TO {roles}_worker; \
         GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {roles}_reader; \
         ALTER ROLE {roles}_worker SET search_path = {schema}; ALTER ROLE {roles}_reader SET search_path = {schema}"
    ));
    drop(ours);
    let mut worker = writer(&open("worker"));
    worker.positions().expect("readable");
    worker.write(&super::decided(10, 20)).expect("no right to create is needed");
    let mut reader = writer(&open("reader"));
    let lacking = stopped(reader.write(&super::decided(20, 30)));
    assert!(lacking.contains("permission denied for table") && lacking.contains("right"), "{lacking}");
}

#[test]
fn another_deployments_database_is_refused_by_name() {
    let database = database();
    let store = database.store();
    writer(&store);
    writer(&store);
    let refused = stopped(store.writer().expect("a writer").adopt([8; 16]));
    for id in ["07070707-0707-0707-0707-070707070707", "08080808-0808-0808-0808-080808080808"] {
        assert!(refused.contains(id), "{refused}");
    }
}
