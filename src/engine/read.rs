//! Reads: how an approval stands, in whole and in pages. They change nothing: who must not show an
//! overdue approval as pending touches it first.

use super::{Engine, record::NO_SET, votes};
use crate::model::{
    ApprovalId, ApprovalState, ApprovalType, ContentHash, Decision, Micros, Priority, RequesterId, RequesterRef,
    Status, ValidatorId, ValidatorRef,
};

/// A part of a list in the order of validators' names, and where the next part starts: behind `next`.
/// By name and not by number, so that a place in the list outlives the number, the node and memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub next: Option<ValidatorId>,
}

/// An approval in memory, borrowed: for filters over many.
#[derive(Clone, Copy)]
pub struct Approval<'e> {
    engine: &'e Engine,
    record: u32,
}

impl Approval<'_> {
    pub fn id(&self) -> ApprovalId {
        self.engine.records.hot(self.record).id
    }

    pub fn status(&self) -> Status {
        self.engine.records.hot(self.record).status()
    }

    pub fn approval_type(&self) -> ApprovalType {
        self.engine.records.hot(self.record).approval_type()
    }

    pub fn priority(&self) -> Priority {
        self.engine.records.hot(self.record).priority()
    }

    pub fn requester(&self) -> RequesterId {
        self.engine.requesters.id(self.engine.records.hot(self.record).requester)
    }

    pub fn created_at(&self) -> Micros {
        self.engine.records.cold(self.record).created_at
    }

    pub fn expires_at(&self) -> Micros {
        self.engine.records.hot(self.record).expires_at
    }

    pub fn vote_of(&self, validator: ValidatorRef) -> Option<Decision> {
        votes::get(&self.engine.blocks, self.engine.records.hot(self.record), validator)
    }

    /// Whether it is pending, and this validator may vote on it and has not. `None`: a validator whose
    /// name nothing holds, as [`Engine::validator`] found.
    pub fn awaits(&self, validator: Option<ValidatorRef>) -> bool {
        let hot = self.engine.records.hot(self.record);
        hot.is_pending()
            && match validator {
                None => hot.set == NO_SET,
                Some(validator) => {
                    (hot.set == NO_SET || self.engine.sets.get(hot.set).contains(validator))
                        && self.vote_of(validator).is_none()
                }
            }
    }

    pub fn state(&self) -> ApprovalState {
        self.engine.state_of(self.record)
    }
}

fn legal(name: &str) -> ValidatorId {
    ValidatorId::parse(name).expect("names in memory are legal")
}

/// The first `max` behind `after` in the order of names, and the last of them when more follow.
fn page_of<'n, T>(
    mut found: Vec<(&'n str, T)>,
    after: Option<&ValidatorId>,
    max: usize,
) -> (Vec<(&'n str, T)>, Option<ValidatorId>) {
    if let Some(after) = after {
        found.retain(|(name, _)| *name > after.as_str());
    }
    let more = found.len() > max;
    if more && max > 0 {
        // Only the page is sorted: a shard has no time to sort 32,767 votes for a thousand.
        found.select_nth_unstable_by(max - 1, |(one, _), (other, _)| one.cmp(other));
    }
    found.truncate(max);
    found.sort_unstable_by_key(|(name, _)| *name);
    let next = found.last().filter(|_| more).map(|(name, _)| legal(name));
    (found, next)
}

impl Engine {
    /// An approval in memory.
    pub fn approval(&self, id: &ApprovalId) -> Option<Approval<'_>> {
        self.find(id).map(|record| Approval { engine: self, record })
    }

    /// How an approval stands (BASIC, without its votes).
    pub fn state(&self, id: &ApprovalId) -> Option<ApprovalState> {
        self.find(id).map(|record| self.state_of(record))
    }

    pub(super) fn state_of(&self, record: u32) -> ApprovalState {
        let (hot, cold) = (self.records.hot(record), self.records.cold(record));
        let set = (hot.set != NO_SET).then(|| self.sets.get(hot.set));
        ApprovalState {
            id: hot.id,
            status: hot.status(),
            approval_type: hot.approval_type(),
            priority: hot.priority(),
            requester: self.requesters.id(hot.requester),
            content_hash: self.content_hash(record),
            required: hot.required,
            total: hot.total,
            tally: hot.tally(),
            created_at: cold.created_at,
            expires_at: hot.expires_at,
            finalized_at: (!hot.is_pending()).then_some(cold.finalized_at),
            version: hot.version(),
            last_event: hot.last_event,
            eligible_count: set.map_or(0, |set| set.members.len() as u16),
            eligible_digest: set.map(|set| set.digest),
        }
    }

    pub(super) fn content_hash(&self, record: u32) -> ContentHash {
        match self.records.hot(record).label_class {
            0 => ContentHash::Sha256(self.records.cold(record).hash),
            _ => ContentHash::Label(std::str::from_utf8(self.label(record)).expect("labels are ASCII").into()),
        }
    }

    /// The number of a name that a vote or a set holds.
    pub fn validator(&self, name: &str) -> Option<ValidatorRef> {
        self.validators.find(name)
    }

    /// The name of a number that a vote or a set holds.
    pub fn validator_name(&self, validator: ValidatorRef) -> ValidatorId {
        legal(self.validators.name(validator))
    }

    /// The id of a requester's number that an approval holds.
    pub fn requester_id(&self, requester: RequesterRef) -> RequesterId {
        self.requesters.id(requester.0)
    }

    /// This validator's vote on this approval.
    pub fn has_voted(&self, id: &ApprovalId, validator: &str) -> Option<Decision> {
        self.approval(id)?.vote_of(self.validators.find(validator)?)
    }

    /// Up to `max` votes behind `after`. `None`: not in memory.
    pub fn votes_page(
        &self,
        id: &ApprovalId,
        after: Option<&ValidatorId>,
        max: usize,
    ) -> Option<Page<(ValidatorId, Decision)>> {
        let hot = self.records.hot(self.find(id)?);
        let mut found = Vec::with_capacity(hot.cast());
        votes::for_each(&self.blocks, hot, |validator, decision| {
            found.push((self.validators.name(validator), decision))
        });
        let (part, next) = page_of(found, after, max);
        let items = part.into_iter().map(|(name, decision)| (legal(name), decision)).collect();
        Some(Page { items, next })
    }

    /// Up to `max` eligible validators behind `after`. `None`: not in memory, or anyone may vote.
    pub fn eligible_page(&self, id: &ApprovalId, after: Option<&ValidatorId>, max: usize) -> Option<Page<ValidatorId>> {
        let hot = self.records.hot(self.find(id)?);
        if hot.set == NO_SET {
            return None;
        }
        let members = &self.sets.get(hot.set).members;
        let found = members.iter().map(|member| (self.validators.name(*member), ())).collect();
        let (part, next) = page_of(found, after, max);
        Some(Page { items: part.into_iter().map(|(name, ())| legal(name)).collect(), next })
    }

    /// Looks at a slice of a partition, as [`Engine::partition_states`] does, without making states.
    pub fn partition_approvals(
        &self,
        partition: u32,
        from: u64,
        max: usize,
        mut look: impl FnMut(&Approval<'_>),
    ) -> Option<u64> {
        let mut records = Vec::with_capacity(max.min(1 << 16) + 32);
        let next = self.index.scan(partition as usize, from, max, |record| {
            self.records.prefetch_hot(record);
            records.push(record);
        });
        records.into_iter().for_each(|record| look(&Approval { engine: self, record }));
        next
    }

    /// A slice of a partition, for watchers: looks at about `max` approvals behind the point where the
    /// last slice ended (0: the start), and appends the states of those that pass. Answers where to
    /// go on, `None` at the end. What is there throughout is looked at exactly once; what is opened
    /// meanwhile may or may not be.
    pub fn partition_states(
        &self,
        partition: u32,
        from: u64,
        max: usize,
        filter: impl Fn(&Approval<'_>) -> bool,
        out: &mut Vec<ApprovalState>,
    ) -> Option<u64> {
        self.partition_approvals(partition, from, max, |approval| {
            if filter(approval) {
                out.push(approval.state());
            }
        })
    }
}
