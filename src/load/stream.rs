//! One lane on `bidirectionalApprovalStream`: work up as the lane gives it, acknowledgements down.

use super::encode;
use super::framing::{self, Pool, read_acknowledgement};
use super::lane::{Lane, Task};
use super::message;
use super::track::TrackKind;
use crate::wire::v1::approval_grpc_service_client::ApprovalGrpcServiceClient;
use crate::wire::v1::{self, ApprovalStreamRequest};
use bytes::Bytes;
use http_body::Frame;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tonic::Status;
use tonic::transport::Channel;

/// How votes travel on the stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Layout {
    Singles,
    Rows,
    Columns,
}

/// Small messages are gathered into frames of about this size.
const FRAME_BYTES: usize = 32 << 10;

/// Runs the lane's work to its end. An error: the stream broke, and the lane's flights are unknown.
pub async fn run(mut channel: Channel, lane: Arc<Lane>, layout: Layout) -> Result<(), Status> {
    let uplink = Uplink { lane: lane.clone(), layout, pool: Arc::new(Pool::default()), sent: false, done: false };
    let mut answers = framing::call(&mut channel, "BidirectionalApprovalStream", uplink).await?;
    let mut refusals = Vec::new();
    while let Some(answer) = answers.next().await? {
        refusals.clear();
        let through = read_acknowledgement(&answer, &mut refusals)
            .ok_or_else(|| Status::internal("an answer that is not an ApprovalStreamResponse"))?;
        lane.acked(through, &refusals).map_err(|error| Status::internal(error.to_string()))?;
    }
    finished(&lane)
}

/// The same through generated code on both ways.
pub async fn run_generated(channel: Channel, lane: Arc<Lane>, layout: Layout) -> Result<(), Status> {
    let uplink = GeneratedUplink { lane: lane.clone(), layout, singles: None };
    let mut client = ApprovalGrpcServiceClient::new(channel);
    let mut answers = client.bidirectional_approval_stream(uplink).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        let v1::ApprovalStreamResponse { acked_through, refusals, .. } = answer;
        let refusals: Vec<_> = refusals.iter().map(|refusal| (refusal.index, refusal.reason as u8)).collect();
        lane.acked(acked_through, &refusals).map_err(|error| Status::internal(error.to_string()))?;
    }
    finished(&lane)
}

/// The node ended the stream, and well: it may do so after everything is answered.
fn finished(lane: &Lane) -> Result<(), Status> {
    match lane.in_flight() {
        0 if lane.all_sent() => Ok(()),
        0 => Err(Status::unavailable("the node ended the stream before we did")),
        left => Err(Status::internal(format!("the node ended the stream with {left} items unanswered"))),
    }
}

/// The request's body: encodes when the transport has room to send, so that nothing is queued twice.
struct Uplink {
    lane: Arc<Lane>,
    layout: Layout,
    pool: Arc<Pool>,
    sent: bool,
    done: bool,
}

fn encode_task(out: &mut Vec<u8>, lane: &Lane, layout: Layout, task: Task) {
    let scheme = lane.scheme();
    match (task.slice.kind, layout) {
        (TrackKind::Drawn { .. }, Layout::Singles) => encode::drawn_on_stream(out, scheme, &lane.drawn()),
        (TrackKind::Drawn { .. }, _) => encode::drawn_rows(out, scheme, &lane.drawn()),
        (TrackKind::Open, _) => encode::opens(out, scheme, &task.slice),
        (_, Layout::Singles) => encode::votes_on_stream(out, scheme, &task.slice),
        (_, Layout::Rows) => encode::rows(out, scheme, &task.slice),
        (_, Layout::Columns) => encode::columns(out, scheme, &task.slice),
    }
}

impl http_body::Body for Uplink {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        if std::mem::take(&mut this.sent) {
            // The connection writes what it has before the next batch is made.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut buffer = this.pool.take();
        while !this.done && buffer.len() < FRAME_BYTES {
            match this.lane.poll_task(cx) {
                Poll::Ready(Some(task)) => {
                    this.lane.on_stream(task);
                    encode_task(&mut buffer, &this.lane, this.layout, task);
                }
                Poll::Ready(None) => this.done = true,
                Poll::Pending => break,
            }
        }
        if !buffer.is_empty() {
            this.sent = true;
            return Poll::Ready(Some(Ok(Frame::data(this.pool.lend(buffer)))));
        }
        if this.done { Poll::Ready(None) } else { Poll::Pending }
    }
}

/// The same as an ordinary client has it: a stream of generated messages.
struct GeneratedUplink {
    lane: Arc<Lane>,
    layout: Layout,
    /// A task whose items are messages of their own, and how many are sent.
    singles: Option<(Task, u32)>,
}

impl tokio_stream::Stream for GeneratedUplink {
    type Item = ApprovalStreamRequest;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ApprovalStreamRequest>> {
        let this = &mut *self;
        let (task, at) = match this.singles.take() {
            Some(single) => single,
            None => {
                let Some(task) = ready!(this.lane.poll_task(cx)) else { return Poll::Ready(None) };
                this.lane.on_stream(task);
                (task, 0)
            }
        };
        let (scheme, slice) = (this.lane.scheme(), &task.slice);
        let message = match (slice.kind, this.layout) {
            (TrackKind::Vote { .. }, Layout::Rows) => message::rows(scheme, slice),
            (TrackKind::Vote { .. }, Layout::Columns) => message::columns(scheme, slice),
            (kind, _) => {
                if at + 1 < slice.count {
                    this.singles = Some((task, at + 1));
                }
                let number = slice.number(scheme, slice.start + u64::from(at));
                match kind {
                    TrackKind::Open => message::open(scheme, number),
                    TrackKind::Vote { validator, .. } => message::vote_on_stream(scheme, validator, number),
                    TrackKind::Drawn { .. } => unreachable!("mode mixed has no generated client"),
                }
            }
        };
        Poll::Ready(Some(message))
    }
}
