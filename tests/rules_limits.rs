//! Every limit on what is in memory, at its bound: openings are refused by its name, repeats are
//! answered, and votes on what is open go on.

use crate::rules_deciding::{request, vote};
use crate::support::recorder::Recorder;
use assent::engine::{Clock, Engine, Limits, VOTE_BYTES_MAX, opening_bytes_max};
use assent::model::*;
use std::sync::Arc;

const NOW: Clock = Clock::at(Micros(1_000_000_000));

fn limited(change: impl Fn(&mut Limits)) -> (Engine, Recorder) {
    let mut limits = Limits::for_memory(1 << 30);
    change(&mut limits);
    (Engine::new(PartitionKey::new([2; 16]), limits), Recorder::new(1))
}

fn with_set(number: u64, names: &[&str]) -> OpenRequest {
    let mut members: Vec<_> = names.iter().map(|name| ValidatorId::parse(name).expect("legal")).collect();
    members.sort();
    let mut digest = [0; 32];
    for (at, byte) in names.concat().bytes().enumerate() {
        digest[at % 32] ^= byte.rotate_left(at as u32 / 32);
    }
    let total = names.len() as u16;
    OpenRequest { eligible: Some(Arc::new(EligibleSet { members, digest })), ..request(number, 1, total) }
}

fn refusal(engine: &mut Engine, sink: &mut Recorder, request: &OpenRequest) -> Option<Refusal> {
    let size = engine.counters();
    let events = sink.sequence;
    let refusal = engine.open(request, NOW, Ok(()), sink).err();
    if refusal.is_some() {
        assert_eq!((engine.counters(), sink.sequence), (size, events), "a refusal leaves no trace");
    }
    refusal
}

#[test]
fn approvals_in_memory() {
    let (mut engine, mut sink) = limited(|limits| limits.approvals_max = 3);
    for number in 1..=3 {
        assert_eq!(refusal(&mut engine, &mut sink, &request(number, 1, 2)), None);
    }
    let limit = Some(Refusal::LimitReached("approvals_max"));
    assert_eq!(refusal(&mut engine, &mut sink, &request(4, 1, 2)), limit);
    assert!(engine.open(&request(2, 1, 2), NOW, Ok(()), &mut sink).is_ok_and(|(_, repeat)| repeat));
    let (answer, _) = engine.vote(&vote(request(1, 1, 2).id, "a", Decision::Approved), NOW, &mut sink);
    assert_eq!(answer, VoteAnswer::Accepted(Some(Outcome::Approved)));
    // Decided ones are in memory until they are archived.
    assert_eq!(refusal(&mut engine, &mut sink, &request(4, 1, 2)), limit);
    assert!(engine.evict(&request(1, 1, 2).id));
    assert_eq!(refusal(&mut engine, &mut sink, &request(4, 1, 2)), None);
}

#[test]
fn validator_names() {
    let (mut engine, mut sink) = limited(|limits| limits.validators_max = 3);
    assert_eq!(refusal(&mut engine, &mut sink, &request(1, 5, 9)), None);
    let limit = Some(Refusal::LimitReached("validators_max"));
    assert_eq!(refusal(&mut engine, &mut sink, &with_set(2, &["a", "b", "c", "d"])), limit);
    assert_eq!(refusal(&mut engine, &mut sink, &with_set(2, &["a", "b", "c"])), None);
    assert_eq!(engine.counters().validators, 3);
    assert_eq!(refusal(&mut engine, &mut sink, &request(3, 1, 2)), limit);
    // What brings no name is no matter of this limit; votes on what is open go on, with new names too.
    assert_eq!(refusal(&mut engine, &mut sink, &with_set(4, &["a", "b"])), None);
    let (answer, _) = engine.vote(&vote(request(1, 5, 9).id, "a-new-one", Decision::Approved), NOW, &mut sink);
    assert_eq!(answer, VoteAnswer::Accepted(None));
    assert_eq!(engine.counters().validators, 4);
    for number in 1..=4 {
        engine.evict(&request(number, 1, 1).id);
        sink.names_went = true;
    }
    assert_eq!(engine.counters().validators, 0);
    assert_eq!(refusal(&mut engine, &mut sink, &request(3, 1, 2)), None);
}

#[test]
fn a_refused_vote_leaves_no_name() {
    let (mut engine, mut sink) = limited(|_| {});
    assert_eq!(refusal(&mut engine, &mut sink, &with_set(1, &["a", "b"])), None);
    for number in 0..100 {
        let name = format!("stranger-{number}");
        let mut batch = vec![
            vote(request(1, 1, 1).id, &name, Decision::Approved),
            vote(request(77, 1, 1).id, &name, Decision::Approved),
        ];
        engine.votes(&mut batch, NOW, &mut sink);
    }
    let reasons = [Refusal::NotEligible, Refusal::NotFound].map(VoteAnswer::Refused);
    assert!(sink.answers.iter().enumerate().all(|(at, (_, answer))| *answer == reasons[at % 2]));
    assert_eq!(engine.counters().validators, 2);
}

#[test]
fn eligible_sets_and_their_bytes() {
    let (mut engine, mut sink) = limited(|limits| limits.eligible_sets_max = 2);
    assert_eq!(refusal(&mut engine, &mut sink, &with_set(1, &["a"])), None);
    assert_eq!(refusal(&mut engine, &mut sink, &with_set(2, &["b"])), None);
    let limit = Some(Refusal::LimitReached("eligible_sets_max"));
    assert_eq!(refusal(&mut engine, &mut sink, &with_set(3, &["c"])), limit);
    assert_eq!(refusal(&mut engine, &mut sink, &with_set(3, &["b"])), None, "a known set is stored once");
    assert_eq!(engine.counters().eligible_sets, 2);

    let (mut engine, mut sink) = limited(|limits| limits.eligible_set_bytes_max = 15_000);
    let names: Vec<String> = (0..1_000).map(|at| format!("v{at}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(refusal(&mut engine, &mut sink, &with_set(1, &names)), None);
    assert!(engine.counters().eligible_set_bytes <= 15_000);
    let limit = Some(Refusal::LimitReached("eligible_set_bytes_max"));
    assert_eq!(refusal(&mut engine, &mut sink, &with_set(2, &names[1..])), limit);
}

#[test]
fn content_and_lifetimes() {
    let (mut engine, mut sink) = limited(|limits| {
        limits.content_bytes_max = 10;
        limits.lifetime_default_us = 500;
        limits.lifetime_max_us = 1_000;
    });
    let field = |refusal: Option<Refusal>| match refusal {
        Some(Refusal::Invalid(invalid)) => Some(invalid.field.into_owned()),
        None => None,
        other => panic!("{other:?}"),
    };
    let content = |number, bytes: usize| OpenRequest { content: vec![0; bytes].into(), ..request(number, 1, 1) };
    assert_eq!(field(refusal(&mut engine, &mut sink, &content(1, 11))).as_deref(), Some("content"));
    assert_eq!(field(refusal(&mut engine, &mut sink, &content(1, 10))), None);
    assert_eq!(engine.state(&request(1, 1, 1).id).map(|state| state.expires_at), Some(NOW.now.plus(500)));
    let until = |number, micros| OpenRequest { expires_at: Some(micros), ..request(number, 1, 1) };
    for bad in [Micros(0), NOW.now, NOW.now.plus(1_001)] {
        assert_eq!(field(refusal(&mut engine, &mut sink, &until(2, bad))).as_deref(), Some("expires_at"));
    }
    assert_eq!(field(refusal(&mut engine, &mut sink, &until(2, NOW.now.plus(1)))), None);
    assert_eq!(field(refusal(&mut engine, &mut sink, &until(3, NOW.now.plus(1_000)))), None);
    // A repeat is answered although its expires_at is past by now; so it is while opens are refused.
    let later = Clock::at(NOW.now.plus(10));
    let (state, repeat) =
        engine.open(&until(2, NOW.now.plus(1)), later, Err(Refusal::ClockJump), &mut sink).expect("known");
    assert!(repeat && state.status == Status::Expired);
    assert_eq!(engine.open(&request(9, 1, 1), later, Err(Refusal::ClockJump), &mut sink), Err(Refusal::ClockJump));
}

#[test]
fn bytes_announced_for_the_journal_are_enough() {
    let (mut engine, mut sink) = limited(|_| {});
    let names: Vec<String> = (0..300).map(|at| format!("{at:064}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let label = ContentHash::Label("l".repeat(255).into());
    let mut written = 0;
    let mut grown = |sink: &Recorder| {
        let bytes: usize = sink.frames.iter().map(|frame| frame.bytes.len()).sum();
        bytes - std::mem::replace(&mut written, bytes)
    };
    let mut request = with_set(1, &names);
    request.content = vec![0; 1_000].into();
    request.content_hash = label.clone();
    request.required = 2;
    let most = opening_bytes_max(&request);
    engine.open(&request, NOW, Ok(()), &mut sink).expect("a free id");
    let grown_by = grown(&sink);
    assert!(grown_by <= most && most < grown_by + 16, "{grown_by} of {most}");
    sink.next_segment();
    let extras = VoteExtras { content_hash: None, reason: "r".repeat(1_024).into(), signature: [0; 512].into() };
    for (name, expected) in [(names[0], None), (names[1], Some(Outcome::Approved))] {
        sink.next_segment();
        let command =
            VoteCommand { extras: Some(Box::new(extras.clone())), ..vote(request.id, name, Decision::Approved) };
        assert_eq!(engine.vote(&command, NOW, &mut sink).0, VoteAnswer::Accepted(expected));
        assert!(grown(&sink) <= VOTE_BYTES_MAX);
    }
}
