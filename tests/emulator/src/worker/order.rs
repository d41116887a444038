//! The order of execution: ComfyUI's topological sort with its preference for nodes that show something soon.

use std::collections::HashMap;

use indexmap::{IndexMap, IndexSet};
use serde_json::{Map, Value};

use super::cache::link;

#[derive(Debug, Default)]
pub(crate) struct Order {
    /// Nodes still to run, in insertion order, with the count of nodes that block each.
    pending: IndexMap<String, usize>,
    blocking: HashMap<String, IndexSet<String>>,
}

impl Order {
    /// Adds a node and its ancestors, but for cached ancestors.
    pub(crate) fn add(&mut self, prompt: &Map<String, Value>, id: &str, cached: impl Fn(&str) -> bool) {
        let mut stack = vec![id.to_owned()];
        let mut links = Vec::new();
        while let Some(id) = stack.pop() {
            if self.pending.contains_key(&id) {
                continue;
            }
            self.pending.insert(id.clone(), 0);
            let inputs = prompt.get(&id).and_then(|node| node["inputs"].as_object());
            for (from, _) in inputs.into_iter().flatten().filter_map(|(_, value)| link(value)) {
                if !cached(from) {
                    stack.push(from.to_owned());
                    links.push((from.to_owned(), id.clone()));
                }
            }
        }
        for (from, to) in links {
            if self.blocking.entry(from).or_default().insert(to.clone())
                && let Some(count) = self.pending.get_mut(&to)
            {
                *count += 1;
            }
        }
    }

    /// The next node: an output if one is ready, else what an output waits for, else the oldest.
    pub(crate) fn next(&self, is_output: impl Fn(&str) -> bool) -> Option<String> {
        let ready: Vec<&String> =
            self.pending.iter().filter(|(_, count)| **count == 0).map(|(id, _)| id).collect();
        let blocks = |id: &str| self.blocking.get(id).into_iter().flatten();
        let output = ready.iter().find(|id| is_output(id));
        let before = || ready.iter().find(|id| blocks(id).any(|next| is_output(next)));
        let twice_before =
            || ready.iter().find(|id| blocks(id).any(|next| blocks(next).any(|after| is_output(after))));
        let picked = output.or_else(before).or_else(twice_before).or(ready.first());
        picked.map(|id| (*id).clone())
    }

    pub(crate) fn done(&mut self, id: &str) {
        self.pending.shift_remove(id);
        for next in self.blocking.remove(id).unwrap_or_default() {
            if let Some(count) = self.pending.get_mut(&next) {
                *count -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn outputs_come_as_soon_as_they_can() {
        let node = |from: &[&str]| {
            let inputs: Map<String, Value> =
                from.iter().enumerate().map(|(at, id)| (at.to_string(), json!([id, 0]))).collect();
            json!({ "class_type": "X", "inputs": inputs })
        };
        let prompt = json!({ "a": node(&[]), "b": node(&["a"]), "save": node(&["b"]), "c": node(&[]), "late": node(&["c"]) });
        let prompt = prompt.as_object().expect("an object");
        let mut order = Order::default();
        for output in ["save", "late"] {
            order.add(prompt, output, |id| id == "a");
        }
        let is_output = |id: &str| id == "save" || id == "late";
        let mut ran = Vec::new();
        while let Some(id) = order.next(is_output) {
            order.done(&id);
            ran.push(id);
        }
        assert_eq!(ran, ["b", "save", "c", "late"]);
    }
}
