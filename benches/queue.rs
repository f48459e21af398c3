//! What it costs to hand work between threads: the ring into a shard, the wake-ups of both kinds of
//! shard, the mailbox out of it. Every item that was pushed is counted where it arrives.
//!
//! Round trips go through two sleepers and two wake-ups; half of one is what a wake-up adds to a vote
//! on an idle node. They depend on the kernel's scheduler and on what else runs: compare within a run.
//! Not measured: the work behind the ring (`engine`), more than two producers, sockets (`node`).

use assent::queue::{Announced, Bell, Mailbox, Ring, block_on, eventfd, reply};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use glommio::LocalExecutorBuilder;
use glommio::io::BufferedFile;
use std::os::fd::FromRawFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

const SLOTS: usize = 8_192;
/// Tells the other side to end.
const END: u64 = u64::MAX;

fn ring_of(slots: usize) -> (Arc<Bell>, Arc<Ring<u64>>) {
    let bell = Arc::new(Bell::new());
    (bell.clone(), Arc::new(Ring::new(slots, bell)))
}

/// Pushes, and yields while the ring is full.
fn push(ring: &Ring<u64>, mut item: u64) {
    while let Err(back) = ring.push(item) {
        item = back;
        thread::yield_now();
    }
}

/// `items` numbers from each producer to this thread, which sleeps when there is nothing.
fn across(producers: u64, items: u64) -> Duration {
    let (bell, ring) = ring_of(SLOTS);
    bell.belongs_to_this_thread();
    let each = items.div_ceil(producers);
    let start = Instant::now();
    let threads: Vec<_> = (0..producers)
        .map(|_| {
            let ring = ring.clone();
            thread::spawn(move || (0..each).for_each(|item| push(&ring, item)))
        })
        .collect();
    let (mut count, mut sum) = (0, 0);
    while count < each * producers {
        while let Some(item) = ring.pop() {
            count += 1;
            sum += item;
        }
        bell.sleep(None, || !ring.is_empty() || count == each * producers);
    }
    let took = start.elapsed();
    threads.into_iter().for_each(|thread| thread.join().expect("it only pushes"));
    assert_eq!(sum, producers * each * (each.max(1) - 1) / 2, "every item arrived once");
    took
}

fn rings(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring");
    group.throughput(Throughput::Elements(1));
    group.bench_function("push and pop on one thread", |bench| {
        let (bell, ring) = ring_of(SLOTS);
        bell.belongs_to_this_thread();
        bench.iter(|| {
            ring.push(7).expect("there is room");
            assert_eq!(ring.pop(), Some(7));
        });
    });
    group.sample_size(20);
    for producers in [1, 2] {
        group.bench_function(format!("{producers} producers, one consumer"), |bench| {
            bench.iter_custom(|items| across(producers, items));
        });
    }
    group.finish();
}

/// What comes in through a ring goes back through another, from a thread of its own.
struct Echo {
    to: Arc<Ring<u64>>,
    from: Arc<Ring<u64>>,
    home: Arc<Bell>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Echo {
    fn start(run: impl FnOnce(Arc<Bell>, Arc<Ring<u64>>, Arc<Ring<u64>>) + Send + 'static) -> Echo {
        let ((away, to), (home, from)) = (ring_of(16), ring_of(16));
        home.belongs_to_this_thread();
        let rings = (to.clone(), from.clone());
        let thread = Some(thread::spawn(move || run(away, rings.0, rings.1)));
        Echo { to, from, home, thread }
    }

    fn round_trip(&self, number: u64) {
        push(&self.to, number);
        let echoed = loop {
            match self.from.pop() {
                Some(echoed) => break echoed,
                None => self.home.sleep(None, || !self.from.is_empty()),
            }
        };
        assert_eq!(echoed, number, "what was sent came back");
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        push(&self.to, END);
        self.thread.take().expect("joined once").join().expect("it only echoes");
    }
}

/// Sends back what is there; false at the end.
fn echo_all(from: &Ring<u64>, to: &Ring<u64>) -> bool {
    while let Some(item) = from.pop() {
        if item == END {
            return false;
        }
        push(to, item);
    }
    true
}

fn echo_parked(bell: Arc<Bell>, from: Arc<Ring<u64>>, to: Arc<Ring<u64>>) {
    bell.belongs_to_this_thread();
    while echo_all(&from, &to) {
        bell.sleep(None, || !from.is_empty());
    }
}

/// As a shard on io_uring sleeps: it reads an eventfd through its executor.
fn echo_on_glommio(bell: Arc<Bell>, from: Arc<Ring<u64>>, to: Arc<Ring<u64>>) {
    let executor = LocalExecutorBuilder::default().preempt_timer(Duration::from_secs(3_600)).make();
    executor.expect("it was tried before").run(async move {
        let descriptor = eventfd();
        bell.belongs_to_eventfd(descriptor);
        // SAFETY: the descriptor is a fresh eventfd that nobody else closes; the file owns it, and lives until the
        // last echo, after which nobody rings the bell but the one who ended it.
        let file = unsafe { BufferedFile::from_raw_fd(descriptor) };
        while echo_all(&from, &to) {
            if bell.announce(|| !from.is_empty()) != Announced::Awake {
                file.read_at(0, 8).await.expect("an eventfd can be read");
            }
        }
    });
}

fn wakes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wake-up round trip");
    group.sample_size(20);
    group.bench_function("parked thread", |bench| {
        let echo = Echo::start(echo_parked);
        let mut number = 0;
        bench.iter(|| {
            number += 1;
            echo.round_trip(number);
        });
    });
    match LocalExecutorBuilder::default().make() {
        Err(error) => println!("wake-up round trip/glommio: not run, this machine has no io_uring: {error}"),
        Ok(probe) => {
            drop(probe);
            group.bench_function("glommio, eventfd", |bench| {
                let echo = Echo::start(echo_on_glommio);
                let mut number = 0;
                bench.iter(|| {
                    number += 1;
                    echo.round_trip(number);
                });
            });
        }
    }
    group.finish();
}

fn answers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("answers");
    group.sample_size(20).throughput(Throughput::Elements(1));
    group.bench_function("mailbox, letters to a task on another thread", |bench| {
        bench.iter_custom(|letters| {
            let mailbox = Mailbox::new();
            let receiver = mailbox.clone();
            let start = Instant::now();
            let task = thread::spawn(move || {
                block_on(async {
                    let mut sum = 0;
                    while let Some(letter) = receiver.receive().await {
                        sum += letter;
                    }
                    sum
                })
            });
            (1..=letters).for_each(|letter| mailbox.send(letter));
            mailbox.close();
            assert_eq!(task.join().expect("it only sums"), letters * (letters + 1) / 2, "every letter arrived once");
            start.elapsed()
        });
    });
    group.bench_function("mailbox, round trip", |bench| {
        let (to, from) = (Mailbox::new(), Mailbox::new());
        let (inbox, outbox) = (to.clone(), from.clone());
        let task = thread::spawn(move || {
            block_on(async {
                while let Some(letter) = inbox.receive().await {
                    outbox.send(letter);
                }
            });
        });
        let mut number = 0u64;
        bench.iter(|| {
            number += 1;
            to.send(number);
            assert_eq!(block_on(from.receive()), Some(number), "what was sent came back");
        });
        to.close();
        task.join().expect("it only echoes");
    });
    group.bench_function("reply slot on one thread", |bench| {
        bench.iter(|| {
            let (slot, reply) = reply();
            slot.answer(7u64);
            assert_eq!(block_on(reply.wait()), Some(7));
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = rings, wakes, answers
}
criterion_main!(benches);
