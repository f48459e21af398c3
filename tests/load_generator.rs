//! The load generator tells the truth: every mode balances against a node, and what does not balance
//! is noticed.

use crate::support::{Node, Said, assent, folder, run};
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Runs `assent load` to its end; gives its report.
fn load(folder: &Path, endpoint: &str, arguments: &[&str]) -> (Said, Value) {
    let mut all = vec!["load", "--endpoint", endpoint, "--json", "report.json"];
    all.extend(arguments);
    // A report of the last run says nothing of this one; missing is as good as removed.
    let _ = std::fs::remove_file(folder.join("report.json"));
    let said = run(folder, &all, &[]);
    let text = std::fs::read_to_string(folder.join("report.json")).unwrap_or_else(|_| "null".into());
    (said, serde_json::from_str(&text).expect("JSON"))
}

fn number(report: &Value, path: &str) -> u64 {
    let value = path.split('.').fold(report, |value, step| &value[step]);
    value.as_u64().unwrap_or_else(|| panic!("{path} is {value} in {report:#}"))
}

const SMALL: [&str; 6] = ["--approvals", "2000", "--validators", "20", "--count", "20000"];

#[test]
fn every_mode_balances() {
    let node = Node::start(&[]);
    let here = folder();
    for (mode, client) in [
        ("rows", "own"),
        ("columns", "own"),
        ("batch", "own"),
        ("stream", "own"),
        ("unary", "own"),
        ("rows", "generated"),
        ("columns", "generated"),
        ("batch", "generated"),
        ("stream", "generated"),
        ("unary", "generated"),
    ] {
        let mut arguments = vec!["--mode", mode, "--client", client, "--connections", "3", "--batch", "100"];
        arguments.extend(SMALL);
        let (said, report) = load(here.path(), &node.endpoint(), &arguments);
        assert_eq!(said.code, Some(0), "{mode} {client}: {said:?}");
        assert_eq!(report["ledger"]["balances"], true, "{mode} {client}: {report:#}");
        assert_eq!(number(&report, "votes_sent"), 20_000, "{mode} {client}");
        let refused = report["votes_refused"].as_object().expect("an object").values().filter_map(Value::as_u64);
        assert_eq!(number(&report, "votes_acknowledged") + refused.sum::<u64>(), 20_000, "{mode} {client}");
        assert_eq!(number(&report, "approvals_opened"), 2_000, "{mode} {client}");
    }
    let (said, report) = load(here.path(), &node.endpoint(), &["--mode", "open", "--count", "5000", "--content", "0"]);
    assert_eq!((said.code, number(&report, "approvals_opened")), (Some(0), 5_000), "{said:?}");
    for layout in ["rows", "columns", "singles"] {
        let arguments = ["--mode", "lifecycle", "--approvals", "1000", "--count", "3000", "--batch", "64"];
        let (said, report) = load(here.path(), &node.endpoint(), &[&arguments[..], &["--layout", layout]].concat());
        assert_eq!(said.code, Some(0), "{layout}: {said:?}");
        assert_eq!(number(&report, "approvals_opened"), 4_000, "{layout}");
        let decided = ["approved", "rejected", "expired"].map(|outcome| number(&report["decided"], outcome));
        assert_eq!(decided.iter().sum::<u64>(), 3_000, "{layout}: all votes of 3,000 approvals were cast");
    }
}

#[test]
fn a_cluster_s_traffic_balances_with_late_votes_and_expiries_counted_apart() {
    let node = Node::start(&[]);
    let here = folder();
    let mixed = ["--mode", "mixed", "--approvals", "2000", "--batch", "100", "--connections", "2"];
    for layout in ["rows", "singles"] {
        let ledger = ["--ledger", &format!("{layout}.ledger")];
        let count = ["--count", "30000", "--layout", layout];
        let (said, report) = load(here.path(), &node.endpoint(), &[&mixed[..], &ledger, &count].concat());
        assert_eq!(said.code, Some(0), "{layout}: {said:?}");
        let refused = report["votes_refused"].as_object().expect("an object");
        assert_eq!(refused.keys().collect::<Vec<_>>(), ["APPROVAL_DECIDED"], "{layout}: {report:#}");
        let late = number(&report, "votes_refused.APPROVAL_DECIDED");
        assert!((3_000..15_000).contains(&late), "{layout}: {late} of 30,000 votes came late");
        assert_eq!(number(&report, "votes_sent"), 30_000, "{layout}");
        assert_eq!(number(&report, "votes_acknowledged") + late, 30_000, "{layout}");
        assert_eq!(number(&report, "votes_repeated"), 0, "{layout}");
        // One of 32 opened is left to expire.
        let (opened, expired) = (number(&report, "approvals_opened"), number(&report, "decided.expired"));
        assert!(opened > 5_000, "{layout}: an approval is opened for each that is used up: {opened}");
        assert!((opened / 64..opened / 16).contains(&expired), "{layout}: {expired} of {opened} expired");

        // The ledger goes on, and is compared again.
        let again = [&["--mode", "mixed", "--connections", "2", "--count", "5000", "--reuse"], &ledger[..]].concat();
        let (said, report) = load(here.path(), &node.endpoint(), &again);
        assert_eq!((said.code, number(&report, "votes_repeated")), (Some(0), 0), "{layout}: {said:?}");
        let (code, verdict) = verify(here.path(), &node, &here.path().join(ledger[1]));
        assert_eq!((code, &verdict["balances"]), (Some(0), &true.into()), "{layout}: {verdict:#}");
        // A ledger of other votes than were sent does not balance.
        let text = std::fs::read_to_string(here.path().join(ledger[1])).expect("the ledger");
        let changed = text.replacen("\"pool\":1000", "\"pool\":999", 1);
        std::fs::write(here.path().join("changed.ledger"), changed).expect("writes");
        let (code, verdict) = verify(here.path(), &node, &here.path().join("changed.ledger"));
        assert_eq!((code, &verdict["balances"]), (Some(1), &false.into()), "{layout}: other votes were drawn");
    }
}

#[test]
fn the_report_has_the_documented_fields() {
    let node = Node::start(&[]);
    let here = folder();
    let arguments = ["--mode", "rows", "--approvals", "5000", "--validators", "64", "--duration", "1", "--warmup", "1"];
    let rate = ["--rate", "20000", "--batch", "10", "--hdr", "run.hdr", "--seed", "7"];
    let (said, report) = load(here.path(), &node.endpoint(), &[&arguments[..], &rate].concat());
    assert_eq!(said.code, Some(0), "{said:?}");
    for path in [
        "votes_sent",
        "votes_acknowledged",
        "approvals_opened",
        "decided.approved",
        "decided.rejected",
        "decided.expired",
        "latency_us.p50",
        "latency_us.p90",
        "latency_us.p99",
        "latency_us.p999",
        "latency_us.max",
        "ledger.acknowledged",
        "ledger.missing",
        "ledger.unexpected",
        "server.shards",
        "server.rss_bytes",
        "server.journal_bytes",
        "generator.schedule_lag_us",
        "machine.cores",
        "settings.seed",
    ] {
        number(&report, path);
    }
    for path in ["votes_per_second", "approvals_per_second", "seconds"] {
        assert!(report[path].is_f64(), "{path}");
    }
    for (room, field) in [("server", "version"), ("machine", "cpu"), ("machine", "kernel")] {
        assert!(report[room][field].is_string(), "{room}.{field}");
    }
    assert_eq!((&report["schema"], &report["mode"]), (&"assent.load/1".into(), &"rows".into()));
    assert_eq!((&report["durability"], &report["void"]), (&"journal".into(), &Value::Null));
    assert!(
        report["votes_refused"].is_object() && report["series"].as_array().is_some_and(|seconds| seconds.len() >= 2)
    );
    let rate = report["votes_per_second"].as_f64().expect("a number");
    assert!((15_000.0..21_000.0).contains(&rate), "asked for 20,000 votes/s, sent {rate}");
    let hdr = std::fs::read_to_string(here.path().join("run.hdr")).expect("the log");
    assert!(hdr.starts_with("#[Histogram log format version 1.3]"), "{hdr}");
    assert!(said.stdout.contains("votes/s") && said.stdout.contains("balances"), "{said:?}");
}

#[test]
fn conditions_fail_a_run() {
    let node = Node::start(&[]);
    let here = folder();
    let small = |condition| [&SMALL[..], &["--fail-if", condition]].concat();
    assert_eq!(load(here.path(), &node.endpoint(), &small("votes_sent<20000")).0.code, Some(0));
    let (said, _) = load(here.path(), &node.endpoint(), &small("votes_sent>=2e4"));
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("votes_sent>=20000: it is 20000"), "{said:?}");
    for wrong in ["votes_cast>1", "votes_sent"] {
        assert_eq!(load(here.path(), &node.endpoint(), &small(wrong)).0.code, Some(2), "{wrong}");
    }
}

#[test]
fn a_prepared_ledger_is_gone_on_with_and_no_vote_is_sent_twice() {
    let node = Node::start(&[]);
    let here = folder();
    let ledger = ["--ledger", "run.ledger"];
    let prepare = [&SMALL[..], &ledger, &["--prepare"]].concat();
    let (said, report) = load(here.path(), &node.endpoint(), &prepare);
    assert_eq!((said.code, number(&report, "approvals_opened")), (Some(0), 2_000), "{said:?}");
    let (said, _) = load(here.path(), &node.endpoint(), &[&SMALL[..], &ledger].concat());
    assert_eq!(said.code, Some(2), "a ledger is not written over: {said:?}");
    for (mode, connections) in [("rows", "1"), ("unary", "2"), ("columns", "3")] {
        let count = ["--mode", mode, "--connections", connections, "--count", "10000", "--reuse"];
        let (said, report) = load(here.path(), &node.endpoint(), &[&count[..], &ledger].concat());
        assert_eq!(said.code, Some(0), "{mode}: {said:?}");
        assert_eq!((number(&report, "votes_sent"), number(&report, "votes_repeated")), (10_000, 0), "{mode}");
        assert_eq!(number(&report, "approvals_opened"), 0, "{mode}");
    }
    // The same seed without its ledger sends votes that stand: that is noticed.
    let (_, report) = load(here.path(), &node.endpoint(), &[&SMALL[..], &["--seed", "5"]].concat());
    assert_eq!(report["void"], Value::Null);
    let (said, report) = load(here.path(), &node.endpoint(), &[&SMALL[..], &["--seed", "5"]].concat());
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(report["void"].as_str().is_some_and(|why| why.contains("stood already")), "{report:#}");
}

#[test]
fn a_ledger_outlives_kill_9_and_notices_what_does_not_balance() {
    let mut node = Node::start(&[]);
    let here = folder();
    // Rows at a rate that leaves most votes unsent a second later, however fast the node is.
    for (mode, rate) in [("rows", Some("--rate=500000")), ("lifecycle", None), ("unary", None)] {
        let ledger = here.path().join(format!("{mode}.ledger"));
        let before = node.metric("assent_requests_submitted_total");
        let mut command = assent();
        command.args(["load", "--mode", mode, "--approvals", "20000", "--duration", "60", "--ledger"]).arg(&ledger);
        let mut generator = command
            .args(["--endpoint", &node.endpoint(), "--in-flight", "32", "--batch", "256"])
            .args(rate)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        // Until all is prepared, and votes are under way.
        let opened = || node.metric("assent_requests_submitted_total");
        let deadline = Instant::now() + Duration::from_secs(60);
        while opened() < before + 20_000.0 {
            assert!(Instant::now() < deadline, "{mode}: nothing is opened");
            thread::sleep(Duration::from_millis(20));
        }
        thread::sleep(Duration::from_secs(1));
        node.kill();
        let output = generator.wait_with_output_or_kill();
        assert_eq!(output.0, Some(3), "{mode}: {}", output.1);
        assert!(output.1.contains("went away"), "{mode}: {}", output.1);
        node.restart();
        let (code, verdict) = verify(here.path(), &node, &ledger);
        assert_eq!(code, Some(0), "{mode}: {verdict:#}");
        assert!(number(&verdict, "acknowledged") > 21_000 && verdict["balances"] == true, "{mode}: {verdict:#}");
        if mode != "rows" {
            continue;
        }
        // One vote less in the ledger than the node has, then one more.
        for (change, found) in [(-1, "unexpected"), (1, "missing")] {
            let changed = here.path().join("changed.ledger");
            std::fs::write(&changed, change_one_vote(&ledger, change)).expect("writes");
            let (code, verdict) = verify(here.path(), &node, &changed);
            assert_eq!((code, number(&verdict, found)), (Some(1), 1), "{verdict:#}");
            assert_eq!(verdict["balances"], false);
        }
    }
}

/// Ends a track of answered votes one earlier or later than it did.
fn change_one_vote(ledger: &Path, change: i64) -> String {
    let text = std::fs::read_to_string(ledger).expect("the ledger");
    let mut changed = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        let mut line: Value = serde_json::from_str(line).expect("JSON lines");
        let whole = line["validator"].is_u64() && line["unknown"].is_null() && line["refused"].is_null();
        if whole && !changed {
            line["sent"] = (line["sent"].as_i64().expect("a number") + change).into();
            changed = true;
        }
        lines.push(line.to_string());
    }
    assert!(changed, "some validator's votes are all answered:\n{text}");
    lines.join("\n")
}

fn verify(folder: &Path, node: &Node, ledger: &Path) -> (Option<i32>, Value) {
    let ledger = ledger.to_str().expect("UTF-8");
    let said = run(folder, &["load", "--verify", ledger, "--endpoint", &node.endpoint(), "--json", "v.json"], &[]);
    let text = std::fs::read_to_string(folder.join("v.json")).unwrap_or_else(|_| panic!("{said:?}"));
    (said.code, serde_json::from_str(&text).expect("JSON"))
}

trait Patience {
    /// Exit code and standard error; killed when it takes too long.
    fn wait_with_output_or_kill(&mut self) -> (Option<i32>, String);
}

impl Patience for Child {
    fn wait_with_output_or_kill(&mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.try_wait().expect("it is our child").is_none() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        // Ended by itself is as good.
        let _ = self.kill();
        let status = self.wait().expect("it is our child");
        let mut text = String::new();
        if let Some(mut stderr) = self.stderr.take() {
            std::io::Read::read_to_string(&mut stderr, &mut text).expect("UTF-8");
        }
        (status.code(), text)
    }
}

#[test]
fn without_an_endpoint_it_brings_its_own_node() {
    let here = folder();
    let mut arguments = vec!["load", "--mode", "columns", "--data", "nodes", "--json", "report.json"];
    arguments.extend(["--serve-arg=--shards", "--serve-arg=1"]);
    arguments.extend(SMALL);
    let said = run(here.path(), &arguments, &[]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let text = std::fs::read_to_string(here.path().join("report.json")).expect("the report");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((number(&report, "server.shards"), &report["ledger"]["balances"]), (1, &true.into()));
    let left = std::fs::read_dir(here.path().join("nodes")).expect("the folder").count();
    assert_eq!(left, 0, "its data folder is removed");

    let said = run(here.path(), &["load", "--data", "nodes", "--serve-arg=--shards", "--serve-arg=0"], &[]);
    assert_eq!(said.code, Some(3), "{said:?}");
    assert!(said.stderr.contains("--shards"), "it says what the node said: {said:?}");
}

#[test]
fn nobody_there_is_exit_code_3_and_wrong_flags_2() {
    let here = folder();
    let said = run(here.path(), &["load", "--endpoint", "http://127.0.0.1:1"], &[]);
    assert_eq!(said.code, Some(3), "{said:?}");
    for wrong in [
        &["--required", "9", "--validators", "5"][..],
        &["--decisions", "50/50/50"],
        &["--instance", "3/2"],
        &["--mode", "batch", "--batch", "10001"],
        &["--connections", "0"],
        &["--reuse"],
        &["--mode", "mixed", "--layout", "columns"],
        &["--mode", "mixed", "--client", "generated"],
        &["--mode", "mixed", "--validators", "65"],
        &["--mode", "mixed", "--approvals", "10"],
    ] {
        let (said, _) = load(here.path(), "http://127.0.0.1:1", wrong);
        assert_eq!(said.code, Some(2), "{wrong:?}: {said:?}");
    }
}

/// `assent noop`, ended with the test.
struct Noop(Child);

impl Drop for Noop {
    fn drop(&mut self) {
        // Ended by itself is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn noop(folder: &Path, decoder: &str) -> (Noop, String) {
    let ready = folder.join("noop.json");
    let _ = std::fs::remove_file(&ready);
    let mut command: Command = assent();
    command.args(["noop", "--grpc", "127.0.0.1:0", "--decoder", decoder, "--ready-file"]).arg(&ready);
    let noop = Noop(command.stderr(Stdio::null()).spawn().expect("the binary runs"));
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Ok(text) = std::fs::read_to_string(&ready) {
            let ready: Value = serde_json::from_str(&text).expect("JSON");
            return (noop, format!("http://{}", ready["grpc"].as_str().expect("an address")));
        }
        assert!(Instant::now() < deadline, "the no-op service does not start");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_ceiling_answers_everything_and_is_never_taken_for_a_node() {
    let here = folder();
    for decoder in ["own", "generated"] {
        let (_noop, endpoint) = noop(here.path(), decoder);
        for mode in ["rows", "columns", "batch", "stream", "unary"] {
            let arguments = [&["--mode", mode, "--no-check"], &SMALL[..]].concat();
            let (said, report) = load(here.path(), &endpoint, &arguments);
            assert_eq!((said.code, number(&report, "votes_acknowledged")), (Some(0), 20_000), "{mode}: {said:?}");
            assert_eq!(report["ledger"]["balances"], Value::Null, "{mode}");
            assert!(report["void"].is_string(), "{mode}: such a run is no figure of a node");
        }
        let (said, _) = load(here.path(), &endpoint, &SMALL);
        assert_ne!(said.code, Some(0), "nothing balances with a service that keeps nothing: {said:?}");
    }
    let node = Node::start(&[]);
    let (said, _) = load(here.path(), &node.endpoint(), &[&["--no-check"], &SMALL[..]].concat());
    assert_eq!(said.code, Some(2), "a node is always checked: {said:?}");
}
