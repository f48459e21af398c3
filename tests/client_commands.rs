//! Open, vote, look and follow from a shell.

use crate::support::{Node, Said, assent, folder, run};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

/// Runs a client command against the node.
fn ask(node: &Node, arguments: &[&str]) -> Said {
    run(folder().path(), arguments, &[("ASSENT_ENDPOINT", &node.endpoint())])
}

fn json(said: &Said) -> Vec<Value> {
    said.stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{said:?}"))).collect()
}

fn submit(node: &Node, arguments: &[&str]) -> String {
    let said = ask(node, &[&["submit", "--json"], arguments].concat());
    assert_eq!(said.code, Some(0), "{said:?}");
    json(&said)[0]["approvalId"].as_str().expect("an id").to_owned()
}

#[test]
fn an_approval_from_opening_to_outcome() {
    let node = Node::start(&[]);
    let id = submit(&node, &["--required", "2", "--eligible", "alice,bob,carol", "--content", "pay ACME"]);
    let said = ask(&node, &["vote", &id, "alice", "approved", "--reason", "looks right"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stdout.contains("PENDING, 1 of 2"), "{said:?}");
    let said = ask(&node, &["vote", &id, "alice", "approved"]);
    assert!(said.code == Some(0) && said.stdout.contains("stood already"), "{said:?}");

    let refusals = [
        (&["vote", &id, "alice", "rejected"], "VOTE_STANDS"),
        (&["vote", &id, "mallory", "approved"], "NOT_ELIGIBLE"),
        (&["vote", "not-a-uuid", "alice", "approved"], "field approval_id"),
        (&["vote", "00000000-0000-4000-8000-000000000000", "alice", "approved"], "NOT_FOUND"),
    ];
    for (arguments, reason) in refusals {
        let said = ask(&node, arguments);
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.stderr.contains(reason), "{reason}: {said:?}");
    }
    let said = ask(&node, &["vote", &id, "bob", "approved", "--json"]);
    assert_eq!(json(&said)[0]["status"], "APPROVAL_STATUS_APPROVED", "{said:?}");
    let said = ask(&node, &["vote", &id, "carol", "approved"]);
    assert!(said.code == Some(1) && said.stderr.contains("APPROVAL_DECIDED"), "{said:?}");
    let said = ask(&node, &["status", &id, "--full"]);
    assert!(["APPROVED", "alice", "looks right", "pay ACME"].iter().all(|part| said.stdout.contains(part)), "{said:?}");
}

#[test]
fn pending_is_what_is_left_to_do() {
    let node = Node::start(&[]);
    let normal = submit(&node, &["--required", "1", "--total", "2"]);
    let critical = submit(&node, &["--required", "1", "--total", "2", "--priority", "critical"]);
    let ids = |arguments: &[&str]| -> Vec<String> {
        let said = ask(&node, &[&["pending", "--json"], arguments].concat());
        assert_eq!(said.code, Some(0), "{said:?}");
        json(&said).iter().map(|approval| approval["approvalId"].as_str().expect("an id").to_owned()).collect()
    };
    assert_eq!(ids(&[]), [critical.as_str(), &normal]);
    assert_eq!(ids(&["--priority", "normal"]), [normal.as_str()]);
    ask(&node, &["vote", &critical, "alice", "abstain"]);
    assert_eq!(ids(&["--awaiting", "alice"]), [normal]);
}

#[test]
fn a_watch_ends_with_its_token_and_continues_behind_it() {
    let node = Node::start(&[]);
    let mut watch = assent()
        .args(["watch", "--json", "--endpoint", &node.endpoint(), "--current"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut lines = BufReader::new(watch.stdout.take().expect("piped")).lines();
    let mut next = || -> Value {
        let line = lines.next().expect("another line").expect("UTF-8");
        serde_json::from_str(&line).expect("JSON")
    };
    // Whether the watch has begun is known by its first line: open until it shows.
    let first = submit(&node, &["--required", "1", "--total", "1"]);
    assert_eq!(next()["approvalId"], first.as_str());
    ask(&node, &["vote", &first, "alice", "approved"]);
    let voted = loop {
        let change = next();
        if change["status"] == "APPROVAL_STATUS_APPROVED" {
            break change;
        }
    };
    assert_eq!(voted["votes"][0]["validatorId"], "alice");
    let token = voted["resumeToken"].as_str().expect("a token").to_owned();
    let id = libc::pid_t::try_from(watch.id()).expect("ids are small");
    // SAFETY: a signal to a child that was not awaited yet: the id is still its own.
    assert_eq!(unsafe { libc::kill(id, libc::SIGINT) }, 0);
    let ended = watch.wait_with_output().expect("it ends");
    let said = String::from_utf8(ended.stderr).expect("UTF-8");
    assert_eq!(ended.status.code(), Some(0), "{said}");
    assert!(said.contains("--resume"), "{said}");

    let second = submit(&node, &["--required", "1", "--total", "1"]);
    let mut resumed = assent()
        .args(["watch", "--json", "--endpoint", &node.endpoint(), "--resume", &token])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary runs");
    let mut line = String::new();
    BufReader::new(resumed.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    resumed.kill().expect("it is our child");
    resumed.wait().expect("it is our child");
    let change: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(change["approvalId"], second.as_str(), "nothing is repeated, nothing missed");
}

#[test]
fn exit_codes_tell_refused_from_unreachable_from_wrong() {
    let node = Node::start(&[]);
    // DEGRADED until its archive is reached, a moment after it serves.
    node.wait_for("assent_sink_state{sink=\"archive\"}", |state| state == 1.0);
    let said = ask(&node, &["health"]);
    assert!(said.code == Some(0) && said.stdout.starts_with("SERVING"), "{said:?}");
    let here = folder();
    let check = |arguments: &[&str], code: i32| {
        let said = run(here.path(), arguments, &[]);
        assert_eq!(said.code, Some(code), "{arguments:?}: {said:?}");
    };
    check(&["health", "--endpoint", "http://127.0.0.1:1"], 3);
    check(&["health", "--endpoint", "ftp://node"], 2);
    check(&["health", "--endpoint", "https://127.0.0.1:9004"], 2);
    check(&["vote", "x", "alice", "perhaps"], 2);
    check(&["submit", "--required", "1"], 2);
    check(&["watch", "--resume", "%"], 2);
}
