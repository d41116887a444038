//! What an instance can do, read from its `/object_info`.

pub mod merge;
pub mod models;
mod own_checks;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::json::{self, JsonError, Members};
use super::python::Num;
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
    /// Written against the newer node interface, whose outputs are a list and not a tuple.
    pub v3: bool,
    /// In the order declared, required ones first.
    pub inputs: IndexMap<String, Input>,
    pub outputs: Vec<OutputType>,
    /// Where its text lies in the catalogue's.
    span: (usize, usize),
}

/// What an output slot gives.
#[derive(Debug, Clone, PartialEq)]
pub enum OutputType {
    /// One name, or several separated by commas.
    Named(String),
    /// A list of choices, or something that instances disagree about: it fits everywhere.
    Any,
}

/// What an input is declared as, in the words that link checks compare.
#[derive(Debug, Clone, PartialEq)]
pub enum TypeName {
    Named(String),
    /// A list of choices in the older form.
    List,
    /// Instances disagree.
    Any,
}

/// How far ComfyUI's check of a value may be repeated here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Conversion, bounds and choices.
    Whole,
    /// Conversion only: the class checks the rest itself, or may do so.
    Conversion,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    pub kind: InputKind,
    pub type_name: TypeName,
    pub check: Check,
    /// The class judges the types of its links itself, or may do so.
    pub any_link: bool,
    pub required: bool,
    /// Holds the name of an uploaded file.
    pub upload: bool,
    /// The kind of file that must be there when the prompt is posted, where ComfyUI looks for it.
    pub file_kind: Option<&'static str>,
    /// Its choices are the files of this model folder.
    pub folder: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum InputKind {
    Int {
        min: Option<Num>,
        max: Option<Num>,
    },
    Float {
        min: Option<Num>,
        max: Option<Num>,
    },
    /// The choices, if all of them are texts. In either form; `type_name` tells which.
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

    /// What one input is declared as, for `input_config` of an error: its type and its options, if only empty ones.
    pub fn input_config(&self, class: &str, input: &str) -> Value {
        let info =
            self.classes.get(class).and_then(|class| serde_json::from_str::<Value>(self.text_of(class)).ok());
        let group = |name: &str| info.as_ref()?.get("input")?.get(name)?.get(input).cloned();
        let mut config = group("required").or_else(|| group("optional")).unwrap_or(Value::Null);
        if let Some(parts) = config.as_array_mut()
            && parts.len() == 1
        {
            parts.push(Value::Object(Default::default()));
        }
        config
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
    output: Vec<Value>,
    #[serde(default)]
    python_module: Option<String>,
    #[serde(borrow, default)]
    api_node: Option<&'a RawValue>,
    #[serde(borrow, default)]
    experimental: Option<&'a RawValue>,
    #[serde(borrow, default)]
    deprecated: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct RawInputs<'a> {
    #[serde(borrow, default)]
    required: Option<Members<'a>>,
    #[serde(borrow, default)]
    optional: Option<Members<'a>>,
}

fn read_class(name: &str, text: &str) -> Result<ClassInfo, serde_json::Error> {
    /// Modules of ComfyUI itself; one that ends with a point stands for all inside it.
    const CORE: [&str; 4] =
        ["nodes", "comfy_extras.", "comfy_api_nodes.", "custom_nodes.websocket_image_save"];
    let raw: RawClass<'_> = serde_json::from_str(text)?;
    let module = raw.python_module.as_deref().unwrap_or_default();
    let core = CORE
        .iter()
        .any(|own| module == own.trim_end_matches('.') || own.ends_with('.') && module.starts_with(own));
    let mut inputs = IndexMap::new();
    for (required, group) in [(true, raw.input.required), (false, raw.input.optional)] {
        for (input, declared) in group.unwrap_or_default() {
            let read = read_input(name, core, &input, declared, required);
            inputs.entry(input).or_insert(read);
        }
    }
    let outputs = raw.output.into_iter().map(|output| match output {
        Value::String(name) => OutputType::Named(name),
        _ => OutputType::Any,
    });
    // The newer interface describes every class with all of these; the older one only those that are set.
    let v3 = raw.api_node.is_some() && raw.experimental.is_some() && raw.deprecated.is_some();
    Ok(ClassInfo { output_node: raw.output_node, core, v3, inputs, outputs: outputs.collect(), span: (0, 0) })
}

/// `[type or list of choices, {options}]`; anything else is of a kind we know nothing about.
fn read_input(class: &str, core: bool, name: &str, declared: &RawValue, required: bool) -> Input {
    let parts: Vec<&RawValue> = serde_json::from_str(declared.get()).unwrap_or_default();
    let options: Members<'_> = parts.get(1).and_then(|raw| json::members(raw).ok()).unwrap_or_default();
    let bound = |name: &str| options.get(name).and_then(|raw| Num::parse(raw.get()));
    let kind = parts.first().map_or("", |raw| raw.get());
    let type_name = serde_json::from_str::<String>(kind).map_or(TypeName::List, TypeName::Named);
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
    let checked = core && !own_checks::covers(class, name);
    Input {
        kind,
        type_name,
        check: if checked { Check::Whole } else { Check::Conversion },
        any_link: !core || own_checks::of_links(class),
        required,
        upload,
        file_kind: own_checks::file_kind(class, name),
        folder,
    }
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
        assert_eq!(save.inputs["n"].kind, InputKind::Int { min: Some(Num::Int(1)), max: Some(Num::Int(4)) });
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
        assert_eq!(catalogue.input_config("SaveImage", "images"), serde_json::json!(["IMAGE", {}]));
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
