//! What was answered when: one histogram and a few counts a second, from the start of the run.

use hdrhistogram::Histogram;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Latencies in microseconds, three significant digits, growing with what is seen.
pub type Latencies = Histogram<u64>;

pub fn latencies() -> Latencies {
    Histogram::new(3).expect("three significant digits are legal")
}

/// When a run measures: from `start + warmup`, for `duration` (or until its work is done).
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    pub start: Instant,
    pub warmup: Duration,
    pub duration: Option<Duration>,
}

impl Clock {
    pub fn end(&self) -> Option<Instant> {
        self.duration.map(|duration| self.start + self.warmup + duration)
    }

    /// The seconds that are measured.
    pub fn measures(&self, second: usize) -> bool {
        let second = second as u64;
        second >= self.warmup.as_secs()
            && self.duration.is_none_or(|duration| second < (self.warmup + duration).as_secs())
    }
}

/// One second.
#[derive(Clone, Debug)]
pub struct Interval {
    pub latencies: Latencies,
    /// Votes that counted.
    pub votes: u64,
    pub opens: u64,
    /// Approvals whose last vote was answered (lifecycle).
    pub decided: u64,
    pub refused: u64,
}

impl Default for Interval {
    fn default() -> Interval {
        Interval { latencies: latencies(), votes: 0, opens: 0, decided: 0, refused: 0 }
    }
}

impl Interval {
    pub fn add(&mut self, other: &Interval) {
        self.latencies.add(&other.latencies).expect("a histogram that resizes takes any value");
        self.votes += other.votes;
        self.opens += other.opens;
        self.decided += other.decided;
        self.refused += other.refused;
    }

    fn clear(&mut self) {
        self.latencies.reset();
        (self.votes, self.opens, self.decided, self.refused) = (0, 0, 0, 0);
    }
}

/// All lanes' seconds.
#[derive(Debug, Default)]
pub struct Timeline(Mutex<Vec<Interval>>);

impl Timeline {
    fn merge(&self, second: usize, interval: &Interval) {
        let mut seconds = self.0.lock().expect("no holder panics");
        while seconds.len() <= second {
            seconds.push(Interval::default());
        }
        seconds[second].add(interval);
    }

    pub fn take(&self) -> Vec<Interval> {
        std::mem::take(&mut *self.0.lock().expect("no holder panics"))
    }
}

/// One lane's current second; goes to the timeline when the second is over.
#[derive(Debug, Default)]
pub struct Recorder {
    second: usize,
    current: Interval,
    dirty: bool,
}

impl Recorder {
    /// The interval that `now` belongs to.
    pub fn at(&mut self, clock: &Clock, now: Instant, timeline: &Timeline) -> &mut Interval {
        let second = now.saturating_duration_since(clock.start).as_secs() as usize;
        if second != self.second {
            self.flush(timeline);
            self.second = second;
        }
        self.dirty = true;
        &mut self.current
    }

    pub fn flush(&mut self, timeline: &Timeline) {
        if self.dirty {
            timeline.merge(self.second, &self.current);
            self.current.clear();
            self.dirty = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_go_where_they_belong() {
        let clock =
            Clock { start: Instant::now(), warmup: Duration::from_secs(1), duration: Some(Duration::from_secs(2)) };
        let (timeline, mut recorder) = (Timeline::default(), Recorder::default());
        for (millis, votes) in [(100, 1), (900, 2), (1_000, 4), (2_999, 8), (3_000, 16)] {
            recorder.at(&clock, clock.start + Duration::from_millis(millis), &timeline).votes += votes;
        }
        recorder.flush(&timeline);
        recorder.flush(&timeline);
        let seconds = timeline.take();
        assert_eq!(seconds.iter().map(|second| second.votes).collect::<Vec<_>>(), [3, 4, 8, 16]);
        let measured: u64 =
            seconds.iter().enumerate().filter(|(at, _)| clock.measures(*at)).map(|(_, second)| second.votes).sum();
        assert_eq!(measured, 12);
    }
}
