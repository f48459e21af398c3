//! One shard's turn, without any I/O of its own: drain a batch, read the clock once, decide, apply,
//! append; and what happens once that is on disk. The executors wrap the loop around it.
//!
//! Nothing leaves before the commit of the batch it was decided in, refusals and repeats included:
//! they too may rest on a vote that is not yet on disk. Answers collect in an `Outbox`, which rides
//! with the frame; answers without a frame of their own ride with the one under way.

use super::clock::{Clock, Reading};
use super::eviction::Eviction;
use super::feed::Tail;
use super::gate::Gate;
use super::stream::RunAnswer;
use super::work::{Answer, OpenItem, Turn, Work};
use super::{IdFilter, StreamLedger, snapshot::SnapshotRun};
use crate::engine::Clock as At;
use crate::engine::{self, Counters, Engine};
use crate::journal::{self, Committed, Log, Room, Storage};
use crate::metrics::ShardMetrics;
use crate::model::codec;
use crate::model::{
    ApprovalId, CommandSource, Event, EventRef, EventSink, Micros, PlainVote, Refusal, RequesterId, RequesterRef,
    SetRef, ValidatorRef, VoteAnswer, VoteCommand, VoteSink,
};
use crate::queue::{Mailbox, Ring, thread_cpu_nanos};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

/// Votes decided before the loop looks at its commit again: at 50 ns each, under a millisecond.
const TURN_VOTES_MAX: usize = 8_192;
/// Works taken from the ring in a turn.
const TURN_WORKS_MAX: usize = 1_024;
/// Votes decoded at a time: their commands stay in the first-level cache between decode and apply. Fewer where
/// frames are so small that this many of the longest would not fit one.
const CHUNK_VOTES: usize = 256;
/// Expiries a turn (design: a mass expiry never stops the shard).
const TURN_EXPIRIES_MAX: usize = 1_024;

/// So few answers are handed out from here; more go as one letter, because a wake-up is cheaper on the front's
/// own threads.
const HANDED_OUT_MAX: usize = 2;
/// The limit that an opening too long for any frame is refused by.
pub(super) const FRAME_BYTES_MAX: &str = "frame_bytes_max";

/// Everything one shard owns.
pub struct Core<S: Storage> {
    pub(super) index: usize,
    pub(super) engine: Engine,
    pub(super) log: Log<S>,
    pub(super) log_ordinal: u16,
    pub(super) ring: Arc<Ring<Work>>,
    pub(super) clock: Clock,
    pub(super) gate: Arc<Gate>,
    pub(super) mailbox: Mailbox<Vec<Answer>>,
    pub(super) metrics: Arc<ShardMetrics>,
    pub(super) tail: Arc<Tail>,
    pub(super) snapshot: SnapshotRun<S>,
    eviction: Eviction,
    /// A run of votes that a turn did not finish.
    running: Option<Run>,
    /// Work that found no room in the frame.
    stalled: Option<Work>,
    building: Outbox,
    committing: Outbox,
    /// For `take_taken`.
    taken: usize,
    chunk_votes: usize,
    commands: Vec<VoteCommand<'static>>,
    bad: Vec<(u32, Refusal)>,
    scratch: Vec<u8>,
    clock_accepted: u64,
    commit_began: Instant,
    /// What was counted into the metrics already.
    counted: Counters,
}

struct Run {
    stream: Arc<StreamLedger>,
    first_item: u64,
    source: Box<dyn CommandSource>,
    answer: RunAnswer,
}

/// Answers that wait for one commit.
#[derive(Default)]
struct Outbox {
    runs: Vec<(Arc<StreamLedger>, RunAnswer)>,
    answers: Vec<Answer>,
}

impl Outbox {
    fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.answers.is_empty()
    }

    fn append(&mut self, other: &mut Outbox) {
        self.runs.append(&mut other.runs);
        self.answers.append(&mut other.answers);
    }
}

/// What a turn found to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Worked {
    Nothing,
    Something,
    /// The frame has no room for what comes next: commit first.
    FrameFull,
}

impl<S: Storage> Core<S> {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn new(
        index: usize,
        engine: Engine,
        log: Log<S>,
        log_ordinal: u16,
        ring: Arc<Ring<Work>>,
        clock: Clock,
        gate: Arc<Gate>,
        mailbox: Mailbox<Vec<Answer>>,
        metrics: Arc<ShardMetrics>,
        tail: Arc<Tail>,
        snapshot: SnapshotRun<S>,
        eviction: Eviction,
    ) -> Core<S> {
        let clock_accepted = gate.clock_accepted();
        let counted = engine.counters();
        let chunk_votes = (log.batch_bytes_max() / engine::VOTE_BYTES_MAX / 2).min(CHUNK_VOTES);
        assert!(chunk_votes > 0, "the settings let no frame be smaller than a few votes");
        // What was recovered shows before the first commit.
        show(&metrics, &counted, &log);
        metrics.snapshot_sequence.set(snapshot.covered());
        Core {
            index,
            engine,
            log,
            log_ordinal,
            ring,
            clock,
            gate,
            mailbox,
            metrics,
            tail,
            snapshot,
            eviction,
            running: None,
            stalled: None,
            building: Outbox::default(),
            committing: Outbox::default(),
            taken: 0,
            chunk_votes,
            commands: Vec::with_capacity(chunk_votes),
            bad: Vec::new(),
            scratch: Vec::new(),
            clock_accepted,
            commit_began: Instant::now(),
            counted,
        }
    }

    /// Whether there is something to do now, besides what the clock brings.
    pub(super) fn has_work(&self) -> bool {
        self.running.is_some() || self.stalled.is_some() || !self.ring.is_empty() || self.snapshot.wants_turn()
    }

    /// What the turns since the last question took up: works, and their cost in votes (`in_votes`).
    pub(super) fn take_taken(&mut self) -> usize {
        std::mem::take(&mut self.taken)
    }

    /// Steps 1 to 3: drain, decide, apply, append.
    pub(super) fn turn(&mut self) -> Worked {
        let reading = self.read_clock();
        let due = reading.trusted && self.engine.next_deadline().is_some_and(|deadline| deadline <= reading.now);
        self.eviction.look(Instant::now(), self.log.durable());
        let forgets = self.eviction.is_due(&self.engine);
        if !self.has_work() && !due && !forgets {
            return Worked::Nothing;
        }
        // Turns beside a commit add to one frame: what little room they left is no batch.
        let expiries_max = (self.log.room_in_frame() / engine::EXPIRY_BYTES_MAX).min(TURN_EXPIRIES_MAX);
        if expiries_max == 0 {
            return Worked::FrameFull;
        }
        let (cpu_from, wall_from) = (thread_cpu_nanos(), Instant::now());
        self.log.begin_batch(reading.now.0, &[]);
        let mut worked = Worked::Something;
        if due {
            let mut sink = Sink {
                log: &mut self.log,
                log_ordinal: self.log_ordinal,
                scratch: &mut self.scratch,
                ids: self.eviction.ids(),
                run: None,
            };
            self.engine.expire_due(at(reading), expiries_max, &mut sink);
        }
        let mut votes = 0;
        let mut works = 0;
        while votes < TURN_VOTES_MAX && works < TURN_WORKS_MAX {
            if let Some(run) = self.running.take() {
                if !self.has_room(self.chunk_votes * engine::VOTE_BYTES_MAX) {
                    self.running = Some(run);
                    worked = Worked::FrameFull;
                    break;
                }
                votes += self.run_votes(run, reading);
                continue;
            }
            let Some(work) = self.stalled.take().or_else(|| self.ring.pop()) else { break };
            works += 1;
            votes += in_votes(&work);
            if let Err(work) = self.start(work, reading) {
                self.stalled = Some(work);
                worked = Worked::FrameFull;
                break;
            }
        }
        self.taken += works + votes;
        self.log.end_batch();
        if forgets {
            let before = self.engine.counters();
            let evicted = self.eviction.turn(&mut self.engine);
            let after = self.engine.counters();
            // What goes was durable, and so was counted: decisions are counted by what memory gains.
            self.counted.approved -= before.approved - after.approved;
            self.counted.rejected -= before.rejected - after.rejected;
            self.counted.expired -= before.expired - after.expired;
            self.metrics.evicted.add(evicted as u64);
            show(&self.metrics, &after, &self.log);
        }
        self.snapshot.turn(&self.engine, self.log.last_appended());
        if works > 0 {
            self.ring.made_room();
        }
        self.metrics.turn_cpu_seconds.record(thread_cpu_nanos().saturating_sub(cpu_from));
        self.metrics.turn_wall_seconds.record_duration(wall_from.elapsed());
        worked
    }

    fn read_clock(&mut self) -> Reading {
        let accepted = self.gate.clock_accepted();
        if accepted != self.clock_accepted {
            self.clock_accepted = accepted;
            self.clock.accept();
        }
        let reading = self.clock.read();
        self.gate.clock_trusted(self.index, reading.trusted);
        reading
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.log.room_in_frame() >= bytes
    }

    fn opens(&self, trusted: bool) -> Result<(), Refusal> {
        if !trusted {
            return Err(Refusal::ClockJump);
        }
        match self.log.room() {
            Room::Ok => self.gate.opens(),
            Room::NoOpens | Room::NoVotes => Err(Refusal::NoSpace),
        }
    }

    fn votes(&self) -> Result<(), Refusal> {
        match self.log.room() {
            Room::Ok | Room::NoOpens => Ok(()),
            Room::NoVotes => Err(Refusal::NoSpace),
        }
    }

    /// Takes one work up; gives it back when the frame has no room for it.
    fn start(&mut self, work: Work, reading: Reading) -> Result<(), Work> {
        match work {
            Work::Votes { stream, first_item, end, mut source } => {
                let mut answer = RunAnswer { end, ..RunAnswer::default() };
                if let Err(refusal) = self.votes() {
                    refuse_all(&mut *source, first_item, &refusal, &mut answer);
                    self.metrics.votes_refused.add(refusal.reason().number(), answer.totals.refused);
                    self.building.runs.push((stream, answer));
                    return Ok(());
                }
                self.running = Some(Run { stream, first_item, source, answer });
                Ok(())
            }
            Work::Opens { stream, end, requests } => self.run_opens(stream, end, requests, reading),
            Work::Ask { ask, journal_bytes } => {
                assert!(journal_bytes <= self.log.batch_bytes_max(), "the handle asks for no more than a frame holds");
                if !self.has_room(journal_bytes) {
                    return Err(Work::Ask { ask, journal_bytes });
                }
                let (opens, votes) = (self.opens(reading.trusted), self.votes());
                let sequence = self.log.last_appended();
                let ids = self.eviction.ids();
                let mut sink = Sink {
                    log: &mut self.log,
                    log_ordinal: self.log_ordinal,
                    scratch: &mut self.scratch,
                    ids,
                    run: None,
                };
                let answer = ask(&mut Turn {
                    engine: &mut self.engine,
                    clock: at(reading),
                    opens,
                    votes,
                    sequence,
                    log_ordinal: self.log_ordinal,
                    ids,
                    sink: &mut sink,
                    metrics: &self.metrics,
                });
                self.building.answers.push(answer);
                Ok(())
            }
        }
    }

    /// One chunk of a run of votes; returns how many it was.
    fn run_votes(&mut self, mut run: Run, reading: Reading) -> usize {
        let mut commands = recycled(std::mem::take(&mut self.commands));
        let more = run.source.fill(self.chunk_votes, &mut commands, &mut self.bad);
        let votes = commands.len() + self.bad.len();
        for (item, refusal) in self.bad.drain(..) {
            self.metrics.votes_refused.add(refusal.reason().number(), 1);
            run.answer.refused(run.first_item + u64::from(item), refusal.reason());
        }
        let mut sink = Sink {
            log: &mut self.log,
            log_ordinal: self.log_ordinal,
            scratch: &mut self.scratch,
            ids: self.eviction.ids(),
            run: Some((&mut run.answer, run.first_item, &*self.metrics)),
        };
        self.engine.votes(&mut commands, at(reading), &mut sink);
        self.commands = recycled(commands);
        if more {
            self.running = Some(run);
        } else {
            self.metrics.votes_accepted.add(run.answer.totals.accepted);
            self.metrics.vote_repeats.add(run.answer.totals.repeats);
            self.building.runs.push((run.stream, run.answer));
        }
        votes
    }

    fn run_opens(
        &mut self,
        stream: Arc<StreamLedger>,
        end: u64,
        mut requests: Vec<OpenItem>,
        reading: Reading,
    ) -> Result<(), Work> {
        let opens = self.opens(reading.trusted);
        let mut done = 0;
        // What was done before the frame filled up is answered with its own commit.
        let mut answer = RunAnswer::default();
        for OpenItem { item, request, absence } in &requests {
            let journal_bytes = engine::opening_bytes_max(request);
            if journal_bytes > self.log.batch_bytes_max() {
                let refusal = Refusal::LimitReached(FRAME_BYTES_MAX);
                self.metrics.requests_refused.add(refusal.reason().number(), 1);
                answer.refused(*item, refusal.reason());
                done += 1;
                answer.end = item + 1;
                continue;
            }
            if !self.has_room(journal_bytes) {
                break;
            }
            let ids = self.eviction.ids();
            let mut sink =
                Sink { log: &mut self.log, log_ordinal: self.log_ordinal, scratch: &mut self.scratch, ids, run: None };
            let allowed = opens.clone().and_then(|()| ids.admits(&request.id, *absence));
            match self.engine.open(request, at(reading), allowed, &mut sink) {
                Ok(opened) if opened.1 => answer.totals.repeats += 1,
                Ok(_) => answer.totals.accepted += 1,
                Err(refusal) => {
                    self.metrics.requests_refused.add(refusal.reason().number(), 1);
                    answer.refused(*item, refusal.reason());
                }
            }
            done += 1;
            answer.end = item + 1;
        }
        self.metrics.requests_opened.add(answer.totals.accepted);
        self.metrics.request_repeats.add(answer.totals.repeats);
        if done == requests.len() {
            answer.end = end;
            self.building.runs.push((stream, answer));
            return Ok(());
        }
        if done > 0 {
            self.building.runs.push((stream.clone(), answer));
        }
        requests.drain(..done);
        Err(Work::Opens { stream, end, requests })
    }

    /// Step 4, first half: what was appended goes to disk. True when a commit is under way now.
    pub(super) fn begin_commit(&mut self) -> bool {
        assert!(self.committing.is_empty(), "one commit at a time");
        let overlap = self.has_work();
        self.commit_began = Instant::now();
        if self.log.begin_commit(overlap).is_none() {
            return false;
        }
        std::mem::swap(&mut self.building, &mut self.committing);
        true
    }

    /// While a commit is under way: answers of turns that appended nothing ride with it.
    pub(super) fn ride_along(&mut self) {
        if self.log.pending_bytes() == 0 {
            self.committing.append(&mut self.building);
        }
    }

    /// Nothing is pending and nothing under way: what was decided rests on what is durable.
    pub(super) fn answer_now(&mut self) {
        assert!(self.log.pending_bytes() == 0, "answers wait for what they rest on");
        assert!(self.log.durable() == self.log.last_appended(), "answers wait for what they rest on");
        let mut outbox = std::mem::take(&mut self.building);
        self.deliver(&mut outbox);
        self.building = outbox;
        // The last slices may have gone out after the last commit.
        self.snapshot_committed();
    }

    fn snapshot_committed(&mut self) {
        if self.snapshot.committed(self.log.durable()) {
            self.metrics.snapshots.add(1);
            self.metrics.snapshot_sequence.set(self.snapshot.covered());
        }
    }

    /// Steps 4, second half, to 6: durable; answer everyone, publish.
    pub(super) async fn finish_commit(&mut self) -> Result<(), journal::Error> {
        let committed = self.log.finish_commit().await?;
        // Before the answers: whoever has one finds it counted.
        self.measure(&committed);
        let mut outbox = std::mem::take(&mut self.committing);
        self.deliver(&mut outbox);
        self.committing = outbox;
        self.tail.publish(&committed, || self.log.committed_frame());
        self.metrics.published_sequence.set(self.tail.durable());
        self.snapshot.grew(committed.bytes);
        self.snapshot_committed();
        Ok(())
    }

    /// Once a commit: what the shard says of itself.
    fn measure(&mut self, committed: &Committed) {
        let metrics = &self.metrics;
        let events = (committed.last_sequence + 1).saturating_sub(committed.first_sequence);
        metrics.commits.increment();
        metrics.commit_bytes.add(committed.bytes);
        metrics.commit_events.record(events);
        metrics.commit_seconds.record_duration(self.commit_began.elapsed());
        metrics.events.add(events);
        let counters = self.engine.counters();
        let (now, then) = (&counters, &self.counted);
        let decided = [now.approved - then.approved, now.rejected - then.rejected, now.expired - then.expired];
        decided.iter().enumerate().for_each(|(at, more)| metrics.decided[at].add(*more as u64));
        metrics.journal_bytes.add(committed.bytes);
        show(metrics, &counters, &self.log);
        self.counted = counters;
    }

    fn deliver(&mut self, outbox: &mut Outbox) {
        // First all progress, then the wakes: a stream with many runs wakes its front once.
        for (stream, answer) in &mut outbox.runs {
            stream.answered(self.index, std::mem::take(answer));
        }
        for (stream, _) in outbox.runs.drain(..) {
            stream.wake_front();
        }
        if outbox.answers.len() <= HANDED_OUT_MAX {
            outbox.answers.drain(..).for_each(|answer| answer());
        } else {
            self.mailbox.send(std::mem::take(&mut outbox.answers));
        }
    }

    /// Time until something is due; `None`: nothing will be.
    pub(super) fn due_in(&mut self) -> Option<Duration> {
        let expiry = self.engine.next_deadline().map(|deadline| {
            let reading = self.read_clock();
            // A clock in doubt is looked at again every second.
            Duration::from_micros(if reading.trusted { deadline.since(reading.now) } else { Micros::SECOND })
        });
        expiry.into_iter().chain(self.eviction.due_in(&self.engine)).min()
    }
}

impl<S: Storage> Drop for Core<S> {
    /// A shard that goes away with work in its hands tells the streams that wait for it; unary
    /// callers see their slot dropped.
    fn drop(&mut self) {
        // Said before the ring is emptied: what is pushed behind that sees it (`Shards::ask`).
        self.gate.shard_gone(self.index);
        fence(Ordering::SeqCst);
        let outboxes = [std::mem::take(&mut self.building), std::mem::take(&mut self.committing)];
        for outbox in outboxes {
            outbox.runs.iter().for_each(|(stream, _)| stream.lose());
        }
        self.running.iter().for_each(|run| run.stream.lose());
        for work in self.stalled.take().into_iter().chain(std::iter::from_fn(|| self.ring.pop())) {
            match work {
                Work::Votes { stream, .. } | Work::Opens { stream, .. } => stream.lose(),
                Work::Ask { .. } => {}
            }
        }
        self.tail.close();
    }
}

/// What a work costs a turn beside the votes that it runs, in votes.
fn in_votes(work: &Work) -> usize {
    match work {
        Work::Votes { .. } => 1,
        Work::Opens { requests, .. } => requests.len() * 6,
        Work::Ask { .. } => 16,
    }
}

/// Gauges of what a shard holds.
fn show<S: Storage>(metrics: &ShardMetrics, counters: &Counters, log: &Log<S>) {
    metrics.pending.set(counters.pending as u64);
    metrics.in_memory.set(counters.approvals as u64);
    metrics.validators.set(counters.validators as u64);
    metrics.eligible_sets.set(counters.eligible_sets as u64);
    metrics.eligible_bytes.set(counters.eligible_set_bytes as u64);
    metrics.appended_sequence.set(log.last_appended());
    metrics.durable_sequence.set(log.durable());
}

fn at(reading: Reading) -> At {
    At { now: reading.now, expire: reading.trusted }
}

/// The same allocation for commands that borrow from the next batch.
fn recycled<'a>(mut commands: Vec<VoteCommand<'_>>) -> Vec<VoteCommand<'a>> {
    commands.clear();
    // Collecting a Vec's own iterator in place keeps its allocation; nothing is ever mapped.
    commands.into_iter().map(|_| unreachable!("cleared")).collect()
}

fn refuse_all(source: &mut dyn CommandSource, first_item: u64, refusal: &Refusal, answer: &mut RunAnswer) {
    // A selection of a batch has gaps: only its own items are refused, so they must be decoded.
    let mut commands = Vec::new();
    let mut bad = Vec::new();
    source.fill(usize::MAX, &mut commands, &mut bad);
    let mut items: Vec<u32> = commands.iter().map(|command| command.item).chain(bad.iter().map(|bad| bad.0)).collect();
    items.sort_unstable();
    items.into_iter().for_each(|item| answer.refused(first_item + u64::from(item), refusal.reason()));
}

/// Puts the engine's events into the journal, and a run's answers into its list.
struct Sink<'a, S: Storage> {
    log: &'a mut Log<S>,
    log_ordinal: u16,
    /// For records of no fixed size.
    scratch: &'a mut Vec<u8>,
    ids: &'a IdFilter,
    run: Option<(&'a mut RunAnswer, u64, &'a ShardMetrics)>,
}

impl<S: Storage> EventSink for Sink<'_, S> {
    fn segment(&self) -> u64 {
        self.log.segment()
    }

    fn define_validator(&mut self, number: ValidatorRef, name: &str) {
        self.note(|out| codec::encode_define_validator(number, name, out));
    }

    fn define_requester(&mut self, number: RequesterRef, id: &RequesterId) {
        self.note(|out| codec::encode_define_requester(number, id, out));
    }

    fn define_set(&mut self, number: SetRef, digest: &[u8; 32], members: &[ValidatorRef]) {
        self.note(|out| codec::encode_define_set(number, digest, members, out));
    }

    fn append(&mut self, event: &Event<'_>) -> EventRef {
        self.scratch.clear();
        codec::encode_event(event, self.scratch);
        EventRef::new(self.log_ordinal, self.log.append_event(self.scratch))
    }

    #[inline(always)]
    fn append_vote(&mut self, vote: &PlainVote) -> EventRef {
        let buffer = self.log.event_buffer(codec::PLAIN_VOTE_BYTES);
        codec::encode_vote_plain(vote, buffer.try_into().expect("as long as asked for"));
        EventRef::new(self.log_ordinal, self.log.commit_event(codec::PLAIN_VOTE_BYTES))
    }
}

impl<S: Storage> Sink<'_, S> {
    fn note(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        self.scratch.clear();
        encode(self.scratch);
        self.log.append_note(self.scratch);
    }
}

impl<S: Storage> VoteSink for Sink<'_, S> {
    #[inline(always)]
    fn answer(&mut self, item: u32, answer: VoteAnswer) {
        let (run, first_item, metrics) = self.run.as_mut().expect("votes come in runs");
        match answer {
            VoteAnswer::Accepted(outcome) => run.accepted(outcome),
            VoteAnswer::Repeat => run.totals.repeats += 1,
            VoteAnswer::Refused(refusal) => {
                metrics.votes_refused.add(refusal.reason().number(), 1);
                run.refused(*first_item + u64::from(item), refusal.reason());
            }
        }
    }

    #[cold]
    fn absent(&self, approval: &ApprovalId) -> Refusal {
        self.ids.absent(approval)
    }
}
