//! Answers as JSON, with the names of the WIT.

use serde_json::{Value, json};

use crate::model::decision::{Act, Admission, Answer, Order, RecoveryDecision, Route, TimeoutDecision};
use crate::policy::gate::Said;

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
