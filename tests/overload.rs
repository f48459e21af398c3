//! Ten times what it can do: memory stays bounded, what is too much is refused with a delay, nothing acknowledged is
//! lost, and when it is over the node is as before.
//!
//! `OVERLOAD_SECONDS=n` makes it longer or shorter.

use crate::support::approvals::{Client, assert_refused, request};
use crate::support::{Node, PATIENCE, assent};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tonic::Code;

const RESIDENT_MAX: u64 = 700 << 20;

fn resident(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") << 10
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn too_much_is_refused_with_a_delay_and_passes() {
    let seconds = std::env::var("OVERLOAD_SECONDS").map_or(20, |value| value.parse().expect("a number"));
    // Room for 16 messages where thousands come at once.
    let node = Node::start(&["--ring-slots=16"]);
    let json = node.folder().path().join("overload.json");
    let mut load = assent();
    load.args(["load", "--mode=unary", "--approvals=20000", "--validators=200", "--required=150", "--warmup=0"]);
    load.args(["--connections=6", "--in-flight=1000", "--duration", &seconds.to_string(), "--json"]).arg(&json);
    load.args(["--endpoint", &node.endpoint()]).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut load = load.spawn().expect("the binary runs");

    // Meanwhile an ordinary client is refused now and then, each time with a delay.
    let mut client = Client::of(&node).await;
    let (mut resident_max, mut refused, mut answered) = (0, 0u64, 0u64);
    let deadline = Instant::now() + Duration::from_secs(seconds) + 2 * PATIENCE;
    while load.try_wait().expect("it is our child").is_none() {
        assert!(Instant::now() < deadline, "the generator does not end");
        match client.open(request(refused + answered, 1, 1)).await {
            Ok(_) => answered += 1,
            Err(status) => {
                assert_refused(&status, Code::ResourceExhausted, "OVERLOADED", true);
                refused += 1;
            }
        }
        resident_max = resident_max.max(resident(&node));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let output = load.wait_with_output().expect("it ended");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "what was acknowledged is there, refused or not:\n{said}");
    let report: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&json).expect("written")).expect("JSON");
    let overloaded = report["votes_refused"]["OVERLOADED"].as_u64().unwrap_or(0);
    println!(
        "{} acknowledged, {overloaded} refused; beside it {answered} opened, {refused} refused; {} MiB at most",
        report["votes_acknowledged"],
        resident_max >> 20
    );
    assert!(overloaded > 0, "it was no overload: {report}");
    assert!(resident_max < RESIDENT_MAX, "{resident_max} bytes");
    assert_eq!(report["ledger"]["balances"], true, "{report}");

    // It is over.
    let begun = Instant::now();
    for number in 0..100 {
        client.open(request(1_000_000 + number, 1, 1)).await.expect("there is room again");
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?} for 100 openings", begun.elapsed());
}
