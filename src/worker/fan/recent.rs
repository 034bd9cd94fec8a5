//! Topics in the order of their newest publications.
//!
//! ```text
//!   oldest ◄─► topic 7 ◄─► topic 2 ◄─► topic 9 ◄─► newest        note(7):   2 ◄─► 9 ◄─► 7
//! ```
//!
//! A list that runs through a table by slot, so that a topic is moved to its end in a few steps. Whoever wants to know what
//! has changed since some position goes back from the end until there, and looks at nothing else, however many topics there
//! are.
//!
//! It is kept while somebody is delivered newest values, and costs nothing otherwise. It begins empty: topics that have not been
//! published on since aren't in it, and nobody is behind in newest values from before it began.

use crate::slack::{KEPT_BY_THREAD, Slack};

/// See the module's description.
#[derive(Debug, Default)]
pub struct Recent {
    /// A ring: the place before the first slot's stands between the newest and the oldest. A slot that isn't in it is linked
    /// with itself. Empty while it isn't kept.
    links: Vec<Link>,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    older: u32,
    newer: u32,
}

impl Recent {
    /// The list is kept from now on.
    pub fn begin(&mut self) {
        if self.links.is_empty() {
            self.links.push(Link { older: 0, newer: 0 });
        }
    }

    /// Nobody wants it any more.
    pub fn end(&mut self) {
        self.links.clear();
        self.links.give_back(KEPT_BY_THREAD);
    }

    /// A topic was published on: it is the newest.
    #[inline]
    pub fn note(&mut self, slot: u32) {
        if !self.links.is_empty() {
            self.make_newest(slot + 1);
        }
    }

    fn make_newest(&mut self, place: u32) {
        let known = self.links.len() as u32;
        self.links.extend((known..=place).map(|own| Link { older: own, newer: own }));
        self.unlink(place);
        let last = self.links[0].older;
        self.links[place as usize] = Link { older: last, newer: 0 };
        self.links[last as usize].newer = place;
        self.links[0].older = place;
    }

    /// A topic is forgotten.
    pub fn forget(&mut self, slot: u32) {
        if (slot as usize) + 1 < self.links.len() {
            self.unlink(slot + 1);
        }
    }

    fn unlink(&mut self, place: u32) {
        let Link { older, newer } = self.links[place as usize];
        self.links[older as usize].newer = newer;
        self.links[newer as usize].older = older;
        self.links[place as usize] = Link { older: place, newer: place };
    }

    /// The slots of the topics in it, the newest first.
    pub fn slots(&self) -> impl Iterator<Item = u32> {
        let older = |place: u32| self.links.get(place as usize).map(|link| link.older).filter(|older| *older != 0);
        std::iter::successors(older(0), move |place| older(*place)).map(|place| place - 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whoever_was_noted_last_comes_first(steps in prop::collection::vec((0_u8..12, 0_u32..8), 0..200)) {
            let mut recent = Recent::default();
            let mut twin: Option<Vec<u32>> = None;
            for (step, slot) in steps {
                match step {
                    0 => {
                        recent.end();
                        twin = None;
                    }
                    1..3 => {
                        recent.begin();
                        twin.get_or_insert_default();
                    }
                    3 => {
                        recent.forget(slot);
                        twin.iter_mut().for_each(|twin| twin.retain(|other| *other != slot));
                    }
                    _ => {
                        recent.note(slot);
                        if let Some(twin) = &mut twin {
                            twin.retain(|other| *other != slot);
                            twin.insert(0, slot);
                        }
                    }
                }
                prop_assert_eq!(recent.slots().collect::<Vec<_>>(), twin.clone().unwrap_or_default());
            }
        }
    }
}
