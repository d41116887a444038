//! `/upload/image` and `/upload/mask`.

use std::{convert::Infallible, fs, path::PathBuf};

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
};
use bytes::Bytes;
use futures_util::stream;
use serde_json::{Value, json};

use super::{
    App,
    reply::{self, Reply},
    request::Limit,
};
use crate::{
    files::{Dirs, Place, annotation, inside},
    picture::{Channels, Picture},
};

/// The fields that the handlers read.
#[derive(Default)]
struct Form {
    image: Option<(String, Bytes)>,
    place: Option<String>,
    subfolder: String,
    overwrite: bool,
    original_ref: Option<String>,
}

pub(super) async fn image(State(life): State<App>, headers: HeaderMap, Limit(body): Limit) -> Reply {
    match form(&headers, body).await {
        Some(form) => stored(&life.machine.dirs, &form, |_, bytes| Some(bytes.to_vec()))
            .unwrap_or_else(|refusal| refusal),
        None => reply::trouble(),
    }
}

/// Stores the original's colours with the alpha of the upload. An original that is missing or not allowed means
/// that no file is written; the reply is the same.
pub(super) async fn mask(State(life): State<App>, headers: HeaderMap, Limit(body): Limit) -> Reply {
    let Some(form) = form(&headers, body).await else { return reply::trouble() };
    let original: Option<Value> =
        form.original_ref.as_deref().and_then(|text| serde_json::from_str(text).ok());
    let Some(original) = original else { return reply::trouble() };
    let merge = |dirs: &Dirs, bytes: &[u8]| {
        let original = fs::read(original_path(dirs, &original)?).ok()?;
        let merged = Picture::decode(&original)?.with_alpha_of(&Picture::decode(bytes)?);
        Some(merged.png(Channels::Rgba, &[]))
    };
    stored(&life.machine.dirs, &form, merge).unwrap_or_else(|refusal| refusal)
}

fn original_path(dirs: &Dirs, original: &Value) -> Option<PathBuf> {
    let (name, place) = annotation(original["filename"].as_str()?);
    if name.is_empty() || name.starts_with('/') || name.contains("..") {
        return None;
    }
    let place = place.or_else(|| Place::parse(original["type"].as_str().unwrap_or("output")))?;
    let folder = inside(&dirs.place(place), original["subfolder"].as_str().unwrap_or_default())?;
    Some(folder.join(name.rsplit('/').next()?)).filter(|path| path.is_file())
}

async fn form(headers: &HeaderMap, body: Bytes) -> Option<Form> {
    let content_type = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let boundary = multer::parse_boundary(content_type).ok()?;
    let mut parts = multer::Multipart::new(stream::iter([Ok::<_, Infallible>(body)]), boundary);
    let mut form = Form::default();
    while let Some(part) = parts.next_field().await.ok()? {
        let name = part.name().unwrap_or_default().to_owned();
        let file_name = part.file_name().map(str::to_owned);
        let bytes = part.bytes().await.ok()?;
        let text = || String::from_utf8_lossy(&bytes).into_owned();
        match name.as_str() {
            "image" => form.image = file_name.map(|name| (name, bytes)),
            "type" => form.place = Some(text()),
            "subfolder" => form.subfolder = text(),
            "overwrite" => form.overwrite = matches!(text().as_str(), "true" | "1"),
            "original_ref" => form.original_ref = Some(text()),
            _ => {}
        }
    }
    Some(form)
}

fn stored(
    dirs: &Dirs,
    form: &Form,
    content: impl FnOnce(&Dirs, &[u8]) -> Option<Vec<u8>>,
) -> Result<Reply, Reply> {
    let bad_request = || reply::empty(StatusCode::BAD_REQUEST);
    let place = Place::parse(form.place.as_deref().unwrap_or("input")).ok_or_else(reply::trouble)?;
    let (asked, bytes) = form.image.as_ref().filter(|(name, _)| !name.is_empty()).ok_or_else(bad_request)?;
    let folder = inside(&dirs.place(place), &form.subfolder).ok_or_else(bad_request)?;
    let (name, known) =
        if form.overwrite { (asked.clone(), false) } else { free_name(&folder, asked, bytes) };
    let path = inside(&folder, &name).ok_or_else(bad_request)?;
    if let Some(content) = (!known).then(|| content(dirs, bytes)).flatten() {
        write(&path, &content).map_err(|_| reply::trouble())?;
    }
    Ok(reply::json(&json!({ "name": name, "subfolder": form.subfolder, "type": place.name() })))
}

/// With the time as it is: the clock that the kernel dates files by is coarse, and lists are in the order of the dates.
fn write(path: &std::path::Path, content: &[u8]) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    let mut file = fs::File::create(path)?;
    std::io::Write::write_all(&mut file, content)?;
    file.set_modified(std::time::SystemTime::now())
}

/// `stem (1).ext` and so on until the name is free, or holds these very bytes (the second answer is then true).
fn free_name(folder: &std::path::Path, asked: &str, bytes: &[u8]) -> (String, bool) {
    let (stem, ending) = match asked.rfind('.') {
        Some(at) if at > 0 => asked.split_at(at),
        _ => (asked, ""),
    };
    let mut name = asked.to_owned();
    for count in 1_u32.. {
        match inside(folder, &name).filter(|path| path.exists()) {
            None => return (name, false),
            Some(path) if fs::read(&path).is_ok_and(|old| old == bytes) => return (name, true),
            Some(_) => name = format!("{stem} ({count}){ending}"),
        }
    }
    (name, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_count_up_and_equal_bytes_share_one() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("a.png"), b"one").expect("write");
        assert_eq!(free_name(dir.path(), "a.png", b"one"), ("a.png".into(), true));
        assert_eq!(free_name(dir.path(), "a.png", b"two"), ("a (1).png".into(), false));
        assert_eq!(free_name(dir.path(), "b.png", b"two"), ("b.png".into(), false));
    }
}
