//! One thing at a time, and fifty clients at a time, on a node that does nothing else:
//! `submission latency` (claimed: 8.45 ms), `50 concurrent clients`, `streaming latency` (claimed:
//! below 5 ms). Every answer is read and says what happened; with one in flight, a figure is one sync
//! of the journal and a round trip.

use super::Plan;
use super::clients::{Added, Grpc, Stream, check_added, columns, connect, counters, request, runtime, validator, vote};
use super::support::Node;
use assent::wire::v1;
use assent::wire::v1::approval_stream_request::Item;
use criterion::Criterion;
use hdrhistogram::Histogram;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

const CLIENTS: u64 = 50;
/// An approval that this many votes do not decide, for watchers.
const VALIDATORS_MAX: u32 = 32_767;
/// Background votes while a watcher is measured: 100 each millisecond.
const BACKGROUND_BATCH: u64 = 100;
const BACKGROUND_APPROVALS: u64 = 20_000;

pub fn all(criterion: &mut Criterion, plan: &Plan) {
    if !["submission latency", "50 concurrent clients", "streaming latency"].iter().any(|name| plan.wants(name)) {
        return;
    }
    let mut node = Node::start(&["--archive=none"]);
    let mut lone = Lone::start(&node);
    submission(criterion, &mut lone);
    clients(criterion, plan, &node, &mut lone);
    streaming(criterion, plan, &node, &mut lone);
    drop(lone);
    node.stop();
}

/// A runtime, a connection, and the number of the next approval.
struct Lone {
    runtime: Runtime,
    grpc: Grpc,
    next: u64,
}

impl Lone {
    fn start(node: &Node) -> Lone {
        let runtime = runtime();
        let grpc = runtime.block_on(connect(&node.endpoint()));
        Lone { runtime, grpc, next: 0 }
    }

    fn numbers(&mut self, count: u64) -> u64 {
        self.next += count;
        self.next - count
    }
}

fn millis(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1e6
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(60_000_000_000, 3).expect("a minute in three digits")
}

async fn submit(grpc: &mut Grpc, request: v1::ApprovalRequest) {
    let answer = grpc.submit_approval_request(request).await.expect("opened").into_inner();
    assert!(answer.status() == v1::ApprovalStatus::Pending && answer.version == 1 && !answer.repeat);
}

fn submission(criterion: &mut Criterion, lone: &mut Lone) {
    let mut group = criterion.benchmark_group("submission latency");
    group.bench_function("one request, unary, 256-byte content", |bench| {
        bench.iter_custom(|count| {
            let first = lone.numbers(count);
            let grpc = &mut lone.grpc;
            lone.runtime.block_on(async {
                let mut took = Duration::ZERO;
                for number in first..first + count {
                    let request = request(number, 3, 5);
                    let start = Instant::now();
                    submit(grpc, request).await;
                    took += start.elapsed();
                }
                took
            })
        });
    });
    group.bench_function("one vote, unary", |bench| {
        bench.iter_custom(|count| {
            assert!(count < u64::from(VALIDATORS_MAX), "an approval has room for the sample's votes");
            let number = lone.numbers(1);
            let grpc = &mut lone.grpc;
            lone.runtime.block_on(async {
                submit(grpc, request(number, VALIDATORS_MAX, VALIDATORS_MAX)).await;
                let mut took = Duration::ZERO;
                for voter in 0..count {
                    let vote = vote(number, validator(voter));
                    let start = Instant::now();
                    let answer = grpc.submit_validator_response(vote).await.expect("counted").into_inner();
                    took += start.elapsed();
                    assert_eq!((u64::from(answer.approvals), answer.repeat), (voter + 1, false));
                }
                took
            })
        });
    });
    group.finish();
}

/// Fifty connections; each opens an approval and casts the three votes that decide it, one call after
/// the other. An iteration is one approval: four calls.
fn clients(criterion: &mut Criterion, plan: &Plan, node: &Node, lone: &mut Lone) {
    if !plan.wants("50 concurrent clients") {
        return;
    }
    let mut calls = histogram();
    let mut rate = 0.0;
    let endpoint = node.endpoint();
    let mut connections = lone.runtime.block_on(async {
        let mut connections = Vec::new();
        for _ in 0..CLIENTS {
            connections.push(connect(&endpoint).await);
        }
        connections
    });
    criterion.benchmark_group("50 concurrent clients").throughput(criterion::Throughput::Elements(1)).bench_function(
        "open and decide, 4 unary calls each",
        |bench| {
            bench.iter_custom(|approvals| {
                let first = lone.numbers(approvals);
                let grpc = &mut lone.grpc;
                lone.runtime.block_on(async {
                    let before = counters(grpc).await;
                    let start = Instant::now();
                    let tasks: Vec<_> = (0..CLIENTS)
                        .zip(&connections)
                        .map(|(client, connection)| {
                            let numbers = (first + client..first + approvals).step_by(CLIENTS as usize);
                            tokio::spawn(one_client(connection.clone(), numbers))
                        })
                        .collect();
                    let mut sample = histogram();
                    for task in tasks {
                        sample.add(task.await.expect("every call is answered")).expect("the same bounds");
                    }
                    let took = start.elapsed();
                    assert_eq!(sample.len(), 4 * approvals, "every call was answered");
                    let expected = Added { requests: approvals, votes: 3 * approvals, approved: approvals, late: 0 };
                    check_added(grpc, &before, expected).await;
                    (calls, rate) = (sample, approvals as f64 / took.as_secs_f64());
                    took
                })
            });
        },
    );
    connections.clear();
    if plan.measured && !calls.is_empty() {
        println!(
            "50 concurrent clients: last sample: {rate:.0} approvals a second in {:.0} calls, a call p50 {:.2} ms, \
             p99 {:.2} ms, max {:.2} ms",
            4.0 * rate,
            millis(&calls, 0.5),
            millis(&calls, 0.99),
            calls.max() as f64 / 1e6
        );
    }
}

async fn one_client(mut grpc: Grpc, numbers: impl Iterator<Item = u64>) -> Histogram<u64> {
    let mut calls = histogram();
    for number in numbers {
        let start = Instant::now();
        submit(&mut grpc, request(number, 3, 5)).await;
        calls.saturating_record(start.elapsed().as_nanos() as u64);
        for voter in 0..3 {
            let start = Instant::now();
            let answer = grpc.submit_validator_response(vote(number, validator(voter))).await;
            calls.saturating_record(start.elapsed().as_nanos() as u64);
            let decided = answer.expect("counted").into_inner().status() == v1::ApprovalStatus::Approved;
            assert_eq!(decided, voter == 2, "the third of three decides");
        }
    }
    calls
}

/// What a watcher saw of votes that were cast one after the other.
struct Watched {
    sent_to_event: Histogram<u64>,
    /// 0 where the event came first.
    acked_to_event: Histogram<u64>,
    event_first: u64,
}

impl Watched {
    fn new() -> Watched {
        Watched { sent_to_event: histogram(), acked_to_event: histogram(), event_first: 0 }
    }

    fn say(&self, when: &str) {
        println!(
            "streaming latency (claimed: below 5 ms), {when}: acknowledged to event at a watcher p50 {:.3} ms, p99 \
             {:.3} ms, max {:.3} ms ({:.0} % came before the acknowledgement); vote sent to event p50 {:.3} ms, p99 \
             {:.3} ms, max {:.3} ms; {} votes",
            millis(&self.acked_to_event, 0.5),
            millis(&self.acked_to_event, 0.99),
            self.acked_to_event.max() as f64 / 1e6,
            100.0 * self.event_first as f64 / self.sent_to_event.len() as f64,
            millis(&self.sent_to_event, 0.5),
            millis(&self.sent_to_event, 0.99),
            self.sent_to_event.max() as f64 / 1e6,
            self.sent_to_event.len(),
        );
    }
}

fn streaming(criterion: &mut Criterion, plan: &Plan, node: &Node, lone: &mut Lone) {
    if !plan.wants("streaming latency") {
        return;
    }
    let endpoint = node.endpoint();
    let mut idle = Watched::new();
    criterion.benchmark_group("streaming latency").bench_function("vote sent to event at a watcher", |bench| {
        bench.iter_custom(|votes| {
            let number = lone.numbers(1);
            let grpc = &mut lone.grpc;
            lone.runtime.block_on(watch(grpc, &endpoint, number, votes, &mut idle))
        });
    });
    if !idle.sent_to_event.is_empty() && plan.measured {
        idle.say("idle node");
    }
    // A histogram says more than a mean here.
    let first = lone.numbers(BACKGROUND_APPROVALS);
    let number = lone.numbers(1);
    let votes = plan.size(5_000, 10);
    let mut loaded = Watched::new();
    let grpc = &mut lone.grpc;
    let rate = lone.runtime.block_on(async {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let background = tokio::spawn(background(endpoint.clone(), first, stopped));
        watch(grpc, &endpoint, number, votes, &mut loaded).await;
        stop.send(()).expect("it runs");
        background.await.expect("all its votes are acknowledged")
    });
    if plan.measured {
        loaded.say(&format!("beside {rate:.0} votes a second"));
    }
}

/// Casts votes one after the other, each when the watcher has seen the one before; the sum of the times
/// from a vote sent to its event.
async fn watch(grpc: &mut Grpc, endpoint: &str, number: u64, votes: u64, watched: &mut Watched) -> Duration {
    assert!(votes < u64::from(VALIDATORS_MAX), "an approval has room for the sample's votes");
    submit(grpc, request(number, VALIDATORS_MAX, VALIDATORS_MAX)).await;
    let filter =
        v1::ApprovalRequest { approval_id: request(number, 1, 1).approval_id, ..v1::ApprovalRequest::default() };
    let mut updates = connect(endpoint).await.watch_approval_updates(filter).await.expect("a watch").into_inner();
    let state = updates.message().await.expect("a state").expect("a watch of one id begins with it");
    assert_eq!((state.version, state.approvals), (1, 0));
    let (tell, mut told) = mpsc::channel(16);
    let watcher = tokio::spawn(async move {
        for _ in 0..votes {
            let update = updates.message().await.expect("the watch goes on").expect("it is not decided");
            tell.send((Instant::now(), update.sequence)).await.expect("the voter waits");
        }
    });
    let mut took = Duration::ZERO;
    for voter in 0..votes {
        let vote = vote(number, validator(voter));
        let sent = Instant::now();
        let answer = grpc.submit_validator_response(vote).await.expect("counted").into_inner();
        let acked = Instant::now();
        let (seen, sequence) = told.recv().await.expect("the watcher sees every vote");
        assert_eq!(sequence, answer.sequence, "the event is this vote's");
        watched.event_first += u64::from(seen < acked);
        watched.acked_to_event.saturating_record(seen.saturating_duration_since(acked).as_nanos() as u64);
        watched.sent_to_event.saturating_record((seen - sent).as_nanos() as u64);
        took += seen - sent;
    }
    watcher.await.expect("it saw all");
    took
}

/// Votes at a steady 100,000 a second until told to stop; gives the rate that was acknowledged.
async fn background(endpoint: String, first: u64, mut stopped: tokio::sync::oneshot::Receiver<()>) -> f64 {
    let mut stream = Stream::open(&endpoint).await;
    for number in first..first + BACKGROUND_APPROVALS {
        stream.send(Item::Request(request(number, 171, 256)), 1).await;
    }
    stream.settle().await;
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (start, mut batches) = (Instant::now(), 0);
    let batches_each = BACKGROUND_APPROVALS / BACKGROUND_BATCH;
    while stopped.try_recv().is_err() {
        ticks.tick().await;
        let (voter, at) = (batches / batches_each, batches % batches_each * BACKGROUND_BATCH);
        assert!(voter < 171, "no vote comes late");
        let numbers = (0..BACKGROUND_BATCH as u32).map(|number| first + at + u64::from(number));
        stream.send(Item::Batch(columns(numbers, &validator(voter))), BACKGROUND_BATCH).await;
        batches += 1;
    }
    stream.settle().await;
    assert_eq!(stream.late, 0, "every vote counted");
    (batches * BACKGROUND_BATCH) as f64 / start.elapsed().as_secs_f64()
}
