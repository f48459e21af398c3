use super::*;
use crate::model::{ApprovalId, ApprovalType, Decision, EventRef, LogId, Micros, Priority, RequesterId, Tally};
use crate::shard::{FeedEvent, FeedKind};
use crate::sinks::Run;

fn vote(sequence: u64) -> FeedEvent {
    FeedEvent {
        at: EventRef::new(0, sequence),
        time: Micros(1),
        approval: ApprovalId([1; 16]),
        previous: EventRef::NONE,
        approval_type: ApprovalType::Other,
        priority: Priority::Normal,
        requester: RequesterId([2; 16]),
        tally: Tally::default(),
        kind: FeedKind::Voted {
            validator: "alice".into(),
            decision: Decision::Abstain,
            reason: "a \"reason\"\nof two lines".into(),
            signature: [].into(),
            decided: None,
        },
    }
}

fn batch(log: u64, sequences: std::ops::RangeInclusive<u64>) -> Batch {
    Batch { runs: vec![Run { log: LogId(log), events: sequences.map(vote).collect() }] }
}

fn at(log: u64, sequence: u64) -> Position {
    Position { log: LogId(log), sequence }
}

fn sink(dir: &Path, rotate_bytes: u64, keep: u64) -> FileSink {
    FileSink::new(FileOptions { dir: dir.into(), rotate_bytes, keep }, [7; 16])
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).expect("there").lines().count()
}

#[test]
fn a_torn_line_is_cut_wherever_it_tears_and_whole_ones_count() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut first = sink(dir.path(), 1 << 20, 0);
    assert_eq!(first.resume(), Ok(Vec::new()));
    first.deliver(&batch(5, 1..=2)).expect("written");
    first.deliver(&batch(1 << 62, 1..=1)).expect("written");
    // Killed: nothing is said at its end.
    std::mem::forget(first);
    let path = dir.path().join("events-0000000001.ndjson");
    let whole = fs::read(&path).expect("there");
    let cursor = fs::read(dir.path().join("cursor")).expect("there");
    for cut in 0..=whole.len() {
        fs::write(&path, &whole[..cut]).expect("written");
        fs::write(dir.path().join("cursor"), &cursor).expect("written");
        let mut next = sink(dir.path(), 1 << 20, 0);
        let count = whole[..cut].iter().filter(|byte| **byte == b'\n').count();
        let expected = [vec![], vec![at(5, 1)], vec![at(5, 2)], vec![at(5, 2), at(1 << 62, 1)]];
        assert_eq!(next.resume().expect("it goes on"), expected[count], "cut at {cut}");
        assert_eq!(lines(&path), count, "cut at {cut}");
    }
    // Zeros, as a file system may leave them, and a line that does not go on, count as torn.
    for tail in [vec![0; 100], whole.clone()] {
        fs::write(&path, [whole.as_slice(), &tail].concat()).expect("written");
        fs::write(dir.path().join("cursor"), &cursor).expect("written");
        let mut next = sink(dir.path(), 1 << 20, 0);
        assert_eq!(next.resume().expect("it goes on"), [at(5, 2), at(1 << 62, 1)]);
        assert_eq!(lines(&path), 3);
    }
}

#[test]
fn files_are_rotated_kept_and_found_again() {
    let dir = tempfile::tempdir().expect("a folder");
    for round in 0..20 {
        let mut sink = sink(dir.path(), 4 << 10, 3);
        let known = sink.resume().expect("it goes on");
        assert_eq!(known.first().map_or(0, |known| known.sequence), round * 10);
        for sequence in round * 10 + 1..=round * 10 + 10 {
            sink.deliver(&batch(9, sequence..=sequence)).expect("written");
        }
        if u64::is_multiple_of(round, 2) {
            std::mem::forget(sink);
        }
    }
    let mut names: Vec<_> =
        fs::read_dir(dir.path()).expect("there").map(|entry| entry.expect("there").path()).collect();
    names.retain(|path| path.extension().is_some_and(|end| end == "ndjson"));
    assert_eq!(names.len(), 3, "{names:?}");
    names.sort();
    let text: String = names.iter().map(|path| fs::read_to_string(path).expect("there")).collect();
    let last = text.lines().last().expect("lines");
    assert!(last.contains("\"sequence\":\"200\""), "{last}");
}

#[test]
fn a_folder_of_others_is_left_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    drop(sink(dir.path(), 4 << 10, 0).resume());
    let mut other = FileSink::new(FileOptions { dir: dir.path().into(), rotate_bytes: 4 << 10, keep: 0 }, [8; 16]);
    let Err(Error::Stopped(why)) = other.resume() else { panic!("it takes another deployment's files") };
    assert!(why.contains("07070707-0707") && why.contains("08080808-0808"), "{why}");
    fs::remove_file(dir.path().join("cursor")).expect("there");
    assert!(matches!(sink(dir.path(), 4 << 10, 0).resume(), Err(Error::Stopped(_))), "files without a cursor");
    let file = dir.path().join("cursor");
    fs::write(&file, "{}").expect("written");
    assert!(matches!(sink(dir.path(), 4 << 10, 0).resume(), Err(Error::Stopped(_))), "no cursor of ours");
    assert!(matches!(sink(&file, 4 << 10, 0).resume(), Err(Error::Stopped(_))), "a file where the folder should be");
}
