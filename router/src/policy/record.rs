//! The record each answer leaves: what was said in one line, and the whole native answer with its records.

use std::fmt::Write as _;

use super::config::Config;
use super::native;
use crate::model::decision::{
    Act, Admission, Answer, Consultation, Decided, DecisionRecord, Fallback, Hook, Limits, Order, Placement,
    PolicyVersion, Priority, Question, RecoveryDecision, Route, TimeoutDecision,
};
use crate::model::view::{Candidate, Context, Seat};

/// Rows of a ranking, or orders, that a record names before it only counts them.
const SHOWN: usize = 4;

/// The version that stands for the native built-in.
pub(crate) fn builtin_version() -> PolicyVersion {
    PolicyVersion { name: "builtin".into(), digest: "".into() }
}

/// The built-in's answer to a whole question. `fallback` says why it answers in the place of `version`.
pub(crate) fn natively(
    consultation: &Consultation,
    config: &Config,
    version: &PolicyVersion,
    fallback: Option<Fallback>,
    took_us: u32,
) -> Decided {
    let answer = native::answer(&consultation.question, config);
    let records = sayings(&answer, &consultation.question, &consultation.context)
        .into_iter()
        .map(|(hook, said, reason)| DecisionRecord {
            at: consultation.context.now_ms,
            hook,
            version: version.clone(),
            fallback,
            took_us,
            said,
            reason,
            job: None,
            did: None,
            instance: None,
            seen: None,
        })
        .collect();
    Decided { answer, records }
}

/// Each hook that a native answer stands for, with what it said and why.
pub(crate) fn sayings(
    answer: &Answer,
    question: &Question,
    context: &Context,
) -> Vec<(Hook, String, String)> {
    match answer {
        Answer::Intake { admission, priority, limits } => vec![
            (Hook::Admit, said_admission(admission), String::new()),
            (Hook::Prioritize, said_priority(priority), String::new()),
            (Hook::LimitsFor, said_limits(limits), String::new()),
        ],
        Answer::Reassess { priority, limits } => vec![
            (Hook::Prioritize, said_priority(priority), String::new()),
            (Hook::LimitsFor, said_limits(limits), String::new()),
        ],
        Answer::Route(decision) => {
            let Question::Route { candidates, .. } = question else { return Vec::new() };
            vec![(Hook::Route, said_route(&decision.route, candidates, context), decision.reason.clone())]
        }
        Answer::Place(placement) => {
            let Question::Place { jobs, seats, .. } = question else { return Vec::new() };
            let said = said_placement(placement, jobs.len(), seats, context);
            vec![(Hook::Place, said, placement.reason.clone())]
        }
        Answer::OnTimeout(decision) => {
            vec![(Hook::OnTimeout, said_timeout(decision), timeout_reason(decision))]
        }
        Answer::OnFailure(decision) => vec![(Hook::OnFailure, said_recovery(decision), String::new())],
        Answer::Tick(orders) => vec![(Hook::Tick, said_orders(orders, context), String::new())],
        Answer::Observe => vec![(Hook::Observe, String::new(), String::new())],
    }
}

fn instance_name(context: &Context, index: u32) -> String {
    context.fleet.get(index as usize).map_or_else(|| format!("#{index}"), |texts| texts.name.to_string())
}

pub(crate) fn said_admission(admission: &Admission) -> String {
    match admission {
        Admission::Admit => "admit".to_owned(),
        Admission::Reject { status, .. } => format!("reject {status}"),
    }
}

pub(crate) fn said_priority(priority: &Priority) -> String {
    format!("score {} + {}/s", priority.score, priority.ageing_per_second)
}

pub(crate) fn said_limits(limits: &Limits) -> String {
    let mut said = String::new();
    for (name, ms) in [("queue", limits.queue_ms), ("run", limits.run_ms), ("stall", limits.stall_ms)] {
        if let Some(ms) = ms {
            let _ = write!(said, "{}{name} {ms} ms", if said.is_empty() { "" } else { ", " });
        }
    }
    if said.is_empty() { "no limits".to_owned() } else { said }
}

pub(crate) fn said_route(route: &Route, candidates: &[Candidate], context: &Context) -> String {
    match route {
        Route::Ranked(rows) => {
            let names: Vec<String> = rows
                .iter()
                .take(SHOWN)
                .filter_map(|&row| candidates.get(row as usize))
                .map(|candidate| instance_name(context, candidate.instance))
                .collect();
            shortened(names.join(" > "), rows.len())
        }
        Route::Hold { ms } => format!("hold {ms} ms"),
        Route::Reject => "reject".to_owned(),
    }
}

pub(crate) fn said_placement(
    placement: &Placement,
    jobs: usize,
    seats: &[Seat],
    context: &Context,
) -> String {
    if placement.pairs.is_empty() {
        return format!("hold {jobs} for {} ms", placement.hold_ms);
    }
    let pair = |pair: &crate::model::decision::Pair| {
        let seat = seats.get(pair.seat as usize)?;
        Some(format!("{} on {}", pair.job, instance_name(context, seat.instance)))
    };
    let shown: Vec<String> = placement.pairs.iter().take(SHOWN).filter_map(pair).collect();
    shortened(shown.join(", "), placement.pairs.len())
}

fn shortened(mut text: String, count: usize) -> String {
    if count > SHOWN {
        let _ = write!(text, " and {} more", count - SHOWN);
    }
    text
}

pub(crate) fn said_timeout(decision: &TimeoutDecision) -> String {
    match decision {
        TimeoutDecision::Extend { ms } => format!("extend {ms} ms"),
        TimeoutDecision::Retry => "retry".to_owned(),
        TimeoutDecision::Fail { .. } => "fail".to_owned(),
    }
}

pub(crate) fn timeout_reason(decision: &TimeoutDecision) -> String {
    match decision {
        TimeoutDecision::Fail { reason } => reason.clone(),
        TimeoutDecision::Extend { .. } | TimeoutDecision::Retry => String::new(),
    }
}

pub(crate) fn said_recovery(decision: &RecoveryDecision) -> String {
    match decision {
        RecoveryDecision::Retry { delay_ms, avoid_instance } => {
            format!("retry in {delay_ms} ms{}", if *avoid_instance { " elsewhere" } else { "" })
        }
        RecoveryDecision::Fail => "fail".to_owned(),
    }
}

pub(crate) fn said_orders(orders: &[Order], context: &Context) -> String {
    if orders.is_empty() {
        return "nothing".to_owned();
    }
    let shown: Vec<String> = orders
        .iter()
        .take(SHOWN)
        .map(|order| format!("{} {}", said_act(order.act), instance_name(context, order.instance)))
        .collect();
    shortened(shown.join(", "), orders.len())
}

fn said_act(act: Act) -> String {
    match act {
        Act::FreeModels => "free models of".to_owned(),
        Act::FreeMemory => "free memory of".to_owned(),
        Act::Drain => "drain".to_owned(),
        Act::Resume => "resume".to_owned(),
        Act::Interrupt { requeue: true } => "interrupt and queue again".to_owned(),
        Act::Interrupt { requeue: false } => "interrupt".to_owned(),
        Act::Restart => "restart".to_owned(),
        Act::CapSlots(slots) => format!("cap at {slots}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn a_ranking_is_said_with_names_and_a_long_one_is_counted() {
        let context = sample::context(8);
        let candidates = sample::candidates(8);
        assert_eq!(said_route(&Route::Ranked(vec![1, 0]), &candidates, &context), "gpu1 > gpu0");
        let long = said_route(&Route::Ranked((0..8).collect()), &candidates, &context);
        assert_eq!(long, "gpu0 > gpu1 > gpu2 > gpu3 and 4 more");
    }

    #[test]
    fn every_hook_of_a_question_leaves_a_record() {
        let expected = [3, 2, 1, 1, 1, 1, 1, 1];
        for (question, expected) in sample::questions(0, 4).into_iter().zip(expected) {
            let consultation = sample::ask(1, 4, question);
            let version = builtin_version();
            let decided =
                natively(&consultation, &Config::default(), &version, Some(Fallback::Unavailable), 9);
            assert_eq!(decided.records.len(), expected);
            assert!(
                decided.records.iter().all(|r| r.fallback == Some(Fallback::Unavailable) && r.took_us == 9)
            );
        }
    }
}
