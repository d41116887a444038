//! The part of `/system_stats` that the router looks at.

use serde::Deserialize;

use crate::comfy::errors::clip;
use crate::comfy::json;

/// Texts of an instance that are shown and logged.
const MAX_TEXT: usize = 200;

/// A device as ComfyUI sees it. On `cpu` the figures are the machine's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// `cuda:0 NVIDIA H200 : cudaMallocAsync`, `cpu`.
    pub name: String,
    /// `cuda`, `cpu`, `mps`, `xpu`.
    pub kind: String,
    pub vram_total: u64,
    pub vram_free: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stats {
    pub(super) version: Option<String>,
    pub(super) devices: Vec<Device>,
}

/// An error, if it is not the answer of a ComfyUI.
pub(super) fn parse(body: &[u8]) -> Result<Stats, String> {
    #[derive(Deserialize)]
    struct Answer {
        system: System,
        devices: Vec<RawDevice>,
    }
    #[derive(Deserialize)]
    struct System {
        #[serde(default)]
        comfyui_version: Option<String>,
    }
    #[derive(Deserialize)]
    struct RawDevice {
        name: String,
        #[serde(rename = "type")]
        kind: String,
        #[serde(default)]
        vram_total: f64,
        #[serde(default)]
        vram_free: f64,
    }
    let answer: Answer = json::parse(body).map_err(|error| error.to_string())?;
    let text = |text: String| clip(&text, MAX_TEXT).replace(char::is_control, " ");
    let device = |raw: RawDevice| Device {
        name: text(raw.name),
        kind: text(raw.kind),
        vram_total: raw.vram_total as u64,
        vram_free: raw.vram_free as u64,
    };
    Ok(Stats {
        version: answer.system.comfyui_version.map(text),
        devices: answer.devices.into_iter().take(64).map(device).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_comfyui_is_one() {
        let stats = parse(
            br#"{"system":{"os":"linux","comfyui_version":"0.8.0"},"devices":[{"name":"cuda:0 \u001b[31m","type":"cuda",
                "index":null,"vram_total":25000000000,"vram_free":-1}]}"#,
        )
        .unwrap();
        assert_eq!(stats.version.as_deref(), Some("0.8.0"));
        assert_eq!((stats.devices[0].name.as_str(), stats.devices[0].vram_free), ("cuda:0  [31m", 0));
        for other in [&b"<html>"[..], b"{}", br#"{"system":{}}"#, b"[]"] {
            assert!(parse(other).is_err());
        }
    }

    #[test]
    fn a_long_name_is_cut() {
        let body = format!(
            r#"{{"system":{{"comfyui_version":"{0}"}},"devices":[{{"name":"{0}","type":"cpu"}}]}}"#,
            "ä".repeat(5_000)
        );
        let stats = parse(body.as_bytes()).unwrap();
        assert!(stats.devices[0].name.len() <= MAX_TEXT && stats.version.unwrap().len() <= MAX_TEXT);
    }
}
