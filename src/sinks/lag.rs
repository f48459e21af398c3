//! How far a log has grown beyond what a sink has of it: in events, bytes, and time.

use std::collections::VecDeque;
use std::time::Instant;

/// Marks kept a log; beyond that every second of the older ones goes, and what they said is interpolated.
const MARKS_MAX: usize = 512;

/// A log's end at a moment.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    sequence: u64,
    /// Of journal, from the first segment held.
    bytes: u64,
}

/// How one log grew.
pub(super) struct Growth {
    marks: VecDeque<Mark>,
    /// Bytes held when this process started.
    base_bytes: u64,
}

/// What a sink has not acknowledged.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Behind {
    pub events: u64,
    pub bytes: u64,
    /// Since when the oldest of it waits.
    pub since: Option<Instant>,
}

impl Growth {
    /// `segments`: first sequence and bytes, the last in use; `written`: what of them was written since the start.
    pub fn new(segments: &[(u64, u64)], durable: u64, written: u64, now: Instant) -> Growth {
        let mut marks = VecDeque::new();
        let mut bytes = 0;
        if let Some((first, _)) = segments.first() {
            marks.push_back(Mark { at: now, sequence: first - 1, bytes });
        }
        for pair in segments.windows(2) {
            bytes += pair[0].1;
            marks.push_back(Mark { at: now, sequence: pair[1].0 - 1, bytes });
        }
        let mut growth = Growth { marks, base_bytes: bytes.saturating_sub(written) };
        growth.grew(durable, written, now);
        growth
    }

    /// The log ends here now, and grew by so many bytes since the start.
    pub fn grew(&mut self, durable: u64, written: u64, now: Instant) {
        let last = self.marks.back().copied();
        let bytes = (self.base_bytes + written).max(last.map_or(0, |last| last.bytes));
        if last.is_none_or(|last| last.sequence < durable) {
            self.marks.push_back(Mark { at: now, sequence: durable, bytes });
        }
        if self.marks.len() > MARKS_MAX {
            let older = self.marks.len() / 2;
            let mut index = 0;
            self.marks.retain(|_| {
                index += 1;
                index > older || index % 2 == 1
            });
        }
    }

    /// Of a sink that has everything up to `acknowledged`.
    pub fn behind(&self, acknowledged: u64) -> Behind {
        let next = self.marks.partition_point(|mark| mark.sequence <= acknowledged);
        let (Some(newest), Some(mark)) = (self.marks.back(), self.marks.get(next)) else { return Behind::default() };
        let events = newest.sequence - acknowledged;
        let before = if next == 0 { Mark { sequence: acknowledged, bytes: 0, ..*mark } } else { self.marks[next - 1] };
        let part = (acknowledged - before.sequence) as f64 / (mark.sequence - before.sequence).max(1) as f64;
        let done = before.bytes + ((mark.bytes - before.bytes) as f64 * part) as u64;
        Behind { events, bytes: newest.bytes - done, since: Some(mark.at) }
    }
}

impl Behind {
    /// Of several logs together.
    pub fn and(self, other: Behind) -> Behind {
        let since = [self.since, other.since].into_iter().flatten().min();
        Behind { events: self.events + other.events, bytes: self.bytes + other.bytes, since }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn behind_in_events_bytes_and_time() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        // Two finished segments of 1,000 and 2,000 bytes, then a new one that grew by nothing.
        let mut growth = Growth::new(&[(11, 1_000), (21, 2_000), (41, 16 << 20)], 40, 0, start);
        assert_eq!(growth.behind(40), Behind::default());
        assert_eq!(growth.behind(20), Behind { events: 20, bytes: 2_000, since: Some(start) });
        assert_eq!(growth.behind(15), Behind { events: 25, bytes: 2_500, since: Some(start) });
        assert_eq!(growth.behind(0), Behind { events: 40, bytes: 3_000, since: Some(start) });
        growth.grew(50, 500, at(5));
        growth.grew(60, 1_500, at(6));
        growth.grew(60, 1_500, at(7));
        assert_eq!(growth.behind(50), Behind { events: 10, bytes: 1_000, since: Some(at(6)) });
        assert_eq!(growth.behind(45), Behind { events: 15, bytes: 1_250, since: Some(at(5)) });
        assert_eq!(growth.behind(60), Behind::default());
        let both = growth.behind(50).and(growth.behind(45));
        assert_eq!(both, Behind { events: 25, bytes: 2_250, since: Some(at(5)) });
    }

    #[test]
    fn marks_are_bounded_and_the_ends_stay() {
        let start = Instant::now();
        let mut growth = Growth::new(&[], 0, 0, start);
        for step in 1..=100_000 {
            growth.grew(step, step * 10, start);
        }
        assert!(growth.marks.len() <= MARKS_MAX + 1);
        let behind = growth.behind(50_000);
        assert_eq!((behind.events, behind.bytes), (50_000, 500_000));
        assert_eq!(growth.behind(0).bytes, 1_000_000);
    }
}
