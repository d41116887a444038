//! ComfyUI's middlewares: the origin check and cache control; and the scripted freeze before both.

use std::{net::IpAddr, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
};
use futures_util::{StreamExt, stream};

use super::{
    App,
    reply::{self, Reply},
};

pub(super) async fn frozen(State(life): State<App>, request: Request, next: Next) -> Reply {
    life.stillness.answers_allowed().await;
    let mut reply = next.run(request).await;
    life.stillness.answers_allowed().await;
    let server = HeaderValue::from_static("Python/3.11 aiohttp/3.14.5");
    reply.headers_mut().entry(header::SERVER).or_insert(server);
    reply
}

/// The scripted break-off: the head promises the whole body, half of it comes.
pub(super) async fn broken(State(life): State<App>, request: Request, next: Next) -> Reply {
    let breaks =
        request.method() != Method::HEAD && life.machine.faults.take_broken_answer(request.uri().path());
    let reply = next.run(request).await;
    if !breaks {
        return reply;
    }
    let (mut parts, body) = reply.into_parts();
    let whole = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(whole.len()));
    let half = stream::iter([Ok(whole.slice(..whole.len() / 2))]);
    // What was written leaves before the connection does.
    let end = stream::once(async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Err(std::io::Error::other("scripted break-off"))
    });
    Reply::from_parts(parts, Body::from_stream(half.chain(end)))
}

/// Refuses a page of another origin when the server is asked as a loopback host.
pub(super) async fn origin(request: Request, next: Next) -> Reply {
    if foreign_origin(request.headers()) {
        return reply::empty(StatusCode::FORBIDDEN);
    }
    if request.method() == Method::OPTIONS {
        return reply::empty(StatusCode::OK);
    }
    next.run(request).await
}

fn foreign_origin(headers: &HeaderMap) -> bool {
    let text =
        |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).map(str::to_lowercase);
    let (Some(host), Some(origin)) = (text(header::HOST), text(header::ORIGIN)) else { return false };
    let origin = origin.split_once("://").map_or("", |(_, rest)| rest.split('/').next().unwrap_or_default());
    let (host_name, host_port) = split_port(&host);
    let (origin_name, origin_port) = split_port(origin);
    let (left, right) = match (host_port, origin_port) {
        (Some(_), Some(_)) => (host.as_str(), origin),
        _ => (host_name, origin_name),
    };
    is_loopback(host_name) && !left.is_empty() && !right.is_empty() && left != right
}

fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            (name, Some(port))
        }
        _ => (host, None),
    }
}

fn is_loopback(name: &str) -> bool {
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Judged by the path, never the query; what a handler set stays.
pub(super) async fn cache_control(request: Request, next: Next) -> Reply {
    let path = request.uri().path().to_owned();
    let mut reply = next.run(request).await;
    let raised = matches!(reply.status().as_u16(), 405 | 413 | 500);
    if let Some(value) = cache_rule(&path, reply.status()).filter(|_| !raised) {
        reply.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static(value));
    }
    reply
}

const IMAGES: [&str; 9] = [".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"];

fn cache_rule(path: &str, status: StatusCode) -> Option<&'static str> {
    let last = path.rsplit('/').next().unwrap_or_default();
    if path.ends_with(".js")
        || path.ends_with(".css")
        || (last.starts_with("index") && last.ends_with(".json"))
    {
        return Some("no-cache");
    }
    let lower = path.to_lowercase();
    if !IMAGES.iter().any(|ending| lower.ends_with(ending)) {
        return None;
    }
    match status.as_u16() {
        404 => Some("public, max-age=3600"),
        200..=206 | 301 | 308 => Some("public, max-age=86400"),
        302 | 303 | 307 => Some("no-cache"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(host: &'static str, origin: &'static str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static(host));
        headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
        foreign_origin(&headers)
    }

    #[test]
    fn origins_are_judged_as_the_server_does() {
        let host = "127.0.0.1:18777";
        assert!(refused(host, "http://evil.com"));
        assert!(!refused(host, "http://127.0.0.1:18777"));
        assert!(refused(host, "http://localhost:18777"));
        assert!(!refused(host, "http://127.0.0.1"));
        assert!(refused(host, "http://127.0.0.1:9"));
        assert!(!refused(host, "null"));
        assert!(!refused("box.example:18777", "http://evil.com"));
    }

    #[test]
    fn images_by_path_may_be_cached() {
        assert_eq!(cache_rule("/a.PNG", StatusCode::NOT_FOUND), Some("public, max-age=3600"));
        assert_eq!(cache_rule("/view", StatusCode::OK), None);
        assert_eq!(cache_rule("/x/index-1.json", StatusCode::OK), Some("no-cache"));
    }
}
