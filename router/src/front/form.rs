//! The multipart form of an upload: its file streamed to disk, whatever its size, its few texts in memory.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures_util::Stream;
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use hyper::{Request, StatusCode};
use multer::{Constraints, Multipart, SizeLimit};

use super::answer::{self, Answer};
use crate::assets::{self, Complete, RecordError};
use crate::metrics::{self, RouteKind};

/// Of a text field.
const MAX_TEXT: u64 = 64 << 10;

/// The fields that ComfyUI reads.
#[derive(Debug, Default)]
pub struct Form {
    /// Its name as the client wrote it, and the content.
    pub image: Option<(String, Complete)>,
    pub kind: Option<String>,
    pub subfolder: String,
    pub overwrite: bool,
    pub original_ref: Option<String>,
}

/// Reads the form to its end. The last field of a name counts. Cut short, it leaves nothing.
///
/// # Errors
/// The answer to a form that is no form, or larger than `limit`.
pub async fn read(request: Request<Body>, limit: u64, assets: &assets::Handle) -> Result<Form, Answer> {
    let headers = request.headers().clone();
    let header = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if header(CONTENT_ENCODING).is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        let text = "compressed request bodies are not accepted";
        return Err(answer::text(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    }
    if header(CONTENT_LENGTH)
        .and_then(|length| length.parse::<u64>().ok())
        .is_some_and(|length| length > limit)
    {
        return Err(answer::too_large(limit));
    }
    // ComfyUI finds no image in what is no form.
    let Some(boundary) = header(CONTENT_TYPE).and_then(|kind| multer::parse_boundary(kind).ok()) else {
        return Ok(Form::default());
    };
    let sizes = SizeLimit::new().whole_stream(limit).per_field(MAX_TEXT).for_field("image", limit);
    let body = OneByOne { body: request.into_body().into_data_stream(), gave: false };
    let mut parts = Multipart::with_constraints(body, boundary, Constraints::new().size_limit(sizes));
    let mut form = Form::default();
    let broken = |error: multer::Error| refused(&error, limit);
    while let Some(mut part) = parts.next_field().await.map_err(broken)? {
        let name = part.name().unwrap_or_default().to_owned();
        if name == "image" {
            let named = part.file_name().map(str::to_owned);
            let mut recording = assets.record().await.map_err(full)?;
            while let Some(piece) = part.chunk().await.map_err(broken)? {
                metrics::http_received(RouteKind::Here, piece.len() as u64);
                recording.write(&piece).await.map_err(full)?;
            }
            let complete = recording.complete().await.map_err(full)?;
            form.image = named.map(|name| (name, complete));
            continue;
        }
        let text = part.bytes().await.map_err(broken)?;
        let text = String::from_utf8_lossy(&text).into_owned();
        match name.as_str() {
            "type" => form.kind = Some(text),
            "subfolder" => form.subfolder = text,
            "overwrite" => form.overwrite = matches!(text.as_str(), "true" | "1"),
            "original_ref" => form.original_ref = Some(text),
            _ => {}
        }
    }
    Ok(form)
}

fn refused(error: &multer::Error, limit: u64) -> Answer {
    match error {
        multer::Error::StreamSizeExceeded { .. } | multer::Error::FieldSizeExceeded { .. } => {
            answer::too_large(limit)
        }
        other => answer::last(answer::text(StatusCode::BAD_REQUEST, &format!("the form broke off: {other}"))),
    }
}

pub(super) fn full(error: RecordError) -> Answer {
    let status = match &error {
        RecordError::Name(_) => StatusCode::BAD_REQUEST,
        RecordError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        RecordError::Io(_) => StatusCode::INSUFFICIENT_STORAGE,
    };
    if status == StatusCode::INSUFFICIENT_STORAGE {
        tracing::error!(%error, "uploads cannot be kept, look at the disk of ledger.dir");
    }
    answer::last(answer::text(status, &error.to_string()))
}

/// A body that gives one piece at a time. The parser of forms takes whatever is there at once, and a client on this machine
/// sends faster than a disk writes.
struct OneByOne {
    body: BodyDataStream,
    gave: bool,
}

impl Stream for OneByOne {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if std::mem::take(&mut self.gave) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let piece = std::task::ready!(Pin::new(&mut self.body).poll_next(cx));
        self.gave = true;
        Poll::Ready(piece)
    }
}
