//! The one place that reads the wall clock for decisions.
//!
//! `now` never goes back, and a wall clock that jumps is not believed until an operator accepts it:
//! until then opens are refused, nothing expires, and time goes on by the monotonic clock.

use crate::model::Micros;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A wall clock that is this far from where the monotonic one says it should be has jumped.
pub const JUMP_MICROS: u64 = 10 * Micros::SECOND;

/// How long slow drift (NTP slewing) may add up before it is taken as the new base.
const REBASE: Duration = Duration::from_secs(60);

/// Where time comes from; tests bring their own.
pub trait TimeSource: Send {
    fn wall(&self) -> Micros;
    /// From any fixed origin.
    fn monotonic(&self) -> Duration;
}

/// The machine's clocks.
pub struct MachineTime {
    origin: Instant,
}

impl Default for MachineTime {
    fn default() -> Self {
        MachineTime { origin: Instant::now() }
    }
}

impl TimeSource for MachineTime {
    fn wall(&self) -> Micros {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Micros(since.as_micros() as u64)
    }
    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }
}

/// What the clock says at one moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reading {
    pub now: Micros,
    /// False while the clock is in doubt.
    pub trusted: bool,
}

/// Turns two clocks into one `now` that never goes back.
pub struct Clock<T: TimeSource = MachineTime> {
    source: T,
    base_wall: Micros,
    base_monotonic: Duration,
    last: Micros,
    /// Since when, by the monotonic clock, and what `now` was then.
    doubt: Option<(Duration, Micros)>,
}

impl<T: TimeSource> Clock<T> {
    /// `last_event` is the newest time in the journal: a journal that ends more than 10 s ahead of
    /// the wall clock puts it in doubt from the start, unless `accept`.
    pub fn start(source: T, last_event: Micros, accept: bool) -> Clock<T> {
        let (wall, monotonic) = (source.wall(), source.monotonic());
        let ahead = last_event.since(wall) > JUMP_MICROS && !accept;
        Clock {
            base_wall: wall,
            base_monotonic: monotonic,
            last: last_event,
            doubt: ahead.then_some((monotonic, last_event)),
            source,
        }
    }

    /// Once a batch.
    pub fn read(&mut self) -> Reading {
        let (wall, monotonic) = (self.source.wall(), self.source.monotonic());
        if self.doubt.is_none() {
            let expected = self.base_wall.plus(monotonic.saturating_sub(self.base_monotonic).as_micros() as u64);
            if wall.0.abs_diff(expected.0) > JUMP_MICROS {
                self.doubt = Some((monotonic, self.last));
            } else if monotonic.saturating_sub(self.base_monotonic) > REBASE {
                (self.base_wall, self.base_monotonic) = (wall, monotonic);
            }
        }
        let now = match self.doubt {
            None => wall,
            Some((since, then)) => then.plus(monotonic.saturating_sub(since).as_micros() as u64),
        };
        self.last = self.last.max(now);
        Reading { now: self.last, trusted: self.doubt.is_none() }
    }

    /// An operator says that the wall clock is right as it is.
    pub fn accept(&mut self) {
        (self.base_wall, self.base_monotonic) = (self.source.wall(), self.source.monotonic());
        self.doubt = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// (wall, monotonic) in seconds.
    #[derive(Clone)]
    struct Steps(Arc<Mutex<(u64, u64)>>);

    impl Steps {
        fn set(&self, wall: u64, monotonic: u64) {
            *self.0.lock().expect("steps") = (wall, monotonic);
        }
    }

    impl TimeSource for Steps {
        fn wall(&self) -> Micros {
            Micros::from_secs(self.0.lock().expect("steps").0)
        }
        fn monotonic(&self) -> Duration {
            Duration::from_secs(self.0.lock().expect("steps").1)
        }
    }

    fn clock(wall: u64, last: u64) -> (Steps, Clock<Steps>) {
        let steps = Steps(Arc::new(Mutex::new((wall, 0))));
        (steps.clone(), Clock::start(steps, Micros::from_secs(last), false))
    }

    #[test]
    fn goes_with_the_wall_clock_and_never_back() {
        let (time, mut clock) = clock(1_000, 0);
        assert_eq!(clock.read(), Reading { now: Micros::from_secs(1_000), trusted: true });
        time.set(995, 1);
        assert_eq!(clock.read(), Reading { now: Micros::from_secs(1_000), trusted: true });
        time.set(1_001, 2);
        assert_eq!(clock.read(), Reading { now: Micros::from_secs(1_001), trusted: true });
    }

    #[test]
    fn a_jump_either_way_is_doubted_until_accepted() {
        for jumped in [900, 1_100] {
            let (time, mut clock) = clock(1_000, 0);
            clock.read();
            time.set(jumped, 1);
            assert_eq!(clock.read(), Reading { now: Micros::from_secs(1_000), trusted: false });
            time.set(jumped + 5, 6);
            assert_eq!(clock.read(), Reading { now: Micros::from_secs(1_005), trusted: false }, "monotonic goes on");
            clock.accept();
            assert!(clock.read().trusted);
        }
    }

    #[test]
    fn a_journal_ahead_of_the_wall_clock_is_doubted_at_start() {
        let (_, mut clock) = clock(1_000, 1_011);
        assert_eq!(clock.read(), Reading { now: Micros::from_secs(1_011), trusted: false });
        let (_, mut near) = self::clock(1_000, 1_009);
        assert_eq!(near.read(), Reading { now: Micros::from_secs(1_009), trusted: true });
    }

    #[test]
    fn slow_drift_is_no_jump() {
        let (time, mut clock) = clock(1_000, 0);
        for minute in 1..100 {
            // One second off a minute, as a badly slewed clock would be.
            time.set(1_000 + minute * 62, minute * 61);
            assert!(clock.read().trusted, "minute {minute}");
        }
    }
}
