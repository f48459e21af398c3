//! What is archived is what was decided: every value that passes the door, exactly once, for one deployment.
//!
//! Each check runs on every database of `support::archive::stores`.

use crate::support::archive::on_every_store;

on_every_store!(
    /// A database is one deployment's: adopted again by it, refused to another with both ids named.
    a_database_is_one_deployments,
    /// Rows and the positions behind them come together, or neither does; a batch goes in once.
    rows_and_positions_are_one,
    /// Opened and decided in one batch or in two: the same.
    decided_at_once_or_later,
    /// Every type, priority, outcome and decision.
    every_name,
    /// An eligible set is stored once, in order, at its largest too.
    eligible_sets,
    /// Contents: empty, every byte, a MiB. Labels: empty, awkward, the longest.
    contents_and_labels,
    /// Reasons of awkward Unicode, and signatures, at their largest too.
    reasons_and_signatures,
    /// The largest numbers.
    largest_numbers,
    /// An event that is refused is kept beside its position, once.
    rejected_events,
    /// Whatever the door lets through goes in, and comes out equal.
    whatever_passes_the_door,
);

mod checks {
    use crate::support::archive::*;
    use crate::support::calls::{self, id_bytes};
    use assent::model::*;
    use assent::store::{NewVote, Reject, WriteBatch};
    use assent::wire::{self, v1};
    use bytes::Bytes;
    use proptest::prelude::*;
    use std::cell::RefCell;
    use std::sync::Arc;

    pub fn a_database_is_one_deployments(database: &dyn Database) {
        let store = database.store();
        let mut first = writer(store);
        first.adopt(DEPLOYMENT).expect("its own");
        drop(first);
        assert_eq!(writer(store).positions(), Ok(vec![]));
        let why = is_stopped(store.writer().expect("a writer").adopt([0xE2; 16]));
        for id in [DEPLOYMENT, [0xE2; 16]] {
            assert!(why.contains(&ApprovalId(id).to_string()), "{why}");
        }
        let owners = database.ask("SELECT CAST(deployment_id AS VARCHAR(36)) FROM archive_deployment");
        assert_eq!(owners, [[ApprovalId(DEPLOYMENT).to_string()]]);
    }

    /// Adds to a batch what the database must refuse.
    type Spoil<'a> = &'a dyn Fn(&mut Log);

    pub fn rows_and_positions_are_one(database: &dyn Database) {
        let (mut writer, mut log) = (writer(database.store()), Log::default());
        let id = log.open(1, |_| {});
        log.vote(id, "ann", Decision::Approved, 2);
        let good = log.take();
        writer.write(&good).expect("it is taken");
        let after_good = vec![Position { log: LOG, sequence: 2 }];
        assert_eq!(writer.positions(), Ok(after_good.clone()));
        // A batch that was written before is not a refused one: its log is further already.
        is_unavailable(writer.write(&good));
        assert_eq!(writer.positions(), Ok(after_good.clone()));

        // The last row of each is bad; what stands before it must not stay.
        let second_opening = |log: &mut Log| {
            log.open(1, |_| {});
        };
        let second_vote = |log: &mut Log| log.vote(id, "ann", Decision::Rejected, 3);
        let no_approval = |log: &mut Log| {
            let unknown = ApprovalId(id_bytes(99));
            let outcome = log.outcome(unknown, Outcome::Expired, Tally::default());
            log.batch.outcomes.push(outcome);
        };
        // Of several outcomes the one that nothing waits for is named.
        let one_of_two = |log: &mut Log| {
            log.next();
            let outcome = log.outcome(id, Outcome::Expired, Tally::default());
            log.batch.outcomes.push(outcome);
            no_approval(log);
        };
        let bad: [(Spoil<'_>, u64); 4] =
            [(&second_opening, 1), (&second_vote, 1), (&no_approval, 99), (&one_of_two, 99)];
        for (spoil, about) in bad {
            log.sequence = 2;
            let new = log.open(2, |_| {});
            log.vote(new, "bob", Decision::Approved, 2);
            spoil(&mut log);
            let why = is_refused(writer.write(&log.take()));
            assert!(why.contains(&calls::id(about)), "{why}");
            assert_eq!(writer.positions(), Ok(after_good.clone()));
            assert_eq!(database.ask("SELECT COUNT(*) FROM approval_requests"), [["1"]]);
            assert_eq!(database.ask("SELECT COUNT(*) FROM approval_responses"), [["1"]]);
        }
        // Other logs have positions of their own; a batch may have no rows, only moved positions.
        let other = Position { log: LogId(5), sequence: 3 };
        let ours = Position { log: LOG, sequence: 9 };
        writer.write(&WriteBatch { after: vec![ours, other], ..WriteBatch::default() }).expect("it is taken");
        assert_eq!(writer.positions(), Ok(vec![other, ours]));
    }

    pub fn decided_at_once_or_later(database: &dyn Database) {
        let (mut writer, mut log) = (writer(database.store()), Log::default());
        for (number, outcome, tally) in [
            (1, Outcome::Approved, Tally { approvals: 2, rejections: 1, abstentions: 0 }),
            (3, Outcome::Rejected, Tally { approvals: 0, rejections: 1, abstentions: 1 }),
            (5, Outcome::Expired, Tally { approvals: 1, rejections: 0, abstentions: 0 }),
        ] {
            let mut at_once = log.open(number, |_| {});
            let decided = log.outcome(at_once, outcome, tally);
            let new = log.batch.approvals.last_mut().expect("it was opened");
            new.outcome = Some(decided);
            let expected = archived(new);
            log.write(&mut *writer);
            assert_eq!(read(database.store(), at_once), expected);

            at_once = log.open(number + 1, |_| {});
            let mut new = log.batch.approvals.last().expect("it was opened").clone();
            log.write(&mut *writer);
            assert_eq!(read(database.store(), at_once), archived(&new));
            log.next();
            let decided = log.outcome(at_once, outcome, tally);
            new.outcome = Some(decided);
            log.batch.outcomes.push(decided);
            log.write(&mut *writer);
            assert_eq!(read(database.store(), at_once), archived(&new));
        }
    }

    pub fn every_name(database: &dyn Database) {
        let (mut writer, mut log) = (writer(database.store()), Log::default());
        let outcomes = [None, Some(Outcome::Approved), Some(Outcome::Rejected), Some(Outcome::Expired)];
        let decisions = [Decision::Approved, Decision::Rejected, Decision::Abstain];
        for number in 0..36u64 {
            let id = log.open(number, |new| {
                new.approval_type = ApprovalType::from_number((number % 9 + 1) as u8).expect("1 to 9");
                new.priority = Priority::from_number((number % 3 + 1) as u8).expect("1 to 3");
            });
            log.vote(id, "ann", decisions[number as usize % 3], 2);
            if let Some(outcome) = outcomes[number as usize % 4] {
                let decided = log.outcome(id, outcome, Tally { approvals: 1, ..Tally::default() });
                log.batch.approvals.last_mut().expect("it was opened").outcome = Some(decided);
            }
        }
        let batch = log.take();
        writer.write(&batch).expect("it is taken");
        for (new, vote) in batch.approvals.iter().zip(&batch.votes) {
            let found = read(database.store(), new.id);
            assert_eq!((found.state.approval_type, found.state.priority), (new.approval_type, new.priority));
            assert_eq!(found.state.status, archived(new).state.status);
            let votes = wait(database.store().votes(new.id, 0, 10)).expect("it answers");
            assert_eq!(votes, [archived_vote(vote)]);
        }
        let names = |column: &str, table: &str| {
            let rows = database.ask(&format!("SELECT DISTINCT {column} FROM {table} ORDER BY {column}"));
            rows.into_iter().map(|row| row[0].clone()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names("status", "approval_requests"), "APPROVED EXPIRED PENDING REJECTED");
        assert_eq!(names("priority", "approval_requests"), "CRITICAL HIGH NORMAL");
        assert_eq!(names("decision", "approval_responses"), "ABSTAIN APPROVED REJECTED");
        let types = "BRIDGE_TRANSFER CONTRACT_DEPLOYMENT CONTRACT_UPGRADE EMERGENCY_ACTION LARGE_TRANSACTION OTHER \
                     PARAMETER_CHANGE TOKEN_ISSUANCE VALIDATOR_CHANGE";
        assert_eq!(names("approval_type", "approval_requests"), types);
    }

    fn set(names: impl Iterator<Item = String>, digest: u8) -> Arc<EligibleSet> {
        let mut members: Vec<_> = names.map(|name| ValidatorId::parse(&name).expect("a legal name")).collect();
        members.sort_unstable();
        Arc::new(EligibleSet { members, digest: [digest; 32] })
    }

    pub fn eligible_sets(database: &dyn Database) {
        let (mut writer, mut log) = (writer(database.store()), Log::default());
        // Names of whatever is awkward in JSON and in arrays, and of the largest set's largest names.
        let awkward = ["a\"b", "a\\b", "{x,y}", "NULL", "'", "~", "!", "[1]", "\\\"", "%s", ","];
        let small = set(awkward.iter().map(|name| name.to_string()), 1);
        let large = set((0..32_767).map(|number| format!("{number:\"<64}")), 2);
        let ids = [
            log.open(1, |new| new.eligible = Some(small.clone())),
            log.open(2, |new| new.eligible = Some(small.clone())),
            log.open(3, |new| new.eligible = Some(large.clone())),
            log.open(4, |_| {}),
        ];
        log.write(&mut *writer);
        let again = log.open(5, |new| new.eligible = Some(large.clone()));
        log.write(&mut *writer);
        assert_eq!(database.ask("SELECT COUNT(*) FROM eligible_sets"), [["2"]]);
        let page = |id, after, max| wait(database.store().eligible(id, after, max)).expect("it answers");
        for id in &ids[..2] {
            assert_eq!(page(*id, None, 100), small.members);
            assert_eq!(page(*id, Some(small.members[3].clone()), 2), small.members[4..6]);
        }
        assert_eq!(page(ids[2], None, usize::MAX), large.members);
        assert_eq!(page(again, Some(large.members[32_765].clone()), 5), large.members[32_766..]);
        assert_eq!(page(again, large.members.last().cloned(), 5), []);
        for id in [ids[3], ApprovalId(id_bytes(99))] {
            assert_eq!(page(id, None, 5), []);
        }
        let state = read(database.store(), again).state;
        assert_eq!((state.eligible_count, state.eligible_digest), (32_767, Some([2; 32])));
    }

    pub fn contents_and_labels(database: &dyn Database) {
        let (mut writer, mut log) = (writer(database.store()), Log::default());
        let all: Vec<u8> = (0..=u8::MAX).cycle().take(1_000).collect();
        let large = all.iter().cycle().take(CONTENT_BYTES_CEILING).copied().collect();
        let contents = [Vec::new(), vec![0], all, large];
        let labels = [" ", "SHA256:x", "'; --", "\\x00", "\"{}\"", &"~".repeat(LABEL_BYTES_MAX)];
        for (number, content) in contents.iter().enumerate() {
            log.open(number as u64, |new| new.content = Bytes::copy_from_slice(content));
        }
        for (number, label) in labels.iter().enumerate() {
            log.open(100 + number as u64, |new| new.content_hash = ContentHash::Label((*label).into()));
        }
        let batch = log.take();
        writer.write(&batch).expect("it is taken");
        for new in &batch.approvals {
            assert_eq!(read(database.store(), new.id), archived(new));
            assert_eq!(wait(database.store().content(new.id)), Ok(Some(new.content.clone())));
        }
        assert_eq!(wait(database.store().content(ApprovalId(id_bytes(99)))), Ok(None));
    }

    pub fn reasons_and_signatures(database: &dyn Database) {
        let (mut writer, mut log) = (writer(database.store()), Log::default());
        let id = log.open(1, |new| new.total = 100);
        let reasons = [
            "\u{1}\u{2}\t\r\n\u{7f}",
            "\u{feff}bom",
            "e\u{301} é",
            "\u{202e}right",
            "\u{ffff}\u{fffd}",
            "\\x00 \\N \\.",
            "'\"`;--",
            "🦀👩‍👩‍👧",
            "\u{10ffff}",
            "NULL",
            "\u{2028}",
            " ",
            "{}",
            "\u{fdd0}",
            "\u{e000}",
        ];
        let longest = ["x".repeat(1_024), "🦀".repeat(256)];
        for (at, reason) in reasons.iter().copied().chain(longest.iter().map(String::as_str)).enumerate() {
            log.vote(id, &format!("v{at}"), Decision::Approved, 2 + at as u32);
            let vote = log.batch.votes.last_mut().expect("it was cast");
            vote.reason = reason.into();
            vote.signature = vec![at as u8; at * 32 % 513].into();
        }
        log.vote(id, "all-bytes", Decision::Abstain, 90);
        log.batch.votes.last_mut().expect("it was cast").signature = (0..=255u8).chain(0..=255).collect();
        let batch = log.take();
        writer.write(&batch).expect("it is taken");
        let expected: Vec<_> = batch.votes.iter().map(archived_vote).collect();
        assert_eq!(wait(database.store().votes(id, 0, 100)), Ok(expected));
    }

    pub fn largest_numbers(database: &dyn Database) {
        let mut writer = writer(database.store());
        let last = Position { log: LogId((1 << 63) - 1), sequence: EventRef::SEQUENCE_MAX };
        // The end of the year 9999.
        let late = Micros(253_402_300_799_999_999);
        let mut log = Log::default();
        let id = log.open(1, |new| {
            (new.required, new.total) = (TOTAL_VALIDATORS_MAX, TOTAL_VALIDATORS_MAX);
            (new.created_at, new.expires_at, new.opened, new.digest) = (late, late, last, [0xFF; 16]);
            (new.id, new.requester) = (ApprovalId([0xFF; 16]), RequesterId([0xFF; 16]));
        });
        let tally = Tally { approvals: 32_767, rejections: 0, abstentions: 0 };
        let mut outcome = log.outcome(id, Outcome::Approved, tally);
        (outcome.finalized_at, outcome.version, outcome.decided) = (late, 32_768, last);
        log.batch.approvals[0].outcome = Some(outcome);
        log.vote(id, &"v".repeat(64), Decision::Approved, 32_768);
        let vote = &mut log.batch.votes[0];
        (vote.at, vote.voted_at) = (last, late);
        let least = log.open(0, |new| {
            (new.id, new.requester, new.created_at) = (ApprovalId([0; 16]), RequesterId([0; 16]), Micros(0));
            (new.expires_at, new.opened) = (Micros(1), Position { log: LogId(1), sequence: 1 });
        });
        let batch = WriteBatch { after: vec![last], ..std::mem::take(&mut log.batch) };
        writer.write(&batch).expect("it is taken");
        assert_eq!(read(database.store(), id), archived(&batch.approvals[0]));
        assert_eq!(read(database.store(), least), archived(&batch.approvals[1]));
        let votes = wait(database.store().votes(id, 32_767, 1));
        assert_eq!(votes, Ok(vec![archived_vote(&batch.votes[0])]));
        assert_eq!(writer.positions(), Ok(vec![last]));
    }

    pub fn rejected_events(database: &dyn Database) {
        let mut writer = writer(database.store());
        let at = Position { log: LOG, sequence: 7 };
        let approval = ApprovalId(id_bytes(1));
        let reject = Reject { at, approval, event: vec![0, 1, 0xFF], reason: "it does not fit: 'ü'".into() };
        writer.reject(&reject, at).expect("it is kept");
        assert_eq!(writer.positions(), Ok(vec![at]));
        is_unavailable(writer.reject(&reject, at));
        let kept =
            "SELECT log_id, sequence, CAST(approval_id AS VARCHAR(36)), length(event), reason FROM archive_rejects";
        assert_eq!(database.ask(kept), [["77", "7", &approval.to_string(), "3", "it does not fit: 'ü'"]]);
    }

    fn any_request() -> impl Strategy<Value = v1::ApprovalRequest> {
        let hash = prop_oneof![Just(String::new()), "[ -~]{0,255}"];
        let eligible = prop_oneof![
            3 => Just(Vec::new()),
            1 => proptest::collection::btree_set("[!-~]{1,64}", 1..8).prop_map(|set| set.into_iter().collect()),
        ];
        let times = proptest::option::of((0i64..253_402_300_800, 0i32..1_000_000_000));
        let numbers = (1i32..10, 0i32..4, 1u32..4, 3u32..32_768);
        (numbers, proptest::collection::vec(any::<u8>(), 0..3_000), hash, times, eligible, any::<u128>()).prop_map(
            |((kind, priority, required, total), content, content_hash, expires, eligible, requester)| {
                v1::ApprovalRequest {
                    approval_type: kind,
                    priority,
                    requester_id: uuid::Uuid::from_u128(requester).to_string(),
                    content: content.into(),
                    content_hash,
                    required_approvals: required,
                    total_validators: if eligible.is_empty() { total } else { 0 },
                    expires_at: expires.map(|(seconds, nanos)| prost_types::Timestamp { seconds, nanos }),
                    eligible_validators: eligible,
                    ..v1::ApprovalRequest::default()
                }
            },
        )
    }

    fn any_votes() -> impl Strategy<Value = Vec<v1::ApprovalResponse>> {
        let extras = (any::<String>(), proptest::collection::vec(any::<u8>(), 0..513));
        let vote = ("[!-~]{1,64}", 1i32..4, extras).prop_map(|(validator_id, decision, (reason, signature))| {
            let signature = signature.into();
            v1::ApprovalResponse { validator_id, decision, reason, signature, ..v1::ApprovalResponse::default() }
        });
        proptest::collection::vec(vote, 0..4)
    }

    pub fn whatever_passes_the_door(database: &dyn Database) {
        let state = RefCell::new((writer(database.store()), Log::default(), 0u128));
        let config = ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() };
        proptest!(config, |(request in any_request(), votes in any_votes())| {
            let (writer, log, drawn) = &mut *state.borrow_mut();
            *drawn += 1;
            let drawn = ApprovalId(drawn.to_be_bytes());
            let Ok(open) = wire::parse_open(&request, Some(drawn), CONTENT_BYTES_CEILING) else { return Ok(()) };
            let id = log.open(1, |new| {
                (new.id, new.approval_type, new.priority) = (open.id, open.approval_type, open.priority);
                (new.requester, new.content, new.content_hash) = (open.requester, open.content, open.content_hash);
                (new.required, new.total, new.digest) = (open.required, open.total, open.digest);
                (new.eligible, new.expires_at) = (open.eligible, open.expires_at.unwrap_or(new.expires_at));
            });
            let mut cast: Vec<NewVote> = Vec::new();
            for mut vote in votes {
                vote.approval_id = id.to_string();
                let Ok(vote) = wire::parse_vote(&vote) else { continue };
                if cast.iter().any(|before| *before.validator == *vote.validator.as_str()) {
                    continue;
                }
                log.vote(id, vote.validator.as_str(), vote.decision, 2 + cast.len() as u32);
                let new = log.batch.votes.last_mut().expect("it was cast");
                if let Some(extras) = vote.extras {
                    (new.reason, new.signature) = (extras.reason, extras.signature);
                }
                cast.push(new.clone());
            }
            let batch = log.take();
            writer.write(&batch).expect("whatever passes the door is taken");
            let new = &batch.approvals[0];
            let mut expected = archived(new);
            for vote in &cast {
                let tally = &mut expected.state.tally;
                *match vote.decision {
                    Decision::Approved => &mut tally.approvals,
                    Decision::Rejected => &mut tally.rejections,
                    Decision::Abstain => &mut tally.abstentions,
                } += 1;
                expected.state.version = vote.version;
                expected.state.last_event = EventRef::new(0, vote.at.sequence);
            }
            prop_assert_eq!(read(database.store(), id), expected);
            prop_assert_eq!(wait(database.store().content(id)), Ok(Some(new.content.clone())));
            let votes = wait(database.store().votes(id, 0, 10)).expect("it answers");
            prop_assert_eq!(votes, cast.iter().map(archived_vote).collect::<Vec<_>>());
            let members = wait(database.store().eligible(id, None, 100)).expect("it answers");
            prop_assert_eq!(&members[..], new.eligible.as_ref().map_or(&[][..], |set| &set.members));
        });
    }
}
