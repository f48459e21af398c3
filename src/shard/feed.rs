//! The durable end of a log, as followers see it: a mark, and the newest frames in memory while
//! anyone follows. What a follower missed there it reads from the journal.

use crate::journal::Committed;
use crate::queue::Bell;
use crossbeam::queue::ArrayQueue;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Frames kept for a follower that is a little behind; older ones are dropped, and read from disk.
const FRAMES_KEPT: usize = 64;

/// A durable frame: the payload is what `journal::frame_batches` reads.
pub struct FrameCopy {
    pub first_sequence: u64,
    pub last_sequence: u64,
    pub payload: Box<[u8]>,
}

/// One log's end. The shard publishes, one follower (the hub) takes.
pub struct Tail {
    durable: AtomicU64,
    /// Bytes of the frames since the start.
    bytes: AtomicU64,
    followed: AtomicBool,
    frames: ArrayQueue<FrameCopy>,
    follower: Arc<Bell>,
    closed: AtomicBool,
}

impl Tail {
    /// `follower` wakes the one who takes.
    pub fn new(durable: u64, follower: Arc<Bell>) -> Tail {
        Tail {
            durable: AtomicU64::new(durable),
            bytes: AtomicU64::new(0),
            followed: AtomicBool::new(false),
            frames: ArrayQueue::new(FRAMES_KEPT),
            follower,
            closed: AtomicBool::new(false),
        }
    }

    /// Shard: a frame is on disk. Copies it only while somebody follows.
    pub(super) fn publish<'a>(&self, committed: &Committed, payload: impl FnOnce() -> &'a [u8]) {
        if committed.last_sequence < committed.first_sequence {
            return; // definitions only
        }
        assert!(self.durable.load(Ordering::Relaxed) < committed.last_sequence, "durable only grows");
        // One writer: the shard.
        self.bytes.store(self.bytes.load(Ordering::Relaxed) + committed.bytes, Ordering::Relaxed);
        let followed = self.followed.load(Ordering::Acquire);
        if followed {
            let copy = FrameCopy {
                first_sequence: committed.first_sequence,
                last_sequence: committed.last_sequence,
                payload: payload().into(),
            };
            // A full queue drops its oldest: the follower sees the gap by the sequence.
            self.frames.force_push(copy);
        }
        self.durable.store(committed.last_sequence, Ordering::Release);
        if followed {
            self.follower.ring();
        }
    }

    /// Everything up to this sequence is on disk.
    pub fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Bytes of journal written since the start.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Follower: whether frames are kept in memory from now on.
    pub fn follow(&self, followed: bool) {
        self.followed.store(followed, Ordering::Release);
        if !followed {
            while self.frames.pop().is_some() {}
        }
    }

    /// Follower: the oldest frame kept.
    pub fn take(&self) -> Option<FrameCopy> {
        self.frames.pop()
    }

    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub fn is_followed(&self) -> bool {
        self.followed.load(Ordering::Acquire)
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.follower.ring();
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}
