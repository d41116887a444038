//! A prompt's graph: its light form, and what it needs from an instance.

mod needs;
mod validate;

use indexmap::IndexMap;
use serde_json::Value;
use serde_json::value::RawValue;

use super::catalogue::Catalogue;
use super::errors::PromptError;
use super::json::{self, Members};
use super::prompt::{MAX_NODES, Submission};
use crate::model::job::Needs;

/// Node id to node, in the order posted.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Graph {
    pub nodes: IndexMap<String, Node>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub class: String,
    pub inputs: IndexMap<String, Input>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    Link {
        node: String,
        slot: u64,
    },
    Number(f64),
    Bool(bool),
    Text(String),
    /// Any other literal, as JSON text: null, lists that are no links, objects.
    Other(String),
}

/// What analysis of a graph found.
#[derive(Debug, Clone, PartialEq)]
pub struct Analysis {
    pub needs: Needs,
    /// Output nodes that will run, in graph order.
    pub outputs: Vec<String>,
    /// JSON object: why other output nodes will not run; `{}` when all will.
    pub node_errors: String,
}

/// Checks a prompt against what the fleet has and works out its needs. `catalogue` is the merged one: the error means
/// that no instance could run it.
pub fn analyse(submission: &Submission, catalogue: &Catalogue) -> Result<Analysis, PromptError> {
    let graph = &submission.graph;
    for (id, node) in &graph.nodes {
        if catalogue.class(&node.class).is_none() {
            let class = super::errors::clip(&node.class, 200);
            return Err(PromptError::node(
                format!("Cannot execute because node {class} does not exist."),
                id,
            ));
        }
    }
    let wanted = |id: &String| submission.targets.as_ref().is_none_or(|targets| targets.contains(id));
    let outputs: Vec<String> = graph
        .nodes
        .iter()
        .filter(|(id, node)| {
            wanted(id) && catalogue.class(&node.class).is_some_and(|class| class.output_node)
        })
        .map(|(id, _)| id.clone())
        .collect();
    if outputs.is_empty() {
        return Err(PromptError::no_outputs());
    }
    let checked = validate::outputs(graph, &outputs, catalogue)?;
    let needs = needs::of(graph, &checked.good, catalogue);
    Ok(Analysis { needs, outputs: checked.good, node_errors: Value::Object(checked.node_errors).to_string() })
}

impl Graph {
    /// Reads `prompt`. Refuses what would stop an instance's worker thread: every node must be an object with a
    /// text `class_type` and an object `inputs`.
    pub(super) fn parse(prompt: &RawValue) -> Result<Self, PromptError> {
        if prompt.get().starts_with('[') && prompt.get()[1..].trim_start() == "]" {
            return Err(PromptError::no_outputs());
        }
        let members = json::members(prompt)
            .map_err(|_| PromptError::new("invalid_prompt", "The prompt must be an object of nodes", ""))?;
        if members.len() > MAX_NODES {
            let message = format!("The prompt has {} nodes; at most {MAX_NODES} are accepted", members.len());
            return Err(PromptError::new("prompt_too_large", message, ""));
        }
        let nodes = members.into_iter().map(|(id, raw)| {
            let node = Node::parse(&id, raw)?;
            Ok((id, node))
        });
        Ok(Self { nodes: nodes.collect::<Result<_, PromptError>>()? })
    }

    /// The given nodes and everything they depend on. Links to nodes that do not exist lead nowhere.
    fn ancestors<'a>(&'a self, of: &'a [String]) -> Vec<(&'a str, &'a Node)> {
        let mut seen = std::collections::HashSet::new();
        let mut open: Vec<&str> = of.iter().rev().map(String::as_str).collect();
        let mut found = Vec::new();
        while let Some(id) = open.pop() {
            let Some((id, node)) = self.nodes.get_key_value(id) else { continue };
            if !seen.insert(id.as_str()) {
                continue;
            }
            found.push((id.as_str(), node));
            open.extend(node.links().map(|(_, to)| to));
        }
        found
    }
}

impl Node {
    fn parse(id: &str, raw: &RawValue) -> Result<Self, PromptError> {
        let error = |message: &str| PromptError::node(message, id);
        let members =
            json::members(raw).map_err(|_| error("Cannot execute because a node is not an object."))?;
        let class = members
            .get("class_type")
            .and_then(|raw| serde_json::from_str::<String>(raw.get()).ok())
            .ok_or_else(|| error("Cannot execute because a node is missing the class_type property."))?;
        let inputs = members
            .get("inputs")
            .and_then(|raw| json::members(raw).ok())
            .ok_or_else(|| error("Cannot execute because a node is missing the inputs property."))?;
        Ok(Self { class, inputs: inputs.into_iter().map(|(name, raw)| (name, Input::parse(raw))).collect() })
    }

    /// `(input, node it comes from)`
    pub fn links(&self) -> impl Iterator<Item = (&str, &str)> {
        self.inputs.iter().filter_map(|(name, input)| match input {
            Input::Link { node, .. } => Some((name.as_str(), node.as_str())),
            _ => None,
        })
    }
}

impl Input {
    fn parse(raw: &RawValue) -> Self {
        let other = || Self::Other(raw.get().to_owned());
        match raw.get().as_bytes().first() {
            Some(b'"') => serde_json::from_str(raw.get()).map_or_else(|_| other(), Self::Text),
            Some(b't') => Self::Bool(true),
            Some(b'f') => Self::Bool(false),
            Some(b'[') => match serde_json::from_str::<(String, f64)>(raw.get()) {
                Ok((node, slot)) => Self::Link { node, slot: slot as u64 },
                Err(_) => other(),
            },
            // `{"__value__": v}` is how a literal that looks like a link is written.
            Some(b'{') => match serde_json::from_str::<Members<'_>>(raw.get()) {
                Ok(members) if members.len() == 1 && members.contains_key("__value__") => {
                    match members["__value__"].get().as_bytes().first() {
                        Some(b'[' | b'{') => other(),
                        _ => Self::parse(members["__value__"]),
                    }
                }
                _ => other(),
            },
            _ => raw.get().parse().map_or_else(|_| other(), Self::Number),
        }
    }
}

#[cfg(test)]
mod tests;
