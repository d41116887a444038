//! The door: which hosts and origins a browser may come from, and whose request it is.
//!
//! ComfyUI compares `Origin` with `Host`, and only for loopback hosts. That leaves a page on another site free to post
//! prompts to a router on the network, and a name that is made to point at 127.0.0.1 (DNS rebinding) free to do
//! anything. So here, for every host:
//! - a browser must have reached the router by an address, by `localhost` or by a name in `front.allowed_hosts`;
//! - `Origin`, where there is one, must be the same host (and port, where both name one) or in `front.allowed_hosts`;
//!   `null` is refused;
//! - `Sec-Fetch-Site: cross-site` is refused, except to open a page by following a link.
//!
//! Programs send none of these headers and are not affected. Instances never see `Origin`, `Host` or `Sec-Fetch-*`.

use std::net::IpAddr;

use axum::body::Body;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, Request, StatusCode, Uri};
use sha2::{Digest, Sha256};

use super::answer::{self, Answer};
use super::body;
use crate::comfy::errors::clip;
use crate::config;

const MAX_TENANT: usize = 64;
/// Who names no user.
const DEFAULT: &str = "default";

pub(super) struct Gate {
    allowed_hosts: Vec<String>,
    /// Hash of each key and the tenant it stands for.
    keys: Vec<([u8; 32], String)>,
    /// The largest head: path and headers together.
    head_bytes: usize,
}

/// Whose request it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) tenant: String,
    /// Known by its key: sees and changes only what is its own. Without keys everybody sees everything, as in ComfyUI.
    pub(super) apart: bool,
}

impl Caller {
    pub(super) fn may_see(&self, tenant: &str) -> bool {
        !self.apart || self.tenant == tenant
    }
}

/// What the door looks at, gathered in one pass over the head. Of a header that is there twice, the first counts.
#[derive(Default)]
struct Head<'a> {
    /// As large as it was sent, give or take the spaces.
    bytes: usize,
    host: Option<&'a HeaderValue>,
    origin: Option<&'a HeaderValue>,
    site: Option<&'a HeaderValue>,
    mode: Option<&'a HeaderValue>,
    languages: Option<&'a HeaderValue>,
    user: Option<&'a HeaderValue>,
}

impl<'a> Head<'a> {
    fn of(request: &'a Request<Body>) -> Self {
        let path = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
        let mut head = Self { bytes: path, ..Self::default() };
        for (name, value) in request.headers() {
            head.bytes += name.as_str().len() + value.len() + 4;
            if let Some(place) = head.place(name) {
                place.get_or_insert(value);
            }
        }
        head
    }

    fn place(&mut self, name: &HeaderName) -> Option<&mut Option<&'a HeaderValue>> {
        match name.as_str() {
            "host" => Some(&mut self.host),
            "origin" => Some(&mut self.origin),
            "accept-language" => Some(&mut self.languages),
            "sec-fetch-site" => Some(&mut self.site),
            "sec-fetch-mode" => Some(&mut self.mode),
            "comfy-user" => Some(&mut self.user),
            _ => None,
        }
    }
}

fn text(value: &HeaderValue) -> &str {
    value.to_str().unwrap_or("?")
}

impl Gate {
    pub(super) fn new(front: &config::Front, head_bytes: usize) -> Self {
        let hash = |key: &config::ApiKey| (Sha256::digest(key.key.reveal()).into(), key.name.clone());
        Self {
            allowed_hosts: front.allowed_hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            keys: front.api_keys.iter().map(hash).collect(),
            head_bytes,
        }
    }

    /// Lets a request in, or says why not. Takes the router's own credentials out of it.
    pub(super) fn admit(&self, request: &mut Request<Body>) -> Result<Caller, Answer> {
        let head = Head::of(request);
        if head.bytes > self.head_bytes {
            return Err(head_too_large(self.head_bytes));
        }
        if let Some(why) = self.suspicious(request.method(), &head) {
            tracing::info!(why, path = clip(request.uri().path(), 200), "request refused at the door");
            return Err(answer::text(StatusCode::FORBIDDEN, why));
        }
        if self.keys.is_empty() {
            return Ok(Caller { tenant: tenant(head.user.map_or(b"", HeaderValue::as_bytes)), apart: false });
        }
        let key = take_key(request);
        let digest: Option<[u8; 32]> = key.map(|key| Sha256::digest(key).into());
        // Hashes are compared, so the time this takes tells nothing of the keys.
        match self.keys.iter().find(|(hash, _)| Some(*hash) == digest) {
            Some((_, tenant)) => Ok(Caller { tenant: tenant.clone(), apart: true }),
            None => Err(unauthorized()),
        }
    }

    fn suspicious(&self, method: &Method, head: &Head) -> Option<&'static str> {
        // Every browser names languages, and no page can stop it; `*` is what Node says.
        let languages = head.languages.is_some_and(|languages| languages != "*");
        if head.origin.is_none() && head.site.is_none() && !languages {
            return None;
        }
        let navigates = *method == Method::GET && head.mode.is_some_and(|mode| mode == "navigate");
        if head.site.is_some_and(|site| site == "cross-site") && !navigates {
            return Some("a page of another site may not use this router");
        }
        let host = head.host.map(text).unwrap_or_default().to_ascii_lowercase();
        if !self.is_own(host_name(&host)) {
            return Some("this host name is not the router's; add it to front.allowed_hosts if it is");
        }
        match head.origin.map(text) {
            Some(origin) if !self.same_origin(&origin.to_ascii_lowercase(), &host) => {
                Some("a page of another origin may not use this router; see front.allowed_hosts")
            }
            _ => None,
        }
    }

    fn is_own(&self, name: &str) -> bool {
        name.is_empty()
            || name == "localhost"
            || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
            || self.allowed_hosts.iter().any(|host| host_name(host) == name)
    }

    /// ComfyUI's comparison: by name alone where one of the two has no port.
    fn same_origin(&self, origin: &str, host: &str) -> bool {
        let Some((_, origin)) = origin.split_once("://") else { return false };
        let ported = |authority: &str| host_name(authority).len() < authority.len();
        let same = match ported(origin) && ported(host) {
            true => origin == host,
            false => host_name(origin) == host_name(host),
        };
        same || self.allowed_hosts.iter().any(|allowed| allowed == origin || allowed == host_name(origin))
    }
}

/// A client that sends too much is cut off.
fn head_too_large(limit: usize) -> Answer {
    let code = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    answer::last(answer::text(code, &format!("the head of a request may be {limit} bytes")))
}

/// Without the port.
fn host_name(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => authority,
    }
}

/// `Comfy-User` cut to what a log line and a policy can bear. It names a user; it proves nothing.
fn tenant(user: &[u8]) -> String {
    if user.is_empty() {
        return DEFAULT.to_owned();
    }
    let user = String::from_utf8_lossy(user);
    let user: String = clip(&user, MAX_TENANT).chars().filter(|c| !c.is_control()).collect();
    match user.trim() {
        "" => DEFAULT.to_owned(),
        user => user.to_owned(),
    }
}

/// `Authorization: Bearer`, or `?token=` where a browser cannot set headers. Neither is passed on to an instance.
fn take_key(request: &mut Request<Body>) -> Option<String> {
    let token = take_token(request);
    let header = request.headers_mut().remove(AUTHORIZATION);
    let bearer = header.as_ref().and_then(|value| value.to_str().ok()).and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim().to_owned())
    });
    bearer.or(token)
}

fn take_token(request: &mut Request<Body>) -> Option<String> {
    let query = request.uri().query()?;
    let (tokens, rest): (Vec<&str>, Vec<&str>) =
        query.split('&').partition(|pair| pair.split('=').next() == Some("token"));
    let token = tokens.first()?.split_once('=').map(|(_, value)| body::percent_decoded(value, true));
    let path = request.uri().path();
    let stripped = if rest.is_empty() { path.to_owned() } else { format!("{path}?{}", rest.join("&")) };
    if let Ok(uri) = stripped.parse::<Uri>() {
        *request.uri_mut() = uri;
    }
    token
}

fn unauthorized() -> Answer {
    let mut answer =
        answer::text(StatusCode::UNAUTHORIZED, "an API key is needed: Authorization: Bearer <key>");
    answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ApiKey, Secret};

    fn request(uri: &str, headers: &[(&str, &str)]) -> Request<Body> {
        let mut request = Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).unwrap()
    }

    #[test]
    fn a_head_is_bounded_by_its_path_and_headers_together() {
        let large = "x".repeat(500);
        let checked = |uri: &str, headers: &[(&str, &str)]| {
            let gate = Gate::new(&config::Front::default(), 1_000);
            gate.admit(&mut request(uri, headers)).map(drop).map_err(|refused| refused.status().as_u16())
        };
        assert_eq!(checked("/prompt", &[("x-a", &large)]), Ok(()));
        assert_eq!(checked("/prompt", &[("x-a", &large), ("x-b", &large)]), Err(431));
        assert_eq!(checked(&format!("/{large}"), &[("x-a", &large)]), Err(431));
    }

    const HEAD: usize = 32 << 10;

    fn status(front: &config::Front, headers: &[(&str, &str)]) -> u16 {
        let admitted = Gate::new(front, HEAD).admit(&mut request("/prompt", headers));
        admitted.map_or_else(|refused| refused.status().as_u16(), |_| 200)
    }

    /// The first six are ComfyUI's own answers to `Host: 127.0.0.1:18777`; `null` is refused here.
    #[test]
    fn origins_are_compared_as_comfyui_does_and_beyond() {
        let open = config::Front::default();
        let local = |origin: &str| status(&open, &[("host", "127.0.0.1:18777"), ("origin", origin)]);
        assert_eq!(local("http://evil.com"), 403);
        assert_eq!(local("http://127.0.0.1:18777"), 200);
        assert_eq!(local("http://localhost:18777"), 403);
        assert_eq!(local("http://127.0.0.1"), 200);
        assert_eq!(local("http://127.0.0.1:9"), 403);
        assert_eq!(local("null"), 403);
        assert_eq!(status(&open, &[("host", "192.168.1.7:7188"), ("origin", "http://evil.com")]), 403);
        assert_eq!(status(&open, &[("host", "[::1]:7188"), ("origin", "http://[::1]:7188")]), 200);
        assert_eq!(status(&open, &[("host", "127.0.0.1:7188"), ("sec-fetch-site", "cross-site")]), 403);
        let link =
            [("host", "127.0.0.1:7188"), ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
        assert_eq!(status(&open, &link), 200);
    }

    #[test]
    fn a_rebound_name_is_not_the_routers() {
        let open = config::Front::default();
        let evil = [("host", "evil.com:7188"), ("accept-language", "en")];
        assert_eq!(status(&open, &evil), 403);
        assert_eq!(status(&open, &[("host", "evil.com:7188"), ("origin", "http://evil.com:7188")]), 403);
        assert_eq!(status(&open, &[("host", "router:7188")]), 200, "a program may use any name");
        let named =
            config::Front { allowed_hosts: vec!["Studio.example".into()], ..config::Front::default() };
        assert_eq!(status(&named, &[("host", "studio.example:7188"), ("accept-language", "en")]), 200);
        assert_eq!(status(&named, &[("host", "127.0.0.1:7188"), ("origin", "https://studio.example")]), 200);
    }

    #[test]
    fn keys_name_the_tenant_and_go_no_further() {
        let key =
            |name: &str, key: &str| ApiKey { name: name.into(), key: Secret::new(key), ..ApiKey::default() };
        let front =
            config::Front { api_keys: vec![key("ann", "k1"), key("bob", "k 2")], ..config::Front::default() };
        let gate = Gate::new(&front, HEAD);
        let mut bearer = request("/queue", &[("authorization", "bearer k1"), ("comfy-user", "bob")]);
        assert_eq!(gate.admit(&mut bearer).unwrap(), Caller { tenant: "ann".into(), apart: true });
        assert!(!bearer.headers().contains_key(AUTHORIZATION));
        let mut socket = request("/ws?clientId=a&token=k+2&x=1", &[]);
        assert_eq!(gate.admit(&mut socket).unwrap().tenant, "bob");
        assert_eq!(socket.uri(), "/ws?clientId=a&x=1");
        for headers in [
            &[][..],
            &[("authorization", "Bearer k3")],
            &[("authorization", "Basic k1")],
            &[("authorization", "")],
        ] {
            assert_eq!(gate.admit(&mut request("/queue", headers)).unwrap_err().status(), 401);
        }
    }

    #[test]
    fn comfy_user_is_clamped() {
        assert_eq!(tenant(b""), "default");
        assert_eq!(tenant(b"  "), "default");
        assert_eq!(tenant("x".repeat(1_000).as_bytes()).len(), MAX_TENANT);
        assert_eq!(tenant(b"a\x01b"), "ab");
        assert_eq!(tenant(b"\xff"), "\u{fffd}");
    }
}
