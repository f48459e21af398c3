//! The promises of assent, one file each, in one test binary (`tests/run` runs them all).
//! A file is named as a user would name the promise it keeps.

/// What the tests share: the rules a second time, sinks that keep and check.
mod support;

/// Decided at the very vote that makes the outcome certain; exact for 32,767 validators.
mod rules_deciding;
/// Expires at its microsecond, by timer or by touch, and not while the clock is in doubt.
mod rules_expiry;
/// Each limit on memory refuses openings by its name; votes go on.
mod rules_limits;
/// Random commands against a naive implementation, through replay and snapshots too.
mod rules_random;
