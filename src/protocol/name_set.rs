//! Many names, and whether one of them stands for a topic, without asking each.
//!
//! ```text
//!   0  q.*          a node is a range of the sorted names and how far they have been followed,
//!   1  q.us.*       all of them the same way:
//!   2  q.us.AAPL
//!   3  t.>            "" 0..4  ─ "q." 0..3 ─ "q.us." 1..3 ─ …
//! ```
//!
//! Sorted, names that begin with the same segments stand together. So they are a tree with a level for each segment, without a
//! node in memory: a topic is held against the whole range, goes on with those that have its next segment and those that have
//! `*`, and passes what all names of a range have in common in one step. Each step leaves fewer names, so there are never more
//! than twice as many as names; for most topics there are a few, whatever the number of names. A look can be broken off and
//! gone on with later ([`Look`]).

use std::sync::Arc;

use super::name::{is_pattern, matches};

/// Names in order, each once. See the module's description.
#[derive(Debug, Default)]
pub struct NameSet(Box<[Arc<str>]>);

/// How far a topic has been held against a set.
#[derive(Debug, Default)]
pub struct Look(Vec<Node>);

/// Names that begin with the same segments, which the topic has, too.
#[derive(Clone, Copy, Debug)]
struct Node {
    first: u32,
    end: u32,
    /// Where the next segment begins: in the names, and in the topic.
    at: u32,
    rest: u32,
}

impl NameSet {
    /// The set of these names, which have been checked.
    pub fn new(mut names: Vec<Arc<str>>) -> NameSet {
        names.sort_unstable();
        names.dedup();
        NameSet(names.into())
    }

    /// Whether this very name is in it.
    pub fn has(&self, name: &str) -> bool {
        self.0.binary_search_by(|other| (**other).cmp(name)).is_ok()
    }

    /// What all names of topics begin with that a pattern of the set stands for, one of it or another; none of them begins with
    /// another.
    pub fn beginnings(&self) -> Vec<Box<str>> {
        let before = |name: &Arc<str>| name.find(['*', '>']).and_then(|at| name.get(..at)).map(Box::from);
        let mut all: Vec<Box<str>> = self.0.iter().filter(|name| is_pattern(name)).filter_map(before).collect();
        all.sort_unstable();
        all.dedup_by(|next, kept| next.starts_with(&**kept));
        all
    }

    /// Goes on with a look at a topic, for at most so many steps, from which it takes what it needs. None if these were not enough.
    pub fn go_on(&self, look: &mut Look, topic: &str, steps: &mut usize) -> Option<bool> {
        while let Some(node) = look.0.pop() {
            if *steps == 0 {
                look.0.push(node);
                return None;
            }
            *steps -= 1;
            if self.step(node, topic, &mut look.0) {
                look.0.clear();
                return Some(true);
            }
        }
        Some(false)
    }

    /// Begins a look.
    pub fn begin(&self, look: &mut Look) {
        look.0.clear();
        if !self.0.is_empty() {
            look.0.push(Node { first: 0, end: self.0.len() as u32, at: 0, rest: 0 });
        }
    }

    /// Whether a name stands for this topic.
    pub fn stands_for(&self, topic: &str) -> bool {
        let mut look = Look::default();
        self.begin(&mut look);
        let mut steps = usize::MAX;
        self.go_on(&mut look, topic, &mut steps) == Some(true)
    }

    /// Whether one of a node's names ends here and stands for the topic; puts the nodes that follow on `open`.
    fn step(&self, node: Node, topic: &str, open: &mut Vec<Node>) -> bool {
        let Node { first, end, at, rest } = node;
        let names = &self.0[first as usize..end as usize];
        if let [name] = names {
            return matches(&name[at as usize..], &topic[rest as usize..]);
        }
        let [one, .., other] = names else { return false };
        let (one, other) = (&one[at as usize..], &other[at as usize..]);
        let same = one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
        let shared = one.as_bytes()[..same].iter().rposition(|byte| *byte == b'.').map_or("", |dot| &one[..=dot]);
        let Some(rest) = follow(shared, topic, rest as usize) else { return false };
        let at = at as usize + shared.len();
        let has = |want: &str| names.binary_search_by(|name| name[at..].cmp(want)).is_ok();
        let left = &topic[rest..];
        let Some(dot) = left.find('.') else { return has(">") || has("*") || has(left) };
        if has(">") {
            return true;
        }
        for want in [&left[..=dot], "*."] {
            let from = names.partition_point(|name| &name[at..] < want);
            let found = names[from..].partition_point(|name| name[at..].starts_with(want));
            if found > 0 {
                let first = first + from as u32;
                let (at, rest) = ((at + want.len()) as u32, (rest + dot + 1) as u32);
                open.push(Node { first, end: first + found as u32, at, rest });
            }
        }
        false
    }
}

/// Where in `topic` it goes on behind these segments, each of which ends with a dot; none if it has others, or no more.
fn follow(segments: &str, topic: &str, mut at: usize) -> Option<usize> {
    for segment in segments.split_terminator('.') {
        let dot = topic[at..].find('.')?;
        if segment != "*" && segment != &topic[at..at + dot] {
            return None;
        }
        at += dot + 1;
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(names: &[String]) -> NameSet {
        NameSet::new(names.iter().map(|name| Arc::from(&**name)).collect())
    }

    proptest! {
        #[test]
        fn a_set_agrees_with_asking_every_name(
            names in prop::collection::vec("(\\*|a|b|ab|a-)(\\.(\\*|a|b|ab|a-)){0,4}(\\.>)?|>", 0..20),
            topic in "(a|b|ab|a-)(\\.(a|b|ab|a-)){0,5}",
            pause in 1_usize..4,
        ) {
            let set = set(&names);
            let expected = names.iter().any(|name| matches(name, &topic));
            prop_assert_eq!(set.stands_for(&topic), expected, "{:?}", names);
            let (mut look, mut steps) = (Look::default(), 0);
            set.begin(&mut look);
            let found = loop {
                steps += 1;
                match set.go_on(&mut look, &topic, &mut pause.clone()) {
                    Some(found) => break found,
                    None => prop_assert!(steps < 50),
                }
            };
            prop_assert_eq!(found, expected, "whoever is interrupted comes to the same");
            prop_assert!(steps * pause <= 2 * names.len() + pause, "{} steps", steps * pause);
            prop_assert_eq!(set.has(&topic), names.contains(&topic));
            let begins = set.beginnings().iter().any(|beginning| topic.starts_with(&**beginning));
            prop_assert!(begins || !expected || names.contains(&topic), "a match begins like a pattern");
        }
    }

    #[test]
    fn a_thousand_patterns_are_looked_at_in_a_few_steps() {
        let names: Vec<String> = (0..1000).map(|n| format!("*.{n:x}.*")).collect();
        let set = set(&names);
        for (topic, expected) in [("q.3e7.a", true), ("q.3e8.a", false), ("q.3e7", false), ("q", false)] {
            let (mut look, mut steps) = (Look::default(), 8);
            set.begin(&mut look);
            assert_eq!(set.go_on(&mut look, topic, &mut steps), Some(expected), "{topic}");
        }
    }

    #[test]
    fn patterns_that_part_at_their_ends_cost_no_more_than_they_are() {
        // Sixty segments, each of which may be a star: a tree that is walked segment by segment has sixty levels.
        let name = |bits: usize| {
            let segments = (0..60).map(|at| if at < 8 && bits >> at & 1 == 1 { "*" } else { "a" });
            segments.chain([if bits & 256 == 0 { "x" } else { "y" }]).collect::<Vec<_>>().join(".")
        };
        let names: Vec<String> = (0..512).map(name).collect();
        let (mut look, mut steps) = (Look::default(), 2 * 512);
        let set = set(&names);
        set.begin(&mut look);
        let topic = format!("{}.z", ["a"; 60].join("."));
        assert_eq!(set.go_on(&mut look, &topic, &mut steps), Some(false));
    }

    #[test]
    fn what_patterns_begin_with_is_there_once() {
        let set = set(&["q.us.*", "q.us.a.>", "t.*.x", "t.*", "exact", "q.eu.>"].map(Into::into));
        assert_eq!(set.beginnings(), ["q.eu.", "q.us.", "t."].map(Box::from));
    }
}
