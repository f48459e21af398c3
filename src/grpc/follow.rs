//! The hub of the shards as a [`Feed`]: initial states, then changes, as messages.

use super::status;
use super::watch::{Feed, Subscribe, WatchEnd, WatchItem};
use crate::metrics::Metrics;
use crate::model::{ApprovalState, Decided, LogId, PARTITIONS, Position, Refusal, Status};
use crate::shard::{self, FeedEnd, FeedEvent, FeedKind, Shards, Start, Subscription};
use crate::wire::{status_message, timestamp, v1, vote_message};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

/// Messages between a watch's task and its call: the buffer proper is the subscription's.
const ON_THE_WAY: usize = 16;
/// The setting that bounds them.
const WATCHERS_MAX: &str = "watchers_max";
/// What a buffered event takes, about.
const EVENT_BYTES: usize = 256;

/// Watches over the shards of this node.
#[derive(Clone)]
pub struct HubFeed {
    feed: shard::Feed,
    shards: Shards,
    metrics: Arc<Metrics>,
    buffer_events: usize,
    watchers_max: usize,
}

type Items = mpsc::Sender<Result<WatchItem, WatchEnd>>;

impl HubFeed {
    pub fn new(
        feed: shard::Feed,
        shards: Shards,
        metrics: Arc<Metrics>,
        buffer_bytes: usize,
        watchers_max: usize,
    ) -> HubFeed {
        HubFeed { feed, shards, metrics, buffer_events: (buffer_bytes / EVENT_BYTES).max(2), watchers_max }
    }

    /// Sends until the watch ends; `Err` is its last item.
    async fn run(&self, subscribe: Subscribe, items: &Items) -> Result<(), WatchEnd> {
        let _counted = self.metrics.front.watchers.hold();
        let Subscribe { filter, from, include_current, .. } = subscribe;
        // What each partition (or the one approval) was sent as, and must not be sent again.
        let mut sent: Vec<(LogId, u64)> = Vec::new();
        let mut subscription = match (from, filter.approval) {
            (Some(positions), _) => self.subscribe(filter, Start::Behind(positions))?,
            (None, None) if include_current => {
                let positions = self.feed.positions();
                for partition in 0..PARTITIONS {
                    let mut next = Some(0);
                    let mut through = (LogId(0), 0);
                    while let Some(at) = next {
                        let slice = self.shards.partition_states(partition, at, filter.clone()).await;
                        let (states, sequence, more) = slice.map_err(|refusal| {
                            end(Code::Unavailable, format!("the state could not be read: {}", refusal.reason().name()))
                        })?;
                        if at == 0 {
                            // The later slices of a partition may be newer: a change may then be sent
                            // though its state was, never the other way round.
                            through = (self.shards.log_of_partition(partition), sequence);
                        }
                        for state in states {
                            if !self.send_state(items, &state).await {
                                return Ok(());
                            }
                        }
                        next = more;
                    }
                    sent.push(through);
                }
                self.subscribe(filter, Start::Behind(positions))?
            }
            (None, approval) => {
                let mut subscription = self.subscribe(filter.clone(), Start::Now)?;
                let began = subscription.began().await;
                if let Some(id) = approval.filter(|_| include_current) {
                    let found = self.shards.statuses(vec![id]).await;
                    let mut found = found.unwrap_or_default().into_iter().flatten();
                    if let Some(state) = found.find(|state| filter.matches_state(state)) {
                        sent.push((self.shards.log_of(state.last_event), state.last_event.sequence()));
                        let ready = Ok(WatchItem { message: self.state_message(&state), positions: Vec::new() });
                        if items.send(ready).await.is_err() {
                            return Ok(());
                        }
                    }
                }
                drop(began);
                subscription
            }
        };
        self.follow(&mut subscription, &sent, items).await
    }

    fn subscribe(&self, filter: shard::StateFilter, start: Start) -> Result<Subscription, WatchEnd> {
        self.feed.subscribe(filter, start, self.buffer_events, self.watchers_max).map_err(|why| self.ended(why, &[]))
    }

    async fn send_state(&self, items: &Items, state: &ApprovalState) -> bool {
        let item = WatchItem { message: self.state_message(state), positions: Vec::new() };
        self.metrics.front.updates_sent.increment();
        items.send(Ok(item)).await.is_ok()
    }

    fn state_message(&self, state: &ApprovalState) -> v1::ApprovalStatusMessage {
        status_message(state, self.shards.log_of(state.last_event))
    }

    async fn follow(
        &self,
        subscription: &mut Subscription,
        sent: &[(LogId, u64)],
        items: &Items,
    ) -> Result<(), WatchEnd> {
        let mut positions: Vec<Position> = Vec::new();
        loop {
            let next = tokio::select! {
                next = subscription.next() => next,
                () = items.closed() => return Ok(()),
            };
            let item = next.map_err(|why| self.ended(why, &positions))?;
            positions = item.positions.to_vec();
            let event = &item.event;
            let log = self.shards.log_of(event.at);
            let known = match sent.len() {
                0 => None,
                1 => Some(sent[0]),
                _ => Some(sent[self.shards.partition_of(&event.approval) as usize]),
            };
            if known.is_some_and(|(known, sequence)| known == log && event.at.sequence() <= sequence) {
                continue;
            }
            self.metrics.front.updates_sent.increment();
            let item = WatchItem { message: change_message(event, log), positions: positions.clone() };
            if items.send(Ok(item)).await.is_err() {
                return Ok(());
            }
        }
    }

    fn ended(&self, why: FeedEnd, positions: &[Position]) -> WatchEnd {
        let refusal = (why == FeedEnd::TooMany).then_some(Refusal::LimitReached(WATCHERS_MAX));
        let (code, message) = match why {
            FeedEnd::TooSlow => {
                self.metrics.front.watchers_closed.increment();
                (Code::ResourceExhausted, "this watcher did not keep up: resume from the token".to_string())
            }
            FeedEnd::TooMany => {
                let status = status::limit_reached(WATCHERS_MAX);
                (Code::ResourceExhausted, status.message().to_string())
            }
            FeedEnd::NotHeld(message) => (Code::OutOfRange, message),
            FeedEnd::Broken(message) => (Code::Unavailable, message),
        };
        WatchEnd { code, message, positions: positions.to_vec(), refusal }
    }
}

fn end(code: Code, message: String) -> WatchEnd {
    WatchEnd { code, message, positions: Vec::new(), refusal: None }
}

impl Feed for HubFeed {
    fn positions(&self) -> Vec<Position> {
        self.feed.positions()
    }

    fn subscribe(&self, subscribe: Subscribe) -> BoxStream<'static, Result<WatchItem, WatchEnd>> {
        let (items, receiver) = mpsc::channel(ON_THE_WAY);
        let feed = self.clone();
        tokio::spawn(async move {
            if let Err(end) = feed.run(subscribe, &items).await {
                let _call_gone = items.send(Err(end)).await;
            }
        });
        ReceiverStream::new(receiver).boxed()
    }
}

/// An event as a message: an opening or deciding one has everything, a plain vote what it changed.
pub fn change_message(event: &FeedEvent, log: LogId) -> v1::ApprovalStatusMessage {
    let mut message = v1::ApprovalStatusMessage {
        approval_id: event.approval.to_string(),
        status: event.outcome().map_or(Status::Pending, |outcome| outcome.status()) as i32,
        approval_type: event.approval_type as i32,
        priority: event.priority as i32,
        requester_id: event.requester.to_string(),
        approvals: event.tally.approvals.into(),
        rejections: event.tally.rejections.into(),
        abstentions: event.tally.abstentions.into(),
        version: event.version(),
        log: log.0,
        sequence: event.at.sequence(),
        event_type: match &event.kind {
            FeedKind::Opened { .. } => v1::ApprovalEventType::Created,
            FeedKind::Voted { decided: None, .. } => v1::ApprovalEventType::Updated,
            FeedKind::Voted { decided: Some(_), .. } | FeedKind::Expired { .. } => v1::ApprovalEventType::Finalized,
        } as i32,
        ..v1::ApprovalStatusMessage::default()
    };
    match &event.kind {
        FeedKind::Opened { content_hash, required, total, created_at, expires_at, .. } => {
            message.content_hash = content_hash.to_string();
            message.required_approvals = (*required).into();
            message.total_validators = (*total).into();
            message.created_at = Some(timestamp(*created_at));
            message.expires_at = Some(timestamp(*expires_at));
        }
        FeedKind::Voted { validator, decision, reason, signature, decided } => {
            let sequence = event.at.sequence();
            message.votes = vec![vote_message(validator, *decision, reason, signature, Some(event.time), sequence)];
            if let Some(decided) = decided {
                finalize(&mut message, decided);
            }
        }
        FeedKind::Expired { decided } => finalize(&mut message, decided),
    }
    message
}

fn finalize(message: &mut v1::ApprovalStatusMessage, decided: &Decided) {
    message.content_hash = decided.content_hash.to_string();
    message.required_approvals = decided.required.into();
    message.total_validators = decided.total.into();
    message.created_at = Some(timestamp(decided.created_at));
    message.expires_at = Some(timestamp(decided.expires_at));
    message.finalized_at = Some(timestamp(decided.finalized_at));
}
