//! A stream's items on their way to the shards: numbered from 0, gathered, pushed, acknowledged.
//!
//! Single votes and requests that are already here travel as one push (a run); a batch is one push for
//! each shard it touches. Items of one stream reach one shard in the order sent. What does not pass the
//! door (a request that is not legal) is refused here and counts as answered at once. A full ring
//! keeps the push, and the stream reads no further. A request whose id may be known is looked up before
//! it is pushed, together with the requests right behind it; what comes later waits.

use super::Limits;
use super::lanes::{Found, Lanes, LookUp, StreamLanes};
use crate::model::{Reason, Refusal};
use crate::shard::{Known, OpenItem, StreamLedger, StreamRefusal, Work};
use crate::wire::{RowRun, VoteBatch, parse_open_bytes};
use bytes::Bytes;
use futures_util::FutureExt;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// Single messages that become one push at most.
pub(super) const RUN_ITEMS_MAX: usize = 1_024;

/// Requests looked up together at most.
pub(super) const LOOK_UP_ITEMS_MAX: usize = 256;

const _: () = assert!(LOOK_UP_ITEMS_MAX <= RUN_ITEMS_MAX);

/// What a look-up settled without a shard.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Settled {
    /// The same request stands in the archive.
    Repeat,
    Refused(Reason),
}

pub(super) struct Intake<L = StreamLanes> {
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
    /// Requests that wait for a look-up, and what was numbered before the first of them.
    looking: Vec<OpenItem>,
    look_up: Option<LookUp>,
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
            looking: Vec::new(),
            look_up: None,
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

    /// A request's bytes; why it was refused at the door, if it was. Not while a look-up is under way.
    pub fn open(&mut self, request: &Bytes) -> Option<Reason> {
        debug_assert!(self.look_up.is_none(), "the stream waits for it");
        self.flush_votes();
        match parse_open_bytes(request, self.content_bytes_max) {
            Ok(request) => {
                let looks = self.is_looking() || self.lanes.known(&request.id) == Known::Maybe;
                if looks && !self.is_looking() {
                    // What came before does not wait.
                    self.flush_opens();
                }
                let open = OpenItem { item: self.next_items(1), request, absence: None };
                if looks {
                    self.looking.push(open);
                } else {
                    self.gather(open);
                    if self.open_count >= RUN_ITEMS_MAX {
                        self.flush_opens();
                    }
                }
                None
            }
            Err(refusal) => {
                let item = self.next_items(1);
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

    fn gather(&mut self, open: OpenItem) {
        let shard = self.lanes.shard_of(&open.request.id);
        self.opens[shard].push(open);
        self.open_count += 1;
    }

    /// Whether requests wait for a look-up: votes wait behind them.
    pub fn is_looking(&self) -> bool {
        !self.looking.is_empty()
    }

    /// Whether another request may join those that wait.
    pub fn may_join(&self) -> bool {
        self.look_up.is_none() && self.looking.len() < LOOK_UP_ITEMS_MAX
    }

    /// Looks up what waits, and gathers it for the shards; answers with what needs no shard.
    pub fn poll_look_up(&mut self, context: &mut Context<'_>) -> Poll<Vec<Settled>> {
        if self.looking.is_empty() {
            return Poll::Ready(Vec::new());
        }
        let (lanes, looking) = (&self.lanes, &self.looking);
        let asked = || looking.iter().map(|open| (open.request.id, open.request.digest)).collect();
        let found = ready!(self.look_up.get_or_insert_with(|| lanes.look_up(asked())).poll_unpin(context));
        self.look_up = None;
        let mut settled = Vec::new();
        for (mut open, found) in std::mem::take(&mut self.looking).into_iter().zip(found) {
            let refused = match found {
                Found::InMemory => {
                    self.gather(open);
                    continue;
                }
                Found::Absent(absence) => {
                    open.absence = Some(absence);
                    self.gather(open);
                    continue;
                }
                Found::Same => {
                    settled.push(Settled::Repeat);
                    continue;
                }
                Found::Different => Refusal::IdTaken.reason(),
                Found::Unanswered(reason) => reason,
            };
            self.refusals.push(StreamRefusal::new(open.item, refused));
            settled.push(Settled::Refused(refused));
        }
        self.flush_opens();
        Poll::Ready(settled)
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
        // What waits for a look-up is neither pushed nor answered.
        let sent = self.looking.first().map_or(self.numbered, |first| first.item);
        self.acked = self.acked.max(self.ledger.acked_through(sent));
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
