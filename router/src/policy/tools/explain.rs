//! For messages: where the WIT says what a hook, a record or a field has to be.

use comfy_router_policy_kit::wit;

use crate::model::decision::Hook;
use crate::policy::error::LoadError;

/// ` (wit/policy.wit:79)`, or nothing when it is not found. Names may have underscores.
pub(super) fn at(item: &str, member: Option<&str>) -> String {
    let (item, member) = (item.replace('_', "-"), member.map(|member| member.replace('_', "-")));
    wit::place(&item, member.as_deref()).map_or_else(String::new, |place| format!(" ({place})"))
}

/// What was refused, with the place in the WIT that says what would be right.
pub(super) fn refusal(error: &LoadError) -> String {
    let place = match error {
        LoadError::Shape { interface, .. } => at(short(interface), None),
        LoadError::Gate { hook, message, .. } => answer(*hook, message),
        _ => String::new(),
    };
    format!("{error}{place}")
}

/// `comfy-router:policy/routing@0.1.1` is `routing`.
fn short(interface: &str) -> &str {
    let name = interface.rsplit('/').next().unwrap_or(interface);
    name.split('@').next().unwrap_or(name)
}

/// The field of an answer that a complaint is about, or else the function.
pub(super) fn answer(hook: Hook, message: &str) -> String {
    let fields: &[(&str, &str, &str)] = match hook {
        Hook::Prioritize => &[
            ("a score of", "priority-decision", "score"),
            ("ageing of", "priority-decision", "ageing-per-second"),
        ],
        Hook::Route => &[("row", "route-answer", "ranked"), ("ranking", "route-answer", "ranked")],
        Hook::Place => &[("row", "placement-decision", "pairs"), ("pairs", "placement-decision", "pairs")],
        Hook::Tick => &[("an order for instance", "order", "instance")],
        _ => &[],
    };
    let field =
        fields.iter().find(|(said, ..)| message.starts_with(said) || message.contains(&format!(" {said}")));
    match field {
        Some((_, record, field)) => {
            let place = at(record, Some(field));
            format!("; that is {record}.{field}{place}")
        }
        None => at(hook.as_str(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_names_the_field_and_its_line() {
        let said = answer(Hook::Prioritize, "a score of NaN");
        assert!(said.starts_with("; that is priority-decision.score (wit/policy.wit:"), "{said}");
        let said = answer(Hook::Route, "row 7 of 4 candidates");
        assert!(said.contains("route-answer.ranked (wit/policy.wit:"), "{said}");
        let said = answer(Hook::OnTimeout, "wasm trap");
        assert!(said.starts_with(" (wit/policy.wit:"), "{said}");
        let error =
            LoadError::Shape { interface: "comfy-router:policy/routing@0.1.1", message: "other".to_owned() };
        assert!(refusal(&error).contains("(wit/policy.wit:"), "{}", refusal(&error));
    }

    #[test]
    fn every_hook_has_a_place() {
        for hook in Hook::ALL {
            assert!(answer(hook, "").contains("wit/"), "{hook:?}");
        }
    }
}
