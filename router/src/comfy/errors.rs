//! ComfyUI's error bodies.

use serde_json::{Map, Value, json};

/// Why a prompt is refused, in the shape of ComfyUI's 400 answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{kind}: {message} {details}")]
pub struct PromptError {
    /// ComfyUI's `error.type`: `no_prompt`, `invalid_prompt`, `prompt_no_outputs`,
    /// `prompt_outputs_failed_validation`; and of our own `invalid_json`, `prompt_too_large`.
    pub kind: &'static str,
    pub message: String,
    pub details: String,
    /// Node id to `{errors, dependent_outputs, class_type}`.
    pub node_errors: Box<Map<String, Value>>,
}

impl PromptError {
    pub fn new(kind: &'static str, message: impl Into<String>, details: impl Into<String>) -> Self {
        Self { kind, message: message.into(), details: details.into(), node_errors: Box::default() }
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

    /// The whole answer.
    pub fn body(&self) -> String {
        body(self.kind, &self.message, &self.details, Value::Object((*self.node_errors).clone()))
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
