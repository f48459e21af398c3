//! What memory no longer has is answered from the archive, in the same words; lists read it.
//!
//! Two nodes and one archive: the first opens and decides, and the archive follows it; the second has had
//! the same ids, and none of them is in its memory. What both answer must be equal to the last field.

use crate::support::switched_archive::{SwitchedArchive, follow};
use crate::support::{folder, run};
use crate::wire_support::{Front, id, reason, request, vote};
use assent::grpc::Limits;
use assent::wire::v1;
use prost_types::Timestamp;
use std::sync::Arc;
use tonic::{Code, Status};

const BASIC: i32 = v1::ApprovalView::Basic as i32;
const FULL: i32 = v1::ApprovalView::Full as i32;

/// The archive of these tests.
fn archive() -> SwitchedArchive {
    SwitchedArchive::new()
}

async fn front(shards: usize, archive: &SwitchedArchive) -> Front {
    Front::with_archive(shards, Limits::default(), Some(Arc::new(archive.clone()))).await
}

/// One that has had these, and has none of them in memory.
async fn forgot(shards: usize, archive: &SwitchedArchive, numbers: impl IntoIterator<Item = u64>) -> Front {
    Front::that_forgot(shards, Arc::new(archive.clone()), numbers).await
}

async fn page(
    front: &mut Front,
    number: u64,
    view: i32,
    page_size: u32,
    page_token: &str,
) -> Result<v1::ApprovalStatusMessage, Status> {
    let asked = v1::GetApprovalStatusRequest {
        approval_id: id(number).to_string(),
        view,
        page_token: page_token.into(),
        page_size,
    };
    front.client.get_approval_status(asked).await.map(|answer| answer.into_inner())
}

async fn cast(front: &mut Front, response: v1::ApprovalResponse) -> Result<v1::ApprovalStatusMessage, Status> {
    front.client.submit_validator_response(response).await.map(|answer| answer.into_inner())
}

/// 1: approved by reasons, of named validators; 2: rejected; 3: pending with a vote; 4: expired.
async fn history(front: &mut Front) {
    let names: Vec<String> = (0..25).rev().map(|number| format!("validator-{number:02}")).collect();
    let named = v1::ApprovalRequest {
        total_validators: 0,
        required_approvals: 20,
        eligible_validators: names.clone(),
        priority: 3,
        ..request(1)
    };
    front.open(named).await;
    for (at, name) in names[..20].iter().enumerate() {
        let response = v1::ApprovalResponse {
            reason: format!("{name} agrees"),
            signature: vec![at as u8; 64].into(),
            ..vote(1, name, 1)
        };
        cast(front, response).await.expect("counts");
    }
    front.open(request(2)).await;
    cast(front, vote(2, "zoe", 2)).await.expect("counts");
    cast(front, vote(2, "Bob", 2)).await.expect("decides");
    front.open(request(3)).await;
    cast(front, vote(3, "ann", 3)).await.expect("counts");
    let soon = std::time::SystemTime::now() + std::time::Duration::from_millis(60);
    front.open(v1::ApprovalRequest { expires_at: Some(Timestamp::from(soon)), ..request(4) }).await;
    tokio::time::sleep(std::time::Duration::from_millis(120)).await;
    assert_eq!(page(front, 4, BASIC, 0, "").await.expect("there").status, v1::ApprovalStatus::Expired as i32);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approval_reads_the_same_from_memory_and_from_the_archive() {
    let archive = archive();
    let (mut live, mut later) = (front(2, &archive).await, forgot(1, &archive, 1..=4).await);
    history(&mut live).await;
    follow(live.data(), live.started(), &archive);
    for number in 1..=4 {
        for view in [BASIC, FULL] {
            let (mut token, mut pages) = (String::new(), 0);
            loop {
                // A token from memory goes on in the archive, and the other way round.
                let from_memory = page(&mut live, number, view, 7, &token).await.expect("in memory");
                let from_archive = page(&mut later, number, view, 7, &token).await.expect("in the archive");
                assert_eq!(from_memory, from_archive, "approval {number}, view {view}, page {pages}");
                if view == FULL {
                    assert_eq!(from_memory.detail, v1::DetailStatus::Complete as i32);
                    assert_eq!(from_memory.content.is_empty(), pages > 0);
                }
                token = from_archive.next_page_token;
                pages += 1;
                if token.is_empty() {
                    break;
                }
            }
            let expected = match (number, view == FULL) {
                (1, false) => 3,
                // 20 votes and 25 names: the votes' last page has room for one name.
                (1, true) => 7,
                _ => 1,
            };
            assert_eq!(pages, expected, "approval {number}, view {view}");
        }
    }
    let asked = |front: &Front| {
        let approval_ids = (0..=5).map(|number| id(number).to_string()).collect();
        let mut client = front.client.clone();
        async move {
            let asked = v1::GetApprovalStatusesRequest { approval_ids };
            client.get_approval_statuses(asked).await.map(|answer| answer.into_inner())
        }
    };
    let (from_memory, from_archive) = (asked(&live).await.expect("states"), asked(&later).await.expect("states"));
    assert_eq!((from_memory.approvals.len(), from_memory.unknown_ids.len()), (4, 2));
    assert_eq!(from_memory, from_archive);

    let refused = page(&mut later, 99, BASIC, 0, "").await.expect_err("nowhere");
    assert_eq!(reason(&refused).0, Code::NotFound);
    archive.set_down(true);
    page(&mut live, 1, FULL, 0, "").await.expect("memory needs no archive");
    for refused in [
        page(&mut later, 1, BASIC, 0, "").await.expect_err("down"),
        asked(&later).await.expect_err("down"),
        cast(&mut later, vote(2, "zoe", 2)).await.expect_err("down"),
        later.client.submit_approval_request(request(2)).await.expect_err("down"),
    ] {
        assert_eq!(reason(&refused), (Code::Unavailable, "ARCHIVE_UNAVAILABLE".into(), String::new()));
        assert!(refused.message().contains("archive"), "{}", refused.message());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_of_an_approval_in_memory_comes_from_the_archive_once_the_journal_has_let_go() {
    let archive = archive();
    let (mut live, mut later) = (front(1, &archive).await, forgot(1, &archive, 1..=4).await);
    history(&mut live).await;
    follow(live.data(), live.started(), &archive);
    let logs = std::fs::read_dir(live.data()).expect("the folder").map(|entry| entry.expect("an entry").path());
    for log in logs.filter(|path| path.is_dir()) {
        for file in std::fs::read_dir(log).expect("a log").map(|file| file.expect("a file").path()) {
            std::fs::remove_file(file).expect("it can go");
        }
    }
    for number in 1..=4 {
        let expected = page(&mut later, number, FULL, 0, "").await.expect("from the archive");
        assert_eq!(page(&mut live, number, FULL, 0, "").await.expect("from both"), expected);
    }
    archive.set_down(true);
    let without = page(&mut live, 3, FULL, 0, "").await.expect("as far as memory goes");
    assert_eq!(without.detail, v1::DetailStatus::Unavailable as i32);
    assert!(without.detail_reason.contains("archive"), "{}", without.detail_reason);
    assert_eq!((without.votes.len(), without.votes[0].voted_at, without.content.len()), (1, None, 0));
    archive.set_down(false);
    // The archive is behind memory by a vote: part of the truth is not passed off as all of it.
    cast(&mut live, v1::ApprovalResponse { reason: "fine".into(), ..vote(3, "bob", 1) }).await.expect("counts");
    let behind = page(&mut live, 3, FULL, 0, "").await.expect("as far as memory goes");
    assert_eq!(behind.detail, v1::DetailStatus::Unavailable as i32);
    assert!(behind.detail_reason.contains("all its votes"), "{}", behind.detail_reason);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn votes_and_requests_are_answered_by_what_the_archive_holds() {
    let archive = archive();
    let (mut live, mut later) = (front(1, &archive).await, forgot(1, &archive, (1..=4).chain([50])).await);
    history(&mut live).await;
    follow(live.data(), live.started(), &archive);

    let stands = page(&mut later, 2, BASIC, 0, "").await.expect("archived");
    let repeat = cast(&mut later, vote(2, "zoe", 2)).await.expect("a repeat");
    assert!(repeat.repeat);
    assert_eq!(repeat, v1::ApprovalStatusMessage { repeat: true, votes: Vec::new(), ..stands.clone() });
    // A vote that stands comes before the hash, as in memory.
    let hash = |label: &str, response| v1::ApprovalResponse { content_hash: label.into(), ..response };
    assert!(cast(&mut later, hash("label", vote(2, "zoe", 2))).await.expect("a repeat").repeat);
    for (response, code, name, fact) in [
        (vote(2, "zoe", 1), Code::AlreadyExists, "VOTE_STANDS", "REJECTED"),
        (vote(2, "eve", 1), Code::FailedPrecondition, "APPROVAL_DECIDED", "REJECTED"),
        (vote(4, "eve", 1), Code::FailedPrecondition, "APPROVAL_DECIDED", "EXPIRED"),
        (vote(1, "mallory", 1), Code::FailedPrecondition, "APPROVAL_DECIDED", "APPROVED"),
        (hash("label", vote(2, "eve", 1)), Code::FailedPrecondition, "APPROVAL_DECIDED", "REJECTED"),
        (vote(99, "zoe", 1), Code::NotFound, "NOT_FOUND", ""),
    ] {
        let from_archive = cast(&mut later, response.clone()).await.expect_err(name);
        let from_memory = cast(&mut live, response).await.expect_err(name);
        assert_eq!(reason(&from_archive), (code, name.into(), String::new()));
        assert!(from_archive.message().contains(fact), "{}", from_archive.message());
        assert_eq!(from_archive.message(), from_memory.message());
    }

    let repeat = later.client.submit_approval_request(request(2)).await.expect("a repeat").into_inner();
    assert_eq!(repeat, v1::ApprovalStatusMessage { repeat: true, votes: Vec::new(), ..stands });
    let other = v1::ApprovalRequest { priority: 3, ..request(2) };
    let refused = later.client.submit_approval_request(other).await.expect_err("taken");
    assert_eq!(reason(&refused), (Code::AlreadyExists, "ID_TAKEN".into(), String::new()));
    let asked = archive.asked();
    assert!(!later.open(request(50)).await.repeat, "nowhere: it is open");
    assert_eq!(archive.asked(), asked + 1);
    assert!(later.open(request(50)).await.repeat);
    assert_eq!(archive.asked(), asked + 1, "what memory has needs no look-up");
    // Nor does what was never used: opened, read, voted on, watched for, though the archive is down.
    archive.set_down(true);
    assert_eq!(reason(&page(&mut later, 51, FULL, 0, "").await.expect_err("new")).1, "NOT_FOUND");
    assert_eq!(reason(&cast(&mut later, vote(51, "zoe", 1)).await.expect_err("new")).1, "NOT_FOUND");
    let states = v1::GetApprovalStatusesRequest { approval_ids: vec![id(51).to_string(), id(52).to_string()] };
    let states = later.client.get_approval_statuses(states).await.expect("nothing to ask").into_inner();
    assert_eq!(states.unknown_ids.len(), 2);
    assert!(!later.open(request(51)).await.repeat);
    assert_eq!(archive.asked(), asked + 1);
}

/// Sends these, closes, and gives the last acknowledgement with all refusals.
async fn stream(front: &mut Front, items: Vec<v1::approval_stream_request::Item>) -> (u64, Vec<(u64, u32, i32)>) {
    let messages =
        items.into_iter().map(|item| v1::ApprovalStreamRequest { item: Some(item), validator_id: String::new() });
    let answers = front.client.bidirectional_approval_stream(futures_util::stream::iter(messages.collect::<Vec<_>>()));
    let mut answers = answers.await.expect("a stream").into_inner();
    let (mut acked, mut refusals) = (0, Vec::new());
    while let Some(answer) = answers.message().await.expect("it ends well") {
        acked = answer.acked_through;
        refusals.extend(answer.refusals.iter().map(|refused| (refused.index, refused.code, refused.reason)));
    }
    (acked, refusals)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_streams_requests_are_looked_up_and_what_follows_waits_behind_them() {
    use v1::approval_stream_request::Item;
    let archive = archive();
    let (mut live, mut later) =
        (front(1, &archive).await, forgot(2, &archive, (1..=4).chain(100..=103).chain(1_000..3_000)).await);
    history(&mut live).await;
    follow(live.data(), live.started(), &archive);
    let open = |number| Item::Request(request(number));
    let items = vec![
        open(100),
        open(2),
        Item::Request(v1::ApprovalRequest { priority: 3, ..request(2) }),
        Item::Request(v1::ApprovalRequest { requester_id: "me".into(), ..request(101) }),
        // Votes on what was opened just before count: they wait behind the look-up.
        Item::Response(vote(100, "ann", 1)),
        open(102),
        Item::Response(vote(102, "ann", 1)),
        Item::Response(vote(102, "bob", 1)),
        open(100),
    ];
    let (acked, refusals) = stream(&mut later, items).await;
    let (taken, invalid) = (v1::RefusalReason::IdTaken as i32, v1::RefusalReason::InvalidArgument as i32);
    assert_eq!(acked, 9);
    assert_eq!(refusals, [(2, Code::AlreadyExists as u32, taken), (3, Code::InvalidArgument as u32, invalid)]);
    assert_eq!(page(&mut later, 100, BASIC, 0, "").await.expect("open").approvals, 1);
    let decided = page(&mut later, 102, BASIC, 0, "").await.expect("open");
    assert_eq!(decided.status, v1::ApprovalStatus::Approved as i32);

    // Many at once: a look-up for each few hundred, in order.
    let (before, count) = (archive.asked(), 2_000);
    let items = (0..count).map(|number| open(1_000 + number)).chain([Item::Response(vote(2_999, "ann", 1))]);
    let (acked, refusals) = stream(&mut later, items.collect()).await;
    assert_eq!((acked, refusals), (count + 1, Vec::new()));
    assert!(archive.asked() - before < 200, "{} look-ups", archive.asked() - before);

    archive.set_down(true);
    let (acked, refusals) = stream(&mut later, vec![open(100), open(103), Item::Response(vote(100, "bob", 1))]).await;
    let down = v1::RefusalReason::ArchiveUnavailable as i32;
    assert_eq!(acked, 3);
    assert!(refusals.contains(&(1, Code::Unavailable as u32, down)), "{refusals:?}");
    assert!(refusals.iter().all(|refused| refused.2 == down && refused.0 < 2));
    assert_eq!(page(&mut later, 100, BASIC, 0, "").await.expect("in memory").approvals, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_on_one_that_left_memory_shows_the_outcome_and_ends() {
    let archive = archive();
    let (mut live, mut later) = (front(1, &archive).await, forgot(1, &archive, 1..=4).await);
    history(&mut live).await;
    follow(live.data(), live.started(), &archive);
    let filter = v1::ApprovalRequest { approval_id: id(2).to_string(), ..v1::ApprovalRequest::default() };
    let mut changes = later.client.watch_approval_updates(filter).await.expect("a watch").into_inner();
    let state = changes.message().await.expect("a state").expect("a state");
    assert_eq!((state.status, state.rejections), (v1::ApprovalStatus::Rejected as i32, 2));
    assert!(changes.message().await.expect("OK").is_none(), "it ends after the outcome");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_newest_first_filtered_and_paged() {
    let archive = archive();
    let mut live = front(2, &archive).await;
    history(&mut live).await;
    follow(live.data(), live.started(), &archive);
    // Since the archive was written: a vote, and nothing that it knows of yet.
    cast(&mut live, vote(3, "bob", 1)).await.expect("counts");
    live.open(request(5)).await;
    let mut client = live.client.clone();
    let mut list = async |asked: v1::ListApprovalsRequest| client.list_approvals(asked).await.map(|it| it.into_inner());
    let all = list(v1::ListApprovalsRequest::default()).await.expect("a list");
    let ids = |answer: &v1::ListApprovalsResponse| -> Vec<String> {
        answer.approvals.iter().map(|approval| approval.approval_id.clone()).collect()
    };
    let of = |numbers: &[u64]| -> Vec<String> { numbers.iter().map(|number| id(*number).to_string()).collect() };
    assert_eq!(ids(&all), of(&[4, 3, 2, 1]));
    assert!(all.next_page_token.is_empty());
    let shown = &all.approvals[1];
    assert_eq!((shown.approvals, shown.abstentions, shown.version), (1, 1, 3), "as it stands now, in memory");

    let created = |number: usize| all.approvals[number].created_at;
    let any = v1::ListApprovalsRequest::default;
    for (asked, numbers) in [
        (v1::ListApprovalsRequest { status: v1::ApprovalStatus::Pending as i32, ..any() }, &[3][..]),
        (v1::ListApprovalsRequest { status: v1::ApprovalStatus::Expired as i32, ..any() }, &[4]),
        (v1::ListApprovalsRequest { priority: 3, ..any() }, &[1]),
        (v1::ListApprovalsRequest { approval_type: 2, ..any() }, &[]),
        (v1::ListApprovalsRequest { requester_id: id(1_000_000).to_string(), ..any() }, &[4, 3, 2, 1]),
        (v1::ListApprovalsRequest { requester_id: id(7).to_string(), ..any() }, &[]),
        (v1::ListApprovalsRequest { validator_id: "Bob".into(), ..any() }, &[2]),
        (v1::ListApprovalsRequest { created_from: created(2), created_to: created(0), ..any() }, &[3, 2]),
    ] {
        assert_eq!(ids(&list(asked.clone()).await.expect("a list")), of(numbers), "{asked:?}");
    }
    // Decided since: it is no longer pending, whatever the archive says.
    cast(&mut live, vote(3, "eve", 1)).await.expect("decides");
    let pending = v1::ListApprovalsRequest { status: v1::ApprovalStatus::Pending as i32, ..any() };
    assert_eq!(ids(&list(pending.clone()).await.expect("a list")), of(&[]));

    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let answer = list(v1::ListApprovalsRequest { page_size: 1, page_token, ..any() }).await.expect("a page");
        assert_eq!(answer.approvals.len(), 1);
        seen.extend(ids(&answer));
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, of(&[4, 3, 2, 1]));
    let first = list(v1::ListApprovalsRequest { page_size: 2, ..any() }).await.expect("a page");
    let mut other = front(1, &archive).await;
    let rest = v1::ListApprovalsRequest { page_token: first.next_page_token.clone(), ..any() };
    let rest = other.client.list_approvals(rest).await.expect("a token outlives the node").into_inner();
    assert_eq!(ids(&rest), of(&[2, 1]));

    for (asked, field) in [
        (v1::ListApprovalsRequest { page_size: 1_001, ..any() }, "page_size"),
        (v1::ListApprovalsRequest { page_token: "x".into(), ..any() }, "page_token"),
        (v1::ListApprovalsRequest { page_token: first.next_page_token, priority: 1, ..any() }, "page_token"),
        (v1::ListApprovalsRequest { status: 9, ..any() }, "status"),
        (v1::ListApprovalsRequest { approval_type: 99, ..any() }, "approval_type"),
        (v1::ListApprovalsRequest { priority: 9, ..any() }, "priority"),
        (v1::ListApprovalsRequest { requester_id: "me".into(), ..any() }, "requester_id"),
        (v1::ListApprovalsRequest { validator_id: "a b".into(), ..any() }, "validator_id"),
        (v1::ListApprovalsRequest { created_from: created(0), created_to: created(0), ..any() }, "created_to"),
        (v1::ListApprovalsRequest { created_from: Some(Timestamp { seconds: -1, nanos: 0 }), ..any() }, "created_from"),
    ] {
        let refused = list(asked).await.expect_err(field);
        assert_eq!(reason(&refused), (Code::InvalidArgument, "INVALID_ARGUMENT".into(), field.into()));
    }
    archive.set_down(true);
    assert_eq!(reason(&list(any()).await.expect_err("down")).1, "ARCHIVE_UNAVAILABLE");
    let mut without = Front::new(1).await;
    let refused = without.client.list_approvals(any()).await.expect_err("no archive");
    assert_eq!(reason(&refused), (Code::FailedPrecondition, "NO_ARCHIVE".into(), String::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_command_shows_rows_and_where_to_go_on() {
    let archive = archive();
    let mut live = front(1, &archive).await;
    history(&mut live).await;
    follow(live.data(), live.started(), &archive);
    let endpoint = format!("http://{}", live.address);
    let list = |arguments: &[&str]| {
        let arguments = [&["list"], arguments].concat();
        tokio::task::block_in_place(|| run(folder().path(), &arguments, &[("ASSENT_ENDPOINT", &endpoint)]))
    };
    let said = list(&[]);
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert_eq!((said.code, lines.len()), (Some(0), 5), "{said:?}");
    assert!(lines[0].starts_with("approval ") && lines[4].contains("APPROVED") && lines[4].contains("20/20 +0 of 25"));
    let said = list(&["--json", "--status", "rejected", "--from", "1h", "--validator", "zoe"]);
    let row: serde_json::Value = serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("one row: {said:?}"));
    assert_eq!(row["approvalId"], id(2).to_string());
    let said = list(&["--json", "--limit", "3"]);
    assert_eq!(said.stdout.lines().count(), 3);
    let token = said.stderr.trim().rsplit(' ').next().expect("a token").to_string();
    let said = list(&["--json", "--page", &token]);
    assert!(said.stdout.lines().count() == 1 && said.stdout.contains(&id(1).to_string()), "{said:?}");
    let said = list(&["--page", &token, "--priority", "high"]);
    assert!(said.code == Some(1) && said.stderr.contains("page_token"), "{said:?}");
    assert_eq!(list(&["--limit", "0"]).code, Some(2));
}
