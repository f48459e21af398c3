//! assent: an approval engine. Validators vote, quorum decides, and everyone who must know is told.
//!
//! The code in reading order. Each room is a noun with one purpose; who may use whom is held by
//! `tests/layers.rs`. A vote's way: `grpc` → `wire` → `shard` → `engine` → `journal` → `grpc`.
//!
//! Deliberately absent: a room of utilities, a crate-wide error type, an asynchronous engine,
//! clocks or randomness anywhere but at the edges, and consensus between nodes.

/// The words: ids, approvals, votes, commands, events, refusals, time, and how events become bytes.
pub mod model;

/// The rules of an approval, pure and deterministic: decide reads, apply writes.
pub mod engine;

/// The bytes on disk: frames, segments, snapshots, recovery. Knows nothing of votes.
pub mod journal;

/// The pipes between threads: bounded, lock-free, with a wake-up that works across runtimes.
pub mod queue;

/// The protos: generated messages, their conversion from and to the model, the hot decoder.
pub mod wire;

/// What each room says of its own state.
pub mod health;

/// Every metric's name, labels and help in one table.
pub mod metrics;

/// One core: owns an engine, a journal and the ends of its queues.
pub mod shard;

/// The archive that people query: PostgreSQL, or SQLite in the data folder.
pub mod store;

/// The way out: the archive, Kafka, files, each fed from the journal exactly once.
pub mod sinks;

/// The gRPC front: one method an rpc, one table from refusal to status, and the client.
pub mod grpc;

/// The window: liveness, readiness, metrics over HTTP.
pub mod http;

/// The load generator: workload, pacer, checker, report.
pub mod load;

/// Settings from file, environment and flags, checked once before anything starts.
pub mod config;

/// The wiring diagram as code: build, start, stop in reverse.
pub mod server;

/// Subcommands and flags.
pub mod cli;
