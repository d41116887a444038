//! The common exchange: a request without a body, and an answer whose length its head states.
//!
//! Most of what passes through is of this kind, so it does without hyper's client: the request is written from the client's
//! head as it is, and the answer's head is read once. Whatever is less plain, a chunked answer or a 1xx say, is hyper's to
//! read, and so is whatever looks wrong: nothing is interpreted here that could be understood in two ways.

use std::mem::MaybeUninit;

use axum::body::Body;
use bytes::Bytes;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE,
};
use hyper::{Method, Request, StatusCode};

use super::hops::{of_the_connection, of_the_front};

/// As many headers as hyper reads.
const MOST_HEADERS: usize = 100;

/// A request as it goes over the wire. It changes nothing and has no body, so it may be sent twice.
#[derive(Debug)]
pub(super) struct Plain {
    pub(super) bytes: Vec<u8>,
    pub(super) method: Method,
}

/// The head of an answer, and what its body is.
#[derive(Debug)]
pub struct Head {
    pub status: StatusCode,
    /// Those that go on to the client.
    pub headers: HeaderMap,
    /// Where the body begins.
    pub end: usize,
    pub body_bytes: u64,
    /// The connection serves another request.
    pub keep: bool,
}

impl Plain {
    /// None if this request is of another kind.
    pub(super) fn of(request: &Request<Body>, host: &HeaderValue) -> Option<Self> {
        use hyper::body::Body as _;
        if !matches!(*request.method(), Method::GET | Method::HEAD) || !request.body().is_end_stream() {
            return None;
        }
        let path = request.uri().path_and_query()?.as_str();
        if !path.starts_with('/') {
            return None;
        }
        let mut bytes = Vec::with_capacity(512 + path.len());
        for part in [request.method().as_str(), " ", path, " HTTP/1.1\r\n"] {
            bytes.extend_from_slice(part.as_bytes());
        }
        write(&mut bytes, &HOST, host);
        for (name, value) in request.headers() {
            if *name == UPGRADE || *name == TRANSFER_ENCODING {
                return None;
            }
            if *name == CONNECTION {
                kept(value)?;
            } else if *name != HOST && !of_the_connection(name.as_str()) && !of_the_front(name.as_str()) {
                write(&mut bytes, name, value);
            }
        }
        bytes.extend_from_slice(b"\r\n");
        Some(Self { bytes, method: request.method().clone() })
    }
}

fn write(bytes: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
        bytes.extend_from_slice(part);
    }
}

/// What `Connection` says of the next request; none if it says more than that.
fn kept(connection: &HeaderValue) -> Option<bool> {
    match connection.as_bytes() {
        word if word.eq_ignore_ascii_case(b"keep-alive") => Some(true),
        word if word.eq_ignore_ascii_case(b"close") => Some(false),
        _ => None,
    }
}

impl Head {
    /// Reads the head of the answer to a request of `method`. None if it is not all there, or not plain.
    pub fn read(bytes: &Bytes, method: &Method) -> Option<Self> {
        let mut fields = [const { MaybeUninit::uninit() }; MOST_HEADERS];
        let mut answer = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut answer,
            bytes,
            &mut fields,
        );
        let Ok(httparse::Status::Complete(end)) = parsed else { return None };
        let status = StatusCode::from_u16(answer.code?).ok()?;
        // Another reason is passed on by hyper.
        if answer.version != Some(1)
            || status.is_informational()
            || answer.reason != status.canonical_reason()
        {
            return None;
        }
        let mut headers = HeaderMap::with_capacity(answer.headers.len());
        let (mut length, mut keep) = (None, true);
        for field in answer.headers.iter() {
            let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
            let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value)).ok()?;
            if name == TRANSFER_ENCODING || (name == CONTENT_LENGTH && length.is_some()) {
                return None;
            }
            if name == CONTENT_LENGTH {
                length = Some(number(field.value)?);
            } else if name == CONNECTION {
                keep &= kept(&value)?;
            }
            if !of_the_connection(name.as_str()) {
                headers.append(name, value);
            }
        }
        let bodiless =
            *method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let body_bytes = if bodiless { 0 } else { length? };
        Some(Self { status, headers, end, body_bytes, keep })
    }
}

/// Digits and nothing else, and no more than a file can have; hyper keeps the largest numbers for other things.
fn number(text: &[u8]) -> Option<u64> {
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| i64::from(byte - b'0'));
    let (first, rest) = text.split_first()?;
    let sum = rest.iter().try_fold(digit(first)?, |sum, byte| sum.checked_mul(10)?.checked_add(digit(byte)?));
    sum.and_then(|sum| u64::try_from(sum).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(headers: &[(&'static str, &str)]) -> Option<String> {
        let mut request = Request::get("http://front/a%2Fb?x=%20").body(Body::empty()).unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        let plain = Plain::of(&request, &HeaderValue::from_static("gpu:8188"))?;
        Some(String::from_utf8(plain.bytes).unwrap())
    }

    #[test]
    fn a_request_is_written_as_the_instance_wants_it() {
        let headers = [
            ("host", "front"),
            ("origin", "http://front"),
            ("sec-fetch-site", "same-origin"),
            ("x-a", "1"),
            ("x-a", "2"),
            ("connection", "Keep-Alive"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("expect", "100-continue"),
        ];
        let expected = "GET /a%2Fb?x=%20 HTTP/1.1\r\nhost: gpu:8188\r\nx-a: 1\r\nx-a: 2\r\n\r\n";
        assert_eq!(written(&headers).as_deref(), Some(expected));
    }

    #[test]
    fn what_speaks_of_more_than_one_request_is_not_plain() {
        for header in [
            ("connection", "x-secret"),
            ("connection", "keep-alive, upgrade"),
            ("upgrade", "websocket"),
            ("transfer-encoding", "chunked"),
        ] {
            assert_eq!(written(&[header]), None, "{header:?}");
        }
        let post = Request::post("/").body(Body::empty()).unwrap();
        assert!(Plain::of(&post, &HeaderValue::from_static("x")).is_none());
        let with_body = Request::get("/").body(Body::from("x")).unwrap();
        assert!(Plain::of(&with_body, &HeaderValue::from_static("x")).is_none());
    }

    fn read(head: &'static str, method: &Method) -> Option<Head> {
        Head::read(&Bytes::from_static(head.as_bytes()), method)
    }

    #[test]
    fn the_head_of_an_answer_says_how_long_it_is() {
        let whole =
            "HTTP/1.1 200 OK\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
        let head = read(whole, &Method::GET).unwrap();
        assert_eq!((head.status, head.body_bytes, head.keep), (StatusCode::OK, 5, false));
        assert_eq!(&whole[head.end..], "hello");
        assert_eq!(head.headers.get_all("x-a").iter().count(), 2);
        assert!(!head.headers.contains_key(CONNECTION));
        let head = read(whole, &Method::HEAD).unwrap();
        assert_eq!((head.body_bytes, &head.headers[CONTENT_LENGTH]), (0, &HeaderValue::from_static("5")));
        let unchanged = "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n";
        let head = read(unchanged, &Method::GET).unwrap();
        assert_eq!((head.body_bytes, head.keep), (0, true));
    }

    #[test]
    fn whatever_could_be_understood_in_two_ways_is_left_to_hyper() {
        for head in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: x-a\r\n\r\n",
            "HTTP/1.1 200 Fine\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n folded\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent Length: 5\r\n\r\n",
            "nonsense\r\n\r\n",
        ] {
            assert!(read(head, &Method::GET).is_none(), "{head:?}");
        }
    }
}
