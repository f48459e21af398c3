//! Work into a shard: many producers, one consumer, bounded.

use super::Bell;
use crossbeam::queue::{ArrayQueue, SegQueue};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::task::{Context, Poll, Waker};

/// A bounded queue with a bell for its consumer and a waiting list for its producers.
pub struct Ring<T> {
    queue: ArrayQueue<T>,
    bell: Arc<Bell>,
    waiting: SegQueue<Waker>,
    waiting_count: AtomicUsize,
}

impl<T> Ring<T> {
    pub fn new(capacity: usize, bell: Arc<Bell>) -> Ring<T> {
        Ring { queue: ArrayQueue::new(capacity), bell, waiting: SegQueue::new(), waiting_count: AtomicUsize::new(0) }
    }

    /// Full: the item comes back, which is an answer (overloaded), never a wait.
    #[inline]
    pub fn push(&self, item: T) -> Result<(), T> {
        self.queue.push(item)?;
        self.bell.ring();
        Ok(())
    }

    /// Pushes what is in `item`, or leaves it there and wakes the task once there may be room. The
    /// waiting list is bounded by the number of streams, each of which waits for one push at most.
    pub fn poll_push(&self, context: &mut Context<'_>, item: &mut Option<T>) -> Poll<()> {
        let Some(taken) = item.take() else { return Poll::Ready(()) };
        let Err(back) = self.push(taken) else { return Poll::Ready(()) };
        self.waiting.push(context.waker().clone());
        self.waiting_count.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        // The consumer may have made room before it could see the waker: try once more.
        match self.push(back) {
            Ok(()) => Poll::Ready(()),
            Err(back) => {
                *item = Some(back);
                Poll::Pending
            }
        }
    }

    /// The consumer's side.
    #[inline]
    pub fn pop(&self) -> Option<T> {
        self.queue.pop()
    }

    /// The consumer made room: wakes the producers that wait for it.
    #[inline]
    pub fn made_room(&self) {
        fence(Ordering::SeqCst);
        if self.waiting_count.load(Ordering::Relaxed) != 0 {
            self.wake_waiting();
        }
    }

    #[cold]
    fn wake_waiting(&self) {
        // Only as many as wait now: one that fails again registers anew.
        for _ in 0..self.waiting_count.load(Ordering::Relaxed) {
            let Some(waker) = self.waiting.pop() else { break };
            self.waiting_count.fetch_sub(1, Ordering::Relaxed);
            waker.wake();
        }
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn capacity(&self) -> usize {
        self.queue.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_sleeping_consumer_misses_nothing() {
        let bell = Arc::new(Bell::new());
        let ring = Arc::new(Ring::new(8, bell.clone()));
        let producers: Vec<_> = (0..2)
            .map(|producer| {
                let ring = ring.clone();
                std::thread::spawn(move || {
                    for number in 0..20_000u64 {
                        let mut item = producer << 32 | number;
                        while let Err(back) = ring.push(item) {
                            item = back;
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        bell.belongs_to_this_thread();
        let mut next = [0u64; 2];
        while next.iter().sum::<u64>() < 40_000 {
            while let Some(item) = ring.pop() {
                let (producer, number) = ((item >> 32) as usize, item & 0xFFFF_FFFF);
                assert_eq!(number, next[producer], "a producer's items arrive in order");
                next[producer] += 1;
            }
            bell.sleep(Some(Duration::from_secs(5)), || !ring.is_empty());
        }
        for producer in producers {
            producer.join().expect("producer");
        }
        assert!(ring.is_empty());
    }

    #[test]
    fn a_full_ring_hands_the_item_back_and_wakes_the_one_that_waits() {
        use std::sync::atomic::AtomicUsize;
        struct Count(AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let ring = Ring::new(1, Arc::new(Bell::new()));
        assert_eq!(ring.push(1), Ok(()));
        assert_eq!(ring.push(2), Err(2));
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(count.clone());
        let mut item = Some(2);
        assert!(ring.poll_push(&mut Context::from_waker(&waker), &mut item).is_pending());
        assert_eq!(item, Some(2), "it stays with the producer");
        assert_eq!(ring.pop(), Some(1));
        ring.made_room();
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert!(ring.poll_push(&mut Context::from_waker(&waker), &mut item).is_ready());
        assert_eq!((item, ring.pop()), (None, Some(2)));
    }
}
