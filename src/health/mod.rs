//! What each room says of its own state: rooms write through a [`Reporter`], fronts read [`Health`].
//!
//! Ready: every component serves (degraded counts as serving). Alive: nothing died. A component
//! that died stays dead: the node is on its way out.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The state of one part; numbers as in the proto's HealthState.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum State {
    Serving = 1,
    /// Serving, with something an operator should look at.
    Degraded = 2,
    NotServing = 3,
}

impl State {
    pub const fn name(self) -> &'static str {
        match self {
            State::Serving => "SERVING",
            State::Degraded => "DEGRADED",
            State::NotServing => "NOT_SERVING",
        }
    }
}

/// One part as it stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Component {
    /// `journal`, `shard-0`, `clock`, …
    pub name: String,
    pub state: State,
    /// What is wrong, in words; empty when serving.
    pub message: String,
}

/// The registry. One a node, shared.
#[derive(Debug, Default)]
pub struct Health {
    components: Mutex<Vec<Component>>,
    /// Counts changes, so that a reader can tell cheaply that nothing happened.
    revision: AtomicU64,
    dead: AtomicBool,
}

impl Health {
    pub fn new() -> Arc<Health> {
        Arc::new(Health::default())
    }

    /// Adds a component, not serving until it says otherwise.
    pub fn register(self: &Arc<Health>, name: impl Into<String>) -> Reporter {
        let name = name.into();
        let mut components = self.lock();
        assert!(components.iter().all(|component| component.name != name), "component {name} is registered once");
        components.push(Component { name, state: State::NotServing, message: "starting".into() });
        self.revision.fetch_add(1, Ordering::Release);
        Reporter { health: Arc::clone(self), index: components.len() - 1 }
    }

    /// Every component, in the order they registered.
    pub fn components(&self) -> Vec<Component> {
        self.lock().clone()
    }

    /// The worst state of any component; not serving while there is none.
    pub fn state(&self) -> State {
        let components = self.lock();
        components.iter().map(|component| component.state).max_by_key(|state| *state as u8).unwrap_or(State::NotServing)
    }

    /// Whether work should be sent here.
    pub fn ready(&self) -> bool {
        self.alive() && self.state() != State::NotServing
    }

    /// Whether nothing died that the node cannot live without.
    pub fn alive(&self) -> bool {
        !self.dead.load(Ordering::Acquire)
    }

    /// Changes whenever a component's state or message does.
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Component>> {
        // A writer that panicked left a whole component behind: only plain assignments happen inside.
        self.components.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A room's own end: it writes one component's state. Cheap to clone, safe from any thread.
#[derive(Clone, Debug)]
pub struct Reporter {
    health: Arc<Health>,
    index: usize,
}

impl Reporter {
    pub fn serving(&self) {
        self.set(State::Serving, "");
    }

    /// Serving, but `message` is for an operator.
    pub fn degraded(&self, message: impl Into<String>) {
        self.set(State::Degraded, message);
    }

    pub fn not_serving(&self, message: impl Into<String>) {
        self.set(State::NotServing, message);
    }

    /// It will not come back: the node is no longer alive.
    pub fn died(&self, message: impl Into<String>) {
        self.health.dead.store(true, Ordering::Release);
        self.set(State::NotServing, message);
    }

    pub fn set(&self, state: State, message: impl Into<String>) {
        let message = message.into();
        let mut components = self.health.lock();
        let component = &mut components[self.index];
        if component.state != state || component.message != message {
            component.state = state;
            component.message = message;
            self.health.revision.fetch_add(1, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Health, State};

    #[test]
    fn ready_when_all_serve_and_dead_for_good() {
        let health = Health::new();
        assert!(!health.ready() && health.alive());
        let (journal, shard) = (health.register("journal"), health.register("shard-0"));
        journal.serving();
        assert_eq!((health.ready(), health.state()), (false, State::NotServing));
        shard.serving();
        assert_eq!((health.ready(), health.state()), (true, State::Serving));
        journal.degraded("the folder is nearly full");
        assert_eq!((health.ready(), health.state()), (true, State::Degraded));
        let before = health.revision();
        journal.degraded("the folder is nearly full");
        assert_eq!(health.revision(), before, "saying the same again is no change");
        shard.died("sync failed");
        shard.serving();
        assert!(!health.alive() && !health.ready());
    }
}
