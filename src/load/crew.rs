//! The threads and connections of a run, and one phase of work on them.

use super::calls;
use super::lane::{Lane, Phase};
use super::plan::Transport;
use super::stream;
use crate::grpc::client::{Error, Target};
use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use tonic::Status;
use tonic::transport::Channel;

/// Schedules are kept to this (tokio's own timers have 1 ms).
const PACER_TICK: Duration = Duration::from_micros(200);
/// How often progress is looked at.
const WATCH_TICK: Duration = Duration::from_millis(200);
/// A node that answers nothing for this long, or that long after the end, is lost.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const DRAIN_MAX: Duration = Duration::from_secs(30);

type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Each thread has a runtime of its own, so that a connection's work never changes threads.
#[derive(Debug)]
pub struct Crew {
    threads: Vec<mpsc::UnboundedSender<Job>>,
    pub channels: Vec<Channel>,
}

/// How a phase ended.
#[derive(Debug, Default)]
pub struct End {
    /// The node went away, or answered what it must not.
    pub lost: Option<Status>,
    pub interrupted: bool,
}

impl Crew {
    pub async fn connect(target: &Target, connections: usize, threads: usize) -> Result<Crew, Error> {
        let threads: Vec<_> = (0..threads.min(connections)).map(worker).collect();
        let mut crew = Crew { threads, channels: Vec::new() };
        for lane in 0..connections {
            let target = target.clone();
            let connected = crew.run_on(lane, async move { target.connect().await }).await;
            crew.channels.push(connected.expect("a worker outlives its jobs")?);
        }
        Ok(crew)
    }

    /// Runs a future on the lane's thread.
    fn run_on<T: Send + 'static>(
        &self,
        lane: usize,
        future: impl Future<Output = T> + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (done, result) = oneshot::channel();
        let job = Box::pin(async move {
            // Nobody waits for it any more: the phase was given up.
            let _ = done.send(future.await);
        });
        self.threads[lane % self.threads.len()].send(job).expect("workers live as long as the crew");
        result
    }

    /// Works until all lanes are done, the phase's clock ends, a signal comes or the node goes away.
    /// `watch` is called a few times a second.
    pub async fn drive(
        &self,
        phase: &Arc<Phase>,
        lanes: &[Arc<Lane>],
        transport: Transport,
        generated: bool,
        calls_in_flight: u32,
        mut watch: impl FnMut(&Phase),
    ) -> End {
        let (abort, aborted) = watch::channel(());
        let mut running: FuturesUnordered<_> = lanes
            .iter()
            .enumerate()
            .map(|(at, lane)| {
                let work = work(self.channels[at].clone(), lane.clone(), transport, generated, calls_in_flight);
                let mut aborted = aborted.clone();
                self.run_on(at, async move {
                    tokio::select! {
                        result = work => result,
                        _ = aborted.changed() => Err(Status::deadline_exceeded("the node stopped answering")),
                    }
                })
            })
            .collect();
        let pacer = Pacer::start(phase, lanes);
        let mut signals = Signals::new();
        let mut ticks = tokio::time::interval(WATCH_TICK);
        let mut end = End::default();
        let (mut answered, mut answered_at) = (0, Instant::now());
        while !running.is_empty() {
            tokio::select! {
                Some(result) = running.next() => {
                    if let Err(status) = result.expect("a worker outlives its jobs") {
                        // The first says most; the others follow from it.
                        end.lost.get_or_insert(status);
                        stop(phase, lanes);
                    }
                }
                () = signals.next() => {
                    if end.interrupted {
                        let _ = abort.send(());
                    }
                    end.interrupted = true;
                    stop(phase, lanes);
                }
                _ = ticks.tick() => {
                    watch(phase);
                    let (now, count) = (Instant::now(), answers(phase));
                    if count != answered {
                        (answered, answered_at) = (count, now);
                    }
                    let ended = phase.clock.end();
                    if ended.is_some_and(|end| now >= end) {
                        // A lane that waits for room finds out here.
                        stop(phase, lanes);
                    }
                    let idle_by_schedule = lanes.iter().all(|lane| lane.in_flight() == 0);
                    let silent = now - answered_at > SILENCE_MAX && !idle_by_schedule;
                    if silent || ended.is_some_and(|end| now > end + DRAIN_MAX) {
                        let _ = abort.send(());
                    }
                }
            }
        }
        pacer.stop();
        watch(phase);
        end
    }
}

fn worker(number: usize) -> mpsc::UnboundedSender<Job> {
    let (jobs, mut inbox) = mpsc::unbounded_channel::<Job>();
    thread::Builder::new()
        .name(format!("load-{number}"))
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                while let Some(job) = inbox.recv().await {
                    tokio::spawn(job);
                }
            });
        })
        .expect("a thread");
    jobs
}

async fn work(
    channel: Channel,
    lane: Arc<Lane>,
    transport: Transport,
    generated: bool,
    calls_in_flight: u32,
) -> Result<(), Status> {
    let calls = 0..calls_in_flight;
    match transport {
        Transport::Stream(layout) if generated => stream::run_generated(channel, lane, layout).await,
        Transport::Stream(layout) => stream::run(channel, lane, layout).await,
        Transport::Unary => {
            let calls = calls.map(|_| tokio::spawn(calls::run_unary(channel.clone(), lane.clone(), generated)));
            first_error(calls.collect()).await
        }
        Transport::Batches => {
            let calls = calls.map(|_| tokio::spawn(calls::run_batches(channel.clone(), lane.clone(), generated)));
            first_error(calls.collect()).await
        }
    }
}

/// Calls that are abandoned by an abort end with their task, unanswered: dropping the set ends them.
async fn first_error(calls: Vec<tokio::task::JoinHandle<Result<(), Status>>>) -> Result<(), Status> {
    struct Abort(Vec<tokio::task::AbortHandle>);
    impl Drop for Abort {
        fn drop(&mut self) {
            self.0.iter().for_each(tokio::task::AbortHandle::abort);
        }
    }
    let _abort = Abort(calls.iter().map(tokio::task::JoinHandle::abort_handle).collect());
    let results = join_all(calls).await;
    results.into_iter().try_for_each(|result| result.expect("calls do not panic"))
}

fn answers(phase: &Phase) -> u64 {
    phase.answers.load(Ordering::Relaxed)
}

fn stop(phase: &Phase, lanes: &[Arc<Lane>]) {
    phase.stop.store(true, Ordering::Relaxed);
    lanes.iter().for_each(|lane| lane.stop());
}

/// Wakes lanes when their schedule says so.
struct Pacer {
    done: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Pacer {
    fn start(phase: &Arc<Phase>, lanes: &[Arc<Lane>]) -> Pacer {
        let done = Arc::new(AtomicBool::new(false));
        let paced: Vec<_> = lanes.iter().filter(|lane| lane.is_paced()).cloned().collect();
        let thread = (!paced.is_empty()).then(|| {
            let (done, start) = (done.clone(), phase.clock.start);
            thread::Builder::new()
                .name("load-pacer".into())
                .spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        let now = Instant::now();
                        paced.iter().for_each(|lane| lane.due(now));
                        // To the next multiple of a tick since the start, never in a hurry.
                        let past = (now - start).as_nanos() % PACER_TICK.as_nanos();
                        thread::sleep(PACER_TICK - Duration::from_nanos(past as u64));
                    }
                })
                .expect("a thread")
        });
        Pacer { done, thread }
    }

    fn stop(self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread {
            thread.join().expect("the pacer does not panic");
        }
    }
}

/// Ctrl-C and SIGTERM end the run with its ledger written.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Signals {
        use tokio::signal::unix::{SignalKind, signal};
        Signals {
            terminate: signal(SignalKind::terminate()).expect("a handler for SIGTERM"),
            interrupt: signal(SignalKind::interrupt()).expect("a handler for SIGINT"),
        }
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
