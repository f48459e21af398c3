//! A thread that parked although it has work: a signal makes its system call return, so that it
//! looks again. For executors that can do that; see `Watchdog`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How long nothing may move while work is queued.
const STALL: Duration = Duration::from_millis(20);
/// How often a watchdog looks when there was nothing to do the last time.
const CALM: Duration = Duration::from_millis(200);

/// What the watched thread counts: any change is progress.
#[derive(Default)]
pub struct Progress {
    turns: AtomicU64,
}

impl Progress {
    #[inline]
    pub fn moved(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }
}

/// Watches the thread it was started on, from one of its own.
pub struct Watchdog {
    ended: Arc<AtomicBool>,
}

impl Watchdog {
    /// `has_work`: whether work waits for this thread; `nudged` is told each time.
    pub fn start(
        progress: Arc<Progress>,
        has_work: impl Fn() -> bool + Send + 'static,
        nudged: impl Fn() + Send + 'static,
    ) -> std::io::Result<Watchdog> {
        install_handler();
        // SAFETY: gettid takes nothing and touches nothing.
        let thread = unsafe { libc::gettid() };
        let ended = Arc::new(AtomicBool::new(false));
        let over = ended.clone();
        std::thread::Builder::new().name("watchdog".into()).spawn(move || {
            let mut seen = 0;
            while !over.load(Ordering::Acquire) {
                if !has_work() {
                    std::thread::sleep(CALM);
                    continue;
                }
                seen = progress.turns.load(Ordering::Relaxed).max(seen);
                std::thread::sleep(STALL);
                let stalled = progress.turns.load(Ordering::Relaxed) == seen && has_work();
                if stalled && !over.load(Ordering::Acquire) {
                    nudged();
                    // SAFETY: plain numbers; a thread that is gone makes it fail, which is as good.
                    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, libc::SIGUSR2) };
                }
            }
        })?;
        Ok(Watchdog { ended })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
    }
}

extern "C" fn nothing(_: libc::c_int) {}

/// SIGUSR2 interrupts a system call and does nothing else.
fn install_handler() {
    // SAFETY: the action is a plain value, zeroed (no flags, so calls are interrupted, not restarted;
    // an empty mask), and its handler touches nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        libc::sigaction(libc::SIGUSR2, &action, std::ptr::null_mut());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_sleeps_beside_work_is_nudged() {
        let nudges = Arc::new(AtomicU64::new(0));
        let count = nudges.clone();
        let _dog = Watchdog::start(
            Arc::default(),
            || true,
            move || {
                count.fetch_add(1, Ordering::SeqCst);
            },
        )
        .expect("a thread");
        let mut pair = [0; 2];
        // SAFETY: writes two descriptors into a live array.
        assert_eq!(unsafe { libc::pipe(pair.as_mut_ptr()) }, 0);
        let mut byte = 0u8;
        // SAFETY: reads one byte into a live place; nobody ever writes to the pipe, so only the signal ends it.
        let read = unsafe { libc::read(pair[0], (&raw mut byte).cast(), 1) };
        assert_eq!(read, -1);
        assert_eq!(std::io::Error::last_os_error().kind(), std::io::ErrorKind::Interrupted);
        assert!(nudges.load(Ordering::SeqCst) >= 1);
        // SAFETY: both are ours.
        unsafe { (libc::close(pair[0]), libc::close(pair[1])) };
    }
}
