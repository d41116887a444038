//! The class table and its two `/object_info` dialects. Lists of files are filled in here, so that instances with
//! different models differ as real ones do.

use indexmap::IndexMap;
use serde_json::{Map, Value, json};

use crate::{
    config::{Config, Flavour, Models},
    files::Dirs,
};

/// `name -> entry` as a V1 `/object_info` holds it, but for two marks: `"@folder"` stands for the list of files of
/// a model folder (`@input` for the uploads), and `v3_since_0_8` for classes which 0.8.0 declares in the V3 schema.
const CLASSES: &str = include_str!("classes.json");

#[derive(Debug)]
pub(crate) struct Catalogue {
    flavour: Flavour,
    classes: IndexMap<String, Class>,
    models: Models,
}

#[derive(Debug)]
pub(crate) struct Class {
    pub(crate) outputs: Vec<String>,
    pub(crate) is_output: bool,
    v3: bool,
    entry: Value,
}

impl Catalogue {
    pub(crate) fn new(config: &Config) -> Self {
        let table: Map<String, Value> = serde_json::from_str(CLASSES).expect("the class table is valid JSON");
        let extra = config.extra_nodes.iter().map(|(name, entry)| (name.clone(), entry.clone()));
        let classes = table.into_iter().chain(extra).filter(|(name, _)| !config.removed_nodes.contains(name));
        Self {
            flavour: config.flavour,
            classes: classes.map(|(name, entry)| (name, Class::new(entry, config.flavour))).collect(),
            models: config.models.clone(),
        }
    }

    pub(crate) fn class(&self, name: &str) -> Option<&Class> {
        self.classes.get(name)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.classes.keys().map(String::as_str)
    }

    /// The `input` part with file lists filled in.
    pub(crate) fn input(&self, name: &str, dirs: &Dirs) -> Option<Map<String, Value>> {
        let class = self.classes.get(name)?;
        let mut sections = class.entry.get("input").and_then(Value::as_object).cloned().unwrap_or_default();
        for (section, inputs) in &mut sections {
            let Some(inputs) = inputs.as_object_mut().filter(|_| section != "hidden") else { continue };
            for definition in inputs.values_mut() {
                self.fill(definition, class.v3, dirs);
            }
        }
        Some(sections)
    }

    /// One entry of `/object_info`.
    pub(crate) fn info(&self, name: &str, dirs: &Dirs) -> Option<Value> {
        let class = self.classes.get(name)?;
        let input = self.input(name, dirs)?;
        let order: Map<String, Value> = input
            .iter()
            .map(|(section, inputs)| {
                let names = inputs.as_object().map(|map| map.keys().cloned().collect::<Vec<_>>());
                (section.clone(), json!(names.unwrap_or_default()))
            })
            .collect();
        let field = |key: &str, default: Value| class.entry.get(key).cloned().unwrap_or(default);
        let mut info = json!({
            "input": input,
            "input_order": order,
            "output": class.outputs,
            "output_is_list": field("output_is_list", json!(vec![false; class.outputs.len()])),
            "output_name": field("output_name", json!(class.outputs)),
            "name": name,
            "display_name": field("display_name", json!(name)),
            "description": field("description", json!("")),
            "python_module": field("python_module", json!(format!("custom_nodes.{name}"))),
            "category": field("category", json!("custom")),
            "output_node": class.is_output,
        });
        if class.v3 {
            for key in ["deprecated", "experimental", "api_node"] {
                info[key] = field(key, json!(false));
            }
            info["output_tooltips"] = field("output_tooltips", json!(vec![Value::Null; class.outputs.len()]));
            info["output_matchtypes"] = Value::Null;
        } else if let Some(tooltips) = class.entry.get("output_tooltips") {
            info["output_tooltips"] = tooltips.clone();
        }
        Some(info)
    }

    fn fill(&self, definition: &mut Value, v3: bool, dirs: &Dirs) {
        let Some(parts) = definition.as_array_mut().filter(|parts| !parts.is_empty()) else { return };
        if let Some(folder) = parts[0].as_str().and_then(|kind| kind.strip_prefix('@')) {
            let names = if folder == "input" { dirs.input_names() } else { self.models.names(folder) };
            parts[0] = json!(names);
        }
        if v3 && parts.len() == 1 {
            parts.push(json!({}));
        }
        if v3 && parts[0].is_array() {
            let options = std::mem::replace(&mut parts[0], json!("COMBO"));
            parts[1]["multiselect"] = json!(false);
            parts[1]["options"] = options;
        }
    }

    pub(crate) fn models(&self) -> &Models {
        &self.models
    }

    /// Folder keys of `/models`, in the order of the release.
    pub(crate) fn folders(&self) -> Vec<&str> {
        let latent = (self.flavour == Flavour::V0_8_0).then_some("latent_upscale_models");
        let known = FOLDERS_BEFORE.iter().copied().chain(latent).chain(FOLDERS_AFTER);
        let mut folders: Vec<&str> = known.collect();
        let custom = self.models.0.keys().map(String::as_str).filter(|folder| !folders.contains(folder));
        let custom: Vec<&str> = custom.collect();
        folders.extend(custom);
        folders
    }
}

const FOLDERS_BEFORE: [&str; 14] = [
    "checkpoints",
    "configs",
    "loras",
    "vae",
    "text_encoders",
    "diffusion_models",
    "clip_vision",
    "style_models",
    "embeddings",
    "diffusers",
    "vae_approx",
    "controlnet",
    "gligen",
    "upscale_models",
];
const FOLDERS_AFTER: [&str; 6] =
    ["custom_nodes", "hypernetworks", "photomaker", "classifiers", "model_patches", "audio_encoders"];

impl Class {
    fn new(entry: Value, flavour: Flavour) -> Self {
        let outputs = entry.get("output").and_then(Value::as_array).cloned().unwrap_or_default();
        Self {
            outputs: outputs.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            is_output: entry.get("output_node").and_then(Value::as_bool).unwrap_or(false),
            v3: flavour == Flavour::V0_8_0 && entry.get("v3_since_0_8") == Some(&Value::Bool(true)),
            entry,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(flavour: Flavour, name: &str) -> Value {
        let config = Config { flavour, ..Config::default() };
        let dirs = Dirs::open(None).expect("a folder");
        Catalogue::new(&config).info(name, &dirs).expect("a known class")
    }

    #[test]
    fn combos_have_two_shapes() {
        let old = info(Flavour::V0_3_64, "UpscaleModelLoader");
        assert_eq!(old["input"]["required"]["model_name"], json!([["4x-UltraSharp.pth"]]));
        let new = info(Flavour::V0_8_0, "UpscaleModelLoader");
        let expected = json!(["COMBO", {"multiselect": false, "options": ["4x-UltraSharp.pth"]}]);
        assert_eq!(new["input"]["required"]["model_name"], expected);
        assert!(
            info(Flavour::V0_8_0, "CheckpointLoaderSimple")["input"]["required"]["ckpt_name"][0].is_array()
        );
    }

    #[test]
    fn classes_can_be_added_and_removed() {
        let custom =
            ("Mine".to_owned(), json!({"input": {"required": {"image": ["IMAGE"]}}, "output": ["IMAGE"]}));
        let config =
            Config { extra_nodes: vec![custom], removed_nodes: vec!["KSampler".into()], ..Config::default() };
        let catalogue = Catalogue::new(&config);
        assert!(catalogue.class("KSampler").is_none());
        let info = catalogue.info("Mine", &Dirs::open(None).expect("a folder")).expect("mine");
        assert_eq!(
            (&info["python_module"], &info["output_name"]),
            (&json!("custom_nodes.Mine"), &json!(["IMAGE"]))
        );
    }
}
