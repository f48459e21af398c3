//! Whatever was acknowledged survives a stop or a failure at any write and any sync, with any part of what was not
//! synced: in order, gapless, and with nothing beside it that was never appended.
//!
//! `CRASH_SEED=n` runs one seed (printed where a test fails), `CRASH_SEEDS=n` that many for each call.

use crate::support::crash_storage::{CrashStorage, Fault};
use crate::support::records::{Appender, Events, slice_of};
use assent::journal::{
    Error, Folder, Log, LogMeta, LogReader, Options, Recovered, SnapshotWriter, Storage, ready, recover, verify_on,
};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::path::Path;

fn tiny() -> Options {
    Options {
        segment_bytes: 32 << 10,
        pool_segments: 2,
        frame_bytes_max: 8 << 10,
        folder_bytes_max: None,
        reserve_bytes: 4 << 10,
        background: false,
    }
}

/// What the outside knows: everything that was appended, and how much of it was acknowledged.
#[derive(Default)]
struct Ledger {
    logs: BTreeMap<u16, (Vec<Vec<u8>>, u64)>,
    generation: u32,
    recoveries: u64,
    torn: u64,
    calls_seen: u64,
}

impl Ledger {
    fn check(&mut self, log: &LogMeta, events: &Events, recovered: &Recovered) {
        let (appended, acknowledged) = self.logs.entry(log.ordinal).or_default();
        let there = events.all.len() as u64;
        assert_eq!(recovered.last_sequence, there, "the marks and the events agree");
        assert!(there >= *acknowledged, "{acknowledged} were acknowledged, {there} are there");
        assert!(there <= appended.len() as u64, "{} were appended, {there} are there", appended.len());
        assert_eq!(events.all[..], appended[..there as usize], "what is there is what was appended");
        appended.truncate(there as usize);
        *acknowledged = there;
        self.recoveries += 1;
        self.torn += u64::from(recovered.torn.is_some());
    }
}

/// One life of a node: open, recover, check, append in a few rounds with all that goes on beside it.
fn live(storage: &CrashStorage, ledger: &mut Ledger, rng: &mut SmallRng, regenerate: bool) -> Result<(), Error> {
    let folder = Folder::open(storage.clone(), Path::new("/data"), tiny())?;
    let before = folder.meta();
    let number = before.current().map_or(0, |current| current.number);
    assert!(number >= ledger.generation, "generation {} was acknowledged", ledger.generation);
    if number == 0 || regenerate {
        let mut sealed = Vec::new();
        for log in before.current().map_or(&[][..], |current| &current.logs) {
            let mut events = Events::default();
            let recovered = recover(&folder, log, &mut events)?;
            ledger.check(log, &events, &recovered);
            sealed.push((log.ordinal, recovered.last_sequence));
        }
        let generation = folder.prepare_generation(1)?;
        for log in generation.logs.iter().filter(|log| log.starts_from_snapshot) {
            let mut snapshot = SnapshotWriter::new(&folder, log)?;
            (0..2).try_for_each(|key| snapshot.slice(key, 0, b""))?;
            snapshot.finish(0)?;
        }
        folder.commit_generation(&generation, &sealed)?;
        ledger.generation = generation.number;
    }
    let meta = folder.meta().current().expect("committed").logs[0].clone();
    let mut events = Events::default();
    let recovered = recover(&folder, &meta, &mut events)?;
    ledger.check(&meta, &events, &recovered);
    let mut log = Log::start(&folder, &meta, &recovered, storage.writer().expect("a writer"))?;
    let mut appender = Appender::default();
    for round in 0..6 {
        for _ in 0..3 {
            commit(&mut log, &mut appender, ledger, &meta, rng)?;
        }
        match round {
            0 | 3 => drop(folder.prepare()),
            1 | 4 => {
                let (appended, _) = &ledger.logs[&meta.ordinal];
                let early = log.durable() - log.durable().min(rng.random_range(0..3));
                let (early_slice, slice) = (slice_of(appended, 1, early), slice_of(appended, 0, log.durable()));
                let mut snapshot = SnapshotWriter::new(&folder, &meta)?;
                snapshot.slice(1, early, &early_slice)?;
                snapshot.slice(0, log.durable(), &slice)?;
                snapshot.finish(log.durable())?;
            }
            _ => drop(log.release_before(log.durable())?),
        }
    }
    Ok(())
}

/// Appends a frame of one to three batches, commits it, and notes what was acknowledged.
fn commit(
    log: &mut Log<CrashStorage>,
    appender: &mut Appender,
    ledger: &mut Ledger,
    meta: &LogMeta,
    rng: &mut SmallRng,
) -> Result<(), Error> {
    let (appended, acknowledged) = ledger.logs.entry(meta.ordinal).or_default();
    for _ in 0..rng.random_range(1..=3) {
        log.begin_batch(7, b"t");
        for _ in 0..rng.random_range(0..4) {
            let event: Vec<u8> = (0..rng.random_range(1..600)).map(|_| rng.random()).collect();
            assert!(log.room_in_frame() > event.len() + 5);
            let sequence = appender.append(log, &event);
            appended.push(event);
            assert_eq!(sequence, appended.len() as u64);
        }
        log.end_batch();
    }
    if log.begin_commit(true).is_some() {
        let committed = ready(log.finish_commit())?;
        assert_eq!(committed.last_sequence, log.durable());
        *acknowledged = log.durable();
    }
    Ok(())
}

/// A life without faults that must go well, and then: everything on the disk is sound, and readers see the same.
fn must_live(storage: &CrashStorage, ledger: &mut Ledger, rng: &mut SmallRng) {
    live(storage, ledger, rng, false).expect("a node starts after any crash");
    let report = verify_on(storage, Path::new("/data")).expect("verifies");
    assert!(report.is_sound(), "{report:#?}");
    let meta = report.meta.current().expect("one").logs[0].clone();
    let (appended, acknowledged) = &ledger.logs[&meta.ordinal];
    let mut reader = LogReader::open_on(storage.clone(), Path::new("/data"), &meta).expect("a reader");
    let oldest = reader.oldest();
    let mut sequence = oldest;
    let mut events = Events::default();
    while let Some(frame) = reader.next(*acknowledged).expect("reads") {
        for batch in frame.batches() {
            assert_eq!(batch.first_sequence, sequence);
            sequence += u64::from(batch.events);
            assent::journal::Replay::batch(&mut events, batch).expect("decodes");
        }
    }
    assert_eq!(sequence, acknowledged + 1, "a reader sees all that is acknowledged");
    if sequence > oldest {
        let held = oldest as usize - 1;
        assert_eq!(events.all[held..], appended[held..], "and it is what was appended");
    }
}

/// Three lives, with a fault at the `call`-th call of them; then, after what the crash left, another fault in the
/// next life, and at last a life that must go well.
fn crash(call: u64, fault: Fault, seed: u64) -> Ledger {
    let mut ledger = Ledger::default();
    let storage = CrashStorage::new();
    storage.fault_at(call, fault);
    // The same appends for every seed: only so is the n-th call the same call.
    let mut rng = SmallRng::seed_from_u64(1);
    for life in 0..3 {
        if live(&storage, &mut ledger, &mut rng, life == 1).is_err() {
            break;
        }
    }
    ledger.calls_seen = storage.calls();
    let mut rng = SmallRng::seed_from_u64(seed);
    // A failed node may also be started again on a machine that never went down.
    let after = if storage.is_stopped() || rng.random_bool(0.7) { storage.restart(seed) } else { storage };
    after.fault_at(rng.random_range(1..150), [Fault::Stop, Fault::Fail][rng.random_range(0..2)]);
    let regenerate = rng.random_bool(0.2);
    let _ = live(&after, &mut ledger, &mut rng, regenerate);
    let last = after.restart(seed + 1);
    must_live(&last, &mut ledger, &mut rng);
    ledger
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

fn crash_everywhere(fault: Fault) {
    let calls = crash(u64::MAX / 2, fault, 0).calls_seen;
    assert!(calls > 200, "{calls} calls");
    let seeds = setting("CRASH_SEEDS").unwrap_or(6);
    let (mut recoveries, mut torn) = (0, 0);
    for call in 1..=calls {
        for seed in setting("CRASH_SEED").map_or(0..seeds, |seed| seed..seed + 1) {
            let run = std::panic::catch_unwind(|| crash(call, fault, seed * 1_000 + call));
            let Ok(ledger) = run else {
                panic!("{fault:?} at call {call} of {calls} fails with CRASH_SEED={seed}");
            };
            recoveries += ledger.recoveries;
            torn += ledger.torn;
        }
    }
    eprintln!("{fault:?}: {calls} calls, {recoveries} recoveries, {torn} torn tails");
    assert!(torn > 0, "some tails are torn, or nothing was tested");
}

#[test]
fn a_stop_at_any_call_loses_nothing_acknowledged() {
    crash_everywhere(Fault::Stop);
}

#[test]
fn a_failure_of_any_call_loses_nothing_acknowledged() {
    crash_everywhere(Fault::Fail);
}

#[test]
fn no_room_at_any_call_loses_nothing_acknowledged() {
    crash_everywhere(Fault::Full);
}

#[test]
fn a_failed_frame_is_final() {
    let storage = CrashStorage::new();
    let mut ledger = Ledger::default();
    let mut rng = SmallRng::seed_from_u64(3);
    live(&storage, &mut ledger, &mut rng, false).expect("a first life");
    let folder = Folder::open(storage.clone(), Path::new("/data"), tiny()).expect("opens");
    let meta = folder.meta().current().expect("one").logs[0].clone();
    let recovered = recover(&folder, &meta, &mut Events::default()).expect("recovers");
    let mut log = Log::start(&folder, &meta, &recovered, storage.writer().expect("a writer")).expect("starts");
    log.begin_batch(1, b"");
    log.append_event(b"x");
    log.end_batch();
    log.begin_commit(false).expect("pending");
    storage.fault_at(2, Fault::Fail);
    let calls = storage.calls();
    let error = ready(log.finish_commit()).expect_err("the sync failed");
    assert!(matches!(error, Error::FrameFailed { .. }), "{error}");
    assert!(error.to_string().contains("The node ends"), "{error}");
    assert_eq!(storage.calls(), calls + 2, "a sync is never tried twice");
    assert_eq!(log.durable(), recovered.last_sequence);
    let again = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| log.begin_commit(false)));
    assert!(again.is_err(), "the log refuses to go on");
}
