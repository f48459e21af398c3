//! Mode mixed: what a cluster sends. A connection keeps a pool of pending approvals; each vote goes
//! to one of them, a few popular ones taking most (zipfian, theta 0.99). An approval's validators
//! vote one after the other, the late ones too: those votes are refused as decided. When all of them
//! voted, an approval that is opened for it takes its place in the pool. One in 32 opened is never
//! voted on and expires after seconds (`Scheme::expires`).
//!
//! All of this follows from the seed and the number of votes drawn, never from an answer: a ledger
//! keeps how many votes were sent, and the checker draws them again. (Ranks come from the C library's
//! `pow`: compare a ledger on the kind of machine that made it.)

use super::scheme::{Scheme, mixed_bits};
use super::track::{Fate, Track, TrackKind, number};

const THETA: f64 = 0.99;

/// A vote: which approval, whose.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Drawn {
    pub number: u64,
    pub validator: u16,
}

/// The votes of a block in the order in which they are sent.
#[derive(Debug)]
pub struct Sequence {
    block: u16,
    key: u64,
    ranks: Zipf,
    /// By rank: the most popular first.
    pool: Vec<Place>,
    /// Approvals below this are in the pool, used up, or left to expire.
    opened: u64,
    drawn: u64,
}

/// An approval in the pool, and how many of its validators voted.
#[derive(Clone, Copy, Debug)]
struct Place {
    offset: u32,
    voted: u16,
}

impl Sequence {
    /// `pool`: approvals opened before the first vote.
    pub fn new(scheme: &Scheme, block: u16, pool: u32) -> Sequence {
        let voted_on = |offset: &u32| !scheme.expires(scheme.ids.id(number(block, (*offset).into())));
        let places: Vec<_> = (0..pool).filter(voted_on).map(|offset| Place { offset, voted: 0 }).collect();
        Sequence {
            block,
            key: scheme.ids.id(number(block, 0)).mixed,
            ranks: Zipf::new(places.len() as u64),
            pool: places,
            opened: pool.into(),
            drawn: 0,
        }
    }

    /// Whether there is anything to vote on.
    pub fn is_empty(&self) -> bool {
        self.pool.is_empty()
    }

    /// Approvals below this must be opened before the votes drawn so far are sent.
    pub fn opened(&self) -> u64 {
        self.opened
    }

    /// The next vote.
    pub fn draw(&mut self, scheme: &Scheme) -> Drawn {
        self.drawn += 1;
        let rank = self.ranks.rank(mixed_bits(self.key ^ self.drawn.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
        let place = &mut self.pool[rank as usize];
        let number = number(self.block, place.offset.into());
        // Each approval begins with another validator.
        let validators = u64::from(scheme.total());
        let first = (scheme.ids.id(number).mixed >> 32) % validators;
        let validator = ((first + u64::from(place.voted)) % validators) as u16;
        place.voted += 1;
        if place.voted == scheme.total() {
            let fresh = loop {
                let offset = self.opened;
                self.opened += 1;
                if !scheme.expires(scheme.ids.id(super::track::number(self.block, offset))) {
                    break offset;
                }
            };
            *place = Place { offset: fresh as u32, voted: 0 };
        }
        Drawn { number, validator }
    }
}

/// Ranks 0 to count - 1, rank r as often as (r + 1)^-theta (Gray et al., as YCSB has it).
#[derive(Clone, Copy, Debug)]
struct Zipf {
    count: f64,
    zeta: f64,
    eta: f64,
    alpha: f64,
}

impl Zipf {
    fn new(count: u64) -> Zipf {
        let zeta = |to: u64| (1..=to).map(|rank| (rank as f64).powf(-THETA)).sum::<f64>();
        let (all, two) = (zeta(count), zeta(2));
        let eta = (1.0 - (2.0 / count as f64).powf(1.0 - THETA)) / (1.0 - two / all);
        Zipf { count: count as f64, zeta: all, eta, alpha: 1.0 / (1.0 - THETA) }
    }

    fn rank(&self, random: u64) -> u64 {
        let uniform = (random >> 11) as f64 / (1u64 << 53) as f64;
        let scaled = uniform * self.zeta;
        if scaled < 1.0 || self.count < 2.0 {
            return 0;
        }
        if scaled < 1.0 + 0.5f64.powf(THETA) || self.count < 3.0 {
            return 1;
        }
        let rank = self.count * (self.eta * uniform - self.eta + 1.0).powf(self.alpha);
        (rank as u64).min(self.count as u64 - 1)
    }
}

/// What became of each vote of a block: a byte a validator of each approval.
#[derive(Debug)]
pub struct Fates {
    validators: usize,
    fates: Vec<Fate>,
}

impl Fates {
    /// Draws again what the track sent.
    pub fn replay(scheme: &Scheme, track: &Track) -> Fates {
        let TrackKind::Drawn { pool } = track.kind else { unreachable!("only drawn votes are replayed") };
        let validators = usize::from(scheme.total());
        let mut sequence = Sequence::new(scheme, track.block, pool);
        let mut fates = vec![Fate::Unsent; sequence.opened() as usize * validators];
        for position in track.from..track.sent {
            let vote = sequence.draw(scheme);
            let at = (vote.number & u64::from(u32::MAX)) as usize * validators + usize::from(vote.validator);
            if at >= fates.len() {
                fates.resize((at + 1).next_multiple_of(validators), Fate::Unsent);
            }
            fates[at] = track.fate(position);
        }
        Fates { validators, fates }
    }

    pub fn vote(&self, validator: u16, offset: u64) -> Fate {
        let at = offset as usize * self.validators + usize::from(validator);
        self.fates.get(at).copied().unwrap_or(Fate::Unsent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::scheme::Mix;
    use std::collections::{HashMap, HashSet};

    fn scheme() -> Scheme {
        Scheme::new(3, 0, 0, 5, 3, 0, Mix::DEFAULT).with_expiries(true)
    }

    #[test]
    fn no_vote_is_drawn_twice_and_none_on_what_is_left_to_expire() {
        let scheme = scheme();
        let mut sequence = Sequence::new(&scheme, 2, 500);
        let mut seen = HashSet::new();
        for _ in 0..50_000 {
            let vote = sequence.draw(&scheme);
            assert!(seen.insert((vote.number, vote.validator)), "{vote:?} twice");
            assert!(!scheme.expires(scheme.ids.id(vote.number)));
            assert!(vote.number & 0xFFFF_FFFF < sequence.opened() && vote.number >> 32 == 2);
        }
        // Five votes use one approval up, and one in 32 opened is not voted on.
        assert!((9_500..11_000).contains(&sequence.opened()), "{}", sequence.opened());
    }

    #[test]
    fn a_few_approvals_take_most_votes() {
        let zipf = Zipf::new(10_000);
        let mut counts: HashMap<u64, u32> = HashMap::new();
        for draw in 0..200_000u64 {
            *counts.entry(zipf.rank(mixed_bits(draw))).or_default() += 1;
        }
        assert!(counts.keys().all(|rank| *rank < 10_000));
        let share = |ranks: u64| (0..ranks).filter_map(|rank| counts.get(&rank)).sum::<u32>() as f64 / 200_000.0;
        // Of the harmonic-like sum at theta 0.99: rank 0 has about 9.8 %, a hundred have about 53 %.
        assert!((0.08..0.12).contains(&share(1)), "{}", share(1));
        assert!((0.48..0.58).contains(&share(100)), "{}", share(100));
    }

    #[test]
    fn small_pools_have_legal_ranks() {
        for count in 1..6 {
            let zipf = Zipf::new(count);
            assert!((0..1_000).all(|draw| zipf.rank(mixed_bits(draw)) < count), "{count}");
        }
    }

    #[test]
    fn a_replay_knows_each_vote() {
        let scheme = scheme();
        let mut track = Track::new(TrackKind::Drawn { pool: 100 }, 1, 0, 1 << 32);
        let mut sequence = Sequence::new(&scheme, 1, 100);
        let votes: Vec<_> = (0..2_000).map(|_| sequence.draw(&scheme)).collect();
        track.take(0, 2_000);
        track.refused.insert(7);
        track.unknown.insert(1_999);
        let fates = Fates::replay(&scheme, &track);
        for (position, vote) in votes.iter().enumerate() {
            let found = fates.vote(vote.validator, vote.number & 0xFFFF_FFFF);
            assert_eq!(found, track.fate(position as u64), "{position}");
        }
        assert_eq!(fates.vote(0, 1 << 31), Fate::Unsent);
        assert_eq!(fates.fates.iter().filter(|fate| **fate != Fate::Unsent).count(), 2_000);
    }
}
