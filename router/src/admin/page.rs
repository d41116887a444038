//! A page for a quick look; everything on it comes from the JSON beside it.

use hyper::StatusCode;
use hyper::header::{CONTENT_SECURITY_POLICY, HeaderValue};

use super::{Answer, answer};

const PAGE: &str = include_str!("page.html");

pub(super) async fn page() -> Answer {
    let mut page = answer(StatusCode::OK, "text/html; charset=utf-8", PAGE);
    let only_ours =
        "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'";
    page.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(only_ours));
    page
}
