//! The operator's door: a key, where one is configured; and of browsers only pages that this listener served itself.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::middleware::Next;
use hyper::StatusCode;
use hyper::header::{ACCEPT_LANGUAGE, AUTHORIZATION, HOST, HeaderMap, HeaderValue, ORIGIN, WWW_AUTHENTICATE};
use sha2::{Digest, Sha256};

use super::{Answer, error};
use crate::config::Secret;

/// What shows nothing that is anybody's: probes have no key, and the page asks for one before it asks for anything.
const OPEN: [&str; 3] = ["/", "/livez", "/readyz"];

/// The hash of the key that operators must show; none where whoever reaches the address is one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key(Option<[u8; 32]>);

impl Key {
    pub(super) fn of(secret: &Secret) -> Self {
        Self((!secret.is_empty()).then(|| Sha256::digest(secret.reveal()).into()))
    }

    fn admits(self, path: &str, headers: &HeaderMap) -> bool {
        let Some(wanted) = self.0 else { return true };
        let shown = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.split_once(' '));
        // Hashes are compared, so the time this takes tells nothing of the key.
        let right = |(scheme, key): (&str, &str)| {
            scheme.eq_ignore_ascii_case("bearer") && <[u8; 32]>::from(Sha256::digest(key.trim())) == wanted
        };
        OPEN.contains(&path) || shown.is_some_and(right)
    }
}

/// Whoever has no key is told so. A browser is refused what a page elsewhere could make it send: another origin, or a name
/// that was made to point here. Programs send none of the headers that are looked at for that.
pub(super) async fn guard(State(key): State<Key>, request: Request, next: Next) -> Answer {
    if !key.admits(request.uri().path(), request.headers()) {
        let message = "the admin key is needed: Authorization: Bearer <key> (COMFY_ROUTER_ADMIN_KEY)";
        let mut refused = error(StatusCode::UNAUTHORIZED, "unauthorized", message);
        refused.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return refused;
    }
    if foreign(request.headers()) {
        let message = "a browser must reach this by its address or as localhost, from a page served here";
        return error(StatusCode::FORBIDDEN, "foreign_page", message);
    }
    next.run(request).await
}

fn foreign(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?").to_ascii_lowercase());
    let host = text(HOST.as_str()).unwrap_or_default();
    let (origin, site) = (text(ORIGIN.as_str()), text("sec-fetch-site"));
    let browser = origin.is_some() || site.is_some() || headers.contains_key(ACCEPT_LANGUAGE);
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host.as_str(),
    };
    let own = name == "localhost" || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    let crossed = site.is_some_and(|site| site != "same-origin" && site != "none");
    let other_origin =
        origin.is_some_and(|origin| origin.split_once("://").is_none_or(|(_, from)| from != host));
    browser && (!own || crossed || other_origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(headers: &[(&'static str, &str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        foreign(&map)
    }

    #[test]
    fn orders_need_the_key_where_there_is_one() {
        let admits = |key: &str, path: &str, shown: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(shown) = shown {
                headers.insert(AUTHORIZATION, shown.parse().unwrap());
            }
            Key::of(&Secret::new(key)).admits(path, &headers)
        };
        assert!(admits("", "/api/fleet", None));
        for shown in [None, Some("Bearer"), Some("Bearer wrong"), Some("Basic right"), Some("right")] {
            assert!(!admits("right", "/api/policy/versions", shown), "{shown:?}");
            assert!(!admits("right", "/metrics", shown) && !admits("right", "//livez", shown), "{shown:?}");
            assert!(admits("right", "/livez", shown) && admits("right", "/readyz", shown), "{shown:?}");
        }
        assert!(admits("right", "/api/fleet", Some("bearer right")));
    }

    #[test]
    fn other_pages_and_rebound_names_are_refused() {
        let here = ("host", "127.0.0.1:7189");
        assert!(!refused(&[here]));
        assert!(!refused(&[("host", "router.internal:7189")]), "a program may use any name");
        assert!(!refused(&[here, ("origin", "http://127.0.0.1:7189"), ("sec-fetch-site", "same-origin")]));
        assert!(!refused(&[here, ("accept-language", "en"), ("sec-fetch-site", "none")]));
        assert!(refused(&[here, ("origin", "http://evil.com")]));
        assert!(refused(&[here, ("origin", "null")]));
        assert!(refused(&[here, ("sec-fetch-site", "cross-site")]));
        assert!(refused(&[("host", "evil.com:7189"), ("accept-language", "en")]));
    }
}
