//! What a graph needs from an instance and how much work it looks like.

use std::collections::BTreeSet;

use super::{Graph, Input, Node};
use crate::comfy::catalogue::{Catalogue, InputKind};
use crate::comfy::files;
use crate::model::job::{ModelRef, Needs, UploadRef};

/// `outputs` are those that will run. Classes are those of all nodes, because ComfyUI refuses a prompt with an unknown
/// class anywhere; everything else is read from the nodes that the outputs depend on.
pub(super) fn of(graph: &Graph, outputs: &[String], catalogue: &Catalogue) -> Needs {
    let nodes = graph.ancestors(outputs);
    let classes: BTreeSet<&str> = graph.nodes.values().map(|node| node.class.as_str()).collect();
    let mut models = BTreeSet::new();
    let mut uploads = BTreeSet::new();
    for (_, node) in &nodes {
        collect_files(node, catalogue, &mut models, &mut uploads);
    }
    let size = size(graph, &nodes);
    Needs {
        classes: classes.into_iter().map(str::to_owned).collect(),
        models: models.into_iter().collect(),
        uploads: uploads.into_iter().collect(),
        nodes: u32::try_from(graph.nodes.len()).unwrap_or(u32::MAX),
        images: size.images,
        steps: steps(graph, &nodes),
        megapixels: size.megapixels,
        signature: signature(&nodes, catalogue),
    }
}

fn collect_files(
    node: &Node,
    catalogue: &Catalogue,
    models: &mut BTreeSet<ModelRef>,
    uploads: &mut BTreeSet<UploadRef>,
) {
    let Some(class) = catalogue.class(&node.class) else { return };
    for (name, input) in &node.inputs {
        let (Input::Text(value), Some(declared)) = (input, class.inputs.get(name)) else { continue };
        if declared.upload {
            uploads.extend(files::upload_ref(value));
        } else if let (Some(folder), InputKind::Combo(Some(choices))) = (&declared.folder, &declared.kind)
            && choices.contains(value)
        {
            models.insert(ModelRef { folder: folder.clone(), name: value.clone() });
        }
    }
}

struct Size {
    images: u32,
    megapixels: Option<f32>,
}

/// Of the node that makes the most pixels: `Empty...Latent...` nodes, `EmptyImage`.
fn size(graph: &Graph, nodes: &[(&str, &Node)]) -> Size {
    let mut best = Size { images: 1, megapixels: None };
    let mut most = 0.0;
    for (_, node) in nodes {
        let source =
            node.class.starts_with("Empty") && (node.class.contains("Latent") || node.class == "EmptyImage");
        let (Some(width), Some(height)) = (number(graph, node, "width"), number(graph, node, "height"))
        else {
            continue;
        };
        if !source || width < 1.0 || height < 1.0 {
            continue;
        }
        let batch = number(graph, node, "batch_size").unwrap_or(1.0).clamp(1.0, 65_536.0);
        let frames = number(graph, node, "length").unwrap_or(1.0).clamp(1.0, 65_536.0);
        let megapixels = (width.min(1e6) * height.min(1e6)) / 1e6;
        if batch * frames * megapixels > most {
            most = batch * frames * megapixels;
            best = Size { images: (batch * frames) as u32, megapixels: Some(megapixels as f32) };
        }
    }
    best
}

/// Summed over the nodes that count `steps`: samplers and the schedulers that feed custom samplers.
fn steps(graph: &Graph, nodes: &[(&str, &Node)]) -> Option<u32> {
    let all = nodes.iter().filter_map(|(_, node)| number(graph, node, "steps")).filter(|steps| *steps >= 1.0);
    let sum = all.fold(None, |sum, steps| Some(sum.unwrap_or(0.0) + steps.min(1e6)));
    sum.map(|sum: f64| sum as u32)
}

/// A literal number, or the `value` of the primitive node that feeds the input.
fn number(graph: &Graph, node: &Node, input: &str) -> Option<f64> {
    match node.inputs.get(input)? {
        Input::Link { node, .. } => graph.nodes.get(node)?.inputs.get("value")?.as_f64(),
        literal => literal.as_f64(),
    }
}

/// The graph's shape: classes, links, numbers, choices and model names, without seeds, texts and uploads. Node ids and
/// their order do not count. FNV-1a, because the value is stored and must be the same after an upgrade.
fn signature(nodes: &[(&str, &Node)], catalogue: &Catalogue) -> u64 {
    let classes: std::collections::HashMap<&str, &str> =
        nodes.iter().map(|(id, node)| (*id, node.class.as_str())).collect();
    nodes.iter().fold(nodes.len() as u64, |sum, (_, node)| {
        let mut hash = Fnv::new();
        hash.text(&node.class);
        let declared = catalogue.class(&node.class);
        let mut inputs: Vec<_> = node.inputs.iter().filter(|(name, _)| !is_seed(name)).collect();
        inputs.sort_by_key(|(name, _)| name.as_str());
        for (name, input) in inputs {
            hash.text(name);
            match input {
                Input::Link { node, slot } => {
                    hash.text(classes.get(node.as_str()).copied().unwrap_or_default());
                    hash.bytes(&(slot.as_f64() as u64).to_le_bytes());
                }
                Input::Number(number) => hash.bytes(&number.as_f64().to_bits().to_le_bytes()),
                Input::Bool(flag) => hash.bytes(&[u8::from(*flag)]),
                Input::Text(text) => {
                    let choice = declared
                        .and_then(|class| class.inputs.get(name))
                        .is_some_and(|input| matches!(input.kind, InputKind::Combo(_)) && !input.upload);
                    hash.text(if choice { text } else { "" });
                }
                Input::Other(_) | Input::Wrapped(_) => hash.text("?"),
            }
        }
        sum.wrapping_add(hash.0)
    })
}

fn is_seed(input: &str) -> bool {
    matches!(input, "seed" | "noise_seed" | "control_after_generate")
}

struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// With its end marked, so that `ab`, `c` and `a`, `bc` differ.
    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
        self.bytes(&[0xff]);
    }
}
