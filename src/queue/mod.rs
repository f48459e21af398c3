//! The pipes between threads: bounded, lock-free, generic. They know nothing of votes.
//!
//! `Ring` carries work into a shard and wakes it (`Bell`); `Mailbox` carries a commit's answers back
//! to one task; `Reply` is the slot of one answer. At the bound: `push` hands the item back, and
//! `poll_push` registers for the next free place.

mod alarm;
mod bell;
mod mailbox;
mod nudge;
mod reply;
mod ring;
mod thread;
mod vigil;
mod wait;

pub use alarm::Alarm;
pub use bell::{Announced, Bell};
pub use mailbox::Mailbox;
pub use nudge::{Progress, Watchdog};
pub use reply::{Reply, ReplySlot, reply};
pub use ring::Ring;
pub use thread::{eventfd, pin_this_thread, thread_cpu_nanos};
pub use vigil::{Vigil, Wait};
pub use wait::block_on;
