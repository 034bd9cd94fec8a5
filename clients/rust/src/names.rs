//! Which topics a name stands for, and names in commands of bounded size.

/// A topic's epoch, and the last number that one has of it.
pub type Point = (String, u64);

/// Whether a topic is meant by a name: itself, or a pattern in which `*` is one segment and a last `>` one or more.
pub fn matches(name: &str, topic: &str) -> bool {
    if name == topic || name == ">" {
        return true;
    }
    let (mut wanted, mut found) = (name.split('.').peekable(), topic.split('.'));
    loop {
        match (wanted.next(), found.next()) {
            (Some(">"), Some(_)) if wanted.peek().is_none() => return true,
            (Some(part), Some(there)) if part == "*" || part == there => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

/// Whether a name stands for many topics.
pub fn is_pattern(name: &str) -> bool {
    name.split('.').any(|part| part == "*" || part == ">")
}

/// Names of one command, and where to resume some of them.
pub(crate) type Part<'a> = (Vec<&'a str>, Vec<(&'a str, Point)>);

/// Names, and where to resume them, in parts of at most so many bytes of JSON. Names are ASCII.
pub(crate) fn split<'a>(
    names: impl IntoIterator<Item = &'a str>,
    point: impl Fn(&str) -> Option<Point>,
    bytes_max: usize,
) -> Vec<Part<'a>> {
    let mut parts = Vec::new();
    let (mut topics, mut start, mut room) = (Vec::new(), Vec::new(), bytes_max);
    for name in names {
        let at = point(name);
        let size = name.len() + 3 + at.as_ref().map_or(0, |(epoch, _)| name.len() + epoch.len() + 30);
        if size > room && !topics.is_empty() {
            parts.push((std::mem::take(&mut topics), std::mem::take(&mut start)));
            room = bytes_max;
        }
        topics.push(name);
        start.extend(at.map(|at| (name, at)));
        room = room.saturating_sub(size);
    }
    if !topics.is_empty() {
        parts.push((topics, start));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_one_segment_and_a_last_arrow_one_or_more() {
        for (name, topic) in
            [("a", "a"), ("*", "a"), ("a.*", "a.b"), ("a.>", "a.b.c"), (">", "a"), ("*.b.>", "a.b.c.d"), ("*.*", "a.b")]
        {
            assert!(matches(name, topic), "{name} {topic}");
        }
        for (name, topic) in [
            ("a", "b"),
            ("*", "a.b"),
            ("a.>", "a"),
            ("a.*", "a"),
            ("*.c", "a.b"),
            ("a.b", "a"),
            ("a", "a.b"),
            ("x>", "x.y"),
        ] {
            assert!(!matches(name, topic), "{name} {topic}");
        }
    }

    #[test]
    fn no_part_is_larger_than_it_may_be_and_every_name_is_in_one() {
        let names: Vec<String> = (0..500).map(|nth| format!("q.us.symbol{nth}")).collect();
        let parts = split(names.iter().map(String::as_str), |_| Some(("epoch".into(), 7)), 1000);
        let all: Vec<&str> = parts.iter().flat_map(|(topics, _)| topics.iter().copied()).collect();
        assert_eq!(all.len(), 500);
        assert!(parts.len() > 30 && parts.iter().all(|(topics, start)| topics.len() == start.len()));
        for (topics, start) in &parts {
            let points: serde_json::Map<_, _> =
                start.iter().map(|(name, point)| ((*name).to_owned(), serde_json::json!(point))).collect();
            assert!(serde_json::json!({"topics": topics, "from": points}).to_string().len() < 1000);
        }
    }
}
