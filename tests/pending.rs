//! What is pending comes most urgent first and oldest first, filtered, and is followed without a gap or a repeat.

use crate::support::Node;
use crate::support::calls::*;
use assent::wire::v1;
use assent::wire::v1::ApprovalPriority as Priority;
use assent::wire::v1::approval_stream_request::Item;
use std::collections::HashMap;

async fn list(client: &mut Client, ask: v1::StreamPendingApprovalsRequest) -> Vec<v1::ApprovalStatusMessage> {
    let mut stream = client.stream_pending_approvals(ask).await.expect("a stream").into_inner();
    let (all, end) = rest_of(&mut stream).await;
    assert!(end.is_none(), "{end:?}");
    all
}

fn ids(messages: &[v1::ApprovalStatusMessage]) -> Vec<String> {
    messages.iter().map(|message| message.approval_id.clone()).collect()
}

#[tokio::test]
async fn critical_before_high_before_normal_and_oldest_first() {
    for shards in ["1", "4"] {
        let node = Node::start(&["--shards", shards]);
        let mut client = node.client().await;
        let priorities = [Priority::Unspecified, Priority::Critical, Priority::Normal, Priority::High];
        // Ids descend, so that their order is not the one of time.
        for number in (0..40).rev() {
            let priority = priorities[number as usize % 4] as i32;
            open(&mut client, v1::ApprovalRequest { priority, ..request(&id(number), 1, 2) }).await;
        }
        for number in [5, 6, 7, 8] {
            cast(&mut client, &id(number), "a", Decision::Approved).await;
        }
        let is = |number: &u64, wanted: &[u64]| !(5..=8).contains(number) && wanted.contains(&(number % 4));
        let all = |wanted: &'static [u64]| (0..40).rev().filter(move |number| is(number, wanted)).map(id);
        let expected: Vec<_> = all(&[1]).chain(all(&[3])).chain(all(&[0, 2])).collect();
        let listed = list(&mut client, v1::StreamPendingApprovalsRequest::default()).await;
        assert_eq!(ids(&listed), expected, "with {shards} shards");
        assert!(listed.iter().all(|message| message.status() == Pending && message.resume_token.is_empty()));
        let high = v1::StreamPendingApprovalsRequest { priority: Priority::High as i32, ..Default::default() };
        assert_eq!(ids(&list(&mut client, high).await), all(&[3]).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn filters_select_and_a_validator_sees_what_awaits_it() {
    let mut node = Node::start(&["--shards", "2"]);
    let mut client = node.client().await;
    let other = id(0xFFFF);
    for number in 0..12 {
        let asked = v1::ApprovalRequest {
            approval_type: 1 + (number % 3) as i32,
            requester_id: if number % 2 == 0 { REQUESTER.into() } else { other.clone() },
            eligible_validators: if number < 4 { vec!["a".into(), "b".into()] } else { Vec::new() },
            ..request(&id(number), 2, if number < 4 { 0 } else { 3 })
        };
        open(&mut client, asked).await;
    }
    for (number, name) in [(0, "a"), (5, "a"), (6, "c"), (7, "c")] {
        cast(&mut client, &id(number), name, Decision::Abstain).await;
    }
    let ask = |approval_type: i32, requester_id: &str, awaiting: &str| v1::StreamPendingApprovalsRequest {
        approval_type,
        requester_id: requester_id.into(),
        awaiting_validator: awaiting.into(),
        ..Default::default()
    };
    let numbers = |numbers: &[u64]| numbers.iter().map(|number| id(*number)).collect::<Vec<_>>();
    for killed in [false, true] {
        if killed {
            node.kill();
            node.restart();
            client = node.client().await;
        }
        assert_eq!(ids(&list(&mut client, ask(2, "", "")).await), numbers(&[1, 4, 7, 10]));
        assert_eq!(ids(&list(&mut client, ask(0, &other, "")).await), numbers(&[1, 3, 5, 7, 9, 11]));
        assert_eq!(ids(&list(&mut client, ask(2, &other, "")).await), numbers(&[1, 7]));
        // Two abstentions of three or two of two reject nothing here; what a voted on does not await it.
        assert_eq!(ids(&list(&mut client, ask(0, "", "a")).await), numbers(&[1, 2, 3, 4, 6, 7, 8, 9, 10, 11]));
        assert_eq!(
            ids(&list(&mut client, ask(0, "", "c")).await),
            numbers(&[4, 5, 8, 9, 10, 11]),
            "c may not vote on 0 to 3"
        );
        assert_eq!(ids(&list(&mut client, ask(2, &other, "c")).await), numbers(&[]));
        assert_eq!(ids(&list(&mut client, ask(2, "", "never-seen")).await), numbers(&[4, 7, 10]));
    }
}

#[tokio::test]
async fn followed_without_a_gap_or_a_repeat_while_votes_go_on() {
    const APPROVALS: u64 = 600;
    let node = Node::start(&["--shards", "2"]);
    let mut client = node.client().await;
    let mut talk = Talk::start(&mut client).await;
    for number in 0..APPROVALS / 2 {
        talk.send(Item::Request(request(&id(number), 3, 5))).await;
    }
    talk.until_acked(APPROVALS / 2).await;
    // Openings and votes race with the list and what follows it.
    let busy = tokio::spawn(async move {
        for number in APPROVALS / 2..APPROVALS {
            talk.send(Item::Request(request(&id(number), 3, 5))).await;
        }
        for voter in ["a", "b", "c", "d"] {
            for start in (0..APPROVALS).step_by(50) {
                talk.send(batch(columns(voter, start..start + 50, Decision::Approved))).await;
                talk.read().await.expect("it goes on");
            }
        }
        talk.until_acked(APPROVALS + APPROVALS / 2 - APPROVALS / 2 + 4 * APPROVALS).await;
    });
    let ask = v1::StreamPendingApprovalsRequest { follow: true, ..Default::default() };
    let mut stream = client.stream_pending_approvals(ask.clone()).await.expect("a stream").into_inner();
    let mut versions: HashMap<String, u32> = HashMap::new();
    let (mut decided, mut token) = (0, bytes::Bytes::new());
    let mut broken_at_token = false;
    while decided < APPROVALS {
        // Once, in the middle, the stream breaks and is taken up behind its token.
        if decided >= APPROVALS / 2 && !broken_at_token {
            broken_at_token = true;
            let resumed = v1::StreamPendingApprovalsRequest { resume_token: token.clone(), ..ask.clone() };
            stream = client.stream_pending_approvals(resumed).await.expect("a stream").into_inner();
        }
        let message = next(&mut stream).await;
        match versions.get(&message.approval_id) {
            Some(version) => assert_eq!(message.version, version + 1, "no gap and no repeat"),
            // Seen first as a state, or as a change behind the list's start.
            None => assert!(message.event_type() == v1::ApprovalEventType::Unspecified || message.version >= 1),
        }
        versions.insert(message.approval_id.clone(), message.version);
        if !message.resume_token.is_empty() {
            token = message.resume_token.clone();
        }
        decided += u64::from(message.status() == Approved);
    }
    soon("everything acknowledged", busy).await.expect("no panic");
    assert_eq!(versions.len() as u64, APPROVALS);
    assert!(versions.values().all(|version| *version == 4), "opened, and three votes each");
}
