//! The progress registry of one execution: what `progress_state` reports.

use indexmap::IndexMap;
use serde_json::{Map, Number, Value, json};

#[derive(Debug, Default)]
pub(crate) struct Progress(IndexMap<String, Node>);

#[derive(Debug)]
struct Node {
    value: Number,
    max: Number,
    finished: bool,
}

impl Progress {
    /// Python's `0.0` and `1.0`: floats on the wire.
    pub(crate) fn start(&mut self, id: &str) {
        let float = |value| Number::from_f64(value).expect("finite");
        self.0.insert(id.into(), Node { value: float(0.0), max: float(1.0), finished: false });
    }

    pub(crate) fn update(&mut self, id: &str, value: u32, max: u32) {
        self.0.insert(id.into(), Node { value: value.into(), max: max.into(), finished: false });
    }

    /// A node that never started counts 1 of 1, in integers.
    pub(crate) fn finish(&mut self, id: &str) {
        let one = || Node { value: 1.into(), max: 1.into(), finished: true };
        let node = self.0.entry(id.into()).or_insert_with(one);
        node.value = node.max.clone();
        node.finished = true;
    }

    pub(crate) fn state(&self, prompt_id: &str) -> Value {
        let nodes: Map<String, Value> =
            self.0.iter().map(|(id, node)| (id.clone(), node.show(id, prompt_id))).collect();
        json!({ "prompt_id": prompt_id, "nodes": nodes })
    }
}

impl Node {
    fn show(&self, id: &str, prompt_id: &str) -> Value {
        json!({
            "value": self.value,
            "max": self.max,
            "state": if self.finished { "finished" } else { "running" },
            "node_id": id,
            "prompt_id": prompt_id,
            "display_node_id": id,
            "parent_node_id": null,
            "real_node_id": id,
        })
    }
}
