//! Every call of the contract works as the proto says, over an ordinary generated client.

use crate::support::Node;
use crate::support::calls::*;
use assent::wire::v1;
use assent::wire::v1::RefusalReason as Reason;
use assent::wire::v1::approval_stream_request::Item;
use sha2::{Digest, Sha256};
use tonic::Code;

#[tokio::test]
async fn an_approval_is_opened_once_however_often_it_is_asked_for() {
    let node = Node::start(&[]);
    let mut client = node.client().await;
    let content: &[u8] = b"move 10 to bob";
    let asked = v1::ApprovalRequest {
        content: content.into(),
        priority: v1::ApprovalPriority::High as i32,
        ..request(&id(1), 2, 3)
    };
    let first = open(&mut client, asked.clone()).await;
    assert_eq!((first.approval_id.as_str(), first.status(), first.repeat), (id(1).as_str(), Pending, false));
    assert_eq!((first.required_approvals, first.total_validators, first.version), (2, 3, 1));
    assert_eq!((first.approval_type(), first.priority()), (v1::ApprovalType::LargeTransaction, asked.priority()));
    assert_eq!(first.requester_id, REQUESTER);
    let hex: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(first.content_hash, format!("sha256:{hex}"));
    assert!(first.log != 0 && first.sequence != 0 && first.finalized_at.is_none());
    let lifetime =
        first.expires_at.expect("no approval lives for ever").seconds - first.created_at.expect("the server's").seconds;
    assert_eq!(lifetime, 24 * 3_600);

    // Another spelling is the same id, and what the server filled in is not part of what was asked.
    let spelled = v1::ApprovalRequest { approval_id: format!("{{{}}}", id(1).to_uppercase()), ..asked.clone() };
    let again = open(&mut client, spelled).await;
    assert_eq!(again, v1::ApprovalStatusMessage { repeat: true, ..first.clone() });

    let other = v1::ApprovalRequest { required_approvals: 1, ..asked.clone() };
    let status = client.submit_approval_request(other).await.expect_err("a different request");
    assert_eq!(refused(&status), (Code::AlreadyExists, "ID_TAKEN".into(), "".into()));

    // After the decision: the approval as it now stands.
    for validator in ["a", "b"] {
        cast(&mut client, &id(1), validator, Decision::Approved).await;
    }
    let again = open(&mut client, asked).await;
    assert_eq!((again.repeat, again.status(), again.approvals), (true, Approved, 2));

    // Without an id the server draws one, each time.
    let drawn = open(&mut client, request("", 1, 1)).await;
    let other = open(&mut client, request("", 1, 1)).await;
    assert_ne!(drawn.approval_id, other.approval_id);
    assert_eq!(uuid::Uuid::parse_str(&drawn.approval_id).expect("a UUID").get_version_num(), 7);
}

#[tokio::test]
async fn a_vote_counts_once_and_its_repeat_is_answered_before_and_after_the_decision() {
    let node = Node::start(&[]);
    let mut client = node.client().await;
    open(&mut client, request(&id(1), 2, 4)).await;
    let first = cast(&mut client, &id(1), "alice", Decision::Approved).await;
    assert_eq!((first.approvals, first.version, first.repeat, first.status()), (1, 2, false, Pending));
    let again = cast(&mut client, &id(1), "alice", Decision::Approved).await;
    assert_eq!((again.approvals, again.version, again.repeat, again.sequence), (1, 2, true, first.sequence));

    let status = client.submit_validator_response(vote(&id(1), "alice", Decision::Rejected)).await;
    let status = status.expect_err("another decision");
    assert_eq!(refused(&status), (Code::AlreadyExists, "VOTE_STANDS".into(), "".into()));
    assert_eq!(fact(&status, "standing_decision"), "APPROVED");

    // Two spellings of a hyphenated UUID are one validator; case counts otherwise.
    let name = "0190A5D0-0000-7000-8000-00000000BEEF";
    assert!(!cast(&mut client, &id(1), name, Decision::Abstain).await.repeat);
    assert!(cast(&mut client, &id(1), &name.to_lowercase(), Decision::Abstain).await.repeat);
    let last = cast(&mut client, &id(1), "Alice", Decision::Approved).await;
    assert_eq!((last.status(), last.approvals, last.abstentions, last.version), (Approved, 2, 1, 4));
    assert!(last.finalized_at.is_some());

    // Decided: what was cast is still answered, what was not is told so.
    let again = cast(&mut client, &id(1), "alice", Decision::Approved).await;
    assert_eq!((again.repeat, again.status(), again.version), (true, Approved, 4));
    let status = client.submit_validator_response(vote(&id(1), "alice", Decision::Rejected)).await;
    assert_eq!(refused(&status.expect_err("another decision")).1, "VOTE_STANDS");
    let status = client.submit_validator_response(vote(&id(1), "carol", Decision::Approved)).await;
    let status = status.expect_err("a first vote after the decision");
    assert_eq!(refused(&status), (Code::FailedPrecondition, "APPROVAL_DECIDED".into(), "".into()));
    assert_eq!(fact(&status, "outcome"), "APPROVED");
}

#[tokio::test]
async fn a_rejection_comes_at_the_vote_that_makes_approval_unreachable() {
    let node = Node::start(&[]);
    let mut client = node.client().await;
    open(&mut client, request(&id(1), 3, 4)).await;
    assert_eq!(cast(&mut client, &id(1), "a", Decision::Abstain).await.status(), Pending);
    let last = cast(&mut client, &id(1), "b", Decision::Rejected).await;
    assert_eq!((last.status(), last.rejections, last.abstentions), (Rejected, 1, 1));
}

#[tokio::test]
async fn basic_says_who_voted_what_and_full_adds_content_reasons_signatures_and_times() {
    let mut node = Node::start(&[]);
    let mut client = node.client().await;
    let content: &[u8] = b"the whole question";
    let asked = v1::ApprovalRequest { content: content.into(), ..request(&id(1), 2, 3) };
    let opened = open(&mut client, asked).await;
    let said = v1::ApprovalResponse {
        reason: "fits the budget – Grüße".into(),
        signature: vec![0, 1, 0xFF].into(),
        content_hash: opened.content_hash.clone(),
        ..vote(&id(1), "alice", Decision::Approved)
    };
    client.submit_validator_response(said.clone()).await.expect("it counts");
    cast(&mut client, &id(1), "bob", Decision::Rejected).await;

    let ask = |view: v1::ApprovalView| v1::GetApprovalStatusRequest {
        approval_id: id(1),
        view: view as i32,
        ..v1::GetApprovalStatusRequest::default()
    };
    for view in [v1::ApprovalView::Unspecified, v1::ApprovalView::Basic] {
        let basic = client.get_approval_status(ask(view)).await.expect("it is there").into_inner();
        assert_eq!((basic.approvals, basic.rejections, basic.content.len()), (1, 1, 0));
        assert_eq!(basic.detail(), v1::DetailStatus::Unspecified);
        let mut votes: Vec<_> = basic.votes.iter().map(|vote| (vote.validator_id.as_str(), vote.decision())).collect();
        votes.sort_unstable_by_key(|vote| vote.0);
        assert_eq!(votes, [("alice", Decision::Approved), ("bob", Decision::Rejected)]);
        assert!(basic.votes.iter().all(|vote| vote.reason.is_empty() && vote.voted_at.is_none()));
    }
    // From the journal, of this process and of the one after a kill.
    for killed in [false, true] {
        if killed {
            node.kill();
            node.restart();
            client = node.client().await;
        }
        let full = client.get_approval_status(ask(v1::ApprovalView::Full)).await.expect("it is there").into_inner();
        assert_eq!((full.detail(), full.detail_reason.as_str()), (v1::DetailStatus::Complete, ""));
        assert_eq!(full.content, content);
        let alice = full.votes.iter().find(|vote| vote.validator_id == "alice").expect("she voted");
        assert_eq!((&alice.reason, &alice.signature), (&said.reason, &said.signature));
        assert!(alice.voted_at.is_some_and(|at| at.seconds >= opened.created_at.expect("set").seconds));
        let sequences: Vec<_> = full.votes.iter().map(|vote| vote.sequence).collect();
        assert_eq!(full.sequence, *sequences.iter().max().expect("two votes"));
        assert!(sequences.iter().all(|sequence| *sequence > opened.sequence));
    }
    let status =
        client.get_approval_status(v1::GetApprovalStatusRequest { approval_id: id(9), ..ask(v1::ApprovalView::Basic) });
    assert_eq!(refused(&status.await.expect_err("unknown")), (Code::NotFound, "NOT_FOUND".into(), "".into()));
}

#[tokio::test]
async fn votes_and_eligible_validators_come_in_pages_each_once() {
    let node = Node::start(&[]);
    let mut client = node.client().await;
    let names: Vec<String> = (0..25).map(|number| format!("validator-{number:02}")).collect();
    let asked = v1::ApprovalRequest { eligible_validators: names.clone(), ..request(&id(1), 20, 0) };
    let opened = open(&mut client, asked).await;
    assert_eq!((opened.total_validators, opened.eligible_count, opened.eligible_digest.len()), (25, 25, 32));
    assert!(opened.eligible_validators.is_empty(), "a count and a digest, not the names");
    for name in &names[..15] {
        cast(&mut client, &id(1), name, Decision::Approved).await;
    }
    for (view, page_size) in [(v1::ApprovalView::Basic, 4), (v1::ApprovalView::Full, 7), (v1::ApprovalView::Full, 15)] {
        let (mut votes, mut eligible, mut page_token) = (Vec::new(), Vec::new(), String::new());
        for page in 0.. {
            let ask = v1::GetApprovalStatusRequest { approval_id: id(1), view: view as i32, page_token, page_size };
            let answer = client.get_approval_status(ask).await.expect("a page").into_inner();
            assert!(answer.votes.len() + answer.eligible_validators.len() <= page_size as usize);
            assert_eq!(answer.approvals, 15, "every page has the tally");
            votes.extend(answer.votes.into_iter().map(|vote| vote.validator_id));
            eligible.extend(answer.eligible_validators);
            page_token = answer.next_page_token;
            assert!(page < 50, "the pages end");
            if page_token.is_empty() {
                break;
            }
        }
        votes.sort_unstable();
        assert_eq!(votes, names[..15], "every vote once");
        eligible.sort_unstable();
        let expected = if view == v1::ApprovalView::Full { &names[..] } else { &[] };
        assert_eq!(eligible, expected, "every eligible validator once, in FULL");
    }
    // A set is stored once, whatever the order in which it is named.
    let reversed = names.iter().rev().cloned().collect();
    let other =
        open(&mut client, v1::ApprovalRequest { eligible_validators: reversed, ..request(&id(2), 1, 25) }).await;
    assert_eq!(other.eligible_digest, opened.eligible_digest);
    assert_eq!(node.metric("assent_eligible_sets{shard=\"0\"}"), 1.0);
}

#[tokio::test]
async fn many_statuses_come_in_the_order_asked_for_and_unknown_ids_are_named() {
    let node = Node::start(&["--shards", "2"]);
    let mut client = node.client().await;
    for number in 1..=40 {
        open(&mut client, request(&id(number), 1, 2)).await;
    }
    cast(&mut client, &id(7), "a", Decision::Approved).await;
    let approval_ids: Vec<_> = (1..=50).rev().map(id).collect();
    let ask = v1::GetApprovalStatusesRequest { approval_ids: approval_ids.clone() };
    let answer = client.get_approval_statuses(ask).await.expect("an answer").into_inner();
    let got: Vec<_> = answer.approvals.iter().map(|approval| approval.approval_id.clone()).collect();
    assert_eq!(got, approval_ids[10..]);
    assert_eq!(answer.unknown_ids, approval_ids[..10]);
    assert!(answer.remaining_ids.is_empty());
    assert!(answer.approvals.iter().all(|approval| approval.votes.is_empty()), "the tally, without the votes");
    let seventh = answer.approvals.iter().find(|approval| approval.approval_id == id(7)).expect("asked for");
    assert_eq!((seventh.status(), seventh.approvals), (Approved, 1));
}

#[tokio::test]
async fn a_backlog_in_one_call_is_summed_up() {
    let node = Node::start(&["--shards", "2"]);
    let mut client = node.client().await;
    let asked = v1::ApprovalRequest { eligible_validators: vec!["bob".into()], ..request(&id(99), 1, 0) };
    open(&mut client, asked).await;
    for number in 0..20 {
        open(&mut client, request(&id(number), 1 + (number % 2) as u32, 3)).await;
    }
    cast(&mut client, &id(0), "first", Decision::Approved).await;
    cast(&mut client, &id(1), "alice", Decision::Rejected).await;
    let mut backlog: Vec<_> = (0..20).map(|number| vote(&id(number), "alice", Decision::Approved)).collect();
    backlog.push(vote(&id(3), "alice", Decision::Approved)); // 20: a repeat
    backlog.push(vote(&id(77), "alice", Decision::Approved)); // 21: unknown
    backlog.push(vote(&id(99), "alice", Decision::Approved)); // 22: not eligible
    backlog.push(vote(&id(3), "no spaces", Decision::Approved)); // 23: no name
    backlog.push(vote(&id(5), "carl", Decision::Unspecified)); // 24: no decision
    let other_hash = v1::ApprovalResponse { content_hash: "label".into(), ..vote(&id(5), "carl", Decision::Approved) };
    backlog.push(other_hash); // 25: hash
    let summary = client.batch_submit_responses(tokio_stream::iter(backlog)).await.expect("a summary").into_inner();
    // 0 is decided before alice comes, on 1 her other vote stands.
    assert_eq!((summary.received, summary.accepted, summary.repeated_votes, summary.refused), (26, 18, 1, 7));
    assert_eq!(summary.decided, 9, "those that need one approval, but for the first");
    let refusals: Vec<_> =
        summary.refusals.iter().map(|refusal| (refusal.index, refusal.code, refusal.reason())).collect();
    assert_eq!(
        refusals,
        [
            (0, Code::FailedPrecondition as u32, Reason::ApprovalDecided),
            (1, Code::AlreadyExists as u32, Reason::VoteStands),
            (21, Code::NotFound as u32, Reason::NotFound),
            (22, Code::PermissionDenied as u32, Reason::NotEligible),
            (23, Code::InvalidArgument as u32, Reason::InvalidArgument),
            (24, Code::InvalidArgument as u32, Reason::InvalidArgument),
            (25, Code::FailedPrecondition as u32, Reason::ContentHashMismatch),
        ]
    );
    let mut counts: Vec<_> = summary.refused_by_reason.iter().map(|count| (count.reason(), count.count)).collect();
    counts.sort_unstable_by_key(|count| count.0 as i32);
    let expected = [
        (Reason::InvalidArgument, 2),
        (Reason::NotFound, 1),
        (Reason::ApprovalDecided, 1),
        (Reason::VoteStands, 1),
        (Reason::NotEligible, 1),
        (Reason::ContentHashMismatch, 1),
    ];
    assert_eq!(counts, expected);
    let empty = client.batch_submit_responses(tokio_stream::empty()).await.expect("a summary").into_inner();
    assert_eq!(empty, v1::BatchSubmitSummary::default());
}

#[tokio::test]
async fn a_stream_takes_everything_numbers_it_from_0_and_acknowledges_it() {
    for shards in ["1", "3"] {
        let node = Node::start(&["--shards", shards]);
        let mut client = node.client().await;
        let mut talk = Talk::start(&mut client).await;
        for number in 0..30 {
            talk.send(Item::Request(request(&id(number), 2, 3))).await; // items 0 to 29
        }
        talk.send(Item::Response(vote(&id(0), "single", Decision::Approved))).await; // 30
        let approve = |number: u64| vote(&id(number), "row", Decision::Approved);
        talk.send(rows((0..10).map(approve).collect())).await; // 31 to 40; 0 is approved at 31
        talk.send(batch(columns("column", 0..30, Decision::Approved))).await; // 41 to 70; 0 is decided
        let mut table = columns("", [20, 21, 22, 23, 24, 500], Decision::Rejected); // 71 to 76
        table.validators = vec!["t-0".into(), "t-1".into(), "not legal".into()];
        let indexes = [0u16, 1, 2, 3, 0, 1];
        table.validator_indexes = indexes.iter().flat_map(|index| index.to_le_bytes()).collect::<Vec<_>>().into();
        talk.send(batch(table)).await;
        talk.send(Item::Request(v1::ApprovalRequest { approval_id: "".into(), ..request("", 1, 1) })).await; // 77
        talk.send(Item::Request(request(&id(3), 1, 9))).await; // 78: another request
        talk.send(Item::Request(request(&id(3), 2, 3))).await; // 79: a repeat
        let mut bad = columns("", [25, 26], Decision::Approved); // 80, 81: the stream's validator
        bad.decisions = vec![1, 4].into();
        talk.send_as("the-streams-own", batch(bad)).await;
        talk.send(batch(columns("", [27], Decision::Approved))).await; // 82: still the stream's
        talk.until_acked(83).await;
        let mut expected = vec![(41, Code::FailedPrecondition, Reason::ApprovalDecided)];
        expected.extend([
            (73, Code::InvalidArgument, Reason::InvalidArgument),
            (74, Code::InvalidArgument, Reason::InvalidArgument),
            (76, Code::NotFound, Reason::NotFound),
            (77, Code::InvalidArgument, Reason::InvalidArgument),
            (78, Code::AlreadyExists, Reason::IdTaken),
            (81, Code::InvalidArgument, Reason::InvalidArgument),
        ]);
        assert_eq!(talk.refused(), expected, "with {shards} shards");
        talk.close();
        assert!(talk.end().await.is_none(), "OK once everything is acknowledged");

        let ask = v1::GetApprovalStatusesRequest { approval_ids: (0..30).map(id).collect() };
        let answer = client.get_approval_statuses(ask).await.expect("an answer").into_inner();
        for (number, approval) in answer.approvals.iter().enumerate() {
            let tally = (approval.approvals, approval.rejections);
            let expected = match number {
                0..10 => (2, 0),
                20 | 21 | 24 => (1, 1),
                25 | 27 => (2, 0),
                _ => (1, 0),
            };
            assert_eq!(tally, expected, "approval {number} with {shards} shards");
        }
    }
}

#[tokio::test]
async fn columns_that_do_not_agree_end_the_stream_after_what_came_before() {
    let node = Node::start(&[]);
    let mut client = node.client().await;
    for number in 0..10 {
        open(&mut client, request(&id(number), 3, 9)).await;
    }
    let good = || columns("alice", 0..10, Decision::Approved);
    let cut = |bytes: &bytes::Bytes| bytes.slice(..bytes.len() - 1);
    let short_ids = v1::VoteColumns { approval_ids: cut(&good().approval_ids), ..good() };
    let short_decisions = v1::VoteColumns { decisions: cut(&good().decisions), ..good() };
    let table = || v1::VoteColumns { validator_id: "".into(), validators: vec!["bob".into()], ..good() };
    let short_indexes = v1::VoteColumns { validator_indexes: vec![0; 19].into(), ..table() };
    let both = v1::VoteColumns { validator_id: "alice".into(), validator_indexes: vec![0; 20].into(), ..table() };
    let cases = [
        (short_ids, "batch.columns.approval_ids"),
        (short_decisions, "batch.columns.approval_ids"),
        (short_indexes, "batch.columns.validator_indexes"),
        (both, "batch.columns.validator_id"),
    ];
    for (at, (bad, field)) in cases.into_iter().enumerate() {
        let mut talk = Talk::start(&mut client).await;
        let name = format!("before-{at}");
        talk.send(batch(columns(&name, [9], Decision::Abstain))).await;
        talk.send(rows(vec![vote(&id(9), "row", Decision::Unspecified)])).await;
        talk.send(batch(bad)).await;
        let end = talk.end().await.expect("an error");
        assert_eq!(refused(&end), (Code::InvalidArgument, "INVALID_ARGUMENT".into(), field.into()));
        assert_eq!(talk.acked, 2, "what came before is answered");
        assert_eq!(talk.refused(), [(1, Code::InvalidArgument, Reason::InvalidArgument)]);
    }
    let ninth = client.get_approval_status(v1::GetApprovalStatusRequest { approval_id: id(9), ..Default::default() });
    let ninth = ninth.await.expect("it is there").into_inner();
    assert_eq!((ninth.abstentions, ninth.approvals, ninth.status()), (4, 0, Pending));
}

#[tokio::test]
async fn a_stream_carries_subscriptions_beside_its_votes() {
    let node = Node::start(&[]);
    let mut client = node.client().await;
    for number in 1..=3 {
        open(&mut client, request(&id(number), 1, 2)).await;
    }
    let mut talk = Talk::start(&mut client).await;
    let subscription = |name: &str, filter: v1::ApprovalRequest| {
        Item::Subscription(v1::StreamSubscription { subscription_id: name.into(), filter: Some(filter), cancel: false })
    };
    let cancel = |name: &str| {
        Item::Subscription(v1::StreamSubscription { subscription_id: name.into(), filter: None, cancel: true })
    };
    talk.send(subscription("one", watch_of(&id(1)))).await;
    talk.send(subscription("all", watch_all("", true))).await;
    talk.until("the current states", |talk| talk.updates.len() == 4).await;
    let mut states: Vec<_> = talk
        .updates
        .drain(..)
        .map(|update| (update.subscription_id, update.approval.expect("a state").approval_id))
        .collect();
    states.sort_unstable();
    let of = |name: &str, number| (name.to_string(), id(number));
    assert_eq!(states, [of("all", 1), of("all", 2), of("all", 3), of("one", 1)]);

    talk.send(Item::Response(vote(&id(1), "alice", Decision::Approved))).await; // item 0: no subscription is one
    talk.until("the change, twice, and the end of the one", |talk| talk.updates.len() == 2 && talk.ended.len() == 1)
        .await;
    talk.until_acked(1).await;
    assert_eq!((talk.ended[0].subscription_id.as_str(), talk.ended[0].code), ("one", Code::Ok as u32));
    for update in talk.updates.drain(..) {
        let approval = update.approval.expect("a change");
        assert_eq!((approval.approval_id.clone(), approval.status()), (id(1), Approved));
        assert_eq!(approval.event_type(), v1::ApprovalEventType::Finalized);
        assert_eq!(approval.votes[0].validator_id, "alice");
        assert!(!approval.resume_token.is_empty());
    }

    // The name is free again, and one that was never taken is said to be unknown.
    talk.send(subscription("one", watch_of(&id(2)))).await;
    talk.until("the state of the second", |talk| talk.updates.len() == 1).await;
    talk.updates.clear();
    talk.send(cancel("all")).await;
    talk.send(cancel("none")).await;
    talk.until("both ends", |talk| talk.ended.len() == 3).await;
    assert_eq!((talk.ended[1].subscription_id.as_str(), talk.ended[1].code), ("all", Code::Ok as u32));
    assert!(!talk.ended[1].resume_token.is_empty(), "a cancelled subscription can go on elsewhere");
    assert_eq!((talk.ended[2].subscription_id.as_str(), talk.ended[2].code), ("none", Code::NotFound as u32));
    talk.send(rows(vec![vote(&id(3), "alice", Decision::Approved), vote(&id(2), "bob", Decision::Rejected)])).await;
    talk.until("the vote on the second", |talk| talk.updates.len() == 1).await;
    talk.until_acked(3).await;
    assert_eq!(talk.updates[0].approval.as_ref().expect("a change").rejections, 1);

    // What was cancelled can go on from its token.
    let token = talk.ended[1].resume_token.clone();
    talk.send(subscription("all", watch_all(token, false))).await;
    talk.until("what was missed", |talk| talk.updates.len() == 3).await;
    let missed: Vec<_> =
        talk.updates[1..].iter().map(|update| update.approval.clone().expect("a change").approval_id).collect();
    assert_eq!(missed, [id(3), id(2)]);

    talk.send(subscription("one", watch_of(&id(2)))).await;
    let end = talk.end().await.expect("the name is in use");
    assert_eq!(
        refused(&end),
        (Code::InvalidArgument, "INVALID_ARGUMENT".into(), "subscription.subscription_id".into())
    );
}

#[tokio::test]
async fn health_counters_and_reflection_answer_tools_without_our_proto() {
    let node = Node::start(&["--shards", "2"]);
    let mut client = node.client().await;
    open(&mut client, request(&id(1), 1, 1)).await;
    // DEGRADED until its archive is reached, a moment after it serves.
    node.wait_for("assent_sink_state{sink=\"archive\"}", |state| state == 1.0);
    let health = client.check_health(v1::HealthCheckRequest {}).await.expect("an answer").into_inner();
    assert_eq!((health.state(), health.durability.as_str(), health.shards), (v1::HealthState::Serving, "journal", 2));
    assert_eq!(health.version, env!("CARGO_PKG_VERSION"));
    uuid::Uuid::parse_str(&health.deployment_id).expect("a UUID");
    let names: Vec<_> = health.components.iter().map(|component| component.name.as_str()).collect();
    for name in ["journal", "clock", "shard-0", "shard-1", "grpc"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert_eq!(health.metrics.expect("the counters").total_requests_submitted, 1);

    let ask = v1::StreamMetricsRequest { interval_ms: 100 };
    let mut metrics = client.stream_metrics(ask).await.expect("a stream").into_inner();
    assert_eq!(next(&mut metrics).await.total_responses_received, 0);
    cast(&mut client, &id(1), "alice", Decision::Approved).await;
    while next(&mut metrics).await.total_approved == 0 {}

    use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
    let mut health = HealthClient::new(node.channel().await);
    for service in ["", "aurigraph.approvals.v1.ApprovalGrpcService"] {
        let answer = health.check(HealthCheckRequest { service: service.into() }).await.expect("an answer");
        assert_eq!(answer.into_inner().status(), ServingStatus::Serving);
    }
    let unknown = health.check(HealthCheckRequest { service: "other".into() }).await.expect_err("unknown");
    assert_eq!(unknown.code(), Code::NotFound);

    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let mut reflection = ServerReflectionClient::new(node.channel().await);
    let ask = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answers = reflection.server_reflection_info(tokio_stream::iter([ask])).await.expect("a stream");
    let answer = next(&mut answers.into_inner()).await;
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else { panic!("{answer:?}") };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["aurigraph.approvals.v1.ApprovalGrpcService", "grpc.health.v1.Health"] {
        assert!(names.contains(&name), "{names:?}");
    }
}
