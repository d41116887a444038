//! The last test before a version may serve: every hook it exports, asked some thousand times about sample views, small
//! and as large as they get. One call is not enough: a Go guest of today's toolchain answers some hundred and then traps.

use std::time::{Duration, Instant};

use super::check::{Check, Nonsense};
use super::config::{Bounds, GuestLimits};
use super::error::LoadError;
use super::record;
use super::sample;
use super::wasm::{CallError, Guest, Version};
use crate::model::decision::{Admission, Answer, Consultation, Fallback, Hook, Limits, Priority, Question};
use crate::model::view::Context;

/// Rounds over every kind of question, with fleets of all sizes.
const ROUNDS: u32 = 200;

/// Calls in all: further rounds follow, with the largest fleet, until there were so many ...
const CALLS: u32 = 3_000;

/// ... or this has passed: an interpreted policy may take a millisecond for each.
const ENOUGH: Duration = Duration::from_secs(5);

/// Fleet sizes in turn.
const SIZES: [usize; 6] = [1, 4, 16, sample::LARGEST, 2, 8];

/// Missed deadlines forgiven at first, and then one in so many calls. The machine may be busy with something else,
/// compiling for instance, and a good file that is refused for that stays refused.
const FORGIVEN: u32 = 20;
const ONE_IN: u32 = 10;

/// Missed deadlines forgiven of one question: whoever misses it every time is too slow on any machine.
const FORGIVEN_IN_A_ROW: u32 = 20;

/// Passes, or says which hook failed and how. Its guest is thrown away: samples must not be remembered.
pub(crate) fn pass(
    version: &Version,
    limits: &GuestLimits,
    bounds: &Bounds,
    now_ms: u64,
) -> Result<(), LoadError> {
    let mut gate = Gate {
        version,
        check: Check { limits, bounds },
        guest: version.trial(now_ms)?,
        now_ms,
        missed: 0,
        calls: 0,
    };
    let kinds: Vec<usize> = (0..sample::KINDS).filter(|kind| gate.asks(*kind)).collect();
    let contexts: Vec<Context> = SIZES.iter().map(|size| sample::context(*size)).collect();
    let largest = SIZES.iter().position(|size| *size == sample::LARGEST).unwrap_or_default();
    let began = Instant::now();
    let enough = |gate: &Gate<'_>, round| {
        round >= ROUNDS && (gate.calls >= CALLS || gate.calls == 0 || began.elapsed() > ENOUGH)
    };
    let mut round = 0;
    while !enough(&gate, round) {
        let at = if round < ROUNDS { round as usize % SIZES.len() } else { largest };
        for &kind in &kinds {
            let question = sample::question(kind, round, SIZES[at]);
            let (seed, context) = (round.into(), contexts[at].clone());
            gate.put(&Consultation { job: None, seed, context, question })?;
        }
        round += 1;
    }
    Ok(())
}

struct Gate<'a> {
    version: &'a Version,
    check: Check<'a>,
    guest: Guest,
    now_ms: u64,
    missed: u32,
    calls: u32,
}

impl Gate<'_> {
    fn asks(&self, kind: usize) -> bool {
        let hooks = super::handle::hooks(&sample::question(kind, 0, 1));
        hooks.iter().any(|hook| self.version.exports(*hook))
    }

    /// Asked again after a missed deadline, as often as that is forgiven.
    fn put(&mut self, asked: &Consultation) -> Result<(), LoadError> {
        let mut in_a_row = 0;
        while let Err((hook, error)) = put(&mut self.guest, &self.check, self.version, asked, &mut self.calls)
        {
            (self.missed, in_a_row) = (self.missed + 1, in_a_row + 1);
            let forgiven = self.missed <= FORGIVEN + self.calls / ONE_IN && in_a_row <= FORGIVEN_IN_A_ROW;
            if error.reason != Fallback::Deadline || !forgiven {
                return Err(LoadError::Gate { hook, reason: error.reason.as_str(), message: error.message });
            }
            self.guest = self.version.trial(self.now_ms)?;
        }
        Ok(())
    }
}

/// One question to one guest, every hook of it that is exported, with the answer checked as in service.
fn put(
    guest: &mut Guest,
    check: &Check<'_>,
    version: &Version,
    consultation: &Consultation,
    calls: &mut u32,
) -> Result<(), (Hook, CallError)> {
    for hook in super::handle::hooks(&consultation.question) {
        if version.exports(*hook) {
            put_hook(guest, check, *hook, consultation).map_err(|error| (*hook, error))?;
            guest.keep();
            *calls += 1;
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

/// An answer in one line, with its reason where there is one.
pub(crate) fn say(said: &Said, asked: &Consultation) -> String {
    match said {
        Said::Admission(admission) => record::said_admission(admission),
        Said::Priority(priority, _) => record::said_priority(priority),
        Said::Limits(limits) => record::said_limits(limits),
        Said::Whole(answer) => {
            let sayings = record::sayings(answer, &asked.question, &asked.context);
            sayings.into_iter().next().map(|said| said.1).unwrap_or_default()
        }
    }
}

/// The reason, where an answer has one.
pub(crate) fn reason(said: &Said) -> &str {
    match said {
        Said::Priority(_, reason) => reason,
        Said::Whole(Answer::Route(decision)) => &decision.reason,
        Said::Whole(Answer::Place(placement)) => &placement.reason,
        _ => "",
    }
}

impl From<Nonsense> for CallError {
    fn from(Nonsense(message): Nonsense) -> Self {
        Self { reason: Fallback::BadAnswer, message, dead: false }
    }
}
