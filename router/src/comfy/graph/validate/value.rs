//! Literal values: Python's conversions, then the declared bounds or choices.

use serde_json::{Value, json};

use super::configs::Configs;
use super::{MAX_ECHO, echo, fault};
use crate::comfy::catalogue::{self, Check, InputKind, TypeName};
use crate::comfy::errors::clip;
use crate::comfy::graph::{Input, Rules};
use crate::comfy::python::{self, Num};
use crate::model::job::ModelRef;

/// ComfyUI does not print longer lists of choices.
const LONG_LIST: usize = 20;

/// One value of one input.
struct Checked<'a> {
    class: &'a str,
    name: &'a str,
    given: &'a Input,
    configs: &'a Configs<'a>,
    rules: Rules,
}

pub(super) fn check(
    class: &str,
    name: &str,
    declared: &catalogue::Input,
    given: &Input,
    (configs, rules): (&Configs<'_>, Rules),
) -> Option<Value> {
    let checked = Checked { class, name, given, configs, rules };
    let whole = declared.check == Check::Whole;
    match &declared.kind {
        InputKind::Int { min, max } => checked.number("INT", python::int, whole, (*min, *max)),
        InputKind::Float { min, max } => checked.number("FLOAT", python::float, whole, (*min, *max)),
        InputKind::Combo(choices) if whole => checked.choice(declared, choices.as_deref()),
        _ => None,
    }
}

/// The model that a faulty input asks for, if it asks for one.
pub(super) fn model(declared: &catalogue::Input, given: &Input) -> Option<ModelRef> {
    match (given, &declared.folder) {
        (Input::Text(name), Some(folder)) => {
            Some(ModelRef { folder: folder.clone(), name: clip(name, MAX_ECHO).to_owned() })
        }
        _ => None,
    }
}

impl Checked<'_> {
    fn config(&self) -> Value {
        self.configs.shown(self.class, self.name)
    }

    fn number(
        &self,
        kind: &str,
        convert: fn(&Value) -> Result<Num, String>,
        bounded: bool,
        (min, max): (Option<Num>, Option<Num>),
    ) -> Option<Value> {
        let number = match convert(&self.given.value()) {
            Ok(number) => number,
            Err(exception) => return Some(self.not_converted(kind, &exception)),
        };
        let (word, rule, bound) = match (min, max) {
            _ if !bounded => return None,
            (Some(min), _) if number < min => ("smaller", "min", min),
            (_, Some(max)) if number > max => ("bigger", "max", max),
            _ => return None,
        };
        let message = format!("Value {number} {word} than {rule} of {bound}");
        let extra = json!({
            "input_name": self.name, "input_config": self.config(), "received_value": number.value(),
        });
        Some(fault(&format!("value_{word}_than_{rule}"), &message, self.name, extra))
    }

    fn not_converted(&self, kind: &str, exception: &str) -> Value {
        let (given, exception) = (echo(self.given), clip(exception, MAX_ECHO));
        let shown = python::text(&given);
        let extra = json!({
            "input_name": self.name,
            "input_config": self.config(),
            "received_value": given,
            "exception_message": exception,
        });
        let message = format!("Failed to convert an input value to a {kind} value");
        fault("invalid_input_type", &message, &format!("{}, {shown}, {exception}", self.name), extra)
    }

    /// An empty list that is not of models belongs to a node that fills it in the browser, unless ComfyUI checks it.
    fn choice(&self, declared: &catalogue::Input, choices: Option<&[String]>) -> Option<Value> {
        if declared.type_name != TypeName::List && !self.rules.combo_options {
            return None;
        }
        if let (Input::Text(text), Some(choices)) = (self.given, choices)
            && choices.contains(text)
        {
            return None;
        }
        let config = self.configs.whole(self.class, self.name);
        let listed = match &config[0] {
            Value::Array(choices) => choices,
            _ => config[1].get("options").and_then(Value::as_array)?,
        };
        // Of texts that has been seen already.
        let texts = matches!(self.given, Input::Text(_)) && choices.is_some();
        let value = if texts { Value::Null } else { self.given.value() };
        if !texts && listed.iter().any(|choice| python::equal(choice, &value)) {
            return None;
        }
        let long = listed.len() > LONG_LIST;
        let shown_list = match long {
            true => format!("(list of length {})", listed.len()),
            false => python::repr(&config_list(listed)),
        };
        let given = echo(self.given);
        let details = format!("{}: '{}' not in {shown_list}", self.name, python::text(&given));
        let extra = json!({
            "input_name": self.name,
            "input_config": if long { Value::Null } else { self.config() },
            "received_value": given,
        });
        Some(fault("value_not_in_list", "Value not in list", &details, extra))
    }
}

fn config_list(choices: &[Value]) -> Value {
    Value::Array(choices.to_vec())
}
