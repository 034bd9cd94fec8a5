//! What a program asks for with a subscription.

use crate::names::Point;

/// Which publications of a topic are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Each of them.
    #[default]
    All,
    /// The newest.
    Latest,
}

impl Mode {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Mode::All => "all",
            Mode::Latest => "latest",
        }
    }
}

/// Where a subscription begins.
#[derive(Clone, Debug, PartialEq)]
pub enum From {
    /// At a cursor that a server gave.
    Cursor(String),
    /// Topics by their own points.
    Points(Vec<(String, Point)>),
}

/// How a name is subscribed to.
#[derive(Clone, Debug, PartialEq)]
pub struct How {
    /// Which publications.
    pub mode: Mode,
    /// With mode `latest`: at most so many a second.
    pub rate: Option<f64>,
    /// Last values come first.
    pub snapshot: bool,
    /// Where to begin, if not now.
    pub from: Option<From>,
}

impl Default for How {
    fn default() -> How {
        How { mode: Mode::All, rate: None, snapshot: true, from: None }
    }
}

impl How {
    /// The newest of each topic.
    pub fn latest() -> How {
        How { mode: Mode::Latest, ..How::default() }
    }

    /// At most so many a second of each topic.
    pub fn rate(self, rate: f64) -> How {
        How { rate: Some(rate), ..self }
    }

    /// Begins there.
    pub fn from(self, from: From) -> How {
        How { from: Some(from), ..self }
    }

    /// Without last values.
    pub fn no_snapshot(self) -> How {
        How { snapshot: false, ..self }
    }
}
