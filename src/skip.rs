//! What a test says that can't be run here.
//!
//! The harness keeps to itself what a passing test prints, so one that returns early looks as if it had found everything in
//! order. So this writes past the harness; and where somebody counts on the test, it fails:
//!
//! ```text
//! STENTOR_REQUIRE=browser,node      these must be here; scripts/test asks for what it has found or installed
//! ```

use std::{
    io::Write,
    sync::{Mutex, PoisonError},
};

/// Says that something is not tested here because this machine lacks a tool: a line, once in a process.
///
/// # Panics
///
/// If `STENTOR_REQUIRE` names the tool.
pub fn skip(tool: &str, what: &str) {
    static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let required = std::env::var("STENTOR_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|one| one == tool), "STENTOR_REQUIRE asks for {tool}; {what}");
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if !said.iter().any(|one| one == what) {
        said.push(what.to_owned());
        // A line at once: other tests write, too.
        let _ = std::io::stderr().write_all(format!("skipped: {what}\n").as_bytes());
    }
}
