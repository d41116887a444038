use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::comfy::prompt;
use crate::model::job::{ModelRef, UploadRef};

/// The declarations of ComfyUI 0.8.0 for the nodes used here, cut to what is read.
fn catalogue() -> Catalogue {
    let info = json!({
        "EmptyImage": {"python_module": "nodes", "input": {"required": {
            "width": ["INT", {"default": 512, "min": 1, "max": 16384, "step": 1}],
            "height": ["INT", {"default": 512, "min": 1, "max": 16384, "step": 1}],
            "batch_size": ["INT", {"default": 1, "min": 1, "max": 4096}], "color": ["INT", {}]}}},
        "ImageBlur": {"python_module": "comfy_extras.nodes_post_processing", "input": {"required": {
            "image": ["IMAGE", {}], "blur_radius": ["INT", {"min": 1, "max": 31}], "sigma": ["FLOAT", {"min": 0.1, "max": 10.0}]}}},
        "SaveImage": {"python_module": "nodes", "output_node": true, "input": {"required": {
            "images": ["IMAGE", {}], "filename_prefix": ["STRING", {}]}}},
        "LoadImage": {"python_module": "nodes", "input": {"required": {"image": [["x.png"], {"image_upload": true}]}}},
        "CheckpointLoaderSimple": {"python_module": "nodes", "input": {"required": {"ckpt_name": [["a.safetensors"], {}]}}},
        "EmptyLatentImage": {"python_module": "nodes", "input": {"required": {
            "width": ["INT", {}], "height": ["INT", {}], "batch_size": ["INT", {}]}}},
        "KSampler": {"python_module": "nodes", "input": {"required": {
            "model": ["MODEL"], "latent_image": ["LATENT"], "seed": ["INT", {}], "steps": ["INT", {}],
            "sampler_name": [["euler", "dpm"], {}]}}},
        "PrimitiveInt": {"python_module": "comfy_extras.nodes_primitive", "input": {"required": {"value": ["INT", {}]}}},
        "CustomLoader": {"python_module": "custom_nodes.x", "input": {"required": {"thing": [["t.gguf"], {}]}}},
    });
    Catalogue::parse(Bytes::from(info.to_string())).unwrap()
}

fn analysed(graph: Value) -> Result<Analysis, PromptError> {
    analysed_body(json!({"prompt": graph}))
}

fn analysed_body(body: Value) -> Result<Analysis, PromptError> {
    analyse(&prompt::parse(body.to_string().as_bytes())?, &catalogue())
}

fn blur(first: Value, inputs: Value) -> Value {
    json!({
        "1": first,
        "2": {"class_type": "ImageBlur", "inputs": inputs},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "t"}},
    })
}

fn image(width: Value, height: Value) -> Value {
    json!({"class_type": "EmptyImage", "inputs": {"width": width, "height": height, "batch_size": 2, "color": 255}})
}

fn blurred(first: Value) -> Value {
    blur(first, json!({"image": ["1", 0], "blur_radius": 5, "sigma": 2.0}))
}

#[test]
fn a_plain_graph_is_understood() {
    let found = analysed(blurred(image(json!(1000), json!(500)))).unwrap();
    assert_eq!(found.outputs, ["3"]);
    assert_eq!(found.node_errors, "{}");
    assert_eq!(found.needs.classes, ["EmptyImage", "ImageBlur", "SaveImage"]);
    assert_eq!((found.needs.nodes, found.needs.images), (3, 2));
    assert_eq!((found.needs.steps, found.needs.megapixels), (None, Some(0.5)));
}

#[test]
fn models_uploads_and_work_are_found() {
    let found = analysed(json!({
        "c": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a.safetensors"}},
        "x": {"class_type": "CustomLoader", "inputs": {"thing": "t.gguf"}},
        "i": {"class_type": "LoadImage", "inputs": {"image": "sub/my.png [temp]"}},
        "p": {"class_type": "PrimitiveInt", "inputs": {"value": 30}},
        "e": {"class_type": "EmptyLatentImage", "inputs": {"width": 1024, "height": 1024, "batch_size": 4}},
        "k": {"class_type": "KSampler", "inputs": {"model": ["c", 0], "latent_image": ["e", 0], "seed": 1,
            "steps": ["p", 0], "sampler_name": "euler", "extra": ["x", 0], "ref": ["i", 0]}},
        "s": {"class_type": "SaveImage", "inputs": {"images": ["k", 0], "filename_prefix": "p"}},
    }))
    .unwrap();
    let model = |folder: &str, name: &str| ModelRef { folder: folder.into(), name: name.into() };
    assert_eq!(found.needs.models, [model("checkpoints", "a.safetensors"), model("thing", "t.gguf")]);
    let upload = UploadRef { kind: "temp".into(), subfolder: "sub".into(), name: "my.png".into() };
    assert_eq!(found.needs.uploads, [upload]);
    assert_eq!((found.needs.images, found.needs.steps), (4, Some(30)));
    assert!((found.needs.work().unwrap() - 4.0 * 30.0 * 1.048_576).abs() < 0.01);
}

#[test]
fn the_signature_tells_shapes_apart_and_ignores_ids_seeds_and_texts() {
    let sampler = |ids: [&str; 2], seed: u64, steps: u64, sampler: &str, prefix: &str| {
        let mut graph = serde_json::Map::new();
        graph.insert(
            "e".into(),
            json!({"class_type": "EmptyLatentImage", "inputs": {"width": 8, "height": 8, "batch_size": 1}}),
        );
        graph.insert(
            "c".into(),
            json!({"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a.safetensors"}}),
        );
        graph.insert(
            ids[0].into(),
            json!({"class_type": "KSampler", "inputs": {"model": ["c", 0], "latent_image": ["e", 0],
            "seed": seed, "steps": steps, "sampler_name": sampler}}),
        );
        graph.insert(
            ids[1].into(),
            json!({"class_type": "SaveImage", "inputs": {"images": [ids[0], 0], "filename_prefix": prefix}}),
        );
        analysed(Value::Object(graph)).unwrap().needs.signature
    };
    let base = sampler(["k", "s"], 1, 20, "euler", "a");
    assert_eq!(base, sampler(["17", "4"], 99, 20, "euler", "b"));
    assert_ne!(base, sampler(["k", "s"], 1, 21, "euler", "a"));
    assert_ne!(base, sampler(["k", "s"], 1, 20, "dpm", "a"));
}

/// Bodies seen from ComfyUI 0.8.0 for the same prompts.
#[test]
fn refusals_are_comfyuis() {
    let error = analysed(blurred(json!({"class_type": "NoSuchNode", "inputs": {}}))).unwrap_err();
    assert_eq!(error.message, "Cannot execute because node NoSuchNode does not exist.");
    assert_eq!(error.details, "Node ID '#1'");

    let error = analysed(json!({})).unwrap_err();
    assert_eq!(error.kind, "prompt_no_outputs");
    assert_eq!(analysed(json!([])).map_err(|e| e.kind).unwrap_err(), "prompt_no_outputs");

    let error = analysed(blurred(image(json!(-5), json!("abc")))).unwrap_err();
    assert_eq!((error.kind, error.details.as_str()), ("prompt_outputs_failed_validation", ""));
    assert_eq!(
        Value::Object(*error.node_errors),
        json!({"1": {"errors": [
            {"type": "value_smaller_than_min", "message": "Value -5 smaller than min of 1", "details": "width",
             "extra_info": {"input_name": "width", "received_value": -5,
                "input_config": ["INT", {"default": 512, "min": 1, "max": 16384, "step": 1}]}},
            {"type": "invalid_input_type", "message": "Failed to convert an input value to a INT value",
             "details": "height, abc, invalid literal for int() with base 10: 'abc'",
             "extra_info": {"input_name": "height", "received_value": "abc",
                "input_config": ["INT", {"default": 512, "min": 1, "max": 16384, "step": 1}],
                "exception_message": "invalid literal for int() with base 10: 'abc'"}}],
            "dependent_outputs": ["3"], "class_type": "EmptyImage"}})
    );

    let lacking = blur(image(json!(8), json!(8)), json!({"image": ["1", 0], "blur_radius": 5}));
    let error = analysed(lacking).unwrap_err();
    assert_eq!(
        Value::Object(*error.node_errors),
        json!({"2": {"errors": [{"type": "required_input_missing", "message": "Required input is missing",
            "details": "sigma", "extra_info": {"input_name": "sigma"}}],
            "dependent_outputs": ["3"], "class_type": "ImageBlur"}})
    );

    let mut graph = blurred(
        json!({"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "missing.safetensors"}}),
    );
    let error = analysed(graph.take()).unwrap_err();
    assert_eq!(
        error.node_errors["1"]["errors"][0],
        json!({"type": "value_not_in_list", "message": "Value not in list",
            "details": "ckpt_name: 'missing.safetensors' not in ['a.safetensors']",
            "extra_info": {"input_name": "ckpt_name", "input_config": [["a.safetensors"], {}],
                "received_value": "missing.safetensors"}})
    );
}

#[test]
fn outputs_that_fail_are_dropped_and_the_rest_runs() {
    let mut graph = blurred(image(json!(8), json!(8)));
    graph["4"] = json!({"class_type": "SaveImage", "inputs": {"images": ["9", 0], "filename_prefix": "t"}});
    graph["5"] = json!({"class_type": "SaveImage", "inputs": {"images": ["1", 0]}});
    let found = analysed(graph.clone()).unwrap();
    assert_eq!(found.outputs, ["3"]);
    let errors: Value = serde_json::from_str(&found.node_errors).unwrap();
    assert_eq!(errors["4"]["errors"][0]["details"], "'9'");
    assert_eq!(errors["5"]["dependent_outputs"], json!(["5"]));

    let error = analysed_body(json!({"prompt": graph, "partial_execution_targets": ["5", "1"]})).unwrap_err();
    assert_eq!(error.details, "Required input is missing: filename_prefix");
}

#[test]
fn cycles_and_long_chains_end() {
    let node = |id: &str| json!({"class_type": "ImageBlur", "inputs": {"image": [id, 0], "blur_radius": 1, "sigma": 1}});
    let error = analysed(json!({"1": node("2"), "2": node("1"),
        "3": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": ""}}}))
    .unwrap_err();
    assert_eq!(error.node_errors.values().next().unwrap()["errors"][0]["type"], "dependency_cycle");

    let mut chain = serde_json::Map::new();
    chain.insert("0".into(), image(json!(8), json!(8)));
    for i in 1..9_000 {
        chain.insert(i.to_string(), node(&(i - 1).to_string()));
    }
    chain.insert(
        "s".into(),
        json!({"class_type": "SaveImage", "inputs": {"images": ["8999", 0], "filename_prefix": ""}}),
    );
    assert_eq!(analysed(Value::Object(chain)).unwrap().needs.nodes, 9_001);
}

#[test]
fn values_that_only_an_instance_can_judge_pass() {
    // An upload that is in no list, a custom class's value, an undeclared list, a wrapped literal, a link's type.
    for graph in [
        json!({"1": {"class_type": "LoadImage", "inputs": {"image": "new.png"}},
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 7], "filename_prefix": 5, "more": ["a", "b", "c"]}}}),
        json!({"1": {"class_type": "CustomLoader", "inputs": {"thing": "unlisted.gguf"}},
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": {"__value__": ["x", 1]}}}}),
    ] {
        assert_eq!(analysed(graph).unwrap().outputs, ["2"]);
    }
}
