//! An approval expires when its time comes, for everyone: who reads, who votes, who watches, who repeats.

use crate::support::Node;
use crate::support::calls::*;
use assent::wire::v1;
use prost_types::Timestamp;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tonic::Code;

fn timestamp(time: Duration) -> Timestamp {
    Timestamp { seconds: time.as_secs() as i64, nanos: (time.subsec_micros() * 1_000) as i32 }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970")
}

/// A request that expires so many milliseconds from now.
fn short(number: u64, milliseconds: u64) -> v1::ApprovalRequest {
    let expires_at = Some(timestamp(now() + Duration::from_millis(milliseconds)));
    v1::ApprovalRequest { expires_at, ..request(&id(number), 2, 3) }
}

async fn status(client: &mut Client, number: u64) -> v1::ApprovalStatusMessage {
    let ask = v1::GetApprovalStatusRequest { approval_id: id(number), ..Default::default() };
    client.get_approval_status(ask).await.expect("it is there").into_inner()
}

#[tokio::test]
async fn watchers_are_told_and_it_is_finalized_at_its_time() {
    let node = Node::start(&["--shards", "2"]);
    let mut client = node.client().await;
    for number in 0..10 {
        let asked = short(number, 300 + number * 10);
        let opened = open(&mut client, asked.clone()).await;
        assert_eq!((opened.status(), opened.expires_at), (Pending, asked.expires_at));
        if number % 2 == 0 {
            cast(&mut client, &id(number), "alice", Decision::Approved).await;
        }
    }
    for number in 0..10 {
        let changes = client.watch_approval_updates(watch_of(&id(number))).await.expect("a stream");
        let (all, end) = rest_of(&mut changes.into_inner()).await;
        assert!(end.is_none(), "OK after the outcome");
        let last = all.last().expect("a state at least");
        assert_eq!((last.status(), last.approvals), (Expired, u32::from(number % 2 == 0)));
        assert!(last.finalized_at.expect("decided").nanos % 1_000 == 0);
        let (expires, finalized) = (last.expires_at.expect("kept"), last.finalized_at.expect("decided"));
        assert!((finalized.seconds, finalized.nanos) >= (expires.seconds, expires.nanos), "not before its time");
        if all.len() == 2 {
            assert_eq!(last.event_type(), v1::ApprovalEventType::Finalized);
            assert!(last.votes.is_empty(), "no vote made it");
        }
    }
    let health = client.check_health(v1::HealthCheckRequest {}).await.expect("an answer").into_inner();
    let metrics = health.metrics.expect("the counters");
    assert_eq!((metrics.total_expired, metrics.active_approvals), (10, 0));
}

#[tokio::test]
async fn whoever_comes_first_after_its_time_finds_it_expired() {
    let node = Node::start(&[]);
    let mut client = node.client().await;
    let late = now() + Duration::from_millis(400);
    let mut asked = Vec::new();
    for number in 0..5 {
        let request = v1::ApprovalRequest { expires_at: Some(timestamp(late)), ..request(&id(number), 2, 3) };
        open(&mut client, request.clone()).await;
        asked.push(request);
        cast(&mut client, &id(number), "alice", Decision::Approved).await;
    }
    // This is the wall clock's own time that is waited for: expiry has no event before it.
    tokio::time::sleep(late.saturating_sub(now())).await;
    // A first vote: refused with the outcome.
    let vote_late = vote(&id(0), "bob", Decision::Approved);
    let refusal = client.submit_validator_response(vote_late).await.expect_err("too late");
    assert_eq!(refused(&refusal), (Code::FailedPrecondition, "APPROVAL_DECIDED".into(), "".into()));
    assert_eq!(fact(&refusal, "outcome"), "EXPIRED");
    // A read, a repeated vote, a repeated request (whose expires_at lies behind now), one of many.
    assert_eq!(status(&mut client, 1).await.status(), Expired);
    let repeat = cast(&mut client, &id(2), "alice", Decision::Approved).await;
    assert_eq!((repeat.status(), repeat.repeat), (Expired, true));
    let repeat = open(&mut client, asked[3].clone()).await;
    assert_eq!((repeat.status(), repeat.repeat), (Expired, true));
    let many = v1::GetApprovalStatusesRequest { approval_ids: vec![id(4)] };
    let many = client.get_approval_statuses(many).await.expect("an answer").into_inner();
    assert_eq!(many.approvals[0].status(), Expired);
    // None of them changed the tally, and each expired once.
    for number in 0..5 {
        let state = status(&mut client, number).await;
        assert_eq!((state.approvals, state.version, state.status()), (1, 3, Expired));
    }
    let pending = client.stream_pending_approvals(v1::StreamPendingApprovalsRequest::default()).await;
    let (pending, _) = rest_of(&mut pending.expect("a stream").into_inner()).await;
    assert!(pending.is_empty());
}

#[tokio::test]
async fn a_lifetime_has_its_default_and_its_bound() {
    let node = Node::start(&["--lifetime-default-seconds", "2", "--lifetime-max-seconds", "3"]);
    let mut client = node.client().await;
    let opened = open(&mut client, request(&id(1), 1, 1)).await;
    let micros = |time: Option<Timestamp>| time.map(|time| time.seconds * 1_000_000 + i64::from(time.nanos) / 1_000);
    let lifetime = micros(opened.expires_at).expect("set") - micros(opened.created_at).expect("set");
    assert_eq!(lifetime, 2_000_000);
    let refusal = client.submit_approval_request(short(2, 4_000)).await.expect_err("too long");
    assert_eq!(refused(&refusal), (Code::InvalidArgument, "INVALID_ARGUMENT".into(), "expires_at".into()));
    open(&mut client, short(2, 2_900)).await;
}

#[tokio::test]
async fn what_expires_while_the_node_is_down_is_expired_when_it_is_back() {
    let mut node = Node::start(&["--shards", "2"]);
    let mut client = node.client().await;
    let soon_over = short(1, 300);
    let expires = soon_over.expires_at;
    open(&mut client, soon_over).await;
    open(&mut client, request(&id(2), 1, 1)).await;
    node.kill();
    let at = expires.map(|at| Duration::new(at.seconds as u64, at.nanos as u32)).expect("given");
    tokio::time::sleep(at.saturating_sub(now())).await;
    node.restart();
    let mut client = node.client().await;
    assert_eq!(status(&mut client, 1).await.status(), Expired);
    assert_eq!(status(&mut client, 2).await.status(), Pending);
}
