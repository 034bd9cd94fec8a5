//! Numbers of things, as people say them: `1 worker`, `2 workers`.

use std::fmt::Display;

/// So many of something that is called `one` where there is one, and has an `s` behind it where there are others.
pub fn counted<N: Display + PartialEq + From<u8>>(count: N, one: &str) -> String {
    let ending = if count == N::from(1) { "" } else { "s" };
    format!("{count} {one}{ending}")
}

/// The same with a word that goes with the number: `1 worker has`, `2 workers have`.
pub fn counted_with<N: Display + PartialEq + From<u8>>(count: N, one: &str, [of_one, of_many]: [&str; 2]) -> String {
    let word = if count == N::from(1) { of_one } else { of_many };
    format!("{} {word}", counted(count, one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_told_from_more_and_from_none() {
        assert_eq!([0u64, 1, 2].map(|n| counted(n, "worker")), ["0 workers", "1 worker", "2 workers"]);
        assert_eq!([1u8, 2].map(|n| counted_with(n, "topic", ["is", "are"])), ["1 topic is", "2 topics are"]);
    }
}
