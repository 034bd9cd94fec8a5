//! Patterns, found by what they stand for: a tree with a level for each segment.
//!
//! ```text
//!   q ─┬─ us ─┬─ *      q.us.*
//!      │      └─ AAPL ─ >        q.us.AAPL.>
//!      └─ *  ─── AAPL            q.*.AAPL
//! ```
//!
//! Whoever asks for the patterns of a topic goes down the branches that its segments and `*` name, and nowhere else. A pattern has
//! at most [`PATTERN_SEGMENTS_MAX`] segments, so that is less than `2^(that + 1)` nodes, whatever patterns there are: [`FIND_MAX`].
//! Adding and removing one costs its segments.
//!
//! Nodes are places in a table, and the branches one more, from a node and a segment's number to the next: some sixty bytes for
//! each segment of a pattern that no other begins with.

use std::collections::HashMap;

use slab::Slab;

use super::super::work::price;
use crate::{
    protocol::PATTERN_SEGMENTS_MAX,
    slack::{KEPT_BY_THREAD, Slack},
};

/// What finding the patterns of a topic costs at most.
#[cfg(all(test, not(loom)))]
pub const FIND_MAX: u64 = (2 << PATTERN_SEGMENTS_MAX) * price::MATCH;

type NodeId = u32;

/// A segment's text as a number, which is never used again for another.
type Segment = u64;

/// See the module's description.
#[derive(Debug)]
pub struct Tree {
    nodes: Slab<Node>,
    /// By hashes with a key: clients choose the segments, and in which order they come.
    branches: HashMap<(NodeId, Segment), NodeId>,
    segments: HashMap<Box<str>, Known>,
    last_segment: Segment,
}

/// A segment that some pattern has.
#[derive(Debug)]
struct Known {
    segment: Segment,
    /// Branches with it.
    branches: u32,
}

#[derive(Debug, Default)]
struct Node {
    /// The pattern that ends here.
    here: Option<u32>,
    /// The pattern of this and `>`.
    below: Option<u32>,
    any: Option<NodeId>,
    /// Branches by a segment's name.
    named: u32,
}

const ROOT: NodeId = 0;

impl Default for Tree {
    fn default() -> Tree {
        let mut nodes = Slab::new();
        nodes.insert(Node::default());
        Tree { nodes, branches: HashMap::new(), segments: HashMap::new(), last_segment: 0 }
    }
}

impl Tree {
    /// Adds a pattern, under its number.
    pub fn add(&mut self, pattern: &str, id: u32) {
        debug_assert!(pattern.split('.').count() <= PATTERN_SEGMENTS_MAX, "{pattern} is as long as may be");
        let mut at = ROOT;
        for segment in pattern.split('.') {
            at = match segment {
                ">" => {
                    self.nodes[at as usize].below = Some(id);
                    return;
                }
                "*" => self.any_of(at),
                name => self.named_of(at, name),
            };
        }
        self.nodes[at as usize].here = Some(id);
    }

    fn any_of(&mut self, at: NodeId) -> NodeId {
        if let Some(next) = self.nodes[at as usize].any {
            return next;
        }
        let next = self.nodes.insert(Node::default()) as NodeId;
        self.nodes[at as usize].any = Some(next);
        next
    }

    fn named_of(&mut self, at: NodeId, name: &str) -> NodeId {
        let known = match self.segments.get_mut(name) {
            Some(known) => known,
            None => {
                self.last_segment += 1;
                self.segments.entry(name.into()).or_insert(Known { segment: self.last_segment, branches: 0 })
            }
        };
        let Tree { nodes, branches, .. } = self;
        *branches.entry((at, known.segment)).or_insert_with(|| {
            known.branches += 1;
            nodes[at as usize].named += 1;
            nodes.insert(Node::default()) as NodeId
        })
    }

    /// Removes a pattern, which was added before.
    pub fn remove(&mut self, pattern: &str) {
        let mut path: Vec<(NodeId, &str)> = Vec::new();
        let mut at = ROOT;
        for segment in pattern.split('.').filter(|segment| *segment != ">") {
            path.push((at, segment));
            at = self.next(at, segment).expect("it was added");
        }
        let node = &mut self.nodes[at as usize];
        let end = if pattern.ends_with('>') { &mut node.below } else { &mut node.here };
        debug_assert!(end.is_some(), "{pattern} was added");
        *end = None;
        // What nobody goes through any more goes, the last first.
        while let Some((before, segment)) = path.pop()
            && self.nodes[at as usize].is_empty()
        {
            self.nodes.remove(at as usize);
            self.cut(before, segment);
            at = before;
        }
    }

    fn next(&self, at: NodeId, segment: &str) -> Option<NodeId> {
        match segment {
            "*" => self.nodes[at as usize].any,
            name => self.branches.get(&(at, self.segments.get(name)?.segment)).copied(),
        }
    }

    /// Takes the branch of this segment from a node.
    fn cut(&mut self, at: NodeId, segment: &str) {
        let node = &mut self.nodes[at as usize];
        if segment == "*" {
            node.any = None;
            return;
        }
        node.named -= 1;
        let known = self.segments.get_mut(segment).expect("a branch has it");
        self.branches.remove(&(at, known.segment));
        known.branches -= 1;
        if known.branches == 0 {
            self.segments.remove(segment);
        }
    }

    /// Adds the numbers of the patterns that stand for `topic` to `found`. Returns what that has cost.
    pub fn find(&self, topic: &str, found: &mut Vec<u32>) -> u64 {
        let mut visits = 1;
        let root = &self.nodes[ROOT as usize];
        found.extend(root.below);
        if root.any.is_none() && root.named == 0 {
            return visits * price::MATCH;
        }
        // The nodes that stand for the topic's first segments: each time one more.
        let (mut reached, mut next) = (vec![ROOT], Vec::new());
        let mut rest = Some(topic);
        while let Some(topic) = rest.filter(|_| !reached.is_empty()) {
            let segment;
            (segment, rest) = topic.split_once('.').map_or((topic, None), |(segment, rest)| (segment, Some(rest)));
            let segment = self.segments.get(segment).map(|known| known.segment);
            for at in reached.drain(..) {
                let node = &self.nodes[at as usize];
                let named = segment.filter(|_| node.named > 0).and_then(|segment| self.branches.get(&(at, segment)));
                next.extend(node.any.into_iter().chain(named.copied()));
            }
            std::mem::swap(&mut reached, &mut next);
            visits += reached.len() as u64;
            for at in &reached {
                let node = &self.nodes[*at as usize];
                found.extend(if rest.is_some() { node.below } else { node.here });
            }
        }
        visits * price::MATCH
    }

    /// Gives back room that was needed once.
    pub fn give_back(&mut self) {
        self.nodes.give_back(KEPT_BY_THREAD);
        self.branches.give_back(KEPT_BY_THREAD);
        self.segments.give_back(KEPT_BY_THREAD);
    }

    /// Whether there is nothing in it, and nothing left of what was.
    #[cfg(all(any(test, fuzzing), not(loom)))]
    pub fn is_empty(&self) -> bool {
        let root = &self.nodes[ROOT as usize];
        let is_bare = self.nodes.len() == 1 && self.branches.is_empty() && self.segments.is_empty();
        root.below.is_none() && root.is_empty() && is_bare
    }

    /// How much room its tables have, in bytes.
    #[cfg(all(test, not(loom)))]
    pub fn room(&self) -> [usize; 3] {
        let rooms = [self.nodes.room(), self.branches.room(), self.segments.room()];
        rooms.map(|(room, _, size)| room * size)
    }
}

impl Node {
    fn is_empty(&self) -> bool {
        self.here.is_none() && self.below.is_none() && self.any.is_none() && self.named == 0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::matches;

    fn find(tree: &Tree, topic: &str) -> Vec<u32> {
        let mut found = Vec::new();
        tree.find(topic, &mut found);
        found.sort_unstable();
        found
    }

    proptest! {
        #[test]
        fn finding_agrees_with_asking_every_pattern(
            patterns in prop::collection::btree_set("(\\*|a|b|ab)(\\.(\\*|a|b|ab)){0,3}(\\.>)?|>", 0..20),
            removed in 0_usize..20,
            topics in prop::collection::vec("(a|b|ab)(\\.(a|b|ab)){0,5}", 1..8),
        ) {
            let patterns: Vec<String> = patterns.into_iter().collect();
            let mut tree = Tree::default();
            patterns.iter().zip(0..).for_each(|(pattern, id)| tree.add(pattern, id));
            let removed = removed.min(patterns.len());
            patterns[..removed].iter().for_each(|pattern| tree.remove(pattern));
            for topic in topics {
                let standing = |id: &u32| matches(&patterns[*id as usize], &topic);
                let expected: Vec<u32> = (removed as u32..patterns.len() as u32).filter(standing).collect();
                prop_assert_eq!(find(&tree, &topic), expected);
            }
            patterns[removed..].iter().for_each(|pattern| tree.remove(pattern));
            prop_assert!(tree.is_empty(), "nothing is left of patterns that nobody has");
        }
    }

    #[test]
    fn patterns_that_cannot_match_are_not_looked_at() {
        let mut tree = Tree::default();
        (0..10_000).for_each(|n| tree.add(&format!("other.{n}.*"), n));
        tree.add("q.*", 10_000);
        let mut found = Vec::new();
        assert_eq!((tree.find("q.a", &mut found), &found[..]), (3 * price::MATCH, &[10_000][..]));
    }

    #[test]
    fn the_dearest_topic_costs_no_more_than_is_said() {
        let segments = PATTERN_SEGMENTS_MAX as u32;
        let mut tree = Tree::default();
        let mut id = 0;
        for count in 0..segments {
            for bits in 0..1_u32 << count {
                let first = (0..count).map(|at| if bits >> at & 1 == 1 { "*." } else { "a." });
                tree.add(&format!("{}>", first.collect::<String>()), id);
                id += 1;
            }
        }
        for bits in 0..1_u32 << segments {
            let all: Vec<&str> = (0..segments).map(|at| if bits >> at & 1 == 1 { "*" } else { "a" }).collect();
            tree.add(&all.join("."), id);
            id += 1;
        }
        let mut found = Vec::new();
        let cost = tree.find(&["a"; PATTERN_SEGMENTS_MAX].join("."), &mut found);
        assert_eq!(found.len(), id as usize, "all of them stand for it");
        assert!(cost <= FIND_MAX && FIND_MAX < crate::worker::work::INDIVISIBLE_MAX, "{cost}");
        found.clear();
        assert!(tree.find(&["a"; 60].join("."), &mut found) <= FIND_MAX);
    }
}
