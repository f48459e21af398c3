//! The client's side: ids, messages by generated code, a stream that knows what was acknowledged, and
//! a look at the node's own counters.

use assent::grpc::client::{ANSWER_BYTES_MAX, Target};
use assent::wire::v1;
use assent::wire::v1::approval_grpc_service_client::ApprovalGrpcServiceClient;
use assent::wire::v1::approval_stream_request::Item;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;
use uuid::Uuid;

pub type Grpc = ApprovalGrpcServiceClient<Channel>;

/// Items on one stream that wait for their acknowledgement: below the node's own bound.
const IN_FLIGHT_MAX: u64 = 131_072;
pub const CONTENT_BYTES: usize = 256;

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

pub async fn connect(endpoint: &str) -> Grpc {
    let channel = Target::plain(endpoint).connect().await.expect("the node listens");
    Grpc::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX).max_encoding_message_size(ANSWER_BYTES_MAX)
}

/// The id of an approval: another for each number, in no order.
pub fn id(number: u64) -> Uuid {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    Uuid::from_u64_pair(z ^ z >> 31, number)
}

pub fn validator(number: u64) -> String {
    format!("validator-{number:05}")
}

pub fn request(number: u64, required: u32, total: u32) -> v1::ApprovalRequest {
    v1::ApprovalRequest {
        approval_id: id(number).to_string(),
        approval_type: v1::ApprovalType::LargeTransaction.into(),
        priority: v1::ApprovalPriority::Normal.into(),
        requester_id: id(u64::MAX).to_string(),
        content: vec![7; CONTENT_BYTES].into(),
        required_approvals: required,
        total_validators: total,
        ..v1::ApprovalRequest::default()
    }
}

pub fn vote(number: u64, validator: String) -> v1::ApprovalResponse {
    v1::ApprovalResponse {
        approval_id: id(number).to_string(),
        validator_id: validator,
        decision: v1::ValidatorDecision::Approved.into(),
        ..v1::ApprovalResponse::default()
    }
}

pub fn rows(numbers: impl Iterator<Item = u64>, validator: &str) -> v1::ApprovalBatch {
    let responses = numbers.map(|number| vote(number, validator.to_owned())).collect();
    v1::ApprovalBatch { responses, columns: None }
}

pub fn columns(numbers: impl ExactSizeIterator<Item = u64>, validator: &str) -> v1::ApprovalBatch {
    let count = numbers.len();
    let mut ids = Vec::with_capacity(16 * count);
    numbers.for_each(|number| ids.extend_from_slice(id(number).as_bytes()));
    let columns = v1::VoteColumns {
        approval_ids: ids.into(),
        decisions: vec![v1::ValidatorDecision::Approved as u8; count].into(),
        validator_id: validator.to_owned(),
        ..v1::VoteColumns::default()
    };
    v1::ApprovalBatch { responses: Vec::new(), columns: Some(columns) }
}

/// A bidirectional stream on a connection of its own.
pub struct Stream {
    up: mpsc::Sender<v1::ApprovalStreamRequest>,
    down: Streaming<v1::ApprovalStreamResponse>,
    sent: u64,
    acked: u64,
    /// Refused because the approval was decided; any other refusal ends the bench.
    pub late: u64,
}

impl Stream {
    pub async fn open(endpoint: &str) -> Stream {
        let (up, messages) = mpsc::channel(4);
        let mut grpc = connect(endpoint).await;
        let answer = grpc.bidirectional_approval_stream(ReceiverStream::new(messages)).await;
        Stream { up, down: answer.expect("the stream opens").into_inner(), sent: 0, acked: 0, late: 0 }
    }

    /// Sends a message of so many items, once there is room for them in flight.
    pub async fn send(&mut self, item: Item, items: u64) {
        while self.sent + items > self.acked + IN_FLIGHT_MAX {
            self.receive().await;
        }
        let message = v1::ApprovalStreamRequest { item: Some(item), ..v1::ApprovalStreamRequest::default() };
        self.up.send(message).await.expect("the stream is open");
        self.sent += items;
    }

    /// Waits until all that was sent is acknowledged: decided and durable.
    pub async fn settle(&mut self) {
        while self.acked < self.sent {
            self.receive().await;
        }
        assert_eq!(self.acked, self.sent, "nothing is acknowledged that was not sent");
    }

    async fn receive(&mut self) {
        let answer = self.down.message().await.expect("the stream goes on").expect("the stream is open");
        assert!(answer.acked_through >= self.acked, "acknowledgements only grow");
        self.acked = answer.acked_through;
        for refusal in &answer.refusals {
            assert_eq!(refusal.reason(), v1::RefusalReason::ApprovalDecided, "item {}", refusal.index);
        }
        self.late += answer.refusals.len() as u64;
    }
}

/// The node's own counters.
pub async fn counters(grpc: &mut Grpc) -> v1::ServiceMetrics {
    let answer = grpc.check_health(v1::HealthCheckRequest {}).await.expect("the node answers").into_inner();
    assert_eq!(answer.durability, "journal", "figures are of durable answers");
    answer.metrics.expect("health has its counters")
}

/// What a run must have added to the node's counters.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Added {
    pub requests: u64,
    pub votes: u64,
    pub approved: u64,
    pub late: u64,
}

/// Waits for the counters (they trail the answers by a moment), and panics where they do not agree.
pub async fn check_added(grpc: &mut Grpc, before: &v1::ServiceMetrics, expected: Added) {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let now = counters(grpc).await;
        let refused = |metrics: &v1::ServiceMetrics| metrics.refused_by_reason.iter().map(|of| of.count).sum::<u64>();
        let added = Added {
            requests: now.total_requests_submitted - before.total_requests_submitted,
            votes: now.total_responses_received - before.total_responses_received,
            approved: now.total_approved - before.total_approved,
            late: refused(&now) - refused(before),
        };
        assert_eq!(now.total_repeats, before.total_repeats, "no vote was sent twice");
        if added == expected {
            return;
        }
        assert!(Instant::now() < deadline, "the node counted {added:?}, acknowledged were {expected:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
