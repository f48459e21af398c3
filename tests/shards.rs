//! Another number of shards at a restart changes nothing that was acknowledged, and the logs of before stay readable.

use crate::support::approvals::{Client, request};
use crate::support::{Node, run};
use assent::wire::v1::{ApprovalStatusMessage, ApprovalView, ValidatorDecision};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const SMALL: [&str; 3] = ["--segment-bytes=1048576", "--frame-bytes-max=131072", "--reserve-bytes=1048576"];

/// (log, sequence) of every event that the folder holds, with the event.
fn dumped(folder: &Path) -> BTreeMap<(String, u64), serde_json::Value> {
    let said = run(folder, &["journal", "dump", "data", "--json"], &[]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let mut events = BTreeMap::new();
    for line in said.stdout.lines() {
        let event: serde_json::Value = serde_json::from_str(line).expect("JSON a line");
        let text = |name: &str| event[name].as_str().unwrap_or_else(|| panic!("no {name} in {event}")).to_string();
        let sequence = text("sequence").parse().expect("a number");
        assert!(events.insert((text("log"), sequence), event).is_none(), "{line} is there twice");
    }
    events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn everything_stays_through_1_2_4_and_1_shards() {
    let mut node = Node::start(&SMALL);
    let mut known: BTreeMap<u64, ApprovalStatusMessage> = BTreeMap::new();
    let mut events = BTreeMap::new();
    for (round, shards) in ["1", "2", "4", "1"].into_iter().enumerate() {
        let flags: Vec<&str> = SMALL.into_iter().chain(["--shards", shards]).collect();
        if round > 0 {
            node.restart_with(&flags);
        }
        let mut client = Client::of(&node).await;
        for (number, before) in &known {
            let now = client.state(*number, ApprovalView::Full).await.expect("it is there");
            assert_eq!(now, *before, "{shards} shards, number {number}");
        }
        let round = round as u64;
        for number in round * 50..(round + 1) * 50 {
            client.open(request(number, 3, 5)).await.expect("opened");
        }
        // Every approval so far gets a vote in this round: its chain of events goes through the generations.
        for number in 0..(round + 1) * 50 {
            let decision = if number % 7 == 0 { ValidatorDecision::Abstain } else { ValidatorDecision::Approved };
            let reason = format!("round {round}");
            let voted = client.vote(number, &format!("validator-{round}"), decision, &reason).await;
            assert!(voted.is_ok() || round == 3, "{voted:?}");
        }
        for number in 0..(round + 1) * 50 {
            known.insert(number, client.state(number, ApprovalView::Full).await.expect("it is there"));
        }
        // Clean stops and kills alike.
        if round.is_multiple_of(2) {
            node.stop();
        } else {
            node.kill();
        }
        let now = dumped(node.folder().path());
        for (at, event) in &events {
            assert_eq!(now.get(at), Some(event), "{at:?} of an older log");
        }
        events = now;
    }
    let logs: BTreeSet<&String> = events.keys().map(|(log, _)| log).collect();
    assert_eq!(logs.len(), 1 + 2 + 4 + 1, "every generation's logs hold events");
    for log in logs {
        let sequences: Vec<u64> = events.keys().filter(|(of, _)| of == log).map(|(_, sequence)| *sequence).collect();
        assert_eq!(sequences, (1..=sequences.len() as u64).collect::<Vec<_>>(), "log {log} has no gap");
    }
}
