//! The instruments: counters, gauges, histograms. Relaxed atomics; nothing here waits or allocates.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub const fn new() -> Counter {
        Counter(AtomicU64::new(0))
    }

    #[inline]
    pub fn add(&self, count: u64) {
        if count != 0 {
            self.0.fetch_add(count, Relaxed);
        }
    }

    #[inline]
    pub fn increment(&self) {
        self.add(1);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A value now.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    pub const fn new() -> Gauge {
        Gauge(AtomicU64::new(0))
    }

    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    #[inline]
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    #[inline]
    pub fn subtract(&self, count: u64) {
        self.0.fetch_sub(count, Relaxed);
    }

    /// One more, until the guard is dropped.
    pub fn hold(&self) -> Held<'_> {
        self.add(1);
        Held(self)
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Takes one from its gauge when dropped.
pub struct Held<'a>(&'a Gauge);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.subtract(1);
    }
}

/// Nine linear steps in each of the twenty decades of a u64, so that bounds are round numbers.
pub const STEPS: usize = 9;
const BUCKETS: usize = 20 * STEPS;

/// The bucket of a value. Bucket i holds what is above the bound of i - 1, up to its own (which is
/// what `le` means): counted from value - 1, digits and decade say it without a search.
#[inline]
fn bucket(value: u64) -> usize {
    let below = value.saturating_sub(1);
    match below.checked_ilog10() {
        None => 0,
        Some(decade) => decade as usize * STEPS + (below / 10u64.pow(decade)) as usize,
    }
}

/// The largest value in a bucket: 1, 2, … 9, 10, 20, … 90, 100, …
pub fn bound(bucket: usize) -> u64 {
    if bucket == 0 {
        return 1;
    }
    let (decade, digit) = ((bucket - 1) / STEPS, (bucket - 1) % STEPS + 1);
    10u64.pow(decade as u32).saturating_mul(digit as u64 + 1)
}

/// A distribution of whole numbers (nanoseconds, bytes, counts), within 1/9 of a decade.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS + 1],
    sum: AtomicU64,
    max: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram::new()
    }
}

impl Histogram {
    pub const fn new() -> Histogram {
        Histogram {
            buckets: [const { AtomicU64::new(0) }; BUCKETS + 1],
            sum: AtomicU64::new(0),
            max: AtomicU64::new(0),
        }
    }

    #[inline]
    pub fn record(&self, value: u64) {
        self.buckets[bucket(value)].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
        if value > self.max.load(Relaxed) {
            self.max.fetch_max(value, Relaxed);
        }
    }

    /// In nanoseconds.
    #[inline]
    pub fn record_duration(&self, duration: std::time::Duration) {
        self.record(duration.as_nanos() as u64);
    }

    pub fn read(&self) -> Distribution {
        Distribution {
            buckets: self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect(),
            sum: self.sum.load(Relaxed),
            max: self.max.load(Relaxed),
        }
    }
}

/// What a histogram held at one moment.
#[derive(Clone, Debug)]
pub struct Distribution {
    buckets: Vec<u64>,
    pub sum: u64,
    pub max: u64,
}

impl Distribution {
    pub fn empty() -> Distribution {
        Distribution { buckets: vec![0; BUCKETS + 1], sum: 0, max: 0 }
    }

    pub fn add(&mut self, other: &Distribution) {
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(mine, theirs)| *mine += theirs);
        self.sum += other.sum;
        self.max = self.max.max(other.max);
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    pub fn mean(&self) -> f64 {
        match self.count() {
            0 => 0.0,
            count => self.sum as f64 / count as f64,
        }
    }

    /// The bound under which this share of the values lies (0.99: p99), never above the largest.
    pub fn quantile(&self, share: f64) -> u64 {
        let wanted = (self.count() as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (at, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                return bound(at).min(self.max);
            }
        }
        0
    }

    /// Values up to each bound of buckets `from..=to` that is 1, 2 or 5 times a power of ten.
    pub fn cumulative(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut seen = 0;
        self.buckets.iter().enumerate().filter_map(move |(at, count)| {
            seen += count;
            let bound = bound(at);
            let first_digit = bound / 10u64.pow(bound.ilog10());
            ((from..=to).contains(&bound) && matches!(first_digit, 1 | 2 | 5)).then_some((bound, seen))
        })
    }
}

/// A histogram that many threads record into: each thread keeps to one of eight stripes.
#[derive(Debug, Default)]
pub struct StripedHistogram([Stripe; STRIPES]);

const STRIPES: usize = 8;

#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe(Histogram);

static NEXT_STRIPE: AtomicUsize = AtomicUsize::new(0);
thread_local! {
    static STRIPE: Cell<usize> = Cell::new(NEXT_STRIPE.fetch_add(1, Relaxed) % STRIPES);
}

impl StripedHistogram {
    #[inline]
    pub fn record(&self, value: u64) {
        self.0[STRIPE.get()].0.record(value);
    }

    #[inline]
    pub fn record_duration(&self, duration: std::time::Duration) {
        self.record(duration.as_nanos() as u64);
    }

    pub fn read(&self) -> Distribution {
        let mut all = Distribution::empty();
        self.0.iter().for_each(|stripe| all.add(&stripe.0.read()));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_lies_at_or_under_its_bound_and_above_the_one_before() {
        let edges = (0..20).flat_map(|decade| (1..10).map(move |digit| digit * 10u64.pow(decade.min(18))));
        for value in edges.flat_map(|edge| [edge - 1, edge, edge + 1]).chain([0, u64::MAX]) {
            let at = bucket(value);
            assert!(value <= bound(at), "{value} in bucket {at} up to {}", bound(at));
            assert!(at == 0 || value > bound(at - 1), "{value} in bucket {at}, above {}", bound(at - 1));
        }
    }

    #[test]
    fn quantiles_and_cumulative_counts() {
        let histogram = Histogram::new();
        (1..=1_000).for_each(|value| histogram.record(value));
        let read = histogram.read();
        assert_eq!((read.count(), read.sum, read.max), (1_000, 500_500, 1_000));
        assert_eq!((read.quantile(0.5), read.quantile(0.99), read.quantile(1.0)), (500, 1_000, 1_000));
        let shown: Vec<_> = read.cumulative(10, 500).collect();
        assert_eq!(shown, [(10, 10), (20, 20), (50, 50), (100, 100), (200, 200), (500, 500)]);
        assert_eq!(Distribution::empty().quantile(0.5), 0);
    }

    #[test]
    fn stripes_add_up() {
        let histogram = StripedHistogram::default();
        std::thread::scope(|scope| {
            for _ in 0..10 {
                scope.spawn(|| (0..100).for_each(|_| histogram.record(7)));
            }
        });
        assert_eq!((histogram.read().count(), histogram.read().sum), (1_000, 7_000));
    }
}
