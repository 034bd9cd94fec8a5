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
//!
//! Branches lie in one table, by the node that they come from and their segment. So a segment of a pattern that no other begins
//! with takes some 80 bytes, and no node that is full has others wait while it moves.

use super::names::Names;

/// Nodes that are looked at for one topic: all that there can be for one of up to 8 segments, and some 25 microseconds.
pub(super) const VISITS_MAX: usize = 512;

/// Patterns, each with its number of subscriptions.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    root: Node,
    branches: Names<Branch>,
    last_id: u64,
}

/// Leads from one node to the next.
#[derive(Debug)]
struct Branch {
    from: u64,
    segment: Box<str>,
    to: Node,
}

#[derive(Debug, Default)]
struct Node {
    /// The root's is 0; none is used again.
    id: u64,
    /// Subscriptions to the pattern that ends here.
    here: u32,
    /// Subscriptions to this and `>`.
    below: u32,
    /// Branches that come from here, and whether `*` is one of them.
    branches: u32,
    has_any: bool,
}

/// Where a branch is: its hash, the node that it comes from, its segment.
type Place<'a> = (u64, u64, &'a str);

impl Patterns {
    /// Counts one subscription more to `pattern`.
    pub fn add(&mut self, pattern: &str) {
        let mut at = None;
        for segment in pattern.split('.').filter(|segment| *segment != ">") {
            let place = self.place(self.node(at).map_or(0, |node| node.id), segment);
            if self.node(Some(place)).is_none() {
                self.last_id += 1;
                let to = Node { id: self.last_id, ..Node::default() };
                self.branches.insert(place.0, Branch { from: place.1, segment: segment.into(), to });
                let before = self.node_mut(at);
                before.branches += 1;
                before.has_any |= segment == "*";
            }
            at = Some(place);
        }
        let node = self.node_mut(at);
        *if pattern.ends_with('>') { &mut node.below } else { &mut node.here } += 1;
    }

    /// Counts one subscription less to `pattern`, which was added before.
    pub fn remove(&mut self, pattern: &str) {
        let mut path = Vec::new();
        for segment in pattern.split('.').filter(|segment| *segment != ">") {
            let Some(node) = self.node(path.last().copied()) else { break };
            path.push(self.place(node.id, segment));
        }
        if self.node(path.last().copied()).is_none() {
            return debug_assert!(false, "{pattern} was never added");
        }
        let node = self.node_mut(path.last().copied());
        *if pattern.ends_with('>') { &mut node.below } else { &mut node.here } -= 1;
        // What leads nowhere any more goes, the last first.
        while let Some(place) = path.pop()
            && self.node(Some(place)).is_some_and(Node::is_empty)
        {
            self.branches.remove(place.0, |branch| branch.is_at(place));
            let before = self.node_mut(path.last().copied());
            before.branches -= 1;
            before.has_any &= place.2 != "*";
        }
    }

    fn place<'a>(&self, from: u64, segment: &'a str) -> Place<'a> {
        (self.branches.hash((from, segment)), from, segment)
    }

    /// The node that the branch in this place leads to; the root, for none.
    fn node(&self, at: Option<Place<'_>>) -> Option<&Node> {
        let Some(place) = at else { return Some(&self.root) };
        self.branches.find(place.0, |branch| branch.is_at(place)).map(|branch| &branch.to)
    }

    /// The same of a branch that is there, to be changed.
    fn node_mut(&mut self, at: Option<Place<'_>>) -> &mut Node {
        let Some(place) = at else { return &mut self.root };
        let found = self.branches.find_mut(place.0, |branch| branch.is_at(place));
        &mut found.expect("the branch was found before").to
    }

    fn next(&self, node: &Node, segment: &str) -> Option<&Node> {
        self.node(Some(self.place(node.id, segment)))
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
        let mut open = vec![(&self.root, topic)];
        while let Some((node, rest)) = open.pop() {
            if *visits == most {
                return false;
            }
            *visits += 1;
            if !goes_on(node.below as usize) {
                return false;
            }
            let (segment, rest) = rest.split_once('.').map_or((rest, None), |(segment, rest)| (segment, Some(rest)));
            let any = node.has_any.then(|| self.next(node, "*")).flatten();
            let named = (node.branches > 0).then(|| self.next(node, segment)).flatten();
            for next in [any, named].into_iter().flatten() {
                match rest {
                    Some(rest) => open.push((next, rest)),
                    None if goes_on(next.here as usize) => {}
                    None => return false,
                }
            }
        }
        true
    }
}

impl Branch {
    fn is_at(&self, (_, from, segment): Place<'_>) -> bool {
        self.from == from && *self.segment == *segment
    }
}

impl Node {
    fn is_empty(&self) -> bool {
        self.here == 0 && self.below == 0 && self.branches == 0
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
            prop_assert!(tree.root.is_empty() && tree.branches.len() == 0, "nothing is left of patterns that nobody has");
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
    fn a_pattern_takes_little_more_than_its_segments() {
        let mut tree = Patterns::default();
        for n in 0..10_000 {
            tree.add(&format!("{n}.{}*", "a.".repeat(8)));
        }
        let (room, _) = tree.branches.room();
        let bytes = room * size_of::<(u64, Branch)>();
        assert!(bytes <= 10_000 * 10 * 160, "{} bytes for each pattern of ten segments", bytes / 10_000);
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
