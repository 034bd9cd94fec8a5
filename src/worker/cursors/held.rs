//! What is held for a connection whose cursor is behind, in bytes: what is noted of its rounds, and changes of its subscription that
//! it has not come to. What is to be said at these is counted as answers.

use super::{
    super::connection::Connection,
    Behind, Cursors, Stage,
    resume::Resume,
    round::{PacedRound, Round, Told},
};
use crate::{io::Token, tape::Position};

impl Cursors {
    /// Bytes that are held for a connection beside answers.
    pub fn held<S>(&self, token: Token, connection: &Connection<S>) -> usize {
        self.of(token, connection).map_or(0, held)
    }

    /// Notes that what is held for a connection may have changed.
    pub fn touch(&mut self, token: Token) {
        self.touched.push(token);
    }

    /// One for which that is so; once they were seen to, none.
    pub fn next_touched(&mut self) -> Option<Token> {
        self.touched.pop()
    }
}

fn held(behind: &Behind) -> usize {
    let Behind { told, round, paces, resume, stages, .. } = behind;
    let paces: usize = paces.iter().map(|paced| size_of::<PacedRound>() + of_round(&paced.round)).sum();
    let stages: usize = stages.iter().map(of_stage).sum();
    size_of::<Behind>() + of_table(told) + of_round(round) + of_resume(resume) + paces + stages
}

fn of_stage(stage: &Stage) -> usize {
    let Stage { told, fresh, resume, .. } = stage;
    size_of::<Stage>() + of_table(told) + fresh.capacity() * size_of::<(u32, u64)>() + of_resume(resume)
}

fn of_round(round: &Round) -> usize {
    round.items.capacity() * size_of::<(Position, u32)>()
}

fn of_table(told: &Option<Told>) -> usize {
    told.as_ref().map_or(0, entries)
}

fn of_resume(resume: &Option<Resume>) -> usize {
    resume.as_ref().map_or(0, |resume| entries(&resume.seen))
}

/// A hash table is an array with a byte beside each place.
fn entries(table: &Told) -> usize {
    table.capacity() * (size_of::<(u32, u64)>() + 1)
}
