//! What an instance can do, read from its `/object_info`.

pub mod merge;
pub mod models;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::json::{self, JsonError, Members};
use crate::model::view::Capabilities;

/// The node classes of one instance, or of several merged. Immutable; shared by `Arc`.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    classes: HashMap<String, ClassInfo>,
    capabilities: Arc<Capabilities>,
    raw: Bytes,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct ClassInfo {
    /// Running it is a reason to run a graph.
    pub output_node: bool,
    /// Part of ComfyUI itself: what its inputs declare is then all that is checked of them.
    pub core: bool,
    pub inputs: HashMap<String, Input>,
    /// Where its text lies in the catalogue's.
    span: (usize, usize),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    pub kind: InputKind,
    pub required: bool,
    /// Holds the name of an uploaded file.
    pub upload: bool,
    /// Its choices are the files of this model folder.
    pub folder: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum InputKind {
    Int {
        min: Option<f64>,
        max: Option<f64>,
    },
    Float {
        min: Option<f64>,
        max: Option<f64>,
    },
    /// The choices, if all of them are texts.
    Combo(Option<Vec<String>>),
    /// Stands for inputs of other names (`COMFY_AUTOGROW_V3` and the like).
    Dynamic,
    Other(String),
}

impl Catalogue {
    /// Reads the answer of `GET /object_info`. A class that cannot be read is left out, as ComfyUI leaves out a class
    /// that fails to describe itself.
    pub fn parse(raw: Bytes) -> Result<Self, JsonError> {
        let raw = match json::text(&raw)? {
            std::borrow::Cow::Borrowed(_) => raw,
            std::borrow::Cow::Owned(clean) => Bytes::from(clean),
        };
        let text = std::str::from_utf8(&raw).map_err(|e| JsonError::NotUtf8(e.valid_up_to()))?;
        let members: Members<'_> = serde_json::from_str(text)?;
        let mut classes = HashMap::with_capacity(members.len());
        for (name, info) in members {
            if let Ok(mut class) = read_class(&name, info.get()) {
                let start = info.get().as_ptr() as usize - text.as_ptr() as usize;
                class.span = (start, start + info.get().len());
                classes.insert(name, class);
            }
        }
        Ok(Self { capabilities: Arc::new(capabilities(&classes)), classes, raw })
    }

    pub fn class(&self, name: &str) -> Option<&ClassInfo> {
        self.classes.get(name)
    }

    pub fn len(&self) -> usize {
        self.classes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    /// The classes and model files, for routing.
    pub fn capabilities(&self) -> &Arc<Capabilities> {
        &self.capabilities
    }

    /// The whole `/object_info` answer.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The answer of `GET /object_info/{class}`: an empty object for an unknown class.
    pub fn raw_class(&self, name: &str) -> String {
        match self.classes.get(name) {
            Some(class) => format!("{{{}:{}}}", json::quote(name), self.text_of(class)),
            None => "{}".to_owned(),
        }
    }

    /// What one input is declared as, for `input_config` of an error.
    pub fn input_config(&self, class: &str, input: &str) -> Value {
        let info =
            self.classes.get(class).and_then(|class| serde_json::from_str::<Value>(self.text_of(class)).ok());
        let group = |name: &str| info.as_ref()?.get("input")?.get(name)?.get(input).cloned();
        group("required").or_else(|| group("optional")).unwrap_or(Value::Null)
    }

    fn text_of(&self, class: &ClassInfo) -> &str {
        let bytes = self.raw.get(class.span.0..class.span.1).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or("{}")
    }
}

#[derive(Deserialize)]
struct RawClass<'a> {
    #[serde(borrow, default)]
    input: RawInputs<'a>,
    #[serde(default)]
    output_node: bool,
    #[serde(default)]
    python_module: Option<String>,
}

#[derive(Deserialize, Default)]
struct RawInputs<'a> {
    #[serde(borrow, default)]
    required: Option<Members<'a>>,
    #[serde(borrow, default)]
    optional: Option<Members<'a>>,
}

fn read_class(name: &str, text: &str) -> Result<ClassInfo, serde_json::Error> {
    let raw: RawClass<'_> = serde_json::from_str(text)?;
    let module = raw.python_module.as_deref().unwrap_or_default();
    let mut inputs = HashMap::new();
    for (required, group) in [(false, raw.input.optional), (true, raw.input.required)] {
        for (input, declared) in group.unwrap_or_default() {
            let read = read_input(name, &input, declared, required);
            inputs.insert(input, read);
        }
    }
    let core = module == "nodes" || module.starts_with("comfy_extras.");
    Ok(ClassInfo { output_node: raw.output_node, core, inputs, span: (0, 0) })
}

/// `[type or list of choices, {options}]`; anything else is of a kind we know nothing about.
fn read_input(class: &str, name: &str, declared: &RawValue, required: bool) -> Input {
    let parts: Vec<&RawValue> = serde_json::from_str(declared.get()).unwrap_or_default();
    let options: Members<'_> = parts.get(1).and_then(|raw| json::members(raw).ok()).unwrap_or_default();
    let bound = |name: &str| options.get(name).and_then(|raw| raw.get().parse::<f64>().ok());
    let kind = parts.first().map_or("", |raw| raw.get());
    let kind = if kind.starts_with('[') {
        InputKind::Combo(serde_json::from_str(kind).ok())
    } else {
        match serde_json::from_str::<String>(kind).unwrap_or_default().as_str() {
            "INT" => InputKind::Int { min: bound("min"), max: bound("max") },
            "FLOAT" => InputKind::Float { min: bound("min"), max: bound("max") },
            "COMBO" => {
                InputKind::Combo(options.get("options").and_then(|raw| serde_json::from_str(raw.get()).ok()))
            }
            dynamic if dynamic.starts_with("COMFY_") => InputKind::Dynamic,
            other => InputKind::Other(other.to_owned()),
        }
    };
    let flagged =
        models::UPLOAD_FLAGS.iter().any(|flag| options.get(*flag).is_some_and(|raw| raw.get() == "true"));
    let upload = flagged || models::is_upload(class, name);
    let folder = match &kind {
        InputKind::Combo(Some(choices)) if !upload => models::folder_of(class, name, choices),
        _ => None,
    };
    Input { kind, required, upload, folder }
}

/// An empty list says that a folder is empty, and says so even where the folder's name is only a guess.
fn capabilities(classes: &HashMap<String, ClassInfo>) -> Capabilities {
    let mut models: HashMap<String, HashSet<String>> = HashMap::new();
    for (name, input) in classes.values().flat_map(|class| &class.inputs) {
        let InputKind::Combo(Some(choices)) = &input.kind else { continue };
        if let Some(folder) = &input.folder {
            models.entry(folder.clone()).or_default().extend(choices.iter().cloned());
        } else if choices.is_empty() && !input.upload {
            models.entry(models::folder_by_input(name).to_owned()).or_default();
        }
    }
    Capabilities { classes: classes.keys().cloned().collect(), models }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::job::ModelRef;

    fn catalogue(text: &str) -> Catalogue {
        Catalogue::parse(Bytes::copy_from_slice(text.as_bytes())).unwrap()
    }

    const INFO: &str = r#"{
        "CheckpointLoaderSimple": {"input": {"required": {"ckpt_name": [["a.safetensors"], {}]}}, "python_module": "nodes"},
        "VAELoader": {"input": {"required": {"vae_name": ["COMBO", {"options": ["v.pt", "pixel_space"]}]}}},
        "IPA": {"input": {"required": {"ipadapter_file": [["ip.bin"]]}}, "python_module": "custom_nodes.ipa"},
        "LoadImage": {"input": {"required": {"image": [["x.png"], {"image_upload": true}]}}},
        "SaveImage": {"input": {"required": {"images": ["IMAGE"], "n": ["INT", {"min": 1, "max": 4}]},
            "optional": {"auto": ["COMFY_AUTOGROW_V3", {}]}}, "output_node": true, "python_module": "nodes"}
    }"#;

    #[test]
    fn classes_inputs_and_models_are_read() {
        let catalogue = catalogue(INFO);
        let save = catalogue.class("SaveImage").unwrap();
        assert!(save.output_node && save.core);
        assert_eq!(save.inputs["n"].kind, InputKind::Int { min: Some(1.0), max: Some(4.0) });
        assert_eq!(save.inputs["auto"].kind, InputKind::Dynamic);
        assert!(!save.inputs["auto"].required);
        assert!(catalogue.class("LoadImage").unwrap().inputs["image"].upload);
        let can = catalogue.capabilities();
        let model = |folder: &str, name: &str| ModelRef { folder: folder.into(), name: name.into() };
        assert!(can.has_model(&model("checkpoints", "a.safetensors")));
        assert!(!can.has_model(&model("checkpoints", "b.safetensors")));
        assert!(can.has_model(&model("vae", "v.pt")));
        assert!(!can.has_model(&model("ipadapter_file", "other.bin")));
        assert!(!can.models.contains_key("image"));
    }

    #[test]
    fn one_class_is_shown_as_the_instance_wrote_it() {
        let catalogue = catalogue(INFO);
        assert_eq!(
            catalogue.raw_class("VAELoader"),
            r#"{"VAELoader":{"input": {"required": {"vae_name": ["COMBO", {"options": ["v.pt", "pixel_space"]}]}}}}"#
        );
        assert_eq!(catalogue.raw_class("Nope"), "{}");
        assert_eq!(catalogue.input_config("SaveImage", "images"), serde_json::json!(["IMAGE"]));
    }

    #[test]
    fn what_an_instance_says_wrongly_does_no_harm() {
        for text in ["[]", "null", "{", "7", "{\"A\":"] {
            assert!(Catalogue::parse(Bytes::copy_from_slice(text.as_bytes())).is_err(), "{text}");
        }
        let odd = catalogue(
            r#"{"A": 5, "B": {"input": null}, "C": {"input": {"required": {"x": 5, "y": [], "z": [[1, "a"]], "w": ["INT", 7]}}},
               "D": {"input": {"required": {"n": ["FLOAT", {"max": Infinity, "min": "low"}]}}}}"#,
        );
        assert!(odd.class("A").is_none());
        assert_eq!(odd.class("C").unwrap().inputs["z"].kind, InputKind::Combo(None));
        assert_eq!(odd.class("D").unwrap().inputs["n"].kind, InputKind::Float { min: None, max: None });
    }
}
