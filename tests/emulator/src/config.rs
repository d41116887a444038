//! What an emulated instance is: flavour, time, models, GPU, node classes. Pure data with working defaults.

use std::{collections::BTreeMap, path::PathBuf, str::FromStr, sync::Arc};

use serde_json::Value;

use crate::host::Host;

/// The ComfyUI release whose wire is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flavour {
    V0_3_64,
    #[default]
    V0_8_0,
}

impl Flavour {
    pub fn version(self) -> &'static str {
        match self {
            Self::V0_3_64 => "0.3.64",
            Self::V0_8_0 => "0.8.0",
        }
    }
}

impl FromStr for Flavour {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "0.3.64" => Ok(Self::V0_3_64),
            "0.8.0" => Ok(Self::V0_8_0),
            other => Err(format!("unknown flavour {other:?}, expected 0.3.64 or 0.8.0")),
        }
    }
}

/// How long work takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Timing {
    /// No time passes besides gates and faults.
    Canned,
    /// Modelled service times, divided by `speed` (1.0 = real time, 100.0 = a hundred times faster).
    Realistic { speed: f64 },
}

impl Timing {
    pub(crate) fn speed(self) -> f64 {
        match self {
            Self::Canned => 1.0,
            Self::Realistic { speed } => speed.max(1e-6),
        }
    }
}

/// Seconds of modelled work, before the speed is applied. The defaults are the medians of the GenTD26 trace
/// (alibaba/clusterdata, cluster-trace-v2026-GenAI): 30 steps in 15.1 s, loads of 3.1 s warm and 37 s cold.
#[derive(Debug, Clone, PartialEq)]
pub struct Costs {
    /// One sampler step of one 1024x1024 image.
    pub step_s: f64,
    /// A base model (checkpoint or diffusion model) whose file is in the page cache of the host.
    pub model_warm_s: f64,
    /// The same, read from disk.
    pub model_cold_s: f64,
    pub lora_s: f64,
    pub controlnet_s: f64,
    /// VAE, text encoder or upscaler from the page cache, and from disk.
    pub part_warm_s: f64,
    pub part_cold_s: f64,
    pub decode_s: f64,
    pub encode_text_s: f64,
    pub save_s: f64,
    /// Every other node.
    pub node_s: f64,
}

impl Default for Costs {
    fn default() -> Self {
        Self {
            step_s: 0.5,
            model_warm_s: 3.1,
            model_cold_s: 37.0,
            lora_s: 4.4,
            controlnet_s: 3.9,
            part_warm_s: 0.4,
            part_cold_s: 3.0,
            decode_s: 0.4,
            encode_text_s: 0.05,
            save_s: 0.15,
            node_s: 0.01,
        }
    }
}

/// One model file as `/models/{folder}` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFile {
    pub name: String,
    pub size_mib: u64,
}

/// Model files by folder key (`checkpoints`, `loras`, `vae`, ...).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Models(pub BTreeMap<String, Vec<ModelFile>>);

impl Models {
    pub fn none() -> Self {
        Self::default()
    }

    /// A small believable set: three checkpoints, two LoRAs, a VAE and the parts of a Flux-like pipeline.
    pub fn standard() -> Self {
        Self::none()
            .with("checkpoints", "sd15.safetensors", 4_200)
            .with("checkpoints", "sdxl.safetensors", 6_600)
            .with("checkpoints", "dreamlike.safetensors", 6_600)
            .with("loras", "detail.safetensors", 220)
            .with("loras", "sketch.safetensors", 180)
            .with("vae", "sdxl_vae.safetensors", 320)
            .with("diffusion_models", "flux1-dev.safetensors", 11_400)
            .with("text_encoders", "clip_l.safetensors", 240)
            .with("text_encoders", "t5xxl_fp8.safetensors", 4_900)
            .with("controlnet", "canny.safetensors", 1_400)
            .with("upscale_models", "4x-UltraSharp.pth", 64)
            .with("embeddings", "easynegative.safetensors", 1)
    }

    #[must_use]
    pub fn with(mut self, folder: &str, name: &str, size_mib: u64) -> Self {
        self.0.entry(folder.into()).or_default().push(ModelFile { name: name.into(), size_mib });
        self
    }

    pub(crate) fn names(&self, folder: &str) -> Vec<String> {
        self.0
            .get(folder)
            .map(|files| files.iter().map(|file| file.name.clone()).collect())
            .unwrap_or_default()
    }

    pub(crate) fn size_mib(&self, folder: &str, name: &str) -> u64 {
        let files = self.0.get(folder).map(Vec::as_slice).unwrap_or_default();
        files.iter().find(|file| file.name == name).map_or(1_000, |file| file.size_mib)
    }
}

/// An emulated card. Two instances which name the same `uuid` on one `Host` share it.
#[derive(Debug, Clone, PartialEq)]
pub struct GpuSpec {
    pub index: u32,
    pub uuid: String,
    pub name: String,
    pub memory_total_mib: u64,
    pub power_limit_mw: u64,
    pub slowdown_temperature_c: u32,
}

impl GpuSpec {
    pub fn new(index: u32) -> Self {
        Self {
            index,
            uuid: format!("GPU-00000000-0000-4000-8000-{index:012}"),
            name: "NVIDIA Emulated".into(),
            memory_total_mib: 24_564,
            power_limit_mw: 450_000,
            slowdown_temperature_c: 89,
        }
    }
}

/// What a scripted crash does to the process around the emulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CrashMode {
    /// In process: every connection drops and the port closes until `Emulator::restart`.
    #[default]
    ClosePort,
    /// The whole process aborts, as a segmentation fault would end it.
    AbortProcess,
}

/// An emulated instance. `Config::default()` is a canned 0.8.0 with the standard models and no GPU.
#[derive(Debug, Clone)]
pub struct Config {
    pub flavour: Flavour,
    /// 0 = any free port.
    pub port: u16,
    /// Where `input`, `output`, `temp` and `user` live; `None` = a temporary directory of the emulator's own.
    pub dir: Option<PathBuf>,
    pub timing: Timing,
    pub costs: Costs,
    /// `None` = a CPU instance, as in the recordings.
    pub gpu: Option<GpuSpec>,
    pub models: Models,
    /// Extra node classes, name to an `/object_info` entry; missing fields get defaults.
    pub extra_nodes: Vec<(String, Value)>,
    pub removed_nodes: Vec<String>,
    /// Limit of every request body, bytes.
    pub max_upload_size: u64,
    /// Whether samplers send previews (`--preview-method`).
    pub preview: bool,
    pub seed: u64,
    /// Page cache and cards of the box; `None` = a box of its own.
    pub host: Option<Arc<Host>>,
    /// File to which each execution is appended before it starts, one JSON object a line.
    pub oracle: Option<PathBuf>,
    pub crash_mode: CrashMode,
    /// With the holes that releases before 0.28.0 have: paths of model previews and of loaded images lead wherever they
    /// like, pages and scripts are served as such, and ComfyUI-Manager listens to whoever reaches it.
    pub careless: bool,
    /// The stock page's folder; a placeholder page if absent.
    pub web_root: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            flavour: Flavour::default(),
            port: 0,
            dir: None,
            timing: Timing::Canned,
            costs: Costs::default(),
            gpu: None,
            models: Models::standard(),
            extra_nodes: Vec::new(),
            removed_nodes: Vec::new(),
            max_upload_size: 100 << 20,
            preview: true,
            seed: 0,
            host: None,
            oracle: None,
            crash_mode: CrashMode::ClosePort,
            careless: false,
            web_root: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flavours_parse_by_release() {
        assert_eq!("0.3.64".parse(), Ok(Flavour::V0_3_64));
        assert!("1.0".parse::<Flavour>().is_err());
        assert_eq!(Models::standard().size_mib("checkpoints", "sdxl.safetensors"), 6_600);
    }
}
