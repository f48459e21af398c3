//! Commands: judge, hand the event to the sink, apply it. The same two halves as everywhere.

use super::decide::VoteDecision;
use super::{Clock, Engine};
use crate::model::codec::{
    DEFINE_REQUESTER_BYTES, DEFINE_VALIDATOR_BYTES_MAX, EXPIRED_BYTES_MAX, OPENED_BYTES_MAX, define_set_bytes,
};
use crate::model::{
    ApprovalId, ApprovalState, Decided, EligibleSet, Event, EventKind, EventRef, EventSink, Expired, Micros,
    OpenRequest, Opened, Outcome, PlainVote, Refusal, RequesterRef, SetRef, Tally, ValidatorRef, VoteAnswer,
    VoteCommand, Voted, codec,
};

/// Journal bytes that a vote may need, definitions included. (An overdue approval's vote makes its
/// Expired event instead, which is smaller.)
pub const VOTE_BYTES_MAX: usize = codec::VOTE_BYTES_MAX + DEFINE_VALIDATOR_BYTES_MAX + DEFINE_REQUESTER_BYTES;
/// Journal bytes that an expiry may need.
pub const EXPIRY_BYTES_MAX: usize = EXPIRED_BYTES_MAX + DEFINE_REQUESTER_BYTES;

const _: () = assert!(EXPIRY_BYTES_MAX < VOTE_BYTES_MAX && EXPIRY_BYTES_MAX < OPENED_BYTES_MAX + 512);

/// Journal bytes that an opening may need, definitions included, or the expiry that a repeat of it
/// may find.
pub fn opening_bytes_max(request: &OpenRequest) -> usize {
    let set = request.eligible.as_ref().map_or(0, |set| {
        let names: usize = set.members.iter().map(|member| 6 + member.as_str().len()).sum();
        names + define_set_bytes(set.members.len())
    });
    (OPENED_BYTES_MAX + DEFINE_REQUESTER_BYTES + request.content.len() + set).max(EXPIRY_BYTES_MAX)
}

impl Engine {
    /// Opens an approval, or answers a repeat of its request (true) with how it stands.
    /// `allowed` refuses new ones (clock in doubt, no space, stopping), never repeats.
    pub fn open<S: EventSink>(
        &mut self,
        request: &OpenRequest,
        clock: Clock,
        allowed: Result<(), Refusal>,
        sink: &mut S,
    ) -> Result<(ApprovalState, bool), Refusal> {
        self.step(clock);
        let hash = self.key.hash(&request.id);
        if let Some(record) = self.find_hashed(hash, &request.id) {
            self.expire_if_overdue(record, clock, sink);
            return match self.records.cold(record).digest == request.digest {
                true => Ok((self.state_of(record), true)),
                false => Err(Refusal::IdTaken),
            };
        }
        allowed?;
        let expires_at = self.judge_opening(request, clock.now)?;
        let segment = sink.segment();
        let requester = self.requesters.intern(&request.requester);
        self.define_requester_slow(requester, segment, sink);
        let eligible = request.eligible.as_ref().map(|set| self.define_set(set, segment, sink));
        let opened = Opened {
            approval_type: request.approval_type,
            priority: request.priority,
            requester: RequesterRef(requester),
            content_hash: request.content_hash.clone(),
            required: request.required,
            total: request.total,
            created_at: clock.now,
            expires_at,
            eligible,
            digest: request.digest,
            content: &request.content,
        };
        let event = Event { approval: request.id, previous: EventRef::NONE, kind: EventKind::Opened(opened) };
        let at = sink.append(&event);
        let EventKind::Opened(opened) = &event.kind else { unreachable!("made above") };
        let record = self.apply_opened(hash, &request.id, opened, at);
        self.records.hot_mut(record).requester_defined = super::record::segment_mark(segment);
        Ok((self.state_of(record), false))
    }

    /// The number of a set, which is defined in this segment from here on, its members before it.
    fn define_set<S: EventSink>(&mut self, set: &EligibleSet, segment: u64, sink: &mut S) -> SetRef {
        let number = match self.sets.find(&set.digest) {
            Some(number) => number,
            None => {
                let members = set.members.iter().map(|name| self.validators.intern(name.as_str())).collect();
                self.sets.add(set.digest, members, &mut self.validators)
            }
        };
        if self.sets.define_in(number, segment) {
            let members = &self.sets.get(number).members;
            for member in members {
                if self.validators.define_in(*member, segment) {
                    sink.define_validator(*member, self.validators.name(*member));
                }
            }
            sink.define_set(SetRef(number), &set.digest, members);
        }
        SetRef(number)
    }

    /// Takes one vote, and answers with how the approval then stands (`None`: not in memory).
    pub fn vote<S: EventSink>(
        &mut self,
        command: &VoteCommand<'_>,
        clock: Clock,
        sink: &mut S,
    ) -> (VoteAnswer, Option<ApprovalState>) {
        self.step(clock);
        let Some(record) = self.find(&command.approval) else {
            return (VoteAnswer::Refused(Refusal::NotFound), None);
        };
        let mut validator = self.validators.find(command.validator);
        let answer = self.count_vote(record, &mut validator, command, clock, sink);
        (answer, Some(self.state_of(record)))
    }

    /// Judges a vote on a record and counts it. `validator` is the number of the name, if it has one,
    /// and is set when this vote gives it one.
    #[inline(always)]
    pub(super) fn count_vote<S: EventSink>(
        &mut self,
        record: u32,
        validator: &mut Option<ValidatorRef>,
        command: &VoteCommand<'_>,
        clock: Clock,
        sink: &mut S,
    ) -> VoteAnswer {
        match self.judge_vote(record, *validator, command, clock) {
            VoteDecision::Counts { tally, outcome } => {
                let number = match *validator {
                    Some(number) => number,
                    None => *validator.insert(self.validators.intern(command.validator)),
                };
                let segment = sink.segment();
                if self.validators.define_in(number, segment) {
                    sink.define_validator(number, command.validator);
                }
                self.define_requester(record, segment, sink);
                let hot = self.records.hot(record);
                let plain = PlainVote {
                    approval: hot.id,
                    previous: hot.last_event,
                    validator: number,
                    decision: command.decision,
                    approval_type: hot.approval_type(),
                    priority: hot.priority(),
                    requester: RequesterRef(hot.requester),
                    tally,
                };
                if outcome.is_none() && command.extras.is_none() {
                    let at = sink.append_vote(&plain);
                    self.apply_vote(record, number, command.decision, tally, at);
                } else {
                    self.count_vote_slow(record, &plain, outcome, command, clock.now, sink);
                }
                VoteAnswer::Accepted(outcome)
            }
            VoteDecision::Repeat => VoteAnswer::Repeat,
            VoteDecision::Refused(refusal) => VoteAnswer::Refused(refusal),
            VoteDecision::Expires => {
                self.expire(record, clock.now, sink);
                match self.judge_vote(record, *validator, command, clock) {
                    VoteDecision::Repeat => VoteAnswer::Repeat,
                    VoteDecision::Refused(refusal) => VoteAnswer::Refused(refusal),
                    VoteDecision::Counts { .. } | VoteDecision::Expires => unreachable!("it has expired"),
                }
            }
        }
    }

    /// A vote that decides, or has extras.
    #[inline(never)]
    fn count_vote_slow<S: EventSink>(
        &mut self,
        record: u32,
        plain: &PlainVote,
        outcome: Option<Outcome>,
        command: &VoteCommand<'_>,
        now: Micros,
        sink: &mut S,
    ) {
        let (reason, signature) = match &command.extras {
            Some(extras) => (&*extras.reason, &*extras.signature),
            None => ("", [].as_slice()),
        };
        let event = Event {
            approval: plain.approval,
            previous: plain.previous,
            kind: EventKind::Voted(Voted {
                validator: plain.validator,
                decision: plain.decision,
                approval_type: plain.approval_type,
                priority: plain.priority,
                requester: plain.requester,
                tally: plain.tally,
                reason,
                signature,
                decided: outcome.map(|outcome| Box::new(self.decided(record, outcome, now))),
            }),
        };
        let at = sink.append(&event);
        self.apply_found(record, &event, at);
    }

    /// A read of an approval: makes it Expired if it is overdue. False: not in memory.
    pub fn touch<S: EventSink>(&mut self, id: &ApprovalId, clock: Clock, sink: &mut S) -> bool {
        self.step(clock);
        match self.find(id) {
            Some(record) => {
                self.expire_if_overdue(record, clock, sink);
                true
            }
            None => false,
        }
    }

    /// Expires what is due, in at most `max` steps (1,024 are well under a millisecond); answers how
    /// many expired. There is more to do while [`Engine::next_deadline`] is not ahead of the clock.
    pub fn expire_due<S: EventSink>(&mut self, clock: Clock, max: usize, sink: &mut S) -> usize {
        self.step(clock);
        if !clock.expire {
            return 0;
        }
        let mut due = std::mem::take(&mut self.due);
        let records = &self.records;
        self.timers.take_due(clock.now.0, max, |record| records.hot(record).expires_at.0, &mut due);
        const AHEAD: usize = 8;
        for (at, record) in due.iter().enumerate() {
            if let Some(ahead) = due.get(at + AHEAD) {
                self.records.prefetch_hot(*ahead);
                self.records.prefetch_cold(*ahead);
            }
            let event = self.expired_event(*record, clock.now, sink);
            self.records.hot_mut(*record).last_event = sink.append(&event);
            self.apply_outcome(*record, Outcome::Expired, clock.now);
        }
        let count = due.len();
        due.clear();
        self.due = due;
        count
    }

    /// When [`Engine::expire_due`] has work again: never later than the next expiry. It may be
    /// earlier, for upkeep, a handful of times in an approval's life.
    pub fn next_deadline(&self) -> Option<Micros> {
        self.timers.next_deadline().map(Micros)
    }

    fn expire_if_overdue<S: EventSink>(&mut self, record: u32, clock: Clock, sink: &mut S) {
        if self.is_overdue(record, clock) {
            self.expire(record, clock.now, sink);
        }
    }

    #[cold]
    fn expire<S: EventSink>(&mut self, record: u32, now: Micros, sink: &mut S) {
        let event = self.expired_event(record, now, sink);
        let at = sink.append(&event);
        self.apply_found(record, &event, at);
    }

    fn expired_event<S: EventSink>(&mut self, record: u32, now: Micros, sink: &mut S) -> Event<'static> {
        let segment = sink.segment();
        self.define_requester(record, segment, sink);
        let decided = Box::new(self.decided(record, Outcome::Expired, now));
        let hot = self.records.hot(record);
        let tally: Tally = hot.tally();
        let expired = Expired {
            approval_type: hot.approval_type(),
            priority: hot.priority(),
            requester: RequesterRef(hot.requester),
            tally,
            decided,
        };
        Event { approval: hot.id, previous: hot.last_event, kind: EventKind::Expired(expired) }
    }

    fn decided(&self, record: u32, outcome: Outcome, now: Micros) -> Decided {
        let (hot, cold) = (self.records.hot(record), self.records.cold(record));
        Decided {
            outcome,
            content_hash: self.content_hash(record),
            required: hot.required,
            total: hot.total,
            created_at: cold.created_at,
            expires_at: hot.expires_at,
            finalized_at: now,
        }
    }
}
