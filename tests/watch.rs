//! A watcher misses nothing and sees nothing twice, whatever happens to it, the node or the number of shards.

use crate::support::Node;
use crate::support::calls::*;
use assent::wire::v1;
use assent::wire::v1::ApprovalEventType as EventType;
use assent::wire::v1::approval_stream_request::Item;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use tonic::{Code, Streaming};

type Changes = Streaming<v1::ApprovalStatusMessage>;

async fn watch(client: &mut Client, filter: v1::ApprovalRequest) -> Changes {
    client.watch_approval_updates(filter).await.expect("a stream").into_inner()
}

/// A watch that surely began: its own marker came through it. Answers with the token behind the marker.
async fn began(client: &mut Client, filter: v1::ApprovalRequest, marker: u64) -> (Changes, Bytes) {
    let mut changes = watch(client, filter).await;
    let node_knows = tokio::time::Duration::from_millis(50);
    for try_number in 0.. {
        let marker = id(1 << 40 | marker << 20 | try_number);
        open(client, request(&marker, 1, 1)).await;
        if let Ok(message) = tokio::time::timeout(node_knows, changes.message()).await {
            let mut message = message.expect("it goes on").expect("not over");
            // Markers of earlier tries may have come first, or come late.
            while message.approval_id != marker {
                message = next(&mut changes).await;
            }
            return (changes, message.resume_token);
        }
        assert!(try_number < 1_000, "the watch never began");
    }
    unreachable!("it returns or fails")
}

#[tokio::test]
async fn one_approval_its_state_first_then_every_change_and_ok_after_the_outcome() {
    let node = Node::start(&[]);
    let mut client = node.client().await;
    let opened = open(&mut client, request(&id(1), 2, 3)).await;
    let mut changes = watch(&mut client, watch_of(&id(1))).await;
    let state = next(&mut changes).await;
    assert_eq!(state, v1::ApprovalStatusMessage { repeat: false, ..opened.clone() }, "the state, and no token");
    let said = v1::ApprovalResponse {
        reason: "why not".into(),
        signature: vec![9].into(),
        ..vote(&id(1), "alice", Decision::Approved)
    };
    client.submit_validator_response(said).await.expect("it counts");
    let first = next(&mut changes).await;
    assert_eq!(
        (first.event_type(), first.status(), first.approvals, first.version),
        (EventType::Updated, Pending, 1, 2)
    );
    assert_eq!((first.log, first.sequence), (opened.log, first.votes[0].sequence));
    assert_eq!((first.votes[0].reason.as_str(), &first.votes[0].signature[..]), ("why not", &[9][..]));
    assert!(first.votes[0].voted_at.is_some() && !first.resume_token.is_empty() && first.resume_token.len() <= 1_024);
    let decided = cast(&mut client, &id(1), "bob", Decision::Approved).await;
    let (rest, end) = rest_of(&mut changes).await;
    assert!(end.is_none(), "OK after the outcome: {end:?}");
    assert_eq!(rest.len(), 1);
    assert_eq!((rest[0].event_type(), rest[0].status(), rest[0].version), (EventType::Finalized, Approved, 3));
    assert_eq!((rest[0].finalized_at, &rest[0].content_hash), (decided.finalized_at, &decided.content_hash));

    // Decided already: the state, and the end.
    let (all, end) = rest_of(&mut watch(&mut client, watch_of(&id(1))).await).await;
    assert_eq!((all.len(), all[0].status(), end.is_none()), (1, Approved, true));
    // Resumed in the middle: what is left; behind the outcome: nothing, and the end.
    for (token, left) in [(&first.resume_token, 1), (&rest[0].resume_token, 0)] {
        let watch_options = watch_all(token.clone(), false).watch;
        let filter = v1::ApprovalRequest { watch: watch_options, ..watch_of(&id(1)) };
        let (all, end) = rest_of(&mut watch(&mut client, filter).await).await;
        assert_eq!((all.len(), end.is_none()), (left, true));
    }
}

#[tokio::test]
async fn an_unknown_approval_is_waited_for() {
    let node = Node::start(&["--shards", "2"]);
    let mut client = node.client().await;
    for number in 0..20 {
        // The watch may begin before the opening or behind it: either way the approval is seen once.
        let mut changes = watch(&mut client, watch_of(&id(number))).await;
        open(&mut client, request(&id(number), 1, 1)).await;
        let first = next(&mut changes).await;
        assert_eq!((first.approval_id, first.version), (id(number), 1));
        cast(&mut client, &id(number), "a", Decision::Rejected).await;
        let (rest, end) = rest_of(&mut changes).await;
        assert_eq!((rest.len(), rest[0].status(), end.is_none()), (1, Rejected, true));
    }
}

#[tokio::test]
async fn a_watch_on_one_approval_with_other_criteria_sees_it_only_if_it_matches() {
    let node = Node::start(&[]);
    let mut client = node.client().await;
    open(&mut client, request(&id(1), 1, 1)).await;
    let other_type = v1::ApprovalType::Other as i32;
    let mut none = watch(&mut client, v1::ApprovalRequest { approval_type: other_type, ..watch_of(&id(1)) }).await;
    let same = v1::ApprovalRequest { requester_id: REQUESTER.into(), approval_type: 1, ..watch_of(&id(1)) };
    let mut some = watch(&mut client, same).await;
    assert_eq!(next(&mut some).await.version, 1);
    cast(&mut client, &id(1), "a", Decision::Approved).await;
    assert_eq!(next(&mut some).await.version, 2);
    // Both watches hang on one hub: what the first should get was handed out before.
    tokio::select! {
        biased;
        message = none.message() => panic!("it does not match: {message:?}"),
        _ = tokio::time::sleep(std::time::Duration::from_millis(50)) => {}
    }
}

#[tokio::test]
async fn current_states_come_first_on_request_and_no_change_is_lost_between() {
    let node = Node::start(&["--shards", "2"]);
    let mut client = node.client().await;
    let mut talk = Talk::start(&mut client).await;
    for number in 0..300 {
        talk.send(Item::Request(request(&id(number), 3, 3))).await;
    }
    talk.until_acked(300).await;
    let busy = tokio::spawn(async move {
        for voter in ["a", "b", "c"] {
            for start in (0..300).step_by(30) {
                talk.send(batch(columns(voter, start..start + 30, Decision::Approved))).await;
                talk.read().await.expect("it goes on");
            }
        }
        talk.until_acked(300 + 900).await;
    });
    let mut changes = watch(&mut client, watch_all("", true)).await;
    let mut versions: HashMap<String, u32> = HashMap::new();
    let mut decided = 0;
    while decided < 300 {
        let message = next(&mut changes).await;
        let is_state = message.event_type() == EventType::Unspecified;
        assert_eq!(is_state, message.resume_token.is_empty(), "tokens begin behind the state");
        match versions.insert(message.approval_id.clone(), message.version) {
            None => assert!(is_state, "the state comes first"),
            Some(before) => assert_eq!(message.version, before + 1, "no gap and no repeat"),
        }
        decided += u32::from(message.status() == Approved);
    }
    soon("everything acknowledged", busy).await.expect("no panic");
}

/// Every event of the logs by (log, sequence), with what it said.
type Seen = BTreeMap<(u64, u64), (String, u32)>;

fn see(seen: &mut Seen, message: &v1::ApprovalStatusMessage) {
    let before = seen.insert((message.log, message.sequence), (message.approval_id.clone(), message.version));
    assert_eq!(before, None, "an event is seen once");
}

/// Reads until every approval has come to `version`, and gives the last token.
async fn read_until(changes: &mut Changes, seen: &mut Seen, mut left: u64, version: u32) -> Bytes {
    let mut token = Bytes::new();
    let mut last: HashMap<u64, u64> = HashMap::new();
    while left > 0 {
        let message = next(changes).await;
        assert!(last.insert(message.log, message.sequence).is_none_or(|last| last < message.sequence), "a log's order");
        see(seen, &message);
        left -= u64::from(message.version == version);
        token = message.resume_token;
    }
    token
}

#[tokio::test]
async fn a_token_works_across_kill_9_and_across_changes_of_shards() {
    const APPROVALS: u64 = 200;
    let mut node = Node::start(&["--shards", "1"]);
    let mut client = node.client().await;
    let (mut changes, mut token) = began(&mut client, watch_all("", false), 0).await;
    let mut seen = Seen::new();
    let mut talk = Talk::start(&mut client).await;
    for number in 0..APPROVALS {
        talk.send(Item::Request(request(&id(number), 32, 40))).await;
    }
    talk.until_acked(APPROVALS).await;
    // Half is read, the rest comes after the kill.
    for _ in 0..APPROVALS / 2 {
        let message = next(&mut changes).await;
        see(&mut seen, &message);
        token = message.resume_token;
    }
    let mut logs = 1;
    for (round, shards) in ["1", "2", "4", "1", "1"].into_iter().enumerate() {
        node.kill();
        node.restart_with(&["--shards", shards]);
        logs += [0, 2, 4, 1, 0][round];
        client = node.client().await;
        let mut talk = Talk::start(&mut client).await;
        let voter = format!("voter-{round}");
        talk.send(batch(columns(&voter, 0..APPROVALS, Decision::Approved))).await;
        talk.until_acked(APPROVALS).await;
        assert!(talk.refusals.is_empty(), "all is still there");
        changes = watch(&mut client, watch_all(token, false)).await;
        // Some of it only: the token is then one in the middle of several logs.
        let wanted = if round % 2 == 0 { APPROVALS } else { APPROVALS / 3 };
        token = read_until(&mut changes, &mut seen, wanted, round as u32 + 2).await;
    }
    // Every event but the markers, and each once: openings and five votes.
    assert_eq!(seen.len() as u64, 6 * APPROVALS);
    let mut versions: HashMap<&str, Vec<u32>> = HashMap::new();
    seen.values().for_each(|(id, version)| versions.entry(id).or_default().push(*version));
    for versions in versions.values_mut() {
        versions.sort_unstable();
        assert_eq!(versions[..], [1, 2, 3, 4, 5, 6]);
    }
    let mut ends: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    seen.keys().for_each(|(log, sequence)| ends.entry(*log).or_default().push(*sequence));
    assert_eq!(ends.len(), logs, "a log a shard and generation");
    for sequences in ends.values() {
        assert!(sequences.windows(2).all(|pair| pair[0] + 1 == pair[1]), "gapless within a log");
    }
}

#[tokio::test]
async fn a_token_of_another_filter_or_deployment_is_refused_by_field() {
    let (node, other) = (Node::start(&[]), Node::start(&[]));
    let mut client = node.client().await;
    let (_changes, token) = began(&mut client, watch_all("", false), 0).await;
    let mut stranger = other.client().await;
    let expected = (Code::InvalidArgument, "INVALID_ARGUMENT".to_string(), "watch.resume_token".to_string());
    let status = stranger.watch_approval_updates(watch_all(token.clone(), false)).await.expect_err("another folder");
    assert_eq!(refused(&status), expected);
    let filters = [
        v1::ApprovalRequest { approval_type: 1, ..watch_all(token.clone(), false) },
        v1::ApprovalRequest { priority: 2, ..watch_all(token.clone(), false) },
        v1::ApprovalRequest { requester_id: REQUESTER.into(), ..watch_all(token.clone(), false) },
        v1::ApprovalRequest { approval_id: id(1), ..watch_all(token.clone(), false) },
    ];
    for filter in filters {
        let status = client.watch_approval_updates(filter).await.expect_err("another filter");
        assert_eq!(refused(&status), expected);
    }
    let follow = v1::StreamPendingApprovalsRequest {
        awaiting_validator: "alice".into(),
        follow: true,
        resume_token: token,
        ..Default::default()
    };
    let status = client.stream_pending_approvals(follow).await.expect_err("another filter");
    assert_eq!(refused(&status), (expected.0, expected.1, "resume_token".into()));
}

#[tokio::test]
async fn a_slow_watcher_is_closed_with_its_token_and_votes_go_on() {
    const APPROVALS: u64 = 1_000;
    const VOTERS: u64 = 30;
    let node = Node::start(&["--watcher-buffer-bytes", "64KiB"]);
    let mut client = node.client().await;
    let mut talk = Talk::start(&mut client).await;
    for number in 0..APPROVALS {
        talk.send(Item::Request(request(&id(number), 50, 100))).await;
    }
    talk.until_acked(APPROVALS).await;
    // Small windows: what the client does not read stays with the server.
    let endpoint = tonic::transport::Endpoint::from_shared(node.endpoint()).expect("an address");
    let endpoint = endpoint.initial_stream_window_size(65_535).initial_connection_window_size(65_535);
    let mut lazy = Client::new(endpoint.connect().await.expect("the node listens"));
    let (mut changes, token) = began(&mut lazy, watch_all("", false), 0).await;
    for voter in 0..VOTERS {
        let name = format!("voter-{voter}");
        talk.send(batch(columns(&name, 0..APPROVALS, Decision::Approved))).await;
        talk.until_acked(APPROVALS * (voter + 2)).await;
    }
    assert!(talk.refusals.is_empty(), "nobody waited for the watcher, and nothing was lost");

    let mut seen = Seen::new();
    let (read, end) = rest_of(&mut changes).await;
    let end = end.expect("it did not keep up");
    assert_eq!(end.code(), Code::ResourceExhausted, "{end}");
    read.iter().for_each(|message| see(&mut seen, message));
    let last = read.last().map_or(&token, |message| &message.resume_token);
    assert_eq!(token_of(&end), last[..], "the token of the last message");
    assert_eq!(node.metric("assent_watchers_closed_total"), 1.0);
    // From there on nothing is missing. Reading as fast as it can, it keeps up now.
    let mut changes = watch(&mut client, watch_all(last.clone(), false)).await;
    while (seen.len() as u64) < APPROVALS * VOTERS {
        see(&mut seen, &next(&mut changes).await);
    }
    let sequences: Vec<_> = seen.keys().map(|key| key.1).collect();
    assert!(sequences.windows(2).all(|pair| pair[0] + 1 == pair[1]), "no gap");
}

#[tokio::test]
async fn on_a_stream_only_the_slow_subscription_ends() {
    const APPROVALS: u64 = 1_000;
    let node = Node::start(&["--watcher-buffer-bytes", "64KiB"]);
    let mut client = node.client().await;
    let mut voter = Talk::start(&mut client).await;
    for number in 0..APPROVALS {
        voter.send(Item::Request(request(&id(number), 50, 100))).await;
    }
    voter.until_acked(APPROVALS).await;
    let endpoint = tonic::transport::Endpoint::from_shared(node.endpoint()).expect("an address");
    let endpoint = endpoint.initial_stream_window_size(65_535).initial_connection_window_size(65_535);
    let mut lazy = Client::new(endpoint.connect().await.expect("the node listens"));
    let mut talk = Talk::start(&mut lazy).await;
    let filter = Some(v1::ApprovalRequest { requester_id: REQUESTER.into(), ..watch_all("", true) });
    let subscription = v1::StreamSubscription { subscription_id: "all".into(), filter, cancel: false };
    talk.send(Item::Subscription(subscription)).await;
    talk.until("the current states", |talk| talk.updates.len() == APPROVALS as usize).await;
    talk.updates.clear();
    // The first change says that the states are behind it.
    voter.send(batch(columns("first", [0], Decision::Approved))).await;
    talk.until("the first change", |talk| talk.updates.len() == 1).await;
    for round in 0..30 {
        let name = format!("voter-{round}");
        voter.send(batch(columns(&name, 0..APPROVALS, Decision::Approved))).await;
        voter.until_acked(APPROVALS * (round + 2) + 1).await;
    }
    talk.until("the end of the subscription", |talk| talk.ended.len() == 1).await;
    let ended = &talk.ended[0];
    assert_eq!((ended.subscription_id.as_str(), ended.code), ("all", Code::ResourceExhausted as u32));
    let last = talk.updates.last().and_then(|update| update.approval.as_ref()).expect("some came");
    assert_eq!(ended.resume_token, last.resume_token);
    talk.send(Item::Response(vote(&id(1), "still-here", Decision::Approved))).await;
    talk.until_acked(1).await;
}
