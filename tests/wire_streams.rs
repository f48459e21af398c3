//! Votes and requests by streams: acknowledged once, in order, complete; and how streams end.

use crate::wire_support::{Front, id, reason, request, vote};
use assent::grpc::Limits;
use assent::wire::v1;
use futures_util::StreamExt;
use futures_util::stream::iter;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Status, Streaming};
use v1::approval_stream_request::Item;

fn message(item: Item) -> v1::ApprovalStreamRequest {
    v1::ApprovalStreamRequest { item: Some(item), validator_id: String::new() }
}

fn rows(responses: Vec<v1::ApprovalResponse>) -> v1::ApprovalStreamRequest {
    message(Item::Batch(v1::ApprovalBatch { responses, columns: None }))
}

fn columns(numbers: std::ops::Range<u64>, validator: &str, decision: u8) -> v1::VoteColumns {
    v1::VoteColumns {
        decisions: vec![decision; numbers.clone().count()].into(),
        approval_ids: numbers.flat_map(|number| id(number).into_bytes()).collect::<Vec<_>>().into(),
        validator_id: validator.into(),
        ..v1::VoteColumns::default()
    }
}

fn in_columns(columns: v1::VoteColumns) -> v1::ApprovalStreamRequest {
    message(Item::Batch(v1::ApprovalBatch { responses: vec![], columns: Some(columns) }))
}

/// Reads to the end: the last acknowledgement, all refusals, and how it ended.
async fn drain(mut answers: Streaming<v1::ApprovalStreamResponse>) -> (u64, Vec<(u64, u32, i32)>, Result<(), Status>) {
    let (mut through, mut refusals) = (0, Vec::new());
    loop {
        match answers.message().await {
            Ok(None) => return (through, refusals, Ok(())),
            Err(status) => return (through, refusals, Err(status)),
            Ok(Some(answer)) => {
                assert!(answer.acked_through >= through, "it only grows");
                for refusal in &answer.refusals {
                    assert!((through..answer.acked_through).contains(&refusal.index), "of what is newly acknowledged");
                }
                through = answer.acked_through;
                refusals.extend(answer.refusals.iter().map(|it| (it.index, it.code, it.reason)));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_a_stream_carries_is_acknowledged() {
    const APPROVALS: u64 = 3_000;
    for shards in [1, 3] {
        let mut front = Front::new(shards).await;
        let mut sent: Vec<_> = (0..APPROVALS).map(|number| message(Item::Request(request(number)))).collect();
        // One of each kind of fault among them: items 3000, 3001, 3002 …
        let bad = v1::ApprovalRequest { required_approvals: 9, ..request(7) };
        sent.push(message(Item::Request(bad)));
        sent.push(message(Item::Response(vote(0, "a", 7))));
        sent.push(message(Item::Response(vote(999_999, "a", 1))));
        sent.extend((0..500).map(|number| message(Item::Response(vote(number, "a", 1)))));
        sent.push(rows((500..1_500).map(|number| vote(number, "a", 1)).collect()));
        sent.push(v1::ApprovalStreamRequest { item: None, validator_id: "a".into() });
        sent.push(in_columns(columns(1_500..APPROVALS, "", 1)));
        // All once more: repeats; then the other way round: refused, 3,000 of them.
        sent.push(in_columns(columns(0..APPROVALS, "a", 1)));
        sent.push(in_columns(columns(0..APPROVALS, "a", 2)));
        sent.push(in_columns(columns(0..APPROVALS, "b", 1)));
        let answers = front.client.bidirectional_approval_stream(iter(sent)).await.expect("a stream").into_inner();
        let (through, refusals, end) = drain(answers).await;
        end.expect("a half-closed stream ends with OK");
        let bad = APPROVALS + 3;
        assert_eq!(through, bad + 4 * APPROVALS);
        let invalid = (Code::InvalidArgument as u32, v1::RefusalReason::InvalidArgument as i32);
        let unknown = (Code::NotFound as u32, v1::RefusalReason::NotFound as i32);
        assert_eq!(refusals[0], (APPROVALS, invalid.0, invalid.1));
        assert_eq!(refusals[1], (APPROVALS + 1, invalid.0, invalid.1));
        assert_eq!(refusals[2], (APPROVALS + 2, unknown.0, unknown.1));
        let stands = (Code::AlreadyExists as u32, v1::RefusalReason::VoteStands as i32);
        let expected: Vec<_> =
            (bad + 2 * APPROVALS..bad + 3 * APPROVALS).map(|item| (item, stands.0, stands.1)).collect();
        assert_eq!(refusals[3..], expected, "ascending and complete");
        for number in [0, 777, 2_999] {
            let asked = v1::GetApprovalStatusRequest { approval_id: id(number).to_string(), ..Default::default() };
            let state = front.client.get_approval_status(asked).await.expect("known").into_inner();
            assert_eq!((state.status, state.approvals), (v1::ApprovalStatus::Approved as i32, 2));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_batches_in_flight_stay_within_the_bounds() {
    let limits = Limits { unacknowledged_max: 100, batch_items_max: 64, ..Limits::default() };
    let mut front = Front::with(2, limits).await;
    for number in 0..10 {
        front.open(v1::ApprovalRequest { total_validators: 5_000, required_approvals: 1, ..request(number) }).await;
    }
    let sent = (0..2_000).map(|batch| rows((0..10).map(|number| vote(number, &format!("v{batch}"), 3)).collect()));
    let answers = front.client.bidirectional_approval_stream(iter(sent.collect::<Vec<_>>())).await.expect("a stream");
    let (through, refusals, end) = drain(answers.into_inner()).await;
    end.expect("OK");
    assert_eq!((through, refusals.len()), (20_000, 0));
    let many = rows(vec![vote(1, "w", 3); 65]);
    let answers = front.client.bidirectional_approval_stream(iter([many])).await.expect("a stream").into_inner();
    assert_eq!(
        reason(&drain(answers).await.2.expect_err("too many")),
        (Code::InvalidArgument, "INVALID_ARGUMENT".into(), "batch".into())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_that_do_not_agree_end_the_stream_after_what_came_before() {
    let mut front = Front::new(1).await;
    front.open(request(1)).await;
    let mut bent = columns(1..3, "a", 1);
    bent.decisions = vec![1].into();
    let sent = [message(Item::Response(vote(1, "a", 1))), in_columns(bent), message(Item::Response(vote(1, "b", 1)))];
    let answers = front.client.bidirectional_approval_stream(iter(sent)).await.expect("a stream").into_inner();
    let (through, refusals, end) = drain(answers).await;
    assert_eq!((through, refusals.len()), (1, 0));
    let expected = (Code::InvalidArgument, "INVALID_ARGUMENT".into(), "batch.columns.approval_ids".into());
    assert_eq!(reason(&end.expect_err("bent")), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_node_acknowledges_and_ends_the_stream() {
    let mut front = Front::new(1).await;
    front.open(request(1)).await;
    let (sender, receiver) = mpsc::unbounded_channel();
    sender.send(message(Item::Response(vote(1, "a", 1)))).expect("sent");
    let answers = front.client.bidirectional_approval_stream(UnboundedReceiverStream::new(receiver)).await;
    let mut answers = answers.expect("a stream").into_inner();
    assert_eq!(answers.message().await.expect("ack").expect("ack").acked_through, 1);
    front.stopper.stop();
    let status = answers.message().await.expect_err("the end");
    assert_eq!(reason(&status), (Code::Unavailable, "STOPPING".into(), String::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_gets_one_summary() {
    for encoding in [None, Some(CompressionEncoding::Gzip), Some(CompressionEncoding::Zstd)] {
        let mut front = Front::new(2).await;
        for number in 0..2 {
            front
                .open(v1::ApprovalRequest { total_validators: 32_767, required_approvals: 2, ..request(number) })
                .await;
        }
        if let Some(encoding) = encoding {
            front.client = front.client.clone().send_compressed(encoding);
        }
        // 2 votes decide, the 11,998 after them are late, one repeats, and one names nobody.
        let votes = (0..12_000).map(|number| vote(0, &format!("v{number}"), 1));
        let sent: Vec<_> = votes.chain([vote(0, "v0", 1), vote(1, "", 1)]).collect();
        let summary = front.client.batch_submit_responses(iter(sent)).await.expect("a summary").into_inner();
        assert_eq!((summary.received, summary.accepted, summary.repeated_votes), (12_002, 2, 1));
        assert_eq!((summary.refused, summary.decided), (11_999, 1));
        let counts: Vec<_> = summary.refused_by_reason.iter().map(|it| (it.reason(), it.count)).collect();
        let decided = (v1::RefusalReason::ApprovalDecided, 11_998);
        assert_eq!(counts, [(v1::RefusalReason::InvalidArgument, 1), decided]);
        assert_eq!(summary.refusals.len(), 10_000, "the first ten thousand");
        assert!(summary.refusals.iter().enumerate().all(|(at, refusal)| refusal.index == at as u64 + 2));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_streams_are_read_and_huge_messages_refused() {
    let limits = Limits { message_bytes_max: 100_000, ..Limits::default() };
    let mut front = Front::with(1, limits).await;
    front.open(request(1)).await;
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let mut client = front.client.clone().send_compressed(encoding);
        let sent = iter([rows(vec![vote(1, "a", 1); 900])]);
        let answers = client.bidirectional_approval_stream(sent).await.expect("a stream").into_inner();
        let (through, refusals, end) = drain(answers).await;
        end.expect("OK");
        assert_eq!((through, refusals.len()), (900, 0));
        // 200 kB of zeros compress well, and are refused all the same.
        let huge = v1::ApprovalRequest { content: vec![0; 200_000].into(), ..request(2) };
        let answers = client.bidirectional_approval_stream(iter([message(Item::Request(huge))])).await;
        let code = drain(answers.expect("a stream").into_inner()).await.2.expect_err("too large").code();
        assert!(matches!(code, Code::ResourceExhausted | Code::OutOfRange), "{code:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_streams_at_a_time() {
    let front = Front::new(2).await;
    let streams = (0..200u64).map(|stream| {
        let mut client = front.client.clone();
        async move {
            let opens = (0..20).map(move |number| message(Item::Request(request(stream * 1_000 + number))));
            let votes = rows((0..20).map(|number| vote(stream * 1_000 + number, "a", 1)).collect());
            let sent: Vec<_> = opens.chain([votes]).collect();
            let answers = client.bidirectional_approval_stream(iter(sent)).await.expect("a stream").into_inner();
            let (through, refusals, end) = drain(answers).await;
            end.expect("OK");
            assert_eq!((through, refusals.len()), (40, 0));
        }
    });
    futures_util::stream::iter(streams).buffer_unordered(200).collect::<Vec<_>>().await;
}
