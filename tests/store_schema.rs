//! SQL written against the contract keeps working: tables, columns, types, indexes, views, triggers.
//!
//! Each check runs on every database of `support::archive::stores`.

use crate::support::archive::on_every_store;

on_every_store!(
    /// Every column of the contract is there with its type.
    columns,
    /// Every index of the contract is there.
    indexes,
    /// The README's questions are answered.
    questions,
    /// What waits is in one view; a webhook's figures are in another.
    views,
    /// A webhook's success rate follows its counters; updated_at follows its configuration only.
    triggers,
);

mod checks {
    use crate::support::archive::{Database, Log, writer};
    use assent::model::{Decision, Outcome, Tally};

    const TABLES: &[(&str, &str)] = &[
        (
            "approval_requests",
            "approval_id UUID, approval_type VARCHAR(100), priority VARCHAR(50), requester_id UUID, content BYTEA, \
             content_hash VARCHAR(255), required_approvals SMALLINT, total_validators SMALLINT, status VARCHAR(50), \
             created_at TIMESTAMPTZ, expires_at TIMESTAMPTZ, finalized_at TIMESTAMPTZ, approvals INTEGER, \
             rejections INTEGER, abstentions INTEGER, version INTEGER, request_digest BYTEA, eligible_count SMALLINT, \
             eligible_digest BYTEA, log_id BIGINT, sequence BIGINT, decided_log_id BIGINT, decided_sequence BIGINT",
        ),
        (
            "approval_responses",
            "approval_id UUID, validator_id VARCHAR(64), decision VARCHAR(50), reason TEXT, created_at TIMESTAMPTZ, \
             version INTEGER, signature BYTEA, log_id BIGINT, sequence BIGINT",
        ),
        ("eligible_sets", "set_digest BYTEA, members TEXT[]"),
        ("archive_positions", "log_id BIGINT, sequence BIGINT, updated_at TIMESTAMPTZ"),
        ("archive_deployment", "deployment_id UUID, created_at TIMESTAMPTZ"),
        (
            "archive_rejects",
            "log_id BIGINT, sequence BIGINT, approval_id UUID, event BYTEA, reason TEXT, created_at TIMESTAMPTZ",
        ),
        (
            "webhook_registry",
            "webhook_id UUID, owner_id UUID, endpoint_url VARCHAR(2048), http_method VARCHAR(10), status VARCHAR(50), \
             require_signature BOOLEAN, custom_headers JSONB, metadata JSONB, total_deliveries BIGINT, \
             successful_deliveries BIGINT, failed_deliveries BIGINT, success_rate DECIMAL(5,2), created_at TIMESTAMPTZ, \
             updated_at TIMESTAMPTZ",
        ),
        (
            "webhook_delivery_records",
            "delivery_id UUID, webhook_id UUID, event_id VARCHAR(255), endpoint_url VARCHAR(2048), \
             http_method VARCHAR(10), request_body BYTEA, response_code INTEGER, response_body TEXT, \
             status VARCHAR(50), attempt_number SMALLINT, max_attempts SMALLINT, error_message TEXT, \
             next_retry_at TIMESTAMPTZ, response_time_ms INTEGER, created_at TIMESTAMPTZ, completed_at TIMESTAMPTZ",
        ),
        (
            "webhook_event_subscriptions",
            "subscription_id UUID, webhook_id UUID, event_type VARCHAR(100), active BOOLEAN, created_at TIMESTAMPTZ",
        ),
    ];

    pub fn columns(database: &dyn Database) {
        for (table, columns) in TABLES {
            let there = database.columns(table);
            for column in columns.split(", ") {
                let (name, kind) = column.split_once(' ').expect("a name and a type");
                let column = (name.to_string(), database.spelled(kind));
                assert!(there.contains(&column), "{table}: {column:?} in {there:?}");
            }
        }
        let secret = database.columns("webhook_registry").into_iter().find(|(name, _)| name == "webhook_secret");
        assert!(secret.is_some(), "webhook_registry.webhook_secret");
    }

    pub fn indexes(database: &dyn Database) {
        for (table, indexes) in [
            ("approval_requests", &["approval_id", "created_at,approval_id"][..]),
            ("approval_responses", &["approval_id,validator_id"]),
            ("eligible_sets", &["set_digest"]),
            ("archive_positions", &["log_id"]),
            ("archive_rejects", &["log_id,sequence"]),
            ("webhook_registry", &["webhook_id", "owner_id", "status", "created_at", "owner_id,status"]),
            (
                "webhook_delivery_records",
                &[
                    "delivery_id",
                    "webhook_id",
                    "status",
                    "created_at",
                    "next_retry_at",
                    "webhook_id,created_at,delivery_id",
                ],
            ),
            ("webhook_event_subscriptions", &["subscription_id"]),
        ] {
            let there = database.indexes(table);
            for index in indexes {
                assert!(there.iter().any(|columns| columns == index), "{table}: ({index}) in {there:?}");
            }
        }
    }

    /// Each statement of the README, on two decided approvals; its first row.
    pub fn questions(database: &dyn Database) {
        let (mut writer, mut log) = (writer(database.store()), Log::default());
        for (number, outcome, decision) in
            [(1, Outcome::Approved, Decision::Approved), (2, Outcome::Rejected, Decision::Rejected)]
        {
            let id = log.open(number, |_| {});
            log.vote(id, "ann", decision, 2);
            log.vote(id, "bob", Decision::Approved, 3);
            let outcome = log.outcome(id, outcome, Tally { approvals: 1, ..Tally::default() });
            log.batch.approvals.last_mut().expect("it was opened").outcome = Some(outcome);
        }
        log.write(&mut *writer);
        let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("it is there");
        let (_, block) = readme.split_once("```sql\n").expect("the README has questions");
        let (block, _) = block.split_once("```").expect("the block ends");
        let answers: Vec<_> = block.split_inclusive(';').map(str::trim).filter(|sql| !sql.is_empty()).collect();
        let answers: Vec<_> = answers.into_iter().map(|sql| database.ask(sql)).collect();
        assert_eq!(answers.len(), 3);
        assert_eq!(answers[0], [["LARGE_TRANSACTION", "APPROVED", "1"], ["LARGE_TRANSACTION", "REJECTED", "1"]]);
        let rejected = crate::support::calls::id(2);
        let row = |version, name, decision| [rejected.as_str(), version, name, decision, "NULL"].map(String::from);
        assert_eq!(answers[1], [row("2", "ann", "REJECTED"), row("3", "bob", "APPROVED")]);
        assert_eq!(answers[2], [["ann", "2", "2"], ["bob", "2", "1"]]);
    }

    const WEBHOOK: &str = "0190a5d0-0000-7000-8000-0000000000aa";
    const OWNER: &str = "0190a5d0-0000-7000-8000-0000000000bb";

    /// One webhook; `secret` is whatever its column takes.
    fn webhook(database: &dyn Database) {
        database.ask(&format!(
            "INSERT INTO webhook_registry (webhook_id, owner_id, endpoint_url, webhook_secret) \
             VALUES ('{WEBHOOK}', '{OWNER}', 'https://example.com/', 'x')"
        ));
    }

    pub fn views(database: &dyn Database) {
        webhook(database);
        for (number, status, took) in
            [(1, "PENDING", "NULL"), (2, "SUCCESS", "10"), (3, "RETRY", "30"), (4, "FAILED", "20")]
        {
            database.ask(&format!(
                "INSERT INTO webhook_delivery_records \
                 (delivery_id, webhook_id, event_id, endpoint_url, http_method, status, response_time_ms) VALUES \
                 ('0190a5d0-0000-7000-8000-00000000000{number}', '{WEBHOOK}', 'evt_{number}', 'https://example.com/', \
                 'POST', '{status}', {took})"
            ));
        }
        let waiting = database.ask("SELECT event_id FROM pending_webhook_deliveries ORDER BY event_id");
        assert_eq!(waiting, [["evt_1"], ["evt_3"]]);
        let names = |table| database.columns(table).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names("pending_webhook_deliveries"), names("webhook_delivery_records"));
        database
            .ask("UPDATE webhook_registry SET total_deliveries = 4, successful_deliveries = 2, failed_deliveries = 1");
        let figures = database.ask(
            "SELECT CAST(webhook_id AS VARCHAR(36)), CAST(owner_id AS VARCHAR(36)), total_deliveries, \
             successful_deliveries, failed_deliveries, CAST(success_rate * 100 AS INTEGER), \
             CAST(avg_response_time_ms AS INTEGER) FROM webhook_statistics",
        );
        assert_eq!(figures, [[WEBHOOK, OWNER, "4", "2", "1", "6667", "20"]]);
    }

    pub fn triggers(database: &dyn Database) {
        for name in ["update_webhook_updated_at", "calculate_webhook_success_rate"] {
            assert!(database.has_routine(name), "{name}");
        }
        webhook(database);
        let rate = || database.ask("SELECT CAST(success_rate * 100 AS INTEGER) FROM webhook_registry")[0][0].clone();
        let updated = || database.ask("SELECT CAST(updated_at AS VARCHAR(40)) FROM webhook_registry")[0][0].clone();
        assert_eq!(rate(), "0");
        let made = updated();
        let pause = || std::thread::sleep(std::time::Duration::from_millis(5));
        for (successful, failed, expected) in
            [(1, 0, "10000"), (1, 1, "5000"), (999, 1, "9990"), (0, 1, "0"), (0, 0, "0")]
        {
            pause();
            database.ask(&format!(
                "UPDATE webhook_registry SET total_deliveries = 1000, successful_deliveries = {successful}, \
                 failed_deliveries = {failed}"
            ));
            assert_eq!((rate().as_str(), updated()), (expected, made.clone()), "{successful} and {failed}");
        }
        pause();
        database.ask("UPDATE webhook_registry SET status = status");
        assert_eq!(updated(), made, "nothing was changed");
        database.ask("UPDATE webhook_registry SET endpoint_url = 'https://example.com/2'");
        assert!(updated() > made);
    }
}
