//! What a sink gets: every event once and in its log's order, whatever happens to the node; and what the node does
//! while a sink is gone: it serves, says so, keeps what is missing, and refuses new approvals at a limit.

use crate::support::approvals::{Client, assert_refused, request};
use crate::support::calls;
use crate::support::{Node, PATIENCE, assent, folder, run};
use assent::wire::v1::ValidatorDecision::Approved;
use assent::wire::v1::{ApprovalStatus, ApprovalView};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::Code;
use tonic_types::StatusExt;

/// (log, sequence) to what happened to whom.
type Events = BTreeMap<(u64, u64), (String, String)>;

fn event(line: &str) -> ((u64, u64), (String, String)) {
    let event: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
    let number = |name: &str| event[name].as_str().expect("64 bits are text").parse().expect("a number");
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_string();
    ((number("log"), number("sequence")), (text(&event["approval"]["approvalId"]), text(&event["eventType"])))
}

/// All lines of all files, in order: each event once, each log without a gap.
fn in_files(dir: &Path) -> (Events, usize) {
    let files = std::fs::read_dir(dir).expect("the sink made it").map(|entry| entry.expect("listed").path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "ndjson")).collect();
    files.sort();
    let (mut events, mut ends) = (Events::new(), BTreeMap::<u64, u64>::new());
    for path in &files {
        for line in std::fs::read_to_string(path).expect("UTF-8").lines() {
            let (at, what) = event(line);
            let end = ends.entry(at.0).or_default();
            assert_eq!(at.1, *end + 1, "in the log's order, without a gap or a repeat");
            *end = at.1;
            events.insert(at, what);
        }
    }
    (events, files.len())
}

fn in_journal(node: &Node) -> Events {
    let data = node.data();
    let said = run(node.folder().path(), &["journal", "dump", "--json", data.to_str().expect("UTF-8")], &[]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    said.stdout.lines().map(event).collect()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn state(node: &Node) -> u64 {
    node.metric("assent_sink_state{sink=\"file\"}") as u64
}

/// The folder of the files, as an argument.
fn into(dir: &Path) -> String {
    format!("--file-sink-dir={}", dir.display())
}

fn command(node: &Node, words: &[&str]) -> crate::support::Said {
    let data = node.data();
    run(node.folder().path(), &[words, &["--data", data.to_str().expect("UTF-8")]].concat(), &[])
}

#[test]
fn every_event_once_and_in_order_across_kill_9_and_changes_of_shards() {
    let folder = Arc::new(folder());
    let dir = folder.path().join("events");
    let flags = |round: u64| {
        let shards = format!("--shards={}", [1, 2, 4, 1, 1][round as usize % 5]);
        let small = ["--segment-bytes=4194304", "--frame-bytes-max=262144", "--snapshot-events=20000"];
        let own = [into(&dir), shards, "--file-sink-rotate-bytes=1048576".to_string()];
        own.into_iter().chain(small.map(String::from)).collect::<Vec<_>>()
    };
    let start = flags(0);
    let mut node = Node::start_on(folder.clone(), &start.iter().map(String::as_str).collect::<Vec<_>>());
    for round in 0..10 {
        let ledger = folder.path().join(format!("{round}.ledger"));
        let mut command = assent();
        command.args(["load", "--duration=60", "--warmup=0", "--content=64", "--approvals=500", "--batch=128"]);
        command.args(["--mode=lifecycle", "--rate=3000", "--seed", &round.to_string(), "--ledger"]).arg(&ledger);
        command.args(["--endpoint", &node.endpoint()]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut load = command.spawn().expect("the binary runs");
        std::thread::sleep(Duration::from_millis(400 + 130 * (round % 4)));
        node.kill();
        load.wait().expect("it is our child");
        let flags = flags(round + 1);
        node.restart_with(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    }
    wait_until("the sink has everything", || {
        std::thread::sleep(Duration::from_millis(1_100));
        state(&node) == 1 && node.metric("assent_sink_lag_events{sink=\"file\"}") == 0.0
    });
    node.stop();
    let (files, journal) = (in_files(&dir), in_journal(&node));
    assert!(files.0 == journal, "{} events in files, {} in the journal", files.0.len(), journal.len());
    assert!(journal.len() > 5_000 && files.1 > 2, "{} events in {} files", journal.len(), files.1);
    println!("{} events in {} files, {} logs", journal.len(), files.1, {
        let logs: std::collections::BTreeSet<u64> = journal.keys().map(|at| at.0).collect();
        logs.len()
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_sink_that_cannot_go_on_stops_alone_and_goes_on_when_told() {
    let folder = Arc::new(folder());
    let dir = folder.path().join("events");
    // What no retry mends: a file stands where the folder should be.
    std::fs::write(&dir, "in the way").expect("written");
    let sink = into(&dir);
    // Alone: with another one that lags, the limit may name that.
    let flags = [sink.as_str(), "--archive=none", "--sink-lag-bytes-max=200000"];
    let mut node = Node::start_on(folder.clone(), &flags);
    let mut client = Client::of(&node).await;
    client.open(request(0, 1_000, 2_000)).await.expect("it serves without its sink");
    wait_until("it says so", || state(&node) == 4);
    assert_eq!(node.get("/readyz").0, 200, "the node serves");
    assert!(node.stderr().contains("assent sinks resume file"), "{}", node.stderr());

    // At the limit new approvals wait, and votes go on.
    let mut opened = 1;
    let deadline = Instant::now() + PATIENCE;
    let refusal = loop {
        let mut long = request(opened, 2, 3);
        long.content = vec![b'x'; 10_000].into();
        match client.open(long).await {
            Ok(_) => opened += 1,
            Err(refusal) => break refusal,
        }
        assert!(Instant::now() < deadline, "{opened} approvals, and none is refused");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(opened > 10, "{opened}");
    assert_refused(&refusal, Code::ResourceExhausted, "LIMIT_REACHED", true);
    let facts = refusal.get_error_details().error_info().expect("facts").metadata.clone();
    assert_eq!((facts["sink"].as_str(), facts["limit"].as_str()), ("file", "sink_lag_bytes_max"));
    client.vote(0, "alice", Approved, "").await.expect("votes go on");
    let (_, ready) = node.get("/readyz");
    assert!(node.metric("assent_sink_lag_bytes{sink=\"file\"}") >= 200_000.0, "{ready}");

    // Mended, and told.
    std::fs::remove_file(&dir).expect("ours");
    let said = command(&node, &["sinks", "resume", "file"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    wait_until("it catches up", || state(&node) == 1 && node.metric("assent_sink_lag_events{sink=\"file\"}") == 0.0);
    let deadline = Instant::now() + PATIENCE;
    while client.open(request(opened, 2, 3)).await.is_err() {
        assert!(Instant::now() < deadline, "it has caught up, and new approvals are refused");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let began = Instant::now();
    node.stop();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    node.restart();
    wait_until("it has everything", || {
        std::thread::sleep(Duration::from_millis(1_100));
        state(&node) == 1 && node.metric("assent_sink_lag_events{sink=\"file\"}") == 0.0
    });
    node.stop();
    assert!(in_files(&dir).0 == in_journal(&node));
}

#[test]
fn a_sink_that_the_folder_knows_is_not_left_out_unawares() {
    let folder = Arc::new(folder());
    let dir = folder.path().join("events");
    let sink = into(&dir);
    let mut node = Node::start_on(folder.clone(), &[&sink]);
    let said = command(&node, &["sinks", "forget", "file"]);
    assert!(said.code == Some(1) && said.stderr.contains("stop it first"), "{said:?}");
    node.stop();
    let said = command(&node, &["sinks", "list"]);
    assert!(said.code == Some(0) && said.stdout.contains("\nfile\n"), "{said:?}");
    let ended = Node::try_start_on(folder.clone(), &[]).err().expect("it starts without its sink");
    assert!(ended.code == Some(1) && ended.stderr.contains("assent sinks forget file"), "{ended:?}");
    assert_eq!(command(&node, &["sinks", "forget", "kafka"]).code, Some(1));
    assert_eq!(command(&node, &["sinks", "forget", "file"]).code, Some(0));
    node.restart_with(&[]);
}

/// How many events the journal's files no longer hold, by log.
fn gone(node: &Node) -> BTreeMap<u64, u64> {
    let mut first = BTreeMap::new();
    in_journal(node).into_keys().for_each(|(log, sequence)| {
        first.entry(log).or_insert(sequence - 1);
    });
    first
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn segments_go_once_snapshot_and_sink_are_past_them_and_votes_stay_right() {
    let folder = Arc::new(folder());
    let dir = folder.path().join("events");
    let small =
        ["--segment-bytes=1048576", "--frame-bytes-max=131072", "--snapshot-events=1000", "--journal-keep-bytes=0"];
    let sink = into(&dir);
    let with_sink: Vec<&str> = small.iter().copied().chain([sink.as_str()]).collect();
    // Without an archive nothing goes.
    let without: Vec<&str> = small.iter().copied().chain(["--archive=none", sink.as_str()]).collect();
    let mut node = Node::start_on(folder.clone(), &without);
    let mut client = Client::of(&node).await;
    let mut calls = node.client().await;
    let mut watch = calls.watch_approval_updates(calls::watch_all("", false)).await.expect("a watch").into_inner();
    let mut token = None;
    let mut number = 0;
    let fill = async |client: &mut Client, number: &mut u64, approvals: u64| {
        for _ in 0..approvals {
            let mut long = request(*number, 2, 3);
            long.content = vec![b'x'; 8_000].into();
            client.open(long).await.expect("opened");
            client.vote(*number, "alice", Approved, "").await.expect("counted");
            *number += 1;
        }
    };
    fill(&mut client, &mut number, 50).await;
    while token.is_none() {
        token = Some(calls::next(&mut watch).await.resume_token).filter(|token| !token.is_empty());
    }
    drop(watch);
    fill(&mut client, &mut number, 550).await;
    std::thread::sleep(Duration::from_secs(3));
    node.stop();
    assert!(gone(&node).values().all(|gone| *gone == 0), "nothing goes without an archive");

    node.restart_with(&with_sink);
    let mut client = Client::of(&node).await;
    fill(&mut client, &mut number, 600).await;
    wait_until("segments go", || {
        let log = node.data().join("log-00000");
        let segments = std::fs::read_dir(log).expect("there").filter(|entry| {
            entry.as_ref().is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("segment-"))
        });
        segments.count() < 8
    });
    // What a token asks for is gone, and it is told so.
    let mut calls = node.client().await;
    let resumed = calls::watch_all(token.expect("taken above"), false);
    let mut watch = calls.watch_approval_updates(resumed).await.expect("a watch").into_inner();
    let (_, end) = calls::rest_of(&mut watch).await;
    assert_eq!(end.expect("it ends").code(), Code::OutOfRange);
    // What was opened there is there, after a kill too.
    for round in 0..2 {
        if round == 1 {
            node.kill();
            node.restart();
        }
        let mut client = Client::of(&node).await;
        for number in [0, 1, 300, 700, 1_199] {
            let state = client.state(number, ApprovalView::Basic).await.expect("there");
            assert_eq!((state.approvals, state.votes.len()), (1 + round, 1 + round as usize), "number {number}");
            if round == 0 {
                let state = client.vote(number, "bob", Approved, "").await.expect("counted");
                assert_eq!(state.status(), ApprovalStatus::Approved);
            }
        }
    }
    wait_until("it has everything", || {
        std::thread::sleep(Duration::from_millis(1_100));
        node.metric("assent_sink_lag_events{sink=\"file\"}") == 0.0
    });
    node.stop();
    assert!(gone(&node).values().any(|gone| *gone > 1_000), "{:?}", gone(&node));
    let events = in_files(&dir).0;
    assert_eq!(events.len() as u64, 2 * number + 5, "all of them, the sink being new or not");
}
