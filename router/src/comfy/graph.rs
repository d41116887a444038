//! A prompt's graph: its light form, and what it needs from an instance.

mod needs;
mod rename;
mod safety;
mod validate;

use std::collections::HashSet;

use indexmap::IndexMap;
use serde_json::Value;
use serde_json::value::RawValue;

use super::catalogue::Catalogue;
use super::errors::{PromptError, clip};
use super::files;
use super::json::{self, Members};
use super::prompt::{MAX_NODES, Submission};
use super::python::{self, Num};
use crate::model::job::{Needs, UploadRef};

/// Node id to node, in the order posted.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Graph {
    pub nodes: IndexMap<String, Node>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// As text, whatever was posted.
    pub class: String,
    /// What newer versions call the node in errors.
    pub title: Option<String>,
    pub inputs: IndexMap<String, Input>,
    pub flaw: Option<Flaw>,
}

/// Why a node is none. ComfyUI would answer 500, or lose its worker thread over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    NoObject,
    NoClass,
    /// `class_type` is no text.
    OddClass,
    NoInputs,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    Link {
        node: String,
        slot: Num,
    },
    Number(Num),
    Bool(bool),
    Text(String),
    /// Any other literal, as JSON text: null, lists that are no links, objects.
    Other(String),
    /// A list or object that was wrapped as `{"__value__": v}`: a literal for the checks, and yet a link to the
    /// executor if it looks like one.
    Wrapped(String),
}

/// How the fleet's version of ComfyUI differs from the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Choices in the newer form (`COMBO` with `options`) are checked. 0.3.64 does not.
    pub combo_options: bool,
    /// An unknown class is a `missing_node_type`, no `invalid_prompt`.
    pub missing_node_type: bool,
}

impl Rules {
    /// Of these versions together: what one of them would let pass, passes; the words are the first one's.
    pub fn of<'a>(versions: impl Iterator<Item = &'a str>) -> Self {
        let mut rules: Option<Self> = None;
        for version in versions {
            let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
            let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
            let checks = version >= (0, 4);
            rules
                .get_or_insert(Self { combo_options: true, missing_node_type: version >= (0, 30) })
                .combo_options &= checks;
        }
        rules.unwrap_or(Self { combo_options: false, missing_node_type: false })
    }
}

pub use super::errors::Lacking;
pub use rename::renamed;

/// What the checks of a prompt are made against.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The merged one.
    pub catalogue: &'a Catalogue,
    pub rules: Rules,
    /// Files that no instance has and the router does not keep.
    pub absent: &'a HashSet<UploadRef>,
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

/// A file that a node reads, as its graph names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub node: String,
    pub input: String,
    pub file: UploadRef,
    /// ComfyUI refuses the prompt if it is not there.
    pub checked: bool,
}

/// The files that a graph's nodes name, if `catalogue` knows their classes.
pub fn named_files(graph: &Graph, catalogue: &Catalogue) -> Vec<Named> {
    let mut found = Vec::new();
    for (id, node) in &graph.nodes {
        let Some(class) = catalogue.class(&node.class) else { continue };
        for (name, input) in &node.inputs {
            if let (Input::Text(value), Some(declared)) = (input, class.inputs.get(name))
                && declared.upload
                && let Some(file) = files::upload_ref(value)
            {
                let checked = declared.file_kind.is_some();
                found.push(Named { node: id.clone(), input: name.clone(), file, checked });
            }
        }
    }
    found
}

/// Checks a prompt as ComfyUI would, against what the fleet has, and works out its needs. The error means that no
/// instance could run it.
pub fn analyse(submission: &Submission, known: &Known<'_>) -> Result<Analysis, PromptError> {
    let graph = &submission.graph;
    let targets = submission.targets.as_ref();
    let targets: Option<HashSet<&str>> = targets.map(|ids| ids.iter().map(String::as_str).collect());
    let wanted = |id: &str| targets.as_ref().is_none_or(|targets| targets.contains(id));
    let mut outputs = Vec::new();
    for (id, node) in &graph.nodes {
        if class_of(id, node, known)? && wanted(id) {
            outputs.push(id.clone());
        }
    }
    if outputs.is_empty() {
        return Err(PromptError::no_outputs());
    }
    safety::depth(graph)?;
    let checked = validate::outputs(graph, &outputs, known)?;
    safety::executable(graph, &checked.good)?;
    let needs = needs::of(graph, &checked.good, known.catalogue);
    Ok(Analysis { needs, outputs: checked.good, node_errors: Value::Object(checked.node_errors).to_string() })
}

/// Is it an output node? An error if nobody knows its class.
fn class_of(id: &str, node: &Node, known: &Known<'_>) -> Result<bool, PromptError> {
    let newer = known.rules.missing_node_type;
    match node.flaw {
        Some(Flaw::NoObject) => Err(PromptError::node("Cannot execute because a node is not an object.", id)),
        Some(Flaw::NoClass) if newer => {
            let title = format!("Node ID #{}", clip(id, 200));
            let title = node.title.as_deref().map_or(title.as_str(), |title| clip(title, 200));
            Err(PromptError::missing_node(format!("Node '{title}' has no class_type."), id, node))
        }
        Some(Flaw::NoClass) => {
            Err(PromptError::node("Cannot execute because a node is missing the class_type property.", id))
        }
        Some(Flaw::OddClass | Flaw::NoInputs) | None => match known.catalogue.class(&node.class) {
            Some(class) if node.flaw != Some(Flaw::OddClass) => Ok(class.output_node),
            _ if newer => {
                let title = clip(node.title.as_deref().unwrap_or(&node.class), 200);
                let message = format!("Node '{title}' not found. The custom node may not be installed.");
                Err(PromptError::missing_node(message, id, node))
            }
            _ => {
                let class = clip(&node.class, 200);
                Err(PromptError {
                    lacking: missing(node),
                    ..PromptError::node(format!("Cannot execute because node {class} does not exist."), id)
                })
            }
        },
    }
}

fn missing(node: &Node) -> Box<Lacking> {
    Box::new(Lacking { classes: vec![node.class.clone()], ..Lacking::default() })
}

impl Graph {
    /// Reads `prompt`.
    pub(super) fn parse(prompt: &RawValue) -> Result<Self, PromptError> {
        if prompt.get().starts_with('[') && prompt.get()[1..].trim_start() == "]" {
            return Ok(Self::default());
        }
        if !prompt.get().starts_with('{') {
            return Err(PromptError::new("invalid_prompt", "The prompt must be an object of nodes", ""));
        }
        let members = json::unique_members(prompt).map_err(PromptError::invalid_json)?;
        if members.len() > MAX_NODES {
            let message = format!("The prompt has {} nodes; at most {MAX_NODES} are accepted", members.len());
            return Err(PromptError::new("prompt_too_large", message, ""));
        }
        let nodes = members.into_iter().map(|(id, raw)| {
            let node = Node::parse(raw).map_err(PromptError::invalid_json)?;
            Ok((id, node))
        });
        Ok(Self { nodes: nodes.collect::<Result<_, PromptError>>()? })
    }

    /// The given nodes and everything they depend on. Links to nodes that do not exist lead nowhere.
    fn ancestors<'a>(&'a self, of: &'a [String]) -> Vec<(&'a str, &'a Node)> {
        let mut seen = std::collections::HashSet::new();
        let mut open: Vec<std::borrow::Cow<'_, str>> = of.iter().rev().map(Into::into).collect();
        let mut found = Vec::new();
        while let Some(id) = open.pop() {
            let Some((id, node)) = self.nodes.get_key_value(&*id) else { continue };
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
    /// The error is of keys that appear twice; anything else is a flaw of the node.
    fn parse(raw: &RawValue) -> Result<Self, serde_json::Error> {
        let mut node = Self { class: String::new(), title: None, inputs: IndexMap::new(), flaw: None };
        if !raw.get().starts_with('{') {
            node.flaw = Some(Flaw::NoObject);
            return Ok(node);
        }
        let members = json::unique_members(raw)?;
        if let Some(raw) = members.get("inputs").filter(|raw| raw.get().starts_with('{')) {
            let inputs = json::unique_members(raw)?;
            node.inputs = inputs.into_iter().map(|(name, raw)| (name, Input::parse(raw))).collect();
        } else {
            node.flaw = Some(Flaw::NoInputs);
        }
        let of = |raw: &RawValue| serde_json::from_str::<Value>(raw.get()).unwrap_or_default();
        node.title = members.get("_meta").and_then(|raw| Some(of(raw).get("title")?.as_str()?.to_owned()));
        match members.get("class_type").map(|raw| of(raw)) {
            Some(Value::String(class)) => node.class = class,
            Some(other) => (node.class, node.flaw) = (python::text(&other), Some(Flaw::OddClass)),
            None => node.flaw = Some(Flaw::NoClass),
        }
        Ok(node)
    }

    /// `(input, node it comes from)`, as the executor sees them.
    pub fn links(&self) -> impl Iterator<Item = (&str, std::borrow::Cow<'_, str>)> {
        self.inputs.iter().filter_map(|(name, input)| match input {
            Input::Link { node, .. } => Some((name.as_str(), node.into())),
            Input::Wrapped(text) => link(text).map(|(node, _)| (name.as_str(), node.into())),
            _ => None,
        })
    }
}

/// `[node id, slot]`
fn link(text: &str) -> Option<(String, Num)> {
    let (node, slot): (String, &RawValue) = serde_json::from_str(text).ok()?;
    let slot = match slot.get() {
        "true" => Num::Int(1),
        "false" => Num::Int(0),
        number => Num::parse(number)?,
    };
    Some((node, slot))
}

impl Input {
    fn parse(raw: &RawValue) -> Self {
        let other = || Self::Other(raw.get().to_owned());
        match raw.get().as_bytes().first() {
            Some(b'"') => serde_json::from_str(raw.get()).map_or_else(|_| other(), Self::Text),
            Some(b't') => Self::Bool(true),
            Some(b'f') => Self::Bool(false),
            Some(b'[') => link(raw.get()).map_or_else(other, |(node, slot)| Self::Link { node, slot }),
            // `{"__value__": v}` is how a literal that looks like a link is written.
            Some(b'{') => match serde_json::from_str::<Members<'_>>(raw.get()) {
                Ok(members) => members.get("__value__").map_or_else(other, |inner| Self::unwrapped(inner)),
                _ => other(),
            },
            _ => Num::parse(raw.get()).map_or_else(other, Self::Number),
        }
    }

    fn unwrapped(raw: &RawValue) -> Self {
        match raw.get().as_bytes().first() {
            Some(b'[' | b'{') => Self::Wrapped(raw.get().to_owned()),
            _ => Self::parse(raw),
        }
    }

    /// A number that the graph gives itself.
    fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(number.as_f64()),
            _ => None,
        }
    }

    /// As it was posted.
    fn value(&self) -> Value {
        match self {
            Self::Link { node, slot } => Value::from(vec![Value::from(node.as_str()), slot.value()]),
            Self::Number(number) => number.value(),
            Self::Bool(flag) => Value::from(*flag),
            Self::Text(text) => Value::from(text.as_str()),
            Self::Other(text) | Self::Wrapped(text) => serde_json::from_str(text).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests;
