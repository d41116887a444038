//! The body of `POST /prompt`.
//!
//! Differences from ComfyUI, all where it would answer 500, misread the request or lose its worker thread:
//! - malformed JSON, a `prompt` that is not an object, `extra_data` that is not an object, a `number` that is none: 400;
//! - `prompt_id: null` or `""` means "mint one" (0.8.0 makes it the text `"None"`); `client_id: ""` means none;
//! - a prompt that would end the worker thread is refused (see [`graph`](super::graph)).
//!
//! The body's size is the listener's limit, not ours.

use serde_json::value::RawValue;

use super::errors::{PromptError, clip};
use super::graph::Graph;
use super::json;
use super::python;
use crate::model::job::{Body, Requested, Secrets};

pub const MAX_NODES: usize = 10_000;
/// Bytes. Longer ids are refused: they would be repeated in every event of the job.
pub const MAX_ID: usize = 256;

/// Members of `extra_data` that are needed upstream and must never be stored, shown or logged.
const SECRET: [&str; 2] = ["auth_token_comfy_org", "api_key_comfy_org"];
/// Members that the router sets itself when it shows `extra_data`.
const OWN: [&str; 2] = ["client_id", "create_time"];

/// A prompt as posted, taken apart.
#[derive(Debug, Clone)]
pub struct Submission {
    /// The graph's text, byte for byte as posted; only Python's non-numbers are replaced (see [`json`]).
    pub prompt: String,
    pub graph: Graph,
    pub prompt_id: Option<String>,
    pub client_id: Option<String>,
    pub requested: Requested,
    /// Without credentials, `client_id` and `create_time`.
    pub extra_data: String,
    pub secrets: Secrets,
    /// `partial_execution_targets`.
    pub targets: Option<Vec<String>>,
}

impl Submission {
    /// What the ledger keeps. `outputs` come from the analysis, `headers` from the request.
    pub fn into_body(self, outputs: Vec<String>, headers: Vec<(String, String)>) -> Body {
        Body {
            workflow_id: super::jobs::workflow_id(&self.extra_data),
            stored: None,
            prompt: self.prompt,
            extra_data: self.extra_data,
            secrets: self.secrets,
            outputs,
            targets: self.targets,
            headers,
            renames: Vec::new(),
            input_kib: 0,
        }
    }
}

/// Reads a request body. Every error is the client's, to be answered with 400.
pub fn parse(body: &[u8]) -> Result<Submission, PromptError> {
    let text = json::text(body).map_err(PromptError::invalid_json)?;
    let raw: &RawValue = serde_json::from_str(&text).map_err(PromptError::invalid_json)?;
    match raw.get().as_bytes().first() {
        Some(b'{') => {}
        // Python looks for the text "prompt" in them.
        Some(b'[' | b'"') => return Err(PromptError::no_prompt()),
        _ => return Err(PromptError::new("invalid_json", "The request body is not a JSON object", "")),
    }
    let members = json::unique_members(raw).map_err(PromptError::invalid_json)?;
    let get = |name: &str| members.get(name).copied().filter(|raw| raw.get() != "null");

    let prompt = members.get("prompt").ok_or_else(PromptError::no_prompt)?;
    let graph = Graph::parse(prompt)?;
    let (extra, secrets, inner_client) = extra_data(get("extra_data"))?;
    let client_id = get("client_id").map(|raw| id(raw, "client_id")).transpose()?.or(inner_client);
    Ok(Submission {
        prompt: prompt.get().to_owned(),
        graph,
        prompt_id: get("prompt_id").map(|raw| id(raw, "prompt_id")).transpose()?.filter(|id| !id.is_empty()),
        client_id: client_id.filter(|id| !id.is_empty()),
        requested: Requested {
            number: get("number").map(number).transpose()?,
            front: get("front").is_some_and(truthy),
        },
        extra_data: extra,
        secrets,
        targets: get("partial_execution_targets").map(targets).transpose()?,
    })
}

fn invalid(message: &str) -> PromptError {
    PromptError::new("invalid_prompt", message, "")
}

/// Text, or a number or boolean as Python's `str` writes it.
fn id(raw: &RawValue, name: &str) -> Result<String, PromptError> {
    let id = match serde_json::from_str(raw.get()) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(value @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_))) => python::text(&value),
        _ => return Err(PromptError::new("invalid_prompt", format!("{name} must be a string"), "")),
    };
    if id.len() > MAX_ID {
        let message = format!("{name} is longer than {MAX_ID} bytes");
        return Err(PromptError::new("invalid_prompt", message, clip(&id, 40)));
    }
    Ok(id)
}

/// `float(number)`: numbers and their texts. Infinities and NaN have no place in an order.
fn number(raw: &RawValue) -> Result<f64, PromptError> {
    let value = match serde_json::from_str(raw.get()) {
        Ok(serde_json::Value::Number(number)) => number.as_f64(),
        Ok(serde_json::Value::String(text)) => text.trim().parse().ok(),
        Ok(serde_json::Value::Bool(flag)) => Some(f64::from(u8::from(flag))),
        _ => None,
    };
    value.filter(|value: &f64| value.is_finite()).ok_or_else(|| invalid("number must be a finite number"))
}

/// Python's truth of a JSON value.
fn truthy(raw: &RawValue) -> bool {
    match raw.get() {
        "false" | "\"\"" | "null" => false,
        text if text.starts_with(['[', '{']) => !text[1..text.len() - 1].trim().is_empty(),
        text => text.parse::<f64>() != Ok(0.0),
    }
}

/// What is no text is no node's id.
fn targets(raw: &RawValue) -> Result<Vec<String>, PromptError> {
    let listed: Vec<serde_json::Value> = serde_json::from_str(raw.get())
        .map_err(|_| invalid("partial_execution_targets must be a list of node ids"))?;
    let text = |value| match value {
        serde_json::Value::String(id) => Some(id),
        _ => None,
    };
    Ok(listed.into_iter().filter_map(text).collect())
}

/// `(text without what is not to be kept, credentials, client_id inside)`
fn extra_data(raw: Option<&RawValue>) -> Result<(String, Secrets, Option<String>), PromptError> {
    let Some(raw) = raw else {
        return Ok(("{}".to_owned(), Secrets::default(), None));
    };
    if !raw.get().starts_with('{') {
        return Err(invalid("extra_data must be an object"));
    }
    let members = json::unique_members(raw).map_err(PromptError::invalid_json)?;
    let mut client = None;
    let mut secrets = Secrets::default();
    let mut untouched = true;
    for (name, value) in &members {
        if SECRET.contains(&name.as_str()) {
            secrets.0.push((name.clone(), value.get().to_owned()));
        } else if name == "client_id" && value.get() != "null" {
            client = Some(id(value, "client_id")?);
        }
        untouched &= !SECRET.contains(&name.as_str()) && !OWN.contains(&name.as_str());
    }
    if untouched {
        return Ok((raw.get().to_owned(), secrets, client));
    }
    // Written from the undecoded members, so that big numbers and escapes stay as they were.
    let mut text = String::with_capacity(raw.get().len());
    for (name, value) in &members {
        if SECRET.contains(&name.as_str()) || OWN.contains(&name.as_str()) {
            continue;
        }
        text.push_str(if text.is_empty() { "{" } else { "," });
        text.push_str(&json::quote(name));
        text.push(':');
        text.push_str(value.get());
    }
    text.push_str(if text.is_empty() { "{}" } else { "}" });
    Ok((text, secrets, client))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRAPH: &str =
        r#"{"1":{"class_type":"A","inputs":{"x":1.50,"l":["2",0]}},"2":{"class_type":"B","inputs":{}}}"#;

    fn with(rest: &str) -> Result<Submission, PromptError> {
        parse(format!(r#"{{"prompt":{GRAPH}{rest}}}"#).as_bytes())
    }

    #[test]
    fn the_graph_is_kept_byte_for_byte() {
        let submission = with("").unwrap();
        assert_eq!(submission.prompt, GRAPH);
        assert_eq!(submission.extra_data, "{}");
        assert_eq!((submission.prompt_id, submission.client_id), (None, None));
    }

    #[test]
    fn credentials_are_split_off_and_the_rest_is_untouched() {
        let submission = with(
            r#","extra_data":{"api_key_comfy_org":"hush","big":123456789012345678901234567890,"client_id":"c","create_time":1}"#,
        )
        .unwrap();
        assert_eq!(submission.extra_data, r#"{"big":123456789012345678901234567890}"#);
        assert_eq!(submission.secrets.0, [("api_key_comfy_org".to_owned(), "\"hush\"".to_owned())]);
        assert_eq!(submission.client_id.as_deref(), Some("c"));
        assert!(!format!("{submission:?}").contains("hush"));
    }

    #[test]
    fn ids_and_order_follow_pythons_rules() {
        let submission = with(r#","prompt_id":7,"client_id":"","number":"2.5","front":1"#).unwrap();
        assert_eq!(submission.prompt_id.as_deref(), Some("7"));
        assert_eq!(submission.client_id, None);
        assert_eq!(submission.requested, Requested { number: Some(2.5), front: true });
        assert_eq!(with(r#","prompt_id":null,"front":0"#).unwrap().requested, Requested::default());
    }

    #[test]
    fn what_is_not_a_prompt_is_the_clients_error() {
        let long = "x".repeat(MAX_ID + 1);
        let many = (0..=MAX_NODES).map(|i| format!(r#""{i}":{{"class_type":"A","inputs":{{}}}}"#));
        let many = many.collect::<Vec<_>>().join(",");
        let cases: Vec<(String, &str)> = vec![
            ("".into(), "invalid_json"),
            ("{".into(), "invalid_json"),
            ("[]".into(), "no_prompt"),
            ("null".into(), "invalid_json"),
            ("{} {}".into(), "invalid_json"),
            (r#"{"client_id":"a"}"#.into(), "no_prompt"),
            (r#"{"prompt":null}"#.into(), "invalid_prompt"),
            (r#"{"prompt":"x"}"#.into(), "invalid_prompt"),
            (r#"{"prompt":[1]}"#.into(), "invalid_prompt"),
            (format!(r#"{{"prompt":{{{many}}}}}"#), "prompt_too_large"),
            (format!(r#"{{"prompt":{{}},"prompt_id":"{long}"}}"#), "invalid_prompt"),
            (r#"{"prompt":{},"prompt_id":{}}"#.into(), "invalid_prompt"),
            (r#"{"prompt":{},"number":"soon"}"#.into(), "invalid_prompt"),
            (r#"{"prompt":{},"number":1e999}"#.into(), "invalid_prompt"),
            (r#"{"prompt":{},"extra_data":[]}"#.into(), "invalid_prompt"),
            (r#"{"prompt":{},"partial_execution_targets":"1"}"#.into(), "invalid_prompt"),
            (format!(r#"{{"prompt":{}"#, r#"{"a":"#.repeat(5000)), "invalid_json"),
        ];
        for (body, kind) in cases {
            let error = parse(body.as_bytes()).expect_err(&body[..body.len().min(80)]);
            assert_eq!(error.kind, kind, "{}", &body[..body.len().min(80)]);
        }
    }

    #[test]
    fn malformed_json_says_where() {
        let error = parse(b"{\"prompt\":\n{]").unwrap_err();
        assert!(error.details.contains("line 2 column 2"), "{}", error.details);
    }

    #[test]
    fn a_key_that_appears_twice_is_refused_wherever_it_counts() {
        for body in [
            r#"{"prompt":7,"prompt":{}}"#,
            r#"{"prompt":{"1":{"class_type":"A","inputs":{}},"\u0031":{"class_type":"B","inputs":{}}}}"#,
            r#"{"prompt":{"1":{"class_type":"A","class_type":"B","inputs":{}}}}"#,
            r#"{"prompt":{"1":{"class_type":"A","inputs":{"x":1,"x":2}}}}"#,
            r#"{"prompt":{},"extra_data":{"client_id":"a","client_id":"b"}}"#,
        ] {
            let error = parse(body.as_bytes()).expect_err(body);
            assert!(
                error.kind == "invalid_json" && error.details.contains("appears twice"),
                "{body}: {error}"
            );
        }
    }

    #[test]
    fn non_numbers_are_null_and_lone_surrogates_pass() {
        let body = br#"{"prompt":{"1":{"class_type":"A","inputs":{"x":NaN,"t":"\ud800"}}}}"#;
        let submission = parse(body).unwrap();
        assert_eq!(submission.prompt, r#"{"1":{"class_type":"A","inputs":{"x":null,"t":"\ud800"}}}"#);
    }
}
