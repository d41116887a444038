//! A file that the router keeps, served as ComfyUI serves files: validators, one range, conditional requests.

use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use hyper::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap,
    HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
    LAST_MODIFIED, RANGE,
};
use hyper::{Response, StatusCode};

use super::answer::{self, Answer};
use crate::assets::Kept;

/// The file `name`, or the part of it that is asked for. As in ComfyUI its name and kind are said with whatever is answered.
pub(super) async fn file(kept: &Kept, name: &str, headers: &HeaderMap) -> Answer {
    let mut answer = answered(kept, name, headers).await;
    if answer.status().is_server_error() {
        return answer;
    }
    let base = name.rsplit('/').next().unwrap_or_default().replace(['"', '\\'], "_");
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind(name)));
    set(headers, CONTENT_DISPOSITION, &format!("filename=\"{base}\""));
    answer
}

async fn answered(kept: &Kept, name: &str, headers: &HeaderMap) -> Answer {
    let validators = Validators::new(&kept.digest().to_string(), kept.at());
    if let Some(status) = validators.precondition(headers) {
        let answer = answer::status(status);
        return if status == StatusCode::NOT_MODIFIED { validators.mark(answer) } else { answer };
    }
    let (status, range) = match validators.range(headers, kept.bytes()) {
        Asked::Whole => (StatusCode::OK, 0..kept.bytes()),
        Asked::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Asked::Nothing => {
            let mut answer = answer::status(StatusCode::RANGE_NOT_SATISFIABLE);
            set(answer.headers_mut(), CONTENT_RANGE, &format!("bytes */{}", kept.bytes()));
            return answer;
        }
    };
    let body = match kept.body(range.clone()).await {
        Ok(body) => body,
        Err(error) => {
            tracing::error!(file = name, %error, "a kept file cannot be read, look at the disk of ledger.dir");
            return answer::text(StatusCode::INTERNAL_SERVER_ERROR, "the file cannot be read");
        }
    };
    let mut answer = Response::new(Body::new(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    if status == StatusCode::PARTIAL_CONTENT {
        let part = format!("bytes {}-{}/{}", range.start, range.end.saturating_sub(1), kept.bytes());
        set(headers, CONTENT_RANGE, &part);
    }
    headers.insert(CONTENT_LENGTH, range.end.saturating_sub(range.start).into());
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    validators.mark(answer)
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
        headers.insert(name, value);
    }
}

/// By the name's ending, as Python guesses it.
fn kind(name: &str) -> &'static str {
    const KINDS: [(&str, &str); 39] = [
        ("png", "image/png"),
        ("jpg", "image/jpeg"),
        ("jpeg", "image/jpeg"),
        ("webp", "image/webp"),
        ("gif", "image/gif"),
        ("bmp", "image/bmp"),
        ("tif", "image/tiff"),
        ("tiff", "image/tiff"),
        ("avif", "image/avif"),
        ("heic", "image/heic"),
        ("ico", "image/vnd.microsoft.icon"),
        ("svg", "image/svg+xml"),
        ("mp4", "video/mp4"),
        ("m4v", "video/mp4"),
        ("webm", "video/webm"),
        ("mov", "video/quicktime"),
        ("avi", "video/x-msvideo"),
        ("mkv", "video/x-matroska"),
        ("mpeg", "video/mpeg"),
        ("wav", "audio/x-wav"),
        ("mp3", "audio/mpeg"),
        ("flac", "audio/flac"),
        ("ogg", "audio/ogg"),
        ("opus", "audio/opus"),
        ("m4a", "audio/mp4"),
        ("aac", "audio/aac"),
        ("json", "application/json"),
        ("txt", "text/plain"),
        ("csv", "text/csv"),
        ("xml", "text/xml"),
        ("glb", "model/gltf-binary"),
        ("gltf", "model/gltf+json"),
        ("pdf", "application/pdf"),
        ("html", "text/html"),
        ("htm", "text/html"),
        ("xhtml", "application/xhtml+xml"),
        ("js", "text/javascript"),
        ("mjs", "text/javascript"),
        ("css", "text/css"),
    ];
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    let known = KINDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(ending));
    known.map_or("application/octet-stream", |(_, kind)| kind)
}

struct Validators {
    etag: String,
    modified: SystemTime,
}

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Whole,
    Part(Range<u64>),
    Nothing,
}

impl Validators {
    /// Whole seconds: dates in headers know no others.
    fn new(digest: &str, at_ms: u64) -> Self {
        let etag = format!("\"{}\"", &digest[..digest.len().min(32)]);
        Self { etag, modified: UNIX_EPOCH + Duration::from_secs(at_ms / 1_000) }
    }

    fn mark(&self, mut answer: Answer) -> Answer {
        let headers = answer.headers_mut();
        set(headers, ETAG, &self.etag);
        set(headers, LAST_MODIFIED, &httpdate::fmt_http_date(self.modified));
        answer
    }

    /// RFC 9110, 13.2.2, as far as files go.
    fn precondition(&self, headers: &HeaderMap) -> Option<StatusCode> {
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let date = |name: HeaderName| text(name).and_then(|text| httpdate::parse_http_date(text).ok());
        let lists = |list: &str| {
            list.split(',')
                .map(|tag| tag.trim().trim_start_matches("W/"))
                .any(|tag| tag == self.etag || tag == "*")
        };
        match (text(IF_MATCH), date(IF_UNMODIFIED_SINCE)) {
            (Some(list), _) if !lists(list) => return Some(StatusCode::PRECONDITION_FAILED),
            (None, Some(since)) if self.modified > since => return Some(StatusCode::PRECONDITION_FAILED),
            _ => {}
        }
        match (text(IF_NONE_MATCH), date(IF_MODIFIED_SINCE)) {
            (Some(list), _) => lists(list).then_some(StatusCode::NOT_MODIFIED),
            (None, Some(since)) => (self.modified <= since).then_some(StatusCode::NOT_MODIFIED),
            (None, None) => None,
        }
    }

    /// Of several ranges none is given: the whole file, which is always allowed.
    fn range(&self, headers: &HeaderMap, bytes: u64) -> Asked {
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let Some(range) = text(RANGE) else { return Asked::Whole };
        let stale = |guard: &str| match httpdate::parse_http_date(guard) {
            Ok(date) => self.modified > date,
            Err(_) => guard != self.etag,
        };
        if text(IF_RANGE).is_some_and(stale) || range.contains(',') {
            return Asked::Whole;
        }
        let Some((from, to)) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
            return Asked::Nothing;
        };
        let number =
            |text: &str| text.parse::<u64>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
        let (start, end) = match (number(from), number(to)) {
            (Some(from), Some(to)) if from <= to => (from, to.saturating_add(1).min(bytes)),
            (Some(from), None) if to.is_empty() => (from, bytes),
            (None, Some(last)) if from.is_empty() => (bytes.saturating_sub(last), bytes),
            _ => return Asked::Nothing,
        };
        if start < end { Asked::Part(start..end) } else { Asked::Nothing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: u64 = 1_700_000_000_123;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn ranges_are_cut_to_the_file() {
        let validators = Validators::new("abc", AT);
        let asked = |range: &str| validators.range(&headers(&[(RANGE, range)]), 10);
        assert_eq!(asked("bytes=0-3"), Asked::Part(0..4));
        assert_eq!(asked("bytes=4-"), Asked::Part(4..10));
        assert_eq!(asked("bytes=-3"), Asked::Part(7..10));
        assert_eq!(asked("bytes=-30"), Asked::Part(0..10));
        assert_eq!(asked("bytes=8-99"), Asked::Part(8..10));
        assert_eq!(asked("bytes=0-1,4-5"), Asked::Whole);
        for odd in [
            "bytes=10-",
            "bytes=-0",
            "bytes=5-2",
            "bytes=a-b",
            "bytes=+1-2",
            "items=0-1",
            "bytes=",
            "bytes=-",
        ] {
            assert_eq!(asked(odd), Asked::Nothing, "{odd}");
        }
        assert_eq!(validators.range(&headers(&[(RANGE, "bytes=0-")]), 0), Asked::Nothing);
    }

    #[test]
    fn a_range_of_another_version_is_the_whole_file() {
        let validators = Validators::new("abc", AT);
        let asked = |guard: &str| validators.range(&headers(&[(RANGE, "bytes=0-3"), (IF_RANGE, guard)]), 10);
        assert_eq!(asked("\"abc\""), Asked::Part(0..4));
        assert_eq!(asked("\"old\""), Asked::Whole);
        assert_eq!(asked("Tue, 14 Nov 2023 22:13:20 GMT"), Asked::Part(0..4));
        assert_eq!(asked("Tue, 14 Nov 2023 22:13:19 GMT"), Asked::Whole);
    }

    #[test]
    fn conditions_are_judged_in_their_order() {
        let validators = Validators::new("abc", AT);
        let judged =
            |pairs: &[(HeaderName, &str)]| validators.precondition(&headers(pairs)).map(|s| s.as_u16());
        assert_eq!(judged(&[(IF_NONE_MATCH, "\"x\", W/\"abc\"")]), Some(304));
        assert_eq!(
            judged(&[(IF_NONE_MATCH, "\"x\""), (IF_MODIFIED_SINCE, "Tue, 14 Nov 2099 22:13:20 GMT")]),
            None
        );
        assert_eq!(judged(&[(IF_MODIFIED_SINCE, "Tue, 14 Nov 2023 22:13:20 GMT")]), Some(304));
        assert_eq!(judged(&[(IF_MATCH, "\"x\"")]), Some(412));
        assert_eq!(judged(&[(IF_MATCH, "*")]), None);
        assert_eq!(judged(&[(IF_UNMODIFIED_SINCE, "Tue, 14 Nov 2023 22:13:19 GMT")]), Some(412));
        assert_eq!(judged(&[(IF_NONE_MATCH, "odd"), (RANGE, "x")]), None);
    }

    #[test]
    fn kinds_are_told_by_the_ending() {
        assert_eq!(kind("a.PNG"), "image/png");
        assert_eq!(kind("a.tar.webm"), "video/webm");
        // What a browser could run is said to be so, and then becomes a download.
        assert_eq!(kind("a.HTML"), "text/html");
        for none in ["a", "", "a.safetensors", "html", "a."] {
            assert_eq!(kind(none), "application/octet-stream", "{none}");
        }
    }
}
