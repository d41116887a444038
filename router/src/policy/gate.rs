//! The last test before a version may serve: every hook it exports, asked some hundred times about sample views, small
//! and as large as they get. One call is not enough: a Go guest of today's toolchain answers some hundred and then traps.

use super::check::{Check, Nonsense};
use super::config::{Bounds, GuestLimits};
use super::error::LoadError;
use super::sample;
use super::wasm::{CallError, Guest, Version};
use crate::model::decision::{Admission, Answer, Consultation, Fallback, Hook, Limits, Priority, Question};

/// Calls of each hook.
const ROUNDS: u32 = 200;

/// Fleet sizes in turn.
const SIZES: [usize; 6] = [1, 4, 16, sample::LARGEST, 2, 8];

/// Missed deadlines forgiven in all. The machine may be busy with something else, compiling for instance, and a good file
/// that is refused for that stays refused.
const FORGIVEN: u32 = 20;

/// Missed deadlines forgiven of one question: whoever misses it every time is too slow on any machine.
const FORGIVEN_IN_A_ROW: u32 = 2;

/// Passes, or says which hook failed and how. Its guest is thrown away: samples must not be remembered.
pub(crate) fn pass(
    version: &Version,
    limits: &GuestLimits,
    bounds: &Bounds,
    now_ms: u64,
) -> Result<(), LoadError> {
    let check = Check { limits, bounds };
    let mut guest = version.trial(now_ms)?;
    let mut missed = 0;
    for round in 0..ROUNDS {
        let size = SIZES[round as usize % SIZES.len()];
        for question in sample::questions(round, size) {
            let consultation = sample::ask(round.into(), size, question);
            let mut in_a_row = 0;
            while let Err((hook, error)) = put(&mut guest, &check, version, &consultation) {
                (missed, in_a_row) = (missed + 1, in_a_row + 1);
                let forgiven = missed <= FORGIVEN && in_a_row <= FORGIVEN_IN_A_ROW;
                if error.reason != Fallback::Deadline || !forgiven {
                    return Err(LoadError::Gate {
                        hook,
                        reason: error.reason.as_str(),
                        message: error.message,
                    });
                }
                guest = version.trial(now_ms)?;
            }
        }
    }
    Ok(())
}

/// One question to one guest, every hook of it that is exported, with the answer checked as in service.
fn put(
    guest: &mut Guest,
    check: &Check<'_>,
    version: &Version,
    consultation: &Consultation,
) -> Result<(), (Hook, CallError)> {
    for hook in super::handle::hooks(&consultation.question) {
        if version.exports(*hook) {
            put_hook(guest, check, *hook, consultation).map_err(|error| (*hook, error))?;
            guest.keep();
        }
    }
    Ok(())
}

/// A checked answer to one hook.
pub(crate) enum Said {
    Admission(Admission),
    Priority(Priority, String),
    Limits(Limits),
    /// The hook is the whole question.
    Whole(Answer),
}

/// Asks one hook of a question. Also what `policy check` shows and `policy bench` times.
pub(crate) fn put_hook(
    guest: &mut Guest,
    check: &Check<'_>,
    hook: Hook,
    asked: &Consultation,
) -> Result<Said, CallError> {
    Ok(match (&asked.question, hook) {
        (Question::Intake { job, load }, Hook::Admit) => {
            Said::Admission(check.admission(guest.admit(asked, job, load)?))
        }
        (Question::Intake { job, .. } | Question::Reassess { job }, Hook::Prioritize) => {
            let (priority, reason) = guest.prioritize(asked, job)?;
            Said::Priority(check.priority(priority)?, check.text(&reason))
        }
        (Question::Intake { job, .. } | Question::Reassess { job }, _) => {
            Said::Limits(check.limits(guest.limits_for(asked, job)?))
        }
        (Question::Route { job, candidates }, _) => {
            Said::Whole(Answer::Route(check.route(guest.route(asked, job, candidates)?, candidates)?))
        }
        (Question::Place { jobs, seats, offers }, _) => {
            let answer = guest.place(asked, jobs, seats, offers)?;
            Said::Whole(Answer::Place(check.placement(answer, jobs.len(), seats, offers)?))
        }
        (Question::OnTimeout { job, limit, progress }, _) => {
            Said::Whole(Answer::OnTimeout(check.timeout(guest.on_timeout(asked, job, *limit, progress)?)))
        }
        (Question::OnFailure { job, failure }, _) => {
            Said::Whole(Answer::OnFailure(check.recovery(guest.on_failure(asked, job, failure)?)))
        }
        (Question::Tick { instances }, _) => {
            Said::Whole(Answer::Tick(check.orders(guest.tick(asked, instances)?, instances)?))
        }
        (Question::Observe { outcomes }, _) => {
            guest.observe(asked, outcomes)?;
            Said::Whole(Answer::Observe)
        }
    })
}

impl From<Nonsense> for CallError {
    fn from(Nonsense(message): Nonsense) -> Self {
        Self { reason: Fallback::BadAnswer, message, dead: false }
    }
}
