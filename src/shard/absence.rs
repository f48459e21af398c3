//! No id twice: whether an id may be known, and the proof that the archive does not have it.

use crate::model::{ApprovalId, Refusal};
use std::time::{Duration, Instant};

/// A proof of absence holds this long: decided approvals stay in memory longer than that after they
/// are archived, so that a look-up cannot be stale.
pub const ABSENCE_SECONDS: u64 = 10;

/// What is known of an id without a look-up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Known {
    /// It was never opened here.
    New,
    /// It is open, or may have been: look it up.
    Maybe,
}

/// The archive did not have an id.
#[derive(Clone, Copy, Debug)]
pub struct Absence(Instant);

impl Absence {
    /// Of a look-up that begins now.
    pub fn now() -> Absence {
        Absence(Instant::now())
    }

    fn holds(&self) -> bool {
        self.0.elapsed() < Duration::from_secs(ABSENCE_SECONDS)
    }
}

/// Nothing remembers ids that have left memory, so that none is known to be new.
pub(super) fn known(_: &ApprovalId) -> Known {
    Known::Maybe
}

/// Nothing leaves memory yet: what is not there was never opened, and only a proof out of date is refused.
pub(super) fn judge(_: &ApprovalId, absence: Option<&Absence>) -> Result<(), Refusal> {
    match absence {
        Some(absence) if !absence.holds() => Err(Refusal::LookUpFirst),
        _ => Ok(()),
    }
}
