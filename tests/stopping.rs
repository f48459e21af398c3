//! SIGTERM: what is in flight is answered, streams end with UNAVAILABLE and where to go on, the exit code is 0.

use crate::support::Node;
use crate::support::calls::*;
use assent::wire::v1;
use assent::wire::v1::approval_stream_request::Item;
use std::time::{Duration, Instant};
use tonic::Code;

#[tokio::test]
async fn streams_end_with_where_to_go_on_and_nothing_acknowledged_is_lost() {
    let mut node = Node::start(&["--shards", "2"]);
    let mut client = node.client().await;
    for number in 0..100 {
        open(&mut client, request(&id(number), 1_000, 2_000)).await;
    }
    let mut one = client.watch_approval_updates(watch_of(&id(1))).await.expect("a stream").into_inner();
    let mut all = client.watch_approval_updates(watch_all("", true)).await.expect("a stream").into_inner();
    for _ in 0..100 {
        assert!(next(&mut all).await.resume_token.is_empty());
    }
    let follow = v1::StreamPendingApprovalsRequest { follow: true, ..Default::default() };
    let mut pending = client.stream_pending_approvals(follow).await.expect("a stream").into_inner();
    for _ in 0..100 {
        next(&mut pending).await;
    }
    let mut metrics = client.stream_metrics(v1::StreamMetricsRequest::default()).await.expect("a stream").into_inner();
    assert_eq!(next(&mut one).await.version, 1);
    let mut talk = Talk::start(&mut client).await;
    let filter = Some(watch_of(&id(2)));
    let subscription = v1::StreamSubscription { subscription_id: "two".into(), filter, cancel: false };
    talk.send(Item::Subscription(subscription)).await;
    talk.until("the state", |talk| talk.updates.len() == 1).await;
    for number in [1, 2] {
        cast(&mut client, &id(number), "first", Decision::Approved).await;
    }
    let token_one = next(&mut one).await.resume_token;
    let mut token_all = next(&mut all).await.resume_token;
    token_all = match next(&mut all).await.resume_token {
        token if token.is_empty() => token_all,
        token => token,
    };
    for _ in 0..2 {
        next(&mut pending).await;
    }
    talk.until("the change", |talk| talk.updates.len() == 2).await;
    // A batch call that waits for its client, and calls that come all the time.
    let (_more, votes) = tokio::sync::mpsc::channel(1);
    let mut batching = client.clone();
    let waiting = tokio::spawn(async move {
        batching.batch_submit_responses(tokio_stream::wrappers::ReceiverStream::new(votes)).await
    });
    let mut busy = client.clone();
    let (first, mut has_first) = tokio::sync::mpsc::channel(1);
    let voting = tokio::spawn(async move {
        let mut counted = 0;
        loop {
            let name = format!("voter-{counted}");
            match busy.submit_validator_response(vote(&id(50), &name, Decision::Approved)).await {
                Ok(_) => counted += 1,
                Err(status) => return (counted, status),
            }
            let _enough = first.try_send(());
        }
    });
    soon("the first vote", has_first.recv()).await.expect("it votes");
    let start = Instant::now();
    node.terminate();

    let (more, end) = rest_of(&mut one).await;
    let end = end.expect("not OK: it is not decided");
    assert_eq!((end.code(), more.len()), (Code::Unavailable, 0), "{end}");
    assert_eq!(token_of(&end), token_one[..]);
    let (more, end) = rest_of(&mut all).await;
    let end = end.expect("it would go on for ever");
    assert_eq!(end.code(), Code::Unavailable);
    let last = more.last().map_or(token_all, |message| message.resume_token.clone());
    assert_eq!(token_of(&end), last[..], "the token of the last message");
    let end = rest_of(&mut pending).await.1.expect("it would go on for ever");
    assert_eq!((end.code(), token_of(&end).is_empty()), (Code::Unavailable, false));
    assert_eq!(rest_of(&mut metrics).await.1.expect("it would go on for ever").code(), Code::Unavailable);
    let end = talk.end().await.expect("it is not OK");
    assert_eq!(refused(&end), (Code::Unavailable, "STOPPING".into(), "".into()));
    assert_eq!((talk.ended[0].code, talk.ended[0].resume_token.is_empty()), (Code::Unavailable as u32, false));
    let end = soon("the batch's end", waiting).await.expect("no panic").expect_err("it had not closed its side");
    assert_eq!(end.code(), Code::Unavailable);
    let (counted, status) = soon("the votes' end", voting).await.expect("no panic");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let ended = tokio::task::spawn_blocking(move || {
        let ended = node.wait();
        (node, ended)
    });
    let (mut node, ended) = soon("the end", ended).await.expect("no panic");
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());

    // What was acknowledged is there, and the watch goes on behind what it saw.
    node.restart();
    let mut client = node.client().await;
    let ask = v1::GetApprovalStatusRequest { approval_id: id(50), ..Default::default() };
    let tally = client.get_approval_status(ask).await.expect("it is there").into_inner().approvals;
    assert!(tally == counted || tally == counted + 1, "{tally} of {counted}: one may be unknown");
    let mut all = client.watch_approval_updates(watch_all(last, false)).await.expect("a stream").into_inner();
    let seen = more.iter().filter(|message| message.approval_id == id(50)).count() as u32;
    for left in seen..tally {
        assert_eq!(next(&mut all).await.approvals, left + 1);
    }
}

#[tokio::test]
async fn what_was_sent_before_is_acknowledged_before_the_stream_ends() {
    const ITEMS: u64 = 20_000;
    let mut node = Node::start(&[]);
    let mut client = node.client().await;
    let mut talk = Talk::start(&mut client).await;
    for number in 0..ITEMS {
        talk.send(Item::Request(request(&id(number), 1, 2))).await;
        if number == ITEMS / 2 {
            node.terminate();
            break;
        }
    }
    let end = talk.end().await.expect("it is not OK");
    assert_eq!(end.code(), Code::Unavailable, "{end}");
    let (acked, refused) = (talk.acked, talk.refusals.len());
    let ended = node.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    node.restart();
    let opened = node.metric("assent_approvals_in_memory{shard=\"0\"}") as u64;
    assert_eq!(opened, acked - refused as u64, "acknowledged and there, or neither");
}

#[tokio::test]
async fn nobody_new_is_let_in_and_a_client_that_lingers_does_not_hold_it_up() {
    let mut node = Node::start(&["--shutdown-seconds", "3"]);
    let mut client = node.client().await;
    open(&mut client, request(&id(1), 1, 2)).await;
    // The standard health watch never ends by itself.
    let mut health = tonic_health::pb::health_client::HealthClient::new(node.channel().await);
    let ask = tonic_health::pb::HealthCheckRequest { service: String::new() };
    let mut watching = health.watch(ask).await.expect("a stream").into_inner();
    assert_eq!(next(&mut watching).await.status, 1, "SERVING");
    let (address, http) = (node.grpc(), node.http());
    let start = Instant::now();
    node.terminate();
    assert_eq!(next(&mut watching).await.status, 2, "NOT_SERVING");
    // Refused, or reset where the connection is gone already.
    let status = client.submit_validator_response(vote(&id(1), "late", Decision::Approved)).await;
    let status = status.expect_err("new calls are refused");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let ended = node.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    for port in [address, http] {
        std::net::TcpStream::connect(port).expect_err("the port is free");
    }
}
