//! The promises of assent, one file each, in one test binary (`tests/run` runs them all).
//! A file is named as a user would name the promise it keeps.

/// A real node as a child process, and hands to use it with.
mod support;

// What a user is told before anything runs.
/// `assent` says what it does, ends with the right exit code, and the README's tables are its own.
mod command_line;
/// Every setting can come from flag, variable or file; the strongest wins, and a bad one is named.
mod config;

// The contract.
/// Fields of the public contract are added, never changed or removed.
mod descriptor;
/// Metrics have the contract's names and the rules' reasons.
mod metrics;

// The window.
/// Liveness, readiness and metrics over HTTP, bounded against strangers; TLS with the right, the
/// wrong and no client certificate.
mod window;

// A data folder.
/// `assent journal verify` and `assent journal dump` read a folder and say what is in it.
mod journal_commands;

// A node's life.
/// Start, stop, kill -9 and start again on one folder.
mod node;

// The house.
/// Who may import whom, and what is named only where it belongs.
mod layers;

/// What was acknowledged is there after a restart, through segments, snapshots and generations.
mod journal_append;
/// Whatever was acknowledged survives a stop or failure at any write and sync, with any part of what was not synced.
mod journal_crash;

/// Decided at the very vote that makes the outcome certain; exact for 32,767 validators.
mod rules_deciding;
/// Expires at its microsecond, by timer or by touch, and not while the clock is in doubt.
mod rules_expiry;
/// Each limit on memory refuses openings by its name; votes go on.
mod rules_limits;
/// Random commands against a naive implementation, through replay and snapshots too.
mod rules_random;

// Whatever happens to the node.
/// A clock that jumps is not believed until an operator accepts it.
mod clock;
/// What was acknowledged survives kill -9 at any moment under load, on one folder, round after round.
mod kill;
