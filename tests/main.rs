//! The promises of assent, one file each, in one test binary (`tests/run` runs them all).
//! A file is named as a user would name the promise it keeps.

mod support;

/// What was acknowledged is there after a restart, through segments, snapshots and generations.
mod journal_append;
/// Whatever was acknowledged survives a stop or failure at any write and sync, with any part of what was not synced.
mod journal_crash;
/// Damage is told from a torn tail; each kind gets the right fate and a message that helps.
mod journal_damage;
/// A full disk or folder refuses new work before it fails a frame, and takes work again when there is room.
mod journal_full;
