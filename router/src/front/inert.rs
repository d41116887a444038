//! Files that clients brought or made, on their way to a browser: shown, never run.
//!
//! ComfyUI serves whatever was uploaded from the origin of its own page. A picture that is a program (SVG, HTML) would act
//! there as its viewer. So what a browser could run is handed out as a download, in a sandbox should it be opened after
//! all, and nothing is guessed from the bytes. SVG may be shown where a page asks for an image: it runs nothing there.

use hyper::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderName,
    HeaderValue, VARY, X_CONTENT_TYPE_OPTIONS,
};

use hyper::StatusCode;

use super::answer::Answer;

const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
const SVG: &str = "image/svg+xml";

/// What the request is for, as a browser says; no page can forge it.
pub(super) fn is_for_image(headers: &HeaderMap) -> bool {
    headers.get(SEC_FETCH_DEST).is_some_and(|dest| dest == "image")
}

/// The answer, such that no browser runs what it holds.
pub(super) fn file(mut answer: Answer, for_image: bool) -> Answer {
    // A browser takes over the headers of a 304.
    if !answer.status().is_success() && answer.status() != StatusCode::NOT_MODIFIED {
        return answer;
    }
    let headers = answer.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let kind = kind(headers);
    if harmless(&kind) {
        return answer;
    }
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.append(VARY, HeaderValue::from_static("Sec-Fetch-Dest"));
    if kind == SVG && for_image {
        return answer;
    }
    let disposition = download(headers.get(CONTENT_DISPOSITION));
    headers.insert(CONTENT_DISPOSITION, disposition);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    answer
}

/// Lower case, without parameters. Bytes that are no text are a type that nobody knows.
fn kind(headers: &HeaderMap) -> String {
    let mut kinds = headers.get_all(CONTENT_TYPE).iter();
    let first = kinds.next().and_then(|kind| kind.to_str().ok()).unwrap_or("application/octet-stream");
    if kinds.next().is_some() {
        return "several".to_owned();
    }
    first.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// With `nosniff` a browser takes these for what they say, and none of them is a program.
pub(super) fn harmless(kind: &str) -> bool {
    match kind.split_once('/') {
        Some(("image", format)) => !format.contains("xml") && !format.contains("svg"),
        Some(("video" | "audio" | "font" | "model", _)) => !kind.contains("xml"),
        Some(("text", format)) => format == "plain",
        Some(("application", format)) => matches!(format, "json" | "octet-stream"),
        _ => false,
    }
}

/// `attachment` under the name that the instance gave.
fn download(named: Option<&HeaderValue>) -> HeaderValue {
    let parameters = named.and_then(|value| {
        let text = value.to_str().ok()?;
        text.find("filename").map(|at| &text[at..])
    });
    let named = parameters.and_then(|name| HeaderValue::try_from(format!("attachment; {name}")).ok());
    named.unwrap_or_else(|| HeaderValue::from_static("attachment"))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use hyper::Response;

    use super::*;

    fn served(kind: &str, disposition: &str, for_image: bool) -> (String, String, bool) {
        let answer = Response::builder().header(CONTENT_TYPE, kind).header(CONTENT_DISPOSITION, disposition);
        let answer = file(answer.body(Body::empty()).unwrap(), for_image);
        let text = |name: HeaderName| {
            answer.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned()
        };
        assert_eq!(text(X_CONTENT_TYPE_OPTIONS), "nosniff");
        let boxed = text(CONTENT_SECURITY_POLICY).starts_with("sandbox");
        (text(CONTENT_TYPE), text(CONTENT_DISPOSITION), boxed)
    }

    #[test]
    fn pictures_videos_and_data_pass_unchanged() {
        for kind in [
            "image/png",
            "image/webp",
            "video/mp4",
            "audio/x-wav",
            "application/json",
            "application/octet-stream",
            "text/plain; charset=utf-8",
            "model/gltf-binary",
        ] {
            assert_eq!(
                served(kind, "filename=\"a.png\"", false),
                (kind.into(), "filename=\"a.png\"".into(), false)
            );
        }
    }

    #[test]
    fn what_could_run_is_a_download_in_a_sandbox() {
        for kind in [
            "text/html",
            "TEXT/HTML; charset=utf-8",
            "image/svg+xml",
            "application/xhtml+xml",
            "text/xml",
            "application/xml",
            "text/javascript",
            "application/javascript",
            "text/css",
            "application/pdf",
            "application/x-shockwave-flash",
            "multipart/x-mixed-replace",
            "image/svg",
            "",
        ] {
            let (kind, disposition, boxed) = served(kind, "filename=\"a.svg\"", false);
            assert_eq!(kind, "application/octet-stream");
            assert_eq!((disposition.as_str(), boxed), ("attachment; filename=\"a.svg\"", true));
        }
        assert_eq!(served("text/html", "inline; filename=x", false).1, "attachment; filename=x");
        assert_eq!(served("text/html", "inline", false).1, "attachment");
    }

    #[test]
    fn only_svg_may_be_shown_and_only_as_an_image() {
        assert_eq!(served("image/svg+xml", "", true), ("image/svg+xml".into(), String::new(), true));
        assert_eq!(served("text/html", "", true).0, "application/octet-stream");
    }

    #[test]
    fn two_types_are_none() {
        let answer = Response::builder().header(CONTENT_TYPE, "image/png").header(CONTENT_TYPE, "text/html");
        let answer = file(answer.body(Body::empty()).unwrap(), false);
        assert_eq!(answer.headers().get_all(CONTENT_TYPE).iter().count(), 1);
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/octet-stream");
    }
}
