//! The order in which ComfyUI tells a client of one job.

use std::collections::HashSet;

use serde_json::Value;

use crate::Message;

/// The types of these messages.
pub fn kinds(messages: &[Message]) -> Vec<String> {
    messages.iter().map(Message::kind).collect()
}

/// Checks that these are the messages of one whole, successful job, in ComfyUI's order.
///
/// # Errors
/// What is missing, twice, or in the wrong place.
pub fn complete(messages: &[Message], graph: &Value) -> Result<(), String> {
    let kinds = kinds(messages);
    let wrong = |what: &str| Err(format!("{what}: {kinds:?}"));
    if kinds.first().map(String::as_str) != Some("execution_start") {
        return wrong("does not begin with execution_start");
    }
    if kinds.get(1).map(String::as_str) != Some("execution_cached") {
        return wrong("does not go on with execution_cached");
    }
    if kinds.iter().rev().take(2).ne(["executing", "execution_success"]) {
        return wrong("does not end with execution_success and executing");
    }
    if !messages[messages.len() - 1].data()["node"].is_null() {
        return wrong("does not end with executing of null");
    }
    for kind in ["execution_start", "execution_cached", "execution_success"] {
        if kinds.iter().filter(|seen| *seen == kind).count() != 1 {
            return wrong(&format!("does not say {kind} once"));
        }
    }
    nodes(messages, graph)
}

/// Every node that was not cached is announced once, in an order that the graph allows.
fn nodes(messages: &[Message], graph: &Value) -> Result<(), String> {
    let cached: Vec<Value> = messages[1].data()["nodes"].as_array().cloned().unwrap_or_default();
    let nodes = graph.as_object().expect("a graph");
    let mut announced: HashSet<&str> = cached.iter().filter_map(Value::as_str).collect();
    let executing = messages.iter().filter(|message| message.kind() == "executing");
    for node in executing.filter_map(|message| message.data()["node"].as_str()) {
        let links = nodes[node]["inputs"].as_object().into_iter().flatten();
        let missing =
            links.filter_map(|(_, value)| value.get(0)?.as_str()).find(|from| !announced.contains(from));
        if let Some(missing) = missing {
            return Err(format!("{node} ran before {missing}"));
        }
        if !announced.insert(node) {
            return Err(format!("{node} was announced twice"));
        }
    }
    match nodes.keys().find(|node| !announced.contains(node.as_str())) {
        Some(silent) => Err(format!("nothing was said of node {silent}")),
        None => Ok(()),
    }
}
