//! ComfyUI's error bodies.

use serde_json::{Map, Value, json};

use super::graph::Node;
use crate::model::job::ModelRef;

/// Why a prompt is refused, in the shape of ComfyUI's 400 answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{kind}: {message} {details}")]
pub struct PromptError {
    /// ComfyUI's `error.type`: `no_prompt`, `invalid_prompt`, `missing_node_type`, `prompt_no_outputs`,
    /// `prompt_outputs_failed_validation`; and of our own `invalid_json`, `prompt_too_large`, `no_capable_instance`.
    pub kind: &'static str,
    pub message: String,
    pub details: String,
    /// Node id to `{errors, dependent_outputs, class_type}`.
    pub node_errors: Box<Map<String, Value>>,
    /// `error.extra_info`.
    pub extra_info: Box<Map<String, Value>>,
    /// What it asks for that no instance has.
    pub lacking: Box<Lacking>,
}

/// Node classes and models that are missing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lacking {
    pub classes: Vec<String>,
    pub models: Vec<ModelRef>,
    /// The classes whose lists do not have those models.
    pub loaders: Vec<String>,
}

impl Lacking {
    pub fn is_empty(&self) -> bool {
        self.classes.is_empty() && self.models.is_empty()
    }
}

impl PromptError {
    pub fn new(kind: &'static str, message: impl Into<String>, details: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            details: details.into(),
            node_errors: Box::default(),
            extra_info: Box::default(),
            lacking: Box::default(),
        }
    }

    /// A body that is not JSON. ComfyUI answers 500 here; that says nothing and counts as a fault of the server.
    pub fn invalid_json(error: impl ToString) -> Self {
        Self::new("invalid_json", "The request body is not valid JSON", error.to_string())
    }

    pub fn no_prompt() -> Self {
        Self::new("no_prompt", "No prompt provided", "No prompt provided")
    }

    pub fn no_outputs() -> Self {
        Self::new("prompt_no_outputs", "Prompt has no outputs", "")
    }

    /// A node that would stop the instance's worker thread or that no instance knows.
    pub fn node(message: impl Into<String>, id: &str) -> Self {
        Self::new("invalid_prompt", message, format!("Node ID '#{}'", clip(id, 200)))
    }

    /// How newer versions say that a class is not there.
    pub(super) fn missing_node(message: impl Into<String>, id: &str, node: &Node) -> Self {
        let info = json!({
            "node_id": clip(id, 200),
            "class_type": clip(&node.class, 200),
            "node_title": clip(node.title.as_deref().unwrap_or(&node.class), 200),
        });
        let mut error = Self { kind: "missing_node_type", ..Self::node(message, id) };
        error.extra_info.extend(info.as_object().cloned().unwrap_or_default());
        error.lacking.classes.push(node.class.clone());
        error
    }

    /// The whole answer.
    pub fn body(&self) -> String {
        json!({
            "error": {
                "type": self.kind, "message": self.message, "details": self.details, "extra_info": *self.extra_info,
            },
            "node_errors": *self.node_errors,
        })
        .to_string()
    }
}

/// `{"error": {type, message, details, extra_info}, "node_errors": {...}}`
pub fn body(kind: &str, message: &str, details: &str, node_errors: Value) -> String {
    json!({
        "error": {"type": kind, "message": message, "details": details, "extra_info": {}},
        "node_errors": node_errors,
    })
    .to_string()
}

/// The first `max` bytes of a client's text, cut at a character.
pub fn clip(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_comfyuis() {
        assert_eq!(
            PromptError::no_prompt().body(),
            r#"{"error":{"type":"no_prompt","message":"No prompt provided","details":"No prompt provided","extra_info":{}},"node_errors":{}}"#
        );
        assert_eq!(
            PromptError::node("Cannot execute because node NoSuchNode does not exist.", "1").body(),
            r#"{"error":{"type":"invalid_prompt","message":"Cannot execute because node NoSuchNode does not exist.","details":"Node ID '#1'","extra_info":{}},"node_errors":{}}"#
        );
    }

    #[test]
    fn clipping_keeps_characters_whole() {
        assert_eq!(clip("aé", 2), "a");
        assert_eq!(clip("ab", 9), "ab");
    }
}
