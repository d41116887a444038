//! The fleet as text, for a terminal.

use super::{InstanceInfo, State};

const HEAD: [&str; 7] = ["INSTANCE", "ADDRESS", "VERSION", "DEVICE", "VRAM", "NODES", "MODELS"];

/// One aligned line for each instance: what it is and has, or why it is down.
pub fn table(instances: &[InstanceInfo]) -> String {
    let rows: Vec<_> = instances.iter().map(row).collect();
    let full = rows.iter().filter_map(|row| row.as_ref().ok());
    let width = |column: usize| {
        let cells = full.clone().map(move |cells| cells[column].chars().count());
        let names = rows
            .iter()
            .filter_map(|row| row.as_ref().err())
            .map(move |down| down[column.min(1)].chars().count());
        let names = names.filter(move |_| column < 2);
        cells.chain(names).chain([HEAD[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..HEAD.len()).map(width).collect();
    let mut text = line(&HEAD, &widths);
    for row in &rows {
        text += &match row {
            Ok(cells) => line(cells, &widths),
            Err(cells) => line(cells, &widths),
        };
    }
    text
}

/// All cells, or name, address and why there is nothing more.
fn row(info: &InstanceInfo) -> Result<[String; 7], [String; 3]> {
    let (name, address) = (info.id.to_string(), info.url.to_string());
    match &info.state {
        State::Starting => return Err([name, address, "has not answered yet".into()]),
        State::Down { reason } => return Err([name, address, format!("down: {reason}")]),
        State::Up => {}
    }
    let device = info.devices.first();
    let models =
        info.catalogue.capabilities().models.values().map(std::collections::HashSet::len).sum::<usize>();
    Ok([
        name,
        address,
        info.version.as_deref().unwrap_or("?").to_owned(),
        device.map_or_else(|| "?".into(), |device| short(&device.name)),
        device.map_or_else(
            || "?".into(),
            |device| format!("{:.1} GiB", device.vram_total as f64 / f64::from(1 << 30)),
        ),
        info.catalogue.len().to_string(),
        models.to_string(),
    ])
}

/// `cuda:0 NVIDIA H200 : cudaMallocAsync` without its allocator.
fn short(device: &str) -> String {
    device.split(" : ").next().unwrap_or(device).chars().take(40).collect()
}

fn line<S: AsRef<str>>(cells: &[S], widths: &[usize]) -> String {
    let padded: Vec<_> =
        cells.iter().zip(widths).map(|(cell, &width)| format!("{:width$}", cell.as_ref())).collect();
    format!("{}\n", padded.join("  ").trim_end())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::comfy::Catalogue;
    use crate::config::{Instance, Url};
    use crate::fleet::board::Board;
    use crate::fleet::stats::Device;

    #[test]
    fn the_up_are_described_and_the_down_are_named() {
        let mut right = Instance::at(Url::new("gpu.lan", 8189));
        right.name = "a-rather-long-name".into();
        let board = Board::new(&[Instance::at(Url::new("127.0.0.1", 8188)), right]);
        board.update(0, |info| {
            info.state = State::Up;
            info.version = Some("0.8.0".into());
            let name = "cuda:0 NVIDIA H200 : cudaMallocAsync".into();
            let device = Device { name, kind: "cuda".into(), vram_total: 150_323_855_360, vram_free: 0 };
            info.devices = Arc::new(vec![device]);
            let classes = br#"{"VAELoader":{"input":{"required":{"vae_name":[["a.pt","b.pt"]]}}}}"#;
            info.catalogue = Arc::new(Catalogue::parse(Bytes::from_static(classes)).unwrap());
        });
        board.update(1, |info| info.state = State::Down { reason: "connection refused".into() });
        let expected = "\
INSTANCE            ADDRESS                VERSION  DEVICE              VRAM       NODES  MODELS
127.0.0.1-8188      http://127.0.0.1:8188  0.8.0    cuda:0 NVIDIA H200  140.0 GiB  1      2
a-rather-long-name  http://gpu.lan:8189    down: connection refused
";
        assert_eq!(table(&board.instances()), expected);
    }
}
