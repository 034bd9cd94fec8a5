//! What somebody may: the patterns that it may subscribe to and publish on, and what bounds it there.
//!
//! Rights come from a token's own claims and from a role that it names, and there they add up: names from both, and every bound of both. A
//! bound counts where a name has as much as one topic in common with it, and of several the strictest does.

use super::patterns::{self, Patterns};
use crate::protocol::command::Mode;

/// What a token, a role or an entry of the rights file gives. By default nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rights {
    /// What may be subscribed to and looked at.
    pub sub: Patterns,
    /// What may be published on.
    pub publ: Patterns,
    /// What comes later only, which can't be kept yet: nothing of it may be subscribed to.
    pub delayed: Patterns,
    /// Updates a second of each topic, at most, by pattern; finite and above 0.
    pub rates: Box<[(Box<str>, f64)]>,
    /// Connections at once; none for any number.
    pub conns: Option<u32>,
    /// Only newest values, never every publication.
    pub latest_only: bool,
    /// It may do what operators do.
    pub admin: bool,
}

/// What was asked for and isn't covered, and what would be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Beyond {
    /// Not within its patterns.
    #[error("{0}: you may not subscribe to that")]
    Name(String),
    /// Only newest values are.
    #[error("{name}: you may not have every publication of that: ask for mode latest{}", rate.map_or_else(String::new, |rate| format!(" with a rate of at most {rate}")))]
    Mode {
        /// The first name for which that is so.
        name: String,
        /// Updates a second that would be.
        rate: Option<f64>,
    },
    /// Less often is.
    #[error("{name}: you may have at most {most} updates a second of that: ask for a rate of at most {most}")]
    Rate {
        /// The first name for which that is so.
        name: String,
        /// Updates a second that would be.
        most: f64,
    },
}

/// The rights of a holder at a moment, from wherever they come: at most a token's own and those of its role.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sum<'r>(pub [Option<&'r Rights>; 2]);

impl<'r> Sum<'r> {
    fn parts(self) -> impl Iterator<Item = &'r Rights> {
        self.0.into_iter().flatten()
    }

    pub fn may_subscribe(self, name: &str) -> bool {
        if self.parts().any(|rights| !rights.delayed.is_empty() && rights.delayed.touch(name)) {
            return false;
        }
        match self.0.map(|rights| rights.map(|rights| &rights.sub)) {
            [Some(one), Some(other)] => patterns::cover(&[one, other], name),
            [Some(one), None] | [None, Some(one)] => patterns::cover(&[one], name),
            [None, None] => false,
        }
    }

    #[inline]
    pub fn may_publish(self, topic: &str) -> bool {
        self.parts().any(|rights| rights.publ.stand_for(topic))
    }

    pub fn publishes(self) -> bool {
        self.parts().any(|rights| !rights.publ.is_empty())
    }

    pub fn subscribes(self) -> bool {
        self.parts().any(|rights| !rights.sub.is_empty())
    }

    /// Updates a second of each topic of `name`, at most.
    pub fn rate(self, name: &str) -> Option<f64> {
        let rates = self.parts().flat_map(|rights| &rights.rates);
        rates.filter(|(pattern, _)| patterns::touch(pattern, name)).map(|(_, rate)| *rate).min_by(f64::total_cmp)
    }

    pub fn latest_only(self) -> bool {
        self.parts().any(|rights| rights.latest_only)
    }

    pub fn conns(self) -> Option<u32> {
        self.parts().filter_map(|rights| rights.conns).min()
    }

    pub fn is_admin(self) -> bool {
        self.parts().any(|rights| rights.admin)
    }

    /// Whether names may be had in this mode, at this rate.
    pub fn check<'n>(
        self,
        names: impl IntoIterator<Item = &'n str>,
        mode: Mode,
        rate: Option<f64>,
    ) -> Result<(), Beyond> {
        let latest_only = self.latest_only();
        names.into_iter().try_for_each(|name| {
            if !self.may_subscribe(name) {
                return Err(Beyond::Name(name.to_owned()));
            }
            match (self.rate(name), mode, rate) {
                (most, Mode::All, _) if most.is_some() || latest_only => {
                    Err(Beyond::Mode { name: name.to_owned(), rate: most })
                }
                (Some(most), Mode::Latest, asked) if asked.is_none_or(|asked| asked > most) => {
                    Err(Beyond::Rate { name: name.to_owned(), most })
                }
                _ => Ok(()),
            }
        })
    }
}
