//! Start, stop, kill -9 and start again on one folder.

use crate::support::Node;
use std::time::{Duration, Instant};

#[test]
fn says_when_it_is_ready_and_stops_when_told() {
    let mut node = Node::start(&[]);
    assert_eq!(node.get("/healthz"), (200, "ok\n".into()));
    let (status, body) = node.get("/readyz");
    assert_eq!(status, 200, "{body}");
    assert_eq!(node.metric("assent_active_approvals"), 0.0);
    let start = Instant::now();
    node.stop();
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn comes_back_on_its_folder_after_kill_9() {
    let mut node = Node::start(&[]);
    for _ in 0..3 {
        node.kill();
        node.restart();
        assert_eq!(node.get("/readyz").0, 200);
    }
}

#[test]
fn a_second_node_on_a_folder_is_refused() {
    let first = Node::start(&[]);
    let second = Node::try_start_on(first.folder(), &[]).err().expect("the folder is taken");
    assert_eq!(second.code, Some(1));
    assert!(second.stderr.contains(first.data().to_str().expect("UTF-8")), "{}", second.stderr);
    assert_eq!(first.get("/healthz").0, 200, "the first one goes on");
}

#[test]
fn the_number_of_shards_may_change_between_two_starts() {
    let mut node = Node::start(&["--shards", "1"]);
    for shards in ["2", "4", "1"] {
        node.stop();
        node.restart_with(&["--shards", shards]);
        assert_eq!(node.get("/readyz").0, 200);
    }
}

#[tokio::test]
async fn grpc_listens_once_it_is_ready_and_memory_durability_warns() {
    let node = Node::start(&["--durability", "memory"]);
    node.wait_for_line("--durability memory");
    drop(node.channel().await);
}

#[test]
fn a_node_that_cannot_start_says_why_and_ends() {
    let folder = std::sync::Arc::new(crate::support::folder());
    let ended = Node::try_start_on(folder, &["--shards", "0"]).err().expect("it does not start");
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("flag --shards"), "{}", ended.stderr);
}
