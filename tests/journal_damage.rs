//! Damaged bytes are told from a torn tail, and each kind of damage gets the right fate and a message that helps.

use crate::journal_append::{append, open, small, start};
use crate::support::records::{Appender, Events, slice_of};
use assent::journal::{
    Error, Folder, LogMeta, LogReader, Options, PosixStorage, Recovered, SnapshotWriter, recover, verify,
};
use std::fs;
use std::path::{Path, PathBuf};

/// A folder with one log of some segments; where its frames lie.
struct Example {
    dir: tempfile::TempDir,
    meta: LogMeta,
    events: Events,
}

impl Example {
    /// `sessions` starts of `count` events each, 20 a frame.
    fn new(sessions: u64, count: u64) -> Example {
        let dir = tempfile::tempdir().expect("a folder");
        for _ in 0..sessions {
            let folder = open(PosixStorage, dir.path(), small());
            let (mut log, _) = start(&folder);
            append(&mut log, &mut Appender::default(), count, 20, false);
        }
        let folder = open(PosixStorage, dir.path(), small());
        let meta = folder.meta().current().expect("one").logs[0].clone();
        let mut events = Events::default();
        recover(&folder, &meta, &mut events).expect("recovers");
        assert_eq!(events.all.len() as u64, sessions * count);
        Example { dir, meta, events }
    }

    fn log_dir(&self) -> PathBuf {
        self.dir.path().join("log-00000")
    }

    fn files(&self, prefix: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.log_dir()).expect("there").map(|entry| entry.expect("readable").path());
        let named = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
        let mut files: Vec<_> = entries.filter(named).collect();
        files.sort();
        files
    }

    fn segments(&self) -> Vec<PathBuf> {
        self.files("segment-")
    }

    /// (segment index, offset, bytes on disk) of every frame.
    fn frames(&self) -> Vec<(usize, u64, u64)> {
        let mut reader = LogReader::open(self.dir.path(), &self.meta).expect("a reader");
        let mut frames = Vec::new();
        while let Some(view) = reader.next(self.events.all.len() as u64).expect("reads") {
            frames.push((view.frame.segment as usize - 1, view.offset, view.frame.bytes_on_disk()));
        }
        frames
    }

    fn recover(&self) -> Result<(Recovered, Events), Error> {
        let folder = Folder::open(PosixStorage, self.dir.path(), small())?;
        let mut events = Events::default();
        recover(&folder, &self.meta, &mut events).map(|recovered| (recovered, events))
    }

    #[track_caller]
    fn expect_damage(&self, at: Option<(&Path, u64)>, words: &[&str]) {
        let error = self.recover().map(|(recovered, _)| recovered).expect_err("damage");
        let Error::Damaged { file, offset, .. } = &error else { panic!("{error}") };
        if let Some(at) = at {
            assert_eq!((file.as_path(), *offset), at, "{error}");
        }
        for words in words.iter().chain(&["assent journal verify", "restore"]) {
            assert!(error.to_string().contains(words), "no {words:?} in: {error}");
        }
        let report = verify(self.dir.path()).expect("the folder is readable");
        assert!(!report.is_sound(), "verify finds it as well");
    }
}

fn change(path: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("readable");
    edit(&mut bytes);
    fs::write(path, bytes).expect("writable");
}

#[test]
fn a_flipped_bit_in_the_middle_is_damage_with_file_and_offset() {
    let example = Example::new(2, 3_000);
    let (segments, frames) = (example.segments(), example.frames());
    // The first frame, the last one before a successor, one in the middle of the last segment: header and content.
    let last_segment = frames.last().expect("frames").0;
    let ends = frames.windows(2).filter(|pair| pair[0].0 != pair[1].0).map(|pair| pair[0]).take(2);
    let in_last = frames.iter().copied().filter(|frame| frame.0 == last_segment).skip(1).take(3);
    let chosen: Vec<_> = [frames[0], frames[1], frames[7]].into_iter().chain(ends).chain(in_last).collect();
    for (segment, offset, _) in chosen {
        // The first frame of a segment may be a cut, which is its header and nothing else.
        for at in [0, 5, 17, 41, 95, 100, 300].into_iter().filter(|at| offset > 0 || *at < 96) {
            let path = &segments[segment];
            change(path, |bytes| bytes[offset as usize + at] ^= 1 << (at % 8));
            // A first frame is looked for by name, so its segment is what the message is about.
            example.expect_damage((offset > 0).then_some((path, offset)), &["not whole"]);
            change(path, |bytes| bytes[offset as usize + at] ^= 1 << (at % 8));
        }
    }
    let (_, events) = example.recover().expect("nothing was changed by all this");
    assert_eq!(events.all, example.events.all);
}

#[test]
fn a_zeroed_stretch_in_the_middle_is_damage() {
    let example = Example::new(1, 2_000);
    let frames = example.frames();
    let (segment, offset, _) = frames[frames.len() - 8];
    change(&example.segments()[segment], |bytes| bytes[offset as usize..][..3 * 4096].fill(0));
    example.expect_damage(Some((&example.segments()[segment], offset)), &["knew it to be durable"]);
}

#[test]
fn a_damaged_first_frame_of_the_last_segment_is_damage() {
    let example = Example::new(2, 400);
    let last = example.segments().pop().expect("one");
    change(&last, |bytes| bytes[33] ^= 4);
    example.expect_damage(Some((&last, 0)), &["not whole"]);
}

#[test]
fn a_torn_tail_is_cut_off_and_never_read_again() {
    let example = Example::new(1, 1_000);
    let (segment, offset, bytes) = *example.frames().last().expect("frames");
    let path = example.segments()[segment].clone();
    let before = fs::read(&path).expect("readable");
    // The last frame as a crash may leave it: one sector missing, any of them.
    for sector in 0..bytes / 512 {
        change(&path, |bytes| bytes[(offset + sector * 512) as usize..][..512].fill(0xaa));
        let (recovered, events) = example.recover().expect("a torn tail is normal");
        // The padding of a frame is nobody's: a sector of it changes nothing.
        let there = events.all.len();
        assert!(there == 1_000 || there == 980, "{there}");
        assert_eq!(events.all, example.events.all[..there]);
        if there == 980 {
            let torn = recovered.torn.as_ref().map(|torn| (torn.file.clone(), torn.offset));
            assert!(sector == 0 || torn == Some((path.clone(), offset)), "{torn:?}");
        }
        fs::write(&path, &before).expect("restored");
    }
    change(&path, |bytes| bytes[offset as usize + 200] ^= 1);
    let folder = open(PosixStorage, example.dir.path(), small());
    let (mut log, events) = start(&folder);
    assert_eq!(events.all.len(), 980);
    assert_eq!(log.last_appended(), 980);
    append(&mut log, &mut Appender::default(), 20, 20, false);
    drop((log, folder));
    // Even if the lost frame came back whole, it lies behind the cut.
    fs::write(&path, &before).expect("restored");
    let (recovered, events) = example.recover().expect("recovers");
    assert_eq!((recovered.last_sequence, events.all.len()), (1_000, 1_000));
    assert!(verify(example.dir.path()).expect("verifies").is_sound());
}

#[test]
fn a_cut_file_is_damage() {
    let example = Example::new(1, 2_000);
    let last = example.segments().pop().expect("one");
    let whole = fs::read(&last).expect("readable");
    for keep in [0, 100, 4096, 4096 * 3 + 7, whole.len() - 4096, whole.len() - 1] {
        fs::write(&last, &whole[..keep]).expect("written");
        example.expect_damage(Some((&last, keep as u64)), &["cut off", &format!("{keep} of {} bytes", whole.len())]);
    }
    fs::write(&last, &whole).expect("restored");
    // One with a successor: its own rest was given back, so only missing frames tell.
    let example = Example::new(2, 2_000);
    let first = example.segments().remove(0);
    change(&first, |bytes| bytes.truncate(bytes.len() / 2));
    example.expect_damage(None, &["not whole"]);
}

#[test]
fn a_missing_segment_is_damage() {
    let example = Example::new(3, 3_000);
    let segments = example.segments();
    for missing in [0, 1, segments.len() / 2, segments.len() - 2] {
        let bytes = fs::read(&segments[missing]).expect("readable");
        fs::remove_file(&segments[missing]).expect("removed");
        let words: &[&str] = if missing == 0 { &["begins at sequence"] } else { &["is missing"] };
        example.expect_damage(None, words);
        fs::write(&segments[missing], bytes).expect("restored");
    }
    example.recover().expect("all is there again");
    fs::remove_dir_all(example.log_dir()).expect("removed");
    example.expect_damage(None, &["directory of a log is missing"]);
}

#[test]
fn a_log_that_ends_before_its_snapshot_is_damage() {
    let example = Example::new(1, 3_000);
    snapshot(&example, 2_990);
    fs::remove_file(example.segments().pop().expect("one")).expect("removed");
    example.expect_damage(None, &["2990 was known to be durable"]);
}

fn snapshot(example: &Example, sequence: u64) {
    let folder = open(PosixStorage, example.dir.path(), small());
    let mut snapshot = SnapshotWriter::new(&folder, &example.meta).expect("a snapshot");
    for key in 0..2 {
        snapshot.slice(key, sequence, &slice_of(&example.events.all, key, sequence)).expect("written");
    }
    snapshot.finish(3_000).expect("durable");
}

#[test]
fn a_damaged_snapshot_is_passed_over_while_the_journal_reaches_back() {
    let example = Example::new(1, 3_000);
    snapshot(&example, 1_000);
    snapshot(&example, 2_500);
    let snapshots = example.files("snapshot-");
    let used = |example: &Example| {
        let (recovered, events) = example.recover().expect("recovers");
        assert_eq!(events.all, example.events.all);
        (recovered.snapshot.map_or(0, |snapshot| snapshot.number), recovered.snapshot_skipped)
    };
    assert_eq!(used(&example), (2, None));
    let len = fs::metadata(&snapshots[1]).expect("there").len() as usize;
    for at in [0, 9, 40, 200, len / 2, len - 1] {
        change(&snapshots[1], |bytes| bytes[at] ^= 0x10);
        let (number, skipped) = used(&example);
        assert_eq!(number, 1, "byte {at}");
        assert!(skipped.is_some_and(|why| why.contains("snapshot-0000000002")));
        change(&snapshots[1], |bytes| bytes[at] ^= 0x10);
    }
    change(&snapshots[0], |bytes| bytes[50] ^= 1);
    change(&snapshots[1], |bytes| bytes.truncate(len - 40));
    assert_eq!(used(&example).0, 0, "the whole journal is there");
    for path in &example.segments()[..2] {
        fs::remove_file(path).expect("removed");
    }
    example.expect_damage(None, &["snapshot-0000000002", "ends in the middle", "is needed"]);
}

#[test]
fn another_version_is_named() {
    let example = Example::new(1, 100);
    let meta = example.dir.path().join("meta");
    let before = fs::read(&meta).expect("readable");
    change(&meta, |bytes| {
        bytes[8] = 2;
        let checksum = crc32c::crc32c(&bytes[4..]);
        bytes[..4].copy_from_slice(&checksum.to_le_bytes());
    });
    let error = example.recover().map(|_| ()).expect_err("another version");
    assert!(matches!(error, Error::WrongVersion { found: 2, supported: 1, .. }), "{error}");
    assert!(error.to_string().contains("start the version of assent that wrote it"), "{error}");
    fs::write(&meta, before).expect("restored");
    let (segment, offset, _) = example.frames()[1];
    change(&example.segments()[segment], |bytes| {
        let at = offset as usize;
        let length = u32::from_le_bytes(bytes[at + 12..at + 16].try_into().expect("four")) as usize;
        bytes[at + 8] = 9;
        let checksum = crc32c::crc32c(&bytes[at + 4..at + length]);
        bytes[at..at + 4].copy_from_slice(&checksum.to_le_bytes());
    });
    let error = example.recover().map(|_| ()).expect_err("another version");
    assert!(matches!(error, Error::WrongVersion { found: 9, .. }), "{error}");
}

#[test]
fn a_second_node_on_a_folder_is_told_who_has_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = open(PosixStorage, dir.path(), small());
    let error = Folder::open(PosixStorage, dir.path(), small()).map(|_| ()).expect_err("locked");
    let text = error.to_string();
    assert!(matches!(error, Error::Locked { .. }));
    assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
    assert!(text.contains("--data"), "{text}");
    drop(folder);
    Folder::open(PosixStorage, dir.path(), small()).expect("free again");
}

#[test]
fn logs_without_their_meta_file_are_not_written_over() {
    let example = Example::new(1, 100);
    fs::remove_file(example.dir.path().join("meta")).expect("removed");
    let error = example.recover().map(|_| ()).expect_err("missing");
    assert!(error.to_string().contains("the file is missing, and there are logs beside it"), "{error}");
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    for options in [
        Options { frame_bytes_max: 100, ..small() },
        Options { frame_bytes_max: 1 << 30, ..small() },
        Options { segment_bytes: 16 << 10, ..small() },
        Options { segment_bytes: (1 << 20) + 1, ..small() },
    ] {
        let refused = Folder::open(PosixStorage, dir.path(), options).map(|_| ());
        assert!(matches!(refused, Err(Error::Options(_))), "{refused:?}");
    }
}
