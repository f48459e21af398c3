//! A real node, end to end: the built binary `assent serve` with its own settings (journal on the disk
//! of the build's folder, answers after the sync, no archive), driven through ordinary gRPC with the generated
//! client on the same cores. `cargo bench --bench node` alone gives votes and approvals a second, and
//! the seven benchmarks of the specification under their names:
//!
//! - `submission latency`, `50 concurrent clients`, `streaming latency`: `latency.rs`
//! - `memory`, `approval throughput`, `capacity` (and `votes`): `rates.rs`
//! - `message serialisation`: `message.rs`
//!
//! Nothing is counted that was not acknowledged, and after each run the node's own counters must have
//! grown by exactly what was acknowledged. Closed loop: latency under a schedule, several shards, the
//! hand-written encoder, peers and the no-op ceiling are `perf/run`'s. The client (mimalloc, as the
//! node) shares the machine with the node, and builds Strings and messages while it runs: what it costs
//! is in every figure.
//!
//! Without `--bench` (under `cargo test --benches`) everything runs once, small.

mod clients;
mod latency;
mod message;
mod rates;
#[allow(dead_code)] // the tests' node: they use more of it
#[path = "../../tests/support/node.rs"]
mod support;

use criterion::Criterion;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What to run, and how much of it.
struct Plan {
    filter: Option<String>,
    measured: bool,
}

impl Plan {
    fn of_process() -> Plan {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        Plan {
            filter: arguments.iter().find(|argument| !argument.starts_with('-')).cloned(),
            measured: arguments.iter().any(|argument| argument == "--bench"),
        }
    }

    /// Whether criterion's filter may want something of this section: nodes start for nothing else.
    fn wants(&self, section: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| section.contains(filter.as_str()) || filter.contains(section))
    }

    /// `full` when measuring, otherwise `small`.
    fn size(&self, full: u64, small: u64) -> u64 {
        if self.measured { full } else { small }
    }
}

fn main() {
    let plan = Plan::of_process();
    let config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(500));
    let mut criterion = config.measurement_time(Duration::from_secs(4)).configure_from_args();
    message::all(&mut criterion, &plan);
    latency::all(&mut criterion, &plan);
    rates::all(&mut criterion, &plan);
    criterion.final_summary();
}
