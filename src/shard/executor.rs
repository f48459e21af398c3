//! The loop around a core, and the two kinds of thread it runs on: a plain one, whose journal writer
//! blocks, and a glommio executor, whose journal writer awaits io_uring.
//!
//! glommio's shape is the one that holds (perf/README.md): one task, the default queue, no timers,
//! no waker handed to another thread; wake-up is an eventfd of our own. What the clock brings
//! arrives through an alarm thread that rings the same bell.

use super::core::{Core, Worked};
use crate::journal::{self, Storage};
use crate::queue::{Alarm, Announced, Bell, Progress, Watchdog};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Two calls, in votes (`Core::take_taken`): what a lone caller brings, and room for one more.
const LITTLE: usize = 48;
/// So many short lulls with little between them, one after the other, are a lone caller; under load a few such
/// happen by chance.
const LONE: u32 = 8;
/// About 2 us.
const LOOKS_A_YIELD: u32 = 64;

/// How a shard's thread behaves when it has nothing to do, and where it runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExecutorOptions {
    /// A lone caller is waited for, and waits, this long before sleeping; 0: sleep at once.
    pub spin_micros: u64,
    /// The core to stay on; `None`: wherever the kernel likes.
    pub pin_core: Option<usize>,
}

/// How a loop waits for work.
pub(super) trait Idle {
    /// Returns when the bell rang or the time passed; at once when `work` says there is some.
    async fn wait(&mut self, timeout: Option<Duration>, work: impl FnOnce() -> bool);

    /// Once a turn of the loop.
    fn moved(&self) {}
}

/// Until the node stops and everything is answered, or a frame fails.
pub(super) async fn run<S: Storage>(
    mut core: Core<S>,
    mut idle: impl Idle,
    options: ExecutorOptions,
) -> Result<(), journal::Error> {
    let mut lulls = Lulls::new(Duration::from_micros(options.spin_micros));
    loop {
        let worked = core.turn();
        idle.moved();
        if core.begin_commit() {
            // While it syncs, the next batch is decided.
            while !core.log.commit_done() && core.turn() == Worked::Something {}
            core.ride_along();
            core.finish_commit().await?;
            continue;
        }
        core.answer_now();
        if worked != Worked::Nothing {
            continue;
        }
        if core.gate.is_finishing() && !core.has_work() {
            return Ok(());
        }
        let began = Instant::now();
        if lulls.stays_awake(core.take_taken()) && spin(&core, lulls.limit) {
            lulls.took(began.elapsed());
            continue;
        }
        let timeout = core.due_in();
        let (ring, gate, snapshot) = (&core.ring, &core.gate, &core.snapshot);
        idle.wait(timeout, || !ring.is_empty() || gate.is_finishing() || snapshot.wants_turn()).await;
        lulls.took(began.elapsed());
    }
}

/// Whether a lull is worth staying awake for: the last ones were short, and little came between them, as from one
/// caller that waits for its answer. A shard that has much to do is woken by many, and its core is wanted.
struct Lulls {
    /// Nobody stays awake for longer; zero: nobody does.
    limit: Duration,
    short: u32,
}

impl Lulls {
    fn new(limit: Duration) -> Lulls {
        Lulls { limit, short: 0 }
    }

    /// `taken` is what was done since the last lull.
    fn stays_awake(&mut self, taken: usize) -> bool {
        if taken > LITTLE {
            self.short = 0;
        }
        self.short >= LONE
    }

    fn took(&mut self, lull: Duration) {
        self.short = if lull < self.limit { self.short.saturating_add(1) } else { 0 };
    }
}

/// Looks until there is work or the time is over; in between the core is there for others.
fn spin<S: Storage>(core: &Core<S>, limit: Duration) -> bool {
    let began = Instant::now();
    loop {
        for _ in 0..LOOKS_A_YIELD {
            if core.has_work() {
                return true;
            }
            std::hint::spin_loop();
        }
        if began.elapsed() >= limit {
            return false;
        }
        std::thread::yield_now();
    }
}

/// Sleeps on its own thread.
struct Park {
    bell: Arc<Bell>,
}

impl Idle for Park {
    async fn wait(&mut self, timeout: Option<Duration>, work: impl FnOnce() -> bool) {
        self.bell.sleep(timeout, work);
    }
}

/// Runs a core whose writer blocks on the calling thread.
pub(super) fn run_plain<S: Storage>(
    core: Core<S>,
    bell: Arc<Bell>,
    options: ExecutorOptions,
) -> Result<(), journal::Error> {
    bell.belongs_to_this_thread();
    if let Some(number) = options.pin_core {
        crate::queue::pin_this_thread(number);
    }
    block_on_ready(run(core, Park { bell }, options))
}

/// A future that never waits for anybody: its writer blocks, and it sleeps on its own thread.
fn block_on_ready<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(output) => output,
        std::task::Poll::Pending => unreachable!("a plain shard's writer blocks"),
    }
}

/// Whether a glommio executor starts here; why not, otherwise.
pub fn glommio_works() -> Result<(), String> {
    glommio::LocalExecutorBuilder::default().make().map(|_executor| ()).map_err(|error| error.to_string())
}

/// Reads the bell's eventfd through io_uring.
struct ReadEvent {
    bell: Arc<Bell>,
    file: glommio::io::BufferedFile,
    alarm: Alarm,
    progress: Arc<Progress>,
}

impl ReadEvent {
    async fn read_once(&self) {
        match self.file.read_at(0, 8).await {
            Ok(_) => {}
            // The watchdog's signal: look again, and read the wake next time.
            Err(error) if error.to_string().contains("Interrupted") => {}
            // An eventfd of our own cannot fail otherwise while it is open.
            Err(error) => panic!("read the shard's eventfd: {error}"),
        }
    }
}

impl Idle for ReadEvent {
    fn moved(&self) {
        self.progress.moved();
    }

    async fn wait(&mut self, timeout: Option<Duration>, work: impl FnOnce() -> bool) {
        match self.bell.announce(work) {
            Announced::Awake => {}
            Announced::AwakeWithWakeUnderWay => self.read_once().await,
            Announced::Sleep => {
                self.alarm.set(timeout);
                self.read_once().await;
                self.alarm.set(None);
            }
        }
    }
}

/// Runs a core on a glommio executor on the calling thread. `make` builds it there, because its
/// writer belongs to the executor.
pub(super) fn run_glommio<S: Storage>(
    make: impl FnOnce() -> Result<Core<S>, journal::Error>,
    bell: Arc<Bell>,
    options: ExecutorOptions,
) -> Result<(), journal::Error> {
    use std::os::fd::FromRawFd;
    let placement = options.pin_core.map_or(glommio::Placement::Unbound, glommio::Placement::Fixed);
    let executor = glommio::LocalExecutorBuilder::new(placement)
        // A preempt timer makes run() take "preempted" for "nothing to do", and park for good.
        .preempt_timer(Duration::from_secs(3600))
        .make()
        .map_err(|error| journal::Error::Io {
            doing: "start a glommio executor for",
            path: std::path::PathBuf::from("a shard"),
            source: std::io::Error::other(error.to_string()),
        })?;
    executor.run(async move {
        let descriptor = crate::queue::eventfd();
        bell.belongs_to_eventfd(descriptor);
        let alarm = Alarm::start(bell.clone());
        // SAFETY: the descriptor is a fresh eventfd that nobody else closes; the file owns it, and
        // lives as long as the loop, after which nobody rings the bell.
        let file = unsafe { glommio::io::BufferedFile::from_raw_fd(descriptor) };
        let core = make()?;
        let (ring, metrics, progress) = (core.ring.clone(), core.metrics.clone(), Arc::new(Progress::default()));
        let nudged = move || metrics.watchdog.increment();
        let watchdog = Watchdog::start(progress.clone(), move || !ring.is_empty(), nudged);
        let _watchdog = watchdog.map_err(|source| journal::Error::Io {
            doing: "start the watchdog of",
            path: std::path::PathBuf::from("a shard"),
            source,
        })?;
        run(core, ReadEvent { bell, file, alarm, progress }, options).await
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_caller_is_waited_for_and_nobody_else() {
        let limit = Duration::from_micros(100);
        let mut lulls = Lulls::new(limit);
        for _ in 0..LONE {
            assert!(!lulls.stays_awake(LITTLE), "a few short lulls are chance");
            lulls.took(limit / 2);
        }
        assert!(lulls.stays_awake(LITTLE));
        lulls.took(limit);
        assert!(!lulls.stays_awake(LITTLE), "an idle shard sleeps");
        (0..LONE).for_each(|_| lulls.took(limit / 2));
        assert!(!lulls.stays_awake(LITTLE + 1), "much at once is load");
        assert!(!lulls.stays_awake(LITTLE), "and is remembered");
    }

    #[test]
    fn without_a_limit_nobody_stays_awake() {
        let mut lulls = Lulls::new(Duration::ZERO);
        (0..2 * LONE).for_each(|_| lulls.took(Duration::ZERO));
        assert!(!lulls.stays_awake(0));
    }
}
