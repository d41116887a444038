//! Classes of ComfyUI itself that check inputs by code of their own (`VALIDATE_INPUTS`), which `/object_info` does not
//! tell and which switches the declared bounds and choices off. From the sources of 0.3.64 and 0.8.0.

const OWN: [(&str, &[&str]); 11] = [
    ("LoadLatent", &["latent"]),
    ("LoadImage", &["image"]),
    ("LoadImageMask", &["image"]),
    ("LoadImageOutput", &["image"]),
    ("LoadVideo", &["file"]),
    ("LoadAudio", &["audio"]),
    ("LoadImageSetNode", &["images", "resize_method"]),
    ("ComfySoftSwitchNode", &["switch", "on_false", "on_true"]),
    ("CustomCombo", &["choice"]),
    ("FluxProUltraImageNode", &["aspect_ratio"]),
    ("KlingCameraControls", &["horizontal_movement", "vertical_movement", "pan", "tilt", "roll", "zoom"]),
];

/// What loaders of uploaded files call a file that is not there.
const FILES: [(&str, &str, &str); 6] = [
    ("LoadLatent", "latent", "latent"),
    ("LoadImage", "image", "image"),
    ("LoadImageMask", "image", "image"),
    ("LoadImageOutput", "image", "image"),
    ("LoadVideo", "file", "video"),
    ("LoadAudio", "audio", "audio"),
];

pub(super) fn covers(class: &str, input: &str) -> bool {
    OWN.iter().any(|(name, inputs)| *name == class && inputs.contains(&input))
}

/// Does the class judge the types of what is linked to it?
pub(super) fn of_links(class: &str) -> bool {
    class == "TripoConversionNode"
}

/// The kind of file that an input names and that must exist when the prompt is posted.
pub(super) fn file_kind(class: &str, input: &str) -> Option<&'static str> {
    FILES.iter().find(|(name, own, _)| (*name, *own) == (class, input)).map(|(.., kind)| *kind)
}
