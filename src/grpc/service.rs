//! One method an rpc, thin: judge, ask the shards, answer. The two hot methods come in by the front
//! and never get here.

use super::front::{Deadline, Deps};
use super::pending::pending;
use super::stopping::{End, Ends};
use super::watch::{WatchCall, follow};
use super::{caller, list, read, status, submit};
use crate::metrics::Method;
use crate::model::{Reason, Refusal};
use crate::wire::v1;
use crate::wire::v1::approval_grpc_service_server::ApprovalGrpcService;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::{Request, Response, Status, Streaming};

const INTERVAL_MS_DEFAULT: u32 = 1_000;
const INTERVAL_MS_MIN: u32 = 100;
const INTERVAL_MS_MAX: u32 = 60_000;

/// What the node says of itself, and what it counts of the front.
pub trait Facts: Send + Sync + 'static {
    fn health(&self) -> v1::HealthCheckResponse;
    fn metrics(&self) -> v1::ServiceMetrics;

    /// A unary submit was answered, `elapsed` after it was read.
    fn answered(&self, elapsed: Duration) {
        let _ = elapsed;
    }

    /// A request was refused and no shard counts it: at the door, or by what the archive holds.
    fn request_refused(&self, reason: Reason) {
        let _ = reason;
    }

    /// A vote was refused and no shard counts it.
    fn vote_refused(&self, reason: Reason) {
        let _ = reason;
    }

    /// A request repeats one that only the archive still holds.
    fn request_repeated(&self) {}

    /// A vote repeats one that only the archive still holds.
    fn vote_repeated(&self) {}

    /// A question is put to the archive.
    fn looked_up(&self) {}

    /// A call ended; `code` is a google.rpc.Code.
    fn call_ended(&self, method: Method, code: u32) {
        let _ = (method, code);
    }

    /// A bidirectional or batch stream was opened (true) or ended.
    fn stream_is_open(&self, open: bool) {
        let _ = open;
    }
}

#[derive(Clone)]
pub(super) struct Approvals(pub Arc<Deps>);

impl Approvals {
    /// Answers a submit, and counts its time.
    async fn timed(
        &self,
        answer: impl Future<Output = Result<v1::ApprovalStatusMessage, Refusal>>,
    ) -> Result<Response<v1::ApprovalStatusMessage>, Status> {
        let read = Instant::now();
        let answer = answer.await;
        self.0.facts.answered(read.elapsed());
        answer.map(Response::new).map_err(|refusal| status::status(&refusal))
    }
}

fn deadline<T>(request: &Request<T>) -> Option<Deadline> {
    request.extensions().get().copied()
}

#[tonic::async_trait]
impl ApprovalGrpcService for Approvals {
    type WatchApprovalUpdatesStream = WatchCall;
    type StreamPendingApprovalsStream = WatchCall;
    type StreamMetricsStream = BoxStream<'static, Result<v1::ServiceMetrics, Status>>;
    type BidirectionalApprovalStreamStream = BoxStream<'static, Result<v1::ApprovalStreamResponse, Status>>;

    async fn submit_approval_request(
        &self,
        request: Request<v1::ApprovalRequest>,
    ) -> Result<Response<v1::ApprovalStatusMessage>, Status> {
        self.timed(submit::open(&self.0, request.into_inner())).await
    }

    async fn submit_validator_response(
        &self,
        request: Request<v1::ApprovalResponse>,
    ) -> Result<Response<v1::ApprovalStatusMessage>, Status> {
        self.timed(submit::vote(&self.0, request.into_inner())).await
    }

    async fn get_approval_status(
        &self,
        request: Request<v1::GetApprovalStatusRequest>,
    ) -> Result<Response<v1::ApprovalStatusMessage>, Status> {
        read::page(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn get_approval_statuses(
        &self,
        request: Request<v1::GetApprovalStatusesRequest>,
    ) -> Result<Response<v1::GetApprovalStatusesResponse>, Status> {
        read::statuses(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn list_approvals(
        &self,
        request: Request<v1::ListApprovalsRequest>,
    ) -> Result<Response<v1::ListApprovalsResponse>, Status> {
        list::list(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn watch_approval_updates(
        &self,
        request: Request<v1::ApprovalRequest>,
    ) -> Result<Response<WatchCall>, Status> {
        let (caller, deadline) = (caller(request.extensions()), deadline(&request));
        let request = request.into_inner();
        let changes = follow(self.0.clone(), caller, &request, "watch.resume_token")?;
        let token = request.watch.map(|watch| watch.resume_token).unwrap_or_default();
        Ok(Response::new(WatchCall::new(changes, &self.0.stopping, deadline, token)))
    }

    async fn stream_pending_approvals(
        &self,
        request: Request<v1::StreamPendingApprovalsRequest>,
    ) -> Result<Response<WatchCall>, Status> {
        let (caller, deadline) = (caller(request.extensions()), deadline(&request));
        let request = request.into_inner();
        let token = request.resume_token.clone();
        let changes = pending(self.0.clone(), caller, request).await?;
        Ok(Response::new(WatchCall::new(changes, &self.0.stopping, deadline, token)))
    }

    async fn check_health(
        &self,
        _: Request<v1::HealthCheckRequest>,
    ) -> Result<Response<v1::HealthCheckResponse>, Status> {
        Ok(Response::new(self.0.facts.health()))
    }

    async fn stream_metrics(
        &self,
        request: Request<v1::StreamMetricsRequest>,
    ) -> Result<Response<Self::StreamMetricsStream>, Status> {
        let interval_ms = match request.get_ref().interval_ms {
            0 => INTERVAL_MS_DEFAULT,
            interval @ INTERVAL_MS_MIN..=INTERVAL_MS_MAX => interval,
            _ => return Err(status::invalid_field("interval_ms", "must be 100 to 60,000, or 0 for 1,000")),
        };
        let mut interval = tokio::time::interval(Duration::from_millis(interval_ms.into()));
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let ends = Ends::new(&self.0.stopping, deadline(&request));
        let start = Some((self.0.facts.clone(), interval, ends));
        let metrics = futures_util::stream::unfold(start, |state| async move {
            let (facts, mut interval, mut ends) = state?;
            let item = tokio::select! {
                end = std::future::poll_fn(|context| ends.poll(context)) => match end {
                    End::Deadline => Err(status::deadline_exceeded()),
                    End::Stopping => Err(super::Stopping::status()),
                },
                _ = interval.tick() => Ok(facts.metrics()),
            };
            let state = item.is_ok().then_some((facts, interval, ends));
            Some((item, state))
        });
        Ok(Response::new(metrics.boxed()))
    }

    async fn batch_submit_responses(
        &self,
        _: Request<Streaming<v1::ApprovalResponse>>,
    ) -> Result<Response<v1::BatchSubmitSummary>, Status> {
        Err(Status::internal("the front takes this method"))
    }

    async fn bidirectional_approval_stream(
        &self,
        _: Request<Streaming<v1::ApprovalStreamRequest>>,
    ) -> Result<Response<Self::BidirectionalApprovalStreamStream>, Status> {
        Err(Status::internal("the front takes this method"))
    }
}
