//! Loading models in realistic mode: page cache of the host, memory of the card, one patched set of LoRAs.

use super::run::{Call, Raised, Ran, generic};
use crate::{config::Timing, host::gpu::Placed};

/// Folder, input name and kind of cost for each loader class.
const LOADS: [(&str, &str, &str); 11] = [
    ("CheckpointLoaderSimple", "ckpt_name", "checkpoints"),
    ("UNETLoader", "unet_name", "diffusion_models"),
    ("CLIPLoader", "clip_name", "text_encoders"),
    ("DualCLIPLoader", "clip_name1", "text_encoders"),
    ("DualCLIPLoader", "clip_name2", "text_encoders"),
    ("VAELoader", "vae_name", "vae"),
    ("ControlNetLoader", "control_net_name", "controlnet"),
    ("LoraLoader", "lora_name", "loras"),
    ("LoraLoaderModelOnly", "lora_name", "loras"),
    ("UpscaleModelLoader", "model_name", "upscale_models"),
    ("CLIPVisionLoader", "clip_name", "clip_vision"),
];

pub(crate) async fn load(call: &mut Call<'_>) -> Result<Ran, Raised> {
    for (_, input, folder) in LOADS.iter().filter(|(class, ..)| *class == call.class) {
        let path = format!("{folder}/{}", call.text(input));
        bring(call, folder, &path).await?;
    }
    Ok(generic(call))
}

/// A sampler needs its base model on the card even when the loader came from the node cache.
pub(crate) async fn ensure_resident(call: &mut Call<'_>) -> Result<(), Raised> {
    for (folder, path) in call.execution.base_models() {
        bring(call, &folder, &path).await?;
    }
    Ok(())
}

async fn bring(call: &Call<'_>, folder: &str, path: &str) -> Result<(), Raised> {
    let life = &call.execution.life;
    let machine = &life.machine;
    let name = path.split_once('/').map_or(path, |(_, name)| name);
    let size = machine.catalogue.models().size_mib(folder, name);
    let resident = machine.gpu.as_ref().is_some_and(|gpu| gpu.is_resident(machine.owner, path));
    if !resident && machine.config.timing != Timing::Canned {
        let warm = machine.host.read_file(path, size);
        life.work(seconds(call, folder, warm)).await;
    }
    let Some(gpu) = &machine.gpu else { return Ok(()) };
    match gpu.place(machine.owner, path, size) {
        Placed::Resident | Placed::Loaded => Ok(()),
        Placed::OutOfMemory => Err(Raised::out_of_memory()),
    }
}

fn seconds(call: &Call<'_>, folder: &str, warm: bool) -> f64 {
    let costs = &call.execution.life.machine.config.costs;
    match (folder, warm) {
        ("checkpoints" | "diffusion_models", true) => costs.model_warm_s,
        ("checkpoints" | "diffusion_models", false) => costs.model_cold_s,
        ("loras", _) => costs.lora_s,
        ("controlnet", _) => costs.controlnet_s,
        (_, true) => costs.part_warm_s,
        (_, false) => costs.part_cold_s,
    }
}

/// Base model files that a prompt names, as `(folder, folder/name)`; and its LoRAs.
pub(crate) fn named_models(
    prompt: &serde_json::Map<String, serde_json::Value>,
    folders: &[&str],
) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for node in prompt.values() {
        let class = node.get("class_type").and_then(|class| class.as_str()).unwrap_or_default();
        for (_, input, folder) in
            LOADS.iter().filter(|(name, _, folder)| *name == class && folders.contains(folder))
        {
            if let Some(name) =
                node.get("inputs").and_then(|inputs| inputs.get(input)).and_then(|name| name.as_str())
            {
                found.push(((*folder).to_owned(), format!("{folder}/{name}")));
            }
        }
    }
    found
}
