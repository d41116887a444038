//! A running router, through its admin listener.

use std::ffi::OsStr;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(30);
/// Where a component is compiled: how long that may take is the router's to say (`policy.limits.compile_s`).
const COMPILING: Duration = Duration::from_secs(15 * 60);
const MAX_BYTES: usize = 64 << 20;
/// The key of the admin listener, if it asks for one.
const KEY: &str = "COMFY_ROUTER_ADMIN_KEY";

/// One request and its answer as JSON; a refusal is an error in the router's words.
pub(super) fn ask(admin: &str, method: Method, path: &str, body: Vec<u8>) -> anyhow::Result<Value> {
    asked(admin, method, path, body, DEADLINE)
}

/// The same, where the router compiles a component before it answers.
pub(super) fn order(admin: &str, method: Method, path: &str, body: Vec<u8>) -> anyhow::Result<Value> {
    asked(admin, method, path, body, COMPILING)
}

fn asked(
    admin: &str,
    method: Method,
    path: &str,
    body: Vec<u8>,
    deadline: Duration,
) -> anyhow::Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let url = format!("http://{}{path}", admin.trim_start_matches("http://").trim_end_matches('/'));
    let mut request = Request::builder().method(method).uri(&url);
    if let Some(key) = std::env::var_os(KEY).filter(|key| !key.is_empty()) {
        request = request.header(AUTHORIZATION, bearer(&key)?);
    }
    let request =
        request.body(Full::new(Bytes::from(body))).with_context(|| format!("{admin} is no ADDRESS:PORT"))?;
    let asking = async {
        let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let answer = client.request(request).await.with_context(|| {
            format!("no router answers at {admin}; --admin names its admin listener (`admin` in its configuration)")
        })?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("{url}: {error}"))?.to_bytes();
        understood(&url, status, &body)
    };
    let late = || format!("{admin} did not answer within {} s", deadline.as_secs());
    runtime.block_on(async { tokio::time::timeout(deadline, asking).await.with_context(late)? })
}

/// The key is not shown, whatever is wrong with it.
fn bearer(key: &OsStr) -> anyhow::Result<HeaderValue> {
    let value = key.to_str().and_then(|key| HeaderValue::from_str(&format!("Bearer {key}")).ok());
    let mut value = value.with_context(|| format!("{KEY} has characters that no key may have"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn understood(url: &str, status: StatusCode, body: &[u8]) -> anyhow::Result<Value> {
    let json: Option<Value> = serde_json::from_slice(body).ok();
    if status.is_success() {
        return json
            .with_context(|| format!("{url} did not answer with JSON: is it a router's admin listener?"));
    }
    match json.as_ref().and_then(|json| json.pointer("/error/message")).and_then(Value::as_str) {
        Some(message) => bail!("{message}"),
        None => bail!("{url} answered {status}"),
    }
}

/// `name=value` pairs of those that are given, for a query.
pub(super) fn query(pairs: &[(&str, Option<&str>)]) -> String {
    let given: Vec<String> =
        pairs.iter().filter_map(|(name, value)| Some(format!("{name}={}", encoded((*value)?)))).collect();
    if given.is_empty() { String::new() } else { format!("?{}", given.join("&")) }
}

/// As a value of a query, or one segment of a path: a point too, because `..` is no name there.
pub(super) fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { (byte as char).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_asked_for_and_encoded() {
        assert_eq!(query(&[("a", None)]), "");
        assert_eq!(
            query(&[("lane", Some("a+b")), ("x", None), ("name", Some("é"))]),
            "?lane=a%2Bb&name=%C3%A9"
        );
        assert_eq!(encoded("a/b c?é"), "a%2Fb%20c%3F%C3%A9");
        assert_eq!(encoded(".."), "%2E%2E");
    }

    #[test]
    fn a_key_that_no_header_may_have_is_named_and_not_shown() {
        assert_eq!(bearer(OsStr::new("k")).unwrap(), "Bearer k");
        let wrong = bearer(OsStr::new("secret\r")).unwrap_err().to_string();
        assert_eq!(wrong, "COMFY_ROUTER_ADMIN_KEY has characters that no key may have");
    }

    #[test]
    fn a_refusal_is_told_in_the_routers_words() {
        let body = br#"{"error":{"type":"refused","message":"there is no version to return to"}}"#;
        let refused = understood("u", StatusCode::CONFLICT, body).unwrap_err();
        assert_eq!(refused.to_string(), "there is no version to return to");
        assert!(understood("u", StatusCode::OK, b"<html>").is_err());
    }
}
