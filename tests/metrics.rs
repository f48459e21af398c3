//! Metrics have the contract's names and the rules' reasons. (`metrics` imports nobody, so that its
//! lists are compared with those of other rooms here.)

use crate::support::Node;
use crate::support::approvals::{Client, request};
use assent::metrics::{CODES, METHODS, Method, OUTCOMES, REASONS, table::METRICS};
use assent::model::{Outcome, Reason};
use assent::wire::v1;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

#[test]
fn reasons_are_those_of_the_rules() {
    for reason in Reason::ALL {
        assert_eq!(REASONS[usize::from(reason.number())], reason.name());
    }
    assert_eq!(REASONS.len(), Reason::ALL.len() + 1);
}

#[test]
fn outcomes_follow_the_order_of_their_numbers() {
    let first = Outcome::Approved as u8;
    for (outcome, name) in
        [(Outcome::Approved, "APPROVED"), (Outcome::Rejected, "REJECTED"), (Outcome::Expired, "EXPIRED")]
    {
        assert_eq!(OUTCOMES[usize::from(outcome as u8 - first)], name);
    }
}

#[test]
fn codes_are_those_of_grpc() {
    assert_eq!(CODES.len(), 17);
    for (number, name) in CODES.iter().enumerate() {
        // tonic spells NOT_FOUND as NotFound, OK as Ok and CANCELLED with two Ls.
        let spelled = format!("{:?}", tonic::Code::from_i32(number as i32)).to_uppercase();
        assert_eq!(name.replace('_', ""), spelled);
    }
}

#[test]
fn methods_are_those_of_the_contract() {
    let pool = super::descriptor::pool();
    let service = pool.get_service_by_name("aurigraph.approvals.v1.ApprovalGrpcService").expect("the service");
    let mut ours = METHODS.to_vec();
    ours.sort_unstable();
    let mut theirs: Vec<_> = service.methods().map(|method| method.name().to_string()).collect();
    theirs.sort_unstable();
    assert_eq!(ours, theirs);
    for (number, method) in [(0, Method::SubmitApprovalRequest), (9, Method::StreamMetrics)] {
        assert_eq!(METHODS[number], format!("{method:?}"));
    }
}

#[test]
fn the_contract_names_are_there() {
    for name in [
        "totalRequestsSubmitted",
        "totalResponsesReceived",
        "totalEventsEmitted",
        "activeApprovals",
        "averageLatencyMs",
    ] {
        assert_eq!(METRICS.iter().filter(|metric| metric.contract == Some(name)).count(), 1, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_counted_by_how_they_end_and_streams_while_they_are_open() {
    let node = Node::start(&[]);
    let mut client = Client::of(&node).await;
    client.open(request(1, 2, 3)).await.expect("opened");
    client.open(request(1, 2, 3)).await.expect("a repeat");
    client.vote(99, "ann", v1::ValidatorDecision::Approved, "").await.expect_err("unknown");
    let calls = |method: &str, code: &str| -> u64 {
        let sample = format!("assent_grpc_calls_total{{method=\"{method}\",code=\"{code}\"}} ");
        let (_, page) = node.get("/metrics");
        page.lines().find_map(|line| line.strip_prefix(&sample)).map_or(0, |count| count.parse().expect("a count"))
    };
    assert_eq!(calls("SubmitApprovalRequest", "OK"), 2);
    assert_eq!(calls("SubmitValidatorResponse", "NOT_FOUND"), 1);
    assert_eq!(calls("SubmitValidatorResponse", "OK"), 0);
    assert_eq!(node.metric("assent_votes_refused_total{reason=\"NOT_FOUND\"}"), 1.0, "once, by the front");

    let until = async |what: &str, is_so: &dyn Fn() -> bool| {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !is_so() {
            assert!(Instant::now() < deadline, "{what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let (items, sent) = mpsc::unbounded_channel();
    let item = v1::approval_stream_request::Item::Request(request(2, 2, 3));
    items.send(v1::ApprovalStreamRequest { item: Some(item), validator_id: String::new() }).expect("it is open");
    let answers = client.0.bidirectional_approval_stream(UnboundedReceiverStream::new(sent)).await;
    let mut answers = answers.expect("a stream").into_inner();
    assert_eq!(answers.message().await.expect("an answer").expect("an answer").acked_through, 1);
    assert_eq!(node.metric("assent_grpc_streams"), 1.0);
    drop(items);
    assert!(answers.message().await.expect("OK").is_none());
    until("the stream is counted", &|| calls("BidirectionalApprovalStream", "OK") == 1).await;
    until("the stream is closed", &|| node.metric("assent_grpc_streams") == 0.0).await;

    // One that its client leaves.
    let changes = client.0.watch_approval_updates(v1::ApprovalRequest::default()).await.expect("a watch");
    drop(changes);
    until("the watch is counted", &|| calls("WatchApprovalUpdates", "CANCELLED") == 1).await;
}
