//! Events reach a real Apache Kafka exactly once, in order, whatever is killed or cut on the way.

mod feed;
mod loss;
mod records;
mod speed;
mod topics;

use crate::support::kafka::committed;
use assent::model::{LogId, Position};
use assent::sinks::kafka::{KafkaOptions, KafkaSink};
use assent::sinks::{Error, Sink};
use assent::wire::v1;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const DEPLOYMENT: [u8; 16] = [7; 16];
const LOG: LogId = LogId(41);
/// What a broker that was killed needs to come back, and more.
const RECOVERS_WITHIN: Duration = Duration::from_secs(120);

fn options(brokers: &str, prefix: &str) -> KafkaOptions {
    KafkaOptions {
        brokers: brokers.into(),
        deployment: DEPLOYMENT,
        topic_prefix: prefix.into(),
        partitions: Some(3),
        replication: None,
        compression: "lz4".into(),
        queue_bytes_max: 64 << 20,
        transaction_events_max: 100_000,
        linger: Duration::from_millis(20),
        transaction_timeout: Duration::from_secs(20),
        answer_timeout: Duration::from_secs(10),
        // Soon back after a broker was away.
        properties: vec![("reconnect.backoff.max.ms".into(), "500".into())],
    }
}

/// What the pump does with an error that passes: asks where the destination stands.
fn resumed(sink: &mut KafkaSink) -> Vec<Position> {
    let deadline = Instant::now() + RECOVERS_WITHIN;
    loop {
        match sink.resume() {
            Ok(positions) => return positions,
            Err(Error::Unavailable(why)) if Instant::now() < deadline => {
                eprintln!("not yet: {why}");
                std::thread::sleep(Duration::from_millis(100));
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

fn stopped(result: Result<impl std::fmt::Debug, Error>, says: &[&str]) {
    let Err(Error::Stopped(why)) = result else { panic!("{result:?} does not stop") };
    says.iter().for_each(|part| assert!(why.contains(part), "{why:?} does not say {part:?}"));
}

fn at(positions: &[Position], log: LogId) -> u64 {
    positions.iter().find(|position| position.log == log).map_or(0, |position| position.sequence)
}

/// Publishes the log of [`feed`] behind wherever it stands up to `through`, `step` events a transaction, through
/// every loss; `between` is called before each transaction with what is reached.
fn publish(sink: &mut KafkaSink, log: LogId, through: u64, step: u64, mut between: impl FnMut(u64)) {
    let mut reached = at(&resumed(sink), log);
    while reached < through {
        between(reached);
        let upto = (reached + step).min(through);
        match sink.deliver(&feed::batch(log, reached + 1..=upto)) {
            Ok(()) => reached = upto,
            Err(Error::Unavailable(why)) => {
                eprintln!("lost at {reached}: {why}");
                reached = at(&resumed(sink), log);
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// A read_committed consumer has each log's events up to its sequence, each once, each approval's in order and in
/// one partition.
fn check_exactly_once(brokers: &str, prefix: &str, logs: &[(LogId, u64)]) {
    let mut seen: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    let mut newest: BTreeMap<(String, u64), (i32, u64)> = BTreeMap::new();
    for record in committed(brokers, &format!("{prefix}approval-events")) {
        let event = v1::ApprovalEvent::decode(record.value.as_slice()).expect("the contract's message");
        assert!(seen.entry(event.log).or_default().insert(event.sequence), "{} came twice", event.sequence);
        let before = newest.insert((record.key.clone(), event.log), (record.partition, event.sequence));
        if let Some((partition, sequence)) = before {
            assert_eq!(partition, record.partition, "{} changed its partition", record.key);
            assert!(sequence < event.sequence, "{}: {} after {sequence}", record.key, event.sequence);
        }
    }
    for (log, through) in logs {
        let found = seen.remove(&log.0).unwrap_or_default();
        assert_eq!(found.len() as u64, *through, "events of log {}", log.0);
        assert!(found.iter().copied().eq(1..=*through), "log {} has a gap", log.0);
    }
    assert!(seen.is_empty(), "events of logs that nobody published: {:?}", seen.keys());
}
