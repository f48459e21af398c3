//! A folder that is full refuses new approvals first, then votes; what is there expires, is read and survives, the
//! node stops as always, and with room again it goes on.

use crate::support::approvals::{Client, ahead, assert_refused, request};
use crate::support::{Node, PATIENCE};
use assent::wire::v1::{ApprovalStatus, ApprovalView, ValidatorDecision};
use std::time::{Duration, Instant};
use tonic::Code;

const SMALL: &[&str] = &[
    "--segment-bytes=1048576",
    "--frame-bytes-max=131072",
    "--pool-segments=1",
    "--reserve-bytes=1048576",
    "--snapshot-events=1000",
];

fn with_limit(bytes: &'static str) -> Vec<&'static str> {
    SMALL.iter().copied().chain([bytes]).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn opens_are_refused_first_then_votes_and_nothing_is_lost() {
    let mut node = Node::start(&with_limit("--folder-bytes-max=6291456"));
    let mut client = Client::of(&node).await;
    // Number 0 takes votes without an end, number 1 expires while the folder is full.
    client.open(request(0, 32_767, 32_767)).await.expect("opened");
    let mut soon = request(1, 1, 1);
    soon.expires_at = ahead(Duration::from_secs(8));
    client.open(soon).await.expect("opened");

    let mut opened = 2;
    let refusal = loop {
        let mut long = request(opened, 2, 3);
        long.content = vec![opened as u8; 60_000].into();
        match client.open(long).await {
            Ok(_) => opened += 1,
            Err(refusal) => break refusal,
        }
        assert!(opened < 200, "6 MiB hold no 200 approvals of 60,000 bytes");
    };
    assert_refused(&refusal, Code::ResourceExhausted, "NO_SPACE", true);
    assert!(opened > 20, "{opened}");

    let mut votes = 0;
    let reason = "r".repeat(1_000);
    let refusal = loop {
        match client.vote(0, &format!("validator-{votes}"), ValidatorDecision::Approved, &reason).await {
            Ok(_) => votes += 1,
            Err(refusal) => break refusal,
        }
        assert!(votes < 5_000, "6 MiB hold no 5,000 frames");
    };
    assert_refused(&refusal, Code::ResourceExhausted, "NO_SPACE", true);
    assert!(votes > 0, "votes are refused after opens");

    // Time goes on in a full folder.
    let deadline = Instant::now() + PATIENCE;
    while client.state(1, ApprovalView::Basic).await.expect("read").status() != ApprovalStatus::Expired {
        assert!(Instant::now() < deadline, "it does not expire");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    node.stop();

    // Still full: it starts all the same, with everything; then with more room it goes on.
    for limit in ["--folder-bytes-max=6291456", "--folder-bytes-max=62914560"] {
        node.restart_with(&with_limit(limit));
        client = Client::of(&node).await;
        assert_eq!(client.state(0, ApprovalView::Basic).await.expect("there").approvals, votes);
        assert_eq!(client.state(1, ApprovalView::Basic).await.expect("there").status(), ApprovalStatus::Expired);
        for number in 2..opened {
            let state = client.state(number, ApprovalView::Full).await.expect("there");
            assert_eq!(state.content, vec![number as u8; 60_000], "number {number}");
        }
        assert!(client.state(opened, ApprovalView::Basic).await.is_err(), "what was refused is not there");
        if limit.ends_with("62914560") {
            // The first round of preparing may still be under way.
            let deadline = Instant::now() + PATIENCE;
            while let Err(refusal) = client.open(request(opened, 2, 3)).await {
                assert_refused(&refusal, Code::ResourceExhausted, "NO_SPACE", true);
                assert!(Instant::now() < deadline, "there is room, and it is refused");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            client.vote(0, "one-more", ValidatorDecision::Approved, "").await.expect("counted");
        }
        node.stop();
    }
}
