//! Where lanes are spoken, and which of them a WebSocket speaks.
//!
//! Several lanes may be spoken at one address; the subprotocol that a client offers says which (RFC 6455 section 1.9). None
//! offered, or none that is known: the first lane there, and the answer names none, as section 4.2.2 has it; it is for the
//! client to go on or not. Several: the first of them that is spoken here, since they come in the order of preference. Only
//! such as are spoken elsewhere: whoever offers them has come to the wrong door and is told so, because what it would be
//! sent here is nothing that it could read.

use super::Lane;

/// Where a connection is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// A WebSocket that subscribes by commands.
    Ws,
    /// A WebSocket of one topic.
    Raw,
    /// A stream over plain HTTP.
    Sse,
}

impl Address {
    /// As a client writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Address::Ws => "/ws",
            Address::Raw => "/raw/TOPIC",
            Address::Sse => "/sse",
        }
    }

    /// The lane of whoever names none.
    ///
    /// # Panics
    /// If no lane is spoken here; there always is one.
    pub fn lane(self) -> Lane {
        self.lanes().next().expect("each address has a lane")
    }

    /// The lane that is chosen among the subprotocols `offered`, most wanted first, and what the answer has to name.
    ///
    /// # Errors
    /// None of those offered is spoken here, and one is elsewhere: a sentence for the client.
    pub fn choose<'o>(
        self,
        offered: impl IntoIterator<Item = &'o str>,
    ) -> Result<(Lane, Option<&'static str>), String> {
        let mut elsewhere = None;
        for name in offered {
            let known = Lane::ALL.into_iter().find(|lane| lane.words().subprotocol() == Some(name));
            let Some(lane) = known else { continue };
            if lane.words().address() == self {
                return Ok((lane, lane.words().subprotocol()));
            }
            elsewhere = elsewhere.or(Some(lane));
        }
        match elsewhere {
            None => Ok((self.lane(), None)),
            Some(other) => Err(self.wrong_door(other)),
        }
    }

    fn wrong_door(self, other: Lane) -> String {
        let (offered, there) = (other.words().subprotocol().unwrap_or_default(), other.words().address().as_str());
        let spoken: Vec<_> = self.lanes().filter_map(|lane| lane.words().subprotocol()).collect();
        let (here, spoken) = (self.as_str(), spoken.join(" or "));
        format!("The subprotocol {offered} is spoken at {there}; offer {spoken} at {here}, or none.")
    }

    fn lanes(self) -> impl Iterator<Item = Lane> {
        Lane::ALL.into_iter().filter(move |lane| lane.words().address() == self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = "stentor.v1.json";
    const RAW: &str = "stentor.v1.raw";

    #[test]
    fn who_offers_nothing_that_is_known_gets_the_first_lane_and_no_name() {
        for offered in [&[][..], &["mqtt"], &["Stentor.v1.JSON", "stentor.v2.raw"]] {
            assert_eq!(Address::Ws.choose(offered.iter().copied()), Ok((Lane::Json, None)), "{offered:?}");
            assert_eq!(Address::Raw.choose(offered.iter().copied()), Ok((Lane::Raw, None)), "{offered:?}");
        }
        assert_eq!(Address::Sse.lane(), Lane::Events);
    }

    #[test]
    fn of_several_the_one_that_is_spoken_here_is_chosen() {
        for offered in [&[JSON, RAW][..], &[RAW, JSON], &["mqtt", RAW, JSON, RAW]] {
            assert_eq!(Address::Ws.choose(offered.iter().copied()), Ok((Lane::Json, Some(JSON))), "{offered:?}");
            assert_eq!(Address::Raw.choose(offered.iter().copied()), Ok((Lane::Raw, Some(RAW))), "{offered:?}");
        }
    }

    #[test]
    fn what_is_spoken_elsewhere_is_refused_with_both_names() {
        for offered in [&[RAW][..], &["mqtt", RAW]] {
            let told = Address::Ws.choose(offered.iter().copied()).unwrap_err();
            assert_eq!(
                told,
                "The subprotocol stentor.v1.raw is spoken at /raw/TOPIC; offer stentor.v1.json at /ws, or none."
            );
        }
        let told = Address::Raw.choose([JSON]).unwrap_err();
        assert!(told.contains(JSON) && told.contains(RAW), "{told}");
    }
}
