//! What a stream knows of its items: which are answered, and which were refused.
//!
//! A front numbers a stream's items from 0 and pushes runs of them to shards; each shard answers its
//! runs in the order pushed, after their commit. One atomic a shard and one wake-up a commit carry
//! that back, however many votes it was; only refusals travel one by one.

use crate::model::{Outcome, Reason};
use crossbeam::queue::SegQueue;
use crossbeam::utils::CachePadded;
use futures_util::task::AtomicWaker;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;

/// A refused item.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub struct StreamRefusal {
    pub item: u64,
    pub reason: ReasonNumber,
}

/// [`Reason`] by its number, so that a refusal is 16 bytes and sorts by item.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub struct ReasonNumber(u8);

impl StreamRefusal {
    pub fn new(item: u64, reason: Reason) -> StreamRefusal {
        StreamRefusal { item, reason: ReasonNumber(reason.number()) }
    }
    pub fn reason(self) -> Reason {
        Reason::ALL[usize::from(self.reason.0) - 1]
    }
}

/// Counts over a whole stream.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct StreamTotals {
    pub accepted: u64,
    pub repeats: u64,
    pub refused: u64,
    pub decided: u64,
}

#[derive(Default)]
struct Lane {
    /// End of the last run pushed to this shard; written by the front only.
    sent: AtomicU64,
    /// End of the last run that this shard answered; written by the shard only.
    done: AtomicU64,
}

/// Shared between one stream's front and the shards.
pub struct StreamLedger {
    lanes: Box<[CachePadded<Lane>]>,
    refusals: SegQueue<Vec<StreamRefusal>>,
    front: AtomicWaker,
    lost: AtomicBool,
    accepted: AtomicU64,
    repeats: AtomicU64,
    refused: AtomicU64,
    decided: AtomicU64,
}

impl StreamLedger {
    pub fn new(shards: usize) -> StreamLedger {
        StreamLedger {
            lanes: (0..shards).map(|_| CachePadded::new(Lane::default())).collect(),
            refusals: SegQueue::new(),
            front: AtomicWaker::new(),
            lost: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
            repeats: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            decided: AtomicU64::new(0),
        }
    }

    /// Front: a run of items that ends before `end` is about to go to `shard`. Before the push, so
    /// that nothing is ever acknowledged early.
    pub fn sending(&self, shard: usize, end: u64) {
        let lane = &self.lanes[shard];
        assert!(lane.sent.load(Ordering::Relaxed) <= end, "items of a stream go out in order");
        lane.sent.store(end, Ordering::Release);
    }

    /// Front: every item below this is answered and durable, when `sent` items were numbered so far
    /// and each of them was either pushed or refused at the door.
    pub fn acked_through(&self, sent: u64) -> u64 {
        let mut through = sent;
        for lane in &self.lanes {
            let done = lane.done.load(Ordering::Acquire);
            // What lies between `done` and the next run of this shard is not this shard's: `done` is
            // a lower bound, and the next answer of the shard moves it.
            if done < lane.sent.load(Ordering::Relaxed) {
                through = through.min(done);
            }
        }
        through
    }

    /// Front: refusals reported since the last call, not sorted. After `acked_through`, so that none
    /// below it is missing.
    pub fn take_refusals(&self, into: &mut Vec<StreamRefusal>) {
        while let Some(some) = self.refusals.pop() {
            into.extend_from_slice(&some);
        }
    }

    /// Front: wakes this task at the next progress. Register, then look.
    pub fn register(&self, waker: &Waker) {
        self.front.register(waker);
    }

    /// Front: no wake; the task looks by itself.
    pub fn unregister(&self) {
        self.front.take();
    }

    /// Front: a shard went away with items of this stream; what became of them is unknown.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    pub fn totals(&self) -> StreamTotals {
        StreamTotals {
            accepted: self.accepted.load(Ordering::Relaxed),
            repeats: self.repeats.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            decided: self.decided.load(Ordering::Relaxed),
        }
    }

    /// Shard, after the commit: a run is answered. The caller wakes the front once a commit.
    pub(crate) fn answered(&self, shard: usize, run: RunAnswer) {
        self.accepted.fetch_add(run.totals.accepted, Ordering::Relaxed);
        self.repeats.fetch_add(run.totals.repeats, Ordering::Relaxed);
        self.refused.fetch_add(run.totals.refused, Ordering::Relaxed);
        self.decided.fetch_add(run.totals.decided, Ordering::Relaxed);
        if !run.refusals.is_empty() {
            self.refusals.push(run.refusals);
        }
        let lane = &self.lanes[shard];
        assert!(lane.done.load(Ordering::Relaxed) <= run.end, "a shard answers a stream in order");
        assert!(run.end <= lane.sent.load(Ordering::Acquire), "only what was sent is answered");
        lane.done.store(run.end, Ordering::Release);
    }

    pub(crate) fn wake_front(&self) {
        self.front.wake();
    }

    pub(crate) fn lose(&self) {
        self.lost.store(true, Ordering::Release);
        self.front.wake();
    }
}

/// What a shard says of one run of a stream.
#[derive(Default)]
pub(crate) struct RunAnswer {
    /// The run's items are below this.
    pub end: u64,
    pub refusals: Vec<StreamRefusal>,
    pub totals: StreamTotals,
}

impl RunAnswer {
    pub fn accepted(&mut self, outcome: Option<Outcome>) {
        self.totals.accepted += 1;
        self.totals.decided += u64::from(outcome.is_some());
    }
    pub fn refused(&mut self, item: u64, reason: Reason) {
        self.totals.refused += 1;
        self.refusals.push(StreamRefusal::new(item, reason));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(end: u64, refused: &[u64]) -> RunAnswer {
        let mut answer = RunAnswer { end, ..RunAnswer::default() };
        refused.iter().for_each(|item| answer.refused(*item, Reason::NotFound));
        answer
    }

    #[test]
    fn the_slowest_shard_holds_the_acknowledgement_back() {
        let ledger = StreamLedger::new(2);
        ledger.sending(0, 10);
        ledger.sending(1, 10);
        assert_eq!(ledger.acked_through(10), 0);
        ledger.answered(0, run(10, &[]));
        assert_eq!(ledger.acked_through(10), 0, "shard 1 still works on items below 10");
        ledger.answered(1, run(10, &[3]));
        assert_eq!(ledger.acked_through(10), 10);
        ledger.sending(0, 20);
        assert_eq!(ledger.acked_through(20), 10, "shard 1 has nothing of the second run");
        ledger.answered(0, run(20, &[]));
        assert_eq!(ledger.acked_through(20), 20);
        let mut refusals = Vec::new();
        ledger.take_refusals(&mut refusals);
        assert_eq!(refusals, [StreamRefusal::new(3, Reason::NotFound)]);
        assert_eq!(ledger.totals().refused, 1);
    }
}
