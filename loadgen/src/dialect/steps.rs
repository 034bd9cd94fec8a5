//! Steps: what is said, and waited for, before a connection is ready.
//!
//! Many protocols can't be spoken all at once: one says hello, waits for the answer, subscribes, waits again. A step is one of both; a
//! connection is ready behind the last. What is said of a topic is said of each of them. What is waited for is a message that contains it.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::template::{Template, Values, unescape};

/// One step, as it is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Say this, a template.
    Say(String),
    /// Wait for a message that contains this.
    Wait(String),
}

/// All steps of one kind of connection, taken apart.
#[derive(Clone, Debug, Default)]
pub struct Steps(Vec<Taken>);

#[derive(Clone, Debug)]
enum Taken {
    Say(Template),
    Wait(Vec<u8>),
}

impl Steps {
    /// Takes them apart.
    ///
    /// # Errors
    /// One waits for nothing.
    pub fn new(steps: &[Step]) -> Result<Self> {
        let take = |step: &Step| match step {
            Step::Say(text) => Template::parse(text).map(Taken::Say),
            Step::Wait(text) => {
                ensure!(!text.is_empty(), "a step waits for \"\", which every message contains");
                Ok(Taken::Wait(unescape(text)))
            }
        };
        Ok(Self(steps.iter().map(take).collect::<Result<_>>()?))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether any of them waits.
    pub fn wait(&self) -> bool {
        self.0.iter().any(|step| matches!(step, Taken::Wait(_)))
    }

    /// Says what is to be said from step `at` on; returns the next step that waits, or none behind the last.
    pub fn go(&self, at: usize, topics: &[&str], say: &mut dyn FnMut(&[u8])) -> Option<usize> {
        for (nth, step) in self.0.iter().enumerate().skip(at) {
            let Taken::Say(template) = step else { return Some(nth) };
            let each = if template.has_topic() { topics } else { &topics[..topics.len().min(1)] };
            for (id, topic) in each.iter().enumerate() {
                let mut message = Vec::new();
                template.expand(&Values { topic, payload: b"", id: id as u64 + 1 }, &mut message);
                say(&message);
            }
        }
        None
    }

    /// Whether a message is what step `at` waits for.
    pub fn awaits(&self, at: usize, message: &[u8]) -> bool {
        matches!(self.0.get(at), Some(Taken::Wait(text)) if memchr::memmem::find(message, text).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_go_on_as_far_as_the_next_that_waits() {
        let written = [
            Step::Say("HELLO".into()),
            Step::Wait(r"\x20ok".into()),
            Step::Say("SUB {topic} {id}".into()),
            Step::Say("DONE".into()),
        ];
        let steps = Steps::new(&written).unwrap();
        let mut said = Vec::new();
        let mut say = |message: &[u8]| said.push(String::from_utf8(message.to_vec()).unwrap());
        assert_eq!(steps.go(0, &["a", "b"], &mut say), Some(1));
        assert!(steps.awaits(1, b"all ok.") && !steps.awaits(1, b"ok") && !steps.awaits(0, b" ok"));
        assert_eq!(steps.go(2, &["a", "b"], &mut say), None);
        assert_eq!(said, ["HELLO", "SUB a 1", "SUB b 2", "DONE"]);
        assert!(Steps::new(&[Step::Wait(String::new())]).is_err());
    }
}
