//! One method an rpc, thin: judge, ask the shards, answer. The two hot methods come in by the front
//! and never get here.

use super::front::{Deadline, Deps};
use super::page::Page;
use super::pending::pending;
use super::stopping::{End, Ends};
use super::watch::{WatchCall, follow};
use super::{caller, status};
use crate::model::{ApprovalId, Reason, Refusal};
use crate::shard::{OwnedVote, VoteLine, VotesAfter};
use crate::wire::v1::approval_grpc_service_server::ApprovalGrpcService;
use crate::wire::{parse_open, parse_uuid, parse_vote, status_message, v1, vote_message};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use prost::Message;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::{Request, Response, Status, Streaming};

/// Votes on a page, at most.
const PAGE_LINES_MAX: usize = 1_000;
/// 768 KiB of votes with their names, reasons, signatures and times at their longest.
const FULL_PAGE_LINES_MAX: usize = (768 << 10) / FULL_LINE_BYTES_MAX;
const FULL_LINE_BYTES_MAX: usize = 64 + 1_024 + 512 + 64;
const STATUSES_MAX: usize = 1_000;
const STATUSES_BYTES_MAX: usize = 1 << 20;
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

    /// A request was refused at the door: no shard saw it.
    fn request_refused(&self, reason: Reason) {
        let _ = reason;
    }

    /// A vote was refused at the door: no shard saw it.
    fn vote_refused(&self, reason: Reason) {
        let _ = reason;
    }
}

#[derive(Clone)]
pub(super) struct Approvals(pub Arc<Deps>);

impl Approvals {
    async fn opened(&self, request: v1::ApprovalRequest) -> Result<v1::ApprovalStatusMessage, Refusal> {
        let drawn = ApprovalId(uuid::Uuid::now_v7().into_bytes());
        let count = |refusal: &Refusal| self.0.facts.request_refused(refusal.reason());
        let request = parse_open(&request, Some(drawn), self.0.limits.content_bytes_max).inspect_err(count)?;
        let opened = self.0.shards.open(request, None).await.inspect_err(|refusal| never_pushed(refusal, count))?;
        let log = self.0.shards.log_of(opened.state.last_event);
        Ok(v1::ApprovalStatusMessage { repeat: opened.repeat, ..status_message(&opened.state, log) })
    }

    async fn voted(&self, response: v1::ApprovalResponse) -> Result<v1::ApprovalStatusMessage, Refusal> {
        let count = |refusal: &Refusal| self.0.facts.vote_refused(refusal.reason());
        let vote = parse_vote(&response).inspect_err(count)?;
        let vote = OwnedVote {
            approval: vote.approval,
            validator: vote.validator,
            decision: vote.decision,
            extras: vote.extras,
        };
        let voted = self.0.shards.vote(vote).await.inspect_err(|refusal| never_pushed(refusal, count))?;
        let log = self.0.shards.log_of(voted.state.last_event);
        Ok(v1::ApprovalStatusMessage { repeat: voted.repeat, ..status_message(&voted.state, log) })
    }

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

    /// One page: votes first; in the FULL view, behind the last vote, the eligible validators.
    async fn page(&self, request: v1::GetApprovalStatusRequest) -> Result<v1::ApprovalStatusMessage, Status> {
        let id = parse_uuid(request.approval_id.as_bytes()).map(ApprovalId);
        let id = id.ok_or_else(|| status::invalid_field("approval_id", "must be a UUID"))?;
        let view = v1::ApprovalView::try_from(request.view);
        let view = view.map_err(|_| status::invalid_field("view", "must be BASIC or FULL"))?;
        let is_full = view == v1::ApprovalView::Full;
        let lines_max = match request.page_size as usize {
            0 => PAGE_LINES_MAX,
            size @ 1..=PAGE_LINES_MAX => size,
            _ => return Err(status::invalid_field("page_size", "must be 1 to 1,000, or 0 for 1,000")),
        };
        let lines_max = if is_full { lines_max.min(FULL_PAGE_LINES_MAX) } else { lines_max };
        let page = Page::parse(&request.page_token, &id)?;
        let (after, votes_max) = match page {
            Page::Votes(after) => (after, lines_max),
            Page::Eligible(_) => (VotesAfter(None), 1),
        };
        let shards = &self.0.shards;
        let refused = |refusal: Refusal| status::status(&refusal);
        let mut answer = shards.status(id, after, votes_max).await.map_err(refused)?;
        let mut message = status_message(&answer.state, shards.log_of(answer.state.last_event));
        if let Page::Eligible(_) = page {
            answer.votes.clear();
            message.detail = v1::DetailStatus::Complete as i32;
        } else if is_full {
            match shards.full(&answer.state, &mut answer.votes).await {
                Ok(content) => {
                    message.detail = v1::DetailStatus::Complete as i32;
                    // Once is enough: the first page has it.
                    message.content = if page == Page::FIRST { content } else { Default::default() };
                }
                Err(why) => {
                    message.detail = v1::DetailStatus::Unavailable as i32;
                    message.detail_reason = why;
                }
            }
        }
        message.votes = answer.votes.iter().map(vote_of).collect();
        let votes_next = answer.next.filter(|_| matches!(page, Page::Votes(_)));
        if let Some(next) = votes_next {
            message.next_page_token = Page::Votes(next).token(&id);
        } else if is_full && message.eligible_count != 0 {
            let after = if let Page::Eligible(after) = page { after } else { VotesAfter(None) };
            let next = match lines_max.saturating_sub(message.votes.len()) {
                0 => Some(after),
                room => {
                    let (names, next) = shards.eligible(id, after, room).await.map_err(refused)?;
                    message.eligible_validators = names.iter().map(|name| name.to_string()).collect();
                    next
                }
            };
            message.next_page_token = next.map(|next| Page::Eligible(next).token(&id)).unwrap_or_default();
        }
        Ok(message)
    }

    async fn statuses(
        &self,
        request: v1::GetApprovalStatusesRequest,
    ) -> Result<v1::GetApprovalStatusesResponse, Status> {
        if !(1..=STATUSES_MAX).contains(&request.approval_ids.len()) {
            return Err(status::invalid_field("approval_ids", "must be 1 to 1,000 UUIDs"));
        }
        let mut ids = Vec::with_capacity(request.approval_ids.len());
        for (at, text) in request.approval_ids.iter().enumerate() {
            let id = parse_uuid(text.as_bytes()).ok_or_else(|| {
                let field = format!("approval_ids[{at}]").into();
                status::invalid_argument(&crate::model::Invalid { field, message: "must be a UUID".into() })
            })?;
            ids.push(ApprovalId(id));
        }
        let states = self.0.shards.statuses(ids).await.map_err(|refusal| status::status(&refusal))?;
        let mut answer = v1::GetApprovalStatusesResponse::default();
        let mut bytes = 0;
        for (state, text) in states.into_iter().zip(request.approval_ids) {
            let message = state.map(|state| status_message(&state, self.0.shards.log_of(state.last_event)));
            // Four bytes of framing, and the id in one of the two lists.
            bytes += 4 + message.as_ref().map_or(text.len(), Message::encoded_len);
            match message {
                _ if bytes > STATUSES_BYTES_MAX => answer.remaining_ids.push(text),
                Some(message) => answer.approvals.push(message),
                None => answer.unknown_ids.push(text),
            }
        }
        Ok(answer)
    }
}

/// Shards count what they refuse; a full ring is refused before it gets there.
fn never_pushed(refusal: &Refusal, count: impl Fn(&Refusal)) {
    if *refusal == Refusal::Overloaded {
        count(refusal);
    }
}

fn vote_of(line: &VoteLine) -> v1::ValidatorVote {
    vote_message(&line.validator, line.decision, &line.reason, &line.signature, line.voted_at, line.sequence)
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
        self.timed(self.opened(request.into_inner())).await
    }

    async fn submit_validator_response(
        &self,
        request: Request<v1::ApprovalResponse>,
    ) -> Result<Response<v1::ApprovalStatusMessage>, Status> {
        self.timed(self.voted(request.into_inner())).await
    }

    async fn get_approval_status(
        &self,
        request: Request<v1::GetApprovalStatusRequest>,
    ) -> Result<Response<v1::ApprovalStatusMessage>, Status> {
        self.page(request.into_inner()).await.map(Response::new)
    }

    async fn get_approval_statuses(
        &self,
        request: Request<v1::GetApprovalStatusesRequest>,
    ) -> Result<Response<v1::GetApprovalStatusesResponse>, Status> {
        self.statuses(request.into_inner()).await.map(Response::new)
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
