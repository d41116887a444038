//! Reading what a client sent: bounded bodies, queries, percent-encoding.

use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use hyper::{Request, StatusCode};
use serde::de::DeserializeOwned;

use super::answer::{self, Answer};
pub(super) use crate::comfy::files::percent_encoded;
use crate::comfy::{PromptError, json};
use crate::metrics::{self, RouteKind};

/// The whole body, if it is not larger than `limit`. Nothing is decompressed: a small body could become a huge one.
pub(super) async fn read(request: Request<Body>, limit: usize, kind: RouteKind) -> Result<Bytes, Answer> {
    let encoding = request.headers().get(CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        let text = "compressed request bodies are not accepted";
        return Err(answer::text(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    }
    let announced =
        request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(answer::too_large(limit as u64));
    }
    let body = Limited::new(request.into_body(), limit).collect().await;
    let body = body.map_err(|error| match error.is::<http_body_util::LengthLimitError>() {
        true => answer::too_large(limit as u64),
        false => answer::text(StatusCode::BAD_REQUEST, "the request body broke off"),
    })?;
    let bytes = body.to_bytes();
    metrics::http_received(kind, bytes.len() as u64);
    Ok(bytes)
}

/// Counts what is sent: at once where the length is known, part by part where it is not.
pub(super) fn counted(kind: RouteKind, body: Body) -> Body {
    if let Some(length) = hyper::body::Body::size_hint(&body).exact() {
        metrics::http_sent(kind, length);
        return body;
    }
    Body::new(body.map_frame(move |frame| {
        metrics::http_sent(kind, frame.data_ref().map_or(0, Bytes::len) as u64);
        frame
    }))
}

/// A JSON body. An empty one is `None`.
pub(super) fn parsed<T: DeserializeOwned>(bytes: &[u8]) -> Result<Option<T>, Answer> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    json::parse(bytes).map(Some).map_err(|error| answer::refused(&PromptError::invalid_json(error)))
}

/// The pairs of a query, decoded as forms are.
pub(super) fn query(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).take(256);
    let split = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decoded(name, true), percent_decoded(value, true))
    };
    pairs.map(split).collect()
}

/// The first value of a name.
pub(super) fn value<'a>(query: &'a [(String, String)], name: &str) -> Option<&'a str> {
    query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// Bytes that are not UTF-8 become the replacement character; a `%` without two digits stays.
pub(super) fn percent_decoded(text: &str, plus_is_space: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = |at: usize| bytes.get(at).and_then(|digit| (*digit as char).to_digit(16));
        match (byte, hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
                continue;
            }
            (b'+', ..) if plus_is_space => out.push(b' '),
            _ => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8(out).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding_and_decoding_agree() {
        for text in ["", "a b", "ä/ö?&=+%", "~gpu0/x", "100%"] {
            assert_eq!(percent_decoded(&percent_encoded(text), true), text);
        }
        assert_eq!(percent_decoded("a+b%2x%", true), "a b%2x%");
        assert_eq!(percent_decoded("%ff", false), "\u{fffd}");
    }

    #[test]
    fn queries_are_read_as_forms_are() {
        let read = query("filename=a%20b.png&subfolder=&x&&filename=second");
        assert_eq!(value(&read, "filename"), Some("a b.png"));
        assert_eq!(value(&read, "x"), Some(""));
        assert_eq!(value(&read, "y"), None);
        assert_eq!(query(&"a&".repeat(10_000)).len(), 256);
    }

    #[tokio::test]
    async fn bodies_are_bounded_whether_announced_or_not() {
        let request = |body: Body| Request::new(body);
        assert_eq!(read(request(Body::from("12345")), 5, RouteKind::Here).await.unwrap(), "12345");
        let chunks = || {
            futures_util::stream::iter((0..10).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(b"xxxx"))))
        };
        let refused = read(request(Body::from_stream(chunks())), 20, RouteKind::Here).await.unwrap_err();
        assert_eq!(refused.status(), 413);
        let mut announced = request(Body::empty());
        announced.headers_mut().insert(CONTENT_LENGTH, "99999999999".parse().unwrap());
        assert_eq!(read(announced, 20, RouteKind::Here).await.unwrap_err().status(), 413);
        let mut packed = request(Body::from("x"));
        packed.headers_mut().insert(CONTENT_ENCODING, "gzip".parse().unwrap());
        assert_eq!(read(packed, 20, RouteKind::Here).await.unwrap_err().status(), 415);
    }
}
