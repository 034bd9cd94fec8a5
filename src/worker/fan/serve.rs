//! Serving: what was planned, sent to the members of the cohorts that stand in line, as far as one turn goes.

use super::{
    super::{
        connections::Connections,
        deliver::{Outcome, Parcel, deliver_to_each},
        ground::Ground,
        work::price,
    },
    Fan, Fell, Why,
    interest::CohortId,
    locate,
};
use crate::io::Edge;

/// Sends that a cohort is served with before it is the others' turn: however many members one has, and however much each of them is
/// owed, it doesn't keep the next one waiting.
const STAY_SENDS: u64 = 64;

impl Fan {
    /// Serves the cohorts that stand in line, as far as one turn goes.
    pub fn serve<E: Edge>(&mut self, ground: &mut Ground<E>, connections: &mut Connections<E::Socket>) {
        let mut left = ground.settings.turn_sends as u64;
        while let Some((id, ticket)) = self.line.front().copied().filter(|_| left > 0 && ground.work.left() > 0) {
            if self.interest.with_ticket(id, ticket).is_some() {
                let sends = self.serve_one(ground, connections, id, left.min(STAY_SENDS));
                ground.work.charge(price::SEND * sends);
                left = left.saturating_sub(sends);
            }
            // The cohort may be gone, with its last member.
            let Some(cohort) = self.interest.with_ticket(id, ticket) else {
                self.line.pop_front();
                continue;
            };
            self.line.pop_front();
            if cohort.column.is_in_round() {
                self.line.push_back((id, ticket));
                continue;
            }
            cohort.ticket = 0;
            if cohort.column.is_behind() {
                self.tickets += 1;
                cohort.ticket = self.tickets;
                cohort.column.begin_round(false);
                self.line.push_back((id, self.tickets));
            }
        }
        if !self.line.is_empty() {
            ground.work.put_off();
        }
        self.settle_passes(ground);
    }

    /// Serves members of a cohort, until its round is over or at least `most` calls of `send` were made. Returns how many.
    fn serve_one<E: Edge>(
        &mut self,
        ground: &mut Ground<E>,
        connections: &mut Connections<E::Socket>,
        id: CohortId,
        most: u64,
    ) -> u64 {
        let Fan { interest, passes, gather, .. } = self;
        let Ground { edge, reader, metrics, .. } = ground;
        let cohort = interest.cohort(id);
        if cohort.key.polls {
            return self.wake_some(ground, connections, id, most);
        }
        let form = cohort.key.form();
        if form.packed {
            return self.serve_packed(ground, connections, id, most);
        }
        cohort.last_sent = ground.now;
        let column = &mut cohort.column;
        let (mut sends, mut stopped, mut fallen) = (0, Vec::new(), Vec::new());
        while sends < most
            && let Some(cut) = column.next_cut()
        {
            let owed = column.owed(cut);
            let bytes = reader.contiguous(form.lane, column.runs(cut), gather);
            debug_assert_eq!(bytes.len(), owed.bytes as usize);
            let parcel = Parcel { bytes, publications: owed.publications.into(), saved: 0 };
            let next = || column.serve_at(cut);
            let done = deliver_to_each(edge, metrics, connections, parcel, most - sends, next, &mut stopped);
            sends += done.sends;
            column.settle(cut, done.members, passes);
            fallen.extend(stopped.drain(..).map(|(token, outcome)| (token, owed.from, outcome)));
        }
        for (token, from, outcome) in fallen {
            let why = match outcome {
                Outcome::All => continue,
                Outcome::Full(taken) => {
                    let (position, offset, passed) = locate(ground, &mut self.interest, id, from, taken);
                    ground.metrics.deliveries.add(passed);
                    Why::Full { position, offset, rest: Vec::new() }
                }
                Outcome::Broken(why) => Why::Broken(why),
            };
            let owed = self.leave(connections, token);
            self.fell.push_back(Fell { token, why, owed });
        }
        sends
    }

    /// Lets go of members of a cohort that polls, each from where it stands on, until its round is over or there were `most`. Returns how
    /// many: an answer is sent to each, so they count as so many sends.
    fn wake_some<E: Edge>(
        &mut self,
        ground: &mut Ground<E>,
        connections: &mut Connections<E::Socket>,
        id: CohortId,
        most: u64,
    ) -> u64 {
        let Fan { interest, passes, .. } = self;
        let column = &mut interest.cohort(id).column;
        let mut woken = Vec::new();
        while (woken.len() as u64) < most
            && let Some(cut) = column.next_cut()
        {
            let (from, before) = (column.owed(cut).from, woken.len());
            while (woken.len() as u64) < most
                && let Some(token) = column.serve_at(cut)
            {
                woken.push((token, from));
            }
            column.settle(cut, (woken.len() - before) as u32, passes);
        }
        let count = woken.len() as u64;
        ground.work.charge(count * price::TURN);
        for (token, from) in woken {
            let owed = self.leave(connections, token);
            self.fell.push_back(Fell { token, why: Why::Woken { from }, owed });
        }
        count
    }
}
