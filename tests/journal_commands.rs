//! `assent journal verify` and `assent journal dump` read a folder and say what is in it.

use crate::support::{folder, run};
use assent::journal::{Folder, Log, Options, PosixStorage, Replay, SliceView, Storage, ready, recover};
use assent::model::{
    ApprovalId, ApprovalType, ContentHash, Decided, Decision, Event, EventKind, EventRef, Micros, Opened, Outcome,
    Priority, RequesterId, RequesterRef, Tally, ValidatorRef, Voted, codec,
};
use std::path::Path;

struct Nothing;

impl Replay for Nothing {
    fn slice(&mut self, _: SliceView<'_>) -> Result<(), String> {
        Ok(())
    }
    fn batch(&mut self, _: assent::journal::BatchView<'_>) -> Result<(), String> {
        Ok(())
    }
}

const HASH: &str = "label";

fn events() -> Vec<Event<'static>> {
    let (approval_type, priority, requester) = (ApprovalType::LargeTransaction, Priority::High, RequesterRef(3));
    let approval = ApprovalId([7; 16]);
    let content_hash = || ContentHash::Label(HASH.into());
    let opened = Opened {
        approval_type,
        priority,
        requester,
        content_hash: content_hash(),
        required: 2,
        total: 3,
        created_at: Micros(1_000_000),
        expires_at: Micros(9_000_000),
        eligible: None,
        digest: [0; 16],
        content: b"pay",
    };
    let vote = |validator: u32, approvals: u16, decided: Option<Box<Decided>>| Voted {
        validator: ValidatorRef(validator),
        decision: Decision::Approved,
        approval_type,
        priority,
        requester,
        tally: Tally { approvals, ..Tally::default() },
        reason: if decided.is_some() { "enough" } else { "" },
        signature: &[],
        decided,
    };
    let decided = Decided {
        outcome: Outcome::Approved,
        content_hash: content_hash(),
        required: 2,
        total: 3,
        created_at: Micros(1_000_000),
        expires_at: Micros(9_000_000),
        finalized_at: Micros(2_000_000),
    };
    let event = |sequence: u64, kind| Event { approval, previous: EventRef(sequence), kind };
    vec![
        event(0, EventKind::Opened(opened)),
        event(1, EventKind::Voted(vote(1, 1, None))),
        event(2, EventKind::Voted(vote(2, 2, Some(Box::new(decided))))),
    ]
}

/// A folder with one approval: opened, voted on, decided; each start of the node is a segment.
fn write(data: &Path) {
    let options =
        Options { segment_bytes: 1 << 20, frame_bytes_max: 64 << 10, reserve_bytes: 1 << 16, ..Options::default() };
    for (start, event) in events().iter().enumerate() {
        let folder = Folder::open(PosixStorage, data, options.clone()).expect("the folder opens");
        if start == 0 {
            let generation = folder.prepare_generation(1).expect("prepared");
            folder.commit_generation(&generation, &[]).expect("committed");
        }
        let meta = folder.meta().current().expect("a generation").logs[0].clone();
        let recovered = recover(&folder, &meta, &mut Nothing).expect("it is sound");
        let mut log =
            Log::start(&folder, &meta, &recovered, folder.storage().writer().expect("a writer")).expect("starts");
        let mut record = Vec::new();
        let mut note = |log: &mut Log<PosixStorage>, write: &dyn Fn(&mut Vec<u8>)| {
            record.clear();
            write(&mut record);
            log.append_note(&record);
        };
        log.begin_batch(2_000_000, &[]);
        note(&mut log, &|out| codec::encode_define_requester(RequesterRef(3), &RequesterId([5; 16]), out));
        // The numbers of a segment are its own: validator 1 is alice here, and 2 is bob there.
        note(&mut log, &|out| codec::encode_define_validator(ValidatorRef(1), "alice", out));
        note(&mut log, &|out| codec::encode_define_validator(ValidatorRef(2), "bob", out));
        let mut bytes = Vec::new();
        codec::encode_event(event, &mut bytes);
        log.append_event(&bytes);
        log.end_batch();
        log.begin_commit(false).expect("something is pending");
        ready(log.finish_commit()).expect("durable");
    }
}

#[test]
fn what_was_written_is_verified_and_dumped() {
    let folder = folder();
    write(&folder.path().join("data"));

    let said = run(folder.path(), &["journal", "verify", "data"], &[]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stdout.contains("events 1 to 3") && said.stdout.contains("1 log(s), 3 events, 0 damaged"), "{said:?}");
    let said = run(folder.path(), &["journal", "verify", "data", "--json"], &[]);
    let report: serde_json::Value = serde_json::from_str(&said.stdout).expect("JSON");
    assert_eq!((&report["sound"], &report["logs"][0]["last_sequence"]), (&true.into(), &3.into()), "{report}");

    let said = run(folder.path(), &["journal", "dump", "data"], &[]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let lines: Vec<_> = said.stdout.lines().collect();
    let id = "07070707-0707-0707-0707-070707070707";
    for (line, parts) in lines.iter().zip([
        [" 1 1970-01-01T00:00:02.000000Z", "opened by 05050505-0505-0505-0505-050505050505", "2 of 3", HASH],
        [" 2 1970-01-01T00:00:02.000000Z", "alice voted APPROVED", "(1 for, 0 against, 0 abstained)", id],
        [" 3 1970-01-01T00:00:02.000000Z", "bob voted APPROVED", "(2 for, 0 against, 0 abstained): APPROVED", id],
    ]) {
        parts.iter().for_each(|part| assert!(line.contains(part), "{line:?} does not say {part:?}"));
    }
    assert_eq!(lines.len(), 3);

    let said = run(folder.path(), &["journal", "dump", "data", "--json"], &[]);
    let lines: Vec<serde_json::Value> =
        said.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON a line")).collect();
    assert_eq!(lines.len(), 3, "{said:?}");
    assert_eq!(lines[0]["eventType"], "APPROVAL_EVENT_TYPE_CREATED");
    assert_eq!(lines[0]["approval"]["content"], "cGF5");
    assert_eq!(lines[1]["vote"]["validatorId"], "alice");
    assert_eq!(
        (&lines[2]["approval"]["status"], &lines[2]["sequence"]),
        (&"APPROVAL_STATUS_APPROVED".into(), &"3".into())
    );
    assert_eq!(
        (&lines[2]["vote"]["reason"], &lines[2]["vote"]["votedAt"]),
        (&"enough".into(), &"1970-01-01T00:00:02Z".into())
    );
}

#[test]
fn damage_is_named_and_ends_with_1() {
    let folder = folder();
    let data = folder.path().join("data");
    write(&data);
    // A segment in the middle is gone.
    let mut files: Vec<_> = walk(&data)
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("segment-")))
        .collect();
    files.sort();
    assert!(files.len() >= 3, "{:?}", walk(&data));
    std::fs::remove_file(&files[1]).expect("it is ours");
    let said = run(folder.path(), &["journal", "verify", "data"], &[]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stdout.contains("DAMAGED") && said.stdout.contains("1 damaged"), "{said:?}");
    assert_eq!(run(folder.path(), &["journal", "dump", "data"], &[]).code, Some(1));
}

#[test]
fn a_folder_that_is_none_is_named() {
    let folder = folder();
    for command in ["verify", "dump"] {
        let said = run(folder.path(), &["journal", command, "nowhere"], &[]);
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.stderr.contains("nowhere"), "{said:?}");
    }
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).expect("it is there").map(|entry| entry.expect("listed").path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
