//! What the instance is and has: node classes, models, system, features, the page.

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::IntoResponse,
};
use serde_json::{Map, Value, json};

use super::{
    App,
    reply::{self, Reply},
};
use crate::{
    config::{Config, Flavour},
    files::inside,
    life::Life,
};

const MIB: u64 = 1 << 20;
const RAM_TOTAL: u64 = 64 << 30;

pub(super) async fn object_info(State(life): State<App>) -> Reply {
    let machine = &life.machine;
    let all: Map<String, Value> = machine
        .catalogue
        .names()
        .filter_map(|name| Some((name.to_owned(), machine.catalogue.info(name, &machine.dirs)?)))
        .collect();
    reply::json(&all)
}

pub(super) async fn object_info_class(State(life): State<App>, Path(class): Path<String>) -> Reply {
    let mut found = Map::new();
    if let Some(info) = life.machine.catalogue.info(&class, &life.machine.dirs) {
        found.insert(class, info);
    }
    reply::json(&found)
}

pub(super) async fn system_stats(State(life): State<App>) -> Reply {
    let flavour = life.machine.config.flavour;
    let (frontend, templates, os) = match flavour {
        Flavour::V0_3_64 => ("1.27.10", "0.1.95", "posix"),
        Flavour::V0_8_0 => ("1.35.9", "0.7.67", "linux"),
    };
    reply::json(&json!({
        "system": {
            "os": os,
            "ram_total": RAM_TOTAL,
            "ram_free": RAM_TOTAL / 4 * 3,
            "comfyui_version": flavour.version(),
            "required_frontend_version": frontend,
            "installed_templates_version": templates,
            "required_templates_version": templates,
            "python_version": "3.11.7 (main) [GCC 12.2.0]",
            "pytorch_version": "2.9.1+cu130",
            "embedded_python": false,
            "argv": ["main.py"],
        },
        "devices": [device(&life)],
    }))
}

/// One device, index 0 whichever card it is: ComfyUI sees only its own.
fn device(life: &Life) -> Value {
    let Some(gpu) = &life.machine.gpu else {
        let (total, free) = (RAM_TOTAL, RAM_TOTAL / 4 * 3);
        return json!({
            "name": "cpu", "type": "cpu", "index": null, "vram_total": total, "vram_free": free,
            "torch_vram_total": total, "torch_vram_free": free,
        });
    };
    let readings = gpu.readings();
    json!({
        "name": format!("cuda:0 {} : cudaMallocAsync", gpu.spec().name),
        "type": "cuda",
        "index": 0,
        "vram_total": readings.memory_total_mib * MIB,
        "vram_free": (readings.memory_total_mib - readings.memory_used_mib) * MIB,
        "torch_vram_total": gpu.owned_mib(life.machine.owner) * MIB,
        "torch_vram_free": 0,
    })
}

pub(super) async fn features(State(life): State<App>) -> Reply {
    reply::json(&feature_flags(&life.machine.config))
}

pub(super) fn feature_flags(config: &Config) -> Value {
    let mut flags = json!({ "supports_preview_metadata": true, "max_upload_size": config.max_upload_size });
    if config.flavour == Flavour::V0_8_0 {
        flags["extension"] = json!({ "manager": { "supports_v4": true } });
    }
    flags
}

pub(super) async fn embeddings(State(life): State<App>) -> Reply {
    let names = life.machine.catalogue.models().names("embeddings");
    let stems: Vec<&str> =
        names.iter().map(|name| name.rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem)).collect();
    reply::json(&stems)
}

pub(super) async fn models(State(life): State<App>) -> Reply {
    reply::json(&life.machine.catalogue.folders())
}

pub(super) async fn models_in(State(life): State<App>, Path(folder): Path<String>) -> Reply {
    if !life.machine.catalogue.folders().contains(&folder.as_str()) {
        return reply::empty(StatusCode::NOT_FOUND);
    }
    reply::json(&life.machine.catalogue.models().names(&folder))
}

pub(super) async fn experiment_models(State(life): State<App>) -> Reply {
    let shown = life
        .machine
        .catalogue
        .folders()
        .into_iter()
        .filter(|name| *name != "configs" && *name != "custom_nodes");
    let folders: Vec<Value> =
        shown.map(|name| json!({ "name": name, "folders": [format!("/comfyui/models/{name}")] })).collect();
    reply::json(&folders)
}

pub(super) async fn experiment_models_in(State(life): State<App>, Path(folder): Path<String>) -> Reply {
    if !life.machine.catalogue.folders().contains(&folder.as_str()) {
        return reply::empty(StatusCode::NOT_FOUND);
    }
    let models = life.machine.catalogue.models();
    let entry = |name: String| {
        let size = models.size_mib(&folder, &name) * MIB;
        json!({ "name": name, "pathIndex": 0, "modified": 1.7e9, "created": 1.7e9, "size": size })
    };
    reply::json(&models.names(&folder).into_iter().map(entry).collect::<Vec<_>>())
}

/// The picture beside a model, `NAME.preview.png`; a careless server gives any file of any path.
pub(super) async fn model_preview(
    State(life): State<App>,
    Path((folder, _, file)): Path<(String, String, String)>,
) -> Reply {
    let folder = life.machine.dirs.root().join("models").join(folder);
    let careless = life.machine.config.careless;
    let path =
        if careless { Some(folder.join(&file)) } else { inside(&folder, &format!("{file}.preview.png")) };
    match path.and_then(|path| std::fs::read(path).ok()) {
        Some(bytes) => ([(axum::http::header::CONTENT_TYPE, "image/webp")], bytes).into_response(),
        None => reply::empty(StatusCode::NOT_FOUND),
    }
}

/// No emulated model file has a safetensors header.
pub(super) async fn view_metadata() -> Reply {
    reply::empty(StatusCode::NOT_FOUND)
}

pub(super) async fn empty_object() -> Reply {
    reply::json(&json!({}))
}

pub(super) async fn null() -> Reply {
    reply::json(&Value::Null)
}
