//! A stream's items on their way to the shards: numbered from 0, gathered, pushed, acknowledged.
//!
//! Single votes and requests that are already here travel as one push (a run); a batch is one push for
//! each shard it touches. Items of one stream reach one shard in the order sent. What does not pass the
//! door (a request that is not legal) is refused here and counts as answered at once. A full ring
//! keeps the push, and the stream reads no further.

use crate::model::{ApprovalId, Reason};
use crate::shard::{OpenItem, Shards, StreamLedger, StreamRefusal, Work};
use crate::wire::{RowRun, VoteBatch, parse_open_bytes};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::Limits;

/// Single messages that become one push at most.
pub(super) const RUN_ITEMS_MAX: usize = 1_024;

/// Where pushes go: the shards, or a test.
pub(super) trait Lanes {
    fn count(&self) -> usize;
    fn shard_of(&self, id: &ApprovalId) -> usize;
    fn poll_push(&self, context: &mut Context<'_>, shard: usize, work: &mut Option<Work>) -> Poll<()>;
}

impl Lanes for Shards {
    fn count(&self) -> usize {
        Shards::count(self)
    }

    #[inline]
    fn shard_of(&self, id: &ApprovalId) -> usize {
        Shards::shard_of(self, id)
    }

    #[inline]
    fn poll_push(&self, context: &mut Context<'_>, shard: usize, work: &mut Option<Work>) -> Poll<()> {
        Shards::poll_push(self, context, shard, work)
    }
}

pub(super) struct Intake<L = Shards> {
    lanes: L,
    ledger: Arc<StreamLedger>,
    content_bytes_max: usize,
    unacknowledged_max: u64,
    unacknowledged_bytes_max: usize,
    /// Items so far.
    numbered: u64,
    /// What the shards have answered of them; grows.
    acked: u64,
    votes: RowRun,
    votes_first: u64,
    opens: Vec<Vec<OpenItem>>,
    open_count: usize,
    pushes: VecDeque<(usize, Option<Work>)>,
    /// Messages not acknowledged: the item behind each, and its bytes.
    held: VecDeque<(u64, usize)>,
    held_bytes: usize,
    new_bytes: usize,
    refusals: Vec<StreamRefusal>,
}

impl<L: Lanes> Intake<L> {
    pub fn new(lanes: L, ledger: Arc<StreamLedger>, limits: &Limits) -> Intake<L> {
        Intake {
            opens: (0..lanes.count()).map(|_| Vec::new()).collect(),
            lanes,
            ledger,
            content_bytes_max: limits.content_bytes_max,
            unacknowledged_max: limits.unacknowledged_max,
            unacknowledged_bytes_max: limits.unacknowledged_bytes_max,
            numbered: 0,
            acked: 0,
            votes: RowRun::default(),
            votes_first: 0,
            open_count: 0,
            pushes: VecDeque::new(),
            held: VecDeque::new(),
            held_bytes: 0,
            new_bytes: 0,
            refusals: Vec::new(),
        }
    }

    pub fn ledger(&self) -> &StreamLedger {
        &self.ledger
    }

    pub fn numbered(&self) -> u64 {
        self.numbered
    }

    pub fn acked(&self) -> u64 {
        self.acked
    }

    /// Whether another message may be read. A batch may lead over the bound by its own size.
    pub fn has_room(&self) -> bool {
        self.pushes.is_empty()
            && self.numbered - self.acked < self.unacknowledged_max
            && self.held_bytes + self.new_bytes < self.unacknowledged_bytes_max
    }

    /// Counts a message's bytes, until what it holds is acknowledged.
    pub fn hold(&mut self, bytes: usize) {
        self.new_bytes += bytes;
    }

    /// A request's bytes; why it was refused at the door, if it was.
    pub fn open(&mut self, request: &Bytes) -> Option<Reason> {
        self.flush_votes();
        let item = self.next_items(1);
        match parse_open_bytes(request, self.content_bytes_max) {
            Ok(request) => {
                let shard = self.lanes.shard_of(&request.id);
                self.opens[shard].push(OpenItem { item, request, absence: None });
                self.open_count += 1;
                if self.open_count >= RUN_ITEMS_MAX {
                    self.flush_opens();
                }
                None
            }
            Err(refusal) => {
                self.refusals.push(StreamRefusal::new(item, refusal.reason()));
                Some(refusal.reason())
            }
        }
    }

    /// A vote's bytes.
    #[inline]
    pub fn vote(&mut self, response: &[u8]) {
        if self.open_count != 0 {
            self.flush_opens();
        }
        let item = self.next_items(1);
        if self.votes.is_empty() {
            self.votes_first = item;
        }
        self.votes.push(response);
        if self.votes.len() >= RUN_ITEMS_MAX {
            self.flush_votes();
        }
    }

    pub fn votes(&mut self, batch: VoteBatch) {
        self.flush_votes();
        self.flush_opens();
        if !batch.is_empty() {
            let first = self.next_items(batch.len());
            self.push_votes(first, batch);
        }
    }

    fn next_items(&mut self, count: usize) -> u64 {
        let first = self.numbered;
        self.numbered += count as u64;
        first
    }

    /// Everything gathered becomes pushes.
    pub fn flush(&mut self) {
        self.flush_votes();
        self.flush_opens();
        if self.new_bytes != 0 {
            self.held.push_back((self.numbered, self.new_bytes));
            self.held_bytes += std::mem::take(&mut self.new_bytes);
        }
    }

    fn flush_votes(&mut self) {
        if !self.votes.is_empty() {
            let batch = self.votes.take();
            self.push_votes(self.votes_first, batch);
        }
    }

    fn push_votes(&mut self, first_item: u64, batch: VoteBatch) {
        let end = first_item + batch.len() as u64;
        let lanes = &self.lanes;
        for (shard, source) in batch.split(lanes.count(), |id| lanes.shard_of(id)) {
            self.ledger.sending(shard, end);
            let work = Work::Votes { stream: self.ledger.clone(), first_item, end, source };
            self.pushes.push_back((shard, Some(work)));
        }
    }

    fn flush_opens(&mut self) {
        if self.open_count == 0 {
            return;
        }
        self.open_count = 0;
        for (shard, requests) in self.opens.iter_mut().enumerate().filter(|(_, requests)| !requests.is_empty()) {
            let requests = std::mem::take(requests);
            self.ledger.sending(shard, self.numbered);
            let work = Work::Opens { stream: self.ledger.clone(), end: self.numbered, requests };
            self.pushes.push_back((shard, Some(work)));
        }
    }

    /// Pushes what waits, in order; pending while a ring is full.
    pub fn poll_push(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while let Some((shard, work)) = self.pushes.front_mut() {
            ready!(self.lanes.poll_push(context, *shard, work));
            self.pushes.pop_front();
        }
        Poll::Ready(())
    }

    /// Looks at what the shards have answered. Everything gathered was flushed before.
    pub fn look(&mut self) {
        debug_assert!(self.votes.is_empty() && self.open_count == 0, "an item is pushed or refused when it counts");
        // The ledger's bound falls back when a shard that was idle gets new items; what was once
        // answered stays answered.
        self.acked = self.acked.max(self.ledger.acked_through(self.numbered));
        self.ledger.take_refusals(&mut self.refusals);
        while let Some((end, bytes)) = self.held.front()
            && *end <= self.acked
        {
            self.held_bytes -= bytes;
            self.held.pop_front();
        }
    }

    /// Refused items below `acked`, ascending, each given once and at most `max`; answers with the item
    /// below which they are complete.
    pub fn refusals(&mut self, max: usize, into: &mut Vec<StreamRefusal>) -> u64 {
        into.clear();
        if self.refusals.is_empty() {
            return self.acked;
        }
        let acked = self.acked;
        into.extend(self.refusals.extract_if(.., |refusal| refusal.item < acked));
        into.sort_unstable();
        if into.len() <= max {
            return acked;
        }
        let through = into[max].item;
        self.refusals.extend(into.drain(max..));
        through
    }

    /// Nothing waits, and everything so far is answered.
    pub fn is_quiet(&self) -> bool {
        self.pushes.is_empty() && self.acked == self.numbered
    }
}

/// Counts by reason, in the reasons' order.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReasonCounts([u64; Reason::ALL.len()]);

impl ReasonCounts {
    pub fn add(&mut self, reason: Reason) {
        self.0[usize::from(reason.number()) - 1] += 1;
    }

    pub fn all(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL.into_iter().zip(self.0).filter(|(_, count)| *count != 0)
    }
}

#[cfg(test)]
#[path = "intake_tests.rs"]
mod tests;
