//! One `/object_info` out of several: the union of classes, and of the choices of each list, in both of ComfyUI's list
//! shapes. What only some instances have is a matter of routing, not an error.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use indexmap::IndexMap;
use serde_json::Value;

use super::{Catalogue, Check, ClassInfo, Input, InputKind, OutputType, TypeName, capabilities};
use crate::comfy::json;
use crate::comfy::python::Num;

impl Catalogue {
    /// Cheap when the instances agree; proportional to what differs when they do not.
    pub fn merged(catalogues: &[Arc<Catalogue>]) -> Arc<Catalogue> {
        match catalogues {
            [] => Arc::default(),
            [first, rest @ ..] if rest.iter().all(|other| other.raw == first.raw) => first.clone(),
            _ => Arc::new(merge(catalogues)),
        }
    }
}

fn merge(catalogues: &[Arc<Catalogue>]) -> Catalogue {
    let mut sources: IndexMap<&str, Vec<&Arc<Catalogue>>> = IndexMap::new();
    for catalogue in catalogues {
        let mut names: Vec<(&String, &ClassInfo)> = catalogue.classes.iter().collect();
        names.sort_by_key(|(_, class)| class.span);
        for (name, _) in names {
            sources.entry(name).or_default().push(catalogue);
        }
    }
    let mut text = String::from("{");
    let mut classes = HashMap::with_capacity(sources.len());
    for (name, sources) in sources {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&json::quote(name));
        text.push(':');
        let start = text.len();
        let mut class = sources[0].classes[name].clone();
        merge_text(name, &sources, &mut text);
        for other in &sources[1..] {
            merge_class(&mut class, &other.classes[name]);
        }
        class.span = (start, text.len());
        classes.insert(name.to_owned(), class);
    }
    text.push('}');
    Catalogue { capabilities: Arc::new(capabilities(&classes)), classes, raw: Bytes::from(text) }
}

fn merge_text(name: &str, sources: &[&Arc<Catalogue>], out: &mut String) {
    let texts: Vec<&str> = sources.iter().map(|source| source.text_of(&source.classes[name])).collect();
    if texts.iter().all(|text| *text == texts[0]) {
        return out.push_str(texts[0]);
    }
    let mut infos = texts.iter().filter_map(|text| serde_json::from_str::<Value>(text).ok());
    let Some(mut merged) = infos.next() else { return out.push_str(texts[0]) };
    for info in infos {
        merge_info(&mut merged, &info);
    }
    out.push_str(&merged.to_string());
}

fn merge_info(into: &mut Value, from: &Value) {
    for group in ["required", "optional"] {
        let Some(from) = from.get("input").and_then(|input| input.get(group)).and_then(Value::as_object)
        else {
            continue;
        };
        for (name, declared) in from {
            merge_declared(into, group, name, declared);
        }
    }
}

fn merge_declared(into: &mut Value, group: &str, name: &str, declared: &Value) {
    let other_group = if group == "required" { "optional" } else { "required" };
    let Some(input) = into.get_mut("input").and_then(Value::as_object_mut) else { return };
    if input.get(other_group).is_some_and(|inputs| inputs.get(name).is_some()) {
        return;
    }
    let inputs = input.entry(group).or_insert_with(|| Value::Object(Default::default()));
    let Some(inputs) = inputs.as_object_mut() else { return };
    match inputs.get_mut(name) {
        Some(present) => {
            if let (Some(into), Some(from)) = (choices_mut(present), choices(declared)) {
                unite(into, from);
            }
        }
        None => {
            inputs.insert(name.to_owned(), declared.clone());
            let order = into.get_mut("input_order").and_then(|order| order.get_mut(group));
            if let Some(Value::Array(order)) = order {
                order.push(Value::from(name));
            }
        }
    }
}

/// `[["a","b"], {...}]` or `["COMBO", {"options": ["a","b"], ...}]`
fn choices(declared: &Value) -> Option<&Vec<Value>> {
    match declared.get(0)? {
        Value::Array(choices) => Some(choices),
        Value::String(kind) if kind == "COMBO" => declared.get(1)?.get("options")?.as_array(),
        _ => None,
    }
}

/// Lists of files have thousands of choices, and each loader has such a list.
fn unite(into: &mut Vec<Value>, from: &[Value]) {
    let known: HashSet<&str> = into.iter().filter_map(Value::as_str).collect();
    let is_new = |choice: &&Value| match choice.as_str() {
        Some(text) => !known.contains(text),
        None => !into.contains(choice),
    };
    let new: Vec<Value> = from.iter().filter(is_new).cloned().collect();
    into.extend(new);
}

fn choices_mut(declared: &mut Value) -> Option<&mut Vec<Value>> {
    match declared.get(0)? {
        Value::Array(_) => declared.get_mut(0)?.as_array_mut(),
        Value::String(kind) if kind == "COMBO" => declared.get_mut(1)?.get_mut("options")?.as_array_mut(),
        _ => None,
    }
}

/// An input is required where every instance that has the class requires it: a graph that omits it can run somewhere.
fn merge_class(into: &mut ClassInfo, from: &ClassInfo) {
    into.output_node |= from.output_node;
    into.core &= from.core;
    into.v3 |= from.v3;
    for (at, output) in from.outputs.iter().enumerate() {
        match into.outputs.get_mut(at) {
            Some(same) if same == output => {}
            Some(other) => *other = OutputType::Any,
            None => into.outputs.push(output.clone()),
        }
    }
    for (name, input) in &mut into.inputs {
        input.required &= from.inputs.get(name).is_some_and(|other| other.required);
    }
    for (name, other) in &from.inputs {
        match into.inputs.get_mut(name) {
            Some(input) => merge_input(input, other),
            None => {
                into.inputs.insert(name.clone(), Input { required: false, ..other.clone() });
            }
        }
    }
}

fn merge_input(into: &mut Input, from: &Input) {
    into.upload |= from.upload;
    into.any_link |= from.any_link;
    if from.check == Check::Conversion {
        into.check = Check::Conversion;
    }
    if into.type_name != from.type_name {
        into.type_name = TypeName::Any;
    }
    if into.folder.is_none() {
        into.folder.clone_from(&from.folder);
    }
    let least = |a: Option<Num>, b: Option<Num>| Some(if b? < a? { b? } else { a? });
    let most = |a: Option<Num>, b: Option<Num>| Some(if b? > a? { b? } else { a? });
    into.kind = match (std::mem::replace(&mut into.kind, InputKind::Dynamic), &from.kind) {
        (InputKind::Combo(Some(mut choices)), InputKind::Combo(Some(more))) => {
            let known: HashSet<&String> = choices.iter().collect();
            let new: Vec<String> = more.iter().filter(|choice| !known.contains(choice)).cloned().collect();
            choices.extend(new);
            InputKind::Combo(Some(choices))
        }
        (InputKind::Int { min, max }, InputKind::Int { min: low, max: high }) => {
            InputKind::Int { min: least(min, *low), max: most(max, *high) }
        }
        (InputKind::Float { min, max }, InputKind::Float { min: low, max: high }) => {
            InputKind::Float { min: least(min, *low), max: most(max, *high) }
        }
        (kind, other) if kind == *other => kind,
        // Declared differently: nothing can be said about its values.
        _ => InputKind::Other("*".to_owned()),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn catalogue(info: Value) -> Arc<Catalogue> {
        Arc::new(Catalogue::parse(Bytes::from(info.to_string())).unwrap())
    }

    #[test]
    fn lists_are_united_in_both_shapes() {
        let old = catalogue(
            json!({"L": {"input": {"required": {"ckpt_name": [["a.ckpt"], {"tooltip": "t"}]}}}, "Old": {}}),
        );
        let new = catalogue(
            json!({"L": {"input": {"required": {"ckpt_name": ["COMBO", {"options": ["b.ckpt", "a.ckpt"]}]}}}, "New": {}}),
        );
        let both = Catalogue::merged(&[old.clone(), new.clone()]);
        let info: Value = serde_json::from_slice(both.raw()).unwrap();
        assert_eq!(
            info["L"]["input"]["required"]["ckpt_name"],
            json!([["a.ckpt", "b.ckpt"], {"tooltip": "t"}])
        );
        assert!(info.get("Old").is_some() && info.get("New").is_some());
        let other = Catalogue::merged(&[new, old]);
        let info: Value = serde_json::from_slice(other.raw()).unwrap();
        assert_eq!(info["L"]["input"]["required"]["ckpt_name"][1]["options"], json!(["b.ckpt", "a.ckpt"]));
        assert_eq!(both.capabilities().models["checkpoints"].len(), 2);
        assert_eq!(serde_json::from_str::<Value>(&both.raw_class("L")).unwrap()["L"]["input"], {
            json!({"required": {"ckpt_name": [["a.ckpt", "b.ckpt"], {"tooltip": "t"}]}})
        });
    }

    #[test]
    fn an_input_only_some_require_is_optional() {
        let old = catalogue(
            json!({"S": {"input": {"required": {"a": ["INT", {"min": 1}]}}, "input_order": {"required": ["a"]}}}),
        );
        let new = catalogue(
            json!({"S": {"input": {"required": {"a": ["INT", {"min": 0}], "b": ["INT"]}}, "input_order": {"required": ["a", "b"]}}}),
        );
        let both = Catalogue::merged(&[old, new]);
        let class = both.class("S").unwrap();
        assert!(class.inputs["a"].required && !class.inputs["b"].required);
        assert_eq!(class.inputs["a"].kind, InputKind::Int { min: Some(Num::Int(0)), max: None });
        let info: Value = serde_json::from_slice(both.raw()).unwrap();
        assert_eq!(info["S"]["input_order"]["required"], json!(["a", "b"]));
    }

    #[test]
    fn instances_that_agree_share_one_text() {
        let one = catalogue(json!({"A": {}}));
        let two = catalogue(json!({"A": {}}));
        assert!(Arc::ptr_eq(&Catalogue::merged(&[one.clone(), two]), &one));
        assert!(Catalogue::merged(&[]).is_empty());
    }
}
