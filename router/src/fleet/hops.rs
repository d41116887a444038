//! What of a head goes on from one connection to the next: not what speaks of one of them only, nor what the front has dealt
//! with.

use axum::body::Body;
use hyper::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use hyper::{Request, Response, Uri, Version};

pub(super) fn upstream(request: &mut Request<Body>, host: &HeaderValue, websocket: bool) {
    // Origin form, byte for byte as the client encoded it: `workflows%2Fa.json` is one segment.
    if request.uri().scheme().is_some()
        && let Some(path) = request.uri().path_and_query()
    {
        *request.uri_mut() = Uri::from(path.clone());
    }
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    strip(headers, |name| of_the_connection(name) || of_the_front(name));
    if websocket {
        keep_websocket(headers);
    }
    headers.insert(HOST, host.clone());
}

pub(super) fn downstream(mut response: Response<Body>, websocket: bool) -> Response<Body> {
    strip(response.headers_mut(), of_the_connection);
    if websocket {
        keep_websocket(response.headers_mut());
    }
    response
}

/// What speaks of one connection only (RFC 9110, 7.6.1).
pub(super) fn of_the_connection(name: &str) -> bool {
    matches!(
        name,
        "connection" | "keep-alive" | "proxy-connection" | "te" | "trailer" | "transfer-encoding" | "upgrade"
    )
}

/// ComfyUI compares Origin with Host and refuses what its own page did not send; the front has made that check.
pub(super) fn of_the_front(name: &str) -> bool {
    matches!(
        name,
        "origin" | "expect" | "sec-fetch-dest" | "sec-fetch-mode" | "sec-fetch-site" | "sec-fetch-user"
    )
}

/// Removes headers, and those that `Connection` names. Few messages have any: one pass over what is there costs less than
/// asking for each.
fn strip(headers: &mut HeaderMap, goes: impl Fn(&str) -> bool) {
    let mut going: Vec<HeaderName> = headers.keys().filter(|name| goes(name.as_str())).cloned().collect();
    if going.contains(&CONNECTION) {
        let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
        let named = values.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok());
        // A client must not be able to remove the headers that the request is framed and addressed by.
        going.extend(named.filter(|name: &HeaderName| *name != CONTENT_LENGTH && *name != HOST));
    }
    for name in going {
        headers.remove(name);
    }
}

/// Of an upgrade, only a websocket's is passed on: `h2c` would open a second protocol behind the front's back.
fn keep_websocket(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}
