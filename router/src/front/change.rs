//! What the bodies of `POST /queue`, `/history` and `/interrupt` ask for, read as ComfyUI's Python reads them: by
//! truth, not by type. Where Python raises, which ComfyUI answers with a 500, the client is told what is wrong.

use serde_json::Value;

use super::answer::{self, Answer};
use crate::comfy::errors::clip;
use crate::comfy::json::{self, JsonError};
use crate::comfy::{PromptError, python};

/// `{"clear": true, "delete": [id, ...]}`
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) clear: bool,
    pub(super) delete: Vec<String>,
}

impl Change {
    pub(super) fn read(body: &[u8]) -> Result<Self, Answer> {
        let value: Value =
            json::parse(body).map_err(|error| answer::refused(&PromptError::invalid_json(error)))?;
        let change = match &value {
            Value::Object(members) => {
                let clear = members.get("clear").is_some_and(python::truthy);
                members.get("delete").map_or(Some(Vec::new()), ids).map(|delete| Self { clear, delete })
            }
            // Python looks for the words in them, and finds nothing to do.
            Value::Array(items) if !items.iter().any(|item| item == "clear" || item == "delete") => {
                Some(Self::default())
            }
            Value::String(text) if !text.contains("clear") && !text.contains("delete") => {
                Some(Self::default())
            }
            _ => None,
        };
        change.ok_or_else(|| {
            wrong(r#"expected an object such as {"delete": ["prompt id"]} or {"clear": true}"#)
        })
    }
}

/// What a `for` loop over it gives, as far as it can be a prompt id; none where there is no loop over it.
fn ids(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(items) => Some(items.iter().filter_map(|id| id.as_str().map(str::to_owned)).collect()),
        Value::Object(members) => Some(members.keys().cloned().collect()),
        Value::String(text) => Some(text.chars().map(String::from).collect()),
        _ => None,
    }
}

/// What `POST /interrupt` means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Interrupted {
    /// No id: whatever runs for this caller.
    Running,
    Prompt(String),
    /// An id that no prompt can have.
    Nothing,
}

impl Interrupted {
    pub(super) fn read(body: &[u8]) -> Result<Self, Answer> {
        let value: Value = match json::parse(body) {
            Ok(value) => value,
            Err(JsonError::Malformed(_)) => return Ok(Self::Running),
            Err(error) => return Err(answer::refused(&PromptError::invalid_json(error))),
        };
        let Value::Object(members) = value else {
            return Err(wrong(r#"expected an object such as {"prompt_id": "id"}, or nothing"#));
        };
        Ok(match members.get("prompt_id") {
            Some(Value::String(id)) if !id.is_empty() => Self::Prompt(id.clone()),
            Some(other) if python::truthy(other) => Self::Nothing,
            _ => Self::Running,
        })
    }
}

/// The ids of `POST /api/jobs/cancel`, or the text and the ids of its refusal.
pub(super) fn job_ids(body: &[u8]) -> Result<Vec<String>, Value> {
    let error = |text: &str| serde_json::json!({"error": text});
    let body: Value = json::parse(body).map_err(|_| error("Request body must be valid JSON"))?;
    let ids = body.get("job_ids").and_then(Value::as_array).ok_or_else(|| error("job_ids must be a list"))?;
    // Any text may be an id here; ComfyUI wants UUIDs.
    let valid = |id: &Value| id.as_str().is_some_and(|id| !id.is_empty());
    let shown =
        |id: &Value| clip(&id.as_str().map_or_else(|| python::repr(id), str::to_owned), 200).to_owned();
    let invalid: Vec<String> = ids.iter().filter(|id| !valid(id)).take(100).map(shown).collect();
    if !invalid.is_empty() {
        let mut error = error("job_ids contains invalid id(s)");
        error["invalid_ids"] = invalid.into();
        return Err(error);
    }
    Ok(ids.iter().filter_map(|id| id.as_str().map(str::to_owned)).collect())
}

fn wrong(details: &str) -> Answer {
    answer::refused(&PromptError::new(
        "invalid_request",
        "The request body is not what this route takes",
        details,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn change(body: &str) -> Option<(bool, Vec<String>)> {
        Change::read(body.as_bytes()).ok().map(|change| (change.clear, change.delete))
    }

    #[test]
    fn changes_go_by_pythons_truth() {
        for (body, clear) in [
            ("{}", false),
            (r#"{"clear": true}"#, true),
            (r#"{"clear": 1}"#, true),
            (r#"{"clear": "no"}"#, true),
            (r#"{"clear": 0}"#, false),
            (r#"{"clear": ""}"#, false),
            (r#"{"clear": []}"#, false),
            (r#"{"clear": null}"#, false),
            ("[]", false),
            (r#"["x"]"#, false),
            (r#""x""#, false),
        ] {
            assert_eq!(change(body), Some((clear, vec![])), "{body}");
        }
        let ids = |body| change(body).map(|change| change.1);
        assert_eq!(ids(r#"{"delete": ["a", 1, null, ["b"], "c"]}"#), Some(vec!["a".into(), "c".into()]));
        assert_eq!(ids(r#"{"delete": {"a": 1}}"#), Some(vec!["a".into()]));
        assert_eq!(ids(r#"{"delete": "ab"}"#), Some(vec!["a".into(), "b".into()]));
    }

    #[test]
    fn bodies_that_comfyui_cannot_read_are_refused_and_change_nothing() {
        for body in [
            "",
            " ",
            "{",
            "null",
            "7",
            "true",
            r#""clear""#,
            r#"["delete"]"#,
            r#"{"delete": null}"#,
            r#"{"delete": 5}"#,
            r#"{"clear": true, "delete": 1}"#,
        ] {
            assert_eq!(Change::read(body.as_bytes()).unwrap_err().status(), 400, "{body}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(Change::read(deep.as_bytes()).unwrap_err().status(), 400);
        assert_eq!(Change::read(b"\xff").unwrap_err().status(), 400);
    }

    #[test]
    fn an_interrupt_without_a_readable_id_means_what_runs_and_an_odd_id_means_nothing() {
        let read = |body: &str| Interrupted::read(body.as_bytes()).ok();
        for body in ["", "{", "{}", r#"{"prompt_id": ""}"#, r#"{"prompt_id": null}"#, r#"{"prompt_id": 0}"#] {
            assert_eq!(read(body), Some(Interrupted::Running), "{body}");
        }
        assert_eq!(read(r#"{"prompt_id": "a"}"#), Some(Interrupted::Prompt("a".into())));
        for body in [r#"{"prompt_id": 5}"#, r#"{"prompt_id": ["a"]}"#, r#"{"prompt_id": {"a": 1}}"#] {
            assert_eq!(read(body), Some(Interrupted::Nothing), "{body}");
        }
        for body in ["null", "[]", "7", r#""a""#] {
            assert_eq!(read(body), None, "{body}");
        }
        assert!(Interrupted::read(b"\xff").is_err());
    }

    #[test]
    fn ids_to_cancel_are_told_apart_from_what_can_be_none() {
        let error = |body: &str| job_ids(body.as_bytes()).unwrap_err();
        assert_eq!(error("{"), json!({"error": "Request body must be valid JSON"}));
        for body in ["{}", "[]", "null", r#"{"job_ids": "a"}"#] {
            assert_eq!(error(body), json!({"error": "job_ids must be a list"}), "{body}");
        }
        assert_eq!(
            error(r#"{"job_ids": ["a", 5, null, ""]}"#),
            json!({"error": "job_ids contains invalid id(s)", "invalid_ids": ["5", "None", ""]})
        );
        assert_eq!(job_ids(br#"{"job_ids": ["a", "b"]}"#), Ok(vec!["a".into(), "b".into()]));
        assert_eq!(job_ids(br#"{"job_ids": []}"#), Ok(vec![]));
    }
}
