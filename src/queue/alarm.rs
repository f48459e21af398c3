//! A thread that rings a bell at a given time, for a consumer whose executor must not have timers.

use super::Bell;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// One alarm, for one bell; its thread sleeps while none is set, and ends when this is dropped.
pub struct Alarm {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// When to ring; `None`: not at all.
    ring_at: Option<Instant>,
    /// Until when the thread sleeps by itself: a later time needs no wake, it will look again.
    asleep_until: Option<Instant>,
    ended: bool,
}

impl Alarm {
    pub fn start(bell: Arc<Bell>) -> Alarm {
        let shared = Arc::new(Shared { state: Mutex::new(State::default()), changed: Condvar::new() });
        let thread = shared.clone();
        std::thread::Builder::new()
            .name("alarm".into())
            .spawn(move || thread.run(&bell))
            .expect("a thread for the shard's alarm");
        Alarm { shared }
    }

    /// Rings once after `timeout`; `None`: not at all. Replaces what was set before.
    pub fn set(&self, timeout: Option<Duration>) {
        let mut state = self.shared.state.lock().expect("alarm");
        state.ring_at = timeout.map(|timeout| Instant::now() + timeout);
        let Some(ring_at) = state.ring_at else { return };
        if state.asleep_until.is_none_or(|until| ring_at < until) {
            self.shared.changed.notify_one();
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.shared.state.lock().expect("alarm").ended = true;
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn run(&self, bell: &Bell) {
        let mut state = self.state.lock().expect("alarm");
        while !state.ended {
            let now = Instant::now();
            match state.ring_at {
                Some(when) if when <= now => {
                    state.ring_at = None;
                    bell.ring();
                }
                Some(when) => {
                    state.asleep_until = Some(when);
                    state = self.changed.wait_timeout(state, when - now).expect("alarm").0;
                }
                None => {
                    state.asleep_until = None;
                    state = self.changed.wait(state).expect("alarm");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_a_sleeper_in_time_and_a_later_setting_replaces_an_earlier_one() {
        let bell = Arc::new(Bell::new());
        bell.belongs_to_this_thread();
        let alarm = Alarm::start(bell.clone());
        alarm.set(Some(Duration::from_secs(3600)));
        alarm.set(Some(Duration::from_millis(20)));
        let began = Instant::now();
        bell.sleep(None, || false);
        assert!(began.elapsed() >= Duration::from_millis(20));
        assert!(began.elapsed() < Duration::from_secs(60));
    }
}
