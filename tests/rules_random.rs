//! Whatever clients send in whatever order, the node keeps the rules: random commands against a
//! second, naive implementation. What the engine emitted, replayed, gives the same states; so do
//! slices of a snapshot taken at different moments with the rest replayed.
//!
//! A failure prints its case and is kept under `proptest-regressions/`; it is replayed first.

use crate::support::oracle::{Now, Oracle};
use crate::support::recorder::Recorder;
use assent::engine::{Clock, Counters, Engine, Limits, VoteDecision};
use assent::model::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const NAMES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "alice@example.org", "j", "k", "l"];
const START: u64 = 1_700_000_000_000_000;
const LIFETIME: u64 = 10_000;
const LIFETIME_MAX: u64 = 50_000;

#[derive(Clone, Debug)]
struct Vote {
    id: u8,
    name: usize,
    decision: Decision,
    extras: Option<(Option<u8>, bool)>,
}

#[derive(Clone, Debug)]
enum Step {
    Open {
        id: u8,
        flavour: u8,
        q: u16,
        n: u16,
        expires: Option<i64>,
        eligible: Option<u16>,
        hash: u8,
    },
    Batch(Vec<Vote>),
    Vote(Vote),
    Touch(u8),
    Pass(u64),
    ExpireDue(usize),
    Segment,
    Frame,
    Clock(bool),
    Opens(bool),
    /// Slices of the even or the odd partitions.
    Slices(bool),
    Evict(u8),
    /// At most so many of the decided, of those whose newest event is so many behind the last.
    EvictDecided(usize, u64),
}

fn vote() -> impl Strategy<Value = Vote> {
    let extras = prop::option::weighted(0.2, (prop::option::of(0..4u8), any::<bool>()));
    (0..14u8, 0..NAMES.len(), 1..=3u8, extras).prop_map(|(id, name, decision, extras)| Vote {
        id,
        name,
        decision: Decision::from_number(if decision == 3 { 3 } else { 1 + u8::from(decision == 2) }).expect("1 to 3"),
        extras,
    })
}

/// What steps make the engine forget.
#[derive(Clone, Copy)]
enum Forgets {
    Nothing,
    /// What is decided, in its order; ids are then taken once.
    Decided,
    Anything,
}

fn step(evict: Forgets) -> impl Strategy<Value = Step> {
    let open = (0..14u8, 0..4u8, 1..8u16, 0..4u16, prop::option::of(-2_000..60_000i64)).prop_flat_map(
        |(id, flavour, q, more, expires)| {
            (prop::option::weighted(0.3, 1..1u16 << 12), 0..4u8).prop_map(move |(eligible, hash)| Step::Open {
                id,
                flavour,
                q,
                n: q + more,
                expires,
                eligible,
                hash,
            })
        },
    );
    prop_oneof![
        8 => open,
        8 => prop::collection::vec(vote(), 0..60).prop_map(Step::Batch),
        6 => vote().prop_map(Step::Vote),
        2 => (0..14u8).prop_map(Step::Touch),
        4 => prop_oneof![0..50u64, 0..20_000u64].prop_map(Step::Pass),
        2 => (1..6usize).prop_map(Step::ExpireDue),
        1 => Just(Step::Segment),
        2 => Just(Step::Frame),
        1 => any::<bool>().prop_map(Step::Clock),
        1 => any::<bool>().prop_map(Step::Opens),
        1 => any::<bool>().prop_map(Step::Slices),
        3 => (0..14u8).prop_map(move |id| match evict {
            Forgets::Anything => Step::Evict(id),
            Forgets::Decided => Step::EvictDecided(usize::from(id % 5), u64::from(id / 5) * 4),
            Forgets::Nothing => Step::Touch(id),
        }),
    ]
}

fn id(number: u8) -> ApprovalId {
    ApprovalId([number; 16])
}

fn hash(number: u8) -> ContentHash {
    match number {
        0 => ContentHash::Sha256([7; 32]),
        1 => ContentHash::Sha256([8; 32]),
        2 => ContentHash::Label("a label".into()),
        _ => ContentHash::Label("x".repeat(255).into()),
    }
}

fn set(mask: u16) -> Arc<EligibleSet> {
    let members: Vec<_> = (0..12).filter(|at| mask >> at & 1 == 1).map(|at| NAMES[at]).collect();
    let mut members: Vec<_> = members.into_iter().map(|name| ValidatorId::parse(name).expect("legal")).collect();
    members.sort();
    let mut digest = [0; 32];
    digest[..2].copy_from_slice(&mask.to_le_bytes());
    Arc::new(EligibleSet { members, digest })
}

fn limits() -> Limits {
    Limits {
        approvals_max: 9,
        validators_max: 10,
        eligible_sets_max: 3,
        eligible_set_bytes_max: 1 << 20,
        content_bytes_max: 8,
        lifetime_default_us: LIFETIME,
        lifetime_max_us: LIFETIME_MAX,
    }
}

fn engine() -> Engine {
    Engine::new(PartitionKey::new([3; 16]), limits())
}

fn same<T: PartialEq + std::fmt::Debug>(engine: &Result<T, Refusal>, oracle: &Result<T, Refusal>) -> bool {
    match (engine, oracle) {
        // The words of a message are not a rule; the field is.
        (Err(Refusal::Invalid(a)), Err(Refusal::Invalid(b))) => a.field == b.field,
        (a, b) => a == b,
    }
}

/// Everything that the engine shows of itself.
#[derive(Debug, PartialEq)]
struct Shown {
    states: BTreeMap<ApprovalId, ApprovalState>,
    votes: BTreeMap<ApprovalId, BTreeMap<String, Decision>>,
    counters: Counters,
    next_deadline_reached: bool,
}

fn show(engine: &Engine, now: Micros) -> Shown {
    let mut shown = Shown {
        states: BTreeMap::new(),
        votes: BTreeMap::new(),
        // What sets take depends on the numbers of their members, which a restart may change.
        counters: Counters { bytes: 0, eligible_set_bytes: 0, ..engine.counters() },
        next_deadline_reached: engine.next_deadline().is_some_and(|deadline| deadline <= now),
    };
    for partition in 0..PARTITIONS {
        let mut from = 0;
        let mut states = Vec::new();
        while let Some(next) = engine.partition_states(partition, from, 1, |_| true, &mut states) {
            from = next;
        }
        for state in states {
            let mut votes = BTreeMap::new();
            let mut after = None;
            loop {
                let page = engine.votes_page(&state.id, after.as_ref(), 2).expect("it is in memory");
                assert!(page.items.len() <= 2);
                for (name, decision) in page.items {
                    assert_eq!(engine.has_voted(&state.id, name.as_str()), Some(decision));
                    assert!(votes.insert(name.as_str().to_owned(), decision).is_none());
                }
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            shown.votes.insert(state.id, votes);
            assert!(shown.states.insert(state.id, state).is_none());
        }
    }
    shown
}

struct Run {
    engine: Engine,
    oracle: Oracle,
    sink: Recorder,
    now: Micros,
    expire: bool,
    opens: bool,
    slices: BTreeMap<u32, (Vec<u8>, u64)>,
    /// Ids of what was decided and forgotten.
    forgotten: BTreeSet<ApprovalId>,
}

impl Run {
    fn new() -> Run {
        Run {
            engine: engine(),
            oracle: Oracle::new(limits()),
            sink: Recorder::new(5),
            now: Micros(START),
            expire: true,
            opens: true,
            slices: BTreeMap::new(),
            forgotten: BTreeSet::new(),
        }
    }

    fn take(&mut self, step: &Step) {
        let clock = Clock { now: self.now, expire: self.expire };
        let time = Now { now: self.now, expire: self.expire };
        match step {
            // The filter of ids known before sees to that.
            Step::Open { id: number, .. } if self.forgotten.contains(&id(*number)) => {}
            Step::Open { id: number, flavour, q, n, expires, eligible, hash: hash_number } => {
                let eligible = eligible.map(set);
                let total = eligible.as_ref().map_or(*n, |set| set.members.len() as u16);
                let mut digest = [0; 16];
                digest[..5].copy_from_slice(&[*flavour, *q as u8, *n as u8, *hash_number, expires.is_some() as u8]);
                let request = OpenRequest {
                    id: id(*number),
                    approval_type: ApprovalType::from_number(1 + flavour).expect("1 to 4"),
                    priority: Priority::from_number(1 + flavour % 3).expect("1 to 3"),
                    requester: RequesterId([*flavour; 16]),
                    content: vec![1; 6 + usize::from(*flavour)].into(),
                    content_hash: hash(*hash_number),
                    required: (*q).min(total),
                    total,
                    expires_at: expires.map(|ahead| Micros(self.now.0.wrapping_add_signed(ahead))),
                    eligible,
                    digest,
                };
                let allowed = if self.opens { Ok(()) } else { Err(Refusal::ClockJump) };
                let answer = self.engine.open(&request, clock, allowed.clone(), &mut self.sink);
                let expected = self.oracle.open(&request, time, allowed);
                if let Ok((state, _)) = &answer {
                    assert_eq!(Some(state.clone()), self.engine.state(&request.id));
                }
                let answer = answer.map(|(state, repeat)| (state.id, repeat));
                assert!(same(&answer, &expected), "{answer:?}, expected {expected:?}");
            }
            Step::Batch(votes) => {
                let mut batch: Vec<_> =
                    votes.iter().enumerate().map(|(item, vote)| command(vote, item as u32)).collect();
                let expected: Vec<_> =
                    batch.iter().map(|command| (command.item, self.oracle.vote(command, time))).collect();
                self.engine.votes(&mut batch, clock, &mut self.sink);
                assert!(batch.is_empty());
                assert_eq!(std::mem::take(&mut self.sink.answers), expected);
            }
            Step::Vote(vote) => {
                let command = command(vote, 0);
                let decision = self.engine.decide_vote(&command, clock);
                let (answer, state) = self.engine.vote(&command, clock, &mut self.sink);
                assert_eq!(state, self.engine.state(&command.approval));
                match (decision, &answer) {
                    (VoteDecision::Counts { outcome, .. }, VoteAnswer::Accepted(given)) => assert_eq!(outcome, *given),
                    (VoteDecision::Repeat, VoteAnswer::Repeat) | (VoteDecision::Expires, _) => {}
                    (VoteDecision::Refused(decided), VoteAnswer::Refused(given)) => assert_eq!(decided, *given),
                    (decision, answer) => panic!("decided {decision:?}, answered {answer:?}"),
                }
                assert_eq!(answer, self.oracle.vote(&command, time));
            }
            Step::Touch(number) => {
                let there = self.engine.touch(&id(*number), clock, &mut self.sink);
                assert_eq!(there, self.oracle.touch(&id(*number), time));
            }
            Step::Pass(micros) => self.now = self.now.plus(*micros),
            Step::ExpireDue(max) => {
                while self.expire && self.engine.next_deadline().is_some_and(|deadline| deadline <= self.now) {
                    assert!(self.engine.expire_due(clock, *max, &mut self.sink) <= *max);
                }
                self.oracle.expire_all(time);
            }
            Step::Segment => self.sink.next_segment(),
            Step::Frame => self.sink.next_frame(),
            Step::Clock(expire) => self.expire = *expire,
            Step::Opens(allowed) => self.opens = *allowed,
            Step::Slices(odd) => {
                for partition in (u32::from(*odd)..PARTITIONS).step_by(2) {
                    let mut bytes = Vec::new();
                    self.engine.write_partition(partition, &mut bytes);
                    self.slices.insert(partition, (bytes, self.sink.sequence));
                }
            }
            Step::Evict(number) => {
                let there = self.oracle.approvals.remove(&id(*number)).is_some();
                assert_eq!(self.engine.evict(&id(*number)), there);
                self.sink.newest.remove(&id(*number));
                self.sink.names_went = true;
            }
            Step::EvictDecided(max, behind) => {
                let through = self.sink.sequence.saturating_sub(*behind);
                let mut decided: Vec<_> =
                    self.oracle.approvals.iter().filter(|(_, a)| a.status != Status::Pending).collect();
                decided.sort_by_key(|(id, _)| self.sink.newest[id].sequence());
                let first = decided.first().map(|(id, _)| self.sink.newest[id]);
                assert_eq!(self.engine.decided_first(), first);
                decided.retain(|(id, _)| self.sink.newest[id].sequence() <= through);
                let expected: Vec<_> = decided.into_iter().map(|(id, _)| *id).take(*max).collect();
                let may = |event: EventRef| event.sequence() <= through;
                assert_eq!(self.engine.evict_decided(*max, may, |_| 0), 0, "nothing is forgotten that nobody notes");
                let mut told = Vec::new();
                let count = self.engine.evict_decided(*max, may, |ids| {
                    told.extend(ids.iter().map(|(id, _)| *id));
                    ids.len()
                });
                assert_eq!((told, count), (expected.clone(), expected.len()));
                for id in expected {
                    self.oracle.approvals.remove(&id);
                    self.sink.newest.remove(&id);
                    self.forgotten.insert(id);
                }
                self.sink.names_went = true;
            }
        }
    }

    fn check(&self) {
        let shown = show(&self.engine, self.now);
        let expected: BTreeMap<_, _> =
            self.oracle.approvals.iter().map(|(id, approval)| (*id, approval.state(self.sink.newest[id]))).collect();
        assert_eq!(shown.states, expected);
        let votes: BTreeMap<_, _> =
            self.oracle.approvals.iter().map(|(id, approval)| (*id, approval.votes.clone())).collect();
        assert_eq!(shown.votes, votes);
        let of = |status| expected.values().filter(|state| state.status == status).count();
        let counters = shown.counters;
        assert_eq!(counters.approvals, expected.len());
        assert_eq!(counters.pending, of(Status::Pending));
        assert_eq!(counters.approved, of(Status::Approved));
        assert_eq!(counters.rejected, of(Status::Rejected));
        assert_eq!(counters.expired, of(Status::Expired));
        assert_eq!(counters.validators, self.oracle.names().len());
        assert_eq!(counters.eligible_sets, self.oracle.sets().len());
        for (id, approval) in &self.oracle.approvals {
            for name in NAMES {
                let may =
                    approval.request.eligible.as_ref().is_none_or(|set| set.members.iter().any(|m| m.as_str() == name));
                let awaits = approval.status == Status::Pending && may && !approval.votes.contains_key(name);
                let view = self.engine.approval(id).expect("it is in memory");
                assert_eq!(view.awaits(self.engine.validator(name)), awaits);
            }
            let mut eligible = Vec::new();
            let mut after = None;
            while let Some(page) = self.engine.eligible_page(id, after.as_ref(), 3) {
                eligible.extend(page.items);
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            let named = approval.request.eligible.as_ref().map_or(Vec::new(), |set| set.members.clone());
            assert_eq!(eligible, named);
        }
    }
}

fn command(vote: &Vote, item: u32) -> VoteCommand<'static> {
    let extras = vote.extras.map(|(content_hash, reason)| {
        Box::new(VoteExtras {
            content_hash: content_hash.map(hash),
            reason: if reason { "because".into() } else { "".into() },
            signature: if reason { [1, 2, 3].into() } else { [].into() },
        })
    });
    VoteCommand { approval: id(vote.id), validator: NAMES[vote.name], decision: vote.decision, extras, item }
}

/// `PROPTEST_CASES` asks for more.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(192)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn keeps_the_rules_and_forgets_without_a_trace(steps in prop::collection::vec(step(Forgets::Anything), 1..80)) {
        let mut run = Run::new();
        for step in &steps {
            run.take(step);
            run.check();
        }
        // With everything gone, nothing is held.
        for number in 0..14 {
            run.take(&Step::Evict(number));
        }
        let left = Counters { bytes: 0, ..run.engine.counters() };
        prop_assert_eq!(left, Counters::default());
        prop_assert_eq!(run.engine.next_deadline(), None);
    }

    #[test]
    fn what_is_decided_goes_in_its_order_and_comes_back_by_replay(
        steps in prop::collection::vec(step(Forgets::Decided), 1..120),
    ) {
        let mut run = Run::new();
        for step in &steps {
            run.take(step);
            run.check();
        }
        let expected = show(&run.engine, run.now);
        let slices = &run.slices;
        let held = |partition: u32| slices.get(&partition).map_or(0, |(_, sequence)| *sequence);
        for with_slices in [false, true] {
            let mut again = engine();
            if with_slices {
                for (bytes, _) in run.slices.values() {
                    again.read_partition(bytes).expect("it was written");
                }
            }
            let replayed = run.sink.replay(&mut again, |partition| if with_slices { held(partition) } else { 0 });
            prop_assert_eq!(replayed, Ok(run.sink.sequence));
            // What came back is decided, and goes again.
            let states = show(&again, run.now).states;
            let back: Vec<_> = states.keys().filter(|id| run.forgotten.contains(id)).copied().collect();
            prop_assert!(with_slices || back.len() == run.forgotten.len());
            for id in &back {
                prop_assert!(states[id].status != Status::Pending);
                prop_assert!(again.evict(id));
            }
            let shown = show(&again, run.now);
            prop_assert_eq!(&shown.states, &expected.states);
            prop_assert_eq!(&shown.votes, &expected.votes);
            prop_assert_eq!(&shown.counters, &expected.counters);
            let decided = expected.counters.approvals - expected.counters.pending;
            prop_assert_eq!(again.evict_decided(usize::MAX, |_| true, <[_]>::len), decided);
            prop_assert_eq!(again.decided_first(), None);
        }
    }

    #[test]
    fn replay_and_snapshot_give_the_same_states(steps in prop::collection::vec(step(Forgets::Nothing), 1..120)) {
        let mut run = Run::new();
        for step in &steps {
            run.take(step);
        }
        run.check();
        let expected = show(&run.engine, run.now);

        let mut replayed = engine();
        let events = run.sink.replay(&mut replayed, |_| 0);
        prop_assert_eq!(events, Ok(run.sink.sequence));
        let shown = show(&replayed, run.now);
        prop_assert_eq!(&shown.states, &expected.states);
        prop_assert_eq!(&shown.votes, &expected.votes);
        prop_assert_eq!(&shown.counters, &expected.counters);

        let mut restored = engine();
        for (partition, (bytes, _)) in &run.slices {
            prop_assert_eq!(restored.read_partition(bytes), Ok(*partition));
        }
        let slices = &run.slices;
        let held = |partition: u32| slices.get(&partition).map_or(0, |(_, sequence)| *sequence);
        prop_assert_eq!(run.sink.replay(&mut restored, held), Ok(run.sink.sequence));
        let shown = show(&restored, run.now);
        prop_assert_eq!(&shown.states, &expected.states);
        prop_assert_eq!(&shown.votes, &expected.votes);
        prop_assert_eq!(&shown.counters, &expected.counters);

        // And all three go on alike: what is pending expires at its time.
        let end = Clock::at(run.now.plus(LIFETIME_MAX + LIFETIME));
        for engine in [&mut run.engine, &mut replayed, &mut restored] {
            // Another log: its segments have numbers of their own.
            let mut sink = Recorder::new(6);
            sink.segment = 1_000_000;
            sink.newest = run.sink.newest.clone();
            let mut expired = 0;
            while engine.next_deadline().is_some_and(|deadline| deadline <= end.now) {
                expired += engine.expire_due(end, 3, &mut sink);
            }
            prop_assert_eq!(expired, expected.counters.pending);
            prop_assert_eq!(engine.counters().pending, 0);
        }
    }

    #[test]
    fn a_damaged_slice_or_frame_is_an_error_or_another_state_never_a_crash(
        steps in prop::collection::vec(step(Forgets::Nothing), 10..40),
        at in any::<prop::sample::Index>(),
        bit in 0..8u8,
    ) {
        let mut run = Run::new();
        for step in &steps {
            run.take(step);
        }
        for partition in 0..PARTITIONS {
            let mut bytes = Vec::new();
            run.engine.write_partition(partition, &mut bytes);
            if run.engine.partition_len(partition) > 0 {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
                _ = engine().read_partition(&bytes);
                bytes.truncate(at);
                prop_assert!(engine().read_partition(&bytes).is_err());
            }
        }
        let frame = at.index(run.sink.frames.len());
        let bytes = &mut run.sink.frames[frame].bytes;
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        _ = run.sink.replay(&mut engine(), |_| 0);
    }
}
