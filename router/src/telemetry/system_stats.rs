//! Second source: ComfyUI's own `/system_stats`, which the fleet polls anyway. It knows memory and nothing else.

use serde_json::Value;

use super::json::{MAX_BYTES, whole, word};
use super::reading::Device;

/// 1 PiB.
const MAX_MEMORY: u64 = 1 << 50;

/// The first device, which is the one ComfyUI computes on. None for text that is no such answer, and for `cpu`, whose
/// "vram" is the machine's memory.
pub(super) fn parse(text: &str) -> Option<Device> {
    if text.len() > MAX_BYTES {
        return None;
    }
    let answer: Value = serde_json::from_str(text).ok()?;
    let device = answer.get("devices")?.get(0)?;
    if word(device, "type").as_deref() == Some("cpu") {
        return None;
    }
    let total = whole(device, "vram_total", MAX_MEMORY).filter(|total| *total > 0)?;
    // Free as ComfyUI counts: the driver's figure and what torch holds without using it.
    let free = whole(device, "vram_free", MAX_MEMORY).map(|free| free.min(total));
    Some(Device {
        memory_total_bytes: Some(total),
        memory_free_bytes: free,
        memory_used_bytes: free.map(|free| total - free),
        ..Device::new("", word(device, "name").unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(device: &str) -> Option<Device> {
        parse(&format!(r#"{{"system":{{}},"devices":[{device}]}}"#))
    }

    #[test]
    fn memory_is_read_as_comfyui_writes_it() {
        let device = answer(
            r#"{"name":"cuda:0 NVIDIA H200 : cudaMallocAsync","type":"cuda","index":0,"vram_total":150754820096,
               "vram_free":149501247488,"torch_vram_total":1073741824,"torch_vram_free":0}"#,
        );
        let device = device.expect("is one");
        assert_eq!(device.memory_total_bytes, Some(150_754_820_096));
        assert_eq!(device.memory_used_bytes, Some(1_253_572_608));
        assert_eq!(device.utilization_percent, None);
    }

    #[test]
    fn a_cpu_has_no_vram() {
        assert_eq!(
            answer(r#"{"name":"cpu","type":"cpu","index":null,"vram_total":25,"vram_free":21}"#),
            None
        );
    }

    #[test]
    fn nonsense_is_unknown() {
        for hostile in [
            r#"{"type":"cuda"}"#,
            r#"{"type":"cuda","vram_total":"many","vram_free":1}"#,
            r#"{"type":"cuda","vram_total":-5,"vram_free":1}"#,
            r#"{"type":"cuda","vram_total":0,"vram_free":0}"#,
            r#"{"type":"cuda","vram_total":1e300,"vram_free":1}"#,
            r#"[1,2]"#,
            "null",
        ] {
            assert_eq!(answer(hostile), None, "{hostile}");
        }
        for text in ["", "{", "null", "[]", r#"{"devices":{}}"#, r#"{"devices":[]}"#] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse(&"[".repeat(MAX_BYTES)), None, "too deep");
        let padded =
            format!(r#"{{"devices":[{{"type":"cuda","vram_total":5}}],"pad":"{}"}}"#, "x".repeat(MAX_BYTES));
        assert_eq!(parse(&padded), None, "too long");
    }

    #[test]
    fn more_free_than_there_is_counts_as_all() {
        let device = answer(r#"{"type":"cuda","vram_total":10,"vram_free":99}"#).expect("is one");
        assert_eq!((device.memory_free_bytes, device.memory_used_bytes), (Some(10), Some(0)));
        let unknown = answer(r#"{"type":"cuda","vram_total":10,"vram_free":null}"#).expect("is one");
        assert_eq!((unknown.memory_free_bytes, unknown.memory_used_bytes), (None, None));
    }
}
