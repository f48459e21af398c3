//! Metrics have the contract's names and the rules' reasons. (`metrics` imports nobody, so that its
//! lists are compared with those of other rooms here.)

use assent::metrics::{CODES, METHODS, Method, OUTCOMES, REASONS, table::METRICS};
use assent::model::{Outcome, Reason};

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
