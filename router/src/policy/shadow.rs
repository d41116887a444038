//! A version that is asked what the live one is asked and obeyed in nothing. It has a thread of its own, so that no
//! decision waits for it; what it cannot keep up with is left out and counted.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::check::Check;
use super::config::Config;
use super::gate::{self, Said};
use super::lane::Slot;
use super::record;
use super::start::HOST_STACK;
use super::status::{State, VersionRow};
use super::wasm::{Guest, Version};
use crate::metrics;
use crate::model::decision::{Answer, Consultation, Hook, PolicyVersion, Question, Route};
use crate::model::id::JobId;
use crate::model::job::WallMs;
use crate::model::view::Candidate;

/// Questions on their way; more are dropped.
const QUESTIONS: usize = 256;
/// Differences shown; the oldest go first.
const DIFFERENCES: usize = 64;

#[derive(Debug)]
pub(crate) struct Shadow {
    slot: Slot,
    looks: SyncSender<Look>,
    report: Arc<Mutex<ShadowReport>>,
}

/// A question with the answer that counts.
#[derive(Debug)]
struct Look {
    asked: Arc<Consultation>,
    hooks: Vec<Hook>,
    answer: Answer,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShadowReport {
    pub version: PolicyVersion,
    pub since: WallMs,
    /// Hooks asked.
    pub asked: u64,
    pub agreed: u64,
    /// It did not answer, or nonsense.
    pub failed: u64,
    /// Questions left out because it could not keep up.
    pub dropped: u64,
    /// Jobs sent elsewhere for which both ends could be predicted.
    pub routes_compared: u64,
    /// How much sooner those would end by the shadow's choice, in the mean; negative is later.
    pub predicted_gain_ms: f64,
    /// The latest ones.
    pub differences: VecDeque<Difference>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    pub at: WallMs,
    pub hook: Hook,
    pub job: Option<JobId>,
    pub live: String,
    /// What it said, or how it failed.
    pub shadow: String,
}

impl Shadow {
    pub(crate) fn start(slot: Slot, config: &Arc<Config>) -> std::io::Result<Self> {
        let report = ShadowReport {
            version: slot.version.id.clone(),
            since: slot.at,
            asked: 0,
            agreed: 0,
            failed: 0,
            dropped: 0,
            routes_compared: 0,
            predicted_gain_ms: 0.0,
            differences: VecDeque::new(),
        };
        let report = Arc::new(Mutex::new(report));
        let (looks, questions) = sync_channel(QUESTIONS);
        let asker = Asker {
            version: slot.version.clone(),
            guest: None,
            config: config.clone(),
            report: report.clone(),
        };
        std::thread::Builder::new()
            .name("policy-shadow".to_owned())
            .stack_size(HOST_STACK + config.limits.stack_kib as usize * 1024)
            .spawn(move || asker.run(&questions))?;
        Ok(Self { slot, looks, report })
    }

    pub(crate) fn version(&self) -> &PolicyVersion {
        &self.slot.version.id
    }

    pub(crate) fn slot(&self) -> &Slot {
        &self.slot
    }

    pub(crate) fn into_slot(self) -> Slot {
        self.slot
    }

    pub(crate) fn row(&self, lane: &Arc<str>) -> VersionRow {
        self.slot.row(lane, State::Shadow, None)
    }

    /// Never waits.
    pub(crate) fn look(&self, asked: &Arc<Consultation>, hooks: Vec<Hook>, answer: &Answer) {
        let look = Look { asked: asked.clone(), hooks, answer: answer.clone() };
        if let Err(TrySendError::Full(_)) = self.looks.try_send(look) {
            locked(&self.report).dropped += 1;
            metrics::policy_shadow("dropped");
        }
    }

    pub(crate) fn report(&self) -> ShadowReport {
        locked(&self.report).clone()
    }
}

/// A report is whole after each statement, so a poisoned lock guards a sound one.
fn locked(report: &Mutex<ShadowReport>) -> MutexGuard<'_, ShadowReport> {
    report.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Asker {
    version: Arc<Version>,
    guest: Option<Guest>,
    config: Arc<Config>,
    report: Arc<Mutex<ShadowReport>>,
}

impl Asker {
    fn run(mut self, questions: &Receiver<Look>) {
        while let Ok(look) = questions.recv() {
            for &hook in &look.hooks {
                if self.version.exports(hook) {
                    self.ask(&look, hook);
                }
            }
        }
    }

    fn ask(&mut self, look: &Look, hook: Hook) {
        let asked = &*look.asked;
        let check = Check { limits: &self.config.limits, bounds: &self.config.bounds };
        if self.guest.is_none() {
            self.guest = self.version.trial(asked.context.now_ms).ok();
        }
        let Some(guest) = &mut self.guest else { return };
        let answered = gate::put_hook(guest, &check, hook, asked);
        let live = record::sayings(&look.answer, &asked.question, &asked.context);
        // An intake that was refused was asked nothing more.
        let Some(live) = live.into_iter().find(|said| said.0 == hook).map(|said| said.1) else { return };
        let (said, failed) = match &answered {
            Ok(said) => {
                guest.keep();
                (gate::say(said, asked), false)
            }
            Err(error) => (format!("{}: {}", error.reason.as_str(), error.message), true),
        };
        if answered.as_ref().is_err_and(|error| error.dead) {
            self.guest = None;
        }
        let gain = answered.ok().and_then(|said| gain_ms(&asked.question, &look.answer, &said));
        self.count(hook, asked, (live, said), failed, gain);
    }

    fn count(
        &self,
        hook: Hook,
        asked: &Consultation,
        (live, shadow): (String, String),
        failed: bool,
        gain: Option<f64>,
    ) {
        let agrees = !failed && (hook == Hook::Observe || gist(hook, &live) == gist(hook, &shadow));
        metrics::policy_shadow(match (agrees, failed) {
            (true, _) => "agreed",
            (_, true) => "failed",
            _ => "differed",
        });
        let mut report = locked(&self.report);
        report.asked += 1;
        report.failed += u64::from(failed);
        if agrees {
            report.agreed += 1;
            return;
        }
        if let Some(gain) = gain {
            report.routes_compared += 1;
            report.predicted_gain_ms += (gain - report.predicted_gain_ms) / report.routes_compared as f64;
        }
        if report.differences.len() == DIFFERENCES {
            report.differences.pop_front();
        }
        report.differences.push_back(Difference {
            at: asked.context.now_ms,
            hook,
            job: asked.job,
            live,
            shadow,
        });
    }
}

/// What two answers must share to agree: of a ranking the first.
fn gist(hook: Hook, said: &str) -> &str {
    match hook {
        Hook::Route => said.split(" > ").next().unwrap_or(said),
        _ => said,
    }
}

/// How much sooner the job would end by the second choice.
fn gain_ms(question: &Question, live: &Answer, shadow: &Said) -> Option<f64> {
    let Question::Route { candidates, .. } = question else { return None };
    let (Answer::Route(live), Said::Whole(Answer::Route(shadow))) = (live, shadow) else { return None };
    Some(end_ms(&live.route, candidates)? - end_ms(&shadow.route, candidates)?)
}

fn end_ms(route: &Route, candidates: &[Candidate]) -> Option<f64> {
    let Route::Ranked(rows) = route else { return None };
    let candidate = candidates.get(*rows.first()? as usize)?;
    let parts = [candidate.free_in_ms?, candidate.load_ms?, candidate.run_ms?];
    Some(parts.into_iter().map(f64::from).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::decision::RouteDecision;
    use crate::policy::sample;

    #[test]
    fn rankings_agree_when_their_first_does() {
        assert_eq!(gist(Hook::Route, "gpu1 > gpu0"), gist(Hook::Route, "gpu1 > gpu2"));
        assert_ne!(gist(Hook::Route, "gpu1 > gpu0"), gist(Hook::Route, "hold 5 ms"));
    }

    #[test]
    fn the_gain_is_by_predicted_ends_and_unknown_is_unknown() {
        let question = Question::Route { job: sample::job(), candidates: sample::candidates(6) };
        let ranked = |row| RouteDecision { route: Route::Ranked(vec![row]), reason: String::new() };
        let gain = |live, shadow| {
            gain_ms(&question, &Answer::Route(ranked(live)), &Said::Whole(Answer::Route(ranked(shadow))))
        };
        // Row 1 has the models loaded, row 0 must load for 8.5 s and runs 10 ms shorter.
        assert_eq!((gain(0, 1), gain(1, 0)), (Some(8_490.0), Some(-8_490.0)));
        assert_eq!(gain(0, 5), None);
    }
}
