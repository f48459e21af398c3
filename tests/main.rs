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

// A node's calls, through ordinary generated clients.
/// Every call works as the proto says: open, vote, status, batches, streams, subscriptions, health.
mod every_call;
/// Expiry through the node: at its time, for whoever reads, votes, repeats or watches.
mod expiry;
/// Each limit of the front at its bound: refused by its name, and what is open goes on.
mod limits_front;
/// What is pending: most urgent first, oldest first, filtered, followed without a gap or a repeat.
mod pending;
/// Every refusal has its code, its reason and, for a bad value, its field: one table.
mod refusals;
/// SIGTERM: in-flight answered, streams end with where to go on, exit code 0 within 10 s.
mod stopping;
/// 200 streams at a time, deadlines honoured, counters exact after a known workload.
mod streams_many;
/// gRPC over TLS 1.3: the right client certificate is let in, a wrong one and none are not.
mod tls;
/// Watches: the state first, every change once, across kill -9 and changes of shards; slow ones are closed.
mod watch;

// The front, over real connections and real shards, with a feed that the test writes.
/// What memory no longer has is answered from the archive, in the same words; lists read it.
mod archive_reads;
/// Every unary rpc: what it answers, what it refuses and how it names it, pages, deadlines, stopping.
mod wire_calls;
/// Votes and requests by streams: acknowledged once, in order, complete; and how streams end.
mod wire_streams;
mod wire_support;
/// Watches and subscriptions: tokens, ends, the order of what is pending.
mod wire_watches;

// The window.
/// Liveness, readiness and metrics over HTTP, bounded against strangers; TLS with the right, the
/// wrong and no client certificate.
mod window;

// A data folder.
/// `assent journal verify` and `assent journal dump` read a folder and say what is in it.
mod journal_commands;

// The archive.
/// A node with its archive and Kafka: what left memory is answered as before, across kill -9; new ids cost no look-up.
mod archive_node;
/// PostgreSQL: `DB_URL`, TLS, rights, migrations, errors; rows and position survive any loss together.
mod postgres;

// A node's life.
/// Start, stop, kill -9 and start again on one folder.
mod node;

// The way out.
/// Events reach a real Apache Kafka exactly once, in order, whatever is killed or cut on the way.
mod kafka;

// The load generator.
/// Every mode balances its ledger against a node; a ledger outlives kill -9, and notices a vote too
/// many or too few.
mod load_generator;

// The client commands.
/// Open, vote, look and follow from a shell, with exit codes and JSON that scripts can use.
mod client_commands;

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

/// Damage is told from a torn tail; each kind gets the right fate and a message that helps.
mod journal_damage;
/// A full disk or folder refuses new work before it fails a frame, and takes work again when there is room.
mod journal_full;

// The way out.
/// The archive gets every event once as rows, though commits fail before and after, and rows are refused.
mod archive_sink;
/// A sink gets every event once and in order across kill -9 and changes of shards; gone, it stops nobody.
mod sinks;

// Whatever happens to the node.
/// A clock that jumps is not believed until an operator accepts it.
mod clock;
/// Damage is refused with file, place and what to do; a torn tail is cut off; a folder is one node's.
mod damage;
/// A data folder of format version 1 is opened for ever.
mod fixture;
/// A full folder refuses opens, then votes; time, reading and stopping go on, and with room it all does.
mod full_folder;
/// Garbage and a thousand connections on both ports leave the node serving, its memory bounded.
mod garbage;
/// What was acknowledged survives kill -9 at any moment under load, on one folder, round after round.
mod kill;
/// What is decided and archived leaves memory, and its id is never taken twice.
mod memory;
/// Ten times what it can do is refused with a delay; memory stays bounded, and it passes.
mod overload;
/// Restarts with 1, 2, 4 and 1 shards keep everything, and older logs stay readable.
mod shards;
/// Votes survive a stop or failure of the disk at any call, whatever it kept of what was not synced.
mod whole_node_crash;

// The archive.
/// The archive in a file: whole after kill -9, a full disk and a bad start; reads are bounded.
mod sqlite;
/// What is archived is what was decided: every value that passes the door, once, for one deployment.
mod store;
/// The archive answers as memory did: states, votes in the order they were cast, lists by page.
mod store_reads;
/// SQL written against the contract keeps working: tables, columns, types, indexes, views, triggers.
mod store_schema;
