//! An ordinary client for promises that open, vote and look: generated code, one call a line.

use super::Node;
use assent::wire::v1::approval_grpc_service_client::ApprovalGrpcServiceClient;
use assent::wire::v1::{
    ApprovalPriority, ApprovalRequest, ApprovalResponse, ApprovalStatusMessage, ApprovalType, ApprovalView,
    GetApprovalStatusRequest, ValidatorDecision,
};
use std::time::{Duration, SystemTime};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// A client of one node.
pub struct Client(pub ApprovalGrpcServiceClient<Channel>);

/// The id with this number, the same in every run.
pub fn id(number: u64) -> String {
    uuid::Uuid::from_u128(0xa55e_0000_0000_4000_8000_0000_0000_0000 | u128::from(number)).to_string()
}

/// A request with an id, a type, a requester; the rest is the caller's.
pub fn request(number: u64, required: u32, total: u32) -> ApprovalRequest {
    ApprovalRequest {
        approval_id: id(number),
        approval_type: ApprovalType::LargeTransaction.into(),
        priority: ApprovalPriority::High.into(),
        requester_id: id(1 << 40),
        content: format!("payment {number}").into(),
        required_approvals: required,
        total_validators: total,
        ..ApprovalRequest::default()
    }
}

/// That moment, from now.
pub fn ahead(by: Duration) -> Option<prost_types::Timestamp> {
    Some((SystemTime::now() + by).into())
}

impl Client {
    pub async fn of(node: &Node) -> Client {
        Client(ApprovalGrpcServiceClient::new(node.channel().await).max_decoding_message_size(8 << 20))
    }

    pub async fn open(&mut self, request: ApprovalRequest) -> Result<ApprovalStatusMessage, Status> {
        self.0.submit_approval_request(request).await.map(tonic::Response::into_inner)
    }

    pub async fn vote(
        &mut self,
        number: u64,
        validator: &str,
        decision: ValidatorDecision,
        reason: &str,
    ) -> Result<ApprovalStatusMessage, Status> {
        let vote = ApprovalResponse {
            approval_id: id(number),
            validator_id: validator.into(),
            decision: decision.into(),
            reason: reason.into(),
            ..ApprovalResponse::default()
        };
        self.0.submit_validator_response(vote).await.map(tonic::Response::into_inner)
    }

    /// One approval with its votes, by validator's name; FULL adds what the journal holds of it.
    pub async fn state(&mut self, number: u64, view: ApprovalView) -> Result<ApprovalStatusMessage, Status> {
        let request = GetApprovalStatusRequest { approval_id: id(number), view: view.into(), ..Default::default() };
        self.0.get_approval_status(request).await.map(tonic::Response::into_inner)
    }
}

/// The refusal has this code and reason; and says when to try again, if it may.
pub fn assert_refused(status: &Status, code: Code, reason: &str, retry: bool) {
    let details = status.get_error_details();
    let named = details.error_info().map(|info| info.reason.as_str());
    assert_eq!((status.code(), named), (code, Some(reason)), "{status:?}");
    assert_eq!(details.retry_info().is_some(), retry, "{status:?}");
}
