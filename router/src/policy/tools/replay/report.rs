//! What a replay found.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::model::decision::{Fallback, Hook, PolicyVersion};
use crate::policy::recording::Saying;

/// Differences listed; all are counted.
const LISTED: usize = 1_000;

/// Of those, how many a terminal shows.
pub(crate) const SHOWN: usize = 20;

/// What one hook said to one question.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Decision {
    /// In one line; the built-in's where the hook is not exported.
    pub said: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Only for what was decided again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    exported: bool,
    took_us: u32,
}

impl Decision {
    pub(super) fn made(said: String, reason: String, mut answer: Value, took_us: u32) -> Self {
        // It is beside the answer already, and another one does not make another decision.
        answer.as_object_mut().and_then(|answer| answer.remove("reason"));
        Self { said, reason, answer: Some(answer), failure: None, exported: true, took_us }
    }

    pub(super) fn failed(failure: String, took_us: u32) -> Self {
        let (said, reason) = (String::new(), String::new());
        Self { said, reason, answer: None, failure: Some(failure), exported: true, took_us }
    }

    pub(super) fn not_exported(said: String) -> Self {
        let reason = String::new();
        Self { said, reason, answer: None, failure: None, exported: false, took_us: 0 }
    }

    /// What service did, unless the built-in answered: that says nothing of the policy.
    pub(super) fn recorded(saying: &Saying) -> Self {
        let failure = match saying.fallback {
            None | Some(Fallback::NotExported) => None,
            Some(fallback) => Some(fallback.as_str().to_owned()),
        };
        let exported = saying.fallback != Some(Fallback::NotExported);
        let (said, reason) = match &failure {
            None => (saying.said.clone(), saying.reason.clone()),
            Some(_) => (String::new(), String::new()),
        };
        Self { said, reason, answer: None, failure, exported, took_us: 0 }
    }

    /// Whatever the reasons. Answers are compared whole where both are there; a recording has the line only.
    fn same(&self, other: &Self) -> bool {
        match (&self.answer, &other.answer) {
            (Some(one), Some(other)) => one == other,
            _ => self.failure.is_some() == other.failure.is_some() && self.said == other.said,
        }
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct Difference {
    /// Of the log.
    pub line: usize,
    pub at_ms: u64,
    pub hook: Hook,
    pub one: Decision,
    /// None: it was not asked.
    pub other: Option<Decision>,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct HookTally {
    pub decisions: u64,
    pub same: u64,
    /// Of the same ones, those with another reason.
    pub reworded: u64,
    pub failed: u64,
    pub took_us: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct Replayed {
    pub policy: PolicyVersion,
    /// None: the recording.
    pub against: Option<PolicyVersion>,
    pub decisions: u64,
    pub hooks: BTreeMap<&'static str, HookTally>,
    /// The first of them.
    pub differences: Vec<Difference>,
    /// All.
    pub different: u64,
}

impl Replayed {
    pub(super) fn new(policy: PolicyVersion, against: Option<PolicyVersion>) -> Self {
        let (hooks, differences) = (BTreeMap::new(), Vec::new());
        Self { policy, against, decisions: 0, hooks, differences, different: 0 }
    }

    pub(super) fn note(
        &mut self,
        line: usize,
        at_ms: u64,
        hook: Hook,
        one: &Decision,
        other: Option<&Decision>,
    ) {
        if !one.exported && other.is_none_or(|other| !other.exported) {
            return;
        }
        let same = other.is_some_and(|other| one.same(other));
        let tally = self.hooks.entry(hook.as_str()).or_default();
        tally.decisions += 1;
        tally.same += u64::from(same);
        tally.reworded += u64::from(same && other.is_some_and(|other| one.reason != other.reason));
        tally.failed += u64::from(one.failure.is_some());
        tally.took_us += u64::from(one.took_us);
        self.decisions += 1;
        if same {
            return;
        }
        self.different += 1;
        if self.differences.len() < LISTED {
            self.differences.push(Difference { line, at_ms, hook, one: one.clone(), other: other.cloned() });
        }
    }
}

fn named(version: &PolicyVersion) -> String {
    format!("{} {}", version.name, version.digest)
}

/// What was said and why, or that nothing was.
pub(crate) fn shown(decision: &Decision) -> String {
    match (&decision.failure, decision.exported) {
        (Some(failure), _) => format!("failed: {failure}"),
        (None, false) => format!("{} (the built-in, it is not exported)", decision.said),
        (None, true) if decision.reason.is_empty() => decision.said.clone(),
        (None, true) => format!("{} ({})", decision.said, decision.reason),
    }
}

impl fmt::Display for Replayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let against = self.against.as_ref().map_or_else(|| "the recording".to_owned(), named);
        writeln!(f, "{} against {against}", named(&self.policy))?;
        writeln!(
            f,
            "{:<12} {:>10} {:>10} {:>8} {:>14} {:>8} {:>10}",
            "hook", "decisions", "same", "%", "other reason", "failed", "us each"
        )?;
        for (hook, tally) in &self.hooks {
            let HookTally { decisions, same, reworded, failed, took_us } = tally;
            let (share, each) =
                (*same as f64 * 100.0 / *decisions as f64, *took_us as f64 / *decisions as f64);
            writeln!(
                f,
                "{hook:<12} {decisions:>10} {same:>10} {share:>8.2} {reworded:>14} {failed:>8} {each:>10.1}"
            )?;
        }
        for difference in self.differences.iter().take(SHOWN) {
            let Difference { line, at_ms, hook, one, other } = difference;
            writeln!(f, "line {line}, {at_ms} ms, {}", hook.as_str())?;
            writeln!(
                f,
                "    {}\n    {}",
                shown(one),
                other.as_ref().map_or_else(|| "not asked".to_owned(), shown)
            )?;
        }
        let more = self.different.saturating_sub(SHOWN as u64);
        if more > 0 {
            writeln!(f, "and {more} more (--json lists the first {LISTED})")?;
        }
        writeln!(f, "{} of {} decisions differ", self.different, self.decisions)
    }
}
