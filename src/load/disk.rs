//! `assent disk` (hidden): the disk alone, as the journal uses it: aligned blocks written with
//! O_DIRECT and O_DSYNC into a file that was written before. What figures of votes are compared with.

use hdrhistogram::Histogram;
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Instant;

const BLOCK_BYTES: usize = 4096;
/// The file is written over and over; larger than any cache of a disk's controller need not be.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// What one run measured.
#[derive(Debug, Serialize)]
pub struct DiskReport {
    pub schema: u32,
    pub block_bytes: usize,
    pub writes: u64,
    /// O_DIRECT was to be had.
    pub direct: bool,
    pub seconds: f64,
    pub bytes_per_second: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
}

/// Writes `writes` blocks of `block_bytes` (whole 4 KiB), each durable before the next, in `dir`.
pub fn measure(dir: &Path, block_bytes: usize, writes: u64) -> io::Result<DiskReport> {
    let block_bytes = block_bytes.next_multiple_of(BLOCK_BYTES);
    let path = dir.join(format!("assent-disk-{}.tmp", std::process::id()));
    let outcome = measure_in(&path, block_bytes, writes);
    // Gone already when it could not be made.
    let _ = std::fs::remove_file(&path);
    outcome
}

fn measure_in(path: &Path, block_bytes: usize, writes: u64) -> io::Result<DiskReport> {
    let places = (FILE_BYTES_MAX / block_bytes as u64).clamp(1, writes.max(1));
    // Aligned by hand: O_DIRECT wants memory on block boundaries.
    let mut room = vec![0u8; block_bytes + BLOCK_BYTES];
    let start = room.as_ptr().align_offset(BLOCK_BYTES);
    let block = &mut room[start..start + block_bytes];
    block.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at * 31) as u8);

    let file = OpenOptions::new().write(true).create_new(true).open(path)?;
    for place in 0..places {
        file.write_all_at(block, place * block_bytes as u64)?;
    }
    file.sync_all()?;
    drop(file);

    let (file, direct) = open(path)?;
    let mut times = Histogram::<u64>::new(3).expect("three digits");
    let began = Instant::now();
    for number in 0..writes {
        block[..8].copy_from_slice(&number.to_le_bytes());
        let from = Instant::now();
        file.write_all_at(block, number % places * block_bytes as u64)?;
        times.saturating_record(from.elapsed().as_nanos() as u64);
    }
    let seconds = began.elapsed().as_secs_f64();
    let micros = |quantile: f64| times.value_at_quantile(quantile) as f64 / 1e3;
    Ok(DiskReport {
        schema: 1,
        block_bytes,
        writes,
        direct,
        seconds,
        bytes_per_second: writes as f64 * block_bytes as f64 / seconds,
        p50_us: micros(0.5),
        p99_us: micros(0.99),
        max_us: times.max() as f64 / 1e3,
    })
}

fn open(path: &Path) -> io::Result<(File, bool)> {
    let with = |flags| OpenOptions::new().write(true).custom_flags(flags).open(path);
    match with(libc::O_DIRECT | libc::O_DSYNC) {
        Ok(file) => Ok((file, true)),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok((with(libc::O_DSYNC)?, false)),
        Err(error) => Err(error),
    }
}
