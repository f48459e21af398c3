//! The wake-up of a consumer that sleeps on its own thread, and costs its producers one load when it
//! does not sleep.
//!
//! Producer: push, SeqCst fence, ring. Consumer: `sleep(look)` sets the flag, fences, looks at the
//! queue again and only then parks: one of the two always sees the other (Dekker).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::thread::Thread;
use std::time::Duration;

/// Wakes one sleeping thread, or whoever reads an eventfd.
pub struct Bell {
    sleeping: AtomicBool,
    sleeper: OnceLock<Sleeper>,
    rung: AtomicU64,
}

enum Sleeper {
    Thread(Thread),
    /// For a consumer whose executor waits in io_uring: it reads eight bytes from this descriptor.
    EventFd(i32),
}

impl Default for Bell {
    fn default() -> Self {
        Bell::new()
    }
}

impl Bell {
    pub fn new() -> Bell {
        Bell { sleeping: AtomicBool::new(false), sleeper: OnceLock::new(), rung: AtomicU64::new(0) }
    }

    /// The calling thread is the one that sleeps from now on. Once only.
    pub fn belongs_to_this_thread(&self) {
        let first = self.sleeper.set(Sleeper::Thread(std::thread::current())).is_ok();
        assert!(first, "a bell has one sleeper");
    }

    /// Whoever reads `descriptor` (an eventfd, open for as long as the bell) sleeps. Once only.
    pub fn belongs_to_eventfd(&self, descriptor: i32) {
        let first = self.sleeper.set(Sleeper::EventFd(descriptor)).is_ok();
        assert!(first, "a bell has one sleeper");
    }

    /// After a push: wakes the sleeper if it sleeps.
    #[inline]
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::SeqCst) {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        self.rung.fetch_add(1, Ordering::Relaxed);
        match self.sleeper.get().expect("only a sleeper sets the flag") {
            Sleeper::Thread(thread) => thread.unpark(),
            Sleeper::EventFd(descriptor) => {
                let one = 1u64.to_ne_bytes();
                // SAFETY: writes eight bytes from a live array; the descriptor outlives the bell by
                // the contract of belongs_to_eventfd. The counter cannot overflow: one write a sleep.
                let written = unsafe { libc::write(*descriptor, one.as_ptr().cast(), one.len()) };
                assert!(written == 8, "an eventfd takes eight bytes");
            }
        }
    }

    /// Announces sleep; false, and no sleep announced, when `work` now says that there is some.
    /// When true the caller waits for its wake (park, or reading the eventfd).
    pub fn announce(&self, work: impl FnOnce() -> bool) -> Announced {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if !work() {
            return Announced::Sleep;
        }
        if self.sleeping.swap(false, Ordering::SeqCst) { Announced::Awake } else { Announced::AwakeWithWakeUnderWay }
    }

    /// The sleeper is awake by other means (a timeout).
    pub fn awake(&self) -> Announced {
        if self.sleeping.swap(false, Ordering::SeqCst) { Announced::Awake } else { Announced::AwakeWithWakeUnderWay }
    }

    /// Sleeps on this thread until rung, or until `timeout`, unless `work` says there is some.
    pub fn sleep(&self, timeout: Option<Duration>, work: impl FnOnce() -> bool) {
        if self.announce(work) != Announced::Sleep {
            return;
        }
        match timeout {
            None => {
                while self.sleeping.load(Ordering::SeqCst) {
                    std::thread::park();
                }
            }
            Some(timeout) => {
                std::thread::park_timeout(timeout);
                self.awake();
            }
        }
    }

    pub fn is_asleep(&self) -> bool {
        self.sleeping.load(Ordering::Relaxed)
    }

    /// How often a sleeper had to be woken.
    pub fn wakes(&self) -> u64 {
        self.rung.load(Ordering::Relaxed)
    }
}

/// What became of an announcement to sleep.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Announced {
    /// Nothing to do: wait for the wake.
    Sleep,
    /// There is work, and no wake is on its way.
    Awake,
    /// There is work, and a producer took the flag first: its wake arrives, and an eventfd must be
    /// read once to take it.
    AwakeWithWakeUnderWay,
}
