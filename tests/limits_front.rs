//! Every limit of the front at its bound: one more is refused by the limit's name, and what is open goes on.

use crate::support::Node;
use crate::support::calls::*;
use assent::wire::v1;
use assent::wire::v1::RefusalReason as Reason;
use assent::wire::v1::approval_stream_request::Item;
use std::time::{Duration, Instant};
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// RESOURCE_EXHAUSTED, the limit by its name, and when to try again.
fn limit(status: &Status, name: &str) {
    assert_eq!(refused(status), (Code::ResourceExhausted, "LIMIT_REACHED".into(), "".into()), "{status}");
    assert_eq!(fact(status, "limit"), name);
    assert!(status.message().contains(name), "{}", status.message());
    assert!(status.get_error_details().retry_info().is_some(), "{status}");
}

/// Waits until a sample of /metrics has this value.
async fn until_metric(node: &Node, sample: &str, value: f64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while node.metric(sample) != value {
        assert!(Instant::now() < deadline, "{sample} is {} and not {value}", node.metric(sample));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn approvals_in_memory() {
    let node = Node::start(&["--approvals-max", "3"]);
    let mut client = node.client().await;
    for number in 1..=3 {
        open(&mut client, request(&id(number), 1, 2)).await;
    }
    limit(&client.submit_approval_request(request(&id(4), 1, 2)).await.expect_err("the fourth"), "approvals_max");
    let mut talk = Talk::start(&mut client).await;
    talk.send(Item::Request(request(&id(4), 1, 2))).await;
    talk.send(Item::Response(vote(&id(3), "a", Decision::Approved))).await;
    talk.until_acked(2).await;
    assert_eq!(talk.refused(), [(0, Code::ResourceExhausted, Reason::LimitReached)]);
    assert!(open(&mut client, request(&id(1), 1, 2)).await.repeat, "a repeat takes no room");
    assert_eq!(cast(&mut client, &id(2), "a", Decision::Approved).await.status(), Approved, "votes go on");
}

#[tokio::test]
async fn validator_names_and_eligible_sets() {
    let node = Node::start(&["--validators-max", "4", "--eligible-sets-max", "2"]);
    let mut client = node.client().await;
    let set = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    let with =
        |number, names: &[&str]| v1::ApprovalRequest { eligible_validators: set(names), ..request(&id(number), 1, 0) };
    open(&mut client, with(1, &["a", "b"])).await;
    open(&mut client, with(2, &["b", "c"])).await;
    open(&mut client, with(3, &["b", "a"])).await;
    let status = client.submit_approval_request(with(4, &["a", "c"])).await.expect_err("a third set");
    limit(&status, "eligible_sets_max");
    open(&mut client, request(&id(5), 5, 9)).await;
    cast(&mut client, &id(5), "d", Decision::Approved).await;
    // Four names are held: opening is refused, and votes on what is open go on, by new names too.
    limit(&client.submit_approval_request(request(&id(6), 1, 1)).await.expect_err("full"), "validators_max");
    cast(&mut client, &id(5), "e", Decision::Approved).await;
    cast(&mut client, &id(1), "a", Decision::Approved).await;
}

#[tokio::test]
async fn bytes_of_eligible_sets() {
    let node = Node::start(&["--eligible-bytes-max", "64KiB"]);
    let mut client = node.client().await;
    let set = |first: usize| (first..first + 5_000).map(|number| format!("v{number}")).collect::<Vec<_>>();
    let mut opened = 0;
    let status = loop {
        let eligible_validators = set(opened as usize * 5_000);
        let asked = v1::ApprovalRequest { eligible_validators, ..request(&id(opened), 1, 0) };
        match client.submit_approval_request(asked).await {
            Ok(_) => opened += 1,
            Err(status) => break status,
        }
        assert!(opened < 20, "a set of 5,000 takes more than 3 KiB");
    };
    limit(&status, "eligible_bytes_max");
    open(&mut client, request(&id(100), 1, 1)).await;
}

#[tokio::test]
async fn content_and_message_bytes() {
    let node = Node::start(&["--content-bytes-max", "10", "--message-bytes-max", "65546"]);
    let mut client = node.client().await;
    let with =
        |number, bytes: usize| v1::ApprovalRequest { content: vec![1; bytes].into(), ..request(&id(number), 1, 1) };
    open(&mut client, with(1, 10)).await;
    let status = client.submit_approval_request(with(2, 11)).await.expect_err("one byte more");
    assert_eq!(refused(&status), (Code::InvalidArgument, "INVALID_ARGUMENT".into(), "content".into()));
    // A message over the bound is never read: the call ends, and so does a stream after what came before.
    let too_long = v1::ApprovalResponse { reason: "r".repeat(70 << 10), ..vote(&id(1), "a", Decision::Approved) };
    let mut talk = Talk::start(&mut client).await;
    talk.send(Item::Response(vote(&id(1), "a", Decision::Approved))).await;
    talk.until_acked(1).await;
    talk.send(Item::Response(too_long.clone())).await;
    limit(&talk.end().await.expect("it ends"), "message_bytes_max");
    let sent = tokio_stream::iter([too_long.clone()]);
    limit(&client.batch_submit_responses(sent).await.expect_err("too long"), "message_bytes_max");
    limit(&client.submit_validator_response(too_long).await.expect_err("too long"), "message_bytes_max");
    // Compressed it is as long as it is.
    let mut zipped = client.clone().send_compressed(tonic::codec::CompressionEncoding::Gzip);
    limit(&zipped.submit_approval_request(with(3, 70 << 10)).await.expect_err("too long"), "message_bytes_max");
    assert!(cast(&mut client, &id(1), "a", Decision::Approved).await.repeat, "the connection goes on");
}

#[tokio::test]
async fn gzip_and_zstd_are_accepted() {
    let node = Node::start(&[]);
    let client = node.client().await;
    for (number, encoding) in
        [tonic::codec::CompressionEncoding::Gzip, tonic::codec::CompressionEncoding::Zstd].into_iter().enumerate()
    {
        let mut client = client.clone().send_compressed(encoding);
        let number = number as u64;
        let asked = v1::ApprovalRequest { content: vec![7; 50_000].into(), ..request(&id(number), 1, 1) };
        assert_eq!(open(&mut client, asked).await.status(), Pending);
        let mut talk = Talk::start(&mut client).await;
        talk.send(batch(columns("a", [number], Decision::Approved))).await;
        talk.until_acked(1).await;
        assert!(talk.refusals.is_empty());
    }
}

#[tokio::test]
async fn batch_items() {
    let node = Node::start(&["--batch-items-max", "5"]);
    let mut client = node.client().await;
    for number in 0..6 {
        open(&mut client, request(&id(number), 2, 9)).await;
    }
    for columnar in [false, true] {
        let many = |voter: &str, count: u64| match columnar {
            true => batch(columns(voter, 0..count, Decision::Abstain)),
            false => rows((0..count).map(|number| vote(&id(number), voter, Decision::Abstain)).collect()),
        };
        let mut talk = Talk::start(&mut client).await;
        talk.send(many(&format!("a-{columnar}"), 5)).await;
        talk.send(many("b", 6)).await;
        let end = talk.end().await.expect("one too many");
        assert_eq!(refused(&end), (Code::InvalidArgument, "INVALID_ARGUMENT".into(), "batch".into()));
        assert_eq!((talk.acked, talk.refusals.len()), (5, 0), "what came before is answered");
    }
}

#[tokio::test]
async fn unacknowledged_items_are_flow_control_and_not_a_refusal() {
    for bound in [1, 7] {
        let text = bound.to_string();
        let flags = ["--unacknowledged-max", &text, "--batch-items-max", &text, "--ring-slots", "16", "--shards", "2"];
        let node = Node::start(&flags);
        let mut client = node.client().await;
        let mut talk = Talk::start(&mut client).await;
        for number in 0..300 {
            talk.send(Item::Request(request(&id(number), 2, 3))).await;
        }
        for start in (0..300).step_by(bound) {
            let part = start..300.min(start + bound as u64);
            talk.send(batch(columns("a", part, Decision::Approved))).await;
        }
        for number in 0..300 {
            talk.send(Item::Response(vote(&id(number), "b", Decision::Approved))).await;
        }
        talk.until_acked(900).await;
        assert!(talk.refusals.is_empty(), "{:?}", talk.refused());
        let votes = (0..300).map(|number| vote(&id(number), "b", Decision::Approved));
        let summary = client.batch_submit_responses(tokio_stream::iter(votes.collect::<Vec<_>>())).await;
        assert_eq!(summary.expect("a summary").into_inner().repeated_votes, 300);
    }
}

#[tokio::test]
async fn watchers_and_subscriptions() {
    let node = Node::start(&["--watchers-max", "3", "--subscriptions-per-stream-max", "2"]);
    let mut client = node.client().await;
    for number in 1..=4 {
        open(&mut client, request(&id(number), 1, 2)).await;
    }
    let subscription = |name: &str, number| {
        let (subscription_id, filter) = (name.into(), Some(watch_of(&id(number))));
        Item::Subscription(v1::StreamSubscription { subscription_id, filter, cancel: false })
    };
    let mut talk = Talk::start(&mut client).await;
    for (number, name) in [(1, "one"), (2, "two"), (3, "three")] {
        talk.send(subscription(name, number)).await;
    }
    talk.until("two states, and the end of the third", |talk| talk.updates.len() == 2 && talk.ended.len() == 1).await;
    let ended = &talk.ended[0];
    assert_eq!((ended.subscription_id.as_str(), ended.code), ("three", Code::ResourceExhausted as u32));
    assert!(ended.message.contains("subscriptions_per_stream_max"), "{}", ended.message);

    let mut third = client.watch_approval_updates(watch_of(&id(3))).await.expect("a stream").into_inner();
    next(&mut third).await;
    let mut fourth = client.watch_approval_updates(watch_of(&id(4))).await.expect("a stream").into_inner();
    limit(&rest_of(&mut fourth).await.1.expect("one too many"), "watchers_max");
    let mut other = Talk::start(&mut client).await;
    other.send(subscription("four", 4)).await;
    other.until("its end", |talk| talk.ended.len() == 1).await;
    assert_eq!(other.ended[0].code, Code::ResourceExhausted as u32);
    assert!(other.ended[0].message.contains("watchers_max"), "{}", other.ended[0].message);
    // A place that is left is taken again: by the outcome, and by a client that goes away.
    cast(&mut client, &id(3), "a", Decision::Approved).await;
    assert!(rest_of(&mut third).await.1.is_none());
    until_metric(&node, "assent_watchers", 2.0).await;
    let mut fourth = client.watch_approval_updates(watch_of(&id(4))).await.expect("a stream").into_inner();
    assert_eq!(next(&mut fourth).await.approval_id, id(4));
    drop(talk);
    until_metric(&node, "assent_watchers", 1.0).await;
    assert_eq!(cast(&mut client, &id(4), "a", Decision::Approved).await.status(), Approved);
}

#[tokio::test]
async fn listings_of_what_is_pending() {
    const APPROVALS: u64 = 20_000;
    let node = Node::start(&["--pending-streams-max", "2"]);
    let mut client = node.client().await;
    let mut talk = Talk::start(&mut client).await;
    for number in 0..APPROVALS {
        talk.send(Item::Request(request(&id(number), 1, 2))).await;
    }
    talk.until_acked(APPROVALS).await;
    // Small windows: a listing that is not read stays.
    let endpoint = tonic::transport::Endpoint::from_shared(node.endpoint()).expect("an address");
    let endpoint = endpoint.initial_stream_window_size(65_535).initial_connection_window_size(1 << 20);
    let mut lazy = Client::new(endpoint.connect().await.expect("the node listens"));
    let ask = v1::StreamPendingApprovalsRequest::default();
    let mut first = lazy.stream_pending_approvals(ask.clone()).await.expect("a stream").into_inner();
    let second = lazy.stream_pending_approvals(ask.clone()).await.expect("a stream").into_inner();
    limit(&client.stream_pending_approvals(ask.clone()).await.expect_err("the third"), "pending_streams_max");
    drop(second);
    // The place is free once the node has heard of it.
    let mut third = loop {
        match client.stream_pending_approvals(ask.clone()).await {
            Ok(stream) => break stream.into_inner(),
            Err(status) => limit(&status, "pending_streams_max"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(rest_of(&mut third).await.0.len() as u64, APPROVALS);
    assert_eq!(rest_of(&mut first).await.0.len() as u64, APPROVALS, "slow, and whole");
    // Listings that follow give their place back when the list is over.
    let follow = v1::StreamPendingApprovalsRequest { follow: true, approval_type: 9, ..ask };
    let mut followers = Vec::new();
    for _ in 0..5 {
        loop {
            match client.stream_pending_approvals(follow.clone()).await {
                Ok(stream) => break followers.push(stream.into_inner()),
                Err(status) => limit(&status, "pending_streams_max"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let asked = v1::ApprovalRequest { approval_type: 9, ..request(&id(APPROVALS), 1, 2) };
    until_metric(&node, "assent_watchers", 5.0).await;
    open(&mut client, asked).await;
    for follower in &mut followers {
        assert_eq!(next(follower).await.approval_id, id(APPROVALS));
    }
}

#[tokio::test]
async fn connections_and_calls_on_one() {
    let node = Node::start(&["--connections-max", "2", "--streams-per-connection-max", "3"]);
    let mut first = node.client().await;
    open(&mut first, request(&id(1), 1, 2)).await;
    let second = node.client().await;
    open(&mut second.clone(), request(&id(2), 1, 2)).await;
    // The third is closed at once: its first call fails, or connecting does.
    let endpoint = tonic::transport::Endpoint::from_shared(node.endpoint()).expect("an address");
    if let Ok(channel) = endpoint.connect().await {
        let call = soon("an end", async { Client::new(channel).submit_approval_request(request(&id(3), 1, 2)).await });
        call.await.expect_err("one connection too many");
    }
    assert!(node.metric("assent_grpc_connections_refused_total") >= 1.0);
    drop(second);
    until_metric(&node, "assent_grpc_connections", 1.0).await;
    open(&mut node.client().await, request(&id(3), 1, 2)).await;

    // Three calls at a time on one connection: the fourth waits for its turn, as HTTP/2 has it.
    let mut watches = Vec::new();
    for number in 1..=3 {
        let mut changes = first.watch_approval_updates(watch_of(&id(number))).await.expect("a stream").into_inner();
        next(&mut changes).await;
        watches.push(changes);
    }
    let mut fourth = first.clone();
    let waiting = tokio::spawn(async move { cast(&mut fourth, &id(1), "a", Decision::Approved).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished(), "it has no place yet");
    watches.pop();
    assert_eq!(soon("its turn", waiting).await.expect("no panic").status(), Approved);
}
