//! What each step may cost: the guard's decision, apart from the counting.
//!
//! A step has two figures, and a sentence:
//!
//! ```text
//!           falls by itself             raised by --renew                 raised by hand, with its reason
//!  0 ──────────────◄──────── instructions ────────►──────────────────── budget ─ ─ ─ ─ ─ ─ ─►
//!                                          ± TOLERANCE is no news
//! ```
//!
//! `instructions` is what the step cost when it was cheapest since it was last renewed. `budget` is the most that it may ever
//! cost, and `reason` what that buys. Growth fails even within the budget, as long as nobody has renewed the figure: else the
//! budget would be what every step costs in the end, and nobody would have decided it. A figure is never renewed beyond its
//! budget, so what a step may cost is only ever changed by an edit that has to say why.
//!
//! The counts belong to the tools that they were made with. With others there is nothing to decide.

use std::{collections::BTreeMap, fmt::Write};

use serde::{Deserialize, Serialize};

/// Growth of more than this fails until it is renewed. Code that lies elsewhere is inlined otherwise, which is less.
pub const TOLERANCE: f64 = 0.03;

/// What has become less by this much is written down by itself. A program in another folder, whose stack lies elsewhere,
/// moves some counts by a few instructions.
pub const FALL: f64 = 0.005;

/// Room in the budget of a step that is new, and has no reason yet.
const ROOM: f64 = 0.05;

/// What is held to: `benches/instructions.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// The compiler, the counter and the processor that the counts were made with.
    pub tools: Vec<String>,
    /// By name.
    pub steps: BTreeMap<String, Step>,
}

/// A step's figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What it costs.
    pub instructions: u64,
    /// What it may cost at most.
    pub budget: u64,
    /// What that buys.
    pub reason: String,
}

/// What comes of a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is as it was.
    Keep,
    /// It has become less, which is written down.
    Lower,
    /// It has become more, and somebody has to renew it.
    Renew,
    /// It is more than it may be.
    Refuse,
    /// It has no figures yet.
    Enter,
}

impl Baseline {
    /// Reads the file's text.
    ///
    /// # Errors
    ///
    /// Where and why it is not what [`Baseline::to_text`] writes.
    pub fn parse(text: &str) -> Result<Baseline, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    /// The file's text: a step a line, so that a change is a line of a diff.
    pub fn to_text(&self) -> String {
        let quote = |text: &String| serde_json::to_string(text).expect("text");
        let tools: Vec<String> = self.tools.iter().map(quote).collect();
        let mut text = format!("{{\n  \"tools\": [{}],\n  \"steps\": {{", tools.join(", "));
        for (nth, (name, Step { instructions, budget, reason })) in self.steps.iter().enumerate() {
            let comma = if nth == 0 { "" } else { "," };
            let (name, reason) = (quote(name), quote(reason));
            let figures = format!("\"instructions\": {instructions}, \"budget\": {budget}, \"reason\": {reason}");
            let _ = write!(text, "{comma}\n    {name}: {{ {figures} }}");
        }
        text.push_str("\n  }\n}\n");
        text
    }

    /// What is wrong with the file itself, whatever the counts are: a sentence each. `known` are the names of all steps.
    pub fn faults(&self, known: &[&str]) -> Vec<String> {
        let mut faults = Vec::new();
        for (name, step) in &self.steps {
            if !known.contains(&name.as_str()) {
                faults.push(format!("{name} is counted no more: take it out"));
            }
            if step.reason.trim().is_empty() {
                faults.push(format!("{name} has a budget without a reason: write what it buys"));
            }
            if step.budget < step.instructions {
                faults.push(format!("{name} has a budget of {}, less than its {}", step.budget, step.instructions));
            }
        }
        faults
    }

    /// What comes of a step's count.
    pub fn judge(&self, name: &str, now: u64) -> Verdict {
        let Some(step) = self.steps.get(name) else { return Verdict::Enter };
        let change = now as f64 / step.instructions as f64 - 1.0;
        if now > step.budget {
            Verdict::Refuse
        } else if change > TOLERANCE {
            Verdict::Renew
        } else if change <= -FALL {
            Verdict::Lower
        } else {
            Verdict::Keep
        }
    }

    /// Writes down what has become less; says whether anything has.
    pub fn lower(&mut self, now: &BTreeMap<String, u64>) -> bool {
        let before = self.clone();
        for (name, &count) in now {
            if self.judge(name, count) == Verdict::Lower {
                self.steps.get_mut(name).expect("what is lowered is there").instructions = count;
            }
        }
        *self != before
    }

    /// Takes these counts, made with these tools. A step that is new gets a budget, and wants a reason.
    ///
    /// # Errors
    ///
    /// Nothing is taken if a count is beyond its budget, or if counts of other tools would stay beside these: a sentence each.
    pub fn renew(&mut self, tools: Vec<String>, now: &BTreeMap<String, u64>) -> Result<(), Vec<String>> {
        let mut refused = Vec::new();
        if tools != self.tools && self.steps.keys().any(|name| !now.contains_key(name)) {
            refused.push("the others were counted with other tools: all have to be renewed together".to_owned());
        }
        for (name, &count) in now {
            if self.judge(name, count) == Verdict::Refuse {
                let budget = self.steps[name].budget;
                refused.push(format!(
                    "{name} is {count}, its budget {budget}: raise it there, and say in its reason what it buys"
                ));
            }
        }
        if !refused.is_empty() {
            return Err(refused);
        }
        self.tools = tools;
        for (name, &count) in now {
            let new = Step { instructions: count, budget: (count as f64 * (1.0 + ROOM)) as u64, reason: String::new() };
            self.steps.entry(name.clone()).or_insert(new).instructions = count;
        }
        Ok(())
    }
}
