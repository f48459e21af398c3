//! What was acknowledged is there after a restart, in order, through segments, snapshots and generations.

use crate::support::records::{Appender, Events, record_bytes, slice_of};
use assent::journal::{
    Folder, GlommioStorage, Log, LogReader, LogWriter, Options, PosixStorage, Room, SnapshotWriter, Storage,
    frame_batches, ready, recover, verify,
};
use std::path::Path;

pub fn small() -> Options {
    Options {
        segment_bytes: 128 << 10,
        pool_segments: 2,
        frame_bytes_max: 16 << 10,
        folder_bytes_max: None,
        reserve_bytes: 64 << 10,
        background: false,
    }
}

fn event(number: u64) -> Vec<u8> {
    let len = 1 + (number * 7919 % 90) as usize;
    (0..len).map(|at| (number as usize * 31 + at) as u8).collect()
}

/// Opens (or makes) a folder with one log.
pub fn open<S: Storage>(storage: S, dir: &Path, options: Options) -> Folder<S> {
    let folder = Folder::open(storage, dir, options).expect("the folder opens");
    if folder.meta().current().is_none() {
        let generation = folder.prepare_generation(1).expect("prepared");
        folder.commit_generation(&generation, &[]).expect("committed");
    }
    folder
}

pub fn start<S: Storage>(folder: &Folder<S>) -> (Log<S>, Events) {
    let meta = folder.meta().current().expect("a generation").logs[0].clone();
    let mut events = Events::default();
    let recovered = recover(folder, &meta, &mut events).expect("recovers");
    assert_eq!(recovered.last_sequence, events.all.len() as u64);
    let log = Log::start(folder, &meta, &recovered, folder.storage().writer().expect("a writer")).expect("starts");
    (log, events)
}

/// Appends `count` events in batches of up to `batch`, each committed.
pub fn append<S: Storage>(log: &mut Log<S>, appender: &mut Appender, count: u64, batch: u64, overlap: bool) {
    let until = log.last_appended() + count;
    while log.last_appended() < until {
        log.begin_batch(1_000 + log.last_appended(), b"trace");
        for _ in 0..batch.min(until - log.last_appended()) {
            let event = event(log.last_appended() + 1);
            if log.room_in_frame() < record_bytes(&event) {
                break;
            }
            appender.append(log, &event);
        }
        log.end_batch();
        if overlap {
            if log.is_committing() {
                ready(log.finish_commit()).expect("durable");
            }
            log.begin_commit(true).expect("something is pending");
        } else {
            log.begin_commit(false).expect("something is pending");
            ready(log.finish_commit()).expect("durable");
        }
    }
    if log.is_committing() {
        ready(log.finish_commit()).expect("durable");
    }
    assert_eq!(log.durable(), log.last_appended());
}

fn expect_events(events: &Events, count: u64) {
    assert_eq!(events.all.len() as u64, count);
    for number in 1..=count {
        assert_eq!(events.all[number as usize - 1], event(number), "sequence {number}");
    }
}

#[test]
fn events_come_back_in_order_through_many_segments_and_restarts() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut count = 0;
    for round in 0..6 {
        let folder = open(PosixStorage, dir.path(), Options { background: round % 2 == 0, ..small() });
        let (mut log, events) = start(&folder);
        expect_events(&events, count);
        let mut appender = Appender::default();
        append(&mut log, &mut appender, 5_000, 1 + round * 40, round % 3 == 0);
        count += 5_000;
        if round % 2 == 1 {
            folder.prepare();
        }
        assert_eq!(log.room(), Room::Ok);
    }
    let report = verify(dir.path()).expect("verifies");
    assert!(report.is_sound(), "{report:?}");
    assert_eq!((report.logs[0].events, report.logs[0].sequences), (count, (1, count)));
    assert!(report.logs[0].segments > 6);
}

#[test]
fn a_default_folder_starts_within_a_second_and_an_empty_batch_writes_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let begun = std::time::Instant::now();
    let folder = open(PosixStorage, dir.path(), Options::default());
    let (mut log, _) = start(&folder);
    log.begin_batch(1, b"");
    log.end_batch();
    assert_eq!(log.pending_bytes(), 0);
    assert!(log.begin_commit(false).is_none());
    log.begin_batch(1, b"x");
    log.append_event(b"one");
    log.end_batch();
    log.begin_batch(2, b"y");
    log.end_batch();
    log.begin_batch(3, b"");
    log.append_note(b"a note");
    log.end_batch();
    assert_eq!(log.begin_commit(false).map(|commit| (commit.first_sequence, commit.last_sequence)), Some((1, 1)));
    assert!(log.begin_commit(false).is_none(), "one commit at a time");
    let committed = ready(log.finish_commit()).expect("durable");
    assert_eq!((committed.segment, committed.offset, committed.bytes, log.durable()), (1, 4096, 4096, 1));
    let batches: Vec<_> = frame_batches(log.committed_frame()).collect();
    assert_eq!(batches.len(), 2);
    assert_eq!((batches[0].trace, batches[0].payload, batches[0].segment_start), (&b"x"[..], &b"one"[..], true));
    assert_eq!((batches[1].events, batches[1].payload, batches[1].now_micros), (0, &b"a note"[..], 3));
    assert_eq!(batches[1].first_sequence, 2);
    drop(log);
    let seconds = begun.elapsed().as_secs_f64();
    assert!(seconds < 1.0, "{seconds} s for a first start and one commit");
}

#[test]
fn a_snapshot_shortens_replay_and_slices_may_be_of_different_times() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = open(PosixStorage, dir.path(), small());
    let (mut log, mut events) = start(&folder);
    let meta = folder.meta().current().expect("one").logs[0].clone();
    let mut appender = Appender::default();
    for round in 1..=5u64 {
        append(&mut log, &mut appender, 4_000, 50, false);
        (events.all.len() as u64 + 1..=log.durable()).for_each(|number| events.all.push(event(number)));
        let mut snapshot = SnapshotWriter::new(&folder, &meta).expect("a snapshot");
        let (odd, even) = (log.durable() - 700, log.durable());
        snapshot.slice(1, odd, &slice_of(&events.all, 1, odd)).expect("written");
        append(&mut log, &mut appender, 100, 10, false);
        snapshot.slice(0, even, &slice_of(&events.all, 0, even)).expect("written");
        if round == 4 {
            drop(snapshot);
        } else {
            let summary = snapshot.finish(log.durable()).expect("durable");
            assert_eq!((summary.slices, summary.smallest_sequence, summary.largest_sequence), (2, odd, even));
        }
    }
    let count = log.durable();
    drop(log);
    let snapshots = std::fs::read_dir(dir.path().join("log-00000")).expect("there");
    let snapshots = snapshots
        .filter(|entry| entry.as_ref().is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("snapshot")));
    assert_eq!(snapshots.count(), 2, "the newest and the one before; none of the one given up");
    let mut events = Events::default();
    let recovered = recover(&folder, &meta, &mut events).expect("recovers");
    expect_events(&events, count);
    assert!(recovered.events < 4_000, "{} events replayed", recovered.events);
    assert_eq!(recovered.snapshot_sequence, count - 100 - 700);
}

#[test]
fn released_segments_are_used_again_and_what_is_left_recovers() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = open(PosixStorage, dir.path(), small());
    let (mut log, _) = start(&folder);
    let meta = folder.meta().current().expect("one").logs[0].clone();
    let mut appender = Appender::default();
    let mut used = Vec::new();
    assert_eq!(log.release_before(u64::MAX).expect("nothing"), 0, "without a snapshot nothing is given away");
    for _ in 0..12 {
        append(&mut log, &mut appender, 3_000, 50, false);
        folder.prepare();
        let all: Vec<_> = (1..=log.durable()).map(event).collect();
        let mut snapshot = SnapshotWriter::new(&folder, &meta).expect("a snapshot");
        for key in 0..2 {
            snapshot.slice(key, log.durable(), &slice_of(&all, key, log.durable())).expect("written");
        }
        snapshot.finish(log.durable()).expect("durable");
        assert!(log.release_before(u64::MAX).expect("released") > 0);
        let bytes = verify(dir.path()).expect("verifies").logs[0].segments;
        used.push(bytes);
    }
    assert!(used.iter().all(|segments| *segments < 8), "{used:?}");
    let pooled = std::fs::read_dir(dir.path().join("pool")).expect("there").count();
    assert!((1..=2).contains(&pooled), "{pooled} in the pool");
    let durable = log.durable();
    let mut reader = LogReader::open(dir.path(), &meta).expect("a reader");
    let oldest = reader.oldest();
    assert!(oldest > 1);
    let gone = reader.seek(oldest - 1);
    assert!(matches!(gone, Err(assent::journal::Error::NoLongerHeld { oldest: held, .. }) if held == oldest));
    drop((log, folder));
    let folder = open(PosixStorage, dir.path(), small());
    let (_, events) = start(&folder);
    expect_events(&events, durable);
}

#[test]
fn a_reader_follows_a_live_log_and_finds_any_event() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = open(PosixStorage, dir.path(), small());
    let (mut log, _) = start(&folder);
    let meta = folder.meta().current().expect("one").logs[0].clone();
    let mut reader = LogReader::open(dir.path(), &meta).expect("a reader");
    let mut followed = Events::default();
    let mut appender = Appender::default();
    for round in 0..60 {
        append(&mut log, &mut appender, 333, 1 + round % 40, round % 2 == 0);
        // Something is always behind the mark that is not to be seen.
        log.begin_batch(1, b"");
        let next = event(log.last_appended() + 1);
        appender.append(&mut log, &next);
        log.end_batch();
        while let Some(frame) = reader.next(log.durable()).expect("reads") {
            for batch in frame.batches() {
                assent::journal::Replay::batch(&mut followed, batch).expect("decodes");
            }
        }
        expect_events(&followed, log.durable());
    }
    log.begin_commit(false);
    ready(log.finish_commit()).expect("durable");
    for sequence in [1, 2, 777, 5_000, 5_001, 12_345, log.durable()] {
        let (segment, first) = reader.batch_of(sequence, |batch| (batch.segment, batch.first_sequence)).expect("found");
        assert!(first <= sequence);
        assert_eq!(reader.segment_of(sequence).expect("known"), segment);
        let mut last = 0;
        let mut definitions = Events::default();
        reader
            .batches(segment, sequence, |batch| {
                last = batch.last_sequence();
                assent::journal::Replay::batch(&mut definitions, batch).expect("decodes");
            })
            .expect("reads");
        assert!(last >= sequence);
        assert_eq!(definitions.all[sequence as usize - 1], event(sequence));
        reader.seek(sequence).expect("goes there");
        let frame = reader.next(log.durable()).expect("reads").expect("a frame").frame;
        assert!((frame.first_sequence..=frame.last_sequence()).contains(&sequence));
    }
    reader.seek(log.durable() + 1).expect("the end is a place too");
    assert!(reader.next(log.durable()).expect("reads").is_none());
    append(&mut log, &mut appender, 10, 10, false);
    let frame = reader.next(log.durable()).expect("reads").expect("a frame").frame;
    assert_eq!((frame.first_sequence, frame.last_sequence()), (log.durable() - 9, log.durable()));
}

#[test]
fn a_change_of_the_number_of_logs_seals_the_old_ones() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut total = 0;
    for (round, logs) in [1u16, 2, 4, 1].into_iter().enumerate() {
        let folder = Folder::open(PosixStorage, dir.path(), small()).expect("opens");
        let before = folder.meta();
        let mut sealed = Vec::new();
        for log in before.current().map_or(&[][..], |current| &current.logs) {
            let mut events = Events::default();
            let recovered = recover(&folder, log, &mut events).expect("recovers");
            sealed.push((log.ordinal, recovered.last_sequence));
        }
        let generation = folder.prepare_generation(logs).expect("prepared");
        assert_eq!(generation.number as usize, round + 1);
        assert_eq!(generation.logs.first().map(|log| log.partitions.start), Some(0));
        assert_eq!(generation.logs.last().map(|log| log.partitions.end), Some(1024));
        // A first try that crashed leaves nothing behind.
        drop(folder);
        let folder = Folder::open(PosixStorage, dir.path(), small()).expect("opens");
        assert!(!dir.path().join(format!("log-{:05}", generation.logs[0].ordinal)).exists());
        let generation = folder.prepare_generation(logs).expect("prepared again");
        for log in generation.logs.iter().filter(|log| log.starts_from_snapshot) {
            let mut snapshot = SnapshotWriter::new(&folder, log).expect("a snapshot");
            snapshot.slice(0, 0, b"").expect("written");
            snapshot.finish(0).expect("durable");
        }
        folder.commit_generation(&generation, &sealed).expect("committed");
        assert_eq!(folder.meta().deployment, before.deployment);
        for meta in &generation.logs {
            let recovered = recover(&folder, meta, &mut Events::default()).expect("recovers");
            let writer = PosixStorage.writer().expect("a writer");
            let mut log = Log::start(&folder, meta, &recovered, writer).expect("starts");
            append(&mut log, &mut Appender::default(), 500, 20, false);
            total += 500;
        }
    }
    let report = verify(dir.path()).expect("verifies");
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(report.logs.len(), 8);
    assert_eq!(report.logs.iter().map(|log| log.events).sum::<u64>(), total);
    // Sealed logs can be followed to their end.
    let log = report.meta.log(1).expect("a log of the second generation");
    let mut reader = LogReader::open(dir.path(), log).expect("a reader");
    let mut followed = 0;
    while let Some(frame) = reader.next(log.sealed.expect("sealed")).expect("reads") {
        followed += u64::from(frame.frame.events);
    }
    assert_eq!(followed, 500);
}

#[test]
fn a_storage_over_io_uring_keeps_the_same_promises() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().to_path_buf();
    let executor = glommio::LocalExecutorBuilder::default().preempt_timer(std::time::Duration::from_secs(3600)).make();
    // Where io_uring is not to be had there is nothing to test; the node says so at start and takes plain calls.
    let Ok(executor) = executor else { return };
    executor.run(async move {
        let mut count = 0;
        for _ in 0..3 {
            let folder = open(GlommioStorage, &path, small());
            let (mut log, events) = start(&folder);
            expect_events(&events, count);
            let mut appender = Appender::default();
            for _ in 0..150 {
                log.begin_batch(1, b"");
                for _ in 0..20 {
                    let next = event(log.last_appended() + 1);
                    appender.append(&mut log, &next);
                }
                log.end_batch();
                log.begin_commit(true).expect("pending");
                assert!(log.commit_done());
                log.finish_commit().await.expect("durable");
            }
            count = log.durable();
        }
        assert_eq!(count, 3 * 150 * 20);
        let report = verify(&path).expect("verifies");
        assert!(report.is_sound(), "{report:?}");
    });
}

#[test]
fn an_overlapped_write_goes_on_by_itself() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("segment");
    PosixStorage.create(&path, 1 << 20).expect("created");
    let mut writer = PosixStorage.writer().expect("a writer");
    writer.open(&path).expect("opens");
    let mut buf = assent::journal::AlignedBuf::zeroed(8192);
    for round in 0..200u64 {
        buf.fill(round as u8);
        writer.begin(round % 100 * 8192, buf, 8192, round % 3 != 0);
        if round % 5 == 1 {
            while !writer.is_done() {
                std::thread::yield_now();
            }
        }
        let (back, result) = ready(writer.finish());
        result.expect("written");
        buf = back;
    }
    drop(writer);
    let bytes = std::fs::read(&path).expect("there");
    for block in 0..100 {
        assert!(bytes[block * 8192..][..8192].iter().all(|byte| *byte as usize == 100 + block), "block {block}");
    }
}
