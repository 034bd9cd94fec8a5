//! What is held for a connection whose cursor is behind, in bytes: what is noted of its rounds, and changes of its subscription that
//! it has not come to. What is to be said at these is counted as answers.

use super::{super::connection::Connection, Behind, Cursors, Stage, resume::Resume, round::PacedRound, told::Told};
use crate::io::Token;

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
    let of_paced = |paced: &PacedRound| size_of::<PacedRound>() + paced.round.held() + of_told(&paced.told);
    let paces: usize = paces.iter().map(of_paced).sum();
    let stages: usize = stages.iter().map(of_stage).sum();
    size_of::<Behind>() + of_told(told) + round.held() + of_resume(resume) + paces + stages
}

/// What others share is counted for each of them.
fn of_stage(stage: &Stage) -> usize {
    let Stage { as_of, resume, .. } = stage;
    size_of::<Stage>() + as_of.as_ref().map_or(0, |as_of| as_of.held()) + of_resume(resume)
}

fn of_told(told: &Option<Told>) -> usize {
    told.as_ref().map_or(0, Told::held)
}

fn of_resume(resume: &Option<Resume>) -> usize {
    resume.as_ref().map_or(0, Resume::held)
}
