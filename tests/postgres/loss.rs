//! Rows and positions are both there or both not, whatever breaks and whenever.

use super::{at, decided, writer};
use crate::support::postgres::{Database, Server, database, options};
use crate::support::proxy::{Proxy, Way};
use assent::model::Position;
use assent::store::postgres::Postgres;
use assent::store::{Error, Store, Writer};
use std::time::{Duration, Instant};

/// How many approvals are there, after a look that each has its votes and the position is theirs.
fn whole(database: &Database) -> u64 {
    let figures = database.value(
        "SELECT (SELECT count(*) FROM approval_requests) || ' ' || (SELECT count(*) FROM approval_responses) || ' ' || \
         coalesce((SELECT sequence FROM archive_positions), 0)",
    );
    let figures: Vec<u64> = figures.split(' ').map(|figure| figure.parse().expect("a number")).collect();
    assert_eq!(figures[1], figures[0] * 3, "votes of all approvals and no others");
    assert_eq!(figures[2], figures[0] * 4, "the position is where the rows end");
    figures[0]
}

fn through(proxy: &Proxy, database: &Database) -> Postgres {
    let mut options = options(&Database { port: proxy.port(), name: database.name.clone() }.url());
    options.url.connect_timeout = Duration::from_secs(2);
    Postgres::open(options).expect("good options")
}

/// Asks until it is answered: where the archive has got.
fn positions(writer: &mut Box<dyn Writer>) -> Vec<Position> {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        match writer.positions() {
            Ok(positions) => return positions,
            Err(Error::Unavailable(_)) if Instant::now() < until => std::thread::sleep(Duration::from_millis(10)),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_connection_cut_at_any_byte_loses_nothing_and_doubles_nothing() {
    let database = database();
    let proxy = Proxy::to(database.port);
    let store = through(&proxy, &database);
    let mut writer = writer(&store);
    writer.write(&decided(0, 10)).expect("the way is free");
    let mut done = 10;
    // From the first bytes of BEGIN to the last of the COPY, and both ways; a batch is about 200 KB.
    let cuts = [0, 1, 30, 200, 400, 900, 5_000, 50_000, 150_000, 180_000, 186_000, 187_500, 190_000, 200_000];
    let mut broken = 0;
    for (way, cuts) in [(Way::ToServer, &cuts[..]), (Way::ToClient, &[0, 1, 20, 40, 60, 80, 100, 130, 160, 200][..])] {
        for cut in cuts {
            proxy.cut_after(way, *cut);
            let written = writer.write(&decided(done, done + 300));
            proxy.mend();
            match &written {
                Ok(()) => {}
                Err(Error::Unavailable(_)) => broken += 1,
                Err(error) => panic!("cut after {cut} {way:?}: {error}"),
            }
            let stands = positions(&mut writer)[0].sequence / 4;
            assert!(stands == done || stands == done + 300, "cut after {cut} {way:?}: at {stands}");
            assert!(written.is_err() || stands == done + 300, "what was acknowledged is there");
            done = stands;
            // A transaction whose COMMIT was on its way may still end; it is waited for by whoever writes.
            if let Err(error) = writer.write(&decided(done, done + 1)) {
                assert!(matches!(error, Error::Unavailable(_)), "cut after {cut} {way:?}: {error}");
            }
            done = positions(&mut writer)[0].sequence / 4;
            assert_eq!(whole(&database), done, "cut after {cut} {way:?}");
        }
    }
    assert!(broken >= 15, "most cuts were within the transaction: {broken}");
}

#[test]
fn a_lost_answer_to_commit_is_found_out_by_reading_the_positions() {
    let database = database();
    let proxy = Proxy::to(database.port);
    let store = through(&proxy, &database);
    let mut writer = writer(&store);
    writer.write(&decided(0, 10)).expect("the way is free");
    // How much the server answers to a batch: all of it but the last byte is let through.
    let (mut low, mut done) = (0, 10);
    let mut lost = false;
    for cut in (0..400).rev() {
        proxy.cut_after(Way::ToClient, cut);
        let written = writer.write(&decided(done, done + 1));
        proxy.mend();
        let until = Instant::now() + Duration::from_secs(5);
        let mut stands = positions(&mut writer)[0].sequence / 4;
        while written.is_err() && stands == done && Instant::now() < until && low == 0 {
            std::thread::sleep(Duration::from_millis(5));
            stands = positions(&mut writer)[0].sequence / 4;
        }
        if written.is_err() {
            low = cut;
            lost = stands == done + 1;
            done = stands;
            break;
        }
        done += 1;
    }
    assert!(lost, "the answer was lost after {low} bytes, and the batch was there");
    writer.write(&decided(done, done + 10)).expect("on from there");
    assert_eq!(whole(&database), done + 10);
}

#[test]
fn rows_and_position_survive_kill_9_together() {
    let mut server = Server::start(&[]);
    let database = server.database();
    let store = Postgres::open(options(&database.url())).expect("good options");
    let mut acknowledged = 0;
    let mut interrupted = 0;
    writer(&store);
    for round in 0..10u64 {
        let mut writer = store.writer().expect("a writer");
        let mut next = positions(&mut writer).first().map_or(0, |position| position.sequence / 4);
        assert!(next >= acknowledged, "round {round}: {acknowledged} were acknowledged, {next} are there");
        let batches = std::thread::spawn(move || {
            let error = loop {
                match writer.write(&decided(next, next + 500)) {
                    Ok(()) => next += 500,
                    Err(error) => break error,
                }
            };
            (next, error)
        });
        // Somewhere within a batch, or between two.
        std::thread::sleep(Duration::from_millis(60 + round * 17));
        if round % 3 == 2 {
            server.stop_immediately()
        } else {
            server.kill()
        }
        let (written, error) = batches.join().expect("no panic");
        assert!(matches!(error, Error::Unavailable(_)), "round {round}: {error}");
        acknowledged = written;
        server.resume();
        let there = whole(&database);
        assert!(there == written || there == written + 500, "round {round}: {written} acknowledged, {there} there");
        interrupted += u64::from(there > 0);
    }
    assert!(interrupted >= 9, "batches were written between the kills");
}

#[test]
fn a_server_that_is_down_is_met_by_each_call_until_it_is_back() {
    let mut server = Server::start(&[]);
    let database = server.database();
    let store = Postgres::open(options(&database.url())).expect("good options");
    server.stop_immediately();
    let mut writer = store.writer().expect("it connects later");
    assert!(matches!(writer.adopt(super::DEPLOYMENT), Err(Error::Unavailable(_))));
    server.resume();
    writer.adopt(super::DEPLOYMENT).expect("it is back");
    assert_eq!(writer.positions(), Ok(Vec::new()));
    writer.write(&decided(0, 5)).expect("good rows");
    assert_eq!(writer.positions(), Ok(vec![at(20)]));
}
