//! A policy that decides in a simulation: whole answers, the built-in's where it fails, and a recording if one is wanted.

use std::io::Write;

use super::Player;
use super::seat::{Answered, Heard, Seat};
use crate::model::decision::{
    Answer, Consultation, Decided, DecisionRecord, Fallback, Hook, PolicyVersion, Question,
};
use crate::policy::config::Builtin;
use crate::policy::gate::Said;
use crate::policy::native;
use crate::policy::recording::Writer;
use crate::policy::tools::{ToolError, say};

#[allow(missing_debug_implementations, reason = "a guest has nothing to show")]
pub struct Desk {
    seat: Seat,
    recorder: Option<(Writer, Box<dyn Write + Send>)>,
    /// Hooks asked, and those that failed.
    pub decisions: u64,
    pub failures: u64,
}

impl Desk {
    pub fn open(player: &Player<'_>) -> Result<Self, ToolError> {
        Ok(Self { seat: Seat::new(player)?, recorder: None, decisions: 0, failures: 0 })
    }

    pub fn version(&self) -> &PolicyVersion {
        &self.seat.opened.id
    }

    pub fn exports(&self, hook: Hook) -> bool {
        self.seat.version.exports(hook)
    }

    /// How the built-in answers for it where it does not.
    pub fn answer_as(&mut self, builtin: Builtin) {
        self.seat.opened.config.builtin = builtin;
    }

    /// Every question from now on is written there, as service records them.
    pub fn record(&mut self, to: Box<dyn Write + Send>) {
        self.recorder = Some((Writer::default(), to));
    }

    /// # Errors
    /// Only the recording can fail.
    pub fn decide(&mut self, asked: &Consultation) -> std::io::Result<Decided> {
        let heard = self.seat.hear(asked);
        let records = self.note(asked, &heard)?;
        let mut answer = native::answer(&asked.question, &self.seat.opened.config);
        for Heard { answer: its, .. } in heard {
            match its {
                Answered::Said(said) => {
                    self.decisions += 1;
                    merge(&mut answer, said);
                }
                Answered::Failed(_) => {
                    self.decisions += 1;
                    self.failures += 1;
                }
                Answered::NotExported(_) => {}
            }
        }
        Ok(Decided { answer, records })
    }

    fn note(&mut self, asked: &Consultation, heard: &[Heard]) -> std::io::Result<Vec<DecisionRecord>> {
        let Some((writer, out)) = &mut self.recorder else { return Ok(Vec::new()) };
        let version = &self.seat.opened.id;
        let records: Vec<DecisionRecord> = heard.iter().map(|heard| record(asked, heard, version)).collect();
        let tick = matches!(asked.question, Question::Tick { .. });
        if !(tick && records.iter().all(|record| record.fallback == Some(Fallback::NotExported))) {
            writeln!(out, "{}", writer.line(asked, &records))?;
        }
        Ok(records)
    }
}

fn record(asked: &Consultation, heard: &Heard, version: &PolicyVersion) -> DecisionRecord {
    let ((said, reason), fallback) = match &heard.answer {
        Answered::Said(said) => (say::line(said, asked), None),
        Answered::NotExported(said) => ((said.clone(), String::new()), Some(Fallback::NotExported)),
        Answered::Failed(_) => (Default::default(), Some(Fallback::Trap)),
    };
    DecisionRecord {
        at: asked.context.now_ms,
        hook: heard.hook,
        version: version.clone(),
        fallback,
        took_us: heard.took_us,
        said,
        reason,
        job: asked.job,
        did: None,
        instance: None,
        seen: None,
    }
}

/// What one hook said, in the place of what the built-in would have.
fn merge(answer: &mut Answer, said: Said) {
    match (answer, said) {
        (Answer::Intake { admission, .. }, Said::Admission(its)) => *admission = its,
        (Answer::Intake { priority, .. } | Answer::Reassess { priority, .. }, Said::Priority(its, _)) => {
            *priority = its
        }
        (Answer::Intake { limits, .. } | Answer::Reassess { limits, .. }, Said::Limits(its)) => *limits = its,
        (answer, Said::Whole(its)) => *answer = its,
        (_, Said::Admission(_) | Said::Priority(..) | Said::Limits(_)) => {}
    }
}
