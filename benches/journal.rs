//! The journal alone, on the disk that the build uses: a commit is a frame of 40-byte events written
//! and synced, as a shard does it, and a figure counts only events that the log says are durable.
//!
//! `commit` waits for each frame before it builds the next; `overlapped` builds one while the other
//! syncs; `bare` is the same number of bytes written with O_DSYNC and O_DIRECT by nothing but a loop,
//! to compare with. `crc` is the checksum of a frame in a warm cache. `replay` reads a whole log back:
//! chain, checksums and batches, without decoding its records.
//! Not measured: the engine that decides, snapshots, two logs on one disk, a disk that is nearly full;
//! in `replay` the file may still lie in the kernel's cache.

use assent::journal::{
    BatchView, Folder, GlommioStorage, Log, Options, PosixStorage, SliceView, Storage, ready, recover,
};
use assent::load::disk;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const EVENT: [u8; 40] = [0x5A; 40];
const KIB: usize = 1 << 10;
const FRAMES: [(&str, usize); 4] =
    [("4 KiB", 4 * KIB), ("64 KiB", 64 * KIB), ("256 KiB", 256 * KIB), ("1 MiB", 1_024 * KIB)];
/// Events that `replay` reads.
const REPLAYED: u64 = 4_000_000;

fn options() -> Options {
    Options { frame_bytes_max: 2 << 20, ..Options::default() }
}

/// A folder on the disk of the build, not in memory, with one log in it.
fn folder<S: Storage>(storage: S) -> (TempDir, Folder<S>) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the build's folder can be written");
    let folder = Folder::open(storage, dir.path(), options()).expect("the folder opens");
    let generation = folder.prepare_generation(1).expect("prepared");
    folder.commit_generation(&generation, &[]).expect("committed");
    (dir, folder)
}

fn start<S: Storage>(folder: &Folder<S>) -> Log<S> {
    let meta = folder.meta().current().expect("a generation").logs[0].clone();
    let recovered = recover(folder, &meta, &mut (|_: SliceView<'_>| Ok(()), |_: BatchView<'_>| Ok(())));
    let writer = folder.storage().writer().expect("a writer");
    Log::start(folder, &meta, &recovered.expect("an empty log"), writer).expect("it starts")
}

/// Events that fill a frame of `bytes`: 96 bytes are the frame's header, 24 the batch's.
const fn events_in(bytes: usize) -> u64 {
    ((bytes - 96 - 24) / EVENT.len()) as u64
}

fn append<S: Storage>(log: &mut Log<S>, events: u64) {
    log.begin_batch(1_700_000_000_000_000, b"");
    (0..events).for_each(|_| {
        log.append_event(black_box(&EVENT));
    });
    log.end_batch();
}

/// Commits `frames` frames of `bytes`; every event in them is durable at the end.
async fn commit<S: Storage>(log: &mut Log<S>, frames: u64, bytes: usize, overlap: bool) -> Duration {
    let (events, before) = (events_in(bytes), log.durable());
    let start = Instant::now();
    for _ in 0..frames {
        append(log, events);
        if log.is_committing() {
            let committed = log.finish_commit().await.expect("durable");
            assert_eq!(committed.bytes, bytes as u64, "the frame has the size in its name");
        }
        log.begin_commit(overlap).expect("something is pending");
        if !overlap {
            log.finish_commit().await.expect("durable");
        }
    }
    if log.is_committing() {
        log.finish_commit().await.expect("durable");
    }
    let took = start.elapsed();
    assert_eq!(log.durable() - before, frames * events, "only durable events count");
    took
}

fn commits(criterion: &mut Criterion) {
    for (name, overlap) in [("commit", false), ("commit, overlapped", true)] {
        let mut group = criterion.benchmark_group(name);
        group.sample_size(10);
        for (size, bytes) in FRAMES {
            group.throughput(Throughput::Elements(events_in(bytes)));
            let mut log = None;
            group.bench_function(BenchmarkId::from_parameter(size), |bench| {
                let (_dir, log) = log.get_or_insert_with(|| {
                    let (dir, folder) = folder(PosixStorage);
                    (dir, start(&folder))
                });
                bench.iter_custom(|frames| ready(commit(log, frames, bytes, overlap)));
            });
        }
        group.finish();
    }
}

/// By io_uring: the executor runs on this thread, as a shard's does.
fn commits_by_uring(criterion: &mut Criterion) {
    let executor = glommio::LocalExecutorBuilder::default().preempt_timer(Duration::from_secs(3_600)).make();
    let executor = match executor {
        Ok(executor) => executor,
        Err(error) => return println!("commit by io_uring: not run, this machine has none: {error}"),
    };
    let mut group = criterion.benchmark_group("commit by io_uring");
    group.sample_size(10);
    for (size, bytes) in FRAMES {
        group.throughput(Throughput::Elements(events_in(bytes)));
        let mut log = None;
        group.bench_function(BenchmarkId::from_parameter(size), |bench| {
            bench.iter_custom(|frames| {
                executor.run(async {
                    let (_dir, log) = log.get_or_insert_with(|| {
                        let (dir, folder) = folder(GlommioStorage);
                        (dir, start(&folder))
                    });
                    commit(log, frames, bytes, false).await
                })
            });
        });
        executor.run(async { drop(log) });
    }
    group.finish();
}

fn bare(criterion: &mut Criterion) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the build's folder can be written");
    let mut group = criterion.benchmark_group("bare synced write");
    group.sample_size(10);
    for (size, bytes) in FRAMES {
        group.throughput(Throughput::Elements(events_in(bytes)));
        group.bench_function(BenchmarkId::from_parameter(size), |bench| {
            bench.iter_custom(|writes| {
                let report = disk::measure(dir.path(), bytes, writes).expect("the disk takes it");
                assert_eq!(report.writes, writes);
                Duration::from_secs_f64(report.seconds)
            });
        });
    }
    group.finish();
}

fn crc(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("crc");
    for (size, bytes) in FRAMES {
        let frame = vec![0x5A; bytes];
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |bench| {
            bench.iter(|| crc32c::crc32c(black_box(&frame)));
        });
    }
    group.finish();
}

fn replay(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("replay");
    group.sample_size(10);
    group.throughput(Throughput::Elements(REPLAYED));
    for (size, bytes) in [FRAMES[0], FRAMES[2]] {
        let mut written = None;
        group.bench_function(format!("frames of 1 MiB in batches of {size}"), |bench| {
            let (_dir, folder) = written.get_or_insert_with(|| {
                // As under load: many small batches share a frame.
                let (dir, folder) = folder(PosixStorage);
                let (mut log, mut left) = (start(&folder), REPLAYED);
                while left > 0 {
                    for _ in 0..(1 << 20) / bytes {
                        let count = left.min(events_in(bytes));
                        left -= count;
                        append(&mut log, count);
                    }
                    log.begin_commit(false).expect("something is pending");
                    ready(log.finish_commit()).expect("durable");
                }
                drop(log);
                (dir, folder)
            });
            let meta = folder.meta().current().expect("a generation").logs[0].clone();
            bench.iter(|| {
                let mut events = 0;
                let on_batch = |batch: BatchView<'_>| {
                    events += u64::from(batch.events);
                    black_box(batch.payload);
                    Ok(())
                };
                let recovered = recover(folder, &meta, &mut (|_: SliceView<'_>| Ok(()), on_batch)).expect("sound");
                assert_eq!((recovered.events, recovered.last_sequence, events), (REPLAYED, REPLAYED, REPLAYED));
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    targets = crc, bare, commits, commits_by_uring, replay
}
criterion_main!(benches);
