//! A lane: one connection's share of the work. It says what to send next and when, remembers what
//! is in flight, and takes the answers. One lock a message, nothing a vote.

use super::events::{Answer, Answers};
use super::mixed::{Drawn, Sequence};
use super::scheme::Scheme;
use super::timeline::{Clock, Latencies, Recorder, Timeline, latencies};
use super::track::{Slice, Track, TrackKind};
use crate::model::Reason;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Reasons are numbered below this (RefusalReason): 0 is none, and what a newer node may say has the last place.
pub const REASONS: usize = Reason::ALL.len() + 2;

/// How a lane cuts and meters its work.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// Items of a slice.
    pub slice: u32,
    /// A slice may be smaller where less room is left (one item a message).
    pub partial: bool,
    /// Items in flight.
    pub in_flight: u64,
    /// Open loop: one slice (in lifecycle: one round) each interval, the first after the offset.
    pub pace: Option<Pace>,
    /// At most this many items (in lifecycle: approvals).
    pub count: Option<u64>,
    /// All votes on an approval were sent when this validator's were (lifecycle).
    pub last_validator: Option<u16>,
}

#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub interval: Duration,
    pub offset: Duration,
}

/// What all lanes of a phase share.
#[derive(Debug)]
pub struct Phase {
    pub scheme: Arc<Scheme>,
    pub clock: Clock,
    pub stop: AtomicBool,
    pub timeline: Timeline,
    /// Votes that counted and approvals opened, so far.
    pub votes: AtomicU64,
    pub opens: AtomicU64,
    /// Items answered, refused ones included.
    pub answers: AtomicU64,
    /// Where answers are noted for a watcher.
    pub watched: Option<Arc<Answers>>,
}

impl Phase {
    pub fn new(scheme: Arc<Scheme>, clock: Clock) -> Phase {
        Phase {
            scheme,
            clock,
            stop: AtomicBool::new(false),
            timeline: Timeline::default(),
            votes: AtomicU64::new(0),
            opens: AtomicU64::new(0),
            answers: AtomicU64::new(0),
            watched: None,
        }
    }
}

/// In which order the tracks are worked on.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// A slice of each in turn, until all are done.
    RoundRobin,
    /// Rounds: a slice of the first (opens), then one of each other (votes on the oldest).
    Rounds,
    /// Rounds: the votes of a slice are drawn; the approvals among them that are not open are opened
    /// first (the first track), then the votes are sent (the second).
    Drawn,
}

#[derive(Debug)]
pub struct Lane {
    phase: Arc<Phase>,
    cut: Cut,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    tracks: Vec<Track>,
    order: Order,
    /// Mode mixed: where the votes come from, and those of the current round.
    sequence: Option<Sequence>,
    drawn: Vec<Drawn>,
    cursor: usize,
    /// Tracks left in the current round.
    planned: VecDeque<u32>,
    round_started: Option<Instant>,
    /// Approvals opened in the current round: as many of the oldest are voted on.
    round_count: u32,
    units: u64,
    taken: u64,
    flights: VecDeque<Flight>,
    in_flight: u64,
    /// `None` was given for a task: there is no more.
    all_sent: bool,
    next_item: u64,
    acked_through: u64,
    waiting: VecDeque<Waker>,
    recorder: Recorder,
    lag: Latencies,
    tally: LaneTally,
}

/// Counts of a lane, of its whole phase.
#[derive(Clone, Copy, Debug, Default)]
pub struct LaneTally {
    pub votes_sent: u64,
    pub votes_accepted: u64,
    pub opens_sent: u64,
    pub opens_accepted: u64,
    pub votes_refused: [u64; REASONS],
    pub opens_refused: [u64; REASONS],
    /// Unary calls that answered `repeat`: a vote that stood before this run.
    pub repeats: u64,
    pub last_answer: Option<Instant>,
}

impl LaneTally {
    pub fn add(&mut self, other: &LaneTally) {
        self.votes_sent += other.votes_sent;
        self.votes_accepted += other.votes_accepted;
        self.opens_sent += other.opens_sent;
        self.opens_accepted += other.opens_accepted;
        self.votes_refused.iter_mut().zip(other.votes_refused).for_each(|(sum, count)| *sum += count);
        self.opens_refused.iter_mut().zip(other.opens_refused).for_each(|(sum, count)| *sum += count);
        self.repeats += other.repeats;
        self.last_answer = self.last_answer.max(other.last_answer);
    }
}

/// Items sent on a stream and not yet acknowledged.
#[derive(Clone, Copy, Debug)]
struct Flight {
    first: u64,
    slice: Slice,
    started: Instant,
    /// Refused of those not yet acknowledged.
    refused: u32,
}

/// What a lane says when asked for work.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    pub slice: Slice,
    /// When it was due (open loop), or now.
    pub started: Instant,
}

/// An answer that does not fit what was sent: the run is void.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum ProtocolError {
    #[error("the node acknowledged item {0}, of {1} sent")]
    AckedUnsent(u64, u64),
    #[error("acked_through went back from {0} to {1}")]
    AckedBack(u64, u64),
    #[error("the node refused item {0} outside of what it acknowledges with that ({1}..{2})")]
    RefusedOutside(u64, u64, u64),
}

impl Lane {
    pub fn new(phase: Arc<Phase>, cut: Cut, order: Order, tracks: Vec<Track>) -> Lane {
        let drawn = tracks.iter().find_map(|track| match track.kind {
            TrackKind::Drawn { pool } => Some((track.block, pool, track.sent)),
            TrackKind::Open | TrackKind::Vote { .. } => None,
        });
        let sequence = drawn.map(|(block, pool, sent)| {
            let mut sequence = Sequence::new(&phase.scheme, block, pool);
            // What a reused ledger has sent.
            (0..sent).for_each(|_| {
                sequence.draw(&phase.scheme);
            });
            sequence
        });
        let state = State {
            tracks,
            order,
            sequence,
            drawn: Vec::new(),
            cursor: 0,
            planned: VecDeque::new(),
            round_started: None,
            round_count: 0,
            units: 0,
            taken: 0,
            flights: VecDeque::new(),
            in_flight: 0,
            all_sent: false,
            next_item: 0,
            acked_through: 0,
            waiting: VecDeque::new(),
            recorder: Recorder::default(),
            lag: latencies(),
            tally: LaneTally::default(),
        };
        Lane { phase, cut, state: Mutex::new(state) }
    }

    pub fn scheme(&self) -> &Scheme {
        &self.phase.scheme
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    /// The next slice to send, once there is room and it is due; `None` when there is no more. On a
    /// stream the slice is in flight from here on.
    pub fn poll_task(&self, cx: &mut Context<'_>) -> Poll<Option<Task>> {
        let now = Instant::now();
        let state = &mut *self.state();
        let ended = self.phase.clock.end().is_some_and(|end| now >= end);
        if ended || self.phase.stop.load(Ordering::Relaxed) {
            state.all_sent = true;
            return Poll::Ready(None);
        }
        let room = self.cut.in_flight - state.in_flight.min(self.cut.in_flight);
        let Some((track, wanted)) = state.peek(&self.cut, &self.phase.scheme) else {
            state.all_sent = true;
            return Poll::Ready(None);
        };
        // Opens of a drawn round come to what its votes need: that may be more than has room at once.
        let partial = self.cut.partial || matches!(state.order, Order::Drawn) && track == 0;
        let count = if partial { u64::from(wanted).min(room) } else { u64::from(wanted) };
        let mut started = now;
        let starts_unit = state.planned.is_empty() || state.round_started.is_none();
        if let Some(pace) = self.cut.pace {
            if starts_unit {
                started = self.phase.clock.start + pace.offset + pace.interval.mul_f64(state.units as f64);
            } else if let Some(round) = state.round_started {
                started = round;
            }
        }
        if count == 0 || count > room || started > now {
            state.wait(cx.waker());
            return Poll::Pending;
        }
        if starts_unit {
            state.units += 1;
            state.lag.record(micros(now - started)).expect(RESIZES);
        }
        let slice = state.take(track, count as u32, started).expect("peeked");
        state.in_flight += u64::from(slice.count);
        match slice.kind {
            TrackKind::Open => state.tally.opens_sent += u64::from(slice.count),
            TrackKind::Vote { .. } | TrackKind::Drawn { .. } => state.tally.votes_sent += u64::from(slice.count),
        }
        Poll::Ready(Some(Task { slice, started }))
    }

    /// The votes of a drawn slice that was just given.
    pub fn drawn(&self) -> Vec<Drawn> {
        std::mem::take(&mut self.state().drawn)
    }

    /// A task's items go onto the lane's stream now, in this order.
    pub fn on_stream(&self, task: Task) {
        let state = &mut *self.state();
        state.flights.push_back(Flight {
            first: state.next_item,
            slice: task.slice,
            started: task.started,
            refused: 0,
        });
        state.next_item += u64::from(task.slice.count);
    }

    /// The stream's answer: every item below `through` is decided; these (item, reason) refused.
    pub fn acked(&self, through: u64, refusals: &[(u64, u8)]) -> Result<(), ProtocolError> {
        let now = Instant::now();
        let state = &mut *self.state();
        if through > state.next_item {
            return Err(ProtocolError::AckedUnsent(through, state.next_item));
        }
        if through < state.acked_through {
            return Err(ProtocolError::AckedBack(state.acked_through, through));
        }
        let mut at = 0;
        for (item, reason) in refusals {
            if !(state.acked_through..through).contains(item) {
                return Err(ProtocolError::RefusedOutside(*item, state.acked_through, through));
            }
            // Ascending: the flight is this one or a later one.
            while state.flights[at].first + u64::from(state.flights[at].slice.count) <= *item {
                at += 1;
            }
            let flight = &mut state.flights[at];
            flight.refused += 1;
            let (slice, position) = (flight.slice, flight.slice.start + (item - flight.first));
            state.refuse(&slice, position, *reason);
        }
        state.acked_through = through;
        while let Some(flight) = state.flights.front_mut() {
            let acked = through.saturating_sub(flight.first).min(u64::from(flight.slice.count)) as u32;
            if acked == 0 {
                break;
            }
            let done = *flight;
            let refused = std::mem::take(&mut flight.refused);
            flight.first += u64::from(acked);
            flight.slice.start += u64::from(acked);
            flight.slice.count -= acked;
            if flight.slice.count == 0 {
                state.flights.pop_front();
            }
            state.in_flight -= u64::from(acked);
            self.settle(state, &Slice { count: acked, ..done.slice }, done.started, refused, now);
        }
        state.wake(usize::MAX);
        Ok(())
    }

    /// A call's answer: the whole slice is decided; these (offset in it, reason) refused.
    pub fn answered(&self, task: Task, refusals: &[(u64, u8)], repeats: u64) {
        let now = Instant::now();
        let state = &mut *self.state();
        for (offset, reason) in refusals {
            state.refuse(&task.slice, task.slice.start + offset, *reason);
        }
        state.tally.repeats += repeats;
        state.in_flight -= u64::from(task.slice.count);
        // Nobody waits for this room: there are as many calls as have room, and this one asks next.
        self.settle(state, &task.slice, task.started, refusals.len() as u32, now);
    }

    /// A call's answer never came: its items may count or not.
    pub fn unanswered(&self, task: Task) {
        let state = &mut *self.state();
        state.lose(&task.slice);
        state.in_flight -= u64::from(task.slice.count);
    }

    fn settle(&self, state: &mut State, slice: &Slice, started: Instant, refused: u32, now: Instant) {
        let count = u64::from(slice.count);
        let accepted = count - u64::from(refused);
        if let Some(answers) = &self.phase.watched {
            answers.note(Answer { slice: *slice, refused, started, answered: now });
        }
        let interval = state.recorder.at(&self.phase.clock, now, &self.phase.timeline);
        interval.refused += u64::from(refused);
        self.phase.answers.fetch_add(count, Ordering::Relaxed);
        match slice.kind {
            TrackKind::Open => {
                interval.opens += accepted;
                state.tally.opens_accepted += accepted;
                self.phase.opens.fetch_add(accepted, Ordering::Relaxed);
            }
            TrackKind::Vote { .. } | TrackKind::Drawn { .. } => {
                interval.votes += accepted;
                let last = matches!(slice.kind, TrackKind::Vote { validator, .. } if self.cut.last_validator == Some(validator));
                interval.decided += if last { count } else { 0 };
                state.tally.votes_accepted += accepted;
                self.phase.votes.fetch_add(accepted, Ordering::Relaxed);
            }
        }
        // Where both are sent, latency is that of the votes.
        if matches!(state.order, Order::RoundRobin) || slice.kind != TrackKind::Open {
            let latency = micros(now.saturating_duration_since(started));
            interval.latencies.record_n(latency, count).expect(RESIZES);
        }
        state.tally.last_answer = Some(now);
    }

    pub fn is_paced(&self) -> bool {
        self.cut.pace.is_some()
    }

    /// Wakes what waits for its time.
    pub fn due(&self, now: Instant) {
        let Some(pace) = self.cut.pace else { return };
        let state = &mut *self.state();
        let since = now.saturating_duration_since(self.phase.clock.start + pace.offset);
        let due = (since.as_secs_f64() / pace.interval.as_secs_f64()) as u64 + 1;
        state.wake(due.saturating_sub(state.units) as usize);
    }

    /// Wakes everything that waits: the phase stops.
    pub fn stop(&self) {
        self.state().wake(usize::MAX);
    }

    /// Ends the phase for this lane: what is in flight stays unknown.
    pub fn finish(&self) -> (Vec<Track>, LaneTally, Latencies) {
        let state = &mut *self.state();
        for flight in std::mem::take(&mut state.flights) {
            state.lose(&flight.slice);
        }
        state.recorder.flush(&self.phase.timeline);
        (std::mem::take(&mut state.tracks), state.tally, state.lag.clone())
    }

    /// Whether everything was sent that is to be sent.
    pub fn all_sent(&self) -> bool {
        self.state().all_sent
    }

    /// How many items wait for an answer.
    pub fn in_flight(&self) -> u64 {
        self.state().in_flight
    }
}

/// Saturating calls would not.
const RESIZES: &str = "a histogram that resizes takes any value";

fn micros(duration: Duration) -> u64 {
    duration.as_micros() as u64
}

impl State {
    /// The track that is next, and how many items of it.
    fn peek(&mut self, cut: &Cut, scheme: &Scheme) -> Option<(u32, u32)> {
        let left = cut.count.map_or(u64::MAX, |count| count.saturating_sub(self.taken));
        let wanted = |track: &Track| (track.to - track.sent).min(u64::from(cut.slice));
        match self.order {
            Order::RoundRobin => {
                let tracks = self.tracks.len();
                let at = (0..tracks)
                    .map(|step| (self.cursor + step) % tracks)
                    .find(|at| self.tracks[*at].sent < self.tracks[*at].to)?;
                self.cursor = at;
                let wanted = wanted(&self.tracks[at]).min(left) as u32;
                (wanted > 0).then_some((at as u32, wanted))
            }
            Order::Rounds => {
                if self.planned.is_empty() {
                    if left == 0 || wanted(&self.tracks[0]) == 0 {
                        return None;
                    }
                    self.planned = (0..self.tracks.len() as u32).collect();
                    self.round_started = None;
                }
                let track = self.planned[0];
                let limit = if track == 0 { left } else { self.round_count.into() };
                Some((track, wanted(&self.tracks[track as usize]).min(limit) as u32))
            }
            Order::Drawn => {
                let sequence = self.sequence.as_mut().filter(|sequence| !sequence.is_empty())?;
                if self.planned.is_empty() {
                    let count = wanted(&self.tracks[1]).min(left);
                    if count == 0 {
                        return None;
                    }
                    self.drawn = (0..count).map(|_| sequence.draw(scheme)).collect();
                    let opens = self.tracks[0].sent < sequence.opened();
                    self.planned = if opens { [0, 1].into() } else { [1].into() };
                    self.round_started = None;
                }
                Some(match self.planned[0] {
                    0 => (0, (sequence.opened() - self.tracks[0].sent) as u32),
                    votes => (votes, self.drawn.len() as u32),
                })
            }
        }
    }

    fn take(&mut self, track: u32, count: u32, started: Instant) -> Option<Slice> {
        let slice = self.tracks[track as usize].take(track, count)?;
        match self.order {
            Order::RoundRobin => {
                self.cursor = (track as usize + 1) % self.tracks.len();
                self.taken += u64::from(slice.count);
            }
            Order::Rounds => {
                if track == 0 {
                    self.taken += u64::from(slice.count);
                    self.round_count = slice.count;
                }
                self.planned.pop_front();
                self.round_started = Some(started);
            }
            Order::Drawn => {
                let opened = self.sequence.as_ref().map_or(0, Sequence::opened);
                if track > 0 {
                    self.taken += u64::from(slice.count);
                }
                if track > 0 || self.tracks[0].sent >= opened {
                    self.planned.pop_front();
                }
                self.round_started = Some(started);
            }
        }
        Some(slice)
    }

    fn refuse(&mut self, slice: &Slice, position: u64, reason: u8) {
        self.tracks[slice.track as usize].refused.insert(position);
        let reason = usize::from(reason).min(REASONS - 1);
        match slice.kind {
            TrackKind::Open => self.tally.opens_refused[reason] += 1,
            TrackKind::Vote { .. } | TrackKind::Drawn { .. } => self.tally.votes_refused[reason] += 1,
        }
    }

    fn lose(&mut self, slice: &Slice) {
        let unknown = &mut self.tracks[slice.track as usize].unknown;
        (slice.start..slice.start + u64::from(slice.count)).for_each(|position| {
            unknown.insert(position);
        });
    }

    fn wait(&mut self, waker: &Waker) {
        if !self.waiting.back().is_some_and(|last| last.will_wake(waker)) {
            self.waiting.push_back(waker.clone());
        }
    }

    fn wake(&mut self, count: usize) {
        let count = count.min(self.waiting.len());
        self.waiting.drain(..count).for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::scheme::Mix;

    fn lane(cut: Cut, order: Order, tracks: Vec<Track>) -> Lane {
        let scheme = Arc::new(Scheme::new(1, 0, 1_000, 3, 2, 0, Mix::DEFAULT));
        let clock = Clock { start: Instant::now(), warmup: Duration::ZERO, duration: None };
        Lane::new(Arc::new(Phase::new(scheme, clock)), cut, order, tracks)
    }

    fn cut(slice: u32, in_flight: u64) -> Cut {
        Cut { slice, partial: false, in_flight, pace: None, count: None, last_validator: None }
    }

    fn votes(validator: u16, to: u64) -> Track {
        Track::new(TrackKind::Vote { validator, shuffled: true }, 0, 0, to)
    }

    fn next(lane: &Lane) -> Option<Option<(u32, u64, u32)>> {
        match lane.poll_task(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => None,
            Poll::Ready(task) => Some(task.map(|task| {
                lane.on_stream(task);
                (task.slice.track, task.slice.start, task.slice.count)
            })),
        }
    }

    #[test]
    fn validators_take_turns_within_the_room_in_flight() {
        let lane = lane(cut(10, 30), Order::RoundRobin, vec![votes(0, 15), votes(1, 12)]);
        assert_eq!(next(&lane), Some(Some((0, 0, 10))));
        assert_eq!(next(&lane), Some(Some((1, 0, 10))));
        assert_eq!(next(&lane), Some(Some((0, 10, 5))));
        assert_eq!(next(&lane), Some(Some((1, 10, 2))));
        assert_eq!(next(&lane), Some(None), "all is sent");
        lane.acked(27, &[(3, 4), (21, 4)]).expect("legal");
        let (tracks, tally, _) = lane.finish();
        assert_eq!((tally.votes_sent, tally.votes_accepted, tally.votes_refused[4]), (27, 25, 2));
        assert!(tracks[0].refused.contains(3) && tracks[0].refused.contains(11) && tracks[1].refused.is_empty());
    }

    #[test]
    fn a_full_lane_waits_and_what_is_in_flight_at_the_end_is_unknown() {
        let lane = lane(cut(10, 20), Order::RoundRobin, vec![votes(0, 100)]);
        assert!(next(&lane).is_some() && next(&lane).is_some());
        assert_eq!(next(&lane), None);
        lane.acked(13, &[(12, 1)]).expect("legal");
        assert_eq!(next(&lane), Some(Some((0, 20, 10))));
        let (tracks, tally, _) = lane.finish();
        assert_eq!(tracks[0].unknown.iter().collect::<Vec<_>>(), (13..30).collect::<Vec<_>>());
        assert_eq!((tracks[0].acknowledged(), tally.votes_accepted), (12, 12));
    }

    #[test]
    fn answers_that_do_not_fit_are_errors() {
        let lane = lane(cut(10, 20), Order::RoundRobin, vec![votes(0, 100)]);
        next(&lane);
        assert_eq!(lane.acked(11, &[]), Err(ProtocolError::AckedUnsent(11, 10)));
        lane.acked(5, &[]).expect("legal");
        assert_eq!(lane.acked(4, &[]), Err(ProtocolError::AckedBack(5, 4)));
        assert_eq!(lane.acked(6, &[(4, 1)]), Err(ProtocolError::RefusedOutside(4, 5, 6)));
        assert_eq!(lane.acked(6, &[(6, 1)]), Err(ProtocolError::RefusedOutside(6, 5, 6)));
    }

    #[test]
    fn lifecycle_rounds_open_and_vote_on_the_oldest() {
        let mut open = Track::new(TrackKind::Open, 0, 0, 1 << 32);
        open.take(0, 100);
        let vote = |validator| Track::new(TrackKind::Vote { validator, shuffled: false }, 0, 0, 1 << 32);
        let mut cut = cut(10, 1_000);
        cut.count = Some(15);
        let lane = lane(cut, Order::Rounds, vec![open, vote(0), vote(1)]);
        let sent: Vec<_> = std::iter::from_fn(|| next(&lane).flatten()).collect();
        assert_eq!(sent[..3], [(0, 100, 10), (1, 0, 10), (2, 0, 10)]);
        assert_eq!(sent[3..], [(0, 110, 5), (1, 10, 5), (2, 10, 5)], "15 approvals in all");
    }

    #[test]
    fn latencies_of_any_length_are_kept() {
        let lane = lane(cut(10, 30), Order::RoundRobin, vec![votes(0, 100)]);
        let Poll::Ready(Some(mut task)) = lane.poll_task(&mut Context::from_waker(Waker::noop())) else {
            panic!("there is work");
        };
        task.started -= Duration::from_secs(5);
        lane.answered(task, &[], 0);
        lane.finish();
        let seconds = lane.phase.timeline.take();
        assert!(seconds[0].latencies.max() >= 5_000_000 && seconds[0].latencies.len() == 10);
    }

    #[test]
    fn paced_work_starts_when_it_is_due() {
        let mut cut = cut(1, 1_000);
        cut.pace = Some(Pace { interval: Duration::from_secs(3_600), offset: Duration::ZERO });
        let lane = lane(cut, Order::RoundRobin, vec![votes(0, 100)]);
        assert!(next(&lane).is_some_and(|task| task.is_some()), "the first is due at the start");
        assert_eq!(next(&lane), None, "the second in an hour");
    }
}
