//! What is sent: six clients of four tenants with habits of their own. Pure and seeded; times are offsets from the start.

use std::time::Duration;

use serde_json::{Value, json};

use super::random::Random;

/// By popularity; each client of models leans towards the first, and mostly stays with what it used last.
pub(super) const CHECKPOINTS: [&str; 5] = ["sdxl", "sd15", "dreamlike", "juggernaut", "pony"];
pub(super) const LORAS: [&str; 2] = ["detail", "sketch"];
/// How likely a client stays with its checkpoint for its next prompt.
const STICKY: f64 = 0.7;
/// Time over which the prompts arrive, for each of them: somewhat less than the fleet takes, so that a queue builds up.
const ARRIVAL_MS: f64 = 450.0;

/// One client of the public API: a websocket and prompts at given times.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Client {
    pub(super) name: &'static str,
    /// Sent as `Comfy-User`.
    pub(super) tenant: &'static str,
    /// Sent as `extra_data.comfy_router.class`.
    pub(super) class: &'static str,
    /// In the order of sending.
    pub(super) prompts: Vec<Prompt>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Prompt {
    /// Its place among all prompts.
    pub(super) index: usize,
    pub(super) at: Duration,
    pub(super) workflow: Workflow,
    /// Unlike any other prompt's: the image that comes back is known by it.
    pub(super) mark: u32,
    /// Whether the client chooses the prompt's id itself.
    pub(super) own_id: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Workflow {
    Text {
        checkpoint: &'static str,
        lora: Option<&'static str>,
        steps: u32,
        side: u32,
    },
    /// A coloured picture, scaled and inverted: no model, no GPU time to speak of.
    Plain {
        side: u32,
    },
}

impl Workflow {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Text { lora: None, .. } => "txt2img",
            Self::Text { lora: Some(_), .. } => "txt2img+lora",
            Self::Plain { .. } => "model-free",
        }
    }

    /// The models in a word or two; `-` where there are none.
    pub(super) fn models(&self) -> String {
        match self {
            Self::Text { checkpoint, lora: None, .. } => (*checkpoint).to_owned(),
            Self::Text { checkpoint, lora: Some(lora), .. } => format!("{checkpoint}+{lora}"),
            Self::Plain { .. } => "-".to_owned(),
        }
    }

    /// Width and height of its image.
    pub(super) fn side(&self) -> u32 {
        match self {
            Self::Text { side, .. } | Self::Plain { side } => *side,
        }
    }
}

impl Prompt {
    /// The graph as ComfyUI's API takes it. Every instance names its files `demo_00001_.png` and so on: the names
    /// collide on purpose.
    pub(super) fn graph(&self) -> Value {
        match &self.workflow {
            Workflow::Text { checkpoint, lora, steps, side } => {
                text_graph(checkpoint, *lora, *steps, *side, self.mark)
            }
            Workflow::Plain { side } => json!({
                "1": node("EmptyImage", json!({ "width": 64, "height": 64, "batch_size": 1, "color": self.mark })),
                "2": node("ImageScale", json!({
                    "image": ["1", 0], "upscale_method": "area", "width": side, "height": side, "crop": "disabled",
                })),
                "3": node("ImageInvert", json!({ "image": ["2", 0] })),
                "9": node("SaveImage", json!({ "images": ["3", 0], "filename_prefix": "demo" })),
            }),
        }
    }
}

fn text_graph(checkpoint: &str, lora: Option<&str>, steps: u32, side: u32, seed: u32) -> Value {
    let file = |name: &str| format!("{name}.safetensors");
    let (model, clip) = if lora.is_some() { ("2", "2") } else { ("1", "1") };
    let mut graph = json!({
        "1": node("CheckpointLoaderSimple", json!({ "ckpt_name": file(checkpoint) })),
        "3": node("CLIPTextEncode", json!({ "text": "a lighthouse at dusk", "clip": [clip, 1] })),
        "4": node("CLIPTextEncode", json!({ "text": "blurry", "clip": [clip, 1] })),
        "5": node("EmptyLatentImage", json!({ "width": side, "height": side, "batch_size": 1 })),
        "6": node("KSampler", json!({
            "model": [model, 0], "positive": ["3", 0], "negative": ["4", 0], "latent_image": ["5", 0], "seed": seed,
            "steps": steps, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
        })),
        "7": node("VAEDecode", json!({ "samples": ["6", 0], "vae": ["1", 2] })),
        "9": node("SaveImage", json!({ "images": ["7", 0], "filename_prefix": "demo" })),
    });
    if let Some(lora) = lora {
        graph["2"] = node(
            "LoraLoader",
            json!({
                "model": ["1", 0], "clip": ["1", 1], "lora_name": file(lora), "strength_model": 0.8, "strength_clip": 0.8,
            }),
        );
    }
    graph
}

fn node(class: &str, inputs: Value) -> Value {
    json!({ "class_type": class, "inputs": inputs })
}

/// What a client is like.
struct Habit {
    name: &'static str,
    tenant: &'static str,
    class: &'static str,
    /// Of all prompts, in hundredths; the last habit takes what is left.
    share: usize,
    /// How likely a prompt uses a LoRA; none: it uses no model at all.
    lora: Option<f64>,
    steps: &'static [u32],
    sides: &'static [u32],
    /// Prompts that arrive together.
    burst: usize,
}

const HABITS: [Habit; 6] = [
    Habit {
        name: "ann",
        tenant: "studio",
        class: "interactive",
        share: 14,
        lora: Some(0.2),
        steps: &[16, 20],
        sides: &[768, 1024],
        burst: 1,
    },
    Habit {
        name: "ben",
        tenant: "studio",
        class: "standard",
        share: 14,
        lora: Some(0.6),
        steps: &[20, 25],
        sides: &[1024],
        burst: 1,
    },
    Habit {
        name: "cleo",
        tenant: "lab",
        class: "standard",
        share: 14,
        lora: Some(0.0),
        steps: &[12, 20],
        sides: &[512, 768],
        burst: 2,
    },
    Habit {
        name: "dan",
        tenant: "lab",
        class: "standard",
        share: 12,
        lora: Some(0.3),
        steps: &[20],
        sides: &[768, 1024],
        burst: 1,
    },
    Habit {
        name: "catalog",
        tenant: "shop",
        class: "batch",
        share: 30,
        lora: Some(0.1),
        steps: &[12, 16],
        sides: &[768],
        burst: 9,
    },
    Habit {
        name: "icons",
        tenant: "tools",
        class: "standard",
        share: 16,
        lora: None,
        steps: &[],
        sides: &[64, 128, 256],
        burst: 3,
    },
];

/// The clients and their prompts, `prompts` in all.
pub(super) fn plan(prompts: usize, seed: u64) -> Vec<Client> {
    let mut random = Random::new(seed);
    let window_ms = prompts as f64 * ARRIVAL_MS;
    let mut planned = 0;
    let mut clients: Vec<Client> = Vec::new();
    for (at, habit) in HABITS.iter().enumerate() {
        let share = match at + 1 == HABITS.len() {
            true => prompts - planned,
            false => prompts * habit.share / 100,
        };
        let mut client =
            Client { name: habit.name, tenant: habit.tenant, class: habit.class, prompts: Vec::new() };
        client.prompts = habit.prompts(share, planned, window_ms, &mut random);
        planned += share;
        clients.push(client);
    }
    clients
}

impl Habit {
    fn prompts(&self, count: usize, first: usize, window_ms: f64, random: &mut Random) -> Vec<Prompt> {
        let mean = window_ms / count.div_ceil(self.burst).max(1) as f64;
        let mut at_ms = 0.0;
        let mut checkpoint = CHECKPOINTS[random.zipf(CHECKPOINTS.len())];
        let mut prompts = Vec::with_capacity(count);
        for place in 0..count {
            if place % self.burst == 0 {
                // Chance decides within the window; an arrival beyond it would only lengthen the run.
                at_ms = f64::min(at_ms + random.gap(mean), window_ms);
            }
            if !random.chance(STICKY) {
                checkpoint = CHECKPOINTS[random.zipf(CHECKPOINTS.len())];
            }
            let index = first + place;
            prompts.push(Prompt {
                index,
                at: Duration::from_millis(at_ms as u64),
                workflow: self.workflow(checkpoint, random),
                // A colour at the same time, which may have 24 bits.
                mark: 0x10_0000 + index as u32 * 97,
                own_id: index.is_multiple_of(2),
            });
        }
        prompts
    }

    fn workflow(&self, checkpoint: &'static str, random: &mut Random) -> Workflow {
        let side = *random.pick(self.sides);
        let Some(chance) = self.lora else { return Workflow::Plain { side } };
        let lora = random.chance(chance).then(|| *random.pick(&LORAS));
        Workflow::Text { checkpoint, lora, steps: *random.pick(self.steps), side }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn all(clients: &[Client]) -> Vec<&Prompt> {
        clients.iter().flat_map(|client| &client.prompts).collect()
    }

    #[test]
    fn a_seed_decides_everything() {
        assert_eq!(plan(120, 1), plan(120, 1));
        assert_ne!(plan(120, 1), plan(120, 2));
    }

    #[test]
    fn every_number_of_prompts_is_met_and_every_mark_is_its_own() {
        for count in [1, 2, 7, 120, 10_000] {
            let clients = plan(count, 1);
            let prompts = all(&clients);
            assert_eq!(
                prompts.iter().map(|prompt| prompt.index).collect::<Vec<_>>(),
                (0..count).collect::<Vec<_>>()
            );
            let marks: HashSet<u32> = prompts.iter().map(|prompt| prompt.mark).collect();
            assert_eq!(marks.len(), count);
            assert!(marks.iter().all(|mark| *mark <= 0xff_ffff));
        }
    }

    #[test]
    fn the_load_is_mixed() {
        let clients = plan(120, 1);
        let prompts = all(&clients);
        let used =
            |workflow: &str| prompts.iter().filter(|prompt| prompt.workflow.name() == workflow).count();
        assert!(used("txt2img") > 40 && used("txt2img+lora") > 8 && used("model-free") > 8);
        let models: HashSet<String> = prompts.iter().map(|prompt| prompt.workflow.models()).collect();
        assert!(CHECKPOINTS.iter().all(|name| models.contains(*name)), "{models:?}");
        for client in &clients {
            assert!(client.prompts.is_sorted_by_key(|prompt| prompt.at));
        }
    }

    #[test]
    fn clients_mostly_stay_with_their_checkpoint() {
        let clients = plan(1_000, 3);
        let catalog = clients.iter().find(|client| client.name == "catalog").expect("is there");
        let same = catalog.prompts.windows(2).filter(|two| {
            let checkpoint = |prompt: &Prompt| match prompt.workflow {
                Workflow::Text { checkpoint, .. } => checkpoint,
                Workflow::Plain { .. } => "",
            };
            checkpoint(&two[0]) == checkpoint(&two[1])
        });
        assert!(same.count() * 10 > catalog.prompts.len() * 6);
    }
}
