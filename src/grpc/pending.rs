//! streamPendingApprovals: what is pending, most urgent first, and on request every change after it.

use super::Caller;
use super::filter::Filter;
use super::front::Deps;
use super::status;
use super::watch::{Followed, refused, subscribed};
use crate::model::{ApprovalId, Position, Refusal, Status as ApprovalStatus};
use crate::wire::{status_message, v1};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tonic::Status;

/// States asked of the shards at a time.
const CHUNK: usize = 1_000;

/// `awaiting_validator` selects among what is pending; the changes that follow are those of all
/// that match otherwise.
pub(super) async fn pending(
    deps: Arc<Deps>,
    caller: Caller,
    request: v1::StreamPendingApprovalsRequest,
) -> Result<BoxStream<'static, Followed>, Status> {
    let filter = Filter::of_pending(&request)?;
    if !request.resume_token.is_empty() {
        if !request.follow {
            return Err(status::invalid_field("resume_token", "goes with follow only"));
        }
        let from = deps.origin.parse(&request.resume_token, &filter.digest, "resume_token")?.positions;
        return Ok(subscribed(&deps, caller, filter, Some(from), false));
    }
    let place = Place::take(&deps)?;
    // Before the list is made: what changes from here on comes behind it.
    let start = if request.follow { deps.feed.positions() } else { Vec::new() };
    let ids = deps.shards.pending(filter.state.clone(), filter.awaiting.clone()).await;
    let ids = ids.map_err(|refusal| status::status(&refusal))?;
    let listing =
        Listing { deps, caller, filter, start, ids: ids.into(), ready: VecDeque::new(), ahead: HashMap::new(), place };
    let follow = request.follow;
    Ok(stream::unfold(Some(listing), move |listing| next(listing, follow)).flatten().boxed())
}

struct Listing {
    deps: Arc<Deps>,
    caller: Caller,
    filter: Filter,
    start: Vec<Position>,
    ids: VecDeque<ApprovalId>,
    ready: VecDeque<v1::ApprovalStatusMessage>,
    /// Approvals shown at a state behind `start`: their changes up to there were seen.
    ahead: HashMap<String, (u64, u64)>,
    place: Place,
}

/// The next part of the stream: a chunk of states, then the changes.
async fn next(listing: Option<Listing>, follow: bool) -> Option<(BoxStream<'static, Followed>, Option<Listing>)> {
    let mut listing = listing?;
    if listing.ids.is_empty() {
        return follow.then(|| (listing.changes(), None));
    }
    match listing.chunk(follow).await {
        Ok(()) => {
            let states: Vec<_> = listing.ready.drain(..).map(Ok).collect();
            Some((stream::iter(states).boxed(), Some(listing)))
        }
        Err(refusal) => Some((stream::iter([Err(refused(refusal))]).boxed(), None)),
    }
}

impl Listing {
    async fn chunk(&mut self, follow: bool) -> Result<(), Refusal> {
        let ids: Vec<_> = self.ids.drain(..self.ids.len().min(CHUNK)).collect();
        for state in self.deps.shards.statuses(ids).await?.into_iter().flatten() {
            // Decided since it was listed: its change follows, or nobody asked.
            if state.status != ApprovalStatus::Pending {
                continue;
            }
            let message = status_message(&state, self.deps.shards.log_of(state.last_event));
            let is_ahead = |start: &Position| start.log.0 == message.log && start.sequence < message.sequence;
            if follow && self.start.iter().any(is_ahead) {
                self.ahead.insert(message.approval_id.clone(), (message.log, message.sequence));
            }
            self.ready.push_back(message);
        }
        Ok(())
    }

    fn changes(self) -> BoxStream<'static, Followed> {
        let Listing { deps, caller, filter, start, ahead, place, .. } = self;
        drop(place);
        let unseen = move |item: &Followed| {
            let seen = item.as_ref().is_ok_and(|message| {
                ahead
                    .get(&message.approval_id)
                    .is_some_and(|(log, sequence)| *log == message.log && message.sequence <= *sequence)
            });
            futures_util::future::ready(!seen)
        };
        subscribed(&deps, caller, filter, Some(start), false).filter(unseen).boxed()
    }
}

/// One of the listings that may run at a time: each holds an id for everything pending.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(deps: &Deps) -> Result<Place, Status> {
        let place = Place(deps.listings.clone());
        if deps.listings.fetch_add(1, Ordering::Relaxed) >= deps.limits.pending_streams_max {
            return Err(status::limit_reached("pending_streams_max"));
        }
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
