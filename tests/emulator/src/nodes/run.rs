//! What a node does when it runs: picks the behaviour of its class; unknown classes get one by their output types.

use indexmap::IndexMap;
use serde_json::{Value as Json, json};

use super::{
    models, pictures,
    value::{Kind, Value, colour, fingerprint},
};
use crate::{control::gate::Each, picture::Picture, worker::execution::Execution};

/// Inputs by name, resolved.
pub(crate) type Inputs = IndexMap<String, Value>;

/// One node about to run.
pub(crate) struct Call<'a> {
    pub(crate) execution: &'a mut Execution,
    pub(crate) node: &'a str,
    pub(crate) class: &'a str,
    pub(crate) output_types: &'a [String],
    pub(crate) inputs: &'a Inputs,
    /// Depends on class, inputs and everything upstream.
    pub(crate) fingerprint: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Ran {
    pub(crate) outputs: Vec<Value>,
    /// The `output` of `executed` for nodes that show something.
    pub(crate) ui: Option<Json>,
}

/// Why a node did not finish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Raised {
    Interrupted,
    Error { exception_type: String, message: String },
}

impl Raised {
    pub(crate) fn error(exception_type: &str, message: impl Into<String>) -> Self {
        Self::Error { exception_type: exception_type.into(), message: message.into() }
    }

    /// The words of torch 2 for a full card.
    pub(crate) fn out_of_memory() -> Self {
        let message = "Allocation on device 0 would exceed allowed memory. (out of memory)";
        Self::error("torch.OutOfMemoryError", message)
    }
}

impl Call<'_> {
    pub(crate) fn json(&self, name: &str) -> Option<&Json> {
        match &self.inputs.get(name)?.kind {
            Kind::Literal(json) => Some(json),
            _ => None,
        }
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        self.json(name).and_then(Json::as_str).unwrap_or_default()
    }

    pub(crate) fn number(&self, name: &str) -> u32 {
        let number =
            self.json(name).and_then(|json| json.as_i64().or_else(|| json.as_f64().map(|f| f as i64)));
        number.unwrap_or(0).clamp(0, u32::MAX.into()) as u32
    }

    pub(crate) fn images(&self, name: &str) -> Vec<Picture> {
        self.inputs.get(name).map(|value| value.images().to_vec()).unwrap_or_default()
    }

    pub(crate) fn opaque(&self, slot: usize) -> Value {
        Value { fingerprint: fingerprint(&(self.fingerprint, slot)), kind: Kind::Opaque }
    }

    pub(crate) fn picture_value(&self, pictures: Vec<Picture>) -> Value {
        Value { fingerprint: self.fingerprint, kind: Kind::Images(pictures) }
    }
}

pub(crate) async fn run(mut call: Call<'_>) -> Result<Ran, Raised> {
    if let Some(raised) = call.execution.failure_for_node() {
        return Err(raised);
    }
    let costs = call.execution.life.machine.config.costs.clone();
    let call = &mut call;
    match call.class {
        "CheckpointLoaderSimple"
        | "UNETLoader"
        | "CLIPLoader"
        | "DualCLIPLoader"
        | "VAELoader"
        | "ControlNetLoader"
        | "LoraLoader"
        | "LoraLoaderModelOnly"
        | "UpscaleModelLoader"
        | "CLIPVisionLoader" => models::load(call).await,
        "KSampler" => sample(call).await,
        "EmptyLatentImage" => Ok(single(empty_latent(call))),
        "CLIPTextEncode" => paced(call, costs.encode_text_s, generic).await,
        "VAEDecode" => paced(call, costs.decode_s, pictures::decode).await,
        "VAEEncode" => paced(call, costs.decode_s, pictures::encode).await,
        "SaveImage" | "PreviewImage" => {
            call.execution.life.work(costs.save_s).await;
            pictures::save(call)
        }
        "SaveImageWebsocket" => pictures::send(call).await,
        "GetImageSize" => Ok(pictures::measure(call)),
        "LoadImage" | "LoadImageOutput" | "LoadImageMask" => {
            call.execution.life.work(costs.node_s).await;
            pictures::load(call)
        }
        _ => paced(call, costs.node_s, pictures::transform).await,
    }
}

async fn paced(call: &Call<'_>, seconds: f64, work: fn(&Call<'_>) -> Ran) -> Result<Ran, Raised> {
    call.execution.life.work(seconds).await;
    Ok(work(call))
}

pub(crate) fn single(value: Value) -> Ran {
    Ran { outputs: vec![value], ui: None }
}

/// A class without a behaviour of its own: pictures pass through, or get the colour of the fingerprint.
pub(crate) fn generic(call: &Call<'_>) -> Ran {
    let image = call.inputs.values().find(|value| !value.images().is_empty());
    let latent = call.inputs.values().find(|value| matches!(value.kind, Kind::Latent { .. }));
    let outputs = call.output_types.iter().enumerate().map(|(slot, kind)| match kind.as_str() {
        "IMAGE" | "MASK" => {
            let own = || vec![Picture::solid(512, 512, colour(call.fingerprint))];
            call.picture_value(image.map_or_else(own, |value| value.images().to_vec()))
        }
        "LATENT" => {
            let kind =
                latent.map_or(Kind::Latent { width: 512, height: 512, batch: 1 }, |value| value.kind.clone());
            Value { fingerprint: call.fingerprint, kind }
        }
        _ => call.opaque(slot),
    });
    Ran { outputs: outputs.collect(), ui: None }
}

fn empty_latent(call: &Call<'_>) -> Value {
    let kind = Kind::Latent {
        width: call.number("width"),
        height: call.number("height"),
        batch: call.number("batch_size").max(1),
    };
    Value { fingerprint: call.fingerprint, kind }
}

async fn sample(call: &mut Call<'_>) -> Result<Ran, Raised> {
    if call.execution.failure_for_sampler() {
        return Err(Raised::out_of_memory());
    }
    models::ensure_resident(call).await?;
    let kind = call.inputs.get("latent_image").map_or(Kind::Opaque, |value| value.kind.clone());
    let Kind::Latent { width, height, batch } = kind else {
        return Err(Raised::error("TypeError", "'NoneType' object is not subscriptable"));
    };
    let steps = call.number("steps").max(1);
    let megapixels = f64::from(width) * f64::from(height) / f64::from(1 << 20);
    let step_s = call.execution.life.machine.config.costs.step_s * megapixels * f64::from(batch);
    let preview = call.execution.previews().then(|| pictures::preview(call.fingerprint, width, height));
    for step in 1..=steps {
        call.execution.life.gate(Each::Step).await;
        call.execution.life.work(step_s).await;
        call.execution.progress(call.node, step, steps, preview.as_ref())?;
    }
    Ok(single(Value { fingerprint: call.fingerprint, kind: Kind::Latent { width, height, batch } }))
}

/// The `images` list of `executed`.
pub(crate) fn ui_images(images: Vec<Json>) -> Json {
    json!({ "images": images })
}
