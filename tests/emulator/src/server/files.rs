//! aiohttp's `FileResponse`: validators, one range, conditional requests.

use std::{
    fs::{self, Metadata},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header},
};

use super::reply::{self, Reply};

pub(super) fn file(path: &Path, headers: &HeaderMap, careless: bool) -> Reply {
    let (Ok(bytes), Ok(metadata)) = (fs::read(path), fs::metadata(path)) else {
        return reply::empty(StatusCode::NOT_FOUND);
    };
    let validators = Validators::of(&metadata);
    if let Some(status) = validators.precondition(headers) {
        let reply = reply::empty(status);
        return if status == StatusCode::NOT_MODIFIED { validators.mark(reply) } else { reply };
    }
    let content_type = content_type(&path.to_string_lossy(), careless);
    let mut reply = match validators.range(headers, bytes.len()) {
        Range::Whole => Response::new(Body::from(bytes)),
        Range::Part(start, end) => {
            let range = format!("bytes {start}-{}/{}", end - 1, bytes.len());
            let mut reply = Response::new(Body::from(bytes[start..end].to_vec()));
            *reply.status_mut() = StatusCode::PARTIAL_CONTENT;
            set(&mut reply, header::CONTENT_RANGE, &range);
            reply
        }
        Range::Unsatisfiable => {
            let mut reply = reply::empty(StatusCode::RANGE_NOT_SATISFIABLE);
            set(&mut reply, header::CONTENT_RANGE, &format!("bytes */{}", bytes.len()));
            return reply;
        }
    };
    set(&mut reply, header::CONTENT_TYPE, content_type);
    set(&mut reply, header::ACCEPT_RANGES, "bytes");
    validators.mark(reply)
}

pub(super) fn set(reply: &mut Reply, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
        reply.headers_mut().insert(name, value);
    }
}

/// Guessed by name; scripts and pages are served as such by a careless server only.
pub(super) fn content_type(name: &str, careless: bool) -> &'static str {
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending).to_lowercase();
    match ending.as_str() {
        "html" if careless => "text/html",
        "js" if careless => "text/javascript",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "gif" => "image/gif",
        "svg" => "image/svg+xml",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        "wav" => "audio/x-wav",
        "flac" => "audio/flac",
        "mp3" => "audio/mpeg",
        "json" => "application/json",
        "txt" => "text/plain",
        _ => "application/octet-stream",
    }
}

struct Validators {
    etag: String,
    modified: SystemTime,
}

enum Range {
    Whole,
    /// Start and end, the end excluded.
    Part(usize, usize),
    Unsatisfiable,
}

impl Validators {
    fn of(metadata: &Metadata) -> Self {
        let modified = metadata.modified().unwrap_or(UNIX_EPOCH);
        let nanos = modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        Self { etag: format!("\"{nanos:x}-{:x}\"", metadata.len()), modified }
    }

    fn mark(&self, mut reply: Reply) -> Reply {
        set(&mut reply, header::ETAG, &self.etag);
        set(&mut reply, header::LAST_MODIFIED, &httpdate::fmt_http_date(self.modified));
        reply
    }

    fn precondition(&self, headers: &HeaderMap) -> Option<StatusCode> {
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let date = |name: HeaderName| text(name).and_then(|text| httpdate::parse_http_date(text).ok());
        let lists =
            |list: &str| list.split(',').any(|tag| matches!(tag.trim(), t if t == self.etag || t == "*"));
        let whole_second = |time: SystemTime| {
            UNIX_EPOCH + Duration::from_secs(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
        };
        let modified = whole_second(self.modified);
        match (text(header::IF_MATCH), date(header::IF_UNMODIFIED_SINCE)) {
            (Some(list), _) if !lists(list) => return Some(StatusCode::PRECONDITION_FAILED),
            (None, Some(since)) if modified > since => return Some(StatusCode::PRECONDITION_FAILED),
            _ => {}
        }
        match (text(header::IF_NONE_MATCH), date(header::IF_MODIFIED_SINCE)) {
            (Some(list), _) => lists(list).then_some(StatusCode::NOT_MODIFIED),
            (None, Some(since)) => (modified <= since).then_some(StatusCode::NOT_MODIFIED),
            (None, None) => None,
        }
    }

    fn range(&self, headers: &HeaderMap, length: usize) -> Range {
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let Some(range) = text(header::RANGE) else { return Range::Whole };
        let stale = |guard: &str| match httpdate::parse_http_date(guard) {
            Ok(date) => self.modified > date + Duration::from_secs(1),
            Err(_) => guard != self.etag,
        };
        if text(header::IF_RANGE).is_some_and(stale) {
            return Range::Whole;
        }
        let Some((from, to)) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
            return Range::Unsatisfiable;
        };
        let (start, end) = match (from.parse::<usize>(), to.parse::<usize>()) {
            (Ok(from), Ok(to)) if from <= to => (from, to.saturating_add(1).min(length)),
            (Ok(from), Err(_)) if to.is_empty() => (from, length),
            (Err(_), Ok(last)) if from.is_empty() && last > 0 => (length.saturating_sub(last), length),
            _ => return Range::Unsatisfiable,
        };
        if start < end { Range::Part(start, end) } else { Range::Unsatisfiable }
    }
}
