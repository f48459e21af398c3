//! The rules a second time, in the most obvious way: maps, counts and loops, nothing kept that can
//! be counted again. Where engine and oracle differ, one of them has misread the rules.

use assent::engine::Limits;
use assent::model::*;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug)]
pub struct OracleApproval {
    pub request: OpenRequest,
    pub created_at: Micros,
    pub expires_at: Micros,
    pub status: Status,
    pub finalized_at: Option<Micros>,
    pub votes: BTreeMap<String, Decision>,
    pub events: u32,
}

pub struct Oracle {
    pub limits: Limits,
    pub approvals: BTreeMap<ApprovalId, OracleApproval>,
    /// What a set takes is not a rule: told by the test.
    pub set_bytes_are_full: bool,
}

#[derive(Clone, Copy)]
pub struct Now {
    pub now: Micros,
    pub expire: bool,
}

impl OracleApproval {
    fn count(&self, decision: Decision) -> u16 {
        self.votes.values().filter(|vote| **vote == decision).count() as u16
    }

    fn touch(&mut self, time: Now) {
        if self.status == Status::Pending && time.expire && time.now >= self.expires_at {
            self.status = Status::Expired;
            self.finalized_at = Some(time.now);
            self.events += 1;
        }
    }

    fn vote(&mut self, command: &VoteCommand<'_>, time: Now) -> VoteAnswer {
        self.touch(time);
        if let Some(standing) = self.votes.get(command.validator) {
            return if *standing == command.decision {
                VoteAnswer::Repeat
            } else {
                VoteAnswer::Refused(Refusal::VoteStands(*standing))
            };
        }
        if let Some(outcome) = self.status.outcome() {
            return VoteAnswer::Refused(Refusal::ApprovalDecided(outcome));
        }
        if let Some(set) = &self.request.eligible {
            if !set.members.iter().any(|member| member.as_str() == command.validator) {
                return VoteAnswer::Refused(Refusal::NotEligible);
            }
        }
        if let Some(hash) = command.extras.as_ref().and_then(|extras| extras.content_hash.as_ref()) {
            if *hash != self.request.content_hash {
                return VoteAnswer::Refused(Refusal::ContentHashMismatch);
            }
        }
        self.votes.insert(command.validator.to_owned(), command.decision);
        self.events += 1;
        let best_case = self.request.total - self.count(Decision::Rejected) - self.count(Decision::Abstain);
        if self.count(Decision::Approved) >= self.request.required {
            self.status = Status::Approved;
        } else if best_case < self.request.required {
            self.status = Status::Rejected;
        }
        if self.status != Status::Pending {
            self.finalized_at = Some(time.now);
        }
        VoteAnswer::Accepted(self.status.outcome())
    }

    /// As the engine shows it; where its newest event stands is the journal's to say.
    pub fn state(&self, last_event: EventRef) -> ApprovalState {
        ApprovalState {
            id: self.request.id,
            status: self.status,
            approval_type: self.request.approval_type,
            priority: self.request.priority,
            requester: self.request.requester,
            content_hash: self.request.content_hash.clone(),
            required: self.request.required,
            total: self.request.total,
            tally: Tally {
                approvals: self.count(Decision::Approved),
                rejections: self.count(Decision::Rejected),
                abstentions: self.count(Decision::Abstain),
            },
            created_at: self.created_at,
            expires_at: self.expires_at,
            finalized_at: self.finalized_at,
            version: self.events,
            last_event,
            eligible_count: self.request.eligible.as_ref().map_or(0, |set| set.members.len() as u16),
            eligible_digest: self.request.eligible.as_ref().map(|set| set.digest),
        }
    }
}

impl Oracle {
    pub fn new(limits: Limits) -> Oracle {
        Oracle { limits, approvals: BTreeMap::new(), set_bytes_are_full: false }
    }

    pub fn names(&self) -> BTreeSet<String> {
        let voters = self.approvals.values().flat_map(|approval| approval.votes.keys().cloned());
        let members = self.approvals.values().filter_map(|approval| approval.request.eligible.as_ref());
        let members = members.flat_map(|set| set.members.iter().map(|member| member.as_str().to_owned()));
        voters.chain(members).collect()
    }

    pub fn sets(&self) -> BTreeSet<[u8; 32]> {
        self.approvals.values().filter_map(|approval| Some(approval.request.eligible.as_ref()?.digest)).collect()
    }

    pub fn open(
        &mut self,
        request: &OpenRequest,
        time: Now,
        allowed: Result<(), Refusal>,
    ) -> Result<(ApprovalId, bool), Refusal> {
        if let Some(there) = self.approvals.get_mut(&request.id) {
            there.touch(time);
            return if there.request.digest == request.digest { Ok((request.id, true)) } else { Err(Refusal::IdTaken) };
        }
        allowed?;
        if request.content.len() > self.limits.content_bytes_max {
            return Err(Refusal::invalid("content", ""));
        }
        let expires_at = match request.expires_at {
            Some(at) => at,
            None => Micros(time.now.0 + self.limits.lifetime_default_us),
        };
        if expires_at <= time.now || expires_at.0 - time.now.0 > self.limits.lifetime_max_us {
            return Err(Refusal::invalid("expires_at", ""));
        }
        if self.approvals.len() >= self.limits.approvals_max {
            return Err(Refusal::LimitReached("approvals_max"));
        }
        let names = self.names();
        match &request.eligible {
            Some(set) if self.sets().contains(&set.digest) => {}
            Some(set) => {
                if self.sets().len() >= self.limits.eligible_sets_max {
                    return Err(Refusal::LimitReached("eligible_sets_max"));
                }
                if self.set_bytes_are_full {
                    return Err(Refusal::LimitReached("eligible_set_bytes_max"));
                }
                let mut after = names.clone();
                after.extend(set.members.iter().map(|member| member.as_str().to_owned()));
                if after.len() > names.len() && after.len() > self.limits.validators_max {
                    return Err(Refusal::LimitReached("validators_max"));
                }
            }
            None if names.len() >= self.limits.validators_max => return Err(Refusal::LimitReached("validators_max")),
            None => {}
        }
        let approval = OracleApproval {
            request: request.clone(),
            created_at: time.now,
            expires_at,
            status: Status::Pending,
            finalized_at: None,
            votes: BTreeMap::new(),
            events: 1,
        };
        self.approvals.insert(request.id, approval);
        Ok((request.id, false))
    }

    pub fn vote(&mut self, command: &VoteCommand<'_>, time: Now) -> VoteAnswer {
        match self.approvals.get_mut(&command.approval) {
            Some(approval) => approval.vote(command, time),
            None => VoteAnswer::Refused(Refusal::NotFound),
        }
    }

    pub fn touch(&mut self, id: &ApprovalId, time: Now) -> bool {
        match self.approvals.get_mut(id) {
            Some(approval) => {
                approval.touch(time);
                true
            }
            None => false,
        }
    }

    pub fn expire_all(&mut self, time: Now) {
        self.approvals.values_mut().for_each(|approval| approval.touch(time));
    }
}
