//! Every refusal has its code, its reason and, for a bad value, its field: one table.

use crate::support::Node;
use crate::support::calls::*;
use assent::wire::v1;
use assent::wire::v1::approval_stream_request::Item;
use prost_types::Timestamp;
use tonic::{Code, Status};

const LONG: usize = 64 << 10;

fn now_seconds() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs() as i64
}

fn at(seconds: i64, nanos: i32) -> Option<Timestamp> {
    Some(Timestamp { seconds, nanos })
}

type Change<T> = fn(&mut T);

/// What is wrong with a request, and the field that the refusal names.
const REQUESTS: &[(&str, Change<v1::ApprovalRequest>, &str)] = &[
    ("not a UUID", |r| r.approval_id = "7".into(), "approval_id"),
    ("a UUID and more", |r| r.approval_id = format!("{} ", id(5)), "approval_id"),
    ("no type", |r| r.approval_type = 0, "approval_type"),
    ("an unknown type", |r| r.approval_type = 10, "approval_type"),
    ("a negative type", |r| r.approval_type = -1, "approval_type"),
    ("a type that would fit when cut", |r| r.approval_type = 257, "approval_type"),
    ("an unknown priority", |r| r.priority = 4, "priority"),
    ("a negative priority", |r| r.priority = -3, "priority"),
    ("nobody asks", |r| r.requester_id = String::new(), "requester_id"),
    ("no UUID asks", |r| r.requester_id = "me".into(), "requester_id"),
    ("content too long", |r| r.content = vec![0; LONG + 1].into(), "content"),
    ("a hash too short", |r| r.content_hash = "sha256:abc".into(), "content_hash"),
    ("a hash too long", |r| r.content_hash = format!("sha256:{}", "0".repeat(65)), "content_hash"),
    ("a hash of no hex", |r| r.content_hash = format!("sha256:{}", "g".repeat(64)), "content_hash"),
    ("a hash of something else", |r| r.content_hash = format!("sha256:{}", "0".repeat(64)), "content_hash"),
    ("a label too long", |r| r.content_hash = "x".repeat(256), "content_hash"),
    ("a label not ASCII", |r| r.content_hash = "größe".into(), "content_hash"),
    ("a label with U+0000", |r| r.content_hash = "a\0b".into(), "content_hash"),
    ("a label not printable", |r| r.content_hash = "a\nb".into(), "content_hash"),
    ("no approval needed", |r| r.required_approvals = 0, "required_approvals"),
    ("more than there are", |r| r.required_approvals = 4, "required_approvals"),
    ("more than fit", |r| r.required_approvals = 65_537, "required_approvals"),
    ("nobody to ask", |r| r.total_validators = 0, "total_validators"),
    ("too many to ask", |r| r.total_validators = 32_768, "total_validators"),
    ("so many that they would fit when cut", |r| r.total_validators = 65_539, "total_validators"),
    ("created by the client", |r| r.created_at = at(now_seconds(), 0), "created_at"),
    ("expired before", |r| r.expires_at = at(now_seconds() - 1, 0), "expires_at"),
    ("before 1970", |r| r.expires_at = at(-1, 0), "expires_at"),
    ("too far ahead", |r| r.expires_at = at(now_seconds() + 30 * 86_400 + 60, 0), "expires_at"),
    ("after 9999", |r| r.expires_at = at(253_402_300_800, 0), "expires_at"),
    ("no fraction", |r| r.expires_at = at(now_seconds() + 60, 1_000_000_000), "expires_at"),
    ("a negative fraction", |r| r.expires_at = at(now_seconds() + 60, -1), "expires_at"),
    ("named twice", |r| r.eligible_validators = vec!["a".into(), "b".into(), "a".into()], "eligible_validators"),
    (
        "a UUID named twice, in two spellings",
        |r| r.eligible_validators = vec![id(0xABC), id(0xABC).to_uppercase(), "c".into()],
        "eligible_validators",
    ),
    ("a name with a space", |r| r.eligible_validators = vec!["a".into(), "b c".into()], "eligible_validators[1]"),
    ("a name that is empty", |r| r.eligible_validators = vec![String::new()], "eligible_validators[0]"),
    ("a name too long", |r| r.eligible_validators = vec!["n".repeat(65)], "eligible_validators[0]"),
    ("fewer named than asked", |r| r.eligible_validators = vec!["a".into(), "b".into()], "total_validators"),
    ("watched in a submit", |r| r.watch = Some(v1::WatchOptions::default()), "watch"),
];

/// What is wrong with a vote.
const VOTES: &[(&str, Change<v1::ApprovalResponse>, &str)] = &[
    ("no approval", |v| v.approval_id = String::new(), "approval_id"),
    ("not a UUID", |v| v.approval_id = "0190a5d0".into(), "approval_id"),
    ("nobody", |v| v.validator_id = String::new(), "validator_id"),
    ("a name with a space", |v| v.validator_id = "a b".into(), "validator_id"),
    ("a name too long", |v| v.validator_id = "n".repeat(65), "validator_id"),
    ("a name not ASCII", |v| v.validator_id = "jürgen".into(), "validator_id"),
    ("a name with a control character", |v| v.validator_id = "a\x7f".into(), "validator_id"),
    ("no decision", |v| v.decision = 0, "decision"),
    ("an unknown decision", |v| v.decision = 4, "decision"),
    ("a negative decision", |v| v.decision = -1, "decision"),
    ("a decision that would fit when cut", |v| v.decision = 257, "decision"),
    ("a hash too short", |v| v.content_hash = "sha256:00".into(), "content_hash"),
    ("a label too long", |v| v.content_hash = "x".repeat(256), "content_hash"),
    ("a reason too long", |v| v.reason = "r".repeat(1_025), "reason"),
    ("a reason with U+0000", |v| v.reason = "a\0".into(), "reason"),
    ("a signature too long", |v| v.signature = vec![1; 513].into(), "signature"),
];

fn named(status: &Status, what: &str, field: &str) {
    assert_eq!(refused(status), (Code::InvalidArgument, "INVALID_ARGUMENT".into(), field.into()), "{what}: {status}");
    assert!(status.message().contains(field), "{what}: {}", status.message());
}

#[tokio::test]
async fn every_bad_field_of_a_request_is_named() {
    let node = Node::start(&[]);
    let mut client = node.client().await;
    let mut talk = Talk::start(&mut client).await;
    for (item, (what, change, field)) in REQUESTS.iter().enumerate() {
        let mut asked = request(&id(1), 2, 3);
        change(&mut asked);
        let status = client.submit_approval_request(asked.clone()).await.expect_err(what);
        named(&status, what, field);
        // The same on a stream, by number.
        talk.send(Item::Request(asked)).await;
        talk.until_acked(item as u64 + 1).await;
        let last = talk.refusals.last().expect(what);
        assert_eq!((last.index, last.reason()), (item as u64, v1::RefusalReason::InvalidArgument), "{what}");
        assert_eq!(last.code, Code::InvalidArgument as u32);
    }
    let answer = client.get_approval_statuses(v1::GetApprovalStatusesRequest { approval_ids: vec![id(1)] }).await;
    assert_eq!(answer.expect("an answer").into_inner().unknown_ids, [id(1)], "nothing of it was opened");
    let metrics = client.check_health(v1::HealthCheckRequest {}).await.expect("an answer").into_inner().metrics;
    let metrics = metrics.expect("the counters");
    let refused = REQUESTS.len() as u64 * 2;
    assert_eq!((metrics.total_requests_submitted, metrics.total_responses_received), (refused, 0));
    let counts: Vec<_> = metrics.refused_by_reason.iter().map(|count| (count.reason(), count.count)).collect();
    assert_eq!(counts, [(v1::RefusalReason::InvalidArgument, refused)]);
}

#[tokio::test]
async fn every_bad_field_of_a_vote_is_named() {
    let node = Node::start(&[]);
    let mut client = node.client().await;
    open(&mut client, request(&id(1), 2, 3)).await;
    let mut talk = Talk::start(&mut client).await;
    for (item, (what, change, field)) in VOTES.iter().enumerate() {
        let mut said = vote(&id(1), "alice", Decision::Approved);
        change(&mut said);
        let status = client.submit_validator_response(said.clone()).await.expect_err(what);
        named(&status, what, field);
        talk.send(Item::Response(said)).await;
        talk.until_acked(item as u64 + 1).await;
        let last = talk.refusals.last().expect(what);
        assert_eq!((last.index, last.reason()), (item as u64, v1::RefusalReason::InvalidArgument), "{what}");
    }
    let said = VOTES.len() as u64 * 2;
    let metrics = client.check_health(v1::HealthCheckRequest {}).await.expect("an answer").into_inner().metrics;
    assert_eq!(metrics.expect("the counters").total_responses_received, said);
    let stands = cast(&mut client, &id(1), "alice", Decision::Approved).await;
    assert_eq!((stands.approvals, stands.repeat), (1, false), "none of them was taken as a vote");
}

#[tokio::test]
async fn what_is_at_its_bound_passes() {
    let node = Node::start(&[]);
    let mut client = node.client().await;
    let asked = v1::ApprovalRequest {
        content: vec![7; LONG].into(),
        content_hash: "~".repeat(255),
        required_approvals: 32_767,
        total_validators: 32_767,
        expires_at: at(now_seconds() + 30 * 86_400 - 60, 999_999_999),
        ..request(&id(1), 1, 1)
    };
    let opened = open(&mut client, asked.clone()).await;
    assert_eq!(opened.expires_at.expect("given").nanos, 999_999_000, "whole microseconds");
    // What differs below a microsecond is the same request.
    let cut = v1::ApprovalRequest { expires_at: opened.expires_at, ..asked };
    assert!(open(&mut client, cut).await.repeat);
    let said = v1::ApprovalResponse {
        reason: "r".repeat(1_024),
        signature: vec![0; 512].into(),
        content_hash: "~".repeat(255),
        ..vote(&id(1), &"~".repeat(64), Decision::Abstain)
    };
    client.submit_validator_response(said).await.expect("it counts");
    // A hash in capitals is the same hash, kept in lower case.
    let empty = "E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855";
    let opened =
        open(&mut client, v1::ApprovalRequest { content_hash: format!("sha256:{empty}"), ..request(&id(2), 1, 1) });
    assert_eq!(opened.await.content_hash, format!("sha256:{}", empty.to_lowercase()));
    let said =
        v1::ApprovalResponse { content_hash: format!("sha256:{empty}"), ..vote(&id(2), "a", Decision::Approved) };
    client.submit_validator_response(said).await.expect("it is the approval's");
}

#[tokio::test]
async fn every_rule_that_refuses_has_its_code_and_reason() {
    let node = Node::start(&[]);
    let mut client = node.client().await;
    let asked = v1::ApprovalRequest { eligible_validators: vec!["a".into(), "b".into()], ..request(&id(1), 1, 2) };
    open(&mut client, asked.clone()).await;
    open(&mut client, request(&id(2), 1, 3)).await;
    open(&mut client, request(&id(3), 1, 1)).await;
    cast(&mut client, &id(2), "stands", Decision::Rejected).await;
    cast(&mut client, &id(3), "decides", Decision::Approved).await;

    let table: [(v1::ApprovalResponse, Code, &str); 7] = [
        (vote(&id(9), "a", Decision::Approved), Code::NotFound, "NOT_FOUND"),
        (vote(&id(1), "c", Decision::Approved), Code::PermissionDenied, "NOT_ELIGIBLE"),
        (vote(&id(1), "A", Decision::Approved), Code::PermissionDenied, "NOT_ELIGIBLE"),
        (vote(&id(2), "stands", Decision::Abstain), Code::AlreadyExists, "VOTE_STANDS"),
        (vote(&id(3), "decides", Decision::Rejected), Code::AlreadyExists, "VOTE_STANDS"),
        (vote(&id(3), "late", Decision::Approved), Code::FailedPrecondition, "APPROVAL_DECIDED"),
        (
            v1::ApprovalResponse { content_hash: "other".into(), ..vote(&id(2), "new", Decision::Approved) },
            Code::FailedPrecondition,
            "CONTENT_HASH_MISMATCH",
        ),
    ];
    for (said, code, reason) in table {
        let status = client.submit_validator_response(said.clone()).await.expect_err(reason);
        assert_eq!(refused(&status), (code, reason.into(), "".into()), "{said:?}");
    }
    // The first that applies answers: decided before not eligible, and before the hash.
    cast(&mut client, &id(1), "a", Decision::Approved).await;
    let late = v1::ApprovalResponse { content_hash: "other".into(), ..vote(&id(1), "c", Decision::Approved) };
    let status = client.submit_validator_response(late).await.expect_err("decided");
    assert_eq!(refused(&status).1, "APPROVAL_DECIDED");
    let repeat = v1::ApprovalResponse { content_hash: "other".into(), ..vote(&id(1), "a", Decision::Approved) };
    assert!(client.submit_validator_response(repeat).await.expect("it stands").into_inner().repeat);

    // The same id with a request that differs in any one field.
    let base = v1::ApprovalRequest {
        content: b"x".as_slice().into(),
        content_hash: "label".into(),
        expires_at: at(now_seconds() + 3_600, 0),
        priority: v1::ApprovalPriority::High as i32,
        ..request(&id(4), 2, 3)
    };
    open(&mut client, base.clone()).await;
    let differ: [(&str, Change<v1::ApprovalRequest>); 9] = [
        ("approval_type", |r| r.approval_type = 2),
        ("priority", |r| r.priority = 3),
        ("priority left out", |r| r.priority = 0),
        ("requester_id", |r| r.requester_id = id(1)),
        ("content", |r| r.content = b"y".as_slice().into()),
        ("content_hash", |r| r.content_hash = "Label".into()),
        ("required_approvals", |r| r.required_approvals = 1),
        ("total_validators", |r| r.total_validators = 4),
        ("expires_at left out", |r| r.expires_at = None),
    ];
    for (what, change) in differ {
        let mut other = base.clone();
        change(&mut other);
        let status = client.submit_approval_request(other).await.expect_err(what);
        assert_eq!(refused(&status), (Code::AlreadyExists, "ID_TAKEN".into(), "".into()), "{what}");
    }
    // The order in which validators are named makes no other request.
    let reversed = v1::ApprovalRequest { eligible_validators: vec!["b".into(), "a".into()], ..asked };
    assert!(open(&mut client, reversed).await.repeat);
}

#[tokio::test]
async fn every_bad_argument_of_the_other_calls_is_named() {
    let node = Node::start(&[]);
    let mut client = node.client().await;
    open(&mut client, request(&id(1), 1, 1)).await;
    let status: [(v1::GetApprovalStatusRequest, &str); 6] = [
        (v1::GetApprovalStatusRequest { approval_id: "".into(), ..Default::default() }, "approval_id"),
        (v1::GetApprovalStatusRequest { approval_id: "1".into(), ..Default::default() }, "approval_id"),
        (v1::GetApprovalStatusRequest { approval_id: id(1), view: 3, ..Default::default() }, "view"),
        (v1::GetApprovalStatusRequest { approval_id: id(1), view: -1, ..Default::default() }, "view"),
        (v1::GetApprovalStatusRequest { approval_id: id(1), page_size: 1_001, ..Default::default() }, "page_size"),
        (
            v1::GetApprovalStatusRequest { approval_id: id(1), page_token: "?".into(), ..Default::default() },
            "page_token",
        ),
    ];
    for (ask, field) in status {
        named(&client.get_approval_status(ask).await.expect_err(field), field, field);
    }
    let statuses: [(Vec<String>, &str); 3] = [
        (Vec::new(), "approval_ids"),
        ((0..1_001).map(id).collect(), "approval_ids"),
        (vec![id(1), "x".into()], "approval_ids[1]"),
    ];
    for (approval_ids, field) in statuses {
        let ask = v1::GetApprovalStatusesRequest { approval_ids };
        named(&client.get_approval_statuses(ask).await.expect_err(field), field, field);
    }
    let watches: &[(&str, Change<v1::ApprovalRequest>, &str)] = &[
        ("not a UUID", |r| r.approval_id = "7".into(), "approval_id"),
        ("an unknown type", |r| r.approval_type = 10, "approval_type"),
        ("an unknown priority", |r| r.priority = 4, "priority"),
        ("not a UUID", |r| r.requester_id = "7".into(), "requester_id"),
        ("what does not filter", |r| r.content = vec![1].into(), "content"),
        ("what does not filter", |r| r.content_hash = "x".into(), "content_hash"),
        ("what does not filter", |r| r.required_approvals = 1, "required_approvals"),
        ("what does not filter", |r| r.total_validators = 1, "total_validators"),
        ("what does not filter", |r| r.expires_at = at(1, 0), "expires_at"),
        ("what does not filter", |r| r.eligible_validators = vec!["a".into()], "eligible_validators"),
        ("no token", |r| r.watch = watch_all("nonsense", false).watch, "watch.resume_token"),
        ("no token", |r| r.watch = watch_all(vec![0; 2_000], false).watch, "watch.resume_token"),
    ];
    for (what, change, field) in watches {
        let mut ask = v1::ApprovalRequest::default();
        change(&mut ask);
        named(&client.watch_approval_updates(ask).await.expect_err(what), what, field);
    }
    let pendings: &[(Change<v1::StreamPendingApprovalsRequest>, &str)] = &[
        (|r| r.approval_type = 10, "approval_type"),
        (|r| r.priority = -1, "priority"),
        (|r| r.requester_id = "7".into(), "requester_id"),
        (|r| r.awaiting_validator = "a b".into(), "awaiting_validator"),
        (|r| r.resume_token = vec![1].into(), "resume_token"),
        (|r| (r.resume_token, r.follow) = (vec![1].into(), true), "resume_token"),
    ];
    for (change, field) in pendings {
        let mut ask = v1::StreamPendingApprovalsRequest::default();
        change(&mut ask);
        named(&client.stream_pending_approvals(ask).await.expect_err(field), field, field);
    }
    for interval_ms in [99, 60_001] {
        let status = client.stream_metrics(v1::StreamMetricsRequest { interval_ms }).await.expect_err("out of bounds");
        named(&status, "interval", "interval_ms");
    }
    let subscription = |name: &str| {
        let (subscription_id, filter) = (name.into(), Some(watch_all("", false)));
        Item::Subscription(v1::StreamSubscription { subscription_id, filter, cancel: false })
    };
    for name in ["", &"n".repeat(65)] {
        let mut talk = Talk::start(&mut client).await;
        talk.send(subscription(name)).await;
        named(&talk.end().await.expect("it ends"), "a name", "subscription.subscription_id");
    }
    let mut talk = Talk::start(&mut client).await;
    talk.send_as("not legal", rows(Vec::new())).await;
    named(&talk.end().await.expect("it ends"), "the stream's validator", "validator_id");
}
