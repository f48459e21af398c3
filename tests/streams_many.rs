//! Many streams at a time, deadlines, and counters that are exact after a known workload.

use crate::support::Node;
use crate::support::calls::*;
use assent::wire::v1;
use assent::wire::v1::RefusalReason as Reason;
use assent::wire::v1::approval_stream_request::Item;
use std::time::Duration;
use tonic::{Code, Request};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_streams_with_work_of_their_own_are_all_acknowledged() {
    const STREAMS: u64 = 200;
    const EACH: u64 = 50;
    let node = Node::start(&["--shards", "2"]);
    let client = node.client().await;
    let streams: Vec<_> = (0..STREAMS)
        .map(|stream| {
            let mut client = client.clone();
            tokio::spawn(async move {
                let mine = stream * EACH..(stream + 1) * EACH;
                let mut talk = Talk::start(&mut client).await;
                for number in mine.clone() {
                    talk.send(Item::Request(request(&id(number), 2, 3))).await;
                }
                talk.send(batch(columns("a", mine.clone(), Decision::Approved))).await;
                let reject = |number: u64| vote(&id(number), "b", Decision::Rejected);
                talk.send(rows(mine.clone().map(reject).collect())).await;
                for number in mine.clone() {
                    talk.send(Item::Response(vote(&id(number), "c", Decision::Approved))).await;
                }
                talk.until_acked(4 * EACH).await;
                assert!(talk.refusals.is_empty(), "{:?}", talk.refused());
                talk.close();
                assert!(talk.end().await.is_none());
            })
        })
        .collect();
    for stream in streams {
        stream.await.expect("every stream is answered");
    }
    let mut client = client;
    for start in (0..STREAMS * EACH).step_by(1_000) {
        let ask = v1::GetApprovalStatusesRequest { approval_ids: (start..start + 1_000).map(id).collect() };
        let answer = client.get_approval_statuses(ask).await.expect("an answer").into_inner();
        assert_eq!(answer.approvals.len(), 1_000);
        for approval in answer.approvals {
            let tally = (approval.approvals, approval.rejections, approval.status(), approval.version);
            assert_eq!(tally, (2, 1, Approved, 4));
        }
    }
    let health = client.check_health(v1::HealthCheckRequest {}).await.expect("an answer").into_inner();
    let metrics = health.metrics.expect("the counters");
    let all = STREAMS * EACH;
    assert_eq!((metrics.total_requests_submitted, metrics.total_responses_received), (all, 3 * all));
    assert_eq!((metrics.total_events_emitted, metrics.total_approved, metrics.active_approvals), (4 * all, all, 0));
}

#[tokio::test]
async fn counters_are_exact_after_a_known_workload() {
    let node = Node::start(&["--shards", "2"]);
    let mut client = node.client().await;
    // Unary: 3 opened (one rejected, one approved, one pending), a repeat, two refused.
    for number in 1..=3 {
        open(&mut client, request(&id(number), 1, 1 + (number == 3) as u32)).await;
    }
    open(&mut client, request(&id(1), 1, 1)).await;
    client.submit_approval_request(request(&id(1), 1, 9)).await.expect_err("another request");
    client.submit_approval_request(request(&id(4), 0, 9)).await.expect_err("a bad one");
    cast(&mut client, &id(1), "a", Decision::Approved).await;
    cast(&mut client, &id(2), "a", Decision::Rejected).await;
    cast(&mut client, &id(2), "a", Decision::Rejected).await;
    cast(&mut client, &id(3), "a", Decision::Abstain).await;
    client.submit_validator_response(vote(&id(1), "b", Decision::Approved)).await.expect_err("decided");
    client.submit_validator_response(vote(&id(3), "a", Decision::Approved)).await.expect_err("it stands");
    client.submit_validator_response(vote(&id(99), "a", Decision::Approved)).await.expect_err("unknown");
    client.submit_validator_response(vote(&id(3), "", Decision::Approved)).await.expect_err("nobody");
    // The same kinds on a stream and in a batch.
    let mut talk = Talk::start(&mut client).await;
    talk.send(Item::Request(request(&id(5), 2, 3))).await;
    talk.send(Item::Request(request(&id(5), 2, 3))).await;
    talk.send(Item::Request(request(&id(5), 1, 3))).await;
    talk.send(Item::Request(request("", 1, 3))).await;
    talk.send(rows(vec![vote(&id(5), "a", Decision::Approved), vote(&id(5), "a", Decision::Approved)])).await;
    talk.send(batch(columns("b", [5, 98], Decision::Approved))).await;
    talk.until_acked(8).await;
    let backlog = vec![vote(&id(5), "late", Decision::Approved), vote(&id(3), "b", Decision::Unspecified)];
    client.batch_submit_responses(tokio_stream::iter(backlog)).await.expect("a summary");
    // A watcher counts while it is there.
    let mut changes = client.watch_approval_updates(watch_of(&id(3))).await.expect("a stream").into_inner();
    assert_eq!(next(&mut changes).await.version, 2);

    let health = client.check_health(v1::HealthCheckRequest {}).await.expect("an answer").into_inner();
    let metrics = health.metrics.expect("the counters");
    assert_eq!(metrics.total_requests_submitted, 3 + 1 + 2 + 4);
    assert_eq!(metrics.total_responses_received, 4 + 4 + 4 + 2);
    assert_eq!(metrics.total_repeats, 1 + 1 + 1 + 1);
    // Four opened, five votes that counted.
    assert_eq!(metrics.total_events_emitted, 4 + 5);
    assert_eq!((metrics.total_approved, metrics.total_rejected, metrics.total_expired), (2, 1, 0));
    assert_eq!((metrics.active_approvals, metrics.approvals_in_memory, metrics.watchers), (1, 4, 1));
    assert_eq!(
        metrics.validators_known,
        node.metric("assent_validators_known{shard=\"0\"}") as u64
            + node.metric("assent_validators_known{shard=\"1\"}") as u64
    );
    let mut refused: Vec<_> = metrics.refused_by_reason.iter().map(|count| (count.reason(), count.count)).collect();
    refused.sort_unstable_by_key(|count| count.0 as i32);
    let expected = [
        (Reason::InvalidArgument, 1 + 1 + 1 + 1),
        (Reason::NotFound, 1 + 1),
        (Reason::ApprovalDecided, 1 + 1),
        (Reason::VoteStands, 1),
        (Reason::IdTaken, 1 + 1),
    ];
    assert_eq!(refused, expected);
    // The window says the same.
    for (sample, value) in [
        ("assent_requests_submitted_total", 10.0),
        ("assent_responses_received_total", 14.0),
        ("assent_events_emitted_total", 9.0),
        ("assent_active_approvals", 1.0),
        ("assent_requests_refused_total{reason=\"INVALID_ARGUMENT\"}", 2.0),
        ("assent_votes_refused_total{reason=\"INVALID_ARGUMENT\"}", 2.0),
        ("assent_votes_refused_total{reason=\"APPROVAL_DECIDED\"}", 2.0),
        ("assent_approvals_decided_total{outcome=\"APPROVED\"}", 2.0),
        ("assent_watchers", 1.0),
        ("assent_grpc_connections", 1.0),
        // Unary submits, and nothing else.
        ("assent_request_duration_seconds_count", 6.0 + 8.0),
    ] {
        assert_eq!(node.metric(sample), value, "{sample}");
    }
}

fn with_timeout<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

fn deadline(status: &tonic::Status) {
    // A client's own timer for the same deadline may be first, and says CANCELLED.
    assert!([Code::DeadlineExceeded, Code::Cancelled].contains(&status.code()), "{status}");
}

#[tokio::test]
async fn deadlines_end_calls_and_streams_and_nothing_else() {
    let node = Node::start(&[]);
    let mut client = node.client().await;
    open(&mut client, request(&id(1), 1, 2)).await;
    let short = Duration::from_millis(100);
    let mut streams = vec![
        client.watch_approval_updates(with_timeout(watch_of(&id(1)), short)).await.expect("a stream").into_inner(),
        client.watch_approval_updates(with_timeout(watch_all("", false), short)).await.expect("one").into_inner(),
    ];
    let follow = v1::StreamPendingApprovalsRequest { follow: true, ..Default::default() };
    streams.push(client.stream_pending_approvals(with_timeout(follow, short)).await.expect("one").into_inner());
    for mut stream in streams {
        deadline(&rest_of(&mut stream).await.1.expect("its time is up"));
    }
    let never = tokio_stream::pending();
    let call = client.batch_submit_responses(with_timeout(never, short));
    deadline(&soon("the deadline", call).await.expect_err("it never closed its side"));
    let (_open, outbound) = tokio::sync::mpsc::channel(1);
    let outbound = tokio_stream::wrappers::ReceiverStream::new(outbound);
    let stream = client.bidirectional_approval_stream(with_timeout(outbound, short)).await.expect("a stream");
    deadline(&rest_of(&mut stream.into_inner()).await.1.expect("its time is up"));
    let ask = with_timeout(v1::StreamMetricsRequest { interval_ms: 60_000 }, short);
    let metrics = client.stream_metrics(ask).await.expect("a stream");
    deadline(&rest_of(&mut metrics.into_inner()).await.1.expect("its time is up"));
    // No time at all: unknown whether it counted, so a repeat tells.
    let none = with_timeout(vote(&id(1), "a", Decision::Approved), Duration::from_nanos(1));
    deadline(&client.submit_validator_response(none).await.expect_err("no time"));
    let counted = cast(&mut client, &id(1), "a", Decision::Approved).await;
    assert_eq!((counted.status(), counted.approvals), (Approved, 1));
    // Enough time is no obstacle.
    let enough = with_timeout(vote(&id(1), "a", Decision::Approved), Duration::from_secs(20));
    assert!(client.submit_validator_response(enough).await.expect("in time").into_inner().repeat);
}
