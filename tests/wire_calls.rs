//! Every unary rpc: what it answers, what it refuses and how it names it.

use crate::wire_support::{Front, id, reason, request, vote};
use assent::grpc::RawCodec;
use assent::wire::v1;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use std::pin::Pin;
use std::time::{Duration, Instant};
use tonic::codec::{Codec, EncodeBody};
use tonic::codegen::{Body as _, http};
use tonic::{Code, Status};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn submits_are_answered_repeated_and_refused() {
    let mut front = Front::new(1).await;
    let opened = front.open(request(1)).await;
    assert_eq!((opened.status, opened.repeat, opened.version), (v1::ApprovalStatus::Pending as i32, false, 1));
    assert!(opened.log != 0 && opened.sequence == 1 && opened.created_at.is_some() && opened.expires_at.is_some());
    assert!(opened.content_hash.starts_with("sha256:"));
    assert!(front.open(request(1)).await.repeat);
    let other = v1::ApprovalRequest { priority: 3, ..request(1) };
    let refused = front.client.submit_approval_request(other).await.expect_err("taken");
    assert_eq!(reason(&refused), (Code::AlreadyExists, "ID_TAKEN".into(), String::new()));
    let drawn = front.open(v1::ApprovalRequest { approval_id: String::new(), ..request(0) }).await;
    assert_eq!(uuid::Uuid::parse_str(&drawn.approval_id).expect("a UUID").get_version_num(), 7);
    let bad = v1::ApprovalRequest { requester_id: "me".into(), ..request(2) };
    let refused = front.client.submit_approval_request(bad).await.expect_err("refused");
    assert_eq!(reason(&refused), (Code::InvalidArgument, "INVALID_ARGUMENT".into(), "requester_id".into()));

    let mut send = async |response| front.client.submit_validator_response(response).await.map(|it| it.into_inner());
    let voted = send(vote(1, "a", 1)).await.expect("counts");
    assert_eq!((voted.approvals, voted.repeat, voted.version), (1, false, 2));
    assert!(send(vote(1, "a", 1)).await.expect("repeats").repeat);
    let refusals = [
        (vote(1, "a", 2), Code::AlreadyExists, "VOTE_STANDS", ""),
        (vote(99, "a", 1), Code::NotFound, "NOT_FOUND", ""),
        (vote(1, "a b", 1), Code::InvalidArgument, "INVALID_ARGUMENT", "validator_id"),
        (
            v1::ApprovalResponse { content_hash: "label".into(), ..vote(1, "b", 1) },
            Code::FailedPrecondition,
            "CONTENT_HASH_MISMATCH",
            "",
        ),
    ];
    for (response, code, name, field) in refusals {
        let refused = send(response).await.expect_err(name);
        assert_eq!(reason(&refused), (code, name.into(), field.into()));
    }
    let decided = send(vote(1, "b", 1)).await.expect("decides");
    assert_eq!(decided.status, v1::ApprovalStatus::Approved as i32);
    assert!(decided.finalized_at.is_some());
    let refused = send(vote(1, "c", 1)).await.expect_err("decided");
    assert_eq!(reason(&refused), (Code::FailedPrecondition, "APPROVAL_DECIDED".into(), String::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn votes_and_eligible_validators_come_in_pages() {
    let mut front = Front::new(2).await;
    let names: Vec<String> = (0..25).map(|number| format!("validator-{number:02}")).collect();
    let mut open = request(1);
    (open.total_validators, open.required_approvals) = (0, 25);
    open.eligible_validators = names.clone();
    front.open(open).await;
    for name in &names[..22] {
        let response = v1::ApprovalResponse { reason: format!("{name} agrees"), ..vote(1, name, 1) };
        front.client.submit_validator_response(response).await.expect("counts");
    }
    for (view, pages) in [(v1::ApprovalView::Basic, 3), (v1::ApprovalView::Full, 5)] {
        let (mut votes, mut eligible, mut page_token) = (Vec::new(), Vec::new(), String::new());
        let mut full = false;
        for page in 1..=pages {
            let asked = v1::GetApprovalStatusRequest {
                approval_id: id(1).to_string(),
                view: view as i32,
                page_token: page_token.clone(),
                page_size: 10,
            };
            let answer = front.client.get_approval_status(asked).await.expect("a page").into_inner();
            assert!(answer.votes.len() + answer.eligible_validators.len() <= 10);
            assert_eq!(answer.eligible_count, 25);
            if view == v1::ApprovalView::Full {
                let complete = answer.detail == v1::DetailStatus::Complete as i32;
                full |= complete && !answer.votes.is_empty();
                assert_ne!(complete, !answer.detail_reason.is_empty(), "complete, or why not");
                assert_eq!(full && page == 1, !answer.content.is_empty(), "the first page has the content");
            }
            votes.extend(answer.votes);
            eligible.extend(answer.eligible_validators);
            page_token = answer.next_page_token;
            assert_eq!(page_token.is_empty(), page == pages, "page {page}");
        }
        votes.sort_by(|a, b| a.validator_id.cmp(&b.validator_id));
        let voters: Vec<_> = votes.iter().map(|vote| &vote.validator_id).collect();
        assert_eq!(voters, names[..22].iter().collect::<Vec<_>>());
        let is_full = view == v1::ApprovalView::Full;
        assert!(votes.iter().all(|vote| (vote.reason == format!("{} agrees", vote.validator_id)) == full));
        eligible.sort();
        assert_eq!(eligible, if is_full { names.clone() } else { Vec::new() });
    }
    let bad = |change: fn(&mut v1::GetApprovalStatusRequest)| {
        let mut asked = v1::GetApprovalStatusRequest { approval_id: id(1).to_string(), ..Default::default() };
        change(&mut asked);
        asked
    };
    for (asked, field) in [
        (bad(|asked| asked.approval_id = "x".into()), "approval_id"),
        (bad(|asked| asked.view = 9), "view"),
        (bad(|asked| asked.page_size = 1_001), "page_size"),
        (bad(|asked| asked.page_token = "x".into()), "page_token"),
    ] {
        let refused = front.client.get_approval_status(asked).await.expect_err(field);
        assert_eq!(reason(&refused).2, field);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_status_names_what_it_does_not_know() {
    let mut front = Front::new(2).await;
    for number in 1..=40 {
        front.open(request(number)).await;
    }
    let approval_ids: Vec<_> = (0..=41).map(|number| id(number).to_string()).collect();
    let answer =
        front.client.get_approval_statuses(v1::GetApprovalStatusesRequest { approval_ids: approval_ids.clone() });
    let answer = answer.await.expect("states").into_inner();
    assert_eq!(answer.approvals.len(), 40);
    assert_eq!(answer.approvals[0].approval_id, approval_ids[1], "in the order asked for");
    assert_eq!(answer.unknown_ids, [approval_ids[0].clone(), approval_ids[41].clone()]);
    assert!(answer.remaining_ids.is_empty());
    for (approval_ids, field) in [
        (vec![], "approval_ids"),
        (vec!["x".into()], "approval_ids[0]"),
        (vec![id(1).to_string(); 1_001], "approval_ids"),
    ] {
        let refused = front.client.get_approval_statuses(v1::GetApprovalStatusesRequest { approval_ids }).await;
        assert_eq!(reason(&refused.expect_err(field)).2, field);
    }
}

// The service without a connection: tonic's client keeps the deadline itself, and would say CANCELLED.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_is_deadline_exceeded() {
    use tonic::codegen::Service;
    let mut front = Front::new(1).await;
    let mut ask = async |method: &str, body: tonic::body::Body| {
        let request = http::Request::post(format!("/{}/{method}", assent::grpc::APPROVALS_SERVICE))
            .header("content-type", "application/grpc")
            .header("grpc-timeout", "20m")
            .body(body)
            .expect("a request");
        let asked = Instant::now();
        let answer = front.service.call(request).await.expect("infallible");
        let status = Status::from_header_map(answer.headers());
        let mut body = answer.into_body();
        let mut trailers = None;
        while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            trailers = frame.expect("a frame").into_trailers().ok().or(trailers);
        }
        assert!(asked.elapsed() >= Duration::from_millis(20));
        status.or_else(|| Status::from_header_map(&trailers?)).expect("a status")
    };
    let body = |messages: BoxStream<'static, Result<prost::bytes::Bytes, Status>>| {
        tonic::body::Body::new(EncodeBody::new_client(RawCodec.encoder(), messages, None, None))
    };
    // A client that sends nothing and keeps its side open, and one that sends an empty message.
    let silent = || body(stream::pending().boxed());
    let empty = || body(stream::once(async { Ok(Default::default()) }).boxed());
    assert_eq!(ask("BatchSubmitResponses", silent()).await.code(), Code::DeadlineExceeded);
    assert_eq!(ask("BidirectionalApprovalStream", silent()).await.code(), Code::DeadlineExceeded);
    assert_eq!(ask("SubmitApprovalRequest", silent()).await.code(), Code::DeadlineExceeded);
    assert_eq!(ask("WatchApprovalUpdates", empty()).await.code(), Code::DeadlineExceeded);
    assert_eq!(ask("StreamMetrics", empty()).await.code(), Code::DeadlineExceeded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_node_refuses_new_calls() {
    let mut front = Front::new(1).await;
    front.open(request(1)).await;
    front.stopper.stop();
    let refused = front.client.submit_approval_request(request(2)).await.expect_err("stopping");
    assert_eq!(reason(&refused), (Code::Unavailable, "STOPPING".into(), String::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_metrics_and_reflection_are_there() {
    let mut front = Front::new(1).await;
    let health = front.client.check_health(v1::HealthCheckRequest {}).await.expect("health").into_inner();
    assert_eq!(health.version, "test");
    let mut metrics =
        front.client.stream_metrics(v1::StreamMetricsRequest { interval_ms: 100 }).await.expect("metrics").into_inner();
    for _ in 0..2 {
        assert_eq!(metrics.message().await.expect("in time").expect("metrics").active_approvals, 7);
    }
    let refused =
        front.client.stream_metrics(v1::StreamMetricsRequest { interval_ms: 99 }).await.expect_err("too often");
    assert_eq!(reason(&refused).2, "interval_ms");
    let mut standard = tonic_health::pb::health_client::HealthClient::new(front.channel.clone());
    let service = assent::grpc::APPROVALS_SERVICE.to_string();
    let answer = standard.check(tonic_health::pb::HealthCheckRequest { service }).await.expect("health").into_inner();
    assert_eq!(answer.status, tonic_health::ServingStatus::Serving as i32);
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let ask = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(front.channel.clone());
    let answers = reflection.server_reflection_info(futures_util::stream::iter([ask])).await.expect("reflection");
    let answer = answers.into_inner().message().await.expect("an answer").expect("an answer");
    let Some(MessageResponse::ListServicesResponse(services)) = answer.message_response else { panic!("services") };
    assert!(services.service.iter().any(|service| service.name == assent::grpc::APPROVALS_SERVICE));
}
