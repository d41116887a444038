use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::comfy::prompt;
use crate::model::job::{ModelRef, UploadRef};
use std::collections::BTreeMap;

/// The declarations of ComfyUI 0.8.0 for the nodes used here, cut to what is read.
fn catalogue() -> Catalogue {
    let info = json!({
        "EmptyImage": {"python_module": "nodes", "output": ["IMAGE"], "input": {"required": {
            "width": ["INT", {"default": 512, "min": 1, "max": 16384, "step": 1}],
            "height": ["INT", {"default": 512, "min": 1, "max": 16384, "step": 1}],
            "batch_size": ["INT", {"default": 1, "min": 1, "max": 4096}], "color": ["INT", {}]}}},
        "ImageBlur": {"python_module": "comfy_extras.nodes_post_processing", "output": ["IMAGE"], "api_node": false,
            "experimental": null, "deprecated": false, "input": {"required": {
            "image": ["IMAGE", {}], "blur_radius": ["INT", {"min": 1, "max": 31}], "sigma": ["FLOAT", {"min": 0.1, "max": 10.0}]}}},
        "SaveImage": {"python_module": "nodes", "output_node": true, "input": {"required": {
            "images": ["IMAGE", {}], "filename_prefix": ["STRING", {}]}}},
        "LoadImage": {"python_module": "nodes", "output": ["IMAGE", "MASK"], "input": {"required": {"image": [["x.png"], {"image_upload": true}]}}},
        "CheckpointLoaderSimple": {"python_module": "nodes", "output": ["MODEL", "CLIP", "VAE"], "input": {"required": {"ckpt_name": [["a.safetensors"], {}]}}},
        "EmptyLatentImage": {"python_module": "nodes", "output": ["LATENT"], "input": {"required": {
            "width": ["INT", {}], "height": ["INT", {}], "batch_size": ["INT", {}]}}},
        "KSampler": {"python_module": "nodes", "output": ["IMAGE"], "input": {"required": {
            "model": ["MODEL"], "latent_image": ["LATENT"], "seed": ["INT", {}], "steps": ["INT", {}],
            "sampler_name": [["euler", "dpm"], {}]}}},
        "PrimitiveInt": {"python_module": "comfy_extras.nodes_primitive", "output": ["INT"], "input": {"required": {"value": ["INT", {}]}}},
        "KSamplerSelect": {"python_module": "comfy_extras.nodes_custom_sampler", "output": ["SAMPLER"], "input": {"required": {
            "sampler_name": ["COMBO", {"multiselect": false, "options": ["euler", "dpm"]}]}}},
        "Seconds": {"python_module": "comfy_api_nodes.x", "output_node": true, "input": {"required": {
            "seconds": ["COMBO", {"options": [6, 10]}]}}},
        "CustomLoader": {"python_module": "custom_nodes.x", "output": ["any"], "input": {"required": {
            "thing": [["t.gguf"], {}], "n": ["INT", {"max": 3}]}}},
    });
    Catalogue::parse(Bytes::from(info.to_string())).unwrap()
}

fn analysed(graph: Value) -> Result<Analysis, PromptError> {
    analysed_body(json!({"prompt": graph}))
}

fn analysed_body(body: Value) -> Result<Analysis, PromptError> {
    analysed_with(body, Rules { combo_options: true, missing_node_type: false }, &HashSet::new())
}

fn analysed_with(body: Value, rules: Rules, absent: &HashSet<UploadRef>) -> Result<Analysis, PromptError> {
    let submission = prompt::parse(body.to_string().as_bytes())?;
    analyse(&submission, &Known { catalogue: &catalogue(), rules, absent })
}

/// The errors of one node, by type.
fn errors_of(error: &PromptError, id: &str) -> BTreeMap<String, Value> {
    let errors = error.node_errors[id]["errors"].as_array().expect("a list");
    errors.iter().map(|error| (error["type"].as_str().expect("a type").to_owned(), error.clone())).collect()
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
        "x": {"class_type": "CustomLoader", "inputs": {"thing": "t.gguf", "n": 1}},
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

    let error = analysed(json!({
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "missing.safetensors"}},
        "2": {"class_type": "KSampler", "inputs": {"model": ["1", 0], "latent_image": ["3", 0], "seed": 1, "steps": 1,
            "sampler_name": "euler"}},
        "3": {"class_type": "EmptyLatentImage", "inputs": {"width": 8, "height": 8, "batch_size": 1}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "t"}},
    }))
    .unwrap_err();
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
    assert_eq!(errors["4"]["errors"][0]["type"], "exception_during_validation");
    assert_eq!(errors["5"]["dependent_outputs"], json!(["5"]));

    let error =
        analysed_body(json!({"prompt": graph, "partial_execution_targets": ["5", 1, "1"]})).unwrap_err();
    assert_eq!(error.details, "Required input is missing: filename_prefix");
}

#[test]
fn links_are_judged_as_python_would() {
    let saved = |images: Value| {
        json!({"1": image(json!(8), json!(8)), "e": {"class_type": "EmptyLatentImage", "inputs": {"width": 8, "height": 8, "batch_size": 1}},
            "3": {"class_type": "SaveImage", "inputs": {"images": images, "filename_prefix": "t"}}})
    };
    let details = |images: Value| {
        let error = analysed(saved(images)).unwrap_err();
        error.details.split_once(": ").expect("one line").1.to_owned()
    };
    assert!(analysed(saved(json!(["1", -1]))).is_ok() && analysed(saved(json!(["1", false]))).is_ok());
    assert_eq!(details(json!(["1", 5])), "tuple index out of range");
    assert_eq!(details(json!(["1", 0.0])), "tuple indices must be integers or slices, not float");
    assert_eq!(details(json!(["1", "0"])), "tuple indices must be integers or slices, not str");
    assert_eq!(details(json!([1, 0])), "1");
    assert_eq!(details(json!([["1"], 0])), "unhashable type: 'list'");
    assert_eq!(details(json!(["1", 0, 0])), "images");
    assert_eq!(details(json!(["e", 0])), "images, received_type(LATENT) mismatch input_type(IMAGE)");
    let error = analysed(saved(json!(["e", 0]))).unwrap_err();
    assert_eq!(
        errors_of(&error, "3")["return_type_mismatch"]["extra_info"],
        json!({"input_name": "images", "input_config": ["IMAGE", {}], "received_type": "LATENT", "linked_node": ["e", 0]})
    );
}

/// What an exception in a node behind an output is made into, seen of 0.8.0.
#[test]
fn an_exception_upstream_is_told_in_the_words_of_the_input_that_led_there() {
    let graph =
        |from: Value| blur(image(json!(8), json!(8)), json!({"image": from, "blur_radius": 5, "sigma": 2.0}));
    let error = analysed(graph(json!(["99", 0]))).unwrap_err();
    assert_eq!(error.details, "");
    assert_eq!(
        Value::Object(*error.node_errors),
        json!({"2": {"errors": [{"type": "exception_during_inner_validation", "message": "Exception when validating inner node",
            "details": "'99'", "extra_info": {"input_name": "images", "input_config": ["IMAGE", {}],
            "exception_message": "'99'", "exception_type": "KeyError", "traceback": [], "linked_node": ["2", 0]}}],
            "dependent_outputs": ["3"], "class_type": "ImageBlur"}})
    );
    let error = analysed(graph(json!(["1", 5]))).unwrap_err();
    let told = &errors_of(&error, "2")["exception_during_inner_validation"];
    assert_eq!(
        (&told["details"], &told["extra_info"]["exception_type"]),
        (&json!("tuple index out of range"), &json!("IndexError"))
    );
}

#[test]
fn values_are_converted_before_they_are_judged() {
    let sigma = |sigma: Value| {
        let error = analysed(blur(
            image(json!(8), json!(8)),
            json!({"image": ["1", 0], "blur_radius": "7", "sigma": sigma}),
        ));
        error.map(|_| ()).map_err(|error| errors_of(&error, "2").into_values().next().expect("one"))
    };
    assert_eq!(sigma(json!("2.5")), Ok(()));
    let error = sigma(json!(11)).unwrap_err();
    assert_eq!(error["message"], "Value 11.0 bigger than max of 10.0");
    assert_eq!(error["extra_info"]["received_value"], json!(11.0));
    assert_eq!(sigma(json!({"__value__": 0})).unwrap_err()["message"], "Value 0.0 smaller than min of 0.1");
    let error = sigma(json!(null)).unwrap_err();
    assert_eq!(
        error["details"],
        "sigma, None, float() argument must be a string or a real number, not 'NoneType'"
    );
    assert_eq!(sigma(json!({"__value__": ["1", 0]})).unwrap_err()["type"], "invalid_input_type");
}

#[test]
fn choices_are_checked_in_both_forms_where_the_version_does() {
    let newer = Rules { combo_options: true, missing_node_type: false };
    let older = Rules { combo_options: false, missing_node_type: false };
    let none = HashSet::new();
    let seconds = |seconds: Value, rules| {
        let graph = json!({"s": {"class_type": "Seconds", "inputs": {"seconds": seconds}}});
        analysed_with(json!({"prompt": graph}), rules, &none).map(|found| found.outputs)
    };
    assert!(seconds(json!(6.0), newer).is_ok() && seconds(json!(7), older).is_ok());
    assert_eq!(
        seconds(json!("6"), newer).unwrap_err().details,
        "Value not in list: seconds: '6' not in [6, 10]"
    );
    assert_eq!(Rules::of(["0.3.64", "0.8.0"].into_iter()), older);
    assert_eq!(Rules::of(["0.8.0"].into_iter()), newer);
    assert!(Rules::of(["0.35.1", "0.8.0"].into_iter()).missing_node_type);
}

#[test]
fn a_model_that_no_instance_has_is_named() {
    let error = analysed(json!({
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "b.safetensors"}},
        "k": {"class_type": "KSampler", "inputs": {"model": ["1", 0], "latent_image": ["e", 0], "seed": 1, "steps": 1, "sampler_name": "euler"}},
        "e": {"class_type": "EmptyLatentImage", "inputs": {"width": 8, "height": 8, "batch_size": 1}},
        "s": {"class_type": "SaveImage", "inputs": {"images": ["k", 0], "filename_prefix": "t"}},
    }))
    .unwrap_err();
    assert_eq!(
        error.lacking.models,
        [ModelRef { folder: "checkpoints".into(), name: "b.safetensors".into() }]
    );
    let error = analysed(json!({"1": {"class_type": "Nope", "inputs": {}}})).unwrap_err();
    assert_eq!(error.lacking.classes, ["Nope"]);
    let newer = Rules { combo_options: true, missing_node_type: true };
    let graph = json!({"1": {"class_type": "Nope", "inputs": {}, "_meta": {"title": "My node"}}});
    let error = analysed_with(json!({"prompt": graph}), newer, &HashSet::new()).unwrap_err();
    assert_eq!(
        (error.kind, error.message.as_str()),
        ("missing_node_type", "Node 'My node' not found. The custom node may not be installed.")
    );
    assert_eq!(error.extra_info["class_type"], "Nope");
}

#[test]
fn an_uploaded_file_that_nobody_has_is_refused_in_the_loaders_words() {
    let graph = json!({
        "1": {"class_type": "LoadImage", "inputs": {"image": "nope.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "li"}},
    });
    let newer = Rules { combo_options: true, missing_node_type: false };
    let submission = prompt::parse(json!({"prompt": graph}).to_string().as_bytes()).unwrap();
    let absent: HashSet<UploadRef> =
        named_files(&submission.graph, &catalogue()).into_iter().map(|named| named.file).collect();
    assert_eq!(absent.len(), 1);
    let error = analysed_with(json!({"prompt": graph}), newer, &absent).unwrap_err();
    assert_eq!(
        errors_of(&error, "1")["custom_validation_failed"],
        json!({"type": "custom_validation_failed", "message": "Custom validation failed for node",
            "details": "image - Invalid image file: nope.png", "extra_info": {"input_name": "image"}})
    );
}

#[test]
fn what_is_no_node_is_refused_in_the_order_posted() {
    let refused = |graph: Value| analysed(graph).unwrap_err().message;
    assert!(
        refused(json!({"1": {"inputs": {}}, "2": {"class_type": "Nope", "inputs": {}}}))
            .contains("missing the class_type")
    );
    assert!(
        refused(json!({"1": {"class_type": "Nope", "inputs": {}}, "2": {"inputs": {}}}))
            .contains("node Nope does not exist")
    );
    assert!(refused(json!({"1": 5})).contains("not an object"));
    assert!(refused(json!({"1": {"class_type": 7, "inputs": {}}})).contains("node 7 does not exist"));
}

/// Each of these is accepted by ComfyUI, and is the last prompt that it ever works on.
#[test]
fn prompts_that_end_the_worker_thread_are_refused() {
    let refused = |extra: Value| {
        let mut graph = blurred(image(json!(8), json!(8)));
        graph.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        analysed(graph).unwrap_err()
    };
    for odd in [json!({"class_type": "ImageBlur"}), json!({"class_type": "ImageBlur", "inputs": []})] {
        assert_eq!(refused(json!({"9": odd})).details, "Node ID '#9'", "unreachable, and without inputs");
    }
    let dangling = |value: Value| {
        json!({"1": {"class_type": "EmptyImage", "inputs":
        {"width": 8, "height": 8, "batch_size": 1, "color": 1, "undeclared": value}}})
    };
    assert!(refused(dangling(json!(["99", 0]))).message.contains("linked to node 99"));
    assert!(refused(dangling(json!({"__value__": ["99", 0]}))).message.contains("linked to node 99"));
    assert_eq!(refused(chain(1_000, "c")).message, "The prompt's chain of nodes is too long");
}

fn chain(length: usize, name: &str) -> Value {
    let mut chain = serde_json::Map::new();
    chain.insert(format!("{name}0"), image(json!(8), json!(8)));
    for i in 1..length {
        let from = format!("{name}{}", i - 1);
        let inputs = json!({"image": [from, 0], "blur_radius": 1, "sigma": 1});
        chain.insert(format!("{name}{i}"), json!({"class_type": "ImageBlur", "inputs": inputs}));
    }
    Value::Object(chain)
}

#[test]
fn cycles_and_long_chains_end() {
    let node = |id: &str| json!({"class_type": "ImageBlur", "inputs": {"image": [id, 0], "blur_radius": 1, "sigma": 1}});
    let saved = json!({"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": ""}});
    let error = analysed(json!({"1": node("2"), "2": node("1"), "3": saved})).unwrap_err();
    assert_eq!((error.kind, error.details.as_str()), ("prompt_outputs_failed_validation", ""));
    assert!(error.node_errors.is_empty() && error.extra_info["reason"].as_str().unwrap().contains("cycle"));

    let mut graph = chain(890, "c");
    graph["s"] = json!({"class_type": "SaveImage", "inputs": {"images": ["c889", 0], "filename_prefix": ""}});
    assert_eq!(analysed(graph).unwrap().needs.nodes, 891);
    let mut wide = chain(2, "c");
    for i in 0..5_000 {
        wide[format!("s{i}")] =
            json!({"class_type": "SaveImage", "inputs": {"images": ["c1", 0], "filename_prefix": ""}});
    }
    assert_eq!(analysed(wide).unwrap().outputs.len(), 5_000);
}

#[test]
fn values_that_only_an_instance_can_judge_pass() {
    // An upload that nobody looked for, a custom class's value, an undeclared list, a wrapped literal, a link's type.
    for graph in [
        json!({"1": {"class_type": "LoadImage", "inputs": {"image": "new.png"}},
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": 5, "more": ["a", "b", "c"]}}}),
        json!({"1": {"class_type": "CustomLoader", "inputs": {"thing": "unlisted.gguf", "n": 4}},
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": {"__value__": ["1", 1]}}}}),
    ] {
        assert_eq!(analysed(graph).unwrap().outputs, ["2"]);
    }
}

#[test]
fn a_prompt_that_is_wrong_everywhere_is_refused_in_a_bounded_answer() {
    use std::fmt::Write as _;
    let files: Vec<String> =
        (0..5_000).map(|n| format!("a-model-with-a-long-name-{n}.safetensors")).collect();
    let info = json!({
        "Loader": {"input": {"required": {"ckpt_name": [files]}}, "output": ["MODEL"], "output_node": true, "python_module": "nodes"},
        "Empty": {"input": {}, "output": ["LATENT"], "python_module": "nodes"},
    });
    let catalogue = Catalogue::parse(info.to_string().into()).expect("a catalogue");
    let mut prompt = String::from(r#"{"e": {"class_type": "Empty", "inputs": {}}"#);
    for n in 0..9_000 {
        let name = if n % 2 == 0 { r#"["e", 0]"# } else { r#""no such model""# };
        let _ = write!(prompt, r#","{n}": {{"class_type": "Loader", "inputs": {{"ckpt_name": {name}}}}}"#);
    }
    let body = format!(r#"{{"prompt": {prompt}}}}}"#);
    let submission = prompt::parse(body.as_bytes()).expect("a prompt");
    let rules = Rules { combo_options: true, missing_node_type: false };
    let known = Known { catalogue: &catalogue, rules, absent: &Default::default() };
    let error = analyse(&submission, &known).expect_err("nothing of it can run");
    assert_eq!(error.node_errors.len(), 100);
    let config = |id: &str| error.node_errors[id]["errors"][0]["extra_info"]["input_config"].clone();
    assert_eq!(config("0")[0].as_array().map(Vec::len), Some(5_000), "the first says what there is");
    assert!(error.body().len() < 6 << 20, "{} bytes", error.body().len());
}
