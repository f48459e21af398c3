//! Answers out of a shard: one message and one wake-up a commit, to one task on another runtime.

use crossbeam::queue::SegQueue;
use futures_util::task::AtomicWaker;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

/// Many senders, one receiving task. Unbounded by itself: what it carries answers work that came
/// through a bounded ring.
pub struct Mailbox<T> {
    inner: Arc<Inner<T>>,
}

struct Inner<T> {
    letters: SegQueue<T>,
    receiver: AtomicWaker,
    closed: AtomicBool,
}

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Self {
        Mailbox { inner: self.inner.clone() }
    }
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Mailbox::new()
    }
}

impl<T> Mailbox<T> {
    pub fn new() -> Mailbox<T> {
        let inner = Inner { letters: SegQueue::new(), receiver: AtomicWaker::new(), closed: AtomicBool::new(false) };
        Mailbox { inner: Arc::new(inner) }
    }

    pub fn send(&self, letter: T) {
        self.inner.letters.push(letter);
        self.inner.receiver.wake();
    }

    /// No more letters come; the receiver ends after those that are there.
    pub fn close(&self) {
        self.inner.closed.store(true, Ordering::Release);
        self.inner.receiver.wake();
    }

    /// For the one receiving task; `None` once closed and empty.
    pub fn poll_receive(&self, context: &mut Context<'_>) -> Poll<Option<T>> {
        if let Some(letter) = self.inner.letters.pop() {
            return Poll::Ready(Some(letter));
        }
        self.inner.receiver.register(context.waker());
        if let Some(letter) = self.inner.letters.pop() {
            return Poll::Ready(Some(letter));
        }
        if self.inner.closed.load(Ordering::Acquire) {
            // Sent before the close was seen.
            return Poll::Ready(self.inner.letters.pop());
        }
        Poll::Pending
    }

    pub async fn receive(&self) -> Option<T> {
        std::future::poll_fn(|context| self.poll_receive(context)).await
    }
}
