//! watchApprovalUpdates, and what subscriptions share with it: a [`Feed`]'s items with their tokens.
//!
//! The feed follows the journal; this side owns what belongs to a call: who asks, the token, the end after
//! the outcome of a single approval, the node's stop and the call's deadline.

use super::filter::Filter;
use super::front::{Deadline, Deps};
use super::read::standing;
use super::status::{self, DOMAIN};
use super::stopping::{End, Ends};
use super::{Caller, Stopping};
use crate::model::{ApprovalState, LogId, Position, Reason, Refusal, Status as ApprovalStatus};
use crate::shard::StateFilter;
use crate::wire::{status_message, v1};
use base64::Engine as _;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// What follows the journal for watchers. Implemented by whoever holds the shards' feed.
pub trait Feed: Send + Sync + 'static {
    /// Newest published position of each log of this generation: a start behind which nothing is
    /// missed. Never empty.
    fn positions(&self) -> Vec<Position>;

    /// Everything that matches, in the order of each log, until the receiver drops it.
    ///
    /// With `from`: every change behind these positions, none twice; logs of sealed generations are read
    /// to their end first; an `Err` of OUT_OF_RANGE when the journal no longer holds them. Without:
    /// changes from now on. With `include_current`, before that, the current state of everything that
    /// matches, with empty positions and no event type; no change falls between the two.
    /// A receiver that does not keep up gets RESOURCE_EXHAUSTED, and no shard waits for it. An `Err`
    /// is the last item; too many watchers are such an `Err` at once.
    fn subscribe(&self, subscribe: Subscribe) -> BoxStream<'static, Result<WatchItem, WatchEnd>>;
}

/// What a watcher asks of the feed.
#[derive(Clone, Debug)]
pub struct Subscribe {
    /// Filters by who asks belong into the feed, so that a handler cannot forget them.
    pub caller: Caller,
    pub filter: StateFilter,
    pub from: Option<Vec<Position>>,
    pub include_current: bool,
}

/// A state or a change for a watcher.
#[derive(Clone, Debug)]
pub struct WatchItem {
    /// Everything but the token: `wire::status_message` with, for a change, `event_type` and the vote
    /// that made it.
    pub message: v1::ApprovalStatusMessage,
    /// One for each log, this item included; empty during the initial state.
    pub positions: Vec<Position>,
}

/// Why a watch ends otherwise than after an outcome.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WatchEnd {
    pub code: Code,
    pub message: String,
    /// Where to go on; empty when that is not possible.
    pub positions: Vec<Position>,
    /// What refused the watch: a limit, the archive.
    pub refusal: Option<Refusal>,
}

/// A feed of a node that has none.
pub struct NoFeed;

impl Feed for NoFeed {
    fn positions(&self) -> Vec<Position> {
        Vec::new()
    }

    fn subscribe(&self, _: Subscribe) -> BoxStream<'static, Result<WatchItem, WatchEnd>> {
        let message = "this node follows no journal".into();
        stream::iter([Err(WatchEnd { code: Code::Unimplemented, message, positions: Vec::new(), refusal: None })])
            .boxed()
    }
}

/// A message with its token, or the end.
pub(super) type Followed = Result<v1::ApprovalStatusMessage, WatchEnd>;

/// Follows a filter as its watch options say; `token_field` is where a bad token is to be named.
pub(super) fn follow(
    deps: Arc<Deps>,
    caller: Caller,
    request: &v1::ApprovalRequest,
    token_field: &'static str,
) -> Result<BoxStream<'static, Followed>, Status> {
    let filter = Filter::of_watch(request)?;
    let options = request.watch.clone().unwrap_or_default();
    let from = match options.resume_token.is_empty() {
        true => None,
        false => Some(deps.origin.parse(&options.resume_token, &filter.digest, token_field)?.positions),
    };
    // The current state of one approval always comes first; a resumed watch has had it.
    let include_current = from.is_none() && (options.include_current || filter.state.approval.is_some());
    let Some(id) = filter.state.approval else {
        return Ok(subscribed(&deps, caller, filter, from, include_current));
    };
    let start = async move {
        let found = match deps.archive {
            // Memory has it, or it is not open yet: the feed knows.
            None if from.is_none() => Ok(Vec::new()),
            _ => standing(&deps, vec![id]).await,
        };
        let decided = match found {
            Ok(found) => {
                found.into_iter().flatten().next().filter(|(state, _)| state.status != ApprovalStatus::Pending)
            }
            // A state that only the archive can show must not be waited for in vain.
            Err(refusal) => return stream::iter([Err(refused(refusal))]).boxed(),
        };
        match (decided, from) {
            // Resumed behind the outcome, there is nothing left to wait for.
            (Some((state, log)), Some(from)) if is_behind(&from, &state, log) => stream::empty().boxed(),
            // No event comes any more, and the feed shows what memory holds: the outcome is all there is.
            (Some((state, log)), None) if filter.state.matches_state(&state) => {
                stream::iter([Ok(status_message(&state, log))]).boxed()
            }
            (_, from) => {
                let include_current = from.is_none();
                until_outcome(subscribed(&deps, caller, filter, from, include_current))
            }
        }
    };
    Ok(stream::once(start).flatten().boxed())
}

/// As a call is refused.
pub(super) fn refused(refusal: Refusal) -> WatchEnd {
    let status = status::status(&refusal);
    let message = status.message().into();
    WatchEnd { code: status.code(), message, positions: Vec::new(), refusal: Some(refusal) }
}

fn is_behind(positions: &[Position], state: &ApprovalState, log: LogId) -> bool {
    positions.iter().any(|position| position.log == log && state.last_event.sequence() <= position.sequence)
}

/// Ends with the message that shows an outcome.
fn until_outcome(changes: BoxStream<'static, Followed>) -> BoxStream<'static, Followed> {
    let step = |changes: Option<BoxStream<'static, Followed>>| async move {
        let mut changes = changes?;
        let item = changes.next().await?;
        let decided = item.as_ref().is_ok_and(|message| message.status > v1::ApprovalStatus::Pending as i32);
        Some((item, (!decided).then_some(changes)))
    };
    stream::unfold(Some(changes), step).boxed()
}

pub(super) fn subscribed(
    deps: &Deps,
    caller: Caller,
    filter: Filter,
    from: Option<Vec<Position>>,
    include_current: bool,
) -> BoxStream<'static, Followed> {
    let origin = deps.origin;
    let subscribe = Subscribe { caller, filter: filter.state, from, include_current };
    let with_token = move |item: Result<WatchItem, WatchEnd>| {
        item.map(|WatchItem { mut message, positions }| {
            message.resume_token = origin.token(&filter.digest, &positions);
            message
        })
    };
    deps.feed.subscribe(subscribe).map(with_token).boxed()
}

/// A call's stream of states: follows `changes`, and ends with the node or the deadline.
pub(super) struct WatchCall {
    changes: BoxStream<'static, Followed>,
    ends: Ends,
    token: Bytes,
    done: bool,
}

impl WatchCall {
    /// `token`: where the client stands before the first message.
    pub fn new(
        changes: BoxStream<'static, Followed>,
        stopping: &Stopping,
        deadline: Option<Deadline>,
        token: Bytes,
    ) -> WatchCall {
        WatchCall { changes, ends: Ends::new(stopping, deadline), token, done: false }
    }

    fn end(&mut self, status: Status) -> Poll<Option<Result<v1::ApprovalStatusMessage, Status>>> {
        self.done = true;
        Poll::Ready(Some(Err(status)))
    }
}

impl Stream for WatchCall {
    type Item = Result<v1::ApprovalStatusMessage, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.done {
            return Poll::Ready(None);
        }
        match this.ends.poll(context) {
            Poll::Ready(End::Deadline) => return this.end(status::deadline_exceeded()),
            Poll::Ready(End::Stopping) => {
                let status = with_resume_token(Code::Unavailable, "the node is stopping: resume", &this.token);
                return this.end(status);
            }
            Poll::Pending => {}
        }
        match std::task::ready!(this.changes.as_mut().poll_next(context)) {
            Some(Ok(message)) => {
                if !message.resume_token.is_empty() {
                    this.token = message.resume_token.clone();
                }
                Poll::Ready(Some(Ok(message)))
            }
            Some(Err(end)) => {
                let status = match &end.refusal {
                    Some(refusal) => status::status(refusal),
                    None => with_resume_token(end.code, &end.message, &this.token),
                };
                this.end(status)
            }
            None => {
                this.done = true;
                Poll::Ready(None)
            }
        }
    }
}

/// A status that says where to go on: in ErrorInfo as base64, and in the trailer `resume-token-bin`.
fn with_resume_token(code: Code, message: &str, token: &[u8]) -> Status {
    let reason = match code {
        Code::Unavailable => Reason::Stopping.name(),
        Code::ResourceExhausted => "WATCHER_TOO_SLOW",
        Code::OutOfRange => "TOKEN_NOT_HELD",
        _ => "WATCH_ENDED",
    };
    let mut facts = HashMap::new();
    let mut metadata = MetadataMap::new();
    if !token.is_empty() {
        facts.insert("resume_token".to_string(), base64::engine::general_purpose::STANDARD.encode(token));
        metadata.insert_bin("resume-token-bin", MetadataValue::from_bytes(token));
    }
    let details = ErrorDetails::with_error_info(reason, DOMAIN, facts);
    Status::with_error_details_and_metadata(code, message, details, metadata)
}
