//! Watches and subscriptions: tokens, ends, the order of what is pending.

use crate::wire_support::{Front, LOG, id, reason, request, vote};
use assent::grpc::{WatchEnd, WatchItem};
use assent::model::Position;
use assent::wire::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Code;
use v1::approval_stream_request::Item;

fn change(number: u64, sequence: u64, status: v1::ApprovalStatus) -> Result<WatchItem, WatchEnd> {
    let message = v1::ApprovalStatusMessage {
        approval_id: id(number).to_string(),
        status: status as i32,
        log: LOG.0,
        sequence,
        ..v1::ApprovalStatusMessage::default()
    };
    let positions = if sequence == 0 { vec![] } else { vec![Position { log: LOG, sequence }] };
    Ok(WatchItem { message, positions })
}

fn too_slow() -> Result<WatchItem, WatchEnd> {
    Err(WatchEnd { code: Code::ResourceExhausted, message: "too slow".into(), positions: vec![], refusal: None })
}

fn resumed(resume_token: prost::bytes::Bytes) -> Option<v1::WatchOptions> {
    Some(v1::WatchOptions { resume_token, include_current: false })
}

use v1::ApprovalStatus::{Approved, Pending};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_carries_tokens_and_resumes() {
    let mut front = Front::new(1).await;
    let filter = v1::ApprovalRequest { approval_type: 2, ..Default::default() };
    let mut watch = front.client.watch_approval_updates(filter.clone()).await.expect("a watch").into_inner();
    front.feed.send(0, change(1, 0, Pending)).await;
    front.feed.send(0, change(1, 5, Approved)).await;
    assert!(watch.message().await.expect("state").expect("state").resume_token.is_empty(), "no token yet");
    let token = watch.message().await.expect("change").expect("change").resume_token;
    assert!(!token.is_empty() && token.len() <= 1_024);
    front.feed.send(0, too_slow()).await;
    let end = watch.message().await.expect_err("too slow");
    assert_eq!(end.code(), Code::ResourceExhausted);
    assert_eq!(end.metadata().get_bin("resume-token-bin").expect("a token").to_bytes().expect("bytes"), token);

    let again = v1::ApprovalRequest { watch: resumed(token.clone()), ..filter.clone() };
    let mut watch = front.client.watch_approval_updates(again).await.expect("a watch").into_inner();
    front.feed.send(1, change(2, 6, Pending)).await;
    assert_eq!(watch.message().await.expect("change").expect("change").sequence, 6);
    {
        let asked = front.feed.asked.lock().expect("asked");
        assert_eq!(asked[1].from, Some(vec![Position { log: LOG, sequence: 5 }]));
        assert!(!asked[0].include_current && !asked[1].include_current);
    }
    front.stopper.stop();
    let end = watch.message().await.expect_err("stopping");
    assert_eq!(end.code(), Code::Unavailable);
    assert!(end.metadata().get_bin("resume-token-bin").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_on_one_approval_ends_after_its_outcome() {
    let mut front = Front::new(1).await;
    let filter = v1::ApprovalRequest { approval_id: id(1).to_string(), ..Default::default() };
    let mut watch = front.client.watch_approval_updates(filter).await.expect("a watch").into_inner();
    front.feed.send(0, change(1, 0, Pending)).await;
    front.feed.send(0, change(1, 3, Approved)).await;
    assert!(watch.message().await.expect("state").is_some());
    assert!(watch.message().await.expect("outcome").is_some());
    assert!(watch.message().await.expect("OK").is_none());
    assert!(front.feed.asked.lock().expect("asked")[0].include_current, "the current state always comes first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_filters_and_tokens_are_named() {
    let mut front = Front::new(1).await;
    let cases = [
        (v1::ApprovalRequest { required_approvals: 1, ..Default::default() }, "required_approvals"),
        (v1::ApprovalRequest { watch: resumed(b"x".to_vec().into()), ..Default::default() }, "watch.resume_token"),
    ];
    for (filter, field) in cases {
        let refused = front.client.watch_approval_updates(filter).await.expect_err(field);
        assert_eq!(reason(&refused), (Code::InvalidArgument, "INVALID_ARGUMENT".into(), field.into()));
    }
    let pending = v1::StreamPendingApprovalsRequest { resume_token: b"x".to_vec().into(), ..Default::default() };
    let refused = front.client.stream_pending_approvals(pending).await.expect_err("without follow");
    assert_eq!(reason(&refused).2, "resume_token");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_most_urgent_pending_ones_come_first() {
    let mut front = Front::new(2).await;
    for number in 0..30 {
        front.open(v1::ApprovalRequest { priority: 1 + (number % 3) as i32, ..request(number) }).await;
    }
    front.client.submit_validator_response(vote(4, "a", 1)).await.expect("counts");
    let asked = v1::StreamPendingApprovalsRequest { awaiting_validator: "a".into(), ..Default::default() };
    let mut pending = front.client.stream_pending_approvals(asked).await.expect("pending").into_inner();
    let mut seen = Vec::new();
    while let Some(state) = pending.message().await.expect("a state") {
        assert!(state.resume_token.is_empty());
        seen.push((state.priority, state.approval_id));
    }
    let by_priority = |priority: u64| (0..30).filter(move |number| number % 3 + 1 == priority && *number != 4);
    let expected: Vec<_> = [3u64, 2, 1]
        .into_iter()
        .flat_map(|priority| by_priority(priority).map(move |number| (priority as i32, id(number).to_string())))
        .collect();
    assert_eq!(seen, expected, "CRITICAL, HIGH, NORMAL, the oldest first, without what was voted on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn following_pending_ones_goes_on_with_changes() {
    let mut front = Front::new(1).await;
    front.open(request(1)).await;
    let asked = v1::StreamPendingApprovalsRequest { follow: true, ..Default::default() };
    let mut pending = front.client.stream_pending_approvals(asked).await.expect("pending").into_inner();
    assert_eq!(pending.message().await.expect("state").expect("state").approval_id, id(1).to_string());
    front.feed.send(0, change(9, 4, Pending)).await;
    let followed = pending.message().await.expect("change").expect("change");
    assert_eq!((followed.sequence, followed.resume_token.is_empty()), (4, false));
    assert_eq!(front.feed.asked.lock().expect("asked")[0].from, Some(vec![Position { log: LOG, sequence: 1 }]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_share_a_stream_with_votes() {
    let mut front = Front::new(1).await;
    front.open(request(1)).await;
    let (sender, receiver) = mpsc::unbounded_channel();
    let send =
        |item| sender.send(v1::ApprovalStreamRequest { item: Some(item), validator_id: String::new() }).expect("sent");
    let subscribe = |name: &str, cancel| {
        let filter = Some(v1::ApprovalRequest::default());
        Item::Subscription(v1::StreamSubscription { subscription_id: name.into(), filter, cancel })
    };
    for number in 0..17 {
        send(subscribe(&format!("s{number}"), false));
    }
    send(Item::Response(vote(1, "a", 1)));
    let answers = front.client.bidirectional_approval_stream(UnboundedReceiverStream::new(receiver)).await;
    let mut answers = answers.expect("a stream").into_inner();
    let (mut acked, mut over) = (0, None);
    while acked == 0 || over.is_none() {
        let answer = answers.message().await.expect("an answer").expect("an answer");
        acked = acked.max(answer.acked_through);
        over = over.or(answer.ended);
    }
    assert_eq!(acked, 1, "subscriptions are no items");
    let over = over.expect("the seventeenth");
    assert_eq!((over.subscription_id.as_str(), over.code), ("s16", Code::ResourceExhausted as u32));

    front.feed.send(3, change(1, 2, Pending)).await;
    let update = answers.message().await.expect("an answer").expect("an answer").update.expect("a change");
    assert_eq!(update.subscription_id, "s3");
    let token = update.approval.expect("a state").resume_token;
    front.feed.send(3, too_slow()).await;
    let ended = answers.message().await.expect("an answer").expect("an answer").ended.expect("its end");
    assert_eq!((ended.subscription_id.as_str(), ended.code), ("s3", Code::ResourceExhausted as u32));
    assert_eq!(ended.resume_token, token);
    send(subscribe("s4", true));
    let ended = answers.message().await.expect("an answer").expect("an answer").ended.expect("its end");
    assert_eq!((ended.subscription_id.as_str(), ended.code), ("s4", 0));
    send(subscribe("s5", false));
    let end = answers.message().await.expect_err("the name is in use");
    assert_eq!(reason(&end).2, "subscription.subscription_id");
}
