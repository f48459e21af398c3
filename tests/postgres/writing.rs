//! What is written is read back equal: all types of columns, NULL and not.

use super::{approval_id, at, decided, opened, outcome, set, vote, writer};
use crate::support::postgres::database;
use assent::model::{ContentHash, Decision, EventRef, Priority, Status, Tally, ValidatorId};
use assent::store::{Error, ListFilter, ListKey, Store, WriteBatch};

#[tokio::test(flavor = "multi_thread")]
async fn rows_come_back_as_they_were() {
    let database = database();
    let store = database.store();
    let (one, three) = (set(&["a"]), set(&["\"B\\,}", "a", "c{"]));
    let mut rows = vec![opened(1, 1), opened(2, 2), opened(3, 3)];
    rows[0].eligible = Some(three.clone());
    rows[1].eligible = Some(one);
    rows[1].content = (0..=u8::MAX).cycle().take(1 << 20).collect::<Vec<u8>>().into();
    rows[1].content_hash = ContentHash::Label("build 7".into());
    rows[2].content = Default::default();
    let mut votes: Vec<_> = (0..3).map(|validator| vote(1, validator, 4 + validator)).collect();
    votes[1].decision = Decision::Abstain;
    votes[2].decision = Decision::Rejected;
    votes[2].reason = "\u{1}\t'\"\\ ünï 漢字 \u{10FFFF}".into();
    votes[2].signature = (0..=u8::MAX).collect();
    let batch = WriteBatch { approvals: rows.clone(), votes: votes.clone(), outcomes: vec![], after: vec![at(6)] };
    let later = WriteBatch { outcomes: vec![outcome(3, 7)], after: vec![at(7)], ..WriteBatch::default() };
    let written = std::thread::scope(|scope| {
        let write = || {
            let mut writer = writer(&store);
            writer.write(&batch).and_then(|()| writer.write(&later))
        };
        scope.spawn(write).join().expect("no panic")
    });
    written.expect("good rows");

    let found = store.approvals(vec![approval_id(3), approval_id(9), approval_id(1), approval_id(2)]).await;
    let found = found.expect("it is there");
    let [Some(third), None, Some(first), Some(second)] = &found[..] else { panic!("{found:?}") };
    assert_eq!(first.state.status, Status::Pending);
    assert_eq!(first.state.tally, Tally { approvals: 1, rejections: 1, abstentions: 1 }, "of the votes so far");
    assert_eq!((first.state.version, first.state.last_event), (4, EventRef::new(0, 6)));
    assert_eq!((first.state.eligible_count, first.state.eligible_digest), (3, Some(three.digest)));
    assert_eq!((first.log, first.digest), (super::LOG, rows[0].digest));
    assert_eq!((second.state.version, second.state.last_event.sequence()), (1, 2));
    assert_eq!(second.state.content_hash, rows[1].content_hash);
    assert_eq!(third.state.status, Status::Approved);
    assert_eq!(third.state.finalized_at, Some(outcome(3, 7).finalized_at));
    assert_eq!((third.state.version, third.state.last_event.sequence(), third.state.tally.approvals), (4, 7, 3));
    assert_eq!((third.state.created_at, third.state.expires_at), (rows[2].created_at, rows[2].expires_at));
    assert_eq!(store.content(approval_id(2)).await, Ok(Some(rows[1].content.clone())));
    assert_eq!(store.content(approval_id(3)).await, Ok(Some(Default::default())));
    assert_eq!(store.content(approval_id(9)).await, Ok(None));

    let cast = store.votes(approval_id(1), 0, 10).await.expect("it is there");
    assert_eq!(cast.len(), 3);
    for (archived, cast) in cast.iter().zip(&votes) {
        assert_eq!((archived.validator.as_str(), archived.decision), (&*cast.validator, cast.decision));
        assert_eq!((&archived.reason, &archived.signature), (&cast.reason, &cast.signature));
        assert_eq!((archived.voted_at, archived.version, archived.at), (cast.voted_at, cast.version, cast.at));
    }
    assert_eq!(store.votes(approval_id(1), 2, 1).await.expect("there"), cast[1..2]);
    let name = |name: &str| ValidatorId::parse(name).expect("a legal name");
    assert_eq!(store.vote(approval_id(1), name("validator-02")).await, Ok(Some(cast[2].clone())));
    assert_eq!(store.vote(approval_id(1), name("VALIDATOR-02")).await, Ok(None));
    let eligible = async |after: Option<&str>, max| store.eligible(approval_id(1), after.map(name), max).await;
    assert_eq!(eligible(None, 9).await.expect("there"), three.members);
    assert_eq!(eligible(Some("\"B\\,}"), 1).await.expect("there"), [name("a")], "by bytes");
    assert_eq!(store.eligible(approval_id(3), None, 9).await, Ok(vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_cut_into_pages_without_a_gap() {
    let database = database();
    let store = database.store();
    let mut batch = decided(0, 40);
    // Ten at one instant.
    batch.approvals[10..20].iter_mut().for_each(|row| row.created_at = assent::model::Micros(1_800_000_000_000_015));
    batch.approvals[7].priority = Priority::Normal;
    std::thread::scope(|scope| scope.spawn(|| writer(&store).write(&batch)).join().expect("no panic")).expect("good");
    let mut expected: Vec<_> = batch.approvals.iter().map(|row| (row.created_at, row.id)).collect();
    expected.sort_by(|a, b| b.cmp(a));
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.list(ListFilter::default(), after, 7).await.expect("a page");
        found.extend(page.iter().map(|row| (row.state.created_at, row.state.id)));
        let Some(last) = page.last() else { break };
        after = Some(ListKey { created_at: last.state.created_at, id: last.state.id });
    }
    assert_eq!(found, expected);
    let count = async |filter| store.list(filter, None, 100).await.map(|page| page.len());
    let any = ListFilter::default;
    assert_eq!(count(ListFilter { status: Some(Status::Pending), ..any() }).await, Ok(0));
    assert_eq!(count(ListFilter { status: Some(Status::Approved), ..any() }).await, Ok(40));
    assert_eq!(count(ListFilter { priority: Some(Priority::Normal), ..any() }).await, Ok(1));
    assert_eq!(count(ListFilter { requester: Some(assent::model::RequesterId([9; 16])), ..any() }).await, Ok(40));
    assert_eq!(count(ListFilter { validator: ValidatorId::parse("validator-01"), ..any() }).await, Ok(40));
    assert_eq!(count(ListFilter { validator: ValidatorId::parse("validator-09"), ..any() }).await, Ok(0));
    let from = Some(batch.approvals[30].created_at);
    let to = Some(batch.approvals[35].created_at);
    assert_eq!(count(ListFilter { created: assent::store::TimeRange { from, to }, ..any() }).await, Ok(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_beyond_the_pool_wait_within_bounds() {
    let database = database();
    let mut options = database.options();
    options.readers_max = 2;
    let store = std::sync::Arc::new(assent::store::postgres::Postgres::open(options).expect("good options"));
    std::thread::scope(|scope| scope.spawn(|| drop(writer(&*store))).join().expect("no panic"));
    let many: Vec<_> = (0..100)
        .map(|_| {
            let store = std::sync::Arc::clone(&store);
            tokio::spawn(async move { store.approvals(vec![approval_id(1)]).await })
        })
        .collect();
    for one in many {
        let found: Result<_, Error> = one.await.expect("no panic");
        assert_eq!(found, Ok(vec![None]));
    }
    let ours =
        "SELECT count(*) <= 2 FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'assent'";
    assert_eq!(database.value(ours), "t");
}
