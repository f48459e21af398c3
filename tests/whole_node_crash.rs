//! Whatever the disk does, at the level of votes: shards as a node runs them, on a disk that stops or fails at a
//! random call and keeps any part of what was not synced. After each restart everything that was acknowledged is
//! there as it was, nothing is there that was not sent, and every approval stands as the naive rules say.
//!
//! `CRASH_SEED=n` runs one seed (printed where a test fails), `CRASH_SEEDS=n` that many.

use crate::support::crash_storage::{CrashStorage, Fault};
use crate::support::oracle::{Now, Oracle};
use assent::engine::Limits;
use assent::journal::{self, verify_on};
use assent::metrics::{Identity, Metrics};
use assent::model::*;
use assent::shard::{self, Executor, ExecutorOptions, OwnedVote, SnapshotOptions, Started, StateFilter};
use futures_util::future::join_all;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

const APPROVALS: u8 = 24;
const VALIDATORS: u8 = 5;
const DATA: &str = "/data";

fn limits() -> Limits {
    Limits {
        approvals_max: 1_000,
        validators_max: 1_000,
        eligible_sets_max: 10,
        eligible_set_bytes_max: 1 << 20,
        content_bytes_max: 1 << 10,
        lifetime_default_us: 86_400 * Micros::SECOND,
        lifetime_max_us: 86_400 * Micros::SECOND,
    }
}

/// Frames of two blocks and segments of five: every life rolls, and a snapshot begins each 25 events.
fn options(shards: usize) -> shard::Options {
    shard::Options {
        data: PathBuf::from(DATA),
        shards,
        executor: Executor::Plain,
        executor_options: ExecutorOptions::default(),
        pin: false,
        ring_capacity: 64,
        limits: limits(),
        decided_keep: Duration::ZERO,
        id_filter_bytes: 16 << 10,
        snapshot: SnapshotOptions { tail_events_max: 25, tail_bytes_max: 1 << 20 },
        journal: journal::Options {
            segment_bytes: 20 << 10,
            pool_segments: 2,
            frame_bytes_max: 8 << 10,
            folder_bytes_max: None,
            reserve_bytes: 4 << 10,
            background: true,
        },
        accept_clock: false,
    }
}

fn start(storage: &CrashStorage, shards: usize) -> Result<Started, shard::Error> {
    let identity = Identity { version: "test", durability: "journal", shards, started_at_seconds: 0.0 };
    shard::start(storage.clone(), &options(shards), Metrics::new(identity).shards())
}

#[derive(Clone, Debug)]
enum Op {
    Open(OpenRequest),
    Vote(OwnedVote),
}

impl Op {
    fn approval(&self) -> ApprovalId {
        match self {
            Op::Open(request) => request.id,
            Op::Vote(vote) => vote.approval,
        }
    }

    fn random(rng: &mut SmallRng) -> Op {
        let number = rng.random_range(0..APPROVALS);
        let id = ApprovalId([number; 16]);
        if rng.random_bool(0.25) {
            let content = vec![number; usize::from(number) * 20];
            return Op::Open(OpenRequest {
                id,
                approval_type: ApprovalType::LargeTransaction,
                priority: Priority::High,
                requester: RequesterId([number % 3; 16]),
                content: content.into(),
                content_hash: ContentHash::Label(format!("label {number}").into()),
                required: 1 + u16::from(number) % 4,
                total: u16::from(VALIDATORS),
                expires_at: None,
                eligible: None,
                digest: [number; 16],
            });
        }
        let reason = rng.random_bool(0.3).then(|| {
            let extras =
                VoteExtras { reason: "because ".repeat(rng.random_range(1..60)).into(), ..VoteExtras::default() };
            Box::new(extras)
        });
        Op::Vote(OwnedVote {
            approval: id,
            validator: ValidatorId::parse(&format!("validator-{}", rng.random_range(0..VALIDATORS))).expect("legal"),
            decision: Decision::from_number(rng.random_range(1..=3)).expect("1 to 3"),
            extras: reason,
        })
    }
}

/// What the node said to an op.
#[derive(Debug, PartialEq)]
enum Answer {
    Stands {
        repeat: bool,
        state: Box<ApprovalState>,
    },
    Refused(Refusal),
    /// The shard went away: it may have happened or not.
    Unknown,
}

/// One approval as the outside knows it: what was sent of it, in order, and the newest state that was acknowledged.
#[derive(Default)]
struct Known {
    sent: Vec<Op>,
    /// Of `sent`, what the newest acknowledged state certainly holds.
    acknowledged: Option<ApprovalState>,
}

#[derive(Default)]
struct Ledger {
    approvals: BTreeMap<ApprovalId, Known>,
    answers: u64,
    unknown: u64,
    refused_for_room: u64,
    restarts: u64,
    lost_unacknowledged: u64,
}

const TIME: Now = Now { now: Micros(1), expire: false };

fn replayed(id: ApprovalId, ops: &[Op]) -> Oracle {
    let mut oracle = Oracle::new(limits());
    for op in ops {
        assert_eq!(op.approval(), id);
        let _answered = apply(&mut oracle, op);
    }
    oracle
}

/// What the naive rules answer: whether it stands, and whether it is a repeat.
fn apply(oracle: &mut Oracle, op: &Op) -> Result<bool, Refusal> {
    match op {
        Op::Open(request) => oracle.open(request, TIME, Ok(())).map(|(_, repeat)| repeat),
        Op::Vote(vote) => {
            let command = VoteCommand {
                approval: vote.approval,
                validator: vote.validator.as_str(),
                decision: vote.decision,
                extras: vote.extras.clone(),
                item: 0,
            };
            match oracle.vote(&command, TIME) {
                VoteAnswer::Accepted(_) => Ok(false),
                VoteAnswer::Repeat => Ok(true),
                VoteAnswer::Refused(refusal) => Err(refusal),
            }
        }
    }
}

fn version(oracle: &Oracle, id: ApprovalId) -> u32 {
    oracle.approvals.get(&id).map_or(0, |approval| approval.events)
}

impl Ledger {
    /// After a start: each approval is what a prefix of its ops makes of it, and no less than was acknowledged.
    async fn check(&mut self, started: &Started) {
        self.restarts += 1;
        let mut there = BTreeMap::new();
        for partition in 0..PARTITIONS {
            let (states, _, next) =
                started.shards.partition_states(partition, 0, StateFilter::default()).await.expect("it runs");
            assert_eq!(next, None);
            there.extend(states.into_iter().map(|state| (state.id, state)));
        }
        for id in there.keys() {
            assert!(self.approvals.contains_key(id), "{id:?} was never sent");
        }
        for (id, known) in &mut self.approvals {
            let state = there.get(id);
            let version_there = state.map_or(0, |state| state.version);
            let acknowledged = known.acknowledged.as_ref().map_or(0, |state| state.version);
            assert!(version_there >= acknowledged, "{id:?}: {version_there} of {acknowledged} acknowledged events");
            if let (Some(state), Some(acknowledged)) = (state, &known.acknowledged)
                && state.version == acknowledged.version
            {
                assert_eq!(state, acknowledged, "what was acknowledged is there as it was");
            }
            // The shortest prefix with as many events: what came behind it and made none changed nothing.
            let all = version(&replayed(*id, &known.sent), *id);
            let mut kept = known.sent.clone();
            while version(&replayed(*id, &kept), *id) > version_there {
                kept.pop();
            }
            let oracle = replayed(*id, &kept);
            assert_eq!(version(&oracle, *id), version_there, "{id:?} has events that nobody sent");
            self.lost_unacknowledged += u64::from(all - version_there);
            known.sent = kept;
            let Some(state) = state else { continue };
            let naive = &oracle.approvals[id];
            let mut expected = naive.state(state.last_event);
            (expected.created_at, expected.expires_at) = (state.created_at, state.expires_at);
            assert_eq!(state.finalized_at.is_some(), expected.finalized_at.is_some());
            expected.finalized_at = state.finalized_at;
            assert_eq!(*state, expected);
            let answer = started.shards.status(*id, None, 100).await.expect("it is there");
            let votes: BTreeMap<String, Decision> =
                answer.votes.iter().map(|line| (line.validator.to_string(), line.decision)).collect();
            assert_eq!(votes, naive.votes, "{id:?}");
            known.acknowledged = Some(state.clone());
        }
    }

    /// Sends these at once, in this order, and takes note of every answer. False when the shards are gone.
    async fn send(&mut self, started: &Started, ops: Vec<Op>) -> bool {
        let answers = join_all(ops.iter().map(|op| async {
            let answered = match op.clone() {
                Op::Open(request) => {
                    started.shards.open(request, None).await.map(|opened| (opened.repeat, opened.state))
                }
                Op::Vote(vote) => started.shards.vote(vote).await.map(|voted| (voted.repeat, voted.state)),
            };
            match answered {
                Ok((repeat, state)) => Answer::Stands { repeat, state: Box::new(state) },
                Err(Refusal::Stopping) => Answer::Unknown,
                Err(refusal) => Answer::Refused(refusal),
            }
        }))
        .await;
        let mut alive = true;
        for (op, answer) in ops.into_iter().zip(answers) {
            let id = op.approval();
            let known = self.approvals.entry(id).or_default();
            match answer {
                Answer::Unknown => {
                    (alive, self.unknown) = (false, self.unknown + 1);
                    known.sent.push(op);
                }
                Answer::Refused(Refusal::NoSpace) => self.refused_for_room += 1,
                Answer::Refused(refusal) => {
                    self.answers += 1;
                    let naive = apply(&mut replayed(id, &known.sent), &op);
                    assert_eq!(naive, Err(refusal), "{op:?}");
                }
                Answer::Stands { repeat, state } => {
                    self.answers += 1;
                    assert!(alive || started.shards.count() > 1, "answers come in order");
                    let mut oracle = replayed(id, &known.sent);
                    assert_eq!(apply(&mut oracle, &op), Ok(repeat), "{op:?}");
                    assert_eq!(state.version, version(&oracle, id));
                    known.sent.push(op);
                    known.acknowledged = Some(*state);
                }
            }
        }
        alive
    }
}

/// One life: start, check, send a few waves. True when it came to its end without a fault.
fn live(storage: &CrashStorage, ledger: &mut Ledger, rng: &mut SmallRng, shards: usize) -> bool {
    let mut started = match start(storage, shards) {
        Ok(started) => started,
        Err(error) => {
            assert!(!error.to_string().contains("damaged"), "{error}");
            return false;
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let answers = started.answers.clone();
    let alive = runtime.block_on(async {
        tokio::spawn(async move {
            while let Some(batch) = answers.receive().await {
                batch.into_iter().for_each(|answer| answer());
            }
        });
        let checked = async {
            ledger.check(&started).await;
            for _ in 0..rng.random_range(4..14) {
                let ops = (0..rng.random_range(1..30)).map(|_| Op::random(rng)).collect();
                if !ledger.send(&started, ops).await {
                    return false;
                }
            }
            true
        };
        tokio::time::timeout(Duration::from_secs(60), checked).await.expect("every question is answered")
    });
    let finished = started.finish();
    alive && finished.is_ok()
}

fn crash(seed: u64) -> Ledger {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut ledger = Ledger::default();
    let mut storage = CrashStorage::new();
    assert!(live(&storage, &mut ledger, &mut rng, 1), "a first life without faults");
    let mut shards = 1;
    for life in 0..4 {
        if rng.random_bool(0.3) {
            shards = [1, 2, 4][rng.random_range(0..3)];
        }
        let fault = [Fault::Stop, Fault::Stop, Fault::Fail, Fault::Full][rng.random_range(0..4)];
        let within = [40, 120, 400][rng.random_range(0..3)];
        storage.fault_at(rng.random_range(1..within), fault);
        // Sometimes the disk is full all through this life.
        storage.set_full(rng.random_bool(0.15));
        live(&storage, &mut ledger, &mut rng, shards);
        storage = storage.restart(seed * 10 + life);
    }
    assert!(live(&storage, &mut ledger, &mut rng, shards), "a node starts after any crash");
    let report = verify_on(&storage, Path::new(DATA)).expect("verifies");
    assert!(report.is_sound(), "{report:#?}");
    ledger
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

#[test]
fn votes_survive_any_fault_of_the_disk() {
    let seeds = match setting("CRASH_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("CRASH_SEEDS").unwrap_or(150),
    };
    let mut total = Ledger::default();
    for seed in seeds.clone() {
        let Ok(ledger) = std::panic::catch_unwind(|| crash(seed)) else { panic!("it fails with CRASH_SEED={seed}") };
        total.answers += ledger.answers;
        total.unknown += ledger.unknown;
        total.refused_for_room += ledger.refused_for_room;
        total.restarts += ledger.restarts;
        total.lost_unacknowledged += ledger.lost_unacknowledged;
    }
    println!(
        "{} seeds: {} answers kept through {} restarts; {} never answered, {} of their events gone; {} refused for room",
        seeds.end - seeds.start,
        total.answers,
        total.restarts,
        total.unknown,
        total.lost_unacknowledged,
        total.refused_for_room
    );
    assert!(total.unknown > 0 || seeds.end - seeds.start == 1, "some shard went away, or nothing was tested");
}
