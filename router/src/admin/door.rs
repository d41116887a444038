//! Browsers at the operator's door: only pages that this listener served itself.

use std::net::IpAddr;

use axum::extract::Request;
use axum::middleware::Next;
use hyper::StatusCode;
use hyper::header::{ACCEPT_LANGUAGE, HOST, HeaderMap, ORIGIN};

use super::{Answer, error};

/// Refuses what a page elsewhere could make a browser send: another origin, or a name that was made to point here.
/// Programs send none of the headers that are looked at.
pub(super) async fn guard(request: Request, next: Next) -> Answer {
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
