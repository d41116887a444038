//! ComfyUI's validation, as far as `/object_info` tells it.
//!
//! Only what no instance could accept is refused. Values are checked for ComfyUI's own classes alone: a custom class
//! may have its own `VALIDATE_INPUTS`, which `/object_info` does not show and which switches ComfyUI's checks off. Types
//! of links, custom validation and uploads are the instance's to judge; what it refuses ends the job with its words.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use super::{Graph, Input, Node};
use crate::comfy::catalogue::{self, Catalogue, ClassInfo, InputKind};
use crate::comfy::errors::{PromptError, clip};

/// More faulty nodes than this are not described.
const MAX_REPORTED: usize = 100;
/// ComfyUI does not print longer lists of choices.
const LONG_LIST: usize = 20;

pub(super) struct Checked {
    /// Outputs that can run, in the order given.
    pub(super) good: Vec<String>,
    pub(super) node_errors: Map<String, Value>,
}

/// As in ComfyUI, outputs that fail are dropped and the rest runs; an error only if none is left.
pub(super) fn outputs(
    graph: &Graph,
    outputs: &[String],
    catalogue: &Catalogue,
) -> Result<Checked, PromptError> {
    let nodes = graph.ancestors(outputs);
    let mut faults: Vec<(&str, Vec<Value>)> = nodes
        .iter()
        .map(|(id, node)| (*id, faults_of(graph, node, catalogue)))
        .filter(|(_, faults)| !faults.is_empty())
        .collect();
    faults.extend(cycle(graph, &nodes).map(|id| (id, vec![cycle_fault(id)])));
    if faults.is_empty() {
        return Ok(Checked { good: outputs.to_vec(), node_errors: Map::new() });
    }
    let users = users(&nodes);
    let bad = reached(faults.iter().map(|(id, _)| *id), &users);
    let good: Vec<String> = outputs.iter().filter(|id| !bad.contains(id.as_str())).cloned().collect();
    let details = own_faults(outputs, &faults);
    let mut node_errors = Map::new();
    for (id, errors) in faults.into_iter().take(MAX_REPORTED) {
        let reached = reached([id].into_iter(), &users);
        let dependent: Vec<&String> =
            outputs.iter().filter(|output| reached.contains(output.as_str())).collect();
        let class = graph.nodes.get(id).map_or("", |node| node.class.as_str());
        let entry = json!({"errors": errors, "dependent_outputs": dependent, "class_type": class});
        node_errors.insert(id.to_owned(), entry);
    }
    if good.is_empty() {
        let message = "Prompt outputs failed validation";
        return Err(PromptError {
            node_errors: Box::new(node_errors),
            ..PromptError::new("prompt_outputs_failed_validation", message, details)
        });
    }
    Ok(Checked { good, node_errors })
}

/// The lines ComfyUI puts into `details`: the faults of the output nodes themselves.
fn own_faults(outputs: &[String], faults: &[(&str, Vec<Value>)]) -> String {
    let own = faults.iter().filter(|(id, _)| outputs.iter().any(|output| output == id));
    let line = |fault: &Value| {
        let text = |name: &str| fault[name].as_str().unwrap_or_default().to_owned();
        format!("{}: {}", text("message"), text("details"))
    };
    own.flat_map(|(_, faults)| faults).take(MAX_REPORTED).map(line).collect::<Vec<_>>().join("\n")
}

/// Node to the nodes that link to it.
fn users<'a>(nodes: &[(&'a str, &'a Node)]) -> HashMap<&'a str, Vec<&'a str>> {
    let mut users: HashMap<&str, Vec<&str>> = HashMap::new();
    for (id, node) in nodes {
        for (_, from) in node.links() {
            users.entry(from).or_default().push(id);
        }
    }
    users
}

fn reached<'a>(
    from: impl Iterator<Item = &'a str>,
    users: &HashMap<&'a str, Vec<&'a str>>,
) -> HashSet<&'a str> {
    let mut open: Vec<&str> = from.collect();
    let mut seen: HashSet<&str> = open.iter().copied().collect();
    while let Some(id) = open.pop() {
        for user in users.get(id).into_iter().flatten() {
            if seen.insert(user) {
                open.push(user);
            }
        }
    }
    seen
}

/// A node on a cycle or behind one, if there is a cycle: Kahn's order, which never recurses.
fn cycle<'a>(graph: &Graph, nodes: &[(&'a str, &'a Node)]) -> Option<&'a str> {
    let users = users(nodes);
    let inputs = |node: &Node| node.links().filter(|(_, from)| graph.nodes.contains_key(*from)).count();
    let mut waiting: HashMap<&str, usize> = nodes.iter().map(|(id, node)| (*id, inputs(node))).collect();
    let mut ready: Vec<&str> = nodes.iter().map(|(id, _)| *id).filter(|id| waiting[id] == 0).collect();
    while let Some(id) = ready.pop() {
        waiting.remove(id);
        for user in users.get(id).into_iter().flatten() {
            if let Some(left) = waiting.get_mut(user) {
                *left -= 1;
                if *left == 0 {
                    ready.push(user);
                }
            }
        }
    }
    nodes.iter().map(|(id, _)| *id).find(|id| waiting.contains_key(id))
}

fn cycle_fault(id: &str) -> Value {
    fault("dependency_cycle", "Dependency cycle detected", clip(id, 200), json!({"node_id": id}))
}

fn fault(kind: &str, message: &str, details: &str, extra: Value) -> Value {
    json!({"type": kind, "message": message, "details": details, "extra_info": extra})
}

fn faults_of(graph: &Graph, node: &Node, catalogue: &Catalogue) -> Vec<Value> {
    let Some(class) = catalogue.class(&node.class) else { return Vec::new() };
    let config = |name: &str| catalogue.input_config(&node.class, name);
    let mut faults = Vec::new();
    let mut missing: Vec<&String> = class
        .inputs
        .iter()
        .filter(|(name, input)| {
            input.required && input.kind != InputKind::Dynamic && !node.inputs.contains_key(*name)
        })
        .map(|(name, _)| name)
        .collect();
    missing.sort();
    for name in missing {
        let extra = json!({"input_name": name});
        faults.push(fault("required_input_missing", "Required input is missing", name, extra));
    }
    for (name, value) in &node.inputs {
        if let Some(declared) = class.inputs.get(name) {
            faults.extend(fault_of_value(graph, class, name, declared, value, &config));
        }
    }
    faults
}

fn fault_of_value(
    graph: &Graph,
    class: &ClassInfo,
    name: &str,
    declared: &catalogue::Input,
    value: &Input,
    config: &dyn Fn(&str) -> Value,
) -> Option<Value> {
    match value {
        Input::Link { node, .. } if !graph.nodes.contains_key(node) => {
            let details = format!("'{}'", clip(node, 200));
            let extra = json!({"input_name": name, "exception_type": "KeyError", "traceback": []});
            Some(fault("exception_during_validation", "Exception when validating node", &details, extra))
        }
        Input::Other(text) if text.starts_with('[') && list_len(text) != 2 => {
            let message = "Bad linked input, must be a length-2 list of [node_id, slot_index]";
            let extra =
                json!({"input_name": name, "input_config": config(name), "received_value": shown(value)});
            Some(fault("bad_linked_input", message, name, extra))
        }
        _ if !class.core || declared.upload => None,
        _ => match &declared.kind {
            InputKind::Int { min, max } => out_of_range("INT", name, value, (*min, *max), config),
            InputKind::Float { min, max } => out_of_range("FLOAT", name, value, (*min, *max), config),
            InputKind::Combo(Some(choices)) => {
                not_in_list(name, value, choices, declared.folder.is_some(), config)
            }
            _ => None,
        },
    }
}

fn list_len(text: &str) -> usize {
    serde_json::from_str::<Vec<serde::de::IgnoredAny>>(text).map_or(0, |list| list.len())
}

/// Python's `int(x)` and `float(x)`, then the declared bounds.
fn out_of_range(
    kind: &str,
    name: &str,
    value: &Input,
    (min, max): (Option<f64>, Option<f64>),
    config: &dyn Fn(&str) -> Value,
) -> Option<Value> {
    let number = match value {
        Input::Number(number) => *number,
        Input::Text(text) => match text.trim().replace('_', "").parse::<f64>() {
            Ok(number) if kind == "FLOAT" || number.fract() == 0.0 => number,
            _ => return Some(not_a_number(kind, name, text, config)),
        },
        _ => return None,
    };
    let (word, rule, bound) = match (min, max) {
        (Some(min), _) if number < min => ("smaller", "min", min),
        (_, Some(max)) if number > max => ("bigger", "max", max),
        _ => return None,
    };
    let message = format!("Value {} {word} than {rule} of {}", python(number), python(bound));
    let extra = json!({"input_name": name, "input_config": config(name), "received_value": shown(value)});
    Some(fault(&format!("value_{word}_than_{rule}"), &message, name, extra))
}

fn not_a_number(kind: &str, name: &str, text: &str, config: &dyn Fn(&str) -> Value) -> Value {
    let text = clip(text, 200);
    let exception = match kind {
        "INT" => format!("invalid literal for int() with base 10: '{text}'"),
        _ => format!("could not convert string to float: '{text}'"),
    };
    fault(
        "invalid_input_type",
        &format!("Failed to convert an input value to a {kind} value"),
        &format!("{name}, {text}, {exception}"),
        json!({
            "input_name": name, "input_config": config(name), "received_value": text, "exception_message": exception,
        }),
    )
}

/// An empty list that is not of models belongs to a node that fills it in the browser.
fn not_in_list(
    name: &str,
    value: &Input,
    choices: &[String],
    models: bool,
    config: &dyn Fn(&str) -> Value,
) -> Option<Value> {
    let Input::Text(text) = value else { return None };
    if choices.contains(text) || (choices.is_empty() && !models) {
        return None;
    }
    let long = choices.len() > LONG_LIST;
    let shown_list = if long {
        format!("(list of length {})", choices.len())
    } else {
        format!("[{}]", choices.iter().map(|choice| format!("'{choice}'")).collect::<Vec<_>>().join(", "))
    };
    let details = format!("{name}: '{}' not in {shown_list}", clip(text, 200));
    let input_config = if long { Value::Null } else { config(name) };
    let extra = json!({"input_name": name, "input_config": input_config, "received_value": shown(value)});
    Some(fault("value_not_in_list", "Value not in list", &details, extra))
}

fn python(number: f64) -> String {
    if number.fract() == 0.0 && number.abs() < 1e15 { format!("{number:.0}") } else { number.to_string() }
}

fn shown(value: &Input) -> Value {
    match value {
        Input::Number(number) if number.fract() == 0.0 && number.abs() < 1e15 => Value::from(*number as i64),
        Input::Number(number) => Value::from(*number),
        Input::Text(text) => Value::from(clip(text, 200)),
        Input::Bool(flag) => Value::from(*flag),
        Input::Link { node, slot } => json!([node, slot]),
        Input::Other(text) => Value::from(clip(text, 200)),
    }
}
