//! `GET /view`: one file of input, output or temp, raw, re-encoded or by channel.

use axum::{
    extract::{Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::IntoResponse,
};
use indexmap::IndexMap;

use super::{
    App, files,
    reply::{self, Reply},
};
use crate::{
    files::{Place, annotation, inside},
    picture::{Channels, Picture},
};

pub(super) async fn view(
    State(life): State<App>,
    Query(query): Query<IndexMap<String, String>>,
    headers: HeaderMap,
) -> Reply {
    let text = |key: &str| query.get(key).map(String::as_str);
    let Some(asked) = text("filename") else { return reply::empty(StatusCode::NOT_FOUND) };
    let (name, annotated) = annotation(asked);
    if name.is_empty() || name.starts_with('/') || name.contains("..") {
        return reply::empty(StatusCode::BAD_REQUEST);
    }
    let Some(place) = annotated.or_else(|| Place::parse(text("type").unwrap_or("output"))) else {
        return reply::empty(StatusCode::BAD_REQUEST);
    };
    let folder = life.machine.dirs.place(place);
    let Some(folder) = inside(&folder, text("subfolder").unwrap_or_default()) else {
        return reply::empty(StatusCode::FORBIDDEN);
    };
    let base = name.rsplit('/').next().unwrap_or_default();
    let path = folder.join(base);
    if !path.is_file() {
        return reply::empty(StatusCode::NOT_FOUND);
    }
    let picture = || std::fs::read(&path).ok().and_then(|bytes| Picture::decode(&bytes));
    let mut reply = match (text("preview"), text("channel").unwrap_or_default()) {
        (Some(preview), channel) => encoded(picture(), |picture| preview_of(picture, preview, channel)),
        (None, "rgb") => encoded(picture(), |picture| ("image/png", picture.png(Channels::Rgb, &[]))),
        (None, "a") => encoded(picture(), |picture| ("image/png", picture.png(Channels::Alpha, &[]))),
        (None, _) => files::file(&path, &headers, life.machine.config.careless),
    };
    // The handler gives them to whatever `FileResponse` makes of it.
    if matches!(reply.status().as_u16(), 304 | 412 | 416) {
        let careless = life.machine.config.careless;
        files::set(&mut reply, header::CONTENT_TYPE, files::content_type(base, careless));
    }
    if reply.status().is_success() || matches!(reply.status().as_u16(), 304 | 412 | 416) {
        files::set(&mut reply, header::CONTENT_DISPOSITION, &format!("filename=\"{base}\""));
    }
    reply
}

/// Pillow raises on a file that it cannot read.
fn encoded(picture: Option<Picture>, encode: impl FnOnce(&Picture) -> (&'static str, Vec<u8>)) -> Reply {
    let Some(picture) = picture else { return reply::trouble() };
    let (content_type, bytes) = encode(&picture);
    ([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))], bytes).into_response()
}

fn preview_of(picture: &Picture, preview: &str, channel: &str) -> (&'static str, Vec<u8>) {
    let mut parts = preview.split(';');
    let format = parts.next().unwrap_or_default();
    let quality = parts.next_back().and_then(|last| last.parse::<u8>().ok()).unwrap_or(90);
    if format == "jpeg" && !channel.contains('a') {
        ("image/jpeg", picture.jpeg(quality))
    } else {
        ("image/webp", picture.webp())
    }
}
