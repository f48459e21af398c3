//! Items of a stream against shards that answer when the test says so.

use super::*;
use crate::model::{ApprovalId, Refusal, VoteCommand};
use crate::shard::Absence;
use crate::wire::{StreamItem, StreamParser, v1};
use proptest::prelude::*;
use prost::Message;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::task::Waker;

/// Bounded queues; the test itself tries again, so nobody is woken.
struct Rings {
    queues: Vec<Mutex<VecDeque<Work>>>,
    slots: usize,
    /// Look-ups are answered.
    answers: std::sync::atomic::AtomicBool,
}

impl Rings {
    fn pop(&self, shard: usize) -> Option<Work> {
        self.queues[shard].lock().expect("one thread").pop_front()
    }
    fn len(&self, shard: usize) -> usize {
        self.queues[shard].lock().expect("one thread").len()
    }
}

impl Lanes for Arc<Rings> {
    fn count(&self) -> usize {
        self.queues.len()
    }
    fn shard_of(&self, id: &ApprovalId) -> usize {
        usize::from(id.0[15]) % self.queues.len()
    }
    fn poll_push(&self, _: &mut Context<'_>, shard: usize, work: &mut Option<Work>) -> Poll<()> {
        let mut queue = self.queues[shard].lock().expect("one thread");
        if queue.len() == self.slots {
            return Poll::Pending;
        }
        queue.push_back(work.take().expect("work"));
        Poll::Ready(())
    }

    /// An id that starts with 0xEE may be known.
    fn known(&self, id: &ApprovalId) -> Known {
        if id.0[0] == 0xEE { Known::Maybe } else { Known::New }
    }

    /// The second byte says what the archive holds.
    fn look_up(&self, asked: Vec<(ApprovalId, [u8; 16])>) -> LookUp {
        assert!(asked.len() <= LOOK_UP_ITEMS_MAX);
        let found = asked.into_iter().map(|(id, _)| match id.0[1] {
            0 => Found::Absent(Absence::now()),
            1 => Found::Same,
            2 => Found::Different,
            3 => Found::Unanswered(Reason::ArchiveUnavailable),
            _ => Found::InMemory,
        });
        let (found, rings) = (found.collect(), self.clone());
        std::future::poll_fn(move |_| match rings.answers.load(std::sync::atomic::Ordering::Relaxed) {
            true => Poll::Ready(Vec::clone(&found)),
            false => Poll::Pending,
        })
        .boxed()
    }
}

/// Passes what `prepare` made to `answer`: a run's answer cannot be named here.
fn answered<R: Default>(answer: impl FnOnce(R), prepare: impl FnOnce(&mut R)) {
    let mut run = R::default();
    prepare(&mut run);
    answer(run);
}

/// A stream and its shards. A shard refuses every vote on an id that starts with 0xFF.
struct Bench {
    rings: Arc<Rings>,
    ledger: Arc<StreamLedger>,
    intake: Intake<Arc<Rings>>,
    /// Items that reached a shard: which, and whether it refused them.
    arrived: BTreeMap<u64, (usize, bool)>,
    answered: BTreeMap<u64, bool>,
}

impl Bench {
    fn new(shards: usize, slots: usize, limits: &Limits) -> Bench {
        let rings =
            Arc::new(Rings { queues: (0..shards).map(|_| Mutex::default()).collect(), slots, answers: true.into() });
        let ledger = Arc::new(StreamLedger::new(shards));
        let intake = Intake::new(rings.clone(), ledger.clone(), limits);
        Bench { rings, ledger, intake, arrived: BTreeMap::new(), answered: BTreeMap::new() }
    }

    fn push(&mut self) -> Poll<()> {
        self.intake.flush();
        self.intake.poll_push(&mut Context::from_waker(Waker::noop()))
    }

    /// One shard takes one push, and answers it. False when it has none.
    fn turn(&mut self, shard: usize) -> bool {
        let Some(work) = self.rings.pop(shard) else { return false };
        let mut items: Vec<(u64, bool)> = Vec::new();
        let end = match work {
            Work::Votes { first_item, end, mut source, .. } => loop {
                let (mut votes, mut bad): (Vec<VoteCommand<'_>>, Vec<(u32, Refusal)>) = Default::default();
                let more = source.fill(3, &mut votes, &mut bad);
                let number = |item: u32| first_item + u64::from(item);
                items.extend(votes.iter().map(|vote| (number(vote.item), vote.approval.0[0] == 0xFF)));
                items.extend(bad.iter().map(|(item, _)| (number(*item), true)));
                if !more {
                    break end;
                }
            },
            Work::Opens { end, requests, .. } => {
                items.extend(requests.iter().map(|open| (open.item, open.request.id.0[0] == 0xFF)));
                end
            }
            Work::Ask { .. } => panic!("streams ask nothing"),
        };
        items.sort_unstable();
        for (item, refused) in &items {
            assert!(*item < end);
            let before = self.arrived.range(*item..).filter(|(_, (other, _))| *other == shard).count();
            assert_eq!(before, 0, "items reach a shard in order");
            assert!(self.arrived.insert(*item, (shard, *refused)).is_none(), "an item arrives once");
            self.answered.insert(*item, *refused);
        }
        let ledger = self.ledger.clone();
        answered(
            |run| ledger.answered(shard, run),
            |run| {
                run.end = end;
                items.iter().filter(|(_, refused)| *refused).for_each(|(item, _)| run.refused(*item, Reason::NotFound));
            },
        );
        true
    }
}

fn vote(id: u128) -> v1::ApprovalResponse {
    v1::ApprovalResponse {
        approval_id: uuid::Uuid::from_u128(id).to_string(),
        validator_id: "val".into(),
        decision: 1,
        ..v1::ApprovalResponse::default()
    }
}

fn open(id: u128, required_approvals: u32) -> Bytes {
    v1::ApprovalRequest {
        approval_id: uuid::Uuid::from_u128(id).to_string(),
        requester_id: uuid::Uuid::from_u128(1).to_string(),
        approval_type: 1,
        required_approvals,
        total_validators: 3,
        ..v1::ApprovalRequest::default()
    }
    .encode_to_vec()
    .into()
}

fn batch(ids: &[u128]) -> VoteBatch {
    let batch = v1::ApprovalBatch { responses: ids.iter().map(|id| vote(*id)).collect(), columns: None };
    let item = Some(v1::approval_stream_request::Item::Batch(batch));
    let message = v1::ApprovalStreamRequest { item, validator_id: String::new() }.encode_to_vec();
    match StreamParser::new(100).parse(&message.into()) {
        Ok(StreamItem::Votes(batch)) => batch,
        _ => panic!("a batch"),
    }
}

#[derive(Clone, Debug)]
enum Step {
    Open(u128, bool),
    Vote(u128),
    Batch(Vec<u128>),
    Push,
    Turn(usize),
    Look,
}

fn step() -> impl Strategy<Value = Step> {
    // Ids of which one in four is refused by its shard.
    let id =
        || (any::<u128>(), 0u8..4).prop_map(|(id, bad)| if bad == 0 { id | 0xFF << 120 } else { id & !(1 << 127) });
    prop_oneof![
        (id(), any::<bool>()).prop_map(|(id, legal)| Step::Open(id, legal)),
        id().prop_map(Step::Vote),
        proptest::collection::vec(id(), 0..9).prop_map(Step::Batch),
        Just(Step::Push),
        (0usize..4).prop_map(Step::Turn),
        Just(Step::Look),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_item_is_answered_once_and_never_early(
        steps in proptest::collection::vec(step(), 1..60),
        shards in 1usize..5,
        slots in 1usize..4,
        max in 1usize..5,
    ) {
        let mut bench = Bench::new(shards, slots, &Limits::default());
        let (mut told, mut refused, mut expected) = (0, Vec::new(), 0u64);
        let mut look = |bench: &mut Bench| {
            bench.intake.look();
            loop {
                let mut some = Vec::new();
                let through = bench.intake.refusals(max, &mut some);
                assert!(through >= told, "acknowledgements only grow");
                told = through;
                assert!(some.len() <= max && some.iter().all(|refusal| refusal.item < through));
                refused.extend(some.iter().map(|refusal| refusal.item));
                let known: Vec<u64> =
                    bench.answered.range(..through).filter(|(_, refused)| **refused).map(|(item, _)| *item).collect();
                assert_eq!(refused, known, "complete below what is acknowledged, ascending, each once");
                assert_eq!(bench.answered.range(..through).count() as u64, through, "nothing is acknowledged early");
                if through == bench.intake.acked() {
                    break;
                }
            }
        };
        for step in steps {
            match step {
                // As a stream does: nothing is read while a push waits.
                Step::Open(..) | Step::Vote(_) | Step::Batch(_) if !bench.intake.has_room() => {}
                Step::Open(id, legal) => {
                    if !legal {
                        bench.answered.insert(expected, true);
                    }
                    bench.intake.open(&open(id, if legal { 2 } else { 0 }));
                    expected += 1;
                }
                Step::Vote(id) => {
                    bench.intake.vote(&vote(id).encode_to_vec());
                    expected += 1;
                }
                Step::Batch(ids) => {
                    bench.intake.votes(batch(&ids));
                    expected += ids.len() as u64;
                }
                Step::Push => { let _full_or_not = bench.push(); }
                Step::Turn(shard) => { bench.turn(shard % shards); }
                Step::Look => {
                    let _full_or_not = bench.push();
                    look(&mut bench);
                }
            }
        }
        while bench.push().is_pending() || (0..shards).any(|shard| bench.turn(shard)) {
            (0..shards).for_each(|shard| { bench.turn(shard); });
        }
        look(&mut bench);
        prop_assert!(bench.intake.is_quiet());
        prop_assert_eq!(bench.intake.numbered(), expected);
        prop_assert_eq!(told, expected);
    }
}

#[test]
fn a_full_ring_stops_the_reading() {
    let mut bench = Bench::new(1, 1, &Limits::default());
    bench.intake.votes(batch(&[1]));
    assert!(bench.push().is_ready());
    bench.intake.votes(batch(&[2]));
    assert!(bench.push().is_pending());
    assert!(!bench.intake.has_room());
    assert!(bench.turn(0));
    assert!(bench.push().is_ready());
    assert!(bench.intake.has_room());
}

#[test]
fn the_unacknowledged_bounds_stop_the_reading() {
    let limits = Limits { unacknowledged_max: 4, unacknowledged_bytes_max: 100, ..Limits::default() };
    let mut bench = Bench::new(1, 8, &limits);
    for item in 0..4 {
        assert!(bench.intake.has_room(), "item {item}");
        bench.intake.vote(&vote(item).encode_to_vec());
        assert!(bench.push().is_ready());
    }
    assert!(!bench.intake.has_room(), "four items wait");
    assert!(bench.turn(0));
    bench.intake.look();
    assert!(bench.intake.has_room());
    while bench.turn(0) {}
    bench.intake.look();
    bench.intake.hold(99);
    bench.intake.vote(&vote(9).encode_to_vec());
    assert!(bench.intake.has_room());
    bench.intake.hold(1);
    assert!(!bench.intake.has_room(), "a hundred bytes wait");
    assert!(bench.push().is_ready());
    assert!(bench.turn(0));
    bench.intake.look();
    assert!(bench.intake.has_room());
    bench.intake.hold(100);
    bench.intake.votes(batch(&[1, 2]));
    assert!(bench.push().is_ready());
    bench.intake.look();
    assert!(!bench.intake.has_room(), "a batch holds its bytes until its own items are answered");
    assert!(bench.turn(0));
    bench.intake.look();
    assert!(bench.intake.has_room());
}

#[test]
fn single_votes_travel_together() {
    let mut bench = Bench::new(1, 8, &Limits::default());
    for item in 0..(RUN_ITEMS_MAX as u128 + 10) {
        bench.intake.vote(&vote(item).encode_to_vec());
    }
    assert!(bench.push().is_ready());
    assert_eq!(bench.rings.len(0), 2);
}

fn known_id(what: u8, number: u128) -> u128 {
    0xEE << 120 | u128::from(what) << 112 | number
}

#[test]
fn requests_that_may_be_known_are_looked_up_in_order_and_nothing_is_acknowledged_before() {
    let mut bench = Bench::new(2, 16, &Limits::default());
    let answers = |bench: &Bench, on: bool| bench.rings.answers.store(on, std::sync::atomic::Ordering::Relaxed);
    answers(&bench, false);
    let context = &mut Context::from_waker(Waker::noop());
    assert_eq!(bench.intake.open(&open(1, 2)), None);
    // What came before does not wait; what comes behind, known or not, does.
    for what in [0, 1, 2, 3, 4] {
        assert_eq!(bench.intake.open(&open(known_id(what, 2), 2)), None);
    }
    assert_eq!(bench.intake.open(&open(3, 2)), None);
    assert_eq!(bench.intake.open(&open(3, 9)), Some(Reason::InvalidArgument));
    assert!(bench.intake.is_looking() && bench.intake.may_join());
    assert!(bench.intake.poll_look_up(context).is_pending());
    assert!(!bench.intake.may_join(), "not while it is asked");
    assert!(bench.push().is_ready());
    while bench.turn(0) || bench.turn(1) {}
    bench.intake.look();
    assert_eq!((bench.intake.acked(), bench.intake.numbered()), (1, 8));
    assert!(!bench.intake.is_quiet());

    answers(&bench, true);
    let Poll::Ready(settled) = bench.intake.poll_look_up(context) else { panic!("it is answered") };
    let refused = |reason| Settled::Refused(reason);
    assert_eq!(settled, [Settled::Repeat, refused(Reason::IdTaken), refused(Reason::ArchiveUnavailable)]);
    assert!(bench.push().is_ready());
    while bench.turn(0) || bench.turn(1) {}
    assert_eq!(bench.arrived.keys().copied().collect::<Vec<_>>(), [0, 1, 5, 6]);
    bench.intake.look();
    assert_eq!(bench.intake.acked(), 8);
    let mut refusals = Vec::new();
    assert_eq!(bench.intake.refusals(100, &mut refusals), 8);
    let given: Vec<_> = refusals.iter().map(|refused| (refused.item, refused.reason())).collect();
    assert_eq!(given, [(3, Reason::IdTaken), (4, Reason::ArchiveUnavailable), (7, Reason::InvalidArgument)]);
    assert!(bench.intake.is_quiet());
}
