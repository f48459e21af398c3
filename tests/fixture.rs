//! A data folder of format version 1 is opened for ever: with two generations, snapshots, and approvals pending,
//! approved, rejected and expired, with reasons and a set of eligible validators.
//!
//! `tests/fixtures/format-1` was made by `make_the_folder` below (`cargo test --test promises -- --ignored
//! make_the_folder`), once. It is never made again for this version: a later format gets a folder of its own.

use crate::support::approvals::{Client, ahead, request};
use crate::support::{Node, PATIENCE, folder, run};
use assent::wire::DESCRIPTOR;
use assent::wire::v1::{ApprovalStatus, ApprovalStatusMessage, ApprovalView, ValidatorDecision};
use futures_util::future::join_all;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const SMALL: [&str; 6] = [
    "--segment-bytes=1048576",
    "--frame-bytes-max=131072",
    "--reserve-bytes=1048576",
    "--snapshot-events=1000",
    "--lifetime-max-seconds=315360000",
    // The folder may be newer than the clock of the machine that opens it.
    "--accept-clock",
];
const APPROVALS: u64 = 60;

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format-1")
}

fn with_shards(shards: &'static str) -> Vec<&'static str> {
    SMALL.into_iter().chain(["--shards", shards]).collect()
}

fn as_json(state: &ApprovalStatusMessage) -> Value {
    let pool = DescriptorPool::decode(DESCRIPTOR).expect("our own descriptor");
    let shape = pool.get_message_by_name("aurigraph.approvals.v1.ApprovalStatus_Message").expect("it is there");
    let message = DynamicMessage::decode(shape, state.encode_to_vec().as_slice()).expect("our own message");
    serde_json::to_value(&message).expect("JSON")
}

async fn states(client: &mut Client) -> Vec<ApprovalStatusMessage> {
    let mut states = Vec::new();
    for number in 0..APPROVALS {
        states.push(client.state(number, ApprovalView::Full).await.expect("it is there"));
    }
    states
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("there") {
        let path = entry.expect("listed").path();
        let name = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &name);
        } else {
            std::fs::copy(&path, &name).expect("copied");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_folder_of_format_1_opens_with_all_that_was_in_it() {
    let here = Arc::new(folder());
    copy(&home().join("data"), &here.path().join("data"));
    let said = run(here.path(), &["journal", "verify", "data"], &[]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let expected = std::fs::read_to_string(home().join("expected.json")).expect("it is there");
    let expected: Vec<Value> = serde_json::from_str(&expected).expect("JSON");
    assert_eq!(expected.len() as u64, APPROVALS);

    let mut node = Node::start_on(here, &with_shards("2"));
    for shards in ["1", "2"] {
        let mut client = Client::of(&node).await;
        for (state, expected) in states(&mut client).await.iter().zip(&expected) {
            // What was pending when it was made lives ten years, and expires then.
            let overdue = expected["status"] == "APPROVAL_STATUS_PENDING" && state.status() == ApprovalStatus::Expired;
            if !overdue {
                assert_eq!(as_json(state), *expected);
            }
        }
        node.stop();
        node.restart_with(&with_shards(shards));
    }
    let mut client = Client::of(&node).await;
    client.open(request(1_000, 1, 1)).await.expect("it goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "makes tests/fixtures/format-1 anew"]
async fn make_the_folder() {
    let mut node = Node::start(&with_shards("1"));
    let mut client = Client::of(&node).await;
    let years = Duration::from_secs(10 * 364 * 86_400);
    let opened = (0..APPROVALS).map(|number| {
        let mut request = request(number, 30, 40);
        request.expires_at = ahead(if number % 10 == 9 { Duration::from_secs(10) } else { years });
        if number % 10 == 8 {
            request.eligible_validators = (0..40).map(|validator| format!("validator-{validator}")).collect();
        }
        let mut client = Client(client.0.clone());
        async move { client.open(request).await.expect("opened") }
    });
    // Many at once, so that a frame holds many: the folder stays small.
    join_all(opened).await;
    let votes = (0..APPROVALS).flat_map(|number| (0..[28, 30, 11, 5][number as usize % 4]).map(move |at| (number, at)));
    let voted = votes.map(|(number, validator)| {
        let rejects = number % 4 == 2;
        let decision = if rejects { ValidatorDecision::Rejected } else { ValidatorDecision::Approved };
        let reason = if validator % 8 == 0 { format!("reason {number}/{validator}") } else { String::new() };
        let mut client = Client(client.0.clone());
        async move { client.vote(number, &format!("validator-{validator}"), decision, &reason).await.expect("counted") }
    });
    join_all(voted).await;
    let deadline = Instant::now() + PATIENCE;
    let log = node.data().join("log-00000");
    let has_snapshot = || {
        let entries = std::fs::read_dir(&log).expect("there").map(|entry| entry.expect("listed").file_name());
        entries
            .map(|name| name.to_string_lossy().into_owned())
            .any(|name| name.starts_with("snapshot-") && !name.ends_with(".tmp"))
    };
    let mut more = 0;
    while !has_snapshot()
        || client.state(19, ApprovalView::Basic).await.expect("there").status() != ApprovalStatus::Expired
    {
        assert!(Instant::now() < deadline, "no snapshot, or nothing expired");
        // The snapshot is finished by the commits that follow it.
        if more < 75 && !has_snapshot() {
            let _ = client.vote(3 + 4 * (more % 15), &format!("late-{more}"), ValidatorDecision::Abstain, "").await;
            more += 1;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    node.stop();
    node.restart_with(&with_shards("2"));
    let mut client = Client::of(&node).await;
    let voted = (0..APPROVALS).map(|number| {
        let mut client = Client(client.0.clone());
        // Most are decided by now.
        async move { client.vote(number, "validator-39", ValidatorDecision::Abstain, "in the second generation").await }
    });
    let counted = join_all(voted).await.into_iter().filter(Result::is_ok).count();
    assert!(counted > 0, "the second generation holds votes");
    let states: Vec<Value> = states(&mut client).await.iter().map(as_json).collect();
    node.stop();

    let home = home();
    let _ = std::fs::remove_dir_all(&home);
    copy(&node.data(), &home.join("data"));
    for name in ["LOCK", "reserve"] {
        let _ = std::fs::remove_file(home.join("data").join(name));
    }
    let _ = std::fs::remove_dir_all(home.join("data/pool"));
    for log in std::fs::read_dir(home.join("data")).expect("there").map(|entry| entry.expect("listed").path()) {
        if log.is_dir() {
            std::fs::read_dir(log).expect("there").for_each(|entry| trim(&entry.expect("listed").path()));
        }
    }
    std::fs::write(home.join("expected.json"), serde_json::to_string(&states).expect("JSON") + "\n").expect("written");
}

/// Takes the zeros from the end of a segment; its name, which says its size, changes with it.
fn trim(path: &Path) {
    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
    let Some(("segment", rest)) = name.split_once('-') else { return };
    let mut bytes = std::fs::read(path).expect("read");
    let used = bytes.chunks(4096).rposition(|block| block.iter().any(|byte| *byte != 0)).map_or(0, |at| at + 1) * 4096;
    std::fs::remove_file(path).expect("removed");
    if used > 0 {
        let parts: Vec<&str> = rest.split('-').collect();
        bytes.truncate(used);
        std::fs::write(path.with_file_name(format!("segment-{}-{used:x}-{}", parts[0], parts[2])), bytes)
            .expect("written");
    }
}
