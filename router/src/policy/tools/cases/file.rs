//! A file of cases, as written and as read.

use std::path::Path;

use serde_json::{Map, Value};

use super::super::ToolError;
use super::ask::{Instance, Who};
use super::layout;
use crate::policy::tools::Settings;

/// What a case, or all cases of a file, say about the world around the question.
#[derive(Debug, Clone, Default)]
pub(super) struct Shared {
    pub settings: Settings,
    /// Names by index, for `queue` and `fleet`.
    pub tenants: Vec<Who>,
    pub clients: Vec<Who>,
    pub instances: Vec<Instance>,
    pub now_ms: Option<u64>,
}

#[derive(Debug)]
pub(super) struct File {
    /// Everything but the cases, in its order.
    rest: Map<String, Value>,
    pub shared: Shared,
    pub cases: Vec<Case>,
}

#[derive(Debug)]
pub(super) struct Case {
    rest: Map<String, Value>,
    pub name: String,
    pub shared: Shared,
    /// `configure` must refuse the settings, with a message that contains this.
    pub refused: Option<String>,
    pub steps: Vec<Step>,
    /// The one step is written into the case itself.
    inline: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Step {
    pub hook: String,
    pub view: Value,
    pub expect: Option<Value>,
    /// Time passed since the step before.
    pub after_ms: u64,
}

const SHARED: [&str; 5] = ["settings", "tenants", "clients", "instances", "now_ms"];

impl File {
    pub(super) fn read(path: &Path) -> Result<Self, ToolError> {
        let text = std::fs::read_to_string(path).map_err(|error| ToolError::file(path, &error))?;
        let wrong = |message: String| ToolError::Case { path: path.to_owned(), message };
        let value: Value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        Self::parse(value).map_err(wrong)
    }

    fn parse(value: Value) -> Result<Self, String> {
        let Value::Object(mut rest) = value else { return Err("it is no object with `cases`".to_owned()) };
        let Some(Value::Array(cases)) = rest.shift_remove("cases") else {
            return Err("it has no list of `cases`".to_owned());
        };
        known(&rest, &[&SHARED[..], &["about"]].concat())?;
        let shared = Shared::parse(&rest)?;
        let cases = cases
            .into_iter()
            .enumerate()
            .map(|(n, case)| Case::parse(case).map_err(|message| format!("case {}: {message}", n + 1)));
        Ok(Self { shared, cases: cases.collect::<Result<_, _>>()?, rest })
    }

    /// Whole or not at all: its cases were written by hand. A link stays one.
    pub(super) fn write(&self, path: &Path) -> Result<(), ToolError> {
        let mut whole = self.rest.clone();
        whole.insert("cases".to_owned(), self.cases.iter().map(Case::value).collect());
        let text = layout::text(&Value::Object(whole));
        let write = || {
            let file = path.canonicalize()?;
            let part = file.with_extension("json.part");
            std::fs::write(&part, text)?;
            std::fs::set_permissions(&part, std::fs::metadata(&file)?.permissions())?;
            std::fs::rename(part, file)
        };
        write().map_err(|error| ToolError::file(path, &error))
    }
}

fn known(object: &Map<String, Value>, names: &[&str]) -> Result<(), String> {
    match object.keys().find(|key| !names.contains(&key.as_str())) {
        Some(key) => Err(format!("unknown key `{key}`, expected one of {}", names.join(", "))),
        None => Ok(()),
    }
}

fn part<T: serde::de::DeserializeOwned + Default>(
    object: &Map<String, Value>,
    key: &str,
) -> Result<T, String> {
    object.get(key).map_or_else(
        || Ok(T::default()),
        |value| serde_json::from_value(value.clone()).map_err(|error| format!("{key}: {error}")),
    )
}

impl Shared {
    fn parse(object: &Map<String, Value>) -> Result<Self, String> {
        Ok(Self {
            settings: part(object, "settings")?,
            tenants: part(object, "tenants")?,
            clients: part(object, "clients")?,
            instances: part(object, "instances")?,
            now_ms: part(object, "now_ms")?,
        })
    }
}

impl Case {
    fn parse(value: Value) -> Result<Self, String> {
        let Value::Object(mut rest) = value else { return Err("it is no object".to_owned()) };
        let name: String = part(&rest, "name")?;
        if name.is_empty() {
            return Err("it has no `name`".to_owned());
        }
        let in_case = |message: String| format!("{name}: {message}");
        let shared = Shared::parse(&rest).map_err(in_case)?;
        let refused: Option<String> = part(&rest, "refused").map_err(in_case)?;
        if refused.is_some() && rest.contains_key("steps") {
            return Err(in_case("with `refused` no guest is there that could be asked `steps`".to_owned()));
        }
        let inline = !rest.contains_key("steps") && refused.is_none();
        let steps = if inline {
            let keys: Vec<String> = rest
                .keys()
                .filter(|key| !SHARED.contains(&key.as_str()) && *key != "name")
                .cloned()
                .collect();
            let step: Map<String, Value> = keys
                .into_iter()
                .filter_map(|key| rest.shift_remove(&key).map(|value| (key, value)))
                .collect();
            vec![Step::parse(Value::Object(step)).map_err(in_case)?]
        } else {
            let steps: Vec<Value> = part(&rest, "steps").map_err(in_case)?;
            rest.shift_remove("steps");
            steps.into_iter().map(Step::parse).collect::<Result<_, _>>().map_err(in_case)?
        };
        known(&rest, &[&SHARED[..], &["name", "refused"]].concat()).map_err(in_case)?;
        if steps.is_empty() && refused.is_none() {
            return Err(in_case("it has no steps".to_owned()));
        }
        Ok(Self { rest, name, shared, refused, steps, inline })
    }

    fn value(&self) -> Value {
        let mut whole = self.rest.clone();
        if self.inline {
            whole.extend(self.steps.iter().flat_map(Step::entries));
        } else if self.refused.is_none() {
            let steps = self.steps.iter().map(|step| Value::Object(step.entries().into_iter().collect()));
            whole.insert("steps".to_owned(), steps.collect());
        }
        Value::Object(whole)
    }
}

impl Step {
    fn parse(value: Value) -> Result<Self, String> {
        let Value::Object(mut object) = value else { return Err("a step is an object".to_owned()) };
        let after_ms = part(&object, "after_ms")?;
        object.shift_remove("after_ms");
        let expect = object.shift_remove("expect");
        let mut hooks = object.into_iter();
        match (hooks.next(), hooks.next()) {
            (Some((hook, view)), None) => Ok(Self { hook, view, expect, after_ms }),
            (None, _) => Err("a step needs a hook to ask, such as `route`".to_owned()),
            (Some((one, _)), Some((other, _))) => {
                Err(format!("a step asks one hook, and here are `{one}` and `{other}`"))
            }
        }
    }

    fn entries(&self) -> Vec<(String, Value)> {
        let mut entries = Vec::new();
        if self.after_ms > 0 {
            entries.push(("after_ms".to_owned(), self.after_ms.into()));
        }
        entries.push((self.hook.clone(), self.view.clone()));
        entries.extend(self.expect.clone().map(|expect| ("expect".to_owned(), expect)));
        entries
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_file_that_is_written_is_the_file_that_was_read() {
        let value = json!({
            "about": "x", "settings": {"a": 1}, "tenants": ["t"],
            "cases": [
                {"name": "inline", "route": {"job": {}}, "expect": {"ranked": [0]}},
                {"name": "steps", "now_ms": 5, "steps": [{"after_ms": 3, "tick": {}}, {"tick": {}, "expect": []}]},
                {"name": "refused", "settings": {"b": 1}, "refused": "b"}
            ]
        });
        let file = File::parse(value.clone()).unwrap();
        let mut whole = file.rest.clone();
        whole.insert("cases".to_owned(), file.cases.iter().map(Case::value).collect());
        assert_eq!(Value::Object(whole), value);
        assert_eq!(file.cases[1].steps[0].after_ms, 3);
    }

    #[test]
    fn mistakes_are_named_with_their_case() {
        for (value, said) in [
            (json!([]), "no object"),
            (json!({"case": []}), "no list of `cases`"),
            (json!({"cases": [], "setings": {}}), "unknown key `setings`"),
            (json!({"cases": [{"route": {}}]}), "case 1: it has no `name`"),
            (json!({"cases": [{"name": "n"}]}), "case 1: n: a step needs a hook"),
            (json!({"cases": [{"name": "n", "route": {}, "tick": {}}]}), "one hook"),
            (json!({"cases": [{"name": "n", "steps": [3]}]}), "a step is an object"),
            (json!({"cases": [{"name": "n", "steps": [], "expct": 1}]}), "unknown key `expct`"),
            (json!({"cases": [{"name": "n", "steps": []}]}), "n: it has no steps"),
            (json!({"cases": [{"name": "n", "refused": "", "steps": [{"tick": {}}]}]}), "n: with `refused`"),
            (json!({"cases": [{"name": "n", "tenants": [1], "tick": {}}]}), "n: tenants: "),
        ] {
            let error = File::parse(value.clone()).unwrap_err();
            assert!(error.contains(said), "{value}: {error}");
        }
    }
}
