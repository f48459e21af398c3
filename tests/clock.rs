//! A clock that jumps is not believed: new approvals are refused, votes go on, nothing expires, until an operator
//! accepts it; the same when the journal ends ahead of the wall clock.
//!
//! The real binary gets its wall clock through a small library of the test's own that is loaded before libc and adds
//! as many seconds as a file says.

use crate::support::approvals::{Client, ahead, assert_refused, request};
use crate::support::{Node, PATIENCE, folder, run};
use assent::journal::{BatchView, Folder, Log, Options, PosixStorage, Replay, SliceView, Storage, ready, recover};
use assent::model::{ValidatorRef, codec};
use assent::wire::v1::{ApprovalStatus, ApprovalView, ValidatorDecision};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tonic::Code;

const HOUR: i64 = 3_600;

const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
static volatile long *ahead_seconds;
__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("CLOCK_AHEAD_FILE");
    int file = name ? open(name, O_RDONLY) : -1;
    if (file < 0) return;
    void *map = mmap(0, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
    if (map != MAP_FAILED) ahead_seconds = map;
}
int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = syscall(SYS_clock_gettime, clock, time);
    if (result == 0 && clock == CLOCK_REALTIME && ahead_seconds) time->tv_sec += *ahead_seconds;
    return result;
}
"#;

/// The library, and the file that says how far the clock is ahead.
fn bendable_clock(dir: &Path) -> [(String, String); 2] {
    let (source, library, ahead) = (dir.join("clock.c"), dir.join("clock.so"), dir.join("ahead"));
    std::fs::write(&source, LIBRARY).expect("written");
    let mut compiler = std::process::Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source);
    assert!(compiler.status().expect("a C compiler, as the build needs one").success());
    set_ahead(dir, 0);
    let text = |path: &Path| path.to_str().expect("UTF-8").to_string();
    [("LD_PRELOAD".into(), text(&library)), ("CLOCK_AHEAD_FILE".into(), text(&ahead))]
}

/// Written in place: the node has it mapped.
fn set_ahead(dir: &Path, seconds: i64) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(dir.join("ahead"));
    file.expect("opened").write_all_at(&seconds.to_ne_bytes(), 0).expect("written");
}

async fn assert_in_doubt(client: &mut Client, number: u64) {
    let refusal = client.open(request(number, 1, 1)).await.expect_err("the clock is in doubt");
    assert_refused(&refusal, Code::Unavailable, "CLOCK_JUMP", true);
}

/// Waits for what the operator's word brings: the node looks once a second.
async fn opens_again(client: &mut Client, number: u64) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(refusal) = client.open(request(number, 1, 1)).await {
        assert_refused(&refusal, Code::Unavailable, "CLOCK_JUMP", true);
        assert!(Instant::now() < deadline, "the clock was accepted, and opens are refused");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn accept(node: &Node) {
    let data = node.data();
    let said = run(node.folder().path(), &["clock", "accept", "--data", data.to_str().expect("UTF-8")], &[]);
    assert_eq!(said.code, Some(0), "{said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_jump_either_way_is_doubted_until_accepted() {
    for jump in [2 * HOUR, -2 * HOUR] {
        let folder = Arc::new(folder());
        let environment = bendable_clock(folder.path());
        let environment: Vec<(&str, &str)> =
            environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let node = Node::try_start_with(folder.clone(), &[], &environment)
            .unwrap_or_else(|ended| panic!("it does not start: {}", ended.stderr));
        // A word for nothing is taken away, and does not answer for the jump that comes.
        accept(&node);
        node.wait_for_line("nothing to accept");
        let mut client = Client::of(&node).await;
        let mut soon = request(1, 2, 3);
        soon.expires_at = ahead(Duration::from_secs(HOUR as u64));
        let opened = client.open(soon).await.expect("opened");

        set_ahead(folder.path(), jump);
        assert_in_doubt(&mut client, 2).await;
        // By the jumped clock it is overdue (or not yet open); nothing expires, and votes go on.
        let voted = client.vote(1, "alice", ValidatorDecision::Approved, "").await.expect("votes go on");
        assert_eq!(voted.status(), ApprovalStatus::Pending, "{jump}");
        let repeat = client.open(request(1, 2, 3)).await;
        assert!(repeat.is_err(), "another request for the id is refused as ever");
        node.wait_for_line("assent clock accept");
        let (_, health) = node.get("/readyz");
        assert!(!health.is_empty());

        accept(&node);
        opens_again(&mut client, 3).await;
        let state = client.state(1, ApprovalView::Full).await.expect("there");
        // Two hours on, its hour is over; two hours back, time stands still until it is reached again.
        let expected = if jump > 0 { ApprovalStatus::Expired } else { ApprovalStatus::Pending };
        assert_eq!(state.status(), expected, "{jump}");
        let later = client.state(3, ApprovalView::Basic).await.expect("there");
        let key = |time: &Option<prost_types::Timestamp>| time.as_ref().map(|time| (time.seconds, time.nanos));
        assert!(key(&later.created_at) >= key(&opened.created_at), "`now` never goes back");
    }
}

struct Nothing;

impl Replay for Nothing {
    fn slice(&mut self, _: SliceView<'_>) -> Result<(), String> {
        Ok(())
    }
    fn batch(&mut self, _: BatchView<'_>) -> Result<(), String> {
        Ok(())
    }
}

/// Appends one batch (a definition that nobody uses) decided `by` ahead of the wall clock.
fn put_journal_ahead(data: &Path, by: Duration) {
    let folder = Folder::open(PosixStorage, data, Options::default()).expect("the folder opens");
    let meta = folder.meta().current().expect("a generation").logs[0].clone();
    let recovered = recover(&folder, &meta, &mut Nothing).expect("it is sound");
    let writer = folder.storage().writer().expect("a writer");
    let mut log = Log::start(&folder, &meta, &recovered, writer).expect("starts");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970") + by;
    log.begin_batch(now.as_micros() as u64, &[]);
    let mut note = Vec::new();
    codec::encode_define_validator(ValidatorRef(4_000_000), "nobody", &mut note);
    log.append_note(&note);
    log.end_batch();
    log.begin_commit(false).expect("something is pending");
    ready(log.finish_commit()).expect("durable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_journal_that_ends_ahead_of_the_wall_clock_waits_for_an_operator() {
    let mut node = Node::start(&[]);
    let mut client = Client::of(&node).await;
    let mut soon = request(1, 2, 3);
    soon.expires_at = ahead(Duration::from_secs(600));
    client.open(soon).await.expect("opened");
    node.stop();
    put_journal_ahead(&node.data(), Duration::from_secs(HOUR as u64));

    node.restart();
    node.wait_for_line("assent clock accept");
    let mut client = Client::of(&node).await;
    assert_in_doubt(&mut client, 2).await;
    let voted = client.vote(1, "alice", ValidatorDecision::Approved, "").await.expect("votes go on");
    assert_eq!(voted.status(), ApprovalStatus::Pending);
    // A restart alone accepts nothing.
    node.stop();
    node.restart();
    let mut client = Client::of(&node).await;
    assert_in_doubt(&mut client, 2).await;
    accept(&node);
    opens_again(&mut client, 2).await;
    node.stop();

    node.restart_with(&["--accept-clock"]);
    let mut client = Client::of(&node).await;
    client.open(request(3, 1, 1)).await.expect("accepted at the start");
    let state = client.state(1, ApprovalView::Full).await.expect("there");
    assert_eq!(state.status(), ApprovalStatus::Expired, "time never goes back behind the journal's");
    node.stop();
}

#[test]
fn accepting_needs_a_data_folder() {
    let nowhere = folder();
    let said = run(nowhere.path(), &["clock", "accept", "--data", "nowhere"], &[]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("nowhere") && said.stderr.contains("--data"), "{said:?}");
}
