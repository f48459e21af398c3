//! The engine alone: decide, apply and encode into a buffer, one core, no disk, in CPU time.
//!
//! `cargo bench --bench engine -- votes/1M` measures votes and openings by criterion;
//! `cargo bench --bench engine -- report [approvals]` prints what happens once in a while: bytes an
//! approval, the longest slice of a mass expiry, snapshot slices, replay (1 M unless told).

use assent::engine::{Clock, Engine, Limits, Replayer};
use assent::model::codec::{self, PLAIN_VOTE_BYTES};
use assent::model::*;
use criterion::{BenchmarkId, Criterion, Throughput};
use std::time::Duration;

const BATCH: usize = 4_096;
const NOW: Micros = Micros(1_700_000_000_000_000);
const HOUR: u64 = 3_600 * Micros::SECOND;

/// Encodes as a shard does, into a buffer that starts over with every batch unless it is kept.
#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    sequence: u64,
    accepted: u64,
    segment: u64,
}

impl EventSink for Buffer {
    #[inline]
    fn segment(&self) -> u64 {
        self.segment
    }
    fn define_validator(&mut self, number: ValidatorRef, name: &str) {
        codec::encode_define_validator(number, name, &mut self.bytes);
    }
    fn define_requester(&mut self, number: RequesterRef, id: &RequesterId) {
        codec::encode_define_requester(number, id, &mut self.bytes);
    }
    fn define_set(&mut self, number: SetRef, digest: &[u8; 32], members: &[ValidatorRef]) {
        codec::encode_define_set(number, digest, members, &mut self.bytes);
    }
    fn append(&mut self, event: &Event<'_>) -> EventRef {
        codec::encode_event(event, &mut self.bytes);
        self.sequence += 1;
        EventRef::new(1, self.sequence)
    }
    #[inline]
    fn append_vote(&mut self, vote: &PlainVote) -> EventRef {
        let mut plain = [0; PLAIN_VOTE_BYTES];
        codec::encode_vote_plain(vote, &mut plain);
        self.bytes.extend_from_slice(&plain);
        self.sequence += 1;
        EventRef::new(1, self.sequence)
    }
}

impl VoteSink for Buffer {
    #[inline]
    fn answer(&mut self, _item: u32, answer: VoteAnswer) {
        self.accepted += u64::from(matches!(answer, VoteAnswer::Accepted(_)));
    }
}

/// CPU time of this thread: what neighbours on the machine take does not count.
struct Instant(Duration);

impl Instant {
    fn now() -> Instant {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // Safety: the call fills the struct that it is given.
        let code = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
        assert_eq!(code, 0, "Linux has this clock");
        Instant(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
    }

    fn elapsed(&self) -> Duration {
        Instant::now().0 - self.0
    }
}

/// splitmix64: fast, and the same in every run.
fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}

fn id(number: u64) -> ApprovalId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&mixed(number).to_be_bytes());
    id[8..].copy_from_slice(&mixed(!number).to_be_bytes());
    ApprovalId(id)
}

fn request(number: u64, required: u16, total: u16, expires_at: Option<Micros>) -> OpenRequest {
    OpenRequest {
        id: id(number),
        approval_type: ApprovalType::LargeTransaction,
        priority: Priority::Normal,
        requester: RequesterId([(number % 100) as u8; 16]),
        content: bytes::Bytes::from_static(&[7; 256]),
        content_hash: ContentHash::Sha256([3; 32]),
        required,
        total,
        expires_at,
        eligible: None,
        digest: id(number).0,
    }
}

fn opened(approvals: u64, required: u16, total: u16, expires: impl Fn(u64) -> Option<Micros>) -> (Engine, Buffer) {
    let limits = Limits { approvals_max: 1 << 30, ..Limits::for_memory(16 << 30) };
    let (mut engine, mut sink) = (Engine::new(PartitionKey::new([5; 16]), limits), Buffer::default());
    for number in 0..approvals {
        if number % BATCH as u64 == 0 {
            sink.bytes.clear();
        }
        let request = request(number, required, total, expires(number));
        engine.open(&request, Clock::at(NOW), Ok(()), &mut sink).expect("a free id");
    }
    (engine, sink)
}

/// All numbers below a power of two or not, each once, in an order that no cache can guess.
struct Shuffled {
    order: Vec<u32>,
}

impl Shuffled {
    fn new(length: u64) -> Shuffled {
        let mut order: Vec<u32> = (0..length as u32).collect();
        for at in (1..order.len()).rev() {
            order.swap(at, mixed(at as u64) as usize % (at + 1));
        }
        Shuffled { order }
    }
}

/// Votes one validator after the other, each on all approvals in shuffled order.
struct Voting {
    approvals: u64,
    shuffled: Shuffled,
    names: Vec<String>,
    engine: Engine,
    sink: Buffer,
    next: u64,
    votes_each: u64,
}

impl Voting {
    fn new(approvals: u64) -> Voting {
        let (engine, sink) = opened(approvals, 171, 256, |_| None);
        let names = (0..256).map(|at| format!("validator-{at:03}")).collect();
        let shuffled = Shuffled::new(approvals);
        Voting { approvals, shuffled, names, engine, sink, next: 0, votes_each: 171 }
    }

    fn run(&mut self, votes: u64) -> Duration {
        let mut took = Duration::ZERO;
        let mut left = votes;
        let mut batch = Vec::with_capacity(BATCH);
        while left > 0 {
            if self.next == self.approvals * self.votes_each {
                let fresh = opened(self.approvals, 171, 256, |_| None);
                (self.engine, self.sink) = fresh;
                self.next = 0;
            }
            let count = left.min(BATCH as u64).min(self.approvals * self.votes_each - self.next);
            for at in self.next..self.next + count {
                let validator = &self.names[(at / self.approvals) as usize];
                // Another start in the order for each validator.
                let place = (at + mixed(at / self.approvals)) % self.approvals;
                batch.push(VoteCommand {
                    approval: id(u64::from(self.shuffled.order[place as usize])),
                    validator,
                    decision: Decision::Approved,
                    extras: None,
                    item: at as u32,
                });
            }
            self.next += count;
            left -= count;
            self.sink.bytes.clear();
            let accepted = self.sink.accepted;
            let start = Instant::now();
            self.engine.votes(&mut batch, Clock::at(NOW), &mut self.sink);
            took += start.elapsed();
            assert_eq!(self.sink.accepted - accepted, count, "only accepted votes count");
        }
        took
    }
}

fn votes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("votes");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    group.throughput(Throughput::Elements(1));
    for (name, approvals) in [("100k", 100_000u64), ("1M", 1_000_000), ("10M", 10_000_000)] {
        let mut voting = None;
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            let voting = voting.get_or_insert_with(|| Voting::new(approvals));
            bencher.iter_custom(|votes| voting.run(votes));
        });
    }
    group.finish();
}

fn opens(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("opens");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    group.throughput(Throughput::Elements(1));
    group.bench_function("256-byte content", |bencher| {
        bencher.iter_custom(|opens| {
            let (mut engine, mut sink) = opened(0, 3, 5, |_| None);
            let mut took = Duration::ZERO;
            for start in (0..opens).step_by(BATCH) {
                let numbers = start..(start + BATCH as u64).min(opens);
                let requests: Vec<_> = numbers.map(|number| request(number, 3, 5, None)).collect();
                sink.bytes.clear();
                let clock = Clock::at(NOW);
                let begin = Instant::now();
                for request in &requests {
                    engine.open(request, clock, Ok(()), &mut sink).expect("a free id");
                }
                took += begin.elapsed();
            }
            took
        });
    });
    group.finish();
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("pages") * 4_096
}

fn cast_five(engine: &mut Engine, sink: &mut Buffer, approvals: u64, names: &[String]) {
    let shuffled = Shuffled::new(approvals);
    for vote in 0..5 {
        for chunk in shuffled.order.chunks(BATCH) {
            let mut batch: Vec<_> = chunk
                .iter()
                .map(|number| VoteCommand {
                    approval: id(u64::from(*number)),
                    // Five of sixteen, others for each approval; three in five approve.
                    validator: &names[(*number as usize * 7 + vote * (names.len() / 5)) % names.len()],
                    decision: if vote % 2 == 0 { Decision::Approved } else { Decision::Abstain },
                    extras: None,
                    item: 0,
                })
                .collect();
            sink.bytes.clear();
            engine.votes(&mut batch, Clock::at(NOW), sink);
        }
    }
}

fn report(approvals: u64) {
    println!("{approvals} approvals");
    // Pages that the process reuses would hide growth: this comes first.
    for validators in [16usize, 1_000] {
        let names: Vec<String> = (0..validators).map(|at| format!("validator-{at:04}")).collect();
        let before = resident();
        let (mut engine, mut sink) = opened(approvals, 4, 16, |_| None);
        let after_opening = resident();
        cast_five(&mut engine, &mut sink, approvals, &names);
        let bytes = (resident() - before) as f64 / approvals as f64;
        let opening = (after_opening - before) as f64 / approvals as f64;
        assert_eq!(engine.counters().pending as u64, approvals);
        assert_eq!(sink.accepted, 5 * approvals);
        println!(
            "bytes a pending approval, 5 votes of {validators} validators: {bytes:.1} (without votes {opening:.1})"
        );
        snapshot(&engine, approvals);
    }
    expiry(approvals);
    replay(approvals);
}

fn snapshot(engine: &Engine, approvals: u64) {
    let (mut longest, mut total) = (Duration::ZERO, Duration::ZERO);
    let mut slices = Vec::new();
    let mut buffer = Vec::with_capacity(64 << 20);
    for partition in 0..PARTITIONS {
        buffer.clear();
        let start = Instant::now();
        engine.write_partition(partition, &mut buffer);
        let took = start.elapsed();
        longest = longest.max(took);
        total += took;
        slices.push(buffer.clone());
    }
    let bytes: usize = slices.iter().map(Vec::len).sum();
    println!("snapshot: longest slice {longest:?}, all {total:?}, {} bytes an approval", bytes as u64 / approvals);
    let mut restored = opened(0, 1, 1, |_| None).0;
    let start = Instant::now();
    for slice in &slices {
        restored.read_partition(slice).expect("written just now");
    }
    println!("snapshot: read in {:?}", start.elapsed());
    assert_eq!(restored.counters().pending as u64, approvals);
}

fn expiry(approvals: u64) {
    let at = NOW.plus(HOUR);
    let (mut engine, mut sink) = opened(approvals, 4, 16, |_| Some(at));
    let (mut longest, mut total, mut slices) = (Duration::ZERO, Duration::ZERO, 0);
    let mut now = NOW;
    while engine.counters().pending > 0 {
        let deadline = engine.next_deadline().expect("some are pending");
        now = now.max(deadline);
        sink.bytes.clear();
        let start = Instant::now();
        engine.expire_due(Clock::at(now), 1_024, &mut sink);
        let took = start.elapsed();
        longest = longest.max(took);
        total += took;
        slices += 1;
    }
    assert_eq!(now, at);
    println!("expiry of all at one instant: {slices} slices, longest {longest:?}, all {total:?}");
}

fn replay(approvals: u64) {
    // Openings and five votes each, in the frames of a journal that kept everything.
    let names: Vec<String> = (0..256).map(|at| format!("validator-{at:03}")).collect();
    let limits = Limits { approvals_max: 1 << 30, ..Limits::for_memory(16 << 30) };
    let (mut engine, mut sink) = (Engine::new(PartitionKey::new([5; 16]), limits), Buffer::default());
    let mut frames: Vec<(u64, Vec<u8>)> = Vec::new();
    for start in (0..approvals).step_by(1_024) {
        let first = sink.sequence + 1;
        for number in start..(start + 1_024).min(approvals) {
            let request = OpenRequest { content: bytes::Bytes::new(), ..request(number, 171, 256, None) };
            engine.open(&request, Clock::at(NOW), Ok(()), &mut sink).expect("a free id");
        }
        frames.push((first, std::mem::take(&mut sink.bytes)));
    }
    let opening_frames = frames.len();
    let shuffled = Shuffled::new(approvals);
    for name in &names[..8] {
        for chunk in shuffled.order.chunks(BATCH) {
            let first = sink.sequence + 1;
            let vote = |number: &u32| VoteCommand {
                approval: id(u64::from(*number)),
                validator: name,
                decision: Decision::Approved,
                extras: None,
                item: 0,
            };
            let mut batch: Vec<_> = chunk.iter().map(vote).collect();
            engine.votes(&mut batch, Clock::at(NOW), &mut sink);
            frames.push((first, std::mem::take(&mut sink.bytes)));
        }
    }
    drop(engine);
    let mut replayed = opened(0, 1, 1, |_| None).0;
    let mut replayer = Replayer::new(1);
    for (what, frames) in [("openings", &frames[..opening_frames]), ("votes", &frames[opening_frames..])] {
        let start = Instant::now();
        let mut events = 0;
        for (first, bytes) in frames {
            events += replayer.apply_batch(&mut replayed, *first, bytes, |_| 0).expect("written just now");
        }
        let rate = events as f64 / start.elapsed().as_secs_f64() / 1e6;
        println!("replay: {events} {what}, {rate:.2} M a second");
    }
    replayer.segment_started(&mut replayed);
    assert_eq!(replayed.counters().pending as u64, approvals);
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "report") {
        let approvals = arguments.get(at + 1).and_then(|count| count.parse().ok()).unwrap_or(1_000_000);
        return report(approvals);
    }
    let mut criterion = Criterion::default().configure_from_args();
    votes(&mut criterion);
    opens(&mut criterion);
    criterion.final_summary();
}
