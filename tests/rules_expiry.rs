//! An approval expires at its microsecond: not before, and whoever touches it first is told so.

use crate::rules_deciding::{engine, request, vote};
use crate::support::recorder::Recorder;
use assent::engine::{Clock, Engine};
use assent::model::*;

const CREATED: u64 = 1_700_000_000_000_000;
const EXPIRES: u64 = CREATED + 5_000_000;

fn opened(number: u64) -> (Engine, Recorder, OpenRequest) {
    let (mut engine, mut sink) = (engine(), Recorder::new(1));
    let request = OpenRequest { expires_at: Some(Micros(EXPIRES)), ..request(number, 2, 3) };
    engine.open(&request, Clock::at(Micros(CREATED)), Ok(()), &mut sink).expect("a free id");
    (engine, sink, request)
}

fn status(engine: &Engine, request: &OpenRequest) -> Status {
    engine.state(&request.id).expect("it is in memory").status
}

#[test]
fn the_timer_is_exact_at_the_edge() {
    let (mut engine, mut sink, request) = opened(1);
    let mut expired = 0;
    // As a shard does: wakes at each deadline, and looks.
    while let Some(deadline) = engine.next_deadline() {
        assert!(deadline <= Micros(EXPIRES), "never later than the expiry");
        expired += engine.expire_due(Clock::at(deadline), 1_024, &mut sink);
        assert_eq!(status(&engine, &request) == Status::Expired, deadline == Micros(EXPIRES));
    }
    assert_eq!(expired, 1);
    assert_eq!(engine.state(&request.id).expect("it is in memory").finalized_at, Some(Micros(EXPIRES)));

    let (mut engine, mut sink, request) = opened(2);
    assert_eq!(engine.expire_due(Clock::at(Micros(EXPIRES - 1)), 1_024, &mut sink), 0);
    assert_eq!(status(&engine, &request), Status::Pending);
    assert_eq!(engine.expire_due(Clock::at(Micros(EXPIRES)), 1_024, &mut sink), 1);
    assert_eq!(status(&engine, &request), Status::Expired);
}

#[test]
fn a_vote_in_the_last_microsecond_counts_and_one_later_finds_it_expired() {
    let (mut engine, mut sink, request) = opened(1);
    let last = Clock::at(Micros(EXPIRES - 1));
    let (answer, _) = engine.vote(&vote(request.id, "a", Decision::Approved), last, &mut sink);
    assert_eq!(answer, VoteAnswer::Accepted(None));
    let edge = Clock::at(Micros(EXPIRES));
    let (answer, state) = engine.vote(&vote(request.id, "b", Decision::Approved), edge, &mut sink);
    assert_eq!(answer, VoteAnswer::Refused(Refusal::ApprovalDecided(Outcome::Expired)));
    assert_eq!(state.map(|state| (state.status, state.version)), Some((Status::Expired, 3)));
    // The vote that counted stands, and repeats as one.
    let (answer, _) = engine.vote(&vote(request.id, "a", Decision::Approved), edge, &mut sink);
    assert_eq!(answer, VoteAnswer::Repeat);
    assert_eq!(engine.next_deadline(), None);
}

#[test]
fn a_read_and_a_repeat_make_it_expired_too() {
    let edge = Clock::at(Micros(EXPIRES));
    let (mut engine, mut sink, request) = opened(1);
    assert!(engine.touch(&request.id, edge, &mut sink));
    assert_eq!(status(&engine, &request), Status::Expired);
    assert_eq!(sink.sequence, 2, "one event");

    let (mut engine, mut sink, request) = opened(2);
    let (state, repeat) = engine.open(&request, edge, Ok(()), &mut sink).expect("a repeat");
    assert!(repeat);
    assert_eq!((state.status, state.finalized_at), (Status::Expired, Some(Micros(EXPIRES))));
}

#[test]
fn while_the_clock_is_in_doubt_nothing_expires_and_votes_go_on() {
    let (mut engine, mut sink, request) = opened(1);
    let doubt = Clock { now: Micros(EXPIRES + 1), expire: false };
    assert_eq!(engine.expire_due(doubt, 1_024, &mut sink), 0);
    engine.touch(&request.id, doubt, &mut sink);
    assert_eq!(status(&engine, &request), Status::Pending);
    let (answer, _) = engine.vote(&vote(request.id, "a", Decision::Approved), doubt, &mut sink);
    assert_eq!(answer, VoteAnswer::Accepted(None));
    // Accepted again by the operator: it expires.
    assert_eq!(engine.expire_due(Clock::at(doubt.now), 1_024, &mut sink), 1);
}

#[test]
#[should_panic(expected = "time went back")]
fn time_never_goes_back() {
    let (mut engine, mut sink, request) = opened(1);
    engine.touch(&request.id, Clock::at(Micros(CREATED - 1)), &mut sink);
}

/// 20,000 at one instant, 1,024 at a time, and none twice.
#[test]
fn many_at_one_instant_come_in_slices() {
    let (mut engine, mut sink) = (engine(), Recorder::new(1));
    for number in 0..20_000 {
        let request = OpenRequest { expires_at: Some(Micros(EXPIRES)), ..request(number, 2, 3) };
        engine.open(&request, Clock::at(Micros(CREATED + number)), Ok(()), &mut sink).expect("a free id");
    }
    let (mut expired, mut slices) = (0, 0);
    while engine.next_deadline().is_some_and(|deadline| deadline <= Micros(EXPIRES)) {
        let slice = engine.expire_due(Clock::at(Micros(EXPIRES)), 1_024, &mut sink);
        assert!(slice <= 1_024);
        expired += slice;
        slices += 1;
    }
    assert_eq!((expired, engine.counters().expired), (20_000, 20_000));
    assert!((20..200).contains(&slices), "{slices} slices");
}
