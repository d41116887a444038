//! The classic node cache: results of the nodes of the last prompt, found by class, inputs and ancestors.

use std::collections::HashMap;

use serde_json::{Map, Value as Json, json};

use crate::{
    files::{self, Dirs},
    nodes::{
        run::Ran,
        value::{Value, fingerprint},
    },
};

#[derive(Debug, Default)]
pub(crate) struct NodeCache {
    results: HashMap<u64, Cached>,
}

#[derive(Debug, Clone)]
pub(crate) struct Cached {
    pub(crate) outputs: Vec<Value>,
    pub(crate) ui: Option<Json>,
    /// The node id that showed it: 0.3.64 keeps what nodes show by id.
    pub(crate) node: String,
}

impl NodeCache {
    /// Keeps only what this prompt can use.
    pub(crate) fn retain(&mut self, signatures: &HashMap<String, u64>) {
        self.results.retain(|signature, _| signatures.values().any(|wanted| wanted == signature));
    }

    pub(crate) fn get(&self, signature: u64) -> Option<&Cached> {
        self.results.get(&signature)
    }

    pub(crate) fn put(&mut self, signature: u64, node: &str, ran: &Ran) {
        let cached = Cached { outputs: ran.outputs.clone(), ui: ran.ui.clone(), node: node.into() };
        self.results.insert(signature, cached);
    }

    pub(crate) fn clear(&mut self) {
        self.results.clear();
    }
}

/// The signature of every node of a prompt. Image loaders change with the content of their file.
pub(crate) fn signatures(prompt: &Map<String, Json>, dirs: &Dirs) -> HashMap<String, u64> {
    let mut known = HashMap::new();
    for id in prompt.keys() {
        signature(prompt, dirs, id, &mut known, 0);
    }
    known
}

fn signature(
    prompt: &Map<String, Json>,
    dirs: &Dirs,
    id: &str,
    known: &mut HashMap<String, u64>,
    depth: usize,
) -> u64 {
    if let Some(signature) = known.get(id) {
        return *signature;
    }
    let Some(node) = prompt.get(id).filter(|_| depth <= prompt.len()) else { return 0 };
    let class = node["class_type"].as_str().unwrap_or_default();
    let mut inputs: Vec<(String, String)> = Vec::new();
    for (name, value) in node["inputs"].as_object().into_iter().flatten() {
        let text = match link(value) {
            Some((from, slot)) => format!("{:x}.{slot}", signature(prompt, dirs, from, known, depth + 1)),
            None => value.to_string(),
        };
        inputs.push((name.clone(), text));
    }
    inputs.sort();
    let content = content(class, node, dirs);
    let signature = fingerprint(&(class, inputs, content));
    known.insert(id.into(), signature);
    signature
}

/// What decides besides the inputs: a file's bytes; for `SaveImageWebsocket` the time, so that it always runs.
fn content(class: &str, node: &Json, dirs: &Dirs) -> String {
    if class == "SaveImageWebsocket" {
        return uuid::Uuid::new_v4().to_string();
    }
    let name = node["inputs"]["image"].as_str().filter(|_| class.starts_with("LoadImage"));
    let bytes = name.and_then(|name| dirs.annotated(name)).and_then(|path| std::fs::read(path).ok());
    bytes.map(|bytes| files::sha256_hex(&bytes)).unwrap_or_default()
}

/// `[node id, slot]`.
pub(crate) fn link(value: &Json) -> Option<(&str, usize)> {
    match value.as_array()?.as_slice() {
        [from, slot] => Some((from.as_str()?, usize::try_from(slot.as_u64()?).ok()?)),
        _ => None,
    }
}

/// The value that a link carries into a node.
pub(crate) fn linked(outputs: &[Value], slot: usize) -> Value {
    outputs.get(slot).cloned().unwrap_or_else(|| Value::literal(&json!(null)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(first: &str, colour: i64) -> Map<String, Json> {
        let graph = json!({
            first: { "class_type": "EmptyImage", "inputs": { "color": colour } },
            "9": { "class_type": "ImageInvert", "inputs": { "image": [first, 0] } },
        });
        graph.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn ids_do_not_matter_and_ancestors_do() {
        let dirs = Dirs::open(None).expect("a folder");
        let of = |graph| signatures(&graph, &dirs)["9"];
        assert_eq!(of(prompt("1", 5)), of(prompt("2", 5)));
        assert_ne!(of(prompt("1", 5)), of(prompt("1", 6)));
    }

    #[test]
    fn only_the_last_prompt_is_remembered() {
        let dirs = Dirs::open(None).expect("a folder");
        let (first, second) = (signatures(&prompt("1", 5), &dirs), signatures(&prompt("1", 6), &dirs));
        let mut cache = NodeCache::default();
        cache.put(first["9"], "9", &Ran::default());
        cache.retain(&first);
        assert!(cache.get(first["9"]).is_some());
        cache.retain(&second);
        assert!(cache.get(first["9"]).is_none());
    }
}
