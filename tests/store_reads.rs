//! The archive answers as memory did: states, votes in the order they were cast, lists by page.
//!
//! Each check runs on every database of `support::archive::stores`.

use crate::support::archive::on_every_store;

on_every_store!(
    /// Approvals come in the order asked for; a pending one with the votes archived so far.
    states,
    /// Votes by page, in the order they were cast; one validator's by name.
    votes,
    /// A list: newest first, by each filter, and by all at once.
    lists,
    /// Pages of a list have no gap and no repeat, while approvals are added.
    pages,
);

mod checks {
    use crate::support::archive::*;
    use crate::support::calls::id_bytes;
    use assent::model::*;
    use assent::store::{Archived, ListFilter, ListKey, TimeRange};

    pub fn states(database: &dyn Database) {
        let (mut writer, mut log) = (writer(database.store()), Log::default());
        let [first, second] = [log.open(1, |_| {}), log.open(2, |new| new.total = 9)];
        let mut expected: Vec<_> = log.batch.approvals.iter().map(archived).collect();
        log.write(&mut *writer);
        let unknown = ApprovalId(id_bytes(9));
        let found = wait(database.store().approvals(vec![second, unknown, first, second])).expect("it answers");
        let [one, two] = [expected.remove(0), expected.remove(0)];
        assert_eq!(found, [Some(two.clone()), None, Some(one.clone()), Some(two.clone())]);
        assert_eq!(wait(database.store().approvals(vec![])), Ok(vec![]));

        let decisions =
            [Decision::Approved, Decision::Abstain, Decision::Abstain, Decision::Rejected, Decision::Approved];
        let mut state = two;
        for (at, decision) in decisions.into_iter().enumerate() {
            let version = 2 + at as u32;
            log.vote(second, &format!("v{}", 9 - at), decision, version);
            // A vote in a log of the next generation.
            log.batch.votes[0].at.log = LogId(1_000 + u64::from(version));
            (state.state.version, state.log) = (version, LogId(1_000 + u64::from(version)));
            state.state.last_event = EventRef::new(0, log.sequence);
            match decision {
                Decision::Approved => state.state.tally.approvals += 1,
                Decision::Rejected => state.state.tally.rejections += 1,
                Decision::Abstain => state.state.tally.abstentions += 1,
            }
            log.write(&mut *writer);
            assert_eq!(read(database.store(), second), state);
            assert_eq!(read(database.store(), first), one);
        }
        let listed = wait(database.store().list(ListFilter::default(), None, 10));
        assert_eq!(listed, Ok(vec![state, one]));
    }

    pub fn votes(database: &dyn Database) {
        let (mut writer, mut log) = (writer(database.store()), Log::default());
        let [id, other] = [log.open(1, |new| new.total = 1_000), log.open(2, |_| {})];
        log.vote(other, "v5", Decision::Abstain, 2);
        // Names in another order than the votes.
        for at in 0..250u32 {
            log.vote(id, &format!("v{}", at * 7 % 250), Decision::Approved, 2 + at);
        }
        let votes: Vec<_> = log.batch.votes[1..].iter().map(archived_vote).collect();
        log.write(&mut *writer);
        for size in [1, 7, 249, 250, 251] {
            let (mut after, mut read) = (0, Vec::new());
            loop {
                let page = wait(database.store().votes(id, after, size)).expect("it answers");
                let Some(last) = page.last() else { break };
                assert!(page.len() <= size);
                after = last.version;
                read.extend(page);
            }
            assert_eq!(read, votes, "by {size}");
        }
        let vote = |id, name: &str| {
            wait(database.store().vote(id, ValidatorId::parse(name).expect("a legal name"))).expect("it answers")
        };
        assert_eq!(vote(id, "v7"), Some(votes[1].clone()));
        assert_eq!(vote(other, "v5").map(|vote| vote.decision), Some(Decision::Abstain));
        assert_eq!((vote(id, "V7"), vote(id, "v250"), vote(other, "v7")), (None, None, None));
        assert_eq!(wait(database.store().votes(ApprovalId(id_bytes(9)), 0, 5)), Ok(vec![]));
    }

    /// Sixty approvals, of which some share a time; every value of every filter occurs.
    fn fill(database: &dyn Database) -> Vec<Archived> {
        let (mut writer, mut log) = (writer(database.store()), Log::default());
        for number in 0..60u64 {
            let id = log.open(number, |new| {
                new.created_at = START.plus(number / 3 * Micros::SECOND);
                new.approval_type = ApprovalType::from_number((number % 9 + 1) as u8).expect("1 to 9");
                new.priority = Priority::from_number((number % 3 + 1) as u8).expect("1 to 3");
                new.requester = RequesterId([(number % 4) as u8; 16]);
            });
            if number % 2 == 0 {
                log.vote(id, if number % 6 == 0 { "ann" } else { "bob" }, Decision::Abstain, 2);
            }
            let outcome = [None, Some(Outcome::Approved), Some(Outcome::Rejected), Some(Outcome::Expired)];
            if let Some(outcome) = outcome[(number / 2 % 4) as usize] {
                let outcome = log.outcome(id, outcome, Tally { abstentions: 1, ..Tally::default() });
                log.batch.approvals.last_mut().expect("it was opened").outcome = Some(outcome);
            }
        }
        let ids: Vec<_> = log.batch.approvals.iter().map(|new| new.id).collect();
        log.write(&mut *writer);
        let mut all: Vec<_> = ids.into_iter().map(|id| read(database.store(), id)).collect();
        all.sort_by_key(|archived| std::cmp::Reverse((archived.state.created_at, archived.state.id)));
        all
    }

    pub fn lists(database: &dyn Database) {
        let all = fill(database);
        let check = |filter: ListFilter, keep: &dyn Fn(&ApprovalState) -> bool| {
            let expected: Vec<_> = all.iter().filter(|archived| keep(&archived.state)).cloned().collect();
            assert!(!expected.is_empty() && expected.len() < 60, "{filter:?} selects");
            assert_eq!(wait(database.store().list(filter.clone(), None, 100)), Ok(expected), "{filter:?}");
        };
        let any = ListFilter::default;
        for number in 1..=9u8 {
            let kind = ApprovalType::from_number(number);
            check(ListFilter { approval_type: kind, ..any() }, &|state| Some(state.approval_type) == kind);
            if let Some(priority) = Priority::from_number(number) {
                check(ListFilter { priority: Some(priority), ..any() }, &|state| state.priority == priority);
            }
            if let Some(status) = Status::from_number(number) {
                check(ListFilter { status: Some(status), ..any() }, &|state| state.status == status);
            }
        }
        let requester = RequesterId([2; 16]);
        check(ListFilter { requester: Some(requester), ..any() }, &|state| state.requester == requester);
        let number = |state: &ApprovalState| u64::from(state.id.0[15]);
        let ann = ValidatorId::parse("ann");
        check(ListFilter { validator: ann.clone(), ..any() }, &|state| number(state) % 6 == 0);
        let [from, to] = [START.plus(5 * Micros::SECOND), START.plus(9 * Micros::SECOND)];
        let between = |from, to| ListFilter { created: TimeRange { from, to }, ..any() };
        check(between(Some(from), None), &|state| state.created_at >= from);
        check(between(None, Some(to)), &|state| state.created_at < to);
        check(between(Some(from), Some(to)), &|state| (from..to).contains(&state.created_at));
        check(between(Some(from), Some(Micros(u64::MAX))), &|state| state.created_at >= from);
        let whole = ListFilter {
            status: Some(Status::Pending),
            approval_type: ApprovalType::from_number(7),
            priority: Priority::from_number(1),
            requester: Some(RequesterId([0; 16])),
            validator: ann,
            created: TimeRange { from: Some(START), to: Some(to) },
        };
        check(whole.clone(), &|state| number(state) == 24);
        let nobody = ListFilter { validator: ValidatorId::parse("eve"), ..whole };
        assert_eq!(wait(database.store().list(nobody, None, 100)), Ok(vec![]));
    }

    pub fn pages(database: &dyn Database) {
        let all = fill(database);
        let mut writer = writer(database.store());
        let sequence = writer.positions().expect("positions")[0].sequence;
        let mut log = Log { sequence, ..Log::default() };
        let bob = ListFilter { validator: ValidatorId::parse("bob"), ..ListFilter::default() };
        for filter in [ListFilter::default(), bob] {
            let expected = match filter.validator {
                None => all.clone(),
                Some(_) => wait(database.store().list(filter.clone(), None, 100)).expect("it answers"),
            };
            for size in [1, 2, 7, 60] {
                let (mut after, mut read) = (None, Vec::new());
                loop {
                    let page = wait(database.store().list(filter.clone(), after, size)).expect("it answers");
                    assert!(page.len() <= size);
                    let Some(last) = page.last() else { break };
                    after = Some(ListKey { created_at: last.state.created_at, id: last.state.id });
                    read.extend(page);
                    // Newer than all: it belongs before the first page.
                    let number = 1_000 + log.sequence;
                    log.open(number, |_| {});
                    log.write(&mut *writer);
                }
                // What other sizes added before this one began is newer than what was there first.
                read.retain(|archived| archived.state.created_at < START.plus(500 * Micros::SECOND));
                assert_eq!(read, expected, "by {size}");
            }
        }
    }
}
