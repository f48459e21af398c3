//! `assent memory` (hidden): memory alone, as the engine's tables use it: 64-byte lines read at
//! random over far more than the caches hold. What figures of votes are compared with.

use super::scheme::mixed_bits;
use serde::Serialize;
use std::hint::black_box;
use std::time::Instant;

const LINE_BYTES: usize = 64;

/// What one run measured.
#[derive(Debug, Serialize)]
pub struct MemoryReport {
    pub schema: u32,
    pub bytes: usize,
    pub reads: u64,
    /// Each read's place is in the line read before: what a cache miss takes.
    pub chased_ns: f64,
    /// Places known ahead: what a miss costs where misses overlap, as with prefetching.
    pub overlapped_ns: f64,
}

/// Reads `reads` lines of `bytes` of memory, each way.
pub fn measure(bytes: usize, reads: u64) -> MemoryReport {
    let count = (bytes / LINE_BYTES).max(2);
    let mut lines = vec![[0u64; LINE_BYTES / 8]; count];
    // Sattolo's shuffle: one cycle through all lines, so that a chase does not end in a short one.
    lines.iter_mut().zip(0..).for_each(|(line, at)| line[0] = at);
    for at in (1..count).rev() {
        let other = mixed_bits(at as u64) as usize % at;
        let (low, high) = lines.split_at_mut(at);
        std::mem::swap(&mut low[other][0], &mut high[0][0]);
    }
    let reads = reads.max(1);
    let began = Instant::now();
    let mut at = 0;
    for _ in 0..reads {
        at = lines[at as usize][0];
    }
    black_box(at);
    let chased = began.elapsed();
    let began = Instant::now();
    let mut sum = 0u64;
    for read in 0..reads {
        // The upper bits scaled to the range: a division would take longer than the read.
        let place = ((u128::from(mixed_bits(read)) * count as u128) >> 64) as usize;
        sum = sum.wrapping_add(lines[place][0]);
    }
    black_box(sum);
    let each = |elapsed: std::time::Duration| elapsed.as_nanos() as f64 / reads as f64;
    MemoryReport {
        schema: 1,
        bytes: count * LINE_BYTES,
        reads,
        chased_ns: each(chased),
        overlapped_ns: each(began.elapsed()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn measures_small_memory_too() {
        let report = super::measure(1 << 16, 10_000);
        assert_eq!((report.bytes, report.reads), (1 << 16, 10_000));
        assert!(report.chased_ns > 0.0 && report.overlapped_ns > 0.0);
    }
}
