//! The rules, read only: what would become of a command. Nothing here writes.

use super::{Clock, Engine, Limits, names, record::NO_SET, votes};
use crate::model::{
    ContentHash, Decision, EligibleSet, Micros, OpenRequest, Outcome, Refusal, Tally, ValidatorRef, VoteCommand,
};

/// What a vote would do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum VoteDecision {
    /// It counts; the tally after it, and the outcome if it decides.
    Counts {
        tally: Tally,
        outcome: Option<Outcome>,
    },
    /// The approval is overdue: it expires first, then the vote is judged again.
    Expires,
    /// It stands already, and says the same.
    Repeat,
    Refused(Refusal),
}

/// The tally after one vote more.
#[inline(always)]
pub(super) fn tally_after(mut tally: Tally, decision: Decision) -> Tally {
    match decision {
        Decision::Approved => tally.approvals += 1,
        Decision::Rejected => tally.rejections += 1,
        Decision::Abstain => tally.abstentions += 1,
    }
    tally
}

/// APPROVED at A = Q; REJECTED when N - R - B < Q, which no later vote can mend.
#[inline(always)]
pub(super) fn outcome_of(tally: Tally, required: u16, total: u16) -> Option<Outcome> {
    if tally.approvals >= required {
        return Some(Outcome::Approved);
    }
    let against = u32::from(tally.rejections) + u32::from(tally.abstentions);
    (u32::from(total) < u32::from(required) + against).then_some(Outcome::Rejected)
}

impl Engine {
    /// Judges a vote without counting it.
    pub fn decide_vote(&self, command: &VoteCommand<'_>, clock: Clock) -> VoteDecision {
        match self.find(&command.approval) {
            Some(record) => self.judge_vote(record, self.validators.find(command.validator), command, clock),
            None => VoteDecision::Refused(Refusal::NotFound),
        }
    }

    /// In the order of the rules: the first that applies answers.
    #[inline(always)]
    pub(super) fn judge_vote(
        &self,
        record: u32,
        validator: Option<ValidatorRef>,
        command: &VoteCommand<'_>,
        clock: Clock,
    ) -> VoteDecision {
        let hot = self.records.hot(record);
        if self.is_overdue(record, clock) {
            return VoteDecision::Expires;
        }
        if let Some(validator) = validator
            && let Some(standing) = votes::get(&self.blocks, hot, validator)
        {
            return match standing == command.decision {
                true => VoteDecision::Repeat,
                false => VoteDecision::Refused(Refusal::VoteStands(standing)),
            };
        }
        if let Some(outcome) = hot.status().outcome() {
            return VoteDecision::Refused(Refusal::ApprovalDecided(outcome));
        }
        if hot.set != NO_SET && !validator.is_some_and(|validator| self.sets.get(hot.set).contains(validator)) {
            return VoteDecision::Refused(Refusal::NotEligible);
        }
        if let Some(extras) = &command.extras
            && let Some(hash) = &extras.content_hash
            && !self.content_hash_is(record, hash)
        {
            return VoteDecision::Refused(Refusal::ContentHashMismatch);
        }
        let tally = tally_after(hot.tally(), command.decision);
        VoteDecision::Counts { tally, outcome: outcome_of(tally, hot.required, hot.total) }
    }

    #[inline(always)]
    pub(super) fn is_overdue(&self, record: u32, clock: Clock) -> bool {
        let hot = self.records.hot(record);
        hot.is_pending() && clock.now >= hot.expires_at && clock.expire
    }

    /// Judges the opening of an approval whose id is free; answers with when it will expire.
    pub(super) fn judge_opening(&self, request: &OpenRequest, now: Micros) -> Result<Micros, Refusal> {
        let limits = &self.limits;
        if request.content.len() > limits.content_bytes_max {
            return Err(Refusal::invalid("content", format!("is larger than {} bytes", limits.content_bytes_max)));
        }
        let expires_at = match request.expires_at {
            None => now.plus(limits.lifetime_default_us.min(limits.lifetime_max_us)),
            Some(at) if at <= now => return Err(Refusal::invalid("expires_at", "must lie ahead")),
            Some(at) if at.since(now) > limits.lifetime_max_us => {
                let seconds = limits.lifetime_max_us / Micros::SECOND;
                return Err(Refusal::invalid("expires_at", format!("lies more than {seconds} seconds ahead")));
            }
            Some(at) => at,
        };
        let counters = self.timers.len() + self.approved + self.rejected + self.expired;
        if counters >= limits.approvals_max {
            return Err(Refusal::LimitReached(Limits::APPROVALS_MAX));
        }
        match &request.eligible {
            Some(set) => self.judge_set(set)?,
            // Votes may bring names, and votes on what is open go on: so the opening is refused.
            None if self.validators.len() >= limits.validators_max => {
                return Err(Refusal::LimitReached(Limits::VALIDATORS_MAX));
            }
            None => {}
        }
        Ok(expires_at)
    }

    /// A known set brings nothing; a new one itself and the names that are new.
    fn judge_set(&self, set: &EligibleSet) -> Result<(), Refusal> {
        if self.sets.find(&set.digest).is_some() {
            return Ok(());
        }
        let limits = &self.limits;
        if self.sets.len() >= limits.eligible_sets_max {
            return Err(Refusal::LimitReached(Limits::ELIGIBLE_SETS_MAX));
        }
        if self.sets.bytes() + names::Set::bytes_max(set.members.len()) > limits.eligible_set_bytes_max {
            return Err(Refusal::LimitReached(Limits::ELIGIBLE_SET_BYTES_MAX));
        }
        let room = limits.validators_max.saturating_sub(self.validators.len());
        if set.members.len() > room {
            let new = set.members.iter().filter(|name| self.validators.find(name.as_str()).is_none()).count();
            if new > room {
                return Err(Refusal::LimitReached(Limits::VALIDATORS_MAX));
            }
        }
        Ok(())
    }

    fn content_hash_is(&self, record: u32, hash: &ContentHash) -> bool {
        let (hot, cold) = (self.records.hot(record), self.records.cold(record));
        match hash {
            ContentHash::Sha256(bytes) => hot.label_class == 0 && cold.hash == *bytes,
            ContentHash::Label(label) => hot.label_class != 0 && self.label(record) == label.as_bytes(),
        }
    }
}
