//! How fast the sink is beside the broker's own tool: a measurement, run by hand on a quiet machine.
//!
//!     cargo test --release --test promises -- --ignored --exact kafka::speed::beside_the_brokers_own_tool --nocapture

use super::{LOG, feed, options, resumed};
use crate::support::kafka::{producer_performance, shared};
use assent::sinks::Sink;
use assent::sinks::kafka::{KafkaOptions, KafkaSink};
use std::time::{Duration, Instant};

const EVENTS: u64 = 2_000_000;
const STEP: u64 = 100_000;
const COMMITS: u64 = 50;

#[test]
#[ignore = "a measurement, not a test: it says figures and asserts none"]
fn beside_the_brokers_own_tool() {
    let (brokers, prefix) = shared();
    let mut sink =
        KafkaSink::new(KafkaOptions { queue_bytes_max: 256 << 20, partitions: Some(6), ..options(&brokers, &prefix) });
    let mut reached = super::at(&resumed(&mut sink), LOG);
    // Warm: the tool warms itself up while it runs, and says the whole.
    let mut spent = Duration::ZERO;
    while reached < EVENTS + STEP {
        let batch = feed::batch(LOG, reached + 1..=reached + STEP);
        let began = Instant::now();
        sink.deliver(&batch).expect("the broker is there");
        if reached > 0 {
            spent += began.elapsed();
        }
        reached += STEP;
    }
    println!("sink, {STEP} events a transaction: {:.0} events/s", EVENTS as f64 / spent.as_secs_f64());

    let began = Instant::now();
    for _ in 0..COMMITS {
        sink.deliver(&feed::batch(LOG, reached + 1..=reached + 10)).expect("the broker is there");
        reached += 10;
    }
    println!("sink, 10 events a transaction: {:.1} ms each", began.elapsed().as_secs_f64() * 1e3 / COMMITS as f64);
    println!("{}", producer_performance(&brokers, &format!("{prefix}approval-events"), EVENTS));
}
