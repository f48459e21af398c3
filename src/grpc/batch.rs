//! batchSubmitResponses: a validator's backlog, one message a vote, gathered into runs; the summary
//! comes when the client closes its side and everything is on disk.

use super::Stopping;
use super::front::Deps;
use super::intake::{Intake, ReasonCounts};
use super::lanes::StreamLanes;
use super::status;
use super::stopping::{End, Ends};
use crate::shard::StreamRefusal;
use crate::wire::v1;
use bytes::Bytes;
use futures_util::Stream;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::Status;

/// Refusals that the summary lists; the rest are counted.
pub(super) const REFUSALS_LISTED: usize = 10_000;
const MESSAGES_A_POLL: usize = 2_048;

pub(super) struct BatchCall<S> {
    inbound: S,
    intake: Intake,
    ends: Ends,
    half_closed: bool,
    ending: Option<Status>,
    counts: ReasonCounts,
    listed: Vec<v1::Refusal>,
    fresh: Vec<StreamRefusal>,
}

impl<S> BatchCall<S> {
    /// The deadline is the front's: it drops the call.
    pub fn new(inbound: S, deps: &Deps) -> BatchCall<S> {
        BatchCall {
            inbound,
            intake: Intake::new(StreamLanes::new(deps.shards.clone(), None), deps.shards.ledger(), &deps.limits),
            ends: Ends::new(&deps.stopping, None),
            half_closed: false,
            ending: None,
            counts: ReasonCounts::default(),
            listed: Vec::new(),
            fresh: Vec::new(),
        }
    }

    /// Refusals in ascending order: below `acked` they are complete.
    fn gather_refusals(&mut self) {
        self.intake.look();
        self.intake.refusals(usize::MAX, &mut self.fresh);
        for refusal in &self.fresh {
            let reason = refusal.reason();
            self.counts.add(reason);
            if self.listed.len() < REFUSALS_LISTED {
                self.listed.push(v1::Refusal {
                    index: refusal.item,
                    code: status::code(reason) as u32,
                    reason: reason.number().into(),
                });
            }
        }
    }

    fn summary(&mut self) -> v1::BatchSubmitSummary {
        let totals = self.intake.ledger().totals();
        let refused_by_reason: Vec<_> = self
            .counts
            .all()
            .map(|(reason, count)| v1::RefusalCount { reason: reason.number().into(), count })
            .collect();
        v1::BatchSubmitSummary {
            received: self.intake.numbered(),
            accepted: totals.accepted,
            repeated_votes: totals.repeats,
            refused: refused_by_reason.iter().map(|refused| refused.count).sum(),
            refused_by_reason,
            refusals: std::mem::take(&mut self.listed),
            decided: totals.decided,
        }
    }
}

impl<S> BatchCall<S>
where
    S: Stream<Item = Result<Bytes, Status>> + Unpin,
{
    fn read(&mut self, context: &mut Context<'_>) {
        for message in 0.. {
            if self.intake.poll_push(context).is_pending() {
                break;
            }
            if self.half_closed || self.ending.is_some() || !self.intake.has_room() {
                break;
            }
            if message == MESSAGES_A_POLL {
                context.waker().wake_by_ref();
                break;
            }
            match Pin::new(&mut self.inbound).poll_next(context) {
                Poll::Ready(Some(Ok(response))) => {
                    self.intake.hold(response.len());
                    self.intake.vote(&response);
                }
                Poll::Ready(Some(Err(status))) => self.ending = Some(status::unread(status)),
                Poll::Ready(None) => self.half_closed = true,
                Poll::Pending => break,
            }
        }
        self.intake.flush();
        // A full ring wakes this task when it has room.
        let _pushed_or_woken_later = self.intake.poll_push(context);
    }
}

impl<S> Future for BatchCall<S>
where
    S: Stream<Item = Result<Bytes, Status>> + Unpin,
{
    type Output = Result<v1::BatchSubmitSummary, Status>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.intake.ledger().register(context.waker());
        if this.intake.ledger().is_lost() {
            return Poll::Ready(Err(status::lost()));
        }
        if let Poll::Ready(End::Stopping) = this.ends.poll(context) {
            this.ending.get_or_insert_with(Stopping::status);
        }
        // Before the reading too: what was answered makes room, and nothing else would wake this task.
        this.gather_refusals();
        this.read(context);
        this.gather_refusals();
        if !this.intake.is_quiet() {
            return Poll::Pending;
        }
        if let Some(status) = this.ending.take() {
            return Poll::Ready(Err(status));
        }
        match this.half_closed {
            true => Poll::Ready(Ok(this.summary())),
            false => Poll::Pending,
        }
    }
}
