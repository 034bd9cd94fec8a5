//! Steps: what is said, and waited for, before a connection is ready.
//!
//! Many protocols can't be spoken all at once: one says hello, waits for the answer, subscribes, waits again. A step is one of both; a
//! connection is ready behind the last. What is said of a topic is said of each of them. What is waited for is a message that contains it; behind what
//! was said of each topic, it is waited for as often, since all of them are to be acknowledged. A server may put several of these into one message.

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

/// Where a connection is: the step that it waits in, and how often what it waits for is still to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    step: usize,
    left: usize,
}

impl Waiting {
    /// Whether all of it has come.
    pub fn is_over(self) -> bool {
        self.left == 0
    }

    /// The step behind it.
    pub fn next(self) -> usize {
        self.step + 1
    }
}

/// All steps of one kind of connection, taken apart.
#[derive(Clone, Debug, Default)]
pub struct Steps(Vec<Taken>);

#[derive(Clone, Debug)]
enum Taken {
    Say(Template),
    Wait {
        text: Vec<u8>,
        /// Once for each topic.
        each: bool,
    },
}

impl Steps {
    /// Takes them apart.
    ///
    /// # Errors
    /// One waits for nothing.
    pub fn new(steps: &[Step]) -> Result<Self> {
        let mut each = false;
        let take = |step: &Step| match step {
            Step::Say(text) => {
                let template = Template::parse(text)?;
                each = template.has_topic();
                Ok(Taken::Say(template))
            }
            Step::Wait(text) => {
                ensure!(!text.is_empty(), "a step waits for \"\", which every message contains");
                Ok(Taken::Wait { text: unescape(text), each: std::mem::take(&mut each) })
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
        self.0.iter().any(|step| matches!(step, Taken::Wait { .. }))
    }

    /// Says what is to be said from step `at` on; returns what is waited for next, or none behind the last.
    pub fn go(&self, at: usize, topics: &[&str], say: &mut dyn FnMut(&[u8])) -> Option<Waiting> {
        for (nth, step) in self.0.iter().enumerate().skip(at) {
            let template = match step {
                Taken::Say(template) => template,
                Taken::Wait { each, .. } => {
                    return Some(Waiting { step: nth, left: if *each { topics.len() } else { 1 } });
                }
            };
            let each = if template.has_topic() { topics } else { &topics[..topics.len().min(1)] };
            for (id, topic) in each.iter().enumerate() {
                let mut message = Vec::new();
                template.expand(&Values { topic, payload: b"", id: id as u64 + 1 }, &mut message);
                say(&message);
            }
        }
        None
    }

    /// Whether a message has anything in it of what is waited for, which is then no longer to come.
    pub fn take(&self, waiting: &mut Waiting, message: &[u8]) -> bool {
        let Some(Taken::Wait { text, .. }) = self.0.get(waiting.step) else { return false };
        let found = memchr::memmem::find_iter(message, text).count();
        waiting.left = waiting.left.saturating_sub(found);
        found > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(written: &[Step], from: usize, topics: &[&str]) -> (Option<Waiting>, Vec<String>) {
        let mut said = Vec::new();
        let mut say = |message: &[u8]| said.push(String::from_utf8(message.to_vec()).unwrap());
        let waiting = Steps::new(written).unwrap().go(from, topics, &mut say);
        (waiting, said)
    }

    #[test]
    fn steps_go_on_as_far_as_the_next_that_waits() {
        let written = [
            Step::Say("HELLO".into()),
            Step::Wait(r"\x20ok".into()),
            Step::Say("SUB {topic} {id}".into()),
            Step::Say("DONE".into()),
        ];
        let (hello, said) = taken(&written, 0, &["a", "b"]);
        let mut hello = hello.unwrap();
        assert_eq!((said, hello), (vec!["HELLO".to_owned()], Waiting { step: 1, left: 1 }));
        let steps = Steps::new(&written).unwrap();
        assert!(!steps.take(&mut hello, b"ok") && !hello.is_over());
        assert!(steps.take(&mut hello, b"all ok.") && hello.is_over());
        assert!(!steps.take(&mut Waiting::default(), b"HELLO ok"));
        let (end, said) = taken(&written, hello.next(), &["a", "b"]);
        assert_eq!((end, said), (None, ["SUB a 1", "SUB b 2", "DONE"].map(str::to_owned).to_vec()));
        assert!(Steps::new(&[Step::Wait(String::new())]).is_err());
    }

    #[test]
    fn what_is_said_of_each_topic_is_acknowledged_for_each() {
        let written = [
            Step::Say("SUB {topic}".into()),
            Step::Wait("ok".into()),
            Step::Say("SUB {topic}".into()),
            Step::Say("PING".into()),
            Step::Wait("PONG".into()),
        ];
        let steps = Steps::new(&written).unwrap();
        let mut waiting = taken(&written, 0, &["a", "b", "c"]).0.unwrap();
        // Servers may put several acknowledgements into one message.
        assert!(steps.take(&mut waiting, b"ok\nok") && !waiting.is_over());
        assert!(steps.take(&mut waiting, b"ok") && waiting.is_over());
        // What was said last is of no topic.
        assert_eq!(taken(&written, waiting.next(), &["a", "b", "c"]).0, Some(Waiting { step: 4, left: 1 }));
    }
}
