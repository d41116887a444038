//! Answers in words: as JSON with the names of the WIT, and as the line and the reason that service keeps of a decision.

use serde_json::{Value, json};

use crate::model::decision::{
    Act, Admission, Answer, Consultation, Order, Question, RecoveryDecision, Route, TimeoutDecision,
};
use crate::policy::gate::Said;
use crate::policy::record;

/// What was said and why, as in the record of a decision.
pub(super) fn line(said: &Said, asked: &Consultation) -> (String, String) {
    let context = &asked.context;
    match (said, &asked.question) {
        (Said::Admission(admission), _) => {
            let reason = match admission {
                Admission::Reject { reason, .. } => reason.clone(),
                Admission::Admit => String::new(),
            };
            (record::said_admission(admission), reason)
        }
        (Said::Priority(priority, reason), _) => (record::said_priority(priority), reason.clone()),
        (Said::Limits(limits), _) => (record::said_limits(limits), String::new()),
        (Said::Whole(Answer::Route(decision)), Question::Route { candidates, .. }) => {
            (record::said_route(&decision.route, candidates, context), decision.reason.clone())
        }
        (Said::Whole(Answer::Place(placement)), Question::Place { jobs, seats, .. }) => {
            (record::said_placement(placement, jobs.len(), seats, context), placement.reason.clone())
        }
        (Said::Whole(Answer::OnTimeout(decision)), _) => {
            (record::said_timeout(decision), record::timeout_reason(decision))
        }
        (Said::Whole(Answer::OnFailure(decision)), _) => (record::said_recovery(decision), String::new()),
        (Said::Whole(Answer::Tick(orders)), _) => (record::said_orders(orders, context), String::new()),
        (Said::Whole(_), _) => (String::new(), String::new()),
    }
}

pub(super) fn answer(said: &Said) -> Value {
    match said {
        Said::Admission(Admission::Admit) => json!("admit"),
        Said::Admission(Admission::Reject { status, retry_after_s, reason }) => {
            json!({"reject": {"status": status, "retry_after_s": retry_after_s, "reason": reason}})
        }
        Said::Priority(priority, reason) => {
            json!({"score": priority.score, "ageing_per_second": priority.ageing_per_second, "reason": reason})
        }
        Said::Limits(limits) => {
            json!({"queue_ms": limits.queue_ms, "run_ms": limits.run_ms, "stall_ms": limits.stall_ms})
        }
        Said::Whole(answer) => whole(answer),
    }
}

fn whole(answer: &Answer) -> Value {
    match answer {
        Answer::Route(decision) => {
            let reason = &decision.reason;
            match &decision.route {
                Route::Ranked(rows) => json!({"ranked": rows, "reason": reason}),
                Route::Hold { ms } => json!({"hold": ms, "reason": reason}),
                Route::Reject => json!({"reject": true, "reason": reason}),
            }
        }
        Answer::OnTimeout(TimeoutDecision::Extend { ms }) => json!({"extend": ms}),
        Answer::OnTimeout(TimeoutDecision::Retry) => json!("retry"),
        Answer::OnTimeout(TimeoutDecision::Fail { reason }) => json!({"fail": reason}),
        Answer::OnFailure(RecoveryDecision::Retry { delay_ms, avoid_instance }) => {
            json!({"retry": {"delay_ms": delay_ms, "avoid_instance": avoid_instance}})
        }
        Answer::OnFailure(RecoveryDecision::Fail) => json!("fail"),
        Answer::Tick(orders) => orders.iter().map(order).collect(),
        Answer::Place(placement) => {
            let pairs: Vec<[u32; 2]> = placement.pairs.iter().map(|pair| [pair.job, pair.seat]).collect();
            json!({"pairs": pairs, "hold_ms": placement.hold_ms, "reason": placement.reason})
        }
        // `observe` answers nothing; the others are asked hook by hook.
        Answer::Observe | Answer::Intake { .. } | Answer::Reassess { .. } => Value::Null,
    }
}

fn order(order: &Order) -> Value {
    let act = match order.act {
        Act::FreeModels => json!("free_models"),
        Act::FreeMemory => json!("free_memory"),
        Act::Drain => json!("drain"),
        Act::Resume => json!("resume"),
        Act::Interrupt { requeue } => json!({"interrupt": requeue}),
        Act::Restart => json!("restart"),
        Act::CapSlots(slots) => json!({"cap_slots": slots}),
    };
    json!({"instance": order.instance, "act": act, "reason": order.reason})
}
