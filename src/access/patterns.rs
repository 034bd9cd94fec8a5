//! A set of patterns, and whether all that a name stands for lies within them.
//!
//! ```text
//!  q.us.>     within q.>            q.*.x    within q.>
//!  q.us.A     within {*.us.A}       q.>      within {q.*, q.*.>}: by length, none of the two alone
//!  q.>        not within {q.*, q.*.*}: a topic of four segments isn't
//! ```
//!
//! There are more segments than any set of patterns names. So what a `*` of the name stands for is covered only by a `*` or `>` in its
//! place, and of a name without `>`, or of one length of a name with it, all topics lie within a set if one of its patterns alone covers
//! them. A last `>` stands for one segment, two, three and so on: each of these lengths is asked for by itself, up to a `>` in the set, which covers
//! all lengths from there on. Several sets may be asked together: what counts is their union.
//!
//! Sorted, patterns that begin with the same segments stand together, so that they are a tree with a level for each segment and without a node in
//! memory, as in [`crate::protocol::name_set`]. A look goes down the branches that a segment and `*` name; a `*` of the name goes down
//! one. Patterns have at most ten segments if there is a wildcard in them, so that a look passes fewer than 2^11 nodes, and no more than twice as many as
//! there are patterns for each of their lengths. [`Patterns::STEPS_MAX`] bounds it all the same: what isn't found by then is not covered.

use crate::protocol::name::{NameError, check_pattern, matches};

/// Names of topics and patterns, sorted, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patterns(Box<[Box<str>]>);

/// How much of what a name with `>` stands for was found to be covered, by how many segments the `>` stands for.
#[derive(Default)]
struct Lengths {
    /// Bit n: n + 1 segments.
    one_by_one: u64,
    /// This many and more, less one; none for never.
    from: Option<u32>,
    steps: usize,
}

/// Patterns that begin with the segments that were gone by.
#[derive(Clone, Copy)]
struct Node<'s> {
    names: &'s [Box<str>],
    at: usize,
}

impl Patterns {
    /// Nodes that are passed for one name: twice what there can be where all have wildcards. Some hundred microseconds.
    pub const STEPS_MAX: usize = 4096;

    /// Most patterns of one set.
    pub const MOST: usize = 10_000;

    /// The set of these.
    ///
    /// # Errors
    /// One that is no pattern, and why.
    pub fn new<'n>(names: impl IntoIterator<Item = &'n str>) -> Result<Patterns, (String, NameError)> {
        let mut all = Vec::new();
        for name in names {
            check_pattern(name, LENGTH_MAX).map_err(|error| (name.to_owned(), error))?;
            all.push(Box::from(name));
        }
        all.sort_unstable();
        all.dedup();
        Ok(Patterns(all.into()))
    }

    /// The set that covers every name.
    pub fn all() -> Patterns {
        Patterns([Box::from(">")].into())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every name is covered, as far as one look tells.
    pub fn is_all(&self) -> bool {
        self.0.first().is_some_and(|first| &**first == ">")
    }

    /// Each of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|name| &**name)
    }

    /// Whether one of them stands for this topic, which has been checked.
    pub fn stand_for(&self, topic: &str) -> bool {
        match self.0.len() {
            0 => false,
            // Reading so few through is less than to look for them.
            1..=FEW => self.0.iter().any(|name| matches(name, topic)),
            _ => self.root().covers(topic, &mut Lengths::default()),
        }
    }

    /// Whether one of them and `name`, which has been checked, stand for a topic that is the same.
    pub fn touch(&self, name: &str) -> bool {
        self.iter().any(|pattern| touch(pattern, name))
    }

    fn root(&self) -> Node<'_> {
        Node { names: &self.0, at: 0 }
    }
}

/// Whether all that `name`, which has been checked, stands for lies within the union of these sets.
pub fn cover(sets: &[&Patterns], name: &str) -> bool {
    if sets.iter().any(|set| set.is_all()) {
        return true;
    }
    let mut lengths = Lengths::default();
    let found = sets.iter().any(|set| !set.is_empty() && set.root().covers(name, &mut lengths));
    found || lengths.is_whole()
}

/// Whether there is a topic that both stand for. Segment by segment: what only one of them names is what both can be.
pub fn touch(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.split('.'), other.split('.'));
    loop {
        match (one.next(), other.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some(a), Some(b)) if a == b || a == "*" || b == "*" => {}
            _ => return false,
        }
    }
}

impl Lengths {
    /// Whether there is no number of segments that isn't covered.
    fn is_whole(&self) -> bool {
        // All below the first of those that are covered for good.
        self.from.is_some_and(|from| 1_u64.checked_shl(from).is_some_and(|bit| self.one_by_one & (bit - 1) == bit - 1))
    }

    /// Whether there may be one step more.
    fn step(&mut self) -> bool {
        self.steps += 1;
        self.steps <= Patterns::STEPS_MAX
    }
}

impl<'s> Node<'s> {
    /// Whether the patterns from here on cover what is left of a name; of one with `>`, notes which lengths they do.
    fn covers(mut self, mut rest: &str, lengths: &mut Lengths) -> bool {
        loop {
            if !lengths.step() {
                return false;
            }
            if rest == ">" {
                self.note(lengths);
                return lengths.is_whole();
            }
            if self.ends_with(">") {
                return true;
            }
            let Some((segment, left)) = rest.split_once('.') else {
                return self.ends_with("*") || (rest != "*" && self.ends_with(rest));
            };
            if segment != "*"
                && let Some(node) = self.below(segment)
                && node.covers(left, lengths)
            {
                return true;
            }
            let Some(node) = self.below("*") else { return false };
            (self, rest) = (node, left);
        }
    }

    /// Notes how many segments more are covered, whatever they are.
    fn note(mut self, lengths: &mut Lengths) {
        for more in 0..u64::BITS {
            if !lengths.step() {
                return;
            }
            if self.ends_with(">") {
                lengths.from = Some(lengths.from.map_or(more, |from| from.min(more)));
                return;
            }
            if self.ends_with("*") {
                lengths.one_by_one |= 1 << more;
            }
            match self.below("*") {
                Some(node) => self = node,
                None => return,
            }
        }
    }

    /// Whether a pattern goes on with this segment and no more.
    fn ends_with(&self, segment: &str) -> bool {
        self.names.binary_search_by(|name| self.left(name).cmp(segment)).is_ok()
    }

    /// Those that go on with this segment and a dot.
    fn below(&self, segment: &str) -> Option<Node<'s>> {
        let goes_on = |left: &str| left.as_bytes().get(segment.len()) == Some(&b'.') && left.starts_with(segment);
        // A dot sorts before some characters of segments and after others, so the segment is compared together with it.
        let before = |left: &str| {
            let wanted = segment.bytes().chain(*b".");
            left.bytes().take(segment.len() + 1).cmp(wanted).is_lt()
        };
        let from = self.names.partition_point(|name| before(self.left(name)));
        let found = self.names[from..].partition_point(|name| goes_on(self.left(name)));
        let names = &self.names[from..from + found];
        (found > 0).then_some(Node { names, at: self.at + segment.len() + 1 })
    }

    /// What is left of a name behind the segments that were gone by.
    fn left<'n>(&self, name: &'n str) -> &'n str {
        name.get(self.at..).unwrap_or_default()
    }
}

/// So many are read through one by one.
const FEW: usize = 4;

/// The longest name that a topic may have by any setting.
const LENGTH_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(names: &[&str]) -> Patterns {
        Patterns::new(names.iter().copied()).unwrap()
    }

    /// Whether each topic that `name` stands for lies within one of `names`: asked for every number of segments up to more than any of them
    /// has, with segments that nobody names in the place of wildcards.
    fn naively(names: &[&str], name: &str) -> bool {
        let longest = names.iter().chain([&name]).map(|name| name.split('.').count()).max().unwrap_or(0);
        let fixed: Vec<&str> = name.split('.').filter(|segment| *segment != ">").collect();
        let lengths = if name.ends_with('>') { 1..=longest + 2 } else { 0..=0 };
        lengths.into_iter().all(|more| {
            let segments = fixed.iter().map(|it| if *it == "*" { "fresh" } else { it });
            let topic = segments.chain(std::iter::repeat_n("fresh", more)).collect::<Vec<_>>().join(".");
            names.iter().any(|name| matches(name, &topic))
        })
    }

    #[test]
    fn what_is_asked_for_lies_within_the_union() {
        for (names, name, expected) in [
            (&["q.us.>"][..], "q.us.AAPL", true),
            (&["q.us.>"], "q.us", false),
            (&["q.us.>"], "q.us.>", true),
            (&["q.us.>"], "q.us.*", true),
            (&["q.us.>"], "q.*.AAPL", false),
            (&["q.us.>"], "q.>", false),
            (&["q.us.>"], "*.us.A", false),
            (&["*.us.A"], "q.us.A", true),
            (&["*.us.A"], "q.us.>", false),
            (&["q.us.>", "*.us.A"], "*.us.A", true),
            (&["q.>"], "q.*.x", true),
            (&["q.*.x"], "q.*.x", true),
            (&["q.*.x"], "q.*.y", false),
            (&["q.*.x"], "q.*.*", false),
            (&["*", "*.>"], ">", true),
            (&["*.>"], ">", false),
            (&["*"], ">", false),
            (&["q.*", "q.*.*", "q.*.*.>"], "q.>", true),
            (&["q.*", "q.*.*.>"], "q.>", false),
            (&["q.*", "*.*.>", "*.*"], "q.>", true),
            (&["q.a", "q.b"], "q.*", false),
            (&["a.*", "*.b"], "a.b", true),
            (&["a.*", "*.b"], "*.*", false),
            (&[">"], ">", true),
            (&[], "q", false),
            // A pattern's text is no wildcard of the name.
            (&["q.a"], "q.*", false),
            (&["q.a-b", "q.a.b"], "q.a", false),
            (&["q.a", "q.a-b", "q.a.b", "q.a+b", "q.a0", "q.a.>"], "q.a.b.c", true),
        ] {
            assert_eq!(cover(&[&set(names)], name), expected, "{name} within {names:?}");
            assert_eq!(naively(names, name), expected, "the naive twin: {name} within {names:?}");
        }
    }

    #[test]
    fn the_union_is_that_of_all_sets_together() {
        let (one, other) = (set(&["q.*"]), set(&["q.*.>"]));
        assert!(cover(&[&one, &other], "q.>") && cover(&[&other, &one], "q.>"));
        assert!(!cover(&[&one], "q.>") && !cover(&[&other], "q.>") && !cover(&[], "q"));
    }

    #[test]
    fn two_touch_where_there_is_a_topic_that_both_stand_for() {
        for (one, other, expected) in [
            ("q.us.A", "q.us.A", true),
            ("q.us.A", "q.us.B", false),
            ("q.*", "*.A", true),
            ("q.*", "t.>", false),
            ("q.>", "q", false),
            ("q.>", "q.us.A", true),
            ("*.us.A", "q.>", true),
            ("*", "*.*", false),
            (">", "q", true),
        ] {
            assert_eq!((touch(one, other), touch(other, one)), (expected, expected), "{one} and {other}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_named_with_what_is_wrong() {
        let (name, error) = Patterns::new(["q.us.>", "q.>.x"]).unwrap_err();
        assert_eq!((name.as_str(), error), ("q.>.x", NameError::NotLast { at: 2 }));
    }

    /// The worst that patterns and names can do: each segment of both may go two ways.
    #[test]
    fn hostile_names_and_patterns_cost_no_more_than_their_bound() {
        let name = |bits: usize, a: &str, b: &str| {
            (0..10).map(|at| if bits >> at & 1 == 1 { a } else { b }).collect::<Vec<_>>().join(".")
        };
        let all: Vec<String> = (0..1024).filter(|bits| *bits != 1023_usize).map(|bits| name(bits, "*", "a")).collect();
        let all = Patterns::new(all.iter().map(String::as_str)).unwrap();
        let steps = |patterns: &Patterns, name: &str| {
            let mut lengths = Lengths::default();
            let found = patterns.root().covers(name, &mut lengths) || lengths.is_whole();
            (found, lengths.steps)
        };
        for (asked, expected) in
            [(name(0, "*", "a"), true), (name(1023, "*", "a"), false), (name(1022, "a", "b"), true)]
        {
            let (found, steps) = steps(&all, &asked);
            assert_eq!(found, expected, "{asked}");
            assert!(steps < Patterns::STEPS_MAX, "{asked}: {steps} steps");
        }
        let open: Vec<String> = (0..1024).map(|bits| format!("{}.*", &name(bits, "*", "a")[..17])).collect();
        let open = Patterns::new(open.iter().map(String::as_str)).unwrap();
        let (found, steps) = steps(&open, "a.a.a.a.a.a.a.a.a.>");
        assert!(!found && steps < Patterns::STEPS_MAX, "{steps} steps");
        let long = vec!["a"; 64].join(".");
        assert!(!cover(&[&open], &long));
    }

    #[test]
    fn a_thousand_patterns_are_looked_at_in_a_few_steps() {
        let names: Vec<String> = (0..1000).map(|n| format!("q.v{n}.>")).collect();
        let patterns = Patterns::new(names.iter().map(String::as_str)).unwrap();
        for (name, expected) in [("q.v999.A", true), ("q.v999.>", true), ("q.v1000.A", false), ("q.*.A", false)] {
            let mut lengths = Lengths::default();
            assert_eq!(patterns.root().covers(name, &mut lengths) || lengths.is_whole(), expected, "{name}");
            assert!(lengths.steps <= 5, "{name}: {} steps", lengths.steps);
        }
    }

    proptest! {
        #[test]
        fn a_set_agrees_with_its_naive_twin(
            names in prop::collection::vec("(\\*|a|b|a-)(\\.(\\*|a|b|a-)){0,4}(\\.>)?|>", 0..12),
            name in "(\\*|a|b|a-|c)(\\.(\\*|a|b|a-|c)){0,5}(\\.>)?|>",
            at in 0_usize..12,
        ) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let expected = naively(&names, &name);
            prop_assert_eq!(cover(&[&set(&names)], &name), expected);
            let (one, other) = names.split_at(at.min(names.len()));
            prop_assert_eq!(cover(&[&set(one), &set(other)], &name), expected, "in two sets");
        }

        #[test]
        fn what_is_covered_holds_for_every_topic(
            names in prop::collection::vec("(\\*|a|b)(\\.(\\*|a|b)){0,3}(\\.>)?|>", 0..8),
            name in "(\\*|a|b)(\\.(\\*|a|b)){0,3}(\\.>)?|>",
            topic in "(a|b|c)(\\.(a|b|c)){0,5}",
        ) {
            let patterns = set(&names.iter().map(String::as_str).collect::<Vec<_>>());
            let stand_for = names.iter().any(|name| matches(name, &topic));
            prop_assert_eq!(patterns.stand_for(&topic), stand_for);
            prop_assert_eq!(cover(&[&patterns], &topic), stand_for, "a topic is a name without wildcards");
            prop_assert!(!(cover(&[&patterns], &name) && matches(&name, &topic)) || stand_for);
            let other = names.first().map_or(">", String::as_str);
            let both = matches(other, &topic) && matches(&name, &topic);
            prop_assert!(!both || touch(other, &name), "{} and {} have {} in common", other, name, topic);
        }
    }
}
