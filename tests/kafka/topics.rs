//! Topics: made, checked, and refused when going on would break what was promised.

use super::{LOG, check_exactly_once, feed, options, publish, resumed, stopped};
use crate::support::kafka::{Broker, free_port, shared};
use crate::support::{Node, run};
use assent::sinks::kafka::{KafkaOptions, KafkaSink, repartition};
use assent::sinks::{Error, Sink};
use std::time::Duration;

#[test]
fn a_position_of_another_deployment_stops_with_both_named() {
    let (brokers, prefix) = shared();
    publish(&mut KafkaSink::new(options(&brokers, &prefix)), LOG, 5, 5, |_| {});
    let other = KafkaOptions { deployment: [8; 16], ..options(&brokers, &prefix) };
    let both = ["07070707-0707-0707-0707-070707070707", "08080808-0808-0808-0808-080808080808", "kafka.topic_prefix"];
    stopped(KafkaSink::new(other.clone()).resume(), &both);
    // With a prefix of its own it works.
    let own = KafkaOptions { topic_prefix: format!("{prefix}own-"), ..other };
    assert!(resumed(&mut KafkaSink::new(own)).is_empty());
}

#[test]
fn another_number_of_partitions_is_refused_until_an_operator_accepts_it() {
    let (brokers, prefix) = shared();
    let node = Node::start(&[]);
    let folder = node.folder();
    let said = run(folder.path(), &["journal", "verify", "--json", node.data().to_str().unwrap()], &[]);
    let report: serde_json::Value = serde_json::from_str(&said.stdout).expect("JSON");
    let text = report["deployment_id"].as_str().expect("the deployment");
    let deployment = uuid::Uuid::parse_str(text).expect("a UUID").into_bytes();
    let now = KafkaOptions { deployment, ..options(&brokers, &prefix) };
    publish(&mut KafkaSink::new(now.clone()), LOG, 50, 25, |_| {});

    let wanted = KafkaOptions { partitions: Some(5), ..now.clone() };
    stopped(KafkaSink::new(wanted.clone()).resume(), &["has 3 partitions", "says 5", "assent kafka repartition"]);
    let data = node.data();
    let command = |partitions: &str| {
        let prefix = ["--kafka-topic-prefix", &prefix];
        let arguments = ["kafka", "repartition", "--data", data.to_str().unwrap(), "--kafka-partitions", partitions];
        run(folder.path(), &[&arguments[..], &prefix].concat(), &[("KAFKA_BROKERS", &brokers)])
    };
    let said = command("2");
    assert_eq!((said.code, said.stderr.contains("takes none away")), (Some(1), true), "{said:?}");
    let said = command("5");
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stdout.contains("5 partitions") && said.stdout.contains("order"), "{said:?}");
    assert!(command("0").stdout.contains("nothing changes"));

    // Whoever still says 3 is told; who says 5, or nothing, goes on where it was.
    stopped(KafkaSink::new(now.clone()).resume(), &["has 5 partitions", "says 3"]);
    let mut sink = KafkaSink::new(KafkaOptions { partitions: None, ..now });
    assert_eq!(super::at(&resumed(&mut sink), LOG), 50);
    sink.deliver(&feed::batch(LOG, 51..=60)).unwrap();
}

#[test]
fn a_topic_that_grew_by_itself_is_refused_until_accepted() {
    let (brokers, prefix) = shared();
    let as_it_is = KafkaOptions { partitions: None, ..options(&brokers, &prefix) };
    publish(&mut KafkaSink::new(as_it_is.clone()), LOG, 5, 5, |_| {});
    grow(&brokers, &format!("{prefix}approval-events"), 9);
    stopped(
        KafkaSink::new(as_it_is.clone()).resume(),
        &["has 9 partitions", "placed for 6", "assent kafka repartition"],
    );
    let done = repartition(&as_it_is).unwrap();
    assert_eq!((done.before, done.now), (Some(6), 9));
    assert_eq!(super::at(&resumed(&mut KafkaSink::new(as_it_is)), LOG), 5);
}

fn grow(brokers: &str, topic: &str, partitions: usize) {
    use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
    use rdkafka::client::DefaultClientContext;
    let mut config = rdkafka::ClientConfig::new();
    let admin: AdminClient<DefaultClientContext> = config.set("bootstrap.servers", brokers).create().expect("a client");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (wanted, options) = (NewPartitions::new(topic, partitions), AdminOptions::new());
    let answers = runtime.block_on(admin.create_partitions([&wanted], &options)).expect("an answer");
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    // Every broker knows soon; this one is asked until it does.
    let known = || {
        let metadata = admin.inner().fetch_metadata(Some(topic), Duration::from_secs(10)).expect("an answer");
        metadata.topics()[0].partitions().len()
    };
    while known() != partitions {
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_broker_that_is_down_at_start_is_waited_for() {
    let mut broker = Broker::prepare(None);
    let soon = KafkaOptions { answer_timeout: Duration::from_secs(2), ..options(&broker.address(), "late-") };
    let mut sink = KafkaSink::new(soon);
    for _ in 0..2 {
        let said = sink.resume();
        assert!(matches!(said, Err(Error::Unavailable(_))), "{said:?}");
    }
    broker.launch();
    publish(&mut sink, LOG, 30, 10, |_| {});
    check_exactly_once(&broker.address(), "late-", &[(LOG, 30)]);

    let nobody =
        KafkaOptions { answer_timeout: Duration::from_secs(1), ..options(&format!("127.0.0.1:{}", free_port()), "") };
    assert!(matches!(KafkaSink::new(nobody).resume(), Err(Error::Unavailable(_))));
}

#[test]
fn properties_that_librdkafka_does_not_know_stop_with_their_name() {
    let (brokers, prefix) = shared();
    let mut wrong = options(&brokers, &prefix);
    wrong.properties.push(("no.such.property".into(), "1".into()));
    stopped(KafkaSink::new(wrong).resume(), &["no.such.property"]);
}
