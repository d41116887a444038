//! The image nodes: files in, files out, frames to the websocket, and the few transforms whose result shows.

use std::fs;

use serde_json::{Value as Json, json};

use super::{
    run::{Call, Raised, Ran, generic, single, ui_images},
    value::{Kind, Value, colour, fingerprint},
};
use crate::{
    files::Place,
    picture::{Channels, Picture},
    pyjson,
    worker::execution::Frame,
};

pub(crate) fn decode(call: &Call<'_>) -> Ran {
    let Some(latent) = call.inputs.get("samples") else { return generic(call) };
    let Kind::Latent { width, height, batch } = latent.kind else { return generic(call) };
    let pictures = (0..batch).map(|at| match at {
        0 => Picture::solid(width, height, colour(latent.fingerprint)),
        _ => Picture::solid(width, height, colour(fingerprint(&(latent.fingerprint, at)))),
    });
    single(call.picture_value(pictures.collect()))
}

pub(crate) fn encode(call: &Call<'_>) -> Ran {
    let pictures = call.images("pixels");
    let (width, height) = pictures.first().map_or((512, 512), |first| (first.width, first.height));
    let kind = Kind::Latent { width, height, batch: pictures.len().max(1) as u32 };
    single(Value { fingerprint: call.fingerprint, kind })
}

pub(crate) fn transform(call: &Call<'_>) -> Ran {
    let pictures: Vec<Picture> = match call.class {
        "EmptyImage" => {
            let [_, r, g, b] = call.number("color").to_be_bytes();
            let picture = Picture::solid(call.number("width"), call.number("height"), [r, g, b]);
            vec![picture; call.number("batch_size").max(1) as usize]
        }
        "ImageScale" => {
            let (width, height) = (call.number("width"), call.number("height"));
            call.images("image").iter().map(|picture| picture.scaled(width, height)).collect()
        }
        "ImageCrop" => {
            let [x, y, width, height] = ["x", "y", "width", "height"].map(|name| call.number(name));
            call.images("image").iter().map(|picture| picture.cropped(x, y, width, height)).collect()
        }
        "ImageBatch" => [call.images("image1"), call.images("image2")].concat(),
        _ => return generic(call),
    };
    single(call.picture_value(pictures))
}

pub(crate) fn load(call: &Call<'_>) -> Result<Ran, Raised> {
    let name = call.text("image");
    let path = call.execution.life.machine.dirs.annotated(name);
    let bytes = path.as_ref().and_then(|path| fs::read(path).ok());
    let (Some(path), Some(bytes)) = (path, bytes) else {
        let message = format!("[Errno 2] No such file or directory: '{name}'");
        return Err(Raised::error("FileNotFoundError", message));
    };
    let other_format = bytes.starts_with(&[0xff, 0xd8]) || bytes.get(8..12) == Some(b"WEBP");
    let picture = match Picture::decode(&bytes) {
        Some(picture) => picture,
        None if other_format => Picture::solid(512, 512, colour(fingerprint(&bytes))),
        None => {
            let message = format!("cannot identify image file '{}'", path.display());
            return Err(Raised::error("PIL.UnidentifiedImageError", message));
        }
    };
    let value = Value { fingerprint: fingerprint(&bytes), kind: Kind::Images(vec![picture]) };
    Ok(Ran { outputs: vec![value; call.output_types.len()], ui: None })
}

pub(crate) fn save(call: &mut Call<'_>) -> Result<Ran, Raised> {
    let (place, prefix) = match call.class {
        "PreviewImage" => (Place::Temp, format!("ComfyUI_temp_{}", call.execution.letters(call.node))),
        _ => (Place::Output, call.text("filename_prefix").to_owned()),
    };
    let failed = |error: std::io::Error| Raised::error("OSError", error.to_string());
    let life = &call.execution.life;
    let prompt = pyjson::dumps(&call.execution.item.prompt);
    let info = call.execution.item.extra_data.get("extra_pnginfo").and_then(Json::as_object);
    let mut texts = vec![("prompt".to_owned(), prompt)];
    texts.extend(info.into_iter().flatten().map(|(key, value)| (key.clone(), pyjson::dumps(value))));
    let texts: Vec<(&str, &str)> = texts.iter().map(|(key, text)| (key.as_str(), text.as_str())).collect();
    let mut images = Vec::new();
    for picture in call.images("images") {
        let next = life.machine.dirs.next_output(place, &prefix).map_err(failed)?;
        fs::write(next.folder.join(next.name()), picture.png(Channels::Rgb, &texts)).map_err(failed)?;
        images.push(json!({ "filename": next.name(), "subfolder": next.subfolder, "type": place.name() }));
    }
    Ok(Ran { outputs: Vec::new(), ui: Some(ui_images(images)) })
}

/// `SaveImageWebsocket`: whole images over the preview channel, counted from 0 as its progress bar does.
pub(crate) async fn send(call: &mut Call<'_>) -> Result<Ran, Raised> {
    let pictures = call.images("images");
    let total = pictures.len() as u32;
    for (at, picture) in pictures.iter().enumerate() {
        let frame = Frame { bytes: picture.png(Channels::Rgb, &[]), png: true };
        call.execution.life.checkpoint().await;
        call.execution.progress(call.node, at as u32, total, Some(&frame))?;
    }
    Ok(Ran::default())
}

/// `GetImageSize`: says the size as progress text, which ComfyUI sends to every socket.
pub(crate) fn measure(call: &Call<'_>) -> Ran {
    let pictures = call.images("image");
    let (width, height) = pictures.first().map_or((0, 0), |first| (first.width, first.height));
    let text = format!("width: {width}, height: {height}\n batch size: {}", pictures.len());
    call.execution.progress_text(call.node, &text);
    let outputs = [json!(width), json!(height), json!(pictures.len())];
    Ran { outputs: outputs.iter().map(Value::literal).collect(), ui: None }
}

/// A sampler preview: JPEG, longest side at most 512.
pub(crate) fn preview(fingerprint: u64, width: u32, height: u32) -> Frame {
    let picture = Picture::solid(width, height, colour(fingerprint)).fitted(512);
    Frame { bytes: picture.jpeg(95), png: false }
}
