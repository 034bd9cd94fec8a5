//! How many subscriptions match a topic by pattern: a tree with a level for each segment.
//!
//! ```text
//!   q ─┬─ us ─┬─ *      q.us.*   12 subscriptions
//!      │      └─ AAPL ─ >        q.us.AAPL.>   1
//!      └─ *  ─── AAPL            q.*.AAPL      3
//! ```
//!
//! A look at one topic goes down the branches that its segments and `*` name, and nowhere else: a topic of `k` segments is
//! matched by fewer than `2^(k+1)` patterns, however many there are. So the work is bounded by the name, and for very long
//! names by [`VISITS_MAX`]: it is done under a lock that everybody who subscribes needs.

use std::collections::BTreeMap;

/// Nodes that are looked at for one topic: all that there can be for one of up to 8 segments, and some 25 microseconds.
pub(super) const VISITS_MAX: usize = 512;

/// Patterns, each with its number of subscriptions.
#[derive(Debug, Default)]
pub(super) struct Patterns(Node);

// An ordered map for the segments: clients choose them, and no choice makes it slow.
#[derive(Debug, Default)]
struct Node {
    /// Subscriptions to the pattern that ends here.
    here: usize,
    /// Subscriptions to this and `>`.
    below: usize,
    any: Option<Box<Node>>,
    named: BTreeMap<Box<str>, Node>,
}

impl Patterns {
    /// Counts one subscription more to `pattern`.
    pub fn add(&mut self, pattern: &str) {
        let mut node = &mut self.0;
        for segment in pattern.split('.') {
            node = match segment {
                ">" => {
                    node.below += 1;
                    return;
                }
                "*" => node.any.get_or_insert_default(),
                // Looked up twice where it is new: the entry would want a copy of the name each time.
                name if node.named.contains_key(name) => node.named.get_mut(name).expect("it was just there"),
                name => node.named.entry(name.into()).or_default(),
            };
        }
        node.here += 1;
    }

    /// Counts one subscription less to `pattern`, which was added before.
    pub fn remove(&mut self, pattern: &str) {
        self.0.remove(pattern);
    }

    /// How many subscriptions match `topic`; `visits` counts the nodes looked at.
    pub fn count(&self, topic: &str, visits: &mut usize) -> usize {
        let mut count = 0;
        self.walk(topic, visits, |here| {
            count += here;
            true
        });
        count
    }

    /// Whether any subscription may match `topic`: it isn't known of all if there are too many to be looked at.
    pub fn may_match(&self, topic: &str, visits: &mut usize) -> bool {
        !self.walk(topic, visits, |here| here == 0)
    }

    /// Looks at the patterns that match `topic`, with the number of subscriptions to each, until `goes_on` says no. Returns
    /// whether all were looked at.
    fn walk(&self, topic: &str, visits: &mut usize, mut goes_on: impl FnMut(usize) -> bool) -> bool {
        let most = *visits + VISITS_MAX;
        let mut open = vec![(&self.0, topic)];
        while let Some((node, rest)) = open.pop() {
            if *visits == most {
                return false;
            }
            *visits += 1;
            if !goes_on(node.below) {
                return false;
            }
            let (segment, rest) = rest.split_once('.').map_or((rest, None), |(segment, rest)| (segment, Some(rest)));
            for next in [node.any.as_deref(), node.named.get(segment)].into_iter().flatten() {
                match rest {
                    Some(rest) => open.push((next, rest)),
                    None if goes_on(next.here) => {}
                    None => return false,
                }
            }
        }
        true
    }
}

impl Node {
    fn remove(&mut self, pattern: &str) {
        let (segment, rest) = pattern.split_once('.').map_or((pattern, None), |(segment, rest)| (segment, Some(rest)));
        let next = match segment {
            ">" => {
                self.below -= 1;
                return;
            }
            "*" => self.any.as_deref_mut(),
            name => self.named.get_mut(name),
        };
        let Some(next) = next else { return debug_assert!(false, "{pattern} was never added") };
        match rest {
            Some(rest) => next.remove(rest),
            None => next.here -= 1,
        }
        if next.is_empty() {
            match segment {
                "*" => self.any = None,
                name => drop(self.named.remove(name)),
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.here == 0 && self.below == 0 && self.any.is_none() && self.named.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::matches;
    use proptest::prelude::*;

    fn count(patterns: &Patterns, topic: &str) -> usize {
        patterns.count(topic, &mut 0)
    }

    proptest! {
        #[test]
        fn counting_agrees_with_asking_every_pattern(
            patterns in prop::collection::vec("(\\*|a|b|ab)(\\.(\\*|a|b|ab)){0,3}(\\.>)?|>", 0..20),
            removed in 0_usize..20,
            topic in "(a|b|ab)(\\.(a|b|ab)){0,4}",
        ) {
            let mut tree = Patterns::default();
            patterns.iter().for_each(|pattern| tree.add(pattern));
            let (gone, left) = patterns.split_at(removed.min(patterns.len()));
            gone.iter().for_each(|pattern| tree.remove(pattern));
            let expected = left.iter().filter(|pattern| matches(pattern, &topic)).count();
            prop_assert_eq!(count(&tree, &topic), expected);
            prop_assert_eq!(tree.may_match(&topic, &mut 0), expected > 0);
            left.iter().for_each(|pattern| tree.remove(pattern));
            prop_assert!(tree.0.is_empty(), "nothing is left of patterns that nobody has");
        }
    }

    #[test]
    fn patterns_that_cannot_match_are_not_looked_at() {
        let mut tree = Patterns::default();
        for n in 0..10_000 {
            tree.add(&format!("other.{n}.*"));
        }
        tree.add("q.*");
        let mut visits = 0;
        assert_eq!((tree.count("q.a", &mut visits), visits), (1, 2));
    }

    #[test]
    fn a_name_of_many_segments_is_looked_at_for_so_long_and_no_longer() {
        let mut tree = Patterns::default();
        for bits in 0..1_u32 << 10 {
            let segments: Vec<&str> = (0..10).map(|at| if bits >> at & 1 == 1 { "*" } else { "a" }).collect();
            tree.add(&segments.join("."));
        }
        let (name, mut visits) = (["a"; 10].join("."), 0);
        let found = tree.count(&name, &mut visits);
        assert!(visits == VISITS_MAX && found > 0, "{visits} {found}");
        let longer = format!("{name}.a");
        assert_eq!(tree.count(&longer, &mut 0), 0);
        assert!(tree.may_match(&longer, &mut 0), "nobody knows, so it may be");
    }
}
