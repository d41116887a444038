//! `validate_prompt` of ComfyUI: which outputs of a prompt may run, what is wrong with the others. Coerces literal
//! inputs in place, as the server does.

mod literal;

pub(crate) use literal::truthy;

use std::collections::HashSet;

use indexmap::IndexMap;
use serde_json::{Map, Value, json};

use crate::{files::Dirs, nodes::catalogue::Catalogue, pyjson};

/// A prompt of which at least one output may run.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) outputs: Vec<String>,
    /// Errors of the outputs that were dropped.
    pub(crate) node_errors: Map<String, Value>,
}

/// The 400 answer.
#[derive(Debug)]
pub(crate) struct Rejected {
    pub(crate) error: Value,
    pub(crate) node_errors: Map<String, Value>,
}

impl Rejected {
    pub(crate) fn new(kind: &str, message: &str, details: &str) -> Box<Self> {
        let error = json!({ "type": kind, "message": message, "details": details, "extra_info": {} });
        Box::new(Self { error, node_errors: Map::new() })
    }
}

/// A Python exception that escaped a check.
#[derive(Debug)]
struct Exception {
    kind: &'static str,
    message: String,
}

impl Exception {
    fn key(key: &Value) -> Self {
        Self { kind: "KeyError", message: pyjson::repr(key) }
    }
}

pub(crate) fn validate(
    catalogue: &Catalogue,
    dirs: &Dirs,
    prompt: &mut Map<String, Value>,
    targets: Option<&[String]>,
) -> Result<Accepted, Box<Rejected>> {
    let outputs = output_nodes(catalogue, prompt, targets)?;
    let mut check =
        Check { catalogue, dirs, prompt, validated: IndexMap::new(), in_progress: HashSet::new() };
    let mut good = Vec::new();
    let mut own_errors = Vec::new();
    let mut node_errors = Map::new();
    for output in outputs {
        let valid = check.output(&output);
        if valid {
            good.push(output);
        } else {
            own_errors
                .extend(check.validated.get(&output).map(|(_, errors)| errors.clone()).unwrap_or_default());
            check.report(&output, &mut node_errors);
        }
    }
    if good.is_empty() {
        let line = |error: &Value| {
            format!("{}: {}", pyjson::text(&error["message"]), pyjson::text(&error["details"]))
        };
        let details = own_errors.iter().map(line).collect::<Vec<_>>().join("\n");
        let kind = "prompt_outputs_failed_validation";
        let mut rejected = Rejected::new(kind, "Prompt outputs failed validation", &details);
        rejected.node_errors = node_errors;
        return Err(rejected);
    }
    Ok(Accepted { outputs: good, node_errors })
}

fn output_nodes(
    catalogue: &Catalogue,
    prompt: &Map<String, Value>,
    targets: Option<&[String]>,
) -> Result<Vec<String>, Box<Rejected>> {
    let mut outputs = Vec::new();
    for (id, node) in prompt {
        let place = format!("Node ID '#{id}'");
        let Some(class_type) = node.get("class_type") else {
            let message = "Cannot execute because a node is missing the class_type property.";
            return Err(Rejected::new("invalid_prompt", message, &place));
        };
        let Some(class) = class_type.as_str().and_then(|name| catalogue.class(name)) else {
            let message = format!("Cannot execute because node {} does not exist.", pyjson::text(class_type));
            return Err(Rejected::new("invalid_prompt", &message, &place));
        };
        if class.is_output && targets.is_none_or(|targets| targets.contains(id)) {
            outputs.push(id.clone());
        }
    }
    if outputs.is_empty() {
        return Err(Rejected::new("prompt_no_outputs", "Prompt has no outputs", ""));
    }
    Ok(outputs)
}

struct Check<'a> {
    catalogue: &'a Catalogue,
    dirs: &'a Dirs,
    prompt: &'a mut Map<String, Value>,
    validated: IndexMap<String, (bool, Vec<Value>)>,
    in_progress: HashSet<String>,
}

impl Check<'_> {
    fn output(&mut self, id: &str) -> bool {
        match self.node(id) {
            Ok(valid) => valid,
            Err(exception) => {
                let error = json!({
                    "type": "exception_during_validation",
                    "message": "Exception when validating node",
                    "details": exception.message,
                    "extra_info": { "exception_type": exception.kind, "traceback": traceback() },
                });
                self.validated.insert(id.into(), (false, vec![error]));
                false
            }
        }
    }

    /// Only nodes with errors of their own are named, each with every output it spoils.
    fn report(&self, output: &str, node_errors: &mut Map<String, Value>) {
        for (id, (valid, errors)) in &self.validated {
            if *valid || errors.is_empty() {
                continue;
            }
            let entry = node_errors.entry(id.clone()).or_insert_with(|| {
                let class_type = self.prompt.get(id).and_then(|node| node.get("class_type"));
                json!({ "errors": errors, "dependent_outputs": [], "class_type": class_type })
            });
            if let Some(outputs) = entry["dependent_outputs"].as_array_mut() {
                outputs.push(json!(output));
            }
        }
    }

    /// A cycle makes every node on it invalid without a word, which is what the recursion limit leaves in ComfyUI.
    fn node(&mut self, id: &str) -> Result<bool, Exception> {
        if let Some((valid, _)) = self.validated.get(id) {
            return Ok(*valid);
        }
        if !self.in_progress.insert(id.into()) {
            return Ok(false);
        }
        let result = self.inputs(id);
        self.in_progress.remove(id);
        let (valid, errors) = result?;
        let valid = valid && errors.is_empty();
        self.validated.insert(id.into(), (valid, errors));
        Ok(valid)
    }

    fn inputs(&mut self, id: &str) -> Result<(bool, Vec<Value>), Exception> {
        let node = self.prompt.get(id).ok_or_else(|| Exception::key(&json!(id)))?;
        let class_type = node.get("class_type").and_then(Value::as_str).unwrap_or_default().to_owned();
        if !node.get("inputs").is_some_and(Value::is_object) {
            return Err(Exception::key(&json!("inputs")));
        }
        let sections = self.catalogue.input(&class_type, self.dirs).unwrap_or_default();
        let own_check: &[&str] = if class_type.starts_with("LoadImage") { &["image"] } else { &[] };
        let (mut valid, mut errors) = (true, Vec::new());
        for (section, inputs) in sections.iter().filter(|(section, _)| *section != "hidden") {
            for (name, definition) in inputs.as_object().into_iter().flatten() {
                let input = Input { id, name, definition, required: section == "required" };
                match self.input(&input, own_check)? {
                    Found::Good => {}
                    Found::BadUpstream => valid = false,
                    Found::Error(error) => errors.push(error),
                }
            }
        }
        errors.extend(own_check.iter().filter_map(|name| self.custom(id, name)));
        Ok((valid, errors))
    }

    fn input(&mut self, input: &Input<'_>, own_check: &[&str]) -> Result<Found, Exception> {
        let Some(value) = self.prompt[input.id]["inputs"].get(input.name).cloned() else {
            let missing =
                input.error("required_input_missing", "Required input is missing", input.name, json!({}));
            return Ok(if input.required { Found::Error(missing) } else { Found::Good });
        };
        if let Value::Array(link) = &value {
            return self.link(input, link, &value);
        }
        match literal::check(input, value, own_check.contains(&input.name)) {
            Ok(coerced) => {
                self.prompt[input.id]["inputs"][input.name] = coerced;
                Ok(Found::Good)
            }
            Err(error) => Ok(Found::Error(error)),
        }
    }

    fn link(&mut self, input: &Input<'_>, link: &[Value], value: &Value) -> Result<Found, Exception> {
        let [from, slot] = link else {
            let message = "Bad linked input, must be a length-2 list of [node_id, slot_index]";
            let extra = json!({ "input_config": input.config(), "received_value": value });
            return Ok(Found::Error(input.error("bad_linked_input", message, input.name, extra)));
        };
        let (from_id, received) = self.output_type(from, slot)?;
        if !types_match(&received, input.kind()) {
            let wanted = pyjson::text(input.kind());
            let details = format!("{}, received_type({received}) mismatch input_type({wanted})", input.name);
            let extra =
                json!({ "input_config": input.config(), "received_type": received, "linked_node": value });
            let message = "Return type mismatch between linked nodes";
            return Ok(Found::Error(input.error("return_type_mismatch", message, &details, extra)));
        }
        match self.node(&from_id) {
            Ok(true) => Ok(Found::Good),
            Ok(false) => Ok(Found::BadUpstream),
            Err(exception) => {
                let extra = json!({
                    "input_config": input.config(),
                    "exception_message": exception.message,
                    "exception_type": exception.kind,
                    "traceback": traceback(),
                    "linked_node": value,
                });
                let message = "Exception when validating inner node";
                let error =
                    input.error("exception_during_inner_validation", message, &exception.message, extra);
                self.validated.insert(from_id, (false, vec![error]));
                Ok(Found::BadUpstream)
            }
        }
    }

    fn output_type(&self, from: &Value, slot: &Value) -> Result<(String, String), Exception> {
        if from.is_array() || from.is_object() {
            let message = format!("unhashable type: '{}'", if from.is_array() { "list" } else { "dict" });
            return Err(Exception { kind: "TypeError", message });
        }
        let (Some(id), Some(node)) = (from.as_str(), from.as_str().and_then(|id| self.prompt.get(id))) else {
            return Err(Exception::key(from));
        };
        let class =
            node.get("class_type").and_then(Value::as_str).and_then(|name| self.catalogue.class(name));
        let outputs = class.map(|class| class.outputs.as_slice()).unwrap_or_default();
        let Some(slot) = slot.as_i64() else {
            let kind = match slot {
                Value::Number(_) => "float",
                Value::String(_) => "str",
                Value::Null => "NoneType",
                Value::Array(_) => "list",
                _ => "dict",
            };
            let message = format!("tuple indices must be integers or slices, not {kind}");
            return Err(Exception { kind: "TypeError", message });
        };
        let slot = if slot < 0 { slot + outputs.len() as i64 } else { slot };
        let received = usize::try_from(slot).ok().and_then(|slot| outputs.get(slot));
        let out_of_range = || Exception { kind: "IndexError", message: "tuple index out of range".into() };
        Ok((id.to_owned(), received.ok_or_else(out_of_range)?.clone()))
    }

    /// `VALIDATE_INPUTS` of the image loaders.
    fn custom(&self, id: &str, name: &str) -> Option<Value> {
        let value = self.prompt[id]["inputs"].get(name)?.as_str()?;
        if self.dirs.annotated(value).is_some_and(|path| path.exists()) {
            return None;
        }
        Some(json!({
            "type": "custom_validation_failed",
            "message": "Custom validation failed for node",
            "details": format!("{name} - Invalid image file: {value}"),
            "extra_info": { "input_name": name },
        }))
    }
}

enum Found {
    Good,
    BadUpstream,
    Error(Value),
}

/// One declared input of one node.
struct Input<'a> {
    id: &'a str,
    name: &'a str,
    definition: &'a Value,
    required: bool,
}

impl Input<'_> {
    fn kind(&self) -> &Value {
        &self.definition[0]
    }

    fn option(&self, key: &str) -> Option<&Value> {
        self.definition.get(1)?.get(key)
    }

    /// `(type, options)`, the options always present.
    fn config(&self) -> Value {
        json!([self.kind(), self.definition.get(1).cloned().unwrap_or_else(|| json!({}))])
    }

    fn error(&self, kind: &str, message: &str, details: &str, extra: Value) -> Value {
        let mut extra_info = json!({ "input_name": self.name });
        if let (Value::Object(info), Value::Object(extra)) = (&mut extra_info, extra) {
            info.extend(extra);
        }
        json!({ "type": kind, "message": message, "details": details, "extra_info": extra_info })
    }
}

fn types_match(received: &str, wanted: &Value) -> bool {
    let Some(wanted) = wanted.as_str() else { return received == "COMBO" || received == "*" };
    let mut names = wanted.split(',').map(str::trim);
    names.any(|name| name == "*" || received.split(',').any(|kind| kind.trim() == name || kind.trim() == "*"))
}

fn traceback() -> Value {
    json!([
        "  File \"execution.py\", line 0, in validate_prompt\n    m = await validate_inputs(prompt_id, prompt, o, validated)\n"
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Flavour};

    fn run(
        flavour: Flavour,
        mut prompt: Value,
        targets: Option<&[String]>,
    ) -> Result<Accepted, Box<Rejected>> {
        let catalogue = Catalogue::new(&Config { flavour, ..Config::default() });
        let dirs = Dirs::open(None).expect("a folder");
        validate(&catalogue, &dirs, prompt.as_object_mut().expect("an object"), targets)
    }

    fn save(images: Value) -> Value {
        json!({ "class_type": "SaveImage", "inputs": { "images": images, "filename_prefix": "x" } })
    }

    fn empty(width: Value) -> Value {
        json!({ "class_type": "EmptyImage", "inputs": { "width": width, "height": 8, "batch_size": 1, "color": 0 } })
    }

    fn first_error(rejected: &Rejected, id: &str) -> Value {
        rejected.node_errors[id]["errors"][0].clone()
    }

    #[test]
    fn a_cycle_fails_without_details() {
        let invert = |from: &str| json!({ "class_type": "ImageInvert", "inputs": { "image": [from, 0] } });
        let prompt = json!({ "1": invert("2"), "2": invert("1"), "3": save(json!(["1", 0])) });
        let rejected = run(Flavour::V0_8_0, prompt, None).expect_err("a cycle");
        assert_eq!(rejected.error["type"], "prompt_outputs_failed_validation");
        assert_eq!((&rejected.error["details"], rejected.node_errors.len()), (&json!(""), 0));
    }

    #[test]
    fn wrong_links_are_told_apart() {
        let prompt = json!({ "1": empty(json!(8)), "3": save(json!(["1", 0, 0])) });
        let rejected = run(Flavour::V0_8_0, prompt, None).expect_err("three parts");
        assert_eq!(first_error(&rejected, "3")["type"], "bad_linked_input");
        let latent = json!({ "class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1} });
        let rejected =
            run(Flavour::V0_8_0, json!({ "1": latent, "3": save(json!(["1", 0])) }), None).expect_err("type");
        let details = "images, received_type(LATENT) mismatch input_type(IMAGE)";
        assert_eq!(first_error(&rejected, "3")["details"], details);
        assert_eq!(
            rejected.error["details"],
            format!("Return type mismatch between linked nodes: {details}")
        );
    }

    #[test]
    fn combos_of_v3_classes_are_checked_by_0_8_0_only() {
        let loader = json!({ "class_type": "UpscaleModelLoader", "inputs": { "model_name": "no.pth" } });
        let upscale = json!({ "class_type": "ImageUpscaleWithModel", "inputs": { "upscale_model": ["1", 0], "image": ["2", 0] } });
        let prompt = json!({ "1": loader, "2": empty(json!(8)), "3": upscale, "4": save(json!(["3", 0])) });
        let rejected = run(Flavour::V0_8_0, prompt, None).expect_err("no such model");
        assert_eq!(
            first_error(&rejected, "1")["details"],
            "model_name: 'no.pth' not in ['4x-UltraSharp.pth']"
        );
        assert_eq!(first_error(&rejected, "1")["extra_info"]["input_config"][0], "COMBO");
    }

    #[test]
    fn targets_choose_outputs() {
        let prompt = json!({ "1": empty(json!(8)), "2": save(json!(["1", 0])), "3": save(json!(["1", 0])) });
        let accepted = run(Flavour::V0_3_64, prompt.clone(), Some(&["3".into()])).expect("one output");
        assert_eq!(accepted.outputs, ["3"]);
        let rejected = run(Flavour::V0_3_64, prompt, Some(&[])).expect_err("no output");
        assert_eq!(rejected.error["type"], "prompt_no_outputs");
    }

    #[test]
    fn long_lists_are_not_sent_back() {
        let config = (0..21).fold(crate::config::Models::none(), |m, i| m.with("vae", &format!("v{i}"), 1));
        let catalogue = Catalogue::new(&Config { models: config, ..Config::default() });
        let mut prompt = json!({
            "1": { "class_type": "VAELoader", "inputs": { "vae_name": "none" } },
            "2": { "class_type": "EmptyLatentImage", "inputs": { "width": 64, "height": 64, "batch_size": 1 } },
            "3": { "class_type": "VAEDecode", "inputs": { "samples": ["2", 0], "vae": ["1", 0] } },
            "4": save(json!(["3", 0])),
        });
        let dirs = Dirs::open(None).expect("a folder");
        let rejected =
            validate(&catalogue, &dirs, prompt.as_object_mut().expect("object"), None).expect_err("vae");
        assert_eq!(first_error(&rejected, "1")["details"], "vae_name: 'none' not in (list of length 21)");
        assert_eq!(first_error(&rejected, "1")["extra_info"]["input_config"], Value::Null);
    }
}
