//! Whether a wait is short enough to stay awake for it.
//!
//! Going to sleep and being woken costs 20 to 40 us on each side; an answer that rests on one sync is there
//! after 100. So a task that waits alone looks again and again, between whatever else its worker has to do, for
//! as long as such waits were short lately. With more than [`ALONE_MAX`] waiting the machine has better things to
//! do, and wake-ups are shared anyway.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Context;
use std::time::{Duration, Instant};

/// Waits at once, beyond which nobody stays awake.
const ALONE_MAX: usize = 2;

/// What all waits of a node know of each other.
pub struct Vigil {
    /// Nobody stays awake for longer; zero: nobody does.
    limit: Duration,
    waiting: AtomicUsize,
    last_nanos: AtomicU64,
}

impl Vigil {
    pub fn new(limit: Duration) -> Vigil {
        Vigil { limit, waiting: AtomicUsize::new(0), last_nanos: AtomicU64::new(0) }
    }

    /// A wait begins, and lasts until what is returned is dropped.
    pub fn begin(self: &Arc<Self>) -> Wait {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Wait { vigil: self.clone(), began: Instant::now() }
    }
}

/// One wait.
pub struct Wait {
    vigil: Arc<Vigil>,
    began: Instant,
}

impl Wait {
    /// Stays awake: the task is polled again after its worker has looked for I/O. False: it is time to sleep, and
    /// nothing was done.
    pub fn looks_again(&self, context: &mut Context<'_>) -> bool {
        let vigil = &*self.vigil;
        let pays = vigil.waiting.load(Ordering::Relaxed) <= ALONE_MAX
            && u128::from(vigil.last_nanos.load(Ordering::Relaxed)) < vigil.limit.as_nanos()
            && self.began.elapsed() < vigil.limit;
        if pays {
            // A fresh one is pending once, and wakes the task behind the worker's other work.
            let _pending = pin!(tokio::task::yield_now()).poll(context);
        }
        pays
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.vigil.waiting.fetch_sub(1, Ordering::Relaxed);
        self.vigil.last_nanos.store(self.began.elapsed().as_nanos() as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    fn looks_again(wait: &Wait) -> bool {
        wait.looks_again(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn stays_awake_alone_and_after_short_waits_only() {
        let vigil = Arc::new(Vigil::new(Duration::from_secs(60)));
        let first = vigil.begin();
        let second = vigil.begin();
        assert!(looks_again(&first) && looks_again(&second));
        let third = vigil.begin();
        assert!(!looks_again(&first), "three are not alone");
        drop((second, third));
        assert!(looks_again(&first));
        vigil.last_nanos.store(u64::MAX, Ordering::Relaxed);
        assert!(!looks_again(&first), "the last one took long");
        drop(first);
        assert!(looks_again(&vigil.begin()), "and then one was short");
    }

    #[test]
    fn nobody_stays_awake_beyond_the_limit() {
        let vigil = Arc::new(Vigil::new(Duration::ZERO));
        assert!(!looks_again(&vigil.begin()));
        let vigil = Arc::new(Vigil::new(Duration::from_millis(1)));
        let wait = vigil.begin();
        std::thread::sleep(Duration::from_millis(2));
        assert!(!looks_again(&wait));
    }
}
