//! What the home instance alone answers: the page with its settings and workflows, its asset catalogue, its log; and the
//! paths that nobody answers.

use axum::body::Body;
use hyper::{Method, Request, StatusCode};

use super::answer::{self, Answer, Answered};
use super::{Call, Front, body, inert};

/// A path is decoded until it stays as it is, at most so often: ComfyUI decodes some twice.
const DECODINGS: usize = 4;
/// Where ComfyUI-Manager keeps its settings, of which one lets anybody install anything.
const MANAGER: &str = "comfyui-manager";

impl Front {
    /// `/userdata`: whatever the page keeps, but no folder of ComfyUI's own or of its manager.
    pub(super) async fn user_data(&self, call: Call) -> Answered {
        let query = call.query();
        let asked = ["dir", "path", "file"].iter().filter_map(|name| body::value(&query, name));
        let named = call.params.first().map(String::as_str).into_iter().chain(asked);
        if named.into_iter().any(is_protected) {
            let path = crate::comfy::errors::clip(call.request.uri().path(), 200);
            tracing::warn!(tenant = %call.caller.tenant, path, "settings of a server were asked for as user data");
            return Ok(answer::text(StatusCode::FORBIDDEN, "this folder belongs to the server"));
        }
        Ok(self.served_by_home(call.request).await)
    }

    /// A file of a client's that the home instance serves.
    async fn served_by_home(&self, request: Request<Body>) -> Answer {
        let reads = reads(request.method());
        let for_image = inert::is_for_image(request.headers());
        let answer = self.pass_home(request).await;
        if reads { inert::file(answer, for_image) } else { answer }
    }

    /// `/api/assets`: an instance's own catalogue of everybody's files.
    pub(super) async fn asset(&self, call: Call) -> Answered {
        if call.caller.apart {
            return Ok(denied());
        }
        Ok(self.served_by_home(call.request).await)
    }

    /// `/internal`: the log and the file lists of the home instance. They show what everybody does there.
    pub(super) async fn internal(&self, call: Call) -> Answered {
        if call.caller.apart {
            return Ok(denied());
        }
        // Names of results, which the page puts into prompts: the router knows by them who wrote the file last.
        if call.params.first().is_some_and(|rest| rest.starts_with("files/")) && reads(call.request.method())
        {
            return self.list(call).await;
        }
        Ok(self.pass_home(call.request).await)
    }
}

fn reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

pub(super) fn denied() -> Answer {
    answer::text(StatusCode::FORBIDDEN, "this path is closed here; a [[route]] with its prefix opens it")
}

pub(super) fn outside() -> Answer {
    answer::text(StatusCode::BAD_REQUEST, "the path leads out of where it begins")
}

/// Does a path of user data lead into a folder of the server's, read as loosely as any file system reads it?
fn is_protected(path: &str) -> bool {
    let mut path = path.to_owned();
    for _ in 0..DECODINGS {
        if leads_astray(&path) {
            return true;
        }
        let decoded = body::percent_decoded(&path, false);
        if decoded == path {
            return false;
        }
        path = decoded;
    }
    // Nobody encodes a name so often without a reason.
    true
}

fn leads_astray(path: &str) -> bool {
    let path = path.replace('\\', "/");
    let outside = path.split('/').any(|segment| segment == "..") || path.contains('\0');
    // `FILE/move/FILE`: the second begins anew.
    outside || path.split("/move/").any(is_servers)
}

fn is_servers(path: &str) -> bool {
    let plain = |segment: &str| {
        let segment = segment.split(':').next().unwrap_or_default();
        segment.trim_end_matches(['.', ' ']).to_ascii_lowercase()
    };
    let first = path.split('/').map(plain).find(|segment| !segment.is_empty()).unwrap_or_default();
    first == MANAGER || first.starts_with("__")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_folder_is_found_however_it_is_written() {
        for path in [
            "ComfyUI-Manager/config.ini",
            "comfyui-manager",
            "./ComfyUI-Manager/config.ini",
            "//ComfyUI-Manager/config.ini",
            "ComfyUI-Manager%2Fconfig.ini",
            "%43omfyUI-Manager%252Fconfig.ini",
            "ComfyUI-Manager\\config.ini",
            "ComfyUI-Manager. /config.ini",
            "ComfyUI-Manager::$INDEX_ALLOCATION/config.ini",
            "workflows/a.json/move/ComfyUI-Manager/config.ini",
            "__manager/config.ini",
            "workflows/../ComfyUI-Manager/config.ini",
            "..%5c..%5csecret",
            "a%00b",
            "%2525252525252541",
        ] {
            assert!(is_protected(path), "{path}");
        }
    }

    #[test]
    fn what_a_page_keeps_is_left_alone() {
        for path in [
            "workflows/a b.json",
            "workflows%2Fa.json",
            "workflows/100%.json",
            "workflows/ComfyUI-Manager.json",
            "comfy.templates.json",
            "workflows/a.json/move/workflows/b.json",
            "subgraphs/_x.json",
            "",
        ] {
            assert!(!is_protected(path), "{path}");
        }
    }
}
