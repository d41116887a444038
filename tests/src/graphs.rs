//! Workflows and the pictures that come out of them.

use serde_json::{Value, json};

use crate::Chance;

/// One picture of one colour (`0xRRGGBB`), saved under a name that every job and every instance uses.
pub fn plain(colour: u32) -> Value {
    json!({
        "1": { "class_type": "EmptyImage",
               "inputs": { "width": 32, "height": 16, "batch_size": 1, "color": colour } },
        "2": { "class_type": "SaveImage", "inputs": { "images": ["1", 0], "filename_prefix": "ComfyUI" } },
    })
}

/// The uploaded picture of this name, saved again.
pub fn loading(upload: &str) -> Value {
    json!({
        "1": { "class_type": "LoadImage", "inputs": { "image": upload } },
        "2": { "class_type": "SaveImage", "inputs": { "images": ["1", 0], "filename_prefix": "ComfyUI" } },
    })
}

/// Text to image with one of the emulator's standard checkpoints.
pub fn diffusion(checkpoint: &str, seed: u64, steps: u32) -> Value {
    json!({
        "1": { "class_type": "CheckpointLoaderSimple", "inputs": { "ckpt_name": checkpoint } },
        "2": { "class_type": "CLIPTextEncode", "inputs": { "text": "a fox", "clip": ["1", 1] } },
        "3": { "class_type": "CLIPTextEncode", "inputs": { "text": "", "clip": ["1", 1] } },
        "4": { "class_type": "EmptyLatentImage", "inputs": { "width": 64, "height": 64, "batch_size": 1 } },
        "5": { "class_type": "KSampler", "inputs": {
            "model": ["1", 0], "seed": seed, "steps": steps, "cfg": 7.0, "sampler_name": "euler",
            "scheduler": "normal", "positive": ["2", 0], "negative": ["3", 0], "latent_image": ["4", 0],
            "denoise": 1.0 } },
        "6": { "class_type": "VAEDecode", "inputs": { "samples": ["5", 0], "vae": ["1", 2] } },
        "7": { "class_type": "SaveImage", "inputs": { "images": ["6", 0], "filename_prefix": "fox" } },
    })
}

/// So many pictures of one colour, sent over the websocket.
pub fn streamed(colour: u32, count: u32) -> Value {
    json!({
        "1": { "class_type": "EmptyImage",
               "inputs": { "width": 32, "height": 16, "batch_size": count, "color": colour } },
        "2": { "class_type": "SaveImageWebsocket", "inputs": { "images": ["1", 0] } },
    })
}

/// A picture whose size a node tells as progress text.
pub fn measured(colour: u32) -> Value {
    let mut graph = plain(colour);
    graph["3"] = json!({ "class_type": "GetImageSize", "inputs": { "image": ["1", 0] } });
    graph["4"] = json!({ "class_type": "ImageScale", "inputs": { "image": ["1", 0], "upscale_method": "area",
        "width": ["3", 0], "height": ["3", 1], "crop": "disabled" } });
    graph["2"]["inputs"]["images"] = json!(["4", 0]);
    graph
}

/// The colour of a picture's first pixel, `0xRRGGBB`.
///
/// # Panics
/// When the bytes are not a PNG in colour.
pub fn colour_of(png: &[u8]) -> u32 {
    let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
    reader.next_frame(&mut pixels).expect("pixels");
    u32::from_be_bytes([0, pixels[0], pixels[1], pixels[2]])
}

/// A small picture of one colour.
///
/// # Panics
/// Never: the picture is always the same size.
pub fn png_of(colour: u32) -> Vec<u8> {
    const SIDE: u32 = 8;
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, SIDE, SIDE);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().expect("a header");
    let [_, red, green, blue] = colour.to_be_bytes();
    writer.write_image_data(&[red, green, blue].repeat((SIDE * SIDE) as usize)).expect("pixels");
    writer.finish().expect("an end");
    bytes
}

/// A picture that does not compress, `side` pixels wide and high.
///
/// # Panics
/// Never: its size is that of its pixels.
pub fn noise(side: u32, seed: u64) -> Vec<u8> {
    let mut chance = Chance::seeded(seed);
    let pixels: Vec<u8> = (0..side * side * 3).map(|_| chance.below(256) as u8).collect();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, side, side);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().expect("a header");
    writer.write_image_data(&pixels).expect("pixels");
    writer.finish().expect("an end");
    bytes
}
