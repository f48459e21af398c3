//! The ordinary generated client, and short ways to say what a test sends and reads.

use super::Node;
use assent::wire::v1;
use assent::wire::v1::approval_grpc_service_client::ApprovalGrpcServiceClient;
use assent::wire::v1::approval_stream_request::Item;
use std::future::Future;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt;

pub type Client = ApprovalGrpcServiceClient<Channel>;

pub use v1::ApprovalStatus::{Approved, Expired, Pending, Rejected};
pub use v1::ValidatorDecision as Decision;

/// How long an answer may take on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(20);

/// Who asks, in tests that do not care.
pub const REQUESTER: &str = "0190a5d0-0000-7000-8000-00000000aaaa";

impl Node {
    /// A client with a connection of its own.
    pub async fn client(&self) -> Client {
        Client::new(self.channel().await)
    }
}

/// Waits for what must come, and says so when it does not.
pub async fn soon<T>(what: &str, it: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, it).await {
        Ok(it) => it,
        Err(_) => panic!("{what} did not come within {PATIENCE:?}"),
    }
}

/// The same id for the same number.
pub fn id(number: u64) -> String {
    uuid_of(number).hyphenated().to_string()
}

/// As columns hold it.
pub fn id_bytes(number: u64) -> [u8; 16] {
    uuid_of(number).into_bytes()
}

fn uuid_of(number: u64) -> uuid::Uuid {
    uuid::Uuid::from_u128(0x0190_a5d0_0000_7000_8000_0000_0000_0000 + u128::from(number))
}

/// A request for `required` of `total`, legal in every field.
pub fn request(id: &str, required: u32, total: u32) -> v1::ApprovalRequest {
    v1::ApprovalRequest {
        approval_id: id.into(),
        approval_type: v1::ApprovalType::LargeTransaction as i32,
        requester_id: REQUESTER.into(),
        required_approvals: required,
        total_validators: total,
        ..v1::ApprovalRequest::default()
    }
}

/// A vote, legal in every field.
pub fn vote(id: &str, validator: &str, decision: Decision) -> v1::ApprovalResponse {
    v1::ApprovalResponse {
        approval_id: id.into(),
        validator_id: validator.into(),
        decision: decision as i32,
        ..v1::ApprovalResponse::default()
    }
}

/// A watch on one approval.
pub fn watch_of(id: &str) -> v1::ApprovalRequest {
    v1::ApprovalRequest { approval_id: id.into(), ..v1::ApprovalRequest::default() }
}

/// A watch on everything, from this token on, or with the current state first.
pub fn watch_all(resume_token: impl Into<bytes::Bytes>, include_current: bool) -> v1::ApprovalRequest {
    let watch = Some(v1::WatchOptions { resume_token: resume_token.into(), include_current });
    v1::ApprovalRequest { watch, ..v1::ApprovalRequest::default() }
}

/// Code, reason and field of a refusal; each empty where the details do not have it.
pub fn refused(status: &Status) -> (Code, String, String) {
    let details = status.get_error_details();
    let info = details.error_info();
    info.iter().for_each(|info| assert_eq!(info.domain, "assent"));
    let violations = details.bad_request().map(|bad| &bad.field_violations[..]).unwrap_or_default();
    let field = violations.first().map(|violation| violation.field.clone());
    (status.code(), info.map(|info| info.reason.clone()).unwrap_or_default(), field.unwrap_or_default())
}

/// One fact of a refusal's ErrorInfo.
pub fn fact(status: &Status, name: &str) -> String {
    let details = status.get_error_details();
    details.error_info().and_then(|info| info.metadata.get(name).cloned()).unwrap_or_default()
}

/// The token with which a stream ended: in ErrorInfo and in a trailer, the same.
pub fn token_of(status: &Status) -> Vec<u8> {
    use base64::Engine as _;
    let trailer = status.metadata().get_bin("resume-token-bin").expect("the trailer resume-token-bin");
    let trailer = trailer.to_bytes().expect("base64").to_vec();
    let fact = fact(status, "resume_token");
    assert_eq!(base64::engine::general_purpose::STANDARD.decode(fact).expect("base64"), trailer);
    trailer
}

/// Opens, and gives the answer.
pub async fn open(client: &mut Client, request: v1::ApprovalRequest) -> v1::ApprovalStatusMessage {
    client.submit_approval_request(request).await.expect("it opens").into_inner()
}

/// Votes, and gives the answer.
pub async fn cast(client: &mut Client, id: &str, validator: &str, decision: Decision) -> v1::ApprovalStatusMessage {
    client.submit_validator_response(vote(id, validator, decision)).await.expect("it counts").into_inner()
}

/// Every message of a stream until it ends, and how it ended.
pub async fn rest_of<T>(stream: &mut Streaming<T>) -> (Vec<T>, Option<Status>) {
    let mut all = Vec::new();
    loop {
        match soon("the end of a stream", stream.message()).await {
            Ok(Some(message)) => all.push(message),
            Ok(None) => return (all, None),
            Err(status) => return (all, Some(status)),
        }
    }
}

/// The next message, which must come.
pub async fn next<T>(stream: &mut Streaming<T>) -> T {
    soon("a message", stream.message()).await.expect("the stream goes on").expect("the stream is not over")
}

/// A bidirectional stream: what is promised of every answer is checked while it is read.
pub struct Talk {
    to: Option<mpsc::Sender<v1::ApprovalStreamRequest>>,
    from: Streaming<v1::ApprovalStreamResponse>,
    pub acked: u64,
    pub refusals: Vec<v1::Refusal>,
    pub updates: Vec<v1::SubscriptionUpdate>,
    pub ended: Vec<v1::SubscriptionEnded>,
}

impl Talk {
    pub async fn start(client: &mut Client) -> Talk {
        let (to, outbound) = mpsc::channel(64);
        let call = client.bidirectional_approval_stream(ReceiverStream::new(outbound));
        let from = soon("the stream's head", call).await.expect("it is taken").into_inner();
        let (refusals, updates, ended) = Default::default();
        Talk { to: Some(to), from, acked: 0, refusals, updates, ended }
    }

    pub async fn send(&self, item: Item) {
        self.send_as("", item).await;
    }

    /// With the stream's validator set.
    pub async fn send_as(&self, validator: &str, item: Item) {
        let message = v1::ApprovalStreamRequest { validator_id: validator.into(), item: Some(item) };
        let to = self.to.as_ref().expect("not closed yet");
        soon("room on the stream", to.send(message)).await.expect("the stream still reads");
    }

    /// Reads one message; false at the end.
    pub async fn read(&mut self) -> Result<bool, Status> {
        let Some(message) = soon("an answer on the stream", self.from.message()).await? else { return Ok(false) };
        assert!(message.acked_through >= self.acked, "acked_through only grows");
        for refusal in message.refusals {
            let last = self.refusals.last().map(|last| last.index);
            assert!(last.is_none_or(|last| last < refusal.index), "refusals ascend, each once");
            assert!(refusal.index < message.acked_through, "what is refused is acknowledged");
            assert!(refusal.index >= self.acked, "a refusal comes with the acknowledgement that covers it");
            self.refusals.push(refusal);
        }
        self.acked = message.acked_through;
        self.updates.extend(message.update);
        self.ended.extend(message.ended);
        Ok(true)
    }

    pub async fn until(&mut self, what: &str, mut is_so: impl FnMut(&Talk) -> bool) {
        while !is_so(self) {
            assert!(self.read().await.expect("the stream goes on"), "the stream ended before {what}");
        }
    }

    pub async fn until_acked(&mut self, items: u64) {
        self.until("everything was acknowledged", |talk| talk.acked >= items).await;
        assert_eq!(self.acked, items, "no more is acknowledged than was sent");
    }

    /// The client's side is over.
    pub fn close(&mut self) {
        self.to = None;
    }

    /// Reads until the end, and gives it.
    pub async fn end(&mut self) -> Option<Status> {
        loop {
            match self.read().await {
                Ok(true) => {}
                Ok(false) => return None,
                Err(status) => return Some(status),
            }
        }
    }

    /// Refusals so far as (item, code, reason).
    pub fn refused(&self) -> Vec<(u64, Code, v1::RefusalReason)> {
        let one = |refusal: &v1::Refusal| (refusal.index, Code::from(refusal.code as i32), refusal.reason());
        self.refusals.iter().map(one).collect()
    }
}

pub fn rows(responses: Vec<v1::ApprovalResponse>) -> Item {
    Item::Batch(v1::ApprovalBatch { responses, columns: None })
}

/// One decision on many approvals, by one validator.
pub fn columns(validator: &str, numbers: impl IntoIterator<Item = u64>, decision: Decision) -> v1::VoteColumns {
    let ids: Vec<u8> = numbers.into_iter().flat_map(id_bytes).collect();
    let decisions = vec![decision as u8; ids.len() / 16];
    v1::VoteColumns {
        approval_ids: ids.into(),
        decisions: decisions.into(),
        validator_id: validator.into(),
        ..v1::VoteColumns::default()
    }
}

pub fn batch(columns: v1::VoteColumns) -> Item {
    Item::Batch(v1::ApprovalBatch { responses: Vec::new(), columns: Some(columns) })
}
