//! Floors as they are drawn: a number, then names between commas; what follows after two blanks is for people. A line without a
//! number goes on with the floor above it.
//!
//! ```text
//!  1  http, protocol,          bytes and values
//!     websocket
//!  0  clock                    ground
//! ```

use std::collections::{BTreeMap, BTreeSet};

/// The floor on which each module stands.
pub struct Drawing(BTreeMap<String, u32>);

impl Drawing {
    /// # Panics
    /// If a line is no floor, or a name is there twice.
    pub fn parse(text: &str) -> Drawing {
        let (mut floors, mut floor) = (BTreeMap::new(), None);
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let mut rest = line.trim_start();
            if let Some((number, names)) = rest.split_once(' ')
                && let Ok(number) = number.parse()
            {
                (floor, rest) = (Some(number), names.trim_start());
            }
            let names = rest.split("  ").next().unwrap_or_default();
            let floor: u32 = floor.unwrap_or_else(|| panic!("no number before {line:?}"));
            for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                assert!(!name.contains(' '), "two blanks must stand before what is no name: {line:?}");
                assert_eq!(floors.insert(name.to_owned(), floor), None, "{name} stands on two floors");
            }
        }
        assert!(!floors.is_empty(), "nothing is drawn");
        Drawing(floors)
    }

    pub fn floor(&self, name: &str) -> Option<u32> {
        self.0.get(name).copied()
    }

    pub fn names(&self) -> BTreeSet<String> {
        self.0.keys().cloned().collect()
    }
}
