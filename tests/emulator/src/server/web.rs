//! The stock page: the folder that ComfyUI would serve at `/`, if the instance was given one.

use std::{fs, path::Path};

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    response::IntoResponse,
};

use super::{App, files, reply};
use crate::{files::inside, server::reply::Reply};

/// What stands in for the page of an instance without a folder.
const PLACEHOLDER: &str =
    "<!doctype html><html><head><title>ComfyUI</title></head><body>emulated ComfyUI</body></html>\n";

/// `/`, which is never cached.
pub(super) async fn index(State(life): State<App>) -> Reply {
    let page = match &life.machine.config.web_root {
        Some(root) => fs::read_to_string(root.join("index.html")).ok(),
        None => Some(PLACEHOLDER.to_owned()),
    };
    let Some(page) = page else { return reply::empty(StatusCode::NOT_FOUND) };
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::PRAGMA, "no-cache"),
        (header::EXPIRES, "0"),
    ];
    (headers, page).into_response()
}

/// A file of the page, or what ComfyUI answers where there is nothing.
pub(super) async fn file(State(life): State<App>, method: Method, uri: Uri, headers: HeaderMap) -> Reply {
    let reads = method == Method::GET || method == Method::HEAD;
    let root = life.machine.config.web_root.as_deref().filter(|_| reads);
    let path = root.and_then(|root| inside(root, uri.path().trim_start_matches('/')));
    match path.filter(|path| path.is_file()) {
        Some(path) => served(&path, &headers),
        None => reply::unknown_path(method).await,
    }
}

fn served(path: &Path, headers: &HeaderMap) -> Reply {
    let mut reply = files::file(path, headers, false);
    let kind = page_type(&path.to_string_lossy());
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    reply
}

/// Unlike `/view`, the page's folder serves scripts as scripts.
fn page_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, ending)| ending) {
        "html" => "text/html",
        "js" | "mjs" => "text/javascript",
        "css" => "text/css",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "ttf" => "font/ttf",
        "ico" => "image/vnd.microsoft.icon",
        "wasm" => "application/wasm",
        _ => files::content_type(name, false),
    }
}

/// Every script below the page's `extensions`, as paths of the page.
pub(super) async fn extensions(State(life): State<App>) -> Reply {
    let Some(root) = &life.machine.config.web_root else {
        return reply::json(&["/extensions/core/clipspace.js"]);
    };
    let mut paths: Vec<String> = scripts(&root.join("extensions"))
        .into_iter()
        .filter_map(|path| Some(format!("/{}", path.strip_prefix(root).ok()?.to_str()?)))
        .collect();
    paths.sort();
    reply::json(&paths)
}

fn scripts(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let of = |path: std::path::PathBuf| match path.is_dir() {
        true => scripts(&path),
        false => vec![path],
    };
    entries.flat_map(of).filter(|path| path.extension().is_some_and(|ending| ending == "js")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_scripts_and_pictures_are_pictures() {
        assert_eq!(page_type("/a/index-B1.js"), "text/javascript");
        assert_eq!(page_type("b.svg"), "image/svg+xml");
        assert_eq!(page_type("c.map"), "application/octet-stream");
    }

    #[test]
    fn extensions_are_found_at_any_depth() {
        let root = tempfile::tempdir().expect("a folder");
        let deep = root.path().join("core/load3d");
        fs::create_dir_all(&deep).expect("folders");
        for name in ["a.js", "a.js.map", "core/load3d/b.js"] {
            fs::write(root.path().join(name), "").expect("a file");
        }
        let mut found = scripts(root.path());
        found.sort();
        assert_eq!(found, [root.path().join("a.js"), deep.join("b.js")]);
    }
}
