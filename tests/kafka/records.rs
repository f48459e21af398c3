//! What a record looks like, and in which partition it is.

use super::{DEPLOYMENT, LOG, check_exactly_once, feed, options, publish, resumed};
use crate::support::kafka::{committed, shared};
use assent::model::LogId;
use assent::sinks::kafka::{CONTENT_TYPE, KafkaSink, SCHEMA_VERSION};
use assent::sinks::{Batch, Run, Sink};
use assent::wire::v1;
use prost::Message;

#[test]
fn a_record_has_the_approvals_id_its_event_and_who_it_is_from() {
    let (brokers, prefix) = shared();
    let mut sink = KafkaSink::new(options(&brokers, &prefix));
    assert!(resumed(&mut sink).is_empty(), "a new destination has no log");
    let events = vec![feed::opening(1, b"pay".to_vec()), feed::vote(2), feed::expiry(3)];
    sink.deliver(&Batch { runs: vec![Run { log: LOG, events: events.clone() }] }).unwrap();

    let records = committed(&brokers, &format!("{prefix}approval-events"));
    assert_eq!(records.len(), 3);
    for record in records {
        let event = v1::ApprovalEvent::decode(record.value.as_slice()).expect("the contract's message");
        let sent = &events[event.sequence as usize - 1];
        assert_eq!(record.key, sent.approval.to_string());
        assert_eq!(record.key, record.key.to_lowercase());
        let (sequence, kind) = (event.sequence.to_string(), ["CREATED", "UPDATED", "FINALIZED"]);
        for (name, value) in [
            ("deployment", uuid::Uuid::from_bytes(DEPLOYMENT).to_string().as_str()),
            ("log", "41"),
            ("sequence", sequence.as_str()),
            ("type", kind[event.sequence as usize - 1]),
            ("content-type", CONTENT_TYPE),
            ("schema-version", SCHEMA_VERSION),
        ] {
            assert_eq!(record.header(name), Some(value), "{name}");
        }
        assert_eq!(event.log, LOG.0);
        let approval = event.approval.as_ref().expect("the state after the event");
        assert_eq!((approval.approval_id.as_str(), approval.priority), (record.key.as_str(), 2));
        match event.event_type() {
            v1::ApprovalEventType::Created => {
                assert_eq!((approval.content.as_ref(), approval.content_hash.as_str()), (&b"pay"[..], "a-label"));
                assert_eq!((approval.eligible_count, approval.eligible_digest.len()), (2, 32));
                assert!(approval.eligible_validators.is_empty(), "as many as a set may have are no record");
                assert_eq!((approval.required_approvals, approval.total_validators, approval.version), (1, 2, 1));
            }
            v1::ApprovalEventType::Updated => {
                assert_eq!(event.vote.as_ref().map(|vote| vote.validator_id.as_str()), Some("validator-17"));
                assert_eq!((approval.approvals, approval.status()), (1, v1::ApprovalStatus::Pending));
            }
            _ => {
                assert_eq!(approval.status(), v1::ApprovalStatus::Expired);
                assert!(approval.finalized_at.is_some() && event.vote.is_none());
            }
        }
    }
}

/// Java's `Utils.murmur2`, after its source.
fn murmur2(data: &[u8]) -> i32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut word = u32::from_le_bytes(word.try_into().expect("four bytes")).wrapping_mul(M);
        word = (word ^ word >> 24).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ word;
    }
    let rest = words.remainder();
    for (at, byte) in rest.iter().enumerate() {
        hash ^= u32::from(*byte) << (8 * at);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ hash >> 13).wrapping_mul(M);
    (hash ^ hash >> 15) as i32
}

#[test]
fn the_partition_is_the_one_that_a_java_producer_takes() {
    // The vectors of Kafka's own UtilsTest.
    for (text, hash) in [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ("abc", 479_470_107),
    ] {
        assert_eq!(murmur2(text.as_bytes()), hash, "{text}");
    }
    let (brokers, prefix) = shared();
    let mut sink =
        KafkaSink::new(assent::sinks::kafka::KafkaOptions { partitions: Some(7), ..options(&brokers, &prefix) });
    publish(&mut sink, LOG, 200, 100, |_| {});
    let records = committed(&brokers, &format!("{prefix}approval-events"));
    assert_eq!(records.len(), 200);
    for record in records {
        assert_eq!(record.partition, (murmur2(record.key.as_bytes()) & 0x7fff_ffff) % 7, "{}", record.key);
    }
}

#[test]
fn transactions_of_one_event_and_of_a_hundred_thousand_are_exact() {
    let (brokers, prefix) = shared();
    // Smaller than the large one: the queue fills, and is waited for.
    let small_queue = assent::sinks::kafka::KafkaOptions { queue_bytes_max: 16 << 20, ..options(&brokers, &prefix) };
    let mut sink = KafkaSink::new(small_queue);
    publish(&mut sink, LOG, 20, 1, |_| {});
    publish(&mut sink, LOG, 20 + 100_000, 100_000, |_| {});
    // Two logs in one transaction, and one that is sealed.
    let other = LogId(42);
    sink.deliver(&Batch { runs: vec![feed::run(LOG, 100_021..=100_030), feed::run(other, 1..=5)] }).unwrap();
    sink.deliver(&feed::batch(other, 6..=6)).unwrap();
    let positions = resumed(&mut KafkaSink::new(options(&brokers, &prefix)));
    assert_eq!((super::at(&positions, LOG), super::at(&positions, other)), (100_030, 6));
    check_exactly_once(&brokers, &prefix, &[(LOG, 100_030), (other, 6)]);
}

#[test]
fn the_largest_event_is_taken() {
    let (brokers, prefix) = shared();
    let mut sink = KafkaSink::new(options(&brokers, &prefix));
    resumed(&mut sink);
    // Content that does not compress.
    let content: Vec<u8> =
        (0..1u64 << 17).flat_map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29).to_le_bytes()).collect();
    assert_eq!(content.len(), 1 << 20);
    sink.deliver(&Batch { runs: vec![Run { log: LOG, events: vec![feed::opening(1, content)] }] }).unwrap();
    check_exactly_once(&brokers, &prefix, &[(LOG, 1)]);
}
