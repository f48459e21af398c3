//! One lane on the calls that answer for themselves: `submitValidatorResponse` and
//! `batchSubmitResponses`. Each task in flight is one call.

use super::encode;
use super::framing::{self, Pool, read_repeat};
use super::lane::{Lane, Task};
use super::message;
use super::track::Slice;
use crate::grpc::client::Refused;
use crate::model::Reason;
use crate::wire::v1::approval_grpc_service_client::ApprovalGrpcServiceClient;
use crate::wire::v1::{ApprovalResponse, BatchSubmitSummary};
use bytes::Bytes;
use http_body::Frame;
use prost::Message;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::Status;
use tonic::transport::Channel;

/// A summary lists this many refusals: a larger call could not be accounted for exactly.
pub const CALL_VOTES_MAX: u32 = 10_000;
/// Votes of a call are encoded this many at a time.
const CHUNK_VOTES: u32 = 512;

/// One unary call after the other, until the lane has no more. Several of these share a lane.
pub async fn run_unary(channel: Channel, lane: Arc<Lane>, generated: bool) -> Result<(), Status> {
    let mut client = ApprovalGrpcServiceClient::new(channel.clone());
    let mut channel = channel;
    let pool = Arc::new(Pool::default());
    while let Some(task) = poll_fn(|cx| lane.poll_task(cx)).await {
        let slice = task.slice;
        let number = slice.number(lane.scheme(), slice.start);
        let answer = if generated {
            let vote = message::vote(lane.scheme(), slice.validator(), number);
            client.submit_validator_response(vote).await.map(|answer| answer.into_inner().repeat)
        } else {
            let mut buffer = pool.take();
            buffer.extend_from_slice(&[0; 5]);
            encode::vote(&mut buffer, lane.scheme(), slice.validator(), number);
            let length = buffer.len() as u32 - 5;
            buffer[1..5].copy_from_slice(&length.to_be_bytes());
            unary(&mut channel, Once(Some(pool.lend(buffer)))).await
        };
        match answer {
            Ok(repeat) => lane.answered(task, &[], repeat.into()),
            Err(status) => match refusal(&status) {
                Some(reason) => lane.answered(task, &[(0, reason)], 0),
                None => {
                    lane.unanswered(task);
                    return Err(status);
                }
            },
        }
    }
    Ok(())
}

async fn unary(channel: &mut Channel, body: Once) -> Result<bool, Status> {
    let mut answer = framing::call(channel, "SubmitValidatorResponse", body).await?;
    let message = answer.next().await?.ok_or_else(|| Status::internal("an answer without a message"))?;
    let repeat = read_repeat(&message).ok_or_else(|| Status::internal("an answer that is not a status"));
    answer.next().await?;
    repeat
}

/// The reason's number, if the node said no; `None` if it did not answer.
fn refusal(status: &Status) -> Option<u8> {
    let refused = Refused::from(status);
    if refused.is_unanswered() {
        return None;
    }
    let named = refused.reason.as_deref().and_then(|name| Reason::ALL.into_iter().find(|reason| reason.name() == name));
    Some(named.map_or(if refused.fields.is_empty() { 0 } else { Reason::InvalidArgument.number() }, Reason::number))
}

/// One `batchSubmitResponses` after the other. Several of these share a lane.
pub async fn run_batches(mut channel: Channel, lane: Arc<Lane>, generated: bool) -> Result<(), Status> {
    let mut client = ApprovalGrpcServiceClient::new(channel.clone());
    let pool = Arc::new(Pool::default());
    while let Some(task) = poll_fn(|cx| lane.poll_task(cx)).await {
        let summary = if generated {
            client
                .batch_submit_responses(GeneratedVotes { lane: lane.clone(), slice: task.slice })
                .await
                .map(|a| a.into_inner())
        } else {
            let votes = Votes { lane: lane.clone(), slice: task.slice, pool: pool.clone() };
            batch(&mut channel, votes).await
        };
        let checked = summary.and_then(|summary| check(&task, &summary).map(|refusals| (refusals, summary)));
        match checked {
            Ok((refusals, summary)) => lane.answered(task, &refusals, summary.repeated_votes),
            Err(status) => {
                lane.unanswered(task);
                return Err(status);
            }
        }
    }
    Ok(())
}

async fn batch(channel: &mut Channel, votes: Votes) -> Result<BatchSubmitSummary, Status> {
    let mut answer = framing::call(channel, "BatchSubmitResponses", votes).await?;
    let message = answer.next().await?.ok_or_else(|| Status::internal("an answer without a summary"))?;
    answer.next().await?;
    BatchSubmitSummary::decode(message).map_err(|error| Status::internal(error.to_string()))
}

/// A summary accounts for every vote of its call, or the run is void.
fn check(task: &Task, summary: &BatchSubmitSummary) -> Result<Vec<(u64, u8)>, Status> {
    let sent = u64::from(task.slice.count);
    let balances = summary.received == sent
        && summary.accepted + summary.repeated_votes + summary.refused == sent
        && summary.refusals.len() as u64 == summary.refused
        && summary.refusals.iter().all(|refusal| refusal.index < sent);
    if !balances {
        return Err(Status::internal(format!(
            "a summary that does not account for the {sent} votes sent: received {}, accepted {}, repeated {}, refused {} ({} listed)",
            summary.received,
            summary.accepted,
            summary.repeated_votes,
            summary.refused,
            summary.refusals.len()
        )));
    }
    Ok(summary.refusals.iter().map(|refusal| (refusal.index, refusal.reason as u8)).collect())
}

/// A body of one frame.
pub struct Once(pub Option<Bytes>);

impl http_body::Body for Once {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

/// A call's votes as a body.
struct Votes {
    lane: Arc<Lane>,
    slice: Slice,
    pool: Arc<Pool>,
}

impl http_body::Body for Votes {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        let count = this.slice.count.min(CHUNK_VOTES);
        if count == 0 {
            return Poll::Ready(None);
        }
        let mut buffer = this.pool.take();
        encode::votes_in_call(&mut buffer, this.lane.scheme(), &Slice { count, ..this.slice });
        this.slice.start += u64::from(count);
        this.slice.count -= count;
        Poll::Ready(Some(Ok(Frame::data(this.pool.lend(buffer)))))
    }

    fn is_end_stream(&self) -> bool {
        self.slice.count == 0
    }
}

struct GeneratedVotes {
    lane: Arc<Lane>,
    slice: Slice,
}

impl tokio_stream::Stream for GeneratedVotes {
    type Item = ApprovalResponse;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<ApprovalResponse>> {
        let this = &mut *self;
        if this.slice.count == 0 {
            return Poll::Ready(None);
        }
        let number = this.slice.number(this.lane.scheme(), this.slice.start);
        this.slice.start += 1;
        this.slice.count -= 1;
        Poll::Ready(Some(message::vote(this.lane.scheme(), this.slice.validator(), number)))
    }
}
