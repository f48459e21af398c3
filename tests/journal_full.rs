//! A full disk or folder refuses new work before it fails a frame, keeps room for what must still be written, and
//! takes work again when there is room.

use crate::journal_append::{append, open, small, start};
use crate::support::crash_storage::CrashStorage;
use crate::support::records::{Appender, Events, slice_of};
use assent::journal::{Folder, Log, Options, PosixStorage, Room, SnapshotWriter, Storage, recover};
use std::path::Path;
use std::time::{Duration, Instant};

/// Appends until the log refuses votes; gives what it said on the way.
fn fill<S: Storage>(folder: &Folder<S>, log: &mut Log<S>, appender: &mut Appender) -> Vec<Room> {
    let mut said = vec![log.room()];
    for _ in 0..2_000 {
        if log.room() == Room::NoVotes {
            break;
        }
        append(log, appender, 100, 100, false);
        folder.prepare();
        if said.last() != Some(&log.room()) {
            said.push(log.room());
        }
    }
    said
}

fn snapshot<S: Storage>(folder: &Folder<S>, log: &Log<S>, events: &Events) {
    let meta = folder.meta().current().expect("one").logs[0].clone();
    let mut snapshot = SnapshotWriter::new(folder, &meta).expect("a snapshot has room");
    for key in 0..2 {
        snapshot.slice(key, log.durable(), &slice_of(&events.all, key, 0)).expect("room");
    }
    snapshot.finish(log.durable()).expect("durable");
}

#[test]
fn the_folders_limit_refuses_opens_then_votes_and_room_comes_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let options = Options { folder_bytes_max: Some(1 << 20), reserve_bytes: 160 << 10, ..small() };
    let folder = open(PosixStorage, dir.path(), options);
    let (mut log, events) = start(&folder);
    let mut appender = Appender::default();
    assert_eq!(fill(&folder, &mut log, &mut appender), [Room::Ok, Room::NoOpens, Room::NoVotes]);
    assert!(folder.shortage().is_some_and(|why| why.contains("limit")), "{:?}", folder.shortage());
    assert!(folder.used_bytes() <= 1 << 20, "{} bytes used", folder.used_bytes());
    // Expiry and shutdown still fit, and the snapshot that makes room.
    append(&mut log, &mut appender, 1_000, 100, false);
    assert!(folder.used_bytes() <= 1 << 20, "{} bytes used", folder.used_bytes());
    snapshot(&folder, &log, &events);
    assert!(log.release_before(u64::MAX).expect("released") > 3);
    assert!(folder.prepare());
    assert_eq!((log.room(), folder.shortage()), (Room::Ok, None));
    append(&mut log, &mut appender, 1_000, 100, false);
}

#[test]
fn the_background_tries_again_within_two_seconds() {
    let dir = tempfile::tempdir().expect("a folder");
    let options = Options { folder_bytes_max: Some(1 << 20), background: true, ..small() };
    let folder = open(PosixStorage, dir.path(), options);
    let (mut log, events) = start(&folder);
    let mut appender = Appender::default();
    let begun = Instant::now();
    while log.room() != Room::NoVotes && begun.elapsed() < Duration::from_secs(20) {
        append(&mut log, &mut appender, 100, 100, true);
    }
    assert_eq!(log.room(), Room::NoVotes);
    snapshot(&folder, &log, &events);
    log.release_before(u64::MAX).expect("released");
    let begun = Instant::now();
    while log.room() != Room::Ok && begun.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(10));
    }
    let waited = begun.elapsed();
    assert!(waited < Duration::from_secs(2), "room again only after {waited:?}");
}

#[test]
fn a_full_disk_refuses_in_time_and_the_reserve_carries_what_must_be_written() {
    let storage = CrashStorage::new();
    let folder = open(storage.clone(), Path::new("/data"), small());
    let (mut log, _) = start(&folder);
    let mut appender = Appender::default();
    append(&mut log, &mut appender, 500, 50, false);
    folder.prepare();
    storage.set_full(true);
    assert_eq!(fill(&folder, &mut log, &mut appender), [Room::Ok, Room::NoOpens, Room::NoVotes]);
    let durable = log.durable();
    storage.set_full(false);
    assert!(folder.prepare());
    assert_eq!(log.room(), Room::Ok);
    drop((log, folder));
    let folder = open(storage, Path::new("/data"), small());
    let meta = folder.meta().current().expect("one").logs[0].clone();
    let mut events = Events::default();
    assert_eq!(recover(&folder, &meta, &mut events).expect("recovers").last_sequence, durable);
}
