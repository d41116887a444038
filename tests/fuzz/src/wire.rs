//! What clients, instances and operators send: prompts, websocket frames, catalogues, file names, the configuration.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use comfy_router::comfy::frame::{Event, Frame, Renaming, Utf8Bytes};
use comfy_router::comfy::graph::{self, Known, Rules};
use comfy_router::comfy::{Catalogue, Submission, files, prompt as body};
use comfy_router::config::{Config, Sources};
use comfy_router::model::id::InstanceId;

use crate::seeds::OBJECT_INFO;

/// A catalogue that knows the classes of the seeds.
fn known() -> &'static Arc<Catalogue> {
    static KNOWN: OnceLock<Arc<Catalogue>> = OnceLock::new();
    KNOWN.get_or_init(|| {
        Arc::new(Catalogue::parse(Bytes::from_static(OBJECT_INFO.as_bytes())).expect("the seed is right"))
    })
}

fn analysed(submission: &Submission, catalogue: &Catalogue) {
    for version in ["0.3.64", "0.8.0"] {
        let (rules, absent) = (Rules::of([version].into_iter()), HashSet::new());
        if let Ok(analysis) = graph::analyse(submission, &Known { catalogue, rules, absent: &absent }) {
            assert!(!analysis.outputs.is_empty(), "what passes has an output");
            assert!(analysis.needs.work().is_none_or(|work| !work.is_nan()), "work is a number or unknown");
            // Shown to clients as JSON.
            let errors: Result<serde_json::Value, _> = serde_json::from_str(&analysis.node_errors);
            assert!(errors.is_ok_and(|errors| errors.is_object()), "{}", analysis.node_errors);
        }
    }
    let named = graph::named_files(&submission.graph, catalogue);
    named.iter().for_each(|named| drop(files::reference(&named.file)));
}

/// `POST /prompt`.
pub fn prompt(data: &[u8]) {
    let Ok(submission) = body::parse(data) else { return };
    analysed(&submission, known());
    assert!(submission.requested.number.is_none_or(f64::is_finite));
    let kept = submission.into_body(Vec::new(), Vec::new());
    for text in [&kept.prompt, &kept.extra_data] {
        assert!(serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok(), "kept as JSON: {text}");
    }
    for secret in ["auth_token_comfy_org", "api_key_comfy_org"] {
        let shown: serde_json::Value = serde_json::from_str(&kept.extra_data).unwrap_or_default();
        assert!(shown.get(secret).is_none(), "a credential is kept");
    }
}

/// A websocket frame of an instance; the first byte says which kind.
pub fn frame(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    let frame = match kind % 2 {
        0 => Utf8Bytes::try_from(Bytes::copy_from_slice(rest)).ok().and_then(Frame::text),
        _ => Some(Frame::binary(Bytes::copy_from_slice(rest))),
    };
    let Some(frame) = frame else { return };
    let _ = frame.prompt_id();
    match &frame {
        Frame::Event(event) => told(event),
        Frame::Preview(preview) => {
            let again = preview.clone().for_client(&another(preview.prompt_id.as_deref()));
            let _ =
                (again.head(true), again.head(false), again.image(), again.is_png(), again.has_metadata());
        }
        _ => {}
    }
}

fn another(id: Option<&str>) -> Renaming {
    Renaming::new(id.unwrap_or_default(), "another")
}

fn told(event: &Event) {
    let another = another(event.prompt_id.as_deref());
    // By its grammar: a number may be larger than any that is kept here.
    let is_json = |text: &str| serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok();
    let text = event.renamed(&another);
    assert!(is_json(&text), "a client is told JSON: {text}");
    let (text, _) = event.tagged(&another, &InstanceId::from("gpu0"));
    assert!(is_json(&text), "a client is told JSON: {text}");
    let _ = (event.nodes_finished(), event.names_a_node());
}

/// `GET /object_info` of an instance, merged with that of another, and prompts checked against it.
pub fn object_info(data: &[u8]) {
    let Ok(catalogue) = Catalogue::parse(Bytes::copy_from_slice(data)) else { return };
    let merged = Catalogue::merged(&[Arc::new(catalogue), known().clone()]);
    let raw: serde_json::Value = serde_json::from_slice(merged.raw()).expect("what is shown is JSON");
    for class in raw.as_object().into_iter().flat_map(|classes| classes.keys()) {
        assert!(serde_json::from_str::<serde_json::Value>(&merged.raw_class(class)).is_ok());
        let _ = merged.input_config(class, "image");
    }
    for seed in crate::seeds("prompt").iter().take(8) {
        if let Ok(submission) = body::parse(seed) {
            analysed(&submission, &merged);
        }
    }
}

/// Names of uploads and outputs, in graphs, forms and addresses.
pub fn names(data: &[u8]) {
    let Ok(name) = std::str::from_utf8(data) else { return };
    let (bare, _) = files::annotated(name);
    assert!(name.starts_with(bare));
    let (instance, subfolder) = files::untag(name);
    if let Some(instance) = instance {
        let again = files::tag(&instance, subfolder);
        let (same, rest) = files::untag(&again);
        assert_eq!((same, rest), (Some(instance), subfolder), "a tag is read as it was written");
    }
    if let Some(file) = files::upload_ref(name) {
        let path = files::view_path(&file);
        assert!(path.is_ascii() && !path.contains([' ', '\n', '\r', '#']), "an address: {path:?}");
        let reference = files::reference(&file);
        assert_eq!(files::upload_ref(&reference).as_ref(), Some(&file), "{reference:?} names the same file");
    }
    let _ = files::leads_out(name);
}

/// The configuration file.
pub fn config(data: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("router.toml");
    std::fs::write(&file, data).expect("written");
    match Config::load(Sources { file: Some(file), ..Sources::default() }) {
        Ok(config) => assert!(!config.show().is_empty()),
        Err(mistakes) => assert!(!mistakes.to_string().is_empty()),
    }
}
