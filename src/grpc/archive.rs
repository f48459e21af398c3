//! The archive as the front asks it: so many questions at a time, and a refusal when it does not answer.
//!
//! What memory no longer has is asked of the [`Store`], in the order that memory gives: votes by their
//! validators' names, so that a page begun in memory goes on here.

use super::Facts;
use crate::model::{ApprovalId, Refusal, ValidatorId};
use crate::store::{self, Archived, ArchivedVote, ListFilter, ListKey, Store};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Semaphore;

/// Questions at a time; more wait.
const LOOK_UPS_AT_ONCE: usize = 64;
/// Questions that wait; more are refused as overload.
const LOOK_UPS_WAITING_MAX: usize = 4_096;
/// Votes read of the store at a time.
const VOTES_A_READ: usize = 1_000;

pub(super) struct Archive {
    store: Arc<dyn Store>,
    places: Semaphore,
    waiting: AtomicUsize,
    facts: Arc<dyn Facts>,
}

/// Some of a list, and the last of it when more follow.
pub(super) struct Part<T> {
    pub items: Vec<T>,
    pub next: Option<ValidatorId>,
}

/// One of those that wait for a place.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Archive {
    pub fn new(store: Arc<dyn Store>, facts: Arc<dyn Facts>) -> Archive {
        Archive { store, places: Semaphore::new(LOOK_UPS_AT_ONCE), waiting: AtomicUsize::new(0), facts }
    }

    async fn ask<T>(&self, question: impl Future<Output = Result<T, store::Error>>) -> Result<T, Refusal> {
        let _place = match self.places.try_acquire() {
            Ok(place) => place,
            Err(_) => {
                let before = self.waiting.fetch_add(1, Ordering::Relaxed);
                let _waiting = Waiting(&self.waiting);
                if before >= LOOK_UPS_WAITING_MAX {
                    return Err(Refusal::Overloaded);
                }
                self.places.acquire().await.expect("the places are never closed")
            }
        };
        self.facts.looked_up();
        question.await.map_err(|error| Refusal::ArchiveUnavailable(error.to_string().into()))
    }

    pub async fn approval(&self, id: ApprovalId) -> Result<Option<Archived>, Refusal> {
        Ok(self.approvals(vec![id]).await?.pop().flatten())
    }

    /// In the order asked for.
    pub async fn approvals(&self, ids: Vec<ApprovalId>) -> Result<Vec<Option<Archived>>, Refusal> {
        let count = ids.len();
        let found = self.ask(self.store.approvals(ids)).await?;
        assert!(found.len() == count, "a store answers for every id");
        Ok(found)
    }

    pub async fn content(&self, id: ApprovalId) -> Result<Option<Bytes>, Refusal> {
        self.ask(self.store.content(id)).await
    }

    pub async fn vote(&self, id: ApprovalId, validator: ValidatorId) -> Result<Option<ArchivedVote>, Refusal> {
        self.ask(self.store.vote(id, validator)).await
    }

    /// At most `max` votes behind `after`, in the order of their validators' names. The store gives them
    /// as they were cast: all are looked at, and never more than a page of them is kept.
    pub async fn votes(
        &self,
        id: ApprovalId,
        after: Option<&ValidatorId>,
        max: usize,
    ) -> Result<Part<ArchivedVote>, Refusal> {
        let mut page = BTreeMap::new();
        self.each_vote(id, |vote| {
            if after.is_none_or(|after| vote.validator > *after) {
                page.insert(vote.validator.clone(), vote);
                if page.len() > max + 1 {
                    page.pop_last();
                }
            }
        })
        .await?;
        let more = page.len() > max;
        let items: Vec<_> = page.into_values().take(max).collect();
        let next = items.last().filter(|_| more).map(|vote| vote.validator.clone());
        Ok(Part { items, next })
    }

    /// Every vote, in the order they were cast.
    pub async fn each_vote(&self, id: ApprovalId, mut look: impl FnMut(ArchivedVote)) -> Result<(), Refusal> {
        let mut after = 0;
        loop {
            let some = self.ask(self.store.votes(id, after, VOTES_A_READ)).await?;
            let is_last = some.len() < VOTES_A_READ;
            for vote in some {
                assert!(vote.version > after, "a store gives votes in the order they were cast");
                after = vote.version;
                look(vote);
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// At most `max` of those who may vote, behind `after`, by name.
    pub async fn eligible(
        &self,
        id: ApprovalId,
        after: Option<ValidatorId>,
        max: usize,
    ) -> Result<Part<ValidatorId>, Refusal> {
        let mut items = self.ask(self.store.eligible(id, after, max + 1)).await?;
        let more = items.len() > max;
        items.truncate(max);
        let next = items.last().filter(|_| more).cloned();
        Ok(Part { items, next })
    }

    /// Newest first.
    pub async fn list(&self, filter: ListFilter, after: Option<ListKey>, max: usize) -> Result<Vec<Archived>, Refusal> {
        self.ask(self.store.list(filter, after, max)).await
    }
}
