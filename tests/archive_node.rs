//! A node with its sinks, from outside: what has left its memory is answered as before, by each call and
//! command, also after a stop and after kill -9; each vote is a row, each event a record; and what is new
//! costs the archive no question.

use crate::support::approvals::{Client, ahead, assert_refused, id, request};
use crate::support::{Node, folder, kafka, postgres, run};
use assent::store::sqlite::FILE;
use assent::wire::v1::ValidatorDecision::{Abstain, Approved, Rejected};
use assent::wire::v1::{self, ApprovalStatus, ApprovalStatusMessage, ApprovalView};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tonic::Code;

const LOOK_UPS: &str = "assent_archive_look_ups_total";
const IN_MEMORY: &str = "assent_approvals_in_memory{shard=\"0\"}";
/// The least that what is decided stays in memory, and time to spare.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(60 + 60);
/// Decided by votes; behind them one that expires, and one that stays open.
const DECIDED: u64 = 20;
const EXPIRING: u64 = DECIDED + 1;
const OPEN: u64 = DECIDED + 2;
/// Each decided one has two votes; the open one has one.
const VOTES: u64 = 2 * DECIDED + 1;

fn at_once(number: u64) -> v1::ApprovalRequest {
    v1::ApprovalRequest { expires_at: ahead(Duration::from_secs(2)), ..request(number, 2, 3) }
}

fn of_named(number: u64) -> v1::ApprovalRequest {
    let eligible_validators = ["ann", "bob", "eve"].map(String::from).to_vec();
    v1::ApprovalRequest { total_validators: 0, eligible_validators, ..request(number, 2, 3) }
}

fn archived(node: &Node, sink: &str) {
    node.wait_for(&format!("assent_sink_state{{sink=\"{sink}\"}}"), |state| state == 1.0);
    node.wait_for(&format!("assent_sink_lag_events{{sink=\"{sink}\"}}"), |lag| lag == 0.0);
}

/// Every approval, in both views.
async fn states(client: &mut Client) -> Vec<ApprovalStatusMessage> {
    let mut states = Vec::new();
    for number in 1..=OPEN {
        for view in [ApprovalView::Basic, ApprovalView::Full] {
            states.push(client.state(number, view).await.expect("it is known"));
        }
    }
    states
}

/// What calls and commands say of approvals that are in the archive, and what is refused.
async fn check(node: &Node, before: &[ApprovalStatusMessage]) {
    let client = &mut Client::of(node).await;
    assert_eq!(states(client).await, before);

    let repeat = client.open(request(2, 2, 3)).await.expect("a repeat");
    assert!(repeat.repeat && repeat.status() == ApprovalStatus::Rejected, "{repeat:?}");
    assert!(client.open(of_named(3)).await.expect("a repeat").repeat);
    let other = client.open(request(2, 1, 3)).await.expect_err("another request");
    assert_refused(&other, Code::AlreadyExists, "ID_TAKEN", false);
    let repeat = client.vote(2, "bob", Rejected, "").await.expect("a repeat");
    assert!(repeat.repeat && repeat.status() == ApprovalStatus::Rejected, "{repeat:?}");
    let other = client.vote(2, "bob", Approved, "").await.expect_err("another vote");
    assert_refused(&other, Code::AlreadyExists, "VOTE_STANDS", false);
    let late = client.vote(1, "eve", Approved, "").await.expect_err("late");
    assert_refused(&late, Code::FailedPrecondition, "APPROVAL_DECIDED", false);
    let late = client.vote(EXPIRING, "eve", Approved, "").await.expect_err("late");
    assert_refused(&late, Code::FailedPrecondition, "APPROVAL_DECIDED", false);

    let command = |words: &[&str]| {
        let said = run(node.folder().path(), words, &[("ASSENT_ENDPOINT", &node.endpoint())]);
        assert_eq!(said.code, Some(0), "{words:?}: {said:?}");
        said.stdout
    };
    let said = command(&["status", &id(1), "--full"]);
    assert!(["APPROVED", "ann", "fine by me", "payment 1"].iter().all(|part| said.contains(part)), "{said}");
    for (status, count) in [("approved", DECIDED / 2), ("rejected", DECIDED / 2), ("expired", 1), ("pending", 1)] {
        let said = command(&["list", "--json", "--status", status]);
        assert_eq!(said.lines().count() as u64, count, "{status}: {said}");
    }
    assert_eq!(command(&["list", "--json", "--validator", "zoe"]).lines().count(), 1);
    let said = command(&["sinks", "list", "--data", node.data().to_str().expect("UTF-8")]);
    assert!(said.starts_with("archive\n"), "{said}");

    let health = client.0.check_health(v1::HealthCheckRequest {}).await.expect("an answer").into_inner();
    let sinks = health.components.iter().filter(|component| component.name.starts_with("sink-"));
    assert!(sinks.clone().count() > 0 && sinks.clone().all(|sink| sink.state() == v1::HealthState::Serving));
    let (code, page) = node.get("/readyz");
    assert_eq!(code, 200, "{page}");
}

/// Opens, votes and decides; waits until memory has let go; checks; stops, checks; kills, checks. Gives the
/// node, stopped.
async fn life(environment: &[(&str, &str)], arguments: &[&str], sinks: &[&str]) -> Node {
    let mut node = Node::try_start_with(Arc::new(folder()), arguments, environment).expect("it serves");
    let mut client = Client::of(&node).await;
    for number in 1..=DECIDED {
        let request = if number % 4 == 3 { of_named(number) } else { request(number, 2, 3) };
        client.open(request).await.expect("it opens");
        let decision = if number % 2 == 1 { Approved } else { Rejected };
        client.vote(number, "ann", decision, "fine by me").await.expect("it counts");
        client.vote(number, "bob", decision, "").await.expect("it decides");
    }
    client.open(at_once(EXPIRING)).await.expect("it opens");
    client.open(request(OPEN, 2, 3)).await.expect("it opens");
    client.vote(OPEN, "zoe", Abstain, "").await.expect("it counts");
    node.wait_for("assent_approvals_decided_total{outcome=\"EXPIRED\"}", |expired| expired == 1.0);
    sinks.iter().for_each(|sink| archived(&node, sink));
    // What was archived before a kill is forgotten after it.
    node.kill();
    node.restart();
    let mut client = Client::of(&node).await;
    let before = states(&mut client).await;
    node.wait_for_within(FORGOTTEN_WITHIN, IN_MEMORY, |count| count == 1.0);
    sinks.iter().for_each(|sink| archived(&node, sink));

    let asked = node.metric(LOOK_UPS);
    check(&node, &before).await;
    assert!(node.metric(LOOK_UPS) > asked, "the archive has answered");
    let asked = node.metric(LOOK_UPS);
    let unknown = client.state(OPEN + 1, ApprovalView::Full).await.expect_err("nowhere");
    assert_refused(&unknown, Code::NotFound, "NOT_FOUND", false);
    let unknown = client.vote(OPEN + 1, "ann", Approved, "").await.expect_err("nowhere");
    assert_refused(&unknown, Code::NotFound, "NOT_FOUND", false);
    assert_eq!(node.metric(LOOK_UPS), asked, "what was never used is not asked for");

    node.stop();
    node.restart();
    sinks.iter().for_each(|sink| archived(&node, sink));
    check(&node, &before).await;
    node.kill();
    node.restart();
    sinks.iter().for_each(|sink| archived(&node, sink));
    check(&node, &before).await;
    node.stop();
    node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_lives_with_its_own_archive() {
    let node = life(&[], &[], &["archive"]).await;
    let rows = |table: &str| -> u64 {
        let file = rusqlite::Connection::open(node.data().join(FILE)).expect("it is there");
        file.query_row(&format!("SELECT COUNT(*) FROM {table}"), [], |row| row.get(0)).expect("a count")
    };
    assert_eq!((rows("approval_requests"), rows("approval_responses")), (OPEN, VOTES));
    assert_eq!(rows("archive_rejects"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_lives_with_postgresql_and_kafka() {
    let database = postgres::database();
    let (brokers, prefix) = kafka::shared();
    let environment = [("DB_URL", database.url()), ("KAFKA_BROKERS", brokers.clone())];
    let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let topic_prefix = format!("--kafka-topic-prefix={prefix}");
    let node = life(&environment, &[&topic_prefix], &["archive", "kafka"]).await;
    let rows = |table: &str| database.value(&format!("SELECT COUNT(*) FROM {table}"));
    assert_eq!((rows("approval_requests"), rows("approval_responses")), (OPEN.to_string(), VOTES.to_string()));
    assert_eq!(rows("archive_rejects"), "0");

    let records = kafka::committed(&brokers, &format!("{prefix}approval-events"));
    let place = |event: &serde_json::Value| {
        let number = |name: &str| event[name].as_str().expect("64 bits are text").parse::<u64>().expect("a number");
        (number("log"), number("sequence"))
    };
    let data = node.data();
    let dump = run(node.folder().path(), &["journal", "dump", "--json", data.to_str().expect("UTF-8")], &[]);
    let journal: BTreeSet<_> =
        dump.stdout.lines().map(|line| place(&serde_json::from_str(line).expect("JSON"))).collect();
    let topic: BTreeSet<_> = records.iter().map(place_of).collect();
    assert_eq!(topic.len(), records.len(), "each event once");
    assert_eq!(topic, journal);
    assert_eq!(journal.len() as u64, OPEN + VOTES + 1, "an opening and a vote each, and one that expired");
}

/// A record's event, by its headers.
fn place_of(record: &kafka::Record) -> (u64, u64) {
    let number = |name| record.header(name).and_then(|text| text.parse().ok());
    (number("log").expect("a log"), number("sequence").expect("a sequence"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_new_costs_the_archive_no_question() {
    let node = Node::start(&[]);
    let mut client = Client::of(&node).await;
    let new = |id: uuid::Uuid| v1::ApprovalRequest { approval_id: id.to_string(), ..request(1, 1, 2) };
    let v4 = |number: u64| {
        let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        uuid::Builder::from_random_bytes(u128::from(mixed).rotate_left(64).wrapping_add(mixed.into()).to_be_bytes())
            .into_uuid()
    };
    for number in 0..500 {
        for id in [uuid::Uuid::now_v7(), v4(number)] {
            assert!(!client.open(new(id)).await.expect("it opens").repeat);
        }
    }
    let requests = (500..5_000).flat_map(|number| [uuid::Uuid::now_v7(), v4(number)]).map(move |id| {
        let item = Some(v1::approval_stream_request::Item::Request(new(id)));
        v1::ApprovalStreamRequest { item, ..v1::ApprovalStreamRequest::default() }
    });
    let answers = client.0.bidirectional_approval_stream(futures_util::stream::iter(requests.collect::<Vec<_>>()));
    let mut answers = answers.await.expect("a stream").into_inner();
    let mut acked = 0;
    while let Some(answer) = answers.message().await.expect("it ends well") {
        assert!(answer.refusals.is_empty(), "{answer:?}");
        acked = answer.acked_through;
    }
    assert_eq!(acked, 9_000);
    assert_eq!(node.metric("assent_approvals_opened_total{shard=\"0\"}"), 10_000.0);
    assert_eq!(node.metric(LOOK_UPS), 0.0);
}
