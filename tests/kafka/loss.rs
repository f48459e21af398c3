//! Exactly once, whatever is killed or cut.

use super::{LOG, check_exactly_once, feed, options, publish, resumed, stopped};
use crate::support::kafka::{Broker, shared};
use crate::support::proxy::{Proxy, Way};
use assent::sinks::Sink;
use assent::sinks::kafka::KafkaSink;
use std::process::Command;
use std::time::Duration;

/// What the killed process is told: brokers, prefix, how far to go.
const CHILD: &str = "ASSENT_TEST_PUBLISH";
const CHILD_TEST: &str = "kafka::loss::a_process_that_is_killed";
const EVENTS: u64 = 60_000;
/// Events a transaction: some take several writes, and most end inside the time between two kills.
const STEP: u64 = 500;

#[test]
#[ignore = "the process that the_publishing_process_is_killed starts and kills; not a test"]
fn a_process_that_is_killed() {
    let told = std::env::var(CHILD).expect("its parent says what to publish");
    let told: Vec<&str> = told.split(' ').collect();
    let mut sink = KafkaSink::new(options(told[0], told[1]));
    publish(&mut sink, LOG, told[2].parse().expect("a number"), STEP, |_| {});
}

#[test]
fn the_publishing_process_is_killed() {
    let (brokers, prefix) = shared();
    let start = || {
        let mut command = Command::new(std::env::current_exe().expect("this binary"));
        command.args(["--exact", CHILD_TEST, "--ignored"]).env(CHILD, format!("{brokers} {prefix} {EVENTS}"));
        command.stdout(std::process::Stdio::null()).spawn().expect("it runs again")
    };
    // Some are killed while they start, most while they publish.
    let mut killed = 0;
    for round in 0..12u64 {
        let mut child = start();
        std::thread::sleep(Duration::from_millis(150 + 97 * (round * 7 % 11)));
        if child.try_wait().expect("our child").is_none() {
            child.kill().expect("kill -9");
            killed += 1;
        }
        child.wait().expect("our child");
    }
    assert!(killed >= 6, "only {killed} were killed before they were done");
    assert!(start().wait().expect("our child").success(), "the last one ends what the others began");
    check_exactly_once(&brokers, &prefix, &[(LOG, EVENTS)]);
}

#[test]
fn a_transaction_that_was_dropped_half_way_leaves_nothing() {
    let (brokers, prefix) = shared();
    for round in 0..5 {
        let mut sink = KafkaSink::new(options(&brokers, &prefix));
        let reached = super::at(&resumed(&mut sink), LOG);
        assert_eq!(reached, round * 100);
        sink.deliver(&feed::batch(LOG, reached + 1..=reached + 100)).unwrap();
        drop(sink);
    }
    check_exactly_once(&brokers, &prefix, &[(LOG, 500)]);
}

#[test]
fn the_broker_is_killed() {
    let mut broker = Broker::start();
    let address = broker.address();
    let mut sink = KafkaSink::new(options(&address, ""));
    // Killed while a transaction is under way, by another thread that brings it back.
    publish(&mut sink, LOG, 5_000, 500, |_| {});
    let killer = std::thread::spawn(move || {
        for pause in [300, 1_100] {
            std::thread::sleep(Duration::from_millis(pause));
            broker.kill();
            broker.launch();
        }
        broker
    });
    let mut through = 5_000;
    while !killer.is_finished() {
        through += 2_000;
        publish(&mut sink, LOG, through, 200, |_| {});
    }
    let _running = killer.join().expect("the broker came back");
    publish(&mut sink, LOG, through + 500, 500, |_| {});
    check_exactly_once(&address, "", &[(LOG, through + 500)]);
}

#[test]
fn connections_are_cut_and_answers_lost() {
    let proxy = std::cell::OnceCell::new();
    let mut broker = Broker::prepare(Some(&|port| proxy.get_or_init(|| Proxy::to(port)).port()));
    broker.launch();
    let proxy = proxy.get().expect("it was made with the broker");
    let through_proxy = format!("127.0.0.1:{}", proxy.port());
    let mut sink = KafkaSink::new(options(&through_proxy, ""));
    publish(&mut sink, LOG, 100, 100, |_| {});
    // A transaction of 100 events is about 15 KB there and under 1 KB back. Cut at every depth of both ways, the last
    // of them while it is committed: request lost, or the answer to a commit that happened.
    let mut reached = 100;
    for way in [Way::ToServer, Way::ToClient] {
        let depths: &[u64] = if way == Way::ToServer {
            &[0, 300, 2_000, 6_000, 9_000, 12_000]
        } else {
            &[0, 60, 120, 200, 300, 420, 560]
        };
        for depth in depths {
            proxy.cut_after(way, *depth);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    std::thread::sleep(Duration::from_millis(400));
                    proxy.mend();
                });
                publish_without_resume(&mut sink, reached, reached + 100);
            });
            reached += 100;
        }
    }
    proxy.mend();
    publish(&mut sink, LOG, reached + 100, 100, |_| {});
    check_exactly_once(&through_proxy, "", &[(LOG, reached + 100)]);
}

/// As a pump that is in the middle of it: the first thing that meets the cut is the transaction.
fn publish_without_resume(sink: &mut KafkaSink, reached: u64, through: u64) {
    if let Err(why) = sink.deliver(&feed::batch(LOG, reached + 1..=through)) {
        eprintln!("lost at {reached}: {why}");
        publish(sink, LOG, through, 100, |_| {});
    }
}

#[test]
fn a_copy_that_starts_elsewhere_stops_the_older_one() {
    let (brokers, prefix) = shared();
    let mut older = KafkaSink::new(options(&brokers, &prefix));
    publish(&mut older, LOG, 10, 10, |_| {});
    let mut newer = KafkaSink::new(options(&brokers, &prefix));
    assert_eq!(super::at(&resumed(&mut newer), LOG), 10);
    stopped(older.deliver(&feed::batch(LOG, 11..=20)), &["took", "assent-07070707", "data folder"]);
    newer.deliver(&feed::batch(LOG, 11..=20)).unwrap();
    check_exactly_once(&brokers, &prefix, &[(LOG, 20)]);
}
