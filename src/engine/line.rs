//! The decided, in line for their eviction: first decided, first to go. A record is either in the
//! wheel of the timers, while it is pending, or in this line, and the links that the wheel has for
//! it serve both: a place in line costs no bytes.

use super::memory::Chunks;
use super::timer::{Link, NONE};

pub struct Line {
    first: u32,
    last: u32,
}

impl Line {
    pub const EMPTY: Line = Line { first: NONE, last: NONE };

    pub fn first(&self) -> Option<u32> {
        Some(self.first).filter(|first| *first != NONE)
    }

    /// The one behind a record that stands in line.
    pub fn behind(links: &Chunks<Link>, record: u32) -> Option<u32> {
        Some(links.get(record as usize).next).filter(|next| *next != NONE)
    }

    /// A record that has left the wheel joins at the end.
    pub fn join(&mut self, links: &mut Chunks<Link>, record: u32) {
        *links.get_mut(record as usize) = Link { next: NONE, previous: self.last };
        match self.last {
            NONE => self.first = record,
            last => links.get_mut(last as usize).next = record,
        }
        self.last = record;
    }

    /// A record leaves, from wherever it stands.
    pub fn leave(&mut self, links: &mut Chunks<Link>, record: u32) {
        let Link { next, previous } = *links.get(record as usize);
        match previous {
            NONE => self.first = next,
            previous => links.get_mut(previous as usize).next = next,
        }
        match next {
            NONE => self.last = previous,
            next => links.get_mut(next as usize).previous = previous,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::memory::{Pool, Use};
    use proptest::prelude::*;

    fn standing(line: &Line, links: &Chunks<Link>) -> Vec<u32> {
        std::iter::successors(line.first(), |record| Line::behind(links, *record)).collect()
    }

    proptest! {
        #[test]
        fn stands_in_the_order_joined_whoever_leaves(steps in prop::collection::vec((0..20u32, any::<bool>()), 0..200)) {
            let mut links = Chunks::<Link>::new(Use::Cold, &Pool::new(0));
            links.ensure(20);
            let (mut line, mut model) = (Line::EMPTY, Vec::new());
            for (record, first) in steps {
                let leaver = if first { model.first().copied() } else { model.iter().find(|there| **there == record).copied() };
                match leaver {
                    Some(leaver) => {
                        line.leave(&mut links, leaver);
                        model.retain(|there| *there != leaver);
                    }
                    None if !model.contains(&record) => {
                        line.join(&mut links, record);
                        model.push(record);
                    }
                    None => {}
                }
                prop_assert_eq!(&standing(&line, &links), &model);
            }
        }
    }
}
