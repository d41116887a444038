//! Which inputs name model files, and which name uploaded ones.
//!
//! `/object_info` lists the files but not the folder they lie in. ComfyUI's own loaders are in a table; for others a
//! list counts as one of models when a choice has a model's file ending, and its folder is told by the input's name.
//! The rule must give the same folder on every instance, so it never looks at which files a list holds.

/// Input options that ComfyUI and common packs mark uploaded files with.
pub const UPLOAD_FLAGS: [&str; 5] =
    ["image_upload", "audio_upload", "video_upload", "file_upload", "animated_image_upload"];

const ENDINGS: [&str; 9] = ["safetensors", "sft", "ckpt", "pt", "pt2", "pth", "bin", "gguf", "onnx"];

/// Inputs of ComfyUI's own classes that name a file in `input`, `output` or `temp`.
const UPLOADS: [(&str, &str); 7] = [
    ("LoadImage", "image"),
    ("LoadImageMask", "image"),
    ("LoadImageOutput", "image"),
    ("LoadLatent", "latent"),
    ("LoadAudio", "audio"),
    ("LoadVideo", "file"),
    ("Load3D", "model_file"),
];

/// Where the class decides, because the input's name alone would mislead.
const BY_CLASS: [(&str, &str, &str); 6] = [
    ("CLIPVisionLoader", "clip_name", "clip_vision"),
    ("UpscaleModelLoader", "model_name", "upscale_models"),
    ("LatentUpscaleModelLoader", "model_name", "latent_upscale_models"),
    ("ModelPatchLoader", "name", "model_patches"),
    ("DiffusersLoader", "model_path", "diffusers"),
    ("CheckpointLoader", "config_name", "configs"),
];

const BY_INPUT: [(&str, &str); 16] = [
    ("ckpt_name", "checkpoints"),
    ("unet_name", "diffusion_models"),
    ("clip_name", "text_encoders"),
    ("clip_name1", "text_encoders"),
    ("clip_name2", "text_encoders"),
    ("clip_name3", "text_encoders"),
    ("clip_name4", "text_encoders"),
    ("text_encoder", "text_encoders"),
    ("vae_name", "vae"),
    ("lora_name", "loras"),
    ("control_net_name", "controlnet"),
    ("style_model_name", "style_models"),
    ("gligen_name", "gligen"),
    ("hypernetwork_name", "hypernetworks"),
    ("photomaker_model_name", "photomaker"),
    ("audio_encoder_name", "audio_encoders"),
];

pub fn is_upload(class: &str, input: &str) -> bool {
    UPLOADS.contains(&(class, input))
}

/// The folder an input of this name would list; its own name where it is none of ComfyUI's.
pub fn folder_by_input(input: &str) -> &str {
    BY_INPUT.iter().find(|(name, _)| *name == input).map_or(input, |(_, folder)| folder)
}

/// The model folder that the choices of an input come from; none if they are not model files.
pub fn folder_of(class: &str, input: &str, choices: &[String]) -> Option<String> {
    if let Some((.., folder)) = BY_CLASS.iter().find(|(c, i, _)| (*c, *i) == (class, input)) {
        return Some((*folder).to_owned());
    }
    let known = BY_INPUT.iter().any(|(name, _)| *name == input);
    (known || choices.iter().any(|choice| is_model_file(choice))).then(|| folder_by_input(input).to_owned())
}

pub fn is_model_file(name: &str) -> bool {
    name.rsplit_once('.')
        .is_some_and(|(_, ending)| ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_from_class_then_input_then_file_ending() {
        let none: [String; 0] = [];
        assert_eq!(folder_of("CLIPVisionLoader", "clip_name", &none).as_deref(), Some("clip_vision"));
        assert_eq!(folder_of("UnetLoaderGGUF", "unet_name", &none).as_deref(), Some("diffusion_models"));
        assert_eq!(folder_of("Custom", "thing", &["A.GGUF".into()]).as_deref(), Some("thing"));
        assert_eq!(folder_of("KSampler", "sampler_name", &["euler".into()]), None);
    }
}
