//! ComfyUI's `validate_prompt`, from what `/object_info` tells: the same verdicts in the same words.
//!
//! Where `/object_info` does not tell enough (a custom class may check its inputs itself, which switches ComfyUI's checks
//! of bounds and choices off) nothing is refused; the instance judges, and what it refuses ends the job with its words.
//!
//! ComfyUI walks the inputs of a node in no particular order; here it is the declared one.

mod configs;
mod value;

use std::collections::HashSet;

use indexmap::IndexMap;
use serde_json::{Map, Value, json};

use configs::Configs;

use super::{Flaw, Graph, Input, Known, Lacking, Node};
use crate::comfy::catalogue::{self, ClassInfo, InputKind, OutputType, TypeName};
use crate::comfy::errors::{PromptError, clip};
use crate::comfy::files;
use crate::comfy::python::{self, Num};

/// More faulty nodes than this are not described.
const MAX_REPORTED: usize = 100;
/// Of the lines that say what is wrong.
const MAX_LINES: usize = 1_000;
/// Of a client's text that an error repeats, in bytes.
const MAX_ECHO: usize = 2_000;

pub(super) struct Checked {
    /// Outputs that can run, in the order given.
    pub(super) good: Vec<String>,
    pub(super) node_errors: Map<String, Value>,
}

/// As in ComfyUI, outputs that fail are dropped and the rest runs; an error only if none is left.
pub(super) fn outputs(graph: &Graph, outputs: &[String], known: &Known<'_>) -> Result<Checked, PromptError> {
    let mut walk = Walk {
        graph,
        known,
        configs: Configs::new(known.catalogue),
        validated: IndexMap::new(),
        open: HashSet::new(),
        cyclic: false,
        lacking: Lacking::default(),
    };
    let (mut good, mut lines, mut node_errors) = (Vec::new(), Vec::new(), Map::new());
    for id in outputs {
        if walk.output(id) {
            good.push(id.clone());
        } else {
            lines.extend(walk.lines_of(id).into_iter().take(MAX_LINES - lines.len()));
            walk.report(id, &mut node_errors);
        }
    }
    if good.is_empty() {
        let message = "Prompt outputs failed validation";
        let mut error = PromptError::new("prompt_outputs_failed_validation", message, lines.join("\n"));
        if walk.cyclic && node_errors.is_empty() {
            // ComfyUI says nothing at all here.
            error.extra_info.insert("reason".into(), "the nodes depend on each other in a cycle".into());
        }
        return Err(PromptError {
            node_errors: Box::new(node_errors),
            lacking: Box::new(walk.lacking),
            ..error
        });
    }
    Ok(Checked { good, node_errors })
}

/// A Python exception that a check runs into.
struct Raised {
    kind: &'static str,
    message: String,
}

impl Raised {
    fn key(key: &Value) -> Self {
        Self { kind: "KeyError", message: clip(&python::repr(key), MAX_ECHO).to_owned() }
    }
}

/// What a node's check came to: valid or not, or an exception.
type Outcome = Result<bool, Raised>;

struct Walk<'a> {
    graph: &'a Graph,
    known: &'a Known<'a>,
    configs: Configs<'a>,
    /// Node to whether it is valid, and its own errors.
    validated: IndexMap<&'a str, (bool, Vec<Value>)>,
    /// Nodes whose check has begun.
    open: HashSet<&'a str>,
    cyclic: bool,
    lacking: Lacking,
}

/// The check of one node, as far as it has come.
struct Frame<'a> {
    id: &'a str,
    node: &'a Node,
    class: Option<&'a ClassInfo>,
    /// The next declared input.
    next: usize,
    valid: bool,
    errors: Vec<Value>,
}

enum Step<'a> {
    /// The node behind an input must be checked first.
    Into(&'a str),
    Done(Outcome),
}

impl<'a> Walk<'a> {
    /// One output and all that it depends on. Not recursive: chains can be long, and stacks are short.
    fn output(&mut self, id: &'a str) -> bool {
        if let Some((valid, _)) = self.validated.get(id) {
            return *valid;
        }
        let mut stack = Vec::new();
        stack.extend(self.frame(id));
        while let Some(frame) = stack.last_mut() {
            match self.step(frame) {
                Step::Into(from) => match self.known_outcome(from) {
                    Some(valid) => frame.valid &= valid,
                    None => stack.extend(self.frame(from)),
                },
                Step::Done(outcome) => {
                    let id = frame.id;
                    let errors = std::mem::take(&mut frame.errors);
                    stack.pop();
                    self.close(id, errors, outcome, stack.last_mut());
                }
            }
        }
        self.validated.get(id).is_some_and(|(valid, _)| *valid)
    }

    fn frame(&mut self, id: &'a str) -> Option<Frame<'a>> {
        let (id, node) = self.graph.nodes.get_key_value(id)?;
        self.open.insert(id);
        let class = self.known.catalogue.class(&node.class);
        Some(Frame { id, node, class, next: 0, valid: true, errors: Vec::new() })
    }

    /// None: not looked at yet. A node that is being looked at is on a cycle: Python's recursion ends there, and the
    /// nodes of the cycle are invalid without a word.
    fn known_outcome(&mut self, id: &str) -> Option<bool> {
        if let Some((valid, _)) = self.validated.get(id) {
            return Some(*valid);
        }
        self.cyclic |= self.open.contains(id);
        self.open.contains(id).then_some(false)
    }

    fn close(&mut self, id: &'a str, errors: Vec<Value>, outcome: Outcome, user: Option<&mut Frame<'a>>) {
        self.open.remove(id);
        let entry = match (outcome, user) {
            (Ok(valid), user) => {
                let valid = valid && errors.is_empty();
                if let Some(user) = user {
                    user.valid &= valid;
                }
                (valid, errors)
            }
            (Err(raised), Some(user)) => {
                user.valid = false;
                (false, vec![self.inner_exception(user, raised)])
            }
            (Err(raised), None) => {
                let extra = json!({"exception_type": raised.kind, "traceback": []});
                let message = "Exception when validating node";
                (false, vec![fault("exception_during_validation", message, &raised.message, extra)])
            }
        };
        self.validated.insert(id, entry);
    }

    /// Blamed on the node that raised it, in the words of the input that led there.
    fn inner_exception(&self, user: &Frame<'a>, raised: Raised) -> Value {
        let name =
            user.class.and_then(|class| class.inputs.get_index(user.next - 1)).map_or("", |(name, _)| name);
        let extra = json!({
            "input_name": name,
            "input_config": self.configs.shown(&user.node.class, name),
            "exception_message": raised.message,
            "exception_type": raised.kind,
            "traceback": [],
            "linked_node": user.node.inputs.get(name).map(Input::value),
        });
        let message = "Exception when validating inner node";
        fault("exception_during_inner_validation", message, &raised.message, extra)
    }

    fn step(&mut self, frame: &mut Frame<'a>) -> Step<'a> {
        if frame.node.flaw == Some(Flaw::NoInputs) {
            return Step::Done(Err(Raised::key(&json!("inputs"))));
        }
        while let Some((name, declared)) = frame.class.and_then(|class| class.inputs.get_index(frame.next)) {
            frame.next += 1;
            let Some(given) = frame.node.inputs.get(name) else {
                if declared.required && declared.kind != InputKind::Dynamic {
                    let extra = json!({"input_name": name});
                    frame.errors.push(fault(
                        "required_input_missing",
                        "Required input is missing",
                        name,
                        extra,
                    ));
                }
                continue;
            };
            match self.input(frame, name, declared, given) {
                Ok(Found::Good) => {}
                Ok(Found::Fault(fault)) => frame.errors.push(fault),
                Ok(Found::From(from)) => return Step::Into(from),
                Err(raised) => return Step::Done(Err(raised)),
            }
        }
        frame.errors.extend(self.absent_files(frame));
        Step::Done(Ok(frame.valid))
    }

    fn input(
        &mut self,
        frame: &Frame<'a>,
        name: &str,
        declared: &catalogue::Input,
        given: &'a Input,
    ) -> Result<Found<'a>, Raised> {
        match given {
            Input::Link { node, slot } => {
                self.link(frame, (name, declared), (node, &slot.value(), Some(*slot)))
            }
            Input::Other(text) if text.starts_with('[') => {
                match &serde_json::from_str::<Vec<Value>>(text).unwrap_or_default()[..] {
                    [Value::String(node), slot] => self.link(frame, (name, declared), (node, slot, None)),
                    [Value::Array(_), _] => {
                        Err(Raised { kind: "TypeError", message: "unhashable type: 'list'".into() })
                    }
                    [Value::Object(_), _] => {
                        Err(Raised { kind: "TypeError", message: "unhashable type: 'dict'".into() })
                    }
                    [node, _] => Err(Raised::key(node)),
                    _ => {
                        let message = "Bad linked input, must be a length-2 list of [node_id, slot_index]";
                        let extra = json!({
                            "input_name": name,
                            "input_config": self.configs.shown(&frame.node.class, name),
                            "received_value": echo(given),
                        });
                        Ok(Found::Fault(fault("bad_linked_input", message, name, extra)))
                    }
                }
            }
            literal => {
                let found = value::check(
                    &frame.node.class,
                    name,
                    declared,
                    literal,
                    (&self.configs, self.known.rules),
                );
                if let Some(missing) = found.as_ref().and_then(|_| value::model(declared, literal)) {
                    self.lacking.models.push(missing);
                    self.lacking.loaders.push(frame.node.class.clone());
                }
                Ok(found.map_or(Found::Good, Found::Fault))
            }
        }
    }

    fn link(
        &self,
        frame: &Frame<'a>,
        (name, declared): (&str, &catalogue::Input),
        (from, slot, number): (&str, &Value, Option<Num>),
    ) -> Result<Found<'a>, Raised> {
        let Some((from, node)) = self.graph.nodes.get_key_value(from) else {
            return Err(Raised::key(&json!(from)));
        };
        let source = self.known.catalogue.class(&node.class);
        let received = match source {
            Some(class) if !class.outputs.is_empty() || class.core => output_type(class, slot, number)?,
            _ => &OutputType::Any,
        };
        if fits(received, declared, source.is_some_and(|class| class.core)) {
            return Ok(Found::From(from));
        }
        let received = if let OutputType::Named(received) = received { received.as_str() } else { "*" };
        let wanted = self.configs.kind(&frame.node.class, name);
        let details = format!("{name}, received_type({received}) mismatch input_type({wanted})");
        let extra = json!({
            "input_name": name, "input_config": self.configs.shown(&frame.node.class, name),
            "received_type": received, "linked_node": [from, slot],
        });
        let message = "Return type mismatch between linked nodes";
        Ok(Found::Fault(fault("return_type_mismatch", message, &details, extra)))
    }

    /// The own check of ComfyUI's loaders of uploaded files, and one that all who load such files should have.
    fn absent_files(&self, frame: &Frame<'a>) -> Vec<Value> {
        let inputs = frame.class.into_iter().flat_map(|class| &class.inputs);
        let missing = inputs.filter_map(|(name, declared)| {
            let Input::Text(value) = frame.node.inputs.get(name)? else { return None };
            let hostile = declared.upload && files::leads_out(value);
            let absent = || files::upload_ref(value).is_some_and(|file| self.known.absent.contains(&file));
            (hostile || declared.file_kind.is_some() && absent()).then(|| {
                let kind = declared.file_kind.map_or_else(String::new, |kind| format!("{kind} "));
                let details = format!("{name} - Invalid {kind}file: {}", clip(value, MAX_ECHO));
                let message = "Custom validation failed for node";
                fault("custom_validation_failed", message, &details, json!({"input_name": name}))
            })
        });
        missing.collect()
    }

    /// The lines ComfyUI puts into `details`: the faults of the output node itself.
    fn lines_of(&self, output: &str) -> Vec<String> {
        let text = |fault: &Value, name: &str| fault[name].as_str().unwrap_or_default().to_owned();
        let errors = self.validated.get(output).map_or(&[][..], |(_, errors)| errors);
        let line = |fault| format!("{}: {}", text(fault, "message"), text(fault, "details"));
        errors.iter().take(MAX_REPORTED).map(line).collect()
    }

    /// As in ComfyUI: everything found faulty so far is laid to this output's charge too.
    fn report(&self, output: &str, node_errors: &mut Map<String, Value>) {
        for (id, (valid, errors)) in &self.validated {
            if *valid || errors.is_empty() {
                continue;
            }
            if !node_errors.contains_key(*id) {
                if node_errors.len() >= MAX_REPORTED {
                    return;
                }
                let class = self.graph.nodes.get(*id).map_or("", |node| node.class.as_str());
                let entry = json!({"errors": errors, "dependent_outputs": [], "class_type": class});
                node_errors.insert((*id).to_owned(), entry);
            }
            if let Some(Value::Array(outputs)) = node_errors[*id].get_mut("dependent_outputs")
                && outputs.len() < MAX_REPORTED
            {
                outputs.push(output.into());
            }
        }
    }
}

enum Found<'a> {
    Good,
    Fault(Value),
    /// A good link to this node.
    From(&'a str),
}

fn fault(kind: &str, message: &str, details: &str, extra: Value) -> Value {
    json!({"type": kind, "message": message, "details": details, "extra_info": extra})
}

/// What was posted, as far as it is short enough to repeat.
fn echo(given: &Input) -> Value {
    match given {
        Input::Text(text) => clip(text, MAX_ECHO).into(),
        Input::Other(text) | Input::Wrapped(text) if text.len() > MAX_ECHO => clip(text, MAX_ECHO).into(),
        other => other.value(),
    }
}

/// `RETURN_TYPES[slot]`
fn output_type<'a>(
    class: &'a ClassInfo,
    slot: &Value,
    number: Option<Num>,
) -> Result<&'a OutputType, Raised> {
    let sequence = if class.v3 { "list" } else { "tuple" };
    let Some(Num::Int(at)) = number else {
        let kind = number.map_or_else(|| python::type_name(slot), |_| "float");
        let message = format!("{sequence} indices must be integers or slices, not {kind}");
        return Err(Raised { kind: "TypeError", message });
    };
    let at = if at < 0 { at + class.outputs.len() as i128 } else { at };
    let found = usize::try_from(at).ok().and_then(|at| class.outputs.get(at));
    found.ok_or_else(|| Raised { kind: "IndexError", message: format!("{sequence} index out of range") })
}

/// `validate_node_input`. Custom classes declare types that compare as they like; those have names of their own making.
fn fits(received: &OutputType, declared: &catalogue::Input, core: bool) -> bool {
    let (OutputType::Named(received), TypeName::Named(wanted)) = (received, &declared.type_name) else {
        let listed = declared.type_name == TypeName::List;
        return !listed
            || !matches!(received, OutputType::Named(name) if any(name).is_none() && name != "COMBO");
    };
    let plain =
        |name: &str| name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || "_,".contains(c));
    if declared.any_link || received == wanted || (!core && !plain(received)) {
        return true;
    }
    any(received).is_some()
        || any(wanted).is_some()
        || received.split(',').any(|one| wanted.split(',').any(|other| one.trim() == other.trim()))
}

/// Fits whatever is on the other side.
fn any(name: &str) -> Option<&str> {
    name.split(',')
        .map(str::trim)
        .find(|name| *name == "*")
        .or_else(|| (name == "COMFY_MATCHTYPE_V3").then_some(name))
}
